//! The transform of many signals at once: every lane of a vector is a signal of its own, so that
//! all operations are of whole vectors and nothing is shuffled.
//!
//! Real and imaginary part of a value are two vectors next to each other. Factors 8, 4 and 2 have
//! butterflies in registers; other prime factors follow the definition. The first pass reads the
//! signals in the order of reversed digits and multiplies by the window; the others work in place,
//! and all but the last stay in a part of the memory that fits the nearest cache.

use super::Fourier;
use crate::cpu::vector::{Vector, at_level};

/// A complex value of every lane.
type Value<V> = [V; 2];

/// Factors that have butterflies, and primes; their product is `n`.
pub(super) fn factors(n: usize) -> Vec<usize> {
    let (mut factors, mut rest, mut p) = (vec![], n.max(1), 3);
    while rest.is_multiple_of(2) {
        // Twice 4 rather than 8 and 2.
        let factor = if rest.is_multiple_of(8) && rest != 16 { 8 } else { 4.min(1 << rest.trailing_zeros()) };
        factors.push(factor);
        rest /= factor;
    }
    while rest > 1 {
        if p * p > rest {
            p = rest;
        }
        while rest.is_multiple_of(p) {
            factors.push(p);
            rest /= p;
        }
        p += 2;
    }
    factors
}

/// For each place of the first pass the sample that belongs there.
pub(super) fn order(factors: &[usize]) -> Vec<u32> {
    let n: usize = factors.iter().product();
    let place = |mut at: usize| {
        let (mut sample, mut step, mut size) = (0, 1, n);
        for p in factors {
            size /= p;
            sample += at / size * step;
            at %= size;
            step *= p;
        }
        sample as u32
    };
    (0..n).map(place).collect()
}

#[inline(always)]
fn add<V: Vector>(a: Value<V>, b: Value<V>) -> Value<V> {
    [a[0].add(b[0]), a[1].add(b[1])]
}
#[inline(always)]
fn sub<V: Vector>(a: Value<V>, b: Value<V>) -> Value<V> {
    [a[0].sub(b[0]), a[1].sub(b[1])]
}
/// `a - i b` and `a + i b`.
#[inline(always)]
fn turned<V: Vector>(a: Value<V>, b: Value<V>) -> [Value<V>; 2] {
    [[a[0].add(b[1]), a[1].sub(b[0])], [a[0].sub(b[1]), a[1].add(b[0])]]
}

#[inline(always)]
fn four<V: Vector>(a: Value<V>, b: Value<V>, c: Value<V>, d: Value<V>) -> [Value<V>; 4] {
    let (sum, odd) = (add(a, c), add(b, d));
    let [second, fourth] = turned(sub(a, c), sub(b, d));
    [add(sum, odd), second, sub(sum, odd), fourth]
}

/// # Safety
/// The vector's instructions exist.
#[inline(always)]
unsafe fn eight<V: Vector>(z: [Value<V>; 8]) -> [Value<V>; 8] {
    let e = four(z[0], z[2], z[4], z[6]);
    let o = four(z[1], z[3], z[5], z[7]);
    // SAFETY: by the caller's promise.
    let (s, minus) = unsafe { (V::splat(std::f32::consts::FRAC_1_SQRT_2), V::splat(-std::f32::consts::FRAC_1_SQRT_2)) };
    let o1 = [o[1][0].add(o[1][1]).mul(s), o[1][1].sub(o[1][0]).mul(s)];
    let o3 = [o[3][1].sub(o[3][0]).mul(s), o[3][0].add(o[3][1]).mul(minus)];
    let [third, seventh] = turned(e[2], o[2]);
    [add(e[0], o[0]), add(e[1], o1), third, add(e[3], o3), sub(e[0], o[0]), sub(e[1], o1), seventh, sub(e[3], o3)]
}

