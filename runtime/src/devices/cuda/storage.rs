//! How values lie between operations: in `f32`, or in 16 bits where no result differs for it.
//!
//! A value is stored in 16 bits if it lies on the numbers of bf16 or f16 ([`format`](super::narrow::format)) and whatever
//! reads it takes it so, or if all that reads it rounds it first: then the producer rounds instead, once, and the roundings
//! are names of the same place. That is decided before anything is lowered ([`plan`], from the last value to the first, for what a
//! reader takes may depend on what is planned for its own result). Producers that can then place their outputs by
//! [`Lower::output_small`]; one that turns out not to (a kernel refused it) places them in `f32` as ever.
//!
//! Whoever asks for an input gets it in `f32`, widened in a pass of its own if need be; readers of 16 bits ask for it
//! [as it is stored](Lower::as_stored), and for its [element](Lower::element). So the plan is about speed alone: half the
//! bytes between operations, and nothing to pack before products. Only a product of few rows adds in another order what it
//! reads in 16 bits. What the caller sees and variables are `f32`; roundings of what the model stores in those 16 bits are names of
//! that (`chain.rs`).

use super::lower::Lower;
use super::narrow::{LEAST, format16};
use crate::devices::lower::Places;
use crate::devices::view::View;
use crate::graph::{DType, Node, Value};
use crate::ops::Op;
use crate::ops::attention::{Attention, Shape};
use crate::ops::chain::Step;
use crate::ops::elementwise::UnaryKind;
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::Element;
use mobilis_cuda::quantize::recast;
use mobilis_cuda::rows::Number;
use std::collections::{HashMap, HashSet};

/// What lies in 16 bits.
#[derive(Default)]
pub(super) struct Small {
    /// Values that shall.
    pub planned: HashMap<Value, Element>,
    /// Buffers that do.
    slots: HashMap<u32, Element>,
    /// Such buffers in `f32`, for whoever asked.
    wide: HashMap<u32, u32>,
}

impl Small {
    /// Whether a buffer's values have 16 bits.
    pub fn holds(&self, slot: u32) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Forgets buffers from `end` on.
    pub fn take_back(&mut self, end: u32) {
        self.slots.retain(|slot, _| *slot < end);
        self.wide.retain(|slot, wide| *slot < end && *wide < end);
    }
}

impl Lower<'_> {
    /// An input where it lies: its values are of type [`element`](Self::element).
    pub fn as_stored(&mut self, i: usize) -> View {
        let v = self.value(i);
        self.value_as_stored(v)
    }

    /// A value where it lies.
    pub(super) fn value_as_stored(&mut self, v: Value) -> View {
        let places: &mut Places = self;
        places.view_of(v)
    }

    /// A value in `f32`, or in the storage of what is not real.
    pub(super) fn view_of(&mut self, v: Value) -> View {
        let view = self.value_as_stored(v);
        self.wide(view)
    }

    /// The type of what a view shows; of real values.
    pub fn element(&self, view: &View) -> Element {
        self.small.slots.get(&view.slot).copied().unwrap_or_default()
    }

    /// The same values in `f32`.
    pub(super) fn wide(&mut self, view: View) -> View {
        let element = self.element(&view);
        if element == Element::F32 {
            return view;
        }
        let slot = self.small.wide.get(&view.slot).copied().unwrap_or_else(|| {
            let count = self.buffer_bytes(view.slot).unwrap_or_default() / 2;
            let (from, to) = (View::whole(view.slot, &[count], DType::F32), self.buffer(count, DType::F32));
            let (from, at) = (self.address(&from), self.at(to, DType::F32));
            self.launch(recast((from, element), (at, Element::F32), count).expect("16 bits become f32"));
            self.copied += 1;
            self.small.wide.insert(view.slot, to.slot);
            to.slot
        });
        self.touch(slot);
        View { slot, ..view }
    }

    /// The type in which an output shall be stored, where that is not `f32`.
    pub fn planned(&self, port: usize) -> Option<Element> {
        self.small.planned.get(&Value { node: self.node, port: port as u16 }).copied()
    }

    /// The place of an output of 16 bits that is [planned](Self::planned) so, contiguous.
    pub fn output_small(&mut self, port: usize, heir_of: Option<usize>, element: Element) -> View {
        let piece = self.place_of(port, heir_of, element.bytes());
        self.small.slots.insert(piece.slot, element);
        View::whole(piece.slot, self.output_sizes(port), DType::F32)
    }

    /// The place of an output, in the type that is planned for it.
    pub fn output_planned(&mut self, port: usize, heir_of: Option<usize>) -> View {
        match self.planned(port) {
            Some(element) => self.output_small(port, heir_of, element),
            None => {
                let piece = self.place(port, heir_of);
                let whole = View::whole(piece.slot, self.output_sizes(port), self.output_dtype(port));
                View { offset: piece.offset, ..whole }
            }
        }
    }

    /// An input, contiguous, as it is stored.
    pub fn input_stored(&mut self, i: usize) -> (Ptr, Element) {
        let view = self.as_stored(i);
        let element = self.element(&view);
        if element == Element::F32 || !view.is_contiguous() {
            return (self.input(i), Element::F32);
        }
        (self.address(&view), element)
    }

    /// The same, for kernels over rows.
    pub fn input_rows(&mut self, i: usize) -> (Ptr, Number) {
        let (at, element) = self.input_stored(i);
        (at, number(element))
    }

    /// The place of an output, in the type that is planned for it.
    pub fn output_rows(&mut self, port: usize) -> (Ptr, Number) {
        let view = self.output_planned(port, None);
        (self.address(&view), number(self.element(&view)))
    }

    /// The address of an output of 16 bits.
    pub fn small(&mut self, port: usize, element: Element) -> Ptr {
        let view = self.output_small(port, None, element);
        self.address(&view)
    }
}

