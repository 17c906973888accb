//! What becomes of each product: which operands and results are rounded, and to what.

use super::apply::Options;
use super::classes::{Classes, Linear, layer};
use super::policy::{Compute, Precision};
use super::recipe::{History, Recipe, Scaling};
use super::report::{Gemm, Number, Role, unfit};
use crate::graph::{DType, Extent, Graph};
use crate::ops::Op;
use crate::ops::elementwise::UnaryKind;
use crate::ops::quantize::{Fp8, Group, Scale};
use std::collections::HashMap;

/// How many layers the numbers in parameters' names count, by the text before them.
pub(super) fn layers(graph: &Graph) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for (before, number) in graph.vars.iter().filter_map(|v| layer(&v.name)) {
        let count = counts.entry(before.to_string()).or_insert(0);
        *count = (number + 1).max(*count);
    }
    counts
}

/// What becomes of an operand.
#[derive(Clone, Debug)]
pub(super) enum Treat {
    Round(UnaryKind),
    Eight(Eight),
}

/// An operand in eight bits.
#[derive(Clone, Debug)]
pub(super) struct Eight {
    pub format: Fp8,
    pub from: From,
    pub sizes: Vec<Extent>,
    pub multiple: usize,
    /// The first part of the names of its states.
    pub states: String,
}

/// Where its scales come from.
#[derive(Clone, Debug)]
pub(super) enum From {
    History { length: usize, take: History, margin: f32 },
    Whole(Scale),
    One,
    Tiles(Group),
}

/// What becomes of a product: which inputs are rounded, which outputs.
pub(super) struct Plan {
    pub operands: Vec<(usize, Treat)>,
    pub results: Vec<(usize, UnaryKind)>,
}

pub(super) struct Planner<'a> {
    pub graph: &'a Graph,
    pub precision: &'a Precision,
    pub options: &'a Options,
    pub layers: HashMap<String, usize>,
    pub classes: &'a Classes,
}

fn rounding(compute: Compute) -> Option<(UnaryKind, Number)> {
    match compute {
        Compute::F32 => None,
        Compute::Bf16 | Compute::Fp8(_) => Some((UnaryKind::Bf16, Number::Bf16)),
        Compute::F16 => Some((UnaryKind::F16, Number::F16)),
    }
}

