//! The gradient of attention.

use super::Attention;
use crate::graph::TensorType;
use crate::graph::trace::Handle;
use crate::ops::{Cost, GradContext, NoGradient, Rule};

/// The gradient of [`Attention`]. Inputs: those of the forward operation, its two outputs, the
/// gradient by the result and, with `by_lse`, the gradient by `lse`. Outputs: the gradients by
/// `q`, `k`, `v` and, with `by_mask`, by the additive mask.
#[derive(Clone, Debug)]
pub struct AttentionGrad {
    /// What is differentiated.
    pub attention: Attention,
    /// Whether the gradient by the mask is asked for.
    pub by_mask: bool,
    /// Whether `lse` was used.
    pub by_lse: bool,
}

impl AttentionGrad {
    /// Where `out`, `lse`, the gradient by `out` and the gradient by `lse` are among the inputs.
    pub fn places(&self) -> (usize, usize, usize, Option<usize>) {
        let first = 3 + self.attention.extras.inputs().count();
        (first, first + 1, first + 2, self.by_lse.then_some(first + 3))
    }
}

impl Rule for AttentionGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let expected = self.places().2 + 1 + self.by_lse as usize;
        if inputs.len() != expected {
            return Err(format!("takes {expected} inputs, is given {}", inputs.len()));
        }
        self.attention.check(inputs)?;
        let mut out: Vec<TensorType> = inputs[..3].iter().map(|t| (*t).clone()).collect();
        if let (Some((i, _)), true) = (&self.attention.extras.mask, self.by_mask) {
            out.push(inputs[*i].clone());
        }
        Ok(out)
    }

    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of attention are not implemented".into()))
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // Scores and their gradients once more, and three products from them.
        let work = self.attention.work(inputs);
        let five_halves = crate::graph::Extent::floor_div(
            crate::graph::Extent::mul(work, crate::graph::Extent::constant(5)),
            crate::graph::Extent::constant(2),
        );
        Cost::streaming(five_halves, inputs, outputs)
    }

    fn attributes(&self) -> String {
        self.attention.describe()
    }
}
