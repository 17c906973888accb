//! Which kernel computes a product: a function of its sizes, strides, types and the device alone.

use super::{Element, Gemm, Matrix};
use crate::size::{int, refused};
use crate::{CudaError, Info};
use std::fmt;

/// The kinds of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Nothing: a size is zero.
    Nothing,
    /// Few rows, rows of weights together.
    Rows,
    /// Few rows, columns of weights together.
    Columns,
    /// Tiles on ordinary multipliers.
    Plain,
    /// Tiles on Ampere's tensor cores.
    Ampere,
    /// Tiles on Hopper's tensor cores.
    Hopper,
    /// Planes become numbers first, then whatever suits those.
    Dequantized,
}

/// A kernel and how it cuts the work.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The kind.
    pub way: Way,
    /// The kernel.
    pub kernel: &'static str,
    /// Whether rows and columns are exchanged.
    pub turned: bool,
    /// The tile of results.
    pub tile: [usize; 2],
    /// Splits of `k`, whose sums meet in the workspace.
    pub splits: usize,
    /// What each split sums over, the last less.
    pub part: usize,
    /// Bytes of workspace, aligned to 256.
    pub workspace: usize,
    /// Blocks at most, where they take tiles in turn: the multiprocessors.
    pub blocks: usize,
    /// What follows it, where it is not alone.
    pub then: Option<Box<Choice>>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.kernel)?;
        if self.way != Way::Nothing {
            write!(f, " {}x{}", self.tile[0], self.tile[1])?;
        }
        if self.turned {
            write!(f, " turned")?;
        }
        if self.splits > 1 {
            write!(f, " k/{}", self.splits)?;
        }
        if let Some(then) = &self.then {
            write!(f, ", {then}")?;
        }
        Ok(())
    }
}

/// Rows that the kernels for few rows take.
pub(super) const FEW: usize = 8;
/// The alignment of parts of the workspace.
pub(super) const ALIGN: usize = 256;

/// Whether places with these distances are read by 16 bytes along the one that is 1.
pub(super) fn vectors(x: &Matrix, batch: [usize; 2], other: usize) -> bool {
    let per = 16 / x.element.bytes().max(1);
    let fits = |stride: usize| stride.is_multiple_of(per);
    x.at.0.is_multiple_of(16) && fits(other) && (batch[0] <= 1 || fits(x.outer)) && (batch[1] <= 1 || fits(x.inner))
}

/// How many parts `k` is cut into so that `tiles` of them fill a device, each at least `least` long: parts are
/// multiples of 128.
fn splits(tiles: usize, k: usize, wanted: usize, least: usize, results: usize) -> (usize, usize) {
    // Sums that meet in memory should be few beside what is read.
    let most = ((64 << 20) / (results.max(1) * 4)).clamp(1, 64);
    let count = wanted.div_ceil(tiles.max(1)).min(k / least.max(1)).min(most).max(1);
    let part = k.div_ceil(count).next_multiple_of(128).max(128);
    (k.div_ceil(part).max(1), part)
}

/// The same for Hopper's tiles, by an estimate of time: waves of tiles, each as long as its part of `k` and what stands before
/// and behind it, and where there are several parts, sums that go to memory and come back. So few tiles are cut until they
/// fill the device, and a wave that is nearly empty is filled where `k` is long enough to pay for it.
fn waves(tiles: usize, k: usize, sms: usize, tile: [usize; 2], results: usize, bytes: usize) -> (usize, usize) {
    /// Operations of a multiprocessor in 16 bits, bytes of the memory, in a second; a launch more; values of `k` beside it.
    const RATE: f64 = 6e12;
    const BYTES: f64 = 3e12;
    const LAUNCH: f64 = 2e-6;
    const BESIDE: usize = 256;
    // Twice as many operations in eight bits.
    let area = (tile[0] * tile[1] * bytes) as f64;
    let cut = |count: usize| {
        let part = k.div_ceil(count).next_multiple_of(128).max(128);
        (k.div_ceil(part).max(1), part)
    };
    let cost = |count: usize| {
        let (count, part) = cut(count);
        let waves = (tiles * count).div_ceil(sms.max(1)) as f64;
        let more = if count > 1 { LAUNCH + (8 * count * results) as f64 / BYTES } else { 0.0 };
        waves * (part + BESIDE) as f64 * area / RATE + more
    };
    let most = ((64 << 20) / (results.max(1) * 4)).clamp(1, 64).min(k / 512).max(1);
    let best = (1..=most).map(|count| (cost(count), count)).min_by(|a, b| a.0.total_cmp(&b.0));
    cut(best.map_or(1, |b| b.1))
}

