//! Streams: recordings that are heard while they come in.
//!
//! Cache-aware streaming (Noroozi et al. 2023, <https://arxiv.org/abs/2312.17279>): an encoder whose
//! convolutions see nothing later and whose attention sees chunks ([`Context::Chunks`]) can be given a chunk
//! at a time. Each layer keeps in states of the program what later chunks need: keys and values of the
//! frames that attention sees before a chunk, the last frames of each convolution. Nothing is computed twice, and
//! what comes out is what the whole recording gives with the same masks, bit for bit on the CPU.
//!
//! [`Streams`] are rows of one program, each a stream of its own: some may wait while others go on, and a
//! row may begin anew. Features go in, in parts of any size; whole chunks come out as soon as they are there. The
//! look-ahead is chosen among those that the model was trained for.

use super::network::{Network, Step};
use super::settings::{Context, Positions};
use crate::audio::{Batch, Frames};
use crate::llm::Caches;
use mobilis_runtime::prelude::*;

/// Why a model hears no streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The encoder sees what is later.
    #[error(
        "the encoder cannot hear streams: {0}. Models for streams have `causal_downsampling: true`, \
         `conv_context_size: causal` and `att_context_style: chunked_limited`"
    )]
    Late(&'static str),
    /// No such stream.
    #[error("there are {rows} streams, number {found} is asked for")]
    Row {
        /// How many there are.
        rows: usize,
        /// The number asked for.
        found: usize,
    },
    /// Features of another width.
    #[error("{found} values are not whole frames of {mels} features")]
    Width {
        /// Features of a frame.
        mels: usize,
        /// Values given.
        found: usize,
    },
    /// More features behind the end.
    #[error("stream {0} has ended: `begin` it anew first")]
    Ended(usize),
}

/// A stream.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Features that are not heard yet.
    waiting: Vec<f32>,
    /// Frames of features that came in.
    given: usize,
    /// Frames of the stream that came out.
    start: usize,
    /// Whether no more features come.
    ended: bool,
    /// Whether the end was heard.
    done: bool,
}

/// What came out of one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Which stream.
    pub row: usize,
    /// Its frames, `[frames, Hidden]`.
    pub stream: Vec<f32>,
    /// What the head says of them: see [`super::network::Heard::head`].
    pub head: Vec<f32>,
    /// Of a hybrid what its CTC head says.
    pub ctc: Option<Vec<f32>>,
    /// How many frames there are.
    pub frames: usize,
}

/// Streams that one program hears.
pub struct Streams<'n> {
    network: &'n Network,
    caches: Caches,
    program: Step,
    /// Frames of the stream of a chunk.
    chunk: usize,
    rows: Vec<Row>,
}

impl Drop for Streams<'_> {
    fn drop(&mut self) {
        self.network.inner.forget(&self.caches);
    }
}

impl Network {
    /// Streams, so many beside each other, with one of the look-aheads of [`Self::contexts`], the first unless
    /// given.
    ///
    /// # Errors
    /// An encoder that sees what is later; what the runtime says.
    pub fn streams(
        &self,
        rows: usize,
        context: Option<Context>,
    ) -> Result<Result<Streams<'_>, StreamError>, ProgramError> {
        let context = context.unwrap_or(self.contexts()[0]);
        let settings = &self.settings.encoder;
        let late = |why| Ok(Err(StreamError::Late(why)));
        if !settings.causal {
            return late("its subsampling sees later frames");
        }
        if settings.conv[1] > 0 {
            return late("its convolutions see later frames");
        }
        if settings.positions == Positions::Absolute || settings.globals.is_some() || settings.reduction.is_some() {
            return late("it counts positions from the beginning, has global frames, or reduces frames between layers");
        }
        let Context::Chunks { size, left: Some(left) } = context else {
            return late("its attention is not limited to chunks");
        };
        let caches = Caches::default();
        let program = self.inner.step(context, left * size, &caches)?.with_weights(self.weights.clone())?.alike();
        let rows = vec![Row::default(); rows];
        Ok(Ok(Streams { network: self, caches, program, chunk: size, rows }))
    }
}

