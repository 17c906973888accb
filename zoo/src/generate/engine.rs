//! From prompts to tokens: the loop around a model.
//!
//! A [`Generation`] is an iterator of [`Event`]s over a [`Lane`]. Each turn of its loop feeds every
//! text what the model has not seen of it (at first the prompt, later one token and what was
//! guessed after it), lets every text choose, takes back what was guessed wrongly, and leaves texts
//! that are done out of the batch. A text's choices depend on its own logits, options and step
//! alone, so neither the batch nor guesses change them.

use super::GenerateError;
use super::choose::{Chooser, Unclear};
use super::lane::Lane;
use super::sample::Choice;
use super::speculate::{Draft, Guess, lookup};
use crate::llm::Logits;
use crate::llm::session::{Drawn, Want};
use mobilis_runtime::sampling::Draw;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Why a text ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// A token that ends texts; it is the last one.
    Token(u32),
    /// A text that was asked to end it.
    Text(String),
    /// As many tokens as were asked for.
    Length,
    /// The model's positions, or the session's, are used up.
    Context,
    /// The constraint is fulfilled, and nothing may follow.
    Constraint,
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StopReason::Token(_) => "stop token",
            StopReason::Text(_) => "stop text",
            StopReason::Length => "length",
            StopReason::Context => "context",
            StopReason::Constraint => "constraint",
        })
    }
}

/// What happened to a text: a token, its end, or both.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Which text.
    pub row: usize,
    /// Its new token.
    pub token: Option<Choice>,
    /// Text that became final with it.
    pub text: String,
    /// Why it ended, where it did.
    pub stop: Option<StopReason>,
}

/// Where the time went.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Statistics {
    /// Tokens of prompts that were worked on, without those that were known from before.
    pub prompt_tokens: usize,
    /// Tokens that came out.
    pub new_tokens: usize,
    /// From the start to the first tokens, which is the time for the prompts.
    pub first: Duration,
    /// All the time after the first tokens.
    pub rest: Duration,
    /// Tokens that were guessed.
    pub guessed: usize,
    /// Guesses that the model chose too.
    pub accepted: usize,
    /// Calls of the model.
    pub calls: usize,
}

impl Statistics {
    /// Tokens of prompts a second.
    pub fn prompt_speed(&self) -> f64 {
        self.prompt_tokens as f64 / self.first.as_secs_f64().max(1e-9)
    }

    /// New tokens a second, of all texts together, the first ones left out.
    pub fn speed(&self, texts: usize) -> f64 {
        self.new_tokens.saturating_sub(texts) as f64 / self.rest.as_secs_f64().max(1e-9)
    }
}

/// How tokens are guessed.
#[derive(Default)]
pub enum Speculation {
    /// Not at all.
    #[default]
    None,
    /// From the text itself, so many at a time.
    Lookup(usize),
    /// By a smaller model, so many at a time.
    Draft(Draft, usize),
}

/// A text that is being written.
pub(super) struct Row {
    /// Its number in the request.
    pub(super) index: usize,
    /// The prompt and the new tokens.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Tokens that may come.
    pub(super) most: usize,
    pub(super) chooser: Chooser,
    pub(super) done: bool,
}

/// A session of one's own, or one that is lent and keeps what it has seen.
pub(super) enum Held<'s> {
    Own(Box<Lane>),
    Lent(&'s mut Lane),
}

impl Held<'_> {
    fn lane(&mut self) -> &mut Lane {
        match self {
            Held::Own(lane) => lane,
            Held::Lent(lane) => lane,
        }
    }
}

/// What a call gives.
enum Next {
    Logits(Logits),
    /// Tokens that the model's device drew.
    Drawn(Vec<Drawn>),
}

/// How every text draws its next token, where none has rules, a constraint or probabilities to tell.
fn draws(rows: &[Row]) -> Option<Vec<Draw>> {
    rows.iter()
        .map(|row| row.chooser.draw_alone(row.tokens.len() - row.prompt).or(row.done.then_some(NO_DRAW)))
        .collect()
}

/// Of texts that are done.
const NO_DRAW: Draw = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, sequence: 0, step: 0 };

/// Texts that are being written: an iterator of what happens to them.
pub struct Generation<'s> {
    held: Held<'s>,
    /// In the order of the session's sequences.
    rows: Vec<Row>,
    texts: usize,
    speculation: Speculation,
    events: VecDeque<Event>,
    statistics: Statistics,
    started: Instant,
    begun: bool,
    failed: bool,
}

