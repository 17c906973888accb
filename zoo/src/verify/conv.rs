//! Convolutional CTC models of NeMo's: features, encoder, log-probabilities, losses, gradients in inference and in
//! training, running statistics, and the archive beside them.
//!
//! Everything behind the features is computed from the golden ones, so that its tolerance is that of the arithmetic.

use super::causal::best;
use super::{ABSOLUTE, Check, Golden, RELATIVE, VerifyError};
use crate::asr::conv::{AnyConv, ConvAxes, ConvCtc, Counts, FeaturesOf, Steps};
use crate::asr::voice::VoiceError;
use crate::audio::features::{SampleCounts, Sound};
use crate::audio::{Batch, Frames};
use crate::llm::family::decl;
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{DType, Dim, VarKind};
use mobilis_runtime::ops::ctc::CtcOptions;
use mobilis_runtime::ops::movement;
use mobilis_runtime::prelude::*;
use mobilis_runtime::transforms::grad::gradients;
use std::path::Path;

type A = AnyConv;

/// Single precision against double differs by 1.5e-4 where a silent bin's logarithm is scaled by its small deviation.
const FEATURES: f64 = 5e-4;
/// Losses, relative to themselves.
const LOSS: f64 = 3e-6;
/// Gradients, relative to the largest of the model.
const GRADIENT: f64 = 2e-5;

axes! {
    /// Labels of targets.
    Text;
    /// All values of a result.
    All;
}

type Given = (FeaturesOf<A>, Counts<Frames>, Tensor<(Batch, Text), Index>, Tensor<(Batch,), Lengths<Text>>);

fn flat(x: Handle) -> Tensor<(All,)> {
    let count = type_of(x).count();
    Tensor::from_raw(movement::reshape(x, vec![Dim::anonymous(count)]))
}

/// Everything that a golden folder of such a model expects.
pub fn checks(model: &Model<ConvCtc>, folder: &Path, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = features(model, golden)?;
    let (sizes, values) = golden.reals("out.features")?;
    let [batch, width, frames] = sizes[..] else { return Ok(checks) };
    let x: Vec<f32> = turned([batch, width, frames], &values).into_iter().map(|v| v as f32).collect();
    let x: Array<(Batch, Frames, <A as ConvAxes>::Features)> = Array::from_parts(&[batch, frames, width], x);
    let lengths: Array<(Batch,), Lengths<Frames>> =
        Array::from_parts(&[batch], golden.wholes("out.features_length")?.1);
    let (targets, labels) = golden.wholes("in.targets")?;
    let labels: Array<(Batch, Text), Index> = Array::from_parts(&targets, labels);
    let counts: Array<(Batch,), Lengths<Text>> = Array::from_parts(&[batch], golden.wholes("in.target_length")?.1);

    let program = model.compile(|m, (x, n): (FeaturesOf<A>, Counts<Frames>)| m.hear(x, n))?;
    let (stream, log_probs, steps) = program.run((&x, &lengths))?;
    let [_, time, hidden] = stream.sizes() else { return Ok(checks) };
    let wide: Vec<f64> = stream.data().iter().map(|v| f64::from(*v)).collect();
    let found = turned([batch, *time, *hidden], &wide);
    let near = |largest: f64| RELATIVE * largest + ABSOLUTE;
    checks.push(golden.compare_within("out.encoder", &[batch, *hidden, *time], found.into_iter(), near)?);
    let counted: Vec<i64> = steps.data().iter().map(|n| i64::from(*n)).collect();
    checks.push(golden.compare_ids("out.encoder_length", &counted)?);
    checks.push(golden.compare("out.log_probs", log_probs.sizes(), log_probs.data())?);
    let rows = log_probs.data().chunks(log_probs.sizes()[2].max(1));
    checks.push(golden.compare_ids("out.greedy", &rows.map(|row| i64::from(best(row))).collect::<Vec<_>>())?);

    let train = folder.join("train.safetensors");
    let train = train.exists().then(|| Golden::open(&train)).transpose()?;
    for (mode, part) in [(Mode::Eval, "eval"), (Mode::Train, "train")] {
        let all = scored(model, mode, (&x, &lengths, &labels, &counts))?;
        if mode == Mode::Eval {
            for (name, golden_name) in [("each", "out.ctc_per_sample"), ("loss", "out.loss")] {
                if let Some((_, values)) = all.iter().find(|(n, _)| n == name) {
                    checks.push(loss(golden, golden_name, values)?);
                }
            }
        }
        if let Some(train) = &train {
            against(train, part, &all, &mut checks)?;
        }
    }
    if let Some(train) = &train {
        for name in train.names("train.after.") {
            checks.push(buffer(model, train, &name)?);
        }
        train.complete_with(&["train.", "eval."], &mut checks);
    }
    checks.extend(super::conformer::archive(folder)?);
    Ok(checks)
}

/// `[a, b, c]` to `[a, c, b]`.
fn turned([a, b, c]: [usize; 3], values: &[f64]) -> Vec<f64> {
    let at = |i: usize, j: usize, k: usize| values[(i * b + k) * c + j];
    (0..a).flat_map(|i| (0..c).flat_map(move |j| (0..b).map(move |k| (i, j, k)))).map(|(i, j, k)| at(i, j, k)).collect()
}

