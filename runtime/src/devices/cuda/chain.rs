//! Elementwise operations on GPUs: every one is a chain of at least one step, and every chain one kernel.
//!
//! Chains whose results nothing but variables take, as those of an optimizer are, wait until everything else is
//! launched ([`wait`]). Those of the same steps then run as one launch over all parameters ([`together`]).

use super::lower::{Lower, Lowering, Refused};
use super::narrow::sixteen;
use super::norm::leave;
use super::storage::rounding;
use crate::devices::view::View;
use crate::graph::{DType, Value};
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::ops::elementwise::BinaryKind;
use crate::ops::leaf::Fill;
use mobilis_cuda::chain::{self, Input, Kind, Member, alike, chain, many};
use mobilis_cuda::gemm::Element;
use mobilis_cuda::quantize::recast;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// An operation that was not fused with others.
pub fn single(op: &Op, cx: &mut Lower) -> Lowering {
    let inputs = cx.inputs();
    let args = (0..inputs as u16).collect();
    let ty = cx.output_type(0);
    lower(&Chain::single(inputs, vec![Step { op: op.clone(), args, ty }]), cx)
}

fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::F32,
        DType::I32 => Kind::I32,
        DType::Bool => Kind::U8,
    }
}

/// What a chain of roundings alone rounds to.
fn rounds(op: &Chain) -> Option<Element> {
    let ([_], 1) = (op.results.as_slice(), op.inputs) else { return None };
    let mut to = op.steps.iter().map(|s| rounding(&s.op));
    let first = to.next()??;
    to.all(|t| t == Some(first)).then_some(first)
}

/// Whether a chain is the sum of its two inputs.
fn adds(op: &Chain) -> bool {
    let [Step { op: Op::Binary(step), args, .. }] = op.steps.as_slice() else { return false };
    op.inputs == 2
        && step.kind == BinaryKind::Add
        && args.len() == 2
        && args[0] != args[1]
        && args.iter().all(|a| *a < 2)
}

/// Rounding that changes nothing, for the values are such numbers or were stored as such, is another name of the same place;
/// other rounding to 16 bits is a kernel ahead of time. False for what is neither.
fn round(element: Element, cx: &mut Lower) -> Result<bool, Refused> {
    let view = cx.as_stored(0);
    let (stored, planned) = (cx.element(&view), cx.planned(0));
    let same = view.sizes == cx.output_sizes(0);
    // What the model stores so is read from there.
    let model = cx.stored(0).is_some_and(|s| s.element == element);
    let lies = stored == element || model || (planned.is_none() && sixteen(0, cx) == Some(element));
    if same && lies && cx.home(0).is_none() && !cx.is_updated(view.slot) {
        cx.output_as(0, view);
        return Ok(true);
    }
    let Some(planned) = planned.filter(|p| *p == element && same && view.is_contiguous()) else { return Ok(false) };
    let (from, to) = (cx.address(&view), cx.small(0, planned));
    cx.launch(recast((from, stored), (to, planned), view.count())?);
    Ok(true)
}

pub fn lower(op: &Chain, cx: &mut Lower) -> Lowering {
    if let Some(element) = rounds(op)
        && round(element, cx)?
    {
        return Ok(());
    }
    let sizes = cx.output_sizes(0).to_vec();
    let views: Vec<View> = (0..op.inputs).map(|i| cx.as_stored(i)).collect();
    if adds(op) && leave(&views, cx) {
        return Ok(());
    }
    let elements: Vec<Element> = views.iter().map(|v| cx.element(v)).collect();
    // Whether an input is read where an output of this storage would be written, value for value.
    let aligned = |i: usize, dtype: DType, element: Element| {
        let v = &views[i];
        let same = v.dtype == dtype && elements[i] == element && v.sizes == sizes;
        same && dtype != DType::Bool && v.offset == 0 && v.is_contiguous()
    };
    let (mut outputs, mut taken) = (vec![], vec![]);
    for (port, result) in op.results.iter().enumerate() {
        let (dtype, element) = (cx.output_dtype(port), cx.planned(port).unwrap_or_default());
        // A variable is written in place if what reads it here reads each value where it is written.
        if let Some(home) = cx.home(port)
            && (0..views.len()).any(|i| views[i].slot == home && !aligned(i, dtype, element))
        {
            cx.leave_home(port);
        }
        // The output may take the place of an input of the same bytes that no other input shares.
        let heir = (0..views.len()).find(|i| {
            let alone = || (0..views.len()).all(|k| k == *i || views[k].slot != views[*i].slot);
            !taken.contains(i) && aligned(*i, dtype, element) && alone()
        });
        taken.extend(heir);
        outputs.push((*result, cx.output_planned(port, heir)));
    }
    if wait(op, &views, &outputs, &sizes, cx)? {
        return Ok(());
    }
    emit(op, &views, &outputs, &sizes, cx)
}

