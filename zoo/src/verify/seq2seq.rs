//! Encoder-decoders: hidden states of both, logits, loss, greedy generation over a source.

use super::causal::best;
use super::encoder::LOSS;
use super::{ABSOLUTE, Check, Golden, VerifyError};
use crate::llm::encoder::TextBatch;
use crate::llm::loss::cross_entropy;
use crate::llm::seq2seq::{Seq2SeqModel, SpecialTokens};
use crate::llm::session::{SessionOptions, Want};

/// Everything that a golden file of an encoder-decoder may expect. `special` says how generation
/// begins.
pub fn checks(model: &dyn Seq2SeqModel, special: SpecialTokens, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    let labels = golden.has("in.labels").then(|| golden.wholes("in.labels")).transpose()?;
    if golden.has("in.input_ids") && (golden.has("in.decoder_input_ids") || labels.is_some()) {
        let sources = golden.texts("in.input_ids", "in.attention_mask")?;
        let targets = match &labels {
            Some((sizes, labels)) if !golden.has("in.decoder_input_ids") => {
                TextBatch::new(sizes[0], special.behind_start(sizes[0], labels))?
            }
            _ => golden.texts("in.decoder_input_ids", "in.decoder_attention_mask")?,
        };
        let found = model.score(&sources, &targets)?;
        golden.expect(&mut checks, "out.logits", &found.logits)?;
        for (side, streams) in [("encoder", &found.encoder), ("decoder", &found.decoder)] {
            for (i, stream) in streams.iter().enumerate() {
                golden.expect(&mut checks, &format!("out.{side}_hidden_states.{i}"), stream)?;
            }
        }
        if let Some(last) = found.encoder.last() {
            golden.expect(&mut checks, "out.encoder_last_hidden_state", last)?;
        }
        if let (Some((_, labels)), true) = (&labels, golden.has("out.loss")) {
            let loss = std::iter::once(cross_entropy(&found.logits, labels)?);
            checks.push(golden.compare_within("out.loss", &[1], loss, |l| LOSS * l + ABSOLUTE)?);
        }
    }
    if golden.has("gen.ids") && golden.has("gen.input_ids") {
        generated(model, special, golden, &mut checks)?;
    }
    Ok(checks)
}

/// Greedy generation: the source once, then token after token behind the start.
fn generated(
    model: &dyn Seq2SeqModel,
    special: SpecialTokens,
    golden: &Golden,
    checks: &mut Vec<Check>,
) -> Result<(), VerifyError> {
    let sources = golden.texts("gen.input_ids", "gen.attention_mask")?;
    let (rows, expected) = golden.ids("gen.ids")?;
    let steps = expected.len() / rows - 1;
    let mut session = model.session(&sources, SessionOptions::new(sources.rows(), steps + 1))?;
    let mut texts: Vec<Vec<u32>> = vec![vec![special.start]; sources.rows()];
    let mut all = vec![vec![]; sources.rows()];
    for step in 0..steps {
        let last: Vec<&[u32]> = texts.iter().map(|text| &text[text.len() - 1..]).collect();
        let logits = session.feed(&last, Want::Last)?;
        for (row, (text, all)) in texts.iter_mut().zip(&mut all).enumerate() {
            let last = logits.last(row).expect("a token was fed");
            all.extend_from_slice(last);
            text.push(special.forced_first.filter(|_| step == 0).unwrap_or_else(|| best(last)));
        }
    }
    let ids: Vec<i64> = texts.iter().flatten().map(|id| i64::from(*id)).collect();
    checks.push(golden.compare_ids("gen.ids", &ids)?);
    if golden.has("gen.logits") {
        let sizes = [steps, all[0].len() / steps.max(1)];
        checks.push(golden.compare("gen.logits", &sizes, &all[0])?);
    }
    Ok(())
}
