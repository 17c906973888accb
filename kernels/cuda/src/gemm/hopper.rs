//! Products on Hopper's tensor cores (`gemm_sm90.cu`, `gemm_fp8.cu`): which kernel, its tensor maps and its launch.

use super::choice::{lines, vectors};
use super::launch::{epilogue, grid, reduce};
use super::{Activation, Choice, Element, Gemm, Matrix};
use crate::{Arg, CudaError, Launch, Ptr, Swizzle, Tile, args};

/// Rows and columns below which smaller tiles of another kernel are less waste.
const LEAST: usize = 64;

/// The kernel and its tile, where one takes the operands.
pub(super) fn kernel(g: &Gemm, multiprocessors: usize) -> Option<(&'static str, [usize; 2])> {
    let (a, b) = (lines(&g.a, g.batch, g.a.row, g.a.col)?, lines(&g.b, g.batch, g.b.col, g.b.row)?);
    let bytes = [g.a.element.bytes(), g.b.element.bytes()];
    if g.k == 0 || (g.blocks.is_none() && g.m.min(g.n) < LEAST) || far(g) {
        return None;
    }
    // Shares of the multiprocessors' time that are work, times how well a tile uses its operands.
    let share = |tile: [usize; 2], rate: f64| {
        let tiles = g.m.div_ceil(tile[0]) * g.n.div_ceil(tile[1]) * g.count();
        tiles as f64 / tiles.next_multiple_of(multiprocessors.max(1)) as f64 * rate
    };
    let large = g.m > 128 && share([128, 256], 1.0) >= share([128, 128], 0.85);
    let tile = if large { [128, 256] } else { [128, 128] };
    let [nn, nt, tn, tt] = match (g.a.element, g.b.element, large) {
        (Element::Bf16, Element::Bf16, true) => {
            ["gemm_nn_bf16_sm90_256", "gemm_nt_bf16_sm90_256", "gemm_tn_bf16_sm90_256", "gemm_tt_bf16_sm90_256"]
        }
        (Element::Bf16, Element::Bf16, false) => {
            ["gemm_nn_bf16_sm90_128", "gemm_nt_bf16_sm90_128", "gemm_tn_bf16_sm90_128", "gemm_tt_bf16_sm90_128"]
        }
        (Element::F16, Element::F16, true) => {
            ["gemm_nn_f16_sm90_256", "gemm_nt_f16_sm90_256", "gemm_tn_f16_sm90_256", "gemm_tt_f16_sm90_256"]
        }
        (Element::F16, Element::F16, false) => {
            ["gemm_nn_f16_sm90_128", "gemm_nt_f16_sm90_128", "gemm_tn_f16_sm90_128", "gemm_tt_f16_sm90_128"]
        }
        _ if bytes == [1, 1] && a && b => return eight(g, large),
        _ => return None,
    };
    if g.blocks.is_some() {
        return None;
    }
    let kernel = match (a, b) {
        (true, false) => nn,
        (true, true) => nt,
        (false, false) => tn,
        (false, true) => tt,
    };
    Some((kernel, tile))
}

/// The kernel for operands of eight bits.
fn eight(g: &Gemm, large: bool) -> Option<(&'static str, [usize; 2])> {
    use Element::{E4M3, E5M2};
    let each = g.blocks.filter(|b| b.each_column);
    if each.is_some_and(|b| {
        b.b == Ptr::NULL || !b.b.0.is_multiple_of(8) || b.b_far[0] != 1 || !b.b_far[1].is_multiple_of(2)
    }) {
        return None;
    }
    let (names, tile) = match (g.blocks.is_some(), large) {
        (true, _) if each.is_some() => {
            (["gemm_e4m3_e4m3_columns", "gemm_e4m3_e5m2_columns", "gemm_e5m2_e4m3_columns"], [128, 128])
        }
        (true, _) => (["gemm_e4m3_e4m3_blocks", "gemm_e4m3_e5m2_blocks", "gemm_e5m2_e4m3_blocks"], [128, 128]),
        (false, true) => (["gemm_e4m3_e4m3_256", "gemm_e4m3_e5m2_256", "gemm_e5m2_e4m3_256"], [128, 256]),
        (false, false) => (["gemm_e4m3_e4m3_128", "gemm_e4m3_e5m2_128", "gemm_e5m2_e4m3_128"], [128, 128]),
    };
    let name = match (g.a.element, g.b.element) {
        (E4M3, E4M3) => names[0],
        (E4M3, E5M2) => names[1],
        (E5M2, E4M3) => names[2],
        _ => return None,
    };
    Some((name, tile))
}

/// Whether distances exceed what a tensor map holds.
fn far(g: &Gemm) -> bool {
    [g.a, g.b].iter().any(|x| [x.row, x.col, x.outer, x.inner].iter().any(|s| s * x.element.bytes() >= 1 << 40))
}

