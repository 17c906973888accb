//! Softmax of rows (`softmax.cu`).

use crate::{CudaError, Launch, Ptr, args};

/// `y = softmax(x)` along the last of `[rows, n]`.
///
/// # Errors
/// Rows of 2³¹ values or more, 2³¹ rows or more.
pub fn softmax(x: Ptr, y: Ptr, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let refused = |what: &str, found: usize| CudaError::Refused {
        kernel: "softmax",
        message: format!("{found} {what}, at most {} are taken", i32::MAX),
    };
    let length = i32::try_from(n).map_err(|_| refused("values in a row", n))?;
    let grid = i32::try_from(rows).map_err(|_| refused("rows", rows))? as u32;
    if rows == 0 || n == 0 {
        return Ok(vec![]);
    }
    Ok(vec![Launch::new("softmax_f32", [grid, 1, 1], 256, args![x, y, length])])
}
