//! Scaled dot-product attention (Vaswani et al. 2017) as one operation, so that the matrix of
//! scores is never in memory (FlashAttention, Dao et al. 2022).
//!
//! For query `i` and key `j` of one head, with `s` keys and `t` queries:
//!
//! ```text
//! z_ij = scale * q_i . k_j                 scale: 1 / sqrt(features) unless given
//! z_ij = cap * tanh(z_ij / cap)            with a soft cap (Gemma 2)
//! z_ij = z_ij + mask_ij                    with an additive mask
//! p_ij = exp(z_ij - lse_i),  lse_i = log sum over visible j of exp(z_ij)
//! out_i = sum over visible j of drop_ij * p_ij * v_j
//! ```
//!
//! Key `j` is visible to query `i` if all that is asked for agrees, where `o = s - t` (queries are
//! the last positions) unless an offset is given:
//! `j <= o + i` (causal), `j > o + i - window` (sliding window; without causal also
//! `j < o + i + window`), `j < length` (padding), and the boolean mask. A query that sees no key
//! gives zeros, and minus infinity as `lse`, never NaN.
//!
//! Grouped queries (Ainslie et al. 2023): `q` has heads `[.., g, r, ..]`, `k` and `v` have `g`:
//! `r` query heads read one key-value head. Layouts: `q [b t h d]` or `[b t g r d]`,
//! `k [b s g d]`, `v [b s g e]`, result as `q` with `e` for `d`, `lse [b h t]` or `[b g r t]`.
//!
//! Backward, with `D_i = g_i . out_i - glse_i`:
//! `dz_ij = p_ij (drop_ij g_i . v_j - D_i)`, times the derivative of the soft cap.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::ops::attention::attention;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Source; Heads = 4; HeadDim = 16; }
//!
//! type Queries = Tensor![Batch, Time, Heads, HeadDim];
//! type Memory = Tensor![Batch, Source, Heads, HeadDim];
//!
//! fn decode(q: Queries, k: Queries, v: Queries) -> Queries {
//!     attention(q, k, v).causal().window(128).output()
//! }
//!
//! fn cross(q: Queries, k: Memory, v: Memory, lengths: Tensor![Batch; Lengths<Source>]) -> Queries {
//!     attention(q, k, v).lengths(lengths).output()
//! }
//! ```

mod backward;
mod typed;

use super::{Cost, GradContext, NoGradient, Rule};
use crate::graph::trace::{Handle, opn};
use crate::graph::{DType, Dim, Extent, TensorType};
pub use backward::AttentionGrad;
pub use typed::{Attending, MaskOver, attention, grouped_attention};

/// The settings of attention and which optional inputs it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Queries see no later key.
    pub causal: bool,
    /// Queries see only the nearest so many positions, their own included.
    pub window: Option<u64>,
    /// The factor on scores; `1 / sqrt(features)` if `None`.
    pub scale: Option<f64>,
    /// The bound that scores approach smoothly.
    pub soft_cap: Option<f64>,
    /// The probability that a weight is dropped; the others grow by `1 / (1 - p)`.
    pub dropout: Option<Dropout>,
}

/// Dropout of attention weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability that a weight is dropped.
    pub probability: f64,
    /// The stream of random numbers.
    pub stream: u32,
}

/// The optional inputs of attention.
#[derive(Clone, Debug)]
pub struct Extras<T> {
    /// Visible keys per example: indices `[b]`.
    pub lengths: Option<T>,
    /// The position of the first query among the keys: an index `[]` or `[b]`.
    pub offset: Option<T>,
    /// A mask, and for each of its dimensions which of `[b, h, t, s]` it is (with grouped
    /// queries `h` is all heads). Boolean: true is visible. Real: added to the scores.
    pub mask: Option<(T, Vec<u8>)>,
    /// Seed and counter for dropout: indices `[2]`.
    pub key: Option<T>,
}