impl<'s> Generation<'s> {
    pub(super) fn new(held: Held<'s>, rows: Vec<Row>, speculation: Speculation, started: Instant) -> Self {
        let mut all = Generation {
            held,
            texts: rows.len(),
            rows,
            speculation,
            events: VecDeque::new(),
            statistics: Statistics::default(),
            started,
            begun: false,
            failed: false,
        };
        for row in 0..all.rows.len() {
            if all.rows[row].most == 0 {
                all.end(row, None, StopReason::Length);
            }
        }
        all
    }

    /// Counts tokens that were read before the first call.
    pub(super) fn having_read(mut self, tokens: usize) -> Self {
        self.statistics.prompt_tokens = tokens;
        self
    }

    /// Where the time went so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// How many texts there are.
    pub fn texts(&self) -> usize {
        self.texts
    }

    /// Calls a function with every event, until the texts are done or it says to stop.
    ///
    /// # Errors
    /// The first failure of the model.
    pub fn run(&mut self, mut each: impl FnMut(&Event) -> std::ops::ControlFlow<()>) -> Result<(), GenerateError> {
        for event in self.by_ref() {
            if each(&event?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Notes that a row ends.
    fn end(&mut self, row: usize, token: Option<Choice>, stop: StopReason) {
        let row = &mut self.rows[row];
        row.done = true;
        let text = row.chooser.rest(&stop);
        self.events.push_back(Event { row: row.index, token, text, stop: Some(stop) });
    }

    /// One call of the model and what comes of it.
    fn turn(&mut self) -> Result<(), GenerateError> {
        if !self.begun {
            for (i, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.done) {
                self.held.lane().align(i, &row.tokens)?;
            }
        }
        self.shrink()?;
        let guesses = if self.begun { self.guess()? } else { vec![vec![]; self.rows.len()] };
        let lane = self.held.lane();
        let mut given: Vec<Vec<u32>> = Vec::with_capacity(self.rows.len());
        for (i, (row, guess)) in self.rows.iter().zip(&guesses).enumerate() {
            let known = if row.done { row.tokens.len() } else { lane.fed(i).len() };
            given.push(row.tokens[known..].iter().chain(guess).copied().collect());
        }
        let guessed = guesses.iter().any(|g| !g.is_empty());
        let rows: Vec<&[u32]> = given.iter().map(Vec::as_slice).collect();
        let draws = (!guessed && lane.is_far()).then(|| draws(&self.rows)).flatten();
        let next = match draws {
            Some(draws) => Next::Drawn(lane.draw(&rows, &draws)?),
            None => Next::Logits(lane.feed(&rows, if guessed { Want::All } else { Want::Last })?),
        };
        self.statistics.calls += 1;
        if !self.begun {
            self.statistics.prompt_tokens += rows.iter().map(|r| r.len()).sum::<usize>();
            self.begun = true;
        }
        for (i, guess) in guesses.iter().enumerate() {
            match &next {
                _ if self.rows[i].done => {}
                Next::Logits(logits) => self.choose(i, logits, guess)?,
                Next::Drawn(drawn) => {
                    let choice = |id| Choice { id, logprob: None, top: vec![] };
                    self.accept(i, drawn[i].map(|id| id.map(choice)).map_err(Unclear::from), None)?;
                }
            }
        }
        Ok(())
    }

    /// Leaves texts that are done out of the batch, when that halves it.
    fn shrink(&mut self) -> Result<(), GenerateError> {
        let open: Vec<usize> = (0..self.rows.len()).filter(|i| !self.rows[*i].done).collect();
        if open.is_empty() || 2 * open.len() > self.rows.len() || matches!(self.held, Held::Lent(_)) {
            return Ok(());
        }
        self.held.lane().select(&open)?;
        if let Speculation::Draft(draft, _) = &mut self.speculation {
            draft.select(&open)?;
        }
        let mut all = std::mem::take(&mut self.rows);
        all.retain(|row| !row.done);
        self.rows = all;
        Ok(())
    }

    /// Guesses for every text; none for models that cannot take tokens back.
    fn guess(&mut self) -> Result<Vec<Vec<u32>>, GenerateError> {
        let none = vec![vec![]; self.rows.len()];
        let lane = self.held.lane();
        let most = match &self.speculation {
            Speculation::Lookup(most) | Speculation::Draft(_, most) if lane.can_rewind() => *most,
            _ => return Ok(none),
        };
        let positions = lane.positions();
        // The model's own choice comes after the guesses, and needs no position.
        let room = |row: &Row| match row.done {
            true => 0,
            false => {
                let left = row.most - (row.tokens.len() - row.prompt);
                most.min(left.saturating_sub(1)).min(positions.saturating_sub(row.tokens.len()))
            }
        };
        let found = match &mut self.speculation {
            Speculation::Draft(draft, _) => {
                let mut choosers: Vec<_> = self.rows.iter().map(|row| row.chooser.guesser()).collect();
                let mut each: Vec<_> = self
                    .rows
                    .iter()
                    .zip(&mut choosers)
                    .map(|(row, chooser)| {
                        let prompt = row.prompt;
                        (row, move |logits: &[f32], tokens: &[u32]| chooser.choose(logits, tokens, prompt))
                    })
                    .collect();
                let mut guesses: Vec<Guess> = each
                    .iter_mut()
                    .map(|(row, choose)| Guess { tokens: &row.tokens, most: room(row), choose })
                    .collect();
                draft.propose(&mut guesses)?
            }
            _ => self.rows.iter().map(|row| lookup(&row.tokens, room(row))).collect(),
        };
        self.statistics.guessed += found.iter().map(Vec::len).sum::<usize>();
        Ok(found)
    }

    /// The tokens of a text after a call: as many as were guessed rightly, and one more.
    fn choose(&mut self, i: usize, logits: &Logits, guess: &[u32]) -> Result<(), GenerateError> {
        let all = logits.positions(i).count();
        for (step, logits) in logits.positions(i).skip(all.saturating_sub(guess.len() + 1)).enumerate() {
            let row = &mut self.rows[i];
            let choice = row.chooser.next(logits, &row.tokens, row.prompt);
            if !self.accept(i, choice, guess.get(step).copied())? {
                break;
            }
        }
        // What was guessed wrongly is taken back; the last token has not been fed.
        let row = &self.rows[i];
        let known = row.tokens.len().saturating_sub(1);
        if !row.done && self.held.lane().fed(i).len() > known {
            self.held.lane().rewind(i, known)?;
        }
        Ok(())
    }

    /// Goes on with a choice. Whether it is what was guessed, and the text does not end.
    fn accept(
        &mut self,
        i: usize,
        choice: Result<Option<Choice>, Unclear>,
        guess: Option<u32>,
    ) -> Result<bool, GenerateError> {
        let positions = self.held.lane().positions();
        let row = &mut self.rows[i];
        let choice = match choice {
            Ok(Some(choice)) => choice,
            Ok(None) => {
                self.end(i, None, StopReason::Constraint);
                return Ok(false);
            }
            Err(Unclear::NotNumbers) => {
                return Err(GenerateError::NotNumbers { row: row.index, position: row.tokens.len() });
            }
            Err(Unclear::Constraint(source)) => return Err(GenerateError::Constraint { row: row.index, source }),
        };
        row.tokens.push(choice.id);
        self.statistics.new_tokens += 1;
        let right = guess == Some(choice.id);
        self.statistics.accepted += right as usize;
        let (id, new) = (choice.id, row.tokens.len() - row.prompt);
        let (most, len) = (row.most, row.tokens.len());
        let (text, stop) = row.chooser.push(id);
        let stop = match stop {
            Some(stop) => Some(stop),
            None if new >= most => Some(StopReason::Length),
            None if len > positions => Some(StopReason::Context),
            None => None,
        };
        match stop {
            Some(stop) => {
                let last = self.events.len();
                self.end(i, Some(choice), stop);
                // What was final before comes before what is final now that it ended.
                self.events[last].text.insert_str(0, &text);
                return Ok(false);
            }
            None => self.events.push_back(Event { row: row.index, token: Some(choice), text, stop: None }),
        }
        Ok(right)
    }

    fn note_time(&mut self) {
        let now = self.started.elapsed();
        match self.statistics.calls {
            1 => self.statistics.first = now,
            _ => self.statistics.rest = now.saturating_sub(self.statistics.first),
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.failed || self.rows.iter().all(|row| row.done) {
                return None;
            }
            if let Err(e) = self.turn() {
                self.failed = true;
                return Some(Err(e));
            }
            self.note_time();
        }
    }
}
