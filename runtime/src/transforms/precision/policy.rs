//! The policy: what is computed how.

use super::recipe::Recipe;
use crate::module::pattern;

/// How a product is computed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Compute {
    /// In single precision.
    #[default]
    F32,
    /// From operands rounded to bf16.
    Bf16,
    /// From operands rounded to IEEE 754's 16 bits.
    F16,
    /// Linear layers from operands in eight bits, other products in bf16.
    Fp8(Recipe),
}

impl Compute {
    /// What other products than those of linear layers are computed in.
    pub fn high(self) -> Compute {
        match self {
            Compute::Fp8(_) => Compute::Bf16,
            other => other,
        }
    }
}

/// Dynamic scaling of the loss, for gradients in [`F16`](Compute::F16) (Micikevicius et al. 2018):
/// gradients are taken of the loss times a scale and divided by it before anything else reads them.
/// Where they are not finite the step changes nothing; after `hysteresis` such steps the scale is
/// halved, at each further one again; after `window` finite steps in a row it is doubled, and the
/// steps to wait for start anew. These are Megatron-LM's rules with NeMo's numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LossScale {
    /// The first scale.
    pub initial: f64,
    /// Finite steps in a row that double it.
    pub window: u32,
    /// Steps that are not finite until it is halved.
    pub hysteresis: u32,
    /// The smallest scale: with it a step that is not finite is an error.
    pub least: f64,
}

impl Default for LossScale {
    /// 2^32, 1000 steps, 2 steps, 1.
    fn default() -> Self {
        LossScale { initial: 4_294_967_296.0, window: 1000, hysteresis: 2, least: 1.0 }
    }
}

/// A policy: how each class of operations is computed, with exceptions by name.
///
/// ```
/// use mobilis_runtime::precision::{Compute, Precision, Recipe};
/// // FP8 with the scales of the values at hand; the first and the last block and what
/// // feeds attention's output stay bf16.
/// let precision = Precision::fp8(Recipe::current()).edges(1, 1).except("**.o_proj.*", Compute::Bf16);
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Precision {
    pub(super) compute: Compute,
    pub(super) exceptions: Vec<(String, Compute)>,
    pub(super) edges: (usize, usize),
    pub(super) head: Option<Compute>,
    pub(super) by_weight: Option<Compute>,
    pub(super) loss_scale: LossScale,
}

impl From<Compute> for Precision {
    fn from(compute: Compute) -> Precision {
        Precision::new(compute)
    }
}

impl Precision {
    /// Every class as the [table](super) says for `compute`.
    pub fn new(compute: Compute) -> Precision {
        Precision { compute, ..Precision::default() }
    }

    /// Linear layers in eight bits by a recipe, other products in bf16.
    pub fn fp8(recipe: Recipe) -> Precision {
        Precision::new(Compute::Fp8(recipe))
    }

    /// Computes linear layers whose weights' names match a [`pattern`] in another way. Of several
    /// patterns that match, the last decides; it goes before all other rules.
    #[must_use]
    pub fn except(mut self, pattern: impl Into<String>, compute: Compute) -> Precision {
        self.exceptions.push((pattern.into(), compute));
        self
    }

    /// Keeps the `first` and the `last` layers out of eight bits. Layers are what the first number in
    /// a parameter's name counts (`blocks.3.mlp.up.weight`), for each text before it by itself.
    #[must_use]
    pub fn edges(mut self, first: usize, last: usize) -> Precision {
        self.edges = (first, last);
        self
    }

    /// How heads and routers are computed: linear layers whose result is a cross-entropy's logits or
    /// is sorted, whose weight is an embedding's table, or that are called `head` or `lm_head`. In
    /// bf16 beside FP8 unless this says otherwise.
    #[must_use]
    pub fn head(mut self, compute: Compute) -> Precision {
        self.head = Some(compute);
        self
    }

    /// How the gradients by weights are computed that FP8 would compute (torchao's
    /// `rowwise_with_gw_hp` has bf16).
    #[must_use]
    pub fn gradients_by_weights(mut self, compute: Compute) -> Precision {
        self.by_weight = Some(compute);
        self
    }

    /// The scaling of the loss for `F16`.
    #[must_use]
    pub fn loss_scale(mut self, scale: LossScale) -> Precision {
        self.loss_scale = scale;
        self
    }

    /// How products are computed that no other rule is about.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Whether everything is computed in single precision.
    pub fn is_single(&self) -> bool {
        let single = |c: &Compute| *c == Compute::F32;
        single(&self.compute) && self.head.iter().all(single) && self.exceptions.iter().all(|e| single(&e.1))
    }

    /// How the loss is scaled, where gradients are computed in `F16`.
    pub fn scales_loss(&self) -> Option<LossScale> {
        let half = |c: &Compute| *c == Compute::F16;
        let any = half(&self.compute) || self.head.iter().any(half) || self.exceptions.iter().any(|e| half(&e.1));
        any.then_some(self.loss_scale)
    }

    /// What an exception says of a name.
    pub(super) fn exception(&self, name: &str) -> Option<Compute> {
        self.exceptions.iter().rev().find(|(p, _)| pattern::matches(p, name)).map(|(_, compute)| *compute)
    }

    /// The first exception that is about none of these names.
    pub(super) fn stray<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let stray = |e: &&(String, Compute)| !names.clone().any(|n| pattern::matches(&e.0, n));
        self.exceptions.iter().find(stray).map(|(p, _)| p.as_str())
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let all = [Some(self.compute), self.head, self.by_weight].into_iter().flatten();
        for compute in all.chain(self.exceptions.iter().map(|e| e.1)) {
            if let Compute::Fp8(recipe) = compute {
                recipe.validate()?;
            }
        }
        let LossScale { initial, window, hysteresis, least } = self.loss_scale;
        let ordered = least > 0.0 && initial >= least && (initial as f32).is_finite();
        match ordered && window > 0 && hysteresis > 0 {
            true => Ok(()),
            false => Err(format!(
                "the loss is scaled by {initial}, at least {least}, over {window} and {hysteresis} steps; \
                 scales must be positive and the first one no smaller than the least, steps 1 or more"
            )),
        }
    }
}
