//! How one text chooses its next token, and what of it is text already.
//!
//! A [`Chooser`] joins the parts that one sequence has of its own: the sampler with its rules, a
//! constraint where there is one, and the way back to text with the strings that end it.

use super::constraint::{Constraint, ConstraintError};
use super::engine::StopReason;
use super::options::GenerateOptions;
use super::sample::{Choice, NotNumbers, Sampler};
use super::stop::StopStrings;
use crate::text::{Detokenizer, Tokenizer};
use mobilis_runtime::sampling::Draw;

/// One text's choices.
#[derive(Clone)]
pub struct Chooser {
    sampler: Sampler,
    constraint: Option<Constraint>,
    /// New tokens that the constraint has seen.
    seen: usize,
    text: Option<Detokenizer>,
    stops: StopStrings,
}

impl Chooser {
    /// A chooser by options. `sequence` tells apart texts that continue the same prompt with the same
    /// seed: 0, 1, ….
    pub fn new(options: GenerateOptions, sequence: u32) -> Chooser {
        let stops = StopStrings::new(options.stop_strings.clone());
        Chooser { sampler: Sampler::new(options, sequence), constraint: None, seen: 0, text: None, stops }
    }

    /// A chooser that takes the likeliest token, and ends with one of these.
    pub fn greedy(ends: Vec<u32>) -> Chooser {
        Chooser::new(GenerateOptions::default().stop_tokens(ends), 0)
    }

    /// Makes text of the tokens, without special ones; without it, events have no text and stop strings
    /// are not found.
    #[must_use]
    pub fn text(mut self, tokenizer: &Tokenizer) -> Chooser {
        self.text = Some(tokenizer.detokenizer(true));
        self
    }

    /// [`text`](Chooser::text) of what follows a prompt, so that both together are the text of all tokens:
    /// a space in between is not lost.
    #[must_use]
    pub fn text_after(mut self, tokenizer: &Tokenizer, prompt: &[u32]) -> Chooser {
        self.text = Some(tokenizer.detokenizer_after(prompt, true));
        self
    }

    /// Makes the text follow a rule.
    #[must_use]
    pub fn constraint(mut self, constraint: Constraint) -> Chooser {
        self.constraint = Some(constraint);
        self
    }

    pub(super) fn next(&mut self, logits: &[f32], tokens: &[u32], prompt: usize) -> Result<Option<Choice>, Unclear> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(self.sampler.sample(logits, tokens, prompt, None)?);
        };
        let mask = constraint.mask()?;
        Ok(self.sampler.sample(logits, tokens, prompt, Some(&|id| mask.allows(id)))?)
    }

    /// How the token after `new` new ones is drawn, where no rule and no constraint has a say.
    pub(super) fn draw_alone(&self, new: usize) -> Option<Draw> {
        self.constraint.is_none().then(|| self.sampler.draw_alone(new)).flatten()
    }

    pub(super) fn push(&mut self, id: u32) -> (String, Option<StopReason>) {
        self.see(id);
        if self.sampler.options().stop_tokens.contains(&id) {
            return (String::new(), Some(StopReason::Token(id)));
        }
        let mut text = String::new();
        if let Some(detokenizer) = &mut self.text {
            let shown = self.stops.push(&detokenizer.push(id));
            text = shown.text;
            if let Some(found) = shown.stop {
                return (text, Some(StopReason::Text(self.stops.strings()[found].clone())));
            }
        }
        let done = self.constraint.as_ref().is_some_and(Constraint::is_done);
        (text, done.then_some(StopReason::Constraint))
    }

    /// The text that was held back, at the end of a text that ended so.
    pub(super) fn rest(&mut self, reason: &StopReason) -> String {
        let Some(detokenizer) = &mut self.text else { return String::new() };
        let rest = detokenizer.finish();
        if matches!(reason, StopReason::Text(_)) {
            return String::new();
        }
        let shown = self.stops.push(&rest);
        shown.text + &self.stops.finish()
    }

    /// A copy that guesses: it only chooses.
    pub(super) fn guesser(&self) -> Chooser {
        Chooser { text: None, ..self.clone() }
    }

    /// A guess of what [`next`](Chooser::next) would choose: the tokens are those before with guesses
    /// behind them, which a constraint has not seen yet.
    pub(super) fn choose(&mut self, logits: &[f32], tokens: &[u32], prompt: usize) -> Option<u32> {
        for id in tokens.get(prompt + self.seen..).unwrap_or_default().to_vec() {
            self.see(id);
        }
        self.next(logits, tokens, prompt).ok().flatten().map(|c| c.id)
    }

    fn see(&mut self, id: u32) {
        self.seen += 1;
        if let Some(constraint) = &mut self.constraint {
            // A token that does not fit stops the constraint, which then allows nothing but an end.
            let _ = constraint.accept(id);
        }
    }
}

