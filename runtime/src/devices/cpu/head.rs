//! A head joined with its loss, on the CPU.

use super::lower::Lower;
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use mobilis_kernels::cpu::gemm::{Matrix, Right};
use mobilis_kernels::cpu::head::{Gradients, Head, linear_cross_entropy, scratch_len};
use mobilis_kernels::memory::Piece;

/// An input of two dimensions (all but the last as one) with its strides, copied where it has none.
fn matrix(input: usize, cx: &mut Lower) -> (Piece, Matrix) {
    let view = cx.view(input);
    let (rows, columns) = match view.sizes.split_last() {
        Some((columns, rows)) => (rows.iter().product(), *columns),
        None => (1, 1),
    };
    match view.reshape(&[rows, columns]).filter(|v| v.strides.iter().all(|s| *s > 0) && v.count() > 0) {
        Some(v) => {
            (Piece { slot: v.slot, offset: v.offset, len: v.reach() }, Matrix { row: v.strides[0], col: v.strides[1] })
        }
        None => (cx.input(input), Matrix::rows(columns)),
    }
}

pub fn lower(op: &LinearCrossEntropy, cx: &mut Lower) {
    let (hidden, at) = matrix(0, cx);
    let (weight, stored) = matrix(1, cx);
    let targets = cx.input(2);
    let bias = op.bias_input().map(|i| cx.input(i));
    let g = op.gradient_input().map(|i| cx.input(i));
    let losses = cx.output(0);
    let by: [Option<Piece>; 3] = std::array::from_fn(|i| op.port(i).map(|port| cx.output(port)));
    let (rows, classes) = (targets.len, cx.input_sizes(1)[op.classes]);
    let depth = cx.input_sizes(1)[1 - op.classes];
    let kernel = super::loss::kernel(&op.options, classes);
    // The weight as `depth` rows of `classes` values, and its gradient turned.
    let across = if op.classes == 1 { stored } else { stored.transposed() };
    let whole = if op.classes == 1 { Matrix::rows(classes).transposed() } else { Matrix::rows(depth) };
    let block = mobilis_kernels::cpu::head::block(rows, classes, depth);
    let forward = cx.weight(weight, (block, classes, depth), across);
    let backward = by[0].and_then(|_| cx.weight(weight, (block, depth, classes), across.transposed()));
    let more = [&forward, &backward].into_iter().flatten().map(|w| w.scratch(block)).sum::<usize>();
    let scratch = cx.scratch(scratch_len(rows, classes, depth) + more);
    cx.try_task(move |m| {
        let (hidden, weight, targets) = (m.f32(hidden), m.f32(weight), m.i32(targets));
        kernel.check(&targets)?;
        let (bias, g) = (bias.map(|b| m.f32(b)), g.map(|g| m.f32(g)));
        let (forward, backward) = (forward.as_deref().map(|w| w.lock()), backward.as_deref().map(|w| w.lock()));
        let right = |ready, at| match ready {
            Some(ready) => super::weights::Ready::right(ready, &weight),
            None => Right::Plain(&weight, at),
        };
        let head = Head {
            op: kernel,
            depth,
            hidden: &hidden,
            at,
            weight: right(forward.as_ref(), across),
            bias: bias.as_deref(),
            targets: &targets,
        };
        let [mut by_hidden, mut by_weight, mut by_bias] = by.map(|to| to.map(|to| m.f32_mut(to)));
        let gradients = g.as_deref().map(|g| Gradients {
            g,
            turned: right(backward.as_ref(), across.transposed()),
            hidden: by_hidden.as_deref_mut(),
            weight: by_weight.as_deref_mut().map(|to| (to, whole)),
            bias: by_bias.as_deref_mut(),
        });
        linear_cross_entropy(m.pool(), &head, &mut m.f32_mut(losses), gradients, &mut m.f32_mut(scratch));
        Ok(())
    });
}
