//! The scan of a selective state space (Mamba, Mamba-2) over all steps, and its gradient.
//!
//! Heads are independent, so threads share sequences and blocks of heads and walk the steps without
//! waiting for each other. A block is as many heads as have states that stay in the first cache; the
//! heads of a block take each step together, for their inputs lie next to each other.
//!
//! The gradient walks back through states that it computes again: those of every so many steps first
//! (the square root of all), then those between. What joins heads (the gradients of `B` and `C`) or
//! sequences (that of the decays) is summed in parts whose number is fixed, so that results do not
//! depend on the number of threads.
//!
//! Inner loops are `for` loops over sixteen lanes, as in [`super::recurrent`].

use super::math::exp;
use super::parts::Parts;
use super::share::with_scratch;
use crate::pool::Pool;

/// Sizes of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Sequences.
    pub batch: usize,
    /// Steps of each.
    pub time: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub channels: usize,
    /// Groups of heads that share `B` and `C`.
    pub groups: usize,
    /// States of a channel.
    pub size: usize,
    /// Whether a head has one decay, and not one for each of its states.
    pub scalar: bool,
}

/// What a scan reads.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `[batch, time, heads, channels]`
    pub x: &'a [f32],
    /// `[batch, time, heads]`
    pub dt: &'a [f32],
    /// `[heads]` or `[heads, size]`
    pub a: &'a [f32],
    /// `[batch, time, groups, size]`
    pub b: &'a [f32],
    /// `[batch, time, groups, size]`
    pub c: &'a [f32],
    /// The states before, `[batch, heads, channels, size]`.
    pub state: &'a [f32],
    /// Lengths of sequences.
    pub lengths: Option<&'a [i32]>,
}

/// The gradients that [`ssm_grad`] writes, sized as the values that they belong to.
pub struct Gradients<'a> {
    /// Of `x`.
    pub x: &'a mut [f32],
    /// Of `dt`.
    pub dt: &'a mut [f32],
    /// Of `a`.
    pub a: &'a mut [f32],
    /// Of `B`.
    pub b: &'a mut [f32],
    /// Of `C`.
    pub c: &'a mut [f32],
    /// Of the states before.
    pub state: &'a mut [f32],
}

/// Parts of a group's heads whose gradients of `B` and `C` are summed apart.
const PARTS: usize = 8;
/// States of a channel that are worked on at once.
const CHUNK: usize = 256;
const LANES: usize = 16;

/// Heads of one sequence that are worked on together.
#[derive(Clone, Copy)]
struct Block {
    batch: usize,
    first: usize,
    heads: usize,
}

impl Scan {
    fn length(&self, b: usize, lengths: Option<&[i32]>) -> usize {
        lengths.map_or(self.time, |l| (l[b].max(0) as usize).min(self.time))
    }

    /// Values of a head's state.
    fn each(&self) -> usize {
        self.channels * self.size
    }

    /// Decays of a head.
    fn decays(&self) -> usize {
        if self.scalar { 1 } else { self.size }
    }

    /// Heads of a block: their states stay near, and there is some work.
    fn block(&self) -> usize {
        (2048.max(16_384 / self.time.max(1)) / self.each().max(1)).clamp(1, self.heads.max(1))
    }

    /// Heads of a group.
    fn per_group(&self) -> usize {
        self.heads / self.groups.max(1)
    }

    fn parts(&self) -> usize {
        self.per_group().clamp(1, PARTS)
    }

    /// Steps between states that are kept for the gradient.
    fn stride(&self) -> usize {
        (self.time.max(1) as f64).sqrt().ceil() as usize
    }

    /// Scratch of one worker of the gradient: states at every stride, and those of one stride.
    fn worker(&self) -> usize {
        let stride = self.stride();
        (self.time.div_ceil(stride) + stride + 1) * self.block().min(self.per_group().max(1)) * self.each()
    }

    /// Scratch floats of [`ssm_grad`].
    pub fn grad_scratch(&self, threads: usize) -> usize {
        let joined = 2 * self.parts() * self.batch * self.time * self.groups * self.size;
        joined + self.batch * self.heads * self.decays() + threads.max(1) * self.worker()
    }

