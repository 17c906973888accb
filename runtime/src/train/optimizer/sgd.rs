//! Stochastic gradient descent.

use super::{Optimizer, Slot, Target, UpdateContext, Updated, within};
use crate::ops::elementwise::{self as ew, CompareKind};
use crate::ops::leaf;

/// Gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form).
/// PyTorch: `torch.optim.SGD`.
///
/// ```text
/// g = g + weight_decay * p
/// b = g                                   at the first step
/// b = momentum * b + (1 - dampening) * g  afterwards
/// p = p - lr * (nesterov ? g + momentum * b : b)
/// ```
#[derive(Clone, Debug)]
pub struct Sgd {
    lr: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Sgd {
        Sgd { lr, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// Keeps a moving sum of gradients: 0.9 is common.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Sgd {
        self.momentum = momentum;
        self
    }

    /// Takes only `1 - dampening` of every gradient after the first into the moving sum.
    #[must_use]
    pub fn dampening(mut self, dampening: f64) -> Sgd {
        self.dampening = dampening;
        self
    }

    /// Looks one momentum step ahead (Nesterov 1983). Needs momentum and no dampening.
    #[must_use]
    pub fn nesterov(mut self) -> Sgd {
        self.nesterov = true;
        self
    }

    /// Adds `weight_decay * p` to the gradient (L2 regularisation).
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Sgd {
        self.weight_decay = weight_decay;
        self
    }
}

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "Sgd"
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn decay(&self) -> f64 {
        self.weight_decay
    }

    fn validate(&self) -> Result<(), String> {
        within("lr", self.lr, 0.0, f64::INFINITY)?;
        within("momentum", self.momentum, 0.0, f64::INFINITY)?;
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err("Nesterov momentum needs a momentum and no dampening".into());
        }
        Ok(())
    }

    fn slots(&self, target: Target) -> Vec<Slot> {
        match self.momentum {
            0.0 => vec![],
            _ => vec![Slot::zeros("sgd.momentum_buffer", target.ty.clone())],
        }
    }

    fn update(&self, cx: &UpdateContext) -> Updated {
        let mut g = cx.grad;
        if cx.weight_decay != 0.0 {
            g = ew::add(g, ew::scale(cx.param, cx.weight_decay));
        }
        let mut slots = vec![];
        if let Some(buffer) = cx.slots.first() {
            let fresh = match self.dampening {
                0.0 => g,
                // The first gradient is taken whole.
                d => {
                    let first = ew::compare(CompareKind::Eq, cx.step, leaf::scalar(1.0));
                    ew::mul(g, ew::select(first, leaf::scalar(1.0), leaf::scalar(1.0 - d)))
                }
            };
            let buffer = cx.stored(0, ew::add(ew::scale(*buffer, self.momentum), fresh));
            slots.push(buffer);
            g = if self.nesterov { ew::add(g, ew::scale(buffer, self.momentum)) } else { buffer };
        }
        Updated { param: ew::sub(cx.param, ew::mul(g, cx.lr)), slots }
    }
}
