//! Sampling of tokens from logits on the device (`sample.cu`).

use crate::rows::count;
use crate::{CudaError, Launch, Ptr, args};

/// How tokens are drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the first largest one.
    pub temperature: f32,
    /// Only so many of the largest, and those equal to the last of them; 0 for all.
    pub top_k: usize,
    /// Only the largest that make up this part of the probability together, at least one; 1 for all.
    pub top_p: f32,
    /// The number of the stream of random values.
    pub stream: u32,
}

/// One token `[rows]` of each of the `logits [rows, n]`; `key` are seed and step, two `int`s on the device. NaN is not
/// drawn.
///
/// # Errors
/// Settings out of their range, no logits, 2³¹ or more.
pub fn sample(
    s: Sampling,
    logits: Ptr,
    key: Ptr,
    tokens: Ptr,
    rows: usize,
    n: usize,
) -> Result<Vec<Launch>, CudaError> {
    let refused = |message: String| Err(CudaError::Refused { kernel: "sample", message });
    let sane = s.temperature >= 0.0 && s.temperature.is_finite() && s.top_p > 0.0 && s.top_p <= 1.0;
    if !sane || n == 0 {
        return refused(format!("temperature {}, top p {}, {n} logits", s.temperature, s.top_p));
    }
    let length = count("sample", "logits", n)?;
    let grid = count("sample", "rows", rows)? as u32;
    if rows == 0 {
        return Ok(vec![]);
    }
    let top_k = s.top_k.min(n) as i32;
    let args = args![logits, key, tokens, length, s.temperature, top_k, s.top_p, s.stream];
    Ok(vec![Launch::new("sample_f32", [grid, 1, 1], 1024, args)])
}
