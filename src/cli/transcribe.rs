//! `mobilis transcribe MODEL RECORDING..`: what is said in recordings.

use super::devices::DeviceArguments;
use super::language::{Bar, format as weights};
use super::searching::SearchArguments;
use super::{CliError, Output, streaming};
use mobilis_runtime::program::{WeightFormat, Weights};
use mobilis_runtime::suggest::did_you_mean;
use mobilis_zoo::asr::data::{Sound, manifest};
use mobilis_zoo::asr::formats::{self, Format};
use mobilis_zoo::asr::live::LiveOptions;
use mobilis_zoo::asr::open::{AnyRecognizer, AsrOptions, open};
use mobilis_zoo::asr::whisper::{Manner, Task, TranscribeOptions};
use mobilis_zoo::asr::{AsrError, Blocks, Transcript};
use mobilis_zoo::audio::{Reader, Wanted};
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
    /// 60 for convolutional models, 30 for Conformers and Wav2Vec 2.0]. Whisper has windows of 30 s of its own; models for
    /// streams need none.
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

/// A recording, or a part of one.
struct Job {
    name: String,
    /// None for standard input.
    path: Option<PathBuf>,
    offset: Duration,
    duration: Option<Duration>,
    channel: Option<usize>,
}

impl Job {
    /// A whole recording.
    fn new(name: String, path: Option<PathBuf>) -> Job {
        Job { name, path, offset: Duration::ZERO, duration: None, channel: None }
    }

    fn file(path: &Path) -> Job {
        Job::new(path.display().to_string(), Some(path.into()))
    }

    /// The blocks of the recording, which is opened when the first is wanted.
    fn blocks<'a>(&'a self, rate: u32) -> Blocks<'a> {
        let mut reader: Option<Result<Reader, ()>> = None;
        Box::new(std::iter::from_fn(move || {
            if reader.is_none() {
                let mut wanted = Wanted::at(rate).part(self.offset, self.duration);
                if let Some(channel) = self.channel {
                    wanted = wanted.channel(channel);
                }
                let opened = match &self.path {
                    Some(path) => Reader::open(path, &wanted),
                    None => Reader::stream("standard input", std::io::stdin(), &wanted),
                };
                match opened {
                    Ok(opened) => reader = Some(Ok(opened)),
                    Err(e) => {
                        reader = Some(Err(()));
                        return Some(Err(e));
                    }
                }
            }
            reader.as_mut()?.as_mut().ok()?.next()
        }))
    }
}

/// Endings of files that a folder's recordings have.
const SOUND: [&str; 14] =
    ["wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "aac", "aiff", "aif", "mkv", "webm"];

fn jobs(given: &[String]) -> Result<Vec<Job>, CliError> {
    let mut all = vec![];
    for place in given {
        let path = Path::new(place);
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if place == "-" {
            all.push(Job::new("standard input".into(), None));
        } else if path.is_dir() {
            let before = all.len();
            folder(path, &mut all)?;
            if all.len() == before {
                return Err(CliError::Arguments(format!("`{place}` holds no recordings ({})", SOUND.join(", "))));
            }
        } else if ["json", "jsonl", "manifest"].contains(&ending.as_str()) {
            listed(path, &mut all)?;
        } else {
            all.push(Job::file(path));
        }
    }
    if all.iter().filter(|job| job.path.is_none()).count() > 1 {
        return Err(CliError::Arguments("standard input can be read once: give `-` once".into()));
    }
    Ok(all)
}

/// The recordings in a folder and in those below, by name.
fn folder(path: &Path, all: &mut Vec<Job>) -> Result<(), CliError> {
    let read = |source| CliError::Read { path: path.into(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(read)?.collect();
    let mut entries = entries.map_err(read)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let kind = entry.file_type().map_err(read)?;
        let place = entry.path();
        // A link to a folder above would not end.
        if kind.is_dir() {
            folder(&place, all)?;
        } else if SOUND.contains(&place.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str()) {
            all.push(Job::file(&place));
        }
    }
    Ok(())
}

/// The recordings of a manifest.
fn listed(path: &Path, all: &mut Vec<Job>) -> Result<(), CliError> {
    let wrong = |what: String| CliError::Arguments(format!("{}: {what}", path.display()));
    for utterance in manifest::read(path).map_err(CliError::language)? {
        let name = utterance.sound.to_string();
        let Sound::File(place) = utterance.sound else {
            return Err(wrong(format!("`{name}` lies in an archive: only files are transcribed")));
        };
        let time = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| wrong(format!("{seconds} s of `{name}`: expected seconds")))
        };
        let (offset, duration) = (time(utterance.offset)?, utterance.duration.map(time).transpose()?);
        all.push(Job { path: Some(place), offset, duration, channel: utterance.channel, name });
    }
    Ok(())
}

