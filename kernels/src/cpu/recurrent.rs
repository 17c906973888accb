//! LSTM and GRU over all steps. Sequences are independent, so threads share the batch and walk
//! the steps without waiting for each other; the gradient of the recurrent weight, which joins
//! all sequences and steps, is one matrix product at the end.
//!
//! Inner loops are `for` loops: the closures of `for_each` and `sum` may stay functions of their
//! own, compiled without the instructions that `dispatch!` enables.

use super::gemm::{Matrix, gemm, gemm_scratch, reach};
use super::math::plain::{sigmoid, tanh};
use super::parts::Parts;
use super::tile::{self, Block};
use crate::pool::Pool;

/// Sizes of a recurrent operation.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Sequences.
    pub batch: usize,
    /// Steps of each.
    pub time: usize,
    /// Values of the state.
    pub hidden: usize,
    /// Whether the steps are taken from the last to the first.
    pub backward: bool,
}

/// Fewer sequences per thread do not fill a tile of a matrix product.
const FEW: usize = 4;

impl Steps {
    /// Floats of the product at the end of a gradient, with so many gates.
    fn packing(&self, gates: usize) -> usize {
        gemm_scratch((gates * self.hidden, self.hidden, self.batch * self.time))
    }

    /// Scratch floats of [`lstm_grad`].
    pub fn lstm_grad_scratch(&self) -> usize {
        self.batch * self.time * self.hidden + self.packing(4)
    }

    /// Scratch floats of [`gru_grad`].
    pub fn gru_grad_scratch(&self) -> usize {
        self.batch * self.time * 4 * self.hidden + self.packing(3)
    }

    fn length(&self, b: usize, lengths: Option<&[i32]>) -> usize {
        lengths.map_or(self.time, |l| (l[b].max(0) as usize).min(self.time))
    }

    /// The step at place `i`.
    fn step(&self, i: usize) -> usize {
        if self.backward { self.time - 1 - i } else { i }
    }

    /// Calls `f` with ranges of sequences, one for each thread.
    fn blocks(&self, pool: &Pool, f: impl Fn(usize, usize) + Sync) {
        let block = self.batch.div_ceil(pool.threads()).max(1);
        pool.run(self.batch.div_ceil(block), &|i| f(i * block, block.min(self.batch - i * block)));
    }

    /// The states that each step began with, `[batch, time, hidden]`; zeros where `steps` has
    /// padding.
    fn before(&self, steps: &[f32], initial: &[f32], lengths: Option<&[i32]>, out: &mut [f32]) {
        let n = self.hidden;
        for b in 0..self.batch {
            let length = self.length(b, lengths);
            for t in 0..self.time {
                let to = &mut out[(b * self.time + t) * n..][..n];
                let from = if self.backward { t + 1 } else { t.wrapping_sub(1) };
                if t >= length {
                    to.fill(0.0);
                } else if from < length {
                    to.copy_from_slice(&steps[(b * self.time + from) * n..][..n]);
                } else {
                    to.copy_from_slice(&initial[b * n..][..n]);
                }
            }
        }
    }
}

/// `out[i, ..rows] += w h[i]` for all states; row `i` of the result is `stride` further on.
///
/// Dot products rather than a matrix product, which would first copy the weight at every step; a
/// block of the weight stays in the first cache for all states.
///
/// # Safety
/// `out` must point to rows of `rows` values, `stride` apart, that nobody else touches.
unsafe fn add_product(w: &[f32], rows: usize, h: &[f32], n: usize, out: *mut f32, stride: usize) {
    if n == 0 {
        return;
    }
    let block = (4096 / n).max(1);
    for (k, w) in w[..rows * n].chunks(block * n).enumerate() {
        for (i, h) in h.chunks_exact(n).enumerate() {
            let (from, len) = (i * stride + k * block, w.len() / n);
            // SAFETY: by the caller's promise; `k * block + len` is at most `rows`.
            dots(w, h, unsafe { std::slice::from_raw_parts_mut(out.add(from), len) });
        }
    }
}

