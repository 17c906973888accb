//! Attention against its definition in `f64`, at every level and with several threads.

use super::backward::backward_at;
use super::forward::forward_at;
use super::*;
use crate::cpu::simd::Level;
use crate::cpu::simd::levels;
use crate::pool::Pool;

/// A stream of numbers that are the same everywhere.
struct Noise(u32);

impl Noise {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
    fn real(&mut self) -> f32 {
        self.word() as f32 / (1 << 23) as f32 - 1.0
    }
    fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.real()).collect()
    }
    fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }
}

/// An operand's memory and where its parts lie: `[b, t, h, w]`, `[b, h, t, w]` or with gaps.
struct Tensor {
    data: Vec<f32>,
    strides: Strides,
}

impl Tensor {
    fn new(noise: &mut Noise, [b, t, h, w]: [usize; 4]) -> Tensor {
        let (gap, by_heads) = (noise.below(3) * 5, noise.below(2) == 1);
        let wide = w + gap;
        let strides = match by_heads {
            true => Strides { b: h * t * wide, h: t * wide, t: wide },
            false => Strides { b: h * t * wide, t: h * wide, h: wide },
        };
        Tensor { data: noise.reals(b * t * h * wide), strides }
    }
    fn at(&self, b: usize, t: usize, h: usize, w: usize) -> f64 {
        let s = &self.strides;
        self.data[b * s.b + t * s.t + h * s.h + w] as f64
    }
    fn operand(&self) -> Operand<'_> {
        Operand { data: &self.data, strides: self.strides }
    }
}

#[derive(Default)]
struct Results {
    out: Vec<f32>,
    lse: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    dmask: Vec<f32>,
}

impl Results {
    fn all(&self) -> [&[f32]; 6] {
        [&self.out, &self.lse, &self.dq, &self.dk, &self.dv, &self.dmask]
    }
}

/// The formulas of the operation's documentation.
fn defined(s: &Settings, [q, k, v, g]: [&Tensor; 4], g_lse: &[f32]) -> Results {
    let n = s.sizes;
    let heads = n.g * n.r;
    let mut wide: [Vec<f64>; 6] = [
        vec![0.0; n.b * n.t * heads * n.e],
        vec![0.0; n.b * heads * n.t],
        vec![0.0; n.b * n.t * heads * n.d],
        vec![0.0; n.b * n.s * n.g * n.d],
        vec![0.0; n.b * n.s * n.g * n.e],
        vec![0.0; if let Mask::Real(m, _) = s.mask { m.len() } else { 0 }],
    ];
    let [out, lse, dq, dk, dv, dmask] = &mut wide;
    for (b, h, i) in (0..n.b).flat_map(|b| (0..heads).flat_map(move |h| (0..n.t).map(move |i| (b, h, i)))) {
        let group = h / n.r;
        let (mut scores, mut slopes) = (vec![f64::NEG_INFINITY; n.s], vec![1.0; n.s]);
        let seen = s.visible(b, i);
        for j in seen {
            let dot: f64 = (0..n.d).map(|f| q.at(b, i, h, f) * k.at(b, j, group, f)).sum();
            let mut z = dot * s.scale as f64;
            if let Some(cap) = s.soft_cap {
                let bounded = (z / cap as f64).tanh();
                (z, slopes[j]) = (cap as f64 * bounded, 1.0 - bounded * bounded);
            }
            scores[j] = match s.mask {
                Mask::None => z,
                Mask::Real(m, at) => z + m[b * at[0] + h * at[1] + i * at[2] + j * at[3]] as f64,
                Mask::Truth(m, at) if m[b * at[0] + h * at[1] + i * at[2] + j * at[3]] != 0 => z,
                Mask::Truth(..) => f64::NEG_INFINITY,
            };
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|z| if max.is_finite() { (z - max).exp() } else { 0.0 }).sum();
        let weight = |j: usize| if total > 0.0 { (scores[j] - max).exp() / total } else { 0.0 };
        let factor = |j: usize| match &s.dropout {
            None => 1.0,
            Some(d) => d.factors(b * heads + h, i, j / 4)[j % 4] as f64,
        };
        lse[(b * heads + h) * n.t + i] = max + total.ln();
        let row = ((b * n.t + i) * heads + h) * n.e;
        let by_weight = |j: usize| (0..n.e).map(|f| g.at(b, i, h, f) * v.at(b, j, group, f)).sum::<f64>() * factor(j);
        let mut delta = -(g_lse[(b * heads + h) * n.t + i] as f64);
        for j in 0..n.s {
            let p = weight(j);
            delta += p * by_weight(j);
            for f in 0..n.e {
                out[row + f] += p * factor(j) * v.at(b, j, group, f);
                dv[((b * n.s + j) * n.g + group) * n.e + f] += p * factor(j) * g.at(b, i, h, f);
            }
        }
        for j in 0..n.s {
            let by_score = weight(j) * (by_weight(j) - delta);
            if let Mask::Real(_, at) = s.mask {
                dmask[b * at[0] + h * at[1] + i * at[2] + j * at[3]] += by_score;
            }
            let by_dot = by_score * slopes[j] * s.scale as f64;
            for f in 0..n.d {
                dq[((b * n.t + i) * heads + h) * n.d + f] += by_dot * k.at(b, j, group, f);
                dk[((b * n.s + j) * n.g + group) * n.d + f] += by_dot * q.at(b, i, h, f);
            }
        }
    }
    let [out, lse, dq, dk, dv, dmask] = wide.map(|x| x.into_iter().map(|x| x as f32).collect());
    Results { out, lse, dq, dk, dv, dmask }
}

