//! Products, beside cuBLASLt on the same sizes: large ones, and one row by weights of several formats.

use crate::check;
use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::experts::{Grouped, Routed, route};
use mobilis_cuda::gemm::{Blocks, Element, Epilogue, Gemm, Matrix, choose, gemm};
use mobilis_cuda::{CudaError, Launch};

/// A product `c = a bᵀ`: the types of `a` and `b`, its sizes, whether TF32 is allowed.
struct Row {
    name: &'static str,
    a: Element,
    b: Element,
    size: (usize, usize, usize),
    tf32: bool,
    peak: Peak,
    peer: bool,
}

const fn row(name: &'static str, a: Element, b: Element, size: (usize, usize, usize), peak: Peak, peer: bool) -> Row {
    Row { name, a, b, size, tf32: matches!(peak, Peak::Tf32), peak, peer }
}

use Element::{Bf16, E4M3, F32, I8, Q4_0, Q8_0};

const TABLE: &[Row] = &[
    row("gemm f32", F32, F32, (4096, 4096, 4096), Peak::F32, true),
    row("gemm f32 flat", F32, F32, (512, 4096, 4096), Peak::F32, true),
    row("gemm tf32", F32, F32, (4096, 4096, 4096), Peak::Tf32, true),
    row("gemm bf16", Bf16, Bf16, (4096, 4096, 4096), Peak::Bf16, true),
    row("gemm bf16", Bf16, Bf16, (8192, 8192, 8192), Peak::Bf16, true),
    row("gemm bf16 ffn", Bf16, Bf16, (8192, 14336, 4096), Peak::Bf16, true),
    // Few tiles, long sums: k is cut.
    row("gemm bf16 few rows", Bf16, Bf16, (64, 4096, 14336), Peak::Bf16, true),
    row("gemm bf16 deep", Bf16, Bf16, (512, 512, 65_536), Peak::Bf16, true),
    row("gemm fp8", E4M3, E4M3, (4096, 4096, 7168), Peak::Fp8, true),
    row("gemm fp8", E4M3, E4M3, (4096, 7168, 16384), Peak::Fp8, true),
    row("decode f32", F32, F32, (1, 14336, 4096), Peak::None, true),
    row("decode bf16", F32, Bf16, (1, 14336, 4096), Peak::None, false),
    row("decode fp8", F32, E4M3, (1, 14336, 4096), Peak::None, false),
    row("decode int8", F32, I8, (1, 14336, 4096), Peak::None, false),
    row("decode q8_0", F32, Q8_0, (1, 14336, 4096), Peak::None, false),
    row("decode q4_0", F32, Q4_0, (1, 14336, 4096), Peak::None, false),
    row("decode bf16 head", F32, Bf16, (1, 128_256, 4096), Peak::None, false),
];

/// Bytes of `count` weights, with the scales of their blocks.
fn weight_bytes(element: Element, count: usize) -> usize {
    match element {
        Q8_0 => count + count / 16,
        Q4_0 => count / 2 + count / 16,
        other => count * other.bytes(),
    }
}

pub fn cases() -> Vec<Case> {
    let scaled =
        [(4096, 4096, 7168), (4096, 7168, 16384)].into_iter().flat_map(|n| [scaled(n, false), scaled(n, true)]);
    TABLE.iter().map(case).chain(scaled).chain([grouped()]).collect()
}

/// A product of E4M3 with factors of 1 x 128 values of `a`, and of 128 x 128 of `b`, or of 1 x 128 as gradients by weights have
/// them; results in bf16. The peer scales by tensor.
fn scaled((m, n, k): (usize, usize, usize), each_column: bool) -> Case {
    Case {
        name: format!("gemm fp8 1x128 {} {m}x{n}x{k}", if each_column { "1x128" } else { "128x128" }),
        flops: 2.0 * (m * n) as f64 * k as f64,
        bytes: (m * k + n * k + m * n * 2) as f64,
        peak: Peak::Fp8,
        peer: Some(((m, n, k), E4M3, false)),
        make: [
            Box::new(move |o| scaled_launches(o, [m, n, k], each_column)),
            Box::new(move |o| scaled_launches(o, [72, 128, 256], each_column)),
        ],
    }
}

fn scaled_launches(o: &mut Operands, [m, n, k]: [usize; 3], each_column: bool) -> Result<Vec<Launch>, CudaError> {
    let a = Matrix::rows(o.random(m * k, E4M3)?, k).of(E4M3);
    let b = Matrix::rows(o.random(n * k, E4M3)?, k).turned().of(E4M3);
    let c = Matrix::rows(o.space(m * n * 2)?, n).of(Bf16);
    let (deep, far) = (k.div_ceil(128), if each_column { n.next_multiple_of(128) } else { n.div_ceil(128) });
    let factors = Blocks {
        a: o.random(m * deep, F32)?,
        a_far: [1, m],
        b: o.random(far * deep, F32)?,
        b_far: [1, far],
        each_column,
    };
    let product = Gemm { m, n, k, batch: [1, 1], a, b, c, blocks: Some(factors), ..Gemm::default() };
    o.check(check::product(product), 0.03);
    let choice = choose(&product, o.gpu().info())?;
    let workspace = o.space(choice.workspace)?;
    gemm(&product, &choice, workspace)
}

