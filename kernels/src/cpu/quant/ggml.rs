//! The block formats of GGUF files: how many bytes a block has, and the exact value of each.
//!
//! A block is a few whole numbers of few bits that share scales. Values and the order of their
//! bits are those of ggml's reference (`dequantize_row_*` in `ggml-quants.c`), bit for bit. Of every
//! format, 32 neighbours are
//!
//! ```text
//! value[i] = scale[i / 16] * q[i] + min[i / 16]
//! ```
//!
//! with whole numbers `q` of at most eight bits. That form, a [`Group`], is what values, and panels
//! of products, are made of: `scale * q` is exact in `f32` for all formats (11 + 8 + 6 bits at most),
//! so a value is rounded once, by the addition, as it is there.
//!
//! | format | values | bytes | a block | value |
//! |---|---|---|---|---|
//! | Q4_0 | 32 | 18 | `d`, 16 bytes: value `i` low, `i + 16` high nibble | `d (q - 8)` |
//! | Q4_1 | 32 | 20 | `d`, `m`, 16 bytes as Q4_0 | `d q + m` |
//! | Q5_0 | 32 | 22 | `d`, 32 fifth bits, 16 bytes as Q4_0 | `d (q - 16)` |
//! | Q5_1 | 32 | 24 | `d`, `m`, 32 fifth bits, 16 bytes as Q4_0 | `d q + m` |
//! | Q8_0 | 32 | 34 | `d`, 32 × i8 | `d q` |
//! | Q2_K | 256 | 84 | 16 × (scale, min) of 4 bits, 64 bytes of 2 bits, `d`, `dmin` | `d s q - dmin m` |
//! | Q3_K | 256 | 110 | 256 third bits, 64 bytes of 2 bits, 16 × 6-bit scales, `d` | `d (s - 32) (q - 4)` |
//! | Q4_K | 256 | 144 | `d`, `dmin`, 8 × (scale, min) of 6 bits, 128 bytes of 4 bits | `d s q - dmin m` |
//! | Q5_K | 256 | 176 | as Q4_K, 256 fifth bits before the nibbles | `d s q - dmin m` |
//! | Q6_K | 256 | 210 | 128 bytes of 4 bits, 64 of 2 bits, 16 × i8 scales, `d` | `d s (q - 32)` |
//!
//! `d`, `m` and `dmin` are f16.

use super::block::BLOCK;
use super::half::from_f16;

/// A block format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, non_camel_case_types)]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

use Blocks::*;

