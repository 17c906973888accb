//! The inverse transform, from the transform's own operations.
//!
//! Frames are transformed back, multiplied by the window once more and added where they overlap;
//! dividing by the overlapped squares of the window undoes both multiplications wherever the
//! squares do not vanish (the "nonzero overlap add" condition of Griffin and Lim 1984).

use super::{Framing, bins, stft, stft_input_grad};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::ops::elementwise::{self as ew, CompareKind};
use crate::ops::{leaf, movement, reduce};

/// Below this sum of squared windows a sample is not covered. PyTorch's bound.
const COVERED: f64 = 1e-11;

/// How much each bin counts in the inverse of a one-sided real transform of length `n`: `1 / n`
/// at the ends, `2 / n` for bins that stand for their mirror images too. Of dimensions
/// `[bins, frames, 2]`.
fn bin_weights(n: &Extent, dims: &[Dim]) -> Handle {
    let ty = TensorType::new(vec![dims[0].clone()], DType::F32);
    let k = ew::cast(leaf::iota(0, &ty), DType::F32);
    let n = leaf::size(n.clone());
    let one = leaf::scalar(1.0);
    let is = |a, b| ew::compare(CompareKind::Eq, a, b);
    let inner = ew::select(is(ew::scale(k, 2.0), n), one, leaf::scalar(2.0));
    let weights = ew::div(ew::select(is(k, leaf::scalar(0.0)), one, inner), n);
    reduce::restore(weights, dims, &[1, 2])
}

/// The signal, of length `samples`, with spectrum `y[.., bins, frames, 2]` under `window[N]` and
/// the given framing (whose padding is cut off again). Samples that no window covers are 0.
///
/// PyTorch: `istft(y, N, hop, window=window, center=pad > 0, length=samples)`.
pub fn istft(y: Handle, window: Handle, framing: Framing, samples: Dim) -> Handle {
    let (ty, window_ty) = (type_of(y), type_of(window));
    let (Some(lead), [n]) = (ty.rank().checked_sub(3), window_ty.dims.as_slice()) else {
        crate::graph::trace::fail(format!("istft: takes a spectrum [.., bins, frames, 2], is given {ty}"));
        return y;
    };
    let framing = Framing { edge: super::Edge::Zeros, ..framing };
    let spectrum = &ty.dims[lead..];
    let weights = bin_weights(&n.extent, spectrum);
    let signal = |lead: &[Dim]| lead.iter().cloned().chain([samples.clone()]).collect();
    let sum = stft_input_grad(ew::mul(y, weights), window, framing, signal(&ty.dims[..lead]));
    // The squares of the window, overlapped: the same of frames that each hold the window.
    let ones = leaf::fill(1.0, window_ty.clone());
    let frame = stft(window, ones, Framing { hop: 1, pad: 0, edge: super::Edge::Zeros });
    let pair = vec![Dim::anonymous(bins(&n.extent)), Dim::fixed(2)];
    let frames = reduce::restore(movement::reshape(frame, pair), spectrum, &[1]);
    let squares = stft_input_grad(ew::mul(frames, weights), window, framing, signal(&[]));
    let covered = ew::compare(CompareKind::Gt, squares, leaf::scalar(COVERED));
    let divisor = ew::select(covered, squares, leaf::scalar(1.0));
    ew::select(covered, ew::div(sum, divisor), leaf::scalar(0.0))
}
