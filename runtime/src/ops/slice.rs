//! Parts of an axis: slices at fixed and at run-time places, concatenation, reversal.
//!
//! The gradient of a slice is padding, of a concatenation slices, of an update a slice and an update.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Past; Time; Hidden = 64; Half = 32; Limit = 1024; }
//!
//! fn first_half(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Half] {
//!     x.slice(Hidden, Half, 0)
//! }
//!
//! // A cache that grows, and one that is written in place.
//! fn append(cache: Tensor![Batch, Past, Hidden], new: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Past + Time, Hidden] {
//!     cache.concat(Past, new, Time)
//! }
//!
//! fn write(cache: Tensor![Batch, Limit, Hidden], new: Tensor![Batch, Time, Hidden], at: Tensor![; Index]) -> Tensor![Batch, Limit, Hidden] {
//!     cache.update_slice(Limit, new, Time, at)
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity, leaf, movement, pad::pad_zeros};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

mod typed;

pub use typed::Offset;

/// Every `step`-th value along dimension `axis`, from `start` on.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The dimension.
    pub axis: usize,
    /// The first position.
    pub start: Extent,
    /// The distance between positions, at least 1.
    pub step: u64,
    /// The dimension that comes out; its extent is the number of positions.
    pub dim: Dim,
}

/// Consecutive values along dimension `axis`, from a position that is known at run time: inputs
/// `x` and a whole scalar.
#[derive(Clone, Debug)]
pub struct DynamicSlice {
    /// The dimension.
    pub axis: usize,
    /// The dimension that comes out.
    pub dim: Dim,
}

/// The first input with a block of it replaced by the second, along dimension `axis` from a
/// position (the third input, a whole scalar) on.
#[derive(Clone, Debug)]
pub struct UpdateSlice {
    /// The dimension.
    pub axis: usize,
}

/// The inputs one after the other along dimension `axis`.
#[derive(Clone, Debug)]
pub struct Concat {
    /// The dimension.
    pub axis: usize,
    /// The dimension that comes out.
    pub dim: Dim,
}

/// The values along dimension `axis` in reverse order.
#[derive(Clone, Debug)]
pub struct Flip {
    /// The dimension.
    pub axis: usize,
}

/// The dimension at `axis`, or the message that there is none.
pub(crate) fn dimension(x: &TensorType, axis: usize) -> Result<&Dim, String> {
    x.dims.get(axis).ok_or_else(|| format!("has no dimension {axis} in {x}"))
}

/// `x` with the dimension at `axis` replaced.
pub(crate) fn with_dim(x: &TensorType, axis: usize, dim: Dim) -> TensorType {
    let mut out = x.clone();
    out.dims[axis] = dim;
    out
}

fn whole_scalar(offset: &TensorType) -> Result<(), String> {
    if offset.rank() != 0 || offset.dtype != DType::I32 {
        return Err(format!("takes a whole number as its offset, is given {offset}"));
    }
    Ok(())
}

/// Where a block of `length` values starts in a dimension of `n`, or what is wrong.
pub fn check_block(offset: i64, length: usize, n: usize) -> Result<usize, String> {
    match usize::try_from(offset) {
        Ok(start) if start.saturating_add(length) <= n => Ok(start),
        _ => Err(format!("{length} values from position {offset} on do not lie within {n}")),
    }
}

impl Slice {
    /// What is wrong for a dimension of `n` values, `start` and the number of positions being
    /// known.
    pub fn check(&self, n: u64, start: u64, length: u64) -> Result<(), String> {
        let end = match length {
            0 => start,
            length => start.saturating_add((length - 1).saturating_mul(self.step)).saturating_add(1),
        };
        if end > n {
            let by = if self.step == 1 { String::new() } else { format!(" (every {}th)", self.step) };
            return Err(format!("positions {start}..{end}{by} do not lie within the {n} of dimension {}", self.axis));
        }
        Ok(())
    }
}

impl Rule for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let from = dimension(x, self.axis)?;
        if self.step == 0 {
            return Err("takes a step of at least 1".into());
        }
        let known = (from.extent.as_constant(), self.start.as_constant(), self.dim.extent.as_constant());
        if let (Some(n), Some(start), Some(length)) = known {
            self.check(n, start, length).map_err(|e| format!("{e} (`{from}` of {x})"))?;
        }
        Ok(vec![with_dim(x, self.axis, self.dim.clone())])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let ty = type_of(cx.inputs[0]);
        Ok(vec![Some(unslice(cx.grad(), self, ty.dims[self.axis].clone()))])
    }
    fn is_view(&self) -> bool {
        true
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
    fn attributes(&self) -> String {
        let step = if self.step == 1 { String::new() } else { format!(" step={}", self.step) };
        format!("axis={} start={}{step}", self.axis, self.start)
    }
}