/// A layer of chosen experts as Qwen3-MoE has it: 4096 tokens, 8 choices each of 128 matrices that are stored as bf16, with the
/// sorting and rounding of rows before it.
fn grouped() -> Case {
    let (choices, experts, n, k) = (4096 * 8, 128, 768, 2048);
    let full: Make = Box::new(move |o| experts_launches(o, [choices, experts, n, k]));
    let small: Make = Box::new(move |o| experts_launches(o, [96, 4, 40, 72]));
    let rows = choices / 8 * k * 4 + choices * (n * 4 + k * 2 * 2);
    Case {
        name: "experts bf16 32768 of 128x768x2048".into(),
        flops: 2.0 * (choices * n * k) as f64,
        bytes: (rows + experts * n * k * 2) as f64,
        peak: Peak::Bf16,
        peer: None,
        make: [full, small],
    }
}

fn experts_launches(o: &mut Operands, [choices, experts, n, k]: [usize; 4]) -> Result<Vec<Launch>, CudaError> {
    let chosen: Vec<i32> = (0..choices).map(|i| (i * 37 % experts) as i32).collect();
    let on = o.space(choices * 4)?;
    o.gpu().write(on, &chosen)?;
    let routed = Routed { choices, experts, workspace: o.space(Routed::bytes(choices, experts))? };
    let grouped = Grouped { routed, element: Bf16, workspace: o.space(Grouped::bytes(choices, experts))? };
    let (x, rows) = (o.random(choices / 8 * k, F32)?, o.space(grouped.rows_bytes(k))?);
    let weights = o.random(experts * n * k, Bf16)?;
    let matrix = |e: usize| Matrix::rows(weights.at(e * n * k * 2), k).turned().of(Bf16);
    let matrices: Vec<Matrix> = (0..experts).map(matrix).collect();
    let c = Matrix::rows(o.space(choices * n * 4)?, n);
    let mut launches = route(on, &routed, mobilis_cuda::Ptr::NULL)?;
    launches.extend(grouped.sort()?);
    launches.extend(grouped.rows(x, k, 8, rows)?);
    launches.extend(grouped.product(o.gpu().info(), rows, &matrices, [n, k], &c, &Epilogue::default())?);
    Ok(launches)
}

fn case(row: &'static Row) -> Case {
    let (m, n, k) = row.size;
    let full: Make = Box::new(move |o| launches(o, row, row.size));
    let small: Make = Box::new(move |o| launches(o, row, (row.size.0.min(72), 96, 128)));
    let out = if row.a == F32 { 4 } else { 2 };
    Case {
        name: format!("{} {m}x{n}x{k}", row.name),
        flops: 2.0 * m as f64 * n as f64 * k as f64,
        bytes: (m * k * row.a.bytes() + weight_bytes(row.b, n * k) + m * n * out) as f64,
        peak: row.peak,
        peer: row.peer.then_some((row.size, row.b, row.tf32)),
        make: [full, small],
    }
}

fn launches(o: &mut Operands, row: &Row, (m, n, k): (usize, usize, usize)) -> Result<Vec<Launch>, CudaError> {
    let out = if row.a == F32 { F32 } else { Bf16 };
    let a = Matrix::rows(o.random(m * k, row.a)?, k).of(row.a);
    let (values, planes) = match row.b {
        Q8_0 | Q4_0 => {
            let bytes = if row.b == Q8_0 { n * k } else { n * k / 2 };
            (o.random(bytes, I8)?, o.random(n * k / 32, Element::F16)?)
        }
        other => (o.random(n * k, other)?, mobilis_cuda::Ptr::NULL),
    };
    let b = Matrix::rows(values, k).turned().of(row.b);
    let c = Matrix::rows(o.space(m * n * out.bytes())?, n).of(out);
    let mut product = Gemm { m, n, k, batch: [1, 1], a, b, c, planes, tf32: row.tf32, ..Gemm::default() };
    if row.b == I8 {
        product.epilogue.column_scales = o.random(n, F32)?;
    }
    // Tensor cores keep 14 bits of sums of products of eight.
    o.check(check::product(product), if (row.a, row.b) == (E4M3, E4M3) { 0.1 } else { 0.03 });
    let choice = choose(&product, o.gpu().info())?;
    let workspace = o.space(choice.workspace)?;
    gemm(&product, &choice, workspace)
}
