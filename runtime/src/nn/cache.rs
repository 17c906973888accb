//! Caches of keys and values for decoding step by step.
//!
//! [`KvCache`] is a value: appending gives a cache of a longer axis, so keys that grew without
//! their values do not fit into attention any more, at compile time. [`BoundedKvCache`] is a state
//! of the program, written in place: a step costs what is new, not what is there.

use crate::language::axis::{Axis, Sum};
use crate::language::element::Indices;
use crate::module::param::State;
use crate::ops::slice::{concat, update_slice};
use crate::tensor::Tensor;

/// Keys and values of `P` positions: `[B, P, N, D]` each, with `N` heads of `D` features.
#[derive(Debug)]
pub struct KvCache<B: Axis, P: Axis, N: Axis, D: Axis> {
    /// `[B, P, N, D]`, rotated where the model rotates keys.
    pub keys: Tensor<(B, P, N, D)>,
    /// `[B, P, N, D]`
    pub values: Tensor<(B, P, N, D)>,
}

impl<B: Axis, P: Axis, N: Axis, D: Axis> Clone for KvCache<B, P, N, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Axis, P: Axis, N: Axis, D: Axis> Copy for KvCache<B, P, N, D> {}

impl<B: Axis, P: Axis, N: Axis, D: Axis> KvCache<B, P, N, D> {
    /// A cache from its keys and values.
    pub fn new(keys: Tensor<(B, P, N, D)>, values: Tensor<(B, P, N, D)>) -> Self {
        KvCache { keys, values }
    }

    /// The cache followed by `T` new positions.
    pub fn append<T: Axis>(
        self,
        keys: Tensor<(B, T, N, D)>,
        values: Tensor<(B, T, N, D)>,
    ) -> KvCache<B, Sum<P, T>, N, D> {
        let join = |old, new| Tensor::from_raw(concat(&[old, new], 1, <Sum<P, T>>::dim()));
        KvCache::new(join(self.keys.raw(), keys.raw()), join(self.values.raw(), values.raw()))
    }
}

/// Keys and values of at most `M` positions, a state that every run of a program updates:
/// `[B, M, N, D]` each.
///
/// What lies behind the last position written is hidden by causal attention with the offset of the
/// step, so a new text may begin at position 0 without clearing.
pub struct BoundedKvCache<B: Axis, M: Axis, N: Axis, D: Axis> {
    keys: State<(B, M, N, D)>,
    values: State<(B, M, N, D)>,
}

impl<B: Axis, M: Axis, N: Axis, D: Axis> Default for BoundedKvCache<B, M, N, D> {
    fn default() -> Self {
        BoundedKvCache { keys: State::default(), values: State::default() }
    }
}

impl<B: Axis, M: Axis, N: Axis, D: Axis> BoundedKvCache<B, M, N, D> {
    /// Writes `T` new positions from `position` on, and gives the whole cache. Positions beyond `M`
    /// are an error when the program runs.
    pub fn write<T: Axis, I: Indices>(
        &self,
        keys: Tensor<(B, T, N, D)>,
        values: Tensor<(B, T, N, D)>,
        position: Tensor<(), I>,
    ) -> KvCache<B, M, N, D> {
        let store = |state: &State<(B, M, N, D)>, new: Tensor<(B, T, N, D)>| {
            let all = Tensor::from_raw(update_slice(state.get().raw(), new.raw(), position.raw(), 1));
            state.set(all);
            all
        };
        KvCache::new(store(&self.keys, keys), store(&self.values, values))
    }
}
