//! Layer and RMS norm over rows.

use super::reduce::sum;
use super::share::Shared;
use crate::pool::Pool;

/// Parts in which rows are summed into gradients of weights: fixed, so that sums do not depend on
/// the number of threads.
const PARTS: usize = 16;

/// Which norm, over how long a row.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Whether the mean is subtracted (layer norm).
    pub centred: bool,
    /// Added to the variance.
    pub eps: f32,
    /// Values in a row.
    pub row: usize,
}

/// A sum of `f` over pairs, in lanes within blocks of 512, so that rounding errors grow slowly.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut total = 0.0;
    for (a, b) in a.chunks(512).zip(b.chunks(512)) {
        let mut lanes = [0f32; 16];
        let (x, y) = (a.chunks_exact(16), b.chunks_exact(16));
        let rest: f32 = x.remainder().iter().zip(y.remainder()).map(|(a, b)| f(*a, *b)).sum();
        for (a, b) in x.zip(y) {
            for i in 0..16 {
                lanes[i] += f(a[i], b[i]);
            }
        }
        total += sum(&lanes) + rest;
    }
    total
}

/// Mean and `1 / sqrt(var + eps)`.
#[inline(always)]
fn statistics(op: Norm, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = if op.centred { sum(x) / n } else { 0.0 };
    let var = sum_of(x, x, |a, _| (a - mean) * (a - mean)) / n;
    (mean, 1.0 / (var + op.eps).sqrt())
}

#[inline(always)]
fn rows_body(op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(op.row).zip(y.chunks_exact_mut(op.row)) {
        let (mean, r) = statistics(op, x);
        match weight {
            Some(w) => y.iter_mut().zip(x).zip(w).for_each(|((y, x), w)| *y = (*x - mean) * r * *w),
            None => y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - mean) * r),
        }
        if let Some(bias) = bias {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
        }
    }
}
crate::dispatch! {
    fn rows(op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32]) = rows_body;
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias` for each row.
pub fn norm(pool: &Pool, op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32]) {
    if op.row == 0 {
        return;
    }
    pool.rows(y, op.row, (4096 / op.row).max(1), |first, block| {
        let from = first * op.row;
        rows(op, &x[from..from + block.len()], weight, bias, block);
    });
}

/// Scratch values that [`norm_grad`] needs.
pub fn norm_grad_scratch(row: usize) -> usize {
    2 * PARTS * row
}

#[inline(always)]
fn grad_body(
    op: Norm,
    x: &[f32],
    weight: Option<&[f32]>,
    g: &[f32],
    gx: &mut [f32],
    gweight: &mut [f32],
    gbias: &mut [f32],
) {
    let n = op.row as f32;
    for ((x, g), gx) in x.chunks_exact(op.row).zip(g.chunks_exact(op.row)).zip(gx.chunks_exact_mut(op.row)) {
        let (mean, r) = statistics(op, x);
        // gx holds d = g * weight for a while.
        match weight {
            Some(w) => gx.iter_mut().zip(g).zip(w).for_each(|((d, g), w)| *d = g * w),
            None => gx.copy_from_slice(g),
        }
        let mean_d = if op.centred { sum(gx) / n } else { 0.0 };
        let mean_dx = sum_of(gx, x, |d, x| d * (x - mean) * r) / n;
        for (d, x) in gx.iter_mut().zip(x) {
            *d = r * (*d - mean_d - (x - mean) * r * mean_dx);
        }
        if !gweight.is_empty() {
            gweight.iter_mut().zip(g).zip(x).for_each(|((s, g), x)| *s += g * ((x - mean) * r));
        }
        if !gbias.is_empty() {
            gbias.iter_mut().zip(g).for_each(|(s, g)| *s += g);
        }
    }
}
crate::dispatch! {
    fn grad_rows(op: Norm, x: &[f32], weight: Option<&[f32]>, g: &[f32], gx: &mut [f32], gweight: &mut [f32], gbias: &mut [f32]) = grad_body;
}

/// The gradients of [`norm`] by `x` and, where asked for, by weight and bias.
/// `scratch` holds [`norm_grad_scratch`] values.
#[allow(clippy::too_many_arguments)]
pub fn norm_grad(
    pool: &Pool,
    op: Norm,
    x: &[f32],
    weight: Option<&[f32]>,
    g: &[f32],
    gx: &mut [f32],
    gweight: Option<&mut [f32]>,
    gbias: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    if op.row == 0 {
        return;
    }
    let count = gx.len() / op.row;
    let each = count.div_ceil(PARTS).max(1);
    let parts = count.div_ceil(each);
    let (of_weight, of_bias) = scratch[..2 * PARTS * op.row].split_at_mut(PARTS * op.row);
    let (by_weight, by_bias) = (gweight.is_some(), gbias.is_some());
    {
        let (gx, sw, sb) = (Shared::new(gx), Shared::new(of_weight), Shared::new(of_bias));
        pool.run(parts, &|part| {
            let first = part * each;
            let rows = each.min(count - first);
            let range = first * op.row..(first + rows) * op.row;
            let at = |wanted: bool| if wanted { (part * op.row, op.row) } else { (0, 0) };
            let ((w0, wn), (b0, bn)) = (at(by_weight), at(by_bias));
            // SAFETY: a part has rows and sums of its own.
            let (gx, sw, sb) = unsafe { (gx.part(range.start, range.len()), sw.part(w0, wn), sb.part(b0, bn)) };
            sw.fill(0.0);
            sb.fill(0.0);
            grad_rows(op, &x[range.clone()], weight, &g[range], gx, sw, sb);
        });
    }
    let join = |out: Option<&mut [f32]>, sums: &[f32]| {
        let Some(out) = out else { return };
        out.fill(0.0);
        for part in sums.chunks_exact(op.row).take(parts) {
            out.iter_mut().zip(part).for_each(|(o, p)| *o += p);
        }
    };
    join(gweight, of_weight);
    join(gbias, of_bias);
}
