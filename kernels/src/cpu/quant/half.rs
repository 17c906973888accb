//! The two 16-bit storages of real numbers and their conversions.
//!
//! `bf16` is the upper half of an `f32`: 8 bits of exponent, 7 of fraction. `f16` is IEEE 754
//! binary16: 5 and 10. Narrowing rounds to the nearest, ties to even, overflows to infinity,
//! keeps denormals, and keeps NaN (made quiet, its upper fraction bits kept), as the F16C
//! instructions do; both directions give the same bits with and without those instructions.

#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Level, level};

/// Rounds to bf16.
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// The value of a bf16: exact.
#[inline(always)]
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits((x as u32) << 16)
}

/// Rounds to f16.
#[inline(always)]
pub fn to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let value = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13) as u16 & 0x3ff
    } else if magnitude >= 0x4780_0000 {
        // 65536 and above.
        0x7c00
    } else if magnitude >= 0x3880_0000 {
        // Normal: a smaller bias of the exponent; rounding may carry into it, up to infinity.
        let shifted = magnitude - (112 << 23);
        ((shifted + 0xfff + ((shifted >> 13) & 1)) >> 13) as u16
    } else {
        // Denormal: multiples of 2^-24. Adding 0.5 lines the fraction up with them and rounds.
        (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits()) as u16
    };
    sign | value
}

/// The value of an f16: exact.
#[inline(always)]
pub fn from_f16(x: u16) -> f32 {
    let sign = ((x & 0x8000) as u32) << 16;
    let shifted = ((x & 0x7fff) as u32) << 13;
    let magnitude = match x & 0x7c00 {
        // Denormal: the fraction, in multiples of 2^-24.
        0 => (x as u32 & 0x3ff) as f32 * f32::from_bits(103 << 23),
        0x7c00 if x & 0x3ff == 0 => f32::INFINITY,
        0x7c00 => f32::from_bits(shifted | 0x7fc0_0000),
        _ => f32::from_bits(shifted + (112 << 23)),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[inline(always)]
fn narrow_bf16_body(x: &[f32], y: &mut [u16]) {
    for (x, y) in x.iter().zip(y) {
        *y = to_bf16(*x);
    }
}
#[inline(always)]
fn widen_bf16_body(x: &[u16], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = from_bf16(*x);
    }
}
crate::dispatch! {
    /// Rounds as many values to bf16 as both slices have.
    pub fn narrow_bf16(x: &[f32], y: &mut [u16]) = narrow_bf16_body;
}
crate::dispatch! {
    /// The values of as many bf16 as both slices have.
    pub fn widen_bf16(x: &[u16], y: &mut [f32]) = widen_bf16_body;
}

/// Rounds as many values to f16 as both slices have.
pub fn narrow_f16(x: &[f32], y: &mut [u16]) {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &mut y[..n]);
    #[cfg(target_arch = "x86_64")]
    if level() > Level::Base && is_x86_feature_detected!("f16c") {
        // SAFETY: AVX2 and F16C were found.
        return unsafe { x86::narrow(x, y) };
    }
    for (x, y) in x.iter().zip(y) {
        *y = to_f16(*x);
    }
}

