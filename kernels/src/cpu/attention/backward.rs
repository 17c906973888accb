//! Attention backward: weights are computed again from `lse`, block by block.

use super::{COLS, Mask, Operand, ROWS, Settings, Sizes, Strides, pack, padded, products, transpose};
use crate::cpu::math::exp;
use crate::cpu::share::{Shared, with_scratch};
use crate::cpu::tile::{Block, add_product};
use crate::pool::Pool;

/// Scratch values for each thread.
pub fn backward_scratch(n: &Sizes) -> usize {
    // Transposed keys and values, their gradients, and keys; blocks of scores, slopes and gradients
    // of weights; of queries, their gradients and those of the result; one number per query.
    (n.d + n.e) * (padded(n.s) + n.s) + n.d * n.s + 3 * ROWS * COLS + ROWS * (2 * n.d + n.e) + ROWS
}

/// What is known of the forward pass, and where gradients go.
pub struct Gradients<'a> {
    /// The result `[b t g r e]`.
    pub out: &'a [f32],
    /// `[b g r t]`.
    pub lse: &'a [f32],
    /// The gradient by the result.
    pub g: Operand<'a>,
    /// The gradient by `lse`, where it was used.
    pub g_lse: Option<&'a [f32]>,
    /// Gets the gradient by `q [b t g r d]`.
    pub dq: &'a mut [f32],
    /// Gets the gradient by `k [b s g d]`.
    pub dk: &'a mut [f32],
    /// Gets the gradient by `v [b s g e]`.
    pub dv: &'a mut [f32],
    /// Gets the gradient by the additive mask, where it is asked for.
    pub dmask: Option<&'a mut [f32]>,
}

/// The gradients of attention. `scratch` holds [`backward_scratch`] values for each thread that may
/// work.
///
/// # Panics
/// When a slice is too short for the sizes.
pub fn backward(pool: &Pool, settings: &Settings, [q, k, v]: [Operand; 3], to: Gradients, scratch: &mut [f32]) {
    let n = settings.sizes;
    let heads = n.g * n.r;
    assert!(to.dq.len() == n.b * n.t * heads * n.d, "the gradient by q has its size");
    assert!(to.dk.len() == n.b * n.s * n.g * n.d, "the gradient by k has its size");
    assert!(to.dv.len() == n.b * n.s * n.g * n.e, "the gradient by v has its size");
    if n.s == 0 || n.t == 0 {
        to.dq.fill(0.0);
        to.dk.fill(0.0);
        to.dv.fill(0.0);
        if let Some(m) = to.dmask {
            m.fill(0.0);
        }
        return;
    }
    // Examples and heads may share the gradient by the mask: then they are one task.
    let (mut whole_batch, mut all_heads) = (false, false);
    let dmask = to.dmask.map(|m| {
        m.fill(0.0);
        if let Mask::Real(_, s) = settings.mask {
            whole_batch = s[0] == 0;
            all_heads = s[1] == 0;
        }
        Shared::new(m)
    });
    let (dq, dk, dv) = (Shared::new(to.dq), Shared::new(to.dk), Shared::new(to.dv));
    let tasks = if whole_batch { 1 } else { n.b } * if all_heads { 1 } else { n.g };
    let each = backward_scratch(&n);
    with_scratch(pool, tasks, scratch, each, &|task, scratch| {
        let groups = if all_heads { 0..n.g } else { task % n.g..task % n.g + 1 };
        let example = if all_heads { task } else { task / n.g };
        let examples = if whole_batch { 0..n.b } else { example..example + 1 };
        for b in examples {
            for g in groups.clone() {
                let head = Head { settings, at: (b, g), q, k, v, out: to.out, lse: to.lse, g: to.g, g_lse: to.g_lse };
                // SAFETY: a task has its key-value heads alone, and heads of `r` queries belong to
                // one of them; it has the parts of the mask that its heads and examples share.
                unsafe { head.run(&dq, &dk, &dv, dmask.as_ref(), scratch) };
            }
        }
    });
}

/// One key-value head of one example.
struct Head<'a> {
    settings: &'a Settings<'a>,
    at: (usize, usize),
    q: Operand<'a>,
    k: Operand<'a>,
    v: Operand<'a>,
    out: &'a [f32],
    lse: &'a [f32],
    g: Operand<'a>,
    g_lse: Option<&'a [f32]>,
}

