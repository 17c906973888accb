//! Sessions: a model over caches, fed with tokens.
//!
//! A [`Session`] has a fixed number of sequences, each with its own position. [`Session::feed`]
//! gives every sequence some tokens (any number, none too) and gets logits back: those after the last token
//! of each, or after all of them. Two programs share the caches and the weights: one for prompts,
//! one for single tokens, so that neither's memory plan is disturbed by the other.
//!
//! [`Sessions`] is what the rest of the world sees of a [`Session`]: the family's type is gone.

use super::context::{Caches, Context, PerRow};
use super::{Batch, CausalLm, Ids, Ring, Slots, Time};
use mobilis_runtime::graph::Dim;
use mobilis_runtime::module::store::{Data, Entry};
use mobilis_runtime::ops::{elementwise as ew, embedding, leaf, movement};
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Program;
use std::rc::Rc;

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Sequences.
    pub batch: usize,
    /// Positions that each sequence may reach.
    pub positions: usize,
    /// Tokens of one sequence that one call works on; longer prompts are cut into such pieces.
    pub chunk: usize,
    /// How programs store the weights.
    pub weights: Weights,
}

impl SessionOptions {
    /// `batch` sequences of up to `positions` positions.
    pub fn new(batch: usize, positions: usize) -> SessionOptions {
        SessionOptions { batch, positions, chunk: 512, weights: Weights::default() }
    }
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// More positions than the session has room for.
    #[error(
        "sequence {row} would reach position {wanted}, the session has room for {positions}: make it larger, or begin a new text"
    )]
    Full {
        /// The sequence.
        row: usize,
        /// The position it would reach.
        wanted: usize,
        /// The session's room.
        positions: usize,
    },
    /// Another number of sequences than the session has.
    #[error("the session has {batch} sequences, tokens were given for {found}")]
    Rows {
        /// The session's sequences.
        batch: usize,
        /// Sequences given.
        found: usize,
    },
    /// A token that the model has no embedding for.
    #[error("token {token} of sequence {row} is not one of the model's {vocab} tokens")]
    Token {
        /// The token.
        token: u32,
        /// Its sequence.
        row: usize,
        /// How many tokens the model has.
        vocab: usize,
    },
    /// A sequence of a recurrent model, which keeps no positions to go back to.
    #[error("sequence {row} stands at {length} and cannot go back to {wanted}: the model keeps no earlier positions")]
    Rewind {
        /// The sequence.
        row: usize,
        /// Where it stands.
        length: usize,
        /// Where it should.
        wanted: usize,
    },
    /// A program that failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Which logits a call wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Those after the last token of each sequence.
    Last,
    /// Those after every token.
    All,
}

/// Logits of some positions of each sequence.
#[derive(Clone, Debug)]
pub struct Logits {
    vocab: usize,
    rows: Vec<Vec<f32>>,
}

impl Logits {
    /// How many tokens there are.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits of sequence `row` after each of its positions that were asked for, in order.
    pub fn positions(&self, row: usize) -> impl DoubleEndedIterator<Item = &[f32]> + ExactSizeIterator {
        self.rows[row].chunks_exact(self.vocab)
    }

    /// The logits after the last token of sequence `row`; nothing where it was given none.
    pub fn last(&self, row: usize) -> Option<&[f32]> {
        self.positions(row).next_back()
    }

    /// The same, to be changed in place.
    pub fn last_mut(&mut self, row: usize) -> Option<&mut [f32]> {
        self.rows[row].chunks_exact_mut(self.vocab).next_back()
    }
}

/// A session whose model's type is gone.
pub trait Sessions {
    /// The number of tokens given to each sequence so far.
    fn lengths(&self) -> &[usize];
    /// The positions that each sequence may reach.
    fn positions(&self) -> usize;
    /// Gives each sequence tokens, after those it has.
    ///
    /// # Errors
    /// Another number of sequences, a token that the model does not have, a sequence that grows
    /// beyond the session's room. Nothing is fed then.
    fn feed(&mut self, rows: &[&[u32]], want: Want) -> Result<Logits, SessionError>;
    /// Cuts a sequence down to its first `length` tokens.
    ///
    /// # Errors
    /// Models with a running state (Mamba) can only go back to 0.
    fn rewind(&mut self, row: usize, length: usize) -> Result<(), SessionError>;
    /// Sequence `i` goes on from what sequence `from[i]` was.
    ///
    /// # Errors
    /// Another number of sequences.
    fn reorder(&mut self, from: &[usize]) -> Result<(), SessionError>;
    /// Whether sequences can be cut short ([`rewind`](Self::rewind)) anywhere.
    fn can_rewind(&self) -> bool;
}

