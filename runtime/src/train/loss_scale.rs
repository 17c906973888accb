//! Dynamic scaling of the loss: what keeps small gradients above the least numbers of 16 bits.
//!
//! The scale and two counters are states of the step. Its program multiplies the loss by the scale
//! before gradients are taken, divides gradients by it behind the backward pass, and chooses the
//! next scale by whether they are finite: see [`LossScale`] for the rules (Megatron-LM's
//! `DynamicGradScaler`). Unlike all else these are updated by steps that are not.

use super::step::{read, state};
use crate::graph::trace::{self, Handle};
use crate::graph::{DType, TensorType, Value, VarDecl};
use crate::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use crate::ops::leaf;
use crate::transforms::precision::LossScale;

/// The states of a loss's scale.
pub(super) struct Scaling {
    rules: LossScale,
    pub scale: VarDecl,
    /// Finite steps in a row.
    good: VarDecl,
    /// Steps that are not finite until the scale falls.
    left: VarDecl,
}

impl Scaling {
    pub fn new(rules: LossScale) -> Scaling {
        let number = |slot: &str, init: f64| state("loss_scale", slot, TensorType::new(vec![], DType::F32), init);
        Scaling {
            rules,
            scale: number("scale", rules.initial),
            good: number("finite_steps", 0.0),
            left: number("hysteresis", rules.hysteresis.into()),
        }
    }

    /// The loss that gradients are taken of.
    pub fn scaled(&self, loss: Value) -> Value {
        trace::value(ew::mul(trace::handle(loss), read(&self.scale)))
    }

    /// The gradients of the loss itself.
    pub fn unscaled(&self, grads: &[Value]) -> Vec<Value> {
        let back = ew::div(leaf::scalar(1.0), read(&self.scale));
        grads.iter().map(|g| trace::value(ew::mul(trace::handle(*g), back))).collect()
    }

    /// Chooses the next scale.
    pub fn update(&self, finite: Handle) {
        let number = leaf::scalar;
        let (scale, good, left) = (read(&self.scale), read(&self.good), read(&self.left));
        let more = ew::select(finite, ew::add(good, number(1.0)), number(0.0));
        let grow = ew::compare(CompareKind::Ge, more, number(self.rules.window.into()));
        let less = ew::select(finite, left, ew::sub(left, number(1.0)));
        let out = ew::compare(CompareKind::Le, less, number(0.0));
        let kept = ew::select(finite, scale, ew::maximum(ew::scale(scale, 0.5), number(self.rules.least)));
        let kept = ew::select(out, kept, scale);
        trace::update(self.scale.id, ew::select(grow, ew::scale(scale, 2.0), kept));
        trace::update(self.good.id, ew::select(grow, number(0.0), more));
        let full = number(self.rules.hysteresis.into());
        trace::update(self.left.id, ew::select(grow, full, ew::binary(BinaryKind::Max, less, number(0.0))));
    }
}
