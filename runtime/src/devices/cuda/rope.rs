//! Rotary embedding on GPUs. Frequencies are constants of the program, unless they follow from the length of a
//! text.

use super::lower::{Lower, Lowering};
use crate::devices::reference::array::strides;
use crate::ops::rope::{Pairing, Rope, RopeTable, Scaling};
use mobilis_cuda::Ptr;
use mobilis_cuda::rope::{self, Frequencies, table};

fn constant(cx: &mut Lower, values: &[f64]) -> Ptr {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let view = cx.constant(&bytes);
    cx.address(&view)
}

pub fn lower_table(op: &RopeTable, cx: &mut Lower) -> Lowering {
    let half = *cx.output_sizes(0).last().ok_or("has no pairs")?;
    let count = cx.input_sizes(0).iter().product();
    let theta = op.rotary.theta;
    let (frequencies, numbers) = match &op.rotary.scaling {
        Scaling::Dynamic { factor, original } => (Frequencies::Dynamic, [1.0, theta, *factor, *original]),
        Scaling::LongRope { original, .. } => {
            // The two sets: for a text of the original length, and for a longer one.
            let (short, by) = op.rotary.frequencies(half, *original as usize)?;
            let (long, _) = op.rotary.frequencies(half, *original as usize + 1)?;
            let (short, long) = (constant(cx, &short), constant(cx, &long));
            (Frequencies::Long(short, long), [by, theta, 1.0, *original])
        }
        _ => {
            let (fixed, by) = op.rotary.frequencies(half, 0)?;
            (Frequencies::Fixed(constant(cx, &fixed)), [by, theta, 1.0, 0.0])
        }
    };
    let numbers = constant(cx, &numbers);
    let positions = cx.input(0);
    let lengths = if cx.inputs() > 1 { cx.input(1) } else { Ptr::NULL };
    let (cos, sin) = (cx.output(0), cx.output(1));
    cx.launch(table((positions, lengths, numbers), frequencies, (cos, sin), (count, half))?);
    Ok(())
}

pub fn lower(op: &Rope, cx: &mut Lower) -> Lowering {
    let (sizes, table) = (cx.input_sizes(0).to_vec(), cx.input_sizes(1).to_vec());
    let (features, half) = (sizes[sizes.len() - 1], table[table.len() - 1]);
    let (x, number) = cx.input_rows(0);
    let rows = strides(&sizes[..sizes.len() - 1]);
    let steps = strides(&table[..table.len() - 1]);
    let follow =
        op.axes.iter().zip(&steps).map(|(axis, step)| (rows[*axis].max(1), sizes[*axis].max(1), *step)).collect();
    let kernel = rope::Rope {
        rows: sizes[..sizes.len() - 1].iter().product(),
        features,
        half,
        interleaved: op.pairing == Pairing::Interleaved,
        inverse: op.inverse,
        follow,
        number,
    };
    let (cos, sin, y) = (cx.input(1), cx.input(2), cx.output_rows(0));
    cx.launch(kernel.apply(x, cos, sin, y)?);
    Ok(())
}
