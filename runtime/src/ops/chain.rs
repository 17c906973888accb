//! Fused elementwise operations: what [`crate::transforms::fuse`] makes of a chain of them.
//!
//! A chain computes what its steps compute one after the other, element by element; devices run
//! it in one pass over the output.

use super::{Cost, GradContext, NoGradient, Op, Rule};
use crate::graph::trace::Handle;
use crate::graph::{DType, Extent, TensorType};

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

/// Several elementwise operations of the same extents, of which one or more are results.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The number of inputs.
    pub inputs: usize,
    /// The steps, operands first.
    pub steps: Vec<Step>,
    /// The steps whose values are the results, by number, one per output.
    pub results: Vec<u16>,
}

impl Chain {
    /// Steps of which the last is the result.
    pub fn single(inputs: usize, steps: Vec<Step>) -> Chain {
        let results = vec![steps.len().saturating_sub(1) as u16];
        Chain { inputs, steps, results }
    }

    /// The last step at which each input and each step's value is used: what register
    /// allocation needs. Results are used after the last step.
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0; self.inputs + self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for a in &step.args {
                last[*a as usize] = i;
            }
        }
        for result in &self.results {
            last[self.inputs + *result as usize] = self.steps.len();
        }
        last
    }
}

impl Chain {
    /// The most real values, and the most whole numbers and truth values, that must be kept in
    /// registers at once. Inputs and constants are read where they are.
    pub fn pressure(&self) -> (usize, usize) {
        let last = self.last_uses();
        let mut alive: Vec<usize> = vec![];
        let mut most = (0, 0);
        for (i, step) in self.steps.iter().enumerate() {
            if matches!(step.op, Op::Constant(_)) {
                continue;
            }
            alive.push(i);
            let floats = alive.iter().filter(|s| self.steps[**s].ty.dtype == DType::F32).count();
            most = (most.0.max(floats), most.1.max(alive.len() - floats));
            alive.retain(|s| last[self.inputs + s] > i);
        }
        most
    }
}

impl Rule for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }
    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let ty = |r: &u16| self.steps.get(*r as usize).map(|s| s.ty.clone());
        self.results.iter().map(|r| ty(r).ok_or_else(|| "a chain has no such step".into())).collect()
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
