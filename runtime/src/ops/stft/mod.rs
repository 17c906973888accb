//! Short-time Fourier transform and its inverse (Allen and Rabiner 1977; PyTorch: `stft` with
//! `onesided=True`, `istft`).
//!
//! ```text
//! y[.., k, t, 0] + i y[.., k, t, 1] = sum over n of w[n] x[.., t hop + n - pad] exp(-2 pi i k n / N)
//! ```
//!
//! for the bins `k` of `0 ..= N / 2` of a real signal; `N` is the length of the window. Beyond
//! its ends the signal is zero or reflected. Real and imaginary parts are a last dimension of 2,
//! as `torch.view_as_real` gives them.
//!
//! The sum is linear in the signal and in the window, so, as with convolutions, [`Stft`],
//! [`StftInputGrad`] (which transforms back, multiplies by the window and adds overlaps) and
//! [`StftWindowGrad`] are closed under differentiation. The inverse transform is the second with
//! bins weighted as in an inverse real transform, divided by the same of the squared window.

mod inverse;
mod typed;
mod windows;

pub use inverse::istft;
pub use windows::{WindowShape, window};

use super::conv::window_length;
use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, fail, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

/// What lies beyond the ends of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Edge {
    /// Zeros.
    Zeros,
    /// The signal mirrored at its first and last sample, again and again if need be.
    #[default]
    Reflect,
}

/// How frames are cut from a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Framing {
    /// Samples between the starts of neighbouring frames.
    pub hop: u64,
    /// Samples added before and after; half a window makes frames centred.
    pub pad: u64,
    /// What they are.
    pub edge: Edge,
}

impl Framing {
    /// The sample that stands at place `n` of frame `t`; `None` for a zero.
    pub fn source(&self, t: usize, n: usize, samples: usize) -> Option<usize> {
        let at = (t * self.hop as usize + n) as i64 - self.pad as i64;
        if (0..samples as i64).contains(&at) {
            return Some(at as usize);
        }
        if self.edge == Edge::Zeros || samples == 0 {
            return None;
        }
        let period = 2 * (samples as i64 - 1);
        let folded = if period == 0 { 0 } else { at.rem_euclid(period) };
        Some(folded.min(period - folded) as usize)
    }

    /// Checks signal, window and spectrum against each other.
    fn check(&self, x: &[Dim], w: &[Dim], y: &[Dim]) -> Result<(), String> {
        let typed = |dims: &[Dim]| TensorType::new(dims.to_vec(), DType::F32);
        if x.is_empty() || w.len() != 1 || y.len() != x.len() + 2 {
            return Err(format!(
                "joins a signal [.., samples], a window and a spectrum [.., bins, frames, 2], is given {}, {} and {}",
                typed(x),
                typed(w),
                typed(y)
            ));
        }
        let lead = x.len() - 1;
        if x[..lead].iter().zip(y).any(|(a, b)| a.extent != b.extent) {
            return Err(format!("has signals {} and spectra {}", typed(x), typed(y)));
        }
        let expected = [bins(&w[0].extent), self.frames(&x[lead].extent, &w[0].extent)?, Extent::constant(2)];
        for (dim, expected) in y[lead..].iter().zip(expected) {
            if dim.extent != expected {
                return Err(format!("of {} with a window of `{}` gives {expected}, not `{dim}`", typed(x), w[0]));
            }
        }
        Ok(())
    }

    /// The number of frames: `floor((samples + 2 pad - N) / hop) + 1`.
    ///
    /// # Errors
    /// A hop of 0 or a window longer than the padded signal.
    pub fn frames(&self, samples: &Extent, window: &Extent) -> Result<Extent, String> {
        window_length(samples, window, self.hop, [self.pad; 2], 1)
    }

    fn attributes(&self) -> String {
        format!("hop={} pad={} {:?}", self.hop, self.pad, self.edge).to_lowercase()
    }
}

/// `floor(N / 2) + 1`
fn bins(window: &Extent) -> Extent {
    Extent::add(Extent::floor_div(window.clone(), Extent::constant(2)), Extent::constant(1))
}

/// The transform: `x[.., samples], w[N] -> y[.., bins, frames, 2]`.
#[derive(Clone, Debug)]
pub struct Stft {
    /// How frames are cut.
    pub framing: Framing,
    /// The dimensions of `y`.
    pub dims: Vec<Dim>,
    /// What is made of the spectrum.
    pub output: Output,
}

/// What is made of a spectrum. Transforms of graphs make more than its parts of it, after gradients
/// were taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Real and imaginary parts.
    Parts,
    /// The sum of the squares of both: `[.., bins, frames]`.
    Power,
    /// A third input `[rows, bins]`, a table of this dimension, times these: `[.., rows, frames]`.
    Filtered(Dim),
}

