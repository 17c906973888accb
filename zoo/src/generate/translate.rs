//! Texts for texts, with an encoder-decoder: translations, summaries.
//!
//! The sources are encoded together, once; from there on each result is a text that begins with the
//! decoder's start token, and is continued like any other.

use super::beam::{BeamOptions, Hypothesis};
use super::engine::{Held, Row};
use super::{GenerateError, GenerateOptions, Generation, Lane, POSITIONS, Request, Speculation};
use crate::llm::SessionOptions;
use crate::llm::encoder::TextBatch;
use crate::llm::seq2seq::{Seq2SeqModel, SpecialTokens};
use mobilis_runtime::program::Weights;
use std::time::Instant;

/// Makes texts for texts.
pub struct Translator<'m> {
    model: &'m dyn Seq2SeqModel,
    special: SpecialTokens,
    weights: Weights,
    positions: usize,
}

impl<'m> Translator<'m> {
    /// A translator with the tokens of the model's configuration.
    pub fn new(model: &'m dyn Seq2SeqModel) -> Translator<'m> {
        // T5 has distances instead of positions: its `n_positions` says only what it was trained on.
        let found = model.config().count("max_position_embeddings").ok().flatten();
        let positions = found.unwrap_or(POSITIONS).clamp(1, POSITIONS);
        Translator { model, special: model.special(), weights: Weights::default(), positions }
    }

    /// Begins with other tokens.
    #[must_use]
    pub fn special(mut self, special: SpecialTokens) -> Self {
        self.special = special;
        self
    }

    /// Stores the weights that products read in another format.
    #[must_use]
    pub fn weights(mut self, weights: impl Into<Weights>) -> Self {
        self.weights = weights.into();
        self
    }

    /// Lets texts have at most so many tokens, where the model allows as many.
    #[must_use]
    pub fn context(mut self, positions: usize) -> Self {
        self.positions = self.positions.min(positions.max(1));
        self
    }

    /// A lane over sources that are encoded now.
    fn lane(&self, sources: &[&[u32]], most: usize) -> Result<Lane, GenerateError> {
        if let Some(row) = sources.iter().position(|s| s.is_empty()) {
            return Err(GenerateError::Empty { row });
        }
        if let Some((row, source)) = sources.iter().enumerate().find(|(_, s)| s.len() > self.positions) {
            return Err(GenerateError::Long { row, tokens: source.len(), positions: self.positions });
        }
        let mut options = SessionOptions::new(sources.len(), most.saturating_add(1).clamp(1, self.positions));
        options.weights = self.weights.clone();
        let sources = TextBatch::padded(sources, self.special.padding);
        Ok(Lane::new(self.model.session(&sources, options)?))
    }

    /// Writes a text for each request, whose prompt is the source.
    ///
    /// # Errors
    /// Sources that are empty, too long, or have tokens that the model does not know.
    pub fn generate(&self, requests: Vec<Request>) -> Result<Generation<'static>, GenerateError> {
        let started = Instant::now();
        if requests.is_empty() {
            return Err(GenerateError::Nothing);
        }
        let sources: Vec<&[u32]> = requests.iter().map(|r| r.prompt.as_slice()).collect();
        let most = requests.iter().map(|r| r.most).max().unwrap_or(0);
        let lane = self.lane(&sources, most)?;
        let read = sources.iter().map(|s| s.len()).sum();
        let row = |(index, r): (usize, Request)| {
            let (most, chooser) = (r.most, r.chooser);
            Row { index, tokens: vec![self.special.start], prompt: 1, most, chooser, done: false }
        };
        let rows = requests.into_iter().enumerate().map(row).collect();
        Ok(Generation::new(Held::Own(Box::new(lane)), rows, Speculation::None, started).having_read(read))
    }

    /// The best texts for a source, best first, by beam search: as
    /// [`Generator::beams`](super::Generator::beams).
    ///
    /// # Errors
    /// As of [`generate`](Self::generate).
    pub fn beams(
        &self,
        source: &[u32],
        options: &GenerateOptions,
        how: BeamOptions,
    ) -> Result<Vec<Hypothesis>, GenerateError> {
        let most = options.max_new_tokens.min(self.positions);
        super::beams::search(self.lane(&[source], most)?, &[self.special.start], most, options, how)
    }
}
