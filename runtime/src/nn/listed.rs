//! Layers whose widths are values: convolution, batch norm and linear layers for lists of blocks of different
//! widths.
//!
//! A layer such as [`Conv1d`](super::Conv1d) has its channels, its kernel and its stride in its type, which is right
//! for a network that is written out. A network whose *list of blocks* is in a configuration (Jasper, QuartzNet,
//! Citrinet, TitaNet) has a width for each block: no finite set of axis types names them. The layers here take
//! their widths when they are made: numbers, or at the network's ports axes. Between them go untyped handles; the graph still checks every size, when the
//! network is traced, and the network's own ports are typed.
//!
//! Names, layout and initial values are PyTorch's, as with the typed layers.

use super::batch_norm::moved;
use crate::graph::trace::{self, Handle, Mode, type_of};
use crate::graph::{Dim, Extent};
use crate::language::element::Index;
use crate::module::init::Init;
use crate::module::param::{ListedBuffer, ListedParam};
use crate::neural_module;
use crate::ops::contraction;
use crate::ops::conv::{self, Geometry};
use crate::ops::elementwise as ew;
use crate::ops::norm::{channel_statistics, normalize_channels};

/// How a one-dimensional convolution moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The number of positions that it sees.
    pub kernel: u64,
    /// Steps between neighbouring outputs.
    pub stride: u64,
    /// Zeros before and after the input.
    pub padding: [u64; 2],
    /// Steps between neighbouring positions of the kernel.
    pub dilation: u64,
}

impl Steps {
    /// A kernel that sees one position.
    pub const POINT: Steps = Steps { kernel: 1, stride: 1, padding: [0, 0], dilation: 1 };

    /// A kernel with the padding that keeps the length at stride 1.
    pub fn same(kernel: u64, stride: u64, dilation: u64) -> Steps {
        let padding = dilation * kernel.saturating_sub(1) / 2;
        Steps { kernel, stride, padding: [padding; 2], dilation }
    }

    /// The positions of an output for an input with so many, a whole number of any shape.
    pub fn lengths(&self, n: Handle) -> Handle {
        let shift = (self.padding[0] + self.padding[1] + self.stride) as i64
            - (self.dilation * self.kernel.saturating_sub(1)) as i64
            - 1;
        if self.stride == 1 && shift == 0 {
            return n;
        }
        let constant = |v: i64| ew::constant_like(n, v as f64);
        // A kernel that does not fit sees nothing.
        let reach = ew::maximum(ew::add(n, constant(shift)), constant(0));
        if self.stride == 1 { reach } else { ew::div(reach, constant(self.stride as i64)) }
    }
}

/// A convolution over `[batch, inputs, length]`. PyTorch: `nn.Conv1d`.
#[neural_module(no_default)]
pub struct Conv1d {
    /// `[filters, inputs / groups, taps]`
    pub weight: ListedParam,
    /// `[filters]`
    pub bias: Option<ListedParam>,
    /// How it moves.
    #[skip]
    pub steps: Steps,
    /// Groups of channels that do not see each other.
    #[skip]
    pub groups: Extent,
}

/// PyTorch's initial values of a bias: uniform in `±1/sqrt(fan)`, where the fan is known.
fn bias(fan: Option<u64>, dim: &Dim) -> ListedParam {
    let init = match fan {
        Some(fan) if fan > 0 => {
            let bound = 1.0 / (fan as f64).sqrt();
            Init::Uniform { low: -bound, high: bound }
        }
        _ => Init::Zeros,
    };
    ListedParam::new(init, std::slice::from_ref(dim))
}

impl Conv1d {
    /// A convolution from channels to filters.
    pub fn new([inputs, filters]: [&Dim; 2], steps: Steps, with_bias: bool) -> Conv1d {
        let fan = inputs.extent.as_constant().map(|n| n * steps.kernel);
        let dims = [filters.clone(), inputs.clone(), Dim::fixed(steps.kernel)];
        Conv1d {
            weight: ListedParam::new(Init::default(), &dims),
            bias: with_bias.then(|| bias(fan, filters)),
            steps,
            groups: Extent::constant(1),
        }
    }

    /// A convolution in so many groups of channels that do not see each other; channels are a number.
    pub fn grouped([inputs, filters]: [&Dim; 2], groups: u64, steps: Steps, with_bias: bool) -> Conv1d {
        let per = Dim::anonymous(Extent::floor_div(inputs.extent.clone(), Extent::constant(groups.max(1))));
        Conv1d { groups: Extent::constant(groups.max(1)), ..Conv1d::new([&per, filters], steps, with_bias) }
    }

    /// A convolution of each channel with its own filter.
    pub fn depthwise(channels: &Dim, steps: Steps, with_bias: bool) -> Conv1d {
        let dims = [channels.clone(), Dim::fixed(1), Dim::fixed(steps.kernel)];
        Conv1d {
            weight: ListedParam::new(Init::default(), &dims),
            bias: with_bias.then(|| bias(Some(steps.kernel), channels)),
            steps,
            groups: channels.extent.clone(),
        }
    }

    /// The same with another initializer for the weight.
    #[must_use]
    pub fn with_init(mut self, init: Init) -> Conv1d {
        self.weight = self.weight.with_init(init);
        self
    }

    /// `[batch, inputs, length]` to `[batch, filters, length']`.
    pub fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let Steps { stride, padding, dilation, .. } = self.steps;
        let geometry = Geometry {
            stride: vec![stride],
            padding: vec![padding],
            dilation: vec![dilation],
            groups: self.groups.clone(),
        };
        conv::conv(x, self.weight.get(), self.bias.as_ref().map(ListedParam::get), &geometry)
    }
}

