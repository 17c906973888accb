//! Constants on GPUs: a value that repeats through strides of 0.

use super::lower::{Lower, Lowering};
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::leaf::{Constant, Fill, Iota};

pub fn constant(op: &Constant, cx: &mut Lower) -> Lowering {
    let value = match &op.fill {
        Fill::Number(value) => *value,
        Fill::Size(extent) => cx.extent(extent)? as f64,
    };
    let bytes = match cx.output_dtype(0) {
        DType::F32 => (value as f32).to_ne_bytes(),
        DType::I32 => (value as i32).to_ne_bytes(),
        DType::Bool => [(value != 0.0) as u8; 4],
    };
    let dims = cx.output_sizes(0).len();
    repeated(&bytes, vec![0; dims], cx);
    Ok(())
}

pub fn iota(op: &Iota, cx: &mut Lower) -> Lowering {
    let sizes = cx.output_sizes(0);
    let last = i32::try_from(sizes[op.axis]).map_err(|_| format!("{} positions", sizes[op.axis]))?;
    let bytes: Vec<u8> = (0..last).flat_map(i32::to_ne_bytes).collect();
    let mut strides = vec![0; sizes.len()];
    strides[op.axis] = 1;
    repeated(&bytes, strides, cx);
    Ok(())
}

fn repeated(bytes: &[u8], strides: Vec<usize>, cx: &mut Lower) {
    let (sizes, dtype) = (cx.output_sizes(0).to_vec(), cx.output_dtype(0));
    let words = cx.constant(bytes);
    let offset = words.offset * 4 / dtype.bytes();
    cx.output_as(0, View { offset, sizes, strides, dtype, ..words });
}
