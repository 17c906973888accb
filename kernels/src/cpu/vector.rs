//! Vectors of `f32` behind one trait, for kernels that must say what stays in registers.
//!
//! Most kernels are plain loops that [`dispatch!`](crate::dispatch) compiles once per level. A
//! tile of a matrix product has to hold two dozen vectors in registers, which the compiler finds
//! by itself only on good days; such a kernel is written once over [`Vector`], marked
//! `#[inline(always)]`, and instantiated per level by `at_level!`.
//!
//! `load` and `splat` are the only ways to a vector and promise that the processor has the
//! instructions; what follows from a vector is therefore safe.

#![allow(clippy::excessive_precision)] // coefficients as published

/// A vector of [`LANES`](Vector::LANES) values in one register.
pub(crate) trait Vector: Copy {
    /// Values in a vector.
    const LANES: usize;
    /// Rows of a product's tile of two vectors, a multiple of 3: its sums fill three quarters of
    /// the registers.
    const ROWS: usize;
    /// Whether there are 32 registers, with such tiles. Branches on it are taken by the compiler,
    /// unoptimised builds included: what they leave out is not compiled.
    const WIDE: bool = Self::ROWS == 12;

    /// # Safety
    /// The processor has the vector's instructions, as for `load`.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// The processor has the vector's instructions, and `LANES` values can be read at `p`.
    unsafe fn load(p: *const f32) -> Self;
    /// # Safety
    /// `LANES` values can be written at `p`.
    unsafe fn store(self, p: *mut f32);
    /// `self * b + c`, rounded once where the processor can.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `c - self * b`, as [`fma`](Vector::fma).
    fn nfma(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// The larger; `b` where one is not a number.
    fn max(self, b: Self) -> Self;
    /// `fma` of single values.
    fn one(a: f32, b: f32, c: f32) -> f32;
    /// 2 to the whole number that the lowest bits of `self`, near 1.5 * 2^23, stand for.
    fn power(self) -> Self;
    /// `self`, but 0 where `x < bound`.
    fn unless_below(self, x: Self, bound: Self) -> Self;
    /// The sum of all values, halves first.
    fn sum(self) -> f32;
    /// The largest value that is a number.
    fn largest(self) -> f32;
    /// The sums of four vectors.
    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        [four[0].sum(), four[1].sum(), four[2].sum(), four[3].sum()]
    }

    /// e^x for `x <= 88`, within 2 ulp; 0 below the least normal number. As `math::exp`.
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: `self` exists, so the instructions do.
        let c = |x: f32| unsafe { Self::splat(x) };
        let round = c(12_582_912.0);
        let x = c(-87.336_55).max(self);
        let shifted = x.fma(c(std::f32::consts::LOG2_E), round);
        let n = shifted.sub(round);
        let r = n.fma(c(-0.693_359_4), x);
        let r = n.fma(c(2.121_944_4e-4), r);
        let mut p = c(1.987_569_1e-4);
        p = p.fma(r, c(1.398_199_9e-3));
        p = p.fma(r, c(8.333_452e-3));
        p = p.fma(r, c(4.166_579_6e-2));
        p = p.fma(r, c(1.666_666_5e-1));
        p = p.fma(r, c(5.000_000_1e-1));
        let y = p.mul(r).fma(r, r).add(c(1.0));
        y.mul(shifted.power()).unless_below(self, c(-87.336_55))
    }
}

/// Four values, for processors that the compiler knows best.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Plain {
    #[inline(always)]
    fn each(f: impl Fn(usize) -> f32) -> Plain {
        Plain([f(0), f(1), f(2), f(3)])
    }
}

