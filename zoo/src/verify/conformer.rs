//! Conformers: the stream, what heads say, losses, gradients, greedy tokens; and NeMo's archive beside them.
//!
//! NeMo's folders (`out.*`, `train.safetensors`) have the stream channels first; those of Hugging Face's
//! Parakeet frames first, and behind a recording's end the latter hold what attention to nothing happens to
//! be there, so that only frames that count are compared.

use super::{ABSOLUTE, Check, Golden, RELATIVE, VerifyError};
use crate::asr::conformer::network::{Features, Heard};
use crate::asr::conformer::score::Targets;
use crate::asr::conformer::{Network, model::HeadSettings};
use crate::asr::decode::transducer::{self, GreedyOptions};
use crate::asr::decode::{Encoded, Hypothesis, Transducer};
use crate::audio::features as audio;
use crate::llm::config::Config;
use crate::llm::family::OpenError;
use crate::llm::family::Values;
use mobilis_runtime::Device;
use mobilis_runtime::checkpoint::{Checkpoint, Source};
use std::path::Path;

/// Losses, relative to themselves.
const LOSS: f64 = 3e-6;
/// Gradients, relative to the largest of the model.
const GRADIENT: f64 = 2e-5;
/// Features: silent bins near the guard of the logarithm differ most.
const FEATURES: f64 = 5e-4;

/// Everything that a golden folder of a Conformer may expect.
///
/// # Errors
/// Tensors of another form, a model that cannot be run.
pub fn checks(
    network: &Network,
    config: &Config,
    folder: &Path,
    device: Device,
    golden: &Golden,
) -> Result<Vec<Check>, VerifyError> {
    match golden.has("in.input_features") {
        true => {
            // Hugging Face pads the labels of TDT with another token than blank.
            let tdt = !network.durations().is_empty();
            let padding = if tdt { config.count("pad_token_id").map_err(OpenError::from)? } else { None };
            let mut checks = parakeet(network, padding.unwrap_or(network.settings.blank) as i32, golden)?;
            checks.extend(parakeet_features(folder, golden, device)?);
            Ok(checks)
        }
        false => {
            let mut checks = nemo(network, folder, golden)?;
            checks.extend(nemo_features(config, golden, device)?);
            Ok(checks)
        }
    }
}

fn lengths(golden: &Golden, name: &str) -> Result<Vec<usize>, VerifyError> {
    Ok(golden.wholes(name)?.1.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect())
}

/// The last two axes of `[batch, a, b]` exchanged.
fn turned(values: &Values) -> Values {
    let [batch, a, b] = values.sizes[..] else { return values.clone() };
    let at = |i: usize, j: usize, k: usize| values.data[(i * a + k) * b + j];
    let all = (0..batch).flat_map(|i| (0..b).flat_map(move |j| (0..a).map(move |k| (i, j, k))));
    Values { sizes: vec![batch, b, a], data: all.map(|(i, j, k)| at(i, j, k)).collect() }
}

fn reals(golden: &Golden, name: &str) -> Result<Values, VerifyError> {
    let (sizes, data) = golden.reals(name)?;
    Ok(Values { sizes, data: data.into_iter().map(|v| v as f32).collect() })
}

/// Rows of each recording for a search.
fn recordings(heard: &Heard) -> Vec<Encoded<'_>> {
    let (frames, width) = (heard.head.sizes[1], heard.head.sizes[2]);
    let of = |(i, n): (usize, &usize)| {
        let begin = i * frames * width;
        Encoded { values: &heard.head.data[begin..begin + n * width], width }
    };
    heard.lengths.iter().enumerate().map(of).collect()
}

fn greedy(network: &Network, heard: &Heard) -> Result<Vec<Hypothesis>, VerifyError> {
    let HeadSettings::Transducer { max_symbols, .. } = network.settings.head else { return Ok(vec![]) };
    let options = GreedyOptions { max_symbols, ..GreedyOptions::default() };
    Ok(transducer::greedy(network, &recordings(heard), &options)?)
}