/// Why no token was chosen.
#[derive(Debug)]
pub(super) enum Unclear {
    /// Logits that are not numbers.
    NotNumbers,
    /// A constraint that takes too much work.
    Constraint(ConstraintError),
}

impl From<NotNumbers> for Unclear {
    fn from(_: NotNumbers) -> Unclear {
        Unclear::NotNumbers
    }
}

impl From<ConstraintError> for Unclear {
    fn from(error: ConstraintError) -> Unclear {
        Unclear::Constraint(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{GgufVocabulary, TokenType};

    /// Words with a token for the end, 0.
    fn tokenizer() -> Tokenizer {
        let tokens = ["</s>", "▁a", "▁b", "▁stop", "s", "top", "▁"].map(str::to_owned).to_vec();
        let mut types = vec![TokenType::Normal; tokens.len()];
        types[0] = TokenType::Control;
        let vocabulary = GgufVocabulary {
            model: "llama".into(),
            eos: Some(0),
            unknown: Some(0),
            tokens,
            types,
            ..Default::default()
        };
        Tokenizer::from_gguf(vocabulary).unwrap()
    }

    #[test]
    fn text_comes_until_a_string_or_a_token_ends_it() {
        let tokenizer = tokenizer();
        let options = GenerateOptions::default().stop_tokens(vec![0]).stop_strings(vec!["b stop".into()]);
        let mut chooser = Chooser::new(options, 0).text(&tokenizer);
        assert_eq!(chooser.push(1), ("a".into(), None));
        assert_eq!(chooser.push(2), (" ".into(), None));
        assert_eq!(chooser.push(1), ("b a".into(), None));
        assert_eq!(chooser.push(2), (" ".into(), None));
        let stop = StopReason::Text("b stop".into());
        assert_eq!(chooser.push(3), ("".into(), Some(stop.clone())));
        assert_eq!(chooser.rest(&stop), "");

        let mut chooser = Chooser::new(chooser.sampler.options().clone(), 0).text_after(&tokenizer, &[1]);
        assert_eq!(chooser.push(2), (" ".into(), None));
        assert_eq!(chooser.push(0), ("".into(), Some(StopReason::Token(0))));
        assert_eq!(chooser.rest(&StopReason::Token(0)), "b");
    }

    #[test]
    fn constraints_hold_and_guesses_follow_them() {
        let tokenizer = tokenizer();
        let vocabulary = super::super::ConstraintVocabulary::new(&tokenizer, &[0]).unwrap();
        let rule = Constraint::regex(&vocabulary, " a( b)+ stop").unwrap();
        let mut chooser = Chooser::greedy(vec![0]).constraint(rule).text(&tokenizer);
        // The model would rather say "▁stop" all the time.
        let logits = [0.5, 0.0, 0.3, 1.0, 0.2, 0.1, -1.0];
        let mut tokens = vec![1];
        let mut guesser = chooser.guesser();
        let mut guessed = tokens.clone();
        for _ in 0..4 {
            let id = chooser.next(&logits, &tokens, 1).unwrap().unwrap().id;
            tokens.push(id);
            let (_, stop) = chooser.push(id);
            guessed.push(guesser.choose(&logits, &guessed, 1).unwrap());
            if stop.is_some() {
                break;
            }
        }
        assert_eq!(tokens[1..4], [1, 2, 3]);
        assert_eq!(guessed[..4], tokens[..4]);
    }
}