/// Features in the model's own graph, of the golden recordings.
fn features(model: &Model<ConvCtc>, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let (sizes, samples) = golden.reals("in.audio")?;
    let lengths = golden.wholes("in.audio_length")?.1;
    let samples: Vec<f32> = samples.into_iter().map(|v| v as f32).collect();
    let rows = samples.chunks_exact(sizes[1].max(1)).zip(&lengths);
    let recordings: Vec<&[f32]> = rows.map(|(row, n)| &row[..(*n).clamp(0, row.len() as i32) as usize]).collect();
    let program = model.compile(|m, (sound, samples): (Sound, SampleCounts)| {
        m.features.forward::<<A as ConvAxes>::Features>(sound, samples)
    })?;
    let (sound, counts) = model.features.pack(&recordings);
    let (found, counted) = program.run((sound, counts))?;
    let [batch, frames, width] = found.sizes() else { return Ok(vec![]) };
    let wide: Vec<f64> = found.data().iter().map(|v| f64::from(*v)).collect();
    let found = turned([*batch, *frames, *width], &wide);
    let counted: Vec<i64> = counted.data().iter().map(|n| i64::from(*n)).collect();
    Ok(vec![
        golden.compare_within("out.features", &[*batch, *width, *frames], found.into_iter(), |_| FEATURES)?,
        golden.compare_ids("out.features_length", &counted)?,
    ])
}

type Arrays<'a> = (
    &'a Array<(Batch, Frames, <A as ConvAxes>::Features)>,
    &'a Array<(Batch,), Lengths<Frames>>,
    &'a Array<(Batch, Text), Index>,
    &'a Array<(Batch,), Lengths<Text>>,
);

/// `each` loss, the `loss`, `log_probs`, and `grad.` of each parameter.
fn scored(model: &Model<ConvCtc>, mode: Mode, given: Arrays) -> Result<Vec<(String, Vec<f32>)>, VerifyError> {
    let declared: Vec<_> = model.catalog().vars().iter().filter(|d| d.kind == VarKind::Param).collect();
    let blank = model.sizes().get(<A as ConvAxes>::Classes::dim().axis).unwrap_or(1) - 1;
    let graph = model.trace(mode, |m, (x, lengths, labels, counts): Given| {
        let (_, log_probs, steps) = m.hear(x, lengths);
        let options = CtcOptions { blank, zero_infinity: true };
        let losses =
            || log_probs.ctc_loss::<Text, Index, Lengths<Steps>, Lengths<Text>>(labels, steps, counts, options);
        let loss = losses().mean_batch();
        let parameters: Vec<_> = declared.iter().map(|d| trace::variable(|| decl(d), d.id)).collect();
        let mut all = vec![flat(losses().each().raw()), flat(loss.raw()), flat(log_probs.raw())];
        all.extend(gradients(loss.raw(), &parameters).into_iter().map(flat));
        all
    })?;
    let program: Program<Given, Vec<Tensor<(All,)>>> = Program::new(model.executable(graph));
    let values = program.run(given)?.into_iter().map(Array::into_vec);
    let names = ["each", "loss", "log_probs"].map(String::from).into_iter();
    Ok(names.chain(declared.iter().map(|d| format!("grad.{}", d.name()))).zip(values).collect())
}

fn loss(golden: &Golden, name: &str, values: &[f32]) -> Result<Check, VerifyError> {
    let found = values.iter().map(|v| f64::from(*v));
    let sizes = golden.sizes(name)?;
    golden.compare_within(name, &sizes, found, |largest| LOSS * largest + ABSOLUTE)
}

/// Holds losses and gradients against `train.safetensors`.
fn against(train: &Golden, part: &str, all: &[(String, Vec<f32>)], checks: &mut Vec<Check>) -> Result<(), VerifyError> {
    let largest = |prefix: &str, first: bool| -> Result<f64, VerifyError> {
        let mut most = 0f64;
        for name in train.names(&format!("{part}.{prefix}")) {
            let values = train.reals(&name)?.1;
            most = values.iter().take(if first { 1 } else { usize::MAX }).fold(most, |m, v| m.max(v.abs()));
        }
        Ok(most)
    };
    let (grads, norms) = (largest("grad.", false)?, largest("gradnorm.", true)?);
    for (name, values) in all {
        let found = values.iter().map(|v| f64::from(*v));
        let whole = format!("{part}.{name}");
        if train.has(&whole) {
            let sizes = train.sizes(&whole)?;
            let tolerance = |own: f64| match name.strip_prefix("grad.") {
                Some(_) => GRADIENT * grads + ABSOLUTE,
                None if name == "loss" => LOSS * own + ABSOLUTE,
                None => RELATIVE * own + ABSOLUTE,
            };
            checks.push(train.compare_within(&whole, &sizes, found.clone(), tolerance)?);
        }
        let norm = whole.replace(".grad.", ".gradnorm.");
        if norm != whole && train.has(&norm) {
            let both = [found.clone().map(|v| v * v).sum::<f64>().sqrt(), found.sum()];
            checks.push(train.compare_within(&norm, &[2], both.into_iter(), |_| GRADIENT * norms + ABSOLUTE)?);
        }
    }
    Ok(())
}

/// A running statistic after one step of training.
fn buffer(model: &Model<ConvCtc>, train: &Golden, name: &str) -> Result<Check, VerifyError> {
    let own = name.trim_start_matches("train.after.");
    let known = model.catalog().find(own).map_err(VoiceError::from)?;
    if known.ty.dtype == DType::I32 {
        let values: Vec<i32> = model.get(own).map_err(VoiceError::from)?;
        return train.compare_ids(name, &values.into_iter().map(i64::from).collect::<Vec<_>>());
    }
    let values: Vec<f32> = model.get(own).map_err(VoiceError::from)?;
    train.compare(name, &train.sizes(name)?, &values)
}
