//! Embedding tables.

use crate::language::axis::Axis;
use crate::language::element::{Float, Indices};
use crate::language::shape::{EndsWith, Push};
use crate::module::init::{Init, WithInit};
use crate::ops::contraction;
use crate::tensor::Tensor;
use crate::{Param, neural_module};

/// A table of one vector of `H` per index of `V`.
///
/// The weight is `[V, H]` and starts normal with deviation 1. An index outside `0..V` is an error
/// when the program runs, naming the index and the size. PyTorch: `nn.Embedding(V, H)`.
#[neural_module]
pub struct Embedding<V: Axis, H: Axis> {
    /// `[V, H]`
    #[init(normal(1.0))]
    pub weight: Param![V, H],
}

impl<V: Axis, H: Axis> WithInit for Embedding<V, H> {
    /// Another initializer for the table.
    fn with_init(mut self, init: Init) -> Self {
        self.weight = Param::with_init(self.weight, init);
        self
    }
}

#[neural_module]
impl<V: Axis, H: Axis> Embedding<V, H> {
    /// The vectors of indices: `[..]` to `[.., H]`.
    pub fn forward<S: Push<H>, E: Indices>(&self, ids: Tensor<S, E>) -> Tensor<S::Out> {
        ids.embedding(self.weight.get())
    }

    /// The table as an output layer (Press and Wolf 2017): logits `[.., V]` of `[.., H]`. So that
    /// both are one parameter, call this instead of giving a model a head of its own.
    pub fn attend<S: EndsWith<H>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S::With<V>> {
        Tensor::from_raw(contraction::linear(x.raw(), self.weight.get().raw()))
    }
}
