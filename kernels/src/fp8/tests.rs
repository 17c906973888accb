//! Conversions against the crate `float8` (a port of NVIDIA's reference code), against that code's
//! answers for classes of values, and against the nearest number found by search.

use super::*;
use crate::cpu::simd::levels;

const FORMATS: [Fp8; 2] = [Fp8::E4M3, Fp8::E5M2];

/// `__nv_cvt_float_to_fp8` of CUDA 13's `cuda_fp8.hpp`, in its own steps: rounds the fraction that
/// was cut off by comparing what is lost with half of the last place.
fn nvidia(format: Fp8, x: f32, saturate: bool) -> u8 {
    let x = if x.is_nan() { f32::from_bits(0x7fff_ffff) } else { x } as f64;
    let bits = x.to_bits();
    let (greatest, mask, bias, significand, half_least, threshold, least): (u8, u8, u16, u64, u64, u64, u64) =
        match format {
            Fp8::E4M3 => (0x7e, 7, 7, 4, 0x3f50 << 48, 0x407d << 48, 0x3f90 << 48),
            Fp8::E5M2 => (0x7b, 3, 15, 3, 0x3ee0 << 48, (0x40ee << 48) - 1, 0x3f10 << 48),
        };
    let half = 1u64 << (53 - significand - 1);
    let sign = ((bits >> 63) << 7) as u8;
    let exponent = (((bits >> 52) & 0x7ff) as u16).wrapping_sub(1023).wrapping_add(bias) as u8;
    let fraction = (bits >> (53 - significand)) as u8 & mask;
    let magnitude = bits & (u64::MAX >> 1);
    let code = if magnitude <= half_least {
        0
    } else if magnitude > 0x7ff0 << 48 {
        if format == Fp8::E4M3 { 0x7f } else { 0x7e | fraction }
    } else if magnitude > threshold {
        match (saturate, format) {
            (true, _) => greatest,
            (false, Fp8::E4M3) => 0x7f,
            (false, Fp8::E5M2) => 0x7c,
        }
    } else if magnitude >= least {
        let code = exponent << (significand - 1) | fraction;
        let lost = bits & ((half << 1) - 1);
        code + (lost > half || (lost == half && fraction & 1 == 1)) as u8
    } else {
        let shift = 1u8.wrapping_sub(exponent);
        let code = (fraction | 1 << (significand - 1)) >> shift;
        let lost = (bits | 1 << 52) & ((half << (shift + 1)) - 1);
        code + (lost > half << shift || (lost == half << shift && code & 1 == 1)) as u8
    };
    code | sign
}

/// Values of every class and a sweep through all exponents with fractions of all kinds.
fn sweep() -> impl Iterator<Item = f32> {
    // Every sign, exponent and the 12 first bits of the fraction, with rests on both sides of ties.
    let dense = (0..1u32 << 21).flat_map(|head| [0, 1, 0x3ff, 0x7ff].map(|rest| head << 11 | rest));
    let codes = FORMATS.into_iter().flat_map(|f| f.table()).flat_map(|x| {
        let bits = x.to_bits();
        [bits.wrapping_sub(1), bits, bits.wrapping_add(1)]
    });
    dense.chain(codes).map(f32::from_bits)
}

#[test]
fn codes_equal_nvidias_for_every_class_of_value() {
    for format in FORMATS {
        for x in sweep() {
            assert_eq!(format.encode(x), nvidia(format, x, true), "{format:?} {x:e} {:08x}", x.to_bits());
            assert_eq!(format.encode_open(x), nvidia(format, x, false), "{format:?} {x:e} {:08x}", x.to_bits());
        }
    }
}

/// Checksums (FNV-1a) of what NVIDIA's header itself gives, compiled for the host: CUDA 13.0.96's
/// `__nv_cvt_float_to_fp8` and `__nv_cvt_float_to_e8m0` (saturating, rounding up) of every 257th `f32`.
#[test]
fn checksums_equal_those_of_nvidias_header() {
    let sum = |code: &dyn Fn(f32) -> u8| {
        (0..=u32::MAX).step_by(257).fold(0xcbf2_9ce4_8422_2325u64, |sum, bits| {
            (sum ^ code(f32::from_bits(bits)) as u64).wrapping_mul(0x100_0000_01b3)
        })
    };
    assert_eq!(sum(&|x| Fp8::E4M3.encode(x)), 0x2553_5b45_821a_39f3);
    assert_eq!(sum(&|x| Fp8::E4M3.encode_open(x)), 0x2cbb_6e56_7627_e308);
    assert_eq!(sum(&|x| Fp8::E5M2.encode(x)), 0xf63d_d37f_13a3_7883);
    assert_eq!(sum(&|x| Fp8::E5M2.encode_open(x)), 0x7fbc_25ad_e67e_e5d3);
    assert_eq!(sum(&to_e8m0), 0x3160_fa65_7ebb_0b79);
}

