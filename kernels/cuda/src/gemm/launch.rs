//! The launches of a product, once its kernel is chosen.

use super::choice::{ALIGN, vectors};
use super::{Choice, Element, Epilogue, Gemm, Matrix, Way};
use crate::size::refused;
use crate::{Arg, CudaError, Launch, Ptr, args};

/// The launches of a product by a kernel that [`choose`](super::choose) chose for it, with
/// [`Choice::workspace`] bytes at `workspace`.
///
/// # Errors
/// More tiles than a grid has.
pub fn gemm(g: &Gemm, choice: &Choice, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let p = if choice.turned { g.turned() } else { *g };
    match choice.way {
        Way::Nothing => Ok(vec![]),
        Way::Rows => Ok(vec![rows(&p, choice)]),
        Way::Columns => columns(&p, choice, workspace),
        Way::Plain | Way::Ampere => plain(&p, choice, workspace),
        Way::Hopper => super::hopper::launches(&p, choice, workspace),
        Way::Dequantized => {
            let then = choice.then.as_ref().ok_or_else(|| refused("gemm", "a choice that was not chosen"))?;
            let mut launches = dequantize(&p, workspace, Element::F32)?;
            let rest = workspace.at((p.n * p.k * 4).next_multiple_of(ALIGN));
            launches.extend(gemm(&numbers(&p, workspace), then, rest)?);
            Ok(launches)
        }
    }
}

/// The product with the planes of `b` as `f32` at `at`.
pub(super) fn numbers(g: &Gemm, at: Ptr) -> Gemm {
    Gemm { b: Matrix { at, element: Element::F32, ..g.b }, planes: Ptr::NULL, ..*g }
}

/// Writes what the planes of `b` stand for, `[n, k]` of a real type.
///
/// # Errors
/// More values than a grid has threads.
pub fn dequantize(g: &Gemm, to: Ptr, element: Element) -> Result<Vec<Launch>, CudaError> {
    let bits = if g.b.element == Element::Q8_0 { 8 } else { 4 };
    let count = g.n * g.k;
    let args = args![bits, g.b.at, g.planes, to, element as i32, count as i64];
    Ok(vec![Launch::new("dequantize_planes", [grid(count.div_ceil(256))?, 1, 1], 256, args)])
}

/// Blocks along x.
pub(crate) fn grid(blocks: usize) -> Result<u32, CudaError> {
    match blocks < 1 << 31 {
        true => Ok(blocks as u32),
        false => Err(refused("gemm", format!("{blocks} blocks, a grid has at most {}", i32::MAX))),
    }
}

/// An operand as kernels take it: the address and four distances.
pub(crate) fn operand(x: &Matrix) -> [Arg; 5] {
    let far = |n: usize| Arg::I64(n as i64);
    [Arg::Ptr(x.at), far(x.row), far(x.col), far(x.outer), far(x.inner)]
}

/// The epilogue as kernels take it.
pub(crate) fn epilogue(c: &Matrix, e: &Epilogue) -> Vec<Arg> {
    let [bias, gate, residual] = [e.bias, e.gate, e.residual].map(Option::unwrap_or_default);
    let mut list = vec![];
    [c, &bias, &gate, &residual].into_iter().for_each(|x| list.extend(operand(x)));
    let elements = [c, &bias, &gate, &residual].map(|x| x.element).into_iter().chain(e.rounded);
    let types = elements.enumerate().fold(0, |t, (i, x)| t | (x as u32) << (4 * i));
    list.extend(args![e.row_scales, e.column_scales, e.scale, e.amax, e.factors[0], e.factors[1]]);
    list.extend(args![e.alpha, e.beta, e.activation as i32, types]);
    list
}

/// How a side of a product is read: its type, and in which direction by how many values (`gemm.cu`, `Side`). `i` is
/// the distance between its rows (for `b`: columns), `l` that along what is summed over.
pub(crate) fn kind(x: &Matrix, batch: [usize; 2], i: usize, l: usize) -> i32 {
    let real = x.element == Element::F32;
    let mode = match (i, l) {
        (_, 1) => 2 * (real && vectors(x, batch, i)) as i32,
        (1, _) => 1 + 2 * (real && vectors(x, batch, l)) as i32,
        _ => 0,
    };
    x.element as i32 | mode << 4
}

