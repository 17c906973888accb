//! CPU kernels in `f32`: contiguous rows unless strides are parameters.

pub mod chain;
pub mod contract;
pub mod copy;
pub mod gemm;
pub mod math;
pub mod reduce;
pub mod simd;