/// The sum of sixteen lanes: halves onto each other, for sixteen additions in a row would take
/// longer than all the products.
#[inline(always)]
fn total(x: [f32; 16]) -> f32 {
    let a: [f32; 8] =
        [x[0] + x[8], x[1] + x[9], x[2] + x[10], x[3] + x[11], x[4] + x[12], x[5] + x[13], x[6] + x[14], x[7] + x[15]];
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

#[inline(always)]
fn dots_body(w: &[f32], h: &[f32], out: &mut [f32]) {
    let (h16, h_rest) = h.as_chunks::<16>();
    for (out, w) in out.iter_mut().zip(w.chunks_exact(h.len())) {
        let (w16, w_rest) = w.as_chunks::<16>();
        let mut sum = [0f32; 16];
        for (w, h) in w16.iter().zip(h16) {
            for i in 0..16 {
                sum[i] += w[i] * h[i];
            }
        }
        for (w, h) in w_rest.iter().zip(h_rest) {
            *out += w * h;
        }
        *out += total(sum);
    }
}
crate::dispatch! { fn dots(w: &[f32], h: &[f32], out: &mut [f32]) = dots_body; }

/// `out[i] += e[i] w` for `count` rows `e[i]` of `rows` values that are `stride` apart.
#[allow(clippy::too_many_arguments)]
fn add_transposed(w: &[f32], rows: usize, n: usize, e: &[f32], stride: usize, count: usize, out: &mut [f32]) {
    if count >= FEW {
        return tile::add_product((count, n, rows), Block { data: e, row: stride, col: 1 }, w, n, out, n);
    }
    for (i, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
        add_rows(w, &e[i * stride..][..rows], out);
    }
}

#[inline(always)]
fn add_rows_body(w: &[f32], e: &[f32], out: &mut [f32]) {
    for (w, e) in w.chunks_exact(out.len()).zip(e) {
        for (out, w) in out.iter_mut().zip(w) {
            *out += e * w;
        }
    }
}
crate::dispatch! { fn add_rows(w: &[f32], e: &[f32], out: &mut [f32]) = add_rows_body; }

/// The gradient of the recurrent weight: `e[batch * time, rows]^T before[batch * time, hidden]`.
fn weight_grad(pool: &Pool, s: &Steps, rows: usize, e: &[f32], before: &[f32], dw: &mut [f32], scratch: &mut [f32]) {
    let (sa, sb) = (Matrix { row: 1, col: rows }, Matrix { row: s.hidden, col: 1 });
    let sc = Matrix { row: s.hidden, col: 1 };
    gemm(pool, (rows, s.hidden, s.batch * s.time), e, sa, before, sb, dw, sc, false, scratch);
}

/// What an LSTM reads.
pub struct LstmInput<'a> {
    /// `[batch, time, 4 hidden]`
    pub gates: &'a [f32],
    /// `[4 hidden, hidden]`
    pub weight: &'a [f32],
    /// Initial states.
    pub h: &'a [f32],
    /// Initial cells.
    pub c: &'a [f32],
    /// Lengths of sequences.
    pub lengths: Option<&'a [i32]>,
}

/// What an LSTM writes.
pub struct LstmOutput<'a> {
    /// `[batch, time, hidden]`
    pub y: &'a mut [f32],
    /// Final states.
    pub h: &'a mut [f32],
    /// Final cells.
    pub c: &'a mut [f32],
    /// Activated gates `[batch, time, 4 hidden]`.
    pub gates: &'a mut [f32],
    /// Cells after each step.
    pub cells: &'a mut [f32],
}

/// All steps of an LSTM.
pub fn lstm(pool: &Pool, s: &Steps, x: &LstmInput, out: LstmOutput) {
    let (n, wide) = (s.hidden, 4 * s.hidden);
    out.h.copy_from_slice(x.h);
    out.c.copy_from_slice(x.c);
    out.gates.copy_from_slice(x.gates);
    let (y, h, c) = (Parts::new(out.y), Parts::new(out.h), Parts::new(out.c));
    let (gates, cells) = (Parts::new(out.gates), Parts::new(out.cells));
    s.blocks(pool, |first, count| {
        // SAFETY: blocks have distinct sequences, in this and in the accesses below.
        let (h, c) = unsafe { (h.get(first * n, count * n), c.get(first * n, count * n)) };
        for i in 0..s.time {
            let t = s.step(i);
            let stride = s.time * wide;
            let place = gates.at((first * s.time + t) * wide, reach(count, wide, Matrix { row: stride, col: 1 }));
            // SAFETY: the place was checked to hold the rows.
            unsafe { add_product(x.weight, wide, h, n, place, stride) };
            for (b, (h, c)) in h.chunks_exact_mut(n.max(1)).zip(c.chunks_exact_mut(n.max(1))).enumerate() {
                let row = (first + b) * s.time + t;
                // SAFETY: as above.
                let (gates, y, cells) =
                    unsafe { (gates.get(row * wide, wide), y.get(row * n, n), cells.get(row * n, n)) };
                if t < s.length(first + b, x.lengths) {
                    lstm_step(gates, h, c);
                    y.copy_from_slice(h);
                    cells.copy_from_slice(c);
                } else {
                    gates.fill(0.0);
                    y.fill(0.0);
                    cells.fill(0.0);
                }
            }
        }
    });
}

