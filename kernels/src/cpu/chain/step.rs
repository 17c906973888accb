//! Runs a chain's instructions over blocks of positions.

use super::code::{ARGS, CONSTANTS, FIRST_CONSTANT, FIRST_INPUT, FIRST_INT};
use super::layout::Layout;
use super::ops::{self, LANES, Words};
use super::{BLOCK, Chain, FLOATS, INPUTS, INTS, Ins, Kind, Place};
use crate::cpu::stream;
use std::cell::Cell;
use std::mem::MaybeUninit;

/// Blocks for registers and for inputs that must be gathered. Nothing is read that was not
/// written for the same block: code is checked, and blocks are filled to whole vectors.
#[repr(C, align(64))]
struct Blocks {
    values: [[MaybeUninit<u32>; BLOCK]; FLOATS + INTS + INPUTS],
    uniform: [[MaybeUninit<u32>; LANES]; CONSTANTS + INPUTS],
}

/// A thread's blocks, and where operands are: of registers always the same place. A hundred
/// kilobytes, which a stack would have to be probed for in every call, and a call may be for
/// some dozens of values.
struct Room {
    blocks: Box<MaybeUninit<Blocks>>,
    table: [Words; ARGS],
}

thread_local! {
    static ROOM: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

impl Room {
    fn new() -> Room {
        let mut blocks = Box::new_uninit();
        let (values, _) = places(&mut blocks);
        let mut table = [Words { at: values.cast_const(), step: LANES }; ARGS];
        for r in 0..FLOATS + INTS + INPUTS {
            // Registers come first, then inputs.
            table[r].at = values.wrapping_add(r * BLOCK);
        }
        Room { blocks, table }
    }
}

/// Where blocks begin, and what stands for a whole block.
fn places(blocks: &mut MaybeUninit<Blocks>) -> (*mut u32, *mut u32) {
    let at = blocks.as_mut_ptr();
    // SAFETY: places within `blocks`; nothing is read.
    unsafe { ((&raw mut (*at).values).cast::<u32>(), (&raw mut (*at).uniform).cast::<u32>()) }
}

/// The values of the output that one block is: `rows` runs of `cols` positions, `pitch` apart.
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    rows: usize,
    cols: usize,
    pitch: usize,
}

impl Region {
    fn len(&self) -> usize {
        self.rows * self.cols
    }
}

crate::dispatch! {
    /// Runs `rows` runs of `cols` positions from `start`, `pitch` apart.
    pub(super) fn region(chain: &Chain, start: usize, rows: usize, cols: usize, pitch: usize) = fused region_body;
}

#[inline(always)]
fn region_body<const FUSED: bool>(chain: &Chain, start: usize, rows: usize, cols: usize, pitch: usize) {
    let mut room = ROOM.take().unwrap_or_else(|| Box::new(Room::new()));
    let Room { blocks, table } = &mut *room;
    let (values, uniform) = places(blocks);
    for (i, (bits, _)) in chain.code.constants.iter().enumerate() {
        let to = uniform.wrapping_add(i * LANES);
        // SAFETY: `uniform` has a row for each constant.
        unsafe { splat(to, *bits) };
        table[FIRST_CONSTANT + i] = Words { at: to, step: 0 };
    }
    // Inputs of one value are the same for every block.
    let mut varies = [false; INPUTS];
    for (i, layout) in chain.layouts.iter().enumerate() {
        varies[i] = !layout.is_uniform();
        if !varies[i] {
            let to = uniform.wrapping_add((CONSTANTS + i) * LANES);
            // SAFETY: `uniform` has a row for each input.
            unsafe { splat(to, value(chain.inputs[i], layout.run(0, 1).at)) };
            table[FIRST_INPUT + i] = Words { at: to, step: 0 };
        }
    }
    let (rows, cols) = if pitch == cols { (1, rows * cols) } else { (rows, cols) };
    let run = |region: Region, table: &mut [Words; ARGS]| {
        // SAFETY: the region lies in the targets, and the memory is as `block` expects.
        unsafe { block::<FUSED>(chain, region, values, uniform, &varies, table) }
    };
    if cols > BLOCK / 2 {
        for row in 0..rows {
            let mut done = 0;
            while done < cols {
                let n = BLOCK.min(cols - done);
                run(Region { start: start + row * pitch + done, rows: 1, cols: n, pitch: 0 }, table);
                done += n;
            }
        }
    } else {
        let each = BLOCK / cols.max(1);
        let mut row = 0;
        while row < rows {
            let n = each.min(rows - row);
            run(Region { start: start + row * pitch, rows: n, cols, pitch }, table);
            row += n;
        }
    }
    if chain.streams {
        stream::fence();
    }
    ROOM.set(Some(room));
}