fn computed(level: Level, pool: &Pool, s: &Settings, [q, k, v, g]: [&Tensor; 4], g_lse: &[f32]) -> Results {
    let n = s.sizes;
    let heads = n.g * n.r;
    let mut r = Results {
        out: vec![f32::NAN; n.b * n.t * heads * n.e],
        lse: vec![f32::NAN; n.b * heads * n.t],
        dq: vec![f32::NAN; n.b * n.t * heads * n.d],
        dk: vec![f32::NAN; n.b * n.s * n.g * n.d],
        dv: vec![f32::NAN; n.b * n.s * n.g * n.e],
        dmask: vec![f32::NAN; if let Mask::Real(m, _) = s.mask { m.len() } else { 0 }],
    };
    let operands = [q, k, v].map(Tensor::operand);
    // What scratch memory holds must not matter.
    let mut scratch = vec![f32::NAN; forward_scratch(&n, pool.threads())];
    forward_at(level, pool, s, operands, &mut r.out, &mut r.lse, &mut scratch);
    let mut scratch = vec![f32::NAN; backward_scratch(&n, pool.threads())];
    let to = Gradients {
        out: &r.out,
        lse: &r.lse,
        g: g.operand(),
        g_lse: Some(g_lse),
        dq: &mut r.dq,
        dk: &mut r.dk,
        dv: &mut r.dv,
        dmask: matches!(s.mask, Mask::Real(..)).then_some(&mut r.dmask[..]),
    };
    backward_at(level, pool, s, operands, to, &mut scratch);
    r
}

fn same(found: &[f32], want: &[f32], what: &str) {
    let largest = want.iter().filter(|x| x.is_finite()).fold(1f32, |m, x| m.max(x.abs()));
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        let equal = f == w || (f.is_nan() && w.is_nan()) || (f - w).abs() < 2e-5 * largest;
        assert!(equal, "{what} [{i}]: {f} is not {w}");
    }
}

