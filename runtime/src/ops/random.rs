//! Random values, counter-based: each is a function of the seed, the program's step, the
//! operation and its position, so every device and every number of threads gives the same.
//!
//! The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
//! 2, 3"). The seed and the step are the program's state `rng` (see
//! [`trace::rng`]); operation number `stream` of a trace draws its
//! values in row-major order, so a value does not depend on the sizes of other operations.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Hidden = 64; Vocab = 256; }
//!
//! fn reparametrize(mean: Tensor![Batch, Hidden], log_var: Tensor![Batch, Hidden]) -> Tensor![Batch, Hidden] {
//!     let noise: Tensor![Batch, Hidden] = Tensor::normal();
//!     mean + (log_var * 0.5).exp() * noise
//! }
//!
//! fn sample(logits: Tensor![Batch, Vocab], temperature: f64) -> Tensor![Batch; Index] {
//!     (logits / temperature).categorical(Vocab)
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, scan};
use crate::graph::trace::{self, Handle, Mode, op1, type_of};
use crate::graph::{DType, Extent, TensorType};
use crate::language::element::{Element, Float, Index, Mask, Real};
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// What random values are like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Uniform in 0 (included) to 1 (excluded): multiples of 2^-24.
    Uniform,
    /// Normal with mean 0 and variance 1 (Box and Muller 1958).
    Normal,
    /// 1 with this probability, else 0: a mask.
    Bernoulli(f64),
    /// `-log(-log(u))` for uniform `u`: added to logits, the place of the largest is a sample.
    Gumbel,
}

/// Random values of a type. The input is the key, two whole numbers: seed and step.
#[derive(Clone, Debug)]
pub struct Random {
    /// What they are like.
    pub distribution: Distribution,
    /// Which operation of the trace: different streams are independent.
    pub stream: u32,
    /// The type: real, but a mask for [`Distribution::Bernoulli`].
    pub ty: TensorType,
}

impl Rule for Random {
    fn name(&self) -> &'static str {
        match self.distribution {
            Distribution::Uniform => "uniform",
            Distribution::Normal => "normal",
            Distribution::Bernoulli(_) => "bernoulli",
            Distribution::Gumbel => "gumbel",
        }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [key] = arity(inputs)?;
        if key.dtype != DType::I32 || key.count().as_constant() != Some(2) {
            return Err(format!("takes two whole numbers as its key, is given {key}"));
        }
        if let Distribution::Bernoulli(p) = self.distribution
            && !(0.0..=1.0).contains(&p)
        {
            return Err(format!("{p} is not a probability"));
        }
        Ok(vec![self.ty.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None])
    }
    fn cost(&self, _: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // Ten rounds of about ten integer operations for four values.
        Cost::streaming(Extent::mul(outputs[0].count(), Extent::constant(25)), &[], outputs)
    }
    fn attributes(&self) -> String {
        match self.distribution {
            Distribution::Bernoulli(p) => format!("p={p} stream={}", self.stream),
            _ => format!("stream={}", self.stream),
        }
    }
}

/// Random values with dimensions and storage as `ty`, from the trace's own key.
pub fn random(distribution: Distribution, ty: &TensorType) -> Handle {
    let dtype = match distribution {
        Distribution::Bernoulli(_) => DType::Bool,
        _ => DType::F32,
    };
    let key = trace::rng();
    op1(Random { distribution, stream: trace::random_stream(), ty: ty.with_dtype(dtype) }, &[key])
}

/// In training each value becomes 0 with probability `rate` and is divided by `1 - rate`
/// otherwise; in inference values pass.
pub fn dropout(x: Handle, rate: f64) -> Handle {
    if !(0.0..1.0).contains(&rate) {
        trace::fail(format!("dropout: a rate of {rate} does not lie in 0 to 1 (excluded)"));
        return x;
    }
    if trace::mode() == Mode::Eval || rate == 0.0 {
        return x;
    }
    let keep = random(Distribution::Bernoulli(1.0 - rate), &type_of(x));
    ew::select(keep, ew::scale(x, 1.0 / (1.0 - rate)), leaf::scalar(0.0))
}

/// Samples along dimension `axis` with probabilities `softmax(logits)` (the Gumbel-max trick).
pub fn categorical(logits: Handle, axis: usize) -> Handle {
    scan::argmax(ew::add(logits, random(Distribution::Gumbel, &type_of(logits))), axis)
}

impl<S: Shape> Tensor<S> {
    /// Uniform random values in 0 (included) to 1 (excluded), new ones at every run. PyTorch:
    /// `torch.rand`.
    #[inline]
    pub fn uniform() -> Tensor<S> {
        Tensor::from_raw(random(Distribution::Uniform, &Self::type_of()))
    }

    /// Normal random values with mean 0 and variance 1, new ones at every run. PyTorch:
    /// `torch.randn`.
    #[inline]
    pub fn normal() -> Tensor<S> {
        Tensor::from_raw(random(Distribution::Normal, &Self::type_of()))
    }
}

impl<S: Shape> Tensor<S, Mask> {
    /// True with a probability, new draws at every run. PyTorch: `torch.bernoulli`.
    #[inline]
    pub fn bernoulli(probability: f64) -> Tensor<S, Mask> {
        Tensor::from_raw(random(Distribution::Bernoulli(probability), &Self::type_of()))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// In training each value becomes 0 with probability `rate` and is divided by `1 - rate`
    /// otherwise, so that the mean stays (Srivastava et al. 2014); in inference values pass.
    /// PyTorch: `dropout(x, p)`.
    #[inline]
    pub fn dropout(self, rate: f64) -> Tensor<S, Real>
    where
        E: Float,
    {
        Tensor::from_raw(dropout(self.raw(), rate))
    }

    /// A sample along an axis with probabilities `softmax(x)`: indices, new ones at every run. A
    /// logit of minus infinity is never drawn while another is finite. PyTorch:
    /// `Categorical(logits=x).sample()`.
    #[inline]
    pub fn categorical<A, P>(self, _axis: A) -> Tensor<S::Without, Index>
    where
        E: Float,
        S: Has<A, P>,
    {
        Tensor::from_raw(categorical(self.raw(), S::POSITION))
    }
}