/// A chain that has not been launched yet.
pub struct Waiting {
    steps: Vec<chain::Step>,
    member: Member,
    slots: Vec<u32>,
}

/// Keeps a chain for [`together`], where nobody but variables takes its results and no variable that it reads, but its own,
/// is written before then.
fn wait(op: &Chain, views: &[View], outputs: &[To], sizes: &[usize], cx: &mut Lower) -> Result<bool, Refused> {
    let homes: Option<Vec<u32>> = (0..outputs.len()).map(|port| cx.home(port)).collect();
    let Some(homes) = homes else { return Ok(false) };
    let taken = (0..outputs.len()).any(|port| cx.is_read(Value { node: cx.node, port: port as u16 }));
    let moves = |view: &View| cx.is_updated(view.slot) && !homes.contains(&view.slot);
    if taken || views.iter().any(moves) {
        return Ok(false);
    }
    let steps = op.steps.iter().map(|s| step(s, cx)).collect::<Result<Vec<_>, String>>()?;
    let positions = steps.iter().any(|s| matches!(s.op, chain::Op::Iota(_) | chain::Op::Size(_)));
    let outputs = outputs.iter().map(|(step, to)| (*step, cx.address(to))).collect();
    let member = Member { inputs: inputs(views, sizes, cx), outputs, sizes: sizes.to_vec() };
    if positions || alike(&member).is_none() {
        return Ok(false);
    }
    let slots = views.iter().map(|v| v.slot).collect();
    let (steps, member) = canonical(&steps, member);
    cx.waiting.push(Waiting { steps, member, slots });
    Ok(true)
}

/// The chain with results ordered by what they are, and inputs and steps by who reads them first: fusing leaves them in the
/// order of the nodes that there were, which differs from parameter to parameter.
fn canonical(steps: &[chain::Step], member: Member) -> (Vec<chain::Step>, Member) {
    let first = member.inputs.len();
    let mut hashes: Vec<u64> = vec![];
    for step in steps {
        let mut hash = DefaultHasher::new();
        format!("{:?} {:?}", step.op, step.kind).hash(&mut hash);
        for arg in &step.args {
            (*arg as usize).checked_sub(first).map(|s| hashes[s]).hash(&mut hash);
        }
        hashes.push(hash.finish());
    }
    let mut outputs = member.outputs;
    outputs.sort_by_key(|o| hashes[o.0 as usize]);
    // Numbers of inputs and steps, in the order in which they are met, each step after its operands.
    let (mut met, mut done) = (vec![], vec![]);
    let mut open: Vec<(usize, bool)> = outputs.iter().rev().map(|o| (first + o.0 as usize, false)).collect();
    while let Some((value, ready)) = open.pop() {
        match value.checked_sub(first) {
            None if !met.contains(&value) => met.push(value),
            Some(s) if ready && !done.contains(&s) => done.push(s),
            Some(s) if !ready && !done.contains(&s) => {
                open.push((value, true));
                open.extend(steps[s].args.iter().rev().map(|a| (*a as usize, false)));
            }
            _ => {}
        }
    }
    let place = |all: &[usize], v: usize| all.iter().position(|m| *m == v).expect("it was met") as u16;
    let number = |v: usize| match v.checked_sub(first) {
        None => place(&met, v),
        Some(s) => met.len() as u16 + place(&done, s),
    };
    let renamed = |s: &usize| chain::Step {
        args: steps[*s].args.iter().map(|a| number(*a as usize)).collect(),
        ..steps[*s].clone()
    };
    let all = done.iter().map(renamed).collect();
    outputs.iter_mut().for_each(|o| o.0 = place(&done, o.0 as usize));
    let inputs = met.iter().map(|i| member.inputs[*i].clone()).collect();
    (all, Member { inputs, outputs, ..member })
}

