//! Products with weights in fewer bits: `y[m, n] = x[m, k] W[n, k]^T`.
//!
//! A product with few rows takes as long as reading its weights, so half or a quarter of the
//! bytes is twice or four times the speed; one with many rows takes as long as its
//! multiplications, and whole numbers of eight bits have four times the rate of `f32`.
//!
//! Data goes in three steps:
//! 1. **Once a weight** ([`packed`]): values are rounded to a [`Format`], or taken over as a file
//!    stores them ([`encoding`]), and laid out in panels of sixteen channels, so that one
//!    instruction serves sixteen results. [`block`] has the rounding of GGUF's formats,
//!    [`half`](mod@half) of bf16 and f16.
//! 2. **Once a product** (`rows`): for the whole-number formats the activations are rounded to
//!    eight bits, with a scale for each block of 32 (as llama.cpp does) or for each row (as
//!    onnxruntime's dynamic quantization does), and laid out in the order in which tiles read.
//!    Where exact products are asked for ([`packed::Kind`]), they stay `f32`.
//! 3. **Tiles** ([`product`](mod@product), which [`gemm::product`](super::gemm::product) calls for right
//!    sides that are rounded): `tiles` holds the loops, `lanes` what they need of an
//!    instruction set. Threads share the channels (and the rows, where there are many). Every
//!    result is summed by one thread in one order: nothing depends on the number of threads.
//!
//! Values that are not finite stay so: a row of activations with one gives NaN where it was
//! rounded to eight bits, a weight with one gives a block of NaN.

pub mod block;
pub mod encoding;
mod fill;
pub mod ggml;
pub mod half;
mod lanes;
pub mod packed;
pub mod product;
mod rows;
#[cfg(test)]
mod tests;
mod tiles;

pub use encoding::Encoding;
pub use ggml::Blocks;
pub use packed::Packed;
pub use product::{product, scratch_len};

/// How weights are laid out in panels.
///
/// The first five are what values can be rounded to; the others take over what files store, with
/// whole numbers `q` and, for a block of 32 or 16, an f16 scale and mostly a minimum:
/// `scale * q + min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// The upper half of an `f32`: 16 bits a weight. Activations stay `f32`.
    Bf16,
    /// IEEE binary16: 16 bits a weight. Activations stay `f32`.
    F16,
    /// GGUF's Q8_0: 32 weights of eight bits share an f16 scale, 8.5 bits a weight.
    Q8_0,
    /// GGUF's Q4_0: 32 weights of four bits share an f16 scale, 4.5 bits a weight.
    Q4_0,
    /// Eight bits a weight, one `f32` scale for each output channel, and for each row of
    /// activations: the fastest for many rows.
    Int8,
    /// GGUF's Q4_1: four bits, a scale and a minimum for 32: 5 bits a weight.
    Q4_1,
    /// Eight bits, a scale and a minimum for 32: 9 bits a weight.
    Q8_1,
    /// Eight bits, a scale for 16: 9 bits a weight.
    Q8Half,
    /// Four bits, a scale and a minimum for 16: 6 bits a weight.
    Q4Half,
}

impl Format {
    /// The formats that values can be rounded to.
    pub const ALL: [Format; 5] = [Format::Bf16, Format::F16, Format::Q8_0, Format::Q4_0, Format::Int8];
    const COUNT: usize = 9;

    /// The format that takes over an encoding's whole numbers as they are.
    ///
    /// Scales are exact too for the encodings with blocks of 32. Those with blocks of 256 have
    /// scales of scales; their product with the block's (17 to 19 bits) is rounded to f16's eleven,
    /// which is a thousandth of a step or less.
    pub fn of(encoding: Encoding) -> Format {
        match encoding {
            Encoding::F16 => Format::F16,
            Encoding::Bf16 => Format::Bf16,
            Encoding::Blocks(blocks) => match blocks {
                Blocks::Q8_0 | Blocks::Q5_0 => Format::Q8_0,
                Blocks::Q4_0 => Format::Q4_0,
                Blocks::Q4_1 | Blocks::Q4_K => Format::Q4_1,
                Blocks::Q5_1 | Blocks::Q5_K => Format::Q8_1,
                Blocks::Q6_K => Format::Q8Half,
                Blocks::Q2_K | Blocks::Q3_K => Format::Q4Half,
            },
        }
    }

    /// Whether blocks of weights share scales.
    pub fn is_blocks(self) -> bool {
        self.is_whole() && self != Format::Int8
    }

    fn is_whole(self) -> bool {
        !matches!(self, Format::Bf16 | Format::F16)
    }

    /// Whether a byte holds two weights.
    fn is_four(self) -> bool {
        matches!(self, Format::Q4_0 | Format::Q4_1 | Format::Q4Half)
    }

    /// Whether blocks have minima; their whole numbers are not negative.
    fn has_min(self) -> bool {
        matches!(self, Format::Q4_1 | Format::Q8_1 | Format::Q4Half)
    }

    /// Scales of a block of 32.
    fn scales(self) -> usize {
        if matches!(self, Format::Q8Half | Format::Q4Half) { 2 } else { 1 }
    }

    /// What is added to whole numbers so that none is negative.
    fn zero(self) -> i32 {
        match self {
            _ if self.has_min() => 0,
            Format::Q4_0 => 8,
            _ => 128,
        }
    }
}
