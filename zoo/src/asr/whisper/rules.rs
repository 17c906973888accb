//! What a Whisper may say next: logits in, logits with minus infinity where it may not.
//!
//! The rules of OpenAI's `decoding.py`: some tokens never come, some not first; times come in pairs
//! that do not run backwards, the first within a second, and whenever all times together are likelier
//! than any word, one of them comes.

use super::tokens::Tokens;
use mobilis_runtime::logits::{likeliest, log_sum_exp};

/// The rules for a text.
#[derive(Clone, Debug)]
pub struct Rules<'t> {
    tokens: &'t Tokens,
    suppress: bool,
    times: bool,
    /// The latest that a text may begin, in steps of 20 ms.
    latest: usize,
}

const NEVER: f32 = f32::NEG_INFINITY;

impl<'t> Rules<'t> {
    /// With `suppress`, some tokens never come; with `times`, times do.
    pub fn new(tokens: &'t Tokens, suppress: bool, times: bool) -> Rules<'t> {
        Rules { tokens, suppress, times, latest: 50 }
    }

    /// Takes away what may not come behind `said`: what was said in this window so far.
    pub fn apply(&self, logits: &mut [f32], said: &[u32]) {
        let ban = |logits: &mut [f32], id: u32| {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = NEVER;
            }
        };
        if self.suppress {
            self.tokens.suppressed.iter().for_each(|id| ban(logits, *id));
            if said.is_empty() {
                self.tokens.not_first.iter().for_each(|id| ban(logits, *id));
            }
        }
        if self.times {
            ban(logits, self.tokens.no_times);
            self.order(logits, said);
        }
    }

    /// The rules of times.
    fn order(&self, logits: &mut [f32], said: &[u32]) {
        let tokens = self.tokens;
        let first = (tokens.first_time as usize).min(logits.len());
        let is_time = |back: usize| said.len().checked_sub(back).map(|i| tokens.is_time(said[i]));
        let last = is_time(1) == Some(true);
        let before = is_time(2) != Some(false);
        match (last, before) {
            // A pair is whole, or the text has begun: words.
            (true, true) => logits[first..].fill(NEVER),
            // A time alone: its second, or the end.
            (true, false) => logits[..(tokens.end as usize).min(first)].fill(NEVER),
            _ => {}
        }
        if let Some(latest) = said.iter().rev().find(|id| tokens.is_time(**id)) {
            // A part may be empty only where its time comes twice.
            let from = if last && !before { *latest } else { latest + 1 };
            let from = (from as usize).min(logits.len());
            logits[first..from].fill(NEVER);
        }
        if said.is_empty() {
            logits[..first].fill(NEVER);
            let beyond = (first + self.latest + 1).min(logits.len());
            logits[beyond..].fill(NEVER);
        }
        let (words, times) = logits.split_at_mut(first);
        let largest = likeliest(words).map_or(NEVER, |(_, logit)| logit);
        if log_sum_exp(times) > f64::from(largest) {
            words.fill(NEVER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten words 0..10, the end 10, the start 11, "no times" 12, times from 13 on.
    fn tokens() -> Tokens {
        Tokens {
            end: 10,
            start: 11,
            no_times: 12,
            first_time: 13,
            suppressed: vec![3, 11],
            not_first: vec![1, 10],
            ..Tokens::default()
        }
    }

    fn allowed(said: &[u32], logits: &[(usize, f32)]) -> Vec<usize> {
        let tokens = tokens();
        let mut all = vec![0.0; 13 + 100];
        logits.iter().for_each(|(i, v)| all[*i] = *v);
        Rules::new(&tokens, true, true).apply(&mut all, said);
        (0..all.len()).filter(|i| all[*i] > NEVER).collect()
    }

    #[test]
    fn a_text_begins_with_a_time_within_a_second() {
        assert_eq!(allowed(&[], &[]), (13..=63).collect::<Vec<_>>());
    }

    #[test]
    fn words_follow_the_first_time_and_every_pair() {
        let words = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10];
        assert_eq!(allowed(&[13], &[]), words);
        assert_eq!(allowed(&[13, 5, 20, 20], &[]), words);
    }

    #[test]
    fn a_lone_time_is_followed_by_its_pair_or_the_end() {
        let found = allowed(&[13, 5, 20], &[(10, 50.0)]);
        assert_eq!(found[0], 10);
        assert_eq!(found[1..], (20..113).collect::<Vec<_>>(), "times do not run backwards");
        // As likely as all times together, no time is forced.
        assert!(!allowed(&[13, 5, 20], &[(10, 3.0)]).contains(&10));
    }

    #[test]
    fn times_grow() {
        let found = allowed(&[13, 5], &[(2, 50.0)]);
        assert!(found.contains(&2) && !found.contains(&13) && found.contains(&14));
    }

    #[test]
    fn without_times_only_suppressed_tokens_are_gone() {
        let tokens = tokens();
        let mut all = vec![0.0; 20];
        Rules::new(&tokens, true, false).apply(&mut all, &[]);
        let gone: Vec<usize> = (0..20).filter(|i| all[*i] == NEVER).collect();
        assert_eq!(gone, [1, 3, 10, 11]);
        let mut all = vec![0.0; 20];
        Rules::new(&tokens, false, false).apply(&mut all, &[]);
        assert!(all.iter().all(|v| *v == 0.0));
    }

    #[test]
    fn log_sum_exp_is_right() {
        assert!((log_sum_exp(&[1.0, 2.0, 3.0]) - 3.40760596).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[NEVER, 4.0]), 4.0);
    }
}