/// Features of the recordings, `[batch, frames, mels]`, as many frames as are expected: theirs beyond the last
/// that counts are all alike.
fn heard_features(
    features: audio::Features,
    recordings: &[Vec<f32>],
    frames: usize,
    device: Device,
) -> Result<(Values, Vec<i64>), VerifyError> {
    let rows: Vec<&[f32]> = recordings.iter().map(Vec::as_slice).collect();
    let found = audio::Extractor::new(features, device)?.run(&rows)?;
    let kept = frames.min(found.frames);
    let row = |i: usize| found.values[i * found.frames * found.width..][..kept * found.width].to_vec();
    let data = (0..recordings.len()).flat_map(row).collect();
    let counted = found.counted.iter().map(|n| *n as i64).collect();
    Ok((Values { sizes: vec![recordings.len(), kept, found.width], data }, counted))
}

/// Features of NeMo's `preprocessor`.
fn nemo_features(config: &Config, golden: &Golden, device: Device) -> Result<Vec<Check>, VerifyError> {
    let Some(preprocessor) = config.inner("preprocessor") else { return Ok(vec![]) };
    let version = audio::Version::parse(config.word("nemo_version").map_err(OpenError::from)?);
    let (sizes, samples) = golden.reals("in.audio")?;
    let counts = lengths(golden, "in.audio_length")?;
    let row = sizes.last().copied().unwrap_or(1).max(1);
    let of = |(row, n): (&[f64], &usize)| row[..(*n).min(row.len())].iter().map(|v| *v as f32).collect();
    let recordings: Vec<Vec<f32>> = samples.chunks(row).zip(&counts).map(of).collect();
    let frames = golden.sizes("out.features")?.last().copied().unwrap_or(0);
    let (found, counted) = heard_features(audio::Features::nemo(&preprocessor, version)?, &recordings, frames, device)?;
    let found = turned(&found);
    let values = found.data.iter().map(|v| f64::from(*v));
    Ok(vec![
        golden.compare_within("out.features", &found.sizes, values, |_| FEATURES)?,
        golden.compare_ids("out.features_length", &counted)?,
    ])
}

/// Features of Hugging Face's `preprocessor_config.json`, of recordings `feat.audio0`, ..
fn parakeet_features(folder: &Path, golden: &Golden, device: Device) -> Result<Vec<Check>, VerifyError> {
    let names = golden.names("feat.audio");
    let Some(config) = super::beside(folder, "preprocessor_config.json")?.filter(|_| !names.is_empty()) else {
        return Ok(vec![]);
    };
    let read = |name: &String| Ok(reals(golden, name)?.data);
    let recordings = names.iter().map(read).collect::<Result<Vec<_>, VerifyError>>()?;
    let frames = golden.sizes("in.input_features")?.get(1).copied().unwrap_or(0);
    let (found, _) = heard_features(audio::Features::hugging_face(&config)?, &recordings, frames, device)?;
    let values = found.data.iter().map(|v| f64::from(*v));
    Ok(vec![golden.compare_within("in.input_features", &found.sizes, values, |_| FEATURES)?])
}

/// The best class of every frame.
fn best(rows: &Values) -> Vec<i64> {
    let width = rows.sizes.last().copied().unwrap_or(1).max(1);
    rows.data.chunks(width).map(|row| i64::from(super::causal::best(row))).collect()
}

/// `x - log sum exp` of rows of a width.
fn log_softmax(values: &mut [f32], width: usize) {
    for row in values.chunks_mut(width.max(1)) {
        let most = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let sum: f64 = row.iter().map(|v| f64::from(v - most).exp()).sum();
        let shift = most + sum.ln() as f32;
        row.iter_mut().for_each(|v| *v -= shift);
    }
}

