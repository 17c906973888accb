//! When each word is said: the path through the decoder's attention to the sound.
//!
//! Some heads of the decoder look at the place in the sound whose word they write. Their weights over
//! frames are normalised over the text, smoothed by a median, and averaged; the cheapest monotone path
//! from the first token and frame to the last (dynamic time warping, Sakoe and Chiba 1978) gives each
//! token its frames. As OpenAI's `timing.py`.

use super::tokens::Tokens;
use crate::text::Tokenizer;

/// A word of a window: its tokens and its time in steps of 20 ms.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// With the space before it.
    pub text: String,
    /// How many tokens it has.
    pub tokens: usize,
    /// The first step.
    pub start: usize,
    /// The step behind the last.
    pub end: usize,
}

/// Frames that the median looks at.
const MEDIAN: usize = 7;

/// The steps at which each token begins, and the end of the last. `scores` are of each head
/// `[time, steps]`, before the softmax, for a prompt of `first + 1` tokens, the text, and its end. The
/// row of a token looks at what comes behind it, so the prompt's last counts and the end does not.
pub fn starts(scores: &[&[f32]], steps: usize, first: usize, frames: usize) -> Vec<usize> {
    let time = scores.first().map_or(0, |s| s.len().checked_div(steps).unwrap_or(0));
    let frames = frames.min(steps);
    if time <= first + 1 || frames == 0 {
        return vec![];
    }
    let mut mean = vec![0.0f32; time * frames];
    for head in scores {
        let mut weights: Vec<f32> = vec![];
        for row in head.chunks_exact(steps) {
            let largest = row[..frames].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let row: Vec<f32> = row[..frames].iter().map(|v| (v - largest).exp()).collect();
            let total: f32 = row.iter().sum();
            weights.extend(row.iter().map(|v| v / total));
        }
        for frame in 0..frames {
            let column = || (0..time).map(|t| weights[t * frames + frame]);
            let average = column().sum::<f32>() / time as f32;
            let deviation = (column().map(|v| (v - average).powi(2)).sum::<f32>() / time as f32).sqrt().max(1e-10);
            (0..time).for_each(|t| weights[t * frames + frame] = (weights[t * frames + frame] - average) / deviation);
        }
        for (row, mean) in weights.chunks_exact(frames).zip(mean.chunks_exact_mut(frames)) {
            smooth(row).iter().zip(mean).for_each(|(v, mean)| *mean += v / scores.len() as f32);
        }
    }
    let rows: Vec<&[f32]> = mean.chunks_exact(frames).skip(first).take(time - first - 1).collect();
    warp(&rows[..])
}

/// The median of each value and those around it, mirrored at the ends.
fn smooth(row: &[f32]) -> Vec<f32> {
    let (half, n) = (MEDIAN / 2, row.len());
    if n <= half {
        return row.to_vec();
    }
    let at = |i: isize| {
        let i = i.unsigned_abs();
        row[if i < n { i } else { 2 * (n - 1) - i }]
    };
    let median = |i: usize| {
        let mut near: [f32; MEDIAN] = std::array::from_fn(|k| at(i as isize + k as isize - half as isize));
        near.sort_by(f32::total_cmp);
        near[half]
    };
    (0..n).map(median).collect()
}

/// The frame at which the cheapest path enters each row, where a value is worth what it is.
fn warp(rows: &[&[f32]]) -> Vec<usize> {
    let (n, m) = (rows.len(), rows.first().map_or(0, |r| r.len()));
    let mut cost = vec![f32::INFINITY; m + 1];
    cost[0] = 0.0;
    // How each cell was reached: 0 from both, 1 from the row above, 2 from the frame before.
    let mut from = vec![2u8; (n + 1) * (m + 1)];
    for (i, row) in rows.iter().enumerate() {
        let mut diagonal = cost[0];
        cost[0] = f32::INFINITY;
        from[(i + 1) * (m + 1)] = 1;
        for j in 0..m {
            let (both, above, before) = (diagonal, cost[j + 1], cost[j]);
            let (best, way) = match () {
                () if both < above && both < before => (both, 0),
                () if above < both && above < before => (above, 1),
                () => (before, 2),
            };
            diagonal = cost[j + 1];
            cost[j + 1] = best - row[j];
            from[(i + 1) * (m + 1) + j + 1] = way;
        }
    }
    let (mut i, mut j) = (n, m);
    let mut starts = vec![0; n];
    while i > 0 && j > 0 {
        starts[i - 1] = j - 1;
        match from[i * (m + 1) + j] {
            0 => (i, j) = (i - 1, j - 1),
            1 => i -= 1,
            _ => j -= 1,
        }
    }
    starts
}

