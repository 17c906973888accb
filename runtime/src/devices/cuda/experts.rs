//! Products with the matrices of chosen experts on GPUs: choices are sorted on the device, and one launch serves all
//! experts.

use super::lower::{Lower, Lowering};
use crate::ops::experts::{Experts, ExpertsGrad};
use mobilis_cuda::Ptr;
use mobilis_cuda::experts::{Routed, experts, gradient, route};
use mobilis_cuda::gemm::{Epilogue, Matrix};

/// Sorts the choices that input `i` holds.
fn sorted(i: usize, experts: usize, cx: &mut Lower) -> Result<Routed, super::lower::Refused> {
    let choices = cx.input_sizes(i).iter().product();
    let chosen = cx.input(i);
    let routed = Routed { choices, experts, workspace: cx.scratch(Routed::bytes(choices, experts)) };
    let status = cx.status();
    cx.launch(route(chosen, &routed, status)?);
    Ok(routed)
}

/// How many choices read one row of input `i`.
fn shared(i: usize, chosen: &[usize], cx: &Lower) -> usize {
    if cx.input_sizes(i).len() == chosen.len() { chosen[chosen.len() - 1] } else { 1 }
}

pub fn forward(op: &Experts, cx: &mut Lower) -> Lowering {
    let count = cx.inputs() - 2;
    let chosen = cx.input_sizes(1).to_vec();
    let (o, i) = (cx.input_sizes(2)[0], cx.input_sizes(2)[1]);
    let (n, k, b) = match op.transposed {
        false => (o, i, Matrix::rows(Ptr::NULL, i).turned()),
        true => (i, o, Matrix::rows(Ptr::NULL, i)),
    };
    let each = shared(0, &chosen, cx);
    let x = cx.input(0);
    let matrices: Vec<Ptr> = (2..2 + count).map(|i| cx.input(i)).collect();
    let to = cx.output(0);
    let routed = sorted(1, count, cx)?;
    let (a, c) = (Matrix::rows(x, k), Matrix::rows(to, n));
    cx.launch(experts(&routed, &matrices, [n, k], &a, each, &b, &c, &Epilogue::default())?);
    Ok(())
}

pub fn grad(op: &ExpertsGrad, cx: &mut Lower) -> Lowering {
    let chosen = cx.input_sizes(0).to_vec();
    let width = |i: usize, cx: &Lower| cx.input_sizes(i).last().copied().unwrap_or(1);
    let (m, n) = (width(1, cx), width(2, cx));
    let (a_each, b_each) = (shared(1, &chosen, cx), shared(2, &chosen, cx));
    let (a, b) = (cx.input(1), cx.input(2));
    let to: Vec<Ptr> = (0..op.experts).map(|e| cx.output(e)).collect();
    let routed = sorted(0, op.experts, cx)?;
    cx.launch(gradient(&routed, &to, [m, n], (a, a_each), (b, b_each))?);
    Ok(())
}
