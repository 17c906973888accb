//! Values picked by indices, and their adjoints.
//!
//! Two forms, each with its adjoint: [`Gather`] picks along an axis with an index for every
//! result (PyTorch: `gather`), [`Take`] picks whole slices with one list of indices (PyTorch:
//! `index_select`). An index out of range is an error when the program runs; sums of values that
//! meet in one place are added in order, so results do not depend on the number of threads.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Vocab = 256; Best = 4; }
//!
//! fn pick(scores: Tensor![Batch, Vocab], at: Tensor![Batch, Best; Index]) -> Tensor![Batch, Best] {
//!     scores.gather(Vocab, at, Best)
//! }
//!
//! fn seen(tokens: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Vocab] {
//!     tokens.one_hot::<Vocab>().sum(Time)
//! }
//! ```

use super::slice::{dimension, with_dim};
use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, movement, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Element, Float, Indices};
use crate::language::shape::{Has, Push, Shape};
use crate::tensor::Tensor;

/// `out[.., i, ..] = x[.., index[.., i, ..], ..]` along dimension `axis`; `index` agrees with `x`
/// in all other dimensions.
#[derive(Clone, Debug)]
pub struct Gather {
    /// The dimension.
    pub axis: usize,
}

/// The adjoint of [`Gather`]: `x` with `source[.., i, ..]` added at `index[.., i, ..]`. Inputs
/// `x`, `index`, `source`.
#[derive(Clone, Debug)]
pub struct ScatterAdd {
    /// The dimension.
    pub axis: usize,
}

/// `out[.., j, ..] = x[.., index[j], ..]` for a vector of indices.
#[derive(Clone, Debug)]
pub struct Take {
    /// The dimension.
    pub axis: usize,
}

/// The adjoint of [`Take`]: `x` with slice `j` of `source` added at `index[j]`. Inputs `x`,
/// `index`, `source`.
#[derive(Clone, Debug)]
pub struct TakeAdd {
    /// The dimension.
    pub axis: usize,
}

/// What is wrong with an index.
pub fn check_index(index: i64, n: usize) -> Result<usize, String> {
    match usize::try_from(index) {
        Ok(i) if i < n => Ok(i),
        _ => Err(format!("index {index} is out of range for an axis of {n} values")),
    }
}

fn indices(index: &TensorType) -> Result<(), String> {
    match index.dtype {
        DType::I32 => Ok(()),
        _ => Err(format!("picks by indices, is given {index}")),
    }
}

/// `index` has the extents of `x` but along `axis`.
fn alike(x: &TensorType, index: &TensorType, axis: usize) -> Result<(), String> {
    dimension(x, axis)?;
    indices(index)?;
    let others = |d: usize| d == axis || x.dims[d].extent == index.dims[d].extent;
    if index.rank() != x.rank() || !(0..x.rank()).all(others) {
        return Err(format!("picks from {x} by {index}: only dimension {axis} may differ"));
    }
    Ok(())
}

/// `index` is a vector; the type of what it picks.
fn taken(x: &TensorType, index: &TensorType, axis: usize) -> Result<TensorType, String> {
    dimension(x, axis)?;
    indices(index)?;
    match &index.dims[..] {
        [one] => Ok(with_dim(x, axis, one.clone())),
        _ => Err(format!("picks by a vector of indices, is given {index}")),
    }
}

fn same(a: &TensorType, b: &TensorType) -> Result<(), String> {
    if a.dtype != DType::F32 {
        return Err(format!("adds real values, is given {a}"));
    }
    if !a.same_extents(b) || a.dtype != b.dtype {
        return Err(format!("adds {b} where {a} is expected"));
    }
    Ok(())
}

