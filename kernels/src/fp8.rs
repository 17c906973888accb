//! Numbers of eight bits, as NVIDIA's tensor cores take them: E4M3 and E5M2, and the power-of-two
//! scales E8M0 that go with blocks of them.
//!
//! | | sign, exponent, fraction | bias | least | greatest | infinity | NaN |
//! |---|---|---|---|---|---|---|
//! | [`E4M3`](Fp8::E4M3) | 1, 4, 3 | 7 | 2^-9 | 448 | none | `7f` |
//! | [`E5M2`](Fp8::E5M2) | 1, 5, 2 | 15 | 2^-16 | 57344 | `7c` | `7d` to `7f` |
//! | [E8M0](to_e8m0) | 0, 8, 0 | 127 | 2^-127 | 2^127 | none | `ff` |
//!
//! Conversion rounds to the nearest, ties to even. What is greater than the greatest number becomes
//! that number ([`encode`](Fp8::encode), which is what training wants), or infinity or NaN
//! ([`encode_open`](Fp8::encode_open)). NaN becomes `7f` whatever its sign. Codes equal those of
//! `__nv_cvt_float_to_fp8` with `__NV_SATFINITE` and `__NV_NOSAT`, bit for bit.
//!
//! Emulation needs no codes: [`round`](Fp8::round) gives the nearest number of the format as an
//! `f32`, in a handful of instructions without a branch, so that loops over it vectorise. The
//! fraction ends at a bit that depends on the exponent: adding a power of two whose own last bit
//! is that one rounds there, as the processor does, and subtracting it again is exact.
//!
//! [`Scale`] says how the number is found that a group of values is multiplied by before it is
//! rounded. Sources: Micikevicius et al., "FP8 formats for deep learning" (2022); OCP
//! Microscaling Formats v1.0 (2023); `cuda_fp8.hpp` of CUDA 13; Transformer Engine's
//! `recipe_common.cuh` and `float_to_e8m0`.

mod scale;
#[cfg(test)]
mod tests;

pub use scale::{Scale, delayed_scale, from_e8m0, to_e8m0};

/// A format of eight bits with a sign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fp8 {
    /// Four bits of exponent, three of fraction, no infinity (`float8_e4m3fn`).
    E4M3,
    /// Five bits of exponent, two of fraction (`float8_e5m2`).
    E5M2,
}

impl Fp8 {
    /// The name in messages: `E4M3`.
    pub const fn name(self) -> &'static str {
        match self {
            Fp8::E4M3 => "E4M3",
            Fp8::E5M2 => "E5M2",
        }
    }

    /// The greatest number: 448 or 57344.
    pub const fn max(self) -> f32 {
        match self {
            Fp8::E4M3 => 448.0,
            Fp8::E5M2 => 57344.0,
        }
    }

    /// Bits of fraction.
    const fn fraction(self) -> u32 {
        match self {
            Fp8::E4M3 => 3,
            Fp8::E5M2 => 2,
        }
    }

    /// The exponent of the least normal number: -6 or -14.
    const fn least(self) -> i32 {
        match self {
            Fp8::E4M3 => -6,
            Fp8::E5M2 => -14,
        }
    }

    /// The nearest number of the format; the greatest for what exceeds it, infinity included. NaN
    /// stays NaN, zeros keep their sign.
    #[inline(always)]
    pub fn round(self, x: f32) -> f32 {
        match self {
            Fp8::E4M3 => round::<3, -6>(x, 448.0),
            Fp8::E5M2 => round::<2, -14>(x, 57344.0),
        }
    }

    /// The code of the nearest number; the greatest for what exceeds it, infinity included.
    #[inline(always)]
    pub fn encode(self, x: f32) -> u8 {
        self.code(self.round(x))
    }

    /// The code of the nearest number; infinity (E5M2) or NaN (E4M3) for what rounds to more than
    /// the greatest.
    #[inline(always)]
    pub fn encode_open(self, x: f32) -> u8 {
        // One binade more, so that what is above the greatest number rounds there.
        let y = match self {
            Fp8::E4M3 => round::<3, -6>(x, 896.0),
            Fp8::E5M2 => round::<2, -14>(x, 114_688.0),
        };
        match (y.abs() > self.max(), self) {
            (false, _) => self.code(y),
            (true, Fp8::E4M3) => (x.to_bits() >> 24) as u8 & 0x80 | 0x7f,
            (true, Fp8::E5M2) => (x.to_bits() >> 24) as u8 & 0x80 | 0x7c,
        }
    }

    /// The code of a number of the format.
    #[inline(always)]
    fn code(self, y: f32) -> u8 {
        let (fraction, least) = (self.fraction(), self.least());
        let bits = y.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        // Normal: the exponent with another bias.
        let normal = (magnitude >> (23 - fraction)).wrapping_sub(((126 + least) as u32) << fraction);
        // Below: multiples of the least number. Adding 0.5 with a last bit of it lines them up.
        let one = f32::from_bits(((127 + least - fraction as i32 + 23) as u32) << 23);
        let below = (f32::from_bits(magnitude) + one).to_bits().wrapping_sub(one.to_bits());
        let code = if magnitude < ((127 + least) as u32) << 23 { below } else { normal };
        if magnitude > 0x7f80_0000 { 0x7f } else { (bits >> 24) as u8 & 0x80 | code as u8 }
    }

    /// The number that a code stands for: exact.
    #[inline(always)]
    pub fn decode(self, code: u8) -> f32 {
        self.table()[code as usize]
    }

    /// The numbers of all codes.
    pub const fn table(self) -> &'static [f32; 256] {
        const E4M3: [f32; 256] = table(Fp8::E4M3);
        const E5M2: [f32; 256] = table(Fp8::E5M2);
        match self {
            Fp8::E4M3 => &E4M3,
            Fp8::E5M2 => &E5M2,
        }
    }
}

