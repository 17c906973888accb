//! What the tests of kernels over rows share: values in each of the three ways to store them.
#![allow(dead_code)]

use mobilis_cuda::rows::Number;
use mobilis_cuda::testing::{download, upload, values};
use mobilis_cuda::{Buffer, Gpu};

pub const NUMBERS: [Number; 3] = [Number::F32, Number::Bf16, Number::F16];

/// Values as they come out of the storage again.
pub fn rounded(values: &[f32], number: Number) -> Vec<f32> {
    let round = |v: &f32| match number {
        Number::F32 => *v,
        Number::Bf16 => half::bf16::from_f32(*v).to_f32(),
        Number::F16 => half::f16::from_f32(*v).to_f32(),
    };
    values.iter().map(round).collect()
}

/// Reproducible values that the storage holds exactly.
pub fn some(count: usize, seed: u64, number: Number) -> Vec<f32> {
    rounded(&values(count, seed), number)
}

/// Values on the device as `number`.
pub fn put(gpu: &Gpu, values: &[f32], number: Number) -> Buffer {
    match number {
        Number::F32 => upload(gpu, values),
        Number::Bf16 => upload(gpu, &values.iter().map(|v| half::bf16::from_f32(*v).to_bits()).collect::<Vec<_>>()),
        Number::F16 => upload(gpu, &values.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect::<Vec<_>>()),
    }
}

/// Values from the device.
pub fn get(buffer: &Buffer, len: usize, number: Number) -> Vec<f32> {
    match number {
        Number::F32 => download(buffer, len),
        Number::Bf16 => download::<u16>(buffer, len).into_iter().map(|b| half::bf16::from_bits(b).to_f32()).collect(),
        Number::F16 => download::<u16>(buffer, len).into_iter().map(|b| half::f16::from_bits(b).to_f32()).collect(),
    }
}

/// How far results may be from exact ones, relative to the largest.
pub fn tolerance(number: Number) -> f64 {
    match number {
        Number::F32 => 4e-6,
        Number::Bf16 => 1.0 / 256.0,
        Number::F16 => 1.0 / 2048.0,
    }
}
