//! Dispatch by what the processor offers.
//!
//! A kernel's body is written once as plain Rust that vectorises, marked `#[inline(always)]`,
//! and compiled once per level with the instructions enabled (in builds without debug assertions). `MOBILIS_SIMD` (`base`, `avx2`,
//! `avx512`) forces a level that the processor has.

use std::sync::OnceLock;

/// Instruction sets, from small to large.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// What the compilation target guarantees.
    Base,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// The level in use.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = detect();
        match std::env::var("MOBILIS_SIMD").as_deref() {
            Ok("base") => Level::Base,
            Ok("avx2") => best.min(Level::Avx2),
            _ => best,
        }
    })
}

#[cfg(target_arch = "x86_64")]
pub(super) fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Base,
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn detect() -> Level {
    Level::Base
}

/// All levels that the processor has, from small to large: tests run each.
#[cfg(test)]
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    [Level::Base, Level::Avx2, Level::Avx512].into_iter().filter(|l| *l <= detect())
}

/// Whether the least processor of this build multiplies and adds in one instruction.
pub const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// Defines a function that runs `body`, an `#[inline(always)]` function of the same signature,
/// compiled for the level in use.
///
/// With `= fused body`, the body has one parameter `const FUSED: bool`: whether the level multiplies
/// and adds in one instruction, as the functions of [`math`](crate::cpu::math) ask.
///
/// ```
/// mod kernel {
///     #[inline(always)]
///     fn double_body(x: &mut [f32]) {
///         x.iter_mut().for_each(|v| *v *= 2.0);
///     }
///     mobilis_kernels::dispatch! { pub fn double(x: &mut [f32]) = double_body; }
/// }
/// let mut x = [1.0, 2.0];
/// kernel::double(&mut x);
/// assert_eq!(x, [2.0, 4.0]);
/// ```
#[macro_export]
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$life:lifetime>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = fused $body:ident;) => {
        $crate::dispatch! {
            @levels [$body::<{ $crate::cpu::simd::FUSED }>] [$body::<true>]
            $(#[$meta])* $vis fn $name $(<$life>)? ($($arg: $ty),*) $(-> $ret)?
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$life:lifetime>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $crate::dispatch! {
            @levels [$body] [$body]
            $(#[$meta])* $vis fn $name $(<$life>)? ($($arg: $ty),*) $(-> $ret)?
        }
    };
    (@levels [$base:expr] [$fused:expr]
        $(#[$meta:meta])* $vis:vis fn $name:ident $(<$life:lifetime>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$life>)? ($($arg: $ty),*) $(-> $ret)? {
            // Without optimisation the copies are no faster, and cost compile time.
            #[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$life>)? ($($arg: $ty),*) $(-> $ret)? {
                    $fused($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$life>)? ($($arg: $ty),*) $(-> $ret)? {
                    $fused($($arg),*)
                }
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` is at most what the processor was found to have.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::simd::Level::Base => {}
                }
            }
            $base($($arg),*)
        }
    };
}
