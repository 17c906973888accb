//! Mixtures of experts (Shazeer et al. 2017): each token is multiplied by the matrices of the few
//! experts that were chosen for it, and by no others.
//!
//! ```text
//! y[.., c, o] = sum over i of W_e[o, i] x[.., (c,) i]      with e = chosen[.., c]
//! ```
//!
//! for matrices `W_0, W_1, ..` of one size. A feed-forward layer of experts is three such products
//! with an activation between, and a sum over the choices with their weights: that is plain
//! arithmetic. An expert that nobody chose costs nothing; one token touches the matrices of its own
//! experts only. Each matrix is an input of its own, so parameters keep the names of public
//! checkpoints (`experts.3.up_proj.weight`), are loaded one by one, and are prepared or rounded as
//! those of any other product are.
//!
//! The gradient by `x` is the product with the transposed matrices, summed over the choices where
//! they share one `x`; that by a matrix is the sum of `dy x^T` over the tokens that chose it.

use super::{Cost, GradContext, NoGradient, Rule, reduce};
use crate::graph::trace::{Handle, op1, opn, type_of};
use crate::graph::{DType, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Indices};
use crate::language::shape::{Push, Shape};
use crate::tensor::Tensor;

/// Products with chosen matrices. Inputs: `x [.., i]` (one for all choices) or `[.., c, i]`, the
/// choices `[.., c]`, the matrices `[o, i]`. Output: `[.., c, o]`.
#[derive(Clone, Debug)]
pub struct Experts {
    /// Multiplies by the transposed matrices: from `o` to `i`.
    pub transposed: bool,
}

/// The gradient of [`Experts`] by its matrices. Inputs: the choices `[.., c]`, `a` and `b`, each
/// `[.., width]` or `[.., c, width]`. Outputs: for each of `experts` the sum of `a b^T` over the
/// tokens that chose it.
#[derive(Clone, Debug)]
pub struct ExpertsGrad {
    /// The number of matrices.
    pub experts: usize,
}

/// Whether `x` fits the choices; the type of its last axis' dimension follows in the caller.
fn rows(x: &TensorType, chosen: &TensorType) -> Result<(), String> {
    let fits = x.dtype == DType::F32
        && chosen.dtype == DType::I32
        && chosen.rank() >= 1
        && (x.rank() == chosen.rank() || x.rank() == chosen.rank() + 1)
        && x.dims[..x.rank() - 1].iter().zip(&chosen.dims).all(|(a, b)| a.extent == b.extent);
    match fits {
        true => Ok(()),
        false => Err(format!("takes values [.., i] or [.., c, i] for choices [.., c], is given {x} and {chosen}")),
    }
}

/// Two operations for each weight of each choice.
fn flops(chosen: &TensorType, matrix: &TensorType) -> Extent {
    Extent::product([&Extent::constant(2), &chosen.count(), &matrix.count()])
}

impl Rule for Experts {
    fn name(&self) -> &'static str {
        "experts"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, chosen, first, rest @ ..] = inputs else {
            return Err(format!("takes values, choices and at least one matrix, is given {} inputs", inputs.len()));
        };
        rows(x, chosen)?;
        if first.rank() != 2 || first.dtype != DType::F32 {
            return Err(format!("takes matrices, is given {first}"));
        }
        if let Some(other) = rest.iter().find(|w| !w.same_extents(first) || w.dtype != first.dtype) {
            return Err(format!("takes matrices of one size, is given {first} and {other}"));
        }
        let (from, to) = if self.transposed { (0, 1) } else { (1, 0) };
        if x.dims[x.rank() - 1].extent != first.dims[from].extent {
            return Err(format!("multiplies {x} by matrices {first} along `{}`", first.dims[from]));
        }
        let mut dims = chosen.dims.clone();
        dims.push(first.dims[to].clone());
        Ok(vec![TensorType::new(dims, DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, chosen, matrices, g) = (cx.inputs[0], cx.inputs[1], &cx.inputs[2..], cx.grad());
        let back = Experts { transposed: !self.transposed };
        let dx = cx.wanted[0].then(|| shared(product(back, g, chosen, matrices), x));
        let mut all = vec![dx, None];
        if cx.wanted[2..].contains(&true) {
            let (a, b) = if self.transposed { (x, g) } else { (g, x) };
            let experts = matrices.len();
            all.extend(opn(ExpertsGrad { experts }, &[chosen, a, b], experts).into_iter().map(Some));
        } else {
            all.resize(cx.inputs.len(), None);
        }
        Ok(all)
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // The matrices that are read: no more than there are, no more than choices. Which is less
        // depends on the sizes; all of them is the bound that plans can count on.
        Cost::streaming(flops(inputs[1], inputs[2]), inputs, outputs)
    }
    fn attributes(&self) -> String {
        if self.transposed { "transposed".into() } else { String::new() }
    }
}