fn nemo(network: &Network, folder: &Path, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    let lens = lengths(golden, "out.features_length")?;
    let features = Features { values: turned(&reals(golden, "out.features")?), lengths: lens };
    let heard = network.hear(&features, None, false)?;
    golden.expect(&mut checks, "out.encoder", &turned(&heard.stream))?;
    let counted: Vec<i64> = heard.lengths.iter().map(|n| *n as i64).collect();
    checks.push(golden.compare_ids("out.encoder_length", &counted)?);
    golden.expect(&mut checks, "out.log_probs", &heard.head)?;
    if golden.has("out.greedy") {
        checks.push(golden.compare_ids("out.greedy", &best(&heard.head))?);
    }
    for (i, found) in greedy(network, &heard)?.iter().enumerate() {
        let ids: Vec<i64> = found.tokens.iter().map(|t| i64::from(t.id)).collect();
        let frames: Vec<i64> = found.tokens.iter().map(|t| t.start as i64).collect();
        for (name, found) in [(format!("gen.tokens{i}"), ids), (format!("gen.frames{i}"), frames)] {
            if golden.has(&name) {
                checks.push(golden.compare_ids(&name, &found)?);
            }
        }
    }
    let targets = Targets { labels: golden.wholes("in.targets")?.1, lengths: lengths(golden, "in.target_length")? };
    let train = folder.join("train.safetensors");
    let train = train.exists().then(|| Golden::open(&train)).transpose()?;
    for (part, training) in [("eval", false), ("train", true)] {
        if training && train.is_none() {
            continue;
        }
        let scorer = network.scorer(training)?;
        for (name, mut values) in scorer.run(&features, &targets)? {
            let width = match (name, &network.settings.head) {
                ("joint", HeadSettings::Transducer { durations, .. }) => network.settings.classes + durations.len(),
                _ => 0,
            };
            if width > 0 {
                // On a CPU NeMo's joint gives logarithms of probabilities.
                log_softmax(&mut values, width);
            }
            if !training {
                let name = match name {
                    "loss_per_sample" if golden.has("out.ctc_per_sample") => "out.ctc_per_sample".to_string(),
                    name => format!("out.{name}"),
                };
                said(golden, &name, &values, &mut checks)?;
            }
            if let Some(train) = &train {
                scored(train, part, name, &values, &mut checks)?;
            }
        }
    }
    if let Some(train) = &train {
        for name in train.names("train.after.") {
            let found = network.values(&name["train.after.".len()..]).unwrap_or_default();
            said(train, &name, &found, &mut checks)?;
        }
        train.complete_with(&["eval.", "train."], &mut checks);
    }
    checks.extend(archive(folder)?);
    Ok(checks)
}

/// Holds values against those of a name, whose order of axes may be channels first.
fn said(golden: &Golden, name: &str, values: &[f32], checks: &mut Vec<Check>) -> Result<(), VerifyError> {
    if !golden.has(name) || checks.iter().any(|c| c.name == name) {
        return Ok(());
    }
    let sizes = golden.sizes(name)?;
    let relative = if name.contains("loss") || name.contains("per_sample") { LOSS } else { RELATIVE };
    if name == "out.decoder" && sizes.len() == 3 {
        // NeMo has the predictor's values channels first.
        let found = turned(&Values { sizes: vec![sizes[0], sizes[2], sizes[1]], data: values.to_vec() });
        checks.push(golden.compare(name, &found.sizes, &found.data)?);
        return Ok(());
    }
    let found = values.iter().map(|v| f64::from(*v));
    let fits = if values.len() == sizes.iter().product::<usize>() { sizes } else { vec![values.len()] };
    checks.push(golden.compare_within(name, &fits, found, |largest| relative * largest + ABSOLUTE)?);
    Ok(())
}

