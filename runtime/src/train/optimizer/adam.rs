//! Adam and AdamW.

use super::{Optimizer, Slot, Target, UpdateContext, Updated, average, bias_correction, decayed, within};
use crate::graph::trace::Handle;
use crate::ops::elementwise::{self as ew, UnaryKind};
use crate::ops::leaf;

/// What both variants share: the moving averages and the step that they give.
#[derive(Clone, Debug)]
struct Moments {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

impl Moments {
    fn validate(&self) -> Result<(), String> {
        within("lr", self.lr, 0.0, f64::INFINITY)?;
        within("betas.0", self.betas.0, 0.0, 1.0)?;
        within("betas.1", self.betas.1, 0.0, 1.0)?;
        within("eps", self.eps, 0.0, f64::INFINITY)?;
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)
    }

    /// `p - lr * m_hat / (sqrt(v_hat) + eps)` in PyTorch's order, and the new averages.
    fn step(&self, cx: &UpdateContext, param: Handle, grad: Handle) -> Updated {
        let (b1, b2) = self.betas;
        let m = cx.stored(0, average(cx.slots[0], grad, b1));
        let v = cx.stored(1, average(cx.slots[1], ew::mul(grad, grad), b2));
        let size = ew::div(cx.lr, bias_correction(b1, cx.step));
        let root = ew::unary(UnaryKind::Sqrt, bias_correction(b2, cx.step));
        let denominator = ew::add(ew::div(ew::unary(UnaryKind::Sqrt, v), root), leaf::scalar(self.eps));
        let param = ew::sub(param, ew::mul(ew::div(m, denominator), size));
        Updated { param, slots: vec![m, v] }
    }
}

macro_rules! settings {
    ($ty:ident) => {
        impl $ty {
            /// The decay of the averages of gradients and of their squares: (0.9, 0.999) unless set.
            #[must_use]
            pub fn betas(mut self, first: f64, second: f64) -> Self {
                self.0.betas = (first, second);
                self
            }

            /// What is added to the root of the second moment: 1e-8 unless set.
            #[must_use]
            pub fn eps(mut self, eps: f64) -> Self {
                self.0.eps = eps;
                self
            }
        }
    };
}

/// Adaptive moments (Kingma and Ba 2015). PyTorch: `torch.optim.Adam`.
///
/// ```text
/// g = g + weight_decay * p
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * g^2
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
/// ```
#[derive(Clone, Debug)]
pub struct Adam(Moments);
settings!(Adam);

impl Adam {
    /// Betas 0.9 and 0.999, eps 1e-8, no decay.
    pub fn new(lr: f64) -> Adam {
        Adam(Moments { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 })
    }

    /// Adds `weight_decay * p` to the gradient (L2 regularisation; [`AdamW`] decouples it).
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Adam {
        self.0.weight_decay = weight_decay;
        self
    }
}

impl Optimizer for Adam {
    fn name(&self) -> &'static str {
        "Adam"
    }
    fn learning_rate(&self) -> f64 {
        self.0.lr
    }
    fn decay(&self) -> f64 {
        self.0.weight_decay
    }
    fn validate(&self) -> Result<(), String> {
        self.0.validate()
    }
    fn slots(&self, target: Target) -> Vec<Slot> {
        ["adam.exp_avg", "adam.exp_avg_sq"].map(|name| Slot::zeros(name, target.ty.clone())).into()
    }
    fn update(&self, cx: &UpdateContext) -> Updated {
        let decay = match cx.weight_decay {
            0.0 => cx.grad,
            decay => ew::add(cx.grad, ew::scale(cx.param, decay)),
        };
        self.0.step(cx, cx.param, decay)
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019). PyTorch: `torch.optim.AdamW`.
///
/// ```text
/// p = p * (1 - lr * weight_decay)
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * g^2
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
/// ```
#[derive(Clone, Debug)]
pub struct AdamW(Moments);
settings!(AdamW);

impl AdamW {
    /// Betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, as in PyTorch.
    pub fn new(lr: f64) -> AdamW {
        AdamW(Moments { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 })
    }

    /// Shrinks parameters by `lr * weight_decay` at every step: 0.01 unless set. Groups may
    /// exempt norms and biases.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> AdamW {
        self.0.weight_decay = weight_decay;
        self
    }
}

impl Optimizer for AdamW {
    fn name(&self) -> &'static str {
        "AdamW"
    }
    fn learning_rate(&self) -> f64 {
        self.0.lr
    }
    fn decay(&self) -> f64 {
        self.0.weight_decay
    }
    fn validate(&self) -> Result<(), String> {
        self.0.validate()
    }
    fn slots(&self, target: Target) -> Vec<Slot> {
        ["adamw.exp_avg", "adamw.exp_avg_sq"].map(|name| Slot::zeros(name, target.ty.clone())).into()
    }
    fn update(&self, cx: &UpdateContext) -> Updated {
        self.0.step(cx, decayed(cx), cx.grad)
    }
}
