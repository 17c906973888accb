//! A session that remembers what it was fed.
//!
//! What a model has seen is found again in the next request: a conversation repeats all turns
//! before the new one, a draft model has seen what was proposed, of which some was taken back.
//! [`Lane::align`] keeps the longest common beginning and cuts off the rest; a model that cannot go
//! back begins anew.

use crate::llm::session::{Drawn, SessionError, Want};
use crate::llm::{Logits, Sessions};
use mobilis_runtime::sampling::Draw;

/// A session and the tokens in it.
pub struct Lane {
    session: Box<dyn Sessions>,
    fed: Vec<Vec<u32>>,
}

impl Lane {
    /// A lane of a session without tokens.
    pub fn new(session: Box<dyn Sessions>) -> Lane {
        let fed = vec![vec![]; session.lengths().len()];
        Lane { session, fed }
    }

    /// How many sequences there are.
    pub fn batch(&self) -> usize {
        self.fed.len()
    }

    /// The positions that each sequence may reach.
    pub fn positions(&self) -> usize {
        self.session.positions()
    }

    /// The tokens of a sequence that were fed.
    pub fn fed(&self, row: usize) -> &[u32] {
        &self.fed[row]
    }

    /// Whether the last tokens of a sequence can be taken back. Only known after the first call.
    pub fn can_rewind(&self) -> bool {
        self.session.can_rewind()
    }

    /// Feeds every sequence some tokens: [`Sessions::feed`].
    ///
    /// # Errors
    /// As there. The sequences are as before then, or empty where a program failed half way.
    pub fn feed(&mut self, rows: &[&[u32]], want: Want) -> Result<Logits, SessionError> {
        let result = self.session.feed(rows, want);
        self.after(rows, result)
    }

    /// Whether [`draw`](Self::draw) saves the way of logits: [`Sessions::is_far`].
    pub fn is_far(&self) -> bool {
        self.session.is_far()
    }

    /// Feeds every sequence some tokens, and draws the next: [`Sessions::draw`].
    ///
    /// # Errors
    /// As of [`feed`](Self::feed).
    pub fn draw(&mut self, rows: &[&[u32]], draws: &[Draw]) -> Result<Vec<Drawn>, SessionError> {
        let result = self.session.draw(rows, draws);
        self.after(rows, result)
    }

    /// Notes what was fed, or empties what a failure may have changed.
    fn after<T>(&mut self, rows: &[&[u32]], result: Result<T, SessionError>) -> Result<T, SessionError> {
        match result {
            Ok(out) => {
                self.fed.iter_mut().zip(rows).for_each(|(fed, row)| fed.extend_from_slice(row));
                Ok(out)
            }
            Err(e) => {
                for row in 0..self.fed.len() {
                    // What a failed program has written is not known.
                    if self.session.lengths()[row] != self.fed[row].len() {
                        self.rewind(row, 0)?;
                    }
                }
                Err(e)
            }
        }
    }

    /// What each next token of one text costs, from its beginning: [`Sessions::losses`]. The lane is
    /// empty afterwards.
    ///
    /// # Errors
    /// As there.
    pub fn losses(&mut self, tokens: &[u32], next: &[u32]) -> Result<Vec<f32>, SessionError> {
        self.rewind(0, 0)?;
        let losses = self.session.losses(&[tokens], &[next]);
        self.session.rewind(0, 0)?;
        Ok(losses?.pop().unwrap_or_default())
    }

    /// Cuts a sequence down to its first `length` tokens: [`Sessions::rewind`].
    ///
    /// # Errors
    /// As there.
    pub fn rewind(&mut self, row: usize, length: usize) -> Result<(), SessionError> {
        self.session.rewind(row, length)?;
        self.fed[row].truncate(length);
        Ok(())
    }

    /// Makes a sequence a beginning of `tokens`, as long as the model allows and short enough that at
    /// least one token is left to feed. Gives back its length.
    ///
    /// # Errors
    /// No such sequence.
    pub fn align(&mut self, row: usize, tokens: &[u32]) -> Result<usize, SessionError> {
        let same = self.fed[row].iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let same = same.min(tokens.len().saturating_sub(1));
        match self.rewind(row, same) {
            Ok(()) => Ok(same),
            Err(SessionError::Rewind { .. }) => self.rewind(row, 0).map(|()| 0),
            Err(e) => Err(e),
        }
    }

    /// Continues with copies of these sequences: [`Sessions::select`].
    ///
    /// # Errors
    /// As there.
    pub fn select(&mut self, from: &[usize]) -> Result<(), SessionError> {
        self.session.select(from)?;
        self.fed = from.iter().map(|row| self.fed[*row].clone()).collect();
        Ok(())
    }
}
