//! Optimizers as graph updates: for every parameter, new values from the gradient.
//!
//! An [`Optimizer`] says which [`Slot`]s (moments) it keeps for a parameter and builds, from
//! handles of the parameter, its gradient and the slots, their new values. It runs inside the
//! trace that [`build_step`](super::build_step) extends and uses the same untyped operations as
//! gradient rules, so every device that computes gradients can also train.
//!
//! Each file states its formulas in the notation `p` (parameter), `g` (gradient), `t` (step,
//! from 1), and says which paper and which implementation fix the order of operations.

mod adafactor;
mod adam;
mod lion;
mod muon;
mod novograd;
mod sgd;

pub use adafactor::Adafactor;
pub use adam::{Adam, AdamW};
pub use lion::Lion;
pub use muon::{Muon, MuonScale};
pub use novograd::NovoGrad;
pub use sgd::Sgd;

use crate::graph::TensorType;
use crate::graph::trace::Handle;
use crate::ops::elementwise::{self as ew, BinaryKind, UnaryKind};
use crate::ops::{leaf, reduce};

/// The parameter that an optimizer is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its checkpoint name.
    pub name: &'a str,
    /// Its type.
    pub ty: &'a TensorType,
}

/// A value that an optimizer keeps between steps for one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The name behind the parameter's: `adamw.exp_avg`.
    pub name: &'static str,
    /// Its type.
    pub ty: TensorType,
    /// The value that it starts with, everywhere.
    pub init: f64,
}

impl Slot {
    /// A slot that starts at zero.
    pub fn zeros(name: &'static str, ty: TensorType) -> Slot {
        Slot { name, ty, init: 0.0 }
    }
}

/// What an update is computed from.
pub struct UpdateContext<'a> {
    /// Which parameter.
    pub target: Target<'a>,
    /// Its value.
    pub param: Handle,
    /// Its gradient, after clipping.
    pub grad: Handle,
    /// The slots, in the order of [`Optimizer::slots`].
    pub slots: Vec<Handle>,
    /// The learning rate of this step and group: a real scalar.
    pub lr: Handle,
    /// The number of this step, from 1: a real scalar.
    pub step: Handle,
    /// The weight decay of the parameter's group.
    pub weight_decay: f64,
    /// Whether loss and gradients are finite: a truth value. Where they are not, the step changes
    /// nothing.
    pub finite: Handle,
}

impl UpdateContext<'_> {
    /// The new value of a slot for the rest of the update: `new`, or the old value if the step
    /// changes nothing. With it the slot is updated in place; slots that an optimizer does not
    /// pass through here are guarded all the same, at the cost of a copy.
    pub fn stored(&self, slot: usize, new: Handle) -> Handle {
        ew::select(self.finite, new, self.slots[slot])
    }
}

/// What an update gives.
pub struct Updated {
    /// The parameter's new value.
    pub param: Handle,
    /// The slots' new values, in order.
    pub slots: Vec<Handle>,
}

/// A rule that turns gradients into new parameters.
pub trait Optimizer {
    /// The name in graphs and profiles: `AdamW`.
    fn name(&self) -> &'static str;
    /// The learning rate that a schedule's factor of 1 means.
    fn learning_rate(&self) -> f64;
    /// The weight decay of parameters whose group does not set one.
    fn decay(&self) -> f64;
    /// What it keeps for a parameter.
    fn slots(&self, target: Target) -> Vec<Slot>;
    /// Builds the new values.
    fn update(&self, cx: &UpdateContext) -> Updated;
    /// What is wrong with its settings, in words.
    ///
    /// # Errors
    /// A setting outside its range.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }
    fn decay(&self) -> f64 {
        (**self).decay()
    }
    fn slots(&self, target: Target) -> Vec<Slot> {
        (**self).slots(target)
    }
    fn update(&self, cx: &UpdateContext) -> Updated {
        (**self).update(cx)
    }
    fn validate(&self) -> Result<(), String> {
        (**self).validate()
    }
}

/// Checks a setting against a range, for [`Optimizer::validate`].
fn within(name: &str, value: f64, low: f64, below: f64) -> Result<(), String> {
    if (low..below).contains(&value) {
        return Ok(());
    }
    let bound = if below == f64::INFINITY { String::new() } else { format!(" and less than {below}") };
    Err(format!("`{name}` is {value}; it must be at least {low}{bound}"))
}

/// `keep * old + (1 - keep) * new`
fn average(old: Handle, new: Handle, keep: f64) -> Handle {
    ew::add(ew::scale(old, keep), ew::scale(new, 1.0 - keep))
}

/// `p * (1 - lr * decay)`, the decoupled decay of Loshchilov and Hutter 2019.
fn decayed(cx: &UpdateContext) -> Handle {
    if cx.weight_decay == 0.0 {
        return cx.param;
    }
    ew::mul(cx.param, ew::sub(leaf::scalar(1.0), ew::scale(cx.lr, cx.weight_decay)))
}

/// `1 - base^step`, the bias correction of a moving average that started at zero.
///
/// Written as `-expm1(x) = -2 tanh(x/2) / (1 - tanh(x/2))` with `x = step * ln(base)`: the plain
/// difference loses four digits in single precision for `base = 0.999` and small steps.
fn bias_correction(base: f64, step: Handle) -> Handle {
    if base == 0.0 {
        return leaf::scalar(1.0);
    }
    let half = ew::unary(UnaryKind::Tanh, ew::scale(step, 0.5 * base.ln()));
    ew::div(ew::scale(half, -2.0), ew::sub(leaf::scalar(1.0), half))
}

/// The root of the mean square of all values.
fn rms(x: Handle) -> Handle {
    let all: Vec<usize> = (0..crate::graph::trace::type_of(x).rank()).collect();
    ew::unary(UnaryKind::Sqrt, reduce::mean(ew::mul(x, x), &all))
}

/// `max(x, bound)`
fn at_least(x: Handle, bound: f64) -> Handle {
    ew::binary(BinaryKind::Max, x, ew::constant_like(x, bound))
}
