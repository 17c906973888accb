//! Blocks against ggml's loops, written again in `f64` in the order of its source.

use super::*;
use crate::cpu::quant::Blocks::*;
use crate::cpu::quant::half::to_f16;

/// Blocks with every bit at random, and scales of the magnitude `scale` of both signs.
pub(in crate::cpu::quant) fn random(encoding: Encoding, count: usize, scale: f32, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut bytes: Vec<u8> = (0..encoding.bytes(count).unwrap()).map(|_| next() as u8).collect();
    let mut put = |at: usize, bytes: &mut [u8]| {
        let unit = next() as f32 / 4_294_967_296.0;
        let h = to_f16((unit * 0.75 + 0.25) * scale * if next() % 4 == 0 { -1.0 } else { 1.0 });
        bytes[at..at + 2].copy_from_slice(&h.to_le_bytes());
    };
    let halves: &[usize] = match encoding {
        Encoding::F16 => &[0],
        Encoding::Bf16 => {
            // Its own exponents: those of f16 lie elsewhere.
            bytes.chunks_exact_mut(2).for_each(|b| b[1] = b[1] & 0x80 | 0x3e);
            return bytes;
        }
        Encoding::Blocks(Q8_0) | Encoding::Blocks(Q4_0) | Encoding::Blocks(Q5_0) => &[0],
        Encoding::Blocks(Q4_1) | Encoding::Blocks(Q5_1) | Encoding::Blocks(Q4_K) | Encoding::Blocks(Q5_K) => &[0, 2],
        Encoding::Blocks(Q2_K) => &[80, 82],
        Encoding::Blocks(Q3_K) => &[108],
        Encoding::Blocks(Q6_K) => &[208],
    };
    for block in bytes.chunks_exact_mut(encoding.block().1) {
        halves.iter().for_each(|at| put(*at, block));
    }
    bytes
}

