//! Mamba: a recurrence whose step, input and output depend on the token, instead of attention.
//!
//! Gu and Dao 2023 (<https://arxiv.org/abs/2312.00752>). As Hugging Face's `modeling_mamba.py`. A
//! session carries two values a layer from call to call, whatever the length of the text: the last
//! inputs of the convolution and the state of the scan ([`mobilis_runtime::ops::ssm`]).

use super::block::{Layer, Stream};
use super::config::{Config, ConfigError};
use super::recurrent::{MambaLm, WindowConv};
use super::{Batch, Context, Time};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::language::axis::{Prod, Sum};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::nn::{Activation, Linear};
use mobilis_runtime::ops::{elementwise as ew, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Mamba may choose.
    pub trait MambaAxes {
        /// Tokens.
        Vocab,
        /// The width of the stream.
        Hidden,
        /// Channels of the mixer.
        Inner,
        /// States of a channel.
        StateSize,
        /// The width from which step sizes are projected.
        StepRank,
        /// Positions that the convolution sees before its own.
        Window,
    }
    /// A Mamba of sizes from a `config.json`.
    pub struct AnyMamba: MambaAxes;
}

/// The selective state space with its convolution and its gate.
#[neural_module(no_default)]
pub struct Mixer<A: MambaAxes> {
    /// What goes into the states, and the gate.
    pub in_proj: Linear<A::Hidden, Prod<Const<2>, A::Inner>>,
    /// Mixes a few positions.
    pub conv1d: WindowConv<A::Inner, A::Window>,
    /// Step sizes, inputs and outputs of the states.
    pub x_proj: Linear<A::Inner, Sum<A::StepRank, Prod<Const<2>, A::StateSize>>>,
    /// Step sizes of all channels.
    pub dt_proj: Linear<A::StepRank, A::Inner>,
    /// The logarithm of the states' decays.
    #[name("A_log")]
    pub a_log: Param<(A::Inner, A::StateSize)>,
    /// How much of the input passes the states by.
    #[name("D")]
    pub d: Param<(A::Inner,)>,
    /// Back to the stream.
    pub out_proj: Linear<A::Inner, A::Hidden>,
    /// What follows the convolution.
    #[hyper]
    pub activation: Activation,
}

/// Channels as heads of one channel each.
type Channels<A> = Tensor<(Batch, Time, <A as MambaAxes>::Inner, Const<1>)>;
/// Inputs and outputs of states, one group.
type States<A> = Tensor<(Batch, Time, Const<1>, <A as MambaAxes>::StateSize)>;

#[neural_module]
impl<A: MambaAxes> Mixer<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        let both = self.in_proj.forward(x);
        let half = |from| Stream::<A::Inner>::from_raw(slice::slice(both.raw(), 2, from, 1, A::Inner::dim()));
        let (x, gate) = (half(Extent::constant(0)), half(A::Inner::extent()));
        let x = self.conv1d.forward(x, cx);
        let x: Stream<A::Inner> = Tensor::from_raw(self.activation.apply(x.raw()));
        let (dt, states) =
            self.x_proj.forward(x).split(Sum::AXIS, A::StepRank::AXIS, <Prod<Const<2>, A::StateSize>>::AXIS);
        let dt: Stream<A::Inner> = self.dt_proj.forward(dt).softplus();
        let of = |from| -> States<A> {
            let part = slice::slice(states.raw(), 2, from, 1, A::StateSize::dim());
            Stream::<A::StateSize>::from_raw(part).reshape()
        };
        let (b, c) = (of(Extent::constant(0)), of(A::StateSize::extent()));
        let a: Tensor<(A::Inner, A::StateSize)> = Tensor::from_raw(ew::neg(ew::exp(self.a_log.get().raw())));
        let carried = cx.carried::<(Batch, A::Inner, Const<1>, A::StateSize)>("state");
        let state = carried.as_ref().map_or_else(Tensor::zeros, |c| c.value);
        let inputs: Channels<A> = x.reshape();
        let (y, last) = inputs.ssm(dt, a, [b, c], state, cx.count());
        if let Some(carried) = carried {
            carried.set(last);
        }
        let y: Stream<A::Inner> = y.reshape();
        self.out_proj.forward((y + x * self.d.get()) * gate.silu())
    }
}

impl<A: MambaAxes> Layer<A::Hidden> for Mixer<A> {
    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// The language model.
pub type Mamba<A> = MambaLm<<A as MambaAxes>::Vocab, <A as MambaAxes>::Hidden, Mixer<A>>;

/// `expand` times the width of the stream.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn inner(config: &Config) -> Result<usize, ConfigError> {
    let hidden = config.size("hidden_size")?;
    let inner = (config.number("expand", 2.0)? * hidden as f64).floor();
    if !(1.0..=(1u64 << 32) as f64).contains(&inner) {
        return Err(config.wrong("expand", format!("a positive factor on the {hidden} features")));
    }
    Ok(inner as usize)
}

/// Positions that the convolution sees before its own.
///
/// # Errors
/// Another kind of value, or more than 1024.
pub fn window(config: &Config) -> Result<usize, ConfigError> {
    match config.count("conv_kernel")?.unwrap_or(4) {
        n @ 1..=1024 => Ok(n - 1),
        _ => Err(config.wrong("conv_kernel", "a whole number from 1 to 1024")),
    }
}

/// The sizes that a configuration gives to the axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: MambaAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let hidden = config.size("hidden_size")?;
    let rank = match config.get("time_step_rank").map(|v| v.as_str()) {
        None | Some(Some("auto")) => hidden.div_ceil(16),
        Some(_) => config.size("time_step_rank")?,
    };
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(hidden)
        .with::<A::Inner>(inner(config)?)
        .with::<A::StateSize>(config.count("state_size")?.unwrap_or(16))
        .with::<A::StepRank>(rank)
        .with::<A::Window>(window(config)?))
}

/// A linear layer with or without a bias.
pub(super) fn linear<I: Axis, O: Axis>(bias: bool) -> Linear<I, O> {
    if bias { Linear::default() } else { Linear::default().no_bias() }
}

/// The convolution, with or without a bias.
pub(super) fn conv<C: Axis, W: Axis>(config: &Config) -> Result<WindowConv<C, W>, ConfigError> {
    let mut conv = WindowConv::default();
    if !config.flag("use_conv_bias", true)? {
        conv.bias = None;
    }
    Ok(conv)
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn mamba<A: MambaAxes>(config: &Config) -> Result<Mamba<A>, ConfigError> {
    let bias = config.flag("use_bias", false)?;
    let activation = config.activation("hidden_act", "silu")?;
    let mixer = || {
        Ok(Mixer {
            in_proj: linear(bias),
            conv1d: conv(config)?,
            x_proj: linear(false),
            dt_proj: linear(true),
            a_log: Param::new(Init::Zeros),
            d: Param::new(Init::Ones),
            out_proj: linear(bias),
            activation,
        })
    };
    let mixers = (0..config.layers()?).map(|_| mixer()).collect::<Result<_, ConfigError>>()?;
    Ok(MambaLm::new(mixers, config.number("layer_norm_epsilon", 1e-5)?, config.flag("tie_word_embeddings", true)?))
}
