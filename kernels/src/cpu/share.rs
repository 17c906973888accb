//! Sharing of mutable slices and scratch memory among the tasks of a parallel region.

use crate::pool::Pool;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A mutable slice of which tasks borrow disjoint parts.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}
// SAFETY: parts are disjoint by the promise of `part`'s callers.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Shared { start: data.as_mut_ptr(), len: data.len(), life: PhantomData }
    }

    /// The part of `len` values from `first`.
    ///
    /// # Safety
    /// No two parts that are alive at once overlap.
    ///
    /// # Panics
    /// When the part reaches beyond the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first + len <= self.len, "a part reaches beyond its slice");
        // SAFETY: in bounds by the assertion; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

/// Runs `tasks` tasks on at most as many workers as `scratch` has parts of `each` values; a worker
/// takes one task after the other and keeps its part.
///
/// # Panics
/// When `scratch` does not hold one part.
pub(super) fn with_scratch(
    pool: &Pool,
    tasks: usize,
    scratch: &mut [f32],
    each: usize,
    f: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    let workers = scratch.len().checked_div(each).unwrap_or(pool.threads()).min(pool.threads()).min(tasks);
    assert!(workers > 0 || tasks == 0, "scratch memory holds one part at least");
    let (next, scratch) = (AtomicUsize::new(0), Shared::new(scratch));
    pool.run(workers, &|w| {
        // SAFETY: workers have parts of their own.
        let part = unsafe { scratch.part(w * each, each) };
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            f(task, part);
        }
    });
}