#[inline(always)]
fn lstm_step_body(gates: &mut [f32], h: &mut [f32], c: &mut [f32]) {
    let n = h.len();
    // Lengths that the compiler can see are equal let the loop vectorise.
    let (i, rest) = gates.split_at_mut(n);
    let (f, rest) = rest.split_at_mut(n);
    let (g, o) = rest.split_at_mut(n);
    let (o, c) = (&mut o[..n], &mut c[..n]);
    for j in 0..n {
        (i[j], f[j], g[j], o[j]) = (sigmoid(i[j]), sigmoid(f[j]), tanh(g[j]), sigmoid(o[j]));
        c[j] = f[j] * c[j] + i[j] * g[j];
        h[j] = o[j] * tanh(c[j]);
    }
}
crate::dispatch! { fn lstm_step(gates: &mut [f32], h: &mut [f32], c: &mut [f32]) = lstm_step_body; }

/// What the gradient of an LSTM reads, as the forward pass wrote it, and the gradients of its
/// results.
pub struct LstmGradInput<'a> {
    /// `[4 hidden, hidden]`
    pub weight: &'a [f32],
    /// Initial states.
    pub h: &'a [f32],
    /// Initial cells.
    pub c: &'a [f32],
    /// States after each step.
    pub y: &'a [f32],
    /// Activated gates.
    pub gates: &'a [f32],
    /// Cells after each step.
    pub cells: &'a [f32],
    /// Gradient of `y`.
    pub dy: &'a [f32],
    /// Gradient of the final states.
    pub dh: &'a [f32],
    /// Gradient of the final cells.
    pub dc: &'a [f32],
    /// Lengths of sequences.
    pub lengths: Option<&'a [i32]>,
}

/// The gradients that it writes.
pub struct LstmGradOutput<'a> {
    /// Of the gates before activation.
    pub gates: &'a mut [f32],
    /// Of the recurrent weight.
    pub weight: &'a mut [f32],
    /// Of the initial states.
    pub h: &'a mut [f32],
    /// Of the initial cells.
    pub c: &'a mut [f32],
}

/// The gradient of [`lstm`]. `scratch` holds [`Steps::lstm_grad_scratch`] values.
pub fn lstm_grad(pool: &Pool, s: &Steps, x: &LstmGradInput, out: LstmGradOutput, scratch: &mut [f32]) {
    let (n, wide) = (s.hidden, 4 * s.hidden);
    out.h.copy_from_slice(x.dh);
    out.c.copy_from_slice(x.dc);
    let (scratch, packing) = scratch.split_at_mut(s.batch * s.time * n);
    // The cells before each step first: they are needed on the way, the states only after it.
    s.before(x.cells, x.c, x.lengths, scratch);
    let (dh_all, dc_all, da_all) = (Parts::new(out.h), Parts::new(out.c), Parts::new(&mut *out.gates));
    let before = &*scratch;
    s.blocks(pool, |first, count| {
        // SAFETY: blocks have distinct sequences.
        let (dh, dc, da) = unsafe {
            (
                dh_all.get(first * n, count * n),
                dc_all.get(first * n, count * n),
                da_all.get(first * s.time * wide, count * s.time * wide),
            )
        };
        for i in (0..s.time).rev() {
            let t = s.step(i);
            for b in 0..count {
                let row = (first + b) * s.time + t;
                let da = &mut da[(b * s.time + t) * wide..][..wide];
                if t >= s.length(first + b, x.lengths) {
                    da.fill(0.0);
                    continue;
                }
                let (gates, dc) = (&x.gates[row * wide..][..wide], &mut dc[b * n..][..n]);
                let steps = [&x.cells[row * n..][..n], &before[row * n..][..n], &x.dy[row * n..][..n]];
                let dh = &mut dh[b * n..][..n];
                lstm_step_grad(gates, steps, dh, dc, da);
            }
            // Through the gates; padded steps have none of their own, so their gradient stays.
            add_transposed(x.weight, wide, n, &da[t * wide..], s.time * wide, count, dh);
        }
    });
    s.before(x.y, x.h, x.lengths, scratch);
    weight_grad(pool, s, wide, out.gates, scratch, out.weight, packing);
}

