//! CTC on the CPU.

use super::lower::Lower;
use crate::ops::ctc::CtcOptions;
use mobilis_kernels::cpu::ctc::{Ctc, gradient, loss, scratch_len};
use mobilis_kernels::pool::Pool;

pub fn lower(o: &CtcOptions, cx: &mut Lower) {
    run(*o, false, cx);
}

pub fn grad(o: &CtcOptions, cx: &mut Lower) {
    run(*o, true, cx);
}

/// The losses, or the gradient by the logits.
fn run(o: CtcOptions, backward: bool, cx: &mut Lower) {
    let (sizes, labels) = (cx.input_sizes(0).to_vec(), cx.input_sizes(1)[1]);
    let given = [0, 1, 2, 3].map(|i| cx.input(i));
    let g = backward.then(|| cx.input(4));
    let out = cx.output(0);
    let threads = Pool::global().threads().min(sizes[0]).max(1);
    let scratch = cx.scratch(threads * scratch_len(sizes[1], labels, backward));
    cx.try_task(move |m| {
        let [targets, frames, counts] = [1, 2, 3].map(|i| m.i32(given[i]));
        let (time, classes, blank, zero_infinity) = (sizes[1], sizes[2], o.blank, o.zero_infinity);
        let (targets, frames, counts) = (&targets, &frames, &counts);
        let kernel = Ctc { time, labels, classes, blank, zero_infinity, targets, frames, counts };
        kernel.check()?;
        let (logits, mut out, mut scratch) = (m.f32(given[0]), m.f32_mut(out), m.f32_mut(scratch));
        match g {
            Some(g) => gradient(m.pool(), &kernel, &logits, &m.f32(g), &mut out, &mut scratch),
            None => loss(m.pool(), &kernel, &logits, &mut out, &mut scratch),
        }
        Ok(())
    });
}
