//! Copies between layouts (`copy.cu`).

use crate::{Arg, CudaError, Launch, Ptr, args};

/// Dimensions that copies take, after those are joined that follow each other on both sides.
pub const RANK: usize = 8;

/// Values seen through strides, counted in values; a stride may be 0 (the value repeats) or, from an
/// address at the other end, negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Strided {
    /// The first value.
    pub at: Ptr,
    /// The distance between neighbours along each dimension.
    pub strides: Vec<i64>,
}

/// Copies `sizes` values of `bytes` (1, 2 or 4) each. Source and destination must not overlap.
///
/// # Errors
/// More dimensions than [`RANK`] that cannot be joined, other sizes of values.
pub fn copy(from: &Strided, to: &Strided, sizes: &[usize], bytes: usize) -> Result<Vec<Launch>, CudaError> {
    let refused = |message: String| CudaError::Refused { kernel: "copy", message };
    if sizes.contains(&0) {
        return Ok(vec![]);
    }
    if !matches!(bytes, 1 | 2 | 4) {
        return Err(refused(format!("values of {bytes} bytes, 1, 2 and 4 are copied")));
    }
    if from.strides.len() != sizes.len() || to.strides.len() != sizes.len() {
        let (a, b) = (from.strides.len(), to.strides.len());
        return Err(refused(format!("{a} and {b} strides for {} dimensions", sizes.len())));
    }
    let dims = collapse(from, to, sizes);
    if dims.len() > RANK {
        return Err(refused(format!("{} dimensions, at most {RANK} are copied", dims.len())));
    }
    let mut launches = vec![];
    pieces(from.at, to.at, &dims, bytes, &mut launches);
    Ok(launches)
}

/// A dimension: its size and the distances on both sides.
type Dim = (usize, i64, i64);

/// Dimensions joined where both sides allow it, slowest first; at least one.
fn collapse(from: &Strided, to: &Strided, sizes: &[usize]) -> Vec<Dim> {
    let mut dims: Vec<Dim> = vec![];
    for ((n, a), b) in sizes.iter().zip(&from.strides).zip(&to.strides).filter(|d| *d.0.0 != 1) {
        match dims.last_mut() {
            Some(last) if last.1 == a * *n as i64 && last.2 == b * *n as i64 => *last = (last.0 * n, *a, *b),
            _ => dims.push((*n, *a, *b)),
        }
    }
    if dims.is_empty() {
        dims.push((1, 1, 1));
    }
    dims
}

/// Launches for all of it, a part of the slowest dimension at a time where there are more values than a
/// launch counts.
fn pieces(from: Ptr, to: Ptr, dims: &[Dim], bytes: usize, launches: &mut Vec<Launch>) {
    const MOST: usize = 1 << 30;
    let inner: usize = dims[1..].iter().map(|d| d.0).product();
    let (n, a, b) = dims[0];
    if n.saturating_mul(inner) <= MOST {
        launches.push(whole(from, to, dims, bytes));
        return;
    }
    let step = (MOST / inner).max(1);
    for first in (0..n).step_by(step) {
        let many = step.min(n - first);
        let off = |at: Ptr, stride: i64| Ptr(at.0.wrapping_add_signed(first as i64 * stride * bytes as i64));
        let (x, y) = (off(from, a), off(to, b));
        if many == 1 && dims.len() > 1 {
            pieces(x, y, &dims[1..], bytes, launches);
        } else {
            let mut part = dims.to_vec();
            part[0].0 = many;
            launches.push(whole(x, y, &part, bytes));
        }
    }
}

/// How many blocks a grid of `count` threads in blocks of 256 has; kernels go on in steps of the grid.
pub(crate) fn blocks(count: usize) -> u32 {
    count.div_ceil(256).min(1 << 16) as u32
}

fn whole(from: Ptr, to: Ptr, dims: &[Dim], bytes: usize) -> Launch {
    if let Some(launch) = turned(from, to, dims, bytes) {
        return launch;
    }
    // Neighbours on both sides move together, as far as everything is aligned.
    let mut dims = dims.to_vec();
    let mut bytes = bytes;
    let last = dims.len() - 1;
    while bytes < 16 && dims[last].1 == 1 && dims[last].2 == 1 && dims[last].0.is_multiple_of(2) {
        let wide = 2 * bytes as u64;
        let even = dims[..last].iter().all(|d| d.1 % 2 == 0 && d.2 % 2 == 0);
        if !even || !from.0.is_multiple_of(wide) || !to.0.is_multiple_of(wide) {
            break;
        }
        bytes *= 2;
        dims[last].0 /= 2;
        dims[..last].iter_mut().for_each(|d| (d.1, d.2) = (d.1 / 2, d.2 / 2));
    }
    let count: usize = dims.iter().map(|d| d.0).product();
    let mut words = [0u64; 16];
    let mut strides = [0u64; 16];
    for (k, (n, a, b)) in dims.iter().enumerate() {
        words[k / 2] |= (*n as u64) << (32 * (k % 2));
        words[4 + k] = *a as u64;
        strides[k] = *b as u64;
    }
    let kernel = match bytes {
        1 => "copy_b1",
        2 => "copy_b2",
        4 => "copy_b4",
        8 => "copy_b8",
        _ => "copy_b16",
    };
    let args = args![from, to, count as u32, dims.len() as i32, Arg::Block(words), Arg::Block(strides)];
    Launch::new(kernel, [blocks(count), 1, 1], 256, args)
}

