//! Recordings of any length, heard in windows, several recordings at once.
//!
//! Attention over a whole recording costs the square of its length, and what a network holds grows with it. So a
//! recording that is longer than a window is heard in windows that overlap: of each, the frames in the middle
//! count, and the search goes on from window to window (what NeMo calls buffered inference: `FrameBatchASR`,
//! `BatchedFrameASRRNNT`). Memory is that of a window, for samples come in blocks and are forgotten when
//! no window needs them. A model for streams hears long recordings as streams instead, which is exact.
//!
//! Windows of like length, of several recordings, are heard together. Families say which of theirs may: those
//! whose frames are the same bits whoever is there, as networks are that mask what is behind each recording's end.
//!
//! In: [`Blocks`] of samples. Out: a [`Transcript`] for each recording, or why there is none.

use super::decode::search::CtcSearch;
use super::decode::{DecodeError, Emissions};
use super::{Blocks, Tell, Transcript};
use crate::audio::AudioError;
use std::error::Error;
use std::time::Duration;

/// How a recognizer works on recordings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// The part of a window that counts. What is longer than this and both margins is heard in windows.
    pub core: Duration,
    /// What is heard on both sides for its sake.
    pub margin: Duration,
    /// How many recordings are worked on side by side. No result depends on it.
    pub beside: usize,
}

impl Windows {
    /// Windows of so many seconds with margins of so many; eight recordings side by side.
    pub fn seconds(core: u64, margin: u64) -> Windows {
        Windows { core: Duration::from_secs(core), margin: Duration::from_secs(margin), beside: 8 }
    }
}

/// How recordings are cut, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The part of a window that counts.
    pub core: usize,
    /// What is heard on both sides for its sake.
    pub margin: usize,
    /// The samples of a frame.
    pub step: usize,
    /// Whether windows of several recordings may be heard at once.
    pub shared: bool,
}

impl Cut {
    /// The windows at a rate, whole frames each.
    pub(crate) fn new(windows: &Windows, rate: u32, step: usize, shared: bool) -> Cut {
        let step = step.max(1);
        let samples = |time: Duration| (time.as_secs_f64() * f64::from(rate)).min(1e15) as usize;
        let whole = |time| samples(time).max(1).next_multiple_of(step);
        Cut { core: whole(windows.core), margin: whole(windows.margin), step, shared }
    }

    /// A recording that is no longer is heard as a whole.
    fn whole(&self) -> usize {
        self.core + 2 * self.margin
    }
}

/// What a network says of a window: frames that count, `[frames, width]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub values: Vec<f32>,
    pub width: usize,
}

impl Rows {
    /// The rows that count of `[windows, frames, width]`.
    pub(crate) fn of(sizes: &[usize], data: &[f32], counted: &[i32]) -> Vec<Rows> {
        let (frames, width) = (sizes.get(1).copied().unwrap_or(0), sizes.get(2).copied().unwrap_or(0));
        let count = |n: &i32| usize::try_from(*n).unwrap_or(0).min(frames);
        let one = |(i, n)| &data[i * frames * width..(i * frames + count(n)) * width];
        counted.iter().enumerate().map(one).map(|values| Rows { values: values.to_vec(), width }).collect()
    }

    fn frames(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }
}

/// What a search is given of a recording.
pub(crate) struct Part<'p, S> {
    /// Where the search in it stands.
    pub search: &'p mut S,
    /// The next frames, `[frames, width]`.
    pub values: &'p [f32],
    pub width: usize,
}

impl Part<'_, CtcSearch<'_>> {
    /// Goes on with logarithms of probabilities.
    pub(crate) fn ctc(self) -> Result<(), DecodeError> {
        if self.values.is_empty() {
            return Ok(());
        }
        self.search.feed(&Emissions { log_probs: self.values, classes: self.width })
    }
}

/// A recording that is heard as a stream.
pub(crate) trait Flowing {
    type Error;
    /// Hears the next samples.
    fn push(&mut self, samples: &[f32]) -> Result<(), Self::Error>;
    /// What was said.
    fn done(self: Box<Self>) -> Result<Transcript, Self::Error>;
}

