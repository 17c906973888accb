//! NovoGrad.

use super::{Optimizer, Slot, Target, UpdateContext, Updated, at_least, within};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, TensorType};
use crate::ops::elementwise::{self as ew, BinaryKind, CompareKind, UnaryKind};
use crate::ops::{leaf, reduce};

/// Gradients normalised layer by layer (Ginsburg et al. 2019, "Stochastic Gradient Methods with
/// Layer-wise Adaptive Moments"), in the form of NeMo's `novograd`. The second moment is one number
/// for each parameter tensor, so it costs half of Adam's memory.
///
/// ```text
/// v = |g|^2                               where v is 0: at the first step
/// v = beta2 * v + (1 - beta2) * |g|^2     afterwards
/// g = g / (sqrt(v) + eps) + weight_decay * p
/// g = (1 - beta1) * g                     with averaging
/// m = beta1 * m + g
/// p = p - lr * m
/// ```
///
/// With [`amsgrad`](NovoGrad::amsgrad), `sqrt(v)` is that of the largest `v` so far. With
/// [`clipped`](NovoGrad::clipped), the rate is `min(lr, trust * |p| / (|m| + 1e-8))`, so that no step
/// is greater than `trust` times the parameter.
#[derive(Clone, Debug)]
pub struct NovoGrad {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    averaging: bool,
    amsgrad: bool,
    trust: Option<f64>,
}

impl NovoGrad {
    /// Betas 0.95 and 0.98, eps 1e-8, no decay, as in NeMo.
    pub fn new(lr: f64) -> NovoGrad {
        let (averaging, amsgrad) = (false, false);
        NovoGrad { lr, betas: (0.95, 0.98), eps: 1e-8, weight_decay: 0.0, averaging, amsgrad, trust: None }
    }

    /// How much of the moving sum of gradients and of the average of their squared norms is kept:
    /// (0.95, 0.98) unless set; speech models often take (0.8, 0.5).
    #[must_use]
    pub fn betas(mut self, first: f64, second: f64) -> NovoGrad {
        self.betas = (first, second);
        self
    }

    /// What is added to the norm: 1e-8 unless set.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> NovoGrad {
        self.eps = eps;
        self
    }

    /// Adds `weight_decay * p` to the normalised gradient.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> NovoGrad {
        self.weight_decay = weight_decay;
        self
    }

    /// Makes the moving sum an average. NeMo: `grad_averaging`.
    #[must_use]
    pub fn averaging(mut self) -> NovoGrad {
        self.averaging = true;
        self
    }

    /// Divides by the largest norm so far (Reddi et al. 2018).
    #[must_use]
    pub fn amsgrad(mut self) -> NovoGrad {
        self.amsgrad = true;
        self
    }

    /// Bounds every step by `trust * |p|` (LARC; NeMo: `luc`, with a trust of 1e-3).
    #[must_use]
    pub fn clipped(mut self, trust: f64) -> NovoGrad {
        self.trust = Some(trust);
        self
    }
}

/// The sum of the squares of all values: a real scalar.
fn sum_squares(x: Handle) -> Handle {
    let all: Vec<usize> = (0..type_of(x).rank()).collect();
    reduce::sum_squares(x, &all)
}

fn norm(x: Handle) -> Handle {
    ew::unary(UnaryKind::Sqrt, sum_squares(x))
}

impl Optimizer for NovoGrad {
    fn name(&self) -> &'static str {
        "NovoGrad"
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn decay(&self) -> f64 {
        self.weight_decay
    }

    fn validate(&self) -> Result<(), String> {
        within("lr", self.lr, 0.0, f64::INFINITY)?;
        within("betas.0", self.betas.0, 0.0, 1.0)?;
        within("betas.1", self.betas.1, 0.0, 1.0)?;
        within("eps", self.eps, 0.0, f64::INFINITY)?;
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)?;
        within("trust", self.trust.unwrap_or(0.0), 0.0, f64::INFINITY)
    }

    fn slots(&self, target: Target) -> Vec<Slot> {
        let number = || TensorType::new(vec![], DType::F32);
        let mut slots =
            vec![Slot::zeros("novograd.exp_avg", target.ty.clone()), Slot::zeros("novograd.exp_avg_sq", number())];
        if self.amsgrad {
            slots.push(Slot::zeros("novograd.max_exp_avg_sq", number()));
        }
        slots
    }

    fn update(&self, cx: &UpdateContext) -> Updated {
        let (b1, b2) = self.betas;
        let (square, old) = (sum_squares(cx.grad), cx.slots[1]);
        let first = ew::compare(CompareKind::Eq, old, leaf::scalar(0.0));
        let moved = ew::add(ew::scale(old, b2), ew::scale(square, 1.0 - b2));
        let v = cx.stored(1, ew::select(first, square, moved));
        let mut slots = vec![v];
        let mut size = v;
        if self.amsgrad {
            size = cx.stored(2, ew::maximum(cx.slots[2], v));
            slots.push(size);
        }
        let size = ew::add(ew::unary(UnaryKind::Sqrt, size), leaf::scalar(self.eps));
        // A gradient of zero from the first step on: 0 / eps, as far as f32 holds eps.
        let mut g = ew::div(cx.grad, at_least(size, f64::from(f32::MIN_POSITIVE)));
        if cx.weight_decay != 0.0 {
            g = ew::add(g, ew::scale(cx.param, cx.weight_decay));
        }
        if self.averaging {
            g = ew::scale(g, 1.0 - b1);
        }
        let m = cx.stored(0, ew::add(ew::scale(cx.slots[0], b1), g));
        slots.insert(0, m);
        let lr = match self.trust {
            None => cx.lr,
            Some(trust) => {
                let bound = ew::div(ew::scale(norm(cx.param), trust), ew::add(norm(m), leaf::scalar(1e-8)));
                ew::binary(BinaryKind::Min, bound, cx.lr)
            }
        };
        Updated { param: ew::sub(cx.param, ew::mul(m, lr)), slots }
    }
}
