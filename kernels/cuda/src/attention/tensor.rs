//! Attention in 16 bits on tensor cores (`attention_sm80.cu`, `attention_sm90.cu`,
//! `attention_backward_sm90.cu`): which kernels, for which head sizes.

use super::{Element, Gradients, Operand, Problem, Sizes, blocks, int, refused};
use crate::launch::Arg;
use crate::{CudaError, Info, Launch, Ptr, Swizzle, Tile, args};

/// Sequences packed one after another: example `b` has the queries from `starts_q[b]` to `starts_q[b + 1]`, and keys
/// likewise. The problem's `t` and `s` are then those of the longest, operands have no distance between examples, results
/// are `[total, heads, features]` and `lse` is `[heads, total_q]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    /// `int` of each example and one more.
    pub starts_q: Ptr,
    /// The same for keys.
    pub starts_k: Ptr,
    /// Queries of all examples.
    pub total_q: usize,
    /// Keys of all examples.
    pub total_k: usize,
}

/// Which kernels run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kernels {
    /// `mma.sync` and `cp.async`: Ampere and later.
    Sm80,
    /// `wgmma` and TMA: Hopper.
    Sm90,
}

impl Kernels {
    /// The fastest that the device has.
    pub fn of(info: &Info) -> Kernels {
        if info.capability == 90 { Kernels::Sm90 } else { Kernels::Sm80 }
    }
}

macro_rules! kernel {
    ($element:expr, $d:expr, $family:literal, $of:literal, [$($n:literal),*]) => {
        match ($element, $d) {
            $((Element::Bf16, $n) => concat!("attention_", $family, "_bf16_", $n, "_", $of),
            (Element::F16, $n) => concat!("attention_", $family, "_f16_", $n, "_", $of),)*
            (element, d) => return Err(refused(format!(concat!($family, " has no kernel for {:?} and {} features"), element, d))),
        }
    };
}

const TILE: usize = 64;

/// What the tensor core kernels do not take.
fn check(problem: &Problem, element: Element, operands: &[Operand]) -> Result<usize, CudaError> {
    let n = problem.sizes;
    if problem.mask.is_some() || problem.dropout.is_some() {
        return Err(refused("16-bit kernels take neither masks nor dropout".into()));
    }
    if element == Element::F32 {
        return Err(refused("tensor cores take bf16 and f16, not f32".into()));
    }
    if problem.scale.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return Err(refused(format!("16-bit kernels take positive scales, not {}", problem.scale)));
    }
    if [n.d, n.e].iter().any(|f| *f == 0 || f % 8 != 0 || *f > 256) {
        return Err(refused(format!("16-bit kernels take multiples of 8 features up to 256, not {} and {}", n.d, n.e)));
    }
    for o in operands {
        if o.at.0 % 16 != 0 || [o.b, o.t, o.h].iter().any(|s| s % 8 != 0) {
            return Err(refused(format!("16-bit kernels take operands aligned to 16 bytes, not {o:?}")));
        }
    }
    Ok(n.d.max(n.e))
}

/// A tile's rows: as many values as features, 128 for 96.
fn pitch(d: usize) -> usize {
    if d == 96 { 128 } else { d }
}

fn shared(values: usize, extra: u32, info: &Info) -> Result<u32, CudaError> {
    let bytes = int(values * 2, "bytes")? as u32;
    if bytes + extra > info.shared {
        return Err(refused(format!("{bytes} bytes of shared memory, the device has {}", info.shared)));
    }
    Ok(bytes)
}

fn packing(packed: Option<Packed>) -> Vec<Arg> {
    let p = packed.unwrap_or(Packed { starts_q: Ptr::NULL, starts_k: Ptr::NULL, total_q: 0, total_k: 0 });
    args![p.starts_q, p.starts_k, p.total_q as i64]
}

