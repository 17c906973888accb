//! The scan of a selective state space: Mamba (Gu and Dao 2023) and Mamba-2 (Dao and Gu 2024), one
//! operation over all steps.
//!
//! Each of `h` heads of `p` channels keeps a state `S[p, n]`, which decays and takes in the input at
//! every step; how much of both is decided by the step size `dt`, which depends on the input:
//!
//! ```text
//! S_t[p, n] = exp(dt_t a[n]) S_{t-1}[p, n] + dt_t x_t[p] B_t[n]
//! y_t[p]    = sum over n of C_t[n] S_t[p, n]
//! ```
//!
//! `B` and `C` are shared by the `h / g` heads of a group. In Mamba every channel is a head (`p` = 1)
//! with decays `a[h, n]`, and there is one group; in Mamba-2 a head has one decay `a[h]`. The skip
//! `D x`, gates, and where `dt` comes from are plain arithmetic and stay outside.
//!
//! **Lengths.** With lengths, steps at and after a sequence's length leave the state as it is, give 0,
//! and get no gradient.
//!
//! The gradient, with `dS` arriving from the step after and `e = exp(dt_t a)`:
//!
//! ```text
//! dS    += C_t dy_t                         dC_t[n] += sum over p of dy_t[p] S_t[p, n]
//! de[n]  = sum over p of dS S_{t-1}         dx_t[p]  = dt_t sum over n of dS B_t[n]
//! da    += de e dt_t                        dB_t[n] += dt_t sum over p of dS x_t[p]
//! ddt_t  = sum over n of de e a + sum over p, n of dS x_t B_t
//! dS    <- e dS
//! ```
//!
//! States are computed again from where the scan began rather than kept for the gradient. Second
//! derivatives are not available.

use super::{Cost, GradContext, NoGradient, Rule};
use crate::graph::trace::{Handle, opn};
use crate::graph::{DType, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Indices};
use crate::language::shape::Shape;
use crate::tensor::Tensor;

/// A scan: `x[b, t, h, p], dt[b, t, h], a[h] or [h, n], B[b, t, g, n], C[b, t, g, n],
/// state[b, h, p, n][, lengths[b]]` gives `y[b, t, h, p]` and the last state `[b, h, p, n]`.
#[derive(Clone, Debug)]
pub struct Ssm;

/// The gradient of [`Ssm`]: its first six inputs, `dy, dstate[, lengths]` gives the gradients of those
/// six.
#[derive(Clone, Debug)]
pub struct SsmGrad;

/// Checks the inputs of a scan against each other.
fn check(given: &[&TensorType; 6], lengths: Option<&&TensorType>) -> Result<(), String> {
    let [x, dt, a, b, c, state] = given;
    if let Some(ty) = given.iter().find(|t| t.dtype != DType::F32) {
        return Err(format!("takes real values, is given {ty}"));
    }
    if x.rank() != 4 || b.rank() != 4 || !(1..=2).contains(&a.rank()) {
        return Err(format!("takes x [b, t, h, p], a [h] or [h, n] and B [b, t, g, n], is given {x}, {a} and {b}"));
    }
    let (batch, time, heads, channels) = (&x.dims[0], &x.dims[1], &x.dims[2], &x.dims[3]);
    let (groups, size) = (&b.dims[2], &b.dims[3]);
    let of = |dims: &[&crate::graph::Dim]| TensorType::new(dims.iter().map(|d| (*d).clone()).collect(), DType::F32);
    let decay = if a.rank() == 1 { of(&[heads]) } else { of(&[heads, size]) };
    let wanted = [
        ("step sizes", dt, of(&[batch, time, heads])),
        ("decays", a, decay),
        ("B", b, of(&[batch, time, groups, size])),
        ("C", c, of(&[batch, time, groups, size])),
        ("a state", state, of(&[batch, heads, channels, size])),
    ];
    if let Some((what, found, wanted)) = wanted.iter().find(|(_, found, wanted)| !found.same_extents(wanted)) {
        return Err(format!("has {what} {wanted}, is given {found}"));
    }
    if let (Some(h), Some(g)) = (heads.extent.as_constant(), groups.extent.as_constant()) {
        check_groups(h as usize, g as usize)?;
    }
    match lengths {
        Some(l) if l.dtype != DType::I32 || l.rank() != 1 || l.dims[0].extent != batch.extent => {
            Err(format!("takes one length per sequence of `{batch}`, is given {l}"))
        }
        _ => Ok(()),
    }
}

