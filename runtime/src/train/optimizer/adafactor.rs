//! Adafactor.

use super::{Optimizer, Slot, Target, UpdateContext, Updated, at_least, average, rms, within};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, TensorType};
use crate::ops::elementwise::{self as ew, BinaryKind, UnaryKind};
use crate::ops::{leaf, reduce};

/// Adam with the second moment of matrices stored as one row and one column (Shazeer and Stern
/// 2018). Hugging Face: `transformers.Adafactor`, whose order of operations this follows.
///
/// ```text
/// lr   = lr * (relative ? min(0.01, 1/sqrt(t)) : 1) * (scaled ? max(eps2, rms(p)) : 1)
/// keep = 1 - t^decay_rate
/// u    = g^2 + eps1
/// r    = keep * r + (1 - keep) * mean over columns of u      (matrices and beyond)
/// c    = keep * c + (1 - keep) * mean over rows of u
/// u    = g / sqrt(r / mean(r) * c)
/// v    = keep * v + (1 - keep) * u;  u = g / sqrt(v)          (vectors)
/// u    = lr * u / max(1, rms(u) / clip_threshold)
/// u    = m = beta1 * m + (1 - beta1) * u                      (with a first moment)
/// p    = p * (1 - lr * weight_decay) - u
/// ```
#[derive(Clone, Debug)]
pub struct Adafactor {
    lr: f64,
    relative: bool,
    warmup: bool,
    scaled: bool,
    eps: (f64, f64),
    clip_threshold: f64,
    decay_rate: f64,
    beta1: Option<f64>,
    weight_decay: f64,
}

impl Adafactor {
    /// A given learning rate, not scaled by the size of the parameters.
    pub fn new(lr: f64) -> Adafactor {
        Adafactor { lr, relative: false, scaled: false, ..Adafactor::relative() }
    }

    /// The paper's relative step: `max(1e-3, rms(p)) * min(0.01, 1/sqrt(t))`, no rate to tune.
    /// A schedule's factor multiplies it.
    pub fn relative() -> Adafactor {
        Adafactor {
            lr: 1.0,
            relative: true,
            warmup: false,
            scaled: true,
            eps: (1e-30, 1e-3),
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            weight_decay: 0.0,
        }
    }

    /// With a relative step: starts it at `min(1e-6 t, 1/sqrt(t))` instead of `min(0.01, ..)`.
    #[must_use]
    pub fn warmup(mut self) -> Adafactor {
        self.warmup = true;
        self
    }

    /// Whether the learning rate is multiplied by `max(eps2, rms(p))`.
    #[must_use]
    pub fn scale_parameter(mut self, scaled: bool) -> Adafactor {
        self.scaled = scaled;
        self
    }

    /// What is added to squared gradients, and the least size of a parameter: (1e-30, 1e-3)
    /// unless set.
    #[must_use]
    pub fn eps(mut self, square: f64, size: f64) -> Adafactor {
        self.eps = (square, size);
        self
    }

    /// The largest root mean square of an update before the learning rate: 1 unless set.
    #[must_use]
    pub fn clip_threshold(mut self, threshold: f64) -> Adafactor {
        self.clip_threshold = threshold;
        self
    }

    /// The exponent in `keep = 1 - t^decay_rate`: -0.8 unless set.
    #[must_use]
    pub fn decay_rate(mut self, rate: f64) -> Adafactor {
        self.decay_rate = rate;
        self
    }

    /// Keeps a first moment too, as large as the parameters.
    #[must_use]
    pub fn beta1(mut self, beta1: f64) -> Adafactor {
        self.beta1 = Some(beta1);
        self
    }

    /// Shrinks parameters by `lr * weight_decay` at every step.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Adafactor {
        self.weight_decay = weight_decay;
        self
    }

    fn rate(&self, cx: &UpdateContext) -> Handle {
        let mut lr = cx.lr;
        if self.relative {
            let cap = if self.warmup { ew::scale(cx.step, 1e-6) } else { leaf::scalar(1e-2) };
            let falling = ew::unary(UnaryKind::Rsqrt, cx.step);
            lr = ew::mul(lr, ew::binary(BinaryKind::Min, cap, falling));
        }
        if self.scaled {
            lr = ew::mul(lr, at_least(rms(cx.param), self.eps.1));
        }
        lr
    }
}

