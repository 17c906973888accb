//! One window's text: greedy, or drawn at a temperature, until it is plausible.
//!
//! Several windows are written side by side, each with its own prompt. A text that repeats itself (it
//! compresses too well) or that the model believes too little is written again at a higher temperature,
//! the best of several: Whisper's guard against loops and inventions (§4.5 of the paper, OpenAI's
//! `transcribe.py`).

use super::network::{Heard, Listener};
use super::rules::Rules;
use super::tokens::Tokens;
use crate::llm::session::{SessionError, Want};
use crate::text::Tokenizer;
use mobilis_runtime::logits::{likeliest, log_sum_exp};
use mobilis_runtime::philox::philox4x32;
use std::io::Write;

/// How a text is written.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Temperatures, tried in this order until a text is plausible.
    pub temperatures: Vec<f32>,
    /// How many texts are drawn at a temperature above 0.
    pub best_of: usize,
    /// A text that compresses better than so many times repeats itself.
    pub most_compression: Option<f32>,
    /// A text whose tokens' mean log-probability is below this is not believed.
    pub least_logprob: Option<f32>,
    /// Above this probability nothing is said, where the text is not believed either.
    pub no_speech: Option<f32>,
    /// Which texts are drawn.
    pub seed: u64,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            best_of: 5,
            most_compression: Some(2.4),
            least_logprob: Some(-1.0),
            no_speech: Some(0.6),
            seed: 0,
        }
    }
}

/// A window's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Its tokens, times among them, without the end.
    pub tokens: Vec<u32>,
    /// The logarithm of each token's probability.
    pub logprobs: Vec<f32>,
    /// Their mean, the end's among them.
    pub mean_logprob: f32,
    /// The probability that nothing is said.
    pub no_speech: f32,
    /// How many times smaller the text becomes by compression.
    pub compression: f32,
    /// The temperature it was drawn at.
    pub temperature: f32,
}

impl Manner {
    /// Whether nothing was said, whatever was written.
    pub fn silent(&self, text: &Written) -> bool {
        let unlikely = self.least_logprob.is_none_or(|least| text.mean_logprob <= least);
        self.no_speech.is_some_and(|most| text.no_speech > most) && unlikely
    }

    fn plausible(&self, text: &Written) -> bool {
        let repeats = self.most_compression.is_some_and(|most| text.compression > most);
        let doubted = self.least_logprob.is_some_and(|least| text.mean_logprob < least);
        let silent = self.no_speech.is_some_and(|most| text.no_speech > most)
            && self.least_logprob.is_some_and(|least| text.mean_logprob < least);
        silent || !(repeats || doubted)
    }
}

/// What writes texts for windows.
pub struct Writer<'w> {
    /// The session.
    pub listener: &'w mut Listener,
    /// Special tokens.
    pub tokens: &'w Tokens,
    /// What tells how well a text compresses.
    pub tokenizer: &'w Tokenizer,
    /// What may be said.
    pub rules: Rules<'w>,
    /// How.
    pub manner: &'w Manner,
    /// The most tokens of a window.
    pub most: usize,
}

