//! What all features share: masks by length, mirrored edges, whole numbers of frames.

use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::{gather, leaf, reduce};

/// How a recording is mirrored at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mirror {
    /// At its first and last sample, which come once: `c b | a b c | b a`.
    Whole,
    /// Between samples, so that they come twice: `b a | a b c | c b`. Kaldi's.
    Half,
}

/// A whole number like those of `like`.
pub(super) fn whole(value: i64, like: Handle) -> Handle {
    leaf::fill(value as f64, type_of(like))
}

/// Which positions `[batch, n, ..]` lie within each row's length.
pub(super) fn within(ty: &TensorType, lengths: Handle) -> Handle {
    let places = TensorType::new(ty.dims[..2].to_vec(), DType::I32);
    let lengths = reduce::restore(lengths, &places.dims, &[1]);
    let inside = ew::compare(CompareKind::Lt, leaf::iota(1, &places), lengths);
    let others: Vec<usize> = (2..ty.dims.len()).collect();
    reduce::restore(inside, &ty.dims, &others)
}

/// `x[batch, n, ..]` with `value` behind each row's length.
pub(super) fn masked(x: Handle, lengths: Handle, value: f64) -> Handle {
    ew::select(within(&type_of(x), lengths), x, leaf::scalar(value))
}

/// `floor((x + add) / by)`, at least 0, for whole numbers.
pub(super) fn quotient(x: Handle, add: i64, by: i64) -> Handle {
    let sum = ew::maximum(ew::add(x, whole(add, x)), whole(0, x));
    let by = whole(by, x);
    ew::binary(BinaryKind::Div, ew::sub(sum, ew::binary(BinaryKind::Rem, sum, by)), by)
}

/// Samples `[batch, n]` with `pad` mirrored ones at both ends of each recording: `[batch, n + 2 pad]`,
/// zeros behind. A recording shorter than `pad` repeats its ends.
pub(super) fn mirrored(x: Handle, lengths: Handle, pad: usize, mirror: Mirror) -> Handle {
    let ty = type_of(x);
    let longer = Dim::anonymous(Extent::add(ty.dims[1].extent.clone(), Extent::constant(2 * pad as u64)));
    let places = TensorType::new(vec![ty.dims[0].clone(), longer], DType::I32);
    let lengths = reduce::restore(lengths, &places.dims, &[1]);
    let number = |v: i64| leaf::fill(v as f64, TensorType::new(vec![], DType::I32));
    let at = ew::sub(leaf::iota(1, &places), number(pad as i64));
    let zero = number(0);
    let (left, right) = match mirror {
        Mirror::Whole => (ew::neg(at), ew::sub(ew::add(lengths, lengths), ew::add(at, number(2)))),
        Mirror::Half => (ew::sub(number(-1), at), ew::sub(ew::add(lengths, lengths), ew::add(at, number(1)))),
    };
    let from = ew::select(ew::compare(CompareKind::Lt, at, zero), left, at);
    let from = ew::select(ew::compare(CompareKind::Ge, at, lengths), right, from);
    // What falls on the other side, in short recordings, stays at the end.
    let last = ew::maximum(ew::sub(lengths, number(1)), zero);
    let from = ew::minimum(ew::maximum(from, zero), last);
    let reach = ew::compare(CompareKind::Lt, at, ew::add(lengths, number(pad as i64)));
    ew::select(reach, gather::gather(x, from, 1), leaf::scalar(0.0))
}
