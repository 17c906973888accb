//! Muon.

use super::{AdamW, Optimizer, Slot, Target, UpdateContext, Updated, decayed, within};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{Dim, Extent, TensorType};
use crate::module::pattern;
use crate::ops::contraction::einsum;
use crate::ops::elementwise::{self as ew, UnaryKind};
use crate::ops::{leaf, movement, reduce};

/// The quintic of Newton-Schulz: its slope at zero is as steep as possible while singular values
/// stay in about 0.7 to 1.2 (Jordan et al. 2024).
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// How the orthogonal update of a matrix of `rows` by `cols` is scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MuonScale {
    /// `sqrt(max(1, rows / cols))` (Jordan et al. 2024): learning rates of about 0.02.
    Spectral,
    /// `0.2 * sqrt(max(rows, cols))` (Liu et al. 2025, "Muon is Scalable for LLM Training"):
    /// updates have the root mean square of AdamW's, so both share one learning rate.
    MatchAdamW,
}

/// Momentum orthogonalized by Newton-Schulz iterations, for hidden matrices (Jordan et al. 2024,
/// "Muon: An optimizer for hidden layers in neural networks"); [`AdamW`] for the rest:
/// embeddings, heads, vectors and scalars.
///
/// ```text
/// m = momentum * m + (1 - momentum) * g
/// u = (1 - momentum) * g + momentum * m        (Nesterov)
/// x = u / (|u| + 1e-7)                          transposed if it has more rows than columns
/// five times:  A = x x';  x = 3.4445 x + (-4.7750 A + 2.0315 A A) x
/// p = p * (1 - lr * weight_decay) - lr * scale * x
/// ```
///
/// A parameter of rank 3 or more is taken as a matrix of its first dimension by all others.
/// Which parameters are hidden matrices is decided by rank (at least 2) and by name: see
/// [`Muon::except`].
#[derive(Clone, Debug)]
pub struct Muon {
    lr: f64,
    momentum: f64,
    nesterov: bool,
    iterations: u32,
    weight_decay: f64,
    scale: MuonScale,
    except: Vec<String>,
    rest: AdamW,
    rest_lr: f64,
}

impl Muon {
    /// Momentum 0.95 with Nesterov, five iterations, no decay, spectral scale; parameters whose
    /// names have a component with `embed`, `head`, `wte` or `wpe` in it, and all that are not
    /// matrices, are left to AdamW at `rest_lr` (betas 0.9 and 0.95, no decay).
    pub fn new(lr: f64, rest_lr: f64) -> Muon {
        Muon {
            lr,
            momentum: 0.95,
            nesterov: true,
            iterations: 5,
            weight_decay: 0.0,
            scale: MuonScale::Spectral,
            except: ["**.*embed*.**", "**.*head*.**", "**.wte.**", "**.wpe.**"].map(String::from).into(),
            rest: AdamW::new(rest_lr).betas(0.9, 0.95).weight_decay(0.0),
            rest_lr,
        }
    }

    /// How much of the moving average is kept: 0.95 unless set.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Muon {
        self.momentum = momentum;
        self
    }

    /// Whether the step looks one gradient ahead of the average; it does unless told otherwise.
    #[must_use]
    pub fn nesterov(mut self, nesterov: bool) -> Muon {
        self.nesterov = nesterov;
        self
    }

    /// How often the quintic is applied: 5 unless set.
    #[must_use]
    pub fn iterations(mut self, iterations: u32) -> Muon {
        self.iterations = iterations;
        self
    }

    /// Shrinks parameters by `lr * weight_decay` at every step, those under AdamW by its rate.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Muon {
        self.weight_decay = weight_decay;
        self
    }

    /// How updates are scaled.
    #[must_use]
    pub fn scale(mut self, scale: MuonScale) -> Muon {
        self.scale = scale;
        self
    }

    /// Which matrices AdamW takes besides: patterns over names, in place of the usual ones.
    #[must_use]
    pub fn except(mut self, patterns: &[&str]) -> Muon {
        self.except = patterns.iter().map(|p| p.to_string()).collect();
        self
    }

    /// Other settings for the parameters that AdamW takes. Its learning rate replaces `rest_lr`;
    /// its weight decay is not used.
    #[must_use]
    pub fn rest(mut self, rest: AdamW) -> Muon {
        self.rest_lr = rest.learning_rate();
        self.rest = rest;
        self
    }

    /// Whether a parameter is a hidden matrix, updated by orthogonalized momentum.
    pub fn covers(&self, target: Target) -> bool {
        target.ty.rank() >= 2 && !self.except.iter().any(|p| pattern::matches(p, target.name))
    }

    /// `sqrt(max(1, rows/cols))` or its like; sizes may be known only when arrays are bound.
    fn factor(&self, rows: &Extent, cols: &Extent) -> Handle {
        let (rows, cols) = (leaf::size(rows.clone()), leaf::size(cols.clone()));
        let max = |a, b| ew::binary(ew::BinaryKind::Max, a, b);
        match self.scale {
            MuonScale::Spectral => ew::unary(UnaryKind::Sqrt, max(ew::div(rows, cols), leaf::scalar(1.0))),
            MuonScale::MatchAdamW => ew::scale(ew::unary(UnaryKind::Sqrt, max(rows, cols)), 0.2),
        }
    }
}