fn number(element: Element) -> Number {
    match element {
        Element::Bf16 => Number::Bf16,
        Element::F16 => Number::F16,
        _ => Number::F32,
    }
}

/// How a value is read by all its readers, the least obliging of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    /// In `f32`.
    Wide,
    /// As it is stored.
    Taken,
    /// Rounded before anything else.
    Rounded,
}

/// What an operation rounds to.
pub(super) fn rounding(op: &Op) -> Option<Element> {
    match op {
        Op::Unary(op) if op.kind == UnaryKind::Bf16 => Some(Element::Bf16),
        Op::Unary(op) if op.kind == UnaryKind::F16 => Some(Element::F16),
        _ => None,
    }
}

/// Whether tensor cores can take an attention over these inputs, as far as sizes and settings tell.
pub(super) fn attends(op: &Attention, [q, k, v]: [&[usize]; 3], cx: &Lower) -> bool {
    let n = Shape::of(q, k, v);
    let fits = |features: usize| features.is_multiple_of(8) && features <= 256;
    n.t.min(n.s).min(n.d).min(n.e) >= LEAST
        && fits(n.d)
        && fits(n.e)
        && op.extras.mask.is_none()
        && op.extras.key.is_none()
        && op.settings.dropout.is_none()
        && cx.info().capability >= 80
}

/// The steps of a node's chains that read a value.
fn chains<'n>(op: &'n Op, node: &'n Node, v: Value) -> impl Iterator<Item = &'n Step> {
    let is = move |input: Option<&Value>| input == Some(&v);
    let own = match op {
        Op::Chain(chain) => Some(chain),
        _ => None,
    };
    let after = match op {
        Op::Product(op) => op.after.as_slice(),
        _ => &[],
    };
    let own = own.into_iter().flat_map(|chain| &chain.steps);
    let own = own.filter(move |s| s.args.iter().any(|a| is(node.inputs.get(*a as usize))));
    let behind = after.iter().flatten().flat_map(move |after| {
        let read = move |a: &u16| is(after.inputs.get(*a as usize).copied().flatten().map(|i| &node.inputs[i]));
        after.chain.steps.iter().filter(move |s| s.args.iter().any(read))
    });
    own.chain(behind)
}

struct Planner<'a, 'g> {
    cx: &'a Lower<'g>,
    readers: HashMap<Value, Vec<u32>>,
    /// What is read when all has run.
    shown: HashSet<Value>,
    plan: HashMap<Value, Element>,
}

/// The values that shall be stored in 16 bits, and how.
pub(super) fn plan(cx: &Lower) -> HashMap<Value, Element> {
    let mut readers: HashMap<Value, Vec<u32>> = HashMap::new();
    for (id, node) in cx.graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(id as u32));
    }
    let mut planner = Planner { cx, readers, shown: cx.graph.results().collect(), plan: HashMap::new() };
    for id in (0..cx.graph.nodes.len() as u32).rev() {
        for port in 0..cx.graph.nodes[id as usize].types.len() as u16 {
            let v = Value { node: id, port };
            if let Some(element) = planner.element(v) {
                planner.plan.insert(v, element);
            }
        }
    }
    planner.plan
}

impl Planner<'_, '_> {
    fn element(&self, v: Value) -> Option<Element> {
        if self.cx.graph.ty(v).dtype != DType::F32 || !self.readers.contains_key(&v) || !self.can_write(v) {
            return None;
        }
        let own = format16(self.cx, v);
        let (asked, least) = match own {
            Some(element) => (element, Reading::Taken),
            None => (self.asked(v)?, Reading::Rounded),
        };
        (self.reading(v, asked) >= least).then_some(asked)
    }

