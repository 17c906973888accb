//! Reductions on the CPU.

use super::lower::Lower;
use super::view::View;
use crate::graph::DType;
use crate::ops::reduce::{Primitive, Reduce};
use mobilis_kernels::cpu::reduce::{Reduction, fold, logsumexp, reduce_f32, reduce_scratch};
use mobilis_kernels::memory::Piece;

/// The input as `[outer, n, inner]` where the reduced dimensions are neighbours, else a copy
/// with the reduced dimensions last.
fn arrange(positions: &[usize], cx: &mut Lower) -> (Piece, (usize, usize, usize)) {
    let sizes = cx.input_sizes(0).to_vec();
    let product = |range: &[usize]| range.iter().product::<usize>();
    let n = positions.iter().map(|p| sizes[*p]).product();
    let neighbours = positions.windows(2).all(|w| w[1] == w[0] + 1);
    let view = cx.view(0);
    if neighbours && view.is_contiguous() {
        let (first, last) = (positions[0], positions[positions.len() - 1]);
        return (cx.input(0), (product(&sizes[..first]), n, product(&sizes[last + 1..])));
    }
    let kept: Vec<usize> = (0..sizes.len()).filter(|d| !positions.contains(d)).collect();
    let outer = kept.iter().map(|d| sizes[*d]).product();
    let perm: Vec<usize> = kept.into_iter().chain(positions.iter().copied()).collect();
    let moved = view.permute(&perm);
    let piece = if moved.is_contiguous() {
        let View { slot, offset, .. } = moved;
        Piece { slot, offset, len: moved.count() }
    } else {
        cx.packed(&moved)
    };
    (piece, (outer, n, 1))
}

pub fn lower(op: &Reduce, cx: &mut Lower) {
    let (x, (outer, n, inner)) = arrange(&op.positions, cx);
    let y = cx.output(0);
    let kind = op.kind;
    match cx.input_dtype(0) {
        DType::F32 if kind == Primitive::LogSumExp => {
            cx.task(move |m| logsumexp(m.pool(), (outer, n, inner), &m.f32(x), &mut m.f32_mut(y)));
        }
        DType::F32 => {
            let kind = match kind {
                Primitive::Max => Reduction::Max,
                Primitive::Min => Reduction::Min,
                Primitive::SumSquares => Reduction::SumSquares,
                _ => Reduction::Sum,
            };
            let scratch = cx.scratch(reduce_scratch((outer, n, inner)));
            cx.task(move |m| {
                let (x, mut y, mut scratch) = (m.f32(x), m.f32_mut(y), m.f32_mut(scratch));
                reduce_f32(m.pool(), kind, (outer, n, inner), &x, &mut y, &mut scratch);
            });
        }
        DType::I32 => cx.task(move |m| {
            let (x, mut y) = (m.i32(x), m.i32_mut(y));
            match kind {
                Primitive::Max => fold(m.pool(), (n, inner), &x, &mut y, i32::MIN, i32::max),
                Primitive::Min => fold(m.pool(), (n, inner), &x, &mut y, i32::MAX, i32::min),
                _ => fold(m.pool(), (n, inner), &x, &mut y, 0, i32::wrapping_add),
            }
        }),
        DType::Bool => cx.task(move |m| {
            let (x, mut y) = (m.u8(x), m.u8_mut(y));
            match kind {
                Primitive::All => fold(m.pool(), (n, inner), &x, &mut y, 1, |a, b| a & b),
                _ => fold(m.pool(), (n, inner), &x, &mut y, 0, |a, b| a | b),
            }
        }),
    }
}
