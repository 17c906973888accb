//! Short-time Fourier transforms on the reference device: the sum of the definition, term by
//! term (see `crate::ops::stft`).

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::stft::{Framing, Output, Stft, StftInputGrad, StftWindowGrad};

/// Calls `f` with the position of a sample, of a window value and of the real part of a bin (its
/// imaginary part follows), and the bin's real and imaginary factors, for every product in the
/// sum.
fn terms(
    framing: &Framing,
    (x, w, y): (&[usize], &[usize], &[usize]),
    mut f: impl FnMut(usize, usize, usize, f64, f64),
) {
    let (samples, n) = (x[x.len() - 1], w[0]);
    let lead = x.len() - 1;
    let (bins, frames) = (y[lead], y[lead + 1]);
    let batch = x[..lead].iter().product();
    for_each_index(&[batch, bins, frames, n], |index| {
        let [b, k, t, i] = *index else { return };
        if let Some(at) = framing.source(t, i, samples) {
            let angle = -2.0 * std::f64::consts::PI * ((k * i) % n) as f64 / n as f64;
            f(b * samples + at, i, ((b * bins + k) * frames + t) * 2, angle.cos(), angle.sin());
        }
    });
}

pub fn stft(op: &Stft, cx: &Eval) -> RefArray {
    let (x, w) = (cx.inputs[0], cx.inputs[1]);
    let mut sizes = cx.outputs[0].to_vec();
    let bins = sizes.len() - if op.output == Output::Parts { 3 } else { 2 };
    sizes[bins] = w.sizes[0] / 2 + 1;
    if op.output != Output::Parts {
        sizes.push(2);
    }
    let mut y = RefArray::filled(&sizes, 0.0);
    terms(&op.framing, (&x.sizes, &w.sizes, &sizes), |xi, wi, yi, re, im| {
        y.data[yi] += x.data[xi] * w.data[wi] * re;
        y.data[yi + 1] += x.data[xi] * w.data[wi] * im;
    });
    if op.output == Output::Parts {
        return y;
    }
    let squares: Vec<f64> = y.data.as_chunks::<2>().0.iter().map(|[re, im]| re * re + im * im).collect();
    let mut power = RefArray { sizes: cx.outputs[0].to_vec(), data: squares };
    if let Output::Filtered(_) = op.output {
        let (bank, k, frames) = (cx.inputs[2], sizes[bins], sizes[bins + 1]);
        let rows = bank.data.chunks_exact(k);
        let one = |of: &[f64], row: &[f64], t: usize| row.iter().enumerate().map(|(k, w)| w * of[k * frames + t]).sum();
        let signals = power.data.chunks_exact((k * frames).max(1));
        power.data = signals
            .flat_map(|of| rows.clone().flat_map(move |row| (0..frames).map(move |t| one(of, row, t))))
            .collect();
    }
    power
}

pub fn stft_input_grad(op: &StftInputGrad, cx: &Eval) -> RefArray {
    let (y, w) = (cx.inputs[0], cx.inputs[1]);
    let mut x = RefArray::filled(&cx.outputs[0], 0.0);
    terms(&op.framing, (&cx.outputs[0], &w.sizes, &y.sizes), |xi, wi, yi, re, im| {
        x.data[xi] += w.data[wi] * (y.data[yi] * re + y.data[yi + 1] * im);
    });
    x
}

pub fn stft_window_grad(op: &StftWindowGrad, cx: &Eval) -> RefArray {
    let (x, y) = (cx.inputs[0], cx.inputs[1]);
    let mut w = RefArray::filled(&cx.outputs[0], 0.0);
    terms(&op.framing, (&x.sizes, &cx.outputs[0], &y.sizes), |xi, wi, yi, re, im| {
        w.data[wi] += x.data[xi] * (y.data[yi] * re + y.data[yi + 1] * im);
    });
    w
}
