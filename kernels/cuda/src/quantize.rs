//! Numbers of eight bits (`quantize.cu`): greatest magnitudes, scales, codes and what is left of values; and values as
//! other types. Bit for bit `mobilis_kernels::fp8`.

use crate::gemm::launch::grid;
use crate::gemm::{Element, Matrix};
use crate::size::{int, refused, tiles as blocks};
use crate::{Arg, CudaError, Launch, Ptr, args};

/// A format of eight bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Up to 448.
    E4M3,
    /// Up to 57344.
    E5M2,
}

impl Format {
    fn max(self) -> f32 {
        if self == Format::E4M3 { 448.0 } else { 57344.0 }
    }
    /// As operands of products have it.
    pub fn element(self) -> Element {
        if self == Format::E4M3 { Element::E4M3 } else { Element::E5M2 }
    }
}

/// How a scale follows from a greatest magnitude: `mobilis_kernels::fp8::Scale`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    /// `max / amax`, 1 where that is no number.
    Exact {
        /// `amax` is at least this.
        epsilon: f32,
        /// Rounded down to a power of two.
        power_of_two: bool,
    },
    /// A power of two that eight bits hold, as microscaling has it.
    E8M0,
}

fn rule(format: Format, scale: Scale) -> [Arg; 4] {
    let (e8m0, power, epsilon) = match scale {
        Scale::Exact { epsilon, power_of_two } => (0, power_of_two as i32, epsilon),
        Scale::E8M0 => (1, 0, 0.0),
    };
    [Arg::I32(e8m0), Arg::I32(power), Arg::F32(epsilon), Arg::F32(format.max())]
}

/// The greatest magnitude of `count` values, 0 for nothing, NaN passed over: one `f32` at `amax`.
///
/// # Errors
/// None yet.
pub fn amax(x: Ptr, element: Element, count: usize, amax: Ptr) -> Result<Vec<Launch>, CudaError> {
    let mut launches = vec![Launch::new("quantize_clear", [1, 1, 1], 1, args![amax])];
    if count > 0 {
        let size = count.div_ceil(256 * 8).clamp(1, 1024) as u32;
        let list = args![x, element as i32, count as i64, amax];
        launches.push(Launch::new("quantize_amax", [size, 1, 1], 256, list));
    }
    Ok(launches)
}

/// One scale from one greatest magnitude; with `old` (an address and a margin) that of delayed scaling.
pub fn scale(format: Format, by: Scale, amax: Ptr, old: Option<(Ptr, f32)>, to: Ptr) -> Vec<Launch> {
    let (old, margin) = old.unwrap_or((Ptr::NULL, 0.0));
    let mut list = args![amax, old, (-margin).exp2()];
    list.extend(rule(format, by));
    list.push(Arg::Ptr(to));
    vec![Launch::new("quantize_scale", [1, 1, 1], 1, list)]
}

/// Where results go; each may be null.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct To {
    /// Codes, as the values lie.
    pub codes: Ptr,
    /// Codes with rows and columns exchanged.
    pub turned: Ptr,
    /// What is left of the values, `f32`.
    pub left: Ptr,
}

/// `[rows, columns]` with the scale at `scale`; the greatest magnitude in the same pass goes to `amax` (cleared before),
/// unless that is null.
///
/// # Errors
/// 2³¹ rows or columns, more than 4 million rows.
pub fn scaled(
    (x, element): (Ptr, Element),
    [rows, columns]: [usize; 2],
    format: Format,
    scale: Ptr,
    to: To,
    amax: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (m, n) = (int("quantize", "rows", rows)?, int("quantize", "columns", columns)?);
    if rows.div_ceil(64) >= 1 << 16 {
        return Err(refused("quantize", format!("{rows} rows, at most {} are taken", 64 * 65_535)));
    }
    let clear = (amax != Ptr::NULL).then(|| Launch::new("quantize_clear", [1, 1, 1], 1, args![amax]));
    let mut launches: Vec<Launch> = clear.into_iter().collect();
    if rows > 0 && columns > 0 {
        let format = format.element() as i32;
        let list = args![x, element as i32, m, n, scale, format, to.codes, to.turned, to.left, amax];
        let size = [blocks(columns, 64), blocks(rows, 64), 1];
        launches.push(Launch::new("quantize_scaled", size, 256, list));
    }
    Ok(launches)
}

/// Tiles of `[outer, rows, columns]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiles {
    /// Matrices.
    pub outer: usize,
    /// Rows and columns of each.
    pub size: [usize; 2],
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
}

