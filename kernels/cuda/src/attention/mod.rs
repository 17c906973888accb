//! Attention: in single precision with every option (`attention.cu`), over caches ([`decode`]), in 16 bits on tensor cores
//! ([`forward16`], [`backward16`]) and in eight ([`forward8`]).

mod decode;
mod fp8;
mod tensor;

use crate::launch::Arg;
use crate::{CudaError, Info, Launch, Ptr, args};
pub use decode::{Element, Pages, decode, decode_workspace, suits};
pub use fp8::{forward8, turn_values, turned_bytes};
pub use tensor::{Kernels, Packed, backward16, backward16_workspace, forward16};

/// An operand `[b, positions, heads, features]`: where it begins, and the distances in values between examples,
/// positions and heads. Features are neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Operand {
    /// The first value.
    pub at: Ptr,
    /// Between examples.
    pub b: usize,
    /// Between positions.
    pub t: usize,
    /// Between heads.
    pub h: usize,
}

impl Operand {
    /// One in row-major order.
    pub fn packed(at: Ptr, positions: usize, heads: usize, features: usize) -> Operand {
        Operand { at, b: positions * heads * features, t: heads * features, h: features }
    }

    /// The address and the strides, as kernels take them.
    pub(crate) fn strides(&self) -> [Arg; 3] {
        [self.b, self.t, self.h].map(|n| Arg::I64(n as i64))
    }
}

/// Sizes: examples, queries, keys, key-value heads, query heads for each, features of keys and of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Examples.
    pub b: usize,
    /// Queries.
    pub t: usize,
    /// Keys.
    pub s: usize,
    /// Key-value heads.
    pub g: usize,
    /// Query heads per key-value head.
    pub r: usize,
    /// Features of queries and keys.
    pub d: usize,
    /// Features of values.
    pub e: usize,
}

/// A mask and its distances in values along `[b, h, t, s]`, 0 where it is the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mask {
    /// The first value.
    pub at: Ptr,
    /// Whether it is `float`, added to the scores; else bytes, where 0 hides a key.
    pub real: bool,
    /// Which of `[b, h, t, s]` it has.
    pub has: [bool; 4],
    /// The distances along them.
    pub strides: [usize; 4],
}

/// Dropout of weights.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dropout {
    /// The probability that a weight is dropped, below 1.
    pub probability: f32,
    /// The stream of random numbers.
    pub stream: u32,
    /// Seed and counter: two `int`.
    pub key: Ptr,
}

/// What is computed: the settings and small inputs of attention, which the operation's documentation defines.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Problem {
    /// The sizes.
    pub sizes: Sizes,
    /// The factor on scores.
    pub scale: f32,
    /// The bound that scores approach.
    pub soft_cap: Option<f32>,
    /// No later key is visible.
    pub causal: bool,
    /// Only so many positions are visible, at least 1.
    pub window: Option<usize>,
    /// Visible keys: `int` of each example; or null.
    pub lengths: Ptr,
    /// The position of the first query, `int`, and whether there is one for each example; or null.
    pub offset: (Ptr, bool),
    /// A mask.
    pub mask: Option<Mask>,
    /// Dropout of weights.
    pub dropout: Option<Dropout>,
}

const KERNEL: &str = "attention";
const TILE: usize = 64;

pub(crate) fn refused(message: String) -> CudaError {
    CudaError::Refused { kernel: KERNEL, message }
}

/// A size as `int`.
pub(crate) fn int(n: usize, what: &str) -> Result<i32, CudaError> {
    i32::try_from(n).map_err(|_| refused(format!("{n} {what}, at most {} are taken", i32::MAX)))
}

/// Blocks of a grid of one dimension.
pub(crate) fn blocks(factors: &[usize]) -> Result<u32, CudaError> {
    let n = factors.iter().try_fold(1usize, |n, f| n.checked_mul(*f));
    match n.map(i32::try_from) {
        Some(Ok(n)) => Ok(n as u32),
        _ => Err(refused(format!("{factors:?} blocks, at most {} are taken", i32::MAX))),
    }
}

impl Problem {
    /// Attention over all keys, scaled by `1 / sqrt(d)`.
    pub fn new(sizes: Sizes) -> Problem {
        Problem {
            sizes,
            scale: 1.0 / (sizes.d as f32).sqrt(),
            soft_cap: None,
            causal: false,
            window: None,
            lengths: Ptr::NULL,
            offset: (Ptr::NULL, false),
            mask: None,
            dropout: None,
        }
    }

