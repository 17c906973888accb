//! Relative positions of Transformer-XL (Dai et al. 2019, <https://arxiv.org/abs/1901.02860>, appendix B).
//!
//! A query's score of a key has a part for how far the key lies: the product with a vector of sines and
//! cosines of the distance. The vectors of all distances are laid out from the farthest key before to
//! the farthest behind, `[Distances, Hidden]`; each query is multiplied by all of them, and its row is
//! then shifted so that column `j` is the distance to key `j`.

use super::mask::{indices, number};
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind, UnaryKind};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{leaf, movement, slice};

/// The wave length of the slowest sine, over `2 pi`.
const BASE: f64 = 10_000.0;

/// The distances between `queries` and `keys` where the last of the keys' first `keys - queries`
/// lies right before the first query: vectors `[queries + keys - 1, Hidden]` of distances `before +
/// queries - 1`, down to the one of the first query to the last key.
///
/// `before` is how many keys lie before the first query. So many `more` distances follow, which no key has.
pub(super) fn distances(queries: &Extent, before: &Extent, keys: &Extent, more: usize, hidden: Dim) -> Handle {
    let one = Extent::constant(1);
    let count = Extent::sub(Extent::add(queries.clone(), keys.clone()), one.clone());
    let count = Extent::add(count, Extent::constant(more as u64));
    let dims = vec![Dim::anonymous(count), hidden.clone()];
    let ty = indices(&dims);
    let farthest = leaf::index(Extent::sub(Extent::add(before.clone(), queries.clone()), one));
    let distance = ew::sub(movement::broadcast(farthest, dims.clone()), leaf::iota(0, &ty));
    waves(distance, &dims)
}

/// The vectors of the places of frames from the first on, `[frames, Hidden]` (Vaswani et al. 2017).
pub(super) fn places(frames: Dim, hidden: Dim) -> Handle {
    let dims = vec![frames, hidden];
    waves(leaf::iota(0, &indices(&dims)), &dims)
}

/// For whole numbers `[numbers, Hidden]` that are the same along the last dimension, `n`: feature `2i` is the
/// sine and `2i + 1` the cosine of `n * BASE^(-2i / Hidden)`.
fn waves(numbers: Handle, dims: &[Dim]) -> Handle {
    let place = leaf::iota(1, &indices(dims));
    let odd = ew::binary(BinaryKind::Rem, place, number(2, dims));
    let real = |x: Handle| ew::cast(x, DType::F32);
    let width = movement::broadcast(leaf::size(dims[1].extent.clone()), dims.to_vec());
    let step = ew::div(leaf::fill(-BASE.ln(), type_of(width)), width);
    let angle = ew::mul(real(numbers), ew::exp(ew::mul(real(ew::sub(place, odd)), step)));
    let is_sine = ew::compare(CompareKind::Eq, odd, number(0, dims));
    ew::select(is_sine, ew::unary(UnaryKind::Sin, angle), ew::unary(UnaryKind::Cos, angle))
}

/// Scores by distance `[.., queries, queries + keys - 1]`, or of more distances, to scores by key `[.., queries, keys]`:
/// `out[i, j] = x[i, queries - 1 - i + j]`.
///
/// A column in front makes row `i` begin `i` places later than a row of one column less would, so
/// that reading the same values in such rows, after the first `queries` of them, shifts row `i` by `i`.
pub(super) fn by_key(x: Handle, keys: Dim) -> Handle {
    let dims = type_of(x).dims;
    let Some((rows, columns)) = dims.len().checked_sub(2).map(|n| (n, n + 1)) else { return x };
    let queries = dims[rows].clone();
    let count = Extent::sub(Extent::add(queries.extent.clone(), keys.extent.clone()), Extent::constant(1));
    let distances = Dim::anonymous(count);
    let x = slice::slice(x, columns, Extent::constant(0), 1, distances.clone());
    let with = |a: &Dim, b: &Dim| {
        let mut out = dims.clone();
        (out[rows], out[columns]) = (a.clone(), b.clone());
        out
    };
    let one = Extent::constant(1);
    let wide = Dim::anonymous(Extent::add(distances.extent.clone(), one.clone()));
    let padded = pad_zeros(x, columns, one.clone(), Extent::constant(0), wide.clone());
    let turned = movement::reshape(padded, with(&wide, &queries));
    let rest = slice::slice(turned, rows, one, 1, distances.clone());
    slice::slice(movement::reshape(rest, with(&queries, &distances)), columns, Extent::constant(0), 1, keys)
}
