//! Sixteen output channels in registers: what the kernels need of an instruction set.
//!
//! One AVX-512 register, two of AVX2, or an array. The kernels are written once over [`Lanes`]
//! and compiled for each; every method is inlined into a function that enables the instructions.
//!
//! `dot` multiplies *unsigned* weights with *signed* activations, as `vpdpbusd` does, so signed
//! weights are stored with 128 (nibbles with 8) added; the sum of the activations times that
//! offset is where the accumulator starts.

use super::half::{from_bf16, from_f16};

/// Sixteen lanes of `f32`, of `i32`, and of four `u8`.
///
/// # Safety
/// Every method needs the instructions of its implementation, and pointers to as many values as
/// its description says, at any alignment.
pub(super) trait Lanes {
    type F: Copy;
    type I: Copy;
    type W: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// 16 values.
    unsafe fn load(p: *const f32) -> Self::F;
    /// To 16 values.
    unsafe fn store(p: *mut f32, x: Self::F);
    /// 16 pairs of bf16: all first ones, all second ones.
    unsafe fn bf16(p: *const u8) -> (Self::F, Self::F);
    /// 16 f16.
    unsafe fn f16(p: *const u8) -> Self::F;
    unsafe fn whole(x: i32) -> Self::I;
    unsafe fn sum(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn float(x: Self::I) -> Self::F;
    /// 64 bytes.
    unsafe fn bytes(p: *const u8) -> Self::W;
    /// The low and the high halves of 64 bytes.
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W);
    /// The same, the high halves times sixteen: cheaper.
    unsafe fn nibbles_in_place(p: *const u8) -> (Self::W, Self::W);
    /// Multiples of sixteen, divided by it.
    unsafe fn sixteenth(x: Self::I) -> Self::I;
    /// 64 bytes, each less `zero`.
    unsafe fn less(w: Self::W, zero: i8) -> Self::W;
    /// Byte `i` of each lane's four, a signed number.
    unsafe fn byte(w: Self::W, i: usize) -> Self::F;
    /// Each lane: the sum of its four weights times the four signed bytes of `a`, added to `c`.
    unsafe fn dot(c: Self::I, w: Self::W, a: i32) -> Self::I;
}

/// Arrays, for any processor.
pub(super) struct Portable;

