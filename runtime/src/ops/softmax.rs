//! Softmax and its logarithm along one dimension.
//!
//! `softmax(x)_i = exp(x_i - max x) / sum_j exp(x_j - max x)`. Subtracting the maximum changes
//! nothing but keeps every exponential at most 1. A row that is minus infinity everywhere (all of
//! it masked) has no distribution: its softmax is all zeros, its log-softmax all minus infinity,
//! never NaN.
//!
//! Both are coarse, so that each row is read once; the backward pass needs only the result `y`:
//! softmax: `gx = y * (g - sum(g * y))`, log-softmax: `gx = g - exp(y) * sum(g)`.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Vocab = 256; }
//!
//! fn confidence(logits: Tensor![Batch, Vocab]) -> Tensor![Batch] {
//!     logits.softmax(Vocab).max(Vocab)
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Extent, TensorType};
use crate::language::element::{Element, Float};
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// Softmax, or its logarithm, along dimension `axis`.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// The dimension that sums to one.
    pub axis: usize,
    /// Whether the logarithm is taken.
    pub log: bool,
}

/// The gradient of [`Softmax`]: from the result and the gradient by it, the gradient by the input.
#[derive(Clone, Debug)]
pub struct SoftmaxGrad {
    /// The dimension that sums to one.
    pub axis: usize,
    /// Whether the logarithm was taken.
    pub log: bool,
}

fn real_along(x: &TensorType, axis: usize) -> Result<(), String> {
    if x.dtype != DType::F32 {
        return Err(format!("takes real numbers, is given {x}"));
    }
    if axis >= x.rank() {
        return Err(format!("has no dimension {axis} in {x}"));
    }
    Ok(())
}

impl Rule for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        real_along(x, self.axis)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let op = SoftmaxGrad { axis: self.axis, log: self.log };
        Ok(vec![Some(op1(op, &[cx.outputs[0], cx.grad()]))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // Maximum, difference, exponential, sum, quotient.
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(5)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for SoftmaxGrad {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax_grad" } else { "softmax_grad" }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [y, g] = arity(inputs)?;
        real_along(y, self.axis)?;
        if !y.same_extents(g) {
            return Err(format!("takes a result and its gradient, is given {y} and {g}"));
        }
        Ok(vec![y.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (y, g, h) = (cx.inputs[0], cx.inputs[1], cx.grad());
        let dims = type_of(y).dims;
        let total =
            |x: Handle| reduce::restore(reduce::reduce(x, reduce::Kind::Sum, &[self.axis]), &dims, &[self.axis]);
        if self.log {
            let p = ew::unary(ew::UnaryKind::Exp, y);
            let hp = ew::mul(h, p);
            return Ok(vec![Some(ew::neg(ew::mul(hp, total(g)))), Some(ew::sub(h, total(hp)))]);
        }
        let hy = total(ew::mul(h, y));
        let by_y = ew::sub(ew::mul(h, ew::sub(g, total(ew::mul(g, y)))), ew::mul(g, hy));
        Ok(vec![Some(by_y), Some(ew::mul(y, ew::sub(h, hy)))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(4)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

/// Softmax along dimension `axis`.
pub fn softmax(x: Handle, axis: usize) -> Handle {
    op1(Softmax { axis, log: false }, &[x])
}

/// The logarithm of softmax along dimension `axis`.
pub fn log_softmax(x: Handle, axis: usize) -> Handle {
    op1(Softmax { axis, log: true }, &[x])
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// Softmax along one axis: `exp(x - max) / sum(exp(x - max))`, as in
    /// `scores.softmax(Keys)`. Where the whole row is minus infinity the result is zero.
    /// PyTorch: `x.softmax(dim)`.
    #[inline]
    pub fn softmax<A, P>(self, _axis: A) -> Tensor<S>
    where
        S: Has<A, P>,
        E: Float,
    {
        Tensor::from_raw(softmax(self.raw(), S::POSITION))
    }

    /// The logarithm of softmax along one axis: `x - logsumexp(x)`. Where the whole row is minus
    /// infinity so is the result. PyTorch: `x.log_softmax(dim)`.
    #[inline]
    pub fn log_softmax<A, P>(self, _axis: A) -> Tensor<S>
    where
        S: Has<A, P>,
        E: Float,
    {
        Tensor::from_raw(log_softmax(self.raw(), S::POSITION))
    }
}
