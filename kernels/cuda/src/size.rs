//! Sizes as kernels take them: whole numbers below 2³¹.

use crate::CudaError;

/// A size below 2³¹.
///
/// # Errors
/// A larger one, in words.
pub fn int(kernel: &'static str, what: &str, n: usize) -> Result<i32, CudaError> {
    i32::try_from(n).map_err(|_| refused(kernel, format!("{n} {what}, at most {} are taken", i32::MAX)))
}

/// The product of sizes, below 2³¹: the values of an array that is addressed by 32 bits.
///
/// # Errors
/// A larger one, in words.
pub fn count(kernel: &'static str, what: &str, sizes: &[usize]) -> Result<i32, CudaError> {
    let n = sizes.iter().try_fold(1usize, |n, s| n.checked_mul(*s)).unwrap_or(usize::MAX);
    int(kernel, &format!("values of {what}"), n)
}

/// Why a kernel does not take what it is given.
pub fn refused(kernel: &'static str, message: impl Into<String>) -> CudaError {
    CudaError::Refused { kernel, message: message.into() }
}

/// Blocks for `n` pieces of work in tiles.
pub fn tiles(n: usize, tile: usize) -> u32 {
    n.div_ceil(tile) as u32
}
