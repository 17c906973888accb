//! A module is a struct: its fields are parameters and other modules, its methods compute.
//!
//! `cargo run --example 02-module`

use mobilis::module::{self, Item};
use mobilis::prelude::*;

axes! {
    /// Images in a batch: known when the program runs.
    pub Batch;
    /// 28 * 28 grey values.
    pub Pixels = 28 * 28;
    pub Hidden = 128;
    pub Digits = 10;
}

/// A dense layer, generic over its two axes: one definition for every pair of widths.
#[neural_module]
pub struct Dense<I: Axis, O: Axis> {
    // Weights are laid out as in PyTorch, so public checkpoints load as they are.
    weight: Param![O, I],
    bias: Param![O],
}

#[neural_module]
impl<I: Axis, O: Axis> Dense<I, O> {
    /// Lower-case names stand for axes; what both sides of `*` share and `=>` lacks is summed.
    pub fn forward(&self, x: Tensor![Batch, I]) -> Tensor![Batch, O] {
        einsum!(x[b i] * self.weight.get()[o i] => [b o]) + self.bias.get()
    }
}

#[neural_module]
pub struct Net {
    first: Dense<Pixels, Hidden>,
    last: Dense<Hidden, Digits>,
}

#[neural_module]
impl Net {
    pub fn forward(&self, image: Tensor![Batch, Pixels]) -> Tensor![Batch, Digits] {
        // Swap `first` and `last` here, and the compiler says which axis is not which.
        self.last.forward(self.first.forward(image))
    }

    /// A module may have any number of entry points: here the squared distance to a target.
    pub fn loss(&self, image: Tensor![Batch, Pixels], target: Tensor![Batch, Digits]) -> Tensor![] {
        let error = self.forward(image) - target;
        (error * error).mean_all()
    }
}

fn main() {
    let net = Net::default();
    // Names follow the fields; shapes are in axis names.
    module::walk(&net, &mut |path, item| {
        if let Item::Var(parameter) = item {
            println!("{path} : {}", parameter.ty());
        }
    });
}