    /// The values of `B` or `C` at a step for a head.
    fn group<'a>(&self, all: &'a [f32], row: usize, head: usize) -> &'a [f32] {
        &all[(row * self.groups + head / self.per_group()) * self.size..][..self.size]
    }
}

#[inline(always)]
fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The sum of all lanes, halves onto each other.
#[inline(always)]
fn total(x: [f32; LANES]) -> f32 {
    let mut a = [0f32; 8];
    for i in 0..8 {
        a[i] = x[i] + x[i + 8];
    }
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

/// `e[n] = exp(dt a[n])` for some states of a head.
#[inline(always)]
fn decay<const FUSED: bool>(dt: f32, a: &[f32], e: &mut [f32]) {
    if let [a] = a {
        e.fill(exp::<FUSED>(dt * a));
    } else {
        for (e, a) in e.iter_mut().zip(a) {
            *e = exp::<FUSED>(dt * a);
        }
    }
}

/// The decays of states `from..from + len` of a head.
#[inline(always)]
fn decays<'a>(s: &Scan, a: &'a [f32], head: usize, from: usize, len: usize) -> &'a [f32] {
    if s.scalar { &a[head..=head] } else { &a[head * s.size + from..][..len] }
}

/// `s = e s + xb b`, and the sum of `c s`.
#[inline(always)]
fn advance<const FUSED: bool>(s: &mut [f32], e: &[f32], xb: f32, b: &[f32], c: &[f32]) -> f32 {
    let (s16, s_rest) = s.as_chunks_mut::<LANES>();
    let ((e16, e_rest), (b16, b_rest)) = (e.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c16, c_rest) = c.as_chunks::<LANES>();
    let mut sum = [0f32; LANES];
    for (((s, e), b), c) in s16.iter_mut().zip(e16).zip(b16).zip(c16) {
        for i in 0..LANES {
            s[i] = fma::<FUSED>(e[i], s[i], xb * b[i]);
            sum[i] = fma::<FUSED>(c[i], s[i], sum[i]);
        }
    }
    let mut rest = 0.0;
    for (((s, e), b), c) in s_rest.iter_mut().zip(e_rest).zip(b_rest).zip(c_rest) {
        *s = fma::<FUSED>(*e, *s, xb * b);
        rest = fma::<FUSED>(*c, *s, rest);
    }
    total(sum) + rest
}

/// One step of a block's heads. `y` are their outputs `[heads, channels]`, `states` theirs.
#[inline(always)]
fn step<const FUSED: bool>(s: &Scan, x: &Input, at: Block, t: usize, states: &mut [f32], y: &mut [f32]) {
    let row = at.batch * s.time + t;
    let mut e = [0f32; CHUNK];
    y.fill(0.0);
    for h in 0..at.heads {
        let head = at.first + h;
        let dt = x.dt[row * s.heads + head];
        let inputs = &x.x[(row * s.heads + head) * s.channels..][..s.channels];
        let (b, c) = (s.group(x.b, row, head), s.group(x.c, row, head));
        let states = &mut states[h * s.each()..][..s.each()];
        let y = &mut y[h * s.channels..][..s.channels];
        for from in (0..s.size).step_by(CHUNK) {
            let len = CHUNK.min(s.size - from);
            let e = &mut e[..len];
            decay::<FUSED>(dt, decays(s, x.a, head, from, len), e);
            let (b, c) = (&b[from..from + len], &c[from..from + len]);
            for (p, (x, y)) in inputs.iter().zip(&mut *y).enumerate() {
                let state = &mut states[p * s.size + from..][..len];
                *y += advance::<FUSED>(state, e, dt * x, b, c);
            }
        }
    }
}

/// The same without outputs.
#[inline(always)]
fn take_in<const FUSED: bool>(s: &Scan, x: &Input, at: Block, t: usize, states: &mut [f32]) {
    let row = at.batch * s.time + t;
    let mut e = [0f32; CHUNK];
    for h in 0..at.heads {
        let head = at.first + h;
        let dt = x.dt[row * s.heads + head];
        let inputs = &x.x[(row * s.heads + head) * s.channels..][..s.channels];
        let b = s.group(x.b, row, head);
        let states = &mut states[h * s.each()..][..s.each()];
        for from in (0..s.size).step_by(CHUNK) {
            let len = CHUNK.min(s.size - from);
            let (e, b) = (&mut e[..len], &b[from..from + len]);
            decay::<FUSED>(dt, decays(s, x.a, head, from, len), e);
            for (p, x) in inputs.iter().enumerate() {
                let (state, xb) = (&mut states[p * s.size + from..][..len], dt * x);
                for ((s, e), b) in state.iter_mut().zip(&*e).zip(b) {
                    *s = fma::<FUSED>(*e, *s, xb * b);
                }
            }
        }
    }
}

