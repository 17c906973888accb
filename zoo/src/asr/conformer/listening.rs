//! A recording that comes in, exactly as the whole: what a model for streams hears.
//!
//! Features are computed of the samples that are there, frame by frame as of the whole recording; the streams keep what
//! later frames see ([`super::streaming`]), the search where it stands. So every sound is heard once, and memory does not
//! grow but by what was said.

use super::recognizer::{ConformerRecognizer, RecognizeError, Stand};
use super::streaming::Streams;
use crate::asr::Transcript;
use crate::asr::decode::Times;
use crate::asr::live::{Live, LiveOptions, News, grown};
use crate::asr::windows::Flowing;
use crate::audio::features::Normalize;
use std::time::Duration;

impl ConformerRecognizer {
    /// Listens to a recording that comes in, exactly as to the whole: [`Listening::feed`].
    ///
    /// # Errors
    /// A model that sees what is later, or whose features depend on the whole recording.
    pub fn listening(&self) -> Result<Listening<'_>, RecognizeError> {
        let settings = self.features().settings();
        if settings.is_some_and(|s| !matches!(s.normalize, Normalize::None)) {
            return Err(RecognizeError::Normalized);
        }
        let streams = self.network.streams(1, self.context)??;
        // Frames whose windows reach before what is kept are not computed from it; the first sample is not
        // sharpened by one before it.
        let reach = settings.map_or(0, |s| s.n_fft / 2 + 1);
        let before = reach.div_ceil(self.features().hop());
        let search = self.begin()?;
        let times = self.times.clone();
        let (kept, frames, all, steps) = (0, 0, 0, 0);
        let samples = vec![];
        Ok(Listening { recognizer: self, streams, search, samples, kept, before, reach, frames, all, steps, times })
    }
}

impl Flowing for Listening<'_> {
    type Error = RecognizeError;

    fn push(&mut self, samples: &[f32]) -> Result<(), RecognizeError> {
        self.take(samples)
    }

    fn done(self: Box<Self>) -> Result<Transcript, RecognizeError> {
        self.finish()
    }
}

/// A recording that comes in.
pub struct Listening<'r> {
    recognizer: &'r ConformerRecognizer,
    streams: Streams<'r>,
    search: Stand<'r>,
    /// The last samples, from number `kept` on: those that frames to come are made of.
    samples: Vec<f32>,
    kept: usize,
    /// Frames before the next one whose samples are kept.
    before: usize,
    /// Samples on both sides that a frame is made of.
    reach: usize,
    /// Frames of features so far.
    frames: usize,
    /// Samples so far.
    all: usize,
    /// Frames of the stream so far.
    steps: usize,
    times: Times,
}

impl Listening<'_> {
    /// Hears further samples: what was understood up to now.
    ///
    /// # Errors
    /// What the model cannot take.
    pub fn feed(&mut self, samples: &[f32]) -> Result<Transcript, RecognizeError> {
        self.take(samples)?;
        Ok(self.recognizer.said(&self.search, self.all, &self.times))
    }

    fn take(&mut self, samples: &[f32]) -> Result<(), RecognizeError> {
        self.samples.extend_from_slice(samples);
        self.all += samples.len();
        let hop = self.recognizer.features().hop();
        // Frame t is made of the samples around `t * hop`.
        let ready = self.all.checked_sub(self.reach).map_or(0, |n| n / hop + 1);
        self.hear(ready.max(self.frames), false)
    }

    /// Says that nothing more comes: the whole transcript.
    ///
    /// # Errors
    /// What the model cannot take.
    pub fn finish(mut self) -> Result<Transcript, RecognizeError> {
        self.end()
    }

    fn end(&mut self) -> Result<Transcript, RecognizeError> {
        let all = self.recognizer.features().frames(self.all);
        self.hear(all, true)?;
        Ok(self.recognizer.said(&self.search, self.all, &self.times))
    }

    /// Goes on up to frame `ready` of the features, not included.
    fn hear(&mut self, ready: usize, end: bool) -> Result<(), RecognizeError> {
        let features = self.recognizer.features();
        let streams = &mut self.streams;
        if ready > self.frames {
            let found = self.recognizer.extractor.run(&[&self.samples])?;
            let first = self.frames - self.kept / features.hop();
            let new = &found.values[first * found.width..(first + ready - self.frames) * found.width];
            streams.feed(0, new)?;
            self.frames = ready;
            let keep = self.frames.saturating_sub(self.before) * features.hop();
            self.samples.drain(..(keep - self.kept).min(self.samples.len()));
            self.kept = keep;
        }
        if end && self.all > 0 {
            streams.end(0)?;
        }
        loop {
            let parts = streams.step()?;
            if parts.is_empty() {
                break;
            }
            for part in parts.iter().filter(|p| p.frames > 0) {
                self.steps += part.frames;
                self.recognizer.go_on(&mut self.search, &part.head, part.head.len() / part.frames)?;
            }
        }
        Ok(())
    }
}

/// How long a beam may still change its mind.
const SURE: Duration = Duration::from_secs(3);

/// What it understands, as news.
pub(super) struct Growing<'r> {
    listening: Listening<'r>,
    /// The end of what was told.
    known: Duration,
    /// How long what was said may still change.
    sure: Duration,
}

impl<'r> Growing<'r> {
    /// Nothing heard yet. Segments end at pauses, too, and are not long.
    pub(super) fn new(mut listening: Listening<'r>, greedy: bool, options: &LiveOptions) -> Self {
        listening.times.gap = Some(options.pause);
        listening.times.longest = Some(options.longest);
        // The last segment goes on until a pause.
        let sure = options.pause + if greedy { Duration::ZERO } else { SURE };
        Growing { listening, known: Duration::ZERO, sure }
    }
}

impl Live for Growing<'_> {
    type Error = RecognizeError;

    fn feed(&mut self, samples: &[f32]) -> Result<News, RecognizeError> {
        let said = self.listening.feed(samples)?;
        let steps = u32::try_from(self.listening.steps).unwrap_or(u32::MAX);
        let heard = self.listening.times.frame.saturating_mul(steps);
        Ok(grown(said, &mut self.known, heard.saturating_sub(self.sure)))
    }

    fn finish(&mut self) -> Result<News, RecognizeError> {
        Ok(grown(self.listening.end()?, &mut self.known, Duration::MAX))
    }
}
