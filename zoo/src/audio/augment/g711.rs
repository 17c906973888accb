//! The telephone's codec: 8 bits a sample, logarithmic (ITU-T G.711, 1988).

/// The two laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// North America and Japan.
    Mu,
    /// Elsewhere.
    A,
}

impl Law {
    /// A sample as its byte.
    pub fn encode(self, sample: f32) -> u8 {
        let linear = (sample.clamp(-1.0, 1.0) * 32_767.0).round() as i32;
        let sign = if linear < 0 { 0 } else { 0x80 };
        match self {
            Law::Mu => {
                let magnitude = (linear.abs() >> 2).min(8_158) + 33;
                let segment = (31 - magnitude.leading_zeros() as i32) - 5;
                let byte = (segment << 4) | ((magnitude >> (segment + 1)) & 15);
                !((0x80 ^ sign) as u8 | byte as u8)
            }
            Law::A => {
                // Negative numbers are the complement of one's, as in the reference.
                let magnitude = if linear < 0 { !linear } else { linear } >> 3;
                let segment = (31 - magnitude.max(16).leading_zeros() as i32) - 4;
                let byte = (segment << 4) | ((magnitude >> segment.max(1)) & 15);
                (byte as u8 | sign as u8) ^ 0x55
            }
        }
    }

    /// The sample of a byte.
    pub fn decode(self, byte: u8) -> f32 {
        let linear = match self {
            Law::Mu => {
                let byte = !byte;
                let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
                let magnitude = (((step << 1) + 33) << segment) - 33;
                if byte & 0x80 == 0 { magnitude << 2 } else { -(magnitude << 2) }
            }
            Law::A => {
                let byte = byte ^ 0x55;
                let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
                let magnitude = if segment == 0 { (step << 4) + 8 } else { ((step << 4) + 0x108) << (segment - 1) };
                if byte & 0x80 != 0 { magnitude } else { -magnitude }
            }
        };
        linear as f32 / 32_768.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        for law in [Law::Mu, Law::A] {
            for byte in 0..=255u8 {
                let sample = law.decode(byte);
                // Both zeros of the mu law are one number.
                assert!(law.encode(sample) == byte || sample == 0.0, "{law:?} {byte}: {}", law.encode(sample));
            }
        }
        // Zero and the loudest, as in the recommendation's tables.
        assert_eq!((Law::Mu.encode(0.0), Law::Mu.encode(1.0), Law::Mu.encode(-1.0)), (0xFF, 0x80, 0x00));
        assert_eq!((Law::A.encode(0.0), Law::A.encode(1.0), Law::A.encode(-1.0)), (0xD5, 0xAA, 0x2A));
    }

    #[test]
    fn errors_follow_loudness() {
        for law in [Law::Mu, Law::A] {
            for i in -1000..=1000 {
                let x = i as f32 / 1000.0;
                let off = (law.decode(law.encode(x)) - x).abs();
                assert!(off <= 0.04 * x.abs() + 5e-4, "{law:?} {x} is off by {off}");
            }
        }
    }
}