#[inline(always)]
fn forward_body<const FUSED: bool>(s: &Scan, x: &Input, at: Block, y: &Parts<f32>, states: &mut [f32]) {
    let (length, width) = (s.length(at.batch, x.lengths), at.heads * s.channels);
    for t in 0..s.time {
        let place = ((at.batch * s.time + t) * s.heads + at.first) * s.channels;
        // SAFETY: blocks have distinct heads of distinct sequences.
        let y = unsafe { y.get(place, width) };
        if t < length {
            step::<FUSED>(s, x, at, t, states, y);
        } else {
            y.fill(0.0);
        }
    }
}
crate::dispatch! { fn forward(s: &Scan, x: &Input, at: Block, y: &Parts<f32>, states: &mut [f32]) = fused forward_body; }

/// All steps of a scan: `y [batch, time, heads, channels]` and the last states.
pub fn ssm(pool: &Pool, s: &Scan, x: &Input, y: &mut [f32], state: &mut [f32]) {
    state.copy_from_slice(x.state);
    let (y, state) = (Parts::new(y), Parts::new(state));
    let block = s.block();
    let blocks = s.heads.div_ceil(block);
    pool.run(s.batch * blocks, &|task| {
        let first = task % blocks * block;
        let at = Block { batch: task / blocks, first, heads: block.min(s.heads - first) };
        // SAFETY: blocks have distinct heads of distinct sequences.
        let states = unsafe { state.get((at.batch * s.heads + first) * s.each(), at.heads * s.each()) };
        forward(s, x, at, &y, states);
    });
}

/// Places that the tasks of a gradient share.
struct Shared<'a> {
    x: Parts<'a, f32>,
    dt: Parts<'a, f32>,
    state: Parts<'a, f32>,
    /// `[batch, heads, decays]`
    a: Parts<'a, f32>,
}

/// The gradients of one step of one head. `old` and `new` are its states before and after, `ds` the
/// gradient of the latter, then of the former; gives the gradient of `dt`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn back<const FUSED: bool>(
    s: &Scan,
    (dt, a): (f32, &[f32]),
    (x, dy): (&[f32], &[f32]),
    (b, c): (&[f32], &[f32]),
    (old, new): (&[f32], &[f32]),
    ds: &mut [f32],
    dx: &mut [f32],
    da: &mut [f32],
    (db, dc): (&mut [f32], &mut [f32]),
) -> f32 {
    let mut d_dt = 0.0;
    dx.fill(0.0);
    for from in (0..s.size).step_by(CHUNK) {
        let len = CHUNK.min(s.size - from);
        let (mut e, mut de, mut dbx) = ([0f32; CHUNK], [0f32; CHUNK], [0f32; CHUNK]);
        let (e, de, dbx) = (&mut e[..len], &mut de[..len], &mut dbx[..len]);
        let a = if s.scalar { a } else { &a[from..from + len] };
        decay::<FUSED>(dt, a, e);
        let (b, c) = (&b[from..from + len], &c[from..from + len]);
        let (db, dc) = (&mut db[from..from + len], &mut dc[from..from + len]);
        for p in 0..s.channels {
            let part = p * s.size + from..p * s.size + from + len;
            let (old, new, ds) = (&old[part.clone()], &new[part.clone()], &mut ds[part]);
            let (x, dy) = (x[p], dy[p]);
            let mut sum = [0f32; LANES];
            macro_rules! one {
                ($i:expr, $lane:expr) => {{
                    let i = $i;
                    let d = fma::<FUSED>(c[i], dy, ds[i]);
                    dc[i] = fma::<FUSED>(dy, new[i], dc[i]);
                    de[i] = fma::<FUSED>(d, old[i], de[i]);
                    dbx[i] = fma::<FUSED>(d, x, dbx[i]);
                    ds[i] = e[i] * d;
                    sum[$lane] = fma::<FUSED>(d, b[i], sum[$lane]);
                }};
            }
            let full = len / LANES * LANES;
            for first in (0..full).step_by(LANES) {
                for lane in 0..LANES {
                    one!(first + lane, lane);
                }
            }
            for i in full..len {
                one!(i, i - full);
            }
            let sum = total(sum);
            dx[p] = fma::<FUSED>(dt, sum, dx[p]);
            d_dt = fma::<FUSED>(x, sum, d_dt);
        }
        for i in 0..len {
            db[i] = fma::<FUSED>(dt, dbx[i], db[i]);
            let w = de[i] * e[i];
            let k = if s.scalar { 0 } else { i };
            d_dt = fma::<FUSED>(w, a[k], d_dt);
            da[if s.scalar { 0 } else { from + i }] += w * dt;
        }
    }
    d_dt
}

