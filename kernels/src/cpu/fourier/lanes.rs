//! The complex transform of many signals at once: every lane of a vector is a signal of its own, so
//! that all operations are of whole vectors and nothing is shuffled.
//!
//! Real and imaginary part of a value are two vectors next to each other. Passes work in place: of
//! values a factor's part of the length apart, each makes that many smaller transforms next to each
//! other (decimation in frequency, Gentleman and Sande 1966), so that all but the first stay in a part
//! of the memory that fits the nearest cache. Results lie in the order of reversed digits,
//! [`Fourier::place`]. The first pass multiplies by the window.

use super::{Fourier, Pass};
use crate::cpu::vector::{Vector, at_level};

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

/// `z` times a root.
///
/// # Safety
/// The vector's instructions exist.
#[inline(always)]
pub(super) unsafe fn rooted<V: Vector>(z: Value<V>, [re, im]: [f32; 2]) -> Value<V> {
    // SAFETY: by the caller's promise.
    let (re, im) = unsafe { (V::splat(re), V::splat(im)) };
    [z[1].nfma(im, z[0].mul(re)), z[0].fma(im, z[1].mul(re))]
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

/// Where a pass reads its values. (Closures would be compiled without the vector's instructions.)
trait Source<V: Vector>: Copy {
    /// # Safety
    /// There are so many values.
    unsafe fn load(&self, at: usize) -> Value<V>;
}

/// The samples of the first pass, windowed: two make a value, or one where `SINGLE`.
#[derive(Clone, Copy)]
struct Windowed<const SINGLE: bool> {
    x: *const f32,
    at: *const u32,
    w: *const f32,
}

impl<const SINGLE: bool> Windowed<SINGLE> {
    /// # Safety
    /// The vector's instructions exist, and so many samples.
    #[inline(always)]
    unsafe fn sample<V: Vector>(&self, i: usize) -> V {
        // SAFETY: by the caller's promise.
        unsafe { V::load(self.x.add(*self.at.add(i) as usize)).mul(V::splat(*self.w.add(i))) }
    }
}

impl<V: Vector, const SINGLE: bool> Source<V> for Windowed<SINGLE> {
    #[inline(always)]
    unsafe fn load(&self, at: usize) -> Value<V> {
        // SAFETY: by the caller's promise.
        unsafe {
            if SINGLE { [self.sample(at), V::splat(0.0)] } else { [self.sample(2 * at), self.sample(2 * at + 1)] }
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

/// One pass over a transform at `out`, with a butterfly.
///
/// # Safety
/// The vector's instructions exist; all values may be loaded and lie at `out` or elsewhere.
#[inline(always)]
unsafe fn step<V: Vector, S: Source<V>, const P: usize>(from: S, turns: *const [f32; 2], rest: usize, out: *mut f32) {
    // SAFETY: by the caller's promise.
    unsafe {
        for k in 0..rest {
            let mut z = [[V::splat(0.0); 2]; P];
            for j in 0..P {
                z[j] = from.load(k + j * rest);
            }
            let y = butterfly::<V, P>(z);
            put(out, k, y[0]);
            for r in 1..P {
                let y = if rest > 1 { rooted(y[r], *turns.add(k * (P - 1) + r - 1)) } else { y[r] };
                put(out, k + r * rest, y);
            }
        }
    }
}

/// One pass over a transform at `out`.
///
/// # Safety
/// As for [`step`]; `spare` holds as many values as a factor without a butterfly.
#[inline(always)]
unsafe fn pass<V: Vector, S: Source<V>>(plan: &Fourier, pass: &Pass, from: S, out: *mut f32, spare: *mut f32) {
    let Pass { factor: p, rest, turns } = *pass;
    let turns = plan.turns.as_ptr().wrapping_add(turns);
    // SAFETY: by the caller's promise; a pass has its roots.
    unsafe {
        match p {
            2 => step::<V, S, 2>(from, turns, rest, out),
            3 => step::<V, S, 3>(from, turns, rest, out),
            4 => step::<V, S, 4>(from, turns, rest, out),
            5 => step::<V, S, 5>(from, turns, rest, out),
            8 => step::<V, S, 8>(from, turns, rest, out),
            _ => {
                let roots = turns.add(rest * (p - 1));
                for k in 0..rest {
                    for j in 0..p {
                        put(spare, j, from.load(k + j * rest));
                    }
                    for r in 0..p {
                        let mut sum: Value<V> = get(spare, 0);
                        for j in 1..p {
                            sum = add(sum, rooted(get(spare, j), *roots.add(j * r % p)));
                        }
                        let turn = if r > 0 { *turns.add(k * (p - 1) + r - 1) } else { [1.0, 0.0] };
                        put(out, k + r * rest, rooted(sum, turn));
                    }
                }
            }
        }
    }
}

/// All passes.
///
/// # Safety
/// As for [`pass`], of the whole transform.
#[inline(always)]
unsafe fn passes<V: Vector, S: Source<V>>(plan: &Fourier, from: S, out: *mut f32, spare: *mut f32) {
    let Some((first, others)) = plan.passes.split_first() else {
        // SAFETY: a length of 1.
        return unsafe { put::<V>(out, 0, from.load(0)) };
    };
    // SAFETY: by the caller's promise; each part of a pass is a transform.
    unsafe {
        pass::<V, S>(plan, first, from, out, spare);
        for part in (0..plan.values()).step_by(first.rest) {
            for other in others {
                for at in (part..part + first.rest).step_by(other.factor * other.rest) {
                    let out = out.add(2 * at * V::LANES);
                    pass::<V, Earlier>(plan, other, Earlier(out), out, spare);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn windowed_body<V: Vector>(
    plan: &Fourier,
    x: *const f32,
    at: *const u32,
    w: *const f32,
    out: *mut f32,
    spare: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        if plan.n.is_multiple_of(2) {
            passes::<V, _>(plan, Windowed::<false> { x, at, w }, out, spare);
        } else {
            passes::<V, _>(plan, Windowed::<true> { x, at, w }, out, spare);
        }
    }
}
at_level! {
    /// The complex transforms of windowed real signals. The lanes of sample `i` begin at `x[at[i]]`.
    ///
    /// # Safety
    /// The level is the processor's; `at` and `w` hold a number for each sample, and `x` lanes at all
    /// of the former; `out` and `spare` have room for all values and the largest factor.
    pub(super) unsafe fn windowed(
        plan: &Fourier, x: *const f32, at: *const u32, w: *const f32, out: *mut f32, spare: *mut f32,
    ) = windowed_body;
}

#[inline(always)]
unsafe fn complex_body<V: Vector>(plan: &Fourier, z: *mut f32, spare: *mut f32) {
    // SAFETY: by the caller's promise.
    unsafe { passes::<V, _>(plan, Earlier(z), z, spare) };
}
at_level! {
    /// The transforms of the complex signals at `z`, in place.
    ///
    /// # Safety
    /// As for [`windowed`].
    pub(super) unsafe fn complex(plan: &Fourier, z: *mut f32, spare: *mut f32) = complex_body;
}
