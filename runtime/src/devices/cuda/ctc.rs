//! CTC on GPUs. The gradient goes forward once more: what it needs of that is larger than what it costs.

use super::lower::{Lower, Lowering};
use crate::ops::ctc::CtcOptions;
use mobilis_cuda::ctc::{Ctc, gradient, loss};

fn kernel(o: &CtcOptions, cx: &mut Lower) -> Result<Ctc, &'static str> {
    let (sizes, labels) = (cx.input_sizes(0).to_vec(), cx.input_sizes(1)[1]);
    if sizes.contains(&0) {
        // The host knows what nothing gives.
        return Err("has no sequences, frames or classes");
    }
    let [targets, time_lengths, label_lengths] = [1, 2, 3].map(|i| cx.input(i));
    let (batch, time, classes) = (sizes[0], sizes[1], sizes[2]);
    let (blank, zero_infinity) = (o.blank, o.zero_infinity);
    Ok(Ctc { batch, time, labels, classes, blank, zero_infinity, targets, time_lengths, label_lengths })
}

pub fn lower(o: &CtcOptions, cx: &mut Lower) -> Lowering {
    let kernel = kernel(o, cx)?;
    let (logits, losses) = (cx.input(0), cx.output(0));
    let (workspace, status) = (cx.scratch(kernel.workspace()), cx.status());
    cx.launch(loss(&kernel, logits, losses, workspace, status)?);
    Ok(())
}

pub fn grad(o: &CtcOptions, cx: &mut Lower) -> Lowering {
    let kernel = kernel(o, cx)?;
    let (logits, g, grad) = (cx.input(0), cx.input(4), cx.output(0));
    let (workspace, losses, status) = (cx.scratch(kernel.workspace()), cx.scratch(4 * kernel.batch), cx.status());
    cx.launch(loss(&kernel, logits, losses, workspace, status)?);
    cx.launch(gradient(&kernel, logits, g, grad, workspace)?);
    Ok(())
}