/// `dequantize_row_*` of `ggml-quants.c`.
pub(in crate::cpu::quant) fn plain(encoding: Encoding, bytes: &[u8]) -> Vec<f64> {
    let mut y = vec![];
    for b in bytes.chunks_exact(encoding.block().1) {
        let half = |at: usize| f64::from(from_f16(u16::from_le_bytes([b[at], b[at + 1]])));
        let fifth = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let k4 = |j: usize| {
            let q = &b[4..16];
            match j < 4 {
                true => (f64::from(q[j] & 63), f64::from(q[j + 4] & 63)),
                false => (
                    f64::from((q[j + 4] & 0xf) | ((q[j - 4] >> 6) << 4)),
                    f64::from((q[j + 4] >> 4) | ((q[j] >> 6) << 4)),
                ),
            }
        };
        let from = y.len();
        y.resize(from + encoding.block().0, 0.0);
        let y = &mut y[from..];
        match encoding {
            Encoding::F16 => y[0] = half(0),
            Encoding::Bf16 => y[0] = f64::from(f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            Encoding::Blocks(Q8_0) => (0..32).for_each(|j| y[j] = half(0) * f64::from(b[2 + j] as i8)),
            Encoding::Blocks(Q4_0) => {
                for j in 0..16 {
                    y[j] = half(0) * (f64::from(b[2 + j] & 0xf) - 8.0);
                    y[j + 16] = half(0) * (f64::from(b[2 + j] >> 4) - 8.0);
                }
            }
            Encoding::Blocks(Q4_1) => {
                for j in 0..16 {
                    y[j] = half(0) * f64::from(b[4 + j] & 0xf) + half(2);
                    y[j + 16] = half(0) * f64::from(b[4 + j] >> 4) + half(2);
                }
            }
            Encoding::Blocks(Q5_0) => {
                for j in 0..16 {
                    let (h0, h1) = (((fifth(2) >> j) << 4) as u8 & 0x10, (fifth(2) >> (j + 12)) as u8 & 0x10);
                    y[j] = half(0) * (f64::from((b[6 + j] & 0xf) | h0) - 16.0);
                    y[j + 16] = half(0) * (f64::from((b[6 + j] >> 4) | h1) - 16.0);
                }
            }
            Encoding::Blocks(Q5_1) => {
                for j in 0..16 {
                    let (h0, h1) = (((fifth(4) >> j) << 4) as u8 & 0x10, (fifth(4) >> (j + 12)) as u8 & 0x10);
                    y[j] = half(0) * f64::from((b[8 + j] & 0xf) | h0) + half(2);
                    y[j + 16] = half(0) * f64::from((b[8 + j] >> 4) | h1) + half(2);
                }
            }
            Encoding::Blocks(Q2_K) => {
                let (mut is, mut at) = (0, 0);
                for n in 0..2 {
                    let q = &b[16 + 32 * n..];
                    for shift in [0, 2, 4, 6] {
                        for part in [0, 16] {
                            let (dl, ml) = (half(80) * f64::from(b[is] & 0xf), half(82) * f64::from(b[is] >> 4));
                            is += 1;
                            for l in 0..16 {
                                y[at] = dl * f64::from((q[l + part] >> shift) & 3) - ml;
                                at += 1;
                            }
                        }
                    }
                }
            }
            Encoding::Blocks(Q3_K) => {
                let word = |i: usize| fifth(96 + 4 * i);
                let (low, two) = (0x0f0f_0f0fu32, 0x0303_0303u32);
                let aux = [
                    word(0) & low | (word(2) & two) << 4,
                    word(1) & low | (word(2) >> 2 & two) << 4,
                    word(0) >> 4 & low | (word(2) >> 4 & two) << 4,
                    word(1) >> 4 & low | (word(2) >> 6 & two) << 4,
                ];
                let (mut is, mut at, mut m) = (0, 0, 1u8);
                for n in 0..2 {
                    let q = &b[32 + 32 * n..];
                    for shift in [0, 2, 4, 6] {
                        for part in [0, 16] {
                            let dl = half(108) * (f64::from(aux[is / 4].to_le_bytes()[is % 4]) - 32.0);
                            is += 1;
                            for l in part..part + 16 {
                                let less = if b[l] & m != 0 { 0.0 } else { 4.0 };
                                y[at] = dl * (f64::from((q[l] >> shift) & 3) - less);
                                at += 1;
                            }
                        }
                        m = m.wrapping_shl(1);
                    }
                }
            }
            Encoding::Blocks(Q4_K) | Encoding::Blocks(Q5_K) => {
                let five = encoding == Encoding::Blocks(Q5_K);
                let (qh, start) = (&b[16..], if five { 48 } else { 16 });
                for j in 0..4 {
                    let q = &b[start + 32 * j..];
                    for (s, shift) in [(2 * j, 0), (2 * j + 1, 4)] {
                        let (d, m) = (half(0) * k4(s).0, half(2) * k4(s).1);
                        for l in 0..32 {
                            let high = if five && qh[l] & (1 << s) != 0 { 16.0 } else { 0.0 };
                            y[32 * s + l] = d * (f64::from((q[l] >> shift) & 0xf) + high) - m;
                        }
                    }
                }
            }
            Encoding::Blocks(Q6_K) => {
                for n in 0..2 {
                    let (ql, qh, sc) = (&b[64 * n..], &b[128 + 32 * n..], &b[192 + 8 * n..]);
                    for l in 0..32 {
                        let quarter = |low: u8, at: usize| f64::from((low & 0xf) | ((qh[l] >> at) & 3) << 4) - 32.0;
                        let q = [
                            quarter(ql[l], 0),
                            quarter(ql[l + 32], 2),
                            quarter(ql[l] >> 4, 4),
                            quarter(ql[l + 32] >> 4, 6),
                        ];
                        for i in 0..4 {
                            let scale = half(208) * f64::from(sc[2 * i + l / 16] as i8);
                            y[128 * n + 32 * i + l] = scale * q[i];
                        }
                    }
                }
            }
        }
    }
    y
}

#[test]
fn values_are_ggmls_rounded_once() {
    for encoding in Encoding::all() {
        for (scale, seed) in [(0.01, 1), (1.0, 2), (6e-8, 3), (60_000.0, 4), (1e-6, 5)] {
            let count = 256 * 40;
            let bytes = random(encoding, count, scale, seed);
            let mut all = vec![0.0; count];
            encoding.widen_all(&Pool::new(2), &bytes, &mut all);
            for (i, (ours, exact)) in all.iter().zip(plain(encoding, &bytes)).enumerate() {
                assert_eq!(*ours, exact as f32, "{encoding:?} {scale} value {i}");
            }
            // Any part is that part of the whole.
            for (first, len) in [(0, 1), (31, 2), (33, 300), (1000, 7)] {
                let mut part = vec![0.0; len];
                encoding.widen(&bytes, first, &mut part);
                assert_eq!(part, all[first..first + len], "{encoding:?}");
            }
        }
    }
}
