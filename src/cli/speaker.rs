//! `mobilis speaker`: who speaks.

use super::devices::DeviceArguments;
use super::{CliError, Output};
use clap::{Args, Subcommand};
use mobilis_zoo::asr::speaker::{self, Embedder, cosine};
use mobilis_zoo::asr::voice::VoiceError;
use mobilis_zoo::audio;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Turn voices into vectors, or compare them.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print a vector for each recording.
    Embed(Embed),
    /// Print how alike the voices of recordings are: 1 is the same.
    Compare(Compare),
}

#[derive(Args, Debug)]
struct Model {
    /// A `.nemo` archive of a speaker model (TitaNet, ECAPA), or a folder or file of Resemblyzer's weights.
    #[arg(long, short)]
    model: PathBuf,
    #[command(flatten)]
    device: DeviceArguments,
}

#[derive(Args, Debug)]
struct Embed {
    /// Recordings of any format.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: Model,
}

#[derive(Args, Debug)]
struct Compare {
    /// Two recordings or more.
    #[arg(required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    /// From this cosine on two voices count as the same.
    #[arg(long, default_value_t = 0.7)]
    threshold: f64,
    #[command(flatten)]
    model: Model,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    match &arguments.command {
        Command::Embed(a) => embed(a, output),
        Command::Compare(a) => compare(a, output),
    }
}

fn vectors(model: &Model, files: &[PathBuf]) -> Result<Vec<Vec<f32>>, CliError> {
    let device = model.device.found()?;
    let embedder = speaker::open(&model.model)?;
    embedder.set_device(device);
    files.iter().map(|file| one(&*embedder, file)).collect()
}

fn one(embedder: &dyn Embedder, file: &Path) -> Result<Vec<f32>, CliError> {
    let recording = audio::load(file, embedder.sample_rate()).map_err(VoiceError::from)?;
    Ok(embedder.embed(&recording)?)
}

fn embed(arguments: &Embed, output: &Output) -> Result<(), CliError> {
    let found = vectors(&arguments.model, &arguments.files)?;
    let line = |v: &Vec<f32>| v.iter().map(f32::to_string).collect::<Vec<_>>().join(" ") + "\n";
    output.result(
        || found.iter().map(line).collect(),
        || {
            let dimensions = found.first().map_or(0, Vec::len);
            json!({ "files": arguments.files, "dimensions": dimensions, "vectors": found })
        },
    )
}

fn compare(arguments: &Compare, output: &Output) -> Result<(), CliError> {
    let found = vectors(&arguments.model, &arguments.files)?;
    let mut pairs = Vec::new();
    for (i, a) in found.iter().enumerate() {
        for (j, b) in found.iter().enumerate().skip(i + 1) {
            pairs.push((i, j, cosine(a, b)));
        }
    }
    let name = |i: usize| arguments.files[i].display().to_string();
    let same = |c: f64| c >= arguments.threshold;
    output.result(
        || {
            let word = |c| if same(c) { "same" } else { "other" };
            let line = |(i, j, c): &(usize, usize, f64)| format!("{c:7.4}  {}  {}  {}\n", word(*c), name(*i), name(*j));
            pairs.iter().map(line).collect()
        },
        || {
            let pair = |(i, j, c): &(usize, usize, f64)| json!({ "a": name(*i), "b": name(*j), "cosine": c, "same": same(*c) });
            json!({ "threshold": arguments.threshold, "pairs": pairs.iter().map(pair).collect::<Vec<_>>() })
        },
    )
}
