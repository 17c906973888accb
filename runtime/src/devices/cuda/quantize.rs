//! Numbers of eight bits on GPUs: greatest magnitudes, scales, and what is left of values.

use super::lower::{Lower, Lowering};
use crate::devices::cpu::quantize::tiles as cut;
use crate::ops::quantize::{FormatScale, Fp8, Group, Quantize, Scale, ScaleBy};
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::Element;
use mobilis_cuda::quantize::{self as kernel, Format, Tiles, To};

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
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(kernel::amax(x, Element::F32, count, y)?);
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
    let (x, left) = (cx.input(0), cx.output(0));
    if !applies {
        cx.launch(kernel::round_bf16(x, left, count)?);
        return Ok(());
    }
    let (x, to) = ((x, Element::F32), To { left, ..To::default() });
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
            cx.launch(kernel::tiles(x, at, format(op.format), scaling(*scale), to, (Ptr::NULL, [0; 2]))?);
        }
    }
    Ok(())
}