    /// Whether the operation that makes a value can write 16 bits.
    fn can_write(&self, v: Value) -> bool {
        let (node, port) = (self.cx.graph.node(v), v.port as usize);
        match &node.op {
            Op::Chain(_) | Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Norm(_) | Op::Rope(_) => true,
            Op::Einsum(op) => op.operands.len() == 2,
            // What a chain reads of its product is whole, and so are sums that others are added to.
            Op::Product(op) => (0..op.right.len()).any(|j| {
                let (own, more) = op.ports(j);
                more.contains(&port) || (own == Some(port) && op.after[j].is_none() && op.left.len() == 1)
            }),
            Op::Attention(op) => port == 0 && self.attends(op, node),
            Op::AttentionGrad(op) => port < 3 && !op.by_mask && self.attends(&op.attention, node),
            _ => false,
        }
    }

    fn attends(&self, op: &Attention, node: &Node) -> bool {
        attends(op, [0, 1, 2].map(|i| self.cx.sizes_of(node.inputs[i])), self.cx)
    }

    /// The type that the first reader that rounds a value rounds it to.
    fn asked(&self, v: Value) -> Option<Element> {
        let mut of = self.readers.get(&v)?.iter().map(|id| (*id, &self.cx.graph.nodes[*id as usize]));
        of.find_map(|(id, node)| match &node.op {
            op if op.rule().is_view() => self.asked(Value { node: id, port: 0 }),
            op => rounding(op).or_else(|| chains(op, node, v).find_map(|s| rounding(&s.op))),
        })
    }

    fn reading(&self, v: Value, element: Element) -> Reading {
        if self.shown.contains(&v) {
            return Reading::Wide;
        }
        let readers = self.readers.get(&v).into_iter().flatten();
        readers.map(|id| self.reads(*id, v, element)).min().unwrap_or(Reading::Rounded)
    }

    /// How a node reads a value that would be stored so.
    fn reads(&self, id: u32, v: Value, element: Element) -> Reading {
        let node = &self.cx.graph.nodes[id as usize];
        let places = || (0..node.inputs.len()).filter(|i| node.inputs[*i] == v);
        let taken = |is: bool| if is { Reading::Taken } else { Reading::Wide };
        let rounded = |op: &Op| if rounding(op) == Some(element) { Reading::Rounded } else { Reading::Taken };
        let by_chains = || chains(&node.op, node, v).map(|s| rounded(&s.op)).min().unwrap_or(Reading::Taken);
        match &node.op {
            op if op.rule().is_view() => self.reading(Value { node: id, port: 0 }, element),
            Op::Chain(_) => by_chains(),
            Op::Unary(_) => rounded(&node.op),
            Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_) => Reading::Taken,
            Op::Rope(_) | Op::Quantize(_) | Op::Amax(_) => taken(places().all(|i| i == 0)),
            // Kernels for few rows read those in `f32`.
            Op::Product(op) => {
                let sizes = self.cx.sizes_of(v);
                let wide = |axes: &[usize]| axes.iter().map(|d| sizes[*d]).product::<usize>() >= LEAST;
                let side = |i: usize| {
                    let all = || (0..op.right.len()).flat_map(|j| (0..op.left.len()).map(move |k| (j, k)));
                    let right = all().find(|(j, k)| op.right_input(*j, *k) == i);
                    match (op.left.get(i), right) {
                        (Some(left), _) => taken(wide(&left.rows)),
                        (_, Some((j, k))) => taken(wide(&op.right[j][k].columns)),
                        // What a chain behind it reads.
                        _ => by_chains(),
                    }
                };
                places().map(side).min().unwrap_or(Reading::Wide)
            }
            Op::Einsum(op) if node.inputs.len() == 2 => {
                let sizes = self.cx.sizes_of(v);
                let side = |i: usize| {
                    let own = |l: &u8| op.output.contains(l) && !op.operands[1 - i].contains(l);
                    let labels = op.operands[i].iter().zip(sizes).filter(|(l, _)| own(l));
                    labels.map(|(_, n)| *n).product::<usize>() >= LEAST
                };
                taken(places().all(side))
            }
            Op::Attention(op) => {
                let same = |i: usize| format16(self.cx, node.inputs[i]) == Some(element);
                taken(places().all(|i| i < 3) && self.attends(op, node) && (0..3).all(same))
            }
            Op::AttentionGrad(op) => {
                let (out, _, g, _) = op.places();
                let same = |i: usize| format16(self.cx, node.inputs[i]) == Some(element);
                let fits = !op.by_mask && self.attends(&op.attention, node) && [0, 1, 2, g].into_iter().all(same);
                // The result that goes with the gradient is what the forward pass left.
                match places().all(|i| i == out) {
                    true if fits => Reading::Rounded,
                    _ => taken(fits && places().all(|i| i < 3 || i == g || i == out)),
                }
            }
            _ => Reading::Wide,
        }
    }
}

#[cfg(test)]
mod tests;