/// Chooses a kernel.
///
/// # Errors
/// Sizes of 2³¹ or more; element types or strides that no kernel takes.
pub fn choose(g: &Gemm, gpu: &Info) -> Result<Choice, CudaError> {
    for (what, n) in [("rows", g.m), ("columns", g.n), ("values to sum over", g.k), ("matrices", g.count())] {
        int("gemm", what, n)?;
    }
    check(g)?;
    let none = |way| Choice {
        way,
        kernel: "nothing",
        turned: false,
        tile: [0, 0],
        splits: 1,
        part: g.k.max(1).next_multiple_of(32),
        workspace: 0,
        blocks: gpu.multiprocessors as usize,
        then: None,
    };
    if g.m == 0 || g.n == 0 || g.count() == 0 {
        return Ok(none(Way::Nothing));
    }
    if g.b.element.planes() {
        if g.m <= FEW && g.a.col == 1 && vectors(&g.a, g.batch, if g.m > 1 { g.a.row } else { 0 }) {
            return Ok(Choice { kernel: rows_kernel(g), tile: [FEW, 8], ..none(Way::Rows) });
        }
        let numbers = (g.n * g.k * 4).next_multiple_of(ALIGN);
        let then = choose(&super::launch::numbers(g, g.planes), gpu)?;
        let workspace = numbers + then.workspace;
        let then = Some(Box::new(then));
        return Ok(Choice { kernel: "dequantize_planes", workspace, then, tile: [1, 256], ..none(Way::Dequantized) });
    }
    let few = |g: &Gemm| g.m <= FEW && g.a.element == Element::F32 && g.k >= 32;
    let turned = if few(g) || g.blocks.is_some() { false } else { few(&g.turned()) || (g.c.col != 1 && g.c.row == 1) };
    let p = if turned { g.turned() } else { *g };
    if few(&p) && p.a.row.max(1).saturating_mul(FEW) < 1 << 31 {
        let wide = matches!(p.b.element, Element::F32 | Element::Bf16 | Element::F16);
        if p.b.row == 1 && p.b.element != Element::E5M2 && p.count() < 1 << 16 {
            return Ok(Choice { kernel: rows_kernel(&p), turned, tile: [FEW, 8], ..none(Way::Rows) });
        }
        if p.b.col == 1 && wide && p.count() < 1 << 16 {
            let width = if p.b.element == Element::F32 { 128 } else { 256 };
            let tiles = p.n.div_ceil(width) * p.count();
            let results = p.m * p.n * p.count();
            let (splits, part) = splits(tiles, p.k, 4 * gpu.multiprocessors as usize, 64, results);
            let workspace = if splits > 1 { results * splits * 4 } else { 0 };
            let kernel = columns_kernel(&p);
            return Ok(Choice { kernel, turned, tile: [FEW, width], splits, part, workspace, ..none(Way::Columns) });
        }
    }
    let (sms, results) = (gpu.multiprocessors as usize, p.m * p.n * p.count());
    if gpu.capability / 10 == 9
        && let Some((kernel, tile)) = super::hopper::kernel(&p, sms)
    {
        let tiles = p.m.div_ceil(tile[0]) * p.n.div_ceil(tile[1]) * p.count();
        let (splits, part) = waves(tiles, p.k, sms, tile, results, p.a.element.bytes());
        let workspace = if splits > 1 { results * splits * 4 } else { 0 };
        return Ok(Choice { kernel, turned, tile, splits, part, workspace, ..none(Way::Hopper) });
    }
    if p.blocks.is_some() {
        let what = format!("{:?} by {:?}, {} by {} by {}", p.a.element, p.b.element, p.m, p.n, p.k);
        return Err(refused(
            "gemm",
            format!("factors for blocks need compute capability 9.0, {what}, k-major and by 16 bytes"),
        ));
    }
    let tiles = |w: usize| p.m.div_ceil(w) * p.n.div_ceil(w) * p.count();
    let w = if tiles(128) >= sms { 128 } else { 64 };
    let (way, kernel) = match (ampere_kernel(&p, w), w) {
        (Some(kernel), _) if gpu.capability >= 80 => (Way::Ampere, kernel),
        (_, 128) => (Way::Plain, "gemm_f32_128"),
        _ => (Way::Plain, "gemm_f32_64"),
    };
    let (splits, part) = match tiles(w) < sms {
        true => splits(tiles(w), p.k, 2 * sms, 256, results),
        false => (1, p.k.max(1)),
    };
    let workspace = if splits > 1 { results * splits * 4 } else { 0 };
    Ok(Choice { kernel, turned, tile: [w, w], splits, part, workspace, ..none(way) })
}

/// Whether k stands together in an operand whose lines all begin at 16 bytes; nothing where they do not. `i` is the
/// distance between rows of `a` or columns of `b`, `l` that along k.
pub(super) fn lines(x: &Matrix, batch: [usize; 2], i: usize, l: usize) -> Option<bool> {
    match (i, l) {
        (_, 1) => vectors(x, batch, i).then_some(true),
        (1, _) => vectors(x, batch, l).then_some(false),
        _ => None,
    }
}

