//! Branch-free elementary functions in `f32` that vectorise when inlined into a loop.
//!
//! Errors against `f64`, over the ranges that the tests sweep: `exp` 2 ulp, `log` 2 ulp, `tanh` and `sigmoid`
//! 4 ulp, `erf` 4 ulp relative to 1, `sin` and `cos` 1e-6 absolute for |x| < 8192 (callers use the library's
//! beyond). All handle infinities and NaN.

#![allow(clippy::excessive_precision)] // coefficients as published

/// `a * b + c`, fused where the processor can (the library call would be slow where it cannot).
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a * b + c
}

/// `if c { a } else { b }` without a branch: a branch would keep a loop from vectorising.
#[inline(always)]
fn pick(c: bool, a: f32, b: f32) -> f32 {
    let mask = 0u32.wrapping_sub(c as u32);
    f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
}

/// Adding this rounds a small number to a whole one in its lowest bits (1.5 * 2^23).
const ROUND: f32 = 12_582_912.0;

/// The nearest whole number of a small `x`, as number and as integer. A cast would saturate,
/// which costs more than the rest.
#[inline(always)]
fn nearest(x: f32) -> (f32, i32) {
    let shifted = x + ROUND;
    (shifted - ROUND, (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// e^x. Cephes' polynomial after reduction by ln 2 in two parts.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.5, 88.75);
    let (n, power) = nearest(clamped * std::f32::consts::LOG2_E);
    let r = fma(n, -0.693_359_4, clamped);
    let r = fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = fma(p, r, 1.398_199_9e-3);
    p = fma(p, r, 8.333_452e-3);
    p = fma(p, r, 4.166_579_6e-2);
    p = fma(p, r, 1.666_666_5e-1);
    p = fma(p, r, 5.000_000_1e-1);
    let y = fma(p * r, r, r) + 1.0;
    // 2^n in two factors, so that neither leaves the range of normal numbers.
    let half = power >> 1;
    let scale = |k: i32| f32::from_bits((k.wrapping_add(127) << 23) as u32);
    let y = y * scale(half) * scale(power.wrapping_sub(half));
    let y = pick(x > 88.722_84, f32::INFINITY, y);
    let y = pick(x < -87.336_55, 0.0, y);
    pick(x.is_nan(), x, y)
}

/// Natural logarithm. Cephes' polynomial on [sqrt(1/2), sqrt(2)).
#[inline(always)]
pub fn log(x: f32) -> f32 {
    // Denormals are scaled up first.
    let small = x < f32::MIN_POSITIVE;
    let v = if small { x * 8_388_608.0 } else { x };
    let bits = v.to_bits() as i32;
    let e = ((bits >> 23) - 126) as f32 - if small { 23.0 } else { 0.0 };
    let m = f32::from_bits(((bits & 0x007f_ffff) | 0x3f00_0000) as u32);
    let low = m < std::f32::consts::FRAC_1_SQRT_2;
    let e = if low { e - 1.0 } else { e };
    let f = if low { m + m - 1.0 } else { m - 1.0 };
    let z = f * f;
    let mut p = 7.037_683_6e-2;
    p = fma(p, f, -1.151_461e-1);
    p = fma(p, f, 1.167_699_9e-1);
    p = fma(p, f, -1.242_014_1e-1);
    p = fma(p, f, 1.424_932_3e-1);
    p = fma(p, f, -1.666_805_8e-1);
    p = fma(p, f, 2.000_071_5e-1);
    p = fma(p, f, -2.499_999_4e-1);
    p = fma(p, f, 3.333_333_1e-1);
    let mut y = p * f * z;
    y = fma(e, -2.121_944_4e-4, y);
    y = fma(z, -0.5, y);
    let y = f + y;
    let y = fma(e, 0.693_359_4, y);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// `e^x - 1`, exact near 0 (Kahan: the error of the exponential cancels against its logarithm).
#[inline(always)]
pub fn expm1(x: f32) -> f32 {
    let u = exp(x);
    let less = u - 1.0;
    let y = less * (x / log(u));
    let y = if u == 1.0 { x } else { y };
    // Far out the subtraction loses nothing, and the quotient is not finite.
    if (-16.0..80.0).contains(&x) { y } else { less }
}

/// `log(1 + x)`, exact near 0 (Kahan: what rounding `1 + x` loses is put back as a factor).
#[inline(always)]
pub fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let kept = u - 1.0;
    let y = log(u) * (x / kept);
    let y = if kept == 0.0 { x } else { y };
    if x == f32::INFINITY { x } else { y }
}

/// Hyperbolic tangent: a polynomial near 0, `1 - 2 / (e^2x + 1)` beyond.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = fma(p, z, 2.063_908_9e-2);
    p = fma(p, z, -5.373_971_6e-2);
    p = fma(p, z, 1.333_144_2e-1);
    p = fma(p, z, -3.333_328_2e-1);
    let near = fma(p * z, x, x);
    let far = (1.0 - 2.0 / (exp(2.0 * a) + 1.0)).copysign(x);
    pick(x.is_nan(), x, pick(a < 0.625, near, far))
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function: Abramowitz and Stegun 7.1.26 is too coarse, so a Taylor-like polynomial
/// near 0 and `1 - exp(-x^2) P(1/(1 + 0.5 |x|))` beyond (Numerical Recipes, `erfc`).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = 7.853_861_4e-5;
    p = fma(p, z, -8.010_194e-4);
    p = fma(p, z, 5.188_327_3e-3);
    p = fma(p, z, -2.685_381_2e-2);
    p = fma(p, z, 1.128_358_6e-1);
    p = fma(p, z, -3.761_262e-1);
    p = fma(p, z, std::f32::consts::FRAC_2_SQRT_PI);
    let near = p * x;
    let t = 1.0 / (1.0 + 0.5 * a);
    let mut q = 0.170_872_77;
    q = fma(q, t, -0.822_152_2);
    q = fma(q, t, 1.488_515_9);
    q = fma(q, t, -1.135_203_98);
    q = fma(q, t, 0.278_868_07);
    q = fma(q, t, -0.186_288_06);
    q = fma(q, t, 0.096_784_18);
    q = fma(q, t, 0.374_091_96);
    q = fma(q, t, 1.000_023_68);
    q = fma(q, t, -1.265_512_23);
    let far = (1.0 - t * exp(q - z)).copysign(x);
    pick(x.is_nan(), x, pick(a < 1.0, near, far))
}

/// Sine and cosine after reduction by pi/2 in three parts; accurate for |x| < 8192.
#[inline(always)]
fn sin_cos_core(x: f32, shift: i32) -> f32 {
    let (n, turns) = nearest(x * std::f32::consts::FRAC_2_PI);
    let r = fma(n, -1.570_312_5, x);
    let r = fma(n, -4.837_512_9e-4, r);
    let r = fma(n, -7.549_79e-8, r);
    let quadrant = turns.wrapping_add(shift);
    let z = r * r;
    let mut s = -1.951_529_6e-4;
    s = fma(s, z, 8.332_161e-3);
    s = fma(s, z, -1.666_665_5e-1);
    let sine = fma(s * z, r, r);
    let mut c = 2.443_315_7e-5;
    c = fma(c, z, -1.388_731_6e-3);
    c = fma(c, z, 4.166_664_6e-2);
    let cosine = fma(c * z, z, fma(z, -0.5, 1.0));
    let y = pick(quadrant & 1 == 0, sine, cosine);
    pick(quadrant & 2 == 0, y, -y)
}

/// The size of arguments up to which [`sin`] and [`cos`] are accurate.
pub const TURNS: f32 = 8192.0;

/// Sine, for |x| below [`TURNS`].
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    sin_cos_core(x, 0)
}