/// Whether heads fall into groups of equal size.
///
/// # Errors
/// They do not.
pub fn check_groups(heads: usize, groups: usize) -> Result<(), String> {
    match groups > 0 && heads.is_multiple_of(groups) {
        true => Ok(()),
        false => Err(format!("cannot divide {heads} heads into {groups} groups")),
    }
}

/// Operations per state and step: decay, input, output; and in the gradient.
fn cost(n: u64, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
    let steps = inputs[0].dims.get(1).map_or(Extent::constant(0), |d| d.extent.clone());
    let flops = Extent::product([&Extent::constant(n), &steps, &inputs[5].count()]);
    Cost::streaming(flops, inputs, outputs)
}

impl Rule for Ssm {
    fn name(&self) -> &'static str {
        "ssm"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, dt, a, b, c, state, rest @ ..] = inputs else {
            return Err(format!("takes 6 or 7 inputs, is given {}", inputs.len()));
        };
        check(&[x, dt, a, b, c, state], rest.first())?;
        Ok(vec![(*x).clone(), (*state).clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inputs = cx.inputs[..6].to_vec();
        inputs.extend([cx.grad_of(0), cx.grad_of(1)]);
        inputs.extend(cx.inputs.get(6));
        let out = opn(SsmGrad, &inputs, 6);
        Ok(out.into_iter().map(Some).chain(cx.inputs.get(6).map(|_| None)).collect())
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        cost(5, inputs, outputs)
    }
}

impl Rule for SsmGrad {
    fn name(&self) -> &'static str {
        "ssm_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, dt, a, b, c, state, dy, last, rest @ ..] = inputs else {
            return Err(format!("takes 8 or 9 inputs, is given {}", inputs.len()));
        };
        let all = [*x, *dt, *a, *b, *c, *state];
        check(&all, rest.first())?;
        if !dy.same_extents(x) || !last.same_extents(state) {
            return Err(format!("takes gradients {x} and {state}, is given {dy} and {last}"));
        }
        Ok(all.map(Clone::clone).to_vec())
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of a state space's scan are not available".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        cost(16, inputs, outputs)
    }
}

/// All steps of a scan; see [`Ssm`]. Gives `[y, state]`.
pub fn ssm(
    x: Handle,
    dt: Handle,
    a: Handle,
    [b, c]: [Handle; 2],
    state: Handle,
    lengths: Option<Handle>,
) -> [Handle; 2] {
    let inputs: Vec<Handle> = [x, dt, a, b, c, state].into_iter().chain(lengths).collect();
    let out = opn(Ssm, &inputs, 2);
    [out[0], out[1]]
}

/// The inputs `B` and outputs `C` of a scan's states, `[batch, time, groups, size]`.
pub type InOut<B, T, G, N> = [Tensor<(B, T, G, N)>; 2];

impl<B: Axis, T: Axis, H: Axis, P: Axis, E: Float> Tensor<(B, T, H, P), E> {
    /// The scan of a selective state space over these inputs: step sizes `dt`, decays `a` (`[H]`, or
    /// `[H, N]`), `B` and `C`, the state before, and lengths where sequences are padded. Gives the
    /// outputs and the state after.
    ///
    /// PyTorch: `selective_scan_fn` and `mamba_chunk_scan_combined` of `mamba_ssm`, without the skip,
    /// the gate and the softplus.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::prelude::*;
    /// axes! { Batch; Time; Heads = 4; HeadDim = 8; Groups = 2; StateSize = 16; }
    ///
    /// type X = Tensor![Batch, Time, Heads, HeadDim];
    /// type B = Tensor![Batch, Time, Groups, StateSize];
    /// type S = Tensor![Batch, Heads, HeadDim, StateSize];
    ///
    /// fn scan(x: X, dt: Tensor![Batch, Time, Heads], a: Tensor![Heads], b: B, c: B, state: S) -> (X, S) {
    ///     x.ssm(dt, a, [b, c], state, None::<Tensor![Batch; Index]>)
    /// }
    /// ```
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn ssm<A: Shape, G: Axis, N: Axis, I: Indices>(
        self,
        dt: Tensor<(B, T, H)>,
        a: Tensor<A>,
        [b, c]: InOut<B, T, G, N>,
        state: Tensor<(B, H, P, N)>,
        lengths: Option<Tensor<(B,), I>>,
    ) -> (Tensor<(B, T, H, P)>, Tensor<(B, H, P, N)>) {
        let lengths = lengths.map(|l| l.raw());
        let [y, last] = ssm(self.raw(), dt.raw(), a.raw(), [b.raw(), c.raw()], state.raw(), lengths);
        (Tensor::from_raw(y), Tensor::from_raw(last))
    }
}