/// Sixteen copies of one value.
///
/// # Safety
/// There is room for them.
#[inline(always)]
unsafe fn splat(to: *mut u32, bits: u32) {
    // SAFETY: by the caller's promise.
    unsafe { to.cast::<[u32; LANES]>().write([bits; LANES]) }
}

/// The bits of one value of an input.
///
/// # Safety
/// The input has it.
#[inline(always)]
unsafe fn value(place: Place, at: usize) -> u32 {
    // SAFETY: by the caller's promise.
    unsafe {
        match place.kind {
            Kind::U8 => u32::from(*place.start.add(at)),
            Kind::F32 | Kind::I32 => *place.start.cast::<u32>().add(at),
        }
    }
}

/// One block: finds its inputs, runs the instructions, stores the results.
///
/// # Safety
/// The region lies in the targets and has at most [`BLOCK`] values; `values` and `uniform` are
/// those of [`Blocks`] and `table` points to them.
#[inline(always)]
unsafe fn block<const FUSED: bool>(
    chain: &Chain,
    region: Region,
    values: *mut u32,
    uniform: *mut u32,
    varies: &[bool; INPUTS],
    table: &mut [Words; ARGS],
) {
    let len = region.len();
    let vectors = len.div_ceil(LANES);
    for (i, layout) in chain.layouts.iter().enumerate() {
        if !varies[i] {
            continue;
        }
        let place = chain.inputs[i];
        let run = layout.run(region.start, len);
        let whole = region.rows == 1 && run.count == len;
        table[FIRST_INPUT + i] = if whole && run.step == 0 {
            let to = uniform.wrapping_add((CONSTANTS + i) * LANES);
            // SAFETY: the layout reaches within the input (`Chain::new`); a row for each input.
            unsafe { splat(to, value(place, run.at)) };
            Words { at: to, step: 0 }
        } else if whole && run.step == 1 && len.is_multiple_of(LANES) && place.kind != Kind::U8 {
            Words { at: place.start.cast::<u32>().wrapping_add(run.at), step: LANES }
        } else {
            let to = values.wrapping_add((FIRST_INPUT + i) * BLOCK);
            // SAFETY: as above; a block for each input.
            unsafe {
                match place.kind {
                    Kind::U8 => gather(to, place.start.cast_const(), layout, region),
                    Kind::F32 | Kind::I32 => gather(to, place.start.cast_const().cast::<u32>(), layout, region),
                }
            }
            Words { at: to, step: LANES }
        };
    }
    for ins in &chain.code.ins {
        // SAFETY: registers and vectors lie in `values`, and what is read was written, because
        // the code was checked.
        unsafe { execute::<FUSED>(ins, region, vectors, values, table) };
    }
    for ((arg, _), out) in chain.code.results.iter().zip(&chain.outs) {
        let from = table[arg.0 as usize];
        for row in 0..region.rows {
            let (to, at) = (region.start + row * region.pitch, row * region.cols);
            // SAFETY: the region lies in the target; a result is a register or a constant.
            unsafe { store(chain.streams, from, at, *out, to, region.cols) };
        }
    }
}

/// Gathers an input's values, in order, and fills the last vector.
///
/// # Safety
/// The layout reaches within the input, and `to` has room for a block.
#[inline(always)]
unsafe fn gather<T: Copy + Into<u32>>(to: *mut u32, from: *const T, layout: &Layout, region: Region) {
    let mut place = 0;
    for row in 0..region.rows {
        let mut done = 0;
        while done < region.cols {
            let run = layout.run(region.start + row * region.pitch + done, region.cols - done);
            // SAFETY: by the caller's promise.
            unsafe {
                let (to, from) = (to.add(place), from.add(run.at));
                match run.step {
                    0 => {
                        let v = (*from).into();
                        for i in 0..run.count {
                            *to.add(i) = v;
                        }
                    }
                    1 => {
                        for i in 0..run.count {
                            *to.add(i) = (*from.add(i)).into();
                        }
                    }
                    step => {
                        for i in 0..run.count {
                            *to.add(i) = (*from.add(i * step)).into();
                        }
                    }
                }
            }
            place += run.count;
            done += run.count;
        }
    }
    for i in place..place.next_multiple_of(LANES) {
        // SAFETY: a block is whole vectors.
        unsafe { *to.add(i) = 0 };
    }
}

