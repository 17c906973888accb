//! The encoder: subsampling, positions, layers. NeMo's `ConformerEncoder`.

use super::attention::{positions, remembered};
use super::axes::{ConformerAxes, Rate};
use super::layer::{ConformerLayer, Stream};
use super::pass::{self, Flow, Left, Pass, Sight};
use super::position::places;
use super::settings::{Context, Dropouts, Positions, Settings};
use super::stacking::PreEncoder;
use super::subsampling::Reducing;
use crate::audio::Batch;
use crate::llm::Caches;
use mobilis_runtime::graph::trace::{self, Handle, Mode};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::ops::{elementwise as ew, leaf, movement, random};
use mobilis_runtime::prelude::*;
use std::cell::RefCell;

/// How many frames of each recording count.
pub type Counts<F> = Tensor<(Batch,), Lengths<F>>;

/// The encoder at a rate.
#[neural_module(no_default)]
pub struct ConformerEncoder<A: ConformerAxes, R: Rate> {
    /// Fewer frames.
    pub pre_encode: PreEncoder<A, R>,
    /// The first bias of attention, where all layers share it.
    pub pos_bias_u: Option<Param<(A::Heads, A::HeadDim)>>,
    /// The second one.
    pub pos_bias_v: Option<Param<(A::Heads, A::HeadDim)>>,
    /// The layers, in order.
    pub layers: Vec<ConformerLayer<A>>,
    /// What halves frames once more between layers.
    pub reduction_subsampling: Option<Reducing<A>>,
    /// Layers before it.
    #[skip]
    pub reduced_behind: usize,
    /// Whether the stream is scaled by the root of its width before the first layer.
    pub xscaling: bool,
    /// How attention knows where frames lie.
    #[skip]
    pub positions: Positions,
    /// What frames see, for each look-ahead; the first is what holds unless another is asked for.
    #[skip]
    pub contexts: Vec<Context>,
    /// How often each of them is trained.
    #[skip]
    pub probabilities: Vec<f64>,
    /// What is dropped while training.
    #[skip]
    pub dropouts: Dropouts,
}

impl<A: ConformerAxes, R: Rate> ConformerEncoder<A, R> {
    /// An encoder of these settings. Their factor and causality are the rate's.
    pub fn new(settings: &Settings) -> Self {
        let zeros = || Param::new(Init::Zeros);
        let shared = (!settings.untie_biases).then(|| [zeros(), zeros()]);
        let layers = (0..settings.layers).map(|_| ConformerLayer::new(settings, shared.as_ref())).collect();
        let [pos_bias_u, pos_bias_v] = shared.map_or([None, None], |[u, v]| [Some(u), Some(v)]);
        ConformerEncoder {
            pre_encode: PreEncoder::new(settings),
            pos_bias_u,
            pos_bias_v,
            layers,
            reduction_subsampling: settings.reduction.map(|r| Reducing::new(r.pooling)),
            reduced_behind: settings.reduction.map_or(settings.layers, |r| r.layers),
            xscaling: settings.xscaling,
            positions: settings.positions,
            contexts: settings.contexts.clone(),
            probabilities: settings.probabilities.clone(),
            dropouts: settings.dropouts,
        }
    }

