//! Speech while it is spoken: what was understood so far of a recording that comes in.
//!
//! A model for streams hears every sound once, and what it understood grows. All others can be listened to as well,
//! for people pause: [`Stretches`] finds by its loudness where somebody speaks, hears the stretch since the last pause
//! again and again while it grows, and once more when a pause ends it. Who never pauses is cut where it is quietest.
//! Memory is that of a stretch, however long it goes on.
//!
//! In: samples, in parts of any size. Out: [`News`]: segments that stay, and the one that is being said.

use super::{Recognizer, Segment, Transcript};
use std::collections::VecDeque;
use std::time::Duration;

/// How it is listened to what comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveOptions {
    /// How much sound comes before what is being said is heard again. Zero: not before it ends.
    pub every: Duration,
    /// The silence that ends a segment.
    pub pause: Duration,
    /// How long a segment is at most.
    pub longest: Duration,
}

impl Default for LiveOptions {
    /// Each second; pauses of 0.6 s; segments of 20 s.
    fn default() -> Self {
        let longest = Duration::from_secs(20);
        LiveOptions { every: Duration::from_secs(1), pause: Duration::from_millis(600), longest }
    }
}

/// What is new.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// What was said since the last time, and stays.
    pub settled: Vec<Segment>,
    /// What is being said: it may change.
    pub open: Option<Segment>,
}

/// A recording that comes in.
pub trait Live {
    /// Why it failed.
    type Error;

    /// Hears further samples.
    ///
    /// # Errors
    /// What the model cannot take.
    fn feed(&mut self, samples: &[f32]) -> Result<News, Self::Error>;

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// What the model cannot take.
    fn finish(&mut self) -> Result<News, Self::Error>;
}

/// The lengths that are looked at for loudness, in a second.
const LOOKS: usize = 50;
/// How much louder than the quietest of the last time a voice is, in decibels.
const LOUDER: f32 = 8.0;
/// What the quietest may be: below there is only noise of numbers, above nobody is quiet.
const FLOOR: std::ops::Range<f32> = -75.0..-35.0;
/// How fast what counts as quiet rises, in decibels a second.
const RISE: f32 = 1.0;
/// Looks before and behind a stretch that belong to it: 0.3 s.
const AROUND: usize = 15;

/// Any recognizer, which hears one stretch of speech after another.
pub struct Stretches<'r, R: Recognizer + ?Sized> {
    recognizer: &'r R,
    options: LiveOptions,
    /// Samples of a look.
    look: usize,
    /// The samples from number `from` on, and the loudness of each whole look of them.
    samples: Vec<f32>,
    from: usize,
    loudness: VecDeque<f32>,
    /// The quietest of late.
    quiet: f32,
    /// Whether somebody speaks in these samples, and how many looks ago.
    silent: Option<usize>,
    /// How many of the samples were heard the last time.
    heard: usize,
}

impl<'r, R: Recognizer + ?Sized> Stretches<'r, R> {
    /// Nothing heard yet.
    pub fn new(recognizer: &'r R, options: LiveOptions) -> Self {
        let look = (recognizer.sample_rate() as usize / LOOKS).max(1);
        let (samples, loudness) = (vec![], VecDeque::new());
        Stretches { recognizer, options, look, samples, from: 0, loudness, quiet: FLOOR.end, silent: None, heard: 0 }
    }

    /// How many looks a time is.
    fn looks(time: Duration) -> usize {
        ((time.as_secs_f64() * LOOKS as f64).min(1e9) as usize).max(1)
    }

    fn time(&self, samples: usize) -> Duration {
        Duration::from_secs_f64(samples as f64 / f64::from(self.recognizer.sample_rate().max(1)))
    }

    /// Forgets the first looks.
    fn forget(&mut self, looks: usize) {
        let looks = looks.min(self.loudness.len());
        self.loudness.drain(..looks);
        self.samples.drain(..looks * self.look);
        self.from += looks * self.look;
        self.heard = 0;
    }

    /// What is said in the first samples, in the recording's time.
    fn hear(&self, samples: usize) -> Result<Vec<Segment>, R::Error> {
        let mut found = self.recognizer.transcribe(&[&self.samples[..samples]])?;
        let Transcript { mut segments, .. } = found.pop().unwrap_or_default();
        let begin = self.time(self.from);
        for segment in &mut segments {
            segment.start += begin;
            segment.end += begin;
            for word in &mut segment.words {
                word.start += begin;
                word.end += begin;
            }
        }
        segments.retain(|s| !s.text.trim().is_empty());
        Ok(segments)
    }

