//! NeMo's way from probabilities to speech: what overlapping windows say, made one; two thresholds; what is too short
//! left out (`vad_utils.py`; the thresholds after Gelly and Gauvain, Interspeech 2015).

use super::{Speech, VoiceError};
use std::time::Duration;

/// How the values of windows that overlap are made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smoothing {
    /// Their mean.
    Mean,
    /// Their median.
    Median,
}

/// The values of windows of so many steps, which overlap by a share of their length: each step gets what the windows
/// that begin at it or before say. NeMo's `generate_overlap_vad_seq_per_tensor`, with steps of its `frame_len`.
///
/// # Errors
/// An overlap that leaves no step between windows.
pub fn smoothed(values: &[f32], window: usize, overlap: f64, how: Smoothing) -> Result<Vec<f32>, VoiceError> {
    let reach = window + 1;
    let jump = (reach as f64 * (1.0 - overlap)) as usize;
    if jump == 0 || !(0.0..1.0).contains(&overlap) {
        return Err(VoiceError::Setting(format!("an overlap of {overlap} leaves no step between windows of {window}")));
    }
    let mut said: Vec<f32> = Vec::new();
    let mut out: Vec<f32> = Vec::with_capacity(values.len());
    for i in 0..values.len() {
        // Windows begin at multiples of the jump and reach `reach` steps on.
        let first = (i + 1).saturating_sub(reach).next_multiple_of(jump);
        said.clear();
        said.extend((first..=i).step_by(jump).map(|begin| values[begin]));
        out.push(match how {
            _ if said.is_empty() => out.last().copied().unwrap_or_default(),
            Smoothing::Mean => said.iter().sum::<f32>() / said.len() as f32,
            Smoothing::Median => {
                said.sort_by(f32::total_cmp);
                let [low, high] = [(said.len() - 1) / 2, said.len() / 2].map(|at| said[at]);
                low + (high - low) * 0.5
            }
        });
    }
    Ok(out)
}

/// What counts as speech, in seconds and probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Speech begins above this.
    pub onset: f32,
    /// It ends below this.
    pub offset: f32,
    /// What is added before it; below zero, taken away.
    pub pad_onset: f64,
    /// What is added behind it.
    pub pad_offset: f64,
    /// Speech that is shorter is left out.
    pub min_duration_on: f64,
    /// Silence that is shorter is speech.
    pub min_duration_off: f64,
    /// Whether short speech is left out before short silence is filled.
    pub filter_speech_first: bool,
}

impl Default for Rules {
    /// Both thresholds a half, nothing added, nothing left out.
    fn default() -> Rules {
        Rules {
            onset: 0.5,
            offset: 0.5,
            pad_onset: 0.0,
            pad_offset: 0.0,
            min_duration_on: 0.0,
            min_duration_off: 0.0,
            filter_speech_first: true,
        }
    }
}

/// The parts in which somebody speaks: NeMo's `binarization` and `filtering`, in numbers as narrow as its own, since
/// durations are multiples of steps and so often are exactly what is asked for. Times are cut to the recording's
/// length. (In the files that NeMo writes durations are a hundredth of a second longer than from start to end.)
pub fn ruled(probabilities: &[f32], step: Duration, length: Duration, rules: &Rules) -> Vec<Speech> {
    let step = step.as_secs_f64();
    let mut found: Vec<[f32; 2]> = vec![];
    let mut start = None;
    let padded = |start: f64, end: usize| [(start - rules.pad_onset).max(0.0), end as f64 * step + rules.pad_offset];
    let narrow = |times: [f64; 2]| times.map(|t| t as f32);
    for (i, p) in probabilities.iter().enumerate() {
        match start {
            Some(begin) if *p < rules.offset => {
                found.extend(Some(padded(begin, i)).filter(|[begin, end]| end > begin).map(narrow));
                start = None;
            }
            None if *p > rules.onset => start = Some(i as f64 * step),
            _ => {}
        }
    }
    // NeMo ends the last one where its last step begins.
    found.extend(start.map(|begin| narrow(padded(begin, probabilities.len() - 1))));
    let [least_on, least_off] = [rules.min_duration_on, rules.min_duration_off].map(|t| t as f32);
    let long = |found: Vec<[f32; 2]>| -> Vec<[f32; 2]> {
        let enough = |s: &[f32; 2]| least_on <= 0.0 || s[1] - s[0] >= least_on;
        found.into_iter().filter(enough).collect()
    };
    found = merged(found, 0.0);
    found = match rules.filter_speech_first {
        true => merged(long(found), least_off),
        false => long(merged(found, least_off)),
    };
    let time = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0)).min(length);
    let speech = |times: [f32; 2]| {
        // Of numbers so narrow the nearest to a millionth is what was meant.
        let [start, end] = times.map(|t| (f64::from(t) * 1e6).round() / 1e6);
        let of = |seconds: f64| ((seconds / step).max(0.0) as usize).min(probabilities.len());
        let inside = &probabilities[of(start)..of(end).max(of(start))];
        let confidence = inside.iter().sum::<f32>() / inside.len().max(1) as f32;
        Speech { start: time(start), end: time(end), confidence }
    };
    found.into_iter().map(speech).filter(|s| s.start < s.end).collect()
}