#[test]
fn numbers_and_codes_equal_the_crate_float8s() {
    for code in 0..=255u8 {
        let (ours, theirs) = (Fp8::E4M3.decode(code), float8::F8E4M3::from_bits(code).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{code:02x} {ours} {theirs}");
        let (ours, theirs) = (Fp8::E5M2.decode(code), float8::F8E5M2::from_bits(code).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{code:02x} {ours} {theirs}");
    }
    for x in sweep() {
        // The crate keeps the sign and some fraction of NaN.
        let same = |ours: u8, theirs: u8| ours == theirs || x.is_nan() && ours == 0x7f;
        assert!(same(Fp8::E4M3.encode(x), float8::F8E4M3::from_f32(x).to_bits()), "{x:e}");
        assert!(same(Fp8::E5M2.encode(x), float8::F8E5M2::from_f32(x).to_bits()), "{x:e}");
    }
}

#[test]
fn all_codes_come_back_and_ties_go_to_even() {
    for format in FORMATS {
        for code in 0..=255u8 {
            let x = format.decode(code);
            if x.is_nan() {
                assert!(format.round(x).is_nan());
                assert_eq!((format.encode(x), format.encode_open(x)), (0x7f, 0x7f));
                continue;
            }
            assert_eq!(format.encode_open(x), code);
            if x.is_infinite() {
                assert_eq!(format.round(x).abs(), format.max());
                continue;
            }
            assert_eq!(format.encode(x), code);
            assert_eq!(format.round(x).to_bits(), x.to_bits());
            let next = format.decode(code + 1);
            if next.is_finite() && code & 0x7f < 0x7f {
                let tie = (x + next) / 2.0;
                assert_eq!(format.encode(tie), if code % 2 == 0 { code } else { code + 1 }, "{tie}");
                assert_eq!(format.encode(f32::from_bits(tie.to_bits() - 1)), code);
                assert_eq!(format.encode(f32::from_bits(tie.to_bits() + 1)), code + 1);
            }
        }
    }
}

#[test]
fn the_edges_are_where_the_formats_have_them() {
    let (a, b) = (Fp8::E4M3, Fp8::E5M2);
    assert_eq!([a.max(), a.decode(1), a.decode(8)], [448.0, 2f32.powi(-9), 2f32.powi(-6)]);
    assert_eq!([b.max(), b.decode(1), b.decode(4)], [57344.0, 2f32.powi(-16), 2f32.powi(-14)]);
    // Half of the least number is a tie with zero.
    assert_eq!([a.encode(2f32.powi(-10)), a.encode(2f32.powi(-10) * 1.001)], [0, 1]);
    assert_eq!([b.encode(-2f32.powi(-17)), b.encode(-2f32.powi(-17) * 1.001)], [0x80, 0x81]);
    // Half a step above the greatest.
    assert_eq!([a.encode_open(464.0), a.encode_open(464.01), a.encode(464.01)], [0x7e, 0x7f, 0x7e]);
    assert_eq!([b.encode_open(61439.99), b.encode_open(61440.0), b.encode(61440.0)], [0x7b, 0x7c, 0x7b]);
    assert_eq!([a.encode_open(f32::NEG_INFINITY), b.encode_open(f32::NEG_INFINITY)], [0xff, 0xfc]);
    assert_eq!([a.encode(f32::NEG_INFINITY), b.encode(f32::INFINITY)], [0xfe, 0x7b]);
    assert_eq!([a.encode(-f32::NAN), b.encode_open(-f32::NAN)], [0x7f, 0x7f]);
}

#[test]
fn e8m0_rounds_up_to_powers_of_two() {
    for code in 0..255u8 {
        let x = from_e8m0(code);
        assert_eq!(x as f64, 2f64.powi(code as i32 - 127));
        assert_eq!(to_e8m0(x), code);
        assert_eq!(to_e8m0(f32::from_bits(x.to_bits() + 1)), (code + 1).min(254));
        assert_eq!(to_e8m0(-x), code, "the sign is left out");
    }
    assert_eq!([to_e8m0(0.0), to_e8m0(f32::from_bits(1)), to_e8m0(f32::MAX), to_e8m0(f32::INFINITY)], [0, 0, 254, 254]);
    assert!(from_e8m0(255).is_nan() && to_e8m0(f32::NAN) == 255);
}

#[test]
fn scales_bring_the_greatest_value_to_the_greatest_number() {
    let exact = Scale::Exact { epsilon: 0.0, power_of_two: false };
    let power = Scale::Exact { epsilon: 0.0, power_of_two: true };
    for format in FORMATS {
        for bits in (1..0x7f80_0000u32).step_by(99_991) {
            let amax = f32::from_bits(bits);
            let (s, p, e) = (exact.of(format, amax), power.of(format, amax), Scale::E8M0.of(format, amax));
            assert!(s.is_finite() && s > 0.0);
            assert!(format.round(amax * s) <= format.max());
            assert!(s == f32::MAX || amax * s > format.max() * 0.999, "{amax:e}");
            // The power of two below.
            assert_eq!(p.to_bits() & 0x7f_ffff, 0);
            assert!(p <= s && 2.0 * p as f64 > s as f64);
            // Blocks neither overflow nor lose more than a binade and the rounding of 1 / max.
            assert!((amax * e) as f64 <= format.max() as f64 * (1.0 + 1e-6), "{amax:e} {e:e}");
            assert!(e >= 2f32.powi(126) || e == 1.0 || (amax * e) as f64 * 2.0 > format.max() as f64 * (1.0 - 1e-6));
        }
        for amax in [0.0, f32::INFINITY, f32::NAN] {
            assert_eq!(exact.of(format, amax), 1.0);
        }
        assert_eq!(Scale::Exact { epsilon: 2.0, power_of_two: false }.of(format, 1e-3), format.max() / 2.0);
        assert_eq!(Scale::E8M0.of(format, 0.0), 1.0);
        assert!(Scale::E8M0.of(format, f32::NAN).is_nan());
        assert_eq!(delayed_scale(format, 1.0, 4.0, 3.0), format.max() / 8.0);
        assert_eq!(delayed_scale(format, 0.0, 1e-45, 3.0), f32::MAX);
        for amax in [0.0, f32::INFINITY, f32::NAN] {
            assert_eq!(delayed_scale(format, 0.0, amax, 3.0), 3.0);
        }
    }
    // 1 / 448 is rounded, so that 448 itself lands in the block above.
    assert_eq!((Scale::E8M0.of(Fp8::E4M3, 447.0), Scale::E8M0.of(Fp8::E5M2, 57344.0)), (1.0, 1.0));
}

#[test]
fn slices_agree_with_single_values() {
    assert!(levels().count() > 0);
    let x: Vec<f32> =
        (0..40_003u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761).rotate_left(i % 31))).collect();
    for format in FORMATS {
        let (mut codes, mut back, mut rounded) = (vec![0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
        encode(format, &x, 8.0, &mut codes);
        decode(format, &codes, 0.125, &mut back);
        round_scaled(format, &x, 8.0, 0.125, &mut rounded);
        for i in 0..x.len() {
            assert_eq!(codes[i], format.encode(x[i] * 8.0), "{:e}", x[i]);
            assert!(back[i].to_bits() == rounded[i].to_bits() || back[i].is_nan() && rounded[i].is_nan());
        }
    }
    assert_eq!(amax(&[]), 0.0);
    assert_eq!(amax(&[1.0, f32::NAN, -3.0]), 3.0);
    for n in [15, 16, 17, 100] {
        let x: Vec<f32> = (0..n).map(|i| if i == n - 2 { -9.0 } else { i as f32 / n as f32 }).collect();
        assert_eq!(amax(&x), 9.0);
    }
    assert_eq!(amax(&[f32::NEG_INFINITY, 1.0]), f32::INFINITY);
}
