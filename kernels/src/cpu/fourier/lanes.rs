//! The complex transform of many signals at once: every lane of a vector is a signal of its own, so
//! that all operations are of whole vectors and nothing is shuffled.
//!
//! Real and imaginary part of a value are two vectors next to each other. Passes work in place: of
//! values a factor's part of the length apart, each makes that many smaller transforms next to each
//! other (decimation in frequency, Gentleman and Sande 1966), so that all but the first stay in a part
//! of the memory that fits the nearest cache. Results lie in the order of reversed digits,
//! [`Fourier::place`]. The first pass multiplies by the window.

use super::{Fourier, Pass};
use crate::cpu::simd::Level;
use crate::cpu::vector::{Shape, Vector, at_level};

/// A complex value of every lane.
pub(super) type Value<V> = [V; 2];

/// Factors that have butterflies in registers; others follow the definition.
pub(super) const FACTORS: [usize; 5] = [2, 3, 4, 5, 8];

#[inline(always)]
pub(super) fn add<V: Vector>(a: Value<V>, b: Value<V>) -> Value<V> {
    [a[0].add(b[0]), a[1].add(b[1])]
}
#[inline(always)]
pub(super) fn sub<V: Vector>(a: Value<V>, b: Value<V>) -> Value<V> {
    [a[0].sub(b[0]), a[1].sub(b[1])]
}
/// `a - i b` and `a + i b`.
#[inline(always)]
fn turned<V: Vector>(a: Value<V>, b: Value<V>) -> [Value<V>; 2] {
    [[a[0].add(b[1]), a[1].sub(b[0])], [a[0].sub(b[1]), a[1].add(b[0])]]
}
/// `a x + c`, of a real `a`.
#[inline(always)]
fn fma<V: Vector>(x: Value<V>, a: V, c: Value<V>) -> Value<V> {
    [x[0].fma(a, c[0]), x[1].fma(a, c[1])]
}
#[inline(always)]
fn scaled<V: Vector>(x: Value<V>, a: V) -> Value<V> {
    [x[0].mul(a), x[1].mul(a)]
}

/// `z` times a root, in all lanes.
#[inline(always)]
pub(super) fn rooted<V: Vector>(z: Value<V>, [re, im]: [V; 2]) -> Value<V> {
    [z[1].nfma(im, z[0].mul(re)), z[0].fma(im, z[1].mul(re))]
}

/// A root in all lanes. (Its parts are read one by one: both at once would pass through other registers.)
///
/// # Safety
/// The vector's instructions exist, and a root at `p`.
#[inline(always)]
pub(super) unsafe fn root<V: Vector>(p: *const [f32; 2]) -> [V; 2] {
    let p = p.cast::<f32>();
    // SAFETY: by the caller's promise.
    unsafe { [V::splat(*p), V::splat(*p.add(1))] }
}

/// # Safety
/// Two vectors lie at value `at` of `p`.
#[inline(always)]
pub(super) unsafe fn get<V: Vector>(p: *const f32, at: usize) -> Value<V> {
    // SAFETY: by the caller's promise.
    unsafe { [V::load(p.add(2 * at * V::LANES)), V::load(p.add((2 * at + 1) * V::LANES))] }
}
/// # Safety
/// As for [`get`].
#[inline(always)]
pub(super) unsafe fn put<V: Vector>(p: *mut f32, at: usize, z: Value<V>) {
    // SAFETY: by the caller's promise.
    unsafe {
        z[0].store(p.add(2 * at * V::LANES));
        z[1].store(p.add((2 * at + 1) * V::LANES));
    }
}

#[inline(always)]
fn four<V: Vector>(a: Value<V>, b: Value<V>, c: Value<V>, d: Value<V>) -> [Value<V>; 4] {
    let (sum, odd) = (add(a, c), add(b, d));
    let [second, fourth] = turned(sub(a, c), sub(b, d));
    [add(sum, odd), second, sub(sum, odd), fourth]
}

