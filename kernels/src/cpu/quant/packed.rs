//! Weights in panels of sixteen channels, two panels side by side.
//!
//! A panel is a sequence of lines of 64 bytes; those of two neighbours alternate, so that a tile
//! of both reads one stream of memory.
//!
//! | format | a line of a panel |
//! |---|---|
//! | bf16 | for two K: 16 pairs |
//! | f16 | for two K: 16 first values, 16 second ones |
//! | eight bits | for four K: 16 times four bytes, 128 added where there is no minimum |
//! | four bits | line `j` of the four of a block of 32: 16 times four bytes, low nibbles the values from `4 j`, high ones from `16 + 4 j`, 8 added where there is no minimum |
//!
//! A block's scales follow its lines: of both panels 32 f16 (twice where a half has its own), and
//! then the minima likewise; those of Int8, 32 `f32`, follow all lines. All is read from front to
//! back: a second stream for scales would cost a third of the memory's bandwidth. K is filled up
//! with zeros to whole lines and blocks, the channels to whole pairs of panels.

use super::Format;
use super::block::BLOCK;
use super::encoding::Encoding;
use super::fill::{Source, factor, fill};
use super::half::{from_bf16, from_f16};
use crate::bytes::Bytes;
use crate::cpu::gemm::Matrix;
use crate::cpu::parts::Parts;
use crate::large::Large;
use crate::pool::Pool;
use std::ops::Range;

/// Bytes of a file after which their pages are given back.
const RELEASED: usize = 1 << 20;

/// Channels of a panel, and of two.
pub(super) const LANES: usize = 16;
pub(super) const PAIR: usize = 2 * LANES;

/// How weights are laid out, and whether activations that meet them stay `f32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Kind {
    /// The layout.
    pub format: Format,
    /// Whether activations are not rounded, which costs half of the speed with many rows and
    /// nearly nothing with one. `Int8` has no such product.
    pub exact: bool,
}

impl From<Format> for Kind {
    fn from(format: Format) -> Kind {
        Kind { format, exact: false }
    }
}

impl Kind {
    /// Whether activations are rounded to eight bits.
    pub(super) fn is_whole(self) -> bool {
        self.format.is_whole() && !self.is_exact()
    }

    /// Whether blocks are multiplied with activations as they are.
    pub(super) fn is_exact(self) -> bool {
        self.exact && self.format.is_blocks()
    }
}

/// The weights of `n` channels of `k` values each, ready for [`product`](super::product()).
pub struct Packed {
    kind: Kind,
    n: usize,
    k: usize,
    factor: f32,
    data: Large,
}

/// Blocks of 32 that hold `k` values.
pub(super) fn blocks(k: usize) -> usize {
    k.div_ceil(BLOCK)
}

impl Format {
    /// Bytes of the scales and minima of a block of a pair of panels.
    fn scale_bytes(self) -> usize {
        if self.is_blocks() { self.scales() * if self.has_min() { 4 * PAIR } else { 2 * PAIR } } else { 0 }
    }

    /// Bytes of a block of whole numbers of a pair of panels: its lines, and with its scales.
    pub(super) fn block_bytes(self) -> (usize, usize) {
        let lines = if self.is_four() { 4 * 128 } else { 8 * 128 };
        (lines, lines + self.scale_bytes())
    }
}

/// Bytes of a pair of panels.
fn pair(format: Format, k: usize) -> usize {
    match format {
        Format::Bf16 | Format::F16 => k.div_ceil(2) * 128,
        Format::Int8 => blocks(k) * format.block_bytes().1 + 4 * PAIR,
        _ => blocks(k) * format.block_bytes().1,
    }
}

/// Where byte `byte` of the line `line` of a channel of a pair is.
#[inline(always)]
pub(super) fn place(line: usize, channel: usize, byte: usize) -> usize {
    (2 * line + channel / LANES) * 64 + byte
}

impl Packed {
    /// Rounds a matrix of `k` by `n` values, `(i, j)` at `b[i * at.row + j * at.col]`: column `j`
    /// holds the weights of channel `j`.
    ///
    /// # Panics
    /// When the matrix reaches beyond its slice, and for a format that nothing is rounded to.
    pub fn new(pool: &Pool, kind: impl Into<Kind>, (n, k): (usize, usize), b: &[f32], at: Matrix) -> Packed {
        assert!(n == 0 || k == 0 || (k - 1) * at.row + (n - 1) * at.col < b.len(), "a matrix is cut off");
        Packed::filled(pool, kind.into(), (n, k), &Source::Values(b, at), 1.0, usize::MAX, &|_| {})
    }

    /// The format in which a matrix in a file's bytes can be taken over, without a rounding but that
    /// of [`Format::of`]: 16-bit numbers always, blocks where they lie along K and are whole.
    pub fn takes(encoding: Encoding, first: usize, (n, k): (usize, usize), at: Matrix) -> Option<Format> {
        let whole = first.is_multiple_of(BLOCK) && k.is_multiple_of(BLOCK);
        let along = at.row == 1 && (n <= 1 || at.col.is_multiple_of(BLOCK));
        (encoding.block().0 == 1 || whole && along).then(|| Format::of(encoding))
    }