/// # Safety
/// Two vectors lie at value `at` of `p`.
#[inline(always)]
unsafe fn get<V: Vector>(p: *const f32, at: usize) -> Value<V> {
    // SAFETY: by the caller's promise.
    unsafe { [V::load(p.add(2 * at * V::LANES)), V::load(p.add((2 * at + 1) * V::LANES))] }
}
/// # Safety
/// As for [`get`].
#[inline(always)]
unsafe fn put<V: Vector>(p: *mut f32, at: usize, z: Value<V>) {
    // SAFETY: by the caller's promise.
    unsafe {
        z[0].store(p.add(2 * at * V::LANES));
        z[1].store(p.add((2 * at + 1) * V::LANES));
    }
}

/// Where a pass reads its values. (Closures would be compiled without the vector's instructions.)
trait Source<V: Vector> {
    /// # Safety
    /// The pass has so many values.
    unsafe fn load(&self, at: usize) -> Value<V>;
}

/// The samples of the first pass, windowed.
#[derive(Clone, Copy)]
struct Windowed {
    x: *const f32,
    w: *const f32,
    order: *const u32,
}

impl<V: Vector> Source<V> for Windowed {
    #[inline(always)]
    unsafe fn load(&self, at: usize) -> Value<V> {
        // SAFETY: by the caller's promise.
        unsafe {
            let sample = *self.order.add(at) as usize;
            let (z, w): (Value<V>, V) = (get(self.x, sample), V::splat(*self.w.add(sample)));
            [z[0].mul(w), z[1].mul(w)]
        }
    }
}

/// Values of an earlier pass.
#[derive(Clone, Copy)]
struct Earlier(*const f32);

impl<V: Vector> Source<V> for Earlier {
    #[inline(always)]
    unsafe fn load(&self, at: usize) -> Value<V> {
        // SAFETY: by the caller's promise.
        unsafe { get(self.0, at) }
    }
}

/// `z` times the root at `at`.
///
/// # Safety
/// The vector's instructions exist, and the root.
#[inline(always)]
unsafe fn rooted<V: Vector>(z: Value<V>, roots: *const [f32; 2], at: usize) -> Value<V> {
    // SAFETY: by the caller's promise.
    unsafe {
        let [re, im] = *roots.add(at);
        let (re, im, minus) = (V::splat(re), V::splat(im), V::splat(-im));
        [z[0].fma(re, z[1].mul(minus)), z[0].fma(im, z[1].mul(re))]
    }
}

/// Value `k` of each of `P` transforms of length `m`, turned by its root.
///
/// # Safety
/// As for [`rooted`] and [`Source::load`].
#[inline(always)]
unsafe fn values<V: Vector, S: Source<V>, const P: usize>(
    from: &S,
    roots: *const [f32; 2],
    (k, m, step): (usize, usize, usize),
) -> [Value<V>; P] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut z = [[V::splat(0.0); 2]; P];
        for q in 0..P {
            z[q] = from.load(k + q * m);
        }
        if k > 0 {
            for q in 1..P {
                z[q] = rooted(z[q], roots, q * k * step);
            }
        }
        z
    }
}

/// A combination of `p` transforms of length `m` from `from`, at `out`.
///
/// # Safety
/// The vector's instructions exist; all values of `from` may be loaded, and lie at `out` or elsewhere;
/// `room` holds `p` values.
#[inline(always)]
unsafe fn combine<V: Vector, S: Source<V>>(
    plan: &Fourier,
    (p, m, step): (usize, usize, usize),
    from: S,
    out: *mut f32,
    room: *mut f32,
) {
    let (n, roots) = (plan.length(), plan.roots.as_ptr());
    // SAFETY: by the caller's promise; roots lie below `n`.
    unsafe {
        for k in 0..m {
            match p {
                2 => {
                    let [a, b] = values::<V, S, 2>(&from, roots, (k, m, step));
                    put(out, k, add(a, b));
                    put(out, k + m, sub(a, b));
                }
                4 => {
                    let [a, b, c, d] = values::<V, S, 4>(&from, roots, (k, m, step));
                    let z = four(a, b, c, d);
                    for q in 0..4 {
                        put(out, k + q * m, z[q]);
                    }
                }
                8 => {
                    let z = eight(values::<V, S, 8>(&from, roots, (k, m, step)));
                    for q in 0..8 {
                        put(out, k + q * m, z[q]);
                    }
                }
                _ => {
                    for q in 0..p {
                        put(room, q, rooted(from.load(k + q * m), roots, q * k * step));
                    }
                    for r in 0..p {
                        let mut sum: Value<V> = get(room, 0);
                        for q in 1..p {
                            sum = add(sum, rooted(get(room, q), roots, q * r % p * (n / p)));
                        }
                        put(out, k + r * m, sum);
                    }
                }
            }
        }
    }
}

