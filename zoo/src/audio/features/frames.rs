//! What all features share: masks by length, mirrored edges, whole numbers of frames.

use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{gather, leaf, reduce, slice};

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
/// zeros behind. Behind its end a recording is 0 already. One shorter than `pad` repeats its ends.
pub(super) fn mirrored(x: Handle, lengths: Handle, pad: usize, mirror: Mirror) -> Handle {
    if pad == 0 {
        return x;
    }
    let ty = type_of(x);
    let edge = Dim::fixed(pad as u64);
    let places = TensorType::new(vec![ty.dims[0].clone(), edge.clone()], DType::I32);
    let lengths = reduce::restore(lengths, &places.dims, &[1]);
    let number = |v: i64| leaf::fill(v as f64, TensorType::new(vec![], DType::I32));
    let zero = number(0);
    let at = leaf::iota(1, &places);
    let last = ew::maximum(ew::sub(lengths, number(1)), zero);
    let pick = |from: Handle| gather::gather(x, ew::minimum(ew::maximum(from, zero), last), 1);
    // Whether the first and the last sample come twice.
    let once = i64::from(mirror == Mirror::Whole);
    let left = pick(ew::sub(number(pad as i64 - 1 + once), at));
    let right = pick(ew::sub(ew::sub(last, number(once)), at));
    let n = &ty.dims[1].extent;
    let behind = Dim::anonymous(Extent::add(n.clone(), Extent::constant(pad as u64)));
    let all = Dim::anonymous(Extent::add(n.clone(), Extent::constant(2 * pad as u64)));
    let x = pad_zeros(x, 1, Extent::constant(0), Extent::constant(pad as u64), behind);
    let x = slice::concat(&[left, x], 1, all);
    gather::scatter_add(x, ew::add(ew::add(lengths, number(pad as i64)), at), right, 1)
}