/// Launches the chains that wait, all of the same steps at once.
pub fn together(cx: &mut Lower) -> Lowering {
    let mut waiting = std::mem::take(&mut cx.waiting);
    waiting.iter().flat_map(|w| &w.slots).for_each(|slot| cx.touch(*slot));
    while let Some(first) = waiting.first() {
        let (steps, key) = (first.steps.clone(), alike(&first.member));
        let same = |w: &Waiting| w.steps == steps && alike(&w.member) == key;
        let (now, later): (Vec<Waiting>, Vec<Waiting>) = waiting.into_iter().partition(same);
        waiting = later;
        let members: Vec<Member> = now.into_iter().map(|w| w.member).collect();
        cx.launch(match members.as_slice() {
            [one] => chain(&one.inputs, &steps, &one.outputs, &one.sizes)?,
            all => many(&steps, all)?,
        });
    }
    Ok(())
}

/// A result: the number of a step, and its place.
pub type To = (u16, View);

/// Adds the launch of a chain over inputs that lie anywhere, to results by number, each as it is stored.
pub fn emit(op: &Chain, views: &[View], outputs: &[To], sizes: &[usize], cx: &mut Lower) -> Lowering {
    let mut steps = op.steps.iter().map(|s| step(s, cx)).collect::<Result<Vec<_>, String>>()?;
    let mut places = vec![];
    for (result, to) in outputs {
        let stored = stored(to, cx);
        let mut result = *result;
        if stored.narrow() {
            steps.push(chain::Step { op: chain::Op::Cast, args: vec![op.inputs as u16 + result], kind: stored });
            result = steps.len() as u16 - 1;
        }
        places.push((result, cx.address(to)));
    }
    cx.launch(chain(&inputs(views, sizes, cx), &steps, &places, sizes)?);
    Ok(())
}

/// How the values of a view are stored.
fn stored(view: &View, cx: &Lower) -> Kind {
    match cx.element(view) {
        Element::Bf16 => Kind::Bf16,
        Element::F16 => Kind::F16,
        _ => kind(view.dtype),
    }
}

/// Inputs over the positions of results.
fn inputs(views: &[View], sizes: &[usize], cx: &Lower) -> Vec<Input> {
    let input = |view: &View| {
        let mut strides = vec![0; sizes.len() - view.strides.len()];
        strides.extend(&view.strides);
        Input { at: cx.address(view), kind: stored(view, cx), strides }
    };
    views.iter().map(input).collect()
}

fn step(step: &Step, cx: &Lower) -> Result<chain::Step, String> {
    let op = match &step.op {
        Op::Constant(c) => match &c.fill {
            Fill::Number(v) => chain::Op::Constant(*v),
            Fill::Size(e) => chain::Op::Size(cx.extent(e)? as f64),
        },
        Op::Iota(op) => chain::Op::Iota(op.axis),
        Op::Unary(op) => chain::Op::Call(op.kind.name()),
        Op::Binary(op) => chain::Op::Call(op.kind.name()),
        Op::Compare(op) => chain::Op::Call(op.kind.name()),
        Op::Select(_) => chain::Op::Select,
        Op::Cast(_) => chain::Op::Cast,
        other => return Err(format!("`{}` is not elementwise", other.rule().name())),
    };
    Ok(chain::Step { op, args: step.args.clone(), kind: kind(step.ty.dtype) })
}