/// An approximation of the nearest (semi-)orthogonal matrix to `x` (rows by columns).
fn orthogonalized(x: Handle, iterations: u32) -> Handle {
    let ty = type_of(x);
    let size = |i: usize| ty.dims[i].extent.as_constant();
    // The products are cheapest over the shorter side; where sizes are unknown either works.
    let tall = matches!((size(0), size(1)), (Some(rows), Some(cols)) if rows > cols);
    let mut x = if tall { movement::permute(x, &[1, 0]) } else { x };
    let norm = ew::unary(UnaryKind::Sqrt, reduce::reduce(ew::mul(x, x), reduce::Kind::Sum, &[0, 1]));
    x = ew::div(x, ew::add(norm, leaf::scalar(1e-7)));
    let (a, b, c) = QUINTIC;
    for _ in 0..iterations {
        let gram = einsum(&[x, x], &[&[0, 1], &[2, 1]], &[0, 2]);
        let square = einsum(&[gram, gram], &[&[0, 1], &[1, 2]], &[0, 2]);
        let mix = ew::add(ew::scale(gram, b), ew::scale(square, c));
        x = ew::add(ew::scale(x, a), einsum(&[mix, x], &[&[0, 1], &[1, 2]], &[0, 2]));
    }
    if tall { movement::permute(x, &[1, 0]) } else { x }
}

impl Optimizer for Muon {
    fn name(&self) -> &'static str {
        "Muon"
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn decay(&self) -> f64 {
        self.weight_decay
    }

    fn validate(&self) -> Result<(), String> {
        within("lr", self.lr, f64::MIN_POSITIVE, f64::INFINITY)?;
        within("momentum", self.momentum, 0.0, 1.0)?;
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)?;
        self.rest.validate().map_err(|e| format!("in the AdamW for the other parameters: {e}"))
    }

    fn slots(&self, target: Target) -> Vec<Slot> {
        if self.covers(target) {
            return vec![Slot::zeros("muon.momentum_buffer", target.ty.clone())];
        }
        self.rest.slots(target)
    }

    fn update(&self, cx: &UpdateContext) -> Updated {
        if !self.covers(cx.target) {
            // The program has one learning rate; the other optimizer's is a fixed multiple of it.
            let lr = ew::scale(cx.lr, self.rest_lr / self.lr);
            return self.rest.update(&UpdateContext { slots: cx.slots.clone(), lr, ..*cx });
        }
        let m = cx.stored(0, super::average(cx.slots[0], cx.grad, self.momentum));
        let u = if self.nesterov { super::average(m, cx.grad, self.momentum) } else { m };
        let TensorType { dims, .. } = type_of(u);
        let rows = dims[0].clone();
        let cols = Dim::anonymous(Extent::product(dims[1..].iter().map(|d| &d.extent)));
        let factor = self.factor(&rows.extent, &cols.extent);
        let flat = if dims.len() == 2 { u } else { movement::reshape(u, vec![rows, cols]) };
        let direction = movement::reshape(orthogonalized(flat, self.iterations), dims);
        let step = ew::mul(direction, ew::mul(cx.lr, factor));
        Updated { param: ew::sub(decayed(cx), step), slots: vec![m] }
    }
}
