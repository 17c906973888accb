//! A loaded Canary: features to texts.

use super::decoder::{AnyCanary, CanaryAxes, CanaryDecoder, DecoderSettings};
use super::prompt::PromptError;
use crate::asr::conformer::Network;
use crate::asr::conformer::network::{Features, Heard};
use crate::audio::features::FeatureError;
use crate::generate::{BeamOptions, GenerateError, GenerateOptions, Lane, search};
use crate::llm::config::{Config, ConfigError};
use crate::llm::encoder::Visible;
use crate::llm::family::{OpenError, Values};
use crate::llm::seq2seq::{Conditional, KeysOrValues, Kvs, Seq2Seq, Source, by_heads};
use crate::llm::session::{Session, SessionError, SessionOptions};
use crate::llm::{Batch, Context, Ids, Time};
use crate::text::TextError;
use mobilis_runtime::checkpoint;
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;
use std::rc::Rc;

type A = AnyCanary;
type Decoder = CanaryDecoder<A>;
type Heard_ = <A as CanaryAxes>::Heard;
type Sound = Tensor<(Batch, Source, Heard_)>;
type SourceMask = Tensor<(Batch, Source), Mask>;

/// Why a Canary writes nothing.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// A model that cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Tokens or positions that the decoder does not have.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A text that cannot be written.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Features that cannot be had.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Tokenizers that cannot be had.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A prompt that the vocabulary has no tokens for.
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

impl From<ConfigError> for CanaryError {
    fn from(error: ConfigError) -> Self {
        CanaryError::Open(error.into())
    }
}

/// How texts are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// Hypotheses that run side by side; 1 takes the likeliest token each time.
    pub beams: usize,
    /// The exponent of the length that scores are divided by; NeMo's default is 0.
    pub length_penalty: f32,
    /// Tokens that prompt and text have more than frames of the encoder, at most: NeMo's `max_generation_delta`.
    pub more: usize,
    /// What ends a text.
    pub end: u32,
    /// What ends it too: NeMo's beams take padding for an end.
    pub padding: Option<u32>,
}

impl Writing {
    /// The likeliest token each time, as NeMo has it.
    pub fn greedy(end: u32) -> Writing {
        Writing { beams: 1, length_penalty: 0.0, more: 50, end, padding: None }
    }
}

/// A Canary whose sizes came from a file.
pub struct Canary {
    encoder: Network,
    decoder: Rc<Model<Conditional<Decoder>>>,
    settings: DecoderSettings,
    remember: OnceCell<Program<Sound, Kvs<Decoder>>>,
}