/// The words of a window's text by their tokens' starts; `starts` has one more, the end's.
pub fn words(tokenizer: &Tokenizer, tokens: &Tokens, text: &[u32], starts: &[usize], language: &str) -> Vec<Timed> {
    let text: Vec<u32> = text.iter().copied().filter(|id| *id < tokens.end).collect();
    if starts.len() <= text.len() {
        return vec![];
    }
    let unspaced = ["zh", "ja", "th", "lo", "my", "yue"].contains(&language);
    let mut at = 0;
    let mut all: Vec<Timed> = vec![];
    for (piece, count) in characters(tokenizer, &text) {
        let sign = piece.trim();
        let sign = !sign.is_empty() && sign.chars().all(|c| c.is_ascii_punctuation());
        let begins = unspaced || piece.starts_with(' ') || sign || all.is_empty();
        let end = starts[at + count];
        match all.last_mut() {
            Some(last) if !begins => {
                last.text += &piece;
                last.tokens += count;
                last.end = end;
            }
            _ => all.push(Timed { text: piece, tokens: count, start: starts[at], end }),
        }
        at += count;
    }
    punctuated(all)
}

/// The text in the smallest pieces that are whole characters, with how many tokens each takes.
fn characters(tokenizer: &Tokenizer, text: &[u32]) -> Vec<(String, usize)> {
    let (mut all, mut bytes, mut count) = (vec![], vec![], 0);
    for id in text {
        bytes.extend(tokenizer.bytes(*id).unwrap_or_default());
        count += 1;
        match std::str::from_utf8(&bytes) {
            Err(e) if e.error_len().is_none() => {}
            _ => {
                all.push((String::from_utf8_lossy(&bytes).into_owned(), count));
                (bytes, count) = (vec![], 0);
            }
        }
    }
    if count > 0 {
        all.push((String::from_utf8_lossy(&bytes).into_owned(), count));
    }
    all
}

/// Signs joined to the words that they belong to.
fn punctuated(words: Vec<Timed>) -> Vec<Timed> {
    let before = "\"'“¿([{-";
    let behind = "\"'.。,，!！?？:：”)]}、";
    let mut all: Vec<Timed> = vec![];
    for word in words {
        let sign = word.text.trim();
        let joins = !sign.is_empty() && sign.chars().all(|c| behind.contains(c)) && !word.text.starts_with(' ');
        match all.last_mut() {
            // A sign has no length of its own.
            Some(last) if joins => {
                last.text += &word.text;
                last.tokens += word.tokens;
            }
            Some(last) if last.text.starts_with(' ') && last.text.trim().chars().all(|c| before.contains(c)) => {
                *last =
                    Timed { text: format!("{}{}", last.text, word.text), tokens: last.tokens + word.tokens, ..word };
            }
            _ => all.push(word),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_what_is_worth_most() {
        // Elsewhere less than nothing: of ways that are worth the same, the reference takes one of its own.
        let rows: [&[f32]; 3] =
            [&[9., 9., -1., -1., -1., -1.], &[-1., -1., 9., -1., -1., -1.], &[-1., -1., -1., 9., 9., 9.]];
        assert_eq!(warp(&rows), [0, 2, 3]);
        assert_eq!(warp(&[]), Vec::<usize>::new());
    }

    #[test]
    fn medians_take_away_single_peaks() {
        assert_eq!(smooth(&[0., 0., 9., 0., 0., 0., 0., 0.]), [0.; 8]);
        assert_eq!(smooth(&[1., 2.]), [1., 2.]);
        let steps: Vec<f32> = (0..9).map(|i| if i < 5 { 0.0 } else { 1.0 }).collect();
        assert_eq!(smooth(&steps), steps);
    }

    #[test]
    fn attention_along_the_diagonal_gives_even_times() {
        // A prompt of two, two tokens and the end; twelve steps, of which nine are sound.
        let mut head = vec![0.0f32; 5 * 12];
        for t in 0..5usize {
            for s in 0..12 {
                head[t * 12 + s] = if s / 3 == t.saturating_sub(1) { 5.0 } else { 0.0 };
            }
        }
        let found = starts(&[&head], 12, 1, 9);
        assert_eq!(found.len(), 3, "two tokens, and the end of the last");
        assert_eq!(found[0], 0);
        assert!(found.windows(2).all(|w| w[0] < w[1]) && found[2] < 9, "{found:?}");
        assert!(starts(&[&head], 12, 4, 9).is_empty());
    }
}