/// Shared memory of `gemm.cu`'s tiles: two stages of eight rows for both operands.
pub(crate) fn tiles(width: usize) -> u32 {
    (2 * 2 * 8 * (width + 4) * 4) as u32
}

fn plain(g: &Gemm, choice: &Choice, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let [tm, tn] = [g.m.div_ceil(choice.tile[0]), g.n.div_ceil(choice.tile[1])];
    let blocks = tm.saturating_mul(tn).saturating_mul(g.count());
    let partial = if choice.splits > 1 { workspace } else { Ptr::NULL };
    let (a, b) = (kind(&g.a, g.batch, g.a.row, g.a.col), kind(&g.b, g.batch, g.b.col, g.b.row));
    let mut list = args![g.m as i32, g.n as i32, g.k as i32, g.batch[1] as i32, choice.part as i32, partial];
    list.extend(operand(&g.a));
    list.extend(operand(&g.b));
    list.extend(args![a, b]);
    list.extend(epilogue(&g.c, &g.epilogue));
    let width = choice.tile[0];
    let (threads, shared) = match choice.way {
        // Four stages of 64 bytes of k for both operands.
        Way::Ampere => (if width == 128 { 256 } else { 128 }, (4 * 2 * 64 * width) as u32),
        _ => (256, tiles(width)),
    };
    let size = [grid(blocks)?, choice.splits as u32, 1];
    let mut launches = vec![Launch::new(choice.kernel, size, threads, list).shared(shared)];
    launches.extend(reduce(g, choice, workspace)?);
    Ok(launches)
}

/// Adds the sums of splits.
pub(super) fn reduce(g: &Gemm, choice: &Choice, workspace: Ptr) -> Result<Option<Launch>, CudaError> {
    if choice.splits <= 1 {
        return Ok(None);
    }
    let all = g.m * g.n * g.count();
    let [m, n, inner, batches, splits] = [g.m, g.n, g.batch[1], g.count(), choice.splits].map(|n| n as i32);
    let mut list = args![m, n, inner, batches, splits, workspace];
    list.extend(epilogue(&g.c, &g.epilogue));
    Ok(Some(Launch::new("gemm_reduce", [grid(all.div_ceil(256))?, 1, 1], 256, list)))
}

fn rows(g: &Gemm, choice: &Choice) -> Launch {
    // Warps that share rows of weights: more where rows alone do not fill a device.
    let share = match g.n * g.count() {
        n if n >= 4096 || g.k < 512 => 1,
        n if n >= 1024 || g.k < 2048 => 2,
        _ => 4,
    };
    let few = if g.m > 1 { g.a.row } else { 0 };
    let vec = g.a.col == 1
        && vectors(&g.a, g.batch, few)
        && g.b.row == 1
        && !g.b.element.planes()
        && vectors(&g.b, g.batch, g.b.col);
    let [m, n, k, inner] = [g.m, g.n, g.k, g.batch[1]].map(|n| n as i32);
    let mut list = args![m, n, k, inner, share, vec as i32];
    list.extend(operand(&g.a));
    list.extend(operand(&g.b));
    list.extend(args![g.planes]);
    list.extend(epilogue(&g.c, &g.epilogue));
    let blocks = g.n.div_ceil(8 / share as usize) as u32;
    Launch::new(choice.kernel, [blocks, g.count() as u32, 1], 128, list).shared(256)
}

fn columns(g: &Gemm, choice: &Choice, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let vec = vectors(&g.b, g.batch, g.b.row);
    let partial = if choice.splits > 1 { workspace } else { Ptr::NULL };
    let [m, n, k, inner] = [g.m, g.n, g.k, g.batch[1]].map(|n| n as i32);
    let mut list = args![m, n, k, inner, choice.part as i32, vec as i32, partial];
    list.extend(operand(&g.a));
    list.extend(operand(&g.b));
    list.extend(epilogue(&g.c, &g.epilogue));
    let size = [g.n.div_ceil(choice.tile[1]) as u32, choice.splits as u32, g.count() as u32];
    let mut launches = vec![Launch::new(choice.kernel, size, 256, list).shared(8 * choice.tile[1] as u32 * 4)];
    launches.extend(reduce(g, choice, workspace)?);
    Ok(launches)
}
