//! Elementwise operations on the CPU: every one is a chain of at least one step.

use super::lower::Lower;
use super::view::View;
use crate::graph::{DType, Extent};
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::ops::elementwise::{BinaryKind, CompareKind, UnaryKind};
use crate::ops::leaf::Fill;
use mobilis_kernels::cpu::chain::{
    Arg, BinaryOp, Code, CompareOp, FLOATS, INPUTS, INTS, Ins, Kind, Layout, Pair, RESULTS, Reg, Source, Target,
    UnaryF, run,
};
use mobilis_kernels::memory::{Memory, Piece, Read, Write};

/// A constant or iota that some other family reads as an array.
pub fn source(op: &Op, cx: &mut Lower) -> Result<(), String> {
    single(op, cx)
}

/// An operation that was not fused with others.
pub fn single(op: &Op, cx: &mut Lower) -> Result<(), String> {
    let inputs = cx.inputs();
    let args = (0..inputs as u16).collect();
    let ty = cx.output_type(0);
    lower(&Chain::single(inputs, vec![Step { op: op.clone(), args, ty }]), cx)
}

pub fn storage(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::F32,
        DType::I32 => Kind::I32,
        DType::Bool => Kind::U8,
    }
}

pub fn lower(chain: &Chain, cx: &mut Lower) -> Result<(), String> {
    if chain.inputs > INPUTS || chain.results.len() > RESULTS {
        return Err("a fused chain has too many inputs or results".into());
    }
    let sizes = cx.output_sizes(0).to_vec();
    let views: Vec<_> = (0..chain.inputs).map(|i| cx.view(i)).collect();
    let layouts: Vec<Layout> = views.iter().map(|v| layout(v, &sizes)).collect();
    let dtypes: Vec<DType> = (0..chain.inputs).map(|i| cx.input_dtype(i)).collect();
    let code = assemble(chain, &dtypes, &sizes, &|e| cx.extent(e))?;

    // Whether an input is as an output of this storage would be in its place.
    let aligned = |i: usize, dtype: DType| {
        let v = &views[i];
        v.dtype == dtype && dtype != DType::Bool && v.sizes == sizes && v.offset == 0 && v.is_contiguous()
    };
    let mut outs = vec![];
    let mut taken = vec![];
    for port in 0..chain.results.len() {
        let dtype = cx.output_dtype(port);
        // A variable is written in place if what reads it here reads each value where it is written.
        if let Some(home) = cx.home(port)
            && (0..views.len()).any(|i| views[i].slot == home && !aligned(i, dtype))
        {
            cx.leave_home(port);
        }
        // The output may take the place of an input of the same bytes that no other input shares.
        let heir = (0..views.len()).find(|i| {
            let alone = || (0..views.len()).all(|k| k == *i || views[k].slot != views[*i].slot);
            !taken.contains(i) && aligned(*i, dtype) && alone()
        });
        taken.extend(heir);
        outs.push((cx.output_in_place(port, heir), storage(dtype)));
    }
    let pieces: Vec<(Piece, Kind)> = views
        .iter()
        .zip(&layouts)
        .map(|(v, l)| (Piece { slot: v.slot, offset: v.offset, len: l.reach() }, storage(v.dtype)))
        .collect();
    if outs.iter().any(|o| o.0.len == 0) {
        return Ok(());
    }
    cx.task(move |m| execute(m, &code, &layouts, &pieces, &outs));
    Ok(())
}

