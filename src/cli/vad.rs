//! `mobilis vad`: where somebody speaks.

use super::devices::DeviceArguments;
use super::recordings::{Failed, files};
use super::{CliError, Output};
use clap::Args;
use mobilis_zoo::asr::vad::{self, Detector, Rules, SegmentOptions, Smoothing, Speech};
use mobilis_zoo::asr::voice::VoiceError;
use mobilis_zoo::audio::{Reader, Wanted};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Find the parts of recordings in which somebody speaks.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Recordings of any format, folders of them; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A folder or file of Silero's weights, or a `.nemo` archive of a MarbleNet for frames or windows.
    #[arg(long, short)]
    model: PathBuf,
    /// Speech begins at this probability.
    #[arg(long, default_value_t = 0.5, value_parser = probability)]
    threshold: f32,
    /// Speech ends below this probability [default: 0.15 less than the threshold].
    #[arg(long, value_parser = probability)]
    end_threshold: Option<f32>,
    /// What is shorter is no speech, in milliseconds [default: 250, by NeMo's rules 0].
    #[arg(long, value_name = "MS")]
    min_speech: Option<u64>,
    /// Speech goes on across silence that is shorter, in milliseconds [default: 100, by NeMo's rules 0].
    #[arg(long, value_name = "MS")]
    min_silence: Option<u64>,
    /// What is added on both sides, in milliseconds [default: 30, by NeMo's rules 0].
    #[arg(long, value_name = "MS")]
    padding: Option<u64>,
    /// How speech is found: as Silero does (silero), or by NeMo's onset and offset (nemo), whose offset is that of
    /// the onset unless given.
    #[arg(long, default_value = "silero", value_parser = ["silero", "nemo"])]
    rules: String,
    /// Make one value of what overlapping windows say: mean, median.
    #[arg(long, value_parser = ["mean", "median"])]
    smoothing: Option<String>,
    /// The share of their length by which windows overlap that are smoothed.
    #[arg(long, default_value_t = 0.875, requires = "smoothing")]
    overlap: f64,
    /// Print the probabilities too.
    #[arg(long)]
    probabilities: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

fn probability(text: &str) -> Result<f32, String> {
    let value: Option<f32> = text.parse().ok();
    value.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| format!("`{text}` is no probability of 0 to 1"))
}

/// What was found in a recording.
struct Found {
    length: Duration,
    speech: Vec<Speech>,
    probabilities: Vec<f32>,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let device = arguments.device.found()?;
    let detector = vad::open(&arguments.model)?;
    detector.set_device(device);
    let files = files(&arguments.files)?;
    let (mut all, mut failed) = (Vec::new(), Failed::of(files.len()));
    for file in &files {
        let Some(found) = failed.keep(file, heard(&*detector, file, arguments))? else { continue };
        let text = if output.json { String::new() } else { text(arguments, file, &found, files.len() > 1) };
        if !text.is_empty() {
            output.result(|| text, || Value::Null)?;
        }
        all.push(object(arguments, file, &found));
    }
    if output.json {
        let step = detector.step() as f64 / f64::from(detector.sample_rate());
        output.result(String::new, || json!({ "step": step, "files": all, "failed": failed.list }))?;
    }
    failed.end()
}

/// One recording, block by block: memory does not grow with its length, but for a number each step.
fn heard(detector: &dyn Detector, file: &Path, arguments: &Arguments) -> Result<Found, CliError> {
    let wanted = Wanted::at(detector.sample_rate());
    let reader = match file == Path::new("-") {
        true => Reader::stream("standard input", std::io::stdin(), &wanted),
        false => Reader::open(file, &wanted),
    };
    let mut listener = detector.listen()?;
    let (mut probabilities, mut samples) = (Vec::new(), 0u64);
    for block in reader.map_err(VoiceError::from)? {
        let block = block.map_err(VoiceError::from)?;
        samples += block.len() as u64;
        probabilities.extend(listener.push(&block)?);
    }
    probabilities.extend(listener.finish()?);
    let seconds = |samples: f64| Duration::from_secs_f64(samples / f64::from(detector.sample_rate()));
    let (step, length) = (seconds(detector.step() as f64), seconds(samples as f64));
    if let Some(how) = &arguments.smoothing {
        let how = if how == "mean" { Smoothing::Mean } else { Smoothing::Median };
        let window = detector.window() / detector.step();
        probabilities = vad::smoothed(&probabilities, window, arguments.overlap, how)?;
    }
    Ok(Found { length, speech: speech(&probabilities, step, length, arguments), probabilities })
}

/// The parts with speech, by the rules that were asked for.
fn speech(probabilities: &[f32], step: Duration, length: Duration, arguments: &Arguments) -> Vec<Speech> {
    let milliseconds = Duration::from_millis;
    if arguments.rules == "nemo" {
        let seconds = |ms: Option<u64>| milliseconds(ms.unwrap_or(0)).as_secs_f64();
        let rules = Rules {
            onset: arguments.threshold,
            offset: arguments.end_threshold.unwrap_or(arguments.threshold),
            pad_onset: seconds(arguments.padding),
            pad_offset: seconds(arguments.padding),
            min_duration_on: seconds(arguments.min_speech),
            min_duration_off: seconds(arguments.min_silence),
            ..Rules::default()
        };
        return vad::ruled(probabilities, step, length, &rules);
    }
    let silero = SegmentOptions::default();
    let options = SegmentOptions {
        threshold: arguments.threshold,
        end_threshold: arguments.end_threshold,
        min_speech: arguments.min_speech.map_or(silero.min_speech, milliseconds),
        min_silence: arguments.min_silence.map_or(silero.min_silence, milliseconds),
        padding: arguments.padding.map_or(silero.padding, milliseconds),
    };
    vad::segments(probabilities, step, length, &options)
}

/// Seconds of speech.
fn spoken(found: &Found) -> f64 {
    found.speech.iter().map(|s| s.end - s.start).sum::<Duration>().as_secs_f64()
}

/// A line for each part: begin, end, probability.
fn text(arguments: &Arguments, file: &Path, found: &Found, several: bool) -> String {
    let mut out = String::new();
    let spoken = spoken(found);
    if several {
        let (name, length) = (file.display(), found.length.as_secs_f64());
        let _ = writeln!(out, "{name}: {spoken:.2} s of {length:.2} s");
    }
    for s in &found.speech {
        let (start, end) = (s.start.as_secs_f64(), s.end.as_secs_f64());
        let _ = writeln!(out, "{start:10.3} {end:10.3} {:6.3}", s.confidence);
    }
    if arguments.probabilities {
        let line: Vec<String> = found.probabilities.iter().map(|p| format!("{p:.4}")).collect();
        let _ = writeln!(out, "{}", line.join(" "));
    }
    out
}

fn object(arguments: &Arguments, file: &Path, found: &Found) -> Value {
    let segment =
        |s: &Speech| json!({ "start": s.start.as_secs_f64(), "end": s.end.as_secs_f64(), "confidence": s.confidence });
    let spoken = spoken(found);
    let mut object = json!({
        "file": file, "duration": found.length.as_secs_f64(), "speech": spoken,
        "segments": found.speech.iter().map(segment).collect::<Vec<_>>(),
    });
    if arguments.probabilities {
        object["probabilities"] = json!(found.probabilities);
    }
    object
}
