//! `mobilis transcribe MODEL RECORDING..`: what is said in recordings.

use super::devices::DeviceArguments;
use super::language::{Bar, format as weights};
use super::recordings::{Job, groups, jobs};
use super::searching::SearchArguments;
use super::transcripts::{Found, Place};
use super::{CliError, Output, streaming};
use mobilis_runtime::program::{WeightFormat, Weights};
use mobilis_runtime::suggest::did_you_mean;
use mobilis_zoo::asr::Blocks;
use mobilis_zoo::asr::formats::{self, Format};
use mobilis_zoo::asr::live::LiveOptions;
use mobilis_zoo::asr::open::{AnyRecognizer, AsrOptions, open};
use mobilis_zoo::asr::whisper::{Manner, Task, TranscribeOptions};
use mobilis_zoo::import::OpenOptions;
use serde_json::json;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A folder with a Whisper, Wav2Vec 2.0 or Parakeet, an archive of NeMo's, a file with weights beside its
    /// config.json, or an id on the Hugging Face Hub.
    model: String,
    /// Recordings, folders of recordings, manifests (JSON lines with audio_filepath, offset, duration);
    /// `-` is a recording on standard input.
    #[arg(required = true)]
    recordings: Vec<String>,
    /// The form of transcripts: txt, json, srt, vtt, ctm [default: that of --output's ending, or txt].
    #[arg(long, value_parser = form)]
    format: Option<Format>,
    /// Where transcripts go: a file, or of several recordings a folder [default: standard output].
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Tell what is said while it is spoken: each segment as soon as it is complete, on a terminal what is being said
    /// below; with --json a line for each. Models for streams hear every sound once, others stretches between pauses.
    #[arg(long, conflicts_with_all = ["output", "window"])]
    stream: bool,
    /// With --stream: the seconds of sound after which what is being said is told anew; 0 for not before it is complete.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, requires = "stream", value_parser = seconds)]
    every: f32,
    /// With --stream: the seconds of silence that complete a segment.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.6, requires = "stream", value_parser = seconds)]
    pause: f32,
    /// The language, by its code (en, de, ...) [default: what the model hears].
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// What is written: transcribe (what is said), translate (the same in English, or in --target).
    #[arg(long, default_value = "transcribe", value_parser = task)]
    task: Task,
    /// The language that is written, by its code: Canary translates into others than English, too.
    #[arg(long, value_name = "CODE")]
    target: Option<String>,
    /// Neither punctuation nor capital letters (Canary).
    #[arg(long)]
    no_punctuation: bool,
    /// What was said before: names and words as they are to be spelled.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Tell the times of words, too.
    #[arg(long)]
    words: bool,
    /// No times: long recordings are cut every 30 s.
    #[arg(long, conflicts_with = "words")]
    no_times: bool,
    /// Do not tell each window of 30 s what was said before it.
    #[arg(long)]
    no_carry: bool,
    /// Take the likeliest tokens only, however implausible the text is.
    #[arg(long, conflicts_with_all = ["beam", "lm", "boost"])]
    greedy: bool,
    /// Let every token come, signs that nobody says among them.
    #[arg(long)]
    plain: bool,
    /// Which texts are drawn where greedy ones are implausible.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The length of windows, in seconds, in which long recordings are heard, besides a margin on both sides [default:
    /// 60 for convolutional models, 30 for Conformers and Wav2Vec 2.0]. Models that tell recordings apart have a label for
    /// each window. Whisper has windows of 30 s of its own, Canary of up to 40; models for streams need none.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    window: Option<u32>,
    /// Recordings that are worked on side by side.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// How weights are stored: as in the file (stored), or f32, bf16, f16, q8_0, q4_0, int8.
    #[arg(long, value_name = "FORMAT", default_value = "stored", value_parser = weights)]
    weights: WeightFormat,
    #[command(flatten)]
    search: SearchArguments,
    #[command(flatten)]
    device: DeviceArguments,
    /// A branch, tag or commit on the Hub.
    #[arg(long)]
    revision: Option<String>,
    /// Ask no network: only what was downloaded before.
    #[arg(long)]
    offline: bool,
}

fn form(text: &str) -> Result<Format, String> {
    let names = Format::ALL.map(|(name, _)| name);
    let wanted = if text == "text" { "txt" } else { text };
    Format::ALL
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, format)| *format)
        .ok_or_else(|| format!("expected one of {}{}", names.join(", "), did_you_mean(text, names)))
}

