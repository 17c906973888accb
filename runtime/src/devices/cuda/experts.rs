//! Products with the matrices of chosen experts on GPUs: choices are sorted on the device, and one launch serves all
//! experts. Where a policy has rounded all factors to 16 bits, tensor cores multiply them.

use super::lower::{Lower, Lowering, Refused};
use super::narrow::{LEAST, sixteen};
use crate::ops::experts::{Experts, ExpertsGrad};
use mobilis_cuda::Ptr;
use mobilis_cuda::experts::{Grouped, Routed, experts, gradient, route};
use mobilis_cuda::gemm::{Element, Epilogue, Matrix};

/// Sorts the choices that input `i` holds.
fn sorted(i: usize, experts: usize, cx: &mut Lower) -> Result<Routed, Refused> {
    let choices = cx.input_sizes(i).iter().product();
    let chosen = cx.input(i);
    let routed = Routed { choices, experts, workspace: cx.scratch(Routed::bytes(choices, experts)) };
    let status = cx.status();
    cx.launch(route(chosen, &routed, status)?);
    Ok(routed)
}

/// Gives sorted choices tiles of their own.
fn tiled(routed: Routed, element: Element, cx: &mut Lower) -> Result<Grouped, Refused> {
    let workspace = cx.scratch(Grouped::bytes(routed.choices, routed.experts));
    let grouped = Grouped { routed, element, workspace };
    cx.launch(grouped.sort()?);
    Ok(grouped)
}

/// How many choices read one row of input `i`.
fn shared(i: usize, chosen: &[usize], cx: &Lower) -> usize {
    if cx.input_sizes(i).len() == chosen.len() { chosen[chosen.len() - 1] } else { 1 }
}

/// The format of 16 bits that all factors are numbers of, where it pays to multiply them on tensor cores: where there are
/// rows for a tile.
fn format(factors: impl Iterator<Item = usize>, least: usize, choices: usize, cx: &mut Lower) -> Option<Element> {
    let mut formats = factors.map(|i| sixteen(i, cx));
    let first = formats.next()??;
    let alike = formats.all(|f| f == Some(first));
    (alike && least >= LEAST && choices >= 4 * LEAST && cx.info().capability >= 80).then_some(first)
}

pub fn forward(op: &Experts, cx: &mut Lower) -> Lowering {
    let count = cx.inputs() - 2;
    let chosen = cx.input_sizes(1).to_vec();
    let (o, i) = (cx.input_sizes(2)[0], cx.input_sizes(2)[1]);
    let (n, k) = if op.transposed { (i, o) } else { (o, i) };
    let each = shared(0, &chosen, cx);
    let choices = chosen.iter().product();
    let element = format([0].into_iter().chain(2..2 + count), n.min(k), choices, cx);
    let x = cx.input(0);
    let to = cx.output(0);
    let routed = sorted(1, count, cx)?;
    let c = Matrix::rows(to, n);
    if let Some(element) = element {
        let grouped = tiled(routed, element, cx)?;
        let rows = cx.scratch(grouped.rows_bytes(k));
        cx.launch(grouped.rows(x, k, each, rows)?);
        let matrices = rounded(&grouped, [o, i], cx)?;
        let matrices: Vec<Matrix> = matrices.into_iter().map(|b| if op.transposed { b } else { b.turned() }).collect();
        let launches = grouped.product(cx.info(), rows, &matrices, [n, k], &c, &Epilogue::default())?;
        cx.launch(launches);
        return Ok(());
    }
    let b = if op.transposed { Matrix::rows(Ptr::NULL, i) } else { Matrix::rows(Ptr::NULL, i).turned() };
    let matrices: Vec<Ptr> = (2..2 + count).map(|i| cx.input(i)).collect();
    cx.launch(experts(&routed, &matrices, [n, k], &Matrix::rows(x, k), each, &b, &c, &Epilogue::default())?);
    Ok(())
}

/// The experts' matrices `[o, i]` in 16 bits: as the model stores them, where lines of that begin at 16 bytes, else rounded.
fn rounded(grouped: &Grouped, [o, i]: [usize; 2], cx: &mut Lower) -> Result<Vec<Matrix>, Refused> {
    let count = grouped.routed.experts;
    let stored: Option<Vec<_>> = (2..2 + count)
        .map(|e| {
            let fits = |at: Ptr| i.is_multiple_of(8) && at.0.is_multiple_of(16);
            cx.stored(e).filter(|s| s.element == grouped.element && s.view.is_contiguous() && fits(s.at))
        })
        .collect();
    if let Some(stored) = stored {
        stored.iter().for_each(|s| cx.reads_stored(s));
        return Ok(stored.iter().map(|s| Matrix::rows(s.at, i).of(s.element)).collect());
    }
    let from: Vec<Ptr> = (2..2 + count).map(|e| cx.input(e)).collect();
    let to = cx.scratch(grouped.matrices_bytes([o, i]));
    let (launches, matrices) = grouped.matrices(&from, [o, i], to)?;
    cx.launch(launches);
    Ok(matrices)
}

pub fn grad(op: &ExpertsGrad, cx: &mut Lower) -> Lowering {
    let chosen = cx.input_sizes(0).to_vec();
    let width = |i: usize, cx: &Lower| cx.input_sizes(i).last().copied().unwrap_or(1);
    let (m, n) = (width(1, cx), width(2, cx));
    let (a_each, b_each) = (shared(1, &chosen, cx), shared(2, &chosen, cx));
    let element = format(1..3, m.min(n), chosen.iter().product(), cx);
    let (a, b) = (cx.input(1), cx.input(2));
    let to: Vec<Ptr> = (0..op.experts).map(|e| cx.output(e)).collect();
    let routed = sorted(0, op.experts, cx)?;
    let Some(element) = element else {
        cx.launch(gradient(&routed, &to, [m, n], (a, a_each), (b, b_each))?);
        return Ok(());
    };
    let grouped = tiled(routed, element, cx)?;
    let [left, right] = [m, n].map(|width| cx.scratch(grouped.rows_bytes(width)));
    cx.launch(grouped.rows(a, m, a_each, left)?);
    cx.launch(grouped.rows(b, n, b_each, right)?);
    let launches = grouped.gradient(cx.info(), &to, [m, n], left, right)?;
    cx.launch(launches);
    Ok(())
}