axes! {
    /// The logits of a sequence, position by position.
    Results;
}

type Step = Program<(Ids, PerRow, PerRow), Tensor<(Batch, Results)>>;

/// A model over caches.
pub struct Session<M: CausalLm> {
    model: Rc<Model<M>>,
    options: SessionOptions,
    vocab: usize,
    sizes: Sizes,
    caches: Caches,
    lengths: Vec<usize>,
    programs: [Option<Step>; 3],
}

impl<M: CausalLm> Session<M> {
    /// A session without tokens. `window` is the largest sliding window of the model's layers.
    pub fn new(model: Rc<Model<M>>, window: Option<u64>, options: SessionOptions) -> Session<M> {
        let chunk = options.chunk.clamp(1, options.positions.max(1));
        let ring = window.map_or(1, |w| (w as usize).saturating_add(chunk - 1).min(options.positions.max(1)));
        let sizes = Sizes::new().with::<Slots>(options.positions).with::<Ring>(ring);
        let mut known = model.sizes().clone();
        sizes.iter().for_each(|(tag, n)| known.set(tag, n));
        let vocab = M::Vocab::extent().eval(&known).unwrap_or(0);
        let lengths = vec![0; options.batch];
        let options = SessionOptions { chunk, ..options };
        Session { model, options, vocab, sizes, caches: Caches::default(), lengths, programs: [None, None, None] }
    }

    /// The program for prompts or single tokens, and the logits wanted.
    fn program(&mut self, single: bool, want: Want) -> Result<&Step, SessionError> {
        let place = if want == Want::All { 2 } else { single as usize };
        if self.programs[place].is_none() {
            let caches = &self.caches;
            let program = self.model.compile_with(&self.sizes, |m, (ids, start, count): (Ids, PerRow, PerRow)| {
                let cx = Context::over(caches, start, count);
                let stream = m.stream(ids, &cx);
                match want {
                    Want::Last => flat(m.head(last(stream, count))),
                    Want::All => flat(m.head(stream)),
                }
            })?;
            self.programs[place] = Some(program.with_weights(self.options.weights.clone())?);
        }
        Ok(self.programs[place].as_ref().expect("it was just made"))
    }

    /// One call: `rows[b][..]` tokens of each sequence, at most a chunk.
    fn step(&mut self, rows: &[&[u32]], want: Want) -> Result<Vec<Vec<f32>>, SessionError> {
        let (batch, vocab) = (rows.len(), self.vocab);
        let time = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        if time == 0 {
            return Ok(vec![vec![]; batch]);
        }
        let mut ids = vec![0i32; batch * time];
        for (row, to) in rows.iter().zip(ids.chunks_exact_mut(time)) {
            row.iter().zip(to).for_each(|(id, to)| *to = *id as i32);
        }
        let whole = |n: usize| n as i32;
        let start: Vec<i32> = self.lengths.iter().map(|n| whole(*n)).collect();
        let count: Vec<i32> = rows.iter().map(|r| whole(r.len())).collect();
        let ids: Array<(Batch, Time), Index> = Array::from_parts(&[batch, time], ids);
        let per_row = |values| Array::<(Batch,), Index>::from_parts(&[batch], values);
        let (start, count) = (per_row(start), per_row(count));
        let out = self.program(time == 1, want)?.run((ids, start, count))?.into_vec();
        for (length, row) in self.lengths.iter_mut().zip(rows) {
            *length += row.len();
        }
        let each = out.len() / batch;
        let wanted = |row: &&[u32]| match want {
            Want::Last => row.len().min(1) * vocab,
            Want::All => row.len() * vocab,
        };
        Ok(rows.iter().zip(out.chunks_exact(each)).map(|(row, out)| out[..wanted(row)].to_vec()).collect())
    }
}

