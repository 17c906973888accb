//! Reductions over any dimensions (`reduce.cu`), in passes: neighbouring dimensions are one, each pass
//! reduces one run of them, from the last to the first, and long runs of few results in two launches. Every
//! operation here can be joined from parts, so passes compose; their order follows from sizes alone.

use crate::rows::count;
use crate::{CudaError, Launch, Ptr, args};

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reduction {
    /// Sum of real numbers.
    Sum,
    /// Sum of their squares.
    SumSquares,
    /// The largest; NaN where any is.
    Max,
    /// The smallest; NaN where any is.
    Min,
    /// `log(sum(exp(x)))`.
    LogSumExp,
    /// Sum of whole numbers, wrapping around.
    SumInt,
    /// The largest whole number.
    MaxInt,
    /// The smallest whole number.
    MinInt,
    /// Whether any truth value is true.
    Any,
    /// Whether all are.
    All,
}

/// Names of a reduction's kernels: a warp a row, a block a row, columns, four columns a thread, few columns.
type Names = [&'static str; 5];

macro_rules! names {
    ($n:literal) => {
        [
            concat!($n, "_warp"),
            concat!($n, "_block"),
            concat!($n, "_columns"),
            concat!($n, "_wide"),
            concat!($n, "_narrow"),
        ]
    };
}

impl Reduction {
    fn names(self) -> Names {
        match self {
            Reduction::Sum => names!("sum_f32"),
            Reduction::SumSquares => names!("squares_f32"),
            Reduction::Max => names!("max_f32"),
            Reduction::Min => names!("min_f32"),
            Reduction::LogSumExp => names!("logsumexp_f32"),
            Reduction::SumInt => names!("sum_i32"),
            Reduction::MaxInt => names!("max_i32"),
            Reduction::MinInt => names!("min_i32"),
            Reduction::Any => names!("any_u8"),
            Reduction::All => names!("all_u8"),
        }
    }

    fn bytes(self) -> usize {
        if matches!(self, Reduction::Any | Reduction::All) { 1 } else { 4 }
    }

    /// What joins partial results.
    fn again(self) -> Reduction {
        if self == Reduction::SumSquares { Reduction::Sum } else { self }
    }
}

/// One launch: the middle of `[outer, n, inner]` to `[outer, parts, inner]`.
#[derive(Clone, Copy, Debug)]
struct Pass {
    op: Reduction,
    outer: usize,
    n: usize,
    inner: usize,
    parts: usize,
}

impl Pass {
    fn results(&self) -> usize {
        self.outer * self.parts * self.inner
    }

    /// Values of a part: whole vectors, so that every part begins with one.
    fn part(&self) -> usize {
        self.n.div_ceil(self.parts).next_multiple_of(16).max(16)
    }
}

/// Passes over contiguous values of these sizes.
fn passes(op: Reduction, sizes: &[usize], positions: &[usize], multiprocessors: u32) -> Vec<Pass> {
    // Runs of dimensions that stay or go together.
    let mut runs: Vec<(bool, usize)> = vec![];
    for (d, n) in sizes.iter().enumerate() {
        let goes = positions.contains(&d);
        match runs.last_mut() {
            Some(last) if last.0 == goes => last.1 *= n,
            _ => runs.push((goes, *n)),
        }
    }
    let mut found = vec![];
    let mut op = op;
    while let Some(i) = runs.iter().rposition(|r| r.0) {
        let outer = runs[..i].iter().map(|r| r.1).product();
        let inner = runs[i + 1..].iter().map(|r| r.1).product();
        let n = runs[i].1;
        let mut pass = Pass { op, outer, n, inner, parts: 1 };
        let blocks = match inner {
            1 if n <= 1024 => outer.div_ceil(8),
            1 => outer,
            _ => outer * inner.div_ceil(128),
        };
        // Enough blocks for every multiprocessor, each with at least 4096 values a thread row.
        let wanted = (4 * multiprocessors as usize).div_ceil(blocks.max(1));
        pass.parts = wanted.min(n / if inner == 1 { 8192 } else { 128 }).max(1);
        pass.parts = n.div_ceil(pass.part()).max(1);
        found.push(pass);
        op = op.again();
        if pass.parts > 1 {
            found.push(Pass { op, outer, n: pass.parts, inner, parts: 1 });
        }
        runs.remove(i);
    }
    found
}

/// Bytes of workspace that [`reduce`] needs.
pub fn workspace(op: Reduction, sizes: &[usize], positions: &[usize], multiprocessors: u32) -> usize {
    let passes = passes(op, sizes, positions, multiprocessors);
    let between = &passes[..passes.len().saturating_sub(1)];
    between.iter().map(|p| (p.results() * op.bytes()).next_multiple_of(256)).sum()
}

/// Reduces contiguous `x` of these sizes over the dimensions at `positions` (some, ascending) to `y`.
/// Nothing reduces to 0, an infinity, false or true.
///
/// # Errors
/// No positions, or more blocks than a grid has.
pub fn reduce(
    op: Reduction,
    (x, y, workspace): (Ptr, Ptr, Ptr),
    sizes: &[usize],
    positions: &[usize],
    multiprocessors: u32,
) -> Result<Vec<Launch>, CudaError> {
    if positions.is_empty() || positions.iter().any(|p| *p >= sizes.len()) {
        let message = format!("reduces dimensions {positions:?} of {sizes:?}");
        return Err(CudaError::Refused { kernel: "reduce", message });
    }
    let passes = passes(op, sizes, positions, multiprocessors);
    if passes.last().is_none_or(|p| p.results() == 0) {
        return Ok(vec![]);
    }
    let (mut from, mut scratch, mut launches) = (x, workspace, vec![]);
    for (i, pass) in passes.iter().enumerate() {
        let to = if i + 1 == passes.len() { y } else { scratch };
        if i + 1 < passes.len() {
            scratch = scratch.at((pass.results() * op.bytes()).next_multiple_of(256));
        }
        launches.push(launch(pass, from, to)?);
        from = to;
    }
    Ok(launches)
}

fn launch(pass: &Pass, x: Ptr, y: Ptr) -> Result<Launch, CudaError> {
    let Pass { op, outer, n, inner, parts } = *pass;
    let [warp, block, columns, wide, narrow] = op.names();
    let grid = |blocks: usize| count("reduce", "blocks", blocks).map(|b| [b as u32, 1, 1]);
    let (p, part) = (count("reduce", "parts", parts)?, pass.part() as i64);
    if inner == 1 {
        let even = n.is_multiple_of(16 / op.bytes()) && x.0.is_multiple_of(16);
        let (name, threads, rows) = if n <= 1024 { (warp, 256, 8) } else { (block, 512, 1) };
        let args = args![x, y, outer as i64, n as i64, p, part, i32::from(even)];
        return Ok(Launch::new(name, grid((outer * parts).div_ceil(rows))?, threads, args));
    }
    if inner < 64 {
        return Ok(Launch::new(narrow, grid(outer * parts)?, 256, args![x, y, n as i64, inner as i32, p, part]));
    }
    let four = inner.is_multiple_of(4) && x.0.is_multiple_of(4 * op.bytes() as u64) && inner >= 512;
    let (name, blocks) = if four { (wide, inner.div_ceil(128)) } else { (columns, inner.div_ceil(32)) };
    let args = args![x, y, blocks as i64, n as i64, inner as i64, p, part];
    Ok(Launch::new(name, grid(outer * parts * blocks)?, 256, args))
}