fn seconds(text: &str) -> Result<f32, String> {
    let fits = |n: &f32| (0.0..=3600.0).contains(n);
    text.parse().ok().filter(fits).ok_or_else(|| "expected seconds, 0 to 3600".to_string())
}

fn task(text: &str) -> Result<Task, String> {
    match text {
        "transcribe" => Ok(Task::Transcribe),
        "translate" => Ok(Task::Translate),
        _ => Err(format!("expected transcribe or translate{}", did_you_mean(text, ["transcribe", "translate"]))),
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let jobs = jobs(&arguments.recordings)?;
    let format = arguments.format.or_else(|| by_ending(arguments.output.as_deref())).unwrap_or_default();
    // Before an hour of hearing.
    let place = Place::new(arguments.output.as_deref(), &jobs)?;
    let model = model(arguments, format, output)?;
    let recognizer = model.recognizer();
    if arguments.stream {
        let json = output.json || format == Format::Json;
        if !json && format != Format::Text {
            return Err(CliError::Arguments("with --stream the form is txt or json".into()));
        }
        let [every, pause] = [arguments.every, arguments.pause].map(Duration::from_secs_f32);
        let options = LiveOptions { every, pause, ..LiveOptions::default() };
        let jobs = jobs.iter().map(|job| (job.name.as_str(), job.blocks(recognizer.sample_rate()))).collect();
        return streaming::run(recognizer, jobs, &options, output, json);
    }
    let started = Instant::now();
    let bar = Bar::new(output, jobs.len() as u64, "recordings");
    let heard: Vec<Cell<f64>> = jobs.iter().map(|_| Cell::new(0.0)).collect();
    let done = Cell::new(0u64);
    let mut found: Vec<Found> = Vec::with_capacity(jobs.len());
    for group in groups(&jobs, 4 * arguments.batch as usize) {
        let first = group.start;
        let blocks = jobs[group.clone()].iter().map(|job| job.blocks(recognizer.sample_rate()));
        // A recording that comes to its end is counted; the others show how far they are.
        let blocks: Vec<Blocks<'_>> = blocks.map(|blocks| counted(blocks, &done)).collect();
        found.extend(recognizer.listen(blocks, &mut |index, at, _| {
            heard[first + index].set(at.as_secs_f64());
            let total: f64 = heard.iter().map(Cell::get).sum();
            let speed = total / started.elapsed().as_secs_f64().max(1e-9);
            bar.at(done.get(), &format!("{total:.0} s heard, {speed:.1} times real time"));
        }));
        // What was heard stays, whatever becomes of the rest.
        bar.hidden(|| place.write(format, &jobs, group, &found[first..], output))?;
    }
    bar.clear();
    let seconds = started.elapsed().as_secs_f64();
    let length = found.iter().flatten().map(|t| t.duration.as_secs_f64()).fold(0.0, |a, b| a + b);
    let failed = found.iter().filter(|f| f.is_err()).count();
    if failed < jobs.len() {
        let speed = length / seconds.max(1e-9);
        output.note(&format!("{length:.1} s of sound in {seconds:.2} s: {speed:.1} times real time"));
    }
    if output.json {
        let error = |(job, found): (&Job, &Found)| {
            found.as_ref().err().map(|e| json!({ "recording": job.name, "error": e.to_string() }))
        };
        let all = || jobs.iter().zip(&found);
        let object = || {
            json!({
                "model": arguments.model,
                "transcripts": all().filter_map(|(job, t)| Some(formats::value(t.as_ref().ok()?, &job.name))).collect::<Vec<_>>(),
                "failed": all().filter_map(error).collect::<Vec<_>>(),
                "seconds": seconds,
                "sound": length,
                "rtfx": length / seconds.max(1e-9),
            })
        };
        output.result(String::new, object)?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Arguments(format!("{failed} of {} recordings could not be transcribed", jobs.len()))),
    }
}

/// Blocks that count one when they end.
fn counted<'a>(mut blocks: Blocks<'a>, done: &'a Cell<u64>) -> Blocks<'a> {
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        let next = blocks.next();
        if !matches!(next, Some(Ok(_))) && !std::mem::replace(&mut ended, true) {
            done.set(done.get() + 1);
        }
        next
    }))
}

