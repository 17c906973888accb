//! `mobilis evaluate MODEL CORPUS..`.

use super::devices::DeviceArguments;
use super::language::Bar;
use super::searching::SearchArguments;
use super::{CliError, Output};
use mobilis_zoo::asr::conv::ConvClassifier;
use mobilis_zoo::asr::data::{Utterance, kaldi, manifest, shards};
use mobilis_zoo::asr::evaluate::{Evaluation, evaluate};
use mobilis_zoo::asr::metrics::{Alignment, Errors, Unit};
use mobilis_zoo::asr::open::{AsrOptions, open};
use mobilis_zoo::asr::train::TrainingError;
use mobilis_zoo::import::nemo::{self, is_nemo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The model: an archive that `mobilis train` or NeMo wrote, a folder, an id on the Hugging Face Hub.
    model: String,
    /// Manifests (JSON lines), tar archives, or Kaldi's data directories; `{0..9}` stands for many.
    #[arg(required = true)]
    corpora: Vec<String>,
    /// The most utterances that are heard at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Show what was said and heard, side by side, wherever they differ.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    search: SearchArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let failed = |e: TrainingError| CliError::Train(Box::new(e));
    let options =
        AsrOptions { device: arguments.device.found()?, search: arguments.search.search()?, ..AsrOptions::default() };
    let model = open(&arguments.model, &options).map_err(CliError::language)?;
    let archive = Path::new(&arguments.model);
    let labels = is_nemo(archive) && ConvClassifier::is_one(&nemo::open(archive)?.config);
    let mut utterances = vec![];
    for corpus in &arguments.corpora {
        utterances.extend(read(corpus).map_err(failed)?);
    }
    if utterances.is_empty() {
        return Err(CliError::Arguments(format!("{}: there are no utterances", arguments.corpora.join(", "))));
    }
    let reference = |u: &Utterance| {
        let (found, what) = if labels { (&u.label, "label") } else { (&u.text, "text") };
        found.clone().ok_or_else(|| {
            let fault = format!("`{}` has no `{what}` to compare with", u.sound);
            TrainingError::Folder { folder: arguments.corpora[0].clone().into(), fault }
        })
    };
    let bar = Bar::new(output, utterances.len() as u64, "utterances");
    let found = evaluate(model.recognizer(), &utterances, &reference, arguments.batch.into(), &mut |done| {
        bar.at(done as u64, "")
    });
    bar.clear();
    let found = found.map_err(failed)?;
    output.result(|| text(&found, labels, arguments.diff), || object(&found, labels))
}

/// The utterances of a corpus, by what it is: a directory of Kaldi's, tar archives, manifests.
fn read(corpus: &str) -> Result<Vec<Utterance>, TrainingError> {
    let here = Path::new("");
    Ok(match corpus {
        folder if Path::new(folder).is_dir() => kaldi::read(Path::new(folder))?,
        archives if archives.ends_with(".tar") => shards::web(here, &[archives])?,
        manifests => manifest::read_all(here, &[manifests])?,
    })
}

fn object(found: &Evaluation, labels: bool) -> Value {
    let errors = |e: Errors| {
        json!({
            "rate": if e.rate().is_finite() { json!(e.rate()) } else { Value::Null }, "reference": e.reference(),
            "hits": e.hits, "substitutions": e.substitutions, "deletions": e.deletions, "insertions": e.insertions,
        })
    };
    let heard = found.heard.iter();
    let utterances: Vec<Value> =
        heard.map(|h| json!({"name": h.name, "reference": h.reference, "hypothesis": h.hypothesis})).collect();
    let mut all = json!({
        "utterances": found.heard.len(), "sound_seconds": found.sound.as_secs_f64(),
        "seconds": found.spent.as_secs_f64(), "rtfx": found.rtfx(), "accuracy": found.accuracy(), "heard": utterances,
    });
    if !labels {
        all["wer"] = errors(found.errors(Unit::Words));
        all["cer"] = errors(found.errors(Unit::Characters));
    }
    all
}

fn text(found: &Evaluation, labels: bool, diff: bool) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    if diff {
        for heard in found.heard.iter().filter(|h| h.reference != h.hypothesis) {
            let _ = match labels {
                true => writeln!(out, "{}\n{} heard as {}\n", heard.name, heard.reference, heard.hypothesis),
                false => {
                    let sides = Alignment::new(&heard.reference, &heard.hypothesis, Unit::Words);
                    writeln!(out, "{}\n{sides}\n", heard.name)
                }
            };
        }
    }
    let _ = writeln!(
        out,
        "{} utterances, {:.1} s of sound in {:.2} s: RTFx {:.1}",
        found.heard.len(),
        found.sound.as_secs_f64(),
        found.spent.as_secs_f64(),
        found.rtfx()
    );
    if labels {
        let _ = writeln!(out, "accuracy {:.2} %", 100.0 * found.accuracy());
        let mut confused: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for heard in found.heard.iter().filter(|h| h.reference != h.hypothesis) {
            *confused.entry((&heard.reference, &heard.hypothesis)).or_default() += 1;
        }
        let mut confused: Vec<_> = confused.into_iter().collect();
        confused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((said, heard), count) in confused.into_iter().take(10) {
            let _ = writeln!(out, "  {said} heard as {heard}: {count}");
        }
        return out;
    }
    for (name, unit, what) in [("WER", Unit::Words, "words"), ("CER", Unit::Characters, "characters")] {
        let e = found.errors(unit);
        let _ = writeln!(
            out,
            "{name} {:.2} %: of {} {what} {} substituted, {} left out, {} too many",
            100.0 * e.rate(),
            e.reference(),
            e.substitutions,
            e.deletions,
            e.insertions
        );
    }
    let _ = writeln!(out, "{:.1} % of the utterances without a fault", 100.0 * found.accuracy());
    out
}