impl Rule for DynamicSlice {
    fn name(&self) -> &'static str {
        "dynamic_slice"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, offset] = arity(inputs)?;
        dimension(x, self.axis)?;
        whole_scalar(offset)?;
        Ok(vec![with_dim(x, self.axis, self.dim.clone())])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let zeros = leaf::fill(0.0, type_of(cx.inputs[0]));
        Ok(vec![Some(update_slice(zeros, cx.grad(), cx.inputs[1], self.axis)), None])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for UpdateSlice {
    fn name(&self) -> &'static str {
        "update_slice"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, block, offset] = arity(inputs)?;
        dimension(x, self.axis)?;
        whole_scalar(offset)?;
        let fits = block.dtype == x.dtype
            && block.rank() == x.rank()
            && (0..x.rank()).all(|d| d == self.axis || x.dims[d].extent == block.dims[d].extent);
        if !fits {
            return Err(format!("writes {block} into {x}: only dimension {} may differ", self.axis));
        }
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (block, offset, g) = (cx.inputs[1], cx.inputs[2], cx.grad());
        let zeros = || leaf::fill(0.0, type_of(block));
        let dim = type_of(block).dims[self.axis].clone();
        Ok(vec![
            cx.wanted[0].then(|| update_slice(g, zeros(), offset, self.axis)),
            cx.wanted[1].then(|| dynamic_slice(g, offset, self.axis, dim)),
            None,
        ])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let Some(first) = inputs.first() else { return Err("takes at least one input".into()) };
        dimension(first, self.axis)?;
        let mut total = Extent::constant(0);
        for x in inputs {
            let fits = x.dtype == first.dtype
                && x.rank() == first.rank()
                && (0..x.rank()).all(|d| d == self.axis || x.dims[d].extent == first.dims[d].extent);
            if !fits {
                return Err(format!("joins {first} and {x}: only dimension {} may differ", self.axis));
            }
            total = Extent::add(total, x.dims[self.axis].extent.clone());
        }
        if total != self.dim.extent {
            return Err(format!("gives {total} values, not `{}`", self.dim));
        }
        Ok(vec![with_dim(first, self.axis, self.dim.clone())])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let g = cx.grad();
        let mut start = Extent::constant(0);
        let mut grads = vec![];
        for (input, wanted) in cx.inputs.iter().zip(&cx.wanted) {
            let dim = type_of(*input).dims[self.axis].clone();
            let next = Extent::add(start.clone(), dim.extent.clone());
            grads.push(wanted.then(|| slice(g, self.axis, start, 1, dim)));
            start = next;
        }
        Ok(grads)
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

impl Rule for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        dimension(x, self.axis)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![Some(flip(cx.grad(), self.axis))])
    }
    fn attributes(&self) -> String {
        format!("axis={}", self.axis)
    }
}

/// Every `step`-th value of dimension `axis` from `start` on, as many as `dim` says.
pub fn slice(x: Handle, axis: usize, start: Extent, step: u64, dim: Dim) -> Handle {
    let whole = start.as_constant() == Some(0)
        && step == 1
        && type_of(x).dims.get(axis).is_some_and(|d| d.extent == dim.extent && d.axis == dim.axis);
    if whole { x } else { op1(Slice { axis, start, step, dim }, &[x]) }
}

/// The adjoint of a slice: its values at their places in a dimension `full` of zeros.
fn unslice(g: Handle, op: &Slice, full: Dim) -> Handle {
    let ty = type_of(g);
    let length = op.dim.extent.clone();
    if op.step == 1 {
        let rest = Extent::sub(Extent::sub(full.extent.clone(), op.start.clone()), length);
        return pad_zeros(g, op.axis, op.start.clone(), rest, full);
    }
    // Each value followed by step - 1 zeros, by way of a new dimension and a merge.
    let step = Extent::constant(op.step);
    let spread = Extent::mul(length, step.clone());
    let mut wide = ty.dims.clone();
    wide.insert(op.axis + 1, Dim::fixed(1));
    let mut zeros = wide.clone();
    zeros[op.axis + 1] = Dim::fixed(op.step - 1);
    let parts = [movement::reshape(g, wide), leaf::fill(0.0, TensorType::new(zeros, ty.dtype))];
    let pairs = concat(&parts, op.axis + 1, Dim::anonymous(step));
    let block = movement::reshape(pairs, with_dim(&ty, op.axis, Dim::anonymous(spread.clone())).dims);
    // The zeros after the last value may reach beyond the end: they are cut off.
    let longer = Extent::add(full.extent.clone(), Extent::constant(op.step - 1));
    let rest = Extent::sub(Extent::sub(longer.clone(), op.start.clone()), spread);
    let padded = pad_zeros(block, op.axis, op.start.clone(), rest, Dim::anonymous(longer));
    slice(padded, op.axis, Extent::constant(0), 1, full)
}

/// As many consecutive values of dimension `axis` as `dim` says, from a run-time position on.
pub fn dynamic_slice(x: Handle, offset: Handle, axis: usize, dim: Dim) -> Handle {
    op1(DynamicSlice { axis, dim }, &[x, offset])
}

/// `x` with `block` in place of its values along dimension `axis` from `offset` on.
pub fn update_slice(x: Handle, block: Handle, offset: Handle, axis: usize) -> Handle {
    op1(UpdateSlice { axis }, &[x, block, offset])
}

/// The values one after the other along dimension `axis`, which becomes `dim`.
pub fn concat(parts: &[Handle], axis: usize, dim: Dim) -> Handle {
    op1(Concat { axis, dim }, parts)
}

/// The values along dimension `axis` in reverse order.
pub fn flip(x: Handle, axis: usize) -> Handle {
    op1(Flip { axis }, &[x])
}