/// The box of an operand that moves over `[outer, inner, lines, along]`: `along` values stand together, lines are `line`
/// values apart.
pub(crate) fn map(
    x: &Matrix,
    batch: [usize; 2],
    along: usize,
    lines: usize,
    line: usize,
    box_sizes: [usize; 2],
) -> Tile {
    let bytes = x.element.bytes();
    let step = |stride: usize, size: usize| if size > 1 && stride > 0 { (size, stride * bytes) } else { (1, 16) };
    let (lines, line) = if lines > 1 { (lines, line * bytes) } else { (1, 16) };
    let ((inner, near), (outer, wide)) = (step(x.inner, batch[1]), step(x.outer, batch[0]));
    let sizes = [along, lines, inner, outer].map(|n| n as u64);
    let boxes = [box_sizes[0] as u32, box_sizes[1] as u32, 1, 1];
    Tile::new(x.at, bytes as u32, &sizes, &[line, near, wide].map(|n| n as u64), &boxes, Swizzle::B128)
}

/// Whether a result can leave by TMA: scaled by a number, in its own type. Rounding to that type is what storing does.
fn direct(g: &Gemm) -> bool {
    let e = &g.epilogue;
    let plain = e.beta == 0.0
        && [e.bias, e.gate, e.residual].iter().all(Option::is_none)
        && e.activation == Activation::Identity
        && e.rounded.iter().all(|x| [Element::F32, g.c.element].contains(x))
        && [e.row_scales, e.column_scales, e.scale, e.amax].iter().all(|p| *p == Ptr::NULL);
    let moves = |stride: usize, size: usize| size <= 1 || stride > 0;
    plain
        && g.c.col == 1
        && matches!(g.c.element, Element::F32 | Element::Bf16 | Element::F16)
        && vectors(&g.c, g.batch, g.c.row)
        && moves(g.c.row, g.m)
        && moves(g.c.outer, g.batch[0])
        && moves(g.c.inner, g.batch[1])
}

/// Slots of the ring and blocks of a cluster, by the tile's width and whether blocks of values have factors.
fn ring(width: usize, factors: bool) -> (usize, usize) {
    match (width, factors) {
        (256, _) => (4, 2),
        (_, true) => (6, 2),
        _ => (6, 1),
    }
}

pub(super) fn launches(g: &Gemm, choice: &Choice, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let width = choice.tile[1];
    let (stages, cluster) = ring(width, g.blocks.is_some());
    let moves = |stride: usize, size: usize| (stride > 0 && size > 1) as i32;
    let side = |x: &Matrix| moves(x.inner, g.batch[1]) | moves(x.outer, g.batch[0]) << 1;
    let deep = 128 / g.a.element.bytes();
    let a = match g.a.col {
        1 => map(&g.a, g.batch, g.k, g.m, g.a.row, [deep, 128]),
        _ => map(&g.a, g.batch, g.m, g.k, g.a.col, [64, 64]),
    };
    let b = match g.b.row {
        1 => map(&g.b, g.batch, g.k, g.n, g.b.col, [deep, width / cluster]),
        _ => map(&g.b, g.batch, g.n, g.k, g.b.row, [64, 64]),
    };
    let straight = choice.splits == 1 && direct(g);
    let c = if straight { map(&g.c, g.batch, g.n, g.m, g.c.row, [128 / g.c.element.bytes(), 64]) } else { a.clone() };
    let partial = if choice.splits > 1 { workspace } else { Ptr::NULL };
    let [m, n, k, inner, batches] = [g.m, g.n, g.k, g.batch[1], g.count()].map(|n| n as i32);
    let (moves, splits, part) = (side(&g.a) | side(&g.b) << 2, choice.splits as i32, choice.part as i32);
    let out = if straight { 1 + g.c.element as i32 } else { 0 };
    let mut list = vec![Arg::Tile(a), Arg::Tile(b), Arg::Tile(c)];
    list.extend(args![m, n, k, inner, batches, moves, splits, part, partial, out]);
    let blocks = g.blocks.unwrap_or(super::Blocks::EXACT);
    list.extend(args![blocks.a, blocks.a_far[0] as i64, blocks.a_far[1] as i64]);
    list.extend(args![blocks.b, blocks.b_far[0] as i64, blocks.b_far[1] as i64]);
    list.extend(epilogue(&g.c, &g.epilogue));
    let tiles = g.m.div_ceil(128 * cluster) * g.n.div_ceil(width) * g.count() * choice.splits;
    grid(tiles)?;
    let size = (tiles * cluster).min(choice.blocks) / cluster * cluster;
    // The ring, two stages of 64 rows of 68 values, and two barriers a slot.
    let shared = stages * (128 + width) * 128 + 2 * 64 * 68 * 4 + stages * 16;
    let launch = Launch::new(choice.kernel, [size.max(cluster) as u32, 1, 1], 384, list);
    let mut launches = vec![launch.shared(shared as u32).cluster([cluster as u32, 1, 1])];
    launches.extend(reduce(g, choice, workspace)?);
    Ok(launches)
}
