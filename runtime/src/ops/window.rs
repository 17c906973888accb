//! Sliding windows over an axis, and their adjoint.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Samples; Frames = floor((Samples - 400) / 160) + 1; }
//!
//! fn frames(x: Tensor![Batch, Samples]) -> Tensor![Batch, Frames, 400] {
//!     x.unfold(Samples, Windows::<400, 160>).relabel()
//! }
//!
//! fn overlap_add(x: Tensor![Batch, Frames, 400]) -> Tensor![Batch, Samples] {
//!     x.fold(Frames, Windows::<400, 160>, Samples)
//! }
//! ```

use super::slice::dimension;
use super::{GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::{Axis, Const, Conv};
use crate::language::element::{Element, Float};
use crate::language::proof;
use crate::language::shape::{Has, Neighbours, Shape};
use crate::tensor::Tensor;

/// Dimension `axis` becomes two, windows and the places in a window:
/// `out[.., w, k, ..] = x[.., w * stride + k * dilation, ..]`.
#[derive(Clone, Debug)]
pub struct Unfold {
    /// The dimension.
    pub axis: usize,
    /// The distance between windows.
    pub stride: u64,
    /// The distance between places in a window.
    pub dilation: u64,
    /// How many windows.
    pub windows: Dim,
    /// How many places in each.
    pub kernel: Dim,
}

/// The adjoint of [`Unfold`]: every place's value is added where it came from. PyTorch calls it
/// `fold` for images; for spectra it is overlap-add.
#[derive(Clone, Debug)]
pub struct Fold {
    /// The dimension of windows; the places are the next one.
    pub axis: usize,
    /// The distance between windows.
    pub stride: u64,
    /// The distance between places in a window.
    pub dilation: u64,
    /// The dimension that comes out.
    pub dim: Dim,
}

/// That the windows lie within the dimension, where all is known.
fn check(n: &Extent, windows: &Extent, kernel: &Extent, stride: u64, dilation: u64) -> Result<(), String> {
    if stride == 0 || dilation == 0 {
        return Err("takes a stride and a dilation of at least 1".into());
    }
    let known = |e: &Extent| e.as_constant().map(|n| n as usize);
    match (known(n), known(windows), known(kernel)) {
        (Some(n), Some(windows), Some(kernel)) => check_sizes(n, windows, kernel, stride as usize, dilation as usize),
        _ => Ok(()),
    }
}

/// That the windows lie within `n` values, or what is wrong.
pub fn check_sizes(n: usize, windows: usize, kernel: usize, stride: usize, dilation: usize) -> Result<(), String> {
    if windows == 0 || kernel == 0 {
        return Ok(());
    }
    let span = (windows - 1) * stride + (kernel - 1) * dilation + 1;
    if span > n {
        return Err(format!("{windows} windows of {kernel} span {span} values, there are {n}"));
    }
    Ok(())
}

impl Rule for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let n = &dimension(x, self.axis)?.extent;
        check(n, &self.windows.extent, &self.kernel.extent, self.stride, self.dilation)?;
        let mut dims = x.dims.clone();
        dims.splice(self.axis..=self.axis, [self.windows.clone(), self.kernel.clone()]);
        Ok(vec![TensorType::new(dims, x.dtype)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let dim = type_of(cx.inputs[0]).dims[self.axis].clone();
        Ok(vec![Some(fold(cx.grad(), self.axis, self.stride, self.dilation, dim))])
    }
    fn attributes(&self) -> String {
        format!("axis={} stride={} dilation={}", self.axis, self.stride, self.dilation)
    }
}

impl Rule for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let (windows, kernel) = (dimension(x, self.axis)?, dimension(x, self.axis + 1)?);
        check(&self.dim.extent, &windows.extent, &kernel.extent, self.stride, self.dilation)?;
        if x.dtype != DType::F32 {
            return Err(format!("adds real values, is given {x}"));
        }
        let mut dims = x.dims.clone();
        dims.splice(self.axis..=self.axis + 1, [self.dim.clone()]);
        Ok(vec![TensorType::new(dims, x.dtype)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let ty = type_of(cx.inputs[0]);
        let (windows, kernel) = (ty.dims[self.axis].clone(), ty.dims[self.axis + 1].clone());
        Ok(vec![Some(unfold(cx.grad(), self.axis, self.stride, self.dilation, windows, kernel))])
    }
    fn attributes(&self) -> String {
        format!("axis={} stride={} dilation={}", self.axis, self.stride, self.dilation)
    }
}

/// Windows along dimension `axis`: `out[.., w, k, ..] = x[.., w * stride + k * dilation, ..]`.
pub fn unfold(x: Handle, axis: usize, stride: u64, dilation: u64, windows: Dim, kernel: Dim) -> Handle {
    op1(Unfold { axis, stride, dilation, windows, kernel }, &[x])
}

/// The sum of windows at their places: the adjoint of [`unfold`].
pub fn fold(x: Handle, axis: usize, stride: u64, dilation: u64, dim: Dim) -> Handle {
    op1(Fold { axis, stride, dilation, dim }, &[x])
}

/// Windows of `K` places, `STRIDE` apart, places `DILATION` apart. An option of
/// [`Tensor::unfold`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows<const K: u64, const STRIDE: u64 = 1, const DILATION: u64 = 1>;

impl<S: Shape, E: Element> Tensor<S, E> {
    /// Sliding windows over `axis`, which becomes two axes: windows, `Conv<A, K, STRIDE, 0,
    /// DILATION>`, and places in a window, `Const<K>`:
    /// `x.unfold(Samples, Windows::<400, 160>)`; values after the last whole window are left out.
    /// PyTorch: `x.unfold(dim, size, step)` (which puts the places last).
    #[inline]
    pub fn unfold<A: Axis, P, const K: u64, const STRIDE: u64, const DILATION: u64>(
        self,
        _axis: A,
        _windows: Windows<K, STRIDE, DILATION>,
    ) -> Tensor<S::Split<Conv<A, K, STRIDE, 0, DILATION>, Const<K>>, E>
    where
        S: Has<A, P>,
    {
        let windows = <Conv<A, K, STRIDE, 0, DILATION>>::dim();
        Tensor::from_raw(unfold(self.raw(), S::POSITION, STRIDE, DILATION, windows, <Const<K>>::dim()))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The adjoint of [`unfold`](Self::unfold): joins two neighbouring axes, windows and the
    /// places in each, into the axis `out` by adding every place's value where it came from
    /// (overlap-add). That `out` has exactly these windows is proved at build time. PyTorch:
    /// `fold`.
    #[inline]
    pub fn fold<W: Axis, N: Axis, P, const K: u64, const STRIDE: u64, const DILATION: u64>(
        self,
        _axis: W,
        _windows: Windows<K, STRIDE, DILATION>,
        _out: N,
    ) -> Tensor<S::Merged<N>>
    where
        E: Float,
        S: Neighbours<W, Const<K>, P>,
    {
        const { proof::equal::<W, Conv<N, K, STRIDE, 0, DILATION>>("fold joins the windows of an axis") }
        Tensor::from_raw(fold(self.raw(), S::POSITION, STRIDE, DILATION, N::dim()))
    }
}
