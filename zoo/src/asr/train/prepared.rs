//! From a recipe to a run.

use super::TrainingError;
use super::corpus::Corpus;
use super::feed::{Augment, Feed};
use super::learner::scores;
use super::network::NetworkRecipe;
use super::run::{Note, Outcome, Session, run};
use super::settings::{Experiment, Trainer};
use crate::audio::augment::Augmentor;
use crate::import::nemo::{self, Archive, yaml};
use crate::llm::config::Config;
use crate::recipe::{Keys, optim};
use mobilis_runtime::prelude::Device;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A recipe that was read: every key is known, and has a value.
#[derive(Debug)]
pub struct Prepared {
    recipe: Value,
    notes: Vec<String>,
    seed: u64,
    network: NetworkRecipe,
    start: Option<Archive>,
    train: Corpus,
    validation: Option<Corpus>,
    trainer: Trainer,
    experiment: Experiment,
}

impl Prepared {
    /// Reads a document: its sections `name`, `seed`, `init_from_nemo_model`, `model`, `trainer`, `exp_manager`. Of
    /// files, the archive alone is opened that the run starts from.
    ///
    /// # Errors
    /// Keys that are not known, are missing, or have values that make no sense; an archive that cannot be read.
    pub fn read(document: Value) -> Result<Prepared, TrainingError> {
        let mut keys = Keys::new(document)?;
        let name = keys.or("name", "run".to_string())?;
        let seed = keys.or("seed", 0u64)?;
        let start = keys.get::<String>("init_from_nemo_model")?;
        let start = start.map(|path| nemo::open(Path::new(&path))).transpose().map_err(TrainingError::model)?;
        let archived = start.as_ref().map(|archive| &archive.config);
        let (network, train, validation) = keys.section("model", |keys| {
            let network = NetworkRecipe::read(keys, seed, archived)?;
            let train = keys.section("train_ds", |k| Corpus::read(k, network.rate, true))?;
            let validation = keys.optional("validation_ds", |k| Corpus::read(k, network.rate, false))?;
            keys.without_effect(&["test_ds"]);
            // The number of steps is known when the data is: the settings are checked now.
            keys.section("optim", |k| optim::optimizer(k, 1000))?;
            Ok((network, train, validation))
        })?;
        let trainer = keys.section("trainer", Trainer::read)?;
        let experiment = keys.section("exp_manager", |k| Experiment::read(k, &name, scores(network.classifies())))?;
        let (recipe, notes) = keys.finish()?;
        Ok(Prepared { recipe, notes, seed, network, start, train, validation, trainer, experiment })
    }

    /// The recipe, complete with defaults.
    pub fn recipe(&self) -> &Value {
        &self.recipe
    }

    /// The same as YAML.
    pub fn yaml(&self) -> String {
        yaml::print(&self.recipe).unwrap_or_else(|_| format!("{:#}", self.recipe))
    }

    /// What whoever wrote the recipe should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where the run is kept.
    pub fn folder(&self) -> &Path {
        &self.experiment.folder
    }

    /// What happens to waveforms in training.
    fn augment(&self) -> Result<Option<Augment>, TrainingError> {
        let Some(section) = &self.train.augmentor else { return Ok(None) };
        let config = Config::new("`model.train_ds.augmentor`", section.clone());
        let augmentor = Augmentor::from_config(&config, Path::new(""), self.network.rate, self.seed);
        let augmentor = augmentor.map_err(TrainingError::model)?;
        Ok(Some(Arc::new(move |samples, epoch, place| augmentor.apply(samples, epoch, place))))
    }

    /// Trains, or goes on: see [`run`].
    ///
    /// # Errors
    /// Those of [`run`]; a corpus that cannot be read; a network that cannot be built.
    pub fn run(self, watch: &mut dyn FnMut(&Note) -> bool) -> Result<Outcome, TrainingError> {
        let here = Path::new("");
        let device = self.trainer.place.found()?;
        let utterances = self.train.listed(here)?;
        let (start, folder) = (self.start.as_ref(), &self.experiment.folder);
        let tokens = self.network.tokens.open(self.network.classifies(), folder, start, &utterances)?;
        let mut notes = match device {
            Device::Cpu => vec![],
            other => vec![format!("on {other}")],
        };
        // A tokenizer that was trained is kept before the first step, for a run that goes on.
        tokens.write(folder)?;
        let learner = self.network.build(&self.recipe["model"], tokens, start, device, &mut notes)?;
        let mut open = |corpus: &Corpus, utterances| -> Result<Feed, TrainingError> {
            let label = |u: &_| learner.tokens().of(u);
            let (feed, left) = Feed::open(corpus, here, utterances, learner.features(), self.seed, &label)?;
            notes.extend(left.0);
            Ok(feed)
        };
        let train = open(&self.train, utterances)?;
        let train = train.augmented(self.augment()?);
        let validation = match &self.validation {
            None => None,
            Some(corpus) => Some(Arc::new(open(corpus, corpus.listed(here)?)?)),
        };
        let total = self.trainer.total(train.batches_per_epoch());
        let mut keys = Keys::new(json!({ "model": { "optim": self.recipe["model"]["optim"] } }))?;
        let (optimizer, schedule) = keys.section("model", |k| k.section("optim", |k| optim::optimizer(k, total)))?;
        let session = Session {
            trainer: self.trainer,
            experiment: self.experiment,
            train: Arc::new(train),
            validation,
            optimizer,
            schedule,
            recipe: self.recipe,
            notes,
        };
        run(&*learner, session, watch)
    }
}
