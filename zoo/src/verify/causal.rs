//! Causal language models: logits, hidden states, loss, gradient norms, greedy generation.

use super::{ABSOLUTE, Check, Golden, VerifyError};
use crate::llm::family::{Gradients, TextModel};
use crate::llm::session::{SessionOptions, Want};

/// Gradient norms, relative to the largest of the model.
const GRADIENT: f64 = 2e-5;
/// The loss, relative to itself.
const LOSS: f64 = 1e-5;

/// Everything that a golden file of a causal model may expect.
pub fn checks(model: &dyn TextModel, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    if golden.has("in.input_ids") {
        let (rows, ids) = golden.ids("in.input_ids")?;
        let scores = model.score(rows, &ids)?;
        if golden.has("out.logits") {
            checks.push(golden.compare("out.logits", &scores.logits.sizes, &scores.logits.data)?);
        }
        for (i, hidden) in scores.hidden.iter().enumerate() {
            let name = format!("out.hidden_states.{i}");
            if golden.has(&name) {
                checks.push(golden.compare(&name, &hidden.sizes, &hidden.data)?);
            }
        }
        let wanted = golden.names("gradnorm.");
        if golden.has("out.loss") || !wanted.is_empty() {
            let found = model.gradients(rows, &ids)?;
            if golden.has("out.loss") {
                let loss = std::iter::once(found.loss);
                checks.push(golden.compare_within("out.loss", &[1], loss, |l| LOSS * l + ABSOLUTE)?);
            }
            gradients(golden, &found, &wanted, &mut checks)?;
        }
    }
    if golden.has("gen.ids") && golden.has("gen.prompt") {
        generated(model, golden, &mut checks)?;
    }
    Ok(checks)
}

/// Gradient norms. transformers 5 keeps the matrices of experts fused in memory:
/// `experts.gate_up_proj` is what the checkpoint has as `experts.N.gate_proj` and `up_proj`.
fn gradients(
    golden: &Golden,
    found: &Gradients,
    wanted: &[String],
    checks: &mut Vec<Check>,
) -> Result<(), VerifyError> {
    let mut largest = 0.0f64;
    for name in wanted {
        largest = largest.max(golden.reals(name)?.1.first().map_or(0.0, |n| n.abs()));
    }
    for name in wanted {
        let parameter = &name["gradnorm.".len()..];
        let same = |own: &str| in_memory(own) == parameter || is_expert_of(own, parameter);
        let parts: Vec<_> = found.of.iter().filter(|g| same(&g.0)).collect();
        if parts.is_empty() {
            continue;
        }
        let norm = parts.iter().map(|(_, norm, _)| norm * norm).sum::<f64>().sqrt();
        let sum: f64 = parts.iter().map(|(_, _, sum)| sum).sum();
        let within = |_: f64| GRADIENT * largest + ABSOLUTE;
        checks.push(golden.compare_within(name, &[2], [norm, sum].into_iter(), within)?);
    }
    Ok(())
}

/// The name that transformers 5 gives a parameter in memory: Mixtral's block is `block_sparse_moe` in
/// files and `mlp` in memory.
fn in_memory(parameter: &str) -> String {
    parameter.replace(".block_sparse_moe.", ".mlp.")
}

/// Whether a parameter `x.experts.3.gate_proj.weight` is a part of the fused `x.experts.gate_up_proj`.
fn is_expert_of(parameter: &str, fused: &str) -> bool {
    let Some((path, kind)) = fused.rsplit_once(".experts.") else { return false };
    let parameter = in_memory(parameter);
    let Some((own, rest)) = parameter.rsplit_once(".experts.") else { return false };
    let Some((number, matrix)) = rest.split_once('.') else { return false };
    let matrices: &[&str] = match kind {
        "gate_up_proj" => &["gate_proj.weight", "up_proj.weight", "w1.weight", "w3.weight"],
        "down_proj" => &["down_proj.weight", "w2.weight"],
        _ => return false,
    };
    own == path && number.bytes().all(|b| b.is_ascii_digit()) && matrices.contains(&matrix)
}

/// Greedy generation over caches: the prompt in one program, token after token in another.
fn generated(model: &dyn TextModel, golden: &Golden, checks: &mut Vec<Check>) -> Result<(), VerifyError> {
    let (rows, prompt) = golden.ids("gen.prompt")?;
    let prompt = &prompt[..prompt.len() / rows];
    let steps = golden.wholes("gen.ids")?.1.len();
    let mut session = model.session(SessionOptions::new(1, prompt.len() + steps));
    let (mut ids, mut all) = (vec![], vec![]);
    let mut logits = session.feed(&[prompt], Want::Last)?;
    for _ in 0..steps {
        let last = logits.last(0).expect("a token was fed");
        let next = best(last);
        all.extend_from_slice(last);
        ids.push(i64::from(next));
        if ids.len() < steps {
            logits = session.feed(&[&[next]], Want::Last)?;
        }
    }
    checks.push(golden.compare_ids("gen.ids", &ids)?);
    if golden.has("gen.logits") {
        let sizes = [steps, all.len() / steps.max(1)];
        checks.push(golden.compare("gen.logits", &sizes, &all)?);
    }
    Ok(())
}

/// The token of the largest logit, the first of equal ones.
pub(super) fn best(logits: &[f32]) -> u32 {
    let largest = |b: (usize, f32), (i, v): (usize, &f32)| if *v > b.1 { (i, *v) } else { b };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), largest).0 as u32
}
