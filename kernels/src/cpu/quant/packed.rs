//! Weights in panels of sixteen channels, two panels side by side.
//!
//! A panel is a sequence of lines of 64 bytes; those of two neighbours alternate, so that a tile
//! of both reads one stream of memory.
//!
//! | format | a line of a panel |
//! |---|---|
//! | bf16 | for two K: 16 pairs |
//! | f16 | for two K: 16 first values, 16 second ones |
//! | Q8_0, Int8 | for four K: 16 times four bytes, 128 added |
//! | Q4_0 | line `j` of the four of a block of 32: 16 times four bytes, low nibbles the values from `4 j`, high ones from `16 + 4 j`, 8 added |
//!
//! The scales of both panels follow: of Q8_0 and Q4_0 32 f16 for each block, of Int8 32 `f32`. K is
//! filled up with zeros to whole lines and blocks, the channels to whole pairs of panels.

use super::Format;
use super::block::{BLOCK, Quants, largest, q4_0, q8_0};
use super::half::{from_bf16, from_f16, to_bf16, to_f16};
use crate::cpu::gemm::Matrix;
use crate::cpu::parts::Parts;
use crate::large::Large;
use crate::pool::Pool;

/// Channels of a panel, and of two.
pub(super) const LANES: usize = 16;
const PAIR: usize = 2 * LANES;

/// The weights of `n` channels of `k` values each, ready for [`product`](super::product()).
pub struct Packed {
    format: Format,
    n: usize,
    k: usize,
    data: Large,
}

/// Blocks of 32 that hold `k` values.
pub(super) fn blocks(k: usize) -> usize {
    k.div_ceil(BLOCK)
}

/// Lines of a panel.
fn lines(format: Format, k: usize) -> usize {
    match format {
        Format::Bf16 | Format::F16 => k.div_ceil(2),
        Format::Q8_0 | Format::Int8 => blocks(k) * 8,
        Format::Q4_0 => blocks(k) * 4,
    }
}

/// Bytes of a pair's weights without its scales, and with them.
fn pair(format: Format, k: usize) -> (usize, usize) {
    let weights = lines(format, k) * 128;
    let scales = match format {
        Format::Bf16 | Format::F16 => 0,
        Format::Q8_0 | Format::Q4_0 => blocks(k) * 2 * PAIR,
        Format::Int8 => 4 * PAIR,
    };
    (weights, weights + scales)
}

/// Where byte `byte` of the line `line` of a channel of a pair is.
#[inline(always)]
fn place(line: usize, channel: usize, byte: usize) -> usize {
    (2 * line + channel / LANES) * 64 + byte
}

impl Packed {
    /// Rounds a matrix of `k` by `n` values, `(i, j)` at `b[i * at.row + j * at.col]`: column `j`
    /// holds the weights of channel `j`.
    ///
    /// # Panics
    /// When the matrix reaches beyond its slice.
    pub fn new(pool: &Pool, format: Format, (n, k): (usize, usize), b: &[f32], at: Matrix) -> Packed {
        assert!(n == 0 || k == 0 || (k - 1) * at.row + (n - 1) * at.col < b.len(), "a matrix is cut off");
        let (_, bytes) = pair(format, k);
        let pairs = n.div_ceil(PAIR);
        let mut data = Large::new(pairs * bytes);
        let parts = Parts::new(&mut data);
        pool.run(pairs, &|p| {
            // SAFETY: each task has its own pair.
            let panel = unsafe { parts.get(p * bytes, bytes) };
            fill_pair(format, (n, k), p * PAIR, b, at, panel);
        });
        Packed { format, n, k, data }
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Channels, and values of each.
    pub fn size(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The lines of a panel, 128 bytes apart, and its scales.
    pub(super) fn panel(&self, panel: usize) -> (*const u8, *const u8) {
        let (weights, bytes) = pair(self.format, self.k);
        let pair = self.data[panel / 2 * bytes..][..bytes].as_ptr();
        let scales = if self.format == Format::Int8 { 64 } else { 32 };
        (pair.wrapping_add(panel % 2 * 64), pair.wrapping_add(weights + panel % 2 * scales))
    }

    /// The weights of a channel as they are multiplied.
    ///
    /// # Panics
    /// When there is no such channel, or `out` has not its length.
    pub fn channel(&self, channel: usize, out: &mut [f32]) {
        assert!(channel < self.n && out.len() == self.k, "a channel of this weight");
        let (weights, bytes) = pair(self.format, self.k);
        let panel = &self.data[channel / PAIR * bytes..][..bytes];
        let (channel, lane) = (channel % PAIR, channel % LANES);
        let half = |at: usize| u16::from_le_bytes([panel[at], panel[at + 1]]);
        for (k, v) in out.iter_mut().enumerate() {
            let (b, i) = (k / BLOCK, k % BLOCK);
            let eight = || panel[place(k / 4, channel, lane * 4 + k % 4)] as f32 - 128.0;
            let scale = || from_f16(half(weights + (b * PAIR + channel) * 2));
            *v = match self.format {
                Format::Bf16 => from_bf16(half(place(k / 2, channel, lane * 4 + k % 2 * 2))),
                Format::F16 => from_f16(half(place(k / 2, channel, k % 2 * 32 + lane * 2))),
                Format::Q8_0 => scale() * eight(),
                Format::Q4_0 => {
                    let byte = panel[place(b * 4 + i % 16 / 4, channel, lane * 4 + i % 4)];
                    scale() * ((byte >> (i / 16 * 4) & 15) as f32 - 8.0)
                }
                Format::Int8 => {
                    let at = weights + channel * 4;
                    f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]]) * eight()
                }
            };
        }
    }
}

