//! Pooling over planes (a one-dimensional one is a plane of height 1). Threads share the planes.

use super::parts::Parts;
use crate::pool::Pool;

/// How windows of a maximum slide; the pairs are of rows and columns.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Input plane.
    pub input: [usize; 2],
    /// Output plane.
    pub output: [usize; 2],
    /// Window.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
    /// Positions before the first row and column.
    pub before: [usize; 2],
    /// Steps within a window.
    pub dilation: [usize; 2],
}

/// The inputs `lo..hi` that an output joins along one axis, and what it divides by.
pub type Span = (usize, usize, usize);

/// The largest value of each window, and its row-major place in the plane: the first of equal
/// ones, -1 for a window without values. NaN is larger than everything.
pub fn max_pool(pool: &Pool, w: &Windows, x: &[f32], y: &mut [f32], positions: &mut [i32]) {
    let (plane_in, plane_out) = (w.input[0] * w.input[1], w.output[0] * w.output[1]);
    let positions = Parts::new(positions);
    pool.rows(y, plane_out, 1, |first, block| {
        for (i, y) in block.chunks_mut(plane_out).enumerate() {
            // SAFETY: blocks have distinct planes.
            let positions = unsafe { positions.get((first + i) * plane_out, plane_out) };
            max_plane(w, &x[(first + i) * plane_in..][..plane_in], y, positions);
        }
    });
}

fn max_plane(w: &Windows, x: &[f32], y: &mut [f32], positions: &mut [i32]) {
    let inside = |axis: usize, o: usize, k: usize| {
        let at = (o * w.stride[axis] + k * w.dilation[axis]).checked_sub(w.before[axis])?;
        (at < w.input[axis]).then_some(at)
    };
    for oy in 0..w.output[0] {
        for ox in 0..w.output[1] {
            let (mut best, mut place) = (f32::NEG_INFINITY, -1);
            for row in (0..w.kernel[0]).filter_map(|k| inside(0, oy, k)) {
                for column in (0..w.kernel[1]).filter_map(|k| inside(1, ox, k)) {
                    let at = row * w.input[1] + column;
                    let v = x[at];
                    if v > best || place < 0 || (v.is_nan() && !best.is_nan()) {
                        (best, place) = (v, at as i32);
                    }
                }
            }
            y[oy * w.output[1] + ox] = best;
            positions[oy * w.output[1] + ox] = place;
        }
    }
}

/// Adds every gradient at its position; `planes` are the sizes of input and output planes.
pub fn max_pool_grad(pool: &Pool, planes: (usize, usize), g: &[f32], positions: &[i32], out: &mut [f32]) {
    pool.rows(out, planes.0, 1, |first, block| {
        for (i, out) in block.chunks_mut(planes.0).enumerate() {
            out.fill(0.0);
            let range = (first + i) * planes.1..(first + i + 1) * planes.1;
            for (g, at) in g[range.clone()].iter().zip(&positions[range]) {
                // A window without values has position -1.
                if let Some(out) = usize::try_from(*at).ok().and_then(|at| out.get_mut(at)) {
                    *out += g;
                }
            }
        }
    });
}

/// Means over the products of row spans and column spans of planes of width `width`.
pub fn average_pool(pool: &Pool, rows: &[Span], columns: &[Span], input: [usize; 2], x: &[f32], y: &mut [f32]) {
    let plane = input[0] * input[1];
    pool.rows(y, rows.len() * columns.len(), 1, |first, block| {
        for (i, y) in block.chunks_mut(rows.len() * columns.len()).enumerate() {
            let x = &x[(first + i) * plane..][..plane];
            for (y, r) in y.chunks_mut(columns.len()).zip(rows) {
                for (y, c) in y.iter_mut().zip(columns) {
                    let sum: f32 = (r.0..r.1).map(|row| x[row * input[1]..][c.0..c.1].iter().sum::<f32>()).sum();
                    *y = if sum == 0.0 { 0.0 } else { sum / (r.2 * c.2) as f32 };
                }
            }
        }
    });
}

/// The gradient of [`average_pool`].
pub fn average_pool_grad(pool: &Pool, rows: &[Span], columns: &[Span], input: [usize; 2], g: &[f32], x: &mut [f32]) {
    let plane = rows.len() * columns.len();
    pool.rows(x, input[0] * input[1], 1, |first, block| {
        for (i, x) in block.chunks_mut(input[0] * input[1]).enumerate() {
            x.fill(0.0);
            let g = &g[(first + i) * plane..][..plane];
            for (g, r) in g.chunks(columns.len().max(1)).zip(rows) {
                for (g, c) in g.iter().zip(columns) {
                    let share = g / (r.2 * c.2) as f32;
                    for row in r.0..r.1 {
                        x[row * input[1]..][c.0..c.1].iter_mut().for_each(|x| *x += share);
                    }
                }
            }
        }
    });
}
