//! Attention with relative positions or without, over whole recordings, over windows of them, or over what a
//! stream remembers.
//!
//! Transformer-XL's scores (Dai et al. 2019), as NeMo's `RelPositionMultiHeadAttention`: for query `i`
//! and key `j`, `((q_i + u) . k_j + (q_i + v) . W p_(i - j)) / sqrt(HeadDim)`. The second part enters
//! attention as a bias, so that attention itself stays one operation. Where positions are added to the stream
//! before the first layer (`abs_pos`) there are neither biases nor distances.
//!
//! Where a frame sees a bounded number of frames on both sides ([`Context`]), recordings are cut into
//! windows: blocks of queries, each with the keys that any of them sees. Cost and memory then grow with the
//! recording's length and not with its square. What is cut is the same for a stream that is fed block
//! by block, and so are the sums: a stream's frames equal those of the whole recording bit for bit.

use super::axes::ConformerAxes;
use super::global::{Beside, Global};
use super::mask::{both, in_sight, indices, number, over_rows};
use super::network::ROWS;
use super::pass::{Flow, Pass, Sight};
use super::position::{by_key, distances};
use super::settings::{Context, Globals, Positions, Settings as ModelSettings};
use crate::audio::Batch;
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::nn::Linear;
use mobilis_runtime::ops::attention::{Dropout, Extras, Settings, attend};
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::window::unfold;
use mobilis_runtime::ops::{contraction, leaf, movement, reduce, slice};
use mobilis_runtime::prelude::*;

/// All heads' features.
pub type Joined<A> = Prod<<A as ConformerAxes>::Heads, <A as ConformerAxes>::HeadDim>;
/// Queries, keys or values.
type Split<A, T> = Tensor<(Batch, T, <A as ConformerAxes>::Heads, <A as ConformerAxes>::HeadDim)>;

/// Attention of a layer.
#[neural_module(no_default)]
pub struct SelfAttention<A: ConformerAxes> {
    /// `[Heads, HeadDim]`: added to queries before they meet keys.
    pub pos_bias_u: Option<Param<(A::Heads, A::HeadDim)>>,
    /// `[Heads, HeadDim]`: added to queries before they meet distances.
    pub pos_bias_v: Option<Param<(A::Heads, A::HeadDim)>>,
    /// `[Heads * HeadDim, Hidden]`
    pub linear_q: Linear<A::Hidden, Joined<A>>,
    /// `[Heads * HeadDim, Hidden]`
    pub linear_k: Linear<A::Hidden, Joined<A>>,
    /// `[Heads * HeadDim, Hidden]`
    pub linear_v: Linear<A::Hidden, Joined<A>>,
    /// `[Hidden, Heads * HeadDim]`
    pub linear_out: Linear<Joined<A>, A::Hidden>,
    /// `[Heads * HeadDim, Hidden]`: of the vectors of distances.
    pub linear_pos: Option<Linear<A::Hidden, Joined<A>>>,
    /// `[Heads * HeadDim, Hidden]`: queries that meet global frames, and theirs.
    pub global_q: Option<Linear<A::Hidden, Joined<A>>>,
    /// `[Heads * HeadDim, Hidden]`: keys of the same.
    pub global_k: Option<Linear<A::Hidden, Joined<A>>>,
    /// `[Heads * HeadDim, Hidden]`: values of what global frames attend to.
    pub global_v: Option<Linear<A::Hidden, Joined<A>>>,
    /// Frames that all attend to.
    #[skip]
    pub globals: Option<Globals>,
    /// The probability that a weight is dropped while training.
    pub dropout: f64,
}

/// How frames are cut into windows: queries of each, and keys before and behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    queries: usize,
    before: usize,
    behind: usize,
}

impl Windows {
    /// The windows of a context that is bounded on both sides.
    fn of(context: Context) -> Option<Windows> {
        match context {
            Context::Chunks { size, left: Some(left) } => {
                Some(Windows { queries: size, before: left * size, behind: 0 })
            }
            Context::Near { left: Some(left), right: Some(right) } => {
                Some(Windows { queries: (left + right).max(16), before: left, behind: right })
            }
            _ => None,
        }
    }

