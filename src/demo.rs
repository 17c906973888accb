//! `mobilis demo`: a language model learns to write from Moby-Dick while you watch.
//!
//! The model, its training and its writing are those of `examples/08-language-model.rs`, compiled
//! into this module, so that what the command runs is what the tutorial shows. Here is what a
//! command needs around it: progress, a file that is saved and read again, figures.

use crate::train::Progress;
use mobilis_runtime::Model;
use std::error::Error;
use std::path::PathBuf;

#[path = "../examples/08-language-model.rs"]
#[allow(dead_code, missing_docs)]
mod language_model;

use language_model::{BATCH, WINDOW};
pub(crate) use language_model::{Batch, ByteModel, Time};

/// Moby-Dick, or, The Whale, by Herman Melville (1851), in the public domain.
pub static MOBY_DICK: &[u8] = include_bytes!("../examples/data/moby_dick.txt");

/// What a demonstration may vary.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How long to train.
    pub seconds: f64,
    /// What to continue.
    pub prompt: String,
    /// How many bytes to write.
    pub length: usize,
    /// Which of many texts to write.
    pub seed: u64,
    /// Where to save the model.
    pub file: PathBuf,
}

impl Default for Options {
    /// One minute, 400 bytes, a file in the system's temporary folder.
    fn default() -> Self {
        Options {
            seconds: 60.0,
            prompt: "Call me Ishmael.".into(),
            length: 400,
            seed: 1,
            file: std::env::temp_dir().join("mobilis-demo.safetensors"),
        }
    }
}

/// What happens in a demonstration, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// Training begins.
    Start {
        /// How many values are trained.
        params: usize,
        /// How many bytes are read.
        bytes: usize,
    },
    /// A step of training.
    Step {
        /// Loss and time.
        progress: &'a Progress,
        /// Bytes per second so far.
        tokens_per_second: f64,
    },
    /// The loss on the last tenth is being computed.
    Evaluating,
    /// It is known.
    Evaluated {
        /// The loss on what was read last, in nats per byte.
        train_loss: f64,
        /// The loss on the last tenth of the book, which was not read.
        val_loss: f64,
    },
    /// The model writes.
    Writing,
    /// The model was saved, read again, and wrote the same text.
    Reloaded {
        /// The file.
        file: &'a PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// What a demonstration finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The loss on what was read last, in nats per byte.
    pub train_loss: f64,
    /// The loss on the last tenth of the book, in nats per byte.
    pub val_loss: f64,
    /// Bytes per second of training.
    pub tokens_per_second: f64,
    /// How many values the model holds.
    pub params: usize,
    /// What it wrote, the prompt included.
    pub text: String,
    /// Updates made.
    pub steps: u64,
    /// How long training took.
    pub seconds: f64,
    /// Where the model is.
    pub file: PathBuf,
}

impl Report {
    /// The report as one object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
            "tokens_per_second": self.tokens_per_second,
            "params": self.params,
            "text": self.text,
            "steps": self.steps,
            "seconds": self.seconds,
            "file": self.file.to_string_lossy(),
        })
    }
}

/// Trains on Moby-Dick, evaluates on its last tenth, writes, saves, reads the file again and
/// checks that the model in it writes the same. Tells `show` what happens.
///
/// # Errors
/// A prompt longer than the model sees at once; a file that cannot be written; a failed check.
pub fn run(options: &Options, show: &mut dyn FnMut(Event)) -> Result<Report, Box<dyn Error>> {
    if options.prompt.len() >= WINDOW {
        let (found, most) = (options.prompt.len(), WINDOW - 1);
        return Err(format!("the prompt has {found} bytes, the model sees {most} at once: shorten it").into());
    }
    if !options.seconds.is_finite() || options.seconds <= 0.0 {
        return Err(format!("cannot train for {} seconds", options.seconds).into());
    }
    let (read, unread) = MOBY_DICK.split_at(MOBY_DICK.len() / 10 * 9);
    let rate = |steps: u64, seconds: f64| (steps as usize * BATCH * WINDOW) as f64 / seconds.max(1e-9);
    let model = language_model::new_model()?;
    let params = model.parameter_count();
    show(Event::Start { params, bytes: read.len() });
    let history = language_model::train(&model, read, options.seconds, |progress| {
        let tokens_per_second = rate(progress.step, progress.elapsed.as_secs_f64());
        show(Event::Step { progress, tokens_per_second });
    })?;
    let (steps, seconds) = (history.losses.len() as u64, history.elapsed.as_secs_f64());

    show(Event::Evaluating);
    let (train_loss, val_loss) = (history.recent(50), language_model::evaluate(&model, unread)?);
    show(Event::Evaluated { train_loss, val_loss });

    show(Event::Writing);
    let write = |model: &Model<ByteModel>| language_model::write(model, &options.prompt, options.length, options.seed);
    let text = write(&model)?;
    model.save(&options.file)?;
    let again = Model::load(ByteModel::default(), &options.file)?;
    if write(&again)? != text {
        return Err(format!("the model in `{}` writes another text", options.file.display()).into());
    }
    let bytes = std::fs::metadata(&options.file)?.len();
    show(Event::Reloaded { file: &options.file, bytes });
    let tokens_per_second = rate(steps, seconds);
    Ok(Report { train_loss, val_loss, tokens_per_second, params, text, steps, seconds, file: options.file.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_refused_at_once() {
        let long = Options { prompt: "x".repeat(WINDOW), ..Options::default() };
        let error = run(&long, &mut |_| {}).expect_err("too long").to_string();
        assert_eq!(error, "the prompt has 128 bytes, the model sees 127 at once: shorten it");
        let none = Options { seconds: f64::NAN, ..Options::default() };
        assert!(run(&none, &mut |_| {}).is_err());
    }

    #[test]
    fn the_book_is_whole() {
        assert_eq!(MOBY_DICK.len(), 1_194_405);
        assert!(MOBY_DICK.starts_with(b"CHAPTER 1. Loomings."));
    }
}
