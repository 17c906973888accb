//! How one text chooses its next token, and what of it is text already.

use super::engine::StopReason;

/// A token that was chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability, where that was asked for.
    pub logprob: Option<f32>,
}

/// One text's choices.
#[derive(Clone)]
pub struct Chooser {
    ends: Vec<u32>,
}

impl Chooser {
    /// A chooser that takes the likeliest token, and ends with one of these.
    pub fn greedy(ends: Vec<u32>) -> Chooser {
        Chooser { ends }
    }

    pub(super) fn next(&mut self, logits: &[f32], _: &[u32], _: usize) -> Result<Option<Choice>, Unclear> {
        let mut best: Option<(usize, f32)> = None;
        for (id, value) in logits.iter().copied().enumerate() {
            if value.is_nan() {
                return Err(Unclear);
            }
            if best.is_none_or(|(_, b)| value > b) {
                best = Some((id, value));
            }
        }
        Ok(best.map(|(id, _)| Choice { id: id as u32, logprob: None }))
    }

    pub(super) fn push(&mut self, id: u32) -> (String, Option<StopReason>) {
        (String::new(), self.ends.contains(&id).then_some(StopReason::Token(id)))
    }

    pub(super) fn rest(&mut self, _: &StopReason) -> String {
        String::new()
    }

    pub(super) fn guesser(&self) -> Chooser {
        self.clone()
    }

    pub(super) fn choose(&mut self, logits: &[f32], tokens: &[u32], prompt: usize) -> Option<u32> {
        self.next(logits, tokens, prompt).ok().flatten().map(|c| c.id)
    }
}

/// Logits that are not numbers.
#[derive(Debug)]
pub(super) struct Unclear;