/// What came of a recording.
type Found = Result<Transcript, AsrError>;

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let jobs = jobs(&arguments.recordings)?;
    let format = arguments.format.or_else(|| by_ending(arguments.output.as_deref())).unwrap_or_default();
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
    let blocks: Vec<Blocks<'_>> = jobs.iter().map(|job| job.blocks(recognizer.sample_rate())).collect();
    let done = Cell::new(0u64);
    // A recording that comes to its end is counted; the others show how far they are.
    let blocks = blocks.into_iter().map(|blocks| counted(blocks, &done)).collect();
    let found = recognizer.listen(blocks, &mut |index, at, _| {
        heard[index].set(at.as_secs_f64());
        let total: f64 = heard.iter().map(Cell::get).sum();
        let speed = total / started.elapsed().as_secs_f64().max(1e-9);
        bar.at(done.get(), &format!("{total:.0} s heard, {speed:.1} times real time"));
    });
    bar.clear();
    let seconds = started.elapsed().as_secs_f64();
    let length: f64 = found.iter().flatten().map(|t| t.duration.as_secs_f64()).sum();
    output
        .note(&format!("{length:.1} s of sound in {seconds:.2} s: {:.1} times real time", length / seconds.max(1e-9)));
    write(arguments, format, &jobs, &found, output, seconds)?;
    let failed = found.iter().filter(|f| f.is_err()).count();
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

/// Transcripts to standard output, to a file, or to files in a folder.
fn write(
    arguments: &Arguments,
    format: Format,
    jobs: &[Job],
    found: &[Found],
    output: &Output,
    seconds: f64,
) -> Result<(), CliError> {
    for (job, found) in jobs.iter().zip(found) {
        if let Err(e) = found {
            eprintln!("error: {}: {e}", job.name);
        }
    }
    let all = || jobs.iter().zip(found).filter_map(|(job, found)| Some((job, found.as_ref().ok()?)));
    if let Some(path) = &arguments.output {
        let single = jobs.len() == 1 && !path.is_dir();
        for (number, (job, transcript)) in all().enumerate() {
            let text = format.write(transcript, &job.name);
            if single {
                save(path, &text)?;
            } else {
                std::fs::create_dir_all(path).map_err(|source| CliError::Write { path: path.clone(), source })?;
                let stem =
                    job.path.as_deref().and_then(Path::file_stem).map_or("stdin".into(), |s| s.to_string_lossy());
                let same = |other: &Job| {
                    other.path.as_deref().and_then(Path::file_stem) == job.path.as_deref().and_then(Path::file_stem)
                };
                // Recordings of one name are numbered.
                let name = match jobs.iter().filter(|other| same(other)).count() {
                    1 => format!("{stem}.{}", format.ending()),
                    _ => format!("{stem}-{number}.{}", format.ending()),
                };
                save(&path.join(name), &text)?;
            }
        }
        if !output.json {
            return Ok(());
        }
    }
    if all().next().is_none() && !output.json {
        return Ok(());
    }
    let length: f64 = all().map(|(_, t)| t.duration.as_secs_f64()).sum();
    output.result(
        || match jobs {
            [job] => all().map(|(_, t)| format.write(t, &job.name)).collect(),
            _ => all()
                .map(|(job, t)| match format {
                    Format::Text => format!("{}\t{}\n", job.name, t.text),
                    Format::Json => format!("{}\n", formats::value(t, &job.name)),
                    Format::Ctm => format.write(t, &job.name),
                    Format::Srt | Format::Vtt => format!("--- {}\n{}", job.name, format.write(t, &job.name)),
                })
                .collect(),
        },
        || {
            let error = |(job, found): (&Job, &Found)| {
                found.as_ref().err().map(|e| json!({ "recording": job.name, "error": e.to_string() }))
            };
            json!({
                "model": arguments.model,
                "transcripts": all().map(|(job, t)| formats::value(t, &job.name)).collect::<Vec<_>>(),
                "failed": jobs.iter().zip(found).filter_map(error).collect::<Vec<_>>(),
                "seconds": seconds,
                "sound": length,
                "rtfx": length / seconds.max(1e-9),
            })
        },
    )
}

/// Writes a file at once, or not at all.
fn save(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: path.into(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&new);
        failed(e)
    })
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

    #[test]
    fn manifests_and_folders_give_recordings() {
        let folder = std::env::temp_dir().join(format!("mobilis-transcribe-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for name in ["b.wav", "a.FLAC", "notes.txt", "deep/c.mp3"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let list = folder.join("list.jsonl");
        std::fs::write(&list, "{\"audio_filepath\": \"b.wav\", \"offset\": 1.5, \"duration\": null}\n\n").unwrap();
        let of = |place: &Path| jobs(&[place.display().to_string()]).unwrap();
        let names: Vec<String> = of(&folder).iter().map(|job| job.name.rsplit('/').next().unwrap().into()).collect();
        assert_eq!(names, ["a.FLAC", "b.wav", "c.mp3"]);
        let found = of(&list);
        assert_eq!((found[0].offset, found[0].duration), (Duration::from_millis(1500), None));
        assert_eq!(found[0].path.as_deref(), Some(&*folder.join("b.wav")));
        std::fs::write(&list, "{\"audio_filepath\": \"b.wav\", \"offset\": -1}").unwrap();
        let error = jobs(&[list.display().to_string()]).err().unwrap().to_string();
        assert!(error.contains("offset"), "{error}");
        assert!(jobs(&["-".into(), "-".into()]).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
