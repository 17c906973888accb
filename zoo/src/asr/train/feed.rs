//! From corpora to batches of arrays: what a recipe's section names, read, cut, labelled and padded.

use super::corpus::Corpus;
use super::{Tokens, TrainingError};
use crate::asr::data::bucket::{Bucketing, Plan};
use crate::asr::data::parallel::Ordered;
use crate::asr::data::{DataError, Sound, Utterance};
use crate::audio::features::{Features, SampleCountArray, SampleCounts, Sound as Packed, SoundArray};
use crate::audio::{AudioError, Batch, Reader, Wanted};
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Feed as Feedable;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A recording of more bytes than this is not read as part of a batch.
const LARGEST: u64 = 1 << 30;

/// What a network learns from at once: sound, how many samples of each recording count, labels and how many of them
/// count.
pub type Args = (Packed, SampleCounts, Tensor![Batch, Tokens; Index], Tensor![Batch; Lengths<Tokens>]);

/// A batch: sound padded with silence, labels padded with zeros.
pub struct Arrays {
    /// The sound.
    pub sound: SoundArray,
    /// The samples of each that count.
    pub samples: SampleCountArray,
    /// What it is, as a model's indices.
    pub labels: Array![Batch, Tokens; Index],
    /// The labels of each that count.
    pub label_lengths: Array![Batch; Lengths<Tokens>],
}

impl Arrays {
    /// As a step's argument.
    pub fn feed(&self) -> impl Feedable<Args> {
        (&self.sound, &self.samples, &self.labels, &self.label_lengths)
    }
}

/// How a recording changes before it is heard, by the number of its epoch and its place in the corpus.
pub type Augment = Arc<dyn Fn(Vec<f32>, u64, usize) -> Result<Vec<f32>, AudioError> + Send + Sync>;

/// A corpus that batches are made of.
pub struct Feed {
    /// What is in it, and its labels.
    pub utterances: Vec<(Utterance, Vec<i32>)>,
    plan: Plan,
    rate: u32,
    workers: usize,
    augment: Option<Augment>,
    features: Features,
}

/// What was left out of a corpus, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(pub Vec<String>);

impl Feed {
    /// Batches of a corpus's utterances, which [`Corpus::listed`] gives. `label` gives an utterance's labels, or why it has
    /// none.
    ///
    /// # Errors
    /// Recordings whose length cannot be found, an utterance without a label, a corpus without utterances.
    pub fn open(
        corpus: &Corpus,
        folder: &Path,
        found: Vec<Utterance>,
        features: &Features,
        seed: u64,
        label: &dyn Fn(&Utterance) -> Result<Vec<i32>, String>,
    ) -> Result<(Feed, LeftOut), TrainingError> {
        let all = found.len();
        let (mut kept, mut durations) = (vec![], vec![]);
        for mut utterance in found {
            let duration = match utterance.duration {
                Some(duration) => duration,
                None => length(&utterance)?,
            };
            utterance.duration = Some(duration);
            if duration < corpus.min_duration || corpus.max_duration.is_some_and(|most| duration > most) {
                continue;
            }
            let labels = label(&utterance).map_err(|fault| {
                let path = folder.join(corpus.name());
                DataError::Corpus { path, fault: format!("{}: {fault}", utterance.sound) }
            })?;
            kept.push((utterance, labels));
            durations.push(duration);
        }
        let mut notes = LeftOut::default();
        if kept.len() < all {
            notes.0.push(format!("{} of {all} utterances are shorter or longer than asked for", all - kept.len()));
        }
        let rules = Bucketing {
            seconds: corpus.batch_duration,
            most: corpus.batch_size,
            buckets: corpus.buckets,
            seed: corpus.shuffle.then_some(seed),
            ..Bucketing::default()
        };
        let plan = Plan::of(durations, rules).ok_or_else(|| {
            let path = folder.join(corpus.name());
            DataError::Corpus { path, fault: format!("no utterances are left of {all}") }
        })?;
        let (rate, features) = (features.sample_rate(), features.clone());
        let feed = Feed { utterances: kept, plan, rate, workers: corpus.workers, augment: None, features };
        Ok((feed, notes))
    }

