//! Products with chosen experts' matrices on tensor cores (`experts.cu`, `gemm_grouped_sm80.cu`, `gemm_grouped_sm90.cu`).
//!
//! After [`route`](super::route), [`Grouped::sort`] gives each expert's choices tiles of 128 rows of their own;
//! [`Grouped::rows`] gathers and rounds what is multiplied in that order, zeros where a tile is not full;
//! [`Grouped::matrices`] rounds the matrices, where they are not stored as they are read; and [`Grouped::product`] or
//! [`Grouped::gradient`] multiplies. Rows rounded once serve the product and the gradient. How many tiles there are is known on the
//! device alone: grids are as large as they may have to be.

use super::Routed;
use crate::gemm::hopper::map;
use crate::gemm::launch::{epilogue, grid};
use crate::gemm::{Element, Epilogue, Matrix};
use crate::size::{int, refused, tiles as blocks};
use crate::{Arg, CudaError, Info, Launch, Ptr, args};

/// Rows of a tile.
const HIGH: usize = 128;
/// Columns of a tile on Hopper.
const WIDE: usize = 256;

/// Sorted choices as tensor cores read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grouped {
    /// The choices, which [`route`](super::route) has sorted.
    pub routed: Routed,
    /// What factors are rounded to: bf16 or f16, or `f32` for TF32 (Ampere's kernels alone).
    pub element: Element,
    /// [`Grouped::bytes`] bytes, aligned to 128.
    pub workspace: Ptr,
}

/// A rounded line's values: whole sixteens of bytes of any type.
fn line(width: usize) -> usize {
    width.next_multiple_of(8)
}

impl Grouped {
    /// Tiles at most.
    fn most(choices: usize, experts: usize) -> usize {
        choices / HIGH + experts.min(choices)
    }

    /// Bytes of the workspace: tensor maps, where experts' tiles begin, whose they are, which choice each row is.
    pub fn bytes(choices: usize, experts: usize) -> usize {
        experts * 128 + (experts + 1 + Self::most(choices, experts) * (1 + HIGH)) * 4
    }

    /// Bytes of rounded rows.
    pub fn rows_bytes(&self, width: usize) -> usize {
        self.tall() * HIGH * line(width) * self.element.bytes()
    }

    /// Bytes of rounded matrices of `high` lines of `width` values.
    pub fn matrices_bytes(&self, [high, width]: [usize; 2]) -> usize {
        self.routed.experts * high * line(width) * self.element.bytes()
    }

    fn tall(&self) -> usize {
        Self::most(self.routed.choices, self.routed.experts)
    }
    fn tiles(&self) -> Ptr {
        self.workspace.at(self.routed.experts * 128)
    }
    fn of(&self) -> Ptr {
        self.tiles().at((self.routed.experts + 1) * 4)
    }
    fn places(&self) -> Ptr {
        self.of().at(self.tall() * 4)
    }
    fn count(&self) -> Result<i32, CudaError> {
        int("experts", "experts", self.routed.experts)
    }

    /// Gives experts their tiles.
    ///
    /// # Errors
    /// Sizes that no kernel takes: 65,536 tiles of rows or experts, or more.
    pub fn sort(&self) -> Result<Vec<Launch>, CudaError> {
        let (tall, experts) = (self.tall(), self.routed.experts);
        if tall.max(experts) >= 1 << 16 {
            return Err(refused(
                "experts",
                format!("{tall} tiles of rows of {experts} experts, at most 65535 are taken"),
            ));
        }
        if experts == 0 {
            return Ok(vec![]);
        }
        let list =
            args![self.count()?, self.routed.starts(), self.routed.order(), self.tiles(), self.of(), self.places()];
        Ok(vec![Launch::new("experts_tiles", [experts as u32, 1, 1], 256, list)])
    }

    /// Rows of `width` values of `f32`, each read by `shared` choices, rounded and in order, at `to`
    /// ([`Grouped::rows_bytes`], aligned to 16).
    ///
    /// # Errors
    /// 2³¹ values in a row, or more.
    pub fn rows(&self, x: Ptr, width: usize, shared: usize, to: Ptr) -> Result<Vec<Launch>, CudaError> {
        if width == 0 || self.tall() == 0 {
            return Ok(vec![]);
        }
        let (values, shared) = (int("experts", "values in a row", line(width))?, int("experts", "choices", shared)?);
        let mut list = args![self.count()?, self.tiles(), self.places(), x, width as i32, shared, to];
        list.extend(args![self.element as i32, values]);
        Ok(vec![Launch::new("experts_rows", [grid(self.tall() * HIGH / 8)?, 1, 1], 256, list)])
    }

