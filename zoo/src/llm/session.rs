//! Sessions: a model over caches, fed with tokens.
//!
//! A [`Session`] has a fixed number of sequences, each with its own position. [`Session::feed`]
//! gives every sequence some tokens (any number, none too) and gets logits back: those after the last token
//! of each, or after all of them. Two programs share the caches and the weights: one for prompts,
//! one for single tokens, so that neither's memory plan is disturbed by the other.
//!
//! Sequences can be cut short ([`Sessions::rewind`]), and copied or left out ([`Sessions::select`]):
//! beams go on from the best, and a batch shrinks when some of its texts are done.
//!
//! [`Sessions`] is what the rest of the world sees of a [`Session`]: the family's type is gone.

mod draw;
mod error;
mod rows;

use super::context::{Caches, Context, PerRow};
use super::{Batch, CausalLm, Ids, Ring, Slots, Time};
use mobilis_runtime::graph::Dim;
use mobilis_runtime::ops::loss::CrossEntropyOptions;
use mobilis_runtime::ops::{elementwise as ew, embedding, leaf, movement};
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Program;
use mobilis_runtime::sampling::Draw;
use std::ops::Range;
use std::rc::Rc;

pub use draw::Drawn;
pub use error::SessionError;

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
    values: Vec<f32>,
    /// Where each sequence's logits lie, a range for each piece that was worked on.
    rows: Vec<Vec<Range<usize>>>,
}

impl Logits {
    /// How many tokens there are.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits of sequence `row` after each of its positions that were asked for, in order.
    pub fn positions(&self, row: usize) -> impl DoubleEndedIterator<Item = &[f32]> {
        self.rows[row].iter().flat_map(|range| self.values[range.clone()].chunks_exact(self.vocab))
    }

    /// The logits after the last token of sequence `row`; nothing where it was given none.
    pub fn last(&self, row: usize) -> Option<&[f32]> {
        self.positions(row).next_back()
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
    /// Gives each sequence tokens, and gets back what [`sampling::sample`](mobilis_runtime::sampling::sample) draws from the logits
    /// after its last one, which stay on the model's device. Of a sequence without tokens nothing is said.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); as many draws as sequences are needed.
    fn draw(&mut self, rows: &[&[u32]], draws: &[Draw]) -> Result<Vec<Drawn>, SessionError>;
    /// Whether logits would come from another device's memory, so that [`draw`](Self::draw) saves their way.
    fn is_far(&self) -> bool;
    /// Gives each sequence tokens, and gets back what each should have been followed by costs:
    /// `-ln p(next[row][i])` after `rows[row][..=i]`. Logits are not kept.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); as many next tokens as tokens are needed.
    fn losses(&mut self, rows: &[&[u32]], next: &[&[u32]]) -> Result<Vec<Vec<f32>>, SessionError>;
    /// Cuts a sequence down to its first `length` tokens.
    ///
    /// # Errors
    /// Positions that are no longer there: models with a running state (Mamba) can only go back to
    /// 0, sliding windows by what a call may be given. 0 is always possible.
    fn rewind(&mut self, row: usize, length: usize) -> Result<(), SessionError>;
    /// The session's sequences are copies of `from[0]`, `from[1]`, .. from now on: more or fewer
    /// than there were, in any order.
    ///
    /// # Errors
    /// Sequences that there are not, or none at all.
    fn select(&mut self, from: &[usize]) -> Result<(), SessionError>;
    /// Whether the last tokens of a sequence can be taken back ([`rewind`](Self::rewind)). Only known
    /// after the first call.
    fn can_rewind(&self) -> bool;
}

axes! {
    /// The logits of a sequence, position by position.
    Results;
}

type Step = Program<(Ids, PerRow, PerRow, PerRow), Tensor<(Batch, Results)>>;
type Scoring = Program<(Ids, PerRow, PerRow, PerRow, Ids), Tensor<(Batch, Time)>>;

/// Caches begin with room for so many positions, and double it when that is needed: memory follows
/// the texts, not what a session may come to.
const ROOM: usize = 1024;

/// Up to so many tokens of a call are padded to a power of two: proposals of any length then share
/// a few plans.
const PADDED: usize = 16;

/// A model over caches.
pub struct Session<M: CausalLm> {
    model: Rc<Model<M>>,
    options: SessionOptions,
    vocab: usize,
    sizes: Sizes,
    caches: Caches,
    /// The positions that caches have room for at present.
    slots: usize,
    /// The window of sliding layers, and the slots of their rings.
    window: Option<usize>,
    ring: usize,
    lengths: Vec<usize>,
    /// The farthest position that each sequence has had since it began: behind the ring's size from
    /// there, nothing is kept.
    reached: Vec<usize>,
    /// The length of each text as far as it is known, for what depends on it from its start on.
    ends: Vec<usize>,
    switch: Option<Switch>,
    programs: [Option<Step>; 3],
    drawings: [Option<draw::Drawing>; 2],
    scoring: Option<Scoring>,
}

/// Texts that are read anew when they grow past a length.
struct Switch {
    limit: usize,
    /// The tokens of each sequence, to be read again.
    texts: Vec<Vec<u32>>,
    /// Whether what is kept of a sequence is that of a text beyond the limit.
    beyond: Vec<bool>,
}

impl<M: CausalLm> Session<M> {
    /// A session without tokens.
    pub fn new(model: Rc<Model<M>>, options: SessionOptions) -> Session<M> {
        let chunk = options.chunk.clamp(1, options.positions.max(1));
        let window = model.window().map(|w| usize::try_from(w).unwrap_or(usize::MAX));
        let ring = window.map_or(1, |w| w.saturating_add(chunk - 1).min(options.positions.max(1)));
        let slots = options.positions.min(ROOM);
        let sizes = Sizes::new().with::<Slots>(slots).with::<Ring>(ring);
        let mut known = model.sizes().clone();
        sizes.iter().for_each(|(tag, n)| known.set(tag, n));
        let vocab = M::Vocab::extent().eval(&known).unwrap_or(0);
        let lengths = vec![0; options.batch];
        let (texts, beyond) = (vec![vec![]; options.batch], vec![false; options.batch]);
        let switch = model.switch().map(|limit| Switch { limit, texts, beyond });
        Session {
            model,
            ends: lengths.clone(),
            switch,
            options: SessionOptions { chunk, ..options },
            vocab,
            sizes,
            caches: Caches::default(),
            slots,
            window,
            ring,
            reached: lengths.clone(),
            lengths,
            programs: [None, None, None],
            drawings: [None, None],
            scoring: None,
        }
    }

