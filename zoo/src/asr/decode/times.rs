//! When it was said: characters, words and segments with times, from tokens and their frames.
//!
//! A token's frames are known to the stride of the encoder (NeMo: the window's stride times the subsampling). A word
//! lasts from its first token's first frame, a space that is a token of its own among them where the tokenizer writes it
//! before words, to the end of its last one's. Segments end after words that end in a
//! separator and, if asked for, where the pause before the next word is long: NeMo's `segment_seperators` and
//! `segment_gap_threshold`.
//!
//! Models of CTC and TDT may write a mark of punctuation long after the word before it. It takes no time, as with NeMo
//! (`_refine_timestamps`), so that the word ends where it was heard to end. One thing is otherwise than with NeMo: of
//! CTC's tokens it gives as the end the first frame, and as the start that of the token before, so that words know no
//! pauses; here they are the frames that the token was heard at.

use super::confidence::Aggregate;
use super::{Hypothesis, Labels};
use crate::asr::{Segment, Transcript, Word};
use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

/// Which tokens take no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeless {
    /// None.
    #[default]
    Nothing,
    /// Those that begin with punctuation: with CTC. Each lies where the token before it ended.
    Beginning,
    /// Those that are punctuation: with TDT. All lie where the word before them ended.
    Alone,
}

/// How frames become times.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// How long a frame of the encoder lasts.
    pub frame: Duration,
    /// What a word ends with that ends a segment.
    pub separators: Vec<char>,
    /// The pause from which on a segment ends.
    pub gap: Option<Duration>,
    /// What a segment is shorter than, unless it is one word.
    pub longest: Option<Duration>,
    /// Which tokens take no time.
    pub timeless: Timeless,
    /// How tokens' confidences become words' and segments', if the search gave any.
    pub confidence: Option<Aggregate>,
}

impl Times {
    /// NeMo's: separators `.`, `!` and `?`, no pauses, no confidence.
    pub fn new(frame: Duration) -> Times {
        let (separators, timeless) = (vec!['.', '!', '?'], Timeless::default());
        Times { frame, separators, gap: None, longest: None, timeless, confidence: None }
    }

    /// When a frame begins, in a recording that lasts so long.
    fn at(&self, frame: usize, end: Duration) -> Duration {
        let frame = u32::try_from(frame).unwrap_or(u32::MAX);
        self.frame.checked_mul(frame).map_or(end, |at| at.min(end))
    }

