//! Running sums (`scan.cu`).

use crate::rows::count;
use crate::softmax::Along;
use crate::{CudaError, Launch, Ptr, args};

/// Values of a tile.
const TILE: usize = 2048;

/// Parts of each row, for enough blocks.
fn parts(along: Along, multiprocessors: u32) -> usize {
    if along.inner > 1 || along.n <= 8 * TILE {
        return 1;
    }
    let wanted = (2 * multiprocessors as usize).div_ceil(along.outer.max(1));
    let length = along.n.div_ceil(wanted.clamp(1, along.n / (4 * TILE))).next_multiple_of(TILE);
    along.n.div_ceil(length)
}

/// Bytes of workspace that [`cumsum`] needs.
pub fn workspace(along: Along, multiprocessors: u32) -> usize {
    match parts(along, multiprocessors) {
        1 => 0,
        parts => (along.outer * parts * 4).next_multiple_of(256),
    }
}

/// Running sums of `f32` (`real`) or `i32` along the middle of `[outer, n, inner]`, from the end when `reverse`.
/// May work in place.
///
/// # Errors
/// 2³⁰ values along the dimension or more, more lines than a grid has blocks.
pub fn cumsum(
    (x, y, workspace): (Ptr, Ptr, Ptr),
    along: Along,
    reverse: bool,
    real: bool,
    multiprocessors: u32,
) -> Result<Vec<Launch>, CudaError> {
    let Along { outer, n, inner } = along;
    let length = count("cumsum", "values", n)?;
    let back = i32::from(reverse);
    let name = |f: &'static str, i: &'static str| if real { f } else { i };
    if outer * n * inner == 0 {
        return Ok(vec![]);
    }
    if n >= 1 << 30 {
        return Err(CudaError::Refused { kernel: "cumsum", message: format!("{n} values, at most 2^30 are summed") });
    }
    let blocks = |n: usize| count("cumsum", "blocks", n).map(|n| [n as u32, 1, 1]);
    if inner > 1 {
        let args = args![x, y, (outer * inner) as i64, length, inner as i64, back];
        let grid = blocks((outer * inner).div_ceil(256))?;
        return Ok(vec![Launch::new(name("scan_f32_columns", "scan_i32_columns"), grid, 256, args)]);
    }
    if n <= 1024 {
        let args = args![x, y, outer as i64, length, back];
        return Ok(vec![Launch::new(name("scan_f32_warps", "scan_i32_warps"), blocks(outer.div_ceil(8))?, 256, args)]);
    }
    let parts = parts(along, multiprocessors);
    let each = n.div_ceil(parts).next_multiple_of(TILE) as i32;
    let grid = blocks(outer * parts)?;
    let scan = name("scan_f32_blocks", "scan_i32_blocks");
    if parts == 1 {
        return Ok(vec![Launch::new(scan, grid, 512, args![x, y, Ptr::NULL, length, 1, each, back])]);
    }
    let sums = args![x, workspace, length, parts as i32, each, back];
    let over = args![workspace, workspace, outer as i64, parts as i32, 0];
    Ok(vec![
        Launch::new(name("scan_f32_sums", "scan_i32_sums"), grid, 512, sums),
        Launch::new(name("scan_f32_warps", "scan_i32_warps"), blocks(outer.div_ceil(8))?, 256, over),
        Launch::new(scan, grid, 512, args![x, y, workspace, length, parts as i32, each, back]),
    ])
}
