//! A loaded Whisper and its programs: sound to memory, memory to tokens, tokens to places in the sound.
//!
//! A window of sound is encoded once ([`Network::hear`]); of the result each layer of the decoder needs
//! keys and values only, the [`Heard`]. A [`Listener`] is a session over it ([`crate::llm::session`]):
//! fed with tokens, it gives logits. It is made once and hears one window after another, so that
//! programs are compiled once.

use super::model::{self, AnyWhisper, Halved, WhisperAxes, WhisperModel};
use crate::audio::Frames;
use crate::audio::features::{Features, SampleCounts, Settings, Sound};
use crate::llm::config::Config;
use crate::llm::encoder::{TextBatch, Visible};
use crate::llm::family::{OpenError, Values};
use crate::llm::seq2seq::{Conditional, KeysOrValues, Kvs, Seq2Seq, Source, by_heads};
use crate::llm::session::{Session, SessionError, SessionOptions, Sessions};
use crate::llm::{Batch, Context, Ids, Time};
use mobilis_runtime::Extent;
use mobilis_runtime::checkpoint;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::{contraction, slice};
use mobilis_runtime::prelude::*;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

type A = AnyWhisper;
type Module_ = WhisperModel<A>;
type Bands = <A as WhisperAxes>::Bands;
type Heads = <A as WhisperAxes>::DecoderHeads;
type HeadDim = <A as WhisperAxes>::DecoderHeadDim;

axes! {
    /// The last axis of a noted stream.
    Width;
    /// The second axis of a noted stream.
    Inner;
}

/// Spectrograms `[Batch, Frames, Bands]`.
pub type Spectrograms = Tensor<(Batch, Frames, Bands), MelSpectrogram>;
/// The same as values.
pub type SpectrogramArray = Array<(Batch, Frames, Bands), MelSpectrogram>;

/// What a decoder needs of windows of sound: keys and values of each layer.
pub struct Heard(Vec<KeysOrValues<Module_>>);

/// A session over windows of sound.
pub struct Listener {
    session: Session<Conditional<Module_>>,
    align: Option<Align>,
    /// Of a head.
    features: usize,
}

/// Tokens of whole texts to what heads of the decoder think of each position of the sound.
type Align = Program<Ids, Vec<Tensor<(Batch, Time, Source)>>>;

impl Listener {
    /// The sequences, to be fed with tokens.
    pub fn sequences(&mut self) -> &mut dyn Sessions {
        &mut self.session
    }

    /// Begins anew over other windows, so many sequences for each, side by side; programs and room
    /// stay.
    ///
    /// # Errors
    /// Windows of another length.
    pub fn hear(&mut self, heard: &Heard, copies: usize) -> Result<(), SessionError> {
        self.session.hear(heard.windows() * copies.max(1), &heard.0)
    }

    /// What these layers' heads think of each position of the sound, `[sequence, time, position]` for
    /// each, before the softmax, for the tokens of whole texts. The heads are the same in every call.
    ///
    /// # Errors
    /// Tokens or positions that the model does not have.
    pub fn scores(&mut self, texts: &TextBatch, heads: &[(usize, usize)]) -> Result<Vec<Vec<f32>>, ProgramError> {
        if self.align.is_none() {
            self.align = Some(self.session.beside(|m, ids, memory| {
                let (_, questions) = m.questions(ids, memory, Visible::All, &Context::whole());
                let score = |(layer, head): &(usize, usize)| {
                    let q = one_head(questions[*layer].raw(), *head);
                    let keys = one_head(memory[*layer].keys.raw(), *head);
                    Tensor::from_raw(contraction::einsum(&[q, keys], &[&[0, 1, 3, 4], &[0, 2, 3, 4]], &[0, 1, 2]))
                };
                heads.iter().map(score).collect::<Vec<_>>()
            })?);
        }
        let program = self.align.as_ref().expect("it was just made");
        let scale = (self.features as f32).powf(-0.5);
        let found = program.run(texts.ids::<Time>())?.into_iter();
        Ok(found.map(|a| a.into_vec().into_iter().map(|v| v * scale).collect()).collect())
    }
}

