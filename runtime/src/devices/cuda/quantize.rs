//! Numbers of eight bits on GPUs: greatest magnitudes, scales, and what is left of values.
//!
//! Where scales are those of tiles that tensor cores multiply by, the same launch leaves the codes and what undoes
//! their scales ([`Codes`]) for the products that follow (`narrow.rs`).

use super::lower::{Lower, Lowering};
use crate::devices::cpu::quantize::tiles as cut;
use crate::graph::{DType, Value};
use crate::ops::quantize::{FormatScale, Fp8, Group, Quantize, Scale, ScaleBy};
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::Element;
use mobilis_cuda::quantize::{self as kernel, Format, Tiles, To};
use mobilis_kernels::memory::Piece;

/// Values as `lines` of `depth` codes that a product sums over.
#[derive(Clone, Copy)]
pub struct Codes {
    /// The format.
    pub element: Element,
    /// Lines, and values to sum over in each.
    pub size: [usize; 2],
    /// Whether they lie so in the value; else it has the lines side by side.
    pub along: bool,
    /// Lines that share a factor: 1 or 128.
    pub high: usize,
    /// Summands that share a factor: 128, or all.
    pub wide: usize,
    /// The codes, line by line.
    pub at: Piece,
    /// What undoes the scales: blocks of summands, in each the groups of lines, `far` apart.
    pub back: Piece,
    /// From one block of summands to the next: at least the groups of lines that whole tiles of 128 lines have.
    pub far: usize,
}

/// Sums of so many are scaled at once.
const DEEP: usize = 128;

/// Room for codes, where there are kernels that multiply them.
fn codes(at: &Tiles, inner_last: bool, format: Fp8, cx: &mut Lower) -> Option<Codes> {
    let ([rows, columns], [high, wide]) = (at.size, at.tile);
    let (size, tile) = if inner_last { ([rows, columns], [high, wide]) } else { ([columns, rows], [wide, high]) };
    let ([lines, depth], [high, wide]) = (size, [tile[0], tile[1].min(size[1])]);
    let fits = at.outer == 1 && matches!(high, 1 | DEEP) && (wide == depth || wide == DEEP);
    if !fits || depth == 0 || !depth.is_multiple_of(16) || cx.info().capability / 10 != 9 {
        return None;
    }
    let far = lines.next_multiple_of(DEEP) / high;
    let codes = cx.buffer(lines * depth, DType::Bool);
    let back = cx.buffer(far.next_multiple_of(2) * depth.div_ceil(wide), DType::F32);
    let (element, far) = (self::format(format).element(), far.next_multiple_of(2));
    Some(Codes { element, size, along: inner_last, high, wide, at: codes, back, far })
}

fn format(of: Fp8) -> Format {
    match of {
        Fp8::E4M3 => Format::E4M3,
        Fp8::E5M2 => Format::E5M2,
    }
}

fn scaling(by: Scale) -> kernel::Scale {
    match by {
        Scale::Exact { epsilon, power_of_two } => kernel::Scale::Exact { epsilon, power_of_two },
        Scale::E8M0 => kernel::Scale::E8M0,
    }
}

pub fn amax(cx: &mut Lower) -> Lowering {
    let count = cx.input_sizes(0).iter().product();
    let ((x, element), y) = (cx.input_stored(0), cx.output(0));
    cx.launch(kernel::amax(x, element, count, y)?);
    Ok(())
}

pub fn scale(op: &FormatScale, cx: &mut Lower) -> Lowering {
    let amax = cx.input(0);
    let (by, old) = match op.by {
        ScaleBy::Current(by) => (scaling(by), None),
        ScaleBy::Delayed { margin } => (kernel::Scale::E8M0, Some((cx.input(1), margin))),
    };
    let to = cx.output(0);
    cx.launch(kernel::scale(format(op.format), by, amax, old, to));
    Ok(())
}

pub fn quantize(op: &Quantize, cx: &mut Lower) -> Lowering {
    let applies = op.applies(|e| cx.extent(e))?;
    let sizes = cx.input_sizes(0).to_vec();
    let count: usize = sizes.iter().product();
    let left = cx.output(0);
    if !applies {
        let x = cx.input(0);
        cx.launch(kernel::round_bf16(x, left, count)?);
        return Ok(());
    }
    let (x, to) = (cx.input_stored(0), To { left, ..To::default() });
    match &op.group {
        Group::All => {
            let columns = sizes.last().copied().unwrap_or(1);
            let scale = cx.input(1);
            let size = [count / columns.max(1), columns];
            cx.launch(kernel::scaled(x, size, format(op.format), scale, to, Ptr::NULL)?);
        }
        Group::Tile { inner, rows, along, scale } => {
            let at = cut(&sizes, inner, (*rows, *along));
            let at = Tiles { outer: at.outer, size: at.size.into(), tile: at.tile.into() };
            let last = inner.last().is_some_and(|d| d + 1 == sizes.len());
            let Some(codes) = codes(&at, last, op.format, cx) else {
                cx.launch(kernel::tiles(x, at, format(op.format), scaling(*scale), to, (Ptr::NULL, [0; 2]))?);
                return Ok(());
            };
            let (place, back) = (cx.at(codes.at, DType::Bool), cx.at(codes.back, DType::F32));
            let to = if last { To { codes: place, ..to } } else { To { turned: place, ..to } };
            let far = if last { [1, codes.far] } else { [codes.far, 1] };
            let launches = kernel::tiles(x, at, format(op.format), scaling(*scale), to, (back, far))?;
            // Where all readers are products of codes, the values themselves are not written.
            cx.spare.extend((0..launches.len()).map(|i| (cx.steps.len() + i, left)).collect::<Vec<_>>());
            cx.launch(launches);
            let value = Value { node: cx.node, port: 0 };
            cx.codes.insert(value, codes);
        }
    }
    Ok(())
}