/// The transforms of windowed signals.
///
/// # Safety
/// The vector's instructions exist; `x` and `out` hold `n` values, `room` as many as the largest
/// factor; `w` holds `n` numbers.
#[inline(always)]
unsafe fn body<V: Vector>(plan: &Fourier, x: *const f32, w: *const f32, out: *mut f32, room: *mut f32) {
    let (n, factors) = (plan.length(), &plan.wide[..]);
    let samples = Windowed { x, w, order: plan.order.as_ptr() };
    let Some((last, before)) = factors.split_last() else {
        // SAFETY: a length of 1.
        return unsafe { put::<V>(out, 0, samples.load(0)) };
    };
    let part = n / before.first().copied().unwrap_or(1);
    // SAFETY: places and samples lie below `n`.
    unsafe {
        for start in (0..n).step_by(part) {
            // The last factor's transforms are neighbours: the first pass.
            for at in (start..start + part).step_by(*last) {
                let from = Windowed { order: samples.order.add(at), ..samples };
                combine::<V, Windowed>(plan, (*last, 1, 1), from, out.add(2 * at * V::LANES), room);
            }
            let mut size = *last;
            for p in before.iter().skip(1).rev() {
                for at in (start..start + part).step_by(size * p) {
                    let out = out.add(2 * at * V::LANES);
                    combine::<V, Earlier>(plan, (*p, size, n / (size * p)), Earlier(out), out, room);
                }
                size *= p;
            }
        }
        if let Some(p) = before.first() {
            combine::<V, Earlier>(plan, (*p, part, 1), Earlier(out), out, room);
        }
    }
}
at_level! {
    /// See [`body`].
    pub(super) unsafe fn transform(plan: &Fourier, x: *const f32, w: *const f32, out: *mut f32, room: *mut f32) = body;
}

/// Splits the transforms of two real signals in one complex value, and gives `each(bin, lanes of
/// real parts, lanes of imaginary parts)` of the first and the second; the squares of magnitudes
/// in place of real parts if `power`.
///
/// # Safety
/// The vector's instructions exist; `z` holds `n` values; `out` has room for `n / 2 + 1` bins of four
/// vectors.
#[inline(always)]
unsafe fn split_body<V: Vector>(n: usize, z: *const f32, power: bool, out: *mut f32) {
    // SAFETY: by the caller's promise.
    unsafe {
        let half = V::splat(0.5);
        for k in 0..n / 2 + 1 {
            let (z, m): (Value<V>, Value<V>) = (get(z, k), get(z, (n - k) % n));
            // The spectrum of the real part is the half that mirrors as a conjugate.
            let first = [z[0].add(m[0]).mul(half), z[1].sub(m[1]).mul(half)];
            let second = [z[1].add(m[1]).mul(half), m[0].sub(z[0]).mul(half)];
            if power {
                let squares = [first[0].mul(first[0]), second[0].mul(second[0])];
                put(out, k, [first[1].fma(first[1], squares[0]), second[1].fma(second[1], squares[1])]);
            } else {
                put(out, 2 * k, first);
                put(out, 2 * k + 1, second);
            }
        }
    }
}
at_level! {
    /// See [`split_body`].
    pub(super) unsafe fn split(n: usize, z: *const f32, power: bool, out: *mut f32) = split_body;
}