/// One head of `[Batch, _, Heads, HeadDim]`, as `[Batch, _, 1, HeadDim]`.
fn one_head(x: Handle, head: usize) -> Handle {
    slice::slice(x, 2, Extent::constant(head as u64), 1, Const::<1>::dim())
}

impl Heard {
    /// What a program gave, whose positions are the decoder's source.
    fn of(found: Vec<Array<(Batch, Heads, Halved<Frames>, HeadDim)>>) -> Heard {
        let source = |a: Array<_>| {
            let sizes = a.sizes().to_vec();
            KeysOrValues::<Module_>::from_parts(&sizes, Array::into_vec(a))
        };
        Heard(found.into_iter().map(source).collect())
    }

    /// How many windows there are.
    pub fn windows(&self) -> usize {
        self.0.first().map_or(0, |keys| keys.sizes()[0])
    }

    /// Some of the windows.
    ///
    /// # Panics
    /// Where there is no such window.
    #[must_use]
    pub fn rows(&self, rows: &[usize]) -> Heard {
        let some = |all: &KeysOrValues<Module_>| {
            let each = all.data().len() / all.sizes()[0];
            let data = rows.iter().flat_map(|row| all.data()[row * each..(row + 1) * each].iter().copied()).collect();
            let sizes: Vec<usize> = std::iter::once(rows.len()).chain(all.sizes()[1..].iter().copied()).collect();
            KeysOrValues::<Module_>::from_parts(&sizes, data)
        };
        Heard(self.0.iter().map(some).collect())
    }
}

type Hear = Program<(Sound, SampleCounts), Kvs<Module_, Halved<Frames>>>;

/// What the decoder needs of spectrograms.
fn memory(m: &Module_, x: Spectrograms) -> Kvs<Module_, Halved<Frames>> {
    by_heads::<Module_, Halved<Frames>>(&m.memory(m.model.encoder.forward(x, &Context::whole())))
}

type Streams = Vec<Tensor<(Batch, Inner, Width)>>;

/// A Whisper whose sizes came from a file.
pub struct Network {
    config: Config,
    model: Rc<Model<Conditional<Module_>>>,
    weights: Weights,
    features: Features,
    hear: OnceCell<Hear>,
}

/// What a Whisper computes for whole windows and texts.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `[Batch, Time, Vocab]`
    pub logits: Values,
    /// The encoder's streams before the first layer and after each, the last after the last norm.
    pub encoder: Vec<Values>,
    /// The decoder's.
    pub decoder: Vec<Values>,
}