/// Cosine, for |x| below [`TURNS`].
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    sin_cos_core(x, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(name: &str, f: fn(f32) -> f32, exact: fn(f64) -> f64, low: f32, high: f32, relative: f64, absolute: f64) {
        let n = 200_000;
        for i in 0..=n {
            let x = low + (high - low) * i as f32 / n as f32;
            let (y, e) = (f(x) as f64, exact(x as f64));
            let allowed = relative * e.abs() + absolute;
            assert!((y - e).abs() <= allowed, "{name}({x}) = {y}, expected {e}");
        }
    }

    const ULP: f64 = 1.2e-7;

    #[test]
    fn functions_are_as_accurate_as_stated() {
        sweep("exp", exp, f64::exp, -87.0, 88.7, 2.0 * ULP, 0.0);
        sweep("log", log, f64::ln, 1e-3, 100.0, 2.0 * ULP, 1e-7);
        sweep("expm1", expm1, f64::exp_m1, -80.0, 80.0, 8.0 * ULP, 0.0);
        sweep("expm1", expm1, f64::exp_m1, -1e-2, 1e-2, 8.0 * ULP, 0.0);
        sweep("log1p", log1p, f64::ln_1p, -0.99, 100.0, 8.0 * ULP, 0.0);
        sweep("log1p", log1p, f64::ln_1p, -1e-2, 1e-2, 8.0 * ULP, 0.0);
        sweep("tanh", tanh, f64::tanh, -10.0, 10.0, 4.0 * ULP, 0.0);
        sweep("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, 4.0 * ULP, 0.0);
        sweep("sin", sin, f64::sin, -100.0, 100.0, 0.0, 1e-6);
        sweep("cos", cos, f64::cos, -100.0, 100.0, 0.0, 1e-6);
        sweep("sin", sin, f64::sin, 8000.0, TURNS, 0.0, 1e-6);
    }

    #[test]
    fn erf_matches_its_table() {
        // Abramowitz and Stegun, table 7.1.
        let table = [
            (0.0, 0.0),
            (0.1, 0.1124629160),
            (0.5, 0.5204998778),
            (1.0, 0.8427007929),
            (1.5, 0.9661051465),
            (2.0, 0.9953222650),
            (3.0, 0.9999779095),
        ];
        for (x, y) in table {
            assert!((erf(x) as f64 - y).abs() < 4.0 * ULP, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }

    #[test]
    fn special_values() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan());
        assert!((log(1e-40) as f64 - (1e-40f32 as f64).ln()).abs() < 1e-4);
        assert_eq!((expm1(f32::NEG_INFINITY), expm1(f32::INFINITY), expm1(1e-20)), (-1.0, f32::INFINITY, 1e-20));
        assert_eq!((log1p(-1.0), log1p(f32::INFINITY), log1p(1e-20)), (f32::NEG_INFINITY, f32::INFINITY, 1e-20));
        for f in [exp, expm1, log, log1p, tanh, sigmoid, erf, sin, cos] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!(tanh(100.0), 1.0);
        assert_eq!(erf(f32::NEG_INFINITY), -1.0);
    }
}