#[inline(always)]
fn lstm_step_grad_body(
    gates: &[f32],
    [cells, before, dy]: [&[f32]; 3],
    dh: &mut [f32],
    dc: &mut [f32],
    da: &mut [f32],
) {
    let n = dc.len();
    let part = |k: usize| &gates[k * n..][..n];
    let (gi, gf, gg, go) = (part(0), part(1), part(2), part(3));
    let (di, rest) = da.split_at_mut(n);
    let (df, rest) = rest.split_at_mut(n);
    let (dg, d_o) = rest.split_at_mut(n);
    let (d_o, dh) = (&mut d_o[..n], &mut dh[..n]);
    let (cells, before, dy) = (&cells[..n], &before[..n], &dy[..n]);
    for j in 0..n {
        let (i, f, g, o) = (gi[j], gf[j], gg[j], go[j]);
        let squashed = tanh(cells[j]);
        let d_state = dh[j] + dy[j];
        let d = dc[j] + d_state * o * (1.0 - squashed * squashed);
        di[j] = d * g * i * (1.0 - i);
        df[j] = d * before[j] * f * (1.0 - f);
        dg[j] = d * i * (1.0 - g * g);
        d_o[j] = d_state * squashed * o * (1.0 - o);
        dc[j] = d * f;
        dh[j] = 0.0;
    }
}
crate::dispatch! { fn lstm_step_grad(gates: &[f32], steps: [&[f32]; 3], dh: &mut [f32], dc: &mut [f32], da: &mut [f32]) = lstm_step_grad_body; }

/// What a GRU reads.
pub struct GruInput<'a> {
    /// `[batch, time, 3 hidden]`
    pub gates: &'a [f32],
    /// `[3 hidden, hidden]`
    pub weight: &'a [f32],
    /// `[3 hidden]`
    pub bias: &'a [f32],
    /// Initial states.
    pub h: &'a [f32],
    /// Lengths of sequences.
    pub lengths: Option<&'a [i32]>,
}

/// What a GRU writes.
pub struct GruOutput<'a> {
    /// `[batch, time, hidden]`
    pub y: &'a mut [f32],
    /// Final states.
    pub h: &'a mut [f32],
    /// `r, z, n, q` for the gradient, `[batch, time, 4 hidden]`.
    pub saved: &'a mut [f32],
}

/// All steps of a GRU. `scratch` holds `batch * 3 hidden` values.
pub fn gru(pool: &Pool, s: &Steps, x: &GruInput, out: GruOutput, scratch: &mut [f32]) {
    let (n, wide) = (s.hidden, 3 * s.hidden);
    out.h.copy_from_slice(x.h);
    let (y, h, saved) = (Parts::new(out.y), Parts::new(out.h), Parts::new(out.saved));
    let scratch = Parts::new(scratch);
    s.blocks(pool, |first, count| {
        // SAFETY: blocks have distinct sequences, in this and in the accesses below.
        let (h, sums) = unsafe { (h.get(first * n, count * n), scratch.get(first * wide, count * wide)) };
        for i in 0..s.time {
            let t = s.step(i);
            sums.chunks_exact_mut(wide.max(1)).for_each(|row| row.copy_from_slice(x.bias));
            // SAFETY: `sums` holds the rows, and is this block's own.
            unsafe { add_product(x.weight, wide, h, n, sums.as_mut_ptr(), wide) };
            for (b, h) in h.chunks_exact_mut(n.max(1)).enumerate() {
                let row = (first + b) * s.time + t;
                // SAFETY: as above.
                let (y, saved) = unsafe { (y.get(row * n, n), saved.get(row * 4 * n, 4 * n)) };
                if t < s.length(first + b, x.lengths) {
                    gru_step(&x.gates[row * wide..][..wide], &sums[b * wide..][..wide], h, saved);
                    y.copy_from_slice(h);
                } else {
                    y.fill(0.0);
                    saved.fill(0.0);
                }
            }
        }
    });
}

#[inline(always)]
fn gru_step_body(gates: &[f32], sums: &[f32], h: &mut [f32], saved: &mut [f32]) {
    let n = h.len();
    let part = |k: usize| (&gates[k * n..][..n], &sums[k * n..][..n]);
    let ((xr, sr), (xz, sz), (xn, sn)) = (part(0), part(1), part(2));
    let (out_r, rest) = saved.split_at_mut(n);
    let (out_z, rest) = rest.split_at_mut(n);
    let (out_n, out_q) = rest.split_at_mut(n);
    let out_q = &mut out_q[..n];
    for j in 0..n {
        let (r, z, q) = (sigmoid(xr[j] + sr[j]), sigmoid(xz[j] + sz[j]), sn[j]);
        let new = tanh(xn[j] + r * q);
        h[j] = (1.0 - z) * new + z * h[j];
        (out_r[j], out_z[j], out_n[j], out_q[j]) = (r, z, new, q);
    }
}
crate::dispatch! { fn gru_step(gates: &[f32], sums: &[f32], h: &mut [f32], saved: &mut [f32]) = gru_step_body; }

