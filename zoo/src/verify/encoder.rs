//! Encoders: hidden states, what the heads say, and the loss where there are labels.

use super::{ABSOLUTE, Check, Golden, VerifyError};
use crate::llm::encoder::{EncoderModel, TextBatch};
use crate::llm::loss::{Labels, classification, cross_entropy};
use mobilis_runtime::checkpoint::Encoding;

/// The loss, relative to itself.
pub(super) const LOSS: f64 = 1e-5;

/// Everything that a golden file of an encoder may expect.
pub fn checks(model: &dyn EncoderModel, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    if !golden.has("in.input_ids") {
        return Ok(checks);
    }
    let mut texts = golden.texts("in.input_ids", "in.attention_mask")?;
    if golden.has("in.token_type_ids") {
        texts = texts.types(golden.ids("in.token_type_ids")?.1)?;
    }
    let found = model.encode(&texts)?;
    for (i, hidden) in found.hidden.iter().enumerate() {
        golden.expect(&mut checks, &format!("out.hidden_states.{i}"), hidden)?;
    }
    if let Some(last) = found.hidden.last() {
        golden.expect(&mut checks, "out.last_hidden_state", last)?;
    }
    for (name, values) in &found.heads {
        golden.expect(&mut checks, &format!("out.{name}"), values)?;
        match *name {
            "pooled" => golden.expect(&mut checks, "out.pooler_output", values)?,
            // A model for masked tokens alone calls them so.
            "prediction_logits" => golden.expect(&mut checks, "out.logits", values)?,
            _ => {}
        }
    }
    if golden.has("out.loss") && golden.has("in.labels") {
        let labels = golden.labels("in.labels")?;
        let tokens = found.head("prediction_logits");
        let logits = tokens.or(found.head("logits"));
        let mut loss = match (logits, &labels) {
            (None, _) => return Ok(checks),
            (Some(logits), Labels::Classes(labels)) if logits.sizes.len() == 3 => cross_entropy(logits, labels)?,
            (Some(logits), labels) => classification(model.config(), logits, labels)?,
        };
        if let (Some(next), true) = (found.head("seq_relationship_logits"), golden.has("in.next_sentence_label")) {
            loss += cross_entropy(next, &golden.wholes("in.next_sentence_label")?.1)?;
        }
        let loss = std::iter::once(loss);
        checks.push(golden.compare_within("out.loss", &[1], loss, |l| LOSS * l + ABSOLUTE)?);
    }
    Ok(checks)
}

impl Golden {
    /// Texts by the names of their ids and of their mask, which may be absent.
    ///
    /// # Errors
    /// Tensors of another form.
    pub(super) fn texts(&self, ids: &str, mask: &str) -> Result<TextBatch, VerifyError> {
        let (rows, ids) = self.ids(ids)?;
        let texts = TextBatch::new(rows, ids)?;
        match self.has(mask) {
            false => Ok(texts),
            true => Ok(texts.mask(self.wholes(mask)?.1.into_iter().map(|v| v != 0).collect())?),
        }
    }

    /// Labels: classes where they are whole numbers.
    ///
    /// # Errors
    /// No such tensor.
    fn labels(&self, name: &str) -> Result<Labels, VerifyError> {
        let encoding = self.tensors.find(name)?.encoding;
        match matches!(encoding, Encoding::F64 | Encoding::F32 | Encoding::F16 | Encoding::BF16) {
            true => Ok(Labels::Numbers(self.reals(name)?.1)),
            false => Ok(Labels::Classes(self.wholes(name)?.1)),
        }
    }
}
