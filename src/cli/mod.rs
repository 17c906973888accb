//! The `mobilis` command: one file a subcommand.
//!
//! What a command has to say goes to standard output, as text for people or, with `--json`, as
//! one JSON object. Notes and progress go to standard error and are left out with `--quiet`.
//! A failure is one message on standard error and exit code 1; a misused option exits with 2.

mod average;
mod chat;
mod choosing;
mod completions;
mod convert;
mod demo;
mod devices;
mod embed;
mod evaluate;
mod generate;
mod graph;
mod inspect;
mod language;
mod perplexity;
mod profile;
mod recordings;
mod searching;
mod speaker;
mod streaming;
mod train;
mod transcribe;
mod transcripts;
mod vad;
mod verify;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Neural models as ordinary structs, with shapes that the compiler checks.
#[derive(Parser, Debug)]
#[command(name = "mobilis", version, arg_required_else_help = true, propagate_version = true)]
struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Print results only: no notes, no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Train a language model on Moby-Dick for a minute, and let it write.
    Demo(demo::Arguments),
    /// Draw a model of the examples or the zoo; without a name, list them.
    Graph(graph::Arguments),
    /// Measure where a model's time goes, and how near that is to the machine's limits.
    Profile(profile::Arguments),
    /// List the devices that programs can run on, and what GPUs use of the kernels.
    Devices(devices::Arguments),
    /// List the tensors of a model: safetensors, GGUF, PyTorch, a folder, an id of the Hub.
    Inspect(inspect::Arguments),
    /// Write a model in another format or precision: a folder for `transformers`, a GGUF file.
    Convert(convert::Arguments),
    /// Write the mean of several checkpoints of one model: the best or last of a training run, for example.
    Average(average::Arguments),
    /// Hold a model against the outputs of its reference implementation.
    Verify(verify::Arguments),
    /// Turn texts into vectors.
    Embed(embed::Arguments),
    /// Continue texts with a language model, or write texts for texts with an encoder-decoder.
    Generate(Box<generate::Arguments>),
    /// Talk with a language model.
    Chat(Box<chat::Arguments>),
    /// Measure how well a language model foretells a text.
    Perplexity(perplexity::Arguments),
    /// Find the parts of recordings in which somebody speaks.
    Vad(vad::Arguments),
    /// Turn voices into vectors, or compare them.
    Speaker(speaker::Arguments),
    /// Write down what is said in recordings, with times.
    Transcribe(Box<transcribe::Arguments>),
    /// Measure how well a recognizer hears a corpus: word and character error rates, speed.
    Evaluate(evaluate::Arguments),
    /// Train a recognizer of speech by a recipe, or go on training it.
    Train(train::Arguments),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A name that the gallery does not have.
    #[error("there is no model `{name}` (`mobilis graph` lists them){hint}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
    },
    /// Something about the arguments that only the model can tell.
    #[error("{0}")]
    Arguments(String),
    /// A model that cannot be traced.
    #[error("`{model}` cannot be drawn: {source}")]
    Trace {
        /// The model.
        model: &'static str,
        /// Why.
        source: Box<dyn std::error::Error>,
    },
    /// A model that cannot be run.
    #[error("`{model}` cannot be profiled: {source}")]
    Profile {
        /// The model.
        model: &'static str,
        /// Why.
        source: Box<dyn std::error::Error>,
    },
    /// A result that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A language model that cannot be opened or run.
    #[error("{0}")]
    Language(Box<dyn std::error::Error>),
    /// A demonstration that failed.
    #[error("{0}")]
    Demo(Box<dyn std::error::Error>),
    /// Texts that cannot be turned into vectors.
    #[error("cannot embed: {0}")]
    Embed(Box<dyn std::error::Error>),
    /// A folder that cannot be verified.
    #[error("cannot verify: {0}")]
    Verify(Box<mobilis_zoo::verify::VerifyError>),
    /// A training that failed.
    #[error("{0}")]
    Train(Box<mobilis_zoo::asr::train::TrainingError>),
    /// Outputs that are not the reference's.
    #[error("{0} outputs are not what the reference computed")]
    Failed(usize),
    /// A device that is not here.
    #[error(transparent)]
    Device(#[from] mobilis_runtime::devices::DeviceError),
    /// A model that cannot be opened or written.
    #[error(transparent)]
    Import(#[from] mobilis_zoo::import::ImportError),
    /// A model of voices that cannot be had, or cannot hear.
    #[error(transparent)]
    Voice(#[from] mobilis_zoo::asr::voice::VoiceError),
    /// A checkpoint that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] mobilis_runtime::checkpoint::CheckpointError),
}

impl CliError {
    /// What goes wrong with a language model, in its own words.
    fn language(e: impl std::error::Error + 'static) -> CliError {
        CliError::Language(Box::new(e))
    }
}

/// Where results and notes go.
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Output {
    /// Prints a result: `text`, or the object with `--json`.
    pub(crate) fn result(
        &self,
        text: impl FnOnce() -> String,
        object: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), CliError> {
        let mut all = if self.json { format!("{:#}", object()) } else { text() };
        if !all.ends_with('\n') {
            all.push('\n');
        }
        match std::io::stdout().lock().write_all(all.as_bytes()) {
            // Whoever reads has seen enough: `mobilis graph gpt | head`.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(source) => Err(CliError::Write { path: "standard output".into(), source }),
            Ok(()) => Ok(()),
        }
    }

    /// Whether progress is shown, on standard error.
    fn shows_progress(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Tells people what happened, on standard error.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            eprintln!("{text}");
        }
    }
}

/// Parses the command line, runs the command, reports its failure.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json, quiet: cli.quiet };
    let result = match &cli.command {
        Command::Demo(arguments) => demo::run(arguments, &output),
        Command::Graph(arguments) => graph::run(arguments, &output),
        Command::Profile(arguments) => profile::run(arguments, &output),
        Command::Devices(arguments) => devices::run(arguments, &output),
        Command::Inspect(arguments) => inspect::run(arguments, &output),
        Command::Convert(arguments) => convert::run(arguments, &output),
        Command::Average(arguments) => average::run(arguments, &output),
        Command::Verify(arguments) => verify::run(arguments, &output),
        Command::Embed(arguments) => embed::run(arguments, &output),
        Command::Generate(arguments) => generate::run(arguments, &output),
        Command::Chat(arguments) => chat::run(arguments, &output),
        Command::Perplexity(arguments) => perplexity::run(arguments, &output),
        Command::Vad(arguments) => vad::run(arguments, &output),
        Command::Speaker(arguments) => speaker::run(arguments, &output),
        Command::Transcribe(arguments) => transcribe::run(arguments, &output),
        Command::Evaluate(arguments) => evaluate::run(arguments, &output),
        Command::Train(arguments) => train::run(arguments, &output),
        Command::Completions(arguments) => completions::run(arguments, &output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