/// What the gradient of a GRU reads.
pub struct GruGradInput<'a> {
    /// `[3 hidden, hidden]`
    pub weight: &'a [f32],
    /// Initial states.
    pub h: &'a [f32],
    /// States after each step.
    pub y: &'a [f32],
    /// `r, z, n, q` of the forward pass.
    pub saved: &'a [f32],
    /// Gradient of `y`.
    pub dy: &'a [f32],
    /// Gradient of the final states.
    pub dh: &'a [f32],
    /// Lengths of sequences.
    pub lengths: Option<&'a [i32]>,
}

/// The gradients that it writes.
pub struct GruGradOutput<'a> {
    /// Of the gates before activation.
    pub gates: &'a mut [f32],
    /// Of the recurrent weight.
    pub weight: &'a mut [f32],
    /// Of the recurrent bias.
    pub bias: &'a mut [f32],
    /// Of the initial states.
    pub h: &'a mut [f32],
}

/// The gradient of [`gru`]. `scratch` holds [`Steps::gru_grad_scratch`] values.
pub fn gru_grad(pool: &Pool, s: &Steps, x: &GruGradInput, out: GruGradOutput, scratch: &mut [f32]) {
    let (n, wide) = (s.hidden, 3 * s.hidden);
    out.h.copy_from_slice(x.dh);
    let (before, rest) = scratch.split_at_mut(s.batch * s.time * n);
    let (e, packing) = rest.split_at_mut(s.batch * s.time * wide);
    s.before(x.y, x.h, x.lengths, before);
    let before = &*before;
    let (dh_all, da_all, e_all) = (Parts::new(out.h), Parts::new(out.gates), Parts::new(&mut *e));
    s.blocks(pool, |first, count| {
        // SAFETY: blocks have distinct sequences.
        let (dh, da, e) = unsafe {
            (
                dh_all.get(first * n, count * n),
                da_all.get(first * s.time * wide, count * s.time * wide),
                e_all.get(first * s.time * wide, count * s.time * wide),
            )
        };
        for i in (0..s.time).rev() {
            let t = s.step(i);
            for b in 0..count {
                let row = (first + b) * s.time + t;
                let here = (b * s.time + t) * wide;
                let (da, e) = (&mut da[here..][..wide], &mut e[here..][..wide]);
                if t >= s.length(first + b, x.lengths) {
                    da.fill(0.0);
                    e.fill(0.0);
                    continue;
                }
                let dh = &mut dh[b * n..][..n];
                gru_step_grad(
                    &x.saved[row * 4 * n..][..4 * n],
                    &before[row * n..][..n],
                    &x.dy[row * n..][..n],
                    dh,
                    da,
                    e,
                );
            }
            // Through the recurrent weight; padded steps have none of their own.
            add_transposed(x.weight, wide, n, &e[t * wide..], s.time * wide, count, dh);
        }
    });
    weight_grad(pool, s, wide, e, before, out.weight, packing);
    out.bias.fill(0.0);
    for row in e.chunks_exact(wide.max(1)) {
        out.bias.iter_mut().zip(row).for_each(|(sum, e)| *sum += e);
    }
}

#[inline(always)]
fn gru_step_grad_body(saved: &[f32], before: &[f32], dy: &[f32], dh: &mut [f32], da: &mut [f32], e: &mut [f32]) {
    let n = dh.len();
    for j in 0..n {
        let (r, z, new, q) = (saved[j], saved[n + j], saved[2 * n + j], saved[3 * n + j]);
        let d = dh[j] + dy[j];
        let dn = d * (1.0 - z) * (1.0 - new * new);
        let dr = dn * q * r * (1.0 - r);
        let dz = d * (before[j] - new) * z * (1.0 - z);
        (da[j], da[n + j], da[2 * n + j]) = (dr, dz, dn);
        (e[j], e[n + j], e[2 * n + j]) = (dr, dz, dn * r);
        dh[j] = d * z;
    }
}
crate::dispatch! { fn gru_step_grad(saved: &[f32], before: &[f32], dy: &[f32], dh: &mut [f32], da: &mut [f32], e: &mut [f32]) = gru_step_grad_body; }