impl Writer<'_> {
    /// Writes a text for each window behind its prompt, whose last part begins at `starts`: with the
    /// token that a transcript starts with. `numbers` tell apart windows that draw with one seed.
    ///
    /// # Errors
    /// Prompts that are too long.
    pub fn write(
        &mut self,
        heard: &Heard,
        prompts: &[Vec<u32>],
        numbers: &[u32],
    ) -> Result<Vec<Written>, SessionError> {
        let mut texts: Vec<Option<Written>> = vec![None; prompts.len()];
        for (attempt, temperature) in self.manner.temperatures.iter().enumerate() {
            let open = |text: &Option<Written>| text.as_ref().is_none_or(|text| !self.manner.plausible(text));
            let rows: Vec<usize> = (0..texts.len()).filter(|row| open(&texts[*row])).collect();
            if rows.is_empty() {
                break;
            }
            let copies = if *temperature > 0.0 { self.manner.best_of.max(1) } else { 1 };
            match rows.len() == prompts.len() {
                true => self.listener.hear(heard, copies)?,
                false => self.listener.hear(&heard.rows(&rows), copies)?,
            }
            let part: Vec<&[u32]> = rows.iter().map(|row| prompts[*row].as_slice()).collect();
            // What is drawn depends on the window, not on those beside it.
            let seed = |i: usize| [numbers[rows[i / copies]], attempt as u32, (i % copies) as u32];
            let seeds: Vec<[u32; 3]> = (0..rows.len() * copies).map(seed).collect();
            let found = self.draw(&part, copies, *temperature, &seeds)?;
            for (row, texts_of_row) in rows.iter().zip(found.chunks(copies)) {
                let best = texts_of_row.iter().max_by(|a, b| rank(a).total_cmp(&rank(b)));
                texts[*row] = best.cloned();
            }
        }
        Ok(texts.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// `copies` texts for each prompt.
    fn draw(
        &mut self,
        prompts: &[&[u32]],
        copies: usize,
        temperature: f32,
        seeds: &[[u32; 3]],
    ) -> Result<Vec<Written>, SessionError> {
        let prompts: Vec<&[u32]> = prompts.iter().flat_map(|p| std::iter::repeat_n(*p, copies)).collect();
        let split = |p: &&[u32]| p.iter().rposition(|id| *id == self.tokens.start).map_or(p.len(), |at| at + 1);
        let splits: Vec<usize> = prompts.iter().map(split).collect();
        let mut texts = vec![Written { temperature, ..Written::default() }; prompts.len()];
        // Up to the start, behind which the model says whether anything is said; then the rest.
        let first: Vec<&[u32]> = prompts.iter().zip(&splits).map(|(p, at)| &p[..*at]).collect();
        let mut logits = self.listener.sequences().feed(&first, Want::Last)?;
        if let Some(id) = self.tokens.no_speech {
            for (row, text) in texts.iter_mut().enumerate() {
                let all = logits.last(row).unwrap_or_default();
                text.no_speech = (f64::from(all[id as usize]) - log_sum_exp(all)).exp() as f32;
            }
        }
        let rest: Vec<&[u32]> = prompts.iter().zip(&splits).map(|(p, at)| &p[*at..]).collect();
        if rest.iter().any(|r| !r.is_empty()) {
            logits = self.listener.sequences().feed(&rest, Want::Last)?;
        }
        // The texts that go on, by the session's rows.
        let mut live: Vec<usize> = (0..texts.len()).collect();
        let mut totals = vec![0.0f64; texts.len()];
        for step in 0..self.most {
            let mut next = vec![];
            for (row, index) in live.iter().enumerate() {
                let text = &mut texts[*index];
                let mut all = logits.last(row).unwrap_or_default().to_vec();
                self.rules.apply(&mut all, &text.tokens);
                let [number, attempt, copy] = seeds[*index];
                let id = match temperature > 0.0 {
                    true => drawn(&all, temperature, [number, attempt, copy, step as u32], self.manner.seed),
                    false => best(&all),
                };
                let logprob = f64::from(all.get(id as usize).copied().unwrap_or(0.0)) - log_sum_exp(&all);
                totals[*index] += logprob;
                if id != self.tokens.end {
                    text.tokens.push(id);
                    text.logprobs.push(logprob as f32);
                }
                next.push(id);
            }
            let goes_on: Vec<usize> = (0..live.len()).filter(|row| next[*row] != self.tokens.end).collect();
            let sequences = self.listener.sequences();
            let room = sequences.lengths().iter().all(|n| *n < sequences.positions());
            if goes_on.is_empty() || step + 1 == self.most || !room {
                break;
            }
            // Rows that are done cost as much as others: leave them out when they are half of all.
            if 2 * goes_on.len() <= live.len() {
                self.listener.sequences().select(&goes_on)?;
                live = goes_on.iter().map(|row| live[*row]).collect();
                next = goes_on.iter().map(|row| next[*row]).collect();
            }
            let fed: Vec<&[u32]> = next.chunks_exact(1).collect();
            logits = self.listener.sequences().feed(&fed, Want::Last)?;
        }
        for (text, total) in texts.iter_mut().zip(&totals) {
            text.mean_logprob = (total / (text.tokens.len() + 1) as f64) as f32;
            text.compression = self.compression(&text.tokens);
        }
        Ok(texts)
    }

    /// How many times smaller a text becomes.
    fn compression(&self, tokens: &[u32]) -> f32 {
        let words: Vec<u32> = tokens.iter().copied().filter(|id| *id < self.tokens.end).collect();
        let text = self.tokenizer.decode(&words, true);
        let text = text.trim();
        let mut packed = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
        let size = packed.write_all(text.as_bytes()).and_then(|()| packed.finish()).map_or(1, |p| p.len());
        text.len() as f32 / size.max(1) as f32
    }
}

/// By what the best of several texts is chosen: the log-probability of all, the end among them, over the
/// number of tokens without it (`MaximumLikelihoodRanker` of OpenAI's `decoding.py`).
fn rank(text: &Written) -> f32 {
    let n = text.tokens.len() as f32;
    text.mean_logprob * (n + 1.0) / n.max(1.0)
}

/// The likeliest token.
pub(super) fn best(logits: &[f32]) -> u32 {
    likeliest(logits).map_or(0, |(id, _)| id as u32)
}

/// A token drawn by its probability at a temperature.
fn drawn(logits: &[f32], temperature: f32, counter: [u32; 4], seed: u64) -> u32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |v: f32| f64::from((v - largest) / temperature).exp();
    let total: f64 = logits.iter().map(|v| weight(*v)).sum();
    let [a, b, ..] = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let uniform = (f64::from(a) + f64::from(b >> 11) / 2_097_152.0) / 4_294_967_296.0;
    let mut left = uniform * total;
    for (i, v) in logits.iter().enumerate().filter(|(_, v)| **v > f32::NEG_INFINITY) {
        left -= weight(*v);
        if left < 0.0 {
            return i as u32;
        }
    }
    best(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlikely_end_counts_against_a_text() {
        let text = |n: usize, each: f32, end: f32| Written {
            tokens: vec![0; n],
            mean_logprob: (n as f32 * each + end) / (n + 1) as f32,
            ..Written::default()
        };
        assert!((rank(&text(4, -0.5, -2.0)) + 1.0).abs() < 1e-6);
        assert!(rank(&text(4, -0.5, -0.1)) > rank(&text(4, -0.4, -2.0)));
        assert!(rank(&text(0, 0.0, -1.0)).is_finite());
    }

    #[test]
    fn tokens_are_drawn_by_their_probability() {
        let logits = [0.0, f32::NEG_INFINITY, 2.0f32.ln(), 0.0];
        let mut counts = [0; 4];
        for step in 0..4000 {
            counts[drawn(&logits, 1.0, [0, 0, 0, step], 7) as usize] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]) && (1900..2100).contains(&counts[2]), "{counts:?}");
        assert!((0..100).all(|step| drawn(&logits, 0.01, [0, 0, 0, step], 7) == 2), "cold: the likeliest");
        assert_eq!(drawn(&logits, 1.0, [1, 2, 3, 4], 5), drawn(&logits, 1.0, [1, 2, 3, 4], 5));
    }

    #[test]
    fn texts_are_plausible_as_the_paper_says() {
        let manner = Manner::default();
        let text = |mean_logprob, compression, no_speech| Written {
            mean_logprob,
            compression,
            no_speech,
            ..Written::default()
        };
        assert!(manner.plausible(&text(-0.5, 1.5, 0.1)));
        assert!(!manner.plausible(&text(-0.5, 2.5, 0.1)), "it repeats itself");
        assert!(!manner.plausible(&text(-1.5, 1.5, 0.1)), "it is not believed");
        assert!(manner.plausible(&text(-1.5, 3.0, 0.7)), "nothing is said");
        assert!(manner.silent(&text(-1.5, 1.0, 0.7)) && !manner.silent(&text(-0.5, 1.0, 0.7)));
    }
}
