//! A loaded model and its programs, its family's type gone.
//!
//! A [`Network`] hears features and gives what its head makes of them: log-probabilities of CTC, or frames
//! for a transducer's joint. The transducer's parts that a search asks ([`Transducer`]) are programs of
//! their own.
//!
//! So that results depend neither on who shares a batch nor on how a recording is cut, programs sum in one order for
//! any number of rows (`Program::alike`); a recording has at least `ROWS` frames, silent ones behind its end. All else,
//! sums over keys that a mask hides among them, is in one order however long the batch is.

use super::axes::{self, AnyConformer, CausallyHalved, ConformerAxes, Halved, Rate, Same};
use super::ctc::CtcHead;
use super::layer::Stream;
use super::model::{Conformer, Head, HeadSettings, ModelSettings, parakeet_name};
use super::pass::Left;
use super::score::{self, Scorer};
use super::settings::{Context, Subsampling};
use super::transducer::Memories;
use crate::asr::decode::Transducer;
use crate::audio::features::{self, SampleCounts, Sound};
use crate::audio::{Batch, Frames, Hop};
use crate::llm::Caches;
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::{OpenError, Values};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::graph::Extent;
use mobilis_runtime::graph::trace::Mode;
use mobilis_runtime::ops::{movement, slice};
use mobilis_runtime::prelude::*;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

pub(super) type A = AnyConformer;
pub(super) type Mels = <A as ConformerAxes>::Mels;
type Joint = <A as ConformerAxes>::Joint;
type Pred = <A as ConformerAxes>::Pred;
type Outputs = <A as ConformerAxes>::Outputs;

axes! {
    /// The second axis of a result.
    pub Inner;
    /// The last axis of a result.
    pub Width;
    /// Layers of the predictor.
    pub Depth;
}

/// Frames of the stream that a recording has at least, and distances that attention meets.
pub(super) const ROWS: usize = 9;

/// How many rows a search asks about that needs so many: a small number of different ones, for each has a plan.
fn few(rows: usize) -> usize {
    if rows < ROWS { rows.max(1).next_power_of_two() } else { rows }
}

/// Features of recordings, padded to one length: `[Batch, Frames, Mels]`, and how many frames count.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[Batch, Frames, Mels]`
    pub values: Values,
    /// `[Batch]`
    pub lengths: Vec<usize>,
}

/// What a model makes of recordings.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The stream, `[Batch, Steps, Hidden]`.
    pub stream: Values,
    /// How many of its frames count.
    pub lengths: Vec<usize>,
    /// Of CTC the logarithms of probabilities `[Batch, Steps, Classes]`, of a transducer the frames as its
    /// joint takes them, `[Batch, Steps, Joint]`.
    pub head: Values,
    /// Of a hybrid the logarithms of its CTC head's probabilities.
    pub ctc: Option<Values>,
    /// The streams before the first layer and after each, where they were asked for.
    pub hidden: Vec<Values>,
}

type Streams = Vec<Tensor<(Batch, Inner, Width)>>;
/// Features of a batch.
pub type FeatureTensor = Tensor<(Batch, Frames, Mels), MelSpectrogram>;
/// How many frames of each count.
pub type Lens = Tensor<(Batch,), Lengths<Frames>>;
/// A whole number for each row.
type PerRow = Tensor<(Batch,), Index>;
/// Which rows take part.
type Rows = Tensor<(Batch,), Mask>;
pub(super) type Step = Program<(FeatureTensor, Lens, PerRow, Rows), Streams>;
type Hear = Program<(FeatureTensor, Lens), Streams>;
type HearSound = Program<(Sound, SampleCounts), (Streams, PerRow)>;
type State3 = Tensor<(Depth, Batch, Pred)>;
type Predict = Program<(Tensor<(Batch, Inner), Index>, Tensor<(Batch, Inner), Mask>, State3, State3), Streams>;
type Pairs = Program<(Tensor<(Batch, Joint)>, Tensor<(Batch, Joint)>), Tensor<(Batch, Outputs)>>;

