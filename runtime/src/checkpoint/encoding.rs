//! How numbers are stored in files, and the exact value of every bit pattern of the small floats.

pub use mobilis_kernels::cpu::quant::Blocks;
use std::fmt;

/// How values are stored in a file: each by itself, as safetensors has them, or in blocks that
/// share scales, as GGUF has them too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Encoding {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
    /// Blocks along the last dimension, which is a multiple of their values.
    Blocks(Blocks),
}

use Encoding::*;

impl Encoding {
    /// The encodings of safetensors with their names in headers, in the order in which files hold
    /// them last to first.
    pub const ALL: [(Encoding, &'static str); 22] = [
        (Bool, "BOOL"),
        (F4, "F4"),
        (F6E2M3, "F6_E2M3"),
        (F6E3M2, "F6_E3M2"),
        (U8, "U8"),
        (I8, "I8"),
        (F8E5M2, "F8_E5M2"),
        (F8E4M3, "F8_E4M3"),
        (F8E8M0, "F8_E8M0"),
        (F8E4M3Fnuz, "F8_E4M3FNUZ"),
        (F8E5M2Fnuz, "F8_E5M2FNUZ"),
        (I16, "I16"),
        (U16, "U16"),
        (F16, "F16"),
        (BF16, "BF16"),
        (I32, "I32"),
        (U32, "U32"),
        (F32, "F32"),
        (C64, "C64"),
        (F64, "F64"),
        (I64, "I64"),
        (U64, "U64"),
    ];

    /// The encoding of a name in a header.
    pub fn parse(name: &str) -> Option<Encoding> {
        Encoding::ALL.iter().find(|(_, n)| *n == name).map(|(e, _)| *e)
    }

    /// The name, in safetensors' headers or in GGUF's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Blocks(blocks) => blocks.name(),
            plain => Encoding::ALL.iter().find(|(e, _)| *e == plain).map_or("", |(_, name)| name),
        }
    }

    /// The fewest values that take whole bytes, and how many bytes: (1, 4) for `F32`, (32, 34) for
    /// Q8_0.
    pub fn block(self) -> (u64, u64) {
        match self {
            F4 => (2, 1),
            F6E2M3 | F6E3M2 => (4, 3),
            Bool | U8 | I8 | F8E5M2 | F8E4M3 | F8E8M0 | F8E4M3Fnuz | F8E5M2Fnuz => (1, 1),
            I16 | U16 | F16 | BF16 => (1, 2),
            I32 | U32 | F32 => (1, 4),
            C64 | F64 | I64 | U64 => (1, 8),
            Blocks(blocks) => (blocks.values() as u64, blocks.bytes() as u64),
        }
    }

    /// How many bytes so many values take: nothing where they are no whole blocks, or too many to
    /// count.
    pub fn bytes(self, count: u64) -> Option<u64> {
        let (values, bytes) = self.block();
        if count.is_multiple_of(values) { (count / values).checked_mul(bytes) } else { None }
    }

    /// How many bytes a tensor of these sizes takes: nothing where rows are no whole blocks, or
    /// where they are too many to count, on the way to a zero too.
    pub fn bytes_of(self, sizes: &[usize]) -> Option<u64> {
        sizes.iter().try_fold(1u64, |a, b| a.checked_mul((*b as u64).max(1)))?;
        let count = sizes.iter().map(|n| *n as u64).product();
        let row = sizes.last().map_or(1, |n| *n as u64);
        let whole = !matches!(self, Blocks(b) if !row.is_multiple_of(b.values() as u64));
        if whole { self.bytes(count) } else { None }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether an encoding holds real numbers that can be read and written.
pub fn is_real(encoding: Encoding) -> bool {
    matches!(encoding, F64 | F32 | F16 | BF16 | F8E4M3 | F8E5M2 | Blocks(_))
}

/// The value of an IEEE 754 half-precision pattern.
pub fn from_f16(bits: u16) -> f32 {
    small(bits.into(), 5, 10)
}

/// The value of a bfloat16 pattern: the upper half of an `f32`.
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The value of an FP8 E5M2 pattern (Micikevicius et al. 2022), which has infinities.
pub fn from_e5m2(bits: u8) -> f32 {
    small(bits.into(), 5, 2)
}

/// The value of an FP8 E4M3 pattern (Micikevicius et al. 2022), which has no infinities: only
/// exponent and mantissa of all ones are NaN.
pub fn from_e4m3(bits: u8) -> f32 {
    if bits & 0x7F == 0x7F {
        return f32::NAN.copysign(if bits & 0x80 != 0 { -1.0 } else { 1.0 });
    }
    let magnitude = bits & 0x7F;
    let (exponent, mantissa) = ((magnitude >> 3) as i32, (magnitude & 7) as f32);
    let value = match exponent {
        0 => mantissa / 8.0 * 2f32.powi(-6),
        e => (1.0 + mantissa / 8.0) * 2f32.powi(e - 7),
    };
    if bits & 0x80 != 0 { -value } else { value }
}

/// The value of a pattern of a sign, `exponent` and `mantissa` bits by IEEE 754's rules, where
/// the exponent has five bits. Every one is exact in `f32`.
fn small(bits: u32, exponent: u32, mantissa: u32) -> f32 {
    let sign = (bits >> (exponent + mantissa)) << 31;
    let e = (bits >> mantissa) & ((1 << exponent) - 1);
    let m = (bits & ((1 << mantissa) - 1)) << (23 - mantissa);
    let bias = (1u32 << (exponent - 1)) - 1;
    let magnitude = if e == (1 << exponent) - 1 {
        0x7F80_0000 | m
    } else if e == 0 {
        // Subnormal here, normal in `f32`: the mantissa counts steps of the smallest exponent.
        return f32::from_bits(sign | 0x3F80_0000) * (m as f32 / (1u32 << 23) as f32) * 2f32.powi(1 - bias as i32);
    } else {
        ((e + 127 - bias) << 23) | m
    };
    f32::from_bits(sign | magnitude)
}

/// The bfloat16 pattern nearest to a number; ties to even.
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        // Keeps a NaN a NaN whose upper bits were zero.
        return (bits >> 16) as u16 | 0x40;
    }
    // An overflow of the mantissa carries into the exponent, and at the end gives infinity.
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// The half-precision pattern nearest to a number; ties to even; beyond 65504 infinity.
pub fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (((bits >> 16) & 0x8000) as u16, bits & 0x7FFF_FFFF);
    if value.is_nan() {
        return sign | 0x7E00 | ((magnitude >> 13) & 0x3FF) as u16;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7C00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14: count steps of 2^-24. The product is exact and so is the tie to even.
        return sign | (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u16;
    }
    let rebased = magnitude - (112 << 23);
    sign | ((rebased + 0xFFF + ((rebased >> 13) & 1)) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_in_order() {
        for (i, (encoding, name)) in Encoding::ALL.into_iter().enumerate() {
            assert_eq!(Encoding::ALL.iter().filter(|(e, _)| *e < encoding).count(), i);
            assert_eq!(Encoding::parse(name), Some(encoding));
            assert_eq!(encoding.name(), name);
        }
        assert_eq!(Encoding::parse("f32"), None);
    }

    #[test]
    fn bytes_of_whole_blocks() {
        assert_eq!(F32.bytes_of(&[2, 3]), Some(24));
        assert_eq!(F32.bytes_of(&[]), Some(4));
        assert_eq!(F4.bytes_of(&[3]), None);
        let blocks = Encoding::Blocks(Blocks::Q8_0);
        assert_eq!(blocks.bytes_of(&[2, 64]), Some(136));
        // As many values, but blocks would reach from row to row.
        assert_eq!(blocks.bytes_of(&[64, 2]), None);
        assert_eq!(blocks.bytes_of(&[9, 0, 32]), Some(0));
        assert_eq!(F32.bytes_of(&[0, usize::MAX, usize::MAX]), None);
        assert_eq!(blocks.bytes_of(&[usize::MAX, 64]), None);
    }

    #[test]
    fn every_half_and_bfloat_pattern() {
        for bits in 0..=u16::MAX {
            for (ours, theirs) in [
                (from_f16(bits), half::f16::from_bits(bits).to_f32()),
                (from_bf16(bits), half::bf16::from_bits(bits).to_f32()),
            ] {
                assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
            }
            if !from_f16(bits).is_nan() {
                assert_eq!(to_f16(from_f16(bits)), bits, "{bits:#x}");
            } else {
                assert!(from_f16(to_f16(from_f16(bits))).is_nan());
            }
            if !from_bf16(bits).is_nan() {
                assert_eq!(to_bf16(from_bf16(bits)), bits, "{bits:#x}");
            } else {
                assert!(from_bf16(to_bf16(from_bf16(bits))).is_nan());
            }
        }
    }

    /// Between each pair of neighbours: just below, at and just above the middle.
    #[test]
    fn rounding_is_to_nearest_even() {
        let near = |v: f32| [f32::from_bits(v.to_bits().wrapping_sub(1)), v, f32::from_bits(v.to_bits() + 1)];
        for bits in (0..0x7C00u16).chain(0x8000..0xFC00) {
            let (a, b) = (from_f16(bits), half::f16::from_bits(bits + 1).to_f32());
            let middle = if b.is_finite() { (a + b) / 2.0 } else { 65520f32.copysign(a) };
            for v in near(middle) {
                assert_eq!(to_f16(v), half::f16::from_f32(v).to_bits(), "{v:e}");
            }
        }
        for bits in (0..0x7F80u16).chain(0x8000..0xFF80) {
            for low in [0x7FFF, 0x8000, 0x8001, 1, 0xFFFF] {
                let v = f32::from_bits(((bits as u32) << 16) | low);
                assert_eq!(to_bf16(v), half::bf16::from_f32(v).to_bits(), "{v:e}");
            }
        }
        assert_eq!(to_f16(f32::INFINITY), 0x7C00);
        assert!(from_bf16(to_bf16(f32::from_bits(0x7F80_0001))).is_nan());
    }

    #[test]
    fn eight_bit_floats() {
        // The table of the OCP FP8 specification: zero, smallest and largest subnormal, smallest
        // and largest normal, special values.
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 0.875 * 2f32.powi(-6)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x7E, 448.0),
            (0xB8, -1.0),
            (0xFE, -448.0),
        ] {
            assert_eq!(from_e4m3(bits), value, "{bits:#x}");
        }
        assert!(from_e4m3(0x7F).is_nan() && from_e4m3(0xFF).is_nan());
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-16)),
            (0x03, 0.75 * 2f32.powi(-14)),
            (0x04, 2f32.powi(-14)),
            (0x3C, 1.0),
            (0x7B, 57344.0),
            (0x7C, f32::INFINITY),
            (0xFC, f32::NEG_INFINITY),
            (0xBC, -1.0),
        ] {
            assert_eq!(from_e5m2(bits), value, "{bits:#x}");
        }
        assert!([0x7D, 0x7E, 0x7F].into_iter().all(|b| from_e5m2(b).is_nan()));
        // E5M2 is the upper half of a half.
        assert!((0..=255u8).all(|b| from_e5m2(b).to_bits() == from_f16((b as u16) << 8).to_bits()));
    }
}