impl Vector for Plain {
    const LANES: usize = 4;
    const ROWS: usize = 6;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: by the caller's promise; the read is unaligned.
        Plain(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: by the caller's promise; the write is unaligned.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // Without the instruction a fused multiply-add is a call of the library.
        Plain::each(|i| Self::one(self.0[i], b.0[i], c.0[i]))
    }
    #[inline(always)]
    fn nfma(self, b: Self, c: Self) -> Self {
        Plain::each(|i| Self::one(-self.0[i], b.0[i], c.0[i]))
    }
    #[inline(always)]
    fn one(a: f32, b: f32, c: f32) -> f32 {
        const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Plain::each(|i| self.0[i] + b.0[i])
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Plain::each(|i| self.0[i] - b.0[i])
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Plain::each(|i| self.0[i] * b.0[i])
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Plain::each(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    fn power(self) -> Self {
        Plain::each(|i| f32::from_bits(self.0[i].to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn unless_below(self, x: Self, bound: Self) -> Self {
        Plain::each(|i| if x.0[i] < bound.0[i] { 0.0 } else { self.0[i] })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// Sixteen values.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);
    /// Eight values.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    impl Vector for Avx512 {
        const LANES: usize = 16;
        const ROWS: usize = 12;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: by the caller's promise.
            Avx512(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: by the caller's promise.
            Avx512(unsafe { _mm512_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: by the caller's promise; a vector exists, so the instructions do.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: a vector exists, so the instructions do; so below.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn nfma(self, b: Self, c: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_fnmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_sub_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_mul_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn max(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_max_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn one(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        #[inline(always)]
        fn power(self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe {
                let n = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
            })
        }
        #[inline(always)]
        fn unless_below(self, x: Self, bound: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx512(unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, bound.0), self.0) })
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            halved(self).sum()
        }
        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: as in `fma`.
            unsafe {
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
                Avx2(_mm256_max_ps(_mm512_castps512_ps256(self.0), high)).largest()
            }
        }
        #[inline(always)]
        fn sums(four: [Self; 4]) -> [f32; 4] {
            Avx2::sums([halved(four[0]), halved(four[1]), halved(four[2]), halved(four[3])])
        }
    }

    /// The lower half plus the upper.
    #[inline(always)]
    fn halved(x: Avx512) -> Avx2 {
        // SAFETY: as in `fma`.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x.0)));
            Avx2(_mm256_add_ps(_mm512_castps512_ps256(x.0), high))
        }
    }

    impl Vector for Avx2 {
        const LANES: usize = 8;
        const ROWS: usize = 6;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: by the caller's promise.
            Avx2(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: by the caller's promise.
            Avx2(unsafe { _mm256_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: by the caller's promise; a vector exists, so the instructions do.
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: a vector exists, so the instructions do; so below.
            Avx2(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn nfma(self, b: Self, c: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_fnmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn sub(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_sub_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_mul_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn max(self, b: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_max_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn one(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        #[inline(always)]
        fn power(self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe {
                let n = _mm256_add_epi32(_mm256_castps_si256(self.0), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            })
        }
        #[inline(always)]
        fn unless_below(self, x: Self, bound: Self) -> Self {
            // SAFETY: as in `fma`.
            Avx2(unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x.0, bound.0), self.0) })
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: as in `fma`.
            unsafe {
                let x = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: as in `fma`.
            unsafe {
                let x = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
            }
        }
        #[inline(always)]
        fn sums(four: [Self; 4]) -> [f32; 4] {
            let [a, b, c, d] = four;
            let mut sums = [0.0; 4];
            // SAFETY: as in `fma`; there is room for four values.
            unsafe {
                let x = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                _mm_storeu_ps(sums.as_mut_ptr(), x);
            }
            sums
        }
    }
}

/// Defines a function that runs `body`, an `#[inline(always)]` function generic over a
/// [`Vector`] (and constants, named after it), at a [`Level`](super::simd::Level), its first
/// argument. The body is `unsafe` because it makes vectors.
macro_rules! at_level {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident $([const $($c:ident),*])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$(const $c: usize),*>)? (level: $crate::cpu::simd::Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx2 $(<$(const $c: usize),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: by the caller's promise.
                    unsafe { $body::<$crate::cpu::vector::Avx2 $($(, $c)*)?>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx512 $(<$(const $c: usize),*>)? ($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: by the caller's promise.
                    unsafe { $body::<$crate::cpu::vector::Avx512 $($(, $c)*)?>($($arg),*) }
                }
                match level {
                    // SAFETY: by the caller's promise, the processor's level too.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512 $(::<$($c),*>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2 $(::<$($c),*>)? ($($arg),*) },
                    _ => {}
                }
            }
            let _ = level;
            // SAFETY: by the caller's promise.
            unsafe { $body::<$crate::cpu::vector::Plain $($(, $c)*)?>($($arg),*) }
        }
    };
}

pub(crate) use at_level;

/// The shape of a level's vectors, for callers that lay out memory for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Values in a vector.
    pub lanes: usize,
    /// Rows of a tile of two vectors.
    pub rows: usize,
}

impl Shape {
    pub(crate) fn of(level: super::simd::Level) -> Shape {
        fn shape<V: Vector>() -> Shape {
            Shape { lanes: V::LANES, rows: V::ROWS }
        }
        match level {
            #[cfg(target_arch = "x86_64")]
            super::simd::Level::Avx512 => shape::<Avx512>(),
            #[cfg(target_arch = "x86_64")]
            super::simd::Level::Avx2 => shape::<Avx2>(),
            _ => shape::<Plain>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Level;

    #[inline(always)]
    unsafe fn body<V: Vector>(x: &[f32], y: &mut [f32]) -> [f32; 2] {
        assert!(x.len() == y.len() && x.len().is_multiple_of(V::LANES));
        let mut both = [0.0, f32::NEG_INFINITY];
        for i in (0..x.len()).step_by(V::LANES) {
            // SAFETY: whole vectors, in bounds.
            unsafe {
                let v = V::load(x.as_ptr().add(i));
                v.exp().store(y.as_mut_ptr().add(i));
                both[0] += v.sum();
                both[1] = both[1].max(v.largest());
            }
        }
        both
    }
    at_level! { unsafe fn exps(x: &[f32], y: &mut [f32]) -> [f32; 2] = body; }

    #[test]
    fn every_level_computes_exp_sum_and_largest() {
        let x: Vec<f32> = (0..4096).map(|i| (i as f32 - 2900.0) * 0.03).collect();
        let odd = [f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, -87.0, -88.0, -1e30, 1e-30];
        for level in crate::cpu::simd::levels() {
            let mut y = vec![0.0; x.len()];
            // SAFETY: the processor has the level.
            let [sum, largest] = unsafe { exps(level, &x, &mut y) };
            let want: f64 = x.iter().map(|x| *x as f64).sum();
            assert!((sum as f64 - want).abs() < 1e-5 * want.abs() && largest == x[4095], "{level:?}");
            for (x, y) in x.iter().zip(&y) {
                let want = (*x as f64).exp();
                let want = if *x < -87.336_55 { 0.0 } else { want };
                assert!((*y as f64 - want).abs() <= 2.5e-7 * want, "{level:?}: exp {x} is not {y}");
            }
            let mut given = [odd, odd].concat();
            given.rotate_left(3);
            let mut y = vec![0.0; 16];
            // SAFETY: as above.
            unsafe { exps(level, &given, &mut y) };
            for (x, y) in given.iter().zip(&y) {
                let want = if *x < -87.4 { 0.0 } else { x.exp() };
                assert!(y.is_nan() == x.is_nan() && (x.is_nan() || (y - want).abs() <= 2.5e-7 * want), "exp {x}: {y}");
            }
            assert_eq!(Shape::of(level).lanes % 4, 0);
        }
        assert!(crate::cpu::simd::levels().any(|l| l == Level::Base));
    }
}
