//! Beam search over a session: the prompt is worked on once, then its cache is copied for each
//! beam, and again whenever a beam goes on from another.

use super::beam::{BeamOptions, Beams, Hypothesis};
use super::{GenerateError, GenerateOptions, Generator, Lane, penalty};
use crate::llm::session::Want;

impl Generator<'_> {
    /// The best continuations of a prompt, best first, by beam search as transformers does it. Of
    /// the options, penalties change the log-probabilities of each hypothesis, and lengths and
    /// tokens that end texts count; nothing is drawn.
    ///
    /// # Errors
    /// A prompt that is empty or has no room, a model that gives no numbers.
    pub fn beams(
        &self,
        prompt: &[u32],
        options: &GenerateOptions,
        how: BeamOptions,
    ) -> Result<Vec<Hypothesis>, GenerateError> {
        let positions = self.positions();
        match prompt.len() {
            0 => return Err(GenerateError::Empty { row: 0 }),
            n if n > positions => return Err(GenerateError::Long { row: 0, tokens: n, positions }),
            _ => {}
        }
        // The last token of a text needs no position.
        let most = options.max_new_tokens.min(positions - prompt.len() + 1);
        search(self.lane(1, prompt.len() + most), prompt, most, options, how)
    }
}

/// Beam search in a lane of one empty text, for at most so many tokens after the prompt.
pub(crate) fn search(
    mut lane: Lane,
    prompt: &[u32],
    most: usize,
    options: &GenerateOptions,
    how: BeamOptions,
) -> Result<Vec<Hypothesis>, GenerateError> {
    let mut beams = Beams::new(how, most);
    let mut next: Vec<Vec<u32>> = vec![prompt.to_vec()];
    while !beams.is_over() {
        let rows: Vec<&[u32]> = next.iter().map(Vec::as_slice).collect();
        let logits = lane.feed(&rows, Want::Last)?;
        let count = beams.running().len();
        let mut scores = Vec::with_capacity(count);
        for (beam, running) in beams.running().iter().enumerate() {
            // All beams share the first call.
            let row = beam.min(rows.len() - 1);
            let mut scored = logits.last(row).map(log_softmax).unwrap_or_default();
            if scored.iter().all(|s| s.is_nan()) {
                let position = prompt.len() + running.tokens.len();
                return Err(GenerateError::NotNumbers { row: 0, position });
            }
            let tokens: Vec<u32> = prompt.iter().chain(&running.tokens).copied().collect();
            penalty::apply(options, &mut scored, &tokens, prompt.len(), None);
            scores.push(scored);
        }
        let from = beams.step(&scores, &options.stop_tokens);
        if beams.is_over() {
            break;
        }
        let first = rows.len() == 1 && count > 1;
        lane.select(&if first { vec![0; from.len()] } else { from })?;
        next = beams.running().iter().map(|h| h.tokens[h.tokens.len() - 1..].to_vec()).collect();
    }
    Ok(beams.best())
}

/// The natural logarithms of the probabilities that logits stand for.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    let shift = most + total.ln() as f32;
    logits.iter().map(|l| l - shift).collect()
}
