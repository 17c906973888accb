//! From probabilities to the parts of a recording in which somebody speaks.
//!
//! As Silero's `get_speech_timestamps`: speech begins where a probability reaches the threshold and ends where it
//! stays below a lower one for long enough; what is too short is left out, what is left grows a little on both
//! sides, and neighbours that would overlap share the silence between them.

use std::time::Duration;

/// What counts as speech.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentOptions {
    /// Speech begins at this probability.
    pub threshold: f32,
    /// It ends below this one; none for 0.15 less than the threshold.
    pub end_threshold: Option<f32>,
    /// What is shorter is no speech.
    pub min_speech: Duration,
    /// Speech goes on across silence that is shorter.
    pub min_silence: Duration,
    /// What is added on both sides.
    pub padding: Duration,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions {
            threshold: 0.5,
            end_threshold: None,
            min_speech: Duration::from_millis(250),
            min_silence: Duration::from_millis(100),
            padding: Duration::from_millis(30),
        }
    }
}

/// A part of a recording in which somebody speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speech {
    /// Where it begins.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// The mean probability between.
    pub confidence: f32,
}

/// The parts in which somebody speaks: of probabilities every `step`, in a recording of this length.
pub fn segments(probabilities: &[f32], step: Duration, length: Duration, options: &SegmentOptions) -> Vec<Speech> {
    let low = options.end_threshold.unwrap_or((options.threshold - 0.15).max(0.01));
    let at = |i: usize| step.saturating_mul(u32::try_from(i).unwrap_or(u32::MAX)).min(length);
    // First and last step (excluded) of each.
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut begin = None;
    // Where silence began that may end what is heard.
    let mut silent = None;
    for (i, p) in probabilities.iter().enumerate() {
        if *p >= options.threshold {
            silent = None;
            begin.get_or_insert(i);
        } else if *p < low
            && let Some(first) = begin
        {
            let since = *silent.get_or_insert(i);
            if at(i).saturating_sub(at(since)) >= options.min_silence {
                found.push((first, since));
                (begin, silent) = (None, None);
            }
        }
    }
    found.extend(begin.map(|first| (first, probabilities.len())));
    found.retain(|(first, last)| at(*last).saturating_sub(at(*first)) > options.min_speech);
    let mut out: Vec<Speech> = Vec::new();
    for (i, (first, last)) in found.iter().enumerate() {
        let before = if i == 0 { Duration::ZERO } else { at(found[i - 1].1) };
        let after = found.get(i + 1).map_or(length, |next| at(next.0));
        // Half of a silence that is too short for both.
        let room = |silence: Duration, outer: bool| if outer { silence } else { silence / 2 };
        let grow = |silence: Duration, outer: bool| options.padding.min(room(silence, outer));
        let (start, end) = (at(*first), at(*last));
        let start = start - grow(start.saturating_sub(before), i == 0);
        let end = end + grow(after.saturating_sub(end), i + 1 == found.len());
        let inside = &probabilities[*first..*last];
        let confidence = inside.iter().sum::<f32>() / inside.len().max(1) as f32;
        out.push(Speech { start, end, confidence });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn found(probabilities: &[f32], options: &SegmentOptions) -> Vec<(u128, u128)> {
        let length = STEP * probabilities.len() as u32;
        let all = segments(probabilities, STEP, length, options);
        all.iter().map(|s| (s.start.as_millis(), s.end.as_millis())).collect()
    }

    #[test]
    fn thresholds_silences_and_padding() {
        let options = SegmentOptions::default();
        let speech = [0.0, 0.1, 0.9, 0.9, 0.4, 0.9, 0.9, 0.1, 0.1, 0.1, 0.8, 0.9, 0.8, 0.7];
        // 0.4 lies between the thresholds, so it ends nothing; two silent steps do.
        assert_eq!(found(&speech, &options), [(170, 730), (970, 1400)]);
        // A longer silence is needed: one part.
        let joined = SegmentOptions { min_silence: Duration::from_millis(500), ..options };
        assert_eq!(found(&speech, &joined), [(170, 1400)]);
        // Short speech does not count.
        assert_eq!(found(&[0.0, 0.9, 0.9, 0.0, 0.0, 0.0], &options), []);
        let short = SegmentOptions { min_speech: Duration::from_millis(100), ..options };
        assert_eq!(found(&[0.0, 0.9, 0.9, 0.0, 0.0, 0.0], &short), [(70, 330)]);
    }

    #[test]
    fn neighbours_share_the_silence() {
        let wide = SegmentOptions { padding: Duration::from_secs(1), ..SegmentOptions::default() };
        let speech = [0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.9, 0.9, 0.9];
        assert_eq!(found(&speech, &wide), [(0, 450), (450, 900)]);
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(found(&[], &SegmentOptions::default()), []);
        assert_eq!(found(&[f32::NAN; 20], &SegmentOptions::default()), []);
        assert_eq!(found(&[1.0; 20], &SegmentOptions::default()), [(0, 2000)]);
    }
}
