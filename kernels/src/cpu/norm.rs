//! Layer and RMS norm over rows.

use super::share::Shared;
use super::stream::{self, sum_each, write_each};
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

/// Mean and `1 / sqrt(var + eps)`.
#[inline(always)]
fn statistics(op: Norm, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = if op.centred { sum_each!([x], x) / n } else { 0.0 };
    let var = sum_each!([x], (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (var + op.eps).sqrt())
}

#[inline(always)]
fn rows_body(op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32], streams: bool) {
    for (x, y) in x.chunks_exact(op.row).zip(y.chunks_exact_mut(op.row)) {
        let (mean, r) = statistics(op, x);
        match (weight, bias) {
            (Some(w), Some(b)) => write_each!(streams, y, [x, w, b], (x - mean) * r * w + b),
            (Some(w), None) => write_each!(streams, y, [x, w], (x - mean) * r * w),
            (None, Some(b)) => write_each!(streams, y, [x, b], (x - mean) * r + b),
            (None, None) => write_each!(streams, y, [x], (x - mean) * r),
        }
    }
    if streams {
        stream::fence();
    }
}
crate::dispatch! {
    fn rows(op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32], streams: bool) = rows_body;
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias` for each row.
pub fn norm(pool: &Pool, op: Norm, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, y: &mut [f32]) {
    if op.row == 0 {
        return;
    }
    let streams = stream::pays(4 * y.len());
    pool.rows(y, op.row, (4096 / op.row).max(1), |first, block| {
        let from = first * op.row;
        rows(op, &x[from..from + block.len()], weight, bias, block, streams);
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
    streams: bool,
) {
    let n = op.row as f32;
    for ((x, g), gx) in x.chunks_exact(op.row).zip(g.chunks_exact(op.row)).zip(gx.chunks_exact_mut(op.row)) {
        let (mean, r) = statistics(op, x);
        // The gradient by the normalized row is d = g * weight.
        let (mean_d, mean_dx);
        match weight {
            Some(w) => {
                mean_d = if op.centred { sum_each!([g, w], g * w) / n } else { 0.0 };
                mean_dx = sum_each!([g, w, x], g * w * (x - mean)) * r / n;
                let slope = r * mean_dx;
                write_each!(streams, gx, [g, w, x], r * (g * w - mean_d - (x - mean) * slope));
            }
            None => {
                mean_d = if op.centred { sum_each!([g], g) / n } else { 0.0 };
                mean_dx = sum_each!([g, x], g * (x - mean)) * r / n;
                let slope = r * mean_dx;
                write_each!(streams, gx, [g, x], r * (g - mean_d - (x - mean) * slope));
            }
        }
        if !gweight.is_empty() {
            let (s, x, g) = (&mut gweight[..op.row], &x[..op.row], &g[..op.row]);
            for i in 0..op.row {
                s[i] += g[i] * ((x[i] - mean) * r);
            }
        }
        if !gbias.is_empty() {
            let (s, g) = (&mut gbias[..op.row], &g[..op.row]);
            for i in 0..op.row {
                s[i] += g[i];
            }
        }
    }
    if streams {
        stream::fence();
    }
}
crate::dispatch! {
    fn grad_rows(op: Norm, x: &[f32], weight: Option<&[f32]>, g: &[f32], gx: &mut [f32], gweight: &mut [f32], gbias: &mut [f32], streams: bool) = grad_body;
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
    let streams = stream::pays(4 * gx.len());
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
            grad_rows(op, &x[range.clone()], weight, &g[range], gx, sw, sb, streams);
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