/// A model that hears windows of recordings.
pub(crate) trait Windowed {
    type Error: Error + From<AudioError>;
    /// Where the search in a recording stands.
    type Search<'r>
    where
        Self: 'r;

    /// How it cuts recordings.
    fn cut(&self) -> Cut;

    /// Samples in a second.
    fn rate(&self) -> u32;

    /// A search at a recording's beginning.
    fn search(&self) -> Result<Self::Search<'_>, Self::Error>;

    /// What it hears in windows: one result for each.
    fn hear(&self, windows: &[&[f32]]) -> Result<Vec<Rows>, Self::Error>;

    /// Lets searches go on with what was heard: one result for each.
    fn go_on<'r>(&'r self, parts: Vec<Part<'_, Self::Search<'r>>>) -> Vec<Result<(), Self::Error>>;

    /// What was said in a recording of so many samples.
    fn transcript(&self, search: &Self::Search<'_>, samples: usize) -> Transcript;

    /// Hears a long recording as a stream, if it can.
    fn stream(&self) -> Option<Box<dyn Flowing<Error = Self::Error> + '_>> {
        None
    }
}

/// A recording that is being heard.
struct Talk<'b, S> {
    index: usize,
    blocks: Blocks<'b>,
    /// The last samples, of which the first `stale` are not needed any more.
    tape: Vec<f32>,
    stale: usize,
    /// The number of the tape's first sample that is not stale.
    from: usize,
    ended: bool,
    /// The first sample of the next core.
    begin: usize,
    search: S,
}

/// What a window is of its recording.
struct Window {
    /// The first sample, of those that are there.
    start: usize,
    /// Samples before those that count.
    before: usize,
    /// Samples that count.
    core: usize,
    /// All samples.
    all: usize,
    /// Whether nothing comes behind it.
    last: bool,
}

impl<S> Talk<'_, S> {
    fn there(&self) -> &[f32] {
        &self.tape[self.stale..]
    }

    /// Reads until there are so many samples, or all.
    fn fill(&mut self, wanted: usize) -> Result<(), AudioError> {
        while !self.ended && self.there().len() < wanted {
            match self.blocks.next() {
                None => self.ended = true,
                Some(block) => {
                    let block = block?;
                    if self.stale >= self.there().len() {
                        self.tape.drain(..self.stale);
                        self.stale = 0;
                    }
                    self.tape.extend_from_slice(&block);
                }
            }
        }
        Ok(())
    }

    /// Forgets samples before a number.
    fn forget(&mut self, before: usize) {
        let gone = before.saturating_sub(self.from).min(self.there().len());
        self.stale += gone;
        self.from += gone;
    }

    /// The next window, which must be filled; none where all was heard. Those of a long recording are of one length,
    /// so that a program has one plan for them: at both ends more counts, as nothing lies beyond.
    fn window(&self, cut: &Cut) -> Option<Window> {
        let (there, at) = (self.there().len(), self.begin - self.from);
        let left = there - at;
        if left == 0 {
            return None;
        }
        let first = self.begin == 0;
        let most = if first { cut.whole() } else { cut.core + cut.margin };
        let last = self.ended && left <= most;
        let (before, core) = match (first, last) {
            (true, true) => (0, left),
            (true, false) => (0, cut.core + cut.margin),
            (false, false) => (cut.margin, cut.core),
            // Whole frames, and what is still there.
            (false, true) => (((cut.whole() - left) / cut.step * cut.step).min(at), left),
        };
        let behind = if last { 0 } else { cut.margin };
        Some(Window { start: at - before, before, core, all: before + core + behind, last })
    }
}

