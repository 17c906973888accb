//! Reductions on GPUs.

use super::lower::{Lower, Lowering};
use crate::graph::DType;
use crate::ops::reduce::{Primitive, Reduce};
use mobilis_cuda::reduce::{Reduction, reduce, workspace};

pub fn lower(op: &Reduce, cx: &mut Lower) -> Lowering {
    let kind = match (op.kind, cx.input_dtype(0)) {
        (Primitive::Sum, DType::F32) => Reduction::Sum,
        (Primitive::Max, DType::F32) => Reduction::Max,
        (Primitive::Min, DType::F32) => Reduction::Min,
        (Primitive::Sum, _) => Reduction::SumInt,
        (Primitive::Max, _) => Reduction::MaxInt,
        (Primitive::Min, _) => Reduction::MinInt,
        (Primitive::SumSquares, _) => Reduction::SumSquares,
        (Primitive::LogSumExp, _) => Reduction::LogSumExp,
        (Primitive::Any, _) => Reduction::Any,
        (Primitive::All, _) => Reduction::All,
    };
    let multiprocessors = cx.info().multiprocessors;
    // Sums do not care for the order of dimensions: values that lie without gaps are reduced as they lie.
    let view = cx.view(0);
    let mut order: Vec<usize> = (0..view.sizes.len()).collect();
    order.sort_by_key(|d| std::cmp::Reverse(view.strides[*d]));
    let moved = view.permute(&order);
    let kept: Vec<usize> = order.iter().copied().filter(|d| !op.positions.contains(d)).collect();
    let (x, sizes, positions) = if moved.is_contiguous() && kept.is_sorted() {
        let at = cx.address(&moved);
        let positions = (0..order.len()).filter(|i| op.positions.contains(&order[*i])).collect();
        (at, moved.sizes, positions)
    } else {
        (cx.input(0), view.sizes, op.positions.clone())
    };
    let y = cx.output(0);
    let space = cx.scratch(workspace(kind, &sizes, &positions, multiprocessors));
    cx.launch(reduce(kind, (x, y, space), &sizes, &positions, multiprocessors)?);
    Ok(())
}