    /// The windows of a pass. What is drawn may be any of several: all frames are compared with all.
    fn in_sight(sight: &Sight<'_>) -> Option<Windows> {
        match sight {
            Sight::One(context) => Windows::of(*context),
            Sight::Drawn(..) => None,
        }
    }

    fn keys(self) -> usize {
        self.queries + self.before + self.behind
    }
}

/// How many frames before the present ones a stream's layers remember; nothing where a stream cannot be.
pub fn remembered(context: Context) -> Option<usize> {
    Windows::of(context).filter(|w| w.behind == 0).map(|w| w.before)
}

/// The vectors of the distances that attention over `frames` frames meets, `[Distances, Hidden]`.
pub(super) fn positions(frames: Dim, hidden: Dim, pass: &Pass<'_>) -> Handle {
    let constant = |n: usize| Extent::constant(n as u64);
    let windows = Windows::in_sight(&pass.sight);
    // Products of few columns are summed in another order than others, as those of few rows are.
    let more = windows.map_or(0, |w| ROWS.saturating_sub(w.queries + w.keys() - 1));
    match (&pass.flow, windows) {
        (Flow::Stream(stream), _) => {
            let keys = Extent::add(stream.left.extent.clone(), frames.extent.clone());
            distances(&frames.extent, &stream.left.extent, &keys, more, hidden)
        }
        (Flow::Whole, Some(w)) => {
            distances(&constant(w.queries), &constant(w.before), &constant(w.keys()), more, hidden)
        }
        (Flow::Whole, None) => distances(&frames.extent, &constant(0), &frames.extent, 0, hidden),
    }
}

impl<A: ConformerAxes> SelfAttention<A> {
    /// Attention whose layers may share their biases: `u` and `v`.
    pub(super) fn new(settings: &ModelSettings, shared: Option<&[Param<(A::Heads, A::HeadDim)>; 2]>) -> Self {
        fn linear<I: Axis, O: Axis>(bias: bool) -> Linear<I, O> {
            if bias { Linear::default() } else { Linear::default().no_bias() }
        }
        let (bias, relative) = (settings.bias, settings.positions == Positions::Relative);
        let own = |i: usize| shared.map_or_else(|| Param::new(Init::Zeros), |s| s[i].tie());
        let separate = settings.globals.is_some_and(|g| g.separate);
        let global = || separate.then(|| linear(bias));
        SelfAttention {
            pos_bias_u: relative.then(|| own(0)),
            pos_bias_v: relative.then(|| own(1)),
            linear_q: linear(bias),
            linear_k: linear(bias),
            linear_v: linear(bias),
            linear_out: linear(bias),
            linear_pos: relative.then(|| Linear::default().no_bias()),
            global_q: global(),
            global_k: global(),
            global_v: global(),
            globals: settings.globals,
            dropout: settings.dropouts.attention,
        }
    }
}