impl Streams<'_> {
    /// Frames of features that are heard at once.
    pub fn chunk(&self) -> usize {
        self.chunk * self.network.settings.encoder.rate()
    }

    fn row(&mut self, row: usize) -> Result<&mut Row, StreamError> {
        let rows = self.rows.len();
        self.rows.get_mut(row).ok_or(StreamError::Row { rows, found: row })
    }

    /// Adds features to a stream, `[frames, Mels]`.
    ///
    /// # Errors
    /// No such stream, one that has ended, no whole frames.
    pub fn feed(&mut self, row: usize, features: &[f32]) -> Result<(), StreamError> {
        let mels = self.network.settings.encoder.mels;
        if !features.len().is_multiple_of(mels) {
            return Err(StreamError::Width { mels, found: features.len() });
        }
        let stream = self.row(row)?;
        if stream.ended {
            return Err(StreamError::Ended(row));
        }
        stream.waiting.extend_from_slice(features);
        stream.given += features.len() / mels;
        Ok(())
    }

    /// Says that no more features come to a stream.
    ///
    /// # Errors
    /// No such stream.
    pub fn end(&mut self, row: usize) -> Result<(), StreamError> {
        self.row(row)?.ended = true;
        Ok(())
    }

    /// Begins a stream anew.
    ///
    /// # Errors
    /// No such stream.
    pub fn begin(&mut self, row: usize) -> Result<(), StreamError> {
        *self.row(row)? = Row::default();
        Ok(())
    }

    /// Hears one chunk of every stream that has one, or that has ended: what comes out, nothing where all wait
    /// for more features.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn step(&mut self) -> Result<Vec<Part>, ProgramError> {
        let mels = self.network.settings.encoder.mels;
        let (frames, batch) = (self.chunk(), self.rows.len());
        let mut x = vec![0f32; batch * frames * mels];
        let (mut counts, mut start) = (vec![0i32; batch], vec![0i32; batch]);
        let mut active = vec![false; batch];
        for (i, row) in self.rows.iter_mut().enumerate() {
            // A row that waits must not look like one that begins, which forgets.
            start[i] = row.start as i32;
            let there = (row.waiting.len() / mels).min(frames);
            if row.done || there < frames && !row.ended {
                continue;
            }
            active[i] = true;
            let begin = i * frames * mels;
            x[begin..begin + there * mels].copy_from_slice(&row.waiting[..there * mels]);
            row.waiting.drain(..there * mels);
            // How many are left: all of the chunk, fewer at the end, and less than none where what the
            // convolutions make of the end is more than a chunk.
            let left = row.given as i64 - (row.start * frames / self.chunk) as i64;
            counts[i] = if row.ended { left as i32 } else { frames as i32 };
        }
        if !active.contains(&true) {
            return Ok(vec![]);
        }
        let features: Array<(Batch, Frames, super::network::Mels), MelSpectrogram> =
            Array::from_parts(&[batch, frames, mels], x);
        let lengths: Array<(Batch,), Lengths<Frames>> = Array::from_parts(&[batch], counts.clone());
        let starts: Array<(Batch,), Index> = Array::from_parts(&[batch], start);
        let taking: Array<(Batch,), Mask> = Array::from_parts(&[batch], active.clone());
        let found = self.program.run((features, lengths, starts, taking))?;
        let mut parts = vec![];
        for (i, row) in self.rows.iter_mut().enumerate().filter(|(i, _)| active[*i]) {
            let all = if row.ended { self.network.count(row.given) - row.start } else { usize::MAX };
            let given = all.min(self.chunk);
            row.done = all <= self.chunk;
            row.start += given;
            let rows = |array: &Array<(Batch, super::network::Inner, super::network::Width)>| {
                let each = array.sizes()[1] * array.sizes()[2];
                array.data()[i * each..i * each + given * array.sizes()[2]].to_vec()
            };
            let mut all = found.iter().map(rows);
            let (stream, head) = (all.next().unwrap_or_default(), all.next().unwrap_or_default());
            parts.push(Part { row: i, stream, head, ctc: all.next(), frames: given });
        }
        Ok(parts)
    }
}