impl Network {
    /// Builds the model that a configuration describes, with the tensors of a source.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(config: &Config, tensors: &dyn checkpoint::Source) -> Result<Network, OpenError> {
        let names = tensors.names();
        let bare = !names.iter().any(|n| n.starts_with("model.")) && names.iter().any(|n| n.starts_with("encoder."));
        let options = LoadOptions::new().sizes(model::sizes::<A>(config)?).rename(move |name| {
            let name = if bare { name.strip_prefix("model.").unwrap_or(name) } else { name };
            name.to_string()
        });
        let module = Conditional(model::whisper::<A>(config)?);
        let model = Rc::new(options.passing_over("proj_out.weight").load(module, tensors)?);
        let frames = 2 * config.size("max_source_positions")?;
        let settings = Settings::whisper(config.size("num_mel_bins")?);
        let settings = Settings { least_samples: frames * settings.hop, ..settings };
        let features = Features::spectral(settings).map_err(|e| config.wrong("num_mel_bins", e.to_string()))?;
        let (weights, hear) = (Weights::default(), OnceCell::new());
        Ok(Network { config: config.clone(), model, weights, features, hear })
    }

    /// Stores the weights that products read in another format.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Weights>) -> Network {
        self.weights = weights.into();
        self.hear = OnceCell::new();
        self
    }

    /// Runs it on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    /// The size of a run-time axis.
    fn size<X: Axis>(&self) -> usize {
        X::extent().eval(self.model.sizes()).unwrap_or(0)
    }

    /// Bands of its spectrograms.
    pub fn bands(&self) -> usize {
        self.size::<Bands>()
    }

    /// Frames of a window.
    pub fn frames(&self) -> usize {
        2 * self.size::<<A as WhisperAxes>::EncoderPositions>()
    }

    /// Positions of the decoder.
    pub fn positions(&self) -> usize {
        self.size::<<A as WhisperAxes>::DecoderPositions>()
    }

    /// Tokens.
    pub fn vocab(&self) -> usize {
        self.size::<<A as WhisperAxes>::Vocab>()
    }

    /// Encodes windows of samples, silence behind those that are shorter.
    ///
    /// # Errors
    /// What a device refuses.
    ///
    /// # Panics
    /// Where one is longer than a window.
    pub fn hear(&self, windows: &[&[f32]]) -> Result<Heard, ProgramError> {
        let program = match self.hear.get() {
            Some(made) => made,
            None => {
                let program = self.model.compile(|m, (sound, counts): (Sound, SampleCounts)| {
                    let (x, _) = self.features.forward::<Bands>(sound, counts);
                    memory(&m.0, x)
                })?;
                let program = program.with_weights(self.weights.clone())?;
                self.hear.get_or_init(|| program)
            }
        };
        Ok(Heard::of(program.run(self.features.pack_to(windows, self.frames()))?))
    }

    /// Encodes windows by their spectrograms.
    ///
    /// # Errors
    /// More frames than a window has.
    pub fn read(&self, windows: &SpectrogramArray) -> Result<Heard, ProgramError> {
        let program = self.model.compile(|m, x: Spectrograms| memory(&m.0, x))?;
        Ok(Heard::of(program.run(windows)?))
    }

    /// The spectrograms `[Batch, Frames, Bands]` of windows of samples.
    ///
    /// # Errors
    /// What a device refuses.
    ///
    /// # Panics
    /// Where one is longer than a window.
    pub fn spectrograms(&self, windows: &[&[f32]]) -> Result<SpectrogramArray, ProgramError> {
        let program = self
            .model
            .compile(|_, (sound, counts): (Sound, SampleCounts)| self.features.forward::<Bands>(sound, counts).0)?;
        program.run(self.features.pack_to(windows, self.frames()))
    }

    /// A session over what was heard, of a sequence for each window.
    ///
    /// # Errors
    /// Nothing that was heard.
    pub fn listener(&self, heard: &Heard) -> Result<Listener, SessionError> {
        let mut options = SessionOptions::new(heard.windows(), self.positions());
        options.weights = self.weights.clone();
        let features = self.size::<<A as WhisperAxes>::DecoderHeadDim>();
        Ok(Listener { session: Session::over(self.model.clone(), options, &heard.0, None)?, align: None, features })
    }

    /// Everything about windows and texts, for comparisons.
    ///
    /// # Errors
    /// Tokens or positions that the model does not have.
    pub fn score(&self, windows: &SpectrogramArray, texts: &TextBatch) -> Result<Scores, SessionError> {
        let listen = self.model.compile(|m, x: Spectrograms| {
            let notes = RefCell::new(vec![]);
            m.0.model.encoder.forward(x, &Context::whole().noting(&notes));
            notes.take().into_iter().map(Tensor::from_raw).collect::<Streams>()
        })?;
        let listener = self.listener(&self.read(windows)?)?;
        let write = listener.session.beside(|m, ids, memory| {
            let notes = RefCell::new(vec![]);
            let stream = m.decode(ids, memory, Visible::All, &Context::whole().noting(&notes));
            let all = std::iter::once(m.head(stream).raw()).chain(notes.take());
            all.map(Tensor::from_raw).collect::<Streams>()
        })?;
        let values = |a: Array<(Batch, Inner, Width)>| Values { sizes: a.sizes().to_vec(), data: a.into_vec() };
        let encoder = listen.run(windows)?.into_iter().map(values).collect();
        let mut written = write.run(texts.ids::<Time>())?.into_iter().map(values);
        let logits = written.next().expect("the program gives logits first");
        Ok(Scores { logits, encoder, decoder: written.collect() })
    }
}
