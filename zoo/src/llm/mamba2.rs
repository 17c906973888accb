//! Mamba-2: Mamba's recurrence in heads, with one decay a head.
//!
//! Dao and Gu 2024 (<https://arxiv.org/abs/2405.21060>). As Hugging Face's `modeling_mamba2.py`: all
//! that the scan needs comes from one projection, the convolution mixes its inputs too, and the result
//! is normed within each group behind the gate, as `mamba_ssm` does it (transformers before 5 normed
//! all groups together). Step sizes are kept within `time_step_limit` in every step, those of single
//! tokens included, so that a text gives the same however it is cut.

use super::block::{Layer, Stream};
use super::config::{Config, ConfigError};
use super::mamba::{conv, inner, linear, window};
use super::recurrent::{MambaLm, WindowConv, per_head};
use super::{Batch, Context, Time};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::language::axis::{Prod, Sum};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::nn::{Activation, Linear};
use mobilis_runtime::ops::{elementwise as ew, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Mamba-2 may choose.
    pub trait Mamba2Axes {
        /// Tokens.
        Vocab,
        /// The width of the stream.
        Hidden,
        /// Groups of heads that share the states' inputs and outputs.
        StateGroups,
        /// Heads of a group.
        PerGroup,
        /// Channels of a head.
        HeadDim,
        /// States of a channel.
        StateSize,
        /// Positions that the convolution sees before its own.
        Window,
    }
    /// A Mamba-2 of sizes from a `config.json`.
    pub struct AnyMamba2: Mamba2Axes;
}

/// All heads.
pub type Heads<A> = Prod<<A as Mamba2Axes>::StateGroups, <A as Mamba2Axes>::PerGroup>;
/// Channels of the mixer.
pub type Inner<A> = Prod<Heads<A>, <A as Mamba2Axes>::HeadDim>;
/// The states' inputs, or outputs, of all groups.
pub type GroupStates<A> = Prod<<A as Mamba2Axes>::StateGroups, <A as Mamba2Axes>::StateSize>;
/// What the convolution mixes: channels, and the states' inputs and outputs.
pub type Mixed<A> = Sum<Inner<A>, Prod<Const<2>, GroupStates<A>>>;
/// What one projection gives: the gate, what is mixed, step sizes.
pub type Projected<A> = Sum<Inner<A>, Sum<Mixed<A>, Heads<A>>>;

/// A norm within groups, behind a gate: `norm(x * silu(gate)) * weight`.
#[neural_module]
pub struct GatedNorm<A: Mamba2Axes> {
    /// `[Inner]`
    #[init(ones())]
    pub weight: Param<(Inner<A>,)>,
    /// Added to the mean square.
    #[default(1e-5)]
    pub eps: f64,
}

#[neural_module]
impl<A: Mamba2Axes> GatedNorm<A> {
    /// `[Batch, Time, Inner]` to the same.
    pub fn forward(&self, x: Stream<Inner<A>>, gate: Stream<Inner<A>>) -> Stream<Inner<A>> {
        let x: Tensor<(Batch, Time, A::StateGroups, Prod<A::PerGroup, A::HeadDim>)> = (x * gate.silu()).reshape();
        let x: Stream<Inner<A>> = x.rms_norm(None, self.eps).reshape();
        x * self.weight.get()
    }
}

/// The selective state space with its convolution, its gate and its norm.
#[neural_module(no_default)]
pub struct Mixer<A: Mamba2Axes> {
    /// The gate, what is mixed, step sizes.
    pub in_proj: Linear<A::Hidden, Projected<A>>,
    /// Mixes a few positions.
    pub conv1d: WindowConv<Mixed<A>, A::Window>,
    /// Added to step sizes.
    pub dt_bias: Param<(Heads<A>,)>,
    /// The logarithm of the heads' decays.
    #[name("A_log")]
    pub a_log: Param<(Heads<A>,)>,
    /// The norm.
    pub norm: GatedNorm<A>,
    /// How much of the input passes the states by.
    #[name("D")]
    pub d: Param<(Heads<A>,)>,
    /// Back to the stream.
    pub out_proj: Linear<Inner<A>, A::Hidden>,
    /// What follows the convolution.
    #[hyper]
    pub activation: Activation,
    /// The least and the largest step size.
    #[hyper]
    pub limit: (f64, f64),
}

impl<A: Mamba2Axes> Mixer<A> {
    /// Features `from..` of `x`, as many as `D` has.
    fn part<D: Axis>(x: Handle, from: Extent) -> Stream<D> {
        Tensor::from_raw(slice::slice(x, 2, from, 1, D::dim()))
    }