/// Attention over 16-bit `q [b t g*r d]`, `k [b s g d]` and `v [b s g e]`: `out [b t g*r e]` of the same type and `lse
/// [b g*r t]` in `float`, in row-major order.
///
/// # Errors
/// Masks, dropout, scales that are not positive; features that are no multiple of 8 or more than 256; operands that are not
/// aligned to 16 bytes; a device with too little shared memory; sizes beyond 2³¹.
#[allow(clippy::too_many_arguments)]
pub fn forward16(
    problem: &Problem,
    info: &Info,
    kernels: Kernels,
    element: Element,
    [q, k, v]: [Operand; 3],
    packed: Option<Packed>,
    out: Ptr,
    lse: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (n, rows) = (problem.sizes, problem.rows()?);
    let width = check(problem, element, &[q, k, v])?;
    if rows == 0 {
        return Ok(vec![]);
    }
    let d = [64, 96, 128, 192, 256].into_iter().find(|d| *d >= width).unwrap_or(256);
    if kernels == Kernels::Sm90 {
        return hopper(problem, info, element, d, [q, k, v], packed, out, lse);
    }
    let kernel = kernel!(element, d, "forward", "sm80", [64, 96, 128, 192, 256]);
    let grid = blocks(&[(n.t * n.r).div_ceil(2 * TILE), n.b, n.g])?;
    let mut args = args![q.at, k.at, v.at];
    [q, k, v].iter().for_each(|o| args.extend(o.strides()));
    args.extend(packing(packed));
    args.extend(args![out, lse]);
    problem.push(&mut args)?;
    let shared = shared(4 * TILE * pitch(d), 0, info)?;
    let threads = if d <= 128 { 128 } else { 256 };
    Ok(vec![Launch::new(kernel, [grid, 1, 1], threads, args).shared(shared)])
}

/// Bytes of keys and values that shall stay in the second cache: a good half of an H100's.
const CACHE: usize = 32 << 20;

/// What a box of 64 features by so many positions moves over.
struct Tiles<'a> {
    problem: &'a Problem,
    packed: Option<Packed>,
    rows: usize,
    /// Some place of memory, for arrays of nothing.
    some: Ptr,
}

impl Tiles<'_> {
    /// Arrays of nothing still need a place, sizes and strides that the descriptor takes; one position, head or example needs
    /// no distance. Values that repeat are refused: descriptors have no distance of zero.
    fn of(&self, o: &Operand, positions: usize, heads: usize, features: usize) -> Result<Tile, CudaError> {
        let b = if self.packed.is_some() { 1 } else { self.problem.sizes.b };
        let sizes = [features, positions, heads, b];
        if sizes[1..].iter().zip([o.t, o.h, o.b]).any(|(n, stride)| *n > 1 && stride == 0) {
            return Err(refused(format!("Hopper's kernels take operands of which nothing repeats, not {o:?}")));
        }
        let at = if sizes.contains(&0) { self.some } else { o.at };
        let strides = [o.t, o.h, o.b].map(|s| (s * 2).max(16) as u64);
        let sizes = sizes.map(|n| n.max(1) as u64);
        Ok(Tile::new(at, 2, &sizes, &strides, &[64, self.rows as u32, 1, 1], Swizzle::B128))
    }
}

/// Query heads, whole groups of them, whose keys and values fit the second cache.
pub(super) fn section(n: &Sizes, bytes: usize) -> usize {
    let groups = CACHE / (n.s * (n.d + n.e) * bytes).max(1);
    groups.max(1).saturating_mul(n.r).min(n.b * n.g * n.r)
}

#[allow(clippy::too_many_arguments)]
fn hopper(
    problem: &Problem,
    info: &Info,
    element: Element,
    d: usize,
    [q, k, v]: [Operand; 3],
    packed: Option<Packed>,
    out: Ptr,
    lse: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let n = problem.sizes;
    let kernel = kernel!(element, d, "forward", "sm90", [64, 96, 128, 192, 256]);
    let (keys, consumers) = match d {
        64 => (128, 3),
        96 | 128 => (128, 2),
        192 => (96, 2),
        _ => (64, 2),
    };
    let heads = n.g * n.r;
    let count = blocks(&[n.t.div_ceil(64 * consumers), heads, n.b])?;
    let section = section(&n, 2);
    let (t, s) = packed.map_or((n.t, n.s), |p| (p.total_q, p.total_k));
    let tiles = |rows| Tiles { problem, packed, rows, some: q.at };
    let [q, k, v] =
        [tiles(64).of(&q, t, heads, n.d)?, tiles(keys).of(&k, s, n.g, n.d)?, tiles(keys).of(&v, s, n.g, n.e)?];
    let mut args = args![q, k, v];
    args.extend(packing(packed));
    args.extend(args![out, lse, int(section, "heads")?, count as i32]);
    problem.push(&mut args)?;
    let shared = shared((consumers * 64 + 4 * keys) * d.next_multiple_of(64), 1024, info)?;
    let grid = count.min(info.multiprocessors.max(1));
    Ok(vec![Launch::new(kernel, [grid, 1, 1], 128 * (consumers as u32 + 1), args).shared(shared)])
}