impl Head<'_> {
    /// # Safety
    /// Nobody else touches the gradients by this head's keys, values and queries, nor the part of
    /// the mask's gradient that belongs to it.
    unsafe fn run(
        &self,
        dq: &Shared<f32>,
        dk: &Shared<f32>,
        dv: &Shared<f32>,
        dmask: Option<&Shared<f32>>,
        scratch: &mut [f32],
    ) {
        let n = &self.settings.sizes;
        let ((b, group), heads) = (self.at, n.g * n.r);
        let (kt, rest) = scratch.split_at_mut(n.d * padded(n.s));
        let (vt, rest) = rest.split_at_mut(n.e * padded(n.s));
        let (keys, rest) = rest.split_at_mut(n.d * n.s);
        let (queries, rest) = rest.split_at_mut(ROWS * n.d);
        let (given, rest) = rest.split_at_mut(ROWS * n.e);
        let (p, rest) = rest.split_at_mut(ROWS * COLS);
        let (slopes, rest) = rest.split_at_mut(ROWS * COLS);
        let (dp, rest) = rest.split_at_mut(ROWS * COLS);
        let (dq_block, rest) = rest.split_at_mut(ROWS * n.d);
        let (dk_head, rest) = rest.split_at_mut(n.s * n.d);
        let (dv_head, delta) = rest.split_at_mut(n.s * n.e);
        let (k_head, v_head) = (self.k.head(b, group), self.v.head(b, group));
        transpose(k_head, self.k.strides.t, n.s, n.d, kt);
        transpose(v_head, self.v.strides.t, n.s, n.e, vt);
        pack(k_head, self.k.strides.t, n.s, n.d, keys);
        dk_head.fill(0.0);
        dv_head.fill(0.0);
        for r in 0..n.r {
            let h = group * n.r + r;
            let (q_head, g_head) = (self.q.head(b, h), self.g.head(b, h));
            let out_at = Strides::packed(n.t, heads, n.e);
            for i0 in (0..n.t).step_by(ROWS) {
                let rows = ROWS.min(n.t - i0);
                let from = |x: &Operand| i0 * x.strides.t..;
                pack(q_head.get(from(&self.q)).unwrap_or(&[]), self.q.strides.t, rows, n.d, queries);
                pack(g_head.get(from(&self.g)).unwrap_or(&[]), self.g.strides.t, rows, n.e, given);
                let lse = &self.lse[(b * heads + h) * n.t + i0..][..rows];
                for (i, delta) in delta[..rows].iter_mut().enumerate() {
                    let out = &self.out[b * out_at.b + (i0 + i) * out_at.t + h * out_at.h..][..n.e];
                    let g = &given[i * n.e..(i + 1) * n.e];
                    *delta = dot(g, out) - self.g_lse.map_or(0.0, |g| g[(b * heads + h) * n.t + i0 + i]);
                }
                dq_block.fill(0.0);
                let span = self.settings.span(b, i0..i0 + rows);
                let mut j0 = span.start / COLS * COLS;
                while j0 < span.end {
                    let cols = COLS.min(span.end - j0);
                    products(queries, rows, &kt[j0 * n.d..], cols, n.d, p);
                    self.settings.finish((b, h), (i0, rows), (j0, cols), p, slopes);
                    products(given, rows, &vt[j0 * n.e..], cols, n.e, dp);
                    for i in 0..rows {
                        let (p, dp) = (&mut p[i * COLS..][..cols], &mut dp[i * COLS..][..cols]);
                        self.settings.drop(b * heads + h, i0 + i, j0, dp);
                        weigh(p, dp, lse[i], delta[i]);
                        self.settings.drop(b * heads + h, i0 + i, j0, p);
                        if let (Some(dmask), Mask::Real(_, s)) = (dmask, self.settings.mask) {
                            let start = b * s[0] + h * s[1] + (i0 + i) * s[2] + j0 * s[3];
                            for (j, dp) in dp.iter().enumerate() {
                                // SAFETY: by the caller's promise.
                                unsafe { dmask.part(start + j * s[3], 1)[0] += dp };
                            }
                        }
                        if self.settings.soft_cap.is_some() {
                            dp.iter_mut().zip(&slopes[i * COLS..]).for_each(|(d, s)| *d *= s);
                        }
                        super::scale(dp, self.settings.scale);
                    }
                    // By the transposed weights, then by the gradients of scores, both ways.
                    let (weights, ds) = (Block { data: p, row: 1, col: COLS }, Block { data: dp, row: 1, col: COLS });
                    add_product((cols, n.e, rows), weights, given, n.e, &mut dv_head[j0 * n.e..], n.e);
                    add_product((cols, n.d, rows), ds, queries, n.d, &mut dk_head[j0 * n.d..], n.d);
                    let ds = Block { data: dp, row: COLS, col: 1 };
                    add_product((rows, n.d, cols), ds, &keys[j0 * n.d..], n.d, dq_block, n.d);
                    j0 += COLS;
                }
                for i in 0..rows {
                    // SAFETY: by the caller's promise.
                    let row = unsafe { dq.part(((b * n.t + i0 + i) * heads + h) * n.d, n.d) };
                    row.copy_from_slice(&dq_block[i * n.d..(i + 1) * n.d]);
                }
            }
        }
        for j in 0..n.s {
            let row = (b * n.s + j) * n.g + group;
            // SAFETY: by the caller's promise.
            let (dk, dv) = unsafe { (dk.part(row * n.d, n.d), dv.part(row * n.e, n.e)) };
            dk.copy_from_slice(&dk_head[j * n.d..(j + 1) * n.d]);
            dv.copy_from_slice(&dv_head[j * n.e..(j + 1) * n.e]);
        }
    }
}

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (x, y) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = x.remainder().iter().zip(y.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in x.zip(y) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
crate::dispatch! {
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
}

/// Scores to weights, and gradients of weights to gradients of scores.
#[inline(always)]
fn weigh_body(p: &mut [f32], dp: &mut [f32], lse: f32, delta: f32) {
    if lse == f32::NEG_INFINITY {
        p.fill(0.0);
        dp.fill(0.0);
        return;
    }
    for (p, d) in p.iter_mut().zip(dp) {
        *p = exp(*p - lse);
        *d = *p * (*d - delta);
    }
}
crate::dispatch! {
    fn weigh(p: &mut [f32], dp: &mut [f32], lse: f32, delta: f32) = weigh_body;
}