/// A model at a rate whose type is gone.
pub(super) trait Rated {
    fn set_device(&self, device: Device);
    fn parameter_count(&self) -> usize;
    fn hear(&self, context: Context, noting: bool) -> Result<Hear, ProgramError>;
    fn hear_sound(&self, context: Context, features: &features::Features) -> Result<HearSound, ProgramError>;
    fn predict(&self) -> Result<Predict, ProgramError>;
    fn pairs(&self) -> Result<Pairs, ProgramError>;
    fn step(&self, context: Context, left: usize, caches: &Caches) -> Result<Step, ProgramError>;
    fn forget(&self, caches: &Caches);
    fn scorer(&self, mode: Mode, settings: &ModelSettings) -> Result<Scorer, ProgramError>;
    fn values(&self, name: &str) -> Result<Vec<f32>, ModelError>;
}

/// A model at a rate.
pub(super) struct At<R: Rate>(pub(super) Rc<Model<Conformer<A, R>>>);

/// The stream and what heads make of it.
fn read<T: Axis>(head: &Head<A>, stream: Stream<A, T>) -> Streams {
    let log_probs = |head: &CtcHead<A>| plain(head.forward(stream).log_softmax(<A as ConformerAxes>::Classes::AXIS));
    let mut all = vec![plain(stream)];
    match head {
        Head::Bare => all.push(plain(stream)),
        Head::Ctc(head) => all.push(log_probs(head)),
        Head::Transducer(_, joint, ctc) => {
            all.push(plain(joint.frames(stream)));
            all.extend(ctc.as_ref().map(log_probs));
        }
    }
    all
}

/// A value of rank 3 under names that say nothing.
fn plain<S: Shape>(x: Tensor<S>) -> Tensor<(Batch, Inner, Width)> {
    Tensor::from_raw(x.raw())
}

impl<R: Rate> Rated for At<R> {
    fn set_device(&self, device: Device) {
        self.0.store().set_device(device);
    }

    fn parameter_count(&self) -> usize {
        self.0.parameter_count()
    }

    fn hear(&self, context: Context, noting: bool) -> Result<Hear, ProgramError> {
        self.0.compile(|m, (x, lengths): (FeatureTensor, Lens)| {
            let notes = RefCell::new(vec![]);
            let (stream, _) = m.encoder.encode_noting(x, lengths, context, noting.then_some(&notes));
            let mut all = read(&m.head, stream);
            all.extend(notes.take().into_iter().map(Tensor::from_raw));
            all
        })
    }

    fn hear_sound(&self, context: Context, features: &features::Features) -> Result<HearSound, ProgramError> {
        let sizes = Sizes::new().with::<Hop>(features.hop());
        self.0.compile_with(&sizes, |m, (sound, samples): (Sound, SampleCounts)| {
            let (x, lengths) = features.forward::<Mels>(sound, samples);
            let (stream, counted) = m.encoder.encode_noting(x, lengths, context, None);
            // What a search reads alone.
            let head = read(&m.head, stream).swap_remove(1);
            (vec![head], Tensor::from_raw(counted.raw()))
        })
    }

    fn step(&self, context: Context, left: usize, caches: &Caches) -> Result<Step, ProgramError> {
        let sizes = Sizes::new().with::<Left>(left);
        self.0.compile_with(&sizes, |m, (x, counts, start, active): (FeatureTensor, Lens, PerRow, Rows)| {
            let (stream, _) = m.encoder.encode_next(x, counts, start, active, context, caches);
            read(&m.head, stream)
        })
    }

    fn forget(&self, caches: &Caches) {
        caches.clear(self.0.store());
    }

    fn scorer(&self, mode: Mode, settings: &ModelSettings) -> Result<Scorer, ProgramError> {
        score::scorer(&self.0, mode, settings)
    }

    fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.0.get(name)
    }

    fn predict(&self) -> Result<Predict, ProgramError> {
        type Tokens = Tensor<(Batch, Inner), Index>;
        self.0.compile(|m, (tokens, starts, h, c): (Tokens, Tensor<(Batch, Inner), Mask>, State3, State3)| {
            let Head::Transducer(decoder, joint, _) = &m.head else {
                mobilis_runtime::graph::trace::fail("a CTC model predicts nothing");
                return vec![];
            };
            let layers = decoder.prediction.lstm.layers.len();
            let one = |states: State3, i: usize| {
                let part = slice::slice(states.raw(), 0, Extent::constant(i as u64), 1, Const::<1>::dim());
                Tensor::from_raw(movement::relabel(part, vec![Const::<1>::dim(), Batch::dim(), Pred::dim()]))
            };
            let before: Memories<A> = (0..layers).map(|i| [one(h, i), one(c, i)]).collect();
            let (y, after) = decoder.read(tokens, Some(starts), Some(before));
            let mut all = vec![plain(joint.predictions(y)), plain(y)];
            all.extend(after.iter().flatten().map(|state| plain(*state)));
            all
        })
    }

    fn pairs(&self) -> Result<Pairs, ProgramError> {
        self.0.compile(|m, (frames, predictions): (Tensor<(Batch, Joint)>, Tensor<(Batch, Joint)>)| match &m.head {
            Head::Transducer(_, joint, _) => joint.pairs(frames, predictions),
            Head::Ctc(_) | Head::Bare => {
                mobilis_runtime::graph::trace::fail("only transducers have a joint");
                Tensor::zeros()
            }
        })
    }
}

/// A model whose sizes came from a file.
pub struct Network {
    /// What its configuration says.
    pub settings: ModelSettings,
    pub(super) inner: Box<dyn Rated>,
    hear: RefCell<Vec<((Context, bool), Rc<Hear>)>>,
    hear_sound: RefCell<Vec<(Context, Rc<HearSound>)>>,
    pub(super) weights: Weights,
    predict: OnceCell<Predict>,
    pairs: OnceCell<Pairs>,
}

