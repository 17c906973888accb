//! CTC on the reference device: sums over paths from the front and from the end, as `crate::ops::ctc` says.

use super::{Eval, RefArray};
use crate::ops::ctc::CtcOptions;

const NEVER: f64 = f64::NEG_INFINITY;

/// `log sum exp`
pub(super) fn log_sum(values: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().into_iter().fold(NEVER, f64::max);
    if most == NEVER { most } else { most + values.into_iter().map(|v| (v - most).exp()).sum::<f64>().ln() }
}

/// A length from outside.
pub(super) fn length(lengths: &RefArray, b: usize, most: usize) -> usize {
    (lengths.data[b].max(0.0) as usize).min(most)
}

/// The labels of a sequence that count.
///
/// # Errors
/// One that is no class, or blank.
pub(super) fn labels(cx: &[&RefArray], b: usize, classes: usize, blank: usize) -> Result<Vec<usize>, String> {
    let (targets, counts) = (cx[0], cx[2]);
    let most = targets.sizes[1];
    let of = &targets.data[b * most..][..length(counts, b, most)];
    if blank >= classes {
        return Err(format!("blank is class {blank}, there are {classes} classes"));
    }
    match of.iter().find(|l| **l < 0.0 || **l >= classes as f64 || **l == blank as f64) {
        Some(l) => Err(format!("label {l} of sequence {b} is not one of {classes} classes without blank, {blank}")),
        None => Ok(of.iter().map(|l| *l as usize).collect()),
    }
}

/// The logarithm of the sum of all paths of sequence `b`, the log-probabilities of its frames, and its posteriors.
#[allow(clippy::type_complexity)]
fn sequence(o: &CtcOptions, cx: &Eval, b: usize) -> Result<(f64, Vec<Vec<f64>>, Vec<Vec<f64>>), String> {
    let logits = cx.inputs[0];
    let (most, classes) = (logits.sizes[1], logits.sizes[2]);
    let labels = labels(&cx.inputs[1..], b, classes, o.blank)?;
    let frames = length(cx.inputs[2], b, most);
    let states: Vec<usize> = labels.iter().flat_map(|l| [o.blank, *l]).chain([o.blank]).collect();
    let n = states.len();
    let skips = |s: usize| s % 2 == 1 && s >= 3 && states[s] != states[s - 2];
    let p: Vec<Vec<f64>> = (0..frames)
        .map(|t| {
            let x = &logits.data[(b * most + t) * classes..][..classes];
            let all = log_sum(x.iter().copied());
            x.iter().map(|v| if *v == NEVER { NEVER } else { v - all }).collect()
        })
        .collect();
    let (mut alpha, mut beta) = (vec![vec![NEVER; n]; frames], vec![vec![NEVER; n]; frames]);
    for t in 0..frames {
        for s in 0..n {
            let from: Vec<f64> = match t {
                0 => vec![if s < 2 { 0.0 } else { NEVER }],
                _ => (0..=2.min(s)).filter(|d| *d < 2 || skips(s)).map(|d| alpha[t - 1][s - d]).collect(),
            };
            alpha[t][s] = p[t][states[s]] + log_sum(from);
        }
    }
    for t in (0..frames).rev() {
        for s in 0..n {
            let on = |d: &usize| s + d < n && (*d < 2 || skips(s + d));
            let into: Vec<f64> = match t + 1 == frames {
                true => vec![if s + 2 >= n { 0.0 } else { NEVER }],
                false => (0..=2).filter(on).map(|d| beta[t + 1][s + d] + p[t + 1][states[s + d]]).collect(),
            };
            beta[t][s] = log_sum(into);
        }
    }
    let total = match frames {
        0 => [NEVER, 0.0][(n == 1) as usize],
        _ => log_sum(alpha[frames - 1][n.saturating_sub(2)..].iter().copied()),
    };
    let mut posteriors = vec![vec![0.0; classes]; frames];
    for (t, s) in (0..frames).flat_map(|t| (0..n).map(move |s| (t, s))) {
        posteriors[t][states[s]] += (alpha[t][s] + beta[t][s] - total).exp();
    }
    Ok((total, p, posteriors))
}

pub fn ctc(o: &CtcOptions, cx: &Eval) -> Result<RefArray, String> {
    let loss = |b| Ok::<_, String>(sequence(o, cx, b)?.0).map(|v| if v == NEVER && o.zero_infinity { 0.0 } else { -v });
    Ok(RefArray::new(&cx.outputs[0], (0..cx.outputs[0][0]).map(loss).collect::<Result<_, _>>()?))
}

pub fn grad(o: &CtcOptions, cx: &Eval) -> Result<RefArray, String> {
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let (most, classes) = (out.sizes[1], out.sizes[2]);
    for b in 0..out.sizes[0] {
        let (total, p, posteriors) = sequence(o, cx, b)?;
        for (t, (p, w)) in p.iter().zip(&posteriors).enumerate().filter(|_| total > NEVER) {
            for v in 0..classes {
                out.data[(b * most + t) * classes + v] = cx.inputs[4].data[b] * (p[v].exp() - w[v]);
            }
        }
    }
    Ok(out)
}
