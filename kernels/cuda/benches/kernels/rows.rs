//! What only moves bytes: copies, rows, elementwise chains.

use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::chain::{self, Input, Kind, Member, Op, Step};
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
    ("chains adamw 148 of 786432 f32", 148, 786_432, 7, adamw),
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

/// A step of AdamW over arrays of one size, with the factor of clipping and the learning rate on the device.
fn adamw(o: &mut Operands, arrays: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let mut steps: Vec<Step> = vec![];
    let mut put = |op: Op, args: &[u16]| {
        steps.push(Step { op, args: args.to_vec(), kind: Kind::F32 });
        5 + steps.len() as u16
    };
    let (p, g, m, v, clip, lr) = (0, 1, 2, 3, 4, 5);
    let [b1, a1, b2, a2, eps, decay] = [0.9, 0.1, 0.999, 0.001, 1e-8, -0.01].map(|c| put(Op::Constant(c), &[]));
    let mut call = |name, a: u16, b: u16| put(Op::Call(name), &[a, b]);
    let g = call("mul", g, clip);
    let (m, new) = (call("mul", m, b1), call("mul", g, a1));
    let (v, square) = (call("mul", v, b2), call("mul", g, g));
    let (m, square) = (call("add", m, new), call("mul", square, a2));
    let v = call("add", v, square);
    let shrink = call("mul", lr, decay);
    let shrink = call("mul", shrink, p);
    let p = call("add", p, shrink);
    let root = put(Op::Call("sqrt"), &[v]);
    let root = put(Op::Call("add"), &[root, eps]);
    let step = put(Op::Call("div"), &[m, root]);
    let step = put(Op::Call("mul"), &[step, lr]);
    let p = put(Op::Call("sub"), &[p, step]);
    let single = o.random(2, Element::F32)?;
    let member = |o: &mut Operands| -> Result<Member, CudaError> {
        let at = [o.random(n, Element::F32)?, o.random(n, Element::F32)?, o.space(4 * n)?, o.space(4 * n)?];
        let linear = at.map(|at| Input { at, kind: Kind::F32, strides: vec![1] });
        let one = [0, 4].map(|b| Input { at: single.at(b), kind: Kind::F32, strides: vec![0] });
        let outputs = vec![(p - 6, at[0]), (m - 6, at[2]), (v - 6, at[3])];
        Ok(Member { inputs: linear.into_iter().chain(one).collect(), outputs, sizes: vec![n] })
    };
    let members = (0..arrays).map(|_| member(o)).collect::<Result<Vec<_>, _>>()?;
    chain::many(&steps, &members)
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