/// The kernel for tiles of this width on Ampere's tensor cores.
fn ampere_kernel(g: &Gemm, width: usize) -> Option<&'static str> {
    let (a, b) = (lines(&g.a, g.batch, g.a.row, g.a.col)?, lines(&g.b, g.batch, g.b.col, g.b.row)?);
    if g.a.element != g.b.element || (g.a.element == Element::F32 && !g.tf32) {
        return None;
    }
    let kernels = match (g.a.element, width) {
        (Element::F32, 128) => {
            ["gemm_nn_tf32_sm80_128", "gemm_nt_tf32_sm80_128", "gemm_tn_tf32_sm80_128", "gemm_tt_tf32_sm80_128"]
        }
        (Element::F32, _) => {
            ["gemm_nn_tf32_sm80_64", "gemm_nt_tf32_sm80_64", "gemm_tn_tf32_sm80_64", "gemm_tt_tf32_sm80_64"]
        }
        (Element::Bf16, 128) => {
            ["gemm_nn_bf16_sm80_128", "gemm_nt_bf16_sm80_128", "gemm_tn_bf16_sm80_128", "gemm_tt_bf16_sm80_128"]
        }
        (Element::Bf16, _) => {
            ["gemm_nn_bf16_sm80_64", "gemm_nt_bf16_sm80_64", "gemm_tn_bf16_sm80_64", "gemm_tt_bf16_sm80_64"]
        }
        (Element::F16, 128) => {
            ["gemm_nn_f16_sm80_128", "gemm_nt_f16_sm80_128", "gemm_tn_f16_sm80_128", "gemm_tt_f16_sm80_128"]
        }
        (Element::F16, _) => {
            ["gemm_nn_f16_sm80_64", "gemm_nt_f16_sm80_64", "gemm_tn_f16_sm80_64", "gemm_tt_f16_sm80_64"]
        }
        _ => return None,
    };
    Some(kernels[2 * !a as usize + b as usize])
}

/// Types and places that kernels can read and write.
fn check(g: &Gemm) -> Result<(), CudaError> {
    let no = |message: String| Err(refused("gemm", message));
    if g.a.element.planes() || matches!(g.c.element, Element::I8 | Element::Q8_0 | Element::Q4_0) {
        return no(format!(
            "{:?} by {:?} to {:?}: planes are right sides, results real",
            g.a.element, g.b.element, g.c.element
        ));
    }
    let e = &g.epilogue;
    if [e.bias, e.gate, e.residual].iter().flatten().any(|x| x.element.planes()) {
        return no("the operands of an epilogue are not blocks".into());
    }
    if e.rounded.iter().any(|x| !matches!(x, Element::F32 | Element::Bf16 | Element::F16)) {
        return no(format!("sums and results are rounded to {:?}, expected 16 bits or f32 for neither", e.rounded));
    }
    if g.b.element.planes() {
        let plain = g.b.row == 1 && g.b.col == g.k && g.count() <= 1;
        if !plain || !g.k.is_multiple_of(32) || !g.b.at.0.is_multiple_of(16) || g.planes == crate::Ptr::NULL {
            return no(format!(
                "planes of [n, k] with k a multiple of 32, aligned to 16 bytes, are given k {} alone",
                g.k
            ));
        }
    }
    let aligned = |x: &Matrix| x.at.0.is_multiple_of(x.element.bytes().max(1) as u64);
    let all = [Some(g.a), Some(g.b), Some(g.c), e.bias, e.gate, e.residual];
    match all.iter().flatten().all(aligned) {
        true => Ok(()),
        false => no("operands are aligned to their values".into()),
    }
}

fn rows_kernel(g: &Gemm) -> &'static str {
    match (g.b.element, g.m == 1) {
        (Element::F32, true) => "gemv_f32_1",
        (Element::F32, false) => "gemv_f32_8",
        (Element::Bf16, true) => "gemv_bf16_1",
        (Element::Bf16, false) => "gemv_bf16_8",
        (Element::F16, true) => "gemv_f16_1",
        (Element::F16, false) => "gemv_f16_8",
        (Element::E4M3 | Element::E5M2, true) => "gemv_e4m3_1",
        (Element::E4M3 | Element::E5M2, false) => "gemv_e4m3_8",
        (Element::I8, true) => "gemv_i8_1",
        (Element::I8, false) => "gemv_i8_8",
        (Element::Q8_0, true) => "gemv_q8_0_1",
        (Element::Q8_0, false) => "gemv_q8_0_8",
        (Element::Q4_0, true) => "gemv_q4_0_1",
        (Element::Q4_0, false) => "gemv_q4_0_8",
    }
}

fn columns_kernel(g: &Gemm) -> &'static str {
    match (g.b.element, g.m == 1) {
        (Element::Bf16, true) => "gemv_t_bf16_1",
        (Element::Bf16, false) => "gemv_t_bf16_8",
        (Element::F16, true) => "gemv_t_f16_1",
        (Element::F16, false) => "gemv_t_f16_8",
        (_, true) => "gemv_t_f32_1",
        (_, false) => "gemv_t_f32_8",
    }
}

#[cfg(test)]
mod tests;
