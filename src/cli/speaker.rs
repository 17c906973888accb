//! `mobilis speaker`: who speaks.

use super::devices::DeviceArguments;
use super::recordings::{Failed, files};
use super::{CliError, Output};
use clap::{Args, Subcommand};
use mobilis_zoo::asr::speaker::{self, Embedder, cosine};
use mobilis_zoo::asr::voice::VoiceError;
use mobilis_zoo::audio::{Reader, Wanted};
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
    /// Recordings of any format, folders of them; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: Model,
}

#[derive(Args, Debug)]
struct Compare {
    /// Two recordings or more, or a folder of them.
    #[arg(required = true)]
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

/// The recordings with their vectors, and those that have none.
fn vectors(model: &Model, given: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Option<Vec<f32>>>, Failed), CliError> {
    let device = model.device.found()?;
    let embedder = speaker::open(&model.model)?;
    embedder.set_device(device);
    let files = files(given)?;
    let mut failed = Failed::of(files.len());
    let found = files.iter().map(|file| failed.keep(file, one(&*embedder, file))).collect::<Result<_, _>>()?;
    Ok((files, found, failed))
}

fn one(embedder: &dyn Embedder, file: &Path) -> Result<Vec<f32>, CliError> {
    let wanted = Wanted::at(embedder.sample_rate());
    let reader = match file == Path::new("-") {
        true => Reader::stream("standard input", std::io::stdin(), &wanted),
        false => Reader::open(file, &wanted),
    };
    let blocks = reader.and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
    Ok(embedder.embed(&blocks.map_err(VoiceError::from)?.concat())?)
}

fn embed(arguments: &Embed, output: &Output) -> Result<(), CliError> {
    let (files, found, failed) = vectors(&arguments.model, &arguments.files)?;
    // The line of one that failed is empty.
    let line = |v: &Option<Vec<f32>>| v.iter().flatten().map(f32::to_string).collect::<Vec<_>>().join(" ") + "\n";
    output.result(
        || found.iter().map(line).collect(),
        || {
            let dimensions = found.iter().flatten().next().map_or(0, Vec::len);
            let heard = files.iter().zip(&found).filter(|(_, v)| v.is_some()).map(|(file, _)| file).collect::<Vec<_>>();
            let vectors = found.iter().flatten().collect::<Vec<_>>();
            json!({ "files": heard, "dimensions": dimensions, "vectors": vectors, "failed": failed.list })
        },
    )?;
    failed.end()
}

fn compare(arguments: &Compare, output: &Output) -> Result<(), CliError> {
    if files(&arguments.files)?.len() < 2 {
        return Err(CliError::Arguments("voices of two recordings or more are compared".into()));
    }
    let (files, found, failed) = vectors(&arguments.model, &arguments.files)?;
    let mut pairs = Vec::new();
    for (i, a) in found.iter().enumerate() {
        for (j, b) in found.iter().enumerate().skip(i + 1) {
            pairs.extend(a.as_ref().zip(b.as_ref()).map(|(a, b)| (i, j, cosine(a, b))));
        }
    }
    let name = |i: usize| files[i].display().to_string();
    let same = |c: f64| c >= arguments.threshold;
    output.result(
        || {
            let word = |c| if same(c) { "same" } else { "other" };
            let line = |(i, j, c): &(usize, usize, f64)| format!("{c:7.4}  {}  {}  {}\n", word(*c), name(*i), name(*j));
            pairs.iter().map(line).collect()
        },
        || {
            let pair = |(i, j, c): &(usize, usize, f64)| json!({ "a": name(*i), "b": name(*j), "cosine": c, "same": same(*c) });
            let pairs = pairs.iter().map(pair).collect::<Vec<_>>();
            json!({ "threshold": arguments.threshold, "pairs": pairs, "failed": failed.list })
        },
    )?;
    failed.end()
}