/// The transform of `P` values.
///
/// # Safety
/// The vector's instructions exist.
#[inline(always)]
unsafe fn butterfly<V: Vector, const P: usize>(z: [Value<V>; P]) -> [Value<V>; P] {
    let mut y = z;
    // SAFETY: by the caller's promise.
    unsafe {
        match P {
            1 => {}
            2 => (y[0], y[1]) = (add(z[0], z[1]), sub(z[0], z[1])),
            3 => {
                let (sum, away) = (add(z[1], z[2]), sub(z[1], z[2]));
                y[0] = add(z[0], sum);
                // cos and sin of a third of a turn; below of one and two fifths, and of an eighth.
                [y[1], y[2]] = turned(fma(sum, V::splat(-0.5), z[0]), scaled(away, V::splat(0.866_025_4)));
            }
            4 => [y[0], y[1], y[2], y[3]] = four(z[0], z[1], z[2], z[3]),
            5 => {
                let (c1, c2) = (V::splat(0.309_017), V::splat(-0.809_017));
                let (s1, s2) = (V::splat(0.951_056_5), V::splat(0.587_785_25));
                let (near, far) = (add(z[1], z[4]), add(z[2], z[3]));
                let (apart, across) = (sub(z[1], z[4]), sub(z[2], z[3]));
                y[0] = add(z[0], add(near, far));
                let first = fma(far, c2, fma(near, c1, z[0]));
                let second = fma(far, c1, fma(near, c2, z[0]));
                let one = fma(across, s2, scaled(apart, s1));
                let two = sub(scaled(apart, s2), scaled(across, s1));
                [y[1], y[4]] = turned(first, one);
                [y[2], y[3]] = turned(second, two);
            }
            _ => {
                let e = four(z[0], z[2], z[4], z[6]);
                let o = four(z[1], z[3], z[5], z[7]);
                let (s, minus) =
                    (V::splat(std::f32::consts::FRAC_1_SQRT_2), V::splat(-std::f32::consts::FRAC_1_SQRT_2));
                // An eighth of a turn and three; the products with its cosine are fused with what follows.
                let (o1, o3) =
                    ([o[1][0].add(o[1][1]), o[1][1].sub(o[1][0])], [o[3][1].sub(o[3][0]), o[3][0].add(o[3][1])]);
                (y[0], y[4]) = (add(e[0], o[0]), sub(e[0], o[0]));
                (y[1], y[5]) = (fma(o1, s, e[1]), fma(o1, minus, e[1]));
                [y[2], y[6]] = turned(e[2], o[2]);
                y[3] = [o3[0].fma(s, e[3][0]), o3[1].fma(minus, e[3][1])];
                y[7] = [o3[0].fma(minus, e[3][0]), o3[1].fma(s, e[3][1])];
            }
        }
    }
    y
}

/// Transforms next to each other at `z`, in place: of every `rest`-th of `P · rest` values each. What
/// comes of one is multiplied by its roots.
///
/// # Safety
/// The vector's instructions exist, and so many values and roots.
#[inline(always)]
unsafe fn later_body<V: Vector, const P: usize>(z: *mut f32, count: usize, rest: usize, turns: *const [f32; 2]) {
    // SAFETY: by the caller's promise.
    unsafe {
        for first in (0..count * P * rest).step_by(P * rest) {
            for k in first..first + rest {
                let mut x = [[V::splat(0.0); 2]; P];
                for j in 0..P {
                    x[j] = get(z, k + j * rest);
                }
                let y = butterfly::<V, P>(x);
                put(z, k, y[0]);
                for r in 1..P {
                    let turn = turns.add((k - first) * (P - 1) + r - 1);
                    put(z, k + r * rest, if rest > 1 { rooted(y[r], root(turn)) } else { y[r] });
                }
            }
        }
    }
}
at_level! {
    /// See [`later_body`].
    unsafe fn later[const P](z: *mut f32, count: usize, rest: usize, turns: *const [f32; 2]) = later_body;
}

/// Real samples that are windowed when they are read.
#[derive(Clone, Copy)]
pub(super) struct Samples {
    /// The signal, its lanes.
    pub(super) x: *const f32,
    /// Where the lanes of a sample begin.
    pub(super) at: *const u32,
    /// The window.
    pub(super) w: *const f32,
}

/// # Safety
/// The vector's instructions exist, and so many samples.
#[inline(always)]
unsafe fn sample<V: Vector>(s: Samples, i: usize) -> V {
    // SAFETY: by the caller's promise.
    unsafe { V::load(s.x.add(*s.at.add(i) as usize)).mul(V::splat(*s.w.add(i))) }
}

/// The first pass, as [`later_body`], of samples: one is a value, or two are where `EACH` is 2. With
/// `P = 1` it only reads them.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn first_body<V: Vector, const EACH: usize, const P: usize>(
    s: Samples,
    z: *mut f32,
    rest: usize,
    turns: *const [f32; 2],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        for k in 0..rest {
            let mut x = [[V::splat(0.0); 2]; P];
            for j in 0..P {
                let at = EACH * (k + j * rest);
                x[j][0] = sample(s, at);
                if EACH == 2 {
                    x[j][1] = sample(s, at + 1);
                }
            }
            let y = butterfly::<V, P>(x);
            put(z, k, y[0]);
            for r in 1..P {
                put(z, k + r * rest, rooted(y[r], root(turns.add(k * (P - 1) + r - 1))));
            }
        }
    }
}
at_level! {
    /// See [`first_body`].
    unsafe fn first[const EACH, P](s: Samples, z: *mut f32, rest: usize, turns: *const [f32; 2]) = first_body;
}