    /// Step sizes of all heads.
    fn steps(&self, dt: Stream<Heads<A>>) -> Stream<Heads<A>> {
        let dt = (dt + self.dt_bias.get()).softplus();
        let (least, most) = self.limit;
        let dt = if least > 0.0 { dt.maximum(least) } else { dt };
        if most.is_finite() { dt.minimum(most) } else { dt }
    }
}

#[neural_module]
impl<A: Mamba2Axes> Mixer<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        type Inputs<A> = Tensor<(Batch, Time, Heads<A>, <A as Mamba2Axes>::HeadDim)>;
        type States<A> = Tensor<(Batch, Time, <A as Mamba2Axes>::StateGroups, <A as Mamba2Axes>::StateSize)>;
        let all = self.in_proj.forward(x).raw();
        let (zero, inner) = (Extent::constant(0), <Inner<A>>::extent());
        let gate = Self::part::<Inner<A>>(all, zero.clone());
        let mixed = self.conv1d.forward(Self::part::<Mixed<A>>(all, inner.clone()), cx);
        let mixed = self.activation.apply(mixed.raw());
        let dt = Self::part::<Heads<A>>(all, Extent::add(inner.clone(), <Mixed<A>>::extent()));
        let x: Inputs<A> = Self::part::<Inner<A>>(mixed, zero).reshape();
        let b: States<A> = Self::part::<GroupStates<A>>(mixed, inner.clone()).reshape();
        let behind = Extent::add(inner, <GroupStates<A>>::extent());
        let c: States<A> = Self::part::<GroupStates<A>>(mixed, behind).reshape();
        let a: Tensor<(Heads<A>,)> = Tensor::from_raw(ew::neg(ew::exp(self.a_log.get().raw())));
        let carried = cx.carried::<(Batch, Heads<A>, A::HeadDim, A::StateSize)>("state");
        let state = carried.as_ref().map_or_else(Tensor::zeros, |c| c.value);
        let (y, last) = x.ssm(self.steps(dt), a, [b, c], state, cx.count());
        if let Some(carried) = carried {
            carried.set(last);
        }
        let y = y + per_head(x, self.d.get());
        self.out_proj.forward(self.norm.forward(y.reshape(), gate))
    }
}

impl<A: Mamba2Axes> Layer<A::Hidden> for Mixer<A> {
    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// The language model.
pub type Mamba2<A> = MambaLm<<A as Mamba2Axes>::Vocab, <A as Mamba2Axes>::Hidden, Mixer<A>>;

/// The sizes that a configuration gives to the axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: Mamba2Axes>(config: &Config) -> Result<Sizes, ConfigError> {
    let (heads, dim) = (config.size("num_heads")?, config.size("head_dim")?);
    let inner = inner(config)?;
    if heads.checked_mul(dim) != Some(inner) {
        return Err(config.wrong("num_heads", format!("a number that makes {inner} channels with {dim} a head")));
    }
    let groups = config.count("n_groups")?.unwrap_or(8);
    if groups == 0 || !heads.is_multiple_of(groups) {
        return Err(config.wrong("n_groups", format!("a divisor of the {heads} heads")));
    }
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::StateGroups>(groups)
        .with::<A::PerGroup>(heads / groups)
        .with::<A::HeadDim>(dim)
        .with::<A::StateSize>(config.count("state_size")?.unwrap_or(128))
        .with::<A::Window>(window(config)?))
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn mamba2<A: Mamba2Axes>(config: &Config) -> Result<Mamba2<A>, ConfigError> {
    let bias = config.flag("use_bias", false)?;
    let activation = config.activation("hidden_act", "silu")?;
    let eps = config.number("layer_norm_epsilon", 1e-5)?;
    let limit = match config.numbers("time_step_limit")?.as_deref() {
        None => (0.0, f64::INFINITY),
        Some([least, most]) if least <= most => (*least, *most),
        Some(_) => return Err(config.wrong("time_step_limit", "the least and the largest step size")),
    };
    let mixer = || {
        Ok(Mixer {
            in_proj: linear(bias),
            conv1d: conv(config)?,
            dt_bias: Param::new(Init::Ones),
            a_log: Param::new(Init::Zeros),
            norm: GatedNorm { eps, ..GatedNorm::default() },
            d: Param::new(Init::Ones),
            out_proj: linear(bias),
            activation,
            limit,
        })
    };
    let mixers = (0..config.layers()?).map(|_| mixer()).collect::<Result<_, ConfigError>>()?;
    Ok(MambaLm::new(mixers, eps, config.flag("tie_word_embeddings", false)?))
}