    /// Rows of queries of all heads and examples, and what is there at all.
    fn rows(&self) -> Result<usize, CudaError> {
        let n = &self.sizes;
        int(n.t.saturating_mul(n.r), "queries of a key-value head")?;
        // Tiles reach a little beyond the last key.
        int(n.s.saturating_add(TILE), "keys")?;
        for (size, what) in [(n.b, "examples"), (n.g * n.r, "heads"), (n.d, "features"), (n.e, "features")] {
            int(size, what)?;
        }
        let rows = [n.b, n.t, n.g, n.r].iter().try_fold(1usize, |p, f| p.checked_mul(*f));
        rows.ok_or_else(|| refused(format!("{n:?} has too many queries")))
    }

    fn push(&self, args: &mut Vec<Arg>) -> Result<(), CudaError> {
        let n = &self.sizes;
        for size in [n.b, n.t, n.s, n.g, n.r, n.d, n.e] {
            args.push(Arg::I32(int(size, "of a size")?));
        }
        // A window beyond all positions is none.
        let window = match self.window {
            Some(0) => return Err(refused("a window of no position".into())),
            Some(w) => i32::try_from(w).unwrap_or(0),
            None => 0,
        };
        args.extend(args![self.scale, self.soft_cap.unwrap_or(0.0), self.causal as i32, window, self.lengths]);
        args.extend(args![self.offset.0, self.offset.1 as i32]);
        let (at, real, strides) = self.mask.map_or((Ptr::NULL, false, [0; 4]), |m| (m.at, m.real, m.strides));
        args.extend(args![at, real as i32]);
        args.extend(strides.map(|s| Arg::I64(s as i64)));
        match &self.dropout {
            None => args.extend(args![Ptr::NULL, 0u32, 0u32, 1f32]),
            Some(d) if (0.0..1.0).contains(&d.probability) => {
                let bound = (d.probability as f64 * 4_294_967_296.0) as u32;
                args.extend(args![d.key, bound, d.stream, 1.0 / (1.0 - d.probability)]);
            }
            Some(d) => return Err(refused(format!("a dropout of {}, it must lie in 0 to 1", d.probability))),
        }
        Ok(())
    }
}

/// Features of a result that one block makes.
fn width(features: usize) -> usize {
    if features <= 64 { 64 } else { 128 }
}

fn named(width: usize, narrow: &'static str, wide: &'static str) -> &'static str {
    if width == 64 { narrow } else { wide }
}

/// Into how many parts the keys are split so that the device has a block for each multiprocessor: a part has at
/// least four tiles.
fn splits(n: &Sizes, info: &Info) -> usize {
    let blocks = (n.t * n.r).div_ceil(TILE) * n.e.div_ceil(width(n.e)) * n.b * n.g;
    let wanted = (info.multiprocessors as usize * 2) / blocks.max(1);
    wanted.min(n.s.div_ceil(4 * TILE)).clamp(1, 128)
}

/// Bytes of workspace for [`forward`].
///
/// # Errors
/// As of [`forward`].
pub fn forward_workspace(problem: &Problem, info: &Info) -> Result<usize, CudaError> {
    let (parts, rows) = (splits(&problem.sizes, info), problem.rows()?);
    let general = if parts > 1 { parts * rows * (problem.sizes.e + 1) * 4 } else { 0 };
    Ok(general.max(decode_workspace(problem, info)?))
}

/// Attention over `q [b t g*r d]`, `k [b s g d]` and `v [b s g e]`: `out [b t g*r e]` and `lse [b g*r t]`, both in
/// row-major order, all `float`. `workspace` has [`forward_workspace`] bytes.
///
/// # Errors
/// Sizes beyond 2³¹, a window of nothing, a probability outside 0 to 1.
pub fn forward(
    problem: &Problem,
    info: &Info,
    [q, k, v]: [Operand; 3],
    out: Ptr,
    lse: Ptr,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (n, rows) = (problem.sizes, problem.rows()?);
    if rows == 0 {
        return Ok(vec![]);
    }
    if suits(problem, Element::F32, &[q, k, v]) {
        return decode(problem, info, Element::F32, [q, k, v], None, out, lse, workspace);
    }
    let (w, parts) = (width(n.e), splits(&n, info));
    // `lse` is made by the blocks of the first features: without features there is one all the same.
    let grid = blocks(&[(n.t * n.r).div_ceil(TILE), n.e.div_ceil(w).max(1), parts, n.b, n.g])?;
    let (to, to_lse) = if parts > 1 { (workspace, workspace.at(parts * rows * n.e * 4)) } else { (out, lse) };
    let mut args = args![q.at, k.at, v.at];
    [q, k, v].iter().for_each(|o| args.extend(o.strides()));
    args.extend(args![to, to_lse, parts as i32]);
    problem.push(&mut args)?;
    let kernel = named(w, "attention_forward_f32_64", "attention_forward_f32_128");
    let mut launches = vec![Launch::new(kernel, [grid, 1, 1], 128, args)];
    if parts > 1 {
        launches.push(decode::combine(&n, Element::F32, parts, (to, to_lse), (out, lse))?);
    }
    Ok(launches)
}