impl Network {
    /// Builds the model that a configuration describes, with the tensors of a source.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(config: &Config, tensors: &dyn Source) -> Result<Network, OpenError> {
        Self::of(ModelSettings::of(config)?, config, tensors)
    }

    /// The encoder alone of a model of NeMo's, for another to read: what the head says is the stream.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub fn encoder(config: &Config, tensors: &dyn Source) -> Result<Network, OpenError> {
        Self::of(ModelSettings::encoder_alone(config)?, config, tensors)
    }

    fn of(settings: ModelSettings, config: &Config, tensors: &dyn Source) -> Result<Network, OpenError> {
        let inner = at_rate(config, &settings, Loading { settings: &settings, tensors })??;
        Ok(Network::around(settings, inner))
    }

    fn around(settings: ModelSettings, inner: Box<dyn Rated>) -> Network {
        let (hear, hear_sound, weights) = (RefCell::default(), RefCell::default(), Weights::default());
        let (predict, pairs) = (OnceCell::new(), OnceCell::new());
        Network { settings, inner, hear, hear_sound, weights, predict, pairs }
    }

    /// The programs of a model that others have too, for instance to train it: what it hears with are always the
    /// values that it has.
    pub fn sharing<R: Rate>(settings: ModelSettings, model: Rc<Model<Conformer<A, R>>>) -> Network {
        Network::around(settings, Box::new(At(model)))
    }

    /// Runs it on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        self.inner.set_device(device);
    }

    /// The same with another storage of the weights that products read.
    #[must_use]
    pub fn storing(self, weights: Weights) -> Network {
        let (hear, hear_sound) = (RefCell::default(), RefCell::default());
        Network { weights, hear, hear_sound, predict: OnceCell::new(), pairs: OnceCell::new(), ..self }
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.inner.parameter_count()
    }

    /// How many frames of the stream there are for frames of features.
    pub fn count(&self, frames: usize) -> usize {
        self.settings.encoder.count(frames)
    }

    /// What frames see, for each look-ahead that the model was trained for.
    pub fn contexts(&self) -> &[Context] {
        &self.settings.encoder.contexts
    }

    fn heard_by(&self, context: Context, noting: bool) -> Result<Rc<Hear>, ProgramError> {
        let mut programs = self.hear.borrow_mut();
        if let Some((_, program)) = programs.iter().find(|(key, _)| *key == (context, noting)) {
            return Ok(program.clone());
        }
        let program = Rc::new(self.inner.hear(context, noting)?.with_weights(self.weights.clone())?.alike());
        programs.push(((context, noting), program.clone()));
        Ok(program)
    }

    /// Hears whole recordings. `context` is what frames see, the configuration's first unless given.
    ///
    /// # Errors
    /// Features of other sizes.
    pub fn hear(&self, features: &Features, context: Option<Context>, noting: bool) -> Result<Heard, ProgramError> {
        let context = context.unwrap_or(self.contexts()[0]);
        let program = self.heard_by(context, noting)?;
        let (batch, frames, mels) = match features.values.sizes[..] {
            [b, f, m] => (b, f, m),
            _ => (0, 0, 0),
        };
        // So many frames that no product has few rows.
        let (steps, long) = (self.count(frames), frames.max(ROWS * self.settings.encoder.rate()));
        let mut data = vec![0f32; batch * long * mels];
        for i in 0..batch {
            let row = &features.values.data[i * frames * mels..(i + 1) * frames * mels];
            data[i * long * mels..][..row.len()].copy_from_slice(row);
        }
        let lengths: Vec<i32> = features.lengths.iter().map(|n| *n as i32).collect();
        let x: Array<(Batch, Frames, Mels), MelSpectrogram> = Array::from_parts(&[batch, long, mels], data);
        let lengths: Array<(Batch,), Lengths<Frames>> = Array::from_parts(&[batch], lengths);
        let mut all = program.run((x, lengths))?.into_iter().map(|array| first_steps(array, steps));
        let stream = all.next().expect("the program gives the stream first");
        let head = all.next().expect("the program gives what the head says second");
        let hybrid = matches!(self.settings.head, HeadSettings::Transducer { hybrid: true, .. });
        let ctc = if hybrid { all.next() } else { None };
        let lengths = features.lengths.iter().map(|n| self.count(*n)).collect();
        Ok(Heard { stream, lengths, head, ctc, hidden: all.collect() })
    }
}

impl Network {
    /// What the head says of recordings, `[Batch, Steps, _]` as [`Heard::head`], and how many frames of each count. The
    /// features are computed in the same graph. It must be given the same features each time.
    ///
    /// # Errors
    /// Features of another width than the model's.
    pub(crate) fn hear_sound(
        &self,
        features: &features::Features,
        recordings: &[&[f32]],
        context: Option<Context>,
    ) -> Result<(Values, Vec<i32>), ProgramError> {
        let context = context.unwrap_or(self.contexts()[0]);
        let mut programs = self.hear_sound.borrow_mut();
        let at = match programs.iter().position(|(key, _)| *key == context) {
            Some(at) => at,
            None => {
                let made = self.inner.hear_sound(context, features)?.with_weights(self.weights.clone())?.alike();
                programs.push((context, Rc::new(made)));
                programs.len() - 1
            }
        };
        let program = programs[at].1.clone();
        drop(programs);
        let longest = recordings.iter().map(|r| r.len()).max().unwrap_or(0);
        let factor = self.settings.encoder.rate();
        // Whole frames of the stream, so that there are few plans, and so many that no product has few rows.
        let frames = features.room(longest.next_multiple_of(factor * features.hop())).max(ROWS * factor);
        let (mut heads, counted) = program.run(features.pack_to(recordings, frames))?;
        let head = heads.pop().expect("the program gives what the head says");
        Ok((Values { sizes: head.sizes().to_vec(), data: head.into_vec() }, counted.into_vec()))
    }
}

