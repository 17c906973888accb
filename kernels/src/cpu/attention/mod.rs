//! Attention in blocks: scores exist for a few queries and keys at a time (FlashAttention, Dao et
//! al. 2022; backward as in FlashAttention-2, Dao 2023).
//!
//! A task is one head of one example. It transposes the head's keys once into scratch memory, so
//! that scores of neighbouring keys are neighbours, and copies what else it reads often; then every product is of the form "broadcast
//! an element, multiply a row" (`tile`), whichever operand is transposed.

mod backward;
mod forward;

use super::math;
use super::tile::{Block, add_product};
use crate::philox::philox4x32;
pub use backward::{Gradients, backward, backward_scratch};
pub use forward::{forward, forward_scratch};

/// Queries per block.
const ROWS: usize = 32;
/// Keys per block.
const COLS: usize = 64;

/// The sizes of one attention: examples, queries, keys, key-value heads, query heads for each, and
/// features of keys and of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Examples.
    pub b: usize,
    /// Queries.
    pub t: usize,
    /// Keys.
    pub s: usize,
    /// Key-value heads.
    pub g: usize,
    /// Query heads per key-value head.
    pub r: usize,
    /// Features of queries and keys.
    pub d: usize,
    /// Features of values.
    pub e: usize,
}

/// Distances between neighbouring examples, positions and heads; features are neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    /// Between examples.
    pub b: usize,
    /// Between positions.
    pub t: usize,
    /// Between heads.
    pub h: usize,
}

impl Strides {
    /// Of `[b, positions, heads, width]` in row-major order.
    pub fn packed(positions: usize, heads: usize, width: usize) -> Strides {
        Strides { b: positions * heads * width, t: heads * width, h: width }
    }
}

/// An operand.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Its values.
    pub data: &'a [f32],
    /// Where they lie.
    pub strides: Strides,
}

impl<'a> Operand<'a> {
    fn head(&self, b: usize, h: usize) -> &'a [f32] {
        self.data.get(b * self.strides.b + h * self.strides.h..).unwrap_or(&[])
    }
}

/// What masks scores.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// Keys are visible where it is not 0.
    Truth(&'a [u8], [usize; 4]),
    /// It is added.
    Real(&'a [f32], [usize; 4]),
}

/// One value for all examples, or one for each.
#[derive(Clone, Copy)]
pub struct PerExample<'a>(pub &'a [i32]);

impl PerExample<'_> {
    fn at(&self, b: usize) -> i64 {
        self.0[if self.0.len() == 1 { 0 } else { b }] as i64
    }
}

/// How weights are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability that a weight is dropped.
    pub probability: f32,
    /// The stream of random numbers.
    pub stream: u32,
    /// Seed and step.
    pub key: [u32; 2],
}

impl Dropout {
    /// The factors of the four weights from key `4 * quad` on: 0 or `1 / (1 - p)`.
    pub fn factors(&self, head: usize, query: usize, quad: usize) -> [f32; 4] {
        let words = philox4x32([quad as u32, query as u32, head as u32, self.stream], self.key);
        let bound = (self.probability as f64 * 4_294_967_296.0) as u64;
        let kept = 1.0 / (1.0 - self.probability);
        words.map(|w| if (w as u64) < bound { 0.0 } else { kept })
    }
}

/// The settings and small inputs of attention; the operation's documentation defines them.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The sizes.
    pub sizes: Sizes,
    /// The factor on scores.
    pub scale: f32,
    /// The bound that scores approach.
    pub soft_cap: Option<f32>,
    /// No later key is visible.
    pub causal: bool,
    /// Only so many positions are visible.
    pub window: Option<usize>,
    /// Visible keys per example.
    pub lengths: Option<PerExample<'a>>,
    /// The position of the first query.
    pub offset: Option<PerExample<'a>>,
    /// A mask; strides over `[b, h, t, s]`.
    pub mask: Mask<'a>,
    /// Dropout of weights.
    pub dropout: Option<Dropout>,
}

