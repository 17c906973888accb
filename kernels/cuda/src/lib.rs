//! Handwritten CUDA kernels.
//!
//! The kernels' text (`*.cu` beside `src/`) compiles three ways: with nvcc where it is found, with
//! NVRTC at run time, and with any C++17 compiler for the emulator in `kernels/emu`. Everything that
//! is not plain C++ stands in `include/`, with two bodies.
//!
//! Data flows one way. A family's file here (`softmax.rs` beside `softmax.cu`) turns pointers, sizes and
//! strides into [`Launch`]es: it checks every size, chooses the kernel and its grid, and does nothing
//! else. A [`Gpu`] runs launches in order, on a device ([`Gpu::open`]) or on the emulator
//! ([`Gpu::emulated`]); the same launches and the same tests serve both.
#![deny(missing_docs)]

pub mod attention;
pub mod chain;
pub mod conv;
pub mod copy;
pub mod ctc;
pub mod driver;
pub mod error;
pub mod experts;
pub mod gather;
pub mod gemm;
pub mod generated;
pub mod joint;
pub mod launch;
pub mod loss;
pub mod norm;
pub mod parts;
pub mod plain;
pub mod pool;
pub mod quantize;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod rope;
pub mod router;
pub mod rows;
pub mod sample;
pub mod scan;
pub mod size;
pub mod softmax;
pub mod sort;
pub mod sources;
pub mod ssm;
pub mod status;
pub mod stft;
pub mod testing;
pub mod transducer;
pub mod window;

pub use driver::{Buffer, Gpu, Info, Recorded, Schedule};
pub use error::CudaError;
pub use launch::{Arg, Launch, Ptr, Swizzle, Tile, TileKind};
pub use plain::Plain;