/// Only the first steps of `[Batch, Steps, _]`.
fn first_steps<S: Shape>(array: Array<S>, steps: usize) -> Values {
    let mut sizes = array.sizes().to_vec();
    let [long, width] = [sizes[1], sizes[2]];
    if long <= steps {
        return Values { sizes, data: array.into_vec() };
    }
    sizes[1] = steps;
    let rows = array.data().chunks_exact((long * width).max(1));
    Values { sizes, data: rows.flat_map(|row| &row[..steps * width]).copied().collect() }
}

/// What is done with the type of a rate that settings name.
pub trait AtRate {
    /// What it gives.
    type Output;

    /// Does it.
    fn at<R: Rate>(self) -> Self::Output;
}

/// Does something at the rate of a model's settings.
///
/// # Errors
/// A rate that there is not.
pub fn at_rate<V: AtRate>(config: &Config, settings: &ModelSettings, what: V) -> Result<V::Output, ConfigError> {
    let encoder = &settings.encoder;
    let convolutions = matches!(encoder.subsampling, Subsampling::Striding | Subsampling::DwStriding);
    Ok(match (encoder.factor, encoder.causal, encoder.reduction.is_some()) {
        (_, _, false) if !convolutions => what.at::<axes::Stacked>(),
        (_, _, true) if !convolutions => what.at::<axes::Reduced<axes::Stacked>>(),
        (2, false, false) => what.at::<Halved<Same>>(),
        (4, false, false) => what.at::<axes::Quarter>(),
        (8, false, false) => what.at::<axes::Eighth>(),
        (2, true, false) => what.at::<CausallyHalved<Same>>(),
        (4, true, false) => what.at::<axes::CausalQuarter>(),
        (8, true, false) => what.at::<axes::CausalEighth>(),
        (2, false, true) => what.at::<axes::Reduced<Halved<Same>>>(),
        (4, false, true) => what.at::<axes::Reduced<axes::Quarter>>(),
        (8, false, true) => what.at::<axes::Reduced<axes::Eighth>>(),
        (2 | 4 | 8, true, true) => return Err(config.wrong("reduction", "null with causal_downsampling")),
        _ => return Err(config.wrong("subsampling_factor", "2, 4 or 8")),
    })
}

/// Loads the model.
struct Loading<'a> {
    settings: &'a ModelSettings,
    tensors: &'a dyn Source,
}

impl AtRate for Loading<'_> {
    type Output = Result<Box<dyn Rated>, OpenError>;

    fn at<R: Rate>(self) -> Self::Output {
        let Loading { settings, tensors } = self;
        let mut options = LoadOptions::new().sizes(settings.sizes::<A>());
        if settings.hugging_face {
            options = options.rename(parakeet_name);
        }
        // What features are made with, and a loss that NeMo keeps as a module.
        if settings.head == HeadSettings::Bare {
            for others in ["transf_decoder.**", "log_softmax.**", "encoder_decoder_proj.**"] {
                options = options.passing_over(others);
            }
        }
        let options =
            options.passing_over("preprocessor.**").passing_over("loss.**").passing_over("spec_augmentation.**");
        Ok(Box::new(At(Rc::new(options.load(settings.module::<A, R>(), tensors)?))))
    }
}

/// Where a transducer's predictor stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// What it predicts, as the joint takes it.
    joint: Vec<f32>,
    /// Hidden values of its layers.
    h: Vec<f32>,
    /// Their cells.
    c: Vec<f32>,
}

impl Network {
    fn depth_and_width(&self) -> (usize, usize) {
        match &self.settings.head {
            HeadSettings::Transducer { layers, pred, .. } => (*layers, *pred),
            HeadSettings::Ctc | HeadSettings::Bare => (0, 0),
        }
    }

