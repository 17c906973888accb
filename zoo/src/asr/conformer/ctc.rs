//! The CTC head: NeMo's `ConvASRDecoder`.

use super::axes::ConformerAxes;
use super::layer::{Pointwise, Stream};
use crate::audio::Batch;
use mobilis_runtime::prelude::*;

/// A linear layer over the encoder's frames; the last class is the blank.
#[neural_module(no_default)]
pub struct CtcHead<A: ConformerAxes> {
    /// `[Classes, Hidden, 1]`
    #[name("decoder_layers.0")]
    pub layer: Pointwise<A::Hidden, A::Classes>,
}

impl<A: ConformerAxes> CtcHead<A> {
    /// A head.
    pub fn new() -> Self {
        CtcHead { layer: Pointwise::new(true) }
    }
}

impl<A: ConformerAxes> Default for CtcHead<A> {
    fn default() -> Self {
        Self::new()
    }
}

#[neural_module]
impl<A: ConformerAxes> CtcHead<A> {
    /// `[Batch, T, Hidden]` to logits `[Batch, T, Classes]`.
    pub fn forward<T: Axis>(&self, x: Stream<A, T>) -> Tensor<(Batch, T, A::Classes), Logits> {
        self.layer.forward(x).assume()
    }
}
