//! `mobilis demo`.

use super::{CliError, Output};
use crate::demo::{self, Event, Options};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// How long to train, in seconds.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    seconds: f64,
    /// What the model shall continue.
    #[arg(long, default_value = "Call me Ishmael.")]
    prompt: String,
    /// How many bytes it shall write.
    #[arg(long, default_value_t = 400)]
    length: usize,
    /// Which of many texts it shall write.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to save the model [default: mobilis-demo.safetensors in the temporary folder].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && s > 0.0 => Ok(s),
        _ => Err("a number of seconds above 0 is needed".into()),
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let mut options = Options {
        seconds: arguments.seconds,
        prompt: arguments.prompt.clone(),
        length: arguments.length,
        seed: arguments.seed,
        ..Options::default()
    };
    if let Some(file) = &arguments.output {
        options.file.clone_from(file);
    }
    let mut screen = Screen::new(output);
    let report = demo::run(&options, &mut |event| screen.show(event));
    screen.clear();
    let report = report.map_err(CliError::Demo)?;
    output.result(|| text(&report), || report.to_json())
}

fn text(report: &demo::Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}\n", report.text);
    let _ = writeln!(out, "train loss  {:.3} nats per byte", report.train_loss);
    let _ = writeln!(out, "val loss    {:.3} nats per byte (the last tenth, never read)", report.val_loss);
    let _ = writeln!(out, "speed       {:.0} bytes per second", report.tokens_per_second);
    let _ = writeln!(out, "parameters  {}", report.params);
    let _ = writeln!(out, "saved to    {}, read again, writes the same", report.file.display());
    out
}

/// Where progress goes: a bar on a terminal, a line now and then elsewhere, both on standard
/// error; nothing with `--quiet` or `--json`.
struct Screen<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    told: Option<Instant>,
}

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);

impl<'a> Screen<'a> {
    fn new(output: &'a Output) -> Self {
        let wanted = !output.quiet && !output.json && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}");
            let bar = ProgressBar::new(1000);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Screen { output, bar, told: None }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Start { params, bytes } => {
                self.note(&format!("training {params} parameters on {bytes} bytes of Moby-Dick"));
            }
            Event::Step { progress, tokens_per_second } => {
                let message = format!(
                    "step {}  loss {:.3}  {:.0} bytes/s  ETA {:.0} s",
                    progress.step,
                    progress.average,
                    tokens_per_second,
                    progress.remaining.as_secs_f64()
                );
                match &self.bar {
                    Some(bar) => {
                        bar.set_position((progress.fraction * 1000.0) as u64);
                        bar.set_message(message);
                    }
                    None if self.told.is_none_or(|t| t.elapsed() >= PAUSE) => {
                        self.told = Some(Instant::now());
                        self.note(&message);
                    }
                    None => {}
                }
            }
            Event::Evaluating => {
                self.clear();
                self.note("reading the last tenth of the book");
            }
            Event::Evaluated { train_loss, val_loss } => {
                self.note(&format!("train loss {train_loss:.3}, val loss {val_loss:.3} nats per byte"));
            }
            Event::Writing => self.note("writing"),
            Event::Reloaded { file, bytes } => {
                let size = mobilis_runtime::graph::polynomial::bytes(bytes);
                self.note(&format!("saved {size} to {}, read it again: it writes the same\n", file.display()));
            }
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.println(text),
            _ => self.output.note(text),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
