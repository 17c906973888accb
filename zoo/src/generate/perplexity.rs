//! How well a model foretells a text.
//!
//! The text is cut into windows that overlap; in each, only tokens that no earlier window had are
//! scored, so that nearly every token is foretold from at least `window - stride` others
//! (<https://huggingface.co/docs/transformers/perplexity>). The first token of all is given.

use super::{GenerateError, Lane};
use std::ops::ControlFlow;

/// What the tokens of a text cost.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Perplexity {
    /// Tokens that were foretold.
    pub tokens: usize,
    /// The sum of `-ln p` over them.
    pub nats: f64,
}

impl Perplexity {
    /// The mean of `-ln p`.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// `exp` of the mean: among how many tokens the model wavers, so to speak.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }
}

impl Lane {
    /// Scores a text in windows of `window` tokens, each `stride` after the one before; both are cut
    /// to what the lane has room for. `each` hears of every window: the sum so far and how many
    /// tokens are done.
    ///
    /// # Errors
    /// Tokens that the model does not have, a lane of several texts, losses that are not numbers.
    pub fn perplexity(
        &mut self,
        tokens: &[u32],
        window: usize,
        stride: usize,
        mut each: impl FnMut(Perplexity, usize) -> ControlFlow<()>,
    ) -> Result<Perplexity, GenerateError> {
        if self.batch() != 1 {
            return Err(GenerateError::Texts { batch: self.batch(), found: 1 });
        }
        // The last token of a window is foretold and not fed.
        let window = window.clamp(2, self.positions() + 1);
        let stride = stride.clamp(1, window - 1);
        let mut all = Perplexity::default();
        let (mut begin, mut done) = (0, 1);
        while done < tokens.len() {
            let end = (begin + window).min(tokens.len());
            let losses = self.losses(&tokens[begin..end - 1], &tokens[begin + 1..end])?;
            for (i, loss) in losses[done - begin - 1..].iter().enumerate() {
                if loss.is_nan() {
                    return Err(GenerateError::NotNumbers { row: 0, position: done + i });
                }
                all.nats += f64::from(*loss);
            }
            all.tokens += end - done;
            done = end;
            begin += stride;
            if each(all, done).is_break() {
                break;
            }
        }
        Ok(all)
    }
}
