//! Long sums cut into parts, so that all of a device works on them, and added in one order (`parts.cu`).

use crate::size::tiles;
use crate::{Launch, Ptr, args};

/// Blocks that fill a large device twice.
pub const FULL: usize = 264;

/// Into how many parts to cut a sum of `depth` that `blocks` blocks would make, and the depth of a part.
pub fn split(depth: usize, blocks: usize) -> (usize, usize) {
    let parts = (FULL / blocks.max(1)).min(depth / 256).max(1);
    let part = depth.div_ceil(parts).next_multiple_of(8).max(8);
    (depth.div_ceil(part).max(1), part)
}

/// `to[i] = sum over p of parts[p, i]`, for `count` parts of `n` values, fewer than 2³¹ in all.
pub fn sum(parts: Ptr, to: Ptr, count: usize, n: usize) -> Launch {
    Launch::new("sum_parts_f32", [tiles(n, 256), 1, 1], 256, args![parts, to, count as i32, n as i32])
}