    /// Changes recordings before they are heard.
    #[must_use]
    pub fn augmented(mut self, augment: Option<Augment>) -> Feed {
        self.augment = augment;
        self
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> u64 {
        self.plan.batches_per_epoch()
    }

    /// The seconds of all utterances.
    pub fn seconds(&self) -> f64 {
        self.utterances.iter().filter_map(|(u, _)| u.duration).sum()
    }

    /// The batches of one epoch, in order, each with the places of its utterances: for evaluation.
    pub fn once(self: &Arc<Feed>) -> impl Iterator<Item = Result<(Vec<usize>, Arrays), TrainingError>> + use<> {
        let order = self.plan.epoch(0);
        let (feed, count) = (self.clone(), order.len());
        let work = move |i: u64| order.get(i as usize).map(|batch| Ok((batch.clone(), feed.arrays(batch, 0)?)));
        Ordered::new(0, self.workers, self.workers + 1, work).take(count).flatten()
    }

    /// The batches of a run from number `first` on, endless, each with the number of its epoch.
    pub fn from(self: &Arc<Feed>, first: u64) -> Ordered<Result<(u64, Arrays), TrainingError>> {
        let (feed, plan) = (self.clone(), Mutex::new(self.plan.clone()));
        let work = move |i: u64| {
            let (epoch, batch) = {
                let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
                let (epoch, batch) = plan.batch(i);
                (epoch, batch.to_vec())
            };
            Ok((epoch, feed.arrays(&batch, epoch)?))
        };
        Ordered::new(first, self.workers, 2 * self.workers + 2, work)
    }

    /// Reads and pads the utterances at these places.
    fn arrays(&self, places: &[usize], epoch: u64) -> Result<Arrays, TrainingError> {
        let mut sounds = Vec::with_capacity(places.len());
        for place in places {
            let mut samples = samples(&self.utterances[*place].0, self.rate)?;
            if let Some(augment) = &self.augment {
                samples = augment(samples, epoch, *place)?;
            }
            sounds.push(samples);
        }
        let labels: Vec<&[i32]> = places.iter().map(|p| &self.utterances[*p].1[..]).collect();
        let sounds: Vec<&[f32]> = sounds.iter().map(Vec::as_slice).collect();
        Ok(arrays(&self.features, &sounds, &labels))
    }
}

/// Batches have a multiple of so many frames, so that few sizes come up and programs keep their plans.
const FRAMES: usize = 32;

/// Pads sounds and labels.
fn arrays(features: &Features, sounds: &[&[f32]], labels: &[&[i32]]) -> Arrays {
    let count = sounds.len();
    let longest = sounds.iter().map(|s| s.len()).max().unwrap_or(0);
    let (sound, samples) = features.pack_to(sounds, features.room(longest).next_multiple_of(FRAMES));
    let most = labels.iter().map(|l| l.len()).max().unwrap_or(0).max(1).next_multiple_of(8);
    let mut ids = vec![0; count * most];
    for (row, labels) in ids.chunks_exact_mut(most).zip(labels) {
        row[..labels.len()].copy_from_slice(labels);
    }
    Arrays {
        sound,
        samples,
        labels: Array::from_parts(&[count, most], ids),
        label_lengths: Array::from_parts(&[count], labels.iter().map(|l| l.len() as i32).collect()),
    }
}

fn reader(utterance: &Utterance, rate: Option<u32>) -> Result<Reader, TrainingError> {
    let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX);
    let duration = utterance.duration.filter(|d| *d > 0.0).map(seconds);
    let mut wanted = Wanted::at(rate.unwrap_or(16_000)).part(seconds(utterance.offset), duration);
    wanted.rate = rate;
    if let Some(channel) = utterance.channel {
        wanted = wanted.channel(channel);
    }
    Ok(match &utterance.sound {
        Sound::File(path) => Reader::open(path, &wanted)?,
        part => Reader::bytes(&part.to_string(), part.bytes(LARGEST)?, &wanted)?,
    })
}

/// The samples of an utterance.
///
/// # Errors
/// A recording that cannot be read.
pub fn samples(utterance: &Utterance, rate: u32) -> Result<Vec<f32>, TrainingError> {
    Ok(reader(utterance, Some(rate))?.collect_samples()?)
}

/// How long an utterance is, where its list does not say: what the recording's header says, or else what
/// is there.
fn length(utterance: &Utterance) -> Result<f64, TrainingError> {
    let reader = reader(utterance, None)?;
    if let Some(all) = reader.duration() {
        return Ok((all.as_secs_f64() - utterance.offset).max(0.0));
    }
    let rate = reader.rate();
    Ok(reader.collect_samples()?.len() as f64 / f64::from(rate.max(1)))
}