    /// Whole recordings: features `[Batch, F, Mels]` to the stream `[Batch, T, Hidden]` and its lengths,
    /// with what frames see. The streams before the first layer and after each are noted where asked for.
    pub fn encode_noting<F: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels), impl Float>,
        lengths: Counts<F>,
        context: Context,
        notes: Option<&RefCell<Vec<Handle>>>,
    ) -> (Stream<A, R::Of<F>>, Counts<R::Of<F>>) {
        self.encode_seeing(x, lengths, Sight::One(context), notes)
    }

    /// The same with the first look-ahead; while training with one of all, drawn for each run by their probabilities
    /// (NeMo: `att_context_probs`).
    pub fn encode_training<F: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels), impl Float>,
        lengths: Counts<F>,
    ) -> (Stream<A, R::Of<F>>, Counts<R::Of<F>>) {
        let sight = match trace::mode() {
            Mode::Train if self.contexts.len() > 1 => Sight::drawn(&self.contexts, &self.probabilities),
            _ => Sight::One(self.contexts[0]),
        };
        self.encode_seeing(x, lengths, sight, None)
    }

    fn encode_seeing<F: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels), impl Float>,
        lengths: Counts<F>,
        sight: Sight<'_>,
        notes: Option<&RefCell<Vec<Handle>>>,
    ) -> (Stream<A, R::Of<F>>, Counts<R::Of<F>>) {
        let _scope = trace::scope(self);
        let x = Tensor::from_raw(x.raw());
        let counts = self.pre_encode.lengths(lengths.raw());
        let x: Stream<A, R::Subsampled<F>> = self.pre_encode.apply::<F, R::Subsampled<F>>(x, lengths.raw(), None);
        let pass = Pass { lengths: counts, sight, flow: Flow::Whole, positions: counts };
        let x = self.begin(x, notes);
        let (first, rest) = self.layers.split_at(self.reduced_behind.min(self.layers.len()));
        let x = self.layers(x, pass.clone(), first, 0, notes);
        let Some(reduction) = &self.reduction_subsampling else {
            return (Tensor::from_raw(x.raw()), Tensor::from_raw(counts));
        };
        let x: Stream<A, R::Of<F>> = reduction.apply(x, counts);
        let counts = reduction.lengths(counts);
        let x = self.layers(x, Pass { lengths: counts, ..pass }, rest, first.len(), notes);
        (x, Tensor::from_raw(counts))
    }

    /// The next part of streams: `x [Batch, F, Mels]`, as many frames as become one for each of the `T` that come out, of which the first `counts` frames are
    /// there (fewer than all only at a stream's end, and below none where the end gives more than a part), to the stream `[Batch, T, Hidden]` and how many
    /// of its frames there are since the beginning. `start` is the number of the part's first frame of
    /// the stream; rows that are not `active` stay as they are.
    ///
    /// The context must be one of chunks, the convolutions causal ([`Self::streams`]), and `T` a chunk.
    #[allow(clippy::too_many_arguments)]
    pub fn encode_next<F: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels), impl Float>,
        counts: Counts<F>,
        start: Tensor<(Batch,), Index>,
        active: Tensor<(Batch,), Mask>,
        context: Context,
        caches: &Caches,
    ) -> (Stream<A, R::Next<F>>, Counts<R::Next<F>>) {
        let _scope = trace::scope(self);
        let ahead = self.pre_encode.lengths(counts.raw());
        let lengths = ew::add(start.raw(), ahead);
        let stream = pass::Stream {
            caches,
            place: "encoder".into(),
            start: start.raw(),
            active: active.raw(),
            left: Left::dim(),
        };
        let pass = Pass { lengths, sight: Sight::One(context), flow: Flow::Stream(stream), positions: lengths };
        let x: Stream<A, R::Next<F>> =
            self.pre_encode.apply::<F, R::Next<F>>(Tensor::from_raw(x.raw()), counts.raw(), Some(&pass));
        let x = self.begin(x, None);
        (self.layers(x, pass, &self.layers, 0, None), Tensor::from_raw(lengths))
    }

    /// How many frames attention remembers of a stream, where the encoder can hear streams at this
    /// context.
    pub fn streams(&self, context: Context) -> Option<usize> {
        remembered(context).filter(|_| R::CAUSAL)
    }

    /// The stream as the first layer takes it.
    fn begin<T: Axis>(&self, x: Stream<A, T>, notes: Option<&RefCell<Vec<Handle>>>) -> Stream<A, T> {
        let mut x = x;
        if self.xscaling {
            let root = ew::unary(ew::UnaryKind::Sqrt, leaf::size(A::Hidden::extent()));
            x = Tensor::from_raw(ew::mul(x.raw(), movement::broadcast(root, Stream::<A, T>::type_of().dims)));
        }
        if self.positions == Positions::Absolute {
            x = Tensor::from_raw(ew::add(x.raw(), places(T::dim(), A::Hidden::dim())));
        }
        note(x, notes);
        x.dropout(self.dropouts.pre_encoder)
    }

    /// Some of the layers, of which so many came `before`.
    fn layers<T: Axis>(
        &self,
        x: Stream<A, T>,
        mut pass: Pass<'_>,
        layers: &[ConformerLayer<A>],
        before: usize,
        notes: Option<&RefCell<Vec<Handle>>>,
    ) -> Stream<A, T> {
        let mut x = x;
        if self.positions == Positions::Relative {
            let vectors = positions(T::dim(), A::Hidden::dim(), &pass);
            pass.positions = random::dropout(vectors, self.dropouts.embedding);
        }
        for (i, layer) in layers.iter().enumerate() {
            let number = before + i;
            let next = layer.forward(x, &pass.part(&number.to_string()));
            x = self.sometimes(x, next, number);
            note(x, notes);
        }
        x
    }

    /// Stochastic depth (Huang et al. 2016), as NeMo's: while training a layer is now and then left out,
    /// and what it adds grows otherwise.
    fn sometimes<T: Axis>(&self, x: Stream<A, T>, next: Stream<A, T>, i: usize) -> Stream<A, T> {
        let d = &self.dropouts;
        let (number, first, all) = (i + 1, d.depth_start, self.layers.len());
        if trace::mode() != Mode::Train || d.depth <= 0.0 || number < first {
            return next;
        }
        // NeMo's `compute_stochastic_depth_drop_probs`.
        let share = if d.depth_linear { (number - first + 1) as f64 / (all - first + 1) as f64 } else { 1.0 };
        let kept = 1.0 - d.depth * share;
        let keep: Tensor<(), Mask> = Tensor::bernoulli(kept);
        let factor = ew::scale(ew::cast(keep.raw(), mobilis_runtime::graph::DType::F32), 1.0 / kept);
        let factor = movement::broadcast(factor, Stream::<A, T>::type_of().dims);
        x + Stream::<A, T>::from_raw(ew::mul((next - x).raw(), factor))
    }
}

/// Notes a stream where it is asked for.
fn note<S: Shape>(x: Tensor<S>, notes: Option<&RefCell<Vec<Handle>>>) {
    if let Some(notes) = notes {
        notes.borrow_mut().push(x.raw());
    }
}

#[neural_module]
impl<A: ConformerAxes, R: Rate> ConformerEncoder<A, R> {
    /// Features `[Batch, F, Mels]` of whole recordings to the stream `[Batch, T, Hidden]` and its
    /// lengths; `T` is the axis `F` at the encoder's rate.
    pub fn forward<F: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels)>,
        lengths: Counts<F>,
    ) -> (Stream<A, R::Of<F>>, Counts<R::Of<F>>) {
        self.encode_noting(x, lengths, self.contexts[0], None)
    }
}
