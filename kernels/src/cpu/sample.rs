//! Draws of tokens from logits.
//!
//! Greedy (temperature 0) takes the largest logit (of equal ones the first). Sampling follows `transformers`' warpers in
//! their order: temperature, `top_k` (ties of the last one stay), `top_p` (the likeliest tokens until
//! their probabilities together reach it), `min_p`. Sums are in `f64`. A vocabulary is never sorted
//! whole: what can be left out by one pass over it is left out first.
//!
//! The random number of a step is a function of seed, sequence and step (Philox), and the token is where
//! it falls in the cumulative probability in the order of ids. So neither the batch, nor guesses, nor the
//! way in which candidates were found changes a draw.

use crate::philox::philox4x32;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How a token is drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Draw {
    /// Divides the logits; 0 (or less) takes the largest one.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that have this probability together; 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest one's probability; 0 for all.
    pub min_p: f32,
    /// The seed,
    pub seed: u64,
    /// which text of that seed,
    pub sequence: u32,
    /// and which of its tokens: together they are the random number.
    pub step: u64,
}

/// A token that may be drawn, and its logit over the temperature, beside the largest.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// The logit.
    pub logit: f32,
}

/// Logits that are not numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNumbers;

/// The token that is drawn; nothing where all logits are minus infinity. `candidates` is scratch memory.
///
/// # Errors
/// Logits that are not numbers.
pub fn sample(logits: &[f32], o: &Draw, candidates: &mut Vec<Candidate>) -> Result<Option<u32>, NotNumbers> {
    let largest = largest(logits)?;
    if largest.is_none() || o.temperature <= 0.0 {
        return Ok(largest);
    }
    keep(logits, o, candidates);
    let largest = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = candidates.iter().map(|c| weight(c.logit, largest)).sum();
    let goal = uniform(o.seed, o.sequence, o.step) * total;
    let (mut sum, mut last) = (0.0, None);
    for c in candidates.iter() {
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

/// Fills `out` with what the warpers leave, in the order of ids.
pub fn keep(logits: &[f32], o: &Draw, out: &mut Vec<Candidate>) {
    let temperature = if o.temperature > 0.0 { o.temperature } else { 1.0 };
    // Very small temperatures make infinities of finite logits; differences to the largest do not.
    let offset = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    let offset = if offset.is_finite() { offset } else { 0.0 };
    let warm = |l: f32| (l - offset) / temperature;
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

/// The probability of a logit beside the largest one's.
pub fn weight(logit: f32, largest: f32) -> f64 {
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
pub fn kth_largest(values: &[f32], k: usize) -> f32 {
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

/// The random number of a step, from 0 (included) to 1 (excluded), with 53 bits.
fn uniform(seed: u64, sequence: u32, step: u64) -> f64 {
    /// Tells these numbers from those of other uses of a seed.
    const USE: u32 = 0x5A4D_504C;
    let counter = [step as u32, (step >> 32) as u32, sequence, USE];
    let [a, b, ..] = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
