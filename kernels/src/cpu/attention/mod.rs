//! Attention in blocks: scores exist for a few queries and keys at a time (FlashAttention, Dao et
//! al. 2022; backward as in FlashAttention-2, Dao 2023).
//!
//! The query heads that share a key-value head are rows of one matrix of queries, so that a key that
//! was loaded serves them all. Keys, values and queries are packed once per task (`cpu::pack`); then
//! every product is of the form "broadcast an element, multiply a row" (`product`). Masks by
//! position (causal, windows, lengths) leave out whole parts of a tile: a product runs over the
//! keys that some row of the tile sees. No result depends on how rows are shared among threads.
//!
//! A few queries over many keys, as in decoding, read keys and values as they lie (`decode`).

mod backward;
mod decode;
mod forward;

mod product;
#[cfg(test)]
mod tests;

use super::math;
use crate::philox::philox4x32;
pub use backward::{Gradients, backward, backward_scratch};
pub use forward::{forward, forward_scratch};
use std::ops::Range;

/// Rows of queries per block, whole tiles at every level.
const ROWS: usize = 96;
/// The largest tile's rows and columns: what is packed is padded to these.
const TILE: usize = 12;
const WIDE: usize = 32;
/// The longest vector.
const LANES: usize = 16;

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
    /// Sums in one order, however many examples and queries there are.
    pub alike: bool,
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

    /// The keys that any of the queries may see: both ends grow with the query.
    fn span(&self, b: usize, queries: Range<usize>) -> Range<usize> {
        if queries.is_empty() {
            return 0..0;
        }
        let (first, last) = (self.visible(b, queries.start), self.visible(b, queries.end - 1));
        first.start..last.end.max(first.start)
    }

    /// The keys that any of the rows of one key-value head may see.
    fn span_of_rows(&self, b: usize, rows: Range<usize>) -> Range<usize> {
        let r = self.sizes.r;
        self.span(b, rows.start / r..rows.end.div_ceil(r))
    }

    /// Turns products into scores in place, for one row of queries and the keys from `j0` on, scaled
    /// before; `slopes` gets the derivative of the soft cap where there is one.
    fn finish(&self, (b, h, i): (usize, usize, usize), j0: usize, z: &mut [f32], slopes: &mut [f32]) {
        if let Some(cap) = self.soft_cap {
            soft_cap(z, slopes, cap);
        }
        let seen = self.visible(b, i);
        let from = seen.start.saturating_sub(j0).min(z.len());
        let to = seen.end.saturating_sub(j0).clamp(from, z.len());
        match self.mask {
            Mask::None => {}
            Mask::Real(data, s) => {
                let start = b * s[0] + h * s[1] + i * s[2] + j0 * s[3];
                z[from..to].iter_mut().zip(from..).for_each(|(z, j)| *z += data[start + j * s[3]]);
            }
            Mask::Truth(data, s) => {
                let start = b * s[0] + h * s[1] + i * s[2] + j0 * s[3];
                for (z, j) in z[from..to].iter_mut().zip(from..) {
                    if data[start + j * s[3]] == 0 {
                        *z = f32::NEG_INFINITY;
                    }
                }
            }
        }
        z[..from].fill(f32::NEG_INFINITY);
        z[to..].fill(f32::NEG_INFINITY);
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
fn soft_cap_body(z: &mut [f32], slope: &mut [f32], cap: f32) {
    for (z, s) in z.iter_mut().zip(slope) {
        let bounded = math::plain::tanh(*z / cap);
        *z = cap * bounded;
        *s = 1.0 - bounded * bounded;
    }
}
crate::dispatch! {
    fn soft_cap(z: &mut [f32], slope: &mut [f32], cap: f32) = soft_cap_body;
}

/// Values per row of packed features: whole vectors of every level.
fn padded(width: usize) -> usize {
    width.next_multiple_of(LANES)
}
