//! Products with the matrices of chosen experts (`gemm.cu`): choices are sorted by expert on the device
//! ([`route`]), and one launch multiplies all groups of rows ([`experts`], and [`gradient`] for the matrices).
//!
//! The matrices are operands of their own, so their addresses go into a table on the device first.

mod tensor;

use crate::gemm::Matrix;
use crate::gemm::launch::{epilogue, grid, kind, tiles};
use crate::size::{count, int};
use crate::{Arg, CudaError, Launch, Ptr, args};
pub use tensor::Grouped;

/// Choices `[rows, c]` as a list, and the workspace that sorts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routed {
    /// Choices in all.
    pub choices: usize,
    /// Experts.
    pub experts: usize,
    /// [`Routed::bytes`] bytes, aligned to 8.
    pub workspace: Ptr,
}

impl Routed {
    /// Bytes of the workspace: the table of addresses, where each expert's rows begin, and the order of choices.
    pub fn bytes(choices: usize, experts: usize) -> usize {
        experts * 8 + (experts + 1 + choices) * 4
    }
    fn starts(&self) -> Ptr {
        self.workspace.at(self.experts * 8)
    }
    fn order(&self) -> Ptr {
        self.starts().at((self.experts + 1) * 4)
    }

    /// Writes addresses into the table.
    fn table(&self, matrices: &[Ptr]) -> Vec<Launch> {
        let some = |(i, some): (usize, &[Ptr])| {
            let mut list = args![self.workspace, (i * 16) as i32, some.len() as i32];
            list.extend((0..16).map(|j| Arg::Ptr(some.get(j).copied().unwrap_or(Ptr::NULL))));
            Launch::new("pointer_table", [1, 1, 1], 32, list)
        };
        matrices.chunks(16).enumerate().map(some).collect()
    }
}

/// Sorts choices by expert, in their order. A choice of an expert that does not exist is noted in `status`
/// ([`crate::status`]).
///
/// # Errors
/// 2³¹ choices or more.
pub fn route(chosen: Ptr, to: &Routed, status: Ptr) -> Result<Vec<Launch>, CudaError> {
    let (choices, experts) = (int("experts", "choices", to.choices)?, int("experts", "experts", to.experts)?);
    let list = args![chosen, choices, experts, to.starts(), to.order(), status];
    Ok(vec![Launch::new("experts_route", [1, 1, 1], 1024, list)])
}

/// `c[r] = a[r / shared] b_e` for every choice `r` of expert `e`: `a [choices / shared, k]`, matrices `b_e [k, n]` with the
/// strides and type of `b` (whose address is not read), `c [choices, n]`, all after [`route`].
///
/// # Errors
/// 2³¹ rows, columns or values in a row, or more.
#[allow(clippy::too_many_arguments)]
pub fn experts(
    routed: &Routed,
    matrices: &[Ptr],
    [n, k]: [usize; 2],
    a: &Matrix,
    shared: usize,
    b: &Matrix,
    c: &Matrix,
    epilogues: &crate::gemm::Epilogue,
) -> Result<Vec<Launch>, CudaError> {
    let (width, depth) = (int("experts", "columns", n)?, int("experts", "values in a row", k)?);
    let rows = count("experts", "choices", &[routed.choices])?;
    if n == 0 || rows == 0 {
        return Ok(vec![]);
    }
    let mut launches = routed.table(matrices);
    let together = matrices.iter().map(|p| p.0).fold(0, |all, p| all | p);
    let b_kind = kind(&Matrix { at: Ptr(together), ..*b }, [1, 1], b.col, b.row);
    let a_kind = kind(a, [1, 1], a.row, a.col) & !16;
    let mut list = args![width, depth, routed.experts as i32, shared as i32, routed.starts(), routed.order()];
    list.extend(args![routed.workspace, a.at, a.row as i64, b.row as i64, b.col as i64, a_kind, b_kind]);
    list.extend(epilogue(c, epilogues));
    let tall = routed.choices.div_ceil(64) + routed.experts.min(routed.choices);
    // Blocks along y are few; tiles of columns go there where rows are many.
    let size = [grid(n.div_ceil(64))?, tall as u32, 1];
    if tall >= 1 << 16 {
        return Err(crate::size::refused(
            "experts",
            format!("{} choices are more than one launch takes", routed.choices),
        ));
    }
    launches.push(Launch::new("gemm_grouped_f32", size, 256, list).shared(tiles(64)));
    Ok(launches)
}

/// `c_e [m, n] = sum of a[r / shared]ᵀ b[r / shared]` over the choices `r` of expert `e`: `f32` rows `a` of m and `b` of n
/// values, all after [`route`]; zero for an expert that nobody chose.
///
/// # Errors
/// 2³¹ rows or columns, or more; 65,536 experts.
pub fn gradient(
    routed: &Routed,
    matrices: &[Ptr],
    [m, n]: [usize; 2],
    (a, a_shared): (Ptr, usize),
    (b, b_shared): (Ptr, usize),
) -> Result<Vec<Launch>, CudaError> {
    let (height, width) = (int("experts_grad", "rows", m)?, int("experts_grad", "columns", n)?);
    if m == 0 || n == 0 || matrices.is_empty() {
        return Ok(vec![]);
    }
    if matrices.len() >= 1 << 16 {
        return Err(crate::size::refused(
            "experts_grad",
            format!("{} experts, at most 65535 are taken", matrices.len()),
        ));
    }
    let mut launches = routed.table(matrices);
    // Rows are summed over: neighbours stand along the other direction.
    let side = |at: Ptr, width: usize| kind(&Matrix::rows(at, width).turned(), [1, 1], 1, width) | 16;
    let mut list = args![height, width, a_shared as i32, b_shared as i32, routed.starts(), routed.order()];
    list.extend(args![routed.workspace, a, b, side(a, m), side(b, n)]);
    let size = [grid(m.div_ceil(64) * n.div_ceil(64))?, matrices.len() as u32, 1];
    launches.push(Launch::new("gemm_grouped_grad_f32", size, 256, list).shared(tiles(64)));
    Ok(launches)
}