    /// The tokens with the frames that words are made of.
    fn timed<'h>(&self, found: &'h Hypothesis, labels: &Labels) -> Cow<'h, Hypothesis> {
        let marks = |id: u32| {
            let mut letters = labels.get(id).trim_start().chars();
            letters.next().is_some_and(|c| labels.joins(c))
                && (self.timeless == Timeless::Beginning || letters.next().is_none())
        };
        if self.timeless == Timeless::Nothing {
            return Cow::Borrowed(found);
        }
        let mut timed = found.clone();
        for i in 1..found.tokens.len() {
            if marks(found.tokens[i].id) {
                let before = if self.timeless == Timeless::Alone { &timed } else { found };
                let end = before.tokens[i - 1].end;
                (timed.tokens[i].start, timed.tokens[i].end) = (end, end);
            }
        }
        Cow::Owned(timed)
    }

    fn word(&self, found: &Hypothesis, tokens: Range<usize>, text: String, end: Duration) -> Word {
        let of = &found.tokens[tokens];
        let [start, stop] = [of.first().map_or(0, |t| t.start), of.last().map_or(0, |t| t.end)];
        let confidence = self.confidence.map(|c| c.of(of.iter().map(|t| t.confidence)));
        Word { start: self.at(start, end), end: self.at(stop, end), text, confidence }
    }

    /// The letters with their times; a token of several letters gives all of them its own.
    pub fn characters(&self, found: &Hypothesis, labels: &Labels, duration: Duration) -> Vec<Word> {
        let found = &*self.timed(found, labels);
        let of = |i: usize| {
            let letters: Vec<char> = labels.get(found.tokens[i].id).chars().filter(|c| *c != ' ').collect();
            letters.into_iter().map(move |c| self.word(found, i..i + 1, c.to_string(), duration))
        };
        (0..found.tokens.len()).flat_map(of).collect()
    }

    /// The words with their times, and the tokens that each is made of.
    fn split(&self, found: &Hypothesis, labels: &Labels, duration: Duration) -> Vec<(Word, Range<usize>)> {
        let found = &*self.timed(found, labels);
        let (mut words, mut text) = (vec![], String::new());
        // The tokens that the word under way is made of, and the spaces behind it.
        let (mut from, mut to, mut spaces) = (0, 0, 0);
        let mut close = |text: &mut String, tokens: Range<usize>| {
            if !text.is_empty() {
                words.push((self.word(found, tokens.clone(), std::mem::take(text), duration), tokens));
            }
        };
        for (i, token) in found.tokens.iter().enumerate() {
            // A token may end one word and begin another.
            let mut inner = false;
            for c in labels.get(token.id).chars() {
                if c == ' ' {
                    (spaces, inner) = (spaces + 1, true);
                    continue;
                }
                if spaces > 1 || spaces == 1 && !labels.joins(c) {
                    close(&mut text, from..to);
                }
                if text.is_empty() {
                    let begun = i > 0 && !inner && labels.begins(found.tokens[i - 1].id);
                    from = if begun { i - 1 } else { i };
                }
                inner = true;
                text.push(c);
                (to, spaces) = (i + 1, 0);
            }
        }
        close(&mut text, from..to);
        words
    }

    /// The words with their times.
    pub fn words(&self, found: &Hypothesis, labels: &Labels, duration: Duration) -> Vec<Word> {
        self.split(found, labels, duration).into_iter().map(|w| w.0).collect()
    }

    /// What was said in a recording that lasts so long, in segments.
    pub fn transcript(&self, found: &Hypothesis, labels: &Labels, duration: Duration) -> Transcript {
        let mut segments: Vec<Segment> = vec![];
        let mut open = false;
        for (word, tokens) in self.split(found, labels, duration) {
            let pause = segments.last().map(|s| word.start.saturating_sub(s.end));
            open &= self.gap.zip(pause).is_none_or(|(gap, pause)| pause < gap);
            let begin = segments.last().map_or(word.start, |s| s.start);
            open &= self.longest.is_none_or(|longest| word.end.saturating_sub(begin) < longest);
            let ends = word.text.ends_with(|c| self.separators.contains(&c));
            let ids = found.tokens[tokens].iter().map(|t| t.id);
            match segments.last_mut().filter(|_| open) {
                Some(segment) => {
                    segment.end = word.end;
                    segment.text.push(' ');
                    segment.text.push_str(&word.text);
                    segment.tokens.extend(ids);
                    segment.words.push(word);
                }
                None => segments.push(Segment {
                    start: word.start,
                    end: word.end,
                    text: word.text.clone(),
                    tokens: ids.collect(),
                    words: vec![word],
                    confidence: None,
                }),
            }
            open = !ends;
        }
        for segment in &mut segments {
            segment.confidence = self.confidence.map(|c| c.of(segment.words.iter().filter_map(|w| w.confidence)));
        }
        let text = labels.text(found.tokens.iter().map(|t| t.id));
        Transcript { text, language: None, duration, segments }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Token;
    use super::*;

    fn hypothesis(tokens: &[(u32, usize, usize)]) -> Hypothesis {
        let token =
            |&(id, start, end): &(u32, usize, usize)| Token { id, start, end, confidence: 0.5 + start as f32 / 100.0 };
        Hypothesis { tokens: tokens.iter().map(token).collect(), score: 0.0 }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn words_and_segments_of_pieces() {
        let labels = Labels::sentence_pieces(["\u{2581}he", "llo", ".", "\u{2581}you", "\u{2581}"]);
        let found = hypothesis(&[(0, 1, 2), (1, 3, 4), (2, 4, 5), (4, 6, 7), (3, 10, 12), (0, 30, 99)]);
        let times = Times { gap: Some(ms(1000)), confidence: Some(Aggregate::Min), ..Times::new(ms(80)) };
        let t = times.transcript(&found, &labels, ms(3000));
        assert_eq!(t.text, "hello.  you he");
        let words: Vec<_> = t.segments.iter().map(|s| (s.text.as_str(), s.start, s.end, s.tokens.clone())).collect();
        assert_eq!(
            words,
            [
                ("hello.", ms(80), ms(400), vec![0, 1, 2]),
                ("you", ms(800), ms(960), vec![3]),
                ("he", ms(2400), ms(3000), vec![0])
            ]
        );
        assert_eq!(t.segments[0].words[0].confidence, Some(0.51));
        let short = Times { longest: Some(ms(900)), ..Times::new(ms(80)) };
        let texts: Vec<_> = short.transcript(&found, &labels, ms(3000)).segments.into_iter().map(|s| s.text).collect();
        assert_eq!(texts, ["hello.", "you", "he"]);
        let whole = Times::new(ms(80)).transcript(&found, &labels, ms(3000));
        assert_eq!(whole.segments.len(), 2);
        assert_eq!(whole.segments[1].text, "you he");
        let letters = times.characters(&found, &labels, ms(3000));
        assert_eq!(letters.iter().map(|w| w.text.as_str()).collect::<String>(), "hello.youhe");
        assert_eq!((letters[2].start, letters[2].end), (ms(240), ms(320)));
    }

    #[test]
    fn a_piece_of_space_begins_a_word() {
        let found = hypothesis(&[(2, 1, 2), (0, 5, 6), (2, 8, 9), (1, 11, 12), (0, 14, 15)]);
        let spans = |labels: Labels| {
            let words = Times::new(ms(10)).words(&found, &labels, ms(500));
            words.iter().map(|w| (w.text.clone(), w.start.as_millis() / 10)).collect::<Vec<_>>()
        };
        let at = |words: [(&str, u128); 2]| words.map(|(text, start)| (text.to_string(), start));
        let pieces = Labels::sentence_pieces(["a", "\u{2581}b", "\u{2581}"]);
        assert_eq!(spans(pieces), at([("a", 1), ("ba", 11)]));
        assert_eq!(spans(Labels::characters(["a", "b", " "])), at([("a", 5), ("ba", 11)]));
    }

    #[test]
    fn punctuation_takes_no_time() {
        let labels = Labels::nemo(&["\u{2581}he", "llo", ".", "!", "'s"], Some("bpe"));
        let found = hypothesis(&[(0, 1, 2), (1, 3, 4), (2, 9, 12), (3, 14, 15), (0, 16, 17), (4, 20, 22)]);
        let spans = |timeless| {
            let times = Times { timeless, ..Times::new(ms(10)) };
            let words = times.words(&found, &labels, ms(500));
            words.iter().map(|w| (w.start.as_millis() / 10, w.end.as_millis() / 10)).collect::<Vec<_>>()
        };
        assert_eq!(spans(Timeless::Nothing), [(1, 15), (16, 22)]);
        assert_eq!(spans(Timeless::Beginning), [(1, 12), (16, 17)]);
        assert_eq!(spans(Timeless::Alone), [(1, 4), (16, 22)]);
        let times = Times { timeless: Timeless::Alone, ..Times::new(ms(10)) };
        let letters = times.characters(&found, &labels, ms(500));
        assert_eq!((letters[5].text.as_str(), letters[5].start, letters[5].end), (".", ms(40), ms(40)));
        // Nothing lies before the first token.
        let first = times.words(&hypothesis(&[(2, 3, 4)]), &labels, ms(500));
        assert_eq!((first[0].start, first[0].end), (ms(30), ms(40)));
    }

    #[test]
    fn characters_and_nothing() {
        let labels = Labels::characters(["a", "b", " "]);
        let found = hypothesis(&[(2, 0, 1), (0, 1, 2), (1, 2, 3), (2, 4, 5), (2, 5, 6), (0, 7, 8)]);
        let times = Times::new(ms(20));
        let words = times.words(&found, &labels, ms(500));
        let spans: Vec<_> = words.iter().map(|w| (w.text.as_str(), w.start, w.end)).collect();
        assert_eq!(spans, [("ab", ms(20), ms(60)), ("a", ms(140), ms(160))]);
        assert_eq!(times.transcript(&Hypothesis::default(), &labels, ms(5)).segments, []);
        assert!(times.words(&hypothesis(&[(9, 0, usize::MAX)]), &labels, ms(5)).is_empty());
    }
}
