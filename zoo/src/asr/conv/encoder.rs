//! The encoder: blocks in a row. NeMo's `ConvASREncoder`.

use super::block::{Block, Sound};
use super::settings::{BlockSettings, ConvSettings};
use super::{ConvAxes, Counts, FeaturesOf, Steps, Stream};
use crate::audio::{Batch, Frames};
use mobilis_runtime::graph::trace::type_of;
use mobilis_runtime::graph::{Dim, Sizes};
use mobilis_runtime::ops::movement;
use mobilis_runtime::prelude::*;
use std::marker::PhantomData;

/// An encoder of the blocks that a configuration lists.
#[neural_module(no_default)]
pub struct ConvEncoder<A: ConvAxes> {
    /// The blocks, in order.
    #[name("encoder")]
    pub blocks: Vec<Block>,
    ports: PhantomData<fn() -> A>,
}

impl<A: ConvAxes> ConvEncoder<A> {
    /// An encoder of these settings.
    pub fn new(settings: &ConvSettings) -> Self {
        let mut inputs = vec![A::Features::dim()];
        let last = settings.blocks.len().saturating_sub(1);
        let block = |(i, b): (usize, &BlockSettings)| {
            let filters = if i == last { A::Hidden::dim() } else { Dim::fixed(b.filters) };
            let block = Block::new(b, &inputs, &filters, settings.activation, settings.masked);
            if !(b.dense && b.residual) {
                inputs.clear();
            }
            inputs.push(filters);
            block
        };
        ConvEncoder { blocks: settings.blocks.iter().enumerate().map(block).collect(), ports: PhantomData }
    }

    /// The sizes of its ports.
    pub fn sizes(settings: &ConvSettings) -> Sizes {
        Sizes::new().with::<A::Features>(settings.features as usize).with::<A::Hidden>(settings.hidden() as usize)
    }
}

#[neural_module]
impl<A: ConvAxes> ConvEncoder<A> {
    /// Features `[Batch, Frames, Features]` to the stream `[Batch, Steps, Hidden]`, with the lengths of both.
    pub fn forward(&self, x: FeaturesOf<A>, lengths: Counts<Frames>) -> (Stream<A>, Counts<Steps>) {
        let start = Sound { x: movement::permute(x.raw(), &[0, 2, 1]), lengths: lengths.raw() };
        let out = self.blocks.iter().fold(vec![start], |inputs, block| block.apply(inputs));
        let Sound { x, lengths } = out.last().copied().unwrap_or(start);
        let x = movement::permute(x, &[0, 2, 1]);
        let mut dims = type_of(x).dims;
        if let [batch, steps, hidden] = &mut dims[..] {
            batch.axis = Batch::dim().axis;
            // The axis's name, and the size that the strides give it.
            steps.axis = Steps::dim().axis;
            hidden.axis = A::Hidden::dim().axis;
        }
        (Tensor::from_raw(movement::relabel(x, dims)), Tensor::from_raw(lengths))
    }
}