impl Rule for ExpertsGrad {
    fn name(&self) -> &'static str {
        "experts_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [chosen, a, b] = super::arity(inputs)?;
        rows(a, chosen)?;
        rows(b, chosen)?;
        let last = |t: &TensorType| t.dims[t.rank() - 1].clone();
        Ok(vec![TensorType::new(vec![last(a), last(b)], DType::F32); self.experts])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        // Linear in `a` and in `b`: the gradients of the matrices are matrices of experts again.
        let (chosen, a, b) = (cx.inputs[0], cx.inputs[1], cx.inputs[2]);
        let matrices: Vec<Handle> = (0..self.experts).map(|e| cx.grad_of(e)).collect();
        let of = |transposed, from, to| shared(product(Experts { transposed }, from, chosen, &matrices), to);
        Ok(vec![None, cx.wanted[1].then(|| of(false, b, a)), cx.wanted[2].then(|| of(true, a, b))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(outputs.first().map_or(Extent::constant(0), |o| flops(inputs[0], o)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("experts={}", self.experts)
    }
}

fn product(op: Experts, x: Handle, chosen: Handle, matrices: &[Handle]) -> Handle {
    op1(op, &[&[x, chosen], matrices].concat())
}

/// A gradient `[.., c, i]` as one for `x`: summed over the choices where they share it.
fn shared(g: Handle, x: Handle) -> Handle {
    let (all, rank) = (type_of(g).rank(), type_of(x).rank());
    if rank == all { g } else { reduce::reduce(g, reduce::Kind::Sum, &[all - 2]) }
}

/// `x [.., i]` or `[.., c, i]` times the matrices `[o, i]` that `chosen [.., c]` names: `[.., c, o]`.
pub fn experts(x: Handle, chosen: Handle, matrices: &[Handle]) -> Handle {
    product(Experts { transposed: false }, x, chosen, matrices)
}

impl<S: Shape, E: Float> Tensor<S, E> {
    /// Each token `[.., I]` times the matrices of the experts chosen for it `[.., C]`: `[.., C, O]`.
    /// An expert that does not exist is an error when the program runs.
    ///
    /// PyTorch: `torch.einsum("ni,ncoi->nco", x, torch.stack(matrices)[chosen])`, without the copy.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::prelude::*;
    /// axes! { Tokens; Chosen = 2; Hidden = 8; Ffn = 16; }
    ///
    /// fn up(
    ///     x: Tensor![Tokens, Hidden],
    ///     chosen: Tensor![Tokens, Chosen; Index],
    ///     matrices: &[Tensor![Ffn, Hidden]],
    /// ) -> Tensor![Tokens, Chosen, Ffn] {
    ///     x.experts(chosen, matrices)
    /// }
    /// ```
    #[inline]
    pub fn experts<C, J: Indices, I: Axis, O: Axis>(
        self,
        chosen: Tensor<C, J>,
        matrices: &[Tensor<(O, I)>],
    ) -> Tensor<C::Out>
    where
        C: Shape + Push<O>,
    {
        let matrices: Vec<Handle> = matrices.iter().map(|m| m.raw()).collect();
        Tensor::from_raw(experts(self.raw(), chosen.raw(), &matrices))
    }
}