impl Settings<'_> {
    /// The keys that query `i` may see, before masks.
    fn visible(&self, b: usize, i: usize) -> std::ops::Range<usize> {
        let n = &self.sizes;
        let here = self.offset.map_or(n.s as i64 - n.t as i64, |o| o.at(b)) + i as i64;
        let window = self.window.map_or(i64::MAX / 4, |w| w as i64);
        let mut end = n.s as i64;
        if let Some(lengths) = &self.lengths {
            end = end.min(lengths.at(b));
        }
        end = end.min(here.saturating_add(if self.causal { 1 } else { window })).max(0);
        let start = (here - window + 1).clamp(0, end);
        start as usize..end as usize
    }

    /// The keys that any of the queries `rows` may see.
    fn span(&self, b: usize, rows: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let seen = rows.map(|i| self.visible(b, i)).filter(|v| !v.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    /// Turns products into scores in place; `slopes` gets the derivative of the soft cap where
    /// there is one. The block holds queries from `i0` and keys from `j0`, `COLS` apart.
    fn finish(
        &self,
        (b, h): (usize, usize),
        (i0, rows): (usize, usize),
        (j0, cols): (usize, usize),
        scores: &mut [f32],
        slopes: &mut [f32],
    ) {
        for r in 0..rows {
            let z = &mut scores[r * COLS..r * COLS + cols];
            match self.soft_cap {
                None => scale(z, self.scale),
                Some(cap) => soft_cap(z, &mut slopes[r * COLS..r * COLS + cols], self.scale, cap),
            }
            match self.mask {
                Mask::None => {}
                Mask::Real(data, s) => {
                    let start = b * s[0] + h * s[1] + (i0 + r) * s[2] + j0 * s[3];
                    z.iter_mut().enumerate().for_each(|(j, z)| *z += data[start + j * s[3]]);
                }
                Mask::Truth(data, s) => {
                    let start = b * s[0] + h * s[1] + (i0 + r) * s[2] + j0 * s[3];
                    for (j, z) in z.iter_mut().enumerate() {
                        if data[start + j * s[3]] == 0 {
                            *z = f32::NEG_INFINITY;
                        }
                    }
                }
            }
            let seen = self.visible(b, i0 + r);
            let from = seen.start.saturating_sub(j0).min(cols);
            let to = seen.end.saturating_sub(j0).clamp(from, cols);
            z[..from].fill(f32::NEG_INFINITY);
            z[to..].fill(f32::NEG_INFINITY);
        }
    }

    /// Multiplies a row of weights from key `j0` on by their dropout factors.
    fn drop(&self, head: usize, query: usize, j0: usize, weights: &mut [f32]) {
        let Some(dropout) = &self.dropout else { return };
        debug_assert_eq!(j0 % 4, 0);
        for (quad, w) in weights.chunks_mut(4).enumerate() {
            let factors = dropout.factors(head, query, j0 / 4 + quad);
            w.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
        }
    }
}

#[inline(always)]
fn scale_body(z: &mut [f32], factor: f32) {
    z.iter_mut().for_each(|z| *z *= factor);
}
#[inline(always)]
fn soft_cap_body(z: &mut [f32], slope: &mut [f32], factor: f32, cap: f32) {
    for (z, s) in z.iter_mut().zip(slope) {
        let bounded = math::tanh(*z * factor / cap);
        *z = cap * bounded;
        *s = 1.0 - bounded * bounded;
    }
}
crate::dispatch! {
    fn scale(z: &mut [f32], factor: f32) = scale_body;
}
crate::dispatch! {
    fn soft_cap(z: &mut [f32], slope: &mut [f32], factor: f32, cap: f32) = soft_cap_body;
}

/// Transposes `count` rows of `width` features in blocks of `COLS` rows: feature `f` of row `j` of a
/// block is at `f * COLS + j` of the block. A block is small enough to stay in cache, where rows
/// of the operand, a power of two apart, would push each other out.
fn transpose(x: &[f32], stride: usize, count: usize, width: usize, out: &mut [f32]) {
    for j0 in (0..count).step_by(COLS) {
        let out = &mut out[j0 * width..(j0 + COLS) * width];
        for j in 0..COLS.min(count - j0) {
            let row = &x[(j0 + j) * stride..][..width];
            row.iter().enumerate().for_each(|(f, v)| out[f * COLS + j] = *v);
        }
    }
}

/// Copies `count` rows of `width` features next to each other.
fn pack(x: &[f32], stride: usize, count: usize, width: usize, out: &mut [f32]) {
    if width > 0 {
        let rows = out.chunks_exact_mut(width).take(count).enumerate();
        rows.for_each(|(j, o)| o.copy_from_slice(&x[j * stride..][..width]));
    }
}

/// Products of `rows` queries `[rows][d]` and a transposed block of keys, `COLS` apart.
fn products(q: &[f32], rows: usize, kt: &[f32], cols: usize, d: usize, out: &mut [f32]) {
    out[..rows * COLS].fill(0.0);
    // Whole tiles: what lies behind the keys is not read.
    add_product((rows, cols.next_multiple_of(16), d), Block { data: q, row: d, col: 1 }, kt, COLS, out, COLS);
}

/// Keys in whole blocks.
fn padded(s: usize) -> usize {
    s.next_multiple_of(COLS)
}
