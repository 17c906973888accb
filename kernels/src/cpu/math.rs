//! Branch-free elementary functions in `f32` that vectorise when inlined into a loop.
//!
//! `FUSED` says whether the code is compiled for a processor that multiplies and adds with one
//! rounding ([`dispatch!`](crate::dispatch) passes it): there `mul_add` is one instruction,
//! elsewhere a call of the library that would cost more than the whole function.
//!
//! Errors in units in the last place, with the operation fused / without; the tests sweep all of
//! `f32`. Denormals, infinities and NaN are as in `f64`.
//!
//! | | | | |
//! |---|---|---|---|
//! | `exp` | 1.1 / 1.3 | `tanh` | 1.6 / 1.6 |
//! | `expm1` | 1.1 / 1.3 | `sigmoid` | 2.5 / 2.5 |
//! | `log` | 0.9 / 1.3 | `erf` | 1.1 / 1.4 |
//! | `log1p` | 0.9 / 1.3 | `sin`, `cos` below [`TURNS`] | 1.6 / 2.0 |
//!
//! Most polynomials are N. Juffa's minimax fits (published on Stack Overflow and the NVIDIA
//! forums under a BSD licence), those of `exp` and `tanh` are Cephes'.

#![allow(clippy::excessive_precision)] // coefficients as published

/// `a * b + c`, with one rounding where that is one instruction.
#[inline(always)]
fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `a * b + c` rounded once everywhere (but for double rounding in rare cases).
#[inline(always)]
fn fma_exact<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { (f64::from(a) * f64::from(b) + f64::from(c)) as f32 }
}

/// A polynomial by Horner's rule, highest coefficient first.
macro_rules! poly {
    ($x:expr, $first:expr $(, $c:expr)+) => {{
        let p = $first;
        $(let p = fma::<FUSED>(p, $x, $c);)+
        p
    }};
}

/// `if c { a } else { b }` without a branch: a branch would keep a loop from vectorising.
#[inline(always)]
fn pick(c: bool, a: f32, b: f32) -> f32 {
    std::hint::select_unpredictable(c, a, b)
}

/// Adding this rounds a small number to a whole one in its lowest bits (1.5 * 2^23).
const ROUND: f32 = 12_582_912.0;

