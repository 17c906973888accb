//! Generating text: from prompts and options to tokens.
//!
//! A [`Generator`] has a model and knows the limits of its texts. Requests go in, a
//! [`Generation`] comes out: an iterator of events, token by token, for all texts of a batch.
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs` | the loop around the model |
//! | `lane.rs` | a session that remembers what it was fed |
//! | `speculate.rs` | guesses that save calls: from the text, or by a draft model |
//! | `options.rs`, `config.rs` | what a user asks for, what a checkpoint proposes |
//! | `choose.rs` | what one text has of its own: sampler, constraint, stops |
//! | `sample.rs`, `penalty.rs` | from logits to a token, and the rules before |
//! | `constraint.rs` | regular expressions and JSON schemas |
//! | `stop.rs` | strings that end a text, over the bounds of tokens |
//! | `beam.rs` | the bookkeeping of beam search |
//! | `beams.rs` | beam search over a session |
//! | `translate.rs` | texts for texts, with encoder-decoders |
//! | `perplexity.rs` | how well a model foretells a text |

mod beam;
mod beams;
mod choose;
mod config;
mod constraint;
mod engine;
mod lane;
mod options;
mod penalty;
mod perplexity;
mod sample;
mod speculate;
mod stop;
mod translate;

pub use beam::{BeamOptions, Beams, EarlyStopping, Hypothesis};
pub(crate) use beams::search;
pub use choose::Chooser;
pub use config::{GenerationConfig, OptionError};
pub use constraint::{Constraint, ConstraintError, ConstraintVocabulary, Mask};
pub use engine::{Event, Generation, Speculation, Statistics, StopReason};
pub use lane::Lane;
pub use options::GenerateOptions;
pub use perplexity::Perplexity;
pub use sample::{Choice, NotNumbers, Sampler};
pub use speculate::{Draft, Guess, lookup};
pub use stop::{Shown, StopStrings};
pub use translate::Translator;

use crate::llm::session::SessionError;
use crate::llm::{SessionOptions, TextModel};
use engine::{Held, Row};
use mobilis_runtime::program::Weights;
use std::time::Instant;

/// Why no text comes out.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Nothing to begin with.
    #[error(
        "text {row} has no tokens: a model continues what is there, so give it a prompt, or a token that texts begin with"
    )]
    Empty {
        /// Which text.
        row: usize,
    },
    /// No texts at all.
    #[error("there is no text to continue")]
    Nothing,
    /// A prompt without room for it.
    #[error(
        "text {row} has {tokens} tokens, there is room for {positions}: shorten it, or use a model or a session for longer texts"
    )]
    Long {
        /// Which text.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// The room.
        positions: usize,
    },
    /// Another number of texts than a session has.
    #[error("the session has {batch} texts, {found} were given")]
    Texts {
        /// The session's.
        batch: usize,
        /// Those given.
        found: usize,
    },
    /// A model that gives no numbers.
    #[error(
        "the logits after token {position} of text {row} are not numbers: the weights are damaged, or too large for their format"
    )]
    NotNumbers {
        /// Which text.
        row: usize,
        /// How many tokens it has.
        position: usize,
    },
    /// A constraint that takes too much work.
    #[error("text {row}: {source}")]
    Constraint {
        /// Which text.
        row: usize,
        /// What the constraint says.
        source: ConstraintError,
    },
    /// A session that failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A prompt and how it goes on.
#[derive(Clone)]
pub struct Request {
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// How many tokens may come.
    pub most: usize,
    /// How tokens are chosen.
    pub chooser: Chooser,
}

/// Makes texts with a model.
pub struct Generator<'m> {
    model: &'m dyn TextModel,
    weights: Weights,
    positions: usize,
}

/// Positions of a model whose configuration names none.
const POSITIONS: usize = 1 << 20;

impl<'m> Generator<'m> {
    /// A generator of a model's texts.
    pub fn new(model: &'m dyn TextModel) -> Generator<'m> {
        let config = model.config();
        let named = ["max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"];
        let found = named.iter().find_map(|key| config.count(key).ok().flatten());
        Generator { model, weights: Weights::default(), positions: found.unwrap_or(POSITIONS).clamp(1, POSITIONS) }
    }

    /// Stores the weights that products read in another format.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Weights>) -> Self {
        self.weights = weights.into();
        self
    }

    /// Lets texts have at most so many tokens, prompt included, where the model allows as many.
    #[must_use]
    pub fn context(mut self, positions: usize) -> Self {
        self.positions = self.positions.min(positions.max(1));
        self
    }

    /// The most tokens that a text can have.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The model.
    pub fn model(&self) -> &'m dyn TextModel {
        self.model
    }

    /// A lane of `batch` texts of up to `positions` tokens.
    pub fn lane(&self, batch: usize, positions: usize) -> Lane {
        let mut options = SessionOptions::new(batch, positions.clamp(1, self.positions));
        options.weights = self.weights.clone();
        Lane::new(self.model.session(options))
    }

    /// Continues texts, in a session of their own.
    ///
    /// # Errors
    /// Prompts that are empty or have no room.
    pub fn generate(
        &self,
        requests: Vec<Request>,
        speculation: Speculation,
    ) -> Result<Generation<'static>, GenerateError> {
        let started = Instant::now();
        let rows = rows(requests, self.positions)?;
        let longest = rows.iter().map(|row| row.prompt.saturating_add(row.most)).max().unwrap_or(0);
        let lane = self.lane(rows.len(), longest);
        Ok(Generation::new(Held::Own(Box::new(lane)), rows, speculation, started))
    }

    /// Continues texts in a lane, whose sequences keep what they have in common with the prompts: a
    /// conversation's earlier turns.
    ///
    /// # Errors
    /// Prompts that are empty or have no room, another number of texts than the lane has.
    pub fn generate_in<'s>(
        &self,
        lane: &'s mut Lane,
        requests: Vec<Request>,
        speculation: Speculation,
    ) -> Result<Generation<'s>, GenerateError> {
        let started = Instant::now();
        if requests.len() != lane.batch() {
            return Err(GenerateError::Texts { batch: lane.batch(), found: requests.len() });
        }
        let rows = rows(requests, lane.positions())?;
        Ok(Generation::new(Held::Lent(lane), rows, speculation, started))
    }
}

fn rows(requests: Vec<Request>, positions: usize) -> Result<Vec<Row>, GenerateError> {
    if requests.is_empty() {
        return Err(GenerateError::Nothing);
    }
    let row = |(index, request): (usize, Request)| {
        let Request { prompt: tokens, most, chooser } = request;
        match tokens.len() {
            0 => Err(GenerateError::Empty { row: index }),
            n if n > positions => Err(GenerateError::Long { row: index, tokens: n, positions }),
            prompt => Ok(Row { index, tokens, prompt, most, chooser, done: false }),
        }
    };
    requests.into_iter().enumerate().map(row).collect()
}
