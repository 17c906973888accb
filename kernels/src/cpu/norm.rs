//! Layer and RMS norm over rows.

use super::share::Shared;
use super::stream::{self, CHUNK, sum_each, write_each};
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
    let mut chunk = [0f32; CHUNK];
    for (x, y) in x.chunks_exact(op.row).zip(y.chunks_exact_mut(op.row)) {
        let (mean, r) = statistics(op, x);
        match (weight, bias) {
            (Some(w), Some(b)) => write_each!(streams, &mut chunk, y, [x, w, b], (x - mean) * r * w + b),
            (Some(w), None) => write_each!(streams, &mut chunk, y, [x, w], (x - mean) * r * w),
            (None, Some(b)) => write_each!(streams, &mut chunk, y, [x, b], (x - mean) * r + b),
            (None, None) => write_each!(streams, &mut chunk, y, [x], (x - mean) * r),
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

/// Lanes of sums.
const LANES: usize = 16;

/// The sums of `(x - mean)^2`, of `d = g weight` and of `d (x - mean)`, in one pass.
#[inline(always)]
fn moments(mean: f32, x: &[f32], g: &[f32], weight: Option<&[f32]>) -> [f32; 3] {
    let mut totals = [0f64; 3];
    let n = x.len();
    let mut from = 0;
    while from < n {
        let until = (from + 512).min(n);
        let mut sums = [[0f32; LANES]; 3];
        while from + LANES <= until {
            let x: &[f32; LANES] = x[from..from + LANES].try_into().expect("so many lanes");
            let mut d: [f32; LANES] = g[from..from + LANES].try_into().expect("so many lanes");
            if let Some(w) = weight {
                let w: &[f32; LANES] = w[from..from + LANES].try_into().expect("so many lanes");
                for i in 0..LANES {
                    d[i] *= w[i];
                }
            }
            for i in 0..LANES {
                let centred = x[i] - mean;
                sums[0][i] += centred * centred;
                sums[1][i] += d[i];
                sums[2][i] += d[i] * centred;
            }
            from += LANES;
        }
        let mut rest = [0f32; 3];
        while from < until {
            let (centred, d) = (x[from] - mean, g[from] * weight.map_or(1.0, |w| w[from]));
            rest[0] += centred * centred;
            rest[1] += d;
            rest[2] += d * centred;
            from += 1;
        }
        for k in 0..3 {
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    sums[k][i] += sums[k][i + width];
                }
                width /= 2;
            }
            totals[k] += f64::from(sums[k][0] + rest[k]);
        }
    }
    totals.map(|t| t as f32)
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
    let mut chunk = [0f32; CHUNK];
    for ((x, g), gx) in x.chunks_exact(op.row).zip(g.chunks_exact(op.row)).zip(gx.chunks_exact_mut(op.row)) {
        // The gradient by the normalized row is d = g * weight.
        let mean = if op.centred { sum_each!([x], x) / n } else { 0.0 };
        let [squares, sum_d, sum_dx] = moments(mean, x, g, weight);
        let r = 1.0 / (squares / n + op.eps).sqrt();
        let mean_d = if op.centred { sum_d / n } else { 0.0 };
        // r (d - mean d - (x - mean) r mean(d (x - mean) r)), as three products.
        let (slope, shift) = (r * (r * (r * sum_dx / n)), r * mean_d);
        match weight {
            Some(w) => write_each!(streams, &mut chunk, gx, [g, w, x], r * (g * w) - shift - (x - mean) * slope),
            None => write_each!(streams, &mut chunk, gx, [g, x], r * g - shift - (x - mean) * slope),
        }
        match (gweight.is_empty(), gbias.is_empty()) {
            (false, false) => {
                let (sw, sb, x, g) = (&mut gweight[..op.row], &mut gbias[..op.row], &x[..op.row], &g[..op.row]);
                for i in 0..op.row {
                    sw[i] += g[i] * ((x[i] - mean) * r);
                    sb[i] += g[i];
                }
            }
            (false, true) => {
                let (sw, x, g) = (&mut gweight[..op.row], &x[..op.row], &g[..op.row]);
                for i in 0..op.row {
                    sw[i] += g[i] * ((x[i] - mean) * r);
                }
            }
            (true, false) => {
                let (sb, g) = (&mut gbias[..op.row], &g[..op.row]);
                for i in 0..op.row {
                    sb[i] += g[i];
                }
            }
            (true, true) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 300.0 - 1.5).collect()
    }

    #[test]
    fn norms_and_their_gradients() {
        for (count, row) in [(3, 7), (1, 1), (40, 16), (5, 1000), (0, 4), (37, 33)] {
            for (centred, by_weight, by_bias) in
                [(true, true, true), (false, true, false), (true, false, false), (true, false, true)]
            {
                let op = Norm { centred, eps: 1e-3, row };
                let (x, g, w, b) = (noise(count * row, 1), noise(count * row, 2), noise(row, 3), noise(row, 4));
                let (weight, bias) = (by_weight.then_some(&w[..]), by_bias.then_some(&b[..]));
                let run = |threads| {
                    let pool = Pool::new(threads);
                    let (mut y, mut gx) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                    let (mut gw, mut gb) = (vec![9.0; row], vec![9.0; row]);
                    let mut scratch = vec![9.0; norm_grad_scratch(row)];
                    norm(&pool, op, &x, weight, bias, &mut y);
                    let (of_w, of_b) = (by_weight.then_some(&mut gw[..]), by_bias.then_some(&mut gb[..]));
                    norm_grad(&pool, op, &x, weight, &g, &mut gx, of_w, of_b, &mut scratch);
                    (y, gx, gw, gb)
                };
                let (y, gx, gw, gb) = run(1);
                assert!(run(3) == (y.clone(), gx.clone(), gw.clone(), gb.clone()), "threads change nothing");
                let (mut sum_w, mut sum_b) = (vec![0f64; row], vec![0f64; row]);
                let n = row as f64;
                let near = |a: f32, e: f64| assert!((f64::from(a) - e).abs() < 3e-5 * e.abs().max(1.0), "{a}, not {e}");
                for r in 0..count {
                    let at = |k: usize| r * row + k;
                    let mean = (0..row).map(|k| f64::from(x[at(k)])).sum::<f64>() / n * f64::from(centred);
                    let z: Vec<f64> = (0..row).map(|k| f64::from(x[at(k)]) - mean).collect();
                    let rms = 1.0 / (z.iter().map(|z| z * z).sum::<f64>() / n + 1e-3).sqrt();
                    let d: Vec<f64> = (0..row).map(|k| f64::from(g[at(k)] * weight.map_or(1.0, |w| w[k]))).collect();
                    let mean_d = d.iter().sum::<f64>() / n * f64::from(centred);
                    let mean_dz = d.iter().zip(&z).map(|(d, z)| d * z * rms).sum::<f64>() / n;
                    for k in 0..row {
                        let (w, b) = (weight.map_or(1.0, |w| w[k]), bias.map_or(0.0, |b| b[k]));
                        near(y[at(k)], z[k] * rms * f64::from(w) + f64::from(b));
                        near(gx[at(k)], rms * (d[k] - mean_d - z[k] * rms * mean_dz));
                        sum_w[k] += f64::from(g[at(k)]) * z[k] * rms;
                        sum_b[k] += f64::from(g[at(k)]);
                    }
                }
                for k in 0..row {
                    near(gw[k], if by_weight { sum_w[k] } else { 9.0 });
                    near(gb[k], if by_bias { sum_b[k] } else { 9.0 });
                }
            }
        }
    }

    #[test]
    fn streamed_rows_are_the_same() {
        let op = Norm { centred: true, eps: 1e-5, row: 700 };
        let (x, w, b) = (noise(2100, 1), noise(700, 2), noise(700, 3));
        for (weight, bias) in [(Some(&w[..]), Some(&b[..])), (None, None), (Some(&w[..]), None), (None, Some(&b[..]))] {
            let (mut y, mut z) = (vec![0.0; 2100], vec![0.0; 2100]);
            rows(op, &x, weight, bias, &mut y, false);
            rows(op, &x, weight, bias, &mut z, true);
            assert_eq!(y, z);
            let (mut gy, mut gz) = (vec![0.0; 2100], vec![0.0; 2100]);
            grad_rows(op, &x, weight, &y, &mut gy, &mut [], &mut [], false);
            grad_rows(op, &x, weight, &y, &mut gz, &mut [], &mut [], true);
            assert_eq!(gy, gz);
        }
    }
}