impl Lanes for Portable {
    type F = [f32; 16];
    type I = [i32; 16];
    type W = [u8; 64];

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], mut c: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            c[i] += a[i] * b[i];
        }
        c
    }
    #[inline(always)]
    unsafe fn mul(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            a[i] *= b[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn add(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: by the caller's promise.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: [f32; 16]) {
        // SAFETY: by the caller's promise.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn bf16(p: *const u8) -> ([f32; 16], [f32; 16]) {
        // SAFETY: by the caller's promise.
        let pairs = unsafe { p.cast::<[[[u8; 2]; 2]; 16]>().read_unaligned() };
        (pairs.map(|p| from_bf16(u16::from_le_bytes(p[0]))), pairs.map(|p| from_bf16(u16::from_le_bytes(p[1]))))
    }
    #[inline(always)]
    unsafe fn f16(p: *const u8) -> [f32; 16] {
        // SAFETY: by the caller's promise.
        let halves = unsafe { p.cast::<[[u8; 2]; 16]>().read_unaligned() };
        halves.map(|h| from_f16(u16::from_le_bytes(h)))
    }
    #[inline(always)]
    unsafe fn whole(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn sum(mut a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn float(x: [i32; 16]) -> [f32; 16] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> [u8; 64] {
        // SAFETY: by the caller's promise.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> ([u8; 64], [u8; 64]) {
        // SAFETY: by the caller's promise.
        let bytes = unsafe { Self::bytes(p) };
        (bytes.map(|b| b & 15), bytes.map(|b| b >> 4))
    }
    #[inline(always)]
    unsafe fn nibbles_in_place(p: *const u8) -> ([u8; 64], [u8; 64]) {
        // SAFETY: by the caller's promise.
        let bytes = unsafe { Self::bytes(p) };
        (bytes.map(|b| b & 15), bytes.map(|b| b & 240))
    }
    #[inline(always)]
    unsafe fn sixteenth(x: [i32; 16]) -> [i32; 16] {
        x.map(|x| x >> 4)
    }
    #[inline(always)]
    unsafe fn less(w: [u8; 64], zero: i8) -> [u8; 64] {
        w.map(|w| w.wrapping_sub(zero as u8))
    }
    #[inline(always)]
    unsafe fn byte(w: [u8; 64], i: usize) -> [f32; 16] {
        std::array::from_fn(|lane| w[4 * lane + i] as i8 as f32)
    }
    #[inline(always)]
    unsafe fn dot(mut c: [i32; 16], w: [u8; 64], a: i32) -> [i32; 16] {
        let a = a.to_le_bytes();
        for i in 0..16 {
            for j in 0..4 {
                c[i] += w[4 * i + j] as i32 * (a[j] as i8) as i32;
            }
        }
        c
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// AVX-512 F, BW, DQ, VL and VNNI.
    pub(in super::super) struct Avx512;

    // SAFETY (all methods): the trait's callers have the instructions, and pointers that reach.
    impl Lanes for Avx512 {
        type F = __m512;
        type I = __m512i;
        type W = __m512i;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m512) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn bf16(p: *const u8) -> (__m512, __m512) {
            // SAFETY: see above.
            unsafe {
                let pairs = _mm512_loadu_si512(p.cast());
                let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000u32.cast_signed()));
                (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
            }
        }
        #[inline(always)]
        unsafe fn f16(p: *const u8) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn whole(x: i32) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn sum(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn float(x: __m512i) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtepi32_ps(x) }
        }
        #[inline(always)]
        unsafe fn bytes(p: *const u8) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn nibbles(p: *const u8) -> (__m512i, __m512i) {
            // SAFETY: see above.
            unsafe {
                let (both, mask) = (_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(15));
                (_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask))
            }
        }
        #[inline(always)]
        unsafe fn nibbles_in_place(p: *const u8) -> (__m512i, __m512i) {
            // SAFETY: see above.
            unsafe {
                let (both, mask) = (_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(15));
                (_mm512_and_si512(both, mask), _mm512_andnot_si512(mask, both))
            }
        }
        #[inline(always)]
        unsafe fn sixteenth(x: __m512i) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_srai_epi32::<4>(x) }
        }
        #[inline(always)]
        unsafe fn less(w: __m512i, zero: i8) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_sub_epi8(w, _mm512_set1_epi8(zero)) }
        }
        #[inline(always)]
        unsafe fn byte(w: __m512i, i: usize) -> __m512 {
            // SAFETY: see above.
            unsafe {
                let top = match i {
                    0 => _mm512_slli_epi32::<24>(w),
                    1 => _mm512_slli_epi32::<16>(w),
                    2 => _mm512_slli_epi32::<8>(w),
                    _ => w,
                };
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
            }
        }
        #[inline(always)]
        unsafe fn dot(c: __m512i, w: __m512i, a: i32) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_dpbusd_epi32(c, w, _mm512_set1_epi32(a)) }
        }
    }

    /// AVX2, FMA and F16C; two registers for sixteen lanes.
    pub(in super::super) struct Avx2;

    // SAFETY (all methods): the trait's callers have the instructions, and pointers that reach.
    impl Lanes for Avx2 {
        type F = [__m256; 2];
        type I = [__m256i; 2];
        type W = [__m256i; 2];

        #[inline(always)]
        unsafe fn splat(x: f32) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_set1_ps(x); 2] }
        }
        #[inline(always)]
        unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
        #[inline(always)]
        unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: [__m256; 2]) {
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(p, x[0]);
                _mm256_storeu_ps(p.add(8), x[1]);
            }
        }
        #[inline(always)]
        unsafe fn bf16(p: *const u8) -> ([__m256; 2], [__m256; 2]) {
            // SAFETY: see above.
            unsafe {
                let [x, y] = Self::bytes(p);
                let upper = _mm256_set1_epi32(0xffff_0000u32.cast_signed());
                let (x0, y0) = (_mm256_slli_epi32::<16>(x), _mm256_slli_epi32::<16>(y));
                let (x1, y1) = (_mm256_and_si256(x, upper), _mm256_and_si256(y, upper));
                ([_mm256_castsi256_ps(x0), _mm256_castsi256_ps(y0)], [_mm256_castsi256_ps(x1), _mm256_castsi256_ps(y1)])
            }
        }
        #[inline(always)]
        unsafe fn f16(p: *const u8) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(16).cast()))] }
        }
        #[inline(always)]
        unsafe fn whole(x: i32) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_set1_epi32(x); 2] }
        }
        #[inline(always)]
        unsafe fn sum(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn float(x: [__m256i; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
        }
        #[inline(always)]
        unsafe fn bytes(p: *const u8) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
        }
        #[inline(always)]
        unsafe fn nibbles(p: *const u8) -> ([__m256i; 2], [__m256i; 2]) {
            // SAFETY: see above.
            unsafe {
                let ([x, y], mask) = (Self::bytes(p), _mm256_set1_epi8(15));
                let (x_high, y_high) = (_mm256_srli_epi16::<4>(x), _mm256_srli_epi16::<4>(y));
                (
                    [_mm256_and_si256(x, mask), _mm256_and_si256(y, mask)],
                    [_mm256_and_si256(x_high, mask), _mm256_and_si256(y_high, mask)],
                )
            }
        }
        #[inline(always)]
        unsafe fn nibbles_in_place(p: *const u8) -> ([__m256i; 2], [__m256i; 2]) {
            // SAFETY: see above.
            unsafe {
                let ([x, y], mask) = (Self::bytes(p), _mm256_set1_epi8(15));
                (
                    [_mm256_and_si256(x, mask), _mm256_and_si256(y, mask)],
                    [_mm256_andnot_si256(mask, x), _mm256_andnot_si256(mask, y)],
                )
            }
        }
        #[inline(always)]
        unsafe fn sixteenth(x: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_srai_epi32::<4>(x[0]), _mm256_srai_epi32::<4>(x[1])] }
        }
        #[inline(always)]
        unsafe fn less(w: [__m256i; 2], zero: i8) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe {
                let zero = _mm256_set1_epi8(zero);
                [_mm256_sub_epi8(w[0], zero), _mm256_sub_epi8(w[1], zero)]
            }
        }
        #[inline(always)]
        unsafe fn byte(w: [__m256i; 2], i: usize) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe {
                let left = _mm_cvtsi32_si128(24 - 8 * i as i32);
                let one = |w| _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(_mm256_sll_epi32(w, left)));
                [one(w[0]), one(w[1])]
            }
        }
        /// `vpmaddubsw` saturates, so even and odd bytes are multiplied as 16-bit numbers.
        #[inline(always)]
        unsafe fn dot(c: [__m256i; 2], w: [__m256i; 2], a: i32) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe {
                let a = _mm256_set1_epi32(a);
                let (even, odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a)), _mm256_srai_epi16::<8>(a));
                let mut sum = c;
                for i in 0..2 {
                    let low = _mm256_madd_epi16(_mm256_and_si256(w[i], _mm256_set1_epi16(255)), even);
                    let high = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[i]), odd);
                    sum[i] = _mm256_add_epi32(_mm256_add_epi32(c[i], low), high);
                }
                sum
            }
        }
    }
}
