//! The block formats of GGUF files: how many bytes a block has, and the exact value of each.
//!
//! A block is a few whole numbers of few bits that share scales. Values and the order of their
//! bits are those of ggml's reference (`dequantize_row_*` in `ggml-quants.c`), bit for bit: every
//! product and sum below is rounded to `f32` where it is rounded there.
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

use super::half::from_f16;

/// Values of a block of the formats with `K` in their names.
const SUPER: usize = 256;

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
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => SUPER,
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
        match self {
            Q4_0 => each(blocks, out, q4_0),
            Q4_1 => each(blocks, out, q4_1),
            Q5_0 => each(blocks, out, q5_0),
            Q5_1 => each(blocks, out, q5_1),
            Q8_0 => each(blocks, out, q8_0),
            Q2_K => each(blocks, out, q2_k),
            Q3_K => each(blocks, out, q3_k),
            Q4_K => each(blocks, out, q4_k),
            Q5_K => each(blocks, out, q5_k),
            Q6_K => each(blocks, out, q6_k),
        }
    }
}

fn each<const B: usize, const V: usize>(blocks: &[u8], out: &mut [f32], of: impl Fn(&[u8; B], &mut [f32; V])) {
    let (blocks, _) = blocks.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<V>();
    for (block, out) in blocks.iter().zip(out) {
        of(block, out);
    }
}

/// The f16 at a byte.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    from_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half(b, 0);
    for i in 0..16 {
        y[i] = ((b[2 + i] & 15) as i32 - 8) as f32 * d;
        y[i + 16] = ((b[2 + i] >> 4) as i32 - 8) as f32 * d;
    }
}

fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for i in 0..16 {
        y[i] = (b[4 + i] & 15) as f32 * d + m;
        y[i + 16] = (b[4 + i] >> 4) as f32 * d + m;
    }
}

/// Fifth bits: bit `i` of 32.
#[inline(always)]
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = half(b, 0);
    let (high, low) = (&b[2..6], &b[6..]);
    for i in 0..16 {
        y[i] = ((low[i] & 15 | fifth(high, i)) as i32 - 16) as f32 * d;
        y[i + 16] = ((low[i] >> 4 | fifth(high, i + 16)) as i32 - 16) as f32 * d;
    }
}

fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    let (high, low) = (&b[4..8], &b[8..]);
    for i in 0..16 {
        y[i] = (low[i] & 15 | fifth(high, i)) as f32 * d + m;
        y[i + 16] = (low[i] >> 4 | fifth(high, i + 16)) as f32 * d + m;
    }
}

fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half(b, 0);
    for i in 0..32 {
        y[i] = b[2 + i] as i8 as f32 * d;
    }
}

fn q2_k(b: &[u8; 84], y: &mut [f32; SUPER]) {
    let (scales, quants) = (&b[..16], &b[16..80]);
    let (d, dmin) = (half(b, 80), half(b, 82));
    // Sixteen values share a scale; 128 lie in the four bit pairs of 32 bytes.
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let (part, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let scale = d * (scales[group] & 15) as f32;
        let least = dmin * (scales[group] >> 4) as f32;
        for (l, y) in y.iter_mut().enumerate() {
            *y = scale * (quants[part * 32 + from + l] >> shift & 3) as f32 - least;
        }
    }
}

fn q3_k(b: &[u8; 110], y: &mut [f32; SUPER]) {
    let (high, quants, packed, d) = (&b[..32], &b[32..96], &b[96..108], half(b, 108));
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        // Six bits: four of the first eight bytes, two of the last four.
        let low = packed[group % 8] >> (group / 8 * 4) & 15;
        let two = packed[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * ((low | two << 4) as i32 - 32) as f32;
        let (part, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let bit = group / 2;
        for (l, y) in y.iter_mut().enumerate() {
            let q = (quants[part * 32 + from + l] >> shift & 3) as i32;
            let less = if high[from + l] >> bit & 1 == 1 { 0 } else { 4 };
            *y = scale * (q - less) as f32;
        }
    }
}

/// The scale and the minimum of six bits each of a group of Q4_K and Q5_K.
#[inline(always)]
fn scale_and_min(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4),
    };
    (scale as f32, least as f32)
}

fn q4_k(b: &[u8; 144], y: &mut [f32; SUPER]) {
    let (d, dmin, packed, quants) = (half(b, 0), half(b, 2), &b[4..16], &b[16..]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, least) = scale_and_min(packed, group);
        let (scale, least) = (d * scale, dmin * least);
        let (quants, shift) = (&quants[group / 2 * 32..], group % 2 * 4);
        for (l, y) in y.iter_mut().enumerate() {
            *y = scale * (quants[l] >> shift & 15) as f32 - least;
        }
    }
}

fn q5_k(b: &[u8; 176], y: &mut [f32; SUPER]) {
    let (d, dmin, packed, high, quants) = (half(b, 0), half(b, 2), &b[4..16], &b[16..48], &b[48..]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, least) = scale_and_min(packed, group);
        let (scale, least) = (d * scale, dmin * least);
        let (quants, shift) = (&quants[group / 2 * 32..], group % 2 * 4);
        for (l, y) in y.iter_mut().enumerate() {
            *y = scale * (quants[l] >> shift & 15 | (high[l] >> group & 1) << 4) as f32 - least;
        }
    }
}

fn q6_k(b: &[u8; 210], y: &mut [f32; SUPER]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(b, 208));
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let scale = d * scales[group] as i8 as f32;
        // 128 values: the low nibbles of 64 bytes, then their high ones; 32 a bit pair of 32 bytes.
        let (part, quarter, from) = (group / 8, group % 8 / 2, group % 2 * 16);
        let low = &low[part * 64 + quarter % 2 * 32 + from..];
        let high = &high[part * 32 + from..];
        for (l, y) in y.iter_mut().enumerate() {
            let q = (low[l] >> (quarter / 2 * 4) & 15) | (high[l] >> (quarter * 2) & 3) << 4;
            *y = scale * (q as i32 - 32) as f32;
        }
    }
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