/// The form that a file's ending names.
fn by_ending(path: Option<&Path>) -> Option<Format> {
    let ending = path?.extension()?.to_string_lossy().to_lowercase();
    Format::ALL.iter().find(|(name, _)| *name == ending).map(|(_, format)| *format)
}

/// Opens the model with what was asked for.
fn model(arguments: &Arguments, format: Format, output: &Output) -> Result<AnyRecognizer, CliError> {
    let started = Instant::now();
    let mut place = OpenOptions::new();
    if let Some(revision) = &arguments.revision {
        place = place.revision(revision);
    }
    if arguments.offline {
        place = place.offline();
    }
    let options = AsrOptions {
        open: place,
        device: arguments.device.found()?,
        weights: Weights::new(arguments.weights),
        search: arguments.search.search()?,
        window: arguments.window.map(|seconds| Duration::from_secs(u64::from(seconds))),
        batch: arguments.batch as usize,
    };
    let spinner = Bar::spinner(output, &format!("loading {}", arguments.model));
    let found = open(&arguments.model, &options);
    spinner.clear();
    let found = found.map_err(CliError::language)?;
    output.note(&format!("{}: loaded in {:.2} s", arguments.model, started.elapsed().as_secs_f64()));
    match found {
        AnyRecognizer::Whisper(whisper) => {
            refuse(arguments, &[("--no-punctuation", arguments.no_punctuation)])?;
            let task = match arguments.target.as_deref() {
                None => arguments.task,
                Some("en") => Task::Translate,
                Some(other) => {
                    let message = format!("`{}` translates into English alone, not into `{other}`", arguments.model);
                    return Err(CliError::Arguments(message));
                }
            };
            let temperatures = if arguments.greedy { vec![0.0] } else { Manner::default().temperatures };
            let options = TranscribeOptions {
                language: arguments.language.clone(),
                task,
                times: !arguments.no_times,
                words: arguments.words || format == Format::Ctm,
                prompt: arguments.prompt.clone(),
                carry: !arguments.no_carry,
                suppress: !arguments.plain,
                batch: arguments.batch as usize,
                manner: Manner { temperatures, seed: arguments.seed, ..Manner::default() },
            };
            let whisper = whisper.with(options).map_err(CliError::language)?;
            Ok(AnyRecognizer::Whisper(Box::new(whisper)))
        }
        AnyRecognizer::Canary(canary) => {
            refuse(arguments, &[("--no-carry", arguments.no_carry)])?;
            let mut options = canary.options().clone();
            let prompt = &mut options.prompt;
            if let Some(language) = &arguments.language {
                (prompt.source, prompt.target) = (language.clone(), language.clone());
            }
            match (&arguments.target, arguments.task) {
                (Some(target), _) => prompt.target.clone_from(target),
                (None, Task::Translate) => prompt.target = "en".into(),
                (None, Task::Transcribe) => {}
            }
            prompt.punctuation &= !arguments.no_punctuation;
            prompt.timestamps |= arguments.words || format == Format::Ctm;
            options.context.clone_from(&arguments.prompt);
            let canary = canary.with(options).map_err(CliError::language)?;
            Ok(AnyRecognizer::Canary(Box::new(canary)))
        }
        other => {
            let given = [
                ("--language", arguments.language.is_some()),
                ("--task", arguments.task != Task::Transcribe),
                ("--target", arguments.target.is_some()),
                ("--no-punctuation", arguments.no_punctuation),
                ("--prompt", arguments.prompt.is_some()),
                ("--no-carry", arguments.no_carry),
            ];
            refuse(arguments, &given)?;
            Ok(other)
        }
    }
}

/// Refuses what was given and the model does not know.
fn refuse(arguments: &Arguments, given: &[(&str, bool)]) -> Result<(), CliError> {
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(CliError::Arguments(format!("`{}` takes no {name}", arguments.model))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_tasks_are_named() {
        assert_eq!(form("srt"), Ok(Format::Srt));
        assert_eq!(form("text"), Ok(Format::Text));
        assert!(form("srtt").unwrap_err().contains("srt"));
        assert!(task("translat").unwrap_err().contains("translate"));
        assert_eq!(by_ending(Some(Path::new("a/b.VTT"))), Some(Format::Vtt));
        assert_eq!(by_ending(Some(Path::new("folder"))), None);
    }
}