#[neural_module]
impl<A: ConformerAxes> SelfAttention<A> {
    /// `[Batch, T, Hidden]` to the same; what frames see is the pass's.
    pub fn forward<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>, pass: &Pass<'_>) -> Tensor<(Batch, T, A::Hidden)> {
        let q: Split<A, T> = self.linear_q.forward(x).reshape();
        let k: Split<A, T> = self.linear_k.forward(x).reshape();
        let v: Split<A, T> = self.linear_v.forward(x).reshape();
        let biased = |bias: &Option<Param<_>>| bias.as_ref().map_or(q, |bias| q + bias.get()).raw();
        let [q_u, q_v] = [&self.pos_bias_u, &self.pos_bias_v].map(biased);
        let of = |own: &Option<Linear<A::Hidden, Joined<A>>>, else_: Split<A, T>| {
            own.as_ref().map_or(else_, |own| own.forward(x).reshape()).raw()
        };
        let global = self.globals.map(|globals| {
            let parts = [of(&self.global_q, q), of(&self.global_k, k), of(&self.global_v, v)];
            Global::new(globals, parts, v.raw(), pass.lengths)
        });
        let (k, v) = (k.raw(), v.raw());
        let seen = match (&pass.flow, Windows::in_sight(&pass.sight)) {
            (Flow::Stream(stream), _) => {
                let (k, v) = (stream.extended::<A>("keys", k), stream.extended::<A>("values", v));
                let dims = score_dims(q_u, k);
                let start = over_rows(stream.start, &dims);
                let query = ew::add(start, leaf::iota(1, &indices(&dims)));
                let left = movement::broadcast(leaf::index(stream.left.extent.clone()), dims.clone());
                let key = ew::sub(ew::add(start, leaf::iota(2, &indices(&dims))), left);
                let visible = visible(query, key, over_rows(pass.lengths, &dims), &pass.sight);
                self.attend([q_u, q_v, k, v], visible, pass.positions, None)
            }
            (Flow::Whole, Some(windows)) => self.windowed([q_u, q_v, k, v], windows, pass, global.as_ref()),
            (Flow::Whole, None) => {
                let dims = score_dims(q_u, k);
                let frame = |axis: usize| leaf::iota(axis, &indices(&dims));
                let visible = visible(frame(1), frame(2), over_rows(pass.lengths, &dims), &pass.sight);
                self.attend([q_u, q_v, k, v], visible, pass.positions, global.as_ref().map(Global::beside_all))
            }
        };
        let seen = global.map_or(seen, |global| global.over(seen, pass.lengths, self.dropped()));
        let joined = Split::<A, T>::from_raw(seen).reshape::<(Batch, T, Joined<A>)>();
        self.linear_out.forward(joined)
    }
}

/// `[rows, queries, keys]` of queries and keys.
fn score_dims(q: Handle, k: Handle) -> Vec<Dim> {
    let (q, k) = (type_of(q).dims, type_of(k).dims);
    vec![q[0].clone(), q[1].clone(), Dim::anonymous(k[1].extent.clone())]
}

/// Scores by products, scaled as attention scales its own.
pub(super) fn scaled(scores: Handle, width: Extent) -> Handle {
    let scale = ew::unary(ew::UnaryKind::Rsqrt, leaf::size(width));
    ew::mul(scores, movement::broadcast(scale, type_of(scores).dims))
}

/// A bias where something is visible, minus infinity elsewhere; what is visible has no dimensions `without`.
pub(super) fn where_seen(visible: Handle, bias: Handle, without: &[usize]) -> Handle {
    let ty = type_of(bias);
    let visible = reduce::restore(visible, &ty.dims, without);
    ew::select(visible, bias, leaf::fill(f64::NEG_INFINITY, ty))
}

/// Whether a query sees a key: both are frames of the recording, and the context allows it.
fn visible(query: Handle, key: Handle, length: Handle, sight: &Sight<'_>) -> Handle {
    let less = |a, b| ew::compare(CompareKind::Lt, a, b);
    let dims = type_of(key).dims;
    let there = both(less(query, length), both(less(key, length), ew::compare(CompareKind::Ge, key, number(0, &dims))));
    in_sight(query, key, sight).map_or(there, |near| both(there, near))
}

impl<A: ConformerAxes> SelfAttention<A> {
    /// What is dropped of attention's weights: its settings, and the key that they need.
    fn dropped(&self) -> (Settings, Extras<Handle>) {
        let (mut settings, mut extras) = (Settings::default(), Extras::default());
        if self.dropout > 0.0 && trace::mode() == Mode::Train {
            settings.dropout = Some(Dropout { probability: self.dropout, stream: trace::random_stream() });
            extras.key = Some(trace::rng());
        }
        (settings, extras)
    }

