//! Wav2Vec 2.0: the scaled samples, the streams, logits, the greedy path, and the CTC loss.

use super::causal::best;
use super::encoder::LOSS;
use super::{ABSOLUTE, Check, Golden, VerifyError};
use crate::asr::wav2vec2::Wav2Vec2Recognizer;
use crate::llm::family::Values;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::ctc::{CtcOptions, ctc};
use mobilis_runtime::prelude::*;

axes! {
    /// Recordings.
    Rows;
    /// Frames.
    Time;
    /// Letters of the head.
    Letters;
    /// Letters of a text.
    Labels;
}

/// Everything that a golden file may expect.
pub fn checks(network: &Wav2Vec2Recognizer, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    let (sizes, samples) = golden.reals("in.input_values")?;
    let [rows, time] = sizes[..] else {
        let (name, found) = ("in.input_values".into(), format!("of sizes {sizes:?}"));
        return Err(VerifyError::Golden {
            path: golden.path.clone(),
            name,
            found,
            expected: "samples [batch, samples]",
        });
    };
    let counts = match golden.has("in.attention_mask") {
        true => golden
            .wholes("in.attention_mask")?
            .1
            .chunks(time.max(1))
            .map(|row| row.iter().filter(|m| **m != 0).count())
            .collect(),
        false => vec![time; rows],
    };
    let found = network.score(rows, samples.iter().map(|v| *v as f32).collect(), &counts)?;
    golden.expect(&mut checks, "out.logits", &found.logits)?;
    golden.expect(&mut checks, "out.extract_features", &found.extracted)?;
    for (i, stream) in found.hidden.iter().enumerate() {
        golden.expect(&mut checks, &format!("out.hidden_states.{i}"), stream)?;
    }
    if golden.has("out.greedy_path") {
        let letters = found.logits.sizes.last().copied().unwrap_or(1);
        let path: Vec<i64> = found.logits.data.chunks(letters.max(1)).map(|row| i64::from(best(row))).collect();
        checks.push(golden.compare_ids("out.greedy_path", &path)?);
    }
    if golden.has("out.loss") && golden.has("in.labels") {
        let loss = loss(network, &found.logits, &found.frames, golden)?;
        checks.push(golden.compare_within("out.loss", &[1], std::iter::once(loss), |l| LOSS * l + ABSOLUTE)?);
    }
    Ok(checks)
}

/// The CTC loss of the labels, joined as the configuration says. Labels below 0 are padding.
fn loss(network: &Wav2Vec2Recognizer, logits: &Values, frames: &[usize], golden: &Golden) -> Result<f64, VerifyError> {
    let (sizes, labels) = golden.wholes("in.labels")?;
    let each = sizes.last().copied().unwrap_or(0);
    let counts: Vec<i32> =
        labels.chunks(each.max(1)).map(|row| row.iter().filter(|l| **l >= 0).count() as i32).collect();
    #[neural_module]
    struct Nothing;
    let model = Model::init(Nothing, 0).map_err(crate::llm::family::OpenError::from)?;
    let options = CtcOptions { blank: network.blank() as usize, zero_infinity: false };
    type Numbers = Tensor<(Rows,), Index>;
    let program = model.compile(
        |_,
         (x, labels, frames, counts): (
            Tensor<(Rows, Time, Letters)>,
            Tensor<(Rows, Labels), Index>,
            Numbers,
            Numbers,
        )| {
            let each: Handle = ctc(x.raw(), labels.raw(), [frames.raw(), counts.raw()], options);
            Tensor::<(Rows,)>::from_raw(each)
        },
    )?;
    let numbers = |v: Vec<i32>| Array::<(Rows,), Index>::from_parts(&[v.len()], v);
    let found = program.run((
        Array::<(Rows, Time, Letters)>::from_parts(&logits.sizes, logits.data.clone()),
        Array::<(Rows, Labels), Index>::from_parts(&sizes, labels.iter().map(|l| (*l).max(0)).collect()),
        numbers(frames.iter().map(|n| *n as i32).collect()),
        numbers(counts.clone()),
    ))?;
    let losses = found.data().iter().map(|l| f64::from(*l));
    // PyTorch's mean divides each recording's loss by its labels first.
    Ok(match network.config().word("ctc_loss_reduction").ok().flatten().unwrap_or("sum") {
        "mean" => {
            losses.zip(&counts).map(|(l, n)| l / f64::from((*n).max(1))).sum::<f64>() / counts.len().max(1) as f64
        }
        _ => losses.sum(),
    })
}
