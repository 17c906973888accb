//! Checked access to a program's buffers.
//!
//! A program's values lie in one arena and in buffers that live longer (parameters, states).
//! Kernels get slices of them by [`Piece`]. Values whose lives do not overlap share bytes, so
//! the compiler cannot see that slices are disjoint; [`Memory`] checks it when a slice is
//! borrowed, as `RefCell` does, over byte ranges. A mistake in a plan is a panic with the two
//! ranges, never a data race.

use crate::large::Large;
use crate::pool::Pool;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Every buffer starts at a multiple of this many bytes: a cache line and an AVX-512 register.
pub const ALIGN: usize = 64;

/// A range of values in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Piece {
    /// The buffer.
    pub slot: u32,
    /// The first value.
    pub offset: usize,
    /// The number of values.
    pub len: usize,
}

/// A type that buffers hold: every bit pattern is a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for u8 {}

/// A buffer that lives outside the arena.
pub enum External<'a> {
    /// Real numbers that are only read.
    ReadF32(&'a [f32]),
    /// Whole numbers that are only read.
    ReadI32(&'a [i32]),
    /// Truth values that are only read.
    ReadBool(&'a [bool]),
    /// Real numbers.
    F32(&'a mut [f32]),
    /// Whole numbers.
    I32(&'a mut [i32]),
    /// Truth values.
    U8(&'a mut [u8]),
}

#[derive(Clone, Copy)]
struct Region {
    start: usize,
    bytes: usize,
    writable: bool,
}

/// The bytes that programs compute in, one after another: nothing in them outlives a run.
pub struct Arena(Large);

impl Default for Arena {
    fn default() -> Arena {
        Arena::new(0)
    }
}

impl Arena {
    /// An arena of `bytes` zeros.
    pub fn new(bytes: usize) -> Arena {
        Arena(Large::new(bytes))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Makes it as large as what is to run in it needs, where it is smaller, or more than twice as large.
    pub fn fit(&mut self, bytes: usize) {
        if self.bytes() < bytes || self.bytes() / 2 > bytes {
            // The old one goes before the new one comes.
            self.0 = Large::new(0);
            self.0 = Large::new(bytes);
        }
    }
}

/// The table of a bound program's buffers: where in an [`Arena`] they lie, and which are given to each run.
pub struct Frame {
    /// Offset and bytes of the arena's buffers.
    places: Vec<(usize, usize)>,
    /// How large an arena must be.
    bytes: usize,
    /// Where the arena of the last run began.
    base: usize,
    /// External buffers first, filled in by each run; then those of the arena, by offset.
    regions: Vec<Region>,
    externals: usize,
    active: Vec<(Region, bool)>,
}

impl Frame {
    /// A frame with `externals` slots for outside buffers, followed by one slot for each arena
    /// buffer of `(offset, bytes)`.
    ///
    /// # Panics
    /// When an offset is not a multiple of [`ALIGN`].
    pub fn new(externals: usize, places: &[(usize, usize)]) -> Frame {
        let aligned = places.iter().all(|(offset, _)| offset.is_multiple_of(ALIGN));
        assert!(aligned, "buffers are aligned");
        let end = places.iter().map(|(offset, bytes)| offset + bytes).max().unwrap_or(0);
        let region = |bytes| Region { start: 0, bytes, writable: true };
        let given = std::iter::repeat_n(Region { writable: false, ..region(0) }, externals);
        Frame {
            bytes: end.next_multiple_of(ALIGN),
            base: 0,
            regions: given.chain(places.iter().map(|(_, bytes)| region(*bytes))).collect(),
            places: places.to_vec(),
            externals,
            active: Vec::with_capacity(64),
        }
    }

    /// The size of the arena that it needs, in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.bytes
    }

    /// Runs `f` with access to all buffers. `externals` are the buffers of the first slots, in
    /// order. What the arena held before is lost, if only in part.
    ///
    /// # Panics
    /// When there are not as many externals as the frame was made for, or the arena is too small.
    pub fn run<'e, R>(
        &mut self,
        arena: &mut Arena,
        pool: &Pool,
        externals: impl Iterator<Item = External<'e>>,
        f: impl FnOnce(&Memory) -> R,
    ) -> R {
        assert!(arena.bytes() >= self.bytes, "an arena of {} bytes for {}", arena.bytes(), self.bytes);
        let base = arena.0.as_mut_ptr() as usize;
        if base != self.base {
            for (region, (offset, _)) in self.regions[self.externals..].iter_mut().zip(&self.places) {
                region.start = base + offset;
            }
            self.base = base;
        }
        let mut given = 0;
        for external in externals {
            assert!(given < self.externals, "a frame is run with the buffers it was made for");
            let (start, bytes, writable) = match external {
                External::ReadF32(s) => (s.as_ptr() as usize, size_of_val(s), false),
                External::ReadI32(s) => (s.as_ptr() as usize, size_of_val(s), false),
                External::ReadBool(s) => (s.as_ptr() as usize, size_of_val(s), false),
                External::F32(s) => (s.as_mut_ptr() as usize, size_of_val(s), true),
                External::I32(s) => (s.as_mut_ptr() as usize, size_of_val(s), true),
                External::U8(s) => (s.as_mut_ptr() as usize, size_of_val(s), true),
            };
            self.regions[given] = Region { start, bytes, writable };
            given += 1;
        }
        assert_eq!(given, self.externals, "a frame is run with the buffers it was made for");
        self.active.clear();
        let memory = Memory {
            regions: &self.regions,
            active: RefCell::new(std::mem::take(&mut self.active)),
            pool,
            _exclusive: PhantomData,
        };
        let result = f(&memory);
        self.active = memory.active.into_inner();
        result
    }
}

/// Access to a program's buffers while it runs.
pub struct Memory<'a> {
    regions: &'a [Region],
    active: RefCell<Vec<(Region, bool)>>,
    pool: &'a Pool,
    // The arena and the externals are borrowed mutably for 'a; not shared between threads.
    _exclusive: PhantomData<(&'a mut [u8], *const ())>,
}

impl<'a> Memory<'a> {
    /// The threads.
    pub fn pool(&self) -> &'a Pool {
        self.pool
    }

    /// Values for reading.
    ///
    /// # Panics
    /// When the range is outside its buffer, or is being written.
    pub fn read<T: Plain>(&self, piece: Piece) -> Read<'_, T> {
        let region = self.range::<T>(piece);
        self.claim(region, false);
        // SAFETY: the range lies in a buffer that is borrowed for 'a, is aligned for T, holds
        // initialised bytes of which every pattern is a T, and is not being written (`claim`).
        let slice = unsafe { std::slice::from_raw_parts(region.start as *const T, piece.len) };
        Read { slice, region, memory: self }
    }

    /// Values for writing.
    ///
    /// # Panics
    /// When the range is outside its buffer, or is being read or written.
    pub fn write<T: Plain>(&self, piece: Piece) -> Write<'_, T> {
        let region = self.range::<T>(piece);
        assert!(region.writable, "an argument is written");
        self.claim(region, true);
        // SAFETY: as in `read`, and the range is not being read either.
        let slice = unsafe { std::slice::from_raw_parts_mut(region.start as *mut T, piece.len) };
        Write { slice, region, memory: self }
    }

    /// Real numbers for reading.
    pub fn f32(&self, piece: Piece) -> Read<'_, f32> {
        self.read(piece)
    }
    /// Real numbers for writing.
    pub fn f32_mut(&self, piece: Piece) -> Write<'_, f32> {
        self.write(piece)
    }
    /// Whole numbers for reading.
    pub fn i32(&self, piece: Piece) -> Read<'_, i32> {
        self.read(piece)
    }
    /// Whole numbers for writing.
    pub fn i32_mut(&self, piece: Piece) -> Write<'_, i32> {
        self.write(piece)
    }
    /// Truth values for reading.
    pub fn u8(&self, piece: Piece) -> Read<'_, u8> {
        self.read(piece)
    }
    /// Truth values for writing.
    pub fn u8_mut(&self, piece: Piece) -> Write<'_, u8> {
        self.write(piece)
    }

    /// Whether two pieces of four-byte values are the same bytes: an operation in place.
    pub fn same(&self, a: Piece, b: Piece) -> bool {
        let (x, y) = (self.range::<f32>(a), self.range::<f32>(b));
        x.start == y.start && x.bytes == y.bytes && x.bytes > 0
    }

    fn range<T>(&self, piece: Piece) -> Region {
        let region = self.regions[piece.slot as usize];
        let size = size_of::<T>();
        let end = piece.offset.checked_add(piece.len).and_then(|n| n.checked_mul(size));
        let inside = end.is_some_and(|end| end <= region.bytes);
        assert!(inside, "values {}..+{} of a buffer of {} bytes", piece.offset, piece.len, region.bytes);
        Region { start: region.start + piece.offset * size, bytes: piece.len * size, writable: region.writable }
    }

    fn claim(&self, region: Region, exclusive: bool) {
        let mut active = self.active.borrow_mut();
        for (other, written) in active.iter() {
            let apart = region.bytes == 0
                || other.bytes == 0
                || region.start + region.bytes <= other.start
                || other.start + other.bytes <= region.start;
            assert!(apart || !(exclusive || *written), "two values that are in use at once share bytes");
        }
        active.push((region, exclusive));
    }

    fn release(&self, region: Region, exclusive: bool) {
        let mut active = self.active.borrow_mut();
        let same = |(r, e): &(Region, bool)| r.start == region.start && r.bytes == region.bytes && *e == exclusive;
        if let Some(i) = active.iter().rposition(same) {
            active.swap_remove(i);
        }
    }
}

