//! Memory for weights and arenas: zeroed, aligned to cache lines, in huge pages where it is large.
//!
//! A matrix-vector product reads its weights once from front to back; with pages of 2 MiB instead
//! of 4 KiB the processor translates fewer addresses, and prefetches across what were page
//! boundaries: on the machines measured, a third more bandwidth. Linux gives them where it is
//! asked: before the first touch ([`Large`]), or by moving what is there ([`gather_pages`]).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const PAGE: usize = 2 << 20;

const HUGE_PAGES: i32 = 14;
const COLLAPSE: i32 = 25;

/// Tells the system how pages should lie. Where it does not take the advice, all is as it was.
///
/// # Safety
/// The range is whole pages of a live allocation.
#[cfg(target_os = "linux")]
unsafe fn advise(start: *mut u8, bytes: usize, advice: i32) {
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    // SAFETY: by the caller's promise; both kinds of advice change no values.
    unsafe { madvise(start.cast(), bytes, advice) };
}

#[cfg(not(target_os = "linux"))]
unsafe fn advise(_: *mut u8, _: usize, _: i32) {}

/// Moves what lies in small pages to huge ones, where whole ones fit; copies the values once.
pub fn gather_pages<T>(values: &[T]) {
    let (from, bytes) = (values.as_ptr() as usize, size_of_val(values));
    let (first, end) = (from.next_multiple_of(PAGE), (from + bytes) / PAGE * PAGE);
    if first < end {
        let start = values.as_ptr().cast::<u8>().wrapping_add(first - from).cast_mut();
        for advice in [HUGE_PAGES, COLLAPSE] {
            // SAFETY: whole pages within the borrowed values, which keep their addresses.
            unsafe { advise(start, end - first, advice) };
        }
    }
}

/// A fixed number of bytes, zero at first, that start at a cache line.
pub struct Large {
    start: NonNull<u8>,
    bytes: usize,
    layout: Layout,
}
// SAFETY: the bytes are owned, and changed only through a mutable borrow.
unsafe impl Send for Large {}
// SAFETY: as above.
unsafe impl Sync for Large {}

impl Large {
    /// `bytes` zeros.
    ///
    /// # Panics
    /// When there are more than an address space holds.
    pub fn new(bytes: usize) -> Large {
        let align = if bytes >= PAGE { PAGE } else { 64 };
        // An empty allocation is not one.
        let layout = Layout::from_size_align(bytes.max(1), align).expect("weights fit into memory");
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        if bytes >= PAGE {
            // SAFETY: whole pages of an allocation of our own.
            unsafe { advise(start.as_ptr(), bytes / PAGE * PAGE, HUGE_PAGES) };
        }
        // The first touch: an allocator that zeroes would make small pages before it is asked for
        // others.
        // SAFETY: that many bytes were allocated.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Large { start, bytes, layout }
    }

    /// `count` zeros, as real numbers.
    pub fn floats(count: usize) -> Large {
        Large::new(count * 4)
    }

    /// The bytes as real numbers; what is left at the end is not shown.
    pub fn as_f32(&self) -> &[f32] {
        // SAFETY: aligned, owned, and every pattern is a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 4) }
    }

    /// The bytes as real numbers; what is left at the end is not shown.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / 4) }
    }
}

impl Deref for Large {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: that many bytes were allocated and are initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Large {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_values_are_the_same() {
        for count in [0, 1, 1 << 20, 3_000_001] {
            let values: Vec<u32> = (0..count).collect();
            gather_pages(&values);
            assert!((0..count).eq(values));
        }
    }

    #[test]
    fn bytes_are_zero_and_aligned() {
        for bytes in [0, 1, 100, 5 << 20] {
            let mut x = Large::new(bytes);
            assert_eq!((x.len(), x.as_f32().len()), (bytes, bytes / 4));
            assert!(x.iter().all(|b| *b == 0) && (x.as_ptr() as usize).is_multiple_of(64));
            x.fill(1);
            assert!(x.as_f32().iter().all(|v| v.to_bits() == 0x0101_0101));
        }
    }
}
