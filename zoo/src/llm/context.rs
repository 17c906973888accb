//! What a call of a model stands in: the positions of its tokens, and what came before them.
//!
//! A family is written once, against a [`Context`]. In [`Context::whole`] the tokens are whole texts
//! from position 0 and attention looks at nothing else: training, scoring. In a context over
//! [`Caches`] the tokens of sequence `b` stand at `start[b]..start[b] + count[b]`; layers keep what
//! later calls need in states of the program. Sequences of a batch may be at different positions,
//! and a call may give them different numbers of tokens: what is behind `count[b]` is padding, which
//! nothing that counts looks at.
//!
//! Layers with a sliding window keep their keys in a ring of `Ring` slots: position `p` lies in
//! slot `p mod Ring`, so memory stays bounded however long the text grows. A ring that one call
//! writes `n` entries into must have room for the window and `n - 1` positions more.

use super::{Batch, Ring, Slots, Time};
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{Extent, TensorType, VarId};
use mobilis_runtime::module::AnyVar;
use mobilis_runtime::module::store::Store;
use mobilis_runtime::nn::{AttentionOptions, Places};
use mobilis_runtime::ops::attention::grouped_attention;
use mobilis_runtime::ops::cache::write_rows;
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::{leaf, movement, slice};
use mobilis_runtime::prelude::*;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// One number for each sequence.
pub type PerRow = Tensor<(Batch,), Index>;

/// The states that the layers of one model keep between calls, by place.
///
/// All programs that are traced with the same caches share their states. The values live in the
/// model's store; [`Caches::clear`] takes them out.
#[derive(Default)]
pub struct Caches {
    states: RefCell<BTreeMap<String, Kept>>,
    /// Whether some state is not by position, so that a sequence cannot be cut short.
    running: Cell<bool>,
}

struct Kept {
    id: VarId,
    /// Whether the second axis is the position.
    by_position: bool,
    state: Box<dyn Any>,
}

impl Caches {
    /// The state of this name, the same in every trace.
    ///
    /// # Panics
    /// When one name is used for two shapes.
    pub(crate) fn state<S: Shape, E: Element>(&self, name: &str, by_position: bool) -> State<S, E> {
        let mut states = self.states.borrow_mut();
        let kept = states.entry(name.to_string()).or_insert_with(|| {
            let state = State::<S, E>::default();
            Kept { id: state.id(), by_position, state: Box::new(state) }
        });
        let state = kept.state.downcast_ref::<State<S, E>>().expect("a state keeps its shape");
        state.tie()
    }

    /// The identities of all states, by name, and whether position `p` of a sequence lies in slot
    /// `p` of its second axis.
    pub fn states(&self) -> Vec<(VarId, bool)> {
        self.states.borrow().values().map(|k| (k.id, k.by_position)).collect()
    }

    /// Whether all states are by position, so that sequences can be cut short by counting less.
    pub fn by_position(&self) -> bool {
        !self.running.get()
    }

    /// Takes the values of all states out of a store.
    pub fn clear(&self, store: &Store) {
        let mut values = store.lock();
        for (id, _) in self.states() {
            values.remove(id);
        }
    }
}

/// Where the tokens of a call stand, and where layers find and keep what came before.
#[derive(Clone)]
pub struct Context<'c> {
    cached: Option<Cached<'c>>,
    notes: Option<&'c RefCell<Vec<Handle>>>,
    routers: Option<&'c RefCell<Vec<Handle>>>,
    place: String,
}

/// What a recurrent layer carries from call to call.
pub struct Carried<S: Shape> {
    /// What it was after the call before.
    pub value: Tensor<S>,
    state: State<S>,
}

impl<S: Shape> Carried<S> {
    /// What it is after this call.
    pub fn set(&self, value: Tensor<S>) {
        self.state.set(value);
    }
}

#[derive(Clone, Copy)]
struct Cached<'c> {
    caches: &'c Caches,
    start: PerRow,
    count: PerRow,
    end: Option<PerRow>,
}

fn index_type<S: Shape>() -> TensorType {
    Tensor::<S, Index>::type_of()
}

/// Values over the first axes of `S`, for each of the axes behind.
fn spread<S: Shape>(x: Handle) -> Handle {
    let (all, own) = (index_type::<S>().dims, type_of(x).dims);
    let behind = all.len() - own.len();
    let order: Vec<usize> = (behind..all.len()).chain(0..behind).collect();
    let dims = all[own.len()..].iter().cloned().chain(own).collect();
    movement::permute(movement::broadcast(x, dims), &order)
}