/// Bytes of workspace for [`backward16`].
///
/// # Errors
/// As of [`backward16`].
pub fn backward16_workspace(problem: &Problem, packed: Option<Packed>) -> Result<usize, CudaError> {
    let heads = problem.sizes.g * problem.sizes.r;
    Ok(packed.map_or(problem.rows()?, |p| p.total_q * heads) * 4)
}

/// The gradients of [`forward16`], of its type; each value is summed in a fixed order. `workspace` has
/// [`backward16_workspace`] bytes.
///
/// # Errors
/// As of [`forward16`].
#[allow(clippy::too_many_arguments)]
pub fn backward16(
    problem: &Problem,
    info: &Info,
    kernels: Kernels,
    element: Element,
    [q, k, v]: [Operand; 3],
    packed: Option<Packed>,
    to: &Gradients,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let n = problem.sizes;
    let width = check(problem, element, &[q, k, v, to.g])?;
    let rows = backward16_workspace(problem, packed)? / 4;
    let d = [64, 128, 256].into_iter().find(|d| *d >= width).unwrap_or(256);
    let mut launches = vec![];
    let delta = if element == Element::Bf16 { "attention_delta_bf16" } else { "attention_delta_f16" };
    let mut args = args![to.g.at];
    args.extend(to.g.strides());
    args.extend(args![to.out, to.g_lse, workspace, rows as i64, int(packed.map_or(n.t, |p| p.total_q), "queries")?]);
    args.extend(args![int(n.g * n.r, "heads")?, int(n.e, "features")?]);
    launches.push(Launch::new(delta, [blocks(&[rows.div_ceil(4)])?, 1, 1], 128, args));
    let mut common = args![q.at, k.at, v.at, to.g.at];
    [q, k, v, to.g].iter().for_each(|o| common.extend(o.strides()));
    common.extend(packing(packed));
    common.extend(args![to.lse, workspace]);
    if kernels == Kernels::Sm90 && d <= 128 {
        let some = if rows > 0 { q.at } else { k.at };
        let tiles = Tiles { problem, packed, rows: 64, some };
        let t = packed.map_or(n.t, |p| p.total_q);
        let s = packed.map_or(n.s, |p| p.total_k);
        let maps = [tiles.of(&q, t, n.g * n.r, n.d)?, tiles.of(&k, s, n.g, n.d)?, tiles.of(&v, s, n.g, n.e)?];
        let g = tiles.of(&to.g, t, n.g * n.r, n.e)?;
        let shared = shared(8 * TILE * d, 2048, info)?;
        for (kernel, first, second, grid) in [
            (kernel!(element, d, "dq", "sm90", [64, 128]), to.dq, Ptr::NULL, [n.t.div_ceil(128), n.b, n.g * n.r]),
            (kernel!(element, d, "dkv", "sm90", [64, 128]), to.dk, to.dv, [n.s.div_ceil(128), n.b, n.g]),
        ] {
            let mut args: Vec<Arg> = maps.iter().chain([&g]).cloned().map(Arg::Tile).collect();
            args.extend(packing(packed));
            args.extend(args![to.lse, workspace, first, second]);
            problem.push(&mut args)?;
            launches.push(Launch::new(kernel, [blocks(&grid)?, 1, 1], 384, args).shared(shared));
        }
        launches.retain(|l| l.grid[0] > 0);
        return Ok(launches);
    }
    let tiles = if d <= 128 { 6 } else { 4 };
    let shared = shared(tiles * TILE * pitch(d), 1024, info)?;
    let mut add = |kernel, first: Ptr, second: Ptr, count: usize| -> Result<(), CudaError> {
        let mut args = common.clone();
        args.extend(args![first, second]);
        problem.push(&mut args)?;
        let grid = blocks(&[count.div_ceil(TILE), n.b, n.g])?;
        launches.push(Launch::new(kernel, [grid, 1, 1], 128, args).shared(shared));
        Ok(())
    };
    add(kernel!(element, d, "dq", "sm80", [64, 128, 256]), to.dq, Ptr::NULL, n.t * n.r)?;
    if d <= 128 {
        add(kernel!(element, d, "dkv", "sm80", [64, 128]), to.dk, to.dv, n.s)?;
    } else {
        add(kernel!(element, d, "dk", "sm80", [256]), to.dk, Ptr::NULL, n.s)?;
        add(kernel!(element, d, "dv", "sm80", [256]), to.dv, Ptr::NULL, n.s)?;
    }
    launches.retain(|l| l.grid[0] > 0);
    Ok(launches)
}
