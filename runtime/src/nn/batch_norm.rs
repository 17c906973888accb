//! Batch norm.

use crate::graph::trace::{self, Handle, Mode};
use crate::graph::{Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Index};
use crate::language::shape::{At, Has};
use crate::ops::norm::{channel_statistics, normalize_channels};
use crate::ops::{elementwise as ew, leaf};
use crate::tensor::Tensor;
use crate::{Buffer, Param, neural_module};

/// Batch norm of `[batch, C, ..]`: each channel gets mean 0 and variance 1 over all examples and
/// positions, then `* weight + bias` (Ioffe and Szegedy 2015).
///
/// Traced for training it uses the batch's own statistics, and moves the running ones by
/// `momentum` (0.1) when the run ends, the variance unbiased as in PyTorch. In inference it uses
/// the running ones. `eps` is 1e-5. PyTorch: `nn.BatchNorm1d(C)`, `nn.BatchNorm2d(C)`.
#[neural_module]
pub struct BatchNorm<C: Axis> {
    /// `[C]`, starts at one.
    #[init(ones())]
    pub weight: Param![C],
    /// `[C]`, starts at zero.
    pub bias: Param![C],
    /// The running mean.
    pub running_mean: Buffer![C],
    /// The running variance, starts at one.
    #[init(ones())]
    pub running_var: Buffer![C],
    /// How many batches the running statistics have seen.
    pub num_batches_tracked: Buffer<(), Index>,
    /// How far running statistics move to those of a batch.
    #[default(0.1)]
    pub momentum: f64,
    /// Added to the variance.
    #[default(1e-5)]
    pub eps: f64,
}

#[neural_module]
impl<C: Axis> BatchNorm<C> {
    /// `[batch, C, ..]` to the same.
    pub fn forward<S: Has<C, At<1>>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        let (weight, bias) = (self.weight.get().raw(), self.bias.get().raw());
        let statistics = match trace::mode() {
            Mode::Eval => (self.running_mean.get().raw(), self.running_var.get().raw()),
            Mode::Train => {
                let (mean, var) = channel_statistics(x.raw());
                self.track(mean, var, &trace::type_of(x.raw()));
                (mean, var)
            }
        };
        Tensor::from_raw(normalize_channels(x.raw(), statistics, Some(weight), Some(bias), self.eps))
    }
}

impl<C: Axis> BatchNorm<C> {
    fn track(&self, mean: Handle, var: Handle, ty: &TensorType) {
        let running = [&self.running_mean, &self.running_var];
        let moved = moved(running.map(|b| b.get().raw()), [mean, var], ty, self.momentum);
        running.iter().zip(moved).for_each(|(buffer, new)| buffer.set(Tensor::from_raw(new)));
        let seen = self.num_batches_tracked.get().raw();
        self.num_batches_tracked.set(Tensor::from_raw(ew::add(seen, ew::constant_like(seen, 1.0))));
    }
}

/// Running mean and variance after a batch of this type with that mean and (biased) variance.
pub(super) fn moved(running: [Handle; 2], [mean, var]: [Handle; 2], ty: &TensorType, momentum: f64) -> [Handle; 2] {
    let others = ty.dims.iter().enumerate().filter(|(d, _)| *d != 1).map(|(_, d)| &d.extent);
    let n = leaf::size(Extent::product(others));
    let less = ew::maximum(ew::sub(n, leaf::scalar(1.0)), leaf::scalar(1.0));
    let unbiased = ew::mul(var, ew::div(n, less));
    let [a, b] = running;
    [(a, mean), (b, unbiased)].map(|(old, new)| ew::add(ew::scale(old, 1.0 - momentum), ew::scale(new, momentum)))
}
