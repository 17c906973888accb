//! Block formats of GGUF files: 32 values share a scale.
//!
//! Bytes and rounding are those of ggml's reference (`quantize_row_q8_0_ref` and
//! `quantize_row_q4_0_ref` in `ggml-quants.c`), bit for bit:
//!
//! | format | bytes | a block | value |
//! |---|---|---|---|
//! | Q8_0 | 34 | scale `d` as f16, 32 × i8 | `d q` |
//! | Q4_0 | 18 | scale `d` as f16, 16 bytes: value `i` low, value `i + 16` high nibble | `d (q - 8)` |

use super::half::{from_f16, to_f16};

/// Values in a block.
pub const BLOCK: usize = 32;
/// Bytes of a block of Q8_0.
pub const Q8_0: usize = 34;
/// Bytes of a block of Q4_0.
pub const Q4_0: usize = 18;

/// A block's scale and whole numbers, unpacked: the value `i` is `scale * q[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quants {
    /// The scale, as f16.
    pub scale: u16,
    /// The numbers: -127..=127 for Q8_0, -8..=7 for Q4_0.
    pub q: [i8; BLOCK],
}

/// Bits of the largest magnitude; larger than those of infinity when there is a NaN.
#[inline(always)]
pub(super) fn largest(x: &[f32; BLOCK]) -> u32 {
    let mut most = 0;
    for v in x {
        most = most.max(v.to_bits() & 0x7fff_ffff);
    }
    most
}

/// To the nearest whole number, halves away from zero, as `f32::round` does; in instructions that
/// every level has for vectors. For magnitudes below 2^22.
#[inline(always)]
fn round(x: f32) -> i32 {
    // The largest number below a half: a half itself would carry what is just below one over.
    let magnitude = (x.abs() + 0.499_999_97) as i32;
    if x < 0.0 { -magnitude } else { magnitude }
}

/// The nearest Q8_0 block.
#[inline(always)]
pub fn q8_0(x: &[f32; BLOCK]) -> Quants {
    let d = f32::from_bits(largest(x)) / 127.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let mut q = [0; BLOCK];
    for i in 0..BLOCK {
        q[i] = round(x[i] * inverse).clamp(-127, 127) as i8;
    }
    Quants { scale: to_f16(d), q }
}

/// The nearest Q4_0 block: the (first) value of largest magnitude becomes -8 exactly.
#[inline(always)]
pub fn q4_0(x: &[f32; BLOCK]) -> Quants {
    let most = largest(x);
    let mut largest = f32::from_bits(most);
    for i in (0..BLOCK).rev() {
        largest = if x[i].to_bits() & 0x7fff_ffff == most { x[i] } else { largest };
    }
    let d = largest / -8.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let mut q = [0; BLOCK];
    for i in 0..BLOCK {
        q[i] = (((x[i] * inverse + 8.5) as i32).clamp(0, 15) - 8) as i8;
    }
    Quants { scale: to_f16(d), q }
}

impl Quants {
    /// The values.
    pub fn values(&self) -> [f32; BLOCK] {
        let d = from_f16(self.scale);
        self.q.map(|q| d * q as f32)
    }

    /// The bytes of a Q8_0 block.
    pub fn to_q8_0(&self) -> [u8; Q8_0] {
        let mut out = [0; Q8_0];
        out[..2].copy_from_slice(&self.scale.to_le_bytes());
        for (o, q) in out[2..].iter_mut().zip(self.q) {
            *o = q as u8;
        }
        out
    }

    /// A block from its Q8_0 bytes.
    pub fn from_q8_0(bytes: &[u8; Q8_0]) -> Quants {
        let mut q = [0; BLOCK];
        for (q, b) in q.iter_mut().zip(&bytes[2..]) {
            *q = *b as i8;
        }
        Quants { scale: u16::from_le_bytes([bytes[0], bytes[1]]), q }
    }

    /// The bytes of a Q4_0 block.
    pub fn to_q4_0(&self) -> [u8; Q4_0] {
        let mut out = [0; Q4_0];
        out[..2].copy_from_slice(&self.scale.to_le_bytes());
        for i in 0..16 {
            out[2 + i] = (self.q[i] + 8) as u8 | ((self.q[i + 16] + 8) as u8) << 4;
        }
        out
    }

    /// A block from its Q4_0 bytes.
    pub fn from_q4_0(bytes: &[u8; Q4_0]) -> Quants {
        let mut q = [0; BLOCK];
        for i in 0..16 {
            q[i] = (bytes[2 + i] & 15) as i8 - 8;
            q[i + 16] = (bytes[2 + i] >> 4) as i8 - 8;
        }
        Quants { scale: u16::from_le_bytes([bytes[0], bytes[1]]), q }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_by_hand() {
        // amax = 127 / 2: d = 0.5, every multiple of 0.5 is exact; 0.25 is a tie, away from zero.
        let mut x = [0f32; BLOCK];
        (x[0], x[1], x[2], x[31]) = (-63.5, 0.25, -0.25, 10.0);
        let b = q8_0(&x);
        assert_eq!((b.scale, b.q[0], b.q[1], b.q[2], b.q[3], b.q[31]), (0x3800, -127, 1, -1, 0, 20));
        assert_eq!(Quants::from_q8_0(&b.to_q8_0()), b);
        assert_eq!(b.to_q8_0()[..5], [0x00, 0x38, 0x81, 1, 0xff]);
        // The largest magnitude is 4: d = -0.5, so 4 -> -8 and -4 -> 8, cut off at 7.
        let mut x = [0f32; BLOCK];
        (x[0], x[1], x[16], x[17]) = (4.0, -4.0, 1.0, 0.26);
        let b = q4_0(&x);
        assert_eq!((b.scale, b.q[0], b.q[1], b.q[16], b.q[17]), (0xb800, -8, 7, -2, -1));
        assert_eq!(b.to_q4_0()[..4], [0x00, 0xb8, 0x60, 0x7f]);
        assert_eq!(Quants::from_q4_0(&b.to_q4_0()), b);
        assert_eq!(b.values()[0], 4.0);
        // Nothing but zeros.
        assert_eq!(q8_0(&[0.0; BLOCK]), Quants { scale: 0, q: [0; BLOCK] });
        // ggml divides the zero by -8.
        assert_eq!(q4_0(&[0.0; BLOCK]), Quants { scale: 0x8000, q: [0; BLOCK] });
    }

    #[test]
    fn rounding_is_that_of_the_library() {
        for i in 0..=130 * 8 {
            for off in -3..=3i32 {
                let x = f32::from_bits((i as f32 / 8.0).to_bits().saturating_add_signed(off));
                assert_eq!(round(x) as f32, x.round(), "{x}");
                assert_eq!(round(-x) as f32, (-x).round(), "{x}");
            }
        }
    }

    #[test]
    fn rounding_errors_are_within_half_a_step() {
        for seed in 0..200u32 {
            let x: [f32; BLOCK] =
                std::array::from_fn(|i| ((seed * 32 + i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0);
            let largest = x.iter().fold(0f32, |a, v| a.max(v.abs()));
            // Half a step, and the rounding of the scale to f16.
            let close = |q: [f32; BLOCK], step: f32| x.iter().zip(q).all(|(x, q)| (x - q).abs() <= step * 1.01);
            assert!(close(q8_0(&x).values(), largest / 127.0 * 0.57));
            // The end of the range opposite to the largest value lacks one step.
            assert!(close(q4_0(&x).values(), largest / 8.0));
        }
    }
}
