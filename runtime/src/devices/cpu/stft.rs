//! Short-time Fourier transforms on the CPU. Where each frame's samples lie is worked out here,
//! once, so that the kernel knows nothing of padding.

use super::lower::Lower;
use crate::ops::stft::{Framing, Output, Stft, StftInputGrad, StftWindowGrad};
use crate::transforms::bands::table;
use mobilis_kernels::cpu::fourier as kernel;
use mobilis_kernels::pool::Pool;

fn plan(framing: &Framing, x: &[usize], w: &[usize], y: &[usize]) -> kernel::Stft {
    let (samples, frames, n) = (x[x.len() - 1], y[x.len()], w[0]);
    let place = (frames, framing.hop as usize, framing.pad as usize);
    kernel::Stft {
        fourier: kernel::Fourier::new(n),
        batch: x[..x.len() - 1].iter().product(),
        frames: kernel::Frames::new((samples, n), place, |at| framing.source(0, at, samples)),
        output: kernel::Output::Parts,
    }
}

pub fn stft(op: &Stft, cx: &mut Lower) {
    let (x, w, y) = (cx.input_sizes(0), cx.input_sizes(1), cx.output_sizes(0));
    let output = match op.output {
        Output::Parts => kernel::Output::Parts,
        Output::Power => kernel::Output::Power,
        // The table's bands are part of the plan: nothing reads it when the program runs.
        Output::Filtered(_) => kernel::Output::Filtered(
            table(cx.graph, cx.graph.nodes[cx.node as usize].inputs[2], false).expect("the transform found a table"),
        ),
    };
    let plan = kernel::Stft { output, ..plan(&op.framing, x, w, y) };
    let threads = Pool::global().threads();
    let (x, w, y) = (cx.input(0), cx.input(1), cx.output(0));
    let scratch = cx.scratch(plan.scratch(threads));
    cx.task(move |m| {
        let (mut y, mut scratch) = (m.f32_mut(y), m.f32_mut(scratch));
        kernel::stft(m.pool(), &plan, &m.f32(x), &m.f32(w), &mut y, &mut scratch, threads);
    });
}

pub fn stft_input_grad(op: &StftInputGrad, cx: &mut Lower) {
    let plan = plan(&op.framing, cx.output_sizes(0), cx.input_sizes(1), cx.input_sizes(0));
    let threads = Pool::global().threads();
    let (y, w, x) = (cx.input(0), cx.input(1), cx.output(0));
    let scratch = cx.scratch(plan.back_scratch(threads));
    cx.task(move |m| {
        let (mut x, mut scratch) = (m.f32_mut(x), m.f32_mut(scratch));
        kernel::stft_input_grad(m.pool(), &plan, &m.f32(y), &m.f32(w), &mut x, &mut scratch, threads);
    });
}

pub fn stft_window_grad(op: &StftWindowGrad, cx: &mut Lower) {
    let plan = plan(&op.framing, cx.input_sizes(0), cx.output_sizes(0), cx.input_sizes(1));
    let (x, y, w) = (cx.input(0), cx.input(1), cx.output(0));
    let scratch = cx.scratch(plan.window_scratch());
    cx.task(move |m| {
        let (mut w, mut scratch) = (m.f32_mut(w), m.f32_mut(scratch));
        kernel::stft_window_grad(m.pool(), &plan, &m.f32(x), &m.f32(y), &mut w, &mut scratch);
    });
}