impl Blocks {
    /// Every format.
    pub const ALL: [Blocks; 10] = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K];

    /// The name that GGUF's documentation uses.
    pub const fn name(self) -> &'static str {
        match self {
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q8_0 => "Q8_0",
            Q2_K => "Q2_K",
            Q3_K => "Q3_K",
            Q4_K => "Q4_K",
            Q5_K => "Q5_K",
            Q6_K => "Q6_K",
        }
    }

    /// Values in a block.
    pub const fn values(self) -> usize {
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Q4_0 => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q5_1 => 24,
            Q8_0 => 34,
            Q2_K => 84,
            Q3_K => 110,
            Q4_K => 144,
            Q5_K => 176,
            Q6_K => 210,
        }
    }

    /// The values of whole blocks, in order: `out[values]` of `blocks[bytes]`.
    ///
    /// # Panics
    /// When `blocks` are no whole blocks, or their values do not fill `out`.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        assert!(blocks.len().is_multiple_of(self.bytes()), "whole blocks are needed");
        assert_eq!(blocks.len() / self.bytes() * self.values(), out.len(), "values fill the output");
        widen(self, blocks, 0, out);
    }

    /// The values from number `32 * group` on, of a block format.
    ///
    /// # Panics
    /// When the bytes end before.
    #[inline(always)]
    pub fn group(self, bytes: &[u8], group: usize) -> Group {
        let (values, size) = (self.values(), self.bytes());
        let (block, g) = (group * BLOCK / values, group % (values / BLOCK).max(1));
        let b = &bytes[block * size..][..size];
        let half = |at: usize| from_f16(u16::from_le_bytes([b[at], b[at + 1]]));
        let of = |scale: f32, min: f32, q: [i8; BLOCK]| Group { scale: [scale; 2], q, min: [min; 2] };
        match self {
            Q8_0 => of(half(0), NONE, std::array::from_fn(|i| b[2 + i] as i8)),
            Q4_0 => of(half(0), NONE, std::array::from_fn(|i| nibble(&b[2..], i) as i8 - 8)),
            Q4_1 => of(half(0), half(2), std::array::from_fn(|i| nibble(&b[4..], i) as i8)),
            Q5_0 => of(half(0), NONE, std::array::from_fn(|i| fifth(&b[2..], &b[6..], i) as i8 - 16)),
            Q5_1 => of(half(0), half(2), std::array::from_fn(|i| fifth(&b[4..], &b[8..], i) as i8)),
            Q2_K => {
                let (d, least) = (half(80), half(82));
                let low: [u8; 2] = [b[2 * g], b[2 * g + 1]];
                let q = &b[16 + g / 4 * 32..];
                Group {
                    scale: low.map(|s| d * (s & 15) as f32),
                    q: std::array::from_fn(|i| (q[i] >> (g % 4 * 2) & 3) as i8),
                    min: low.map(|s| -(least * (s >> 4) as f32)),
                }
            }
            Q3_K => {
                let (d, high, q) = (half(108), &b[..32], &b[32 + g / 4 * 32..]);
                let scale = |s: usize| {
                    let low = if s < 8 { b[96 + s] & 15 } else { b[96 + s - 8] >> 4 };
                    let top = b[104 + s % 4] >> (s / 4 * 2) & 3;
                    d * (((top << 4 | low) as i32) - 32) as f32
                };
                Group {
                    scale: [scale(2 * g), scale(2 * g + 1)],
                    q: std::array::from_fn(|i| {
                        (q[i] >> (g % 4 * 2) & 3) as i8 - if high[i] >> g & 1 == 1 { 0 } else { 4 }
                    }),
                    min: [NONE; 2],
                }
            }
            Q4_K => {
                let (scale, min) = sixes(&b[4..16], g);
                let q = &b[16 + g / 2 * 32..];
                let q = std::array::from_fn(|i| (q[i] >> (g % 2 * 4) & 15) as i8);
                of(half(0) * scale, -(half(2) * min), q)
            }
            Q5_K => {
                let (scale, min) = sixes(&b[4..16], g);
                let (high, q) = (&b[16..48], &b[48 + g / 2 * 32..]);
                let q = std::array::from_fn(|i| (q[i] >> (g % 2 * 4) & 15 | (high[i] >> g & 1) << 4) as i8);
                of(half(0) * scale, -(half(2) * min), q)
            }
            Q6_K => {
                let (low, high) = (&b[g / 4 * 64 + g % 2 * 32..], &b[128 + g / 4 * 32..]);
                let scale = |s: usize| half(208) * f32::from(b[192 + s] as i8);
                let q = |i: usize| low[i] >> (g % 4 / 2 * 4) & 15 | (high[i] >> (g % 4 * 2) & 3) << 4;
                let (scale, q) = ([scale(2 * g), scale(2 * g + 1)], std::array::from_fn(|i| q(i) as i8 - 32));
                Group { scale, q, min: [NONE; 2] }
            }
        }
    }
}

/// The minimum that changes nothing, not even the sign of a zero.
pub(super) const NONE: f32 = -0.0;

/// 32 neighbours: value `i` is `scale[i / 16] * q[i] + min[i / 16]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Steps of each half.
    pub scale: [f32; 2],
    /// Whole numbers.
    pub q: [i8; BLOCK],
    /// What is added to each half.
    pub min: [f32; 2],
}

impl Group {
    /// The values.
    #[inline(always)]
    pub fn values(&self) -> [f32; BLOCK] {
        std::array::from_fn(|i| self.scale[i / 16] * self.q[i] as f32 + self.min[i / 16])
    }
}

