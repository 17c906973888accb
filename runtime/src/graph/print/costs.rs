//! What each module costs: parameters, floating-point operations, bytes moved.

use super::Graph;
use crate::graph::polynomial::{self, Polynomial, quantity};
use crate::graph::{Sizes, TensorType, VarKind};
use crate::ops::Op;
use std::ops::AddAssign;

/// The cost of a module with everything in it, as sums over run-time axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModuleCost {
    /// Trained values. A tied parameter counts where it is read first.
    pub params: Polynomial,
    /// Floating-point operations; a multiply-add counts two.
    pub flops: Polynomial,
    /// Bytes read and written if nothing stays in caches.
    pub bytes: Polynomial,
    /// How many operations there are, without leaves.
    pub operations: usize,
}

impl AddAssign<&ModuleCost> for ModuleCost {
    fn add_assign(&mut self, other: &ModuleCost) {
        self.params += &other.params;
        self.flops += &other.flops;
        self.bytes += &other.bytes;
        self.operations += other.operations;
    }
}

/// The cost of every scope of a graph in the order of [`Graph::scopes`], each with its inner
/// scopes. Sizes that are given are put in; entry 0 is the whole graph.
pub fn costs(graph: &Graph, sizes: &Sizes) -> Vec<ModuleCost> {
    let mut totals = vec![ModuleCost::default(); graph.scopes.len().max(1)];
    for node in &graph.nodes {
        let inputs: Vec<&TensorType> = node.inputs.iter().map(|v| graph.ty(*v)).collect();
        let cost = node.op.rule().cost(&inputs, &node.types);
        let total = &mut totals[node.scope as usize];
        total.flops += &Polynomial::from(&cost.flops).bind(sizes);
        total.bytes += &Polynomial::from(&cost.bytes).bind(sizes);
        total.operations += usize::from(!node.inputs.is_empty());
        if let Op::Var(v) = &node.op
            && graph.vars[v.index as usize].kind == VarKind::Param
        {
            total.params += &Polynomial::from(&node.types[0].count()).bind(sizes);
        }
    }
    // A scope is entered after the scope around it, so its parent has a smaller number.
    for scope in (1..totals.len()).rev() {
        let own = totals[scope].clone();
        totals[graph.scopes[scope].parent as usize] += &own;
    }
    totals
}

/// A count for people: `1.31M`, or a short sum over axes.
pub fn count(n: &Polynomial) -> String {
    match n.as_constant() {
        Some(n) => quantity(n as f64),
        None => n.brief(3),
    }
}

/// Bytes for people: `1.25 MiB`, or a short sum over axes.
pub fn bytes(n: &Polynomial) -> String {
    match n.as_constant().map(u64::try_from) {
        Some(Ok(n)) => polynomial::bytes(n),
        _ => n.brief(3),
    }
}