    /// The same over caches that hold something already, with the sizes of its axes: what a text in
    /// another language left for its translation.
    #[must_use]
    pub(super) fn remembering(mut self, caches: Caches, sizes: &Sizes) -> Session<M> {
        sizes.iter().for_each(|(tag, n)| self.sizes.set(tag, n));
        self.caches = caches;
        self
    }

    /// The model.
    pub(super) fn model(&self) -> &Model<M> {
        &self.model
    }

    /// What its sequences remember.
    pub(super) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// The sizes of axes that its programs cannot tell from their arguments.
    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The program for prompts or single tokens, and the logits wanted.
    fn program(&mut self, single: bool, want: Want) -> Result<&Step, SessionError> {
        let place = if want == Want::All { 2 } else { single as usize };
        if self.programs[place].is_none() {
            let caches = &self.caches;
            let f = |m: &M, (ids, start, count, end): (Ids, PerRow, PerRow, PerRow)| {
                let cx = Context::over(caches, start, count).ending(end);
                let stream = m.stream(ids, &cx);
                match want {
                    Want::Last => flat(m.head(last(stream, count))),
                    Want::All => flat(m.head(stream)),
                }
            };
            let program = self.model.compile_with(&self.sizes, f)?;
            self.programs[place] = Some(program.with_weights(self.options.weights.clone())?);
        }
        Ok(self.programs[place].as_ref().expect("it was just made"))
    }

    /// The program for the losses of next tokens.
    fn scoring(&mut self) -> Result<&Scoring, SessionError> {
        if self.scoring.is_none() {
            let caches = &self.caches;
            let f = |m: &M, (ids, start, count, end, next): (Ids, PerRow, PerRow, PerRow, Ids)| {
                let cx = Context::over(caches, start, count).ending(end);
                let logits = m.head(m.stream(ids, &cx));
                logits.cross_entropy_with(next, CrossEntropyOptions::default()).each()
            };
            let program = self.model.compile_with(&self.sizes, f)?;
            self.scoring = Some(program.with_weights(self.options.weights.clone())?);
        }
        Ok(self.scoring.as_ref().expect("it was just made"))
    }

    /// What a program is given: ids, positions, counts, ends.
    fn arguments(&self, rows: &[&[u32]]) -> (Tokens, Numbers, Numbers, Numbers) {
        let per_row = |values| Array::from_parts(&[rows.len()], values);
        let whole = |all: &[usize]| per_row(all.iter().map(|n| *n as i32).collect());
        let count = rows.iter().map(|r| r.len() as i32).collect();
        (self.padded(rows, 0), whole(&self.lengths), per_row(count), whole(&self.ends))
    }