/// Value `i` of sixteen bytes: low nibbles first.
#[inline(always)]
fn nibble(q: &[u8], i: usize) -> u8 {
    q[i % 16] >> (i / 16 * 4) & 15
}

/// The same with a fifth bit, of four bytes.
#[inline(always)]
fn fifth(high: &[u8], q: &[u8], i: usize) -> u8 {
    nibble(q, i) | (high[i / 8] >> (i % 8) & 1) << 4
}

/// Scale and minimum of a group of Q4_K and Q5_K: six bits each, eight of both in twelve bytes.
#[inline(always)]
fn sixes(b: &[u8], g: usize) -> (f32, f32) {
    let (scale, min) = if g < 4 {
        (b[g] & 63, b[g + 4] & 63)
    } else {
        (b[g + 4] & 15 | b[g - 4] >> 6 << 4, b[g + 4] >> 4 | b[g] >> 6 << 4)
    };
    (scale as f32, min as f32)
}

#[inline(always)]
fn widen_body(blocks: Blocks, bytes: &[u8], first: usize, out: &mut [f32]) {
    let mut done = 0;
    while done < out.len() {
        let (group, skip) = ((first + done) / BLOCK, (first + done) % BLOCK);
        let count = (BLOCK - skip).min(out.len() - done);
        let values = blocks.group(bytes, group).values();
        out[done..done + count].copy_from_slice(&values[skip..skip + count]);
        done += count;
    }
}
// Not `fused`: products are exact, sums are rounded once either way.
crate::dispatch! {
    pub(super) fn widen(blocks: Blocks, bytes: &[u8], first: usize, out: &mut [f32]) = widen_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a linear congruential generator. The exponents of `f16` at `halves` are kept small.
    fn blocks(format: Blocks, count: usize) -> Vec<u8> {
        let mut state = 1u32 + format.bytes() as u32;
        let mut bytes: Vec<u8> = (0..count * format.bytes())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let halves: &[usize] = match format {
            Q4_0 | Q5_0 | Q8_0 => &[0],
            Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
            Q2_K => &[80, 82],
            Q3_K => &[108],
            Q6_K => &[208],
        };
        for block in bytes.chunks_mut(format.bytes()) {
            halves.iter().for_each(|at| block[at + 1] &= 0xBF);
        }
        bytes
    }

    fn fnv(values: &[f32]) -> u64 {
        let step = |hash: u64, byte: u8| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3);
        values.iter().flat_map(|v| v.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step)
    }

    /// The hashes are those of `gguf.quants.dequantize` (gguf 0.19, numpy) for the same bytes.
    #[test]
    fn values_are_bit_for_bit_those_of_the_reference() {
        let expected: [u64; 10] = [
            0x37738405a718096d,
            0x7a8b81d92469bc8a,
            0xafd4c49c8557cfab,
            0x314e7e2711a04a69,
            0xd43ad63c8d420aa5,
            0xc06017658f185435,
            0x359b21c8262687a5,
            0x10736884f2b6e9f0,
            0x36c239b69b350168,
            0xd0f605512b719e94,
        ];
        for (format, expected) in Blocks::ALL.into_iter().zip(expected) {
            let mut out = vec![0.0; 64 * format.values()];
            format.dequantize(&blocks(format, 64), &mut out);
            assert_eq!(fnv(&out), expected, "{format:?}: {:?}", &out[..8]);
        }
    }

    #[test]
    fn the_formats_that_are_written_are_read_alike() {
        use super::super::block::{self, Quants};
        let bytes = blocks(Q8_0, 1);
        let mut out = [0.0; block::BLOCK];
        Q8_0.dequantize(&bytes, &mut out);
        let whole: &[u8; block::Q8_0] = bytes[..].try_into().expect("a block");
        assert_eq!(out, Quants::from_q8_0(whole).values());
        let bytes = blocks(Q4_0, 1);
        Q4_0.dequantize(&bytes, &mut out);
        let whole: &[u8; block::Q4_0] = bytes[..].try_into().expect("a block");
        assert_eq!(out, Quants::from_q4_0(whole).values());
    }
}
