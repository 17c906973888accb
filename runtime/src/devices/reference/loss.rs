//! Cross-entropy on the reference device.

use super::{Eval, RefArray};
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use crate::ops::loss::CrossEntropyOptions;

/// The class of a target; `None` where it is ignored.
fn class(target: f64, classes: usize, options: &CrossEntropyOptions) -> Result<Option<usize>, String> {
    if options.ignore_index.is_some_and(|i| i as f64 == target) {
        return Ok(None);
    }
    if target >= 0.0 && target < classes as f64 {
        return Ok(Some(target as usize));
    }
    Err(format!("target {target} is not one of {classes} classes (0 to {})", classes as i64 - 1))
}

pub fn cross_entropy(o: &CrossEntropyOptions, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (logits, targets) = (cx.inputs[0], cx.inputs[1]);
    let n = logits.sizes[logits.sizes.len() - 1];
    let (mut losses, mut lses) = (vec![], vec![]);
    for (row, target) in targets.data.iter().enumerate() {
        let x = &logits.data[row * n..(row + 1) * n];
        let max = x.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        let lse =
            if max == f64::NEG_INFINITY { max } else { max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln() };
        lses.push(lse);
        losses.push(match class(*target, n, o)? {
            None => 0.0,
            Some(c) => {
                let a = o.label_smoothing;
                let spread = if a == 0.0 { 0.0 } else { a * x.iter().sum::<f64>() / n as f64 };
                lse - (1.0 - a) * x[c] - spread + o.z_loss * lse * lse
            }
        });
    }
    Ok(vec![RefArray::new(&cx.outputs[0], losses), RefArray::new(&cx.outputs[1], lses)])
}

pub fn grad(o: &CrossEntropyOptions, cx: &Eval) -> Result<RefArray, String> {
    let [logits, targets, lses, g] = [0, 1, 2, 3].map(|i| cx.inputs[i]);
    let n = logits.sizes[logits.sizes.len() - 1];
    let mut out = RefArray::filled(&logits.sizes, 0.0);
    for (row, target) in targets.data.iter().enumerate() {
        let Some(c) = class(*target, n, o)? else { continue };
        for j in 0..n {
            let p = (logits.data[row * n + j] - lses.data[row]).exp();
            let hit = if j == c { 1.0 - o.label_smoothing } else { 0.0 };
            let by = (1.0 + 2.0 * o.z_loss * lses.data[row]) * p - hit - o.label_smoothing / n as f64;
            out.data[row * n + j] = g.data[row] * by;
        }
    }
    Ok(out)
}

/// The projection, its loss and their gradients, one after the other.
pub fn linear(op: &LinearCrossEntropy, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (hidden, weight, targets) = (cx.inputs[0], cx.inputs[1], cx.inputs[2]);
    let (n, d) = (weight.sizes[op.classes], weight.sizes[1 - op.classes]);
    let rows = targets.data.len();
    let w = |j: usize, k: usize| if op.classes == 0 { weight.at(&[j, k]) } else { weight.at(&[k, j]) };
    let mut sizes = targets.sizes.clone();
    sizes.push(n);
    let bias = |j: usize| op.bias_input().map_or(0.0, |i| cx.inputs[i].data[j]);
    let logit = |i: usize| {
        let (r, j) = (i / n, i % n);
        bias(j) + (0..d).map(|k| hidden.data[r * d + k] * w(j, k)).sum::<f64>()
    };
    let logits = RefArray::new(&sizes, (0..rows * n).map(logit).collect());
    let of = |inputs, outputs| Eval { inputs, dtypes: vec![], outputs, sizes: cx.sizes };
    let mut found = cross_entropy(&op.options, &of(vec![&logits, targets], vec![targets.sizes.clone(); 2]))?;
    let Some(g) = op.gradient_input() else {
        found.truncate(1);
        return Ok(found);
    };
    let gx = grad(&op.options, &of(vec![&logits, targets, &found[1], cx.inputs[g]], vec![sizes]))?;
    let gx = |r: usize, j: usize| gx.data[r * n + j];
    let mut by_hidden = RefArray::filled(&hidden.sizes, 0.0);
    let mut by_weight = RefArray::filled(&weight.sizes, 0.0);
    let mut by_bias = RefArray::filled(&[n], 0.0);
    for (r, j) in (0..rows).flat_map(|r| (0..n).map(move |j| (r, j))) {
        by_bias.data[j] += gx(r, j);
        for k in 0..d {
            by_hidden.data[r * d + k] += gx(r, j) * w(j, k);
            let place = if op.classes == 0 { j * d + k } else { k * n + j };
            by_weight.data[place] += gx(r, j) * hidden.data[r * d + k];
        }
    }
    found.truncate(1);
    found.extend([by_hidden, by_weight, by_bias].into_iter().zip(op.wanted).filter(|g| g.1).map(|g| g.0));
    Ok(found)
}