    /// Reads one token after each state; `None` is "nothing said yet".
    fn read(&self, steps: &[(Option<&Predicted>, u32)]) -> Result<Vec<Predicted>, ProgramError> {
        let program = match self.predict.get() {
            Some(program) => program,
            None => {
                let made = self.inner.predict()?.with_weights(self.weights.clone())?.alike();
                self.predict.get_or_init(|| made)
            }
        };
        let (depth, width) = self.depth_and_width();
        let rows = few(steps.len());
        let mut tokens = vec![0i32; rows];
        let mut starts = vec![true; rows];
        let mut states = [vec![0f32; depth * rows * width], vec![0f32; depth * rows * width]];
        for (i, (state, token)) in steps.iter().enumerate() {
            tokens[i] = i32::try_from(*token).unwrap_or(-1);
            starts[i] = state.is_none();
            for layer in 0..depth {
                let Some(state) = state else { continue };
                let at = (layer * rows + i) * width..(layer * rows + i + 1) * width;
                let from = layer * width..(layer + 1) * width;
                states[0][at.clone()].copy_from_slice(&state.h[from.clone()]);
                states[1][at].copy_from_slice(&state.c[from]);
            }
        }
        let tokens: Array<(Batch, Inner), Index> = Array::from_parts(&[rows, 1], tokens);
        let starts: Array<(Batch, Inner), Mask> = Array::from_parts(&[rows, 1], starts);
        let [h, c] = states.map(|s| Array::<(Depth, Batch, Pred)>::from_parts(&[depth, rows, width], s));
        let found = program.run((tokens, starts, h, c))?;
        let joint = &found[0];
        let each = joint.data().len() / rows;
        let of = |i: usize| {
            let state = |part: usize| {
                let layer = |l: usize| &found[2 + 2 * l + part].data()[i * width..(i + 1) * width];
                (0..depth).flat_map(layer).copied().collect()
            };
            Predicted { joint: joint.data()[i * each..(i + 1) * each].to_vec(), h: state(0), c: state(1) }
        };
        Ok((0..steps.len()).map(of).collect())
    }
}

impl Transducer for Network {
    type State = Predicted;
    type Error = ProgramError;

    fn classes(&self) -> usize {
        self.settings.classes
    }

    fn blank(&self) -> usize {
        self.settings.blank
    }

    fn durations(&self) -> &[usize] {
        match &self.settings.head {
            HeadSettings::Transducer { durations, .. } => durations,
            HeadSettings::Ctc | HeadSettings::Bare => &[],
        }
    }

    fn start(&self) -> Result<Predicted, ProgramError> {
        Ok(self.read(&[(None, self.settings.blank as u32)])?.remove(0))
    }

    fn predict(&self, steps: &[(&Predicted, u32)]) -> Result<Vec<Predicted>, ProgramError> {
        self.read(&steps.iter().map(|(state, token)| (Some(*state), *token)).collect::<Vec<_>>())
    }

    fn joint(&self, pairs: &[(&[f32], &Predicted)]) -> Result<Vec<f32>, ProgramError> {
        let program = match self.pairs.get() {
            Some(program) => program,
            None => {
                let made = self.inner.pairs()?.with_weights(self.weights.clone())?.alike();
                self.pairs.get_or_init(|| made)
            }
        };
        let width = pairs.first().map_or(0, |(_, state)| state.joint.len());
        let rows = few(pairs.len());
        let fill = |part: &dyn Fn(usize) -> Vec<f32>| {
            let mut data: Vec<f32> = (0..pairs.len()).flat_map(part).collect();
            data.resize(rows * width, 0.0);
            Array::<(Batch, Joint)>::from_parts(&[rows, width], data)
        };
        let frames = fill(&|i| pairs[i].0.to_vec());
        let predictions = fill(&|i| pairs[i].1.joint.clone());
        let found = program.run((frames, predictions))?;
        let outputs = found.sizes()[1];
        let mut found = found.into_vec();
        found.truncate(pairs.len() * outputs);
        Ok(found)
    }
}
