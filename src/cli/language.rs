//! What the commands for language models share: which model, how it is loaded, how tokens are
//! chosen, and progress.

use super::devices::DeviceArguments;
use super::{CliError, Output};
use indicatif::{ProgressBar, ProgressStyle};
use mobilis_runtime::program::{WeightFormat, Weights};
use mobilis_runtime::suggest::did_you_mean;
use mobilis_zoo::generate::{GenerateOptions, GenerationConfig, Generator, Translator};
use mobilis_zoo::import::{OpenOptions, Pretrained};
use mobilis_zoo::llm::open::{AnyModel, open};
use mobilis_zoo::llm::seq2seq::{Seq2SeqModel, SpecialTokens};
use mobilis_zoo::llm::{Config, TextModel};
use mobilis_zoo::text::{TextError, Tokenizer};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Which model, and how it is held.
#[derive(clap::Args, Debug)]
pub(super) struct LoadArguments {
    /// A folder with a checkpoint, a file (safetensors, GGUF, PyTorch), or an id on the Hugging Face
    /// Hub.
    pub(super) model: String,
    #[command(flatten)]
    device: DeviceArguments,
    /// How weights are stored: as in the file (stored), or f32, bf16, f16, q8_0, q4_0, int8.
    #[arg(long, value_name = "FORMAT", default_value = "stored", value_parser = format)]
    weights: WeightFormat,
    /// Multiply weights of 4 to 8 bits by activations in f32, not in 8 bits: slower prompts.
    #[arg(long)]
    exact: bool,
    /// The most tokens of a text, prompt included [default: as many as the model takes].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// The name of the configuration, where it is not config.json.
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// A branch, tag or commit on the Hub.
    #[arg(long)]
    revision: Option<String>,
    /// Ask no network: only what was downloaded before.
    #[arg(long)]
    offline: bool,
}

/// All formats, by the names that users give.
const FORMATS: [(&str, WeightFormat); 7] = [
    ("stored", WeightFormat::Stored),
    ("f32", WeightFormat::F32),
    ("bf16", WeightFormat::Bf16),
    ("f16", WeightFormat::F16),
    ("q8_0", WeightFormat::Q8_0),
    ("q4_0", WeightFormat::Q4_0),
    ("int8", WeightFormat::Int8),
];

pub(super) fn format(text: &str) -> Result<WeightFormat, String> {
    let wanted = text.to_lowercase();
    let names = || FORMATS.iter().map(|(name, _)| *name);
    FORMATS.iter().find(|(name, _)| *name == wanted).map(|(_, format)| *format).ok_or_else(|| {
        let all = names().collect::<Vec<_>>().join(", ");
        format!("expected one of {all}{}", did_you_mean(&wanted, names()))
    })
}

/// A model that writes texts.
pub(super) enum Writer {
    /// It continues them.
    Continuing(Box<dyn TextModel>),
    /// It writes another one for each.
    Answering(Box<dyn Seq2SeqModel>),
}

impl Writer {
    fn parameter_count(&self) -> usize {
        match self {
            Writer::Continuing(model) => model.parameter_count(),
            Writer::Answering(model) => model.parameter_count(),
        }
    }
}

/// The error for a model that does not continue texts.
fn other(config: &Config, kind: &str, instead: &str) -> CliError {
    let family = config.model_type().unwrap_or("?");
    CliError::Arguments(format!("a `{family}` is {kind} and does not continue texts: {instead}"))
}

/// A model with what stands around it.
pub(super) struct Language {
    pub(super) model: Writer,
    pub(super) pretrained: Pretrained,
    tokenizer: Option<Tokenizer>,
}

impl Language {
    /// The tokenizer.
    ///
    /// # Errors
    /// A model without one.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, CliError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let place = self.pretrained.path.display();
            let message = format!("{place} has no tokenizer: put its tokenizer.json there, or give tokens with --ids");
            CliError::Arguments(message)
        })
    }

    /// How the checkpoint wants tokens to be chosen. What it says nowhere of ends is taken from the
    /// tokenizer.
    pub(super) fn defaults(&self) -> Result<GenerateOptions, CliError> {
        let config = |value: &Value, file: &str| {
            GenerationConfig::from_json(value, file).map_err(CliError::language).map(|c| c.options())
        };
        let ends = json!({ "eos_token_id": self.pretrained.config.get("eos_token_id") });
        let mut options = match &self.pretrained.generation_config {
            Some(value) => config(value, "generation_config.json")?,
            None => config(&ends, "config.json")?,
        };
        if options.stop_tokens.is_empty() {
            let words = self.words();
            options.stop_tokens.extend(words.and_then(Tokenizer::eos));
            options.stop_tokens.extend(words.and_then(|t| t.special("eot_token")));
        }
        Ok(options)
    }

    /// The tokenizer, where there is one.
    pub(super) fn words(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }
}

impl LoadArguments {
    /// Opens the model, with notes and progress.
    pub(super) fn open(&self, output: &Output) -> Result<Language, CliError> {
        self.open_place(&self.model, output)
    }

