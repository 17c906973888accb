//! Order: sorted rows, the first of them, places of extremes (`sort.cu`).

use crate::rows::count;
use crate::softmax::Along;
use crate::{CudaError, Launch, Ptr, args};

/// Keys that a block sorts.
const TILE: usize = 2048;

/// The `first` values of each of `rows` rows of `n` in order, and their places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sort {
    /// Rows.
    pub rows: usize,
    /// Values of a row.
    pub n: usize,
    /// How many of them come out.
    pub first: usize,
    /// From the largest down.
    pub descending: bool,
    /// Whether values are `f32`, else `i32`. NaN comes last in both directions.
    pub real: bool,
}

impl Sort {
    /// Whether the first are selected rather than the row sorted.
    fn selects(self) -> bool {
        self.n > 2 * TILE && self.first <= TILE && self.first * 4 <= self.n
    }
}

/// Bytes of workspace that [`sort`] needs.
pub fn workspace(s: Sort) -> usize {
    if s.n <= TILE || s.selects() { 0 } else { 2 * (s.rows * s.n * 8).next_multiple_of(256) }
}

/// Sorts `x [rows, n]` into `values [rows, first]` and `places [rows, first]`.
///
/// # Errors
/// More to come out than there are, 2³⁰ values in a row or more, more tiles than a grid has blocks.
pub fn sort(s: Sort, x: Ptr, values: Ptr, places: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    if s.first > s.n || s.n >= 1 << 30 {
        let message = format!("the first {} of {} values; at most 2^30 are sorted", s.first, s.n);
        return Err(CudaError::Refused { kernel: "sort", message });
    }
    if s.rows * s.first == 0 {
        return Ok(vec![]);
    }
    let (n, first) = (s.n as i32, s.first as i32);
    let (real, descending) = (i32::from(s.real), i32::from(s.descending));
    if s.selects() {
        let grid = count("sort", "rows", s.rows)? as u32;
        return Ok(vec![Launch::new(
            "top_places",
            [grid, 1, 1],
            1024,
            args![x, values, places, n, first, real, descending],
        )]);
    }
    let tiles = s.n.div_ceil(TILE);
    let grid = [count("sort", "blocks", s.rows * tiles)? as u32, 1, 1];
    let (mut from, mut to) = (workspace, workspace.at((s.rows * s.n * 8).next_multiple_of(256)));
    let args = args![x, from, values, places, n, first, tiles as i32, real, descending];
    let mut launches = vec![Launch::new("sort_tiles", grid, 512, args)];
    if tiles == 1 {
        return Ok(launches);
    }
    let mut run = TILE;
    while run < s.n {
        launches.push(Launch::new("sort_merge", grid, 256, args![from, to, n, tiles as i32, run as i32]));
        (from, to) = (to, from);
        run *= 2;
    }
    let total = s.rows * s.first;
    let blocks = count("sort", "blocks", total.div_ceil(256))? as u32;
    launches.push(Launch::new(
        "sort_finish",
        [blocks, 1, 1],
        256,
        args![from, x, values, places, total as i64, n, first],
    ));
    Ok(launches)
}

/// The place of the largest (smallest) value along the middle of `[outer, n, inner]`, the first of equals; NaN
/// is larger (smaller) than everything.
///
/// # Errors
/// No values to choose from, 2³¹ of them or more, more lines than a grid has blocks.
pub fn arg_extreme(x: Ptr, y: Ptr, along: Along, real: bool, largest: bool) -> Result<Vec<Launch>, CudaError> {
    let Along { outer, n, inner } = along;
    let length = count("arg_extreme", "values", n)?;
    if outer * inner == 0 {
        return Ok(vec![]);
    }
    if n == 0 {
        return Err(CudaError::Refused { kernel: "arg_extreme", message: "looks for a place among no values".into() });
    }
    let (real, largest) = (i32::from(real), i32::from(largest));
    if inner == 1 {
        let grid = count("arg_extreme", "blocks", outer.div_ceil(8))? as u32;
        return Ok(vec![Launch::new(
            "arg_extreme_rows",
            [grid, 1, 1],
            256,
            args![x, y, outer as i64, length, real, largest],
        )]);
    }
    let grid = count("arg_extreme", "blocks", (outer * inner).div_ceil(256))? as u32;
    let args = args![x, y, (outer * inner) as i64, length, inner as i64, real, largest];
    Ok(vec![Launch::new("arg_extreme_columns", [grid, 1, 1], 256, args)])
}
