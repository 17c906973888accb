//! What a call of the encoder stands in: how long recordings are, what their frames see, and for a
//! stream what came before.

use super::axes::ConformerAxes;
use super::mask::{number, over_rows};
use super::settings::Context;
use crate::audio::Batch;
use crate::llm::Caches;
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind};
use mobilis_runtime::ops::random::{Distribution, random};
use mobilis_runtime::ops::{leaf, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// Frames before the present ones that a stream's attention remembers.
    pub Left;
    /// Frames that a subsampling convolution remembers.
    pub(super) Past = 2;
}

/// Whole recordings, or the next part of streams.
#[derive(Clone)]
pub(super) enum Flow<'p> {
    Whole,
    Stream(Stream<'p>),
}

/// The next part of streams.
#[derive(Clone)]
pub(super) struct Stream<'p> {
    pub caches: &'p Caches,
    /// Whose state it is.
    pub place: String,
    /// `[Batch]`: the number of the part's first frame.
    pub start: Handle,
    /// `[Batch]`: whether the row takes part; what it remembers stays as it is if not.
    pub active: Handle,
    /// How many frames attention remembers.
    pub left: Dim,
}

/// What frames see.
#[derive(Clone)]
pub(super) enum Sight<'p> {
    One(Context),
    /// One of these, of a number that is drawn anew for each run: `[]`.
    Drawn(&'p [Context], Handle),
}

impl<'p> Sight<'p> {
    /// One of several contexts, drawn with these probabilities: the same for the whole batch.
    pub(super) fn drawn(contexts: &'p [Context], probabilities: &[f64]) -> Sight<'p> {
        let scalar = |dtype| TensorType::new(vec![], dtype);
        let drawn = random(Distribution::Uniform, &scalar(DType::F32));
        let mut sum = 0.0;
        let passed = probabilities.iter().take(contexts.len().saturating_sub(1)).map(|p| {
            sum += p;
            ew::cast(ew::compare(CompareKind::Ge, drawn, leaf::scalar(sum)), DType::I32)
        });
        Sight::Drawn(contexts, passed.fold(leaf::fill(0.0, scalar(DType::I32)), ew::add))
    }
}

/// What a call of the encoder stands in.
#[derive(Clone)]
pub struct Pass<'p> {
    /// `[Batch]`: how many frames each recording has; of a stream counted from its beginning.
    pub(super) lengths: Handle,
    pub(super) sight: Sight<'p>,
    pub(super) flow: Flow<'p>,
    /// The vectors of distances, `[Distances, Hidden]`.
    pub(super) positions: Handle,
}

impl Pass<'_> {
    /// `[Batch]`: how many of the frames at hand count.
    pub(super) fn present(&self) -> Handle {
        match &self.flow {
            Flow::Whole => self.lengths,
            Flow::Stream(stream) => ew::sub(self.lengths, stream.start),
        }
    }

    /// The same for a part: its states are its own.
    pub(super) fn part(&self, name: &str) -> Self {
        let mut part = self.clone();
        if let Flow::Stream(stream) = &mut part.flow {
            stream.place = format!("{}.{name}", stream.place);
        }
        part
    }
}

impl Stream<'_> {
    /// What a state held before this call: zeros for a row that begins.
    pub(super) fn before<S: Shape>(&self, state: &State<S>) -> Handle {
        let value = state.get().raw();
        let ty = type_of(value);
        let start = over_rows(self.start, &ty.dims);
        let begins = ew::compare(CompareKind::Eq, start, number(0, &ty.dims));
        ew::select(begins, leaf::fill(0.0, ty), value)
    }

    /// Sets a state for the rows that take part.
    pub(super) fn keep<S: Shape>(&self, state: &State<S>, before: Handle, new: Handle) {
        let active = over_rows(self.active, &type_of(new).dims);
        state.set(Tensor::from_raw(ew::select(active, new, before)));
    }

    /// The state of a name.
    pub(super) fn state<S: Shape>(&self, name: &str) -> State<S> {
        self.caches.state(&format!("{}.{name}", self.place), false)
    }

    /// `x` behind the last values of dimension `axis` that a state of shape `S` holds, and the state set
    /// to the last of the result.
    pub(super) fn behind<S: Shape>(&self, name: &str, x: Handle, axis: usize) -> Handle {
        let state: State<S> = self.state(name);
        let before = self.before(&state);
        let (past, present) = (type_of(before).dims[axis].clone(), type_of(x).dims[axis].clone());
        let long = Dim::anonymous(Extent::add(past.extent.clone(), present.extent.clone()));
        let all = slice::concat(&[before, x], axis, long);
        self.keep(&state, before, slice::slice(all, axis, present.extent, 1, past));
        all
    }

    /// Keys or values behind those of the frames that attention remembers.
    pub(super) fn extended<A: ConformerAxes>(&self, name: &str, x: Handle) -> Handle {
        self.behind::<(Batch, Left, A::Heads, A::HeadDim)>(name, x, 1)
    }
}