/// The same of `train.safetensors`: outputs, losses, gradients, or their norms and sums.
fn scored(train: &Golden, part: &str, name: &str, values: &[f32], checks: &mut Vec<Check>) -> Result<(), VerifyError> {
    let Some(parameter) = name.strip_prefix("grad.") else {
        return said(train, &format!("{part}.{name}"), values, checks);
    };
    let mut largest = 0f64;
    for name in train.names(&format!("{part}.grad.")) {
        largest = train.reals(&name)?.1.iter().fold(largest, |m, v| m.max(v.abs()));
    }
    let whole = format!("{part}.grad.{parameter}");
    if train.has(&whole) {
        let sizes = train.sizes(&whole)?;
        let found = values.iter().map(|v| f64::from(*v));
        checks.push(train.compare_within(&whole, &sizes, found, |_| GRADIENT * largest + ABSOLUTE)?);
    }
    let norm = format!("{part}.gradnorm.{parameter}");
    if train.has(&norm) {
        let mut most = 0f64;
        for name in train.names(&format!("{part}.gradnorm.")) {
            most = most.max(train.reals(&name)?.1[0]);
        }
        let wide = values.iter().map(|v| f64::from(*v));
        let found = [wide.clone().map(|v| v * v).sum::<f64>().sqrt(), wide.sum()];
        checks.push(train.compare_within(&norm, &[2], found.into_iter(), |_| GRADIENT * most + ABSOLUTE)?);
    }
    Ok(())
}

/// That the `.nemo` file of a folder holds the same tensors as its `model.safetensors`.
pub(super) fn archive(folder: &Path) -> Result<Vec<Check>, VerifyError> {
    let Some(name) = folder.file_name().map(|n| format!("{}.nemo", n.display())) else { return Ok(vec![]) };
    let path = folder.join(&name);
    if !path.exists() {
        return Ok(vec![]);
    }
    let archive = crate::import::nemo::open(&path).map_err(VerifyError::Import)?;
    let tensors = Checkpoint::open(folder.join("model.safetensors"))?;
    let mut wrong = vec![];
    for name in tensors.names() {
        let bytes = |source: &dyn Source| {
            let mut bytes = vec![];
            source.raw(name).ok().and_then(|raw| raw.copy_to(&mut bytes).ok()).map(|()| bytes)
        };
        let (a, b) = (bytes(&tensors), bytes(&*archive.tensors));
        if a.is_none() || a != b {
            wrong.push(name);
        }
    }
    let count = tensors.names().len();
    let same = archive.tensors.names().len() == count && wrong.is_empty();
    Ok(vec![Check {
        name,
        sizes: vec![count],
        absolute: Some(wrong.len() as f64),
        relative: Some(wrong.len() as f64 / count.max(1) as f64),
        tolerance: 0.0,
        passed: same,
        note: wrong.first().map(|name| format!("`{name}` differs")).unwrap_or_default(),
    }])
}

/// Only the frames that count, of both sides.
fn counted(golden: &Golden, name: &str, found: &Values, lengths: &[usize]) -> Result<Option<Check>, VerifyError> {
    if !golden.has(name) {
        return Ok(None);
    }
    let expected = reals(golden, name)?;
    let mut values = found.clone();
    if values.sizes == expected.sizes && values.sizes.len() >= 2 {
        let (frames, each) = (values.sizes[1], values.sizes[2..].iter().product::<usize>());
        for (i, n) in lengths.iter().enumerate() {
            let behind = (i * frames + n) * each..(i + 1) * frames * each;
            values.data[behind.clone()].copy_from_slice(&expected.data[behind]);
        }
    }
    Ok(Some(Check { note: "of frames that count".into(), ..golden.compare(name, &values.sizes, &values.data)? }))
}

