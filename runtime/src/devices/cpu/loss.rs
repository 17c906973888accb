//! Cross-entropy on the CPU.

use super::lower::Lower;
use crate::ops::loss::CrossEntropyOptions;
use mobilis_kernels::cpu::loss::{CrossEntropy, cross_entropy, cross_entropy_grad};

pub(super) fn kernel(o: &CrossEntropyOptions, classes: usize) -> CrossEntropy {
    CrossEntropy { classes, ignore: o.ignore_index, smoothing: o.label_smoothing as f32, z_loss: o.z_loss as f32 }
}

/// The sizes of logits end with that of the classes.
fn classes(cx: &Lower) -> usize {
    *cx.input_sizes(0).last().expect("the shape rule asks for classes")
}

pub fn lower(options: &CrossEntropyOptions, cx: &mut Lower) {
    let kernel = kernel(options, classes(cx));
    let (logits, targets) = (cx.input(0), cx.input(1));
    let (losses, lses) = (cx.output(0), cx.output(1));
    cx.try_task(move |m| {
        let targets = m.i32(targets);
        kernel.check(&targets)?;
        cross_entropy(m.pool(), kernel, &m.f32(logits), &targets, &mut m.f32_mut(losses), &mut m.f32_mut(lses));
        Ok(())
    });
}

pub fn grad(options: &CrossEntropyOptions, cx: &mut Lower) {
    let kernel = kernel(options, classes(cx));
    let [logits, targets, lses, g] = [0, 1, 2, 3].map(|i| cx.input(i));
    let gx = cx.output(0);
    cx.try_task(move |m| {
        let targets = m.i32(targets);
        kernel.check(&targets)?;
        let (logits, lses, g) = (m.f32(logits), m.f32(lses), m.f32(g));
        cross_entropy_grad(m.pool(), kernel, &logits, &targets, &lses, &g, &mut m.f32_mut(gx));
        Ok(())
    });
}
