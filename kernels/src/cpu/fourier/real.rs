//! Real signals as complex ones of half their length: sample `2 j` is the real part of value `j`,
//! sample `2 j + 1` its imaginary part. [`split`] makes the spectrum of theirs, [`join`] goes back.
//! A signal of an odd length is complex without an imaginary part.
//!
//! With `Z` the transform of the complex signal, `m = n / 2`, `E = (Z[k] + conj Z[m - k]) / 2` and
//! `O = (Z[k] - conj Z[m - k]) / 2 i`, of even and odd samples: `X[k] = E + exp(-2 pi i k / n) O` and
//! `X[m - k] = conj (E - exp(-2 pi i k / n) O)`.

use super::Fourier;
use super::lanes::{Value, add, get, put, root, rooted, sub};
use crate::cpu::vector::{Vector, at_level};

/// Where a spectrum lies: real parts `row` apart, imaginary parts `plane` behind them.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) row: usize,
    pub(super) plane: usize,
}

#[inline(always)]
fn conjugate<V: Vector>(z: Value<V>, zero: V) -> Value<V> {
    [z[0], zero.sub(z[1])]
}

/// Writes bin `k`, or the square of its magnitude.
///
/// # Safety
/// There is room.
#[inline(always)]
unsafe fn bin<V: Vector>(x: Value<V>, k: usize, power: bool, y: *mut f32, at: Layout) {
    // SAFETY: by the caller's promise.
    unsafe {
        if power {
            x[1].fma(x[1], x[0].mul(x[0])).store(y.add(k * at.row));
        } else {
            x[0].store(y.add(k * at.row));
            x[1].store(y.add(k * at.row + at.plane));
        }
    }
}

#[inline(always)]
unsafe fn split_body<V: Vector>(plan: &Fourier, z: *const f32, power: bool, y: *mut f32, at: Layout) {
    let (m, place) = (plan.values(), &plan.place[..]);
    // SAFETY: by the caller's promise; places lie within the transform.
    unsafe {
        let zero = V::splat(0.0);
        if plan.n % 2 == 1 {
            for k in 0..plan.bins() {
                bin(get::<V>(z, place[k] as usize), k, power, y, at);
            }
            return;
        }
        let [re, im]: Value<V> = get(z, 0);
        let (first, last) = (re.add(im), re.sub(im));
        bin([first.add(first), zero], 0, power, y, at);
        bin([last.add(last), zero], m, power, y, at);
        for k in 1..=m / 2 {
            let (a, b): (Value<V>, Value<V>) = (get(z, place[k] as usize), get(z, place[m - k] as usize));
            let even = [a[0].add(b[0]), a[1].sub(b[1])];
            let odd = rooted([a[1].add(b[1]), b[0].sub(a[0])], root(&plan.roots[k]));
            bin(add(even, odd), k, power, y, at);
            bin([even[0].sub(odd[0]), odd[1].sub(even[1])], m - k, power, y, at);
        }
    }
}
at_level! {
    /// The spectra, or squared magnitudes, of real signals whose complex transforms `z` holds. The
    /// signals were halved where their length is even.
    ///
    /// # Safety
    /// The level is the processor's; `z` holds a transform; `y` has room for all bins.
    pub(super) unsafe fn split(plan: &Fourier, z: *const f32, power: bool, y: *mut f32, at: Layout) = split_body;
}

/// Half of bin `k`: the spectrum of the real part is half of it, and half, conjugated, of its mirror
/// image.
///
/// # Safety
/// There is such a bin.
#[inline(always)]
unsafe fn half<V: Vector>(y: *const f32, k: usize, at: Layout) -> Value<V> {
    // SAFETY: by the caller's promise.
    unsafe {
        let half = V::splat(0.5);
        [V::load(y.add(k * at.row)).mul(half), V::load(y.add(k * at.row + at.plane)).mul(half)]
    }
}

/// Writes a value with its parts swapped.
///
/// # Safety
/// There is room.
#[inline(always)]
unsafe fn swap<V: Vector>(z: *mut f32, k: usize, [re, im]: Value<V>) {
    // SAFETY: by the caller's promise.
    unsafe { put(z, k, [im, re]) };
}

/// `x[i] = Re sum over k of y[k] exp(2 pi i k i / n)` as a transform of conjugates, for a transform
/// back is the conjugate of the transform of the conjugate. Swapped parts stand for conjugates: `i`
/// times these.
#[inline(always)]
unsafe fn join_body<V: Vector>(plan: &Fourier, y: *const f32, at: Layout, z: *mut f32) {
    let m = plan.values();
    // SAFETY: by the caller's promise.
    unsafe {
        let zero = V::splat(0.0);
        let first = V::load(y);
        if plan.n % 2 == 1 {
            swap(z, 0, [first, zero]);
            for k in 1..plan.bins() {
                let value: Value<V> = half(y, k, at);
                swap(z, k, value);
                swap(z, plan.n - k, conjugate(value, zero));
            }
            return;
        }
        let last = V::load(y.add(m * at.row));
        swap(z, 0, [first.add(last), first.sub(last)]);
        for k in 1..m {
            let (a, b): (Value<V>, Value<V>) = (half(y, k, at), conjugate(half(y, m - k, at), zero));
            // Times i and the conjugate of the root.
            let [re, im] = root(&plan.roots[k]);
            swap(z, k, add(add(a, b), rooted(sub(a, b), [im, re])));
        }
    }
}
at_level! {
    /// The complex signals whose transforms give, as [`signal`] finds it, the real parts of the inverse
    /// transforms of the spectra `y`, not divided by the length.
    ///
    /// # Safety
    /// As for [`split`].
    pub(super) unsafe fn join(plan: &Fourier, y: *const f32, at: Layout, z: *mut f32) = join_body;
}

/// Where the lanes of sample `i` lie after [`join`] and a complex transform.
pub(super) fn signal(plan: &Fourier, i: usize, lanes: usize) -> usize {
    let (value, part) = if plan.n % 2 == 1 { (i, 1) } else { (i / 2, 1 - i % 2) };
    (2 * plan.place[value] as usize + part) * lanes
}
