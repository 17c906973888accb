//! A slice that tasks of one parallel region share, each its own part.

use std::marker::PhantomData;

/// A borrowed slice from which tasks take ranges that do not overlap. Safe slices cannot be
/// handed to the closures of a [`Pool`](crate::pool::Pool), which see everything shared.
pub(super) struct Parts<'a, T> {
    base: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}
// SAFETY: access goes through `get`, whose callers promise that ranges do not overlap.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Self {
        Parts { base: data.as_mut_ptr(), len: data.len(), life: PhantomData }
    }

    /// The values `from..from + len`.
    ///
    /// # Safety
    /// No two ranges that are in use at one time may overlap.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn get(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from + len <= self.len, "a part lies outside its slice");
        // SAFETY: in bounds by the assertion; distinct by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(from), len) }
    }

    /// The address of value `from`, for kernels that write with strides.
    ///
    /// # Panics
    /// When `reach` values from there are not all in the slice.
    pub(super) fn at(&self, from: usize, reach: usize) -> *mut T {
        assert!(from + reach <= self.len, "a part lies outside its slice");
        self.base.wrapping_add(from)
    }
}
