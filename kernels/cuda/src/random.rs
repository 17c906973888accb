//! Random values (`random.cu`), the same as on every device.

use crate::rows::count;
use crate::{CudaError, Launch, Ptr, args};

/// What values are like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Uniform in 0 (included) to 1 (excluded), `f32`.
    Uniform,
    /// Normal with mean 0 and variance 1, `f32`.
    Normal,
    /// `-log(-log(u))`, `f32`.
    Gumbel,
    /// 1 with this probability, bytes.
    Bernoulli(f64),
}

/// Values number 0 to `len` of a stream; `key` are seed and step, two `int`s on the device.
///
/// # Errors
/// 2⁴⁰ values or more; a place that is not aligned to 16 bytes.
pub fn random(distribution: Distribution, key: Ptr, y: Ptr, len: usize, stream: u32) -> Result<Vec<Launch>, CudaError> {
    if len == 0 {
        return Ok(vec![]);
    }
    let grid = [count("random", "blocks", len.div_ceil(1024))? as u32, 1, 1];
    let kind = match distribution {
        Distribution::Uniform => 0,
        Distribution::Normal => 1,
        Distribution::Gumbel => 2,
        Distribution::Bernoulli(p) => {
            // u < p for multiples u of 2^-24: below the next whole number of p 2^24.
            let bound = (p * 16_777_216.0).ceil().clamp(0.0, 16_777_216.0) as u32;
            return Ok(vec![Launch::new("random_mask", grid, 256, args![key, y, len as i64, stream, bound])]);
        }
    };
    if !y.0.is_multiple_of(16) {
        return Err(CudaError::Refused { kernel: "random", message: "values are not aligned to 16 bytes".into() });
    }
    Ok(vec![Launch::new("random_f32", grid, 256, args![key, y, len as i64, stream, kind])])
}