    /// Queries with both biases `[rows, queries, Heads, HeadDim]` over keys and values `[rows, keys,
    /// Heads, HeadDim]`, where `visible [rows, queries, keys]` is true, and over what is beside them.
    fn attend(
        &self,
        [q_u, q_v, k, v]: [Handle; 4],
        visible: Handle,
        positions: Handle,
        beside: Option<Beside>,
    ) -> Handle {
        let (settings, mut extras) = self.dropped();
        let Some(linear_pos) = &self.linear_pos else {
            extras.mask = Some((visible, vec![0, 2, 3]));
            return attend(q_u, k, v, settings, extras).0;
        };
        let dims = type_of(visible).dims;
        let p = contraction::linear(positions, linear_pos.weight.get().raw());
        let p_dims = vec![type_of(p).dims[0].clone(), A::Heads::dim(), A::HeadDim::dim()];
        let p = movement::reshape(p, p_dims);
        let by_distance = contraction::einsum(&[q_v, p], &[b"bthd", b"rhd"], b"bhtr");
        let bias = scaled(by_key(by_distance, dims[2].clone()), A::HeadDim::extent());
        let bias = where_seen(visible, bias, &[1]);
        let (k, v, bias) = match beside {
            Some(beside) => beside.before(k, v, bias),
            None => (k, v, bias),
        };
        extras.mask = Some((bias, vec![0, 1, 2, 3]));
        attend(q_u, k, v, settings, extras).0
    }

    /// Attention of whole recordings in windows.
    fn windowed(
        &self,
        [q_u, q_v, k, v]: [Handle; 4],
        windows: Windows,
        pass: &Pass<'_>,
        global: Option<&Global>,
    ) -> Handle {
        let ty = type_of(q_u);
        let (batch, frames) = (ty.dims[0].clone(), ty.dims[1].clone());
        let constant = |n: usize| Extent::constant(n as u64);
        let count = Extent::ceil_div(frames.extent.clone(), constant(windows.queries));
        let whole = Extent::mul(count.clone(), constant(windows.queries));
        let missing = Extent::sub(whole.clone(), frames.extent.clone());
        let rows = Dim::anonymous(Extent::mul(batch.extent.clone(), count.clone()));
        let count = Dim::anonymous(count);
        let [queries, keys] = [windows.queries, windows.keys()].map(|n| Dim::fixed(n as u64));
        let with = |first: &[Dim]| first.iter().chain(&ty.dims[2..]).cloned().collect::<Vec<_>>();

        let blocks = |q: Handle| {
            let padded = pad_zeros(q, 1, constant(0), missing.clone(), Dim::anonymous(whole.clone()));
            movement::reshape(padded, with(&[rows.clone(), queries.clone()]))
        };
        let behind = Extent::add(missing.clone(), constant(windows.behind));
        let long = Extent::add(whole.clone(), constant(windows.before + windows.behind));
        let around = |k: Handle| {
            let padded = pad_zeros(k, 1, constant(windows.before), behind.clone(), Dim::anonymous(long.clone()));
            let cut = unfold(padded, 1, windows.queries as u64, 1, count.clone(), keys.clone());
            movement::reshape(cut, with(&[rows.clone(), keys.clone()]))
        };
        // The numbers of frames: `window * queries + place`.
        let dims = vec![batch.clone(), count.clone(), queries.clone(), keys.clone()];
        let place = |axis: usize| leaf::iota(axis, &indices(&dims));
        let first = ew::mul(place(1), number(windows.queries as i64, &dims));
        let query = ew::add(first, place(2));
        let key = ew::sub(ew::add(first, place(3)), number(windows.before as i64, &dims));
        let visible = visible(query, key, over_rows(pass.lengths, &dims), &pass.sight);
        let visible = movement::reshape(visible, vec![rows.clone(), queries.clone(), keys.clone()]);

        let beside = global.map(|global| global.beside(&blocks, &count, &rows));
        let out = self.attend([blocks(q_u), blocks(q_v), around(k), around(v)], visible, pass.positions, beside);
        let joined = movement::reshape(out, with(&[batch.clone(), Dim::anonymous(whole)]));
        slice::slice(joined, 1, constant(0), 1, frames)
    }
}