/// Stores `len` values of a result from its value `at` on.
///
/// # Safety
/// The result has the values and the target has the room.
#[inline(always)]
unsafe fn store(streams: bool, from: Words, at: usize, out: Place, to: usize, len: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if out.kind == Kind::U8 {
            let to = out.start.add(to);
            for i in 0..len {
                *to.add(i) = (*from.value(at + i) != 0) as u8;
            }
            return;
        }
        let to = out.start.cast::<u32>().add(to);
        if from.step == 0 {
            let v = *from.at;
            for i in 0..len {
                *to.add(i) = v;
            }
        } else if streams {
            stream::copy_raw(from.at.add(at).cast(), to.cast(), len);
        } else {
            std::ptr::copy_nonoverlapping(from.at.add(at), to, len);
        }
    }
}

/// One instruction over a block of so many vectors.
///
/// # Safety
/// The code was checked; `values` are the registers that `table` points to.
#[inline(always)]
unsafe fn execute<const FUSED: bool>(
    ins: &Ins,
    region: Region,
    vectors: usize,
    values: *mut u32,
    table: &[Words; ARGS],
) {
    let float = |r: u8| values.wrapping_add(r as usize * BLOCK).cast::<f32>();
    let int = |r: u8| values.wrapping_add((FIRST_INT + r as usize) * BLOCK).cast::<i32>();
    macro_rules! arg {
        ($a:expr) => {
            table[$a.0 as usize]
        };
    }
    // SAFETY: by the caller's promise; destinations are none of the operands.
    unsafe {
        match *ins {
            Ins::Iota { dst, div, modulus } => {
                let mut to = int(dst);
                for row in 0..region.rows {
                    ops::positions(to, region.start + row * region.pitch, region.cols, div, modulus);
                    to = to.add(region.cols);
                }
                for i in region.len()..vectors * LANES {
                    *int(dst).add(i) = 0;
                }
            }
            Ins::UnF(kind, d, a) => ops::unary_f::<FUSED>(kind, vectors, float(d), arg!(a)),
            Ins::NegI(d, a) => ops::map_i(vectors, int(d), arg!(a), i32::wrapping_neg),
            Ins::AbsI(d, a) => ops::map_i(vectors, int(d), arg!(a), i32::wrapping_abs),
            Ins::SignI(d, a) => ops::map_i(vectors, int(d), arg!(a), i32::signum),
            Ins::Not(d, a) => ops::not(vectors, int(d), arg!(a)),
            Ins::IntToMask(d, a) => ops::truth(vectors, int(d), arg!(a)),
            Ins::MoveI(d, a) => ops::same(vectors, int(d), arg!(a)),
            Ins::BinF(op, d, a, b) => ops::binary_f(op, vectors, float(d), arg!(a), arg!(b)),
            Ins::BinI(op, d, a, b) => ops::binary_i(op, vectors, int(d), arg!(a), arg!(b)),
            Ins::PairF(op, d, a, b, c) => ops::pair_f(op, vectors, float(d), arg!(a), arg!(b), arg!(c)),
            Ins::CmpF(op, d, a, b) => ops::compare_f(op, vectors, int(d), arg!(a), arg!(b)),
            Ins::CmpI(op, d, a, b) => ops::compare_i(op, vectors, int(d), arg!(a), arg!(b)),
            Ins::SelF(d, m, a, b) => ops::select(vectors, float(d).cast(), arg!(m), arg!(a), arg!(b)),
            Ins::SelI(d, m, a, b) => ops::select(vectors, int(d).cast(), arg!(m), arg!(a), arg!(b)),
            Ins::IntToFloat(d, a) => ops::int_to_float(vectors, float(d), arg!(a)),
            Ins::FloatToInt(d, a) => ops::float_to_int(vectors, int(d), arg!(a)),
            Ins::FloatToMask(d, a) => ops::float_to_mask(vectors, int(d), arg!(a)),
        }
    }
}
