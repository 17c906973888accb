//! From logits to a token.
//!
//! A [`Sampler`] applies a text's rules to the logits and [draws](mobilis_runtime::sampling) from what they leave. Without
//! rules, a device of its own can draw ([`Sampler::draw_alone`]): then logits never leave it.

use mobilis_runtime::sampling::{self, Candidate, Draw, kth_largest, weight};

use super::options::GenerateOptions;
use super::penalty;

/// A token that was chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// The natural logarithm of the probability that the model gave it, before any rule; where that was
    /// asked for.
    pub logprob: Option<f32>,
    /// As many of the model's likeliest tokens as were asked for, with theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

pub use mobilis_runtime::sampling::NotNumbers;

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: GenerateOptions,
    sequence: u32,
    rules: bool,
    /// Logits after the rules; candidates. Kept for the next step.
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler of a sequence. `sequence` tells apart texts that continue the same prompt with the same
    /// seed: 0, 1, ….
    pub fn new(options: GenerateOptions, sequence: u32) -> Sampler {
        let rules = penalty::any(&options);
        Sampler { options, sequence, rules, logits: Vec::new(), candidates: Vec::new() }
    }

    /// The options.
    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// The token after `tokens`, the first `prompt` of which are the prompt, from the model's logits
    /// (`Vocab`). `allowed` is what a constraint leaves. Nothing where no token is possible.
    ///
    /// # Errors
    /// Logits that are not numbers.
    pub fn sample(
        &mut self,
        logits: &[f32],
        tokens: &[u32],
        prompt: usize,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Option<Choice>, NotNumbers> {
        let draw = self.draw(tokens.len().saturating_sub(prompt));
        let chosen = if !self.rules && allowed.is_none() {
            sampling::sample(logits, &draw, &mut self.candidates)?
        } else {
            if logits.iter().any(|l| l.is_nan()) {
                return Err(NotNumbers);
            }
            self.logits.clear();
            self.logits.extend_from_slice(logits);
            penalty::apply(&self.options, &mut self.logits, tokens, prompt, allowed);
            sampling::sample(&self.logits, &draw, &mut self.candidates)?
        };
        let Some(id) = chosen else { return Ok(None) };
        let Some(count) = self.options.logprobs else {
            return Ok(Some(Choice { id, logprob: None, top: Vec::new() }));
        };
        let total = log_sum_exp(logits);
        let of = |id: u32| logits.get(id as usize).map_or(f32::NEG_INFINITY, |l| (f64::from(*l) - total) as f32);
        let top = likeliest(logits, count).into_iter().map(|c| (c.id, of(c.id))).collect();
        Ok(Some(Choice { id, logprob: Some(of(id)), top }))
    }

    /// How the token after `new` new ones is drawn.
    fn draw(&self, new: usize) -> Draw {
        let o = &self.options;
        Draw {
            temperature: o.temperature,
            top_k: o.top_k,
            top_p: o.top_p,
            min_p: o.min_p,
            seed: o.seed,
            sequence: self.sequence,
            step: new as u64,
        }
    }

    /// The same, where nothing else has a say: no rule that looks at the text, no probabilities asked for.
    pub fn draw_alone(&self, new: usize) -> Option<Draw> {
        (!self.rules && self.options.logprobs.is_none()).then(|| self.draw(new))
    }

    /// The tokens that sampling may give after `logits` went through the rules, with their
    /// probabilities, in the order of ids.
    pub fn probabilities(&mut self, logits: &[f32]) -> Vec<(u32, f64)> {
        sampling::keep(logits, &self.draw(0), &mut self.candidates);
        let largest = self.candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let weight = |c: &Candidate| weight(c.logit, largest);
        let total: f64 = self.candidates.iter().map(weight).sum();
        self.candidates.iter().map(|c| (c.id, weight(c) / total)).collect()
    }
}

/// The `count` largest logits, the largest first; of equal ones the first ids.
fn likeliest(logits: &[f32], count: usize) -> Vec<Candidate> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let least = kth_largest(logits, count);
    let found = (0..).zip(logits).filter(|(_, l)| **l >= least);
    let mut top: Vec<Candidate> = found.map(|(id, l)| Candidate { id, logit: *l }).collect();
    top.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
    top.truncate(count);
    top
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| weight(*l, largest)).sum();
    f64::from(largest) + total.ln()
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