impl Canary {
    /// Builds the model that a configuration of NeMo's describes, with the tensors of a source.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(config: &Config, tensors: &dyn checkpoint::Source) -> Result<Canary, CanaryError> {
        let encoder = Network::encoder(config, tensors)?;
        let settings = DecoderSettings::of(config, encoder.settings.encoder.hidden)?;
        let options = LoadOptions::new().sizes(settings.sizes::<A>());
        let options = ["encoder.**", "preprocessor.**", "spec_augmentation.**", "loss.**"]
            .into_iter()
            .fold(options, |options, pattern| options.passing_over(pattern));
        let module = Conditional(settings.module::<A>());
        let decoder = Rc::new(options.load(module, tensors).map_err(OpenError::from)?);
        Ok(Canary { encoder, decoder, settings, remember: OnceCell::new() })
    }

    /// Runs on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        self.encoder.set_device(device);
        self.decoder.store().set_device(device);
    }

    /// The encoder.
    pub fn encoder(&self) -> &Network {
        &self.encoder
    }

    /// Tokens of prompt and text that a text has at most.
    pub fn positions(&self) -> usize {
        self.settings.positions
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.encoder.parameter_count() + self.decoder.parameter_count()
    }

    /// Hears recordings.
    ///
    /// # Errors
    /// Features of other sizes.
    pub fn hear(&self, features: &Features) -> Result<Heard, CanaryError> {
        Ok(self.encoder.hear(features, None, false)?)
    }

    /// What the decoder remembers of what was heard, and which frames count.
    #[allow(clippy::type_complexity)]
    fn remembered(
        &self,
        heard: &Heard,
    ) -> Result<(Vec<KeysOrValues<Decoder>>, Array<(Batch, Source), Mask>), CanaryError> {
        let (rows, frames) = (heard.stream.sizes[0], heard.stream.sizes[1]);
        let x: Array<(Batch, Source, Heard_)> = Array::from_parts(&heard.stream.sizes, heard.stream.data.clone());
        let mask = heard.lengths.iter().flat_map(|n| (0..frames).map(move |t| t < *n)).collect();
        let program = match self.remember.get() {
            Some(program) => program,
            None => {
                let made =
                    self.decoder.compile(|m, x: Sound| by_heads::<Decoder, Source>(&m.0.memory(m.0.project(x))))?;
                self.remember.get_or_init(|| made)
            }
        };
        let memory = program.run(x)?;
        Ok((memory, Array::from_parts(&[rows, frames], mask)))
    }

    /// Logits of whole texts, `[recordings, tokens, Vocab]`, each token given those before.
    ///
    /// # Errors
    /// Tokens or positions that the decoder does not have.
    pub fn score(&self, heard: &Heard, texts: &[u32]) -> Result<Values, CanaryError> {
        type Logits_ = Tensor<(Batch, Time, <A as CanaryAxes>::Vocab)>;
        let program: Program<(Sound, SourceMask, Ids), Logits_> =
            self.decoder.compile(|m, (x, mask, ids): (Sound, SourceMask, Ids)| {
                let memory = m.0.memory(m.0.project(x));
                m.0.head(m.0.decode(ids, &memory, Visible::Mask(mask), &Context::whole()))
            })?;
        let (rows, frames) = (heard.stream.sizes[0], heard.stream.sizes[1]);
        let x: Array<(Batch, Source, Heard_)> = Array::from_parts(&heard.stream.sizes, heard.stream.data.clone());
        let mask = heard.lengths.iter().flat_map(|n| (0..frames).map(move |t| t < *n)).collect();
        let mask: Array<(Batch, Source), Mask> = Array::from_parts(&[rows, frames], mask);
        let time = texts.len() / rows.max(1);
        let ids = texts.iter().map(|id| i32::try_from(*id).unwrap_or(-1)).collect();
        let ids: Array<(Batch, Time), Index> = Array::from_parts(&[rows, time], ids);
        let found = program.run((x, mask, ids))?;
        Ok(Values { sizes: found.sizes().to_vec(), data: found.into_vec() })
    }

    /// The tokens of one recording behind the prompt, without what ends them.
    ///
    /// # Errors
    /// A prompt that is longer than the decoder's positions or has tokens that it does not know.
    pub fn write(&self, heard: &Heard, row: usize, prompt: &[u32], how: &Writing) -> Result<Vec<u32>, CanaryError> {
        let one = alone(heard, row);
        let (memory, mask) = self.remembered(&one)?;
        let room = self.positions().saturating_sub(prompt.len());
        if prompt.is_empty() || room == 0 {
            let (tokens, positions) = (prompt.len(), self.positions());
            return Err(GenerateError::Long { row, tokens, positions }.into());
        }
        let most = room.min(one.lengths[0].saturating_add(how.more).saturating_sub(prompt.len()));
        if most == 0 {
            return Ok(vec![]);
        }
        let beams = how.beams.max(1);
        let options = SessionOptions::new(1, (prompt.len() + most).min(self.positions()));
        let session = Session::over(self.decoder.clone(), options, &memory, Some(&mask))?;
        let lane = Lane::new(Box::new(session));
        let options = GenerateOptions {
            stop_tokens: [how.end].into_iter().chain(how.padding).collect(),
            ..GenerateOptions::default()
        };
        let how = BeamOptions { length_penalty: how.length_penalty, ..BeamOptions::new(beams) };
        let mut found = search(lane, prompt, most, &options, how)?;
        let mut tokens = if found.is_empty() { vec![] } else { found.remove(0).tokens };
        if tokens.last().is_some_and(|last| options.stop_tokens.contains(last)) {
            tokens.pop();
        }
        Ok(tokens)
    }
}

/// One of the recordings, as long as it is: its text does not depend on those beside it.
fn alone(heard: &Heard, row: usize) -> Heard {
    let (frames, width) = (heard.stream.sizes[1], heard.stream.sizes[2]);
    let n = heard.lengths[row].min(frames);
    let begin = row * frames * width;
    let stream = Values { sizes: vec![1, n, width], data: heard.stream.data[begin..begin + n * width].to_vec() };
    Heard { head: stream.clone(), stream, lengths: vec![n], ctc: None, hidden: vec![] }
}