/// The values of as many f16 as both slices have.
pub fn widen_f16(x: &[u16], y: &mut [f32]) {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &mut y[..n]);
    #[cfg(target_arch = "x86_64")]
    if level() > Level::Base && is_x86_feature_detected!("f16c") {
        // SAFETY: AVX2 and F16C were found.
        return unsafe { x86::widen(x, y) };
    }
    for (x, y) in x.iter().zip(y) {
        *y = from_f16(*x);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{from_f16, to_f16};
    use std::arch::x86_64::*;

    /// Slices of one length.
    #[target_feature(enable = "avx2,f16c")]
    pub fn narrow(x: &[f32], y: &mut [u16]) {
        let (xs, x_rest) = x.as_chunks::<8>();
        let (ys, y_rest) = y.as_chunks_mut::<8>();
        for (x, y) in xs.iter().zip(ys) {
            // SAFETY: both chunks hold eight values.
            unsafe {
                let h = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
                _mm_storeu_si128(y.as_mut_ptr().cast(), h);
            }
        }
        for (x, y) in x_rest.iter().zip(y_rest) {
            *y = to_f16(*x);
        }
    }

    /// Slices of one length.
    #[target_feature(enable = "avx2,f16c")]
    pub fn widen(x: &[u16], y: &mut [f32]) {
        let (xs, x_rest) = x.as_chunks::<8>();
        let (ys, y_rest) = y.as_chunks_mut::<8>();
        for (x, y) in xs.iter().zip(ys) {
            // SAFETY: both chunks hold eight values.
            unsafe { _mm256_storeu_ps(y.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()))) };
        }
        for (x, y) in x_rest.iter().zip(y_rest) {
            *y = from_f16(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every f16 is the nearest of itself, and half-way points go to the even neighbour.
    #[test]
    fn all_f16_round_trip_and_ties_go_to_even() {
        for h in 0..=u16::MAX {
            let x = from_f16(h);
            if x.is_nan() {
                assert!(from_f16(to_f16(x)).is_nan());
                assert_eq!(to_f16(x), h | 0x200);
                continue;
            }
            assert_eq!(to_f16(x), h);
            if h & 0x7fff < 0x7bff {
                let next = from_f16(h + 1);
                let even = if h % 2 == 0 { h } else { h + 1 };
                let tie = ((x as f64 + next as f64) / 2.0) as f32;
                assert_eq!(to_f16(tie), even, "{tie}");
                assert_eq!(to_f16(f32::from_bits(tie.to_bits() - 1)), h);
                assert_eq!(to_f16(f32::from_bits(tie.to_bits() + 1)), h + 1);
            }
        }
        assert_eq!(to_f16(65519.99), 0x7bff);
        assert_eq!(to_f16(65520.0), 0x7c00);
        assert_eq!(to_f16(f32::MAX), 0x7c00);
        assert_eq!(to_f16(-1e-30), 0x8000);
        assert_eq!([from_f16(0x3c00), from_f16(0xc000), from_f16(1)], [1.0, -2.0, 2f32.powi(-24)]);
    }

    #[test]
    fn all_bf16_round_trip_and_ties_go_to_even() {
        for h in 0..=u16::MAX {
            let x = from_bf16(h);
            if x.is_nan() {
                assert_eq!(to_bf16(x), h | 0x40);
                continue;
            }
            assert_eq!(to_bf16(x), h);
            if h & 0x7fff < 0x7f80 {
                let tie = f32::from_bits(x.to_bits() + 0x8000);
                assert_eq!(to_bf16(tie), if h % 2 == 0 { h } else { h + 1 });
                assert_eq!(to_bf16(f32::from_bits(tie.to_bits() - 1)), h);
                assert_eq!(to_bf16(f32::from_bits(tie.to_bits() + 1)), h + 1);
            }
        }
        assert!(from_bf16(to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
    }

    /// The instructions give the bits of the portable functions.
    #[test]
    fn slices_agree_with_scalars() {
        let bits = (0..40_003u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i % 31));
        let x: Vec<f32> =
            bits.chain([0x7f80_0001, 0xff80_0000, 0x0000_0001, 0x8070_0000]).map(f32::from_bits).collect();
        let mut y = vec![0; x.len()];
        narrow_f16(&x, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| *y == to_f16(*x)));
        narrow_bf16(&x, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| *y == to_bf16(*x)));
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut wide = vec![0.0; all.len()];
        widen_f16(&all, &mut wide);
        assert!(all.iter().zip(&wide).all(|(x, y)| y.to_bits() == from_f16(*x).to_bits()));
        widen_bf16(&all, &mut wide);
        assert!(all.iter().zip(&wide).all(|(x, y)| y.to_bits() == from_bf16(*x).to_bits()));
    }
}