/// Block `block` of a channel, filled up with zeros; all zeros beyond the last channel.
#[inline(always)]
fn read(b: &[f32], at: Matrix, (n, k): (usize, usize), channel: usize, block: usize) -> [f32; BLOCK] {
    let (mut values, first) = ([0.0; BLOCK], block * BLOCK);
    if channel >= n {
        return values;
    }
    if at.row == 1 && first + BLOCK <= k {
        values.copy_from_slice(&b[first + channel * at.col..][..BLOCK]);
    } else {
        for i in 0..BLOCK.min(k - first) {
            values[i] = b[(first + i) * at.row + channel * at.col];
        }
    }
    values
}

/// Rounds the channels from `first` of a matrix into a pair of panels.
#[inline(always)]
fn fill_pair_body(format: Format, (n, k): (usize, usize), first: usize, b: &[f32], at: Matrix, out: &mut [u8]) {
    let (weights, _) = pair(format, k);
    let mut steps = [(0.0, 0.0); PAIR];
    if matches!(format, Format::Int8) {
        for channel in 0..PAIR {
            let mut most = 0;
            for block in 0..blocks(k) {
                most = most.max(largest(&read(b, at, (n, k), first + channel, block)));
            }
            steps[channel] = channel_scale(most);
            out[weights + channel * 4..][..4].copy_from_slice(&steps[channel].0.to_le_bytes());
        }
    }
    for block in 0..blocks(k) {
        for channel in 0..PAIR {
            let x = read(b, at, (n, k), first + channel, block);
            let scale_at = weights + (block * PAIR + channel) * 2;
            let words = match format {
                Format::Bf16 | Format::F16 => {
                    sixteen(format, &x, channel, block, k, out);
                    continue;
                }
                Format::Q8_0 => {
                    let q = q8_0(&x);
                    out[scale_at..scale_at + 2].copy_from_slice(&scale(&x, &q).to_le_bytes());
                    eight(&q.q)
                }
                Format::Q4_0 => {
                    let q = q4_0(&x);
                    out[scale_at..scale_at + 2].copy_from_slice(&scale(&x, &q).to_le_bytes());
                    for j in 0..4 {
                        let mut four = [0; 4];
                        for i in 0..4 {
                            four[i] = (q.q[4 * j + i] + 8) as u8 | ((q.q[16 + 4 * j + i] + 8) as u8) << 4;
                        }
                        let to = place(block * 4 + j, channel, channel % LANES * 4);
                        out[to..to + 4].copy_from_slice(&four);
                    }
                    continue;
                }
                Format::Int8 => {
                    let mut q = [0; BLOCK];
                    for i in 0..BLOCK {
                        q[i] = (x[i] * steps[channel].1).round_ties_even() as i32 as i8;
                    }
                    eight(&q)
                }
            };
            for j in 0..BLOCK / 4 {
                let to = place(block * 8 + j, channel, channel % LANES * 4);
                out[to..to + 4].copy_from_slice(&words[4 * j..4 * j + 4]);
            }
        }
    }
}
crate::dispatch! {
    fn fill_pair(format: Format, size: (usize, usize), first: usize, b: &[f32], at: Matrix, out: &mut [u8]) =
        fill_pair_body;
}

/// A block's scale; NaN where a value is not finite.
#[inline(always)]
fn scale(x: &[f32; BLOCK], q: &Quants) -> u16 {
    if largest(x) < 0x7f80_0000 { q.scale } else { to_f16(f32::NAN) }
}

/// Signed bytes with 128 added.
#[inline(always)]
fn eight(q: &[i8; BLOCK]) -> [u8; BLOCK] {
    let mut words = [0; BLOCK];
    for i in 0..BLOCK {
        words[i] = q[i] as u8 ^ 128;
    }
    words
}

/// A block of 16-bit numbers.
#[inline(always)]
fn sixteen(format: Format, x: &[f32; BLOCK], channel: usize, block: usize, k: usize, out: &mut [u8]) {
    let (mut h, lane) = ([0u16; BLOCK], channel % LANES);
    for i in 0..BLOCK {
        h[i] = if matches!(format, Format::Bf16) { to_bf16(x[i]) } else { to_f16(x[i]) };
    }
    for i in 0..BLOCK.min(k - block * BLOCK) {
        let k = block * BLOCK + i;
        let byte = if matches!(format, Format::Bf16) { lane * 4 + k % 2 * 2 } else { k % 2 * 32 + lane * 2 };
        let to = place(k / 2, channel, byte);
        out[to..to + 2].copy_from_slice(&h[i].to_le_bytes());
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
