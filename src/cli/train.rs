//! `mobilis train RECIPE [KEY=VALUE ..]`.

use super::language::Bar;
use super::{CliError, Output};
use mobilis_runtime::Device;
use mobilis_zoo::asr::train::{Note, Outcome, Prepared, Scores};
use mobilis_zoo::recipe::document;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The recipe: TOML, YAML or JSON, in the words of NeMo's configurations.
    recipe: PathBuf,
    /// Settings that go before those of the recipe: `model.optim.lr=0.01`, `trainer.max_time=5m`.
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where it trains: cpu, cuda (the first GPU), cuda:1, emulated (the GPU's kernels on the CPU, slow). The same as
    /// `trainer.accelerator=DEVICE` [default: cpu].
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Print the complete recipe, defaults included, and do not train.
    #[arg(long)]
    print: bool,
}

/// Whether somebody has asked for an end.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Trains. With `--json`, a line for everything that happens, and a last one with the outcome.
pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let failed = |e: mobilis_zoo::asr::train::TrainingError| CliError::Train(Box::new(e));
    let mut settings = arguments.settings.clone();
    settings.extend(arguments.device.map(|device| format!("trainer.accelerator='{device}'")));
    let document = document::read(&arguments.recipe, &settings).map_err(|e| failed(e.into()))?;
    let prepared = Prepared::read(document).map_err(failed)?;
    if arguments.print {
        return output.result(|| prepared.yaml(), || prepared.recipe().clone());
    }
    for note in prepared.notes() {
        output.note(note);
    }
    // Where there is no such thing, the run ends as the system ends it: it can be gone on with all the same.
    let _ = ctrlc::set_handler(|| {
        if STOPPED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    let mut screen = Screen { output, bar: None, validated: String::new(), average: None };
    let folder = prepared.folder().to_path_buf();
    let outcome = prepared.run(&mut |note| {
        screen.show(note);
        !STOPPED.load(Ordering::Relaxed)
    });
    screen.clear();
    let outcome = outcome.map_err(failed)?;
    if output.json {
        return line(&object(&outcome));
    }
    let text = text(&outcome, &folder.display().to_string());
    output.result(|| text, || Value::Null)
}

/// Writes a line of JSON to standard output.
fn line(value: &Value) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{value}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Write { path: "standard output".into(), source: e })
        }
        _ => Ok(()),
    }
}

fn object(outcome: &Outcome) -> Value {
    let scores = outcome.scores.as_ref();
    let scores = scores.map(|s| s.values.iter().map(|(n, v)| (format!("val_{n}"), json!(v))).collect::<Value>());
    json!({
        "event": "end", "steps": outcome.steps, "finished": outcome.finished, "last_loss": outcome.losses.last(),
        "scores": scores, "best": outcome.best.map(|(score, _)| score), "best_step": outcome.best.map(|(_, s)| s),
        "model": outcome.model.as_ref().map(|p| p.display().to_string()), "seconds": outcome.elapsed.as_secs_f64(),
    })
}

fn text(outcome: &Outcome, folder: &str) -> String {
    let mut lines = vec![];
    let seconds = outcome.elapsed.as_secs_f64();
    match outcome.finished {
        true => lines.push(format!("{} steps, {seconds:.0} s", outcome.steps)),
        false => lines.push(format!("stopped after {} steps, {seconds:.0} s: the same command goes on", outcome.steps)),
    }
    if let (Some((score, step)), Some(scores)) = (outcome.best, &outcome.scores) {
        lines.push(format!("best {} {score:.4} after {step} steps", scores.values.first().map_or("score", |v| v.0)));
    }
    if let Some(model) = &outcome.model {
        lines.push(format!("model       {}", model.display()));
    }
    lines.push(format!("TensorBoard tensorboard --logdir {folder}"));
    lines.join("\n")
}

fn shown(scores: &Scores) -> String {
    scores.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join("  ")
}

/// Where progress goes.
struct Screen<'a> {
    output: &'a Output,
    bar: Option<Bar>,
    validated: String,
    /// The loss averaged over about twenty steps.
    average: Option<f64>,
}

impl Screen<'_> {
    fn show(&mut self, note: &Note) {
        if self.output.json {
            // A reader that went away does not end a training.
            let _ = line(&note.object());
            return;
        }
        match note {
            Note::Begin { step, total, batches_per_epoch, about } => {
                about.iter().for_each(|line| self.output.note(line));
                if *step > 0 {
                    self.output.note(&format!("going on after {step} of {total} steps"));
                }
                self.output.note(&format!("{total} steps, {batches_per_epoch} batches an epoch"));
                self.bar = Some(Bar::new(self.output, *total, "steps"));
            }
            Note::Step { step, epoch, loss, .. } => {
                let average = self.average.map_or(*loss, |old| old + (loss - old) / 20.0);
                self.average = Some(average);
                let message = format!("epoch {epoch}  loss {average:.4}{}", self.validated);
                if let Some(bar) = &self.bar {
                    bar.at(*step, &message);
                }
            }
            Note::LeftOut { step, fault } => self.note(&format!("a batch of step {step} is left out: {fault}")),
            Note::Validation { step, scores, best } => {
                let scores = shown(scores);
                self.validated = format!("  {scores}");
                self.note(&format!("step {step}: {scores}{}", if *best { "  (best)" } else { "" }));
            }
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.note(self.output, text),
            None => self.output.note(text),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }
}
