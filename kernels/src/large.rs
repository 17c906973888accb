//! Memory for weights: zeroed, aligned to cache lines, and in huge pages where it is large.
//!
//! A matrix-vector product reads its weights once from front to back; with pages of 2 MiB instead
//! of 4 KiB the processor translates fewer addresses, and prefetches across what were page
//! boundaries: on the machines measured, a third more bandwidth. Linux gives them where it is
//! asked (`madvise`), which is done before the first touch.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const PAGE: usize = 2 << 20;

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
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if bytes >= PAGE {
            unsafe extern "C" {
                fn madvise(start: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
            }
            const HUGE_PAGES: std::ffi::c_int = 14;
            // SAFETY: whole pages of an allocation of our own; advice changes no values. Where it is
            // not taken, the memory is as it was.
            unsafe { madvise(start.as_ptr().cast(), bytes / PAGE * PAGE, HUGE_PAGES) };
        }
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