impl Rule for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, index] = arity(inputs)?;
        alike(x, index, self.axis)?;
        Ok(vec![index.with_dtype(x.dtype)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let zeros = leaf::fill(0.0, type_of(cx.inputs[0]));
        Ok(vec![Some(scatter_add(zeros, cx.inputs[1], cx.grad(), self.axis)), None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::constant(0), &inputs[1..], &[outputs[0].clone(), outputs[0].clone()])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, index, source] = arity(inputs)?;
        alike(x, index, self.axis)?;
        same(&index.with_dtype(x.dtype), source)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (index, g) = (cx.inputs[1], cx.grad());
        Ok(vec![Some(g), None, cx.wanted[2].then(|| gather(g, index, self.axis))])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for Take {
    fn name(&self) -> &'static str {
        "take"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, index] = arity(inputs)?;
        Ok(vec![taken(x, index, self.axis)?])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let zeros = leaf::fill(0.0, type_of(cx.inputs[0]));
        Ok(vec![Some(take_add(zeros, cx.inputs[1], cx.grad(), self.axis)), None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::constant(0), &inputs[1..], &[outputs[0].clone(), outputs[0].clone()])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for TakeAdd {
    fn name(&self) -> &'static str {
        "take_add"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, index, source] = arity(inputs)?;
        same(&taken(x, index, self.axis)?, source)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (index, g) = (cx.inputs[1], cx.grad());
        Ok(vec![Some(g), None, cx.wanted[2].then(|| take(g, index, self.axis))])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

/// `out[.., i, ..] = x[.., index[.., i, ..], ..]` along dimension `axis`.
pub fn gather(x: Handle, index: Handle, axis: usize) -> Handle {
    op1(Gather { axis }, &[x, index])
}

/// `x` with `source[.., i, ..]` added at `index[.., i, ..]` along dimension `axis`.
pub fn scatter_add(x: Handle, index: Handle, source: Handle, axis: usize) -> Handle {
    op1(ScatterAdd { axis }, &[x, index, source])
}

/// The slices of `x` along dimension `axis` that a vector of indices names.
pub fn take(x: Handle, index: Handle, axis: usize) -> Handle {
    op1(Take { axis }, &[x, index])
}

/// `x` with slice `j` of `source` added at `index[j]` along dimension `axis`.
pub fn take_add(x: Handle, index: Handle, source: Handle, axis: usize) -> Handle {
    op1(TakeAdd { axis }, &[x, index, source])
}

/// 1 at each index along a new last dimension, 0 elsewhere; all 0 for an index out of range.
pub fn one_hot(index: Handle, dim: Dim) -> Handle {
    let mut ty = type_of(index);
    let last = ty.rank();
    ty.dims.push(dim);
    let wide = reduce::restore(index, &ty.dims, &[last]);
    let hit = ew::compare(ew::CompareKind::Eq, leaf::iota(last, &ty), wide);
    ew::cast(hit, DType::F32)
}

/// Where the position along the second-last dimension is at least the position along the last
/// one minus `diagonal`: the lower triangle.
pub fn lower_triangle(dims: &[Dim], diagonal: i64) -> Handle {
    triangle(dims, ew::CompareKind::Le, diagonal)
}

/// Where the position along the last dimension is at least the position along the second-last
/// one plus `diagonal`: the upper triangle.
pub fn upper_triangle(dims: &[Dim], diagonal: i64) -> Handle {
    triangle(dims, ew::CompareKind::Ge, diagonal)
}

fn triangle(dims: &[Dim], kind: ew::CompareKind, diagonal: i64) -> Handle {
    let rank = dims.len();
    if rank < 2 {
        crate::graph::trace::fail("a triangle has at least two axes");
        return leaf::fill(0.0, TensorType::new(dims.to_vec(), DType::Bool));
    }
    let matrix = TensorType::new(dims[rank - 2..].to_vec(), DType::I32);
    let (row, column) = (leaf::iota(0, &matrix), leaf::iota(1, &matrix));
    let shifted = ew::add(row, leaf::fill(diagonal as f64, TensorType::new(vec![], DType::I32)));
    movement::broadcast(ew::compare(kind, column, shifted), dims.to_vec())
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `out[.., i, ..] = x[.., index[.., i, ..], ..]` along `axis`; `index` has all other axes of
    /// `x`, and its own one (`_new`) in place of `axis`. An index out of range is an error when
    /// the program runs. PyTorch: `x.gather(dim, index)`.
    #[inline]
    pub fn gather<A: Axis, J: Axis, I: Indices, P>(
        self,
        _axis: A,
        index: Tensor<S::With<J>, I>,
        _new: J,
    ) -> Tensor<S::With<J>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(gather(self.raw(), index.raw(), S::POSITION))
    }

    /// The slices along `axis` that a vector of indices names. An index out of range is an error
    /// when the program runs. PyTorch: `x.index_select(dim, index)`.
    #[inline]
    pub fn index_select<A: Axis, J: Axis, I: Indices, P>(
        self,
        _axis: A,
        index: Tensor<(J,), I>,
    ) -> Tensor<S::With<J>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(take(self.raw(), index.raw(), S::POSITION))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `x` with `source[.., i, ..]` added at `index[.., i, ..]` along `axis`; several values that
    /// meet in one place are all added. PyTorch: `x.scatter_add(dim, index, source)`.
    #[inline]
    pub fn scatter_add<A: Axis, J: Axis, I: Indices, F: Float, P>(
        self,
        _axis: A,
        index: Tensor<S::With<J>, I>,
        source: Tensor<S::With<J>, F>,
        _new: J,
    ) -> Tensor<S>
    where
        E: Float,
        S: Has<A, P>,
    {
        Tensor::from_raw(scatter_add(self.raw(), index.raw(), source.raw(), S::POSITION))
    }

    /// `x` with slice `j` of `source` added at `index[j]` along `axis`. PyTorch:
    /// `x.index_add(dim, index, source)`.
    #[inline]
    pub fn index_add<A: Axis, J: Axis, I: Indices, F: Float, P>(
        self,
        _axis: A,
        index: Tensor<(J,), I>,
        source: Tensor<S::With<J>, F>,
    ) -> Tensor<S>
    where
        E: Float,
        S: Has<A, P>,
    {
        Tensor::from_raw(take_add(self.raw(), index.raw(), source.raw(), S::POSITION))
    }
}

impl<S: Shape, I: Element> Tensor<S, I> {
    /// 1 at each index along a new last axis `N`, 0 elsewhere: `tokens.one_hot::<Vocab>()`. An
    /// index out of range gives zeros. PyTorch: `one_hot`.
    #[inline]
    pub fn one_hot<N: Axis>(self) -> Tensor<S::Out>
    where
        I: Indices,
        S: Push<N>,
    {
        Tensor::from_raw(one_hot(self.raw(), N::dim()))
    }
}

impl<S: Shape> Tensor<S, crate::language::element::Mask> {
    /// True on and below diagonal number `diagonal` of the last two axes. PyTorch:
    /// `torch.ones(..).tril(diagonal)`.
    #[inline]
    pub fn lower_triangle(diagonal: i64) -> Self {
        const { assert!(S::RANK >= 2, "a triangle has at least two axes") }
        Tensor::from_raw(lower_triangle(&S::dims(), diagonal))
    }

    /// True on and above diagonal number `diagonal` of the last two axes. PyTorch:
    /// `torch.ones(..).triu(diagonal)`.
    #[inline]
    pub fn upper_triangle(diagonal: i64) -> Self {
        const { assert!(S::RANK >= 2, "a triangle has at least two axes") }
        Tensor::from_raw(upper_triangle(&S::dims(), diagonal))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The value on and below diagonal number `diagonal` of the last two axes, zero (false) above.
    /// PyTorch: `x.tril(diagonal)`.
    #[inline]
    pub fn tril(self, diagonal: i64) -> Tensor<S, E::Base> {
        const { assert!(S::RANK >= 2, "a triangle has at least two axes") }
        let mask = lower_triangle(&S::dims(), diagonal);
        Tensor::from_raw(ew::select(mask, self.raw(), ew::constant_like(self.raw(), 0.0)))
    }

    /// The value on and above diagonal number `diagonal` of the last two axes, zero (false) below.
    /// PyTorch: `x.triu(diagonal)`.
    #[inline]
    pub fn triu(self, diagonal: i64) -> Tensor<S, E::Base> {
        const { assert!(S::RANK >= 2, "a triangle has at least two axes") }
        let mask = upper_triangle(&S::dims(), diagonal);
        Tensor::from_raw(ew::select(mask, self.raw(), ew::constant_like(self.raw(), 0.0)))
    }
}
