//! How well a recognizer hears a corpus: what was said beside what was heard, errors, speed.

use super::Recognizer;
use super::data::Utterance;
use super::metrics::{self, Errors, Unit};
use super::train::{TrainingError, samples};
use std::time::{Duration, Instant};

/// An utterance that was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Where it is.
    pub name: String,
    /// What was said.
    pub reference: String,
    /// What was heard.
    pub hypothesis: String,
}

/// A corpus that was heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Each utterance, in the order of its list.
    pub heard: Vec<Heard>,
    /// How long they are together.
    pub sound: Duration,
    /// How long the recognizer took; reading is not counted.
    pub spent: Duration,
}

impl Evaluation {
    /// Errors in words or characters.
    pub fn errors(&self, unit: Unit) -> Errors {
        metrics::corpus(self.heard.iter().map(|h| (h.reference.as_str(), h.hypothesis.as_str())), unit)
    }

    /// The share of utterances that were heard exactly.
    pub fn accuracy(&self) -> f64 {
        let right = self.heard.iter().filter(|h| h.reference == h.hypothesis).count();
        right as f64 / self.heard.len() as f64
    }

    /// Seconds of sound heard in a second.
    pub fn rtfx(&self) -> f64 {
        metrics::rtfx(self.sound, self.spent)
    }
}

/// Hears utterances, up to `batch` of like length at once, and tells `progress` how many are done. `reference`
/// gives what was said, or why it is not known.
///
/// # Errors
/// Recordings that cannot be read, utterances without a reference, what the recognizer cannot take.
pub fn evaluate<E: std::error::Error + Send + Sync + 'static>(
    recognizer: &dyn Recognizer<Error = E>,
    utterances: &[Utterance],
    reference: &dyn Fn(&Utterance) -> Result<String, TrainingError>,
    batch: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, TrainingError> {
    let rate = recognizer.sample_rate();
    let mut order: Vec<usize> = (0..utterances.len()).collect();
    let length = |i: &usize| utterances[*i].duration.unwrap_or(0.0);
    order.sort_by(|a, b| length(b).total_cmp(&length(a)).then(a.cmp(b)));
    let mut all = Evaluation::default();
    let mut heard: Vec<Option<Heard>> = vec![None; utterances.len()];
    for (done, places) in order.chunks(batch.max(1)).enumerate() {
        let mut sounds = vec![];
        for place in places {
            sounds.push(samples(&utterances[*place], rate)?);
        }
        let references: Vec<&[f32]> = sounds.iter().map(Vec::as_slice).collect();
        let start = Instant::now();
        let found = recognizer.transcribe(&references).map_err(TrainingError::model)?;
        all.spent += start.elapsed();
        for ((place, sound), found) in places.iter().zip(&sounds).zip(found) {
            all.sound += Duration::from_secs_f64(sound.len() as f64 / f64::from(rate));
            let utterance = &utterances[*place];
            let (name, reference) = (utterance.sound.to_string(), reference(utterance)?);
            heard[*place] = Some(Heard { name, reference, hypothesis: found.text });
        }
        progress((done * batch.max(1) + places.len()).min(utterances.len()));
    }
    all.heard = heard.into_iter().flatten().collect();
    Ok(all)
}
