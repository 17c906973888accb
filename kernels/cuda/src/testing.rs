//! What the tests of kernels share: devices to run on, values to and fro.

use crate::{Buffer, Gpu, Schedule};

/// Every device to test on: the emulator in three schedules, and the GPU where there is one. Empty, with a
/// printed reason, where there is no C++ compiler.
pub fn devices() -> Vec<Gpu> {
    let mut devices = vec![];
    for schedule in [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(7)] {
        match Gpu::emulated(schedule) {
            Ok(gpu) => devices.push(gpu),
            Err(e @ crate::CudaError::Unavailable(_)) => {
                eprintln!("skipped: {e}");
                break;
            }
            Err(e) => panic!("{e}"),
        }
    }
    // `MOBILIS_CUDA_TESTS=0` leaves the GPU out.
    if std::env::var("MOBILIS_CUDA_TESTS").is_ok_and(|v| v == "0") {
        return devices;
    }
    match Gpu::open(0) {
        Ok(gpu) => devices.push(gpu),
        Err(crate::CudaError::Unavailable(_)) => {}
        Err(e) => panic!("{e}"),
    }
    devices
}

/// Values on the device.
///
/// # Panics
/// When the device has no room.
pub fn upload<T: Copy>(gpu: &Gpu, values: &[T]) -> Buffer {
    // SAFETY: plain values, seen as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
    let buffer = gpu.alloc(bytes.len()).unwrap_or_else(|e| panic!("{e}"));
    buffer.upload(bytes).unwrap_or_else(|e| panic!("{e}"));
    buffer
}

/// Values from the device.
///
/// # Panics
/// When what ran before failed.
pub fn download<T: Copy + Default>(buffer: &Buffer, len: usize) -> Vec<T> {
    let mut values = vec![T::default(); len];
    // SAFETY: plain values, seen as bytes; every pattern of bits is one.
    let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), len * size_of::<T>()) };
    buffer.download(bytes).unwrap_or_else(|e| panic!("{e}"));
    values
}

/// Reproducible values around zero, at most 2 in size.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next() + next() + next() + next()).collect()
}

/// The largest difference, relative to the largest expected value.
///
/// # Panics
/// When the lengths differ.
pub fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(f, e)| (*f as f64 - e).abs());
    // A NaN is the worst of all.
    worst.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m }) / largest
}
