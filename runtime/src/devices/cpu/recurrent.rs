//! LSTM and GRU on the CPU.

use super::lower::Lower;
use crate::ops::recurrent::{Direction, Gru, GruGrad, Lstm, LstmGrad};
use mobilis_kernels::cpu::recurrent as kernel;
use mobilis_kernels::memory::Piece;

/// Sizes from those of a value `[batch, time, ..]` and of the recurrent weight.
fn steps(sizes: &[usize], weight: &[usize], direction: Direction) -> kernel::Steps {
    let backward = direction == Direction::Backward;
    kernel::Steps { batch: sizes[0], time: sizes[1], hidden: weight[1], backward }
}

fn inputs<const N: usize>(cx: &mut Lower) -> ([Piece; N], Option<Piece>) {
    let all = std::array::from_fn(|i| cx.input(i));
    (all, (cx.inputs() > N).then(|| cx.input(N)))
}

pub fn lstm(op: &Lstm, cx: &mut Lower) {
    let s = steps(cx.input_sizes(0), cx.input_sizes(1), op.direction);
    let ([gates, weight, h, c], lengths) = inputs(cx);
    let out: [Piece; 5] = std::array::from_fn(|i| cx.output(i));
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [gates, weight, h, c] = [gates, weight, h, c].map(|p| m.f32(p));
        let x = kernel::LstmInput { gates: &gates, weight: &weight, h: &h, c: &c, lengths: lengths.as_deref() };
        let [mut y, mut h, mut c, mut gates, mut cells] = out.map(|p| m.f32_mut(p));
        let out = kernel::LstmOutput { y: &mut y, h: &mut h, c: &mut c, gates: &mut gates, cells: &mut cells };
        kernel::lstm(m.pool(), &s, &x, out);
    });
}

pub fn lstm_grad(op: &LstmGrad, cx: &mut Lower) {
    let s = steps(cx.input_sizes(3), cx.input_sizes(0), op.direction);
    let (given, lengths) = inputs::<9>(cx);
    let out: [Piece; 4] = std::array::from_fn(|i| cx.output(i));
    let scratch = cx.scratch(s.lstm_grad_scratch());
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [weight, h, c, y, gates, cells, dy, dh, dc] = &given.map(|p| m.f32(p));
        let lengths = lengths.as_deref();
        let x = kernel::LstmGradInput { weight, h, c, y, gates, cells, dy, dh, dc, lengths };
        let [mut gates, mut weight, mut h, mut c] = out.map(|p| m.f32_mut(p));
        let out = kernel::LstmGradOutput { gates: &mut gates, weight: &mut weight, h: &mut h, c: &mut c };
        kernel::lstm_grad(m.pool(), &s, &x, out, &mut m.f32_mut(scratch));
    });
}

pub fn gru(op: &Gru, cx: &mut Lower) {
    let s = steps(cx.input_sizes(0), cx.input_sizes(1), op.direction);
    let (given, lengths) = inputs::<4>(cx);
    let out: [Piece; 3] = std::array::from_fn(|i| cx.output(i));
    let scratch = cx.scratch(s.batch * 3 * s.hidden);
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [gates, weight, bias, h] = &given.map(|p| m.f32(p));
        let x = kernel::GruInput { gates, weight, bias, h, lengths: lengths.as_deref() };
        let [mut y, mut h, mut saved] = out.map(|p| m.f32_mut(p));
        let out = kernel::GruOutput { y: &mut y, h: &mut h, saved: &mut saved };
        kernel::gru(m.pool(), &s, &x, out, &mut m.f32_mut(scratch));
    });
}

pub fn gru_grad(op: &GruGrad, cx: &mut Lower) {
    let s = steps(cx.input_sizes(2), cx.input_sizes(0), op.direction);
    let (given, lengths) = inputs::<6>(cx);
    let out: [Piece; 4] = std::array::from_fn(|i| cx.output(i));
    let scratch = cx.scratch(s.gru_grad_scratch());
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [weight, h, y, saved, dy, dh] = &given.map(|p| m.f32(p));
        let x = kernel::GruGradInput { weight, h, y, saved, dy, dh, lengths: lengths.as_deref() };
        let [mut gates, mut weight, mut bias, mut h] = out.map(|p| m.f32_mut(p));
        let out = kernel::GruGradOutput { gates: &mut gates, weight: &mut weight, bias: &mut bias, h: &mut h };
        kernel::gru_grad(m.pool(), &s, &x, out, &mut m.f32_mut(scratch));
    });
}
