//! Greedy search in what a CTC head gives: the best class of each frame, runs joined, blanks left out. A recording can
//! come in parts: [`Progress`] is where the search stands, and [`proceed`] goes on with more frames.

use super::{Confidence, DecodeError, Emissions, Hypothesis, Token, best};

/// The best class of every frame, collapsed. Each recording's score is the sum of the logarithms that it
/// went along. With a [`Confidence`], tokens get that of their frames.
///
/// # Errors
/// Sizes that do not fit; a blank that is no class; a frame without any number.
pub fn greedy(
    recordings: &[Emissions],
    blank: usize,
    confidence: Option<Confidence>,
) -> Result<Vec<Hypothesis>, DecodeError> {
    let one = |emissions| {
        let mut progress = Progress::default();
        proceed(emissions, blank, confidence, &mut progress)?;
        Ok(progress.hypothesis)
    };
    recordings.iter().map(one).collect()
}

/// Where the search in a recording stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What was found so far, in frames of the whole recording.
    pub hypothesis: Hypothesis,
    /// The class of the last frame.
    last: Option<usize>,
    /// Frames so far.
    frames: usize,
    /// How sure the frames of the last token are.
    sure: Vec<f32>,
}

/// Goes on with more frames. What a recording's parts give together does not depend on where they were cut.
///
/// # Errors
/// As [`greedy`].
pub fn proceed(
    part: &Emissions,
    blank: usize,
    confidence: Option<Confidence>,
    progress: &mut Progress,
) -> Result<(), DecodeError> {
    let Progress { hypothesis: found, last, frames, sure } = progress;
    for row in part.frames(blank)? {
        let (class, log_prob) = best(row);
        if log_prob == f32::NEG_INFINITY {
            return Err(DecodeError::NotNumbers { frame: *frames });
        }
        found.score += log_prob;
        let fresh = last.replace(class) != Some(class);
        if fresh {
            sure.clear();
            if class != blank {
                found.tokens.push(Token { id: class as u32, start: *frames, end: *frames, confidence: 1.0 });
            }
        }
        *frames += 1;
        if let Some(token) = found.tokens.last_mut().filter(|_| class != blank) {
            token.end = *frames;
            if let Some(confidence) = confidence {
                sure.push(confidence.of(row));
                token.confidence = confidence.aggregate.of(sure.iter().copied());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::confidence::{Aggregate, Measure};
    use super::*;

    /// Frames that are nearly sure of these classes, of three; blank is 2.
    fn frames(classes: &[usize]) -> Vec<f32> {
        let row = |c: &usize| (0..3).map(|k| if k == *c { 0.8f32.ln() } else { 0.1f32.ln() }).collect::<Vec<_>>();
        classes.iter().flat_map(row).collect()
    }

    #[test]
    fn joins_runs_and_keeps_repetitions_around_blanks() {
        let values = frames(&[2, 0, 0, 2, 0, 1, 1, 1, 2]);
        let found = greedy(&[Emissions { log_probs: &values, classes: 3 }], 2, None).unwrap().remove(0);
        let spans: Vec<_> = found.tokens.iter().map(|t| (t.id, t.start, t.end)).collect();
        assert_eq!(spans, [(0, 1, 3), (0, 4, 5), (1, 5, 8)]);
        assert!((found.score - 9.0 * 0.8f32.ln()).abs() < 1e-5);
        assert_eq!(found.ids(), [0, 0, 1]);
        // The same in parts, wherever they are cut.
        for cut in 1..9 {
            let mut progress = Progress::default();
            for part in values.chunks(3 * cut) {
                proceed(&Emissions { log_probs: part, classes: 3 }, 2, None, &mut progress).unwrap();
            }
            assert_eq!(progress.hypothesis, found);
        }
    }

    #[test]
    fn confidence_is_that_of_the_tokens_frames() {
        let mut values = frames(&[0, 0]);
        values[3..].copy_from_slice(&[0.4f32.ln(), 0.3f32.ln(), 0.3f32.ln()]);
        let c = Confidence { measure: Measure::Maximum, alpha: 1.0, exponential: false, aggregate: Aggregate::Min };
        let found = greedy(&[Emissions { log_probs: &values, classes: 3 }], 2, Some(c)).unwrap();
        assert!((found[0].tokens[0].confidence - (0.4 * 3.0 - 1.0) / 2.0).abs() < 1e-5);
    }

    #[test]
    fn nothing_and_nonsense() {
        let none = greedy(&[Emissions { log_probs: &[], classes: 3 }], 2, None).unwrap();
        assert_eq!(none, [Hypothesis::default()]);
        assert!(greedy(&[Emissions { log_probs: &[0.0; 4], classes: 3 }], 2, None).is_err());
        assert!(greedy(&[Emissions { log_probs: &[], classes: 0 }], 0, None).is_err());
        assert!(greedy(&[Emissions { log_probs: &[0.0; 3], classes: 3 }], 3, None).is_err());
        for broken in [f32::NAN, f32::NEG_INFINITY] {
            let found = greedy(&[Emissions { log_probs: &[broken; 6], classes: 3 }], 2, Some(Confidence::default()));
            assert!(matches!(found, Err(DecodeError::NotNumbers { frame: 0 })));
        }
    }
}