impl<T> Default for Extras<T> {
    fn default() -> Self {
        Extras { lengths: None, offset: None, mask: None, key: None }
    }
}

impl<T> Extras<T> {
    /// The inputs in order: lengths, offset, mask, key.
    fn inputs(&self) -> impl Iterator<Item = &T> {
        let mask = self.mask.as_ref().map(|m| &m.0);
        [self.lengths.as_ref(), self.offset.as_ref(), mask, self.key.as_ref()].into_iter().flatten()
    }
}

/// Attention. Inputs: `q`, `k`, `v`, then lengths, offset, mask and key, those that there are.
/// Outputs: the result and `lse`.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The settings.
    pub settings: Settings,
    /// Which optional inputs there are; the numbers are their positions among the inputs.
    pub extras: Extras<usize>,
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Examples.
    pub b: usize,
    /// Queries.
    pub t: usize,
    /// Keys.
    pub s: usize,
    /// Key-value heads.
    pub g: usize,
    /// Query heads per key-value head.
    pub r: usize,
    /// Features of queries and keys.
    pub d: usize,
    /// Features of values.
    pub e: usize,
}

impl Shape {
    /// The sizes from those of `q`, `k` and `v`.
    pub fn of(q: &[usize], k: &[usize], v: &[usize]) -> Shape {
        let r = if q.len() == 5 { q[3] } else { 1 };
        Shape { b: q[0], t: q[1], s: k[1], g: k[2], r, d: k[3], e: v[3] }
    }

    /// The factor on scores.
    pub fn scale(&self, settings: &Settings) -> f64 {
        settings.scale.unwrap_or(1.0 / (self.d as f64).sqrt())
    }
}

impl Attention {
    /// The dimension `[b, h, t, s]` that mask dimension `axis` must be; `h` may be the product of
    /// key-value heads and groups.
    fn check(&self, inputs: &[&TensorType]) -> Result<(), String> {
        let expected = 3 + self.extras.inputs().count();
        if inputs.len() < expected {
            return Err(format!("takes {expected} inputs, is given {}", inputs.len()));
        }
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let grouped = q.rank() == 5;
        let same = |a: &TensorType, i: usize, b: &TensorType, j: usize| a.dims[i].extent == b.dims[j].extent;
        let fits = (q.rank() == 4 || grouped)
            && k.rank() == 4
            && v.rank() == 4
            && [q, k, v].iter().all(|x| x.dtype == DType::F32)
            && same(q, 0, k, 0)
            && same(q, 2, k, 2)
            && same(q, q.rank() - 1, k, 3)
            && (0..3).all(|i| same(k, i, v, i));
        if !fits {
            return Err(format!(
                "takes q [b t h d] or [b t g r d], k [b s h d] and v [b s h e], is given {q}, {k} and {v}"
            ));
        }
        let heads = if grouped {
            Extent::mul(q.dims[2].extent.clone(), q.dims[3].extent.clone())
        } else {
            q.dims[2].extent.clone()
        };
        if let Some(i) = self.extras.lengths {
            let ty = inputs[i];
            if ty.rank() != 1 || ty.dtype != DType::I32 || !same(ty, 0, q, 0) {
                return Err(format!("takes one length per example of {q}, is given {ty}"));
            }
        }
        if let Some(i) = self.extras.offset {
            let ty = inputs[i];
            if ty.rank() > 1 || ty.dtype != DType::I32 || (ty.rank() == 1 && !same(ty, 0, q, 0)) {
                return Err(format!("takes one offset, or one per example of {q}, is given {ty}"));
            }
        }
        if let Some((i, axes)) = &self.extras.mask {
            let ty = inputs[*i];
            let scores = [&q.dims[0].extent, &heads, &q.dims[1].extent, &k.dims[1].extent];
            let fits = ty.rank() == axes.len()
                && axes.windows(2).all(|w| w[0] < w[1])
                && axes.iter().zip(&ty.dims).all(|(a, d)| scores.get(*a as usize).is_some_and(|e| **e == d.extent))
                && ty.dtype != DType::I32;
            if !fits {
                return Err(format!("the mask {ty} does not fit the scores of {q} and {k}"));
            }
        }
        if let Some(i) = self.extras.key {
            let ty = inputs[i];
            if ty.dtype != DType::I32 || ty.count().as_constant() != Some(2) {
                return Err(format!("takes a random key of two indices, is given {ty}"));
            }
        }
        if self.settings.dropout.is_some() != self.extras.key.is_some() {
            return Err("dropout needs a random key".into());
        }
        Ok(())
    }

