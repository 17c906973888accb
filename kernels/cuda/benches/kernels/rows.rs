//! What only moves bytes: copies, rows, elementwise chains.

use crate::check::{self, numbers};
use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::chain::{self, Input, Kind, Member, Op, Step};
use mobilis_cuda::copy::{Strided, copy};
use mobilis_cuda::gemm::Element;
use mobilis_cuda::loss::CrossEntropy;
use mobilis_cuda::norm::Norm;
use mobilis_cuda::reduce::{self, Reduction};
use mobilis_cuda::rope::Rope;
use mobilis_cuda::rows::Number;
use mobilis_cuda::sample::sample;
use mobilis_cuda::softmax::{Along, softmax};
use mobilis_cuda::{CudaError, Gpu, Launch, Ptr};

/// A case of `rows` by `n` values of `f32`: a name, how often each value is read or written, and its launches.
type Row = (&'static str, usize, usize, usize, fn(&mut Operands, usize, usize) -> Result<Vec<Launch>, CudaError>);

const TABLE: &[Row] = &[
    ("copy 16384x4096 f32", 16384, 4096, 2, contiguous),
    ("copy transposed 8192x8192 f32", 8192, 8192, 2, transposed),
    ("softmax 16384x4096 f32", 16384, 4096, 2, rows_of_softmax),
    ("softmax 4096x32768 f32", 4096, 32768, 2, rows_of_softmax),
    ("norm rms 16384x4096 f32", 16384, 4096, 2, rms),
    ("norm rms of x+residual 16384x4096 f32", 16384, 4096, 4, rms_of_sum),
    ("norm layer 16384x4096 bf16", 16384, 2048, 2, layer_narrow),
    ("norm rms gradient 16384x4096 f32", 16384, 4096, 3, rms_gradient),
    ("rope 16384x4096 f32", 16384, 4096, 2, rope),
    ("reduce sum of rows 16384x4096 f32", 16384, 4096, 1, sum_of_rows),
    ("reduce sum of columns 16384x4096 f32", 16384, 4096, 1, sum_of_columns),
    ("cross-entropy + gradient 4096x32768 f32", 4096, 32768, 2, losses),
    ("cross-entropy + gradient 2048x128256 f32", 2048, 128_256, 2, losses),
    ("sample 16x128256 f32", 16, 128_256, 1, tokens),
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
    o.check(check::rows([rows, n], y, Element::F32, move |gpu, i| numbers(gpu, x, Element::F32, i * n, n)), 0.0);
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
    let expected = move |gpu: &Gpu, i| {
        let exp: Vec<f64> = numbers(gpu, x, Element::F32, i * n, n)?.iter().map(|v| v.exp()).collect();
        let sum: f64 = exp.iter().sum();
        Ok(exp.iter().map(|v| v / sum).collect())
    };
    o.check(check::rows([rows, n], y, Element::F32, expected), 1e-4);
    softmax(x, y, Along { outer: rows, n, inner: 1 }, false, Number::F32)
}

/// A row by its root mean square, times weights.
fn normed(row: &[f64], weight: Ptr, gpu: &Gpu) -> Result<Vec<f64>, CudaError> {
    let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
    let weights = numbers(gpu, weight, Element::F32, 0, row.len())?;
    Ok(row.iter().zip(&weights).map(|(v, w)| v / (mean + 1e-5).sqrt() * w).collect())
}

fn rms(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, weight, y) = (o.random(rows * n, Element::F32)?, o.random(n, Element::F32)?, o.space(4 * rows * n)?);
    let expected = move |gpu: &Gpu, i| normed(&numbers(gpu, x, Element::F32, i * n, n)?, weight, gpu);
    o.check(check::rows([rows, n], y, Element::F32, expected), 1e-4);
    let norm = Norm { rows, n, eps: 1e-5, centred: false, number: Number::F32 };
    norm.forward(x, None, weight, Ptr::NULL, (y, Number::F32))
}

fn rms_of_sum(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, residual) = (o.random(rows * n, Element::F32)?, o.random(rows * n, Element::F32)?);
    let (weight, sum, y) = (o.random(n, Element::F32)?, o.space(4 * rows * n)?, o.space(4 * rows * n)?);
    let expected = move |gpu: &Gpu, i| {
        let [a, b] = [x, residual].map(|at| numbers(gpu, at, Element::F32, i * n, n));
        normed(&a?.iter().zip(&b?).map(|(a, b)| a + b).collect::<Vec<f64>>(), weight, gpu)
    };
    o.check(check::rows([rows, n], y, Element::F32, expected), 1e-4);
    let norm = Norm { rows, n, eps: 1e-5, centred: false, number: Number::F32 };
    norm.forward(x, Some((residual, sum)), weight, Ptr::NULL, (y, Number::F32))
}