fn parakeet(network: &Network, padding: i32, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    let values = reals(golden, "in.input_features")?;
    let (batch, frames) = (values.sizes[0], values.sizes[1]);
    let mask = match golden.has("in.attention_mask") {
        true => golden.wholes("in.attention_mask")?.1,
        false => vec![1; batch * frames],
    };
    let lens = mask.chunks(frames.max(1)).map(|row| row.iter().filter(|m| **m != 0).count()).collect();
    let features = Features { values, lengths: lens };
    let heard = network.hear(&features, None, true)?;
    let mut expect = |name: &str, found: &Values| -> Result<(), VerifyError> {
        checks.extend(counted(golden, name, found, &heard.lengths)?);
        Ok(())
    };
    expect("out.encoder", &heard.stream)?;
    expect("out.encoder_projected", &heard.head)?;
    for (i, hidden) in heard.hidden.iter().enumerate() {
        expect(&format!("out.hidden_states.{i}"), hidden)?;
    }
    if golden.has("out.greedy") {
        let mut ids = best(&heard.head);
        for (i, n) in heard.lengths.iter().enumerate() {
            let steps = heard.head.sizes[1];
            ids[i * steps + n..(i + 1) * steps].fill(network.settings.blank as i64);
        }
        checks.push(golden.compare_ids("out.greedy", &ids)?);
    }
    for (i, found) in greedy(network, &heard)?.iter().enumerate() {
        checks.extend(generated(network, golden, i, found)?);
    }
    let labels = golden.wholes("in.labels")?.1;
    let each = labels.len() / batch.max(1);
    let real = |row: &[i32]| row.iter().filter(|id| **id != padding && **id != -100).count();
    let lengths = labels.chunks(each.max(1)).map(real).collect();
    let targets = Targets { labels, lengths };
    let scorer = network.scorer(false)?;
    for (name, found) in scorer.run(&features, &targets)? {
        let name = match name {
            "logits" | "joint" => "out.logits",
            "predictions" => "out.decoder",
            "loss" => "out.loss",
            _ => continue,
        };
        if !golden.has(name) {
            continue;
        }
        if name == "out.logits" {
            let sizes = golden.sizes(name)?;
            checks.extend(counted(golden, name, &Values { sizes, data: found }, &heard.lengths)?);
        } else if name == "out.decoder" {
            checks.push(golden.compare(name, &golden.sizes(name)?, &found)?);
        } else {
            said(golden, name, &found, &mut checks)?;
        }
    }
    Ok(checks)
}

/// Greedy tokens of Hugging Face: what was said, blanks too, behind the start, and how many frames each went
/// on. Tokens and the frames that they were said at must be the same.
fn generated(network: &Network, golden: &Golden, i: usize, found: &Hypothesis) -> Result<Vec<Check>, VerifyError> {
    let (sequences, durations) = (format!("gen.sequences{i}"), format!("gen.durations{i}"));
    if !golden.has(&sequences) || !golden.has(&durations) {
        return Ok(vec![]);
    }
    let ids = golden.wholes(&sequences)?.1;
    let steps = golden.wholes(&durations)?.1;
    let mut at = 0i64;
    let mut expected = vec![];
    for (id, step) in ids.iter().zip(&steps).skip(1) {
        if *id != network.settings.blank as i32 {
            expected.push((i64::from(*id), at));
        }
        at += i64::from(*step);
    }
    let found: Vec<(i64, i64)> = found.tokens.iter().map(|t| (i64::from(t.id), t.start as i64)).collect();
    let check = |name: String, part: &dyn Fn(&(i64, i64)) -> i64| {
        let wrong = expected.iter().zip(&found).filter(|(a, b)| part(a) != part(b)).count();
        let wrong = wrong + expected.len().abs_diff(found.len());
        let (absolute, relative) = (Some(wrong as f64), Some(wrong as f64 / expected.len().max(1) as f64));
        let note = format!("of {} tokens besides blanks", expected.len());
        Check { name, sizes: vec![1, ids.len()], absolute, relative, tolerance: 0.0, passed: wrong == 0, note }
    };
    Ok(vec![check(sequences, &|t| t.0), check(durations, &|t| t.1)])
}