/// What was said in recordings: up to `beside` of them are worked on side by side.
pub(crate) fn listen<'r, M: Windowed>(
    model: &'r M,
    recordings: Vec<Blocks<'_>>,
    beside: usize,
    tell: &mut Tell<'_>,
) -> Vec<Result<Transcript, M::Error>> {
    let cut = model.cut();
    let rate = f64::from(model.rate().max(1));
    let time = |samples: usize| Duration::from_secs_f64(samples as f64 / rate);
    let mut found: Vec<Option<Result<Transcript, M::Error>>> = recordings.iter().map(|_| None).collect();
    let mut waiting = recordings.into_iter().enumerate();
    let mut talks: Vec<Talk<'_, M::Search<'r>>> = vec![];
    let beside = if cut.shared { beside.max(1) } else { 1 };
    loop {
        // Twice as many, so that some are of like length.
        while talks.len() < 2 * beside {
            let Some((index, blocks)) = waiting.next() else { break };
            match model.search() {
                Err(e) => found[index] = Some(Err(e)),
                Ok(search) => {
                    let (tape, stale, from, begin) = (vec![], 0, 0, 0);
                    talks.push(Talk { index, blocks, tape, stale, from, ended: false, begin, search });
                }
            }
        }
        if talks.is_empty() {
            break;
        }
        // Read what the next windows need; those that are at their end are done.
        let mut going: Vec<(Talk<'_, M::Search<'r>>, Window)> = vec![];
        for mut talk in std::mem::take(&mut talks) {
            // One more than there may be in the last window.
            let most = if talk.begin == 0 { cut.whole() } else { talk.begin - talk.from + cut.core + cut.margin };
            if let Err(e) = talk.fill(most + 1) {
                found[talk.index] = Some(Err(e.into()));
                continue;
            }
            if talk.begin == 0
                && !talk.ended
                && let Some(stream) = model.stream()
            {
                let index = talk.index;
                found[index] = Some(flow(talk, stream, &mut |samples| tell(index, time(samples), &[])));
                continue;
            }
            match talk.window(&cut) {
                Some(window) => going.push((talk, window)),
                None => found[talk.index] = Some(Ok(model.transcript(&talk.search, talk.begin))),
            }
        }
        // The longest first; of those that are nearly as long, as many as one long window has room for.
        going.sort_by_key(|(talk, window)| (std::cmp::Reverse(window.all), talk.index));
        let mut rest = going.as_mut_slice();
        while let Some((_, first)) = rest.first() {
            let longest = first.all.max(1);
            let most = (cut.whole() / longest).clamp(1, beside);
            let count = rest.iter().take(most).take_while(|(_, w)| 4 * w.all >= 3 * longest).count();
            let (group, others) = rest.split_at_mut(count.max(1));
            rest = others;
            round(model, &cut, group, &mut found);
        }
        for (mut talk, window) in going {
            if found[talk.index].is_some() {
                continue;
            }
            talk.begin += window.core;
            if window.last {
                let transcript = model.transcript(&talk.search, talk.begin);
                tell(talk.index, transcript.duration, &transcript.segments);
                found[talk.index] = Some(Ok(transcript));
            } else {
                talk.forget(talk.begin.saturating_sub(cut.whole()));
                tell(talk.index, time(talk.begin), &[]);
                talks.push(talk);
            }
        }
    }
    found.into_iter().map(|f| f.unwrap_or_else(|| Ok(Transcript::default()))).collect()
}

/// Hears some windows together, and lets their searches go on.
fn round<'r, M: Windowed>(
    model: &'r M,
    cut: &Cut,
    group: &mut [(Talk<'_, M::Search<'r>>, Window)],
    found: &mut [Option<Result<Transcript, M::Error>>],
) {
    let windows: Vec<&[f32]> = group.iter().map(|(talk, window)| &talk.there()[window.start..][..window.all]).collect();
    let heard = match model.hear(&windows) {
        Ok(heard) => heard,
        Err(e) if group.len() == 1 => {
            found[group[0].0.index] = Some(Err(e));
            return;
        }
        // Each by itself, so that one does not hinder the others.
        Err(_) => {
            return group.chunks_mut(1).for_each(|one| round(model, cut, one, found));
        }
    };
    let indices: Vec<usize> = group.iter().map(|(talk, _)| talk.index).collect();
    let parts = group.iter_mut().zip(&heard).map(|((talk, window), rows)| {
        let first = (window.before / cut.step).min(rows.frames());
        // The last window has all that is left, an unfinished frame too.
        let end = if window.last { usize::MAX } else { first + window.core / cut.step };
        let values = &rows.values[first * rows.width..end.min(rows.frames()) * rows.width];
        Part { search: &mut talk.search, values, width: rows.width }
    });
    for (index, result) in indices.into_iter().zip(model.go_on(parts.collect())) {
        if let Err(e) = result {
            found[index] = Some(Err(e));
        }
    }
}