    /// Opens another model with the same settings.
    pub(super) fn open_place(&self, place: &str, output: &Output) -> Result<Language, CliError> {
        let started = Instant::now();
        let mut options = OpenOptions::new();
        if let Some(file) = &self.config {
            options = options.config(file);
        }
        if let Some(revision) = &self.revision {
            options = options.revision(revision);
        }
        if self.offline {
            options = options.offline();
        }
        if output.shows_progress() {
            let bar = Bar::new(output, 0, "bytes");
            options = options.on_progress(move |p| bar.bytes(p.file, p.done, p.total));
        }
        let pretrained = options.open(place).map_err(CliError::language)?;
        let spinner = Bar::spinner(output, &format!("loading {place}"));
        let found = self.build(pretrained);
        spinner.clear();
        let found = found?;
        let (count, seconds) = (found.model.parameter_count() as f64, started.elapsed().as_secs_f64());
        let count = mobilis_runtime::graph::polynomial::quantity(count);
        output.note(&format!("{place}: {count} parameters, loaded in {seconds:.2} s"));
        Ok(found)
    }

    fn build(&self, pretrained: Pretrained) -> Result<Language, CliError> {
        let place = pretrained.path.display().to_string();
        let config = Config::new(place, pretrained.config.clone());
        // Reading a vocabulary takes about as long as opening the model: both at once.
        let (model, tokenizer) = std::thread::scope(|scope| {
            let files = &pretrained.tokenizer;
            let tokenizer = scope.spawn(|| files.open());
            let model = open(&config, &*pretrained.tensors).map_err(CliError::language);
            (model, tokenizer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let model = model?;
        model.set_device(self.device.found()?);
        let model = match model {
            AnyModel::Text(model) => Writer::Continuing(model),
            AnyModel::Encoder(_) => {
                return Err(other(&config, "an encoder", "`mobilis embed` turns texts into vectors with it"));
            }
            AnyModel::Seq2Seq(model) => Writer::Answering(model),
        };
        let tokenizer = match tokenizer {
            Err(TextError::NoTokenizer { .. }) => None,
            found => Some(found.map_err(CliError::language)?),
        };
        Ok(Language { model, tokenizer, pretrained })
    }

    fn weights(&self) -> Weights {
        let weights = Weights::new(self.weights);
        if self.exact { weights.exact() } else { weights }
    }

    fn positions(&self) -> usize {
        self.context.map_or(usize::MAX, |n| n as usize)
    }

    /// A generator with the settings.
    ///
    /// # Errors
    /// An encoder-decoder.
    pub(super) fn generator<'m>(&self, language: &'m Language) -> Result<Generator<'m>, CliError> {
        match &language.model {
            Writer::Continuing(model) => Ok(Generator::new(&**model).weights(self.weights()).context(self.positions())),
            Writer::Answering(model) => {
                Err(other(model.config(), "an encoder-decoder", "`mobilis generate` writes a text for another with it"))
            }
        }
    }

    /// What writes a text for each text, with the settings; nothing for models that continue texts.
    ///
    /// # Errors
    /// Special tokens that are none.
    pub(super) fn translator<'m>(&self, language: &'m Language) -> Result<Option<Translator<'m>>, CliError> {
        let Writer::Answering(model) = &language.model else { return Ok(None) };
        let mut special = model.special();
        if let Some(generation) = &language.pretrained.generation_config {
            let config = Config::new("generation_config.json", generation.clone());
            special = SpecialTokens::of(&config, special).map_err(CliError::language)?;
        }
        let translator = Translator::new(&**model).special(special);
        Ok(Some(translator.weights(self.weights()).context(self.positions())))
    }
}

/// The text of a file; `-` is standard input.
pub(super) fn text_of(path: &Path) -> Result<String, CliError> {
    let read = |source| CliError::Read { path: path.into(), source };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(read)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(read)
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere; nothing with
/// `--quiet` or `--json`.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    /// Where there is no terminal: what is counted, how many there are, and when a line was last
    /// written.
    lines: Option<(String, u64, std::sync::Mutex<Instant>)>,
}

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);

impl Bar {
    /// A bar of `total` things.
    pub(super) fn new(output: &Output, total: u64, what: &str) -> Bar {
        if !output.shows_progress() {
            return Bar { bar: None, lines: None };
        }
        if !std::io::stderr().is_terminal() {
            let lines = (what.to_string(), total, std::sync::Mutex::new(Instant::now()));
            return Bar { bar: None, lines: Some(lines) };
        }
        let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}  ETA {eta}");
        let bar = ProgressBar::new(total);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar: Some(bar), lines: None }
    }

    /// Something that goes on, on a terminal.
    pub(super) fn spinner(output: &Output, message: &str) -> Bar {
        let wanted = output.shows_progress() && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_message(message.to_string());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Bar { bar, lines: None }
    }

    /// So many are done.
    pub(super) fn at(&self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_string());
        }
        let Some((what, total, told)) = &self.lines else { return };
        let Ok(mut told) = told.lock() else { return };
        if told.elapsed() >= PAUSE {
            *told = Instant::now();
            eprintln!("{done} of {total} {what}  {message}");
        }
    }

    /// A line for people that stays, above the bar.
    pub(super) fn note(&self, output: &Output, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.println(text),
            _ => output.note(text),
        }
    }

    /// So many bytes of a file are here.
    fn bytes(&self, file: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            if done >= total {
                bar.finish_and_clear();
            } else {
                bar.reset_eta();
            }
        }
        let size = mobilis_runtime::graph::polynomial::bytes;
        self.at(done, &format!("{file} ({} of {})", size(done), size(total)));
    }

    /// Does what writes to the screen while the bar is not there.
    pub(super) fn hidden<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.suspend(f),
            _ => f(),
        }
    }

    /// Takes it off the screen.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