    /// The tokens of a call `[Batch, Time]`, shorter rows filled up.
    fn padded(&self, rows: &[&[u32]], with: i32) -> Tokens {
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        let time = if longest <= PADDED { longest.next_power_of_two().min(self.options.chunk) } else { longest };
        let mut ids = vec![with; rows.len() * time];
        for (row, to) in rows.iter().zip(ids.chunks_exact_mut(time.max(1))) {
            row.iter().zip(to).for_each(|(id, to)| *to = *id as i32);
        }
        Array::from_parts(&[rows.len(), time], ids)
    }

    /// One call: `rows[b][..]` tokens of each sequence, at most a chunk. `[Batch, Results]`
    fn step(&mut self, rows: &[&[u32]], want: Want) -> Result<Vec<f32>, SessionError> {
        let arguments = self.arguments(rows);
        let single = arguments.0.sizes()[1] == 1;
        let want = if single { Want::Last } else { want };
        let out = self.program(single, want)?.run(arguments)?.into_vec();
        self.advance(rows);
        Ok(out)
    }

    fn advance(&mut self, rows: &[&[u32]]) {
        for (row, tokens) in rows.iter().enumerate() {
            self.lengths[row] += tokens.len();
            self.reached[row] = self.reached[row].max(self.lengths[row]);
            if let Some(switch) = &mut self.switch {
                switch.texts[row].extend_from_slice(tokens);
            }
        }
    }

    /// Notes how long texts that begin now are known to be; of others, a token knows only what is
    /// before it, as if they came one by one.
    fn begin(&mut self, rows: &[&[u32]]) {
        let known = |(length, row): (&usize, &&[u32])| if *length == 0 { row.len() } else { 0 };
        self.ends = self.lengths.iter().zip(rows).map(known).collect();
    }

    /// Reads texts anew that these tokens bring past the limit, or that were beyond it before they were
    /// cut short.
    fn reread(&mut self, rows: &[&[u32]]) -> Result<(), SessionError> {
        let Some(switch) = &mut self.switch else { return Ok(()) };
        let mut texts = vec![vec![]; rows.len()];
        for (row, tokens) in rows.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            let target = (self.lengths[row] + tokens.len()).max(self.ends[row]);
            let beyond = target > switch.limit;
            if std::mem::replace(&mut switch.beyond[row], beyond) != beyond && self.lengths[row] > 0 {
                texts[row] = std::mem::take(&mut switch.texts[row]);
                (self.lengths[row], self.reached[row], self.ends[row]) = (0, 0, target);
            }
        }
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        for piece in self.pieces(&texts) {
            self.step(&piece, Want::Last)?;
        }
        Ok(())
    }

    /// Whether sequences can be given these tokens.
    fn check(&self, rows: &[&[u32]]) -> Result<(), SessionError> {
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
        Ok(())
    }

    /// Makes room for these tokens. Programs are compiled for a number of slots, so they are compiled
    /// anew.
    fn grow(&mut self, rows: &[&[u32]]) {
        let need = self.lengths.iter().zip(rows).map(|(n, row)| n + row.len()).max().unwrap_or(0);
        if need <= self.slots {
            return;
        }
        let slots = need.max(2 * self.slots).min(self.options.positions);
        let mut values = self.model.store().lock();
        for (id, _) in self.caches.states().into_iter().filter(|(_, by_position)| *by_position) {
            if let Some(entry) = values.get_mut(id) {
                rows::relay(entry, slots, &self.lengths);
            }
        }
        drop(values);
        self.slots = slots;
        self.sizes = Sizes::new().with::<Slots>(slots).with::<Ring>(self.ring);
        (self.programs, self.drawings, self.scoring) = ([None, None, None], [None, None], None);
    }

    /// The pieces of rows that are worked on one after another. A text that goes on is cut where it is
    /// read anew.
    fn pieces<'r>(&self, rows: &[&'r [u32]]) -> Vec<Vec<&'r [u32]>> {
        let limit = self.switch.as_ref().map_or(usize::MAX, |s| s.limit);
        let mut rest = rows.to_vec();
        let mut out = vec![];
        let mut at = self.lengths.clone();
        while rest.iter().any(|row| !row.is_empty()) {
            let mut piece = vec![];
            for (row, rest) in rest.iter_mut().enumerate() {
                let goes_on = self.lengths[row] > 0 && at[row] < limit;
                let most = if goes_on { self.options.chunk.min(limit - at[row]) } else { self.options.chunk };
                let (first, behind) = rest.split_at(most.min(rest.len()));
                at[row] += first.len();
                piece.push(first);
                *rest = behind;
            }
            out.push(piece);
        }
        out
    }
}

