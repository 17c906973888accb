//! Picking by indices and adding by indices (`gather.cu`).

use crate::rows::{Number, count};
use crate::sort::{self, Sort};
use crate::{CudaError, Launch, Ptr, args};

/// Where indices pick: the middle of `[outer, n, inner]`, `picks` of its `n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picks {
    /// The product of the sizes before the dimension.
    pub outer: usize,
    /// Its size.
    pub n: usize,
    /// The product of the sizes behind it.
    pub inner: usize,
    /// Indices along the dimension.
    pub picks: usize,
    /// Whether the middle is a table's rows, as [`crate::status`] then says.
    pub table: bool,
    /// Where a wrong index is noted, or null.
    pub status: Ptr,
}

fn grid(threads: usize) -> Result<[u32; 3], CudaError> {
    Ok([count("gather", "blocks", threads.div_ceil(256))? as u32, 1, 1])
}

impl Picks {
    fn what(self) -> i32 {
        if self.table { 2 } else { 1 }
    }

    fn sizes(self) -> Result<(i32, i32), CudaError> {
        Ok((count("gather", "values along an axis", self.n)?, count("gather", "indices", self.picks)?))
    }

    /// `y[o, j, i] = x[o, ids[j], i]` for values of 1 or 4 bytes.
    ///
    /// # Errors
    /// 2³¹ values along the dimension or indices, more values than a grid has threads.
    pub fn take(self, x: Ptr, ids: Ptr, y: Ptr, bytes: usize) -> Result<Vec<Launch>, CudaError> {
        let (n, picks) = self.sizes()?;
        let row = self.inner * bytes;
        if self.outer * self.picks * row == 0 {
            return Ok(vec![]);
        }
        let wide = row.is_multiple_of(16) && (x.0 | y.0).is_multiple_of(16);
        let (name, unit) = if wide {
            ("take_16", 16)
        } else if bytes == 1 {
            ("take_1", 1)
        } else {
            ("take_4", 4)
        };
        let total = self.outer * self.picks * row / unit;
        let args = args![x, ids, y, total as i64, n, picks, (row / unit) as i64, self.what(), self.status];
        Ok(vec![Launch::new(name, grid(total)?, 256, args)])
    }

    /// `y[o, j, i] = x[o, ids[o, j, i], i]` for values of 1 or 4 bytes.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub fn gather(self, x: Ptr, ids: Ptr, y: Ptr, bytes: usize) -> Result<Vec<Launch>, CudaError> {
        let (n, picks) = self.sizes()?;
        let total = self.outer * self.picks * self.inner;
        if total == 0 {
            return Ok(vec![]);
        }
        let name = if bytes == 1 { "gather_1" } else { "gather_4" };
        Ok(vec![Launch::new(
            name,
            grid(total)?,
            256,
            args![x, ids, y, total as i64, n, picks, self.inner as i64, self.status],
        )])
    }

    /// `y[o, ids[o, j, i], i] += s[o, j, i]`, for each line in the order of `j`.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub fn scatter_add(self, ids: Ptr, s: Ptr, y: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
        if self.outer * self.inner == 1 {
            return self.take_add(ids, s, y, workspace);
        }
        self.lines(ids, s, y, true)
    }

    fn lines(self, ids: Ptr, s: Ptr, y: Ptr, each: bool) -> Result<Vec<Launch>, CudaError> {
        let (n, picks) = self.sizes()?;
        let lines = self.outer * self.inner;
        if lines * self.picks == 0 {
            return Ok(vec![]);
        }
        let args =
            args![ids, s, y, lines as i64, n, picks, self.inner as i64, i32::from(each), self.what(), self.status];
        Ok(vec![Launch::new("add_lines_f32", grid(lines)?, 256, args)])
    }

    fn sort(self) -> Sort {
        Sort { rows: 1, n: self.picks, first: self.picks, descending: false, real: false }
    }

    fn chunks(self) -> usize {
        self.picks.div_ceil(32)
    }

    /// Bytes of workspace that [`take_add`](Self::take_add) needs, and [`scatter_add`](Self::scatter_add) of one line.
    pub fn workspace(self) -> usize {
        let sums = (self.chunks() * self.outer * self.inner * 4).next_multiple_of(256);
        2 * (self.picks * 4).next_multiple_of(256) + 2 * sums + sort::workspace(self.sort())
    }

    /// `y[o, ids[j], i] += s[o, j, i]`: the sums of one index in the order of `j`, in chunks of 32 of its places.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub fn take_add(self, ids: Ptr, s: Ptr, y: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
        if self.picks <= 32 {
            return self.lines(ids, s, y, false);
        }
        let (n, picks) = self.sizes()?;
        let columns = self.outer * self.inner;
        if columns == 0 {
            return Ok(vec![]);
        }
        let one = (self.picks * 4).next_multiple_of(256);
        let sums = (self.chunks() * columns * 4).next_multiple_of(256);
        let (sorted, places) = (workspace, workspace.at(one));
        let (heads, tails) = (workspace.at(2 * one), workspace.at(2 * one + sums));
        let mut launches = sort::sort(self.sort(), ids, sorted, places, tails.at(sums))?;
        let blocks = count("gather", "blocks", self.chunks() * columns.div_ceil(256))? as u32;
        let (chunks, inner) = (self.chunks() as i32, self.inner as i64);
        let args = args![
            sorted,
            places,
            s,
            y,
            heads,
            tails,
            columns as i64,
            n,
            picks,
            inner,
            chunks,
            self.what(),
            self.status
        ];
        launches.push(Launch::new("add_sorted_f32", [blocks, 1, 1], 256, args));
        let args = args![sorted, y, heads, tails, columns as i64, n, picks, inner, chunks, self.what(), self.status];
        launches.push(Launch::new("add_joined_f32", [blocks, 1, 1], 256, args));
        Ok(launches)
    }
}

/// Rows of a table of 16-bit numbers `[rows, width]` as `f32`.
///
/// # Errors
/// A width that is not a multiple of 8, sizes as of [`Picks::take`].
pub fn embedding(
    (table, ids, y): (Ptr, Ptr, Ptr),
    (rows, width): (usize, usize),
    picks: usize,
    number: Number,
    status: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let refused = |message| Err(CudaError::Refused { kernel: "embedding", message });
    if !width.is_multiple_of(8) || !(table.0 | y.0).is_multiple_of(16) {
        return refused(format!("rows of {width} values: not a multiple of 8, or not aligned to 16 bytes"));
    }
    let name = match number {
        Number::F32 => return refused("tables of f32 are taken by `Picks::take`".into()),
        Number::Bf16 => "embedding_bf16",
        Number::F16 => "embedding_f16",
    };
    let (n, w) = (count("embedding", "rows", rows)?, count("embedding", "values in a row", width)?);
    let total = picks * width;
    if total == 0 {
        return Ok(vec![]);
    }
    Ok(vec![Launch::new(name, grid(total / 8)?, 256, args![table, ids, y, total as i64, n, w, status])])
}
