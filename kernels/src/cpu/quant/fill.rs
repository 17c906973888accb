//! Filling panels: from values, or from a file's blocks.
//!
//! A task has a pair of panels, and walks through the blocks of 32 of each of its channels. Blocks
//! that a file stores as panels do are taken over word by word; everything else becomes the
//! whole numbers and scales of a [`Cell`] first.

use super::Format;
use super::block::{BLOCK, largest, q4_0, q8_0};
use super::encoding::Encoding;
use super::ggml::{Blocks, Group};
use super::half::{from_f16, to_bf16, to_f16};
use super::packed::{LANES, PAIR, blocks, channel_scale, place};
use crate::cpu::gemm::Matrix;

/// Where the weights of channels come from: value `i` of channel `j` is number
/// `i * at.row + j * at.col`.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Values, to be rounded.
    Values(&'a [f32], Matrix),
    /// Bytes of a file, from number `first` on: blocks to be `taken` over, or values to be rounded.
    Stored { encoding: Encoding, bytes: &'a [u8], first: usize, at: Matrix, taken: bool },
}

/// A block of 32 as a panel holds it: whole numbers, none negative, and f16 scales and minima.
struct Cell {
    q: [u8; BLOCK],
    scale: [u16; 2],
    min: [u16; 2],
}

impl Cell {
    /// The nearest block; its scale is NaN where a value is not finite.
    #[inline(always)]
    fn rounded(format: Format, x: &[f32; BLOCK]) -> Cell {
        let q = if matches!(format, Format::Q8_0) { q8_0(x) } else { q4_0(x) };
        let scale = if largest(x) < 0x7f80_0000 { q.scale } else { to_f16(f32::NAN) };
        Cell { q: q.q.map(|q| (q as i32 + format.zero()) as u8), scale: [scale; 2], min: [0; 2] }
    }

    /// A file's block; scales divided by `factor`.
    #[inline(always)]
    fn taken(blocks: Blocks, x: &Group, factor: f32) -> Cell {
        let (format, scale) = (Format::of(blocks.into()), x.scale.map(|s| to_f16(s / factor)));
        // Three bits with a sign become three bits and a minimum.
        let three = blocks == Blocks::Q3_K;
        let zero = if three { 4 } else { format.zero() };
        let min = |i: usize| if three { -4.0 * from_f16(scale[i]) } else { x.min[i] / factor };
        Cell { q: x.q.map(|q| (q as i32 + zero) as u8), scale, min: [to_f16(min(0)), to_f16(min(1))] }
    }

    fn zero(format: Format) -> Cell {
        Cell { q: [format.zero() as u8; BLOCK], scale: [0; 2], min: [0; 2] }
    }

    /// Writes it to its place in a block of a pair of panels.
    #[inline(always)]
    fn store(&self, format: Format, channel: usize, out: &mut [u8]) {
        let lane = channel % LANES * 4;
        if format.is_four() {
            for j in 0..BLOCK / 8 {
                let to = place(j, channel, lane);
                for i in 0..4 {
                    out[to + i] = self.q[4 * j + i] | self.q[16 + 4 * j + i] << 4;
                }
            }
        } else {
            for j in 0..BLOCK / 4 {
                let to = place(j, channel, lane);
                out[to..to + 4].copy_from_slice(&self.q[4 * j..4 * j + 4]);
            }
        }
        let count = format.scales();
        let mut to = format.block_bytes().0 + channel * 2;
        for scale in &self.scale[..count] {
            out[to..to + 2].copy_from_slice(&scale.to_le_bytes());
            to += 2 * PAIR;
        }
        for min in &self.min[..if format.has_min() { count } else { 0 }] {
            out[to..to + 2].copy_from_slice(&min.to_le_bytes());
            to += 2 * PAIR;
        }
    }
}

impl Source<'_> {
    /// Block `block` of a channel of `k` values, filled up with zeros.
    #[inline(always)]
    fn read(&self, channel: usize, block: usize, k: usize) -> [f32; BLOCK] {
        let (mut values, first) = ([0.0; BLOCK], block * BLOCK);
        let count = BLOCK.min(k - first);
        match *self {
            Source::Values(b, at) if at.row == 1 => {
                values[..count].copy_from_slice(&b[first + channel * at.col..][..count]);
            }
            Source::Values(b, at) => {
                for i in 0..count {
                    values[i] = b[(first + i) * at.row + channel * at.col];
                }
            }
            Source::Stored { encoding, bytes, first: start, at, .. } => {
                let start = start + first * at.row + channel * at.col;
                if at.row == 1 {
                    encoding.widen(bytes, start, &mut values[..count]);
                } else {
                    for i in 0..count {
                        encoding.widen(bytes, start + i * at.row, &mut values[i..=i]);
                    }
                }
            }
        }
        values
    }
}