/// Every value with the scale of its tile. The reciprocals of scales go to `back` (address; distances between tiles below
/// and beside each other), unless that is null; matrices of a batch follow each other.
///
/// # Errors
/// 2³¹ rows or columns; tiles without values.
pub fn tiles(
    (x, element): (Ptr, Element),
    at: Tiles,
    format: Format,
    by: Scale,
    to: To,
    (back, far): (Ptr, [usize; 2]),
) -> Result<Vec<Launch>, CudaError> {
    let Tiles { outer, size: [rows, columns], tile: [high, wide] } = at;
    if high == 0 || wide == 0 {
        return Err(refused("quantize", format!("tiles of {high} by {wide}, expected values in them")));
    }
    if outer == 0 || rows == 0 || columns == 0 {
        return Ok(vec![]);
    }
    let (high, wide) = (high.min(rows), wide.min(columns));
    let all = outer * rows.div_ceil(high) * columns.div_ceil(wide);
    let mut list = args![x, element as i32, int("quantize", "matrices", outer)?];
    for n in [rows, columns, high, wide] {
        list.push(Arg::I32(int("quantize", "rows or columns", n)?));
    }
    list.extend(rule(format, by));
    list.extend(args![format.element() as i32, to.codes, to.turned, to.left, back, far[0] as i64, far[1] as i64]);
    let (kernel, size) = match (wide, high * wide) {
        (1, _) => ("quantize_tiles_1", all.div_ceil(256)),
        (_, ..=512) => ("quantize_tiles_32", all.div_ceil(8)),
        _ => ("quantize_tiles_256", all),
    };
    Ok(vec![Launch::new(kernel, [grid(size)?, 1, 1], 256, list)])
}

/// `f32` rounded to bf16, as `f32`.
///
/// # Errors
/// More values than a grid has threads.
pub fn round_bf16(x: Ptr, y: Ptr, count: usize) -> Result<Vec<Launch>, CudaError> {
    if count == 0 {
        return Ok(vec![]);
    }
    Ok(vec![Launch::new("round_bf16", [grid(count.div_ceil(256))?, 1, 1], 256, args![x, y, count as i64])])
}

/// `count` values one after the other as values of another type, each the nearest number: of `f32`, bf16 and f16.
///
/// # Errors
/// Another type; more values than a grid has threads.
pub fn recast((x, from): (Ptr, Element), (y, to): (Ptr, Element), count: usize) -> Result<Vec<Launch>, CudaError> {
    if let Some(other) = [from, to].into_iter().find(|e| !matches!(e, Element::F32 | Element::Bf16 | Element::F16)) {
        return Err(refused("convert", format!("{other:?} as values one by one, expected f32 or 16 bits")));
    }
    if count == 0 {
        return Ok(vec![]);
    }
    let even = i32::from((x.0 | y.0).is_multiple_of(16));
    let list = args![x, from as i32, y, to as i32, count as i64, even];
    Ok(vec![Launch::new("convert_flat", [grid(count.div_ceil(256 * 8))?, 1, 1], 256, list)])
}

/// The reciprocal of one scale.
pub fn back(scale: Ptr, to: Ptr) -> Vec<Launch> {
    vec![Launch::new("quantize_back", [1, 1, 1], 1, args![scale, to])]
}

/// A batch of matrices `[rows, columns]`, times the `f32` at `scale` unless that is null, as values of another type,
/// columns together and rows `line` values apart: what tensor cores read.
///
/// # Errors
/// More rows or matrices than a grid has blocks.
pub fn convert(
    x: &Matrix,
    batch: [usize; 2],
    [rows, columns]: [usize; 2],
    scale: Ptr,
    (to, element): (Ptr, Element),
    line: usize,
) -> Result<Vec<Launch>, CudaError> {
    let count = batch[0] * batch[1];
    if count == 0 || rows == 0 || columns == 0 {
        return Ok(vec![]);
    }
    if count >= 1 << 16 || rows.div_ceil(32) >= 1 << 16 {
        return Err(refused("convert", format!("{count} matrices of {rows} rows, more than a grid has blocks")));
    }
    let mut list = args![x.at, x.element as i32];
    for n in [batch[0], batch[1], rows, columns] {
        list.push(Arg::I32(int("convert", "rows or columns", n)?));
    }
    list.extend([x.outer, x.inner, x.row, x.col].map(|n| Arg::I64(n as i64)));
    list.extend(args![to, element as i32, line as i64, scale]);
    let size = [blocks(columns, 32), blocks(rows, 32), count as u32];
    Ok(vec![Launch::new("convert_rows", size, 256, list)])
}
