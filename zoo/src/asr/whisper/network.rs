//! A loaded Whisper and its programs: sound to memory, memory to tokens, tokens to places in the sound.
//!
//! A window of sound is encoded once ([`Network::hear`]); of the result each layer of the decoder needs
//! keys and values only, the [`Heard`]. A [`Listener`] is a session over it ([`crate::llm::session`]):
//! fed with tokens, it gives logits. It is made once and hears one window after another, so that
//! programs are compiled once.

use super::model::{self, AnyWhisper, Halved, WhisperAxes, WhisperModel};
use crate::audio::Frames;
use crate::llm::config::Config;
use crate::llm::encoder::{TextBatch, Visible};
use crate::llm::family::{OpenError, Values};
use crate::llm::seq2seq::{Conditional, KeysOrValues, Kvs, Seq2Seq};
use crate::llm::session::{Session, SessionError, SessionOptions, Sessions};
use crate::llm::{Batch, Context, Time};
use mobilis_runtime::checkpoint;
use mobilis_runtime::prelude::*;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

type A = AnyWhisper;
type Module_ = WhisperModel<A>;
type Bands = <A as WhisperAxes>::Bands;

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

/// A session over windows of sound, a sequence for each.
pub struct Listener(Session<Conditional<Module_>>);

impl Listener {
    /// The sequences, to be fed with tokens.
    pub fn sequences(&mut self) -> &mut dyn Sessions {
        &mut self.0
    }

    /// Begins anew over other windows, a sequence for each; programs and room stay.
    ///
    /// # Errors
    /// Windows of another length.
    pub fn hear(&mut self, heard: &Heard) -> Result<(), SessionError> {
        self.0.hear(heard.windows(), &heard.0)
    }
}

impl Heard {
    /// How many windows there are.
    pub fn windows(&self) -> usize {
        self.0.first().map_or(0, |keys| keys.sizes()[0])
    }
}

type Hear = Program<Spectrograms, Kvs<Module_, Halved<Frames>>>;
type Streams = Vec<Tensor<(Batch, Inner, Width)>>;

/// A Whisper whose sizes came from a file.
pub struct Network {
    config: Config,
    model: Rc<Model<Conditional<Module_>>>,
    weights: Weights,
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
        Ok(Network { config: config.clone(), model, weights: Weights::default(), hear: OnceCell::new() })
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

    fn hearing(&self) -> Result<&Hear, ProgramError> {
        if let Some(made) = self.hear.get() {
            return Ok(made);
        }
        let program = self.model.compile(|m, x: Spectrograms| {
            let memory = m.0.memory(m.0.model.encoder.forward(x, &Context::whole()));
            memory.iter().flat_map(|kv| [kv.keys, kv.values]).collect::<Vec<_>>()
        })?;
        let program = program.with_weights(self.weights.clone())?;
        Ok(self.hear.get_or_init(|| program))
    }

    /// Encodes windows.
    ///
    /// # Errors
    /// More frames than a window has.
    pub fn hear(&self, windows: &SpectrogramArray) -> Result<Heard, ProgramError> {
        let found = self.hearing()?.run(windows)?;
        let source = |a: Array<_>| {
            let sizes = a.sizes().to_vec();
            KeysOrValues::<Module_>::from_parts(&sizes, Array::into_vec(a))
        };
        Ok(Heard(found.into_iter().map(source).collect()))
    }

    /// A session over what was heard, of a sequence for each window.
    ///
    /// # Errors
    /// Nothing that was heard.
    pub fn listener(&self, heard: &Heard) -> Result<Listener, SessionError> {
        let mut options = SessionOptions::new(heard.windows(), self.positions());
        options.weights = self.weights.clone();
        Ok(Listener(Session::over(self.model.clone(), options, &heard.0, None)?))
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
        let listener = self.listener(&self.hear(windows)?)?;
        let write = listener.0.beside(|m, ids, memory| {
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