    fn work(&self, inputs: &[&TensorType]) -> Extent {
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        // Each query meets each key twice: scores and values.
        let rows = Extent::product(q.dims[..q.rank() - 1].iter().map(|d| &d.extent));
        let width = Extent::add(k.dims[3].extent.clone(), v.dims[3].extent.clone());
        let pairs = Extent::mul(Extent::mul(rows, k.dims[1].extent.clone()), width);
        Extent::mul(pairs, Extent::constant(2))
    }

    fn describe(&self) -> String {
        let s = &self.settings;
        let mut words = vec![];
        words.extend(s.causal.then(|| "causal".to_string()));
        words.extend(s.window.map(|w| format!("window={w}")));
        words.extend(s.scale.map(|v| format!("scale={v}")));
        words.extend(s.soft_cap.map(|v| format!("soft_cap={v}")));
        words.extend(s.dropout.map(|d| format!("dropout={}", d.probability)));
        words.join(" ")
    }
}

impl Rule for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.check(inputs)?;
        let (q, v) = (inputs[0], inputs[2]);
        let mut out = q.clone();
        let last = q.rank() - 1;
        out.dims[last] = v.dims[3].clone();
        let mut lse: Vec<Dim> = vec![q.dims[0].clone()];
        lse.extend(q.dims[2..last].iter().cloned());
        lse.push(q.dims[1].clone());
        Ok(vec![out, TensorType::new(lse, DType::F32)])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let by_mask = self.extras.mask.as_ref().is_some_and(|(i, _)| cx.wanted[*i]);
        let by_lse = cx.grads[1].is_some();
        let op = AttentionGrad { attention: self.clone(), by_mask, by_lse };
        let mut inputs = cx.inputs.clone();
        inputs.extend([cx.outputs[0], cx.outputs[1], cx.grad()]);
        inputs.extend(cx.grads[1]);
        let found = opn(op, &inputs, 3 + by_mask as usize);
        let mut grads: Vec<Option<Handle>> = vec![None; cx.inputs.len()];
        for i in 0..3 {
            grads[i] = Some(found[i]);
        }
        if let (Some((i, _)), true) = (&self.extras.mask, by_mask) {
            grads[*i] = Some(found[3]);
        }
        Ok(grads)
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(self.work(inputs), inputs, outputs)
    }

    fn attributes(&self) -> String {
        self.describe()
    }
}

/// Attention over `q [b t h d]` or `[b t g r d]`, `k [b s g d]`, `v [b s g e]`: the result and the
/// logarithm of the sum of exponentials.
pub fn attend(q: Handle, k: Handle, v: Handle, settings: Settings, extras: Extras<Handle>) -> (Handle, Handle) {
    let mut inputs = vec![q, k, v];
    let mut place = |h: Handle| {
        inputs.push(h);
        inputs.len() - 1
    };
    let extras = Extras {
        lengths: extras.lengths.map(&mut place),
        offset: extras.offset.map(&mut place),
        mask: extras.mask.map(|(h, axes)| (place(h), axes)),
        key: extras.key.map(&mut place),
    };
    let out = opn(Attention { settings, extras }, &inputs, 2);
    (out[0], out[1])
}
