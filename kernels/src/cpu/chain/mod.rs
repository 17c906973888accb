//! Chains of elementwise operations in one pass.
//!
//! A chain is a small program ([`Code`]) over registers that each hold a block of values: real
//! numbers in one file, whole numbers and truth values in another. For each block of the output
//! every instruction runs over the whole block in a loop that vectorises, and the results are
//! stored, of which there may be several. Intermediate values never leave the first-level cache.
//!
//! Inputs are read where they lie if they follow each other as the output does, or if one value
//! stands for the whole block; others (broadcast, strided, truth values) are first gathered into
//! a block of their own. Constants are a vector that every step of a loop reads again.
//!
//! [`run`] shares the output's blocks among the threads. [`Chain::tile`] runs a rectangle of the
//! output seen as rows, for a kernel that has just computed these values and has them in its
//! cache: the epilogue of a product.

mod code;
mod layout;
mod ops;
mod step;

pub use code::{
    Arg, BinaryOp, CONSTANTS, Code, CompareOp, FLOATS, INPUTS, INTS, Ins, Kind, Pair, RESULTS, Reg, UnaryF,
};
pub use layout::Layout;

use super::stream;
use crate::pool::Pool;
use std::marker::PhantomData;
use std::ops::Range;

/// Values in a block.
pub const BLOCK: usize = 512;

/// An input's values.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Real numbers.
    F32(&'a [f32]),
    /// Whole numbers.
    I32(&'a [i32]),
    /// Truth values.
    U8(&'a [u8]),
    /// The previous values of a target, of four bytes each.
    Out(usize),
}

/// Where a result goes.
pub enum Target<'a> {
    /// Real numbers.
    F32(&'a mut [f32]),
    /// Whole numbers.
    I32(&'a mut [i32]),
    /// Truth values.
    U8(&'a mut [u8]),
}

/// A place in memory of one kind.
#[derive(Clone, Copy)]
struct Place {
    start: *mut u8,
    kind: Kind,
}

/// A chain with its inputs and targets: checked, and ready to run.
pub struct Chain<'a> {
    code: &'a Code,
    layouts: &'a [Layout],
    inputs: [Place; INPUTS],
    outs: [Place; RESULTS],
    /// Values in each target.
    total: usize,
    streams: bool,
    life: PhantomData<&'a mut [f32]>,
}
// SAFETY: inputs are only read, and the parts of targets that tasks write are disjoint: by
// `run`'s split, or by the promise of `tile`'s callers.
unsafe impl Sync for Chain<'_> {}

impl<'a> Chain<'a> {
    /// Joins code with its inputs and the targets of its results.
    ///
    /// # Panics
    /// When kinds or numbers do not match, targets differ in length, a layout is not that of the
    /// targets, or an input is shorter than its layout reaches.
    pub fn new(code: &'a Code, layouts: &'a [Layout], sources: &[Source<'a>], targets: &'a mut [Target]) -> Chain<'a> {
        assert!(code.is_finished(), "a chain's code is finished");
        assert!(layouts.len() == code.inputs.len() && sources.len() == layouts.len(), "a chain's inputs");
        assert!(targets.len() == code.results.len() && !targets.is_empty(), "a chain's results");
        let none = Place { start: std::ptr::null_mut(), kind: Kind::F32 };
        let (mut outs, mut total) = ([none; RESULTS], None);
        for ((out, target), (_, kind)) in outs.iter_mut().zip(targets).zip(&code.results) {
            let (place, len) = match target {
                Target::F32(t) => (Place { start: t.as_mut_ptr().cast(), kind: Kind::F32 }, t.len()),
                Target::I32(t) => (Place { start: t.as_mut_ptr().cast(), kind: Kind::I32 }, t.len()),
                Target::U8(t) => (Place { start: t.as_mut_ptr(), kind: Kind::U8 }, t.len()),
            };
            assert!(place.kind == *kind && *total.get_or_insert(len) == len, "a chain's targets");
            *out = place;
        }
        let total = total.unwrap_or(0);
        let (mut inputs, mut in_place) = ([none; INPUTS], false);
        for (i, (source, layout)) in sources.iter().zip(layouts).enumerate() {
            let (place, len) = match source {
                Source::F32(s) => (Place { start: s.as_ptr().cast_mut().cast(), kind: Kind::F32 }, s.len()),
                Source::I32(s) => (Place { start: s.as_ptr().cast_mut().cast(), kind: Kind::I32 }, s.len()),
                Source::U8(s) => (Place { start: s.as_ptr().cast_mut(), kind: Kind::U8 }, s.len()),
                Source::Out(k) => {
                    assert!(*k < code.results.len() && layout.is_contiguous(), "an input in place is as its target");
                    in_place = true;
                    (outs[*k], total)
                }
            };
            let fits = place.kind == code.inputs[i] && (place.kind != Kind::U8 || !matches!(source, Source::Out(_)));
            assert!(fits, "a chain's inputs are of the kinds that it reads");
            assert!(layout.count() == total && layout.reach() <= len, "a chain's input is cut off");
            inputs[i] = place;
        }
        let bytes = |k: &Kind| if *k == Kind::U8 { total } else { 4 * total };
        let streams = !in_place && stream::pays(code.results.iter().map(|r| bytes(&r.1)).sum());
        Chain { code, layouts, inputs, outs, total, streams, life: PhantomData }
    }

    /// The place of a target of four-byte values, and how many they are.
    pub(super) fn target(&self, k: usize) -> (*mut f32, usize) {
        (self.outs[k].start.cast(), self.total)
    }

    /// Runs everything on the pool's threads.
    pub fn run(&mut self, pool: &Pool) {
        let blocks = self.total.div_ceil(BLOCK);
        let least = (65_536 / self.code.cost().max(1)).div_ceil(BLOCK);
        let each = blocks.div_ceil(4 * pool.threads()).max(least);
        let this = &*self;
        pool.run(blocks.div_ceil(each.max(1)), &|task| {
            let from = task * each * BLOCK;
            step::region(this, from, 1, (each * BLOCK).min(this.total - from), 0);
        });
    }

    /// Runs the values of `rows` and `columns` on the calling thread, where the targets are
    /// matrices with rows of `width` values. Inputs' layouts are of the whole output, as ever.
    ///
    /// # Safety
    /// No two tiles that run at once overlap, and nobody else touches their values in the
    /// targets meanwhile.
    ///
    /// # Panics
    /// When the tile lies outside the targets.
    pub unsafe fn tile(&self, rows: Range<usize>, columns: Range<usize>, width: usize) {
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        assert!(columns.end <= width && rows.end * width <= self.total, "a tile lies in its chain's targets");
        step::region(self, rows.start * width + columns.start, rows.len(), columns.len(), width);
    }
}

/// Runs a chain: `targets` are the places of the code's results.
///
/// # Panics
/// As [`Chain::new`].
pub fn run(pool: &Pool, code: &Code, layouts: &[Layout], sources: &[Source], targets: &mut [Target]) {
    Chain::new(code, layouts, sources, targets).run(pool);
}

#[cfg(test)]
mod tests;
