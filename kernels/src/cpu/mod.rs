//! CPU kernels in `f32`: contiguous rows unless strides are parameters.

pub mod attention;
pub mod chain;
pub mod contract;
pub mod conv;
pub mod copy;
pub mod ctc;
pub mod embedding;
pub mod epilogue;
pub mod experts;
pub mod fourier;
pub mod gather;
pub mod gemm;
pub mod head;
mod lattice;
#[cfg(feature = "limits")]
pub mod limits;
pub mod loss;
pub mod math;
pub mod norm;
pub mod order;
mod pack;
mod parts;
pub mod place;
pub mod pool;
pub mod quant;
pub mod quantize;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod rope;
mod share;
pub mod simd;
pub mod softmax;
pub mod ssm;
pub mod stream;
mod tile;
mod vector;
