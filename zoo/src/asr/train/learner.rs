//! A network of any family that learns, with its tokens: how it is judged, and what is kept of it.
//!
//! A corpus is heard by a program of its own, without what only training does; what its head says is searched
//! greedily, whole batches at once, and held against what was said. What is kept is a `.nemo` archive.

use super::TrainingError;
use super::acoustic::{Acoustic, Inner, Objective, Width};
use super::feed::{Args, Arrays, Feed};
use super::run::{Learner, Scores};
use super::tokens::Vocabulary;
use crate::asr::conformer::Network;
use crate::asr::decode::transducer::{GreedyOptions, greedy};
use crate::asr::decode::{self, Emissions, Encoded, Hypothesis};
use crate::asr::front::Front;
use crate::asr::metrics::{self, Unit};
use crate::audio::Batch;
use crate::audio::features::Features;
use crate::export::{self, ExportOptions};
use crate::import::{Pretrained, TokenizerFiles};
use mobilis_runtime::checkpoint::{Checkpoint, Encoding, Writer};
use mobilis_runtime::module::store::Data;
use mobilis_runtime::prelude::*;
use mobilis_runtime::train::{Optimizer, TrainOptions, TrainStep};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// How what a head says becomes tokens.
pub(super) enum Reader {
    /// The best class of the recording.
    Class,
    /// The best class of every step, collapsed.
    Ctc,
    /// The joint and the predictor of this network.
    Transducer(Box<Network>, GreedyOptions),
}

/// What a network is judged by that tells classes apart, or writes.
pub(super) fn scores(classifies: bool) -> &'static [&'static str] {
    if classifies { &["accuracy", "loss"] } else { &["wer", "cer", "loss"] }
}

type Judge = Program<Args, (Tensor<(Batch, Inner, Width)>, Tensor<(Batch,), Index>, Tensor<()>)>;

/// A network that learns.
pub(super) struct AcousticLearner<N> {
    model: Rc<Model<N>>,
    front: Front,
    tokens: Vocabulary,
    objective: Objective,
    /// What the archive's configuration is.
    config: Value,
    judge: Judge,
    reader: Reader,
}

impl<N: Acoustic> AcousticLearner<N> {
    pub(super) fn new(
        model: Rc<Model<N>>,
        front: Front,
        tokens: Vocabulary,
        objective: Objective,
        config: Value,
        reader: Reader,
    ) -> Result<Self, TrainingError> {
        let by_recordings = objective.clone().by_recordings();
        let judge = model.compile(|network: &N, args: Args| {
            let said = network.say(&front, &by_recordings, args);
            (said.heard, said.steps, said.loss)
        });
        let judge = judge.map_err(TrainingError::model)?;
        Ok(AcousticLearner { model, front, tokens, objective, config, judge, reader })
    }

    /// What is heard in the `count` recordings of a batch, and the mean of their losses.
    fn hear(&self, arrays: &Arrays, count: usize) -> Result<(Vec<String>, f64), TrainingError> {
        let (heard, steps, loss) = self.judge.run(arrays.feed()).map_err(TrainingError::model)?;
        let (all, width) = (heard.sizes()[1], heard.sizes()[2]);
        let rows = |i: usize| {
            let steps = usize::try_from(steps.data()[i]).unwrap_or(0).min(all);
            &heard.data()[i * all * width..(i * all + steps) * width]
        };
        let found: Vec<Hypothesis> = match &self.reader {
            Reader::Class => {
                let best = |row: &[f32]| {
                    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                    best.map_or(0, |(i, _)| i as u32)
                };
                let texts = (0..count).map(|i| self.tokens.text([best(rows(i))])).collect();
                return Ok((texts, f64::from(loss.item())));
            }
            Reader::Ctc => {
                let emissions = |i| Emissions { log_probs: rows(i), classes: width };
                let emissions: Vec<Emissions> = (0..count).map(emissions).collect();
                decode::ctc::greedy(&emissions, self.objective.blank, None).map_err(TrainingError::model)?
            }
            Reader::Transducer(network, options) => {
                let encoded: Vec<Encoded> = (0..count).map(|i| Encoded { values: rows(i), width }).collect();
                greedy(&**network, &encoded, options).map_err(TrainingError::model)?
            }
        };
        let texts = found.iter().map(|h| self.tokens.text(h.ids())).collect();
        Ok((texts, f64::from(loss.item())))
    }
}

impl<N: Acoustic> Learner for AcousticLearner<N> {
    fn train_step(
        &self,
        optimizer: Box<dyn Optimizer>,
        options: TrainOptions,
    ) -> Result<TrainStep<Args>, TrainingError> {
        let loss = |network: &N, args: Args| network.say(&self.front, &self.objective, args).loss;
        Ok(self.model.train_step(optimizer, options, loss)?)
    }

    fn features(&self) -> &Features {
        self.front.features()
    }

    fn tokens(&self) -> &Vocabulary {
        &self.tokens
    }

    fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    fn score(&self, feed: &Arc<Feed>) -> Result<Scores, TrainingError> {
        let (mut loss, mut heard) = (0.0, vec![]);
        for batch in feed.once() {
            let (places, arrays) = batch?;
            let (found, mean) = self.hear(&arrays, places.len())?;
            loss += mean * places.len() as f64;
            let said = |place: &usize| self.tokens.text(feed.utterances[*place].1.iter().map(|id| *id as u32));
            heard.extend(places.iter().map(said).zip(found));
        }
        let count = heard.len().max(1) as f64;
        let loss = ("loss", loss / count);
        if self.tokens.are_classes() {
            let right = heard.iter().filter(|(said, heard)| said == heard).count();
            return Ok(Scores { values: vec![("accuracy", right as f64 / count), loss], greater: true });
        }
        let rate = |unit| metrics::corpus(heard.iter().map(|(s, h)| (s.as_str(), h.as_str())), unit).rate();
        let values = vec![("wer", rate(Unit::Words)), ("cer", rate(Unit::Characters)), loss];
        Ok(Scores { values, greater: false })
    }

    fn save(&self, path: &Path) -> Result<PathBuf, TrainingError> {
        let to = path.with_extension("nemo");
        let folder = path.parent().unwrap_or(Path::new(""));
        self.tokens.write(folder)?;
        let tensors = path.with_extension("weights.safetensors");
        {
            let store = self.model.store().lock();
            let buffers = self.front.buffers();
            let buffers: Vec<_> = buffers.into_iter().map(|(n, sizes, v)| (n, sizes, Data::F32(v))).collect();
            let mut writer = Writer::new().metadata("format", "pt");
            for declared in self.model.catalog().vars() {
                if let Some(entry) = store.get(declared.id) {
                    let (name, sizes) = (declared.name(), &entry.sizes);
                    writer = match &entry.data {
                        // The reference device's are wider than a model's.
                        wide @ Data::F64(_) => writer.add_as(name, sizes, wide, Encoding::F32)?,
                        data => writer.add(name, sizes, data)?,
                    };
                }
            }
            for (name, sizes, values) in &buffers {
                writer = writer.add(name, sizes, values)?;
            }
            writer.save(&tensors)?;
        }
        let model = Pretrained {
            path: tensors.clone(),
            config: self.config.clone(),
            generation_config: None,
            tensors: Box::new(Checkpoint::open(&tensors)?),
            tokenizer: TokenizerFiles::Folder(folder.to_path_buf()),
        };
        export::export(&model, &to, &ExportOptions::default()).map_err(TrainingError::model)?;
        drop(model);
        // What is left behind is read by nobody.
        let _ = std::fs::remove_file(&tensors);
        Ok(to)
    }
}