/// What is known of the forward pass, and where gradients go; row-major except for `g`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gradients {
    /// The result `[b t g*r e]`.
    pub out: Ptr,
    /// `[b g*r t]`.
    pub lse: Ptr,
    /// The gradient by the result.
    pub g: Operand,
    /// The gradient by `lse`, or null.
    pub g_lse: Ptr,
    /// Gets the gradient by `q`.
    pub dq: Ptr,
    /// Gets the gradient by `k`.
    pub dk: Ptr,
    /// Gets the gradient by `v`.
    pub dv: Ptr,
    /// Gets the gradient by the additive mask, in its own strides; or null.
    pub dmask: Ptr,
}

/// Bytes of workspace for [`backward`].
///
/// # Errors
/// As of [`backward`].
pub fn backward_workspace(problem: &Problem) -> Result<usize, CudaError> {
    Ok(problem.rows()? * 4)
}

/// The gradients of attention, each value summed in a fixed order. `workspace` has [`backward_workspace`] bytes.
///
/// # Errors
/// As of [`forward`]; a gradient by a mask that is not added.
pub fn backward(
    problem: &Problem,
    [q, k, v]: [Operand; 3],
    to: &Gradients,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (n, rows) = (problem.sizes, problem.rows()?);
    let mut launches = vec![];
    if rows > 0 {
        let mut args = args![to.g.at];
        args.extend(to.g.strides());
        args.extend(args![to.out, to.g_lse, workspace, rows as i64]);
        args.extend(args![int(n.t, "queries")?, int(n.g * n.r, "heads")?, int(n.e, "features")?]);
        launches.push(Launch::new("attention_delta_f32", [blocks(&[rows.div_ceil(4)])?, 1, 1], 128, args));
    }
    let mut common = args![q.at, k.at, v.at, to.g.at];
    [q, k, v, to.g].iter().for_each(|o| common.extend(o.strides()));
    common.extend(args![to.lse, workspace]);
    let of = |target: Ptr, extra: Option<i32>| -> Result<Vec<Arg>, CudaError> {
        let mut args = common.clone();
        args.push(Arg::Ptr(target));
        args.extend(extra.map(Arg::I32));
        problem.push(&mut args)?;
        Ok(args)
    };
    for (target, count, features, narrow, wide) in [
        (to.dq, n.t * n.r, n.d, "attention_dq_f32_64", "attention_dq_f32_128"),
        (to.dk, n.s, n.d, "attention_dk_f32_64", "attention_dk_f32_128"),
        (to.dv, n.s, n.e, "attention_dv_f32_64", "attention_dv_f32_128"),
    ] {
        let w = width(features);
        let grid = blocks(&[count.div_ceil(TILE), features.div_ceil(w), n.b, n.g])?;
        launches.push(Launch::new(named(w, narrow, wide), [grid, 1, 1], 128, of(target, None)?));
    }
    if to.dmask != Ptr::NULL {
        let mask = problem.mask.filter(|m| m.real).ok_or_else(|| refused("no mask that is added".into()))?;
        let bits = mask.has.iter().enumerate().map(|(i, has)| (*has as i32) << i).sum();
        let sizes = [n.b, n.g * n.r, n.t.div_ceil(TILE), n.s.div_ceil(TILE)];
        let grid: Vec<usize> = sizes.iter().zip(mask.has).map(|(n, has)| if has { *n } else { 1 }).collect();
        launches.push(Launch::new("attention_dmask_f32", [blocks(&grid)?, 1, 1], 128, of(to.dmask, Some(bits))?));
    }
    launches.retain(|l| l.grid[0] > 0);
    Ok(launches)
}