/// Hears a recording as a stream, from what was read of it on.
fn flow<S, E: From<AudioError>>(
    talk: Talk<'_, S>,
    mut stream: Box<dyn Flowing<Error = E> + '_>,
    tell: &mut dyn FnMut(usize),
) -> Result<Transcript, E> {
    let mut samples = talk.tape.len();
    stream.push(&talk.tape)?;
    for block in talk.blocks {
        let block = block?;
        stream.push(&block)?;
        samples += block.len();
        tell(samples);
    }
    stream.done()
}

/// Recordings that are in memory, in blocks.
pub(crate) fn blocks<'a>(recordings: &[&'a [f32]], each: usize) -> Vec<Blocks<'a>> {
    let of = |samples: &&'a [f32]| -> Blocks<'a> { Box::new(samples.chunks(each.max(1)).map(|c| Ok(c.to_vec()))) };
    recordings.iter().map(of).collect()
}

/// The transcripts of recordings that are in memory, the longest first, so that those of like length meet.
pub(crate) fn transcribe<M: Windowed>(
    model: &M,
    recordings: &[&[f32]],
    beside: usize,
) -> Result<Vec<Transcript>, M::Error> {
    let mut order: Vec<usize> = (0..recordings.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(recordings[*i].len()));
    let sorted: Vec<&[f32]> = order.iter().map(|i| recordings[*i]).collect();
    let heard = listen(model, blocks(&sorted, model.rate() as usize), beside, &mut |_, _, _| {});
    let mut all = vec![Transcript::default(); recordings.len()];
    for (place, transcript) in order.into_iter().zip(heard) {
        all[place] = transcript?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::Segment;
    use super::*;
    use std::cell::{Cell, RefCell};

    const CUT: Cut = Cut { core: 12, margin: 4, step: 2, shared: true };

    /// A model whose frames are the sums of two samples and of those around, and whose text is all frames.
    struct Sums {
        shared: bool,
        streams: bool,
        calls: RefCell<Vec<Vec<usize>>>,
    }

    struct Flow(Vec<f32>);
    impl Flowing for Flow {
        type Error = AudioError;
        fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
            self.0.extend_from_slice(samples);
            Ok(())
        }
        fn done(self: Box<Self>) -> Result<Transcript, AudioError> {
            Ok(Transcript {
                text: "a stream".into(),
                duration: Duration::from_secs(self.0.len() as u64),
                ..Default::default()
            })
        }
    }

    fn sick() -> AudioError {
        AudioError::Empty { place: "here".into() }
    }

    fn frames(samples: &[f32]) -> Vec<f32> {
        let at = |i: isize| usize::try_from(i).ok().and_then(|i| samples.get(i)).copied().unwrap_or(0.0);
        (0..samples.len().div_ceil(2) as isize).map(|f| (2 * f - 2..2 * f + 4).map(at).sum()).collect()
    }

    impl Windowed for Sums {
        type Error = AudioError;
        type Search<'r> = Vec<f32>;
        fn cut(&self) -> Cut {
            Cut { shared: self.shared, ..CUT }
        }
        fn rate(&self) -> u32 {
            1
        }
        fn search(&self) -> Result<Vec<f32>, AudioError> {
            Ok(vec![])
        }
        fn hear(&self, windows: &[&[f32]]) -> Result<Vec<Rows>, AudioError> {
            self.calls.borrow_mut().push(windows.iter().map(|w| w.len()).collect());
            if windows.iter().any(|w| w.contains(&-1.0)) {
                return Err(sick());
            }
            Ok(windows.iter().map(|w| Rows { values: frames(w), width: 1 }).collect())
        }
        fn go_on(&self, mut parts: Vec<Part<'_, Vec<f32>>>) -> Vec<Result<(), AudioError>> {
            parts.iter_mut().for_each(|p| p.search.extend_from_slice(p.values));
            parts.iter().map(|_| Ok(())).collect()
        }
        fn transcript(&self, search: &Vec<f32>, samples: usize) -> Transcript {
            let text = search.iter().map(|v| format!("{v} ")).collect();
            let segments = vec![Segment::default(); usize::from(!search.is_empty())];
            Transcript { text, segments, duration: Duration::from_secs(samples as u64), language: None }
        }
        fn stream(&self) -> Option<Box<dyn Flowing<Error = AudioError> + '_>> {
            self.streams.then(|| Box::new(Flow(vec![])) as _)
        }
    }

    fn sums(shared: bool) -> Sums {
        Sums { shared, streams: false, calls: RefCell::default() }
    }

    #[test]
    fn windows_say_what_the_whole_says_and_hold_no_more() {
        for n in [0, 1, 2, 11, 19, 20, 21, 24, 25, 36, 37, 100, 101] {
            let samples: Vec<f32> = (0..n).map(|i| ((i * 7) % 13) as f32).collect();
            let expected: String = frames(&samples).iter().map(|v| format!("{v} ")).collect();
            for block in [1, 3, 8, 200] {
                let model = sums(true);
                let told = Cell::new(0);
                let heard = listen(&model, blocks(&[&samples], block), 4, &mut |_, at, _| {
                    assert!(at.as_secs() as usize > told.replace(at.as_secs() as usize));
                });
                let heard = heard[0].as_ref().unwrap();
                assert_eq!((heard.text.as_str(), heard.duration.as_secs()), (expected.as_str(), n as u64));
                assert_eq!(told.get(), n);
                // Those of a long recording are of one length but for an unfinished frame.
                let long = n > 20;
                assert!(model.calls.borrow().iter().flatten().all(|w| *w <= 20 && (!long || *w >= 19)));
            }
        }
    }

    #[test]
    fn what_is_not_needed_is_forgotten() {
        let most = Cell::new(0usize);
        let search = ();
        let blocks: Blocks = Box::new((0..1000).map(|_| Ok(vec![0.0; 3])));
        let mut talk = Talk { index: 0, blocks, tape: vec![], stale: 0, from: 0, ended: false, begin: 0, search };
        while !talk.ended {
            talk.fill(21).unwrap();
            most.set(most.get().max(talk.tape.len()));
            talk.begin += 12.min(talk.from + talk.there().len() - talk.begin);
            talk.forget(talk.begin.saturating_sub(20));
        }
        assert!(most.get() < 100, "{} samples were held", most.get());
    }

    #[test]
    fn recordings_share_windows_and_do_not_hinder_each_other() {
        let of = |n: usize| (0..n).map(|i| (i % 5) as f32).collect::<Vec<f32>>();
        let all = [of(6), of(50), of(5), of(1), of(0), of(6)];
        let slices: Vec<&[f32]> = all.iter().map(|a| &a[..]).collect();
        let (together, alone) = (sums(true), sums(false));
        let a = transcribe(&together, &slices, 3).unwrap();
        let b = transcribe(&alone, &slices, 3).unwrap();
        assert_eq!(a, b);
        assert!(together.calls.borrow().contains(&vec![6, 6, 5]), "{:?}", together.calls);
        assert!(alone.calls.borrow().iter().all(|c| c.len() == 1));
        // One that the model does not take, one that cannot be read.
        let wrong = [1.0, -1.0, 1.0, 1.0, 1.0, 1.0];
        let model = sums(true);
        let mut given = blocks(&[&all[0], &wrong], 4);
        given.push(Box::new(std::iter::once(Err(sick()))));
        let heard = listen(&model, given, 8, &mut |_, _, _| {});
        assert_eq!(heard[0].as_ref().unwrap(), &a[0]);
        assert!(heard[1].is_err() && heard[2].is_err());
    }

    #[test]
    fn long_ones_flow_where_the_model_can() {
        let model = Sums { streams: true, ..sums(true) };
        let long = [1.0; 50];
        let heard = transcribe(&model, &[&long, &long[..20]], 2).unwrap();
        assert_eq!((heard[0].text.as_str(), heard[0].duration.as_secs()), ("a stream", 50));
        assert_ne!(heard[1].text, "a stream");
    }
}
