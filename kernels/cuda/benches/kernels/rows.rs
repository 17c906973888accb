//! What only moves bytes: copies, rows, elementwise chains.

use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::chain::{self, Input, Kind, Op, Step};
use mobilis_cuda::copy::{Strided, copy};
use mobilis_cuda::gemm::Element;
use mobilis_cuda::norm::Norm;
use mobilis_cuda::rows::Number;
use mobilis_cuda::softmax::{Along, softmax};
use mobilis_cuda::{CudaError, Launch, Ptr};

/// A case of `rows` by `n` values of `f32`: a name, how often each value is read or written, and its launches.
type Row = (&'static str, usize, usize, usize, fn(&mut Operands, usize, usize) -> Result<Vec<Launch>, CudaError>);

const TABLE: &[Row] = &[
    ("copy 16384x4096 f32", 16384, 4096, 2, contiguous),
    ("copy transposed 8192x8192 f32", 8192, 8192, 2, transposed),
    ("softmax 16384x4096 f32", 16384, 4096, 2, rows_of_softmax),
    ("softmax 4096x32768 f32", 4096, 32768, 2, rows_of_softmax),
    ("norm rms 16384x4096 f32", 16384, 4096, 2, rms),
    ("norm rms of x+residual 16384x4096 f32", 16384, 4096, 4, rms_of_sum),
    ("chain silu(x)*y 16384x4096 f32", 16384, 4096, 3, gated),
    ("chain x+y*row 16384x4096 f32", 16384, 4096, 3, scaled_residual),
];

pub fn cases() -> Vec<Case> {
    let case = |(name, rows, n, times, make): &Row| {
        let (rows, n, make) = (*rows, *n, *make);
        let full: Make = Box::new(move |o| make(o, rows, n));
        let small: Make = Box::new(move |o| make(o, 40, 48));
        let bytes = (4 * rows * n * times) as f64;
        Case { name: (*name).into(), flops: 0.0, bytes, peak: Peak::None, peer: None, make: [full, small] }
    };
    TABLE.iter().map(case).collect()
}

fn contiguous(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, y) = (o.random(rows * n, Element::F32)?, o.space(4 * rows * n)?);
    let at = |at| Strided { at, strides: vec![1] };
    copy(&at(x), &at(y), &[rows * n], 4)
}

fn transposed(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, y) = (o.random(rows * n, Element::F32)?, o.space(4 * rows * n)?);
    let (from, to) = (Strided { at: x, strides: vec![1, n as i64] }, Strided { at: y, strides: vec![rows as i64, 1] });
    copy(&from, &to, &[n, rows], 4)
}

fn rows_of_softmax(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, y) = (o.random(rows * n, Element::F32)?, o.space(4 * rows * n)?);
    softmax(x, y, Along { outer: rows, n, inner: 1 }, false, Number::F32)
}

fn rms(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, weight, y) = (o.random(rows * n, Element::F32)?, o.random(n, Element::F32)?, o.space(4 * rows * n)?);
    let norm = Norm { rows, n, eps: 1e-5, centred: false, number: Number::F32 };
    norm.forward(x, None, weight, Ptr::NULL, y)
}

fn rms_of_sum(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, residual) = (o.random(rows * n, Element::F32)?, o.random(rows * n, Element::F32)?);
    let (weight, sum, y) = (o.random(n, Element::F32)?, o.space(4 * rows * n)?, o.space(4 * rows * n)?);
    let norm = Norm { rows, n, eps: 1e-5, centred: false, number: Number::F32 };
    norm.forward(x, Some((residual, sum)), weight, Ptr::NULL, y)
}

fn step(op: Op, args: &[u16]) -> Step {
    Step { op, args: args.to_vec(), kind: Kind::F32 }
}

fn gated(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let mut input = || -> Result<Input, CudaError> {
        Ok(Input { at: o.random(rows * n, Element::F32)?, kind: Kind::F32, strides: vec![n, 1] })
    };
    let inputs = [input()?, input()?];
    let steps = [step(Op::Call("sigmoid"), &[0]), step(Op::Call("mul"), &[0, 2]), step(Op::Call("mul"), &[3, 1])];
    chain::chain(&inputs, &steps, &[(2, o.space(4 * rows * n)?)], &[rows, n])
}

fn scaled_residual(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let mut input = |strides: [usize; 2], count| -> Result<Input, CudaError> {
        Ok(Input { at: o.random(count, Element::F32)?, kind: Kind::F32, strides: strides.to_vec() })
    };
    let inputs = [input([n, 1], rows * n)?, input([n, 1], rows * n)?, input([0, 1], n)?];
    let steps = [step(Op::Call("mul"), &[1, 2]), step(Op::Call("add"), &[0, 3])];
    chain::chain(&inputs, &steps, &[(1, o.space(4 * rows * n)?)], &[rows, n])
}
