//! Products with weights in fewer bits: `y[m, n] = x[m, k] W[n, k]^T`.
//!
//! A product with few rows takes as long as reading its weights, so half or a quarter of the
//! bytes is twice or four times the speed; one with many rows takes as long as its
//! multiplications, and whole numbers of eight bits have four times the rate of `f32`.
//!
//! Data goes in three steps:
//! 1. **Once a weight** ([`packed`]): values are rounded to a [`Format`] and laid out in panels of
//!    sixteen channels, so that one instruction serves sixteen results. [`block`] has the rounding
//!    of GGUF's formats, [`half`](mod@half) of bf16 and f16.
//! 2. **Once a product** (`rows`): for the whole-number formats the activations are rounded to
//!    eight bits, with a scale for each block of 32 (as llama.cpp does) or for each row (as
//!    onnxruntime's dynamic quantization does), and laid out in the order in which tiles read.
//! 3. **Tiles** ([`product`](mod@product), which [`gemm::product`](super::gemm::product) calls for right
//!    sides that are rounded): `tiles` holds the loops, `lanes` what they need of an
//!    instruction set. Threads share the channels (and the rows, where there are many). Every
//!    result is summed by one thread in one order: nothing depends on the number of threads.
//!
//! Values that are not finite stay so: a row of activations with one gives NaN where it was
//! rounded to eight bits, a weight with one gives a block of NaN.

pub mod block;
pub mod ggml;
pub mod half;
mod lanes;
pub mod packed;
pub mod product;
mod rows;
#[cfg(test)]
mod tests;
mod tiles;

pub use ggml::Blocks;
pub use packed::Packed;
pub use product::{product, scratch_len};

/// How weights are stored.
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
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [Format::Bf16, Format::F16, Format::Q8_0, Format::Q4_0, Format::Int8];

    fn is_blocks(self) -> bool {
        matches!(self, Format::Q8_0 | Format::Q4_0)
    }

    fn is_whole(self) -> bool {
        !matches!(self, Format::Bf16 | Format::F16)
    }
}
