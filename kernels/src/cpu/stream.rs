//! Stores around the caches, for results too large to be found in them again.
//!
//! An ordinary store reads the line that it overwrites; a streaming store does not, which saves a
//! third of the traffic of a copy. A result that the next kernel finds in a cache must be stored
//! as usual, so kernels ask [`pays`] with all that they write.

/// Results from this many bytes on are not expected to stay in the last cache.
const LARGE: usize = 32 << 20;

/// Whether a kernel that writes so many bytes should stream them.
#[inline]
pub fn pays(bytes: usize) -> bool {
    cfg!(target_arch = "x86_64") && bytes >= LARGE
}

/// Copies `src` to `dst`, around the caches where `dst` allows it.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub fn copy(src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "a copy's lengths");
    // SAFETY: the slices have this length and do not overlap.
    unsafe { copy_raw(src.as_ptr(), dst.as_mut_ptr(), src.len()) }
}

/// [`copy`] between addresses. The writer calls [`fence`] after its last one.
///
/// # Safety
/// `len` values can be read and written there, and the two do not overlap.
#[inline(always)]
pub(super) unsafe fn copy_raw(src: *const f32, dst: *mut f32, len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
        // Whole lines from the first that begins in `dst`.
        let head = (dst.align_offset(64)).min(len);
        let lines = (len - head) / 16;
        // SAFETY: all within `len` values; streamed addresses are aligned to 64 bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(src, dst, head);
            for i in 0..lines {
                let (s, d) = (src.add(head + 16 * i), dst.add(head + 16 * i));
                for k in 0..4 {
                    _mm_stream_ps(d.add(4 * k), _mm_loadu_ps(s.add(4 * k)));
                }
            }
            let done = head + 16 * lines;
            std::ptr::copy_nonoverlapping(src.add(done), dst.add(done), len - done);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: by the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(src, dst, len);
    }
}

/// Makes streamed values visible before anything that is stored later.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Values that [`write_each!`](crate::write_each) computes before it streams them.
pub(super) const CHUNK: usize = 512;

/// `to[i]` becomes an expression over the `i`th values of slices of the same length, streamed by
/// way of `buffer` (of [`CHUNK`] values) if `streams` says so. A loop that vectorises, written
/// where it is compiled for its level.
#[macro_export]
#[doc(hidden)]
macro_rules! write_each {
    ($streams:expr, $buffer:expr, $to:expr, [$($x:ident),*], $e:expr) => {{
        let to: &mut [f32] = $to;
        $(let $x: &[f32] = &$x[..to.len()];)*
        if $streams {
            let buffer: &mut [f32; $crate::cpu::stream::CHUNK] = $buffer;
            let mut from = 0;
            while from < to.len() {
                let to = &mut to[from..];
                let buffer = &mut buffer[..to.len().min($crate::cpu::stream::CHUNK)];
                $(let $x = &$x[from..from + buffer.len()];)*
                for i in 0..buffer.len() {
                    $(let $x = $x[i];)*
                    buffer[i] = $e;
                }
                $crate::cpu::stream::copy(buffer, &mut to[..buffer.len()]);
                from += buffer.len();
            }
        } else {
            for i in 0..to.len() {
                $(let $x = $x[i];)*
                to[i] = $e;
            }
        }
    }};
}
pub(super) use write_each;

/// The sum of an expression over the `i`th values of slices, in lanes within blocks of 512 whose
/// sums are added in `f64`: rounding errors do not grow with the length. Zeros behind change nothing, so that a
/// sum over what a mask leaves does not depend on how much is masked.
#[macro_export]
#[doc(hidden)]
macro_rules! sum_each {
    ([$first:ident $(, $x:ident)*], $e:expr) => {{
        const LANES: usize = 32;
        let n = $first.len();
        $(let $x: &[f32] = &$x[..n];)*
        let mut total = 0f64;
        let mut from = 0;
        while from < n {
            let until = (from + 512).min(n);
            let whole = from + (until - from) / LANES * LANES;
            let mut lanes = [0f32; LANES];
            while from < whole {
                let $first: &[f32; LANES] = $first[from..from + LANES].try_into().expect("so many lanes");
                $(let $x: &[f32; LANES] = $x[from..from + LANES].try_into().expect("so many lanes");)*
                for i in 0..LANES {
                    let $first = $first[i];
                    $(let $x = $x[i];)*
                    lanes[i] += $e;
                }
                from += LANES;
            }
            // The rest goes to the lanes that it would go to if zeros followed.
            for i in 0..until - from {
                let $first = $first[from + i];
                $(let $x = $x[from + i];)*
                lanes[i] += $e;
            }
            from = until;
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    lanes[i] += lanes[i + width];
                }
                width /= 2;
            }
            total += f64::from(lanes[0]);
        }
        total as f32
    }};
}
pub(super) use sum_each;

#[cfg(test)]
mod tests {
    #[test]
    fn copies_at_every_alignment() {
        let src: Vec<f32> = (0..200).map(|i| i as f32).collect();
        for from in 0..20 {
            for len in [0, 1, 15, 16, 17, 64, 150] {
                let mut dst = vec![-1.0; 200];
                super::copy(&src[3..3 + len], &mut dst[from..from + len]);
                super::fence();
                for (i, v) in dst.iter().enumerate() {
                    let inside = (from..from + len).contains(&i);
                    assert_eq!(*v, if inside { (i - from + 3) as f32 } else { -1.0 });
                }
            }
        }
    }
}
