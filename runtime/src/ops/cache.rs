//! Writing into caches: rows of a batch that stand at different positions.
//!
//! A cache of keys, of values or of any other state by position is `[b, s, ..]`: `s` slots for each
//! sequence. [`WriteRows`] writes the first `count[b]` of `t` new entries of each sequence from slot
//! `start[b]` on. With `wrap` the slots are a ring: position `p` lies in slot `p mod s`, so that a
//! layer that sees only a window of positions needs no more slots than the window and one write.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::ops::cache::write_rows;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Slots; Heads = 2; HeadDim = 4; }
//!
//! type New = Tensor![Batch, Time, Heads, HeadDim];
//! type Cache = Tensor![Batch, Slots, Heads, HeadDim];
//! type PerRow = Tensor![Batch; Index];
//!
//! fn remember(cache: Cache, new: New, start: PerRow, count: PerRow) -> Cache {
//!     Tensor::from_raw(write_rows(cache.raw(), new.raw(), start.raw(), count.raw(), false))
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, TensorType};

/// `x` with the first `count[b]` entries of `block[b]` from slot `start[b]` on. Inputs `x [b, s, ..]`,
/// `block [b, t, ..]`, `start [b]`, `count [b]`.
#[derive(Clone, Debug)]
pub struct WriteRows {
    /// Slots are a ring: what would lie behind the last goes to the first.
    pub wrap: bool,
}

/// The slots of one sequence's entries: the first and how many. With `wrap` of more entries than
/// slots the last ones count.
///
/// # Errors
/// Counts outside `0..=t`, slots outside the cache.
pub fn check_rows(start: i32, count: i32, t: usize, slots: usize, wrap: bool) -> Result<(usize, usize), String> {
    let places = usize::try_from(start).ok().zip(usize::try_from(count).ok());
    let Some((first, many)) = places.filter(|(_, many)| *many <= t) else {
        return Err(format!("cannot write {count} of {t} entries from position {start} on"));
    };
    if many > 0 && !wrap && first.saturating_add(many) > slots {
        return Err(format!("{many} entries from position {start} on do not fit into a cache of {slots} positions"));
    }
    if many > 0 && slots == 0 {
        return Err("a cache without slots holds nothing".into());
    }
    Ok((first, many))
}

impl Rule for WriteRows {
    fn name(&self) -> &'static str {
        "write_rows"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, block, start, count] = arity(inputs)?;
        let fits = x.rank() >= 2
            && block.dtype == x.dtype
            && x.dtype != DType::Bool
            && block.rank() == x.rank()
            && (0..x.rank()).all(|d| d == 1 || x.dims[d].extent == block.dims[d].extent);
        if !fits {
            return Err(format!("writes {block} into {x}: only dimension 1, the position, may differ"));
        }
        for ty in [start, count] {
            if ty.rank() != 1 || ty.dtype != DType::I32 || ty.dims[0].extent != x.dims[0].extent {
                return Err(format!("takes one position and one count per sequence of {x}, is given {ty}"));
            }
        }
        Ok(vec![x.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("caches are for decoding: train on whole texts".into()))
    }
    fn cost(&self, inputs: &[&TensorType], _: &[TensorType]) -> Cost {
        // In place: what is new is read and written.
        Cost::streaming(crate::graph::Extent::constant(0), &[inputs[1]], &[inputs[1].clone()])
    }
    fn attributes(&self) -> String {
        if self.wrap { "wrap".into() } else { String::new() }
    }
}

/// A cache with new entries at each sequence's own position.
pub fn write_rows(x: Handle, block: Handle, start: Handle, count: Handle, wrap: bool) -> Handle {
    op1(WriteRows { wrap }, &[x, block, start, count])
}
