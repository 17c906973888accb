//! What a whole model does: all products of a token of an 8-billion-parameter Llama, and a head joined with its loss.

use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::gemm::{Element, Epilogue, Gemm, Matrix, choose, gemm};
use mobilis_cuda::loss::CrossEntropy;
use mobilis_cuda::rows::Number;
use mobilis_cuda::{CudaError, Launch, Ptr};

pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = [Element::Bf16, Element::E4M3].map(token).into();
    all.push(head());
    all
}

/// Outputs and inputs of a layer's products (queries, keys and values together; gate and up together), how many layers,
/// and the head.
const LAYER: [(usize, usize); 4] = [(6144, 4096), (4096, 4096), (28_672, 4096), (4096, 14_336)];
const LAYERS: usize = 32;
const HEAD: (usize, usize) = (128_256, 4096);

/// The weights of Llama 3.1 8B, each read once for one token.
fn token(element: Element) -> Case {
    let shapes = || (0..LAYERS).flat_map(|_| LAYER).chain([HEAD]);
    let count: usize = shapes().map(|(n, k)| n * k).sum();
    let full: Make = Box::new(move |o| products(o, shapes(), element));
    let small: Make = Box::new(move |o| products(o, [(96, 64), (64, 96)].into_iter(), element));
    Case {
        name: format!("decode llama-3.1-8b {}, all weights", if element == Element::Bf16 { "bf16" } else { "fp8" }),
        flops: 2.0 * count as f64,
        bytes: (count * element.bytes()) as f64,
        peak: Peak::None,
        peer: None,
        make: [full, small],
    }
}

fn products(
    o: &mut Operands,
    shapes: impl Iterator<Item = (usize, usize)>,
    element: Element,
) -> Result<Vec<Launch>, CudaError> {
    let mut launches = vec![];
    for (n, k) in shapes {
        let weight = Matrix::rows(o.random(n * k, element)?, k).turned().of(element);
        let x = Matrix::rows(o.random(k, Element::F32)?, k);
        let product = Gemm::new([1, n, k], x, weight, Matrix::rows(o.space(4 * n)?, n));
        let choice = choose(&product, o.gpu().info())?;
        let workspace = o.space(choice.workspace)?;
        launches.extend(gemm(&product, &choice, workspace)?);
    }
    Ok(launches)
}

/// Losses and both gradients of Gemma 2 2B's head over 8,192 tokens in bf16, a block of rows at a time: the logits, 8 GB as `f32`,
/// are never whole.
fn head() -> Case {
    let [rows, classes, depth] = [8192, 256_000, 2304];
    Case {
        name: format!("linear + cross-entropy bf16 {rows}x{classes}x{depth}"),
        flops: 6.0 * (rows * classes) as f64 * depth as f64,
        bytes: (2 * (rows + classes) * depth * (2 + 4)) as f64,
        peak: Peak::Bf16,
        peer: None,
        make: [
            Box::new(move |o| losses(o, [rows, classes, depth], 1024)),
            Box::new(move |o| losses(o, [72, 96, 64], 64)),
        ],
    }
}

fn losses(o: &mut Operands, [rows, classes, depth]: [usize; 3], block: usize) -> Result<Vec<Launch>, CudaError> {
    let half = Element::Bf16;
    let hidden = Matrix::rows(o.random(rows * depth, half)?, depth).of(half);
    let weight = Matrix::rows(o.random(classes * depth, half)?, depth).of(half);
    let logits = Matrix::rows(o.space(block * classes * 2)?, classes).of(half);
    let (by_hidden, by_weight) = (o.space(4 * rows * depth)?, o.space(4 * classes * depth)?);
    let (losses, g) = (o.space(4 * rows)?, o.random(rows, Element::F32)?);
    let targets: Vec<i32> = (0..rows).map(|i| (i * 7919 % classes) as i32).collect();
    let chosen = o.space(4 * rows)?;
    o.gpu().write(chosen, &targets)?;
    let status = o.space(16)?;
    let mut launches = vec![];
    for first in (0..rows).step_by(block) {
        let m = block.min(rows - first);
        let from = |x: Matrix| Matrix { at: x.at.at(first * x.row * x.element.bytes()), ..x };
        let h = from(hidden);
        let mut multiply = |product: Gemm| -> Result<Vec<Launch>, CudaError> {
            let choice = choose(&product, o.gpu().info())?;
            let workspace = o.space(choice.workspace)?;
            gemm(&product, &choice, workspace)
        };
        let at = |p: Ptr| p.at(first * 4);
        launches.extend(multiply(Gemm::new([m, classes, depth], h, weight.turned(), logits))?);
        let number = Number::Bf16;
        let kernel = CrossEntropy { rows: m, classes, ignore: None, smoothing: 0.0, z_loss: 0.0, number, status };
        launches.extend(kernel.fused(logits.at, at(chosen), at(g), at(losses))?);
        let to = from(Matrix::rows(by_hidden, depth));
        launches.extend(multiply(Gemm::new([m, depth, classes], logits, weight, to))?);
        let epilogue = Epilogue { beta: if first == 0 { 0.0 } else { 1.0 }, ..Epilogue::default() };
        let product = Gemm::new([classes, depth, m], logits.turned(), h, Matrix::rows(by_weight, depth));
        launches.extend(multiply(Gemm { epilogue, ..product })?);
    }
    Ok(launches)
}