/// Rows of twice as many values of 16 bits.
fn layer_narrow(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let n = 2 * n;
    let (x, y) = (o.random(rows * n, Element::Bf16)?, o.space(2 * rows * n)?);
    let (weight, bias) = (o.random(n, Element::F32)?, o.random(n, Element::F32)?);
    Norm { rows, n, eps: 1e-5, centred: true, number: Number::Bf16 }.forward(x, None, weight, bias, (y, Number::Bf16))
}

fn rms_gradient(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (x, g, gx) = (o.random(rows * n, Element::F32)?, o.random(rows * n, Element::F32)?, o.space(4 * rows * n)?);
    let (weight, gw) = (o.random(n, Element::F32)?, o.space(4 * n)?);
    let norm = Norm { rows, n, eps: 1e-5, centred: false, number: Number::F32 };
    let multiprocessors = o.gpu().info().multiprocessors;
    let workspace = o.space(norm.workspace(multiprocessors))?;
    norm.backward((x, weight, g), (gx, gw, Ptr::NULL), workspace, multiprocessors)
}

/// Heads of 16 features in the small case, of 128 else, of one sequence.
fn rope(o: &mut Operands, positions: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let features = if n.is_multiple_of(128) { 128 } else { 16 };
    let (heads, half) = (n / features, features / 2);
    let (x, y) = (o.random(positions * n, Element::F32)?, o.space(4 * positions * n)?);
    let (cosines, sines) = (o.random(positions * half, Element::F32)?, o.random(positions * half, Element::F32)?);
    let follow = vec![(heads, positions, 1)];
    let rows = positions * heads;
    let rope = Rope { rows, features, half, interleaved: false, inverse: false, follow, number: Number::F32 };
    rope.apply(x, cosines, sines, (y, Number::F32))
}

fn sum(o: &mut Operands, sizes: [usize; 2], over: usize) -> Result<Vec<Launch>, CudaError> {
    let multiprocessors = o.gpu().info().multiprocessors;
    let workspace = o.space(reduce::workspace(Reduction::Sum, &sizes, &[over], multiprocessors))?;
    let (x, y) = (o.random(sizes[0] * sizes[1], Element::F32)?, o.space(4 * sizes[1 - over])?);
    reduce::reduce(Reduction::Sum, (x, y, workspace), &sizes, &[over], multiprocessors)
}

fn sum_of_rows(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    sum(o, [rows, n], 1)
}

fn sum_of_columns(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    sum(o, [rows, n], 0)
}

fn losses(o: &mut Operands, rows: usize, classes: usize) -> Result<Vec<Launch>, CudaError> {
    let (logits, loss, g) =
        (o.random(rows * classes, Element::F32)?, o.space(4 * rows)?, o.random(rows, Element::F32)?);
    let targets: Vec<i32> = (0..rows).map(|i| (i * 7919 % classes) as i32).collect();
    let at = o.space(4 * rows)?;
    o.gpu().write(at, &targets)?;
    let (number, status) = (Number::F32, o.space(16)?);
    CrossEntropy { rows, classes, ignore: None, smoothing: 0.0, z_loss: 0.0, number, status }.fused(logits, at, g, loss)
}

fn tokens(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let (logits, to) = (o.random(rows * n, Element::F32)?, o.space(4 * rows)?);
    let (settings, numbers) = (o.space(12 * rows)?, o.space(20 * rows)?);
    o.gpu().write(settings, &[0.7f32, 0.9, 0.0].repeat(rows))?;
    o.gpu().write(numbers, &(0..rows).flat_map(|row| [50, 7, 0, row as i32, 1]).collect::<Vec<i32>>())?;
    sample(logits, settings, numbers, to, [rows, n])
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
    let (to, [x, y]) = (o.space(4 * rows * n)?, [inputs[0].at, inputs[1].at]);
    let expected = move |gpu: &Gpu, i| {
        let [a, b] = [x, y].map(|at| numbers(gpu, at, Element::F32, i * n, n));
        Ok(a?.iter().zip(&b?).map(|(a, b)| a / (1.0 + (-a).exp()) * b).collect())
    };
    o.check(check::rows([rows, n], to, Element::F32, expected), 1e-4);
    chain::chain(&inputs, &steps, &[(2, to)], &[rows, n])
}

fn scaled_residual(o: &mut Operands, rows: usize, n: usize) -> Result<Vec<Launch>, CudaError> {
    let mut input = |strides: [usize; 2], count| -> Result<Input, CudaError> {
        Ok(Input { at: o.random(count, Element::F32)?, kind: Kind::F32, strides: strides.to_vec() })
    };
    let inputs = [input([n, 1], rows * n)?, input([n, 1], rows * n)?, input([0, 1], n)?];
    let steps = [step(Op::Call("mul"), &[1, 2]), step(Op::Call("add"), &[0, 3])];
    chain::chain(&inputs, &steps, &[(1, o.space(4 * rows * n)?)], &[rows, n])
}