/// The whole number in the lowest bits of a number near [`ROUND`]. A cast would saturate, which
/// costs more than the rest.
#[inline(always)]
fn low_bits(shifted: f32) -> i32 {
    (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// 2^k for -126 <= k <= 127.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) << 23) as u32)
}

/// `x` limited to `low..=high`; NaN stays.
#[inline(always)]
fn limit(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// e^x as a number near 1 and a power of 2: a polynomial after reduction by ln 2 in two parts.
#[inline(always)]
fn exp_parts<const FUSED: bool>(x: f32) -> (f32, i32) {
    let shifted = fma::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FUSED>(n, -0.693_359_4, x);
    let r = fma::<FUSED>(n, 2.121_944_4e-4, r);
    let p = poly!(r, 1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1);
    (fma::<FUSED>(p * r, r, r) + 1.0, low_bits(shifted))
}

/// e^x
#[inline(always)]
pub fn exp<const FUSED: bool>(x: f32) -> f32 {
    // Beyond these limits the result is 0 or infinite all the same.
    let (y, power) = exp_parts::<FUSED>(limit(x, -104.0, 89.0));
    // 2^n in two factors: neither leaves the range of normal numbers, and the last product
    // rounds to a denormal or overflows as it should.
    let half = power >> 1;
    y * power_of_two(half) * power_of_two(power.wrapping_sub(half))
}

/// e^x for x of at most 88, but 0 below the least normal number: what sums of exponentials need.
#[inline(always)]
pub fn exp_flushed<const FUSED: bool>(x: f32) -> f32 {
    // 2^-127 has no bits as a normal number: a factor of 0.
    let (y, power) = exp_parts::<FUSED>(if x < -88.0 { -88.0 } else { x });
    y * power_of_two(power)
}

/// e^x where neither x nor the result is extreme: -87 <= x <= 88.
#[inline(always)]
fn exp_within<const FUSED: bool>(x: f32) -> f32 {
    let (y, power) = exp_parts::<FUSED>(x);
    y * power_of_two(power)
}

/// Natural logarithm: a polynomial on [2/3, 4/3].
#[inline(always)]
pub fn log<const FUSED: bool>(x: f32) -> f32 {
    // Denormals are scaled up first.
    let small = x < f32::MIN_POSITIVE;
    let v = pick(small, x * 8_388_608.0, x);
    let less = pick(small, -23.0, 0.0);
    let e = (v.to_bits() as i32).wrapping_sub((2.0f32 / 3.0).to_bits() as i32) & !0x007f_ffff;
    let m = f32::from_bits((v.to_bits() as i32).wrapping_sub(e) as u32) - 1.0;
    let i = fma::<FUSED>(e as f32, 1.0 / 8_388_608.0, less);
    let s = m * m;
    let t = poly!(s, 0.140_869_141, 0.139_814_854, 0.200_120_345);
    let r = poly!(s, -0.130_310_059, -0.121_483_512, -0.166_846_126, -0.249_996_2);
    let r = fma::<FUSED>(t, m, r);
    let r = fma::<FUSED>(r, m, 0.333_331_972);
    let r = fma::<FUSED>(r, m, -0.5);
    let r = fma::<FUSED>(r, s, m);
    let y = fma::<FUSED>(i, std::f32::consts::LN_2, r);
    log_limits(x, y)
}

/// `y`, but the logarithm where `x` is zero, negative or not finite.
#[inline(always)]
fn log_limits(x: f32, y: f32) -> f32 {
    let y = pick(x == f32::INFINITY, x, y);
    let y = pick(x == 0.0, f32::NEG_INFINITY, y);
    pick(x >= 0.0, y, f32::NAN)
}

/// `e^x - 1`, exact near 0.
#[inline(always)]
pub fn expm1<const FUSED: bool>(x: f32) -> f32 {
    let a = limit(x, -20.0, 89.0);
    let shifted = fma::<FUSED>(a, std::f32::consts::LOG2_E, ROUND);
    let (j, power) = (shifted - ROUND, low_bits(shifted));
    let f = fma::<FUSED>(j, -6.931_457_52e-1, a);
    let f = fma::<FUSED>(j, -1.428_606_77e-6, f);
    // Squared it would lose the sign of zero.
    let s = pick(a == 0.0, a, f * f);
    let r = poly!(f, 1.973_509_79e-4, 1.393_090_7e-3, 8.333_439_94e-3, 4.166_680_2e-2, 1.666_667_16e-1, 4.999_999_7e-1);
    let u = pick(power == 1, f + 0.5, f);
    let v = fma::<FUSED>(r, s, u);
    // 2^j v + (2^j - 1), halved, with the rounding error of the difference put back.
    let t = power_of_two(power.wrapping_sub(1));
    let y = t - 0.5;
    let lost = (t - y) - 0.5;
    let sum = fma::<FUSED>(v, t, lost) + y;
    let sum = sum + sum;
    pick(power == 0, v, pick(power == 1, v + v, sum))
}

/// `log(1 + x)`, exact near 0.
#[inline(always)]
pub fn log1p<const FUSED: bool>(x: f32) -> f32 {
    let u = x + 1.0;
    let e = (u.to_bits() as i32).wrapping_sub(0.75f32.to_bits() as i32) & !0x007f_ffff;
    let scaled = f32::from_bits((x.to_bits() as i32).wrapping_sub(e) as u32);
    let s = f32::from_bits((4f32.to_bits() as i32).wrapping_sub(e) as u32);
    let m = scaled + fma::<FUSED>(0.25, s, -1.0);
    let s = m * m;
    let r = poly!(s, -4.545_593_26e-2, -1.322_791_43e-1, -1.664_169_13e-1, -2.500_018_78e-1);
    let t = poly!(s, 1.055_297_85e-1, 1.449_110_06e-1, 1.998_866_35e-1);
    let r = fma::<FUSED>(t, m, r);
    let r = fma::<FUSED>(r, m, 3.333_352_8e-1);
    let r = fma::<FUSED>(r, m, -0.5);
    let r = fma::<FUSED>(r, s, m);
    let y = fma::<FUSED>(e as f32 * (1.0 / 8_388_608.0), std::f32::consts::LN_2, r);
    pick(x == 0.0, x, log_limits(u, y))
}

/// Hyperbolic tangent: a polynomial near 0, `1 - 2 / (e^2x + 1)` beyond.
#[inline(always)]
pub fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = poly!(z, -5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1);
    let near = fma::<FUSED>(p * z, a, a);
    // From 10 on the result is 1.
    let far = 1.0 - 2.0 / (exp_within::<FUSED>(2.0 * pick(a > 10.0, 10.0, a)) + 1.0);
    pick(a < 0.625, near, far).copysign(x)
}

/// `1 / (1 + e^-x)`, as `e^x / (1 + e^x)` where `x` is negative, so that small results are right.
#[inline(always)]
pub fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    let z = exp::<FUSED>(-x.abs());
    pick(x < 0.0, z, 1.0) / (1.0 + z)
}

