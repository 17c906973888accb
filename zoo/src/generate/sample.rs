//! From logits to a token.
//!
//! Greedy takes the largest logit (of equal ones the first). Sampling follows `transformers`' warpers in
//! their order: temperature, `top_k` (ties of the last one stay), `top_p` (the likeliest tokens until
//! their probabilities together reach it), `min_p`. Sums are in `f64`. A vocabulary is never sorted
//! whole: what can be left out by one pass over it is left out first.
//!
//! The random number of a step is a function of seed, sequence and step (Philox), and the token is where
//! it falls in the cumulative probability in the order of ids. So neither the batch, nor guesses, nor the
//! way in which candidates were found changes a draw.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mobilis_runtime::philox::philox4x32;

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

/// Logits that are not numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNumbers;

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

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
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
        let plain = !self.rules && allowed.is_none();
        let chosen = if plain && !self.options.samples() {
            largest(logits)?
        } else {
            if logits.iter().any(|l| l.is_nan()) {
                return Err(NotNumbers);
            }
            let mut own = std::mem::take(&mut self.logits);
            own.clear();
            own.extend_from_slice(logits);
            if !plain {
                penalty::apply(&self.options, &mut own, tokens, prompt, allowed);
            }
            let step = tokens.len().saturating_sub(prompt) as u64;
            let chosen = if self.options.samples() { self.draw(&own, step) } else { largest(&own) };
            self.logits = own;
            chosen?
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

    /// The tokens that sampling may give after `logits` went through the rules, with their
    /// probabilities, in the order of ids.
    pub fn probabilities(&mut self, logits: &[f32]) -> Vec<(u32, f64)> {
        self.keep(logits);
        let largest = self.candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let weight = |c: &Candidate| weight(c.logit, largest);
        let total: f64 = self.candidates.iter().map(weight).sum();
        self.candidates.iter().map(|c| (c.id, weight(c) / total)).collect()
    }

    fn draw(&mut self, logits: &[f32], step: u64) -> Result<Option<u32>, NotNumbers> {
        self.keep(logits);
        let largest = self.candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        if largest == f32::NEG_INFINITY {
            return Ok(None);
        }
        let total: f64 = self.candidates.iter().map(|c| weight(c.logit, largest)).sum();
        let goal = uniform(self.options.seed, self.sequence, step) * total;
        let mut sum = 0.0;
        let mut last = None;
        for c in &self.candidates {
            let w = weight(c.logit, largest);
            sum += w;
            if w > 0.0 {
                last = Some(c.id);
            }
            if sum > goal && w > 0.0 {
                break;
            }
        }
        Ok(last)
    }

    /// Fills `candidates` with what the warpers leave, in the order of ids.
    fn keep(&mut self, logits: &[f32]) {
        let o = &self.options;
        let temperature = if o.temperature > 0.0 { o.temperature } else { 1.0 };
        // Very small temperatures make infinities of finite logits; differences to the largest do not.
        let offset = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let offset = if offset.is_finite() { offset } else { 0.0 };
        let warm = |l: f32| (l - offset) / temperature;
        let out = &mut self.candidates;
        out.clear();
        let all = (0..).zip(logits).filter(|(_, l)| **l > f32::NEG_INFINITY);
        if o.top_k > 0 && o.top_k < logits.len() {
            let least = kth_largest(logits, o.top_k);
            out.extend(all.filter(|(_, l)| **l >= least).map(|(id, l)| Candidate { id, logit: warm(*l) }));
        } else {
            out.extend(all.map(|(id, l)| Candidate { id, logit: warm(*l) }));
        }
        if o.top_p < 1.0 {
            nucleus(out, f64::from(o.top_p));
        }
        if o.min_p > 0.0 {
            let largest = out.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
            out.retain(|c| weight(c.logit, largest) >= f64::from(o.min_p));
        }
        if !out.is_sorted_by_key(|c| c.id) {
            out.sort_unstable_by_key(|c| c.id);
        }
    }
}

/// The probability of a logit beside the largest one's.
fn weight(logit: f32, largest: f32) -> f64 {
    if logit == largest {
        // Also where both are infinite.
        return 1.0;
    }
    (f64::from(logit) - f64::from(largest)).exp()
}

/// The likeliest candidates whose probabilities together reach `p`, the last one included; of equal ones
/// the first ids. The others are dropped.
fn nucleus(candidates: &mut Vec<Candidate>, p: f64) {
    let largest = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = candidates.iter().map(|c| weight(c.logit, largest)).sum();
    let goal = p * total;
    // Sorting all is not needed: the likeliest ones above a line are looked at, and the line goes down
    // until they are enough.
    let mut depth = 4.0;
    let mut top: Vec<Candidate>;
    loop {
        top = candidates.iter().filter(|c| c.logit >= largest - depth).copied().collect();
        let mass: f64 = top.iter().map(|c| weight(c.logit, largest)).sum();
        // A little more than the goal, so that the order of sums cannot matter.
        if mass > goal * (1.0 + 1e-9) || top.len() == candidates.len() {
            break;
        }
        depth *= 2.0;
    }
    top.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
    let mut before = 0.0;
    let end = top.iter().position(|c| {
        let enough = before >= goal;
        before += weight(c.logit, largest);
        enough
    });
    top.truncate(end.unwrap_or(top.len()).max(1));
    *candidates = top;
}

/// The largest logit's token, of equal ones the first; nothing where all are minus infinity.
fn largest(logits: &[f32]) -> Result<Option<u32>, NotNumbers> {
    let (mut best, mut at, mut bad) = (f32::NEG_INFINITY, None, false);
    for (id, logit) in (0..).zip(logits) {
        bad |= logit.is_nan();
        if *logit > best {
            (best, at) = (*logit, Some(id));
        }
    }
    if bad { Err(NotNumbers) } else { Ok(at) }
}

/// A number in an order that a heap understands.
#[derive(Clone, Copy, PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The `k`-th largest value; `k` is at least 1 and at most the count.
fn kth_largest(values: &[f32], k: usize) -> f32 {
    if k > 1024 {
        let mut all = values.to_vec();
        let (_, kth, _) = all.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        return *kth;
    }
    // Few are wanted: almost every value is passed over by one comparison.
    let mut heap: BinaryHeap<Reverse<Ordered>> = values[..k].iter().map(|v| Reverse(Ordered(*v))).collect();
    let mut least = heap.peek().map_or(f32::NEG_INFINITY, |v| v.0.0);
    for value in &values[k..] {
        if *value > least {
            heap.pop();
            heap.push(Reverse(Ordered(*value)));
            least = heap.peek().map_or(f32::NEG_INFINITY, |v| v.0.0);
        }
    }
    least
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

/// The random number of a step, from 0 (included) to 1 (excluded), with 53 bits.
fn uniform(seed: u64, sequence: u32, step: u64) -> f64 {
    /// Tells these numbers from those of other uses of a seed.
    const USE: u32 = 0x5A4D_504C;
    let counter = [step as u32, (step >> 32) as u32, sequence, USE];
    let [a, b, ..] = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
