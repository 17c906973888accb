//! Order along an axis: sorting and the k largest values.
//!
//! Equal values keep their order, and NaN comes last in both directions. Gradients pass through
//! the values to the places that they came from.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Tokens; Experts = 8; Chosen = 2; }
//!
//! fn route(logits: Tensor![Tokens, Experts]) -> (Tensor![Tokens, Chosen], Tensor![Tokens, Chosen; Index]) {
//!     logits.top_k(Experts, Chosen)
//! }
//! ```

use super::slice::{dimension, with_dim};
use super::{Cost, GradContext, NoGradient, Rule, arity, gather, leaf};
use crate::graph::trace::{Handle, opn, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Element, Index, Number};
use crate::language::proof;
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;
use std::cmp::Ordering;

/// The first values along dimension `axis` in order, and the positions they came from. Two
/// outputs: values, positions.
#[derive(Clone, Debug)]
pub struct Sort {
    /// The dimension.
    pub axis: usize,
    /// From the largest down, else from the smallest up.
    pub descending: bool,
    /// The dimension that comes out: as long as the input's for a sort, shorter for the k first.
    pub dim: Dim,
}

/// The order of two values in a sort: NaN after everything else. Stable sorting by it gives the
/// documented order; with positions as a tie-break any sorting does.
pub fn order(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let up = a.partial_cmp(&b).expect("neither is NaN");
            if descending { up.reverse() } else { up }
        }
    }
}

impl Rule for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let from = dimension(x, self.axis)?;
        if let (Some(n), Some(k)) = (from.extent.as_constant(), self.dim.extent.as_constant())
            && k > n
        {
            return Err(format!("takes the first {k} values of `{from}` of {x}"));
        }
        if x.dtype == DType::Bool {
            return Err("is not defined for bool".into());
        }
        let out = with_dim(x, self.axis, self.dim.clone());
        Ok(vec![out.clone(), out.with_dtype(DType::I32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let zeros = leaf::fill(0.0, type_of(cx.inputs[0]));
        Ok(vec![Some(gather::scatter_add(zeros, cx.outputs[1], cx.grad_of(0), self.axis))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // About log2(n) comparisons a value; a size that is not known counts as 2^10.
        let levels = match inputs[0].dims.get(self.axis).and_then(|d| d.extent.as_constant()) {
            Some(n) => u64::from(64 - n.leading_zeros()),
            None => 10,
        };
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(levels)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("axis={} first={}{}", self.axis, self.dim, if self.descending { " descending" } else { "" })
    }
}

/// The first values along dimension `axis` in order, as many as `dim` says, and the positions
/// they came from.
pub fn sort(x: Handle, axis: usize, descending: bool, dim: Dim) -> (Handle, Handle) {
    let out = opn(Sort { axis, descending, dim }, &[x], 2);
    (out[0], out[1])
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The values along an axis in order, and the positions they came from. Equal values keep
    /// their order; NaN comes last. PyTorch: `x.sort(dim, descending, stable=True)`.
    #[inline]
    pub fn sort<A: Axis, P>(self, _axis: A, descending: bool) -> (Tensor<S, E::Base>, Tensor<S, Index>)
    where
        E: Number,
        S: Has<A, P>,
    {
        let (values, positions) = sort(self.raw(), S::POSITION, descending, A::dim());
        (Tensor::from_raw(values), Tensor::from_raw(positions))
    }

    /// The positions of the values along an axis in order. PyTorch: `x.argsort(dim, descending)`.
    #[inline]
    pub fn argsort<A: Axis, P>(self, axis: A, descending: bool) -> Tensor<S, Index>
    where
        E: Number,
        S: Has<A, P>,
    {
        self.sort(axis, descending).1
    }

    /// The largest values along an axis, as many as `count` is long, from the largest down, and
    /// their positions: `logits.top_k(Experts, Chosen)`. Of equal values the first come first;
    /// NaN comes last. PyTorch: `x.topk(k, dim)` (where NaN comes first).
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn top_k<A: Axis, K: Axis, P>(
        self,
        _axis: A,
        _count: K,
    ) -> (Tensor<S::With<K>, E::Base>, Tensor<S::With<K>, Index>)
    where
        E: Number,
        S: Has<A, P>,
    {
        const { proof::slice::<A, K>("top_k", None) }
        let (values, positions) = sort(self.raw(), S::POSITION, true, K::dim());
        (Tensor::from_raw(values), Tensor::from_raw(positions))
    }
}
