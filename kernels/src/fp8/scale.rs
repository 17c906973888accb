//! The number that a group of values is multiplied by before it is rounded to eight bits, from the
//! greatest magnitude in the group.

use super::Fp8;

/// How a scale follows from the greatest magnitude `amax` of what it is for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    /// `max / amax`. Where `amax` is 0 or not finite the scale is 1; where the quotient exceeds
    /// every `f32` it is the greatest of them. (Transformer Engine's `compute_scale_from_amax`.)
    Exact {
        /// `amax` is at least this.
        epsilon: f32,
        /// Whether the scale is rounded down to a power of two, so that scaling changes no bit of a
        /// fraction.
        power_of_two: bool,
    },
    /// The reciprocal of `amax / max` rounded up to a power of two and stored in eight bits, as
    /// microscaling (MXFP8) has it. NaN where `amax` is.
    E8M0,
}

impl Scale {
    /// What values are multiplied by before they are rounded.
    #[inline(always)]
    pub fn of(self, format: Fp8, amax: f32) -> f32 {
        match self {
            Scale::Exact { epsilon, power_of_two } => {
                let amax = if amax < epsilon { epsilon } else { amax };
                if amax == 0.0 || !amax.is_finite() {
                    return 1.0;
                }
                let scale = (format.max() / amax).min(f32::MAX);
                if power_of_two { f32::from_bits(scale.to_bits() & 0xff80_0000) } else { scale }
            }
            Scale::E8M0 => {
                // As the hardware does: by the rounded reciprocal of the greatest number.
                match to_e8m0(amax * (1.0 / format.max())) {
                    0 => 1.0,
                    0xff => f32::NAN,
                    code => from_e8m0(254 - code),
                }
            }
        }
    }
}

/// The scale that delayed scaling goes on with: `max / 2^margin / amax`, or the old one where
/// `amax`, the greatest magnitude in the history, is 0 or not finite; the greatest `f32` where the
/// quotient exceeds it.
pub fn delayed_scale(format: Fp8, margin: f32, amax: f32, old: f32) -> f32 {
    match amax.is_finite() && amax > 0.0 {
        true => (format.max() * (-margin).exp2() / amax).min(f32::MAX),
        false => old,
    }
}

/// The code of the least power of two that is not less than a magnitude: 2^-127 for 0 (code 0), 2^127
/// for what exceeds it (code 254), code 255 for NaN. (`__nv_cvt_float_to_e8m0` with `__NV_SATFINITE`
/// and `cudaRoundPosInf`.)
#[inline(always)]
pub fn to_e8m0(x: f32) -> u8 {
    let bits = x.to_bits() & 0x7fff_ffff;
    let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
    if bits > 0x7f80_0000 {
        return 0xff;
    }
    // 2^-127 is itself half of the least normal number.
    let up = if exponent == 0 { fraction > 0x40_0000 } else { fraction > 0 };
    (exponent + up as u32).min(0xfe) as u8
}

/// The power of two that a code stands for: exact.
#[inline(always)]
pub fn from_e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x40_0000),
        0xff => f32::NAN,
        code => f32::from_bits((code as u32) << 23),
    }
}