/// The stream at the last token of each sequence.
fn last<H: Axis>(stream: Tensor<(Batch, Time, H)>, count: PerRow) -> Tensor<(Batch, Const<1>, H)> {
    let batch = Tensor::<(Batch,), Index>::type_of();
    let row = ew::mul(leaf::iota(0, &batch), leaf::index(Time::extent()));
    // A sequence without tokens looks at one that is not used.
    let at = ew::maximum(ew::sub(count.raw(), leaf::fill(1.0, batch.clone())), leaf::fill(0.0, batch));
    let merged = Dim::anonymous(<mobilis_runtime::Prod<Batch, Time>>::extent());
    let rows = movement::reshape(stream.raw(), vec![merged, H::dim()]);
    let found: Tensor<(Batch, H)> = Tensor::from_raw(embedding::embedding(rows, ew::add(row, at)));
    found.reshape()
}

/// Logits without their inner axes, which differ from call to call.
fn flat<T: Axis, V: Axis>(logits: Tensor<(Batch, T, V)>) -> Tensor<(Batch, Results)> {
    let inner = Dim::anonymous(<mobilis_runtime::Prod<T, V>>::extent());
    Tensor::from_raw(movement::reshape(logits.raw(), vec![Batch::dim(), inner]))
}

impl<M: CausalLm> Sessions for Session<M> {
    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn positions(&self) -> usize {
        self.options.positions
    }

    fn feed(&mut self, rows: &[&[u32]], want: Want) -> Result<Logits, SessionError> {
        let (batch, vocab, positions) = (self.lengths.len(), self.vocab, self.options.positions);
        if rows.len() != batch {
            return Err(SessionError::Rows { batch, found: rows.len() });
        }
        for (row, tokens) in rows.iter().enumerate() {
            let wanted = self.lengths[row].saturating_add(tokens.len());
            if wanted > positions {
                return Err(SessionError::Full { row, wanted, positions });
            }
            if let Some(token) = tokens.iter().copied().find(|t| *t as usize >= vocab) {
                return Err(SessionError::Token { token, row, vocab });
            }
        }
        let mut out = vec![vec![]; batch];
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        for first in (0..longest).step_by(self.options.chunk) {
            let cut = |row: &&[u32]| first.min(row.len())..(first + self.options.chunk).min(row.len());
            let pieces: Vec<&[u32]> = rows.iter().map(|row| &row[cut(row)]).collect();
            for (all, new) in out.iter_mut().zip(self.step(&pieces, want)?) {
                match want {
                    Want::Last if new.is_empty() => {}
                    Want::Last => *all = new,
                    Want::All => all.extend(new),
                }
            }
        }
        Ok(Logits { vocab, rows: out })
    }

    fn rewind(&mut self, row: usize, wanted: usize) -> Result<(), SessionError> {
        let length = self.lengths[row];
        if wanted > length || wanted < length && wanted > 0 && !self.can_rewind() {
            return Err(SessionError::Rewind { row, length, wanted });
        }
        self.lengths[row] = wanted;
        Ok(())
    }

    fn reorder(&mut self, from: &[usize]) -> Result<(), SessionError> {
        let batch = self.lengths.len();
        if from.len() != batch || from.iter().any(|i| *i >= batch) {
            return Err(SessionError::Rows { batch, found: from.len() });
        }
        if from.iter().enumerate().all(|(i, f)| i == *f) {
            return Ok(());
        }
        self.lengths = from.iter().map(|i| self.lengths[*i]).collect();
        let mut values = self.model.store().lock();
        for id in self.caches.ids() {
            let Some(entry) = values.get_mut(id) else { continue };
            let moved = reordered(entry, from);
            entry.data = moved;
        }
        Ok(())
    }

    fn can_rewind(&self) -> bool {
        self.caches.by_position()
    }
}

/// The rows of a state in another order.
fn reordered(entry: &Entry, from: &[usize]) -> Data {
    fn rows<T: Copy>(all: &[T], from: &[usize]) -> Vec<T> {
        let each = all.len() / from.len();
        from.iter().flat_map(|i| all[i * each..][..each].iter().copied()).collect()
    }
    match &entry.data {
        Data::F32(v) => Data::F32(rows(v, from)),
        Data::F64(v) => Data::F64(rows(v, from)),
        Data::I32(v) => Data::I32(rows(v, from)),
        Data::Bool(v) => Data::Bool(rows(v, from)),
    }
}

impl<M: CausalLm> Drop for Session<M> {
    fn drop(&mut self) {
        self.caches.clear(self.model.store());
    }
}