/// Joins what overlaps or touches, and what is less than `gap` apart.
fn merged(mut found: Vec<[f32; 2]>, gap: f32) -> Vec<[f32; 2]> {
    found.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let mut out: Vec<[f32; 2]> = vec![];
    for [start, end] in found {
        match out.last_mut() {
            Some(last) if last[1] >= start || start - last[1] < gap => last[1] = end.max(last[1]),
            _ => out.push([start, end]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_windows_by_hand() {
        // Windows of four steps and one, which begin at every second step.
        let values = [0.0, 9.0, 1.0, 9.0, 0.5, 9.0, 0.25];
        let mean = smoothed(&values, 4, 0.5, Smoothing::Mean).expect("makes sense");
        assert_eq!(mean, [0.0, 0.0, 0.5, 0.5, 0.5, 0.75, 1.75 / 3.0]);
        let median = smoothed(&values, 4, 0.5, Smoothing::Median).expect("makes sense");
        assert_eq!(median, [0.0, 0.0, 0.5, 0.5, 0.5, 0.75, 0.5]);
        assert!(smoothed(&values, 4, 0.9, Smoothing::Mean).is_err());
        assert!(smoothed(&values, 4, 1.5, Smoothing::Mean).is_err());
        assert!(smoothed(&[], 4, 0.5, Smoothing::Median).expect("nothing").is_empty());
    }

    fn found(values: &[f32], rules: Rules) -> Vec<(u128, u128)> {
        let (step, length) = (Duration::from_millis(100), Duration::from_millis(100 * values.len() as u64));
        ruled(values, step, length, &rules).iter().map(|s| (s.start.as_millis(), s.end.as_millis())).collect()
    }

    #[test]
    fn thresholds_paddings_and_durations() {
        let values = [0.1, 0.9, 0.6, 0.4, 0.9, 0.2, 0.2, 0.2, 0.8, 0.1, 0.1, 0.9, 0.9, 0.9];
        assert_eq!(found(&values, Rules::default()), [(100, 300), (400, 500), (800, 900), (1100, 1300)]);
        let low = Rules { offset: 0.3, ..Rules::default() };
        assert_eq!(found(&values, low), [(100, 500), (800, 900), (1100, 1300)]);
        // Padding makes neighbours touch; what sticks out is cut.
        let wide = Rules { pad_onset: 0.2, pad_offset: 0.25, ..low };
        assert_eq!(found(&values, wide), [(0, 1400)]);
        let first = Rules { min_duration_on: 0.15, min_duration_off: 0.7, ..low };
        assert_eq!(found(&values, first), [(100, 1300)]);
        assert_eq!(found(&values, Rules { min_duration_off: 0.35, ..first }), [(100, 500), (1100, 1300)]);
        let second = Rules { filter_speech_first: false, min_duration_off: 0.35, ..first };
        assert_eq!(found(&values, second), [(100, 1300)]);
        // Taken away from both ends, nothing is left of what is short.
        let narrow = Rules { pad_onset: -0.1, pad_offset: -0.1, ..low };
        assert_eq!(found(&values, narrow), [(200, 400)]);
        assert!(found(&[], Rules::default()).is_empty());
    }
}
