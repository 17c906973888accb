//! Draws of tokens on the reference device: as random numbers, they are the kernels' own, which are tested there.

use super::{Eval, RefArray};
use crate::ops::sample::token;

pub fn sample(cx: &Eval) -> RefArray {
    let [logits, settings, numbers] = [0, 1, 2].map(|i| &cx.inputs[i].data);
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let n = logits.len() / out.data.len().max(1);
    let mut scratch = vec![];
    for (row, to) in out.data.iter_mut().enumerate() {
        let real = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let whole: Vec<i32> = numbers[row * 5..][..5].iter().map(|v| *v as i32).collect();
        let (logits, settings) = (real(&logits[row * n..][..n]), real(&settings[row * 3..][..3]));
        *to = f64::from(token(&logits, &settings, &whole, &mut scratch));
    }
    out
}
