//! A window's text cut into segments by its times, and where the next window begins.
//!
//! The rules of OpenAI's `transcribe.py`: two times side by side end one segment and begin the next.
//! What comes after the last pair is not whole: it is heard again in the next window, which begins
//! there. A window that ends in a single time is done: nothing more is said in it.

use super::tokens::Tokens;
use std::ops::Range;

/// A segment of a window's text, in frames of 10 ms of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its tokens among the window's.
    pub tokens: Range<usize>,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The segments of a text, and how many frames further the next window begins. The window holds so many
/// frames of sound.
pub fn parts(tokens: &Tokens, text: &[u32], frames: usize) -> (Vec<Part>, usize) {
    let time = |i: usize| tokens.is_time(text[i]);
    let at = |i: usize| 2 * tokens.steps(text[i]);
    let mut cuts: Vec<usize> = (1..text.len()).filter(|i| time(i - 1) && time(*i)).collect();
    let n = text.len();
    let single = n >= 2 && !time(n - 2) && time(n - 1);
    if cuts.is_empty() {
        let last = (0..n).rev().find(|i| time(*i)).map(at).filter(|end| *end > 0);
        let end = last.unwrap_or(frames);
        return (vec![Part { tokens: 0..n, start: 0, end }], frames);
    }
    if single {
        cuts.push(n);
    }
    let mut from = 0;
    let mut all = vec![];
    for cut in cuts {
        let tokens = from..cut;
        let start = if time(from) { at(from) } else { 0 };
        all.push(Part { tokens, start, end: at(cut - 1) });
        from = cut;
    }
    let next = if single { frames } else { all.last().map_or(frames, |part| part.end) };
    // A window that would begin where this one does is left behind.
    (all, if next == 0 { frames } else { next.min(frames) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u32], frames: usize) -> (Vec<(Range<usize>, usize, usize)>, usize) {
        let tokens = Tokens { end: 90, first_time: 100, ..Tokens::default() };
        let (all, next) = parts(&tokens, text, frames);
        (all.into_iter().map(|p| (p.tokens, p.start, p.end)).collect(), next)
    }

    #[test]
    fn pairs_of_times_cut() {
        // 0.00 a b 1.00 1.00 c 2.00 2.00 d: the last is heard again.
        let text = [100, 1, 2, 150, 150, 3, 200, 200, 4];
        assert_eq!(cut(&text, 3000), (vec![(0..4, 0, 100), (4..7, 100, 200)], 200));
        // Ends in a single time: all of the window is done.
        assert_eq!(cut(&[100, 1, 150, 150, 3, 200], 3000), (vec![(0..3, 0, 100), (3..6, 100, 200)], 3000));
    }

    #[test]
    fn without_pairs_the_window_is_one_segment() {
        assert_eq!(cut(&[100, 1, 2, 150], 3000), (vec![(0..4, 0, 100)], 3000));
        assert_eq!(cut(&[100, 1, 2], 1234), (vec![(0..3, 0, 1234)], 1234));
        assert_eq!(cut(&[1, 2], 1234), (vec![(0..2, 0, 1234)], 1234));
        assert_eq!(cut(&[], 1234), (vec![(0..0, 0, 1234)], 1234));
    }

    #[test]
    fn windows_go_on() {
        assert_eq!(cut(&[100, 100, 1], 500).1, 500);
        assert_eq!(cut(&[100, 1, 900, 900, 2], 500).1, 500, "a time behind the sound");
    }
}
