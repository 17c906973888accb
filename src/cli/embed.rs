//! `mobilis embed`: vectors for texts.

use super::devices::DeviceArguments;
use super::{CliError, Output};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mobilis_zoo::embed::{Embedder, Embeddings, Settings, cosine};
use mobilis_zoo::import::{OpenOptions, Pretrained, TokenizerFiles};
use mobilis_zoo::llm::Config;
use mobilis_zoo::llm::encoder::Pooling;
use mobilis_zoo::llm::open::{self, AnyModel};
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Turn texts into vectors that are near each other where the texts mean similar things.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// A folder with an encoder (BERT, RoBERTa, MiniLM, ...), a file, or an id on the Hugging Face Hub.
    model: String,
    /// The texts. Without any, and without --file, the lines of standard input.
    texts: Vec<String>,
    /// A file with a text on each line; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Which vector stands for a text: mean, cls, last or max [default: what the model says, or mean].
    #[arg(long, value_parser = pooling)]
    pooling: Option<Pooling>,
    /// Leave vectors as long as they are [default: what the model says, or length 1].
    #[arg(long)]
    no_normalize: bool,
    /// The most tokens of a text; what is beyond does not count [default: what the model takes].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Print the cosines between the texts instead of the vectors.
    #[arg(long)]
    similarity: bool,
    #[command(flatten)]
    device: DeviceArguments,
    /// Ask no network: only what was downloaded before.
    #[arg(long)]
    offline: bool,
}

/// The names of poolings.
const POOLINGS: [(&str, Pooling); 4] =
    [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("last", Pooling::Last), ("max", Pooling::Max)];

fn pooling(text: &str) -> Result<Pooling, String> {
    POOLINGS.iter().find(|(name, _)| *name == text).map(|(_, pooling)| *pooling).ok_or_else(|| {
        let hint = mobilis_runtime::suggest::did_you_mean(text, POOLINGS.map(|p| p.0));
        format!("expected mean, cls, last or max{hint}")
    })
}

/// Embeds all texts and prints them.
pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let texts = texts(arguments)?;
    let embedder = opened(arguments, output)?;
    let started = Instant::now();
    let progress = Progress::new(texts.len(), output);
    let found = embedder.embed(&texts, |done| progress.at(done)).map_err(|e| CliError::Embed(e.into()))?;
    progress.end();
    let seconds = started.elapsed().as_secs_f64();
    let rate = texts.len() as f64 / seconds.max(1e-9);
    output.note(&format!("{} texts, {} tokens in {seconds:.2} s, {rate:.0} texts/s", texts.len(), found.tokens));
    if found.cut > 0 {
        output.note(&format!("{} texts were longer than the model takes: their ends do not count", found.cut));
    }
    output.result(|| text(arguments, &found), || object(arguments, &embedder, &texts, &found))
}

/// The texts of the command line, of files, or of standard input.
fn texts(arguments: &Arguments) -> Result<Vec<String>, CliError> {
    let mut all = arguments.texts.clone();
    let stdin = [PathBuf::from("-")];
    let none = all.is_empty() && arguments.file.is_empty();
    for path in if none { &stdin[..] } else { &arguments.file } {
        let read = |source| CliError::Read { path: path.clone(), source };
        let text = match path == Path::new("-") {
            true => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(read)?;
                text
            }
            false => std::fs::read_to_string(path).map_err(read)?,
        };
        all.extend(text.lines().filter(|line| !line.trim().is_empty()).map(String::from));
    }
    match all.is_empty() {
        true => Err(CliError::Arguments("there is no text: give some, or lines on standard input".into())),
        false => Ok(all),
    }
}

fn opened(arguments: &Arguments, output: &Output) -> Result<Embedder, CliError> {
    let place = &arguments.model;
    let device = arguments.device.found()?;
    let failed = |e: Box<dyn std::error::Error>| CliError::Embed(e);
    let mut options = OpenOptions::new();
    if arguments.offline {
        options = options.offline();
    }
    let started = Instant::now();
    let Pretrained { config, tensors, tokenizer, path, .. } = options.open(place).map_err(|e| failed(e.into()))?;
    let config = Config::new(path.display().to_string(), config);
    let model = match open::open(&config, &*tensors).map_err(|e| failed(e.into()))? {
        AnyModel::Encoder(model) => {
            model.set_device(device);
            model
        }
        _ => {
            let kind = config.model_type().unwrap_or_default();
            let families = open::ENCODERS.iter().flat_map(|f| f.model_types).copied().collect::<Vec<_>>().join(", ");
            let message = format!("`{place}` ({kind}) gives no vectors for texts: an encoder does ({families})");
            return Err(CliError::Arguments(message));
        }
    };
    let mut settings = match &tokenizer {
        TokenizerFiles::Folder(folder) => Settings::of(folder).map_err(|e| failed(e.into()))?,
        TokenizerFiles::Gguf(_) | TokenizerFiles::Nemo { .. } => Settings::default(),
    };
    let tokenizer = tokenizer.open().map_err(|e| failed(e.into()))?;
    settings.pooling = arguments.pooling.unwrap_or(settings.pooling);
    settings.normalize &= !arguments.no_normalize;
    settings.tokens = arguments.max_tokens.map(|n| n as usize).or(settings.tokens);
    let (count, seconds) = (model.parameter_count() as f64, started.elapsed().as_secs_f64());
    let count = mobilis_runtime::graph::polynomial::quantity(count);
    output.note(&format!("{place}: {count} parameters, loaded in {seconds:.2} s"));
    Ok(Embedder::new(model, tokenizer, settings))
}

/// A vector on each line; with --similarity a row of cosines.
fn text(arguments: &Arguments, found: &Embeddings) -> String {
    let mut out = String::new();
    let line = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(" ") + "\n";
    for vector in &found.vectors {
        out += &match arguments.similarity {
            true => line(&mut found.vectors.iter().map(|other| format!("{:7.4}", cosine(vector, other)))),
            false => line(&mut vector.iter().map(|v| v.to_string())),
        };
    }
    out
}

fn object(arguments: &Arguments, embedder: &Embedder, texts: &[String], found: &Embeddings) -> serde_json::Value {
    let settings = embedder.settings();
    let pooling = POOLINGS.iter().find(|(_, p)| *p == settings.pooling).map(|(name, _)| *name);
    let mut object = json!({
        "model": arguments.model, "pooling": pooling, "normalized": settings.normalize,
        "dimensions": found.vectors.first().map_or(0, Vec::len), "tokens": found.tokens, "cut": found.cut,
        "texts": texts,
    });
    let key = if arguments.similarity { "similarity" } else { "vectors" };
    object[key] = match arguments.similarity {
        true => {
            let row = |a: &Vec<f32>| found.vectors.iter().map(|b| cosine(a, b)).collect::<Vec<_>>();
            json!(found.vectors.iter().map(row).collect::<Vec<_>>())
        }
        false => json!(found.vectors),
    };
    object
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    total: usize,
    bar: Option<ProgressBar>,
    told: Option<std::cell::Cell<Instant>>,
}

impl Progress {
    fn new(total: usize, output: &Output) -> Progress {
        if output.quiet || output.json {
            return Progress { total, bar: None, told: None };
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:32} {pos} of {len} texts, {per_sec}, {eta}");
            ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let told = bar.is_none().then(|| std::cell::Cell::new(Instant::now()));
        Progress { total, bar, told }
    }

    fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
        if let Some(told) = &self.told
            && told.get().elapsed() >= Duration::from_secs(5)
        {
            told.set(Instant::now());
            eprintln!("{done} of {} texts", self.total);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
