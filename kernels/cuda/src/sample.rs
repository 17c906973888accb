//! Draws of tokens from logits on the device (`sample.cu`): those of `mobilis_kernels::cpu::sample`.

use crate::rows::count;
use crate::{CudaError, Launch, Ptr, args};

/// One token `[rows]` of each of the `logits [rows, n]`: -1 where all are minus infinity, -2 where one is no number. `settings
/// [rows, 3]` are temperature (0: the first largest logit), `top_p` and `min_p`; `numbers [rows, 5]` are `top_k` (0: all),
/// the seed's lower and upper half, the sequence and the step.
///
/// # Errors
/// No logits, 2³¹ or more, as many rows.
pub fn sample(
    logits: Ptr,
    settings: Ptr,
    numbers: Ptr,
    tokens: Ptr,
    [rows, n]: [usize; 2],
) -> Result<Vec<Launch>, CudaError> {
    if n == 0 {
        return Err(CudaError::Refused { kernel: "sample", message: "no logits".into() });
    }
    let (length, grid) = (count("sample", "logits", n)?, count("sample", "rows", rows)? as u32);
    if rows == 0 {
        return Ok(vec![]);
    }
    Ok(vec![Launch::new("sample_f32", [grid, 1, 1], 1024, args![logits, settings, numbers, tokens, length])])
}