/// Fills the pair of panels of the channels from `first` on.
#[inline(always)]
fn fill_body(format: Format, (n, k): (usize, usize), first: usize, from: &Source, factor: f32, out: &mut [u8]) {
    let (_, bytes_of_block) = format.block_bytes();
    if let Source::Stored { encoding: Encoding::Blocks(kind), bytes, first: start, at, taken: true } = *from {
        let (values, size) = (kind.values(), kind.bytes());
        for (block, out) in out.chunks_exact_mut(bytes_of_block).enumerate() {
            for channel in 0..PAIR {
                if first + channel >= n {
                    Cell::zero(format).store(format, channel, out);
                    continue;
                }
                let group = (start + (first + channel) * at.col) / BLOCK + block;
                let bytes = &bytes[group * BLOCK / values * size..];
                if !word_by_word(kind, bytes, channel, out) {
                    let x = kind.group(bytes, group % (values / BLOCK));
                    Cell::taken(kind, &x, factor).store(format, channel, out);
                }
            }
        }
        return;
    }
    if let Source::Stored { bytes, first: start, at, taken: true, .. } = *from
        && at.row == 1
    {
        for block in 0..blocks(k) {
            let count = BLOCK.min(k - block * BLOCK);
            for channel in 0..PAIR.min(n - first) {
                let from = start + (first + channel) * at.col + block * BLOCK;
                halves(format, &bytes[2 * from..][..2 * count], channel, block * BLOCK, out);
            }
        }
        return;
    }
    let mut steps = [(0.0, 0.0); PAIR];
    if matches!(format, Format::Int8) {
        for channel in 0..PAIR.min(n - first) {
            let mut most = 0;
            for block in 0..blocks(k) {
                most = most.max(largest(&from.read(first + channel, block, k)));
            }
            steps[channel] = channel_scale(most);
        }
        for channel in 0..PAIR {
            out[blocks(k) * bytes_of_block + channel * 4..][..4].copy_from_slice(&steps[channel].0.to_le_bytes());
        }
    }
    for block in 0..blocks(k) {
        for channel in 0..PAIR {
            let x = if first + channel < n { from.read(first + channel, block, k) } else { [0.0; BLOCK] };
            match format {
                Format::Bf16 | Format::F16 => sixteen(format, &x, channel, block, k, out),
                Format::Int8 => {
                    let (inverse, out) = (steps[channel].1, &mut out[block * bytes_of_block..]);
                    for j in 0..BLOCK / 4 {
                        let to = place(j, channel, channel % LANES * 4);
                        for i in 0..4 {
                            out[to + i] = (x[4 * j + i] * inverse).round_ties_even() as i32 as i8 as u8 ^ 128;
                        }
                    }
                }
                _ => {
                    let out = &mut out[block * bytes_of_block..][..bytes_of_block];
                    Cell::rounded(format, &x).store(format, channel, out);
                }
            }
        }
    }
}
crate::dispatch! {
    /// Fills the pair of panels of the channels from `first` on; scales of a file's blocks are divided
    /// by `factor`.
    pub(super) fn fill(format: Format, size: (usize, usize), first: usize, from: &Source, factor: f32, out: &mut [u8]) =
        fill_body;
}

/// Takes over a block that lies in a file as in a block of a pair of panels, but for the order of its
/// words.
#[inline(always)]
fn word_by_word(kind: Blocks, b: &[u8], channel: usize, out: &mut [u8]) -> bool {
    let (words, at, mask) = match kind {
        Blocks::Q8_0 => (8, 2, 0x8080_8080),
        Blocks::Q4_0 => (4, 2, 0),
        Blocks::Q4_1 => (4, 4, 0),
        _ => return false,
    };
    let (from, _) = b[at..][..words * 4].as_chunks::<4>();
    for (j, word) in from.iter().enumerate() {
        let to = place(j, channel, channel % LANES * 4);
        out[to..to + 4].copy_from_slice(&(u32::from_le_bytes(*word) ^ mask).to_le_bytes());
    }
    let scales = words * 128 + channel * 2;
    out[scales..scales + 2].copy_from_slice(&b[..2]);
    if at == 4 {
        out[scales + 2 * PAIR..][..2].copy_from_slice(&b[2..4]);
    }
    true
}

/// Takes over 16-bit numbers that lie along K, from value `k` of a channel on.
#[inline(always)]
fn halves(format: Format, from: &[u8], channel: usize, k: usize, out: &mut [u8]) {
    let lane = channel % LANES;
    let (pairs, rest) = from.as_chunks::<4>();
    let first = if matches!(format, Format::Bf16) { lane * 4 } else { lane * 2 };
    let apart = if matches!(format, Format::Bf16) { 2 } else { 32 };
    for (i, pair) in pairs.iter().enumerate() {
        let to = place(k / 2 + i, channel, first);
        out[to..to + 2].copy_from_slice(&pair[..2]);
        out[to + apart..to + apart + 2].copy_from_slice(&pair[2..]);
    }
    if let [a, b, ..] = *rest {
        let to = place(k / 2 + pairs.len(), channel, first);
        out[to..to + 2].copy_from_slice(&[a, b]);
    }
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

/// What scales of a file's blocks are divided by so that all are f16: 1 but for the products of two
/// scales that are larger than f16's largest number, then a power of two.
pub(super) fn factor(encoding: Encoding, bytes: &[u8], groups: std::ops::Range<usize>) -> f32 {
    let (values, size) = encoding.block();
    // Only the scales of blocks of 256 are products.
    let Encoding::Blocks(kind) = encoding else { return 1.0 };
    if values == BLOCK {
        return 1.0;
    }
    let each = values / BLOCK;
    // Scales in f16: those of the whole numbers, and those of the minima.
    let (at, most) = match kind {
        Blocks::Q2_K => ([80, 82], 15.0),
        Blocks::Q3_K => ([108, 108], 32.0 * 4.0),
        Blocks::Q6_K => ([208, 208], 128.0),
        _ => ([0, 2], 63.0),
    };
    let mut largest = 0f32;
    for block in groups.start / each..groups.end.div_ceil(each) {
        let b = &bytes[block * size..][..size];
        for at in at {
            let d = from_f16(u16::from_le_bytes([b[at], b[at + 1]])).abs();
            largest = if d.is_finite() { largest.max(d) } else { largest };
        }
    }
    let mut factor = 1.0;
    while largest * most / factor > 65_504.0 {
        factor *= 2.0;
    }
    factor
}
