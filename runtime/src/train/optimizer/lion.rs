//! Lion.

use super::{Optimizer, Slot, Target, UpdateContext, Updated, average, decayed, within};
use crate::ops::elementwise::{self as ew, UnaryKind};

/// Evolved sign momentum (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms",
/// program 1). Learning rates are three to ten times smaller than AdamW's, weight decays as
/// much larger.
///
/// ```text
/// p = p * (1 - lr * weight_decay)
/// p = p - lr * sign(beta1 * m + (1 - beta1) * g)
/// m = beta2 * m + (1 - beta2) * g
/// ```
#[derive(Clone, Debug)]
pub struct Lion {
    lr: f64,
    betas: (f64, f64),
    weight_decay: f64,
}

impl Lion {
    /// Betas 0.9 and 0.99, no decay.
    pub fn new(lr: f64) -> Lion {
        Lion { lr, betas: (0.9, 0.99), weight_decay: 0.0 }
    }

    /// How much of the old average the step and the new average keep: (0.9, 0.99) unless set.
    #[must_use]
    pub fn betas(mut self, step: f64, average: f64) -> Lion {
        self.betas = (step, average);
        self
    }

    /// Shrinks parameters by `lr * weight_decay` at every step.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Lion {
        self.weight_decay = weight_decay;
        self
    }
}

impl Optimizer for Lion {
    fn name(&self) -> &'static str {
        "Lion"
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
        within("weight_decay", self.weight_decay, 0.0, f64::INFINITY)
    }

    fn slots(&self, target: Target) -> Vec<Slot> {
        vec![Slot::zeros("lion.exp_avg", target.ty.clone())]
    }

    fn update(&self, cx: &UpdateContext) -> Updated {
        let direction = ew::unary(UnaryKind::Sign, average(cx.slots[0], cx.grad, self.betas.0));
        Updated {
            param: ew::sub(decayed(cx), ew::mul(direction, cx.lr)),
            slots: vec![cx.stored(0, average(cx.slots[0], cx.grad, self.betas.1))],
        }
    }
}
