//! Cross-entropy on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::loss::CrossEntropyOptions;
use mobilis_cuda::loss::CrossEntropy;
use mobilis_cuda::rows::Number;

fn kernel(o: &CrossEntropyOptions, cx: &mut Lower) -> CrossEntropy {
    let classes = *cx.input_sizes(0).last().expect("the shape rule asks for classes");
    CrossEntropy {
        rows: cx.input_sizes(1).iter().product(),
        classes,
        ignore: o.ignore_index,
        smoothing: o.label_smoothing as f32,
        z_loss: o.z_loss as f32,
        number: Number::F32,
        status: cx.status(),
    }
}

pub fn lower(options: &CrossEntropyOptions, cx: &mut Lower) -> Lowering {
    let kernel = kernel(options, cx);
    let (logits, targets) = (cx.input(0), cx.input(1));
    let (losses, lses) = (cx.output(0), cx.output(1));
    cx.launch(kernel.forward(logits, targets, losses, lses)?);
    Ok(())
}

pub fn grad(options: &CrossEntropyOptions, cx: &mut Lower) -> Lowering {
    let kernel = kernel(options, cx);
    let [logits, targets, lses, g] = [0, 1, 2, 3].map(|i| cx.input(i));
    let gx = cx.output(0);
    cx.launch(kernel.backward(logits, targets, lses, g, gx)?);
    Ok(())
}