/// A transposition: the destination's neighbours lie far apart, the source's belong to another dimension.
fn turned(from: Ptr, to: Ptr, dims: &[Dim], bytes: usize) -> Option<Launch> {
    let last = dims.len().checked_sub(1)?;
    let (columns, across, 1) = dims[last] else { return None };
    let (outer, row) = match last {
        1 => ((1, 0, 0), dims[0]),
        2 => (dims[0], dims[1]),
        _ => return None,
    };
    let fits = row.0.div_ceil(32) < 1 << 31 && columns.div_ceil(32) < 1 << 16 && outer.0 < 1 << 16;
    if bytes != 4 || row.1 != 1 || across == 1 || row.0 < 8 || columns < 8 || !fits {
        return None;
    }
    let grid = [row.0.div_ceil(32) as u32, columns.div_ceil(32) as u32, outer.0 as u32];
    let args = args![from, to, row.0 as u32, columns as u32, across, outer.1, outer.2, row.2];
    Some(Launch { block: [32, 8, 1], ..Launch::new("turn_b4", grid, 256, args) })
}

/// Rows `[outer, n, inner]` of which `length` positions from one that is known on the device are moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Rows.
    pub outer: usize,
    /// Positions of a row.
    pub n: usize,
    /// Positions that move.
    pub length: usize,
    /// Values of a position.
    pub inner: usize,
    /// Bytes of a value: 1 or 4.
    pub bytes: usize,
}

fn counted(kernel: &'static str, counts: &[usize]) -> Result<(), CudaError> {
    let all = counts.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
    match all {
        Some(n) if n < 1 << 31 => Ok(()),
        _ => Err(CudaError::Refused {
            kernel,
            message: format!("{counts:?} values, fewer than {} are taken", 1u32 << 31),
        }),
    }
}

/// Takes a block out of rows, or with `into` puts one there. `found` are three `int`s: 1 and the position
/// where it is refused.
///
/// # Errors
/// 2³¹ values or more.
pub fn moved(x: Ptr, y: Ptr, start: Ptr, found: Ptr, s: Moved, into: bool) -> Result<Vec<Launch>, CudaError> {
    counted("move", &[s.outer, s.n.max(s.length), s.inner])?;
    // An empty block is checked too.
    let count = s.outer * s.length * s.inner;
    let kernel = if s.bytes == 1 { "move_b1" } else { "move_b4" };
    let sizes = [s.outer as u32, s.n as u32, s.length as u32, s.inner as u32];
    let args = args![x, y, start, found, sizes[0], sizes[1], sizes[2], sizes[3], into as i32];
    Ok(vec![Launch::new(kernel, [blocks(count).max(1), 1, 1], 256, args)])
}

/// Writes the first `count[b]` of `t` entries of `block[b]` to `y[b]` from slot `start[b]` on, each of
/// `inner` values of four bytes; with `wrap` slots are a ring. `found` are three `int`s: 1, the start and
/// the count where they are refused.
///
/// # Errors
/// 2³¹ values or more, more than 65,535 sequences.
pub fn write_rows(
    (block, y): (Ptr, Ptr),
    (start, count, found): (Ptr, Ptr, Ptr),
    (batch, t, slots, inner): (usize, usize, usize, usize),
    wrap: bool,
) -> Result<Vec<Launch>, CudaError> {
    counted("write_rows", &[batch, t.max(slots), inner])?;
    if batch > 0xffff {
        return Err(CudaError::Refused { kernel: "write_rows", message: format!("{batch} sequences, at most 65535") });
    }
    let args = args![block, y, start, count, found, t as u32, slots as u32, inner as u32, wrap as i32];
    Ok(vec![Launch::new("write_rows_b4", [blocks(t * inner).max(1), batch as u32, 1], 256, args)])
}

/// What padding repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// A mirror image without the edge.
    Reflect = 1,
    /// The edge.
    Replicate = 2,
    /// The other end.
    Circular = 3,
}

/// Rows `[outer, n, inner]` to `[outer, m, inner]`, with `before` positions before the first. The caller has
/// checked that the source is long enough.
///
/// # Errors
/// 2³¹ values or more.
pub fn pad(
    (x, y): (Ptr, Ptr),
    (outer, n, m, inner): (usize, usize, usize, usize),
    before: usize,
    edge: Edge,
    bytes: usize,
) -> Result<Vec<Launch>, CudaError> {
    counted("pad", &[outer, n.max(m), inner])?;
    let count = outer * m * inner;
    if count == 0 {
        return Ok(vec![]);
    }
    let kernel = if bytes == 1 { "pad_b1" } else { "pad_b4" };
    let args = args![x, y, count as u32, n as u32, m as u32, inner as u32, before as i32, edge as i32];
    Ok(vec![Launch::new(kernel, [blocks(count), 1, 1], 256, args)])
}

/// `count` times the four bytes `value`.
///
/// # Errors
/// 2³¹ values or more.
pub fn fill(y: Ptr, value: u32, count: usize) -> Result<Vec<Launch>, CudaError> {
    counted("fill", &[count])?;
    if count == 0 {
        return Ok(vec![]);
    }
    Ok(vec![Launch::new("fill_b4", [blocks(count), 1, 1], 256, args![y, value, count as u32])])
}
