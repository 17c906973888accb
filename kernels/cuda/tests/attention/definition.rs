//! The definition of attention, in double precision.

use mobilis_cuda::Ptr;
use mobilis_cuda::attention::*;
use mobilis_cuda::testing::{difference, values};

/// Reproducible choices.
pub struct Noise(pub u64);

impl Noise {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Philox 4x32-10, written down a second time.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (x, y) = (c[0] as u64 * 0xD251_1F53, c[2] as u64 * 0xCD9E_8D57);
        c = [(y >> 32) as u32 ^ c[1] ^ k[0], y as u32, (x >> 32) as u32 ^ c[3] ^ k[1], x as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// An operand's values and where its parts lie: `[b, t, h, w]` or `[b, h, t, w]`, with gaps.
pub struct Tensor {
    pub data: Vec<f32>,
    pub place: Operand,
}

impl Tensor {
    /// Of sizes `[b, t, h, w]`, with gaps of multiples of `gap` between rows.
    pub fn new(noise: &mut Noise, gap: usize, [b, t, h, w]: [usize; 4]) -> Tensor {
        let wide = w + noise.below(3) * gap;
        let (b_, t_, h_) = match noise.below(2) {
            0 => (h * t * wide, wide, t * wide),
            _ => (h * t * wide, h * wide, wide),
        };
        let data = values(b * t * h * wide, noise.below(1000) as u64);
        Tensor { data, place: Operand { at: Ptr::NULL, b: b_, t: t_, h: h_ } }
    }
    pub fn at(&self, b: usize, t: usize, h: usize, w: usize) -> f64 {
        self.data[b * self.place.b + t * self.place.t + h * self.place.h + w] as f64
    }
}

/// The small inputs.
#[derive(Default)]
pub struct Given {
    pub lengths: Option<Vec<i32>>,
    pub offset: Option<Vec<i32>>,
    pub truth: Option<Vec<u8>>,
    pub real: Option<Vec<f32>>,
    pub has: [bool; 4],
    pub strides: [usize; 4],
    /// Probability, stream, key.
    pub dropout: Option<(f32, u32, [i32; 2])>,
}

/// `out`, `lse`, `dq`, `dk`, `dv`, `dmask`.
pub type Results = [Vec<f64>; 6];

/// The formulas of the operation's documentation.
pub fn defined(p: &Problem, x: &Given, [q, k, v, g]: &[Tensor; 4], g_lse: &[f32]) -> Results {
    let n = p.sizes;
    let heads = n.g * n.r;
    let mut r: Results = [
        vec![0.0; n.b * n.t * heads * n.e],
        vec![f64::NEG_INFINITY; n.b * heads * n.t],
        vec![0.0; n.b * n.t * heads * n.d],
        vec![0.0; n.b * n.s * n.g * n.d],
        vec![0.0; n.b * n.s * n.g * n.e],
        vec![0.0; x.real.as_ref().map_or(0, Vec::len)],
    ];
    for (b, h, i) in (0..n.b).flat_map(|b| (0..heads).flat_map(move |h| (0..n.t).map(move |i| (b, h, i)))) {
        let group = h / n.r;
        let o = x.offset.as_ref().map_or(n.s as i64 - n.t as i64, |o| o[if o.len() == 1 { 0 } else { b }] as i64);
        let mask_at = |j: usize| b * x.strides[0] + h * x.strides[1] + i * x.strides[2] + j * x.strides[3];
        let (mut z, mut slope) = (vec![f64::NEG_INFINITY; n.s], vec![1.0; n.s]);
        for j in 0..n.s {
            let ahead = j as i64 - o - i as i64;
            let w = p.window.map_or(i64::MAX, |w| w as i64);
            let hidden = (p.causal && ahead > 0)
                || ahead <= -w
                || ahead >= w
                || x.lengths.as_ref().is_some_and(|l| j as i64 >= l[b] as i64)
                || x.truth.as_ref().is_some_and(|m| m[mask_at(j)] == 0);
            if hidden {
                continue;
            }
            z[j] = (0..n.d).map(|f| q.at(b, i, h, f) * k.at(b, j, group, f)).sum::<f64>() * p.scale as f64;
            if let Some(cap) = p.soft_cap {
                let bounded = (z[j] / cap as f64).tanh();
                (z[j], slope[j]) = (cap as f64 * bounded, 1.0 - bounded * bounded);
            }
            z[j] += x.real.as_ref().map_or(0.0, |m| m[mask_at(j)] as f64);
        }
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            continue;
        }
        let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        let row = (b * heads + h) * n.t + i;
        r[1][row] = lse;
        let kept = |j: usize| match x.dropout {
            None => 1.0,
            Some((p, stream, key)) => {
                let words = philox([j as u32 / 4, i as u32, (b * heads + h) as u32, stream], key.map(|k| k as u32));
                if (words[j % 4] as f64) < p as f64 * 4_294_967_296.0 { 0.0 } else { 1.0 / (1.0 - p as f64) }
            }
        };
        let by = |j: usize| (0..n.e).map(|f| g.at(b, i, h, f) * v.at(b, j, group, f)).sum::<f64>() * kept(j);
        let place = (b * n.t + i) * heads + h;
        let mut delta = -g_lse[row] as f64;
        for j in 0..n.s {
            let w = (z[j] - lse).exp();
            delta += w * by(j);
            for f in 0..n.e {
                r[0][place * n.e + f] += w * kept(j) * v.at(b, j, group, f);
                r[4][((b * n.s + j) * n.g + group) * n.e + f] += w * kept(j) * g.at(b, i, h, f);
            }
        }
        for j in 0..n.s {
            let dz = (z[j] - lse).exp() * (by(j) - delta);
            if x.real.is_some() {
                r[5][mask_at(j)] += dz;
            }
            for f in 0..n.d {
                let d = dz * slope[j] * p.scale as f64;
                r[2][place * n.d + f] += d * k.at(b, j, group, f);
                r[3][((b * n.s + j) * n.g + group) * n.d + f] += d * q.at(b, i, h, f);
            }
        }
    }
    r
}

/// Infinities are the same, the rest within `tolerance` of the largest.
///
/// # Panics
/// When they are not.
pub fn same(found: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert!(found.iter().zip(want).all(|(f, w)| w.is_finite() || *f as f64 == *w), "{what}: infinities differ");
    let pairs = found.iter().zip(want).filter(|(_, w)| w.is_finite());
    let (found, want): (Vec<f32>, Vec<f64>) = pairs.unzip();
    let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
    // Where everything cancels there is nothing to be relative to.
    let d = difference(&found, &want) * largest / largest.max(0.1);
    assert!(d < tolerance, "{what}: {d}");
}