    /// Matrices of `high` lines of `width` values of `f32`, rounded at `to` ([`Grouped::matrices_bytes`], aligned to 16); of
    /// experts that nobody chose nothing is written. Also where each is.
    ///
    /// # Errors
    /// 2³¹ values in a line, or more.
    pub fn matrices(&self, from: &[Ptr], size: [usize; 2], to: Ptr) -> Result<(Vec<Launch>, Vec<Matrix>), CudaError> {
        let [high, width] = size;
        let far = high * line(width) * self.element.bytes();
        let at = |e: usize| Matrix::rows(to.at(e * far), line(width)).of(self.element);
        let mut launches = self.routed.table(from);
        let mut list = args![self.routed.starts(), self.routed.workspace];
        list.extend(args![int("experts", "lines", high)?, width as i32, to]);
        list.extend(args![self.element as i32, int("experts", "values in a line", line(width))?]);
        if high > 0 && width > 0 && !from.is_empty() {
            let size = [grid((high * line(width) / 8).div_ceil(256))?, from.len() as u32, 1];
            launches.push(Launch::new("experts_matrices", size, 256, list));
        }
        Ok((launches, (0..from.len()).map(at).collect()))
    }

    /// `c[r] = a[r / shared] b_e` for every choice `r` of expert `e`, `a` of `k` values as [`Grouped::rows`] left it. Matrices are
    /// `[k, n]` of [`Grouped::element`] with lines that begin at 16 bytes, along either dimension, all alike; rows of `c` stand
    /// together.
    ///
    /// # Errors
    /// 2³¹ columns or values in a row, matrices that tensor cores do not read, devices without them.
    pub fn product(
        &self,
        gpu: &Info,
        a: Ptr,
        matrices: &[Matrix],
        [n, k]: [usize; 2],
        c: &Matrix,
        epilogues: &Epilogue,
    ) -> Result<Vec<Launch>, CudaError> {
        let (width, depth) = (int("experts", "columns", n)?, int("experts", "values in a row", k)?);
        let Some(first) = matrices.first().filter(|_| n > 0 && self.tall() > 0) else { return Ok(vec![]) };
        let (across, far) = (first.row == 1, if first.row == 1 { first.col } else { first.row });
        let reads = |b: &Matrix| {
            let alike = b.element == self.element && [b.row, b.col] == [first.row, first.col];
            alike && b.at.0.is_multiple_of(16) && (far * self.element.bytes()).is_multiple_of(16)
        };
        if !(first.row == 1 || first.col == 1) || !matrices.iter().all(reads) {
            return Err(refused(
                "experts",
                format!("matrices of {:?} are given that begin at 16 bytes, all alike", self.element),
            ));
        }
        let hopper = gpu.capability / 10 == 9 && self.element != Element::F32;
        let kernel = match (self.element, across, hopper) {
            (Element::Bf16, false, true) => "gemm_grouped_nn_bf16_sm90",
            (Element::Bf16, true, true) => "gemm_grouped_nt_bf16_sm90",
            (Element::F16, false, true) => "gemm_grouped_nn_f16_sm90",
            (Element::F16, true, true) => "gemm_grouped_nt_f16_sm90",
            (Element::Bf16, false, false) => "gemm_grouped_nn_bf16_sm80",
            (Element::Bf16, true, false) => "gemm_grouped_nt_bf16_sm80",
            (Element::F16, false, false) => "gemm_grouped_nn_f16_sm80",
            (Element::F16, true, false) => "gemm_grouped_nt_f16_sm80",
            (Element::F32, false, _) => "gemm_grouped_nn_tf32_sm80",
            (Element::F32, true, _) => "gemm_grouped_nt_tf32_sm80",
            _ => return Err(self.no_kernel(gpu)),
        };
        self.able(gpu)?;
        if !hopper {
            let at: Vec<Ptr> = matrices.iter().map(|b| b.at).collect();
            let mut launches = self.routed.table(&at);
            let mut list = args![width, depth, self.count()?, self.tiles(), self.of(), self.places(), a];
            list.extend(args![line(k) as i32, self.routed.workspace, far as i64]);
            list.extend(epilogue(c, epilogues));
            let size = [blocks(n, HIGH), self.tall() as u32, 1];
            launches.push(Launch::new(kernel, size, 256, list).shared(64 << 10));
            return Ok(launches);
        }
        let mut launches = self.maps(matrices, |b| match across {
            true => map(b, [1, 1], k, n, far, [64, WIDE]),
            false => map(b, [1, 1], n, k, far, [64, 64]),
        })?;
        let rows = Matrix::rows(a, line(k)).of(self.element);
        let mut list = vec![Arg::Tile(map(&rows, [1, 1], k, self.tall() * HIGH, line(k), [64, HIGH]))];
        list.extend(args![self.workspace, width, depth, self.count()?, self.tiles(), self.of(), self.places()]);
        list.extend(epilogue(c, epilogues));
        let size = (self.tall() * n.div_ceil(WIDE)).min(gpu.multiprocessors as usize).max(1);
        launches.push(Launch::new(kernel, [size as u32, 1, 1], 384, list).shared(SHARED));
        Ok(launches)
    }

