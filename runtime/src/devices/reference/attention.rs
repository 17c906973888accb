//! Attention on the reference device: one query at a time, all of its scores in memory.

use super::{Eval, RefArray};
use crate::graph::DType;
use crate::ops::attention::{Attention, AttentionGrad, Shape};
use mobilis_kernels::cpu::attention::Dropout;

/// What one query sees.
struct Query<'a> {
    op: &'a Attention,
    cx: &'a Eval<'a>,
    shape: Shape,
    /// Example, head, query.
    at: (usize, usize, usize),
}

impl Query<'_> {
    fn q(&self) -> &[f64] {
        let (b, h, i) = self.at;
        let n = &self.shape;
        &self.cx.inputs[0].data[((b * n.t + i) * n.g * n.r + h) * n.d..][..n.d]
    }
    /// Where key or value `j` of `width` features starts.
    fn start(&self, j: usize, width: usize) -> usize {
        let (b, h, _) = self.at;
        ((b * self.shape.s + j) * self.shape.g + h / self.shape.r) * width
    }
    fn k(&self, j: usize) -> &[f64] {
        &self.cx.inputs[1].data[self.start(j, self.shape.d)..][..self.shape.d]
    }
    fn v(&self, j: usize) -> &[f64] {
        &self.cx.inputs[2].data[self.start(j, self.shape.e)..][..self.shape.e]
    }

    /// The place in the mask of key `j`.
    fn mask_place(&self, j: usize) -> Option<(usize, usize)> {
        let (input, axes) = self.op.extras.mask.as_ref()?;
        let (b, h, i) = self.at;
        let index: Vec<usize> = axes.iter().map(|a| [b, h, i, j][*a as usize]).collect();
        Some((*input, self.cx.inputs[*input].offset(&index)))
    }

    /// Whether key `j` is visible.
    fn sees(&self, j: usize) -> bool {
        let (b, _, i) = self.at;
        let s = &self.op.settings;
        let per_example = |input: usize| {
            let x = self.cx.inputs[input];
            x.data[if x.sizes.is_empty() { 0 } else { b }] as i64
        };
        let offset = self.op.extras.offset.map_or(self.shape.s as i64 - self.shape.t as i64, per_example);
        let ahead = j as i64 - (offset + i as i64);
        let window = s.window.map_or(i64::MAX, |w| w as i64);
        let masked = self
            .mask_place(j)
            .is_some_and(|(input, p)| self.cx.dtypes[input] == DType::Bool && self.cx.inputs[input].data[p] == 0.0);
        let short = self.op.extras.lengths.is_some_and(|input| j as i64 >= per_example(input));
        !(s.causal && ahead > 0) && ahead > -window && ahead < window && !masked && !short
    }

    /// What dropout multiplies the weight of key `j` by.
    fn kept(&self, j: usize) -> f64 {
        let (Some(dropout), Some(key)) = (self.op.settings.dropout, self.op.extras.key) else { return 1.0 };
        let (b, h, i) = self.at;
        let key = &self.cx.inputs[key].data;
        let kernel = Dropout {
            probability: dropout.probability as f32,
            stream: dropout.stream,
            key: [key[0] as i32 as u32, key[1] as i32 as u32],
        };
        // The same draws as on every device; the factor in double precision.
        match kernel.factors(b * self.shape.g * self.shape.r + h, i, j / 4)[j % 4] {
            0.0 => 0.0,
            _ => 1.0 / (1.0 - dropout.probability),
        }
    }

    /// The score of key `j`, and the derivative of the soft cap.
    fn score(&self, j: usize) -> (f64, f64) {
        if !self.sees(j) {
            return (f64::NEG_INFINITY, 0.0);
        }
        let dot: f64 = self.q().iter().zip(self.k(j)).map(|(a, b)| a * b).sum();
        let mut z = dot * self.shape.scale(&self.op.settings);
        let mut slope = 1.0;
        if let Some(cap) = self.op.settings.soft_cap {
            let bounded = (z / cap).tanh();
            (z, slope) = (cap * bounded, 1.0 - bounded * bounded);
        }
        if let Some((input, p)) = self.mask_place(j)
            && self.cx.dtypes[input] == DType::F32
        {
            z += self.cx.inputs[input].data[p];
        }
        (z, slope)
    }
}

fn queries<'a>(op: &'a Attention, cx: &'a Eval<'a>) -> impl Iterator<Item = Query<'a>> {
    let shape = Shape::of(&cx.inputs[0].sizes, &cx.inputs[1].sizes, &cx.inputs[2].sizes);
    let heads = shape.g * shape.r;
    (0..shape.b * heads * shape.t).map(move |n| {
        let at = (n / (heads * shape.t), n / shape.t % heads, n % shape.t);
        Query { op, cx, shape, at }
    })
}

pub fn attention(op: &Attention, cx: &Eval) -> Vec<RefArray> {
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let mut lse = RefArray::filled(&cx.outputs[1], f64::NEG_INFINITY);
    for (row, query) in queries(op, cx).enumerate() {
        let n = query.shape;
        let scores: Vec<f64> = (0..n.s).map(|j| query.score(j).0).collect();
        let max = scores.iter().fold(f64::NEG_INFINITY, |m, z| m.max(*z));
        if scores.iter().all(|z| *z == f64::NEG_INFINITY) {
            continue;
        }
        let sum: f64 = scores.iter().map(|z| (z - max).exp()).sum();
        // Rows come in the order [b, h, t], the order of `lse`.
        lse.data[row] = max + sum.ln();
        let (b, h, i) = query.at;
        let start = ((b * n.t + i) * n.g * n.r + h) * n.e;
        for (j, z) in scores.iter().enumerate() {
            let p = (z - lse.data[row]).exp() * query.kept(j);
            query.v(j).iter().zip(&mut out.data[start..]).for_each(|(v, o)| *o += p * v);
        }
    }
    vec![out, lse]
}

pub fn grad(op: &AttentionGrad, cx: &Eval) -> Vec<RefArray> {
    let mut grads: Vec<RefArray> = cx.outputs.iter().map(|s| RefArray::filled(s, 0.0)).collect();
    let (out, lse, g, g_lse) = op.places();
    for (row, query) in queries(&op.attention, cx).enumerate() {
        let (n, (b, h, i)) = (query.shape, query.at);
        let lse = cx.inputs[lse].data[row];
        if lse == f64::NEG_INFINITY {
            continue;
        }
        let place = (b * n.t + i) * n.g * n.r + h;
        let g = &cx.inputs[g].data[place * n.e..][..n.e];
        let out = &cx.inputs[out].data[place * n.e..][..n.e];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let d = dot(g, out) - g_lse.map_or(0.0, |p| cx.inputs[p].data[row]);
        let scale = n.scale(&op.attention.settings);
        for j in 0..n.s {
            let (z, slope) = query.score(j);
            let p = (z - lse).exp();
            let kept = query.kept(j);
            let dz = p * (kept * dot(g, query.v(j)) - d);
            if op.by_mask
                && let Some((_, at)) = query.mask_place(j)
            {
                grads[3].data[at] += dz;
            }
            let ds = dz * slope * scale;
            for f in 0..n.d {
                grads[0].data[place * n.d + f] += ds * query.k(j)[f];
                grads[1].data[query.start(j, n.d) + f] += ds * query.q()[f];
            }
            for (f, g) in g.iter().enumerate() {
                grads[2].data[query.start(j, n.e) + f] += kept * p * g;
            }
        }
    }
    grads
}