/// The gradients of a block's heads over all steps. `db` and `dc` are those of its sequence,
/// `[time, groups, size]`, to be added to.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn backward_body<const FUSED: bool>(
    s: &Scan,
    x: &Input,
    dy: &[f32],
    at: Block,
    out: &Shared,
    db: &mut [f32],
    dc: &mut [f32],
    scratch: &mut [f32],
) {
    let (length, stride) = (s.length(at.batch, x.lengths), s.stride());
    let (each, all) = (s.each(), at.heads * s.each());
    let (kept, between) = scratch.split_at_mut(s.time.div_ceil(stride) * all);
    let from = (at.batch * s.heads + at.first) * each;
    // SAFETY: blocks have distinct heads of distinct sequences, here and below.
    let ds = unsafe { out.state.get(from, all) };
    // SAFETY: as above.
    let da = unsafe { out.a.get((at.batch * s.heads + at.first) * s.decays(), at.heads * s.decays()) };
    da.fill(0.0);
    // The states at every stride; those of the first are walked through in `between`.
    let walk = &mut between[..all];
    walk.copy_from_slice(&x.state[from..from + all]);
    for t in 0..length {
        if t % stride == 0 {
            kept[t / stride * all..][..all].copy_from_slice(walk);
        }
        take_in::<FUSED>(s, x, at, t, walk);
    }
    for t in (0..s.time).rev() {
        let row = at.batch * s.time + t;
        let wide = (row * s.heads + at.first) * s.channels;
        // SAFETY: as above.
        let (dx, d_dt) =
            unsafe { (out.x.get(wide, at.heads * s.channels), out.dt.get(row * s.heads + at.first, at.heads)) };
        if t >= length {
            dx.fill(0.0);
            d_dt.fill(0.0);
            continue;
        }
        let first = t / stride * stride;
        if t + 1 == length || (t + 1) % stride == 0 {
            between[..all].copy_from_slice(&kept[t / stride * all..][..all]);
            for i in 0..=t - first {
                let (old, new) = between[i * all..(i + 2) * all].split_at_mut(all);
                new.copy_from_slice(old);
                take_in::<FUSED>(s, x, at, first + i, new);
            }
        }
        let (old, new) = between[(t - first) * all..(t - first + 2) * all].split_at(all);
        for h in 0..at.heads {
            let head = at.first + h;
            let a = &x.a[head * s.decays()..][..s.decays()];
            let place = (t * s.groups + head / s.per_group()) * s.size;
            let here = wide + h * s.channels..wide + (h + 1) * s.channels;
            let states = h * each..(h + 1) * each;
            d_dt[h] = back::<FUSED>(
                s,
                (x.dt[row * s.heads + head], a),
                (&x.x[here.clone()], &dy[here]),
                (s.group(x.b, row, head), s.group(x.c, row, head)),
                (&old[states.clone()], &new[states.clone()]),
                &mut ds[states],
                &mut dx[h * s.channels..][..s.channels],
                &mut da[h * s.decays()..][..s.decays()],
                (&mut db[place..place + s.size], &mut dc[place..place + s.size]),
            );
        }
    }
}
crate::dispatch! {
    fn backward(
        s: &Scan, x: &Input, dy: &[f32], at: Block, out: &Shared,
        db: &mut [f32], dc: &mut [f32], scratch: &mut [f32],
    ) = fused backward_body;
}