/// As [`later_body`] of one transform of a factor without a butterfly, whose values `spare` has room
/// for; its own roots follow the others.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn any_body<V: Vector>(p: usize, z: *mut f32, rest: usize, turns: *const [f32; 2], spare: *mut f32) {
    // SAFETY: by the caller's promise.
    unsafe {
        let roots = turns.add(rest * (p - 1));
        for k in 0..rest {
            for j in 0..p {
                put::<V>(spare, j, get(z, k + j * rest));
            }
            for r in 0..p {
                let mut sum: Value<V> = get(spare, 0);
                let mut at = 0;
                for j in 1..p {
                    at = if at + r >= p { at + r - p } else { at + r };
                    sum = add(sum, rooted(get(spare, j), root(roots.add(at))));
                }
                let turn = turns.add((k * (p - 1) + r).saturating_sub(1));
                put(z, k + r * rest, if r > 0 { rooted(sum, root(turn)) } else { sum });
            }
        }
    }
}
at_level! {
    /// See [`any_body`].
    unsafe fn any(p: usize, z: *mut f32, rest: usize, turns: *const [f32; 2], spare: *mut f32) = any_body;
}

impl Fourier {
    /// The complex transforms of windowed real signals.
    ///
    /// # Safety
    /// The level is the processor's; there are as many samples as the transform is long; `z` and `spare`
    /// have room for the lanes of all values and of [`spare`](Self::spare) ones.
    pub(super) unsafe fn windowed(&self, level: Level, s: Samples, z: *mut f32, spare: *mut f32) {
        let pass = self.passes.first().filter(|p| FACTORS.contains(&p.factor));
        let others = &self.passes[pass.iter().len()..];
        let Pass { factor, rest, turns } = pass.copied().unwrap_or(Pass { factor: 1, rest: self.values(), turns: 0 });
        let turns = self.turns.as_ptr().wrapping_add(turns);
        // SAFETY: by the caller's promise, and a pass has its roots; so below.
        unsafe {
            match (self.n % 2, factor) {
                (0, 2) => first::<2, 2>(level, s, z, rest, turns),
                (0, 3) => first::<2, 3>(level, s, z, rest, turns),
                (0, 4) => first::<2, 4>(level, s, z, rest, turns),
                (0, 5) => first::<2, 5>(level, s, z, rest, turns),
                (0, 8) => first::<2, 8>(level, s, z, rest, turns),
                (0, _) => first::<2, 1>(level, s, z, rest, turns),
                (_, 3) => first::<1, 3>(level, s, z, rest, turns),
                (_, 5) => first::<1, 5>(level, s, z, rest, turns),
                _ => first::<1, 1>(level, s, z, rest, turns),
            }
            self.later(level, others, rest, z, spare);
        }
    }

    /// The transforms of the complex signals at `z`, in place.
    ///
    /// # Safety
    /// As for [`windowed`](Self::windowed).
    pub(super) unsafe fn complex(&self, level: Level, z: *mut f32, spare: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { self.later(level, &self.passes, self.values(), z, spare) };
    }

    /// Passes over transforms of `part` values each, one after the other.
    ///
    /// # Safety
    /// As for [`windowed`](Self::windowed).
    unsafe fn later(&self, level: Level, passes: &[Pass], part: usize, z: *mut f32, spare: *mut f32) {
        let size = 2 * Shape::of(level).lanes;
        for start in (0..self.values()).step_by(part) {
            for Pass { factor, rest, turns } in passes.iter().copied() {
                let (z, count) = (z.wrapping_add(start * size), part / (factor * rest));
                let turns = self.turns.as_ptr().wrapping_add(turns);
                // SAFETY: by the caller's promise.
                unsafe {
                    match factor {
                        2 => later::<2>(level, z, count, rest, turns),
                        3 => later::<3>(level, z, count, rest, turns),
                        4 => later::<4>(level, z, count, rest, turns),
                        5 => later::<5>(level, z, count, rest, turns),
                        8 => later::<8>(level, z, count, rest, turns),
                        p => (0..count).for_each(|i| any(level, p, z.add(i * p * rest * size), rest, turns, spare)),
                    }
                }
            }
        }
    }
}