/// Its gradient by the signal: `y, w -> x`.
#[derive(Clone, Debug)]
pub struct StftInputGrad {
    /// How frames are cut.
    pub framing: Framing,
    /// The dimensions of `x`.
    pub dims: Vec<Dim>,
}

/// Its gradient by the window: `x, y -> w`.
#[derive(Clone, Debug)]
pub struct StftWindowGrad {
    /// How frames are cut.
    pub framing: Framing,
    /// The dimensions of `w`.
    pub dims: Vec<Dim>,
}

fn real<'a, const N: usize>(inputs: &[&'a TensorType]) -> Result<[&'a TensorType; N], String> {
    match inputs.iter().find(|t| t.dtype != DType::F32) {
        Some(ty) => Err(format!("takes real values, is given {ty}")),
        None => arity(inputs),
    }
}

/// A fast transform of each frame: about `2.5 N log2 N` operations; here, without logarithms of
/// extents, as for `N = 512`.
fn cost(spectrum: &TensorType, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
    Cost::streaming(Extent::mul(spectrum.count(), Extent::constant(23)), inputs, outputs)
}

impl Rule for Stft {
    fn name(&self) -> &'static str {
        match self.output {
            Output::Parts => "stft",
            Output::Power => "power_spectrum",
            Output::Filtered(_) => "filtered_spectrum",
        }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let bank = inputs.get(2).filter(|_| matches!(self.output, Output::Filtered(_)));
        let [x, w] = real(&inputs[..inputs.len() - bank.iter().len()])?;
        self.framing.check(&x.dims, &w.dims, &self.dims)?;
        let mut dims = self.dims.clone();
        if self.output != Output::Parts {
            dims.pop();
        }
        if let Output::Filtered(rows) = &self.output {
            let at = dims.len() - 2;
            match bank.map(|b| &b.dims[..]) {
                Some([r, bins]) if r.extent == rows.extent && bins.extent == dims[at].extent => {}
                _ => return Err(format!("has filters that are not `{rows}` by `{}`", dims[at])),
            }
            dims[at] = rows.clone();
        }
        Ok(vec![TensorType::new(dims, DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        if self.output != Output::Parts {
            return Err(NoGradient("power spectra are made after differentiation".into()));
        }
        let (x, w, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        Ok(vec![
            cx.wanted[0].then(|| stft_input_grad(g, w, self.framing, type_of(x).dims)),
            cx.wanted[1].then(|| stft_window_grad(x, g, self.framing, type_of(w).dims)),
        ])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        cost(&outputs[0], inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.framing.attributes()
    }
}

impl Rule for StftInputGrad {
    fn name(&self) -> &'static str {
        "stft_input_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [y, w] = real(inputs)?;
        self.framing.check(&self.dims, &w.dims, &y.dims)?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (y, w, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        Ok(vec![
            cx.wanted[0].then(|| stft_to(g, w, self.framing, type_of(y).dims)),
            cx.wanted[1].then(|| stft_window_grad(g, y, self.framing, type_of(w).dims)),
        ])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        cost(inputs[0], inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.framing.attributes()
    }
}

impl Rule for StftWindowGrad {
    fn name(&self) -> &'static str {
        "stft_window_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, y] = real(inputs)?;
        self.framing.check(&x.dims, &self.dims, &y.dims)?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, y, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        Ok(vec![
            cx.wanted[0].then(|| stft_input_grad(y, g, self.framing, type_of(x).dims)),
            cx.wanted[1].then(|| stft_to(x, g, self.framing, type_of(y).dims)),
        ])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        cost(inputs[1], inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.framing.attributes()
    }
}

/// The transform with a result of the given dimensions.
pub fn stft_to(x: Handle, w: Handle, framing: Framing, dims: Vec<Dim>) -> Handle {
    op1(Stft { framing, dims, output: Output::Parts }, &[x, w])
}

/// The transform; bins and frames have no names.
pub fn stft(x: Handle, w: Handle, framing: Framing) -> Handle {
    let (mut dims, window) = (type_of(x).dims, type_of(w).dims);
    if let (Some(samples), Some(window)) = (dims.pop(), window.first()) {
        match framing.frames(&samples.extent, &window.extent) {
            Ok(frames) => dims.extend([bins(&window.extent), frames, Extent::constant(2)].map(Dim::anonymous)),
            Err(e) => {
                fail(format!("stft: {e}"));
                return x;
            }
        }
    }
    stft_to(x, w, framing, dims)
}

/// The gradient by the signal, of dimensions `dims`: each frame transformed back, times the
/// window, overlaps added.
pub fn stft_input_grad(y: Handle, w: Handle, framing: Framing, dims: Vec<Dim>) -> Handle {
    op1(StftInputGrad { framing, dims }, &[y, w])
}

/// The gradient by the window.
pub fn stft_window_grad(x: Handle, y: Handle, framing: Framing, dims: Vec<Dim>) -> Handle {
    op1(StftWindowGrad { framing, dims }, &[x, y])
}
