//! Cross-entropy on the reference device.

use super::{Eval, RefArray};
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