/// The gradient of [`ssm`] by its inputs, from those of its results. `scratch` holds
/// [`Scan::grad_scratch`] values for so many threads.
pub fn ssm_grad(
    pool: &Pool,
    s: &Scan,
    x: &Input,
    (dy, d_state): (&[f32], &[f32]),
    out: Gradients,
    scratch: &mut [f32],
) {
    out.state.copy_from_slice(d_state);
    let (parts, per, block) = (s.parts(), s.per_group(), s.block());
    let joined = s.batch * s.time * s.groups * s.size;
    let (db, scratch) = scratch.split_at_mut(parts * joined);
    let (dc, scratch) = scratch.split_at_mut(parts * joined);
    let (da, scratch) = scratch.split_at_mut(s.batch * s.heads * s.decays());
    db.fill(0.0);
    dc.fill(0.0);
    {
        let (db, dc) = (Parts::new(&mut *db), Parts::new(&mut *dc));
        let shared = Shared {
            x: Parts::new(out.x),
            dt: Parts::new(out.dt),
            state: Parts::new(out.state),
            a: Parts::new(&mut *da),
        };
        let tasks = s.batch * parts;
        with_scratch(pool, tasks, scratch, s.worker(), &|task, scratch| {
            let (batch, part) = (task / parts, task % parts);
            // One sequence's steps of one part of the sums: nobody else's.
            let (from, len) = (part * joined + batch * joined / s.batch, joined / s.batch);
            // SAFETY: parts and sequences are distinct.
            let (db, dc) = unsafe { (db.get(from, len), dc.get(from, len)) };
            for group in 0..s.groups {
                let last = group * per + (part + 1) * per / parts;
                let mut first = group * per + part * per / parts;
                while first < last {
                    let at = Block { batch, first, heads: block.min(last - first) };
                    backward(s, x, dy, at, &shared, db, dc, scratch);
                    first += at.heads;
                }
            }
        });
    }
    sum(db, out.b);
    sum(dc, out.c);
    sum(da, out.a);
}

/// The sum of all parts of the size of `out`, in their order.
fn sum(parts: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for part in parts.chunks_exact(out.len().max(1)) {
        out.iter_mut().zip(part).for_each(|(o, p)| *o += p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// Results and gradients do not change by a bit with the number of threads.
    #[test]
    fn threads_change_nothing() {
        for (channels, size, scalar) in [(1, 16, false), (5, 19, true), (33, 70, true)] {
            let s = Scan { batch: 2, time: 11, heads: 24, channels, groups: 3, size, scalar };
            let x = numbers(s.batch * s.time * s.heads * channels, 1);
            let dt: Vec<f32> = numbers(s.batch * s.time * s.heads, 2).iter().map(|v| v.abs()).collect();
            let a: Vec<f32> = numbers(s.heads * s.decays(), 3).iter().map(|v| -v.abs()).collect();
            let (b, c) = (numbers(s.batch * s.time * 3 * size, 4), numbers(s.batch * s.time * 3 * size, 5));
            let state = numbers(s.batch * s.heads * s.each(), 6);
            let given = Input { x: &x, dt: &dt, a: &a, b: &b, c: &c, state: &state, lengths: Some(&[11, 4]) };
            let run = |threads: usize| {
                let pool = Pool::new(threads);
                let (mut y, mut last) = (vec![9.0; x.len()], vec![9.0; state.len()]);
                ssm(&pool, &s, &given, &mut y, &mut last);
                let mut out = [&x, &dt, &a, &b, &c, &state].map(|v| vec![9.0; v.len()]);
                let [dx, d_dt, da, db, dc, ds] = &mut out;
                let grads = Gradients { x: dx, dt: d_dt, a: da, b: db, c: dc, state: ds };
                ssm_grad(&pool, &s, &given, (&y, &last), grads, &mut vec![9.0; s.grad_scratch(threads)]);
                (y, last, out)
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3));
            // What is behind a sequence's length is nothing.
            let padded = (s.time + 4) * s.heads * channels;
            assert!(one.0[padded..].iter().all(|v| *v == 0.0));
            assert!(one.2[0][padded..].iter().all(|v| *v == 0.0));
            assert!(one.0[..padded].iter().any(|v| *v != 0.0));
        }
    }
}