    /// Takes one more look; gives what was said where a stretch ends.
    fn look(&mut self) -> Result<Vec<Segment>, R::Error> {
        let at = self.loudness.len() * self.look;
        let part = &self.samples[at..at + self.look];
        let power = part.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / part.len() as f64;
        // What is no number is no voice.
        let level = (10.0 * (power.max(1e-12)).log10() as f32).max(FLOOR.start);
        self.quiet = (self.quiet + RISE / LOOKS as f32).min(level).clamp(FLOOR.start, FLOOR.end);
        self.loudness.push_back(level);
        match (&mut self.silent, level > self.quiet + LOUDER) {
            (silent, true) => *silent = Some(0),
            (Some(looks), false) => *looks += 1,
            (None, false) => {}
        }
        let Some(silent) = self.silent else {
            // Nobody has spoken: what comes right before somebody does is kept.
            self.forget(self.loudness.len().saturating_sub(AROUND));
            return Ok(vec![]);
        };
        let (there, pause) = (self.loudness.len(), Self::looks(self.options.pause));
        if silent >= pause {
            let said = self.hear((there - silent + AROUND.min(silent)) * self.look)?;
            self.forget(there - (silent - AROUND.min(silent)).min(AROUND));
            self.silent = None;
            return Ok(said);
        }
        if there < Self::looks(self.options.longest).max(3) {
            return Ok(vec![]);
        }
        // The quietest place in the last third, over a tenth of a second.
        let around = |i: usize| {
            let range = i.saturating_sub(2)..(i + 3).min(there);
            range.clone().map(|k| self.loudness[k]).sum::<f32>() / range.len() as f32
        };
        let cut = (there - there / 3..there).min_by(|a, b| around(*a).total_cmp(&around(*b))).unwrap_or(there);
        let said = self.hear(cut * self.look)?;
        self.forget(cut);
        Ok(said)
    }
}

impl<R: Recognizer + ?Sized> Live for Stretches<'_, R> {
    type Error = R::Error;

    fn feed(&mut self, samples: &[f32]) -> Result<News, R::Error> {
        let mut news = News::default();
        // Part by part, so that no more is kept than a stretch.
        for part in samples.chunks(self.look * LOOKS) {
            self.samples.extend_from_slice(part);
            while self.samples.len() >= (self.loudness.len() + 1) * self.look {
                news.settled.append(&mut self.look()?);
            }
        }
        let every = (self.options.every.as_secs_f64() * f64::from(self.recognizer.sample_rate())) as usize;
        if every > 0 && self.silent.is_some() && self.samples.len() >= self.heard + every {
            self.heard = self.samples.len();
            let said = self.hear(self.heard)?;
            news.open = joined(said);
        }
        Ok(news)
    }

    fn finish(&mut self) -> Result<News, R::Error> {
        // What is no whole look belongs to the last one.
        let settled = if self.silent.is_some() { self.hear(self.samples.len())? } else { vec![] };
        self.forget(usize::MAX);
        (self.samples, self.silent) = (vec![], None);
        Ok(News { settled, open: None })
    }
}

/// Segments as one.
fn joined(segments: Vec<Segment>) -> Option<Segment> {
    let mut segments = segments.into_iter();
    let mut all = segments.next()?;
    for segment in segments {
        all.end = segment.end;
        all.text = format!("{} {}", all.text.trim_end(), segment.text.trim_start());
        all.tokens.extend(segment.tokens);
        all.words.extend(segment.words);
        all.confidence = all.confidence.zip(segment.confidence).map(|(a, b)| a.min(b));
    }
    Some(all)
}

/// What is new in a transcript that grows, segment by segment: all that ended before `sure` stays. `known` is the end of
/// what was told.
pub(crate) fn grown(transcript: Transcript, known: &mut Duration, sure: Duration) -> News {
    let fresh: Vec<Segment> = transcript.segments.into_iter().filter(|s| s.start >= *known && s.end > *known).collect();
    let count = fresh.iter().take_while(|s| s.end < sure).count();
    let mut settled = fresh;
    let open = settled.split_off(count);
    if let Some(last) = settled.last() {
        *known = last.end;
    }
    News { settled, open: joined(open) }
}

#[cfg(test)]
mod tests {
    use super::super::{AsrError, Word};
    use super::*;
    use std::cell::Cell;

    /// Says how many samples are loud, and where the first is.
    #[derive(Default)]
    struct Loud {
        most: Cell<usize>,
        calls: Cell<usize>,
    }

    impl Recognizer for Loud {
        type Error = AsrError;

        fn sample_rate(&self) -> u32 {
            1000
        }

        fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
            self.calls.set(self.calls.get() + 1);
            let one = |samples: &&[f32]| {
                self.most.set(self.most.get().max(samples.len()));
                let loud = samples.iter().filter(|v| v.abs() > 0.05).count();
                let at = |i: Option<usize>| Duration::from_millis(i.unwrap_or(0) as u64);
                let start = at(samples.iter().position(|v| v.abs() > 0.05));
                let end = at(samples.iter().rposition(|v| v.abs() > 0.05));
                let text = loud.to_string();
                let words = vec![Word { start, end, text: text.clone(), confidence: None }];
                Transcript {
                    segments: vec![Segment { start, end, text, words, ..Default::default() }],
                    ..Default::default()
                }
            };
            Ok(recordings.iter().map(one).collect())
        }
    }

    /// Noise of so many thousandths of a second and so loud.
    fn sound(parts: &[(usize, f32)]) -> Vec<f32> {
        let part = |(n, loud): &(usize, f32)| {
            let loud = *loud;
            (0..*n).map(move |i| loud * if (i * 7919) % 13 < 6 { 1.0 } else { -1.0 })
        };
        parts.iter().flat_map(part).collect()
    }

    fn listened(loud: &Loud, sound: &[f32], part: usize) -> (Vec<Segment>, Vec<Segment>) {
        let mut live = loud.live(&LiveOptions::default()).unwrap();
        let (mut settled, mut open) = (vec![], vec![]);
        for part in sound.chunks(part) {
            let news = live.feed(part).unwrap();
            settled.extend(news.settled);
            open.extend(news.open);
        }
        settled.extend(live.finish().unwrap().settled);
        (settled, open)
    }

    #[test]
    fn stretches_end_at_pauses() {
        let (loud, quiet) = (0.2, 0.002);
        let sound = sound(&[(1500, quiet), (2000, loud), (300, quiet), (500, loud), (3000, quiet), (700, loud)]);
        for part in [13, 100, 1000, 20_000] {
            let model = Loud::default();
            let (settled, open) = listened(&model, &sound, part);
            let said: Vec<_> =
                settled.iter().map(|s| (s.text.as_str(), s.start.as_millis(), s.words[0].end.as_millis())).collect();
            // Short silence ends nothing.
            assert_eq!(said, [("2500", 1500, 4299), ("700", 7300, 7999)], "parts of {part}");
            assert!(part > 1000 || !open.is_empty());
            assert!(open.iter().all(|o| o.text.parse::<usize>().unwrap() <= 2500));
        }
    }

    #[test]
    fn who_never_pauses_is_cut_where_it_is_quiet() {
        let mut parts = vec![(1000, 0.001)];
        for _ in 0..12 {
            parts.extend([(4800, 0.3), (200, 0.001)]);
        }
        let model = Loud::default();
        let (settled, _) = listened(&model, &sound(&parts), 500);
        let all: usize = settled.iter().map(|s| s.text.parse::<usize>().unwrap()).sum();
        assert_eq!(all, 12 * 4800, "nothing is lost, nothing heard twice");
        assert!(settled.len() >= 3 && model.most.get() <= 20_100, "{} of {}", settled.len(), model.most.get());
        assert!(settled.iter().all(|s| s.text.parse::<usize>().unwrap() % 4800 == 0));
    }

    #[test]
    fn silence_and_nonsense_are_not_heard() {
        for sound in [vec![], vec![0.0; 30_000], vec![f32::NAN; 3000], sound(&[(60_000, 0.0005)])] {
            let model = Loud::default();
            assert_eq!(listened(&model, &sound, 700), (vec![], vec![]));
            assert_eq!(model.calls.get(), 0);
        }
    }

    #[test]
    fn what_grows_is_told_once() {
        let seconds = Duration::from_secs;
        let segment = |start, end| Segment {
            start: seconds(start),
            end: seconds(end),
            text: format!("{start}"),
            ..Default::default()
        };
        let of = |segments: &[Segment]| Transcript { segments: segments.to_vec(), ..Default::default() };
        let mut known = Duration::ZERO;
        let (a, b, c) = (segment(0, 2), segment(3, 5), segment(6, 9));
        assert_eq!(
            grown(of(std::slice::from_ref(&a)), &mut known, seconds(1)),
            News { settled: vec![], open: Some(a.clone()) }
        );
        let news = grown(of(&[a.clone(), b.clone()]), &mut known, seconds(4));
        assert_eq!(news, News { settled: vec![a.clone()], open: Some(b.clone()) });
        let news = grown(of(&[a, b.clone(), c.clone()]), &mut known, seconds(100));
        assert_eq!(news, News { settled: vec![b, c], open: None });
    }
}