impl Planner<'_> {
    pub fn plan(&self, id: u32) -> Option<(Gemm, Plan)> {
        match self.classes.parts.get(&id) {
            Some((i, role, places)) => Some(self.linear(id, &self.classes.linears[*i], *role, *places)),
            None => self.other(id),
        }
    }

    /// One of a linear layer's products.
    fn linear(&self, id: u32, of: &Linear, role: Role, places: [usize; 2]) -> (Gemm, Plan) {
        let (compute, mut why) = self.choose(of, role);
        let mut gemm = Gemm {
            name: of.name.clone(),
            role,
            operands: [rounding(compute).map_or(Number::F32, |r| r.1); 2],
            why: String::new(),
            sizes: vec![],
            multiple: 1,
        };
        let mut operands = vec![];
        if let Compute::Fp8(recipe) = compute {
            match self.eight(id, of, role, places, recipe) {
                Ok(eight) => {
                    gemm.operands = [&eight[0], &eight[1]].map(|e| Number::Fp8(e.format));
                    (gemm.sizes, gemm.multiple) = (eight[0].sizes.clone(), recipe.multiple());
                    operands = places.into_iter().zip(eight.map(Treat::Eight)).collect();
                }
                Err(reason) => why = reason,
            }
        }
        gemm.why = why;
        let rounded = rounding(compute).map(|r| r.0);
        if operands.is_empty() {
            operands = rounded.iter().flat_map(|kind| places.map(|p| (p, Treat::Round(*kind)))).collect();
        }
        let kept = role == Role::ByWeight || (of.head && role == Role::Forward);
        let results = rounded.filter(|_| !kept).map(|kind| (0, kind)).into_iter().collect();
        (gemm, Plan { operands, results })
    }

    /// How a layer's product is computed, and why not as most are.
    fn choose(&self, of: &Linear, role: Role) -> (Compute, String) {
        let p = self.precision;
        if let Some(compute) = p.exception(&of.name) {
            return (compute, "by its name".into());
        }
        let (compute, why) = match of.head {
            true => (p.head.unwrap_or(p.compute.high()), "a head or router"),
            false => (p.compute, ""),
        };
        let Compute::Fp8(_) = compute else { return (compute, why.into()) };
        if let Some((before, number)) = layer(&of.name) {
            let count = self.layers[before];
            if number < p.edges.0 || number + p.edges.1 >= count {
                return (compute.high(), format!("layer {number} of {count}"));
            }
        }
        match p.by_weight {
            Some(compute) if role == Role::ByWeight => (compute, "a gradient by a weight".into()),
            _ => (compute, why.into()),
        }
    }

    /// Both operands in eight bits, or why not.
    fn eight(
        &self,
        id: u32,
        of: &Linear,
        role: Role,
        places: [usize; 2],
        recipe: Recipe,
    ) -> Result<[Eight; 2], String> {
        let node = &self.graph.nodes[id as usize];
        let Op::Einsum(op) = &node.op else { return Err("not a contraction".into()) };
        let multiple = recipe.multiple();
        // Rows, columns, and what is summed over.
        let dims = |place: usize, inner: bool| -> Vec<&Extent> {
            let labels = op.operands[place].iter().zip(&self.graph.ty(node.inputs[place]).dims);
            labels.filter(|(l, _)| op.output.contains(l) != inner).map(|(_, d)| &d.extent).collect()
        };
        let mut sizes = vec![];
        for extents in [dims(places[0], false), dims(places[1], false), dims(places[0], true)] {
            let extent = Extent::product(extents);
            match extent.as_constant().map(|n| n as usize) {
                Some(n) if n.is_multiple_of(multiple) => {}
                Some(n) => return Err(unfit(&extent, n, multiple)),
                None => sizes.push(extent),
            }
        }
        let slots = match role {
            Role::ByInput => ["grad_output", "weight"],
            Role::ByWeight => ["grad_output", "input"],
            Role::Forward | Role::Other => ["input", "weight"],
        };
        let (values, gradients) = recipe.formats.pair();
        let one = |k: usize| -> Result<Eight, String> {
            let inner: Vec<usize> = (0..op.operands[places[k]].len())
                .filter(|d| !op.output.contains(&op.operands[places[k]][*d]))
                .collect();
            let tiles = |rows, along, scale| match inner.windows(2).all(|w| w[1] == w[0] + 1) && !inner.is_empty() {
                true => Ok(From::Tiles(Group::Tile { inner: inner.clone(), rows, along, scale })),
                false => Err("what is summed over does not lie side by side".to_string()),
            };
            let from = match recipe.scaling {
                Scaling::Delayed { length, take, margin } if self.options.training => {
                    From::History { length, take, margin }
                }
                Scaling::Delayed { .. } => From::Whole(Scale::Exact { epsilon: 0.0, power_of_two: false }),
                Scaling::Current(scale) => From::Whole(scale),
                Scaling::Rowwise(scale) => tiles(1, usize::MAX, scale)?,
                Scaling::Blockwise(scale) => tiles(if slots[k] == "weight" { 128 } else { 1 }, 128, scale)?,
                Scaling::Mx => tiles(1, 32, Scale::E8M0)?,
                Scaling::Unscaled => From::One,
            };
            let format = if slots[k] == "grad_output" { gradients } else { values };
            Ok(Eight { format, from, sizes: sizes.clone(), multiple, states: format!("{}.fp8.{}", of.name, slots[k]) })
        };
        Ok([one(0)?, one(1)?])
    }

    /// A product of another kind.
    fn other(&self, id: u32) -> Option<(Gemm, Plan)> {
        let node = &self.graph.nodes[id as usize];
        let real = |i: &usize| self.graph.ty(node.inputs[*i]).dtype == DType::F32;
        let (operands, results): (Vec<usize>, Vec<usize>) = match &node.op {
            Op::Einsum(_) if node.inputs.len() == 2 => (vec![0, 1], vec![0]),
            Op::Conv(_) | Op::ConvInputGrad(_) => (vec![0, 1], vec![0]),
            Op::ConvWeightGrad(_) => (vec![0, 1], vec![]),
            Op::Attention(_) => (vec![0, 1, 2], vec![0]),
            Op::AttentionGrad(op) => (vec![0, 1, 2, op.places().2], vec![0, 1, 2]),
            Op::Experts(_) => ((0..node.inputs.len()).filter(real).collect(), vec![0]),
            Op::ExpertsGrad(_) => (vec![1, 2], vec![]),
            Op::Lstm(_) | Op::LstmGrad(_) | Op::Gru(_) | Op::GruGrad(_) | Op::Ssm(_) | Op::SsmGrad(_) => {
                (vec![], vec![])
            }
            _ => return None,
        };
        let rounded = rounding(self.precision.compute).filter(|_| !operands.is_empty());
        let kind = rounded.map(|r| r.0);
        let gemm = Gemm {
            name: format!("{} in {}", node.op.rule().name(), self.graph.location(node.scope)),
            role: Role::Other,
            operands: [rounded.map_or(Number::F32, |r| r.1); 2],
            why: if operands.is_empty() { "recurrent".into() } else { String::new() },
            sizes: vec![],
            multiple: 1,
        };
        let operands = kind.iter().flat_map(|kind| operands.iter().map(|i| (*i, Treat::Round(*kind)))).collect();
        let results = kind.iter().flat_map(|kind| results.iter().map(|port| (*port, *kind))).collect();
        Some((gemm, Plan { operands, results }))
    }
}
