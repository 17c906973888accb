//! Short-time Fourier transforms on GPUs. Filters of a spectrum are a product behind it.

use super::contraction::multiply;
use super::lower::{Lower, Lowering};
use crate::ops::stft::{Edge, Framing, Output, Stft, StftInputGrad, StftWindowGrad};
use mobilis_cuda::gemm::{Gemm, Matrix};
use mobilis_cuda::stft as kernel;

fn sizes(framing: &Framing, x: &[usize], w: &[usize], y: &[usize]) -> kernel::Stft {
    kernel::Stft {
        signals: x[..x.len() - 1].iter().product(),
        samples: x[x.len() - 1],
        window: w[0],
        frames: y[x.len()],
        hop: framing.hop as usize,
        pad: framing.pad as usize,
        reflect: framing.edge == Edge::Reflect,
    }
}

pub fn stft(op: &Stft, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.framing, cx.input_sizes(0), cx.input_sizes(1), cx.output_sizes(0));
    let (x, w, y) = (cx.input(0), cx.input(1), cx.output(0));
    if let Output::Filtered(_) = op.output {
        let (rows, bins, frames) = (cx.input_sizes(2)[0], cx.input_sizes(2)[1], s.frames);
        let power = cx.scratch(4 * s.signals * bins * frames);
        cx.launch(kernel::stft(&s, true, x, w, power)?);
        let spectra = |at, height| Matrix { outer: height * frames, ..Matrix::rows(at, frames) };
        let bank = Matrix::rows(cx.input(2), bins);
        let product = Gemm::new([rows, frames, bins], bank, spectra(power, bins), spectra(y, rows));
        return multiply(&Gemm { batch: [s.signals, 1], ..product }, cx);
    }
    cx.launch(kernel::stft(&s, op.output != Output::Parts, x, w, y)?);
    Ok(())
}

pub fn stft_input_grad(op: &StftInputGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.framing, cx.output_sizes(0), cx.input_sizes(1), cx.input_sizes(0));
    let (y, w, x) = (cx.input(0), cx.input(1), cx.output(0));
    let scratch = cx.scratch(s.input_grad_workspace());
    cx.launch(kernel::input_grad(&s, y, w, x, scratch)?);
    Ok(())
}

pub fn stft_window_grad(op: &StftWindowGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.framing, cx.input_sizes(0), cx.output_sizes(0), cx.input_sizes(1));
    let (x, y, w) = (cx.input(0), cx.input(1), cx.output(0));
    let scratch = cx.scratch(s.window_grad_workspace());
    cx.launch(kernel::window_grad(&s, x, y, w, scratch)?);
    Ok(())
}
