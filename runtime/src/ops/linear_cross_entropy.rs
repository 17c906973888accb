//! Cross-entropy joined with the projection that its logits come from: what
//! [`crate::transforms::head`] makes of a language model's head and loss, so that the logits, the
//! largest value of a training step, are never whole in memory.
//!
//! For hidden rows `h`, a weight `w` and a bias `b`, with the loss of [`super::loss`]:
//!
//! ```text
//! x = h w^T + b        loss = cross_entropy(x, targets)
//! gx = g * dloss/dx    gh = gx w    gw = gx^T h    gb = sum over rows of gx
//! ```
//!
//! Gradients come with the loss: `g` is an input, so that no logit is computed twice (Hsu et al.
//! 2024, "Liger Kernel").

use super::loss::CrossEntropyOptions;
use super::{Cost, GradContext, NoGradient, Rule};
use crate::graph::trace::Handle;
use crate::graph::{DType, Extent, TensorType};

/// A projection and the cross-entropy of what it gives. Inputs: hidden rows `[.., d]`, the weight
/// `[classes, d]` or `[d, classes]`, targets `[..]`; the bias `[classes]` if there is one; the
/// gradient by the losses `[..]` if any gradient is wanted. Outputs: the losses `[..]`; the
/// gradients that are wanted, by the hidden rows, the weight and the bias, like these.
#[derive(Clone, Debug)]
pub struct LinearCrossEntropy {
    /// The settings of the loss.
    pub options: CrossEntropyOptions,
    /// The weight's dimension of classes: 0 or 1.
    pub classes: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the gradients by the hidden rows, the weight and the bias are wanted.
    pub wanted: [bool; 3],
}

impl LinearCrossEntropy {
    /// Whether any gradient is wanted.
    pub fn differentiates(&self) -> bool {
        self.wanted.contains(&true)
    }

    /// The place of the bias among the inputs.
    pub fn bias_input(&self) -> Option<usize> {
        self.bias.then_some(3)
    }

    /// The place of the gradient by the losses among the inputs.
    pub fn gradient_input(&self) -> Option<usize> {
        self.differentiates().then_some(3 + self.bias as usize)
    }

    /// The output that is the gradient by the hidden rows (0), the weight (1) or the bias (2).
    pub fn port(&self, of: usize) -> Option<usize> {
        self.wanted[of].then(|| 1 + self.wanted[..of].iter().filter(|w| **w).count())
    }
}

impl Rule for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let count = 3 + self.bias as usize + self.differentiates() as usize;
        if inputs.len() != count || self.classes > 1 {
            return Err(format!("takes {count} inputs, is given {}", inputs.len()));
        }
        let (hidden, weight, targets) = (inputs[0], inputs[1], inputs[2]);
        let rows = |ty: &TensorType| {
            ty.rank() + 1 == hidden.rank() && ty.dims.iter().zip(&hidden.dims).all(|(a, b)| a.extent == b.extent)
        };
        let real = |ty: &TensorType| ty.dtype == DType::F32;
        let fits = weight.rank() == 2
            && targets.dtype == DType::I32
            && rows(targets)
            && hidden.dims.last().is_some_and(|d| d.extent == weight.dims[1 - self.classes].extent)
            && self.gradient_input().is_none_or(|i| rows(inputs[i]) && real(inputs[i]))
            && self.bias_input().is_none_or(|i| {
                real(inputs[i]) && inputs[i].rank() == 1 && inputs[i].dims[0].extent == weight.dims[self.classes].extent
            });
        if !fits || !real(hidden) || !real(weight) {
            return Err(format!("does not project {hidden} by {weight} onto classes for targets {targets}"));
        }
        let mut outputs = vec![targets.with_dtype(DType::F32)];
        let of = [hidden, weight, inputs[self.bias_input().unwrap_or(0)]];
        outputs.extend(of.iter().zip(self.wanted).filter(|(_, wanted)| *wanted).map(|(ty, _)| (*ty).clone()));
        Ok(outputs)
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("a head is joined with its loss after differentiation".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let logits = Extent::mul(inputs[2].count(), inputs[1].dims[self.classes].extent.clone());
        let depth = inputs[1].dims[1 - self.classes].extent.clone();
        let products = 1 + self.wanted[..2].iter().filter(|w| **w).count() as u64;
        let work = Extent::mul(Extent::mul(logits.clone(), depth), Extent::constant(2 * products));
        Cost::streaming(Extent::add(work, Extent::mul(logits, Extent::constant(8))), inputs, outputs)
    }
    fn attributes(&self) -> String {
        let names = ["hidden", "weight", "bias"].into_iter().zip(self.wanted);
        let wanted: Vec<&str> = names.filter(|n| n.1).map(|n| n.0).collect();
        let mut words = vec![self.options.describe()];
        words.extend((!wanted.is_empty()).then(|| format!("gradients={}", wanted.join(","))));
        words.retain(|w| !w.is_empty());
        words.join(" ")
    }
}
