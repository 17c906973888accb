//! Few queries over long caches (`attention_decode.cu`): keys split into parts, caches contiguous or in pages.

use super::{Operand, Problem, Sizes, blocks, int, refused};
use crate::{CudaError, Info, Launch, Ptr, args};

/// The type of queries, keys, values and results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Element {
    /// `float`.
    F32,
    /// `bf16`.
    Bf16,
    /// `f16`.
    F16,
}

impl Element {
    /// Its bytes.
    pub fn bytes(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }

    /// Values in 16 bytes.
    fn piece(self) -> usize {
        16 / self.bytes()
    }
}

/// Where the keys of a sequence are: page `table[b * step + j / page]` has key `j`. The operands' `b` is then the distance
/// between pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages {
    /// `int` numbers of pages.
    pub table: Ptr,
    /// Entries of the table for a sequence.
    pub step: usize,
    /// Keys of a page.
    pub page: usize,
}

/// Keys that a block looks at together.
const KEYS: usize = 128;

/// Rows of queries that a block has.
fn rows_of(n: &Sizes) -> usize {
    (n.t * n.r).next_power_of_two().clamp(1, 8)
}

fn parts(n: &Sizes, info: &Info) -> usize {
    let blocks = n.b * n.g * (n.t * n.r).div_ceil(rows_of(n));
    let wanted = (info.multiprocessors as usize * 4) / blocks.max(1);
    wanted.min(n.s.div_ceil(2 * KEYS)).clamp(1, 128)
}

/// Whether [`decode`] takes the problem, and it is what it is made for.
pub fn suits(problem: &Problem, element: Element, operands: &[Operand; 3]) -> bool {
    problem.sizes.t * problem.sizes.r <= 8 && problem.sizes.s > KEYS && check(problem, element, operands).is_ok()
}

fn check(problem: &Problem, element: Element, operands: &[Operand; 3]) -> Result<(), CudaError> {
    let (n, piece) = (problem.sizes, element.piece());
    if problem.mask.is_some() || problem.dropout.is_some() {
        return Err(refused("decoding takes neither masks nor dropout".into()));
    }
    if [n.d, n.e].iter().any(|f| *f == 0 || f % piece != 0 || f / piece > 128 || *f > 1024) {
        return Err(refused(format!(
            "decoding takes multiples of {piece} features up to 512, is given {} and {}",
            n.d, n.e
        )));
    }
    for o in &operands[1..] {
        if o.at.0 % 16 != 0 || [o.b, o.t, o.h].iter().any(|s| s % piece != 0) {
            return Err(refused(format!("decoding takes keys and values aligned to 16 bytes, is given {o:?}")));
        }
    }
    Ok(())
}

fn shared(n: &Sizes, element: Element) -> usize {
    let (r, pieces) = (rows_of(n), n.e / element.piece());
    (r * n.d).max(128 / pieces * r * n.e) * 4
}

/// Bytes of workspace for [`decode`].
///
/// # Errors
/// As of [`decode`].
pub fn decode_workspace(problem: &Problem, info: &Info) -> Result<usize, CudaError> {
    let (parts, rows) = (parts(&problem.sizes, info), problem.rows()?);
    Ok(if parts > 1 { parts * rows * (problem.sizes.e + 1) * 4 } else { 0 })
}

/// Attention over `q [b t g*r d]` and caches `k [b s g d]`, `v [b s g e]`: `out [b t g*r e]` of the same type and `lse
/// [b g*r t]` in `float`, in row-major order. `workspace` has [`decode_workspace`] bytes.
///
/// # Errors
/// Masks and dropout; features that are no multiple of 16 bytes; caches not aligned to 16 bytes; sizes beyond 2³¹.
#[allow(clippy::too_many_arguments)]
pub fn decode(
    problem: &Problem,
    info: &Info,
    element: Element,
    [q, k, v]: [Operand; 3],
    pages: Option<Pages>,
    out: Ptr,
    lse: Ptr,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (n, rows) = (problem.sizes, problem.rows()?);
    check(problem, element, &[q, k, v])?;
    if rows == 0 {
        return Ok(vec![]);
    }
    let (r, parts) = (rows_of(&n), parts(&n, info));
    let grid = blocks(&[(n.t * n.r).div_ceil(r), parts, n.b, n.g])?;
    let pages = pages.unwrap_or(Pages { table: Ptr::NULL, step: 0, page: 1 });
    if pages.page == 0 {
        return Err(refused("pages of no keys".into()));
    }
    let lses = if parts > 1 { workspace.at(parts * rows * n.e * 4) } else { lse };
    let mut args = args![q.at, k.at, v.at];
    [q, k, v].iter().for_each(|o| args.extend(o.strides()));
    args.extend(args![pages.table, int(pages.step, "pages")?, int(pages.page, "keys of a page")?]);
    args.extend(args![out, workspace, lses, parts as i32]);
    problem.push(&mut args)?;
    let place = r.ilog2() as usize;
    let kernel = match element {
        Element::F32 => {
            ["attention_decode_f32_1", "attention_decode_f32_2", "attention_decode_f32_4", "attention_decode_f32_8"]
        }
        Element::Bf16 => {
            ["attention_decode_bf16_1", "attention_decode_bf16_2", "attention_decode_bf16_4", "attention_decode_bf16_8"]
        }
        Element::F16 => {
            ["attention_decode_f16_1", "attention_decode_f16_2", "attention_decode_f16_4", "attention_decode_f16_8"]
        }
    }[place];
    let first = Launch::new(kernel, [grid, 1, 1], 128, args).shared(int(shared(&n, element), "bytes")? as u32);
    let join = (parts > 1).then(|| combine(&n, element, parts, (workspace, lses), (out, lse))).transpose()?;
    Ok([first].into_iter().chain(join).collect())
}

/// Joins `parts` results and log-sum-exps.
pub(super) fn combine(
    n: &Sizes,
    element: Element,
    parts: usize,
    from: (Ptr, Ptr),
    to: (Ptr, Ptr),
) -> Result<Launch, CudaError> {
    let rows = n.b * n.t * n.g * n.r;
    let mut args = args![from.0, from.1, to.0, to.1, parts as i32, rows as i64];
    args.extend(args![int(n.t, "queries")?, int(n.g * n.r, "heads")?, int(n.e, "features")?]);
    let kernel = match element {
        Element::F32 => "attention_combine_f32",
        Element::Bf16 => "attention_combine_bf16",
        Element::F16 => "attention_combine_f16",
    };
    Ok(Launch::new(kernel, [blocks(&[rows.div_ceil(4)])?, 1, 1], 128, args))
}