/// The error function: a polynomial near 0, `1 - exp(P(|x|))` beyond.
#[inline(always)]
pub fn erf<const FUSED: bool>(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let r = fma::<FUSED>(-1.728_534_7e-5, t, 3.831_971_26e-4);
    let u = fma::<FUSED>(-3.883_964_38e-3, t, 2.425_462_19e-2);
    let r = fma::<FUSED>(r, s, u);
    let r = poly!(t, r, -1.067_778_77e-1, -6.348_466_87e-1, -1.287_175_12e-1);
    let r = fma::<FUSED>(r, t, -t);
    let far = 1.0 - exp_within::<FUSED>(pick(r < -80.0, -80.0, r));
    let p = poly!(
        s,
        -5.967_617_03e-4,
        4.991_194_23e-3,
        -2.676_813_49e-2,
        1.128_199_25e-1,
        -3.761_253_36e-1,
        1.283_791_66e-1
    );
    let near = fma::<FUSED>(p, t, t);
    pick(t > 0.927_734_375, far, near).copysign(x)
}

/// The size of arguments up to which [`sin`] and [`cos`] are accurate.
pub const TURNS: f32 = 71_476.0;

/// Sine or cosine (`shift` 0 or 1) after reduction by pi/2 in three parts.
#[inline(always)]
fn turned<const FUSED: bool>(x: f32, shift: i32) -> f32 {
    let shifted = fma::<FUSED>(x, std::f32::consts::FRAC_2_PI, ROUND);
    let (n, quadrant) = (shifted - ROUND, low_bits(shifted).wrapping_add(shift));
    let r = fma_exact::<FUSED>(n, -1.570_796_01, x);
    let r = fma_exact::<FUSED>(n, -3.139_164_73e-7, r);
    let r = fma_exact::<FUSED>(n, -5.390_302_53e-15, r);
    let z = r * r;
    let s = poly!(z, 2.865_679_56e-6, -1.985_599_23e-4, 8.333_385_92e-3, -1.666_666_72e-1);
    // Adding 0 keeps the sign of a zero.
    let sine = fma::<FUSED>(s, fma::<FUSED>(z, r, 0.0), r);
    let cosine = poly!(z, 2.446_770_67e-5, -1.388_772_97e-3, 4.166_665_67e-2, -0.5, 1.0);
    let y = pick(quadrant & 1 == 0, sine, cosine);
    f32::from_bits(y.to_bits() ^ ((quadrant as u32 & 2) << 30))
}

/// Sine, for |x| below [`TURNS`].
#[inline(always)]
pub fn sin<const FUSED: bool>(x: f32) -> f32 {
    turned::<FUSED>(x, 0)
}

/// Cosine, for |x| below [`TURNS`].
#[inline(always)]
pub fn cos<const FUSED: bool>(x: f32) -> f32 {
    turned::<FUSED>(x, 1)
}

