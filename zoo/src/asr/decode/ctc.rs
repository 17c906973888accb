//! Greedy search in what a CTC head gives: the best class of each frame, runs joined, blanks left out.

use super::{Confidence, DecodeError, Emissions, Hypothesis, Token, best};

/// The best class of every frame, collapsed. Each recording's score is the sum of the logarithms that it
/// went along. With a [`Confidence`], tokens get that of their frames.
///
/// # Errors
/// Sizes that do not fit; a blank that is no class.
pub fn greedy(
    recordings: &[Emissions],
    blank: usize,
    confidence: Option<Confidence>,
) -> Result<Vec<Hypothesis>, DecodeError> {
    recordings.iter().map(|r| one(r, blank, confidence)).collect()
}

fn one(emissions: &Emissions, blank: usize, confidence: Option<Confidence>) -> Result<Hypothesis, DecodeError> {
    let mut found = Hypothesis::default();
    let mut before = blank;
    // How sure the frames of the last token are.
    let mut sure: Vec<f32> = vec![];
    for (t, row) in emissions.frames(blank)?.enumerate() {
        let (class, log_prob) = best(row);
        found.score += log_prob;
        if class != before {
            sure.clear();
        }
        if class != blank {
            if class != before {
                found.tokens.push(Token { id: class as u32, start: t, end: t, confidence: 1.0 });
            }
            if let Some(token) = found.tokens.last_mut() {
                token.end = t + 1;
                if let Some(confidence) = confidence {
                    sure.push(confidence.of(row));
                    token.confidence = confidence.aggregate.of(sure.iter().copied());
                }
            }
        }
        before = class;
    }
    Ok(found)
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
        // NaN frames are class 0 with no probability, not a panic.
        greedy(&[Emissions { log_probs: &[f32::NAN; 6], classes: 3 }], 2, Some(Confidence::default())).unwrap();
    }
}
