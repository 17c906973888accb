//! Which frames count, and which of them see each other.
//!
//! A recording's result must not depend on those beside it in a batch, which may be longer: frames
//! behind its end are zeroed before every layer that mixes frames (NeMo's `MaskedConvSequential`), and
//! attention does not see them.

use super::pass::Sight;
use super::settings::Context;
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::{leaf, movement, reduce};

/// Whole numbers over some dimensions.
pub(super) fn indices(dims: &[Dim]) -> TensorType {
    TensorType::new(dims.to_vec(), DType::I32)
}

/// One whole number everywhere.
pub(super) fn number(value: i64, dims: &[Dim]) -> Handle {
    leaf::fill(value as f64, indices(dims))
}

/// Values of the first of the dimensions, for all of them.
pub(super) fn over_rows(rows: Handle, dims: &[Dim]) -> Handle {
    reduce::restore(rows, dims, &(1..dims.len()).collect::<Vec<_>>())
}

/// True where the position along dimension `axis` lies before the row's length, `[Batch]`.
pub(super) fn within(lengths: Handle, dims: &[Dim], axis: usize) -> Handle {
    ew::compare(CompareKind::Lt, leaf::iota(axis, &indices(dims)), over_rows(lengths, dims))
}

/// `x [Batch, ..]` with zeros from each row's length on, along dimension `axis`.
pub(super) fn masked(x: Handle, lengths: Handle, axis: usize) -> Handle {
    let ty = type_of(x);
    ew::select(within(lengths, &ty.dims, axis), x, leaf::fill(0.0, ty.clone()))
}

/// True where both are.
pub(super) fn both(a: Handle, b: Handle) -> Handle {
    ew::binary(BinaryKind::And, a, b)
}

/// Whether frame `query` sees frame `key` of the same recording, by their numbers and what the context
/// allows: the same for whole recordings and for parts of them.
pub(super) fn in_sight(query: Handle, key: Handle, sight: &Sight<'_>) -> Option<Handle> {
    let (contexts, number) = match sight {
        Sight::One(context) => return in_context(query, key, *context),
        Sight::Drawn(contexts, number) => (*contexts, *number),
    };
    let dims = type_of(query).dims;
    let number = movement::broadcast(number, dims.clone());
    let seen = |context: &Context| {
        let all = || leaf::fill(1.0, TensorType::new(dims.clone(), DType::Bool));
        in_context(query, key, *context).unwrap_or_else(all)
    };
    let (first, others) = contexts.split_first()?;
    let chosen = |found, (i, context): (usize, &Context)| {
        let this = ew::compare(CompareKind::Eq, number, self::number(i as i64 + 1, &dims));
        ew::select(this, seen(context), found)
    };
    Some(others.iter().enumerate().fold(seen(first), chosen))
}

fn in_context(query: Handle, key: Handle, context: Context) -> Option<Handle> {
    let dims = type_of(query).dims;
    let constant = |v: usize| number(v as i64, &dims);
    match context {
        Context::Whole => None,
        Context::Near { left, right } => {
            let late = left.map(|left| ew::compare(CompareKind::Ge, key, ew::sub(query, constant(left))));
            let early = right.map(|right| ew::compare(CompareKind::Le, key, ew::add(query, constant(right))));
            match (late, early) {
                (Some(a), Some(b)) => Some(both(a, b)),
                (a, b) => a.or(b),
            }
        }
        Context::Chunks { size, left } => {
            let start = |frame: Handle| ew::sub(frame, ew::binary(BinaryKind::Rem, frame, constant(size)));
            let (query, key) = (start(query), start(key));
            let early = ew::compare(CompareKind::Le, key, query);
            let late = left.map(|n| ew::compare(CompareKind::Ge, key, ew::sub(query, constant(n * size))));
            Some(late.map_or(early, |late| both(early, late)))
        }
    }
}