    /// A matrix of `k` by `n` values of a file, `(i, j)` being number `first + i * at.row + j *
    /// at.col`; taken over where the format is the one that [`takes`](Self::takes) names, and
    /// rounded to it otherwise.
    ///
    /// # Panics
    /// When the matrix reaches beyond the bytes, and for a format that nothing is rounded to.
    pub fn stored(
        pool: &Pool,
        kind: impl Into<Kind>,
        (encoding, bytes): (Encoding, &Bytes),
        first: usize,
        (n, k): (usize, usize),
        at: Matrix,
    ) -> Packed {
        let kind = kind.into();
        let last = if n == 0 || k == 0 { first } else { first + (k - 1) * at.row + (n - 1) * at.col + 1 };
        let (values, size) = encoding.block();
        assert!(last.div_ceil(values) * size <= bytes.len(), "a matrix is cut off");
        let taken = Packed::takes(encoding, first, (n, k), at) == Some(kind.format);
        assert!(taken || Format::ALL.contains(&kind.format), "nothing is rounded to {:?}", kind.format);
        let factor = if taken { factor(encoding, bytes, first / BLOCK..last.div_ceil(BLOCK)) } else { 1.0 };
        let from = Source::Stored { encoding, bytes, first, at, taken };
        // Pages of a file that have been read need not stay beside the panels.
        let row = at.col / values * size;
        let some = if at.row == 1 { RELEASED.div_ceil((PAIR * row).max(1)) } else { usize::MAX };
        let done = |pairs: Range<usize>| {
            let part =
                if at.row == 1 { pairs.start * PAIR * row..(pairs.end * PAIR).min(n) * row } else { 0..bytes.len() };
            let start = first / values * size;
            bytes.slice(start + part.start..(start + part.end).min(bytes.len())).iter().for_each(Bytes::release);
        };
        Packed::filled(pool, kind, (n, k), &from, factor, some, &done)
    }

    /// `done` is told which pairs of panels are filled, `some` of them at a time.
    fn filled(
        pool: &Pool,
        kind: Kind,
        (n, k): (usize, usize),
        from: &Source,
        factor: f32,
        some: usize,
        done: &dyn Fn(Range<usize>),
    ) -> Packed {
        let bytes = pair(kind.format, k);
        let pairs = n.div_ceil(PAIR);
        let mut data = Large::new(pairs * bytes);
        let parts = Parts::new(&mut data);
        for start in (0..pairs).step_by(some) {
            let end = start.saturating_add(some).min(pairs);
            pool.run(end - start, &|p| {
                // SAFETY: each task has its own pair.
                let panel = unsafe { parts.get((start + p) * bytes, bytes) };
                fill(kind.format, (n, k), (start + p) * PAIR, from, factor, panel);
            });
            done(start..end);
        }
        Packed { kind, n, k, factor, data }
    }

    /// How the weights are laid out and multiplied.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Channels, and values of each.
    pub fn size(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// What results are to be multiplied by.
    pub(super) fn factor(&self) -> f32 {
        self.factor
    }

    /// The first line of a panel, and its first scales.
    pub(super) fn panel(&self, panel: usize) -> (*const u8, *const u8) {
        let (format, bytes) = (self.kind.format, pair(self.kind.format, self.k));
        let pair = self.data[panel / 2 * bytes..][..bytes].as_ptr();
        let (lines, all) = format.block_bytes();
        let scales =
            if format == Format::Int8 { blocks(self.k) * all + panel % 2 * 64 } else { lines + panel % 2 * 32 };
        (pair.wrapping_add(panel % 2 * 64), pair.wrapping_add(scales))
    }

    /// The weights of a channel as they are multiplied.
    ///
    /// # Panics
    /// When there is no such channel, or `out` has not its length.
    pub fn channel(&self, channel: usize, out: &mut [f32]) {
        assert!(channel < self.n && out.len() == self.k, "a channel of this weight");
        let format = self.kind.format;
        let (bytes, (lines, all)) = (pair(format, self.k), format.block_bytes());
        let panel = &self.data[channel / PAIR * bytes..][..bytes];
        let (channel, lane) = (channel % PAIR, channel % LANES);
        let half = |at: usize| u16::from_le_bytes([panel[at], panel[at + 1]]);
        for (k, v) in out.iter_mut().enumerate() {
            let (b, i) = (k / BLOCK, k % BLOCK);
            let q = if format.is_four() {
                panel[b * all + place(i % 16 / 4, channel, lane * 4 + i % 4)] >> (i / 16 * 4) & 15
            } else if format.is_whole() {
                panel[b * all + place(i / 4, channel, lane * 4 + i % 4)]
            } else {
                0
            };
            let q = (q as i32 - format.zero()) as f32;
            // The scale of the half, and the minimum behind all scales.
            let scale = |of: usize| {
                let half_block = if format.scales() == 2 { i / 16 } else { 0 };
                let line = b * all + lines + (of * format.scales() + half_block) * 2 * PAIR;
                self.factor * from_f16(half(line + channel * 2))
            };
            *v = match format {
                Format::Bf16 => from_bf16(half(place(k / 2, channel, lane * 4 + k % 2 * 2))),
                Format::F16 => from_f16(half(place(k / 2, channel, k % 2 * 32 + lane * 2))),
                Format::Int8 => {
                    let at = blocks(self.k) * all + channel * 4;
                    f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]]) * q
                }
                _ if format.has_min() => scale(0) * q + scale(1),
                _ => scale(0) * q,
            };
        }
    }
}

/// The step that makes the largest magnitude (given by its bits) 127, and its inverse. Nothing
/// but zeros, or denormals so small that the inverse overflows, become zeros; a magnitude that
/// is not finite gives a step of NaN.
#[inline(always)]
pub(super) fn channel_scale(largest: u32) -> (f32, f32) {
    let magnitude = f32::from_bits(largest);
    if largest >= 0x7f80_0000 {
        (f32::NAN, 0.0)
    } else if magnitude < 1e-36 {
        (0.0, 0.0)
    } else {
        (magnitude / 127.0, 127.0 / magnitude)
    }
}
