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
use super::block::{BLOCK, Quants, q4_0, q8_0};
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
            let mut values = [0f32; BLOCK];
            for lane in 0..PAIR {
                let channel = p * PAIR + lane;
                let fill = |block: usize, values: &mut [f32; BLOCK]| {
                    for (i, v) in values.iter_mut().enumerate() {
                        let i = block * BLOCK + i;
                        *v = if channel < n && i < k { b[i * at.row + channel * at.col] } else { 0.0 };
                    }
                };
                let scale = match format {
                    Format::Int8 => (0..blocks(k)).fold(0, |largest, b| {
                        fill(b, &mut values);
                        values.iter().fold(largest, |a: u32, v| a.max(v.abs().to_bits()))
                    }),
                    _ => 0,
                };
                for b in 0..blocks(k) {
                    fill(b, &mut values);
                    write_block(format, panel, k, b, lane, &values, scale);
                }
            }
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

/// Rounds block `b` of a channel of a pair. `largest` is, for Int8, the bits of the channel's largest
/// magnitude.
fn write_block(format: Format, bytes: &mut [u8], k: usize, b: usize, channel: usize, x: &[f32; BLOCK], largest: u32) {
    let ((weights, _), lane) = (pair(format, k), channel % LANES);
    let finite = x.iter().all(|v| v.is_finite());
    let mut put = |at: usize, values: &[u8]| bytes[at..at + values.len()].copy_from_slice(values);
    let eight = |put: &mut dyn FnMut(usize, &[u8]), q: [i8; BLOCK]| {
        for j in 0..8 {
            let four: [u8; 4] = std::array::from_fn(|i| q[4 * j + i] as u8 ^ 128);
            put(place(b * 8 + j, channel, lane * 4), &four);
        }
    };
    let scale = |q: &Quants| if finite { q.scale } else { to_f16(f32::NAN) };
    match format {
        Format::Bf16 | Format::F16 => {
            for (i, v) in (b * BLOCK..k).zip(x) {
                match format {
                    Format::Bf16 => put(place(i / 2, channel, lane * 4 + i % 2 * 2), &to_bf16(*v).to_le_bytes()),
                    _ => put(place(i / 2, channel, i % 2 * 32 + lane * 2), &to_f16(*v).to_le_bytes()),
                }
            }
        }
        Format::Q8_0 => {
            let q = q8_0(x);
            eight(&mut put, q.q);
            put(weights + (b * PAIR + channel) * 2, &scale(&q).to_le_bytes());
        }
        Format::Q4_0 => {
            let q = q4_0(x);
            for j in 0..4 {
                let four: [u8; 4] =
                    std::array::from_fn(|i| (q.q[4 * j + i] + 8) as u8 | ((q.q[16 + 4 * j + i] + 8) as u8) << 4);
                put(place(b * 4 + j, channel, lane * 4), &four);
            }
            put(weights + (b * PAIR + channel) * 2, &scale(&q).to_le_bytes());
        }
        Format::Int8 => {
            let (scale, inverse) = channel_scale(largest);
            eight(&mut put, x.map(|v| (v * inverse).round_ties_even() as i8));
            put(weights + channel * 4, &scale.to_le_bytes());
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
