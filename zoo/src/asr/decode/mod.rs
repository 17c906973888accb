//! Search: from what an acoustic model gives for each frame to the tokens that were said.
//!
//! Two kinds of models come in. A CTC head (Graves et al. 2006) gives [`Emissions`]: log-probabilities
//! of every token and of blank, frame by frame. A transducer (Graves 2012) is asked as the search goes:
//! a [`Transducer`] has a predictor, which reads the tokens found so far, and a joint network, which
//! scores what comes next at a frame. What comes out is a [`Hypothesis`]: tokens with their frames.
//!
//! - [`ctc`] takes the best class of each frame; [`ctc_beam`] sums the paths of prefixes.
//! - [`transducer`] finds labels by looping over labels, many recordings at once; [`transducer_beam`] keeps several
//!   texts.
//! - [`search`] is what users choose of these, and what recognizers run.
//! - [`guide`] adds to a beam's scores what a language model ([`ngram`]) and favoured [`phrases`] say.
//! - [`labels`] gives tokens their text, [`times`] words and segments their times.
//! - [`confidence`] says how sure a distribution is.
//!
//! Searches run on the host over plain slices, whatever device made them, and a recording's result does
//! not depend on those beside it.

mod chain;
pub mod confidence;
pub mod ctc;
pub mod ctc_beam;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod golden_tests;
pub mod guide;
pub mod labels;
pub mod ngram;
pub mod phrases;
pub mod search;
pub mod times;
pub mod transducer;
pub mod transducer_beam;

use std::error::Error;

pub use confidence::Confidence;
pub use guide::Guide;
pub use labels::Labels;
pub use search::{Search, Searcher};
pub use times::{Timeless, Times};
pub use transducer::Transducer;

/// What a search could not do.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The number of values is not that of frames and classes.
    #[error("{found} values are not {rows} rows of {width}")]
    Size {
        /// Rows that were announced.
        rows: usize,
        /// Values of a row.
        width: usize,
        /// Values that were given.
        found: usize,
    },
    /// Blank is no class.
    #[error("blank is class {blank}, there are {classes} classes")]
    Blank {
        /// The index given for blank.
        blank: usize,
        /// The number of classes.
        classes: usize,
    },
    /// No class has a probability: all are NaN, or minus infinity.
    #[error("the model gave no number for any class at frame {frame}: the recording, or the model, is broken")]
    NotNumbers {
        /// The frame.
        frame: usize,
    },
    /// A setting that has no meaning.
    #[error("{0}")]
    Option(String),
    /// A model gave another number of results than it was asked for.
    #[error("the {part} gave {found} values for {asked} questions, which should be {expected}")]
    Answer {
        /// `predictor` or `joint network`.
        part: &'static str,
        /// Questions.
        asked: usize,
        /// Values that should have come.
        expected: usize,
        /// Values that came.
        found: usize,
    },
    /// The model failed.
    #[error("the model failed")]
    Model(#[source] Box<dyn Error + Send + Sync>),
}

/// The log-probabilities that a CTC head gives for one recording.
#[derive(Clone, Copy, Debug)]
pub struct Emissions<'a> {
    /// `[frames, classes]`, row after row: only the frames that count.
    pub log_probs: &'a [f32],
    /// Tokens and blank.
    pub classes: usize,
}

impl<'a> Emissions<'a> {
    /// The distributions, frame by frame.
    ///
    /// # Errors
    /// A number of values that is not a multiple of the classes; a blank that is no class.
    pub(crate) fn frames(&self, blank: usize) -> Result<std::slice::ChunksExact<'a, f32>, DecodeError> {
        if blank >= self.classes {
            return Err(DecodeError::Blank { blank, classes: self.classes });
        }
        rows(self.log_probs, self.classes)
    }
}

/// What an encoder gives for one recording, for a transducer's joint network.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// `[frames, width]`, row after row: only the frames that count.
    pub values: &'a [f32],
    /// Values of a frame.
    pub width: usize,
}

fn rows(values: &[f32], width: usize) -> Result<std::slice::ChunksExact<'_, f32>, DecodeError> {
    if width == 0 || !values.len().is_multiple_of(width) {
        return Err(DecodeError::Size { rows: values.len() / width.max(1), width, found: values.len() });
    }
    Ok(values.chunks_exact(width))
}

/// A token that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Its index.
    pub id: u32,
    /// The first frame that it was heard at.
    pub start: usize,
    /// The frame after the last: for CTC where its run ends, for TDT where its duration does; for RNN-T the next one.
    pub end: usize,
    /// How sure the model is, `0.0 ..= 1.0`; 1 where it was not asked.
    pub confidence: f32,
}

/// What was found in one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hypothesis {
    /// The tokens in the order of time.
    pub tokens: Vec<Token>,
    /// The logarithm of its probability, as far as the search knows it, with all that was added to it.
    pub score: f32,
}

impl Hypothesis {
    /// The indices alone.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|t| t.id).collect()
    }
}

/// The place and the value of the largest; of equals the first. NaN is never the largest. Place 0 and minus
/// infinity for nothing.
pub(crate) fn best(row: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &v) in row.iter().enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best
}

/// `log sum exp`, minus infinity for nothing.
pub(crate) fn log_sum(row: &[f32]) -> f32 {
    let most = best(row).1;
    if most == f32::NEG_INFINITY { most } else { most + row.iter().map(|v| (v - most).exp()).sum::<f32>().ln() }
}