/// Rounds to a fraction of so many bits, with numbers below `2^LEAST` as multiples of its last bit,
/// after limiting the magnitude to `max`.
#[inline(always)]
fn round<const FRACTION: u32, const LEAST: i32>(x: f32, max: f32) -> f32 {
    let a = x.abs();
    // A comparison with NaN is false: it passes through.
    let a = if a > max { max } else { a };
    let exponent = (a.to_bits() & 0x7f80_0000).max(((127 + LEAST) as u32) << 23);
    let magic = f32::from_bits(exponent.wrapping_add((23 - FRACTION) << 23));
    let y = (a + magic) - magic;
    f32::from_bits(y.to_bits() | x.to_bits() & 0x8000_0000)
}

const fn table(format: Fp8) -> [f32; 256] {
    let (fraction, least) = (format.fraction(), format.least());
    let mut all = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let magnitude = code as u32 & 0x7f;
        let (exponent, rest) = (magnitude >> fraction, magnitude & ((1 << fraction) - 1));
        let nan = match format {
            Fp8::E4M3 => magnitude == 0x7f,
            Fp8::E5M2 => magnitude > 0x7c,
        };
        let value = if nan {
            f32::NAN
        } else if matches!(format, Fp8::E5M2) && magnitude == 0x7c {
            f32::INFINITY
        } else if exponent == 0 {
            rest as f32 * f32::from_bits(((127 + least - fraction as i32) as u32) << 23)
        } else {
            f32::from_bits(((exponent as i32 + 126 + least) as u32) << 23 | rest << (23 - fraction))
        };
        all[code] = f32::from_bits(value.to_bits() | (code as u32 & 0x80) << 24);
        code += 1;
    }
    all
}

#[inline(always)]
fn encode_body(format: Fp8, x: &[f32], scale: f32, y: &mut [u8]) {
    match format {
        Fp8::E4M3 => x.iter().zip(y).for_each(|(x, y)| *y = Fp8::E4M3.encode(x * scale)),
        Fp8::E5M2 => x.iter().zip(y).for_each(|(x, y)| *y = Fp8::E5M2.encode(x * scale)),
    }
}
#[inline(always)]
fn round_body(format: Fp8, x: &[f32], scale: f32, back: f32, y: &mut [f32]) {
    match format {
        Fp8::E4M3 => x.iter().zip(y).for_each(|(x, y)| *y = Fp8::E4M3.round(x * scale) * back),
        Fp8::E5M2 => x.iter().zip(y).for_each(|(x, y)| *y = Fp8::E5M2.round(x * scale) * back),
    }
}
#[inline(always)]
fn amax_body(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (m, x) in lanes.iter_mut().zip(chunk) {
            *m = if x.abs() > *m { x.abs() } else { *m };
        }
    }
    lanes.iter().chain(rest).fold(0.0, |m, x| if x.abs() > m { x.abs() } else { m })
}
crate::dispatch! {
    /// The codes of `x * scale`, saturating, for as many values as both slices have.
    pub fn encode(format: Fp8, x: &[f32], scale: f32, y: &mut [u8]) = encode_body;
}
crate::dispatch! {
    /// What is left of values that go through eight bits: `round(x * scale) * back`, saturating, for
    /// as many values as both slices have. `back` is `1 / scale`.
    pub fn round_scaled(format: Fp8, x: &[f32], scale: f32, back: f32, y: &mut [f32]) = round_body;
}
crate::dispatch! {
    /// The greatest magnitude; 0 for nothing. NaN is passed over, as `fmaxf` does.
    pub fn amax(x: &[f32]) -> f32 = amax_body;
}

/// The numbers that codes stand for, times `scale`, for as many as both slices have.
pub fn decode(format: Fp8, x: &[u8], scale: f32, y: &mut [f32]) {
    let table = format.table();
    x.iter().zip(y).for_each(|(x, y)| *y = table[*x as usize] * scale);
}
