//! Rotary embedding: tables and rotation (`rope.cu`).

use crate::rows::{Number, count};
use crate::{Arg, CudaError, Launch, Ptr, args};

/// Where the frequencies of a table come from; pointers are to `f64` on the device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Frequencies {
    /// As given, `[half]`.
    Fixed(Ptr),
    /// A base that grows with the text; the numbers are in [`table`]'s `numbers`.
    Dynamic,
    /// One set up to the original length, another beyond.
    Long(Ptr, Ptr),
}

/// `cosines` and `sines` `[count, half]` of `positions [count]`. `lengths [count]` are those of each position's text,
/// or null where all are of one. `numbers`: four `f64` on the device, the factor on cosines and sines, the base,
/// the factor of dynamic scaling, and the original length.
///
/// # Errors
/// More values than a grid has threads.
pub fn table(
    (positions, lengths, numbers): (Ptr, Ptr, Ptr),
    frequencies: Frequencies,
    (cosines, sines): (Ptr, Ptr),
    (positions_len, half): (usize, usize),
) -> Result<Vec<Launch>, CudaError> {
    let pairs = count("rope_table", "pairs", half)?;
    if positions_len * half == 0 {
        return Ok(vec![]);
    }
    let (mode, first, more) = match frequencies {
        Frequencies::Fixed(at) => (0, at, Ptr::NULL),
        Frequencies::Dynamic => (1, Ptr::NULL, Ptr::NULL),
        Frequencies::Long(short, long) => (2, short, long),
    };
    let grid = [count("rope_table", "blocks", (positions_len * half).div_ceil(256))? as u32, 1, 1];
    let args = args![positions, lengths, first, more, cosines, sines, positions_len as i64, pairs, mode, numbers];
    Ok(vec![Launch::new("rope_table", grid, 256, args)])
}

/// A rotation of `rows` rows of `features`.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    /// Rows of features.
    pub rows: usize,
    /// Features of a row.
    pub features: usize,
    /// Pairs that are rotated.
    pub half: usize,
    /// Neighbours are pairs, else feature `i` and `i + half`.
    pub interleaved: bool,
    /// By the negative angle.
    pub inverse: bool,
    /// For each dimension that the table follows, at most 4: rows of `x` from one index to the next, its size, rows
    /// of the table.
    pub follow: Vec<(usize, usize, usize)>,
    /// How `x` is stored; tables are `f32`.
    pub number: Number,
}

impl Rope {
    /// `y`, stored as `to`, from `x` by the tables `[.., half]`. May work in place, where both are stored alike.
    ///
    /// # Errors
    /// More than four dimensions, pairs that do not fit, more values than a grid has threads.
    pub fn apply(&self, x: Ptr, cosines: Ptr, sines: Ptr, (y, to): (Ptr, Number)) -> Result<Vec<Launch>, CudaError> {
        let refused = |message| CudaError::Refused { kernel: "rope", message };
        let Rope { rows, features, half, .. } = *self;
        if self.follow.len() > 4 || 2 * half > features {
            return Err(refused(format!("{half} pairs of {features} features over {} dimensions", self.follow.len())));
        }
        let (f, h) = (count("rope", "features", features)?, count("rope", "pairs", half)?);
        if rows * features == 0 {
            return Ok(vec![]);
        }
        let w = self.number.lanes();
        let units = half.div_ceil(w) + (features - 2 * half).div_ceil(w);
        let grid = [count("rope", "blocks", (rows * units).div_ceil(256))? as u32, 1, 1];
        let even = half.is_multiple_of(w) && features.is_multiple_of(w) && (x.0 | y.0).is_multiple_of(16);
        let flags = [self.interleaved, self.inverse, even].map(i32::from);
        let mut args = args![x, cosines, sines, y, to as i32, rows as i64, f, h, flags[0], flags[1], flags[2]];
        args.push(Arg::I32(self.follow.len() as i32));
        for d in 0..4 {
            let (step, size, table) = self.follow.get(d).copied().unwrap_or((1, 1, 0));
            args.extend(args![step as i64, size as i64, table as i64]);
        }
        Ok(vec![Launch::new(self.number.pick(["rope_f32", "rope_bf16", "rope_f16"]), grid, 256, args)])
    }
}