    /// `to_e [m, n] = sum of a[r]ᵀ b[r]` over the choices `r` of expert `e`, `f32`: `a` of m and `b` of n values as
    /// [`Grouped::rows`] left them; zero for an expert that nobody chose.
    ///
    /// # Errors
    /// 2³¹ rows or columns, or more; devices without tensor cores.
    pub fn gradient(
        &self,
        gpu: &Info,
        to: &[Ptr],
        [m, n]: [usize; 2],
        a: Ptr,
        b: Ptr,
    ) -> Result<Vec<Launch>, CudaError> {
        let (height, width) = (int("experts_grad", "rows", m)?, int("experts_grad", "columns", n)?);
        if m == 0 || n == 0 || to.is_empty() {
            return Ok(vec![]);
        }
        self.able(gpu)?;
        let hopper = gpu.capability / 10 == 9 && self.element != Element::F32;
        let kernel = match (self.element, hopper) {
            (Element::Bf16, true) => "gemm_grouped_grad_bf16_sm90",
            (Element::F16, true) => "gemm_grouped_grad_f16_sm90",
            (Element::Bf16, false) => "gemm_grouped_grad_bf16_sm80",
            (Element::F16, false) => "gemm_grouped_grad_f16_sm80",
            (Element::F32, _) => "gemm_grouped_grad_tf32_sm80",
            _ => return Err(self.no_kernel(gpu)),
        };
        let mut launches = self.routed.table(to);
        if !hopper {
            let mut list = args![height, width, self.routed.starts(), self.tiles(), a, line(m) as i32, b];
            list.extend(args![line(n) as i32, self.routed.workspace]);
            let size = [grid(m.div_ceil(HIGH) * n.div_ceil(HIGH))?, to.len() as u32, 1];
            launches.push(Launch::new(kernel, size, 256, list).shared(64 << 10));
            return Ok(launches);
        }
        // Without a choice there is one row, of zeros by its place alone.
        let tall = (self.tall() * HIGH).max(1);
        let side = |at: Ptr, width: usize| {
            let at = if self.tall() > 0 { at } else { self.workspace };
            let x = Matrix::rows(at, line(width)).of(self.element);
            Arg::Tile(map(&x, [1, 1], width, tall, line(width), [64, 64]))
        };
        let mut list = vec![side(a, m), side(b, n)];
        list.extend(args![height, width, self.count()?, self.routed.starts(), self.tiles(), self.routed.workspace]);
        list.extend(epilogue(&Matrix::default(), &Epilogue::default()));
        let size = (m.div_ceil(HIGH) * n.div_ceil(WIDE) * to.len()).min(gpu.multiprocessors as usize);
        launches.push(Launch::new(kernel, [size as u32, 1, 1], 384, list).shared(SHARED));
        Ok(launches)
    }

    /// Writes the matrices' tensor maps into the workspace.
    fn maps(&self, matrices: &[Matrix], map: impl Fn(&Matrix) -> crate::Tile) -> Result<Vec<Launch>, CudaError> {
        let all: Vec<crate::Tile> = matrices.iter().map(map).collect();
        all.iter().try_for_each(crate::Tile::check)?;
        let some = |(i, some): (usize, &[crate::Tile])| {
            let mut list = args![self.workspace, (i * 16) as i32, some.len() as i32];
            list.extend((0..16).map(|j| Arg::Tile(some[j.min(some.len() - 1)].clone())));
            Launch::new("tile_table", [1, 1, 1], 32, list)
        };
        Ok(all.chunks(16).enumerate().map(some).collect())
    }

    fn able(&self, gpu: &Info) -> Result<(), CudaError> {
        if gpu.capability >= 80 { Ok(()) } else { Err(self.no_kernel(gpu)) }
    }

    fn no_kernel(&self, gpu: &Info) -> CudaError {
        let has = gpu.capability;
        refused(
            "experts",
            format!("{:?} on a device of capability {has}, expected bf16, f16 or f32 and 80", self.element),
        )
    }
}

/// Shared memory of `gemm_grouped_sm90.cu`: a ring of four, two stages of 64 rows of 68 values, two barriers a slot.
const SHARED: u32 = (4 * (HIGH + WIDE) * 128 + 2 * 64 * 68 * 4 + 4 * 16) as u32;