/// The functions for code that is compiled for the least processor.
pub mod plain {
    /// e^x
    #[inline(always)]
    pub fn exp(x: f32) -> f32 {
        super::exp::<false>(x)
    }
    /// Hyperbolic tangent.
    #[inline(always)]
    pub fn tanh(x: f32) -> f32 {
        super::tanh::<false>(x)
    }
    /// `1 / (1 + e^-x)`
    #[inline(always)]
    pub fn sigmoid(x: f32) -> f32 {
        super::sigmoid::<false>(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function in `f64`: its series, or the continued fraction of its complement.
    fn erf64(x: f64) -> f64 {
        let a = x.abs();
        let y = if a < 2.5 {
            let (mut term, mut sum) = (a, a);
            for n in 1..100 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else if a > 7.0 {
            1.0
        } else {
            let tail = (1..80).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
            1.0 - (-a * a).exp() / (a + tail) / std::f64::consts::PI.sqrt()
        };
        y.copysign(x)
    }

    /// Every `stride`th of all numbers below `bound` in size: the largest error in ulp, and where.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, bound: f32, stride: usize) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for bits in (0..=u32::MAX).step_by(stride) {
            let x = f32::from_bits(bits);
            if x.abs() >= bound {
                continue;
            }
            let (y, e) = (f(x), exact(f64::from(x)));
            if (y.is_nan() && e.is_nan()) || y == e as f32 {
                continue;
            }
            // The distance of numbers near e.
            let exponent = ((e.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(-126);
            let error = (f64::from(y) - e).abs() / 2f64.powi(exponent - 23);
            if error.is_nan() || error > worst.0 {
                worst = (if error.is_nan() { f64::INFINITY } else { error }, x);
            }
        }
        worst
    }

    fn check(stride: usize) {
        type Function = (&'static str, [fn(f32) -> f32; 2], fn(f64) -> f64, f32, [f64; 2]);
        let all = f32::INFINITY;
        let functions: [Function; 9] = [
            ("exp", [exp::<true>, exp::<false>], f64::exp, all, [1.1, 1.3]),
            ("expm1", [expm1::<true>, expm1::<false>], f64::exp_m1, all, [1.1, 1.3]),
            ("log", [log::<true>, log::<false>], f64::ln, all, [0.9, 1.3]),
            ("log1p", [log1p::<true>, log1p::<false>], f64::ln_1p, all, [0.9, 1.3]),
            ("tanh", [tanh::<true>, tanh::<false>], f64::tanh, all, [1.6, 1.6]),
            ("sigmoid", [sigmoid::<true>, sigmoid::<false>], |x| 1.0 / (1.0 + (-x).exp()), all, [2.5, 2.5]),
            ("erf", [erf::<true>, erf::<false>], erf64, all, [1.1, 1.4]),
            ("sin", [sin::<true>, sin::<false>], f64::sin, TURNS, [1.6, 2.0]),
            ("cos", [cos::<true>, cos::<false>], f64::cos, TURNS, [1.6, 2.0]),
        ];
        for (name, fs, exact, bound, allowed) in functions {
            for (f, allowed) in fs.into_iter().zip(allowed) {
                let (error, at) = worst(f, exact, bound, stride);
                println!("{name}: {error:.3} ulp at {at:e}");
                assert!(error <= allowed, "{name} is {error} ulp off at {at:e}");
            }
        }
    }

    #[test]
    fn functions_are_as_accurate_as_stated() {
        check(8191);
    }

    #[test]
    #[ignore = "takes minutes: every number there is"]
    fn functions_are_as_accurate_as_stated_everywhere() {
        check(1);
    }

    #[test]
    fn special_values() {
        fn check<const FUSED: bool>() {
            let inf = f32::INFINITY;
            assert_eq!((exp::<FUSED>(-inf), exp::<FUSED>(inf), exp::<FUSED>(0.0)), (0.0, inf, 1.0));
            for x in [-inf, -1e30, -88.5, -87.0, -1.5, 0.0, 88.0] {
                let exact = if x < -87.5 { 0.0 } else { exp::<FUSED>(x) };
                assert_eq!(exp_flushed::<FUSED>(x), exact);
            }
            assert_eq!((log::<FUSED>(0.0), log::<FUSED>(-0.0), log::<FUSED>(inf)), (-inf, -inf, inf));
            assert!(log::<FUSED>(-1.0).is_nan() && log::<FUSED>(-inf).is_nan() && log1p::<FUSED>(-1.1).is_nan());
            assert_eq!((expm1::<FUSED>(-inf), expm1::<FUSED>(inf), expm1::<FUSED>(1e-40)), (-1.0, inf, 1e-40));
            assert_eq!((log1p::<FUSED>(-1.0), log1p::<FUSED>(inf), log1p::<FUSED>(1e-40)), (-inf, inf, 1e-40));
            assert_eq!((tanh::<FUSED>(inf), tanh::<FUSED>(-inf), erf::<FUSED>(inf)), (1.0, -1.0, 1.0));
            assert_eq!((sigmoid::<FUSED>(inf), sigmoid::<FUSED>(-inf), erf::<FUSED>(-inf)), (1.0, 0.0, -1.0));
            for f in [expm1::<FUSED>, log1p::<FUSED>, tanh::<FUSED>, erf::<FUSED>, sin::<FUSED>] {
                assert_eq!(f(-0.0).to_bits(), (-0f32).to_bits());
            }
            for f in [exp::<FUSED>, expm1::<FUSED>, log::<FUSED>, log1p::<FUSED>, tanh::<FUSED>, sigmoid::<FUSED>] {
                assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan());
            }
            for f in [erf::<FUSED>, sin::<FUSED>, cos::<FUSED>, exp_flushed::<FUSED>] {
                assert!(f(f32::NAN).is_nan());
            }
        }
        check::<true>();
        check::<false>();
    }
}