/// Tokens of a call.
type Tokens = Array<(Batch, Time), Index>;
/// A number for each sequence.
type Numbers = Array<(Batch,), Index>;

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
        self.check(rows)?;
        self.grow(rows);
        let vocab = self.vocab;
        let mut logits = Logits { vocab, values: vec![], rows: vec![vec![]; rows.len()] };
        self.begin(rows);
        for piece in self.pieces(rows) {
            self.reread(&piece)?;
            let out = self.step(&piece, want)?;
            let (first, each) = (logits.values.len(), out.len() / rows.len());
            match first {
                0 => logits.values = out,
                _ => logits.values.extend(out),
            }
            for (row, tokens) in piece.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
                let count = if want == Want::All { tokens.len() } else { 1 };
                if want == Want::Last {
                    logits.rows[row].clear();
                }
                let begin = first + row * each;
                logits.rows[row].push(begin..begin + count * vocab);
            }
        }
        Ok(logits)
    }

    fn draw(&mut self, rows: &[&[u32]], draws: &[Draw]) -> Result<Vec<Drawn>, SessionError> {
        self.check(rows)?;
        if draws.len() != rows.len() {
            return Err(SessionError::Rows { batch: rows.len(), found: draws.len() });
        }
        self.grow(rows);
        self.begin(rows);
        self.drawn(rows, draws)
    }

    fn is_far(&self) -> bool {
        !matches!(self.model.device(), Device::Cpu | Device::Reference)
    }

    fn losses(&mut self, rows: &[&[u32]], next: &[&[u32]]) -> Result<Vec<Vec<f32>>, SessionError> {
        self.check(rows)?;
        let (batch, vocab) = (rows.len(), self.vocab);
        if next.len() != batch {
            return Err(SessionError::Rows { batch, found: next.len() });
        }
        for (row, (tokens, next)) in rows.iter().zip(next).enumerate() {
            if tokens.len() != next.len() {
                return Err(SessionError::Next { row, tokens: tokens.len(), next: next.len() });
            }
            if let Some(token) = next.iter().copied().find(|t| *t as usize >= vocab) {
                return Err(SessionError::Token { token, row, vocab });
            }
        }
        self.grow(rows);
        let mut all = vec![vec![]; batch];
        self.begin(rows);
        for (piece, next) in self.pieces(rows).iter().zip(self.pieces(next)) {
            self.reread(piece)?;
            // The index that cross-entropy leaves out.
            let next = self.padded(&next, -100);
            let (ids, start, count, end) = self.arguments(piece);
            let out = self.scoring()?.run((ids, start, count, end, next))?.into_vec();
            self.advance(piece);
            for ((all, tokens), out) in all.iter_mut().zip(piece).zip(out.chunks_exact(out.len() / batch)) {
                all.extend_from_slice(&out[..tokens.len()]);
            }
        }
        Ok(all)
    }

    fn rewind(&mut self, row: usize, wanted: usize) -> Result<(), SessionError> {
        let batch = self.lengths.len();
        let length = *self.lengths.get(row).ok_or(SessionError::NoRow { row, batch })?;
        if wanted == 0 {
            self.reached[row] = 0;
        } else if wanted < length {
            // The next query sees its window, itself included.
            let seen = self.window.map_or(0, |w| (wanted + 1).saturating_sub(w));
            let kept = self.window.is_none() || seen + self.ring >= self.reached[row];
            if !kept || !self.can_rewind() {
                return Err(SessionError::Rewind { row, length, wanted });
            }
        } else if wanted > length {
            return Err(SessionError::Rewind { row, length, wanted });
        }
        self.lengths[row] = wanted;
        if let Some(switch) = &mut self.switch {
            switch.texts[row].truncate(wanted);
        }
        Ok(())
    }

    fn select(&mut self, from: &[usize]) -> Result<(), SessionError> {
        let batch = self.lengths.len();
        if from.is_empty() {
            return Err(SessionError::Rows { batch, found: 0 });
        }
        if let Some(row) = from.iter().copied().find(|row| *row >= batch) {
            return Err(SessionError::NoRow { row, batch });
        }
        if from.iter().copied().eq(0..batch) {
            return Ok(());
        }
        let mut values = self.model.store().lock();
        for (id, by_position) in self.caches.states() {
            let Some(entry) = values.get_mut(id) else { continue };
            rows::select(entry, from, by_position.then_some(&self.lengths));
        }
        drop(values);
        let of = |all: &[usize]| from.iter().map(|row| all[*row]).collect();
        (self.lengths, self.reached) = (of(&self.lengths), of(&self.reached));
        if let Some(switch) = &mut self.switch {
            switch.texts = from.iter().map(|row| switch.texts[*row].clone()).collect();
            switch.beyond = from.iter().map(|row| switch.beyond[*row]).collect();
        }
        Ok(())
    }

    fn can_rewind(&self) -> bool {
        self.caches.by_position()
    }
}

impl<M: CausalLm> Drop for Session<M> {
    fn drop(&mut self) {
        self.caches.clear(self.model.store());
    }
}
