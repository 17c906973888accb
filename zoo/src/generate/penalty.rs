//! Rules that change logits before a token is chosen.
//!
//! In the order of `transformers` (`_get_logits_processor`): biases, penalties, sequences that may not
//! repeat, words that may not come, ends that come too early, what a constraint forbids, forced tokens,
//! suppressed ones. Presence and frequency penalties are those of the completion interfaces: they look at
//! new tokens only, where the repetition penalty looks at the prompt too.
//!
//! Rules see the whole text each time and keep nothing, so guesses can be taken back without a word.

use std::collections::HashMap;

use super::options::GenerateOptions;

/// Whether a rule of the options changes logits at all.
pub(super) fn any(options: &GenerateOptions) -> bool {
    let o = options;
    o.repetition_penalty != 1.0
        || o.presence_penalty != 0.0
        || o.frequency_penalty != 0.0
        || o.no_repeat_ngram_size > 0
        || o.min_new_tokens > 0
        || o.forced_bos_token.is_some()
        || o.forced_eos_token.is_some()
        || ![o.logit_bias.is_empty(), o.bad_words.is_empty()].iter().all(|empty| *empty)
        || !(o.suppress_tokens.is_empty() && o.begin_suppress_tokens.is_empty())
}

/// Changes the logits (`Vocab`) of the token after `tokens`, the first `prompt` of which are the prompt.
/// `allowed` is what a constraint leaves.
pub fn apply(
    options: &GenerateOptions,
    logits: &mut [f32],
    tokens: &[u32],
    prompt: usize,
    allowed: Option<&dyn Fn(u32) -> bool>,
) {
    let new = &tokens[prompt.min(tokens.len())..];
    for (id, bias) in &options.logit_bias {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    repetition(options.repetition_penalty, logits, tokens);
    if options.presence_penalty != 0.0 || options.frequency_penalty != 0.0 {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        new.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
        for (id, count) in counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= options.frequency_penalty * count as f32 + options.presence_penalty;
            }
        }
    }
    no_repeat(options.no_repeat_ngram_size, logits, tokens);
    for word in &options.bad_words {
        let (last, before) = word.split_last().expect("options are checked: no word is empty");
        // A word that only ends the text is left to the rules for ends.
        let end = before.is_empty() && options.stop_tokens.contains(last);
        let fits = before.is_empty() || (word.len() <= tokens.len() && tokens.ends_with(before));
        if fits && !end {
            forbid(logits, *last);
        }
    }
    if new.len() < options.min_new_tokens {
        options.stop_tokens.iter().for_each(|id| forbid(logits, *id));
    }
    if let Some(allowed) = allowed {
        for (id, logit) in (0..).zip(logits.iter_mut()) {
            if !allowed(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    if let Some(id) = options.forced_bos_token
        && tokens.len() == 1
    {
        force(logits, id);
    }
    if let Some(id) = options.forced_eos_token
        && new.len() + 1 == options.max_new_tokens
    {
        force(logits, id);
    }
    options.suppress_tokens.iter().for_each(|id| forbid(logits, *id));
    if new.is_empty() {
        options.begin_suppress_tokens.iter().for_each(|id| forbid(logits, *id));
    }
}

fn forbid(logits: &mut [f32], id: u32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

fn force(logits: &mut [f32], id: u32) {
    if (id as usize) < logits.len() {
        logits.fill(f32::NEG_INFINITY);
        logits[id as usize] = 0.0;
    }
}

/// Each token of the text once: positive logits divided, negative ones multiplied.
fn repetition(penalty: f32, logits: &mut [f32], tokens: &[u32]) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = tokens.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Forbids what followed the last `size - 1` tokens wherever they were before.
fn no_repeat(size: usize, logits: &mut [f32], tokens: &[u32]) {
    if size == 0 || tokens.len() + 1 < size {
        return;
    }
    let last = &tokens[tokens.len() + 1 - size..];
    for window in tokens.windows(size) {
        if window[..size - 1] == *last {
            forbid(logits, window[size - 1]);
        }
    }
}