/// Random sizes, layouts and settings, from a seed.
fn one(seed: u32, sizes: Sizes, pools: &[Pool]) {
    let mut noise = Noise(seed.wrapping_mul(2_654_435_761));
    let n = sizes;
    let heads = n.g * n.r;
    let tensors = [[n.b, n.t, heads, n.d], [n.b, n.s, n.g, n.d], [n.b, n.s, n.g, n.e], [n.b, n.t, heads, n.e]];
    let [q, k, v, g] = tensors.map(|shape| Tensor::new(&mut noise, shape));
    let g_lse = noise.reals(n.b * heads * n.t);
    let mut index = |n: usize, to: usize| (0..n).map(|_| noise.below(to) as i32).collect::<Vec<i32>>();
    let (lengths, offset) = (index(n.b, n.s + 1), index(1, n.s + 2));
    let shared = [noise.below(2), noise.below(2), noise.below(2), noise.below(2)];
    let mut at = [0; 4];
    let mut total = 1;
    for (axis, size) in [n.b, heads, n.t, n.s].into_iter().enumerate().rev() {
        if shared[axis] == 1 {
            at[axis] = total;
            total *= size;
        }
    }
    let real: Vec<f32> =
        noise.reals(total).iter().map(|x| if *x > 0.8 { f32::NEG_INFINITY } else { 2.0 * x }).collect();
    let truth: Vec<u8> = noise.reals(total).iter().map(|x| (*x > -0.5) as u8).collect();
    let settings = Settings {
        sizes: n,
        scale: 1.0 / (n.d as f32).sqrt(),
        soft_cap: (noise.below(4) == 0).then_some(1.5),
        causal: noise.below(2) == 0,
        window: (noise.below(3) == 0).then_some(1 + noise.below(n.s + 3)),
        lengths: (noise.below(3) == 0).then_some(PerExample(&lengths)),
        offset: (noise.below(3) == 0).then_some(PerExample(&offset)),
        mask: [Mask::None, Mask::None, Mask::Real(&real, at), Mask::Truth(&truth, at)][noise.below(4)],
        dropout: (noise.below(4) == 0).then_some(Dropout { probability: 0.25, stream: 3, key: [1, seed] }),
    };
    let tensors = [&q, &k, &v, &g];
    let want = defined(&settings, tensors, &g_lse);
    for level in levels() {
        let first = computed(level, &pools[0], &settings, tensors, &g_lse);
        let names = ["out", "lse", "dq", "dk", "dv", "dmask"];
        for ((found, want), name) in first.all().into_iter().zip(want.all()).zip(names) {
            same(found, want, &format!("{name} of {seed} {level:?} {n:?}"));
        }
        for pool in &pools[1..] {
            let other = computed(level, pool, &settings, tensors, &g_lse);
            for (a, b) in first.all().into_iter().zip(other.all()) {
                assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "threads matter: {seed} {n:?}");
            }
        }
    }
}

#[test]
fn random_shapes_and_settings_agree_with_the_definition() {
    let pools = [1, 2, 3].map(Pool::new);
    let mut noise = Noise(7);
    for seed in 0..150 {
        let (r, g) = (1 + noise.below(4), 1 + noise.below(3));
        let (d, e) = (1 + noise.below(40), 1 + noise.below(40));
        let (t, s) = (1 + noise.below(60), 1 + noise.below(90));
        one(seed, Sizes { b: 1 + noise.below(3), t, s, g, r, d, e, alike: false }, &pools);
    }
}

#[test]
fn several_blocks_agree_with_the_definition() {
    let pools = [1, 2, 3].map(Pool::new);
    for (seed, (t, s, g, r)) in (1000..).zip([(300, 300, 1, 1), (130, 530, 1, 2), (2, 700, 2, 3), (1, 1500, 1, 1)]) {
        for more in 0..3 {
            one(seed + 100 * more, Sizes { b: 1, t, s, g, r, d: 16, e: 24, alike: false }, &pools);
        }
    }
}

#[test]
fn what_is_not_a_number_shows_where_it_is_seen() {
    // Causal: the first query sees neither the last key nor its value.
    let n = Sizes { b: 1, t: 3, s: 3, g: 1, r: 1, d: 2, e: 2, alike: false };
    let strides = Strides::packed(3, 1, 2);
    let settings = Settings {
        sizes: n,
        scale: 1.0,
        soft_cap: None,
        causal: true,
        window: None,
        lengths: None,
        offset: None,
        mask: Mask::None,
        dropout: None,
    };
    let clean = [1.0, 0.0, 0.5, 1.0, 0.25, 2.0];
    for level in levels() {
        for (bad, place) in [(f32::NAN, 4), (f32::INFINITY, 4)] {
            let mut k = clean;
            k[place] = bad;
            let (mut out, mut lse) = ([0.0; 6], [0.0; 3]);
            let operand = |data| Operand { data, strides };
            let mut scratch = vec![0.0; forward_scratch(&n, 1)];
            let operands = [operand(&clean[..]), operand(&k[..]), operand(&clean[..])];
            forward_at(level, &Pool::new(1), &settings, operands, &mut out, &mut lse, &mut scratch);
            assert!(out[..4].iter().chain(&lse[..2]).all(|x| x.is_finite()), "{level:?} {out:?}");
            assert!(out[4..].iter().chain(&lse[2..]).all(|x| x.is_nan()), "{level:?} {bad} {out:?} {lse:?}");
        }
    }
}
