//! Recurrent layers: LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014), each one
//! operation over all time steps.
//!
//! The product of the weights with the inputs needs no recurrence, so it stays outside: the
//! operations take `gates[batch, time, n * hidden]` that one large matrix product has made, and
//! add what depends on the state. Gates are in PyTorch's order, `i f g o` and `r z n`.
//!
//! **Lengths.** With lengths, steps at and after a sequence's length leave the state as it is,
//! give 0, and get no gradient: the semantics of PyTorch's packed sequences, in both directions.
//!
//! **Gradients.** The forward operation gives its activated gates as extra results; the backward
//! operation reads them and walks the steps the other way around. Second derivatives are not
//! available.

mod gru;
mod lstm;

pub use gru::{Gru, GruGrad, gru};
pub use lstm::{Lstm, LstmGrad, lstm};

use super::{GradContext, contraction, elementwise, leaf};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

/// The order in which steps are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// From the first step to the last.
    #[default]
    Forward,
    /// From the last step (of each sequence) to the first.
    Backward,
}

impl Direction {
    /// The step at place `i` of `time`, in the order in which they are taken.
    pub fn step(self, i: usize, time: usize) -> usize {
        match self {
            Direction::Forward => i,
            Direction::Backward => time - 1 - i,
        }
    }

    /// The step before `t` in this order for a sequence of `length`; `None` at its start.
    pub fn before(self, t: usize, length: usize) -> Option<usize> {
        match self {
            Direction::Forward => t.checked_sub(1),
            Direction::Backward => (t + 1 < length).then_some(t + 1),
        }
    }

    fn attribute(self) -> String {
        match self {
            Direction::Forward => String::new(),
            Direction::Backward => "backward".into(),
        }
    }
}

/// Batch, time and hidden dimensions of a recurrent operation, after checking `gates` (`n` per
/// hidden value), the recurrent weight, states, and lengths where they are given.
fn check(
    n: u64,
    gates: &TensorType,
    weight: &TensorType,
    states: &[&TensorType],
    lengths: Option<&&TensorType>,
) -> Result<[Dim; 3], String> {
    if let Some(ty) = [gates, weight].iter().chain(states).find(|t| t.dtype != DType::F32) {
        return Err(format!("takes real values, is given {ty}"));
    }
    if gates.rank() != 3 || weight.rank() != 2 {
        return Err(format!("takes gates [batch, time, {n} * hidden] and a weight, is given {gates} and {weight}"));
    }
    let (batch, time, hidden) = (&gates.dims[0], &gates.dims[1], &weight.dims[1]);
    let wide = Extent::mul(Extent::constant(n), hidden.extent.clone());
    if gates.dims[2].extent != wide || weight.dims[0].extent != wide {
        return Err(format!("has {n} gates per hidden value of `{hidden}`, is given {gates} and {weight}"));
    }
    let state = TensorType::new(vec![batch.clone(), hidden.clone()], DType::F32);
    if let Some(ty) = states.iter().find(|s| !s.same_extents(&state)) {
        return Err(format!("has a state {state}, is given {ty}"));
    }
    match lengths {
        Some(l) if l.dtype != DType::I32 || l.rank() != 1 || l.dims[0].extent != batch.extent => {
            Err(format!("takes one length per sequence of `{batch}`, is given {l}"))
        }
        _ => Ok([batch.clone(), time.clone(), hidden.clone()]),
    }
}

/// `shape` of real values.
fn ty(dims: &[&Dim]) -> TensorType {
    TensorType::new(dims.iter().map(|d| (*d).clone()).collect(), DType::F32)
}

/// `n` values per hidden one.
fn wide(n: u64, hidden: &Dim) -> Dim {
    Dim::anonymous(Extent::mul(Extent::constant(n), hidden.extent.clone()))
}

/// The recurrent product: two operations per weight, sequence and step.
fn flops(n: u64, [batch, time, hidden]: &[Dim; 3]) -> Extent {
    let weights = Extent::mul(hidden.extent.clone(), wide(n, hidden).extent);
    Extent::product([&Extent::constant(2), &batch.extent, &time.extent, &weights])
}

/// The gradient of an output, zeros where nothing uses it.
fn grads(cx: &GradContext, ports: std::ops::Range<usize>) -> Vec<Handle> {
    ports.map(|p| cx.grad_of(p)).collect()
}

/// What inputs contribute to the gates: `x[b, t, i] * w[n h, i] + bias -> [b, t, n h]`.
pub fn input_gates(x: Handle, weight: Handle, bias: Option<Handle>) -> Handle {
    let gates = contraction::linear(x, weight);
    bias.map_or(gates, |b| elementwise::add(gates, b))
}

/// A state of zeros for the batch of `gates` and the recurrent weight.
pub fn zero_state(gates: Handle, weight: Handle) -> Handle {
    let dims = type_of(gates).dims.first().into_iter().chain(type_of(weight).dims.get(1)).cloned().collect();
    leaf::fill(0.0, TensorType::new(dims, DType::F32))
}
