//! Speculative decoding: tokens that may come next are guessed cheaply, and the model looks at all
//! of them in one call, which costs little more than a call for one.
//!
//! The model itself chooses every token, from its own logits, with the same penalties, the same
//! constraint and the same random number as without guesses; a guess only decides how many
//! positions a call works on. So the output is the same, token by token, greedy or sampled
//! (Leviathan et al. 2022, <https://arxiv.org/abs/2211.17192>, accept by a random test of their own,
//! which gives the same distribution but other tokens). A draft model samples with the random
//! number that the model will use at that step: where both think alike, they choose alike.
//!
//! Guesses come from the text itself ([`lookup`]: what followed when these tokens were there
//! before) or from a smaller model with the same tokens ([`Draft`]).

use super::lane::Lane;
use crate::llm::session::{SessionError, Want};

/// Most tokens at the end of a text that are looked for in it.
const LONGEST_MATCH: usize = 3;

/// Proposes at most `most` tokens by what followed the last tokens of a text when they were there
/// before: the longest match of up to three tokens, of these the last (Saxena 2023, prompt lookup
/// decoding).
///
/// ```
/// let text = [7, 1, 2, 3, 9, 1, 2];
/// assert_eq!(mobilis_zoo::generate::lookup(&text, 2), [3, 9]);
/// ```
pub fn lookup(tokens: &[u32], most: usize) -> Vec<u32> {
    let n = tokens.len();
    for size in (1..=LONGEST_MATCH.min(n.saturating_sub(1))).rev() {
        let last = &tokens[n - size..];
        let found = (0..n - size).rev().find(|at| tokens[*at..*at + size] == *last);
        if let Some(at) = found {
            let first = at + size;
            return tokens[first..(first + most).min(n)].to_vec();
        }
    }
    vec![]
}

/// A smaller model that guesses.
pub struct Draft {
    lane: Lane,
}

/// A text that is guessed on: its tokens, how many are wanted, and how one is chosen from logits
/// after these tokens.
pub struct Guess<'a> {
    /// The text so far.
    pub tokens: &'a [u32],
    /// How many tokens are wanted at most.
    pub most: usize,
    /// The choice of a token after the text and the guesses so far.
    pub choose: &'a mut dyn FnMut(&[f32], &[u32]) -> Option<u32>,
}

impl Draft {
    /// A draft model over a session of its own, with as many sequences as the model it guesses for.
    pub fn new(lane: Lane) -> Draft {
        Draft { lane }
    }

    /// Continues with these sequences only.
    ///
    /// # Errors
    /// Sequences that there are not.
    pub fn select(&mut self, from: &[usize]) -> Result<(), SessionError> {
        self.lane.select(from)
    }

    /// Guesses for every sequence.
    ///
    /// # Errors
    /// A program that fails. Tokens that the draft model does not have, and texts that it has no
    /// room for, end the guesses of their sequence instead.
    pub fn propose(&mut self, guesses: &mut [Guess]) -> Result<Vec<Vec<u32>>, SessionError> {
        let room = self.lane.positions();
        let mut texts: Vec<Vec<u32>> = guesses.iter().map(|g| g.tokens.to_vec()).collect();
        let mut open: Vec<bool> = guesses.iter().map(|g| g.most > 0).collect();
        for (row, text) in texts.iter().enumerate() {
            if open[row] {
                self.lane.align(row, text)?;
            }
        }
        loop {
            let rows: Vec<&[u32]> =
                texts.iter().enumerate().map(|(row, text)| self.rest(row, text, open[row])).collect();
            if rows.iter().all(|r| r.is_empty()) {
                break;
            }
            let logits = match self.lane.feed(&rows, Want::Last) {
                Ok(logits) => logits,
                Err(SessionError::Token { row, .. } | SessionError::Full { row, .. }) => {
                    open[row] = false;
                    continue;
                }
                Err(e) => return Err(e),
            };
            for (row, guess) in guesses.iter_mut().enumerate() {
                let Some(logits) = logits.last(row) else { continue };
                match (guess.choose)(logits, &texts[row]) {
                    Some(token) => texts[row].push(token),
                    None => open[row] = false,
                }
                let guessed = texts[row].len() - guess.tokens.len();
                open[row] &= guessed < guess.most && texts[row].len() < room;
            }
        }
        Ok(texts.into_iter().zip(guesses).map(|(text, guess)| text[guess.tokens.len()..].to_vec()).collect())
    }

    /// What a sequence has not been fed yet.
    fn rest<'t>(&self, row: usize, text: &'t [u32], open: bool) -> &'t [u32] {
        if open { &text[self.lane.fed(row).len()..] } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn the_longest_and_then_the_last_match_counts() {
        // `5 6` is there twice, `6` three times: what followed the last `5 6`.
        assert_eq!(lookup(&[5, 6, 1, 5, 6, 2, 6, 3, 5, 6], 1), [2]);
        assert_eq!(lookup(&[5, 6, 1, 5, 6, 2, 6, 3, 5, 6], 9), [2, 6, 3, 5, 6]);
        assert!(lookup(&[1, 2, 3], 4).is_empty());
        assert!(lookup(&[], 4).is_empty());
        assert!(lookup(&[1], 4).is_empty());
        assert_eq!(lookup(&[4, 4], 4), [4]);
        assert!(lookup(&[4, 4], 0).is_empty());
    }
}
