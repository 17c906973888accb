//! Embedding: rows of a table picked by indices.
//!
//! `y[..] = table[ids[..]]`. The gradient by the table adds up the gradients of all places that
//! picked a row; it is summed in the order of the places, so it is the same in every run. An
//! index outside the table is an error when the program runs, naming the index and the size.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Vocab = 256; Hidden = 64; }
//!
//! fn look_up(ids: Tensor![Batch, Time; TokenId], table: Tensor![Vocab, Hidden]) -> Tensor![Batch, Time, Hidden] {
//!     ids.embedding(table)
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Element, Float, Indices};
use crate::language::shape::{Push, Shape};
use crate::tensor::Tensor;

/// Rows of a table. Inputs: the table `[rows, width]`, indices `[..]`. Output: `[.., width]`.
#[derive(Clone, Debug)]
pub struct Embedding;

/// The gradient of [`Embedding`] by its table. Inputs: indices `[..]`, the gradient
/// `[.., width]`. Output: `[rows, width]`.
#[derive(Clone, Debug)]
pub struct EmbeddingGrad {
    /// The table's first dimension.
    pub rows: Dim,
}

impl Rule for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [table, ids] = arity(inputs)?;
        if table.rank() != 2 || table.dtype != DType::F32 || ids.dtype != DType::I32 {
            return Err(format!("takes a table [rows, width] and indices, is given {table} and {ids}"));
        }
        let mut dims = ids.dims.clone();
        dims.push(table.dims[1].clone());
        Ok(vec![TensorType::new(dims, DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let rows = type_of(cx.inputs[0]).dims[0].clone();
        Ok(vec![Some(op1(EmbeddingGrad { rows }, &[cx.inputs[1], cx.grad()])), None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // Only the rows that are picked are read.
        let traffic = Extent::mul(outputs[0].count(), Extent::constant(8));
        let ids = Extent::mul(inputs[1].count(), Extent::constant(4));
        Cost { flops: Extent::constant(0), bytes: Extent::add(traffic, ids) }
    }
}

impl Rule for EmbeddingGrad {
    fn name(&self) -> &'static str {
        "embedding_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [ids, g] = arity(inputs)?;
        let fits = ids.dtype == DType::I32
            && g.dtype == DType::F32
            && g.rank() == ids.rank() + 1
            && ids.dims.iter().zip(&g.dims).all(|(a, b)| a.extent == b.extent);
        if !fits {
            return Err(format!("takes indices and the gradient of their rows, is given {ids} and {g}"));
        }
        Ok(vec![TensorType::new(vec![self.rows.clone(), g.dims[ids.rank()].clone()], DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        // The gradient is linear in `g`: its own gradient picks the rows again.
        Ok(vec![None, Some(embedding(cx.grad(), cx.inputs[0]))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[1].count(), inputs, outputs)
    }
}

/// The rows of `table [rows, width]` that `ids [..]` pick: `[.., width]`.
pub fn embedding(table: Handle, ids: Handle) -> Handle {
    op1(Embedding, &[table, ids])
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The rows of `table` that these indices pick, one per index: `[.., H]`. An index outside
    /// `0..V` is an error when the program runs. PyTorch: `F.embedding(ids, table)`.
    #[inline]
    pub fn embedding<V: Axis, H: Axis, F: Float>(self, table: Tensor<(V, H), F>) -> Tensor<S::Out>
    where
        S: Push<H>,
        E: Indices,
    {
        Tensor::from_raw(embedding(table.raw(), self.raw()))
    }
}
