//! Softmax on GPUs.

use super::lower::{Lower, Lowering};
use mobilis_cuda::softmax::softmax;

pub fn lower(axis: usize, log: bool, cx: &mut Lower) -> Lowering {
    let sizes = cx.input_sizes(0).to_vec();
    if log || axis + 1 != sizes.len() {
        return Err("logarithms, and other axes than the last, have no kernel yet".into());
    }
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(softmax(x, y, sizes[..axis].iter().product(), sizes[axis])?);
    Ok(())
}
