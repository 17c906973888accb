//! A head joined with its loss on GPUs: logits of a block of rows at a time, which become their own gradient before
//! the products with it follow. The logits are never whole; no logit is computed twice.

use super::contraction::multiply;
use super::lower::{Lower, Lowering};
use crate::graph::DType;
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use mobilis_cuda::gemm::{Epilogue, Gemm, Matrix};
use mobilis_cuda::loss::CrossEntropy;
use mobilis_cuda::rows::Number;
use mobilis_cuda::{CudaError, Ptr};

/// Bytes of a block of logits: large enough that its products fill the device, small beside all logits.
const BLOCK: usize = 256 << 20;

/// Rows of a block: tiles of 128 where there are several blocks.
fn block(rows: usize, classes: usize) -> usize {
    let fit = BLOCK / (4 * classes.max(1));
    if fit >= rows { rows } else { (fit / 128 * 128).clamp(128, 1 << 16) }
}

/// An input of two dimensions (all but the last as one) with its strides, copied where it has none.
fn matrix(input: usize, cx: &mut Lower) -> Matrix {
    let view = cx.view(input);
    let (rows, columns) = match view.sizes.split_last() {
        Some((columns, rows)) => (rows.iter().product(), *columns),
        None => (1, 1),
    };
    match view.reshape(&[rows, columns]) {
        Some(v) => Matrix { at: cx.address(&v), row: v.strides[0], col: v.strides[1], ..Matrix::default() },
        None => Matrix::rows(cx.input(input), columns),
    }
}

pub fn lower(op: &LinearCrossEntropy, cx: &mut Lower) -> Lowering {
    let (hidden, weight) = (matrix(0, cx), matrix(1, cx));
    let targets = cx.input(2);
    let bias = op.bias_input().map(|i| cx.input(i));
    let g = op.gradient_input().map_or(Ptr::NULL, |i| cx.input(i));
    let losses = cx.output(0);
    let by: [Option<Ptr>; 3] = std::array::from_fn(|i| op.port(i).map(|port| cx.output(port)));
    let rows: usize = cx.input_sizes(2).iter().product();
    let (classes, depth) = (cx.input_sizes(1)[op.classes], cx.input_sizes(1)[1 - op.classes]);
    if rows == 0 || classes == 0 || depth == 0 {
        // The host knows what nothing gives.
        return Err("has no rows, classes or values".into());
    }
    // The weight as `depth` rows of `classes` values, and its gradient laid out as it is.
    let across = if op.classes == 1 { weight } else { weight.turned() };
    let whole = |at| if op.classes == 1 { Matrix::rows(at, classes) } else { Matrix::rows(at, depth).turned() };
    let many = block(rows, classes);
    let piece = cx.buffer(many * classes, DType::F32);
    let logits = Matrix::rows(cx.at(piece, DType::F32), classes);
    let one = cx.constant(&1f32.to_ne_bytes());
    let ones = Matrix { at: cx.address(&one), ..Matrix::default() };
    let status = cx.status();
    let from = |m: Matrix, row: usize| Matrix { at: m.at.at(row * m.row * 4), ..m };
    for first in (0..rows).step_by(many) {
        let m = many.min(rows - first);
        let h = from(hidden, first);
        let forward = Gemm::new([m, classes, depth], h, across, logits);
        let epilogue = Epilogue { bias: bias.map(Matrix::repeated_row), ..Epilogue::default() };
        multiply(&Gemm { epilogue, ..forward }, cx)?;
        let kernel = CrossEntropy {
            rows: m,
            classes,
            ignore: op.options.ignore_index,
            smoothing: op.options.label_smoothing as f32,
            z_loss: op.options.z_loss as f32,
            number: Number::F32,
            status,
        };
        let at = |p: Ptr| if p == Ptr::NULL { p } else { p.at(first * 4) };
        let launches: Result<_, CudaError> = kernel.fused(logits.at, at(targets), at(g), at(losses));
        cx.launch(launches?);
        // The logits are gradients now.
        let more = Epilogue { beta: if first == 0 { 0.0 } else { 1.0 }, ..Epilogue::default() };
        if let Some(to) = by[0] {
            let to = from(Matrix::rows(to, depth), first);
            multiply(&Gemm::new([m, depth, classes], logits, across.turned(), to), cx)?;
        }
        if let Some(to) = by[1] {
            let product = Gemm::new([depth, classes, m], h.turned(), logits, whole(to));
            multiply(&Gemm { epilogue: more, ..product }, cx)?;
        }
        if let Some(to) = by[2] {
            let product = Gemm::new([1, classes, m], ones, logits, Matrix::rows(to, classes));
            multiply(&Gemm { epilogue: more, ..product }, cx)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::block;

    #[test]
    fn blocks_are_whole_tiles_of_bounded_size() {
        assert_eq!(block(100, 1000), 100);
        assert_eq!(block(1 << 20, 50_257), 1280);
        assert_eq!(block(1 << 20, 1 << 30), 128);
        assert_eq!(block(1 << 20, 2), 1 << 20);
    }
}
