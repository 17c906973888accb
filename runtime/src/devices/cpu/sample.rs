//! Draws of tokens on the CPU.

use super::lower::Lower;
use crate::ops::sample::token;

pub fn sample(cx: &mut Lower) {
    let (logits, settings, numbers, to) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
    let n = cx.input_sizes(0)[1];
    cx.task(move |m| {
        let (logits, settings, numbers) = (m.f32(logits), m.f32(settings), m.i32(numbers));
        let mut scratch = vec![];
        for (row, to) in m.i32_mut(to).iter_mut().enumerate() {
            *to = token(&logits[row * n..][..n], &settings[row * 3..][..3], &numbers[row * 5..][..5], &mut scratch);
        }
    });
}