/// Borrowed values.
pub struct Read<'m, T> {
    slice: &'m [T],
    region: Region,
    memory: &'m Memory<'m>,
}
impl<T> Deref for Read<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.slice
    }
}
impl<T> Drop for Read<'_, T> {
    fn drop(&mut self) {
        self.memory.release(self.region, false);
    }
}

/// Mutably borrowed values.
pub struct Write<'m, T> {
    slice: &'m mut [T],
    region: Region,
    memory: &'m Memory<'m>,
}
impl<T> Deref for Write<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.slice
    }
}
impl<T> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.slice
    }
}
impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        self.memory.release(self.region, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(slot: u32, offset: usize, len: usize) -> Piece {
        Piece { slot, offset, len }
    }

    #[test]
    fn reads_and_writes_reach_the_same_bytes() {
        let pool = Pool::new(1);
        let mut frame = Frame::new(1, &[(0, 16), (64, 8)]);
        let mut arena = Arena::new(frame.arena_bytes());
        let mut outside = vec![7i32; 3];
        frame.run(&mut arena, &pool, std::iter::once(External::I32(&mut outside)), |m| {
            m.f32_mut(piece(1, 0, 4)).copy_from_slice(&[1., 2., 3., 4.]);
            let (a, mut b) = (m.f32(piece(1, 1, 2)), m.f32_mut(piece(2, 0, 2)));
            b.copy_from_slice(&a);
            assert_eq!(&*m.f32(piece(1, 0, 4)), [1., 2., 3., 4.]);
            m.i32_mut(piece(0, 1, 1))[0] = 9;
        });
        assert_eq!(outside, [7, 9, 7]);
    }

    #[test]
    fn frames_share_an_arena() {
        let (pool, mut arena) = (Pool::new(1), Arena::default());
        let mut frames = [Frame::new(0, &[(0, 16), (64, 8)]), Frame::new(0, &[(128, 400)])];
        let most = frames.iter().map(Frame::arena_bytes).max().unwrap_or(0);
        arena.fit(most);
        for round in 0..3 {
            for (i, frame) in frames.iter_mut().enumerate() {
                let values = [round as f32, i as f32];
                frame.run(&mut arena, &pool, std::iter::empty(), |m| {
                    m.f32_mut(piece(0, 1, 2)).copy_from_slice(&values);
                    assert_eq!(*m.f32(piece(0, 1, 2)), values);
                });
            }
            // Another place in memory.
            arena = Arena::new(most);
        }
        arena.fit(most / 2);
        assert_eq!(arena.bytes(), most, "it stays while half of it is used");
        arena.fit(most / 4);
        assert_eq!(arena.bytes(), most / 4);
    }

    #[test]
    #[should_panic(expected = "an arena of 64 bytes for 128")]
    fn small_arenas_panic() {
        let mut frame = Frame::new(0, &[(64, 16)]);
        frame.run(&mut Arena::new(64), &Pool::new(1), std::iter::empty(), |_| {});
    }

    #[test]
    #[should_panic(expected = "an argument is written")]
    fn arguments_are_not_written() {
        Frame::new(1, &[]).run(&mut Arena::new(0), &Pool::new(1), std::iter::once(External::ReadF32(&[1.0])), |m| {
            m.f32_mut(piece(0, 0, 1))[0] = 2.0;
        });
    }

    #[test]
    #[should_panic(expected = "share bytes")]
    fn overlapping_writes_panic() {
        let mut frame = Frame::new(0, &[(0, 16), (0, 16)]);
        frame.run(&mut Arena::new(64), &Pool::new(1), std::iter::empty(), |m| {
            let _a = m.f32(piece(0, 0, 4));
            let _b = m.f32_mut(piece(1, 0, 4));
        });
    }

    #[test]
    #[should_panic(expected = "of a buffer of 16 bytes")]
    fn outside_panics() {
        let mut frame = Frame::new(0, &[(0, 16)]);
        frame.run(&mut Arena::new(64), &Pool::new(1), std::iter::empty(), |m| {
            let _a = m.f32(piece(0, 2, 3));
        });
    }
}