/// A borrowed input of any storage.
pub enum Input<'m> {
    F32(Read<'m, f32>),
    I32(Read<'m, i32>),
    U8(Read<'m, u8>),
    Out(usize),
}

impl<'m> Input<'m> {
    pub fn borrow(m: &'m Memory, (piece, kind): (Piece, Kind)) -> Input<'m> {
        match kind {
            Kind::F32 => Input::F32(m.f32(piece)),
            Kind::I32 => Input::I32(m.i32(piece)),
            Kind::U8 => Input::U8(m.u8(piece)),
        }
    }

    pub fn source(&self) -> Source<'_> {
        match self {
            Input::F32(s) => Source::F32(s),
            Input::I32(s) => Source::I32(s),
            Input::U8(s) => Source::U8(s),
            Input::Out(port) => Source::Out(*port),
        }
    }
}

/// A borrowed output of any storage.
pub enum Output<'m> {
    F32(Write<'m, f32>),
    I32(Write<'m, i32>),
    U8(Write<'m, u8>),
}

impl<'m> Output<'m> {
    pub fn borrow(m: &'m Memory, (piece, kind): (Piece, Kind)) -> Output<'m> {
        match kind {
            Kind::F32 => Output::F32(m.f32_mut(piece)),
            Kind::I32 => Output::I32(m.i32_mut(piece)),
            Kind::U8 => Output::U8(m.u8_mut(piece)),
        }
    }

    pub fn target<'a>(output: &'a mut Option<Output<'m>>) -> Target<'a> {
        match output {
            Some(Output::F32(t)) => Target::F32(t),
            Some(Output::I32(t)) => Target::I32(t),
            Some(Output::U8(t)) => Target::U8(t),
            None => Target::U8(&mut []),
        }
    }
}

fn execute(m: &Memory, code: &Code, layouts: &[Layout], pieces: &[(Piece, Kind)], outs: &[(Piece, Kind)]) {
    let inputs: [Option<Input>; INPUTS] = std::array::from_fn(|i| {
        let (piece, kind) = pieces.get(i)?;
        let own = outs.iter().position(|o| o.1 != Kind::U8 && *kind != Kind::U8 && m.same(*piece, o.0));
        Some(own.map_or_else(|| Input::borrow(m, (*piece, *kind)), Input::Out))
    });
    let sources: [Source; INPUTS] =
        std::array::from_fn(|i| inputs[i].as_ref().map_or(Source::Out(0), |input| input.source()));
    let mut outputs: [Option<Output>; RESULTS] =
        std::array::from_fn(|i| outs.get(i).map(|out| Output::borrow(m, *out)));
    let mut targets = outputs.each_mut().map(Output::target);
    run(m.pool(), code, layouts, &sources[..pieces.len()], &mut targets[..outs.len()]);
}

/// How a view's values lie over an output of these sizes.
pub fn layout(view: &View, sizes: &[usize]) -> Layout {
    let mut strides = vec![0; sizes.len() - view.strides.len()];
    strides.extend(&view.strides);
    Layout::new(sizes, &strides, 0)
}

/// Registers of one file.
struct File {
    used: Vec<bool>,
}

impl File {
    fn take(&mut self) -> Result<Reg, String> {
        let free = self.used.iter().position(|u| !u).ok_or("a fused chain needs too many registers")?;
        self.used[free] = true;
        Ok(free as Reg)
    }
}

/// The instructions of a chain over an output of these sizes.
pub fn assemble(
    chain: &Chain,
    inputs: &[DType],
    sizes: &[usize],
    extent: &dyn Fn(&Extent) -> Result<usize, String>,
) -> Result<Code, String> {
    // What is joined lives longer, so a chain that just fits may not when joined.
    assemble_as(chain, &pairs(chain), inputs, sizes, extent)
        .or_else(|_| assemble_as(chain, &vec![Joined::Alone; chain.steps.len()], inputs, sizes, extent))
}

fn assemble_as(
    chain: &Chain,
    joined: &[Joined],
    inputs: &[DType],
    sizes: &[usize],
    extent: &dyn Fn(&Extent) -> Result<usize, String>,
) -> Result<Code, String> {
    let last = last_uses(chain, joined);
    let mut floats = File { used: vec![false; FLOATS] };
    let mut ints = File { used: vec![false; INTS] };
    let kinds: Vec<Kind> = inputs.iter().map(|d| storage(*d)).collect();
    let mut code = Code::new(&kinds);
    // Where each input and each step's value is, and which are registers to give back.
    let mut places: Vec<Option<(Arg, DType)>> =
        inputs.iter().enumerate().map(|(i, d)| Some((Arg::input(i), *d))).collect();
    places.resize(chain.inputs + chain.steps.len(), None);
    let mut regs: Vec<Option<Reg>> = vec![None; places.len()];
    for (i, step) in chain.steps.iter().enumerate() {
        if joined[i] == Joined::Into {
            continue;
        }
        if let Op::Constant(op) = &step.op {
            let value = match &op.fill {
                Fill::Number(v) => *v,
                Fill::Size(e) => extent(e)? as f64,
            };
            let arg = if step.ty.dtype == DType::F32 { code.float(value as f32)? } else { code.int(value as i32)? };
            places[chain.inputs + i] = Some((arg, step.ty.dtype));
            continue;
        }
        let (file, arg): (_, fn(Reg) -> Arg) =
            if step.ty.dtype == DType::F32 { (&mut floats, Arg::float) } else { (&mut ints, Arg::int) };
        let dst = file.take()?;
        let place = |v: u16| places[v as usize].expect("operands come before what reads them");
        let ins = match joined[i] {
            Joined::Pair(op, a, b, c) => Ins::PairF(op, dst, place(a).0, place(b).0, place(c).0),
            _ => instruction(step, sizes, dst, &|k| place(step.args[k]))?,
        };
        code.push(ins);
        places[chain.inputs + i] = Some((arg(dst), step.ty.dtype));
        regs[chain.inputs + i] = Some(dst);
        for v in 0..regs.len() {
            if last[v] <= i
                && let Some(reg) = regs[v].take()
            {
                let real = places[v].is_some_and(|p| p.1 == DType::F32);
                let file = if real { &mut floats } else { &mut ints };
                file.used[reg as usize] = false;
            }
        }
    }
    let result = |r: &u16| {
        let ty = chain.steps.get(*r as usize).map(|s| storage(s.ty.dtype));
        let place = places.get(chain.inputs + *r as usize).copied().flatten();
        Ok((place.ok_or("a chain's result is none of its steps")?.0, ty.ok_or("a chain has no such step")?))
    };
    let results: Result<Vec<_>, String> = chain.results.iter().map(result).collect();
    code.finish(&results?)
}

/// How a step becomes an instruction.
#[derive(Clone, Copy, PartialEq)]
enum Joined {
    /// As it is.
    Alone,
    /// As part of the step that uses it.
    Into,
    /// With the product or sum that only it uses.
    Pair(Pair, u16, u16, u16),
}

/// Products and sums that are used once, by another product or sum, are one instruction with it:
/// half the reading and writing of registers. Both round as they would alone.
fn pairs(chain: &Chain) -> Vec<Joined> {
    let mut uses = vec![0; chain.inputs + chain.steps.len()];
    chain.steps.iter().flat_map(|s| &s.args).for_each(|a| uses[*a as usize] += 1);
    chain.results.iter().for_each(|r| uses[chain.inputs + *r as usize] += 2);
    let mut joined = vec![Joined::Alone; chain.steps.len()];
    let kind = |step: &Step| match &step.op {
        Op::Binary(op) if step.ty.dtype == DType::F32 => Some(op.kind),
        _ => None,
    };
    for (i, step) in chain.steps.iter().enumerate() {
        let Some(outer) = kind(step) else { continue };
        for (first, other) in [(0, 1), (1, 0)] {
            let Some(s) = (step.args[first] as usize).checked_sub(chain.inputs) else { continue };
            if uses[chain.inputs + s] != 1 || joined[s] != Joined::Alone {
                continue;
            }
            let pair = match (kind(&chain.steps[s]), outer) {
                (Some(BinaryKind::Mul), BinaryKind::Add) => Pair::MulAdd,
                (Some(BinaryKind::Mul), BinaryKind::Sub) if first == 0 => Pair::MulSub,
                (Some(BinaryKind::Mul), BinaryKind::Sub) => Pair::SubMul,
                (Some(BinaryKind::Mul), BinaryKind::Mul) => Pair::MulMul,
                (Some(BinaryKind::Add), BinaryKind::Mul) => Pair::AddMul,
                (Some(BinaryKind::Sub), BinaryKind::Mul) => Pair::SubThenMul,
                (Some(BinaryKind::Add), BinaryKind::Add) => Pair::AddAdd,
                _ => continue,
            };
            let inner = &chain.steps[s];
            joined[i] = Joined::Pair(pair, inner.args[0], inner.args[1], step.args[other]);
            joined[s] = Joined::Into;
            break;
        }
    }
    joined
}

/// [`Chain::last_uses`], where what a joined step reads is read by the step that it joins.
fn last_uses(chain: &Chain, joined: &[Joined]) -> Vec<usize> {
    let mut last = chain.last_uses();
    for (i, joined) in joined.iter().enumerate() {
        if let Joined::Pair(_, a, b, c) = joined {
            [a, b, c].into_iter().for_each(|v| last[*v as usize] = last[*v as usize].max(i));
        }
    }
    last
}

/// One step as an instruction; `arg` is where an operand is, and its type.
fn instruction(step: &Step, sizes: &[usize], dst: Reg, arg: &dyn Fn(usize) -> (Arg, DType)) -> Result<Ins, String> {
    let (r, kind) = (|k: usize| arg(k).0, |k: usize| arg(k).1);
    Ok(match &step.op {
        Op::Iota(op) => Ins::Iota {
            dst,
            div: sizes[op.axis + 1..].iter().product::<usize>().max(1),
            modulus: sizes[op.axis].max(1),
        },
        Op::Unary(op) => unary(op.kind, kind(0), dst, r(0)),
        Op::Binary(op) => {
            let f = binary(op.kind);
            if kind(0) == DType::F32 { Ins::BinF(f, dst, r(0), r(1)) } else { Ins::BinI(f, dst, r(0), r(1)) }
        }
        Op::Compare(op) => {
            let f = compare(op.kind);
            if kind(0) == DType::F32 { Ins::CmpF(f, dst, r(0), r(1)) } else { Ins::CmpI(f, dst, r(0), r(1)) }
        }
        Op::Select(_) if step.ty.dtype == DType::F32 => Ins::SelF(dst, r(0), r(1), r(2)),
        Op::Select(_) => Ins::SelI(dst, r(0), r(1), r(2)),
        Op::Cast(op) => match (kind(0), op.dtype) {
            (DType::F32, DType::F32) => return Err("a cast changes nothing".into()),
            (DType::F32, DType::I32) => Ins::FloatToInt(dst, r(0)),
            (DType::F32, DType::Bool) => Ins::FloatToMask(dst, r(0)),
            (_, DType::F32) => Ins::IntToFloat(dst, r(0)),
            (DType::I32, DType::Bool) => Ins::IntToMask(dst, r(0)),
            (_, DType::I32 | DType::Bool) => Ins::MoveI(dst, r(0)),
        },
        other => return Err(format!("`{}` is not elementwise", other.rule().name())),
    })
}

fn unary(kind: UnaryKind, dtype: DType, dst: Reg, a: Arg) -> Ins {
    let f = match kind {
        UnaryKind::Not => return Ins::Not(dst, a),
        UnaryKind::Neg if dtype == DType::I32 => return Ins::NegI(dst, a),
        UnaryKind::Abs if dtype == DType::I32 => return Ins::AbsI(dst, a),
        UnaryKind::Sign if dtype == DType::I32 => return Ins::SignI(dst, a),
        UnaryKind::Neg => UnaryF::Neg,
        UnaryKind::Exp => UnaryF::Exp,
        UnaryKind::Expm1 => UnaryF::Expm1,
        UnaryKind::Log => UnaryF::Log,
        UnaryKind::Log1p => UnaryF::Log1p,
        UnaryKind::Sqrt => UnaryF::Sqrt,
        UnaryKind::Rsqrt => UnaryF::Rsqrt,
        UnaryKind::Recip => UnaryF::Recip,
        UnaryKind::Abs => UnaryF::Abs,
        UnaryKind::Sign => UnaryF::Sign,
        UnaryKind::Sin => UnaryF::Sin,
        UnaryKind::Cos => UnaryF::Cos,
        UnaryKind::Tanh => UnaryF::Tanh,
        UnaryKind::Erf => UnaryF::Erf,
        UnaryKind::Sigmoid => UnaryF::Sigmoid,
        UnaryKind::Floor => UnaryF::Floor,
        UnaryKind::Ceil => UnaryF::Ceil,
        UnaryKind::Round => UnaryF::Round,
        UnaryKind::Bf16 => UnaryF::Bf16,
        UnaryKind::F16 => UnaryF::F16,
    };
    Ins::UnF(f, dst, a)
}

fn binary(kind: BinaryKind) -> BinaryOp {
    match kind {
        BinaryKind::Add => BinaryOp::Add,
        BinaryKind::Sub => BinaryOp::Sub,
        BinaryKind::Mul => BinaryOp::Mul,
        BinaryKind::Div => BinaryOp::Div,
        BinaryKind::Pow => BinaryOp::Pow,
        BinaryKind::Min => BinaryOp::Min,
        BinaryKind::Max => BinaryOp::Max,
        BinaryKind::Rem => BinaryOp::Rem,
        BinaryKind::And => BinaryOp::And,
        BinaryKind::Or => BinaryOp::Or,
        BinaryKind::Xor => BinaryOp::Xor,
    }
}

fn compare(kind: CompareKind) -> CompareOp {
    match kind {
        CompareKind::Eq => CompareOp::Eq,
        CompareKind::Ne => CompareOp::Ne,
        CompareKind::Lt => CompareOp::Lt,
        CompareKind::Le => CompareOp::Le,
        CompareKind::Gt => CompareOp::Gt,
        CompareKind::Ge => CompareOp::Ge,
    }
}
