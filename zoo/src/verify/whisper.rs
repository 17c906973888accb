//! Whisper: the spectrogram, hidden states of encoder and decoder, logits, greedy text.

use super::causal::best;
use super::{Check, Golden, VerifyError};
use crate::asr::whisper::{Network, SpectrogramArray};
use crate::llm::encoder::TextBatch;
use crate::llm::seq2seq::SpecialTokens;
use crate::llm::session::Want;

/// Everything that a golden file of a Whisper may expect. `special` says how a text begins.
pub fn checks(network: &Network, special: SpecialTokens, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    let windows = golden.windows("in.input_features")?;
    if golden.has("feat.audio") {
        checks.push(features(network, golden)?);
    }
    let (rows, ids) = golden.ids("in.decoder_input_ids")?;
    let found = network.score(&windows, &TextBatch::new(rows, ids)?)?;
    golden.expect(&mut checks, "out.logits", &found.logits)?;
    for (side, streams) in [("encoder", &found.encoder), ("decoder", &found.decoder)] {
        for (i, stream) in streams.iter().enumerate() {
            golden.expect(&mut checks, &format!("out.{side}_hidden_states.{i}"), stream)?;
        }
    }
    if let Some(last) = found.encoder.last() {
        golden.expect(&mut checks, "out.encoder_last_hidden_state", last)?;
    }
    if golden.has("gen.ids") {
        generated(network, special, &windows, golden, &mut checks)?;
    }
    Ok(checks)
}

/// The spectrograms of the recordings, within what the reference's own precision leaves.
fn features(network: &Network, golden: &Golden) -> Result<Check, VerifyError> {
    let (sizes, samples) = golden.reals("feat.audio")?;
    let samples: Vec<f32> = samples.iter().map(|v| *v as f32).collect();
    let rows: Vec<&[f32]> = samples.chunks(sizes.last().copied().unwrap_or(1).max(1)).collect();
    let found = network.spectrograms(&rows)?;
    let [batch, frames, bands] = *found.sizes() else { unreachable!("spectrograms have three axes") };
    let data = found.data();
    let turned = (0..batch).flat_map(|b| (0..bands).flat_map(move |m| (0..frames).map(move |t| (b, m, t))));
    let turned = turned.map(|(b, m, t)| f64::from(data[(b * frames + t) * bands + m]));
    golden.compare_within("in.input_features", &[batch, bands, frames], turned, |_| FEATURES)
}

/// The largest difference of a spectrogram: logarithms of small powers, which the reference computes in
/// single precision.
const FEATURES: f64 = 1e-4;

/// Greedy text of the first windows: token after token behind the start.
fn generated(
    network: &Network,
    special: SpecialTokens,
    windows: &SpectrogramArray,
    golden: &Golden,
    checks: &mut Vec<Check>,
) -> Result<(), VerifyError> {
    let (rows, expected) = golden.ids("gen.ids")?;
    let each = windows.sizes()[1] * windows.sizes()[2];
    let first = windows.data()[..rows.min(windows.sizes()[0]) * each].to_vec();
    let windows = SpectrogramArray::from_parts(&[first.len() / each, windows.sizes()[1], windows.sizes()[2]], first);
    let mut listener = network.listener(&network.read(&windows)?)?;
    let steps = expected.len() / rows - 1;
    let mut texts: Vec<Vec<u32>> = vec![vec![special.start]; windows.sizes()[0]];
    let mut all = vec![vec![]; texts.len()];
    for _ in 0..steps {
        let last: Vec<&[u32]> = texts.iter().map(|text| &text[text.len() - 1..]).collect();
        let logits = listener.sequences().feed(&last, Want::Last)?;
        for (row, (text, all)) in texts.iter_mut().zip(&mut all).enumerate() {
            let last = logits.last(row).expect("a token was fed");
            all.extend_from_slice(last);
            text.push(best(last));
        }
    }
    let ids: Vec<i64> = texts.iter().flatten().map(|id| i64::from(*id)).collect();
    checks.push(golden.compare_ids("gen.ids", &ids)?);
    if golden.has("gen.logits") {
        checks.push(golden.compare("gen.logits", &[steps, network.vocab()], &all[0])?);
    }
    Ok(())
}

impl Golden {
    /// Spectrograms `[Batch, Bands, Frames]`, turned round.
    fn windows(&self, name: &str) -> Result<SpectrogramArray, VerifyError> {
        let (sizes, values) = self.reals(name)?;
        let [batch, bands, frames] = sizes[..] else {
            let found = format!("of sizes {sizes:?}");
            let expected = "spectrograms [batch, bands, frames]";
            return Err(VerifyError::Golden { path: self.path.clone(), name: name.into(), found, expected });
        };
        let at = |b: usize, t: usize, m: usize| values[(b * bands + m) * frames + t] as f32;
        let turned = (0..batch).flat_map(|b| (0..frames).flat_map(move |t| (0..bands).map(move |m| (b, t, m))));
        let data = turned.map(|(b, t, m)| at(b, t, m)).collect();
        Ok(SpectrogramArray::from_parts(&[batch, frames, bands], data))
    }
}
