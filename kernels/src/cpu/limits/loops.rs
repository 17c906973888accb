//! The loops that are timed: as many independent chains as hide an instruction's latency, all in
//! registers, so that nothing but the arithmetic units (or the loads) can be the limit.

use crate::cpu::simd::Level;
use std::hint::black_box;

/// Rounds of a run: some tens of microseconds.
pub(super) const ROUNDS: usize = 8192;

/// Defines a loop of `$chains` independent `$op(a, b, acc)` on registers.
macro_rules! chains {
    ($name:ident, $features:literal, $reg:ty, $chains:literal, $zero:expr, $a:expr, |$x:ident, $y:ident, $acc:ident| $op:expr) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) {
            use std::arch::x86_64::*;
            let ($x, $y) = (black_box($a), black_box($a));
            let mut all: [$reg; $chains] = [$zero; $chains];
            for _ in 0..rounds {
                for $acc in &mut all {
                    *$acc = $op;
                }
            }
            for acc in all {
                black_box(acc);
            }
        }
    };
}

chains!(fma_avx512, "avx512f", __m512, 16, _mm512_setzero_ps(), _mm512_set1_ps(0.5), |x, y, acc| {
    _mm512_fmadd_ps(x, y, *acc)
});
chains!(fma_avx2, "avx2,fma", __m256, 12, _mm256_setzero_ps(), _mm256_set1_ps(0.5), |x, y, acc| {
    _mm256_fmadd_ps(x, y, *acc)
});
chains!(dot_avx512, "avx512f,avx512vnni", __m512i, 16, _mm512_setzero_si512(), _mm512_set1_epi8(1), |x, y, acc| {
    _mm512_dpbusd_epi32(*acc, x, y)
});
chains!(dot_avx_vnni, "avx2,avxvnni", __m256i, 12, _mm256_setzero_si256(), _mm256_set1_epi8(1), |x, y, acc| {
    _mm256_dpbusd_avx_epi32(*acc, x, y)
});
// Without the instruction: products of bytes, summed in pairs and pairs of pairs.
chains!(dot_avx2, "avx2", __m256i, 10, _mm256_setzero_si256(), _mm256_set1_epi8(1), |x, y, acc| {
    _mm256_add_epi32(*acc, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(x, *acc), y), y))
});

/// Plain Rust: what the compilation target guarantees, four values a register.
fn fma_base(rounds: usize) {
    const LANES: usize = 4;
    const CHAINS: usize = 12;
    let (x, y) = (black_box([0.5f32; LANES]), black_box([0.5f32; LANES]));
    let mut all = [[0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for acc in &mut all {
            for i in 0..LANES {
                // Fused where the target has it; elsewhere a call of the C library is no measure.
                acc[i] = match cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                    true => x[i].mul_add(y[i], acc[i]),
                    // The product must change with the sum, or it is taken out of the loop.
                    false => acc[i] * x[i] + y[i],
                };
            }
        }
    }
    black_box(all);
}

/// Multiplies and adds in registers. Gives the floating-point operations of a run of [`ROUNDS`].
/// `level` is one that the processor has.
pub(super) fn fma(level: Level, rounds: usize) -> f64 {
    let a_round = match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: the caller's level is one that was detected.
            unsafe { fma_avx512(rounds) };
            16 * 16
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: as above.
            unsafe { fma_avx2(rounds) };
            12 * 8
        }
        _ => {
            fma_base(rounds);
            12 * 4
        }
    };
    (2 * a_round * ROUNDS) as f64
}

/// Dot products of bytes in registers. Gives the operations of a run of [`ROUNDS`], nothing where
/// the processor is not known to have instructions for it.
pub(super) fn dot(rounds: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let a_round = if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f") {
            // SAFETY: detected.
            unsafe { dot_avx512(rounds) };
            16 * 64
        } else if is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("avx2") {
            // SAFETY: detected.
            unsafe { dot_avx_vnni(rounds) };
            12 * 32
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: detected.
            unsafe { dot_avx2(rounds) };
            10 * 32
        } else {
            return None;
        };
        Some((2 * a_round * ROUNDS) as f64)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = rounds;
        None
    }
}

#[inline(always)]
fn read_body(words: &[u64], times: usize) {
    const WIDTH: usize = 64;
    let mut sums = [0u64; WIDTH];
    for _ in 0..times {
        for chunk in black_box(words).chunks_exact(WIDTH) {
            for i in 0..WIDTH {
                sums[i] ^= chunk[i];
            }
        }
    }
    black_box(sums);
}
crate::dispatch! {
    /// Reads all words some times over.
    pub(super) fn read(words: &[u64], times: usize) = read_body;
}