/// A linear layer over the last dimension. PyTorch: `nn.Linear`.
#[neural_module(no_default)]
pub struct Linear {
    /// `[outputs, inputs]`
    pub weight: ListedParam,
    /// `[outputs]`
    pub bias: Option<ListedParam>,
}

impl Linear {
    /// A layer from values to values.
    pub fn new([inputs, outputs]: [&Dim; 2], with_bias: bool) -> Linear {
        Linear {
            weight: ListedParam::new(Init::default(), &[outputs.clone(), inputs.clone()]),
            bias: with_bias.then(|| bias(inputs.extent.as_constant(), outputs)),
        }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let y = contraction::linear(x, self.weight.get());
        self.bias.as_ref().map_or(y, |b| ew::add(y, b.get()))
    }
}

/// Batch norm over `[batch, channels, ..]`. PyTorch: `nn.BatchNorm1d`; see [`BatchNorm`](super::BatchNorm).
#[neural_module(no_default)]
pub struct BatchNorm {
    /// `[channels]`
    pub weight: ListedParam,
    /// `[channels]`
    pub bias: ListedParam,
    /// The running mean.
    pub running_mean: ListedBuffer,
    /// The running variance.
    pub running_var: ListedBuffer,
    /// How many batches the running statistics have seen.
    pub num_batches_tracked: ListedBuffer<Index>,
    /// How far running statistics move to those of a batch.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

impl BatchNorm {
    /// A norm of these channels; PyTorch's `eps` is 1e-5.
    pub fn new(channels: &Dim, eps: f64) -> BatchNorm {
        let sizes = [channels.clone()];
        BatchNorm {
            weight: ListedParam::new(Init::Ones, &sizes),
            bias: ListedParam::new(Init::Zeros, &sizes),
            running_mean: ListedBuffer::new(Init::Zeros, &sizes),
            running_var: ListedBuffer::new(Init::Ones, &sizes),
            num_batches_tracked: ListedBuffer::new(Init::Zeros, &[]),
            momentum: 0.1,
            eps,
        }
    }

    /// `[batch, channels, ..]` to the same.
    pub fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let running = [&self.running_mean, &self.running_var];
        let statistics = match trace::mode() {
            Mode::Eval => (running[0].get(), running[1].get()),
            Mode::Train => {
                let (mean, var) = channel_statistics(x);
                let moved = moved(running.map(ListedBuffer::get), [mean, var], &type_of(x), self.momentum);
                running.iter().zip(moved).for_each(|(buffer, new)| buffer.set(new));
                let seen = self.num_batches_tracked.get();
                self.num_batches_tracked.set(ew::add(seen, ew::constant_like(seen, 1.0)));
                (mean, var)
            }
        };
        normalize_channels(x, statistics, Some(self.weight.get()), Some(self.bias.get()), self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    axes! { Batch; Time; In = 6; Out = 4; Half = ceil(Time / 2); }

    #[neural_module(no_default)]
    struct Both {
        typed: crate::nn::Conv1d<In, Out, 5, 2, 2>,
        typed_norm: crate::nn::BatchNorm<Out>,
        fixed: Conv1d,
        fixed_norm: BatchNorm,
    }

    /// The same values through typed and untyped layers, in training and in inference.
    #[test]
    fn as_the_typed_layers() -> Result<(), Box<dyn std::error::Error>> {
        let steps = Steps::same(5, 2, 1);
        let module = Both {
            typed: Default::default(),
            typed_norm: Default::default(),
            fixed: Conv1d::new([&In::dim(), &Dim::fixed(4)], steps, true),
            fixed_norm: BatchNorm::new(&Dim::fixed(4), 1e-5),
        };
        let model = Model::init(module, 3)?;
        for part in ["weight", "bias"] {
            let values: Vec<f32> = model.get(&format!("typed.{part}"))?;
            model.set(&format!("fixed.{part}"), &values)?;
        }
        let program = model.compile(|m, x: Tensor![Batch, In, Time]| {
            let a: Tensor<(Batch, Out, Half)> = m.typed.forward(x).relabel();
            let a = m.typed_norm.forward(a);
            let b: Tensor<(Batch, Out, Half)> = Tensor::from_raw(m.fixed_norm.apply(m.fixed.apply(x.raw())));
            (a, b)
        })?;
        let x: Vec<f32> = (0..2 * 6 * 7).map(|i| ((i * 37 % 19) as f32 - 9.0) / 5.0).collect();
        let (a, b) = program.run(&<Array![Batch, In, Time]>::new([2, 6, 7], x)?)?;
        assert_eq!(a.sizes(), [2, 4, 4]);
        assert_eq!(a.data(), b.data());
        Ok(())
    }

    #[test]
    fn lengths_follow_the_convolution() -> Result<(), Box<dyn std::error::Error>> {
        #[neural_module]
        struct Nothing;
        let model = Model::init(Nothing, 0)?;
        let lengths = [0, 1, 2, 9, 10];
        for (steps, expected) in [
            (Steps::same(11, 2, 1), [0, 1, 1, 5, 5]),
            (Steps::same(11, 1, 2), [0, 1, 2, 9, 10]),
            (Steps { kernel: 3, stride: 1, padding: [0, 0], dilation: 1 }, [0, 0, 0, 7, 8]),
        ] {
            let program = model
                .compile(|_, n: Tensor![Batch; Index]| Tensor::<(Batch,), Index>::from_raw(steps.lengths(n.raw())))?;
            let found = program.run(&<Array![Batch; Index]>::new([5], lengths.to_vec())?)?;
            assert_eq!(found.data(), expected, "{steps:?}");
        }
        Ok(())
    }
}