/// `type` without the dimension at `position`.
fn without(ty: &TensorType, position: usize) -> TensorType {
    let mut dims = ty.dims.clone();
    dims.remove(position);
    TensorType::new(dims, DType::F32)
}

impl Optimizer for Adafactor {
    fn name(&self) -> &'static str {
        "Adafactor"
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn decay(&self) -> f64 {
        self.weight_decay
    }

    fn validate(&self) -> Result<(), String> {
        within("lr", self.lr, 0.0, f64::INFINITY)?;
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)?;
        within("beta1", self.beta1.unwrap_or(0.0), 0.0, 1.0)?;
        within("-decay_rate", -self.decay_rate, 0.0, f64::INFINITY)?;
        within("clip_threshold", self.clip_threshold, f64::MIN_POSITIVE, f64::INFINITY)
    }

    fn slots(&self, target: Target) -> Vec<Slot> {
        let rank = target.ty.rank();
        let mut slots = if rank >= 2 {
            vec![
                Slot::zeros("adafactor.exp_avg_sq_row", without(target.ty, rank - 1)),
                Slot::zeros("adafactor.exp_avg_sq_col", without(target.ty, rank - 2)),
            ]
        } else {
            vec![Slot::zeros("adafactor.exp_avg_sq", target.ty.clone())]
        };
        if self.beta1.is_some() {
            slots.push(Slot::zeros("adafactor.exp_avg", target.ty.clone()));
        }
        slots
    }

    fn update(&self, cx: &UpdateContext) -> Updated {
        let lr = self.rate(cx);
        // 1 - keep
        let take = ew::binary(BinaryKind::Pow, cx.step, leaf::scalar(self.decay_rate));
        let keep = ew::sub(leaf::scalar(1.0), take);
        let mix = |old, new| ew::add(ew::mul(old, keep), ew::mul(new, take));
        let square = ew::add(ew::mul(cx.grad, cx.grad), leaf::scalar(self.eps.0));
        let rsqrt = |x| ew::unary(UnaryKind::Rsqrt, x);

        let dims = type_of(cx.grad).dims;
        let rank = dims.len();
        let (mut slots, mut u) = if rank >= 2 {
            let row = cx.stored(0, mix(cx.slots[0], reduce::mean(square, &[rank - 1])));
            let col = cx.stored(1, mix(cx.slots[1], reduce::mean(square, &[rank - 2])));
            // r / mean(r), the mean over the rows of each matrix.
            let mean = reduce::restore(reduce::mean(row, &[rank - 2]), &dims[..rank - 1], &[rank - 2]);
            let by_row = reduce::restore(rsqrt(ew::div(row, mean)), &dims, &[rank - 1]);
            let by_col = reduce::restore(rsqrt(col), &dims, &[rank - 2]);
            (vec![row, col], ew::mul(ew::mul(by_row, by_col), cx.grad))
        } else {
            let v = cx.stored(0, mix(cx.slots[0], square));
            (vec![v], ew::mul(rsqrt(v), cx.grad))
        };
        let excess = at_least(ew::scale(rms(u), 1.0 / self.clip_threshold), 1.0);
        u = ew::mul(u, ew::div(lr, excess));
        if let (Some(beta1), Some(m)) = (self.beta1, cx.slots.get(slots.len())) {
            u = cx.stored(slots.len(), average(*m, u, beta1));
            slots.push(u);
        }
        let kept = match cx.weight_decay {
            0.0 => cx.param,
            decay => ew::mul(cx.param, ew::sub(leaf::scalar(1.0), ew::scale(lr, decay))),
        };
        Updated { param: ew::sub(kept, u), slots }
    }
}
