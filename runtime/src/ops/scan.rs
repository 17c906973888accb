//! Running sums along an axis, and the places of extremes.

use super::slice::dimension;
use super::{GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, TensorType};
use crate::language::element::{Element, Index, Number};
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// `out[i] = sum over j <= i of x[j]` along dimension `axis`; from the end when `reverse`.
#[derive(Clone, Debug)]
pub struct CumSum {
    /// The dimension.
    pub axis: usize,
    /// Whether sums run from the end: over `j >= i`.
    pub reverse: bool,
}

/// The position of the largest (smallest) value along dimension `axis`, the first of equal ones;
/// NaN counts as the largest (smallest).
#[derive(Clone, Debug)]
pub struct ArgExtreme {
    /// The dimension, which disappears.
    pub axis: usize,
    /// Whether the largest is sought, else the smallest.
    pub largest: bool,
}

impl Rule for CumSum {
    fn name(&self) -> &'static str {
        "cumsum"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        dimension(x, self.axis)?;
        if x.dtype == DType::Bool {
            return Err("is not defined for bool".into());
        }
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![Some(cumsum(cx.grad(), self.axis, !self.reverse))])
    }
    fn attributes(&self) -> String {
        format!("axis={}{}", self.axis, if self.reverse { " reverse" } else { "" })
    }
}

impl Rule for ArgExtreme {
    fn name(&self) -> &'static str {
        if self.largest { "argmax" } else { "argmin" }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let dim = dimension(x, self.axis)?;
        if x.dtype == DType::Bool {
            return Err("is not defined for bool".into());
        }
        if dim.extent.as_constant() == Some(0) {
            return Err(format!("looks for a place in the empty dimension {} of {x}", self.axis));
        }
        let mut out = x.with_dtype(DType::I32);
        out.dims.remove(self.axis);
        Ok(vec![out])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> super::Cost {
        super::Cost::streaming(inputs[0].count(), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

/// Running sums along dimension `axis`, from the end when `reverse`.
pub fn cumsum(x: Handle, axis: usize, reverse: bool) -> Handle {
    op1(CumSum { axis, reverse }, &[x])
}

/// The position of the largest value along dimension `axis`.
pub fn argmax(x: Handle, axis: usize) -> Handle {
    op1(ArgExtreme { axis, largest: true }, &[x])
}

/// The position of the smallest value along dimension `axis`.
pub fn argmin(x: Handle, axis: usize) -> Handle {
    op1(ArgExtreme { axis, largest: false }, &[x])
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// Running sums along an axis, each including its own value. PyTorch: `x.cumsum(dim)`.
    #[inline]
    pub fn cumsum<A, P>(self, _axis: A) -> Tensor<S, E::Base>
    where
        E: Number,
        S: Has<A, P>,
    {
        Tensor::from_raw(cumsum(self.raw(), S::POSITION, false))
    }

    /// Running sums from the end: `out[i]` is the sum of `x[i..]`. PyTorch:
    /// `x.flip(dim).cumsum(dim).flip(dim)`.
    #[inline]
    pub fn cumsum_reverse<A, P>(self, _axis: A) -> Tensor<S, E::Base>
    where
        E: Number,
        S: Has<A, P>,
    {
        Tensor::from_raw(cumsum(self.raw(), S::POSITION, true))
    }

    /// The position of the largest value along an axis, the first of equal ones; a NaN counts as
    /// the largest. No gradient. PyTorch: `x.argmax(dim)`.
    #[inline]
    pub fn argmax<A, P>(self, _axis: A) -> Tensor<S::Without, Index>
    where
        E: Number,
        S: Has<A, P>,
    {
        Tensor::from_raw(argmax(self.raw(), S::POSITION))
    }

    /// The position of the smallest value along an axis, the first of equal ones; a NaN counts as
    /// the smallest. No gradient. PyTorch: `x.argmin(dim)`.
    #[inline]
    pub fn argmin<A, P>(self, _axis: A) -> Tensor<S::Without, Index>
    where
        E: Number,
        S: Has<A, P>,
    {
        Tensor::from_raw(argmin(self.raw(), S::POSITION))
    }
}