impl<'c> Context<'c> {
    /// Whole texts from position 0: no caches.
    pub fn whole() -> Context<'c> {
        Context { cached: None, notes: None, routers: None, place: String::new() }
    }

    /// Tokens `start[b]..start[b] + count[b]` of each sequence, over caches of those before.
    pub fn over(caches: &'c Caches, start: PerRow, count: PerRow) -> Context<'c> {
        Context { cached: Some(Cached { caches, start, count, end: None }), ..Context::whole() }
    }

    /// The same as a part of texts that are known up to position `end[b]`, not included; where that lies
    /// before a token, the token is the last that is known.
    #[must_use]
    pub fn ending(mut self, end: PerRow) -> Context<'c> {
        if let Some(cached) = &mut self.cached {
            cached.end = Some(end);
        }
        self
    }

    /// The same with a list for what layers [`note`](Self::note).
    #[must_use]
    pub fn noting(mut self, notes: &'c RefCell<Vec<Handle>>) -> Context<'c> {
        self.notes = Some(notes);
        self
    }

    /// The same with a list for the logits of routers ([`routed`](Self::routed)).
    #[must_use]
    pub fn routers(mut self, routers: &'c RefCell<Vec<Handle>>) -> Context<'c> {
        self.routers = Some(routers);
        self
    }

    /// The context of a part: its states are its own.
    #[must_use]
    pub fn part(&self, name: &str) -> Context<'c> {
        let place = if self.place.is_empty() { name.to_string() } else { format!("{}.{name}", self.place) };
        Context { place, ..self.clone() }
    }

    /// The context of layer `i`.
    #[must_use]
    pub fn layer(&self, i: usize) -> Context<'c> {
        self.part(&i.to_string())
    }

    /// Notes a stream between layers, for whoever asked for all of them; gives it back.
    pub fn note<S: Shape>(&self, x: Tensor<S>) -> Tensor<S> {
        if let Some(notes) = self.notes {
            notes.borrow_mut().push(x.raw());
        }
        x
    }

    /// Notes the logits of a router of experts, for whoever asked for all of them.
    pub fn routed<S: Shape>(&self, logits: Tensor<S>) {
        if let Some(routers) = self.routers {
            routers.borrow_mut().push(logits.raw());
        }
    }

    /// Whether layers keep states.
    pub fn is_cached(&self) -> bool {
        self.cached.is_some()
    }

    /// The first position of each sequence in this call; nothing for whole texts, which start at 0.
    pub fn start(&self) -> Option<PerRow> {
        self.cached.map(|c| c.start)
    }

    /// How many of the tokens of each sequence count; nothing for whole texts.
    pub fn count(&self) -> Option<PerRow> {
        self.cached.map(|c| c.count)
    }

    /// The position of each token, `[Batch, Time]`. Padding stands where the last token does, so that
    /// it does not lengthen the text.
    pub fn positions(&self) -> Tensor<(Batch, Time), Index> {
        let iota = leaf::iota(1, &index_type::<(Batch, Time)>());
        Tensor::from_raw(match self.cached {
            None => iota,
            Some(c) => {
                let one = ew::constant_like(iota, 1.0);
                let last = ew::sub(spread::<(Batch, Time)>(c.count.raw()), one);
                let within = ew::maximum(ew::minimum(iota, last), ew::constant_like(iota, 0.0));
                ew::add(spread::<(Batch, Time)>(c.start.raw()), within)
            }
        })
    }

    /// Where the tokens stand, for rotary embeddings: their positions, and the lengths of their texts.
    pub fn places(&self) -> Places {
        let positions = self.positions().raw();
        let lengths = self.cached.map(|c| {
            let own = ew::add(positions, ew::constant_like(positions, 1.0));
            let end = c.end.map_or_else(|| ew::add(c.start.raw(), c.count.raw()), Tensor::raw);
            ew::maximum(own, spread::<(Batch, Time)>(end))
        });
        Places { positions, lengths }
    }

    /// Which tokens count, `[Batch, Time]`; nothing where all do.
    pub fn counted(&self) -> Option<Tensor<(Batch, Time), Mask>> {
        let count = self.count()?;
        let iota = leaf::iota(1, &index_type::<(Batch, Time)>());
        let below = ew::compare(CompareKind::Lt, iota, spread::<(Batch, Time)>(count.raw()));
        Some(Tensor::from_raw(below))
    }

    /// A value that is not by position: what a recurrent layer carries from call to call. `S` starts
    /// with the batch. It is zero where a sequence begins. Nothing for whole texts, which begin with
    /// zeros and carry nothing on.
    pub fn carried<S: Shape>(&self, name: &str) -> Option<Carried<S>> {
        let cached = self.cached?;
        cached.caches.running.set(true);
        let state: State<S> = cached.caches.state(&self.part(name).place, false);
        let started = ew::compare(CompareKind::Gt, cached.start.raw(), leaf::fill(0.0, index_type::<(Batch,)>()));
        let old = state.get().raw();
        let zero = leaf::fill(0.0, type_of(old));
        let value = Tensor::from_raw(ew::select(spread::<S>(started), old, zero));
        Some(Carried { value, state })
    }

    /// The entries of all positions so far: new ones `[Batch, Time, N, D]` after those of earlier
    /// calls, in the slots of a cache.
    fn kept<P: Axis, N: Axis, D: Axis>(
        &self,
        name: &str,
        new: Tensor<(Batch, Time, N, D)>,
        cached: Cached<'c>,
        wrap: bool,
    ) -> Tensor<(Batch, P, N, D)> {
        let state: State<(Batch, P, N, D)> = cached.caches.state(&self.part(name).place, !wrap);
        let all = write_rows(state.get().raw(), new.raw(), cached.start.raw(), cached.count.raw(), wrap);
        let all = Tensor::from_raw(all);
        state.set(all);
        all
    }

    /// The entries of all positions so far in the slots of a cache, for layers that attend in
    /// a way of their own; nothing for whole texts, where `new` is all there is.
    pub fn keep<N: Axis, D: Axis>(
        &self,
        name: &str,
        new: Tensor<(Batch, Time, N, D)>,
    ) -> Option<Tensor<(Batch, Slots, N, D)>> {
        self.cached.map(|cached| self.kept(name, new, cached, false))
    }

    /// The caches themselves; nothing for whole texts.
    pub(super) fn caches(&self) -> Option<&'c Caches> {
        self.cached.map(|cached| cached.caches)
    }

    /// Attention over this call's positions and those before, with the settings of a layer: queries
    /// `[Batch, Time, K, G, D]`, keys and values `[Batch, Time, K, ..]`. Keys and values are kept.
    pub fn attend<K: Axis, G: Axis, D: Axis, V: Axis>(
        &self,
        q: Tensor<(Batch, Time, K, G, D)>,
        k: Tensor<(Batch, Time, K, D)>,
        v: Tensor<(Batch, Time, K, V)>,
        options: &AttentionOptions,
    ) -> Tensor<(Batch, Time, K, G, V)> {
        let Some(cached) = self.cached else {
            return options.set(grouped_attention(q, k, v)).output();
        };
        match options.window {
            None => {
                let k: Tensor<(Batch, Slots, K, D)> = self.kept("keys", k, cached, false);
                let v: Tensor<(Batch, Slots, K, V)> = self.kept("values", v, cached, false);
                options.set(grouped_attention(q, k, v)).offsets(cached.start).output()
            }
            Some(window) => {
                let k: Tensor<(Batch, Ring, K, D)> = self.kept("ring_keys", k, cached, true);
                let v: Tensor<(Batch, Ring, K, V)> = self.kept("ring_values", v, cached, true);
                let free = AttentionOptions { causal: false, window: None, ..options.clone() };
                free.set(grouped_attention(q, k, v)).mask(self.ring_mask(cached, window)).output()
            }
        }
    }

    /// Attention whose values are the first `V` features of its keys, which all heads share (multi-head
    /// latent attention): queries `[Batch, Time, 1, G, D]`, entries `[Batch, Time, 1, D]`. The entries
    /// are kept, once.
    pub fn attend_latent<G: Axis, D: Axis, V: Axis>(
        &self,
        q: Tensor<(Batch, Time, Const<1>, G, D)>,
        entries: Tensor<(Batch, Time, Const<1>, D)>,
        options: &AttentionOptions,
    ) -> Tensor<(Batch, Time, Const<1>, G, V)> {
        let values = |x: Handle| slice::slice(x, 3, Extent::constant(0), 1, V::dim());
        let Some(cached) = self.cached else {
            let v: Tensor<(Batch, Time, Const<1>, V)> = Tensor::from_raw(values(entries.raw()));
            return options.set(grouped_attention(q, entries, v)).output();
        };
        let k: Tensor<(Batch, Slots, Const<1>, D)> = self.kept("latents", entries, cached, false);
        let v: Tensor<(Batch, Slots, Const<1>, V)> = Tensor::from_raw(values(k.raw()));
        options.set(grouped_attention(q, k, v)).offsets(cached.start).output()
    }

    /// Which slots of a ring hold a position that a query sees: after this call's writes slot `j`
    /// holds the last position that is `j` modulo the ring's size.
    fn ring_mask(&self, cached: Cached<'c>, window: u64) -> Tensor<(Batch, Time, Ring), Mask> {
        type Scores = (Batch, Time, Ring);
        let ty = index_type::<Scores>();
        let constant = |v: f64| leaf::fill(v, ty.clone());
        let slot = leaf::iota(2, &ty);
        let last = ew::sub(ew::add(cached.start.raw(), cached.count.raw()), leaf::fill(1.0, index_type::<(Batch,)>()));
        let last = spread::<Scores>(last);
        let behind = ew::binary(BinaryKind::Rem, ew::sub(last, slot), leaf::index(Ring::extent()));
        let held = ew::sub(last, behind);
        let at = spread::<Scores>(self.positions().raw());
        let both = |a, b| ew::binary(BinaryKind::And, a, b);
        let written = ew::compare(CompareKind::Ge, held, constant(0.0));
        let past = ew::compare(CompareKind::Le, held, at);
        let near = ew::compare(CompareKind::Gt, held, ew::sub(at, constant(window as f64)));
        Tensor::from_raw(both(both(written, past), near))
    }
}
