//! Fused elementwise operations: what [`crate::transforms::fuse`] makes of a chain of them.
//!
//! A chain computes what its steps compute one after the other, element by element; devices run
//! it in one pass over the output.

use super::{Cost, GradContext, NoGradient, Op, Rule};
use crate::graph::trace::Handle;
use crate::graph::{Extent, TensorType};

/// One operation of a chain.
#[derive(Clone, Debug)]
pub struct Step {
    /// An elementwise operation, a constant or an iota.
    pub op: Op,
    /// Its operands: numbers below the count of inputs are inputs, the rest are earlier steps.
    pub args: Vec<u16>,
    /// The type of its result.
    pub ty: TensorType,
}

/// Several elementwise operations with one result, that of the last step.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The number of inputs.
    pub inputs: usize,
    /// The steps, operands first.
    pub steps: Vec<Step>,
}

impl Chain {
    /// The last step at which each input and each step's result is used: what register
    /// allocation needs. The result itself is used after the last step.
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0; self.inputs + self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for a in &step.args {
                last[*a as usize] = i;
            }
        }
        if let Some(result) = last.last_mut() {
            *result = self.steps.len();
        }
        last
    }
}

impl Rule for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }
    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![self.steps.last().ok_or("a chain has no step")?.ty.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("chains are made after differentiation".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = self.steps.iter().filter(|s| !s.args.is_empty());
        let flops = flops.fold(Extent::constant(0), |sum, s| Extent::add(sum, s.ty.count()));
        Cost::streaming(flops, inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.steps.iter().map(|s| s.op.rule().name()).collect::<Vec<_>>().join("·")
    }
}
