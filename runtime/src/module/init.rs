//! Initializers: how a new parameter is filled.
//!
//! A variable carries its [`Init`]; [`Init::fill`] draws the numbers when a model is made.

mod fill;
#[cfg(test)]
mod tests;

pub use fill::Key;

/// How a new parameter is filled. Fans follow the layout of weights in public checkpoints:
/// dimension 0 is the output, dimension 1 the input, the rest the receptive field; so
/// `fan_in = dim1 * rest` and `fan_out = dim0 * rest`.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// One value.
    Constant(f64),
    /// Uniform in `low..high`.
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound above.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal, redrawn until within `low..high`.
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation before truncation.
        std: f64,
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Uniform with variance `gain^2 * 2 / (fan_in + fan_out)` (Glorot and Bengio 2010).
    XavierUniform {
        /// Factor on the standard deviation.
        gain: f64,
    },
    /// Normal with variance `gain^2 * 2 / (fan_in + fan_out)`.
    XavierNormal {
        /// Factor on the standard deviation.
        gain: f64,
    },
    /// Uniform with variance `gain^2 / fan_in` (He et al. 2015). With `gain = 1/sqrt(3)` it is
    /// PyTorch's default for linear layers and convolutions.
    KaimingUniform {
        /// `sqrt(2)` for relu.
        gain: f64,
    },
    /// Normal with variance `gain^2 / fan_in`.
    KaimingNormal {
        /// `sqrt(2)` for relu.
        gain: f64,
    },
    /// Rows (or columns, whichever are fewer) orthonormal, times `gain` (Saxe et al. 2014).
    Orthogonal {
        /// Factor.
        gain: f64,
    },
    /// These values, row-major; where there are more places, the others are 0.
    Table(std::sync::Arc<[f32]>),
}

impl Default for Init {
    /// PyTorch's default for linear layers: uniform in `±1/sqrt(fan_in)`.
    fn default() -> Self {
        Init::KaimingUniform { gain: 1.0 / 3f64.sqrt() }
    }
}

/// What an initializer can be given to: a parameter, or a layer that passes it to its weights.
/// `#[init(normal(0.02))]` on a field calls it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` takes no initializer",
    label = "`#[init(..)]` is for parameters and layers",
    note = "put `#[init(..)]` on the parameter inside, or build the field with `#[default(..)]`"
)]
pub trait WithInit {
    /// The same, filled in another way when new.
    #[must_use]
    fn with_init(self, init: Init) -> Self;
}

#[diagnostic::do_not_recommend]
impl<M: WithInit> WithInit for Vec<M> {
    fn with_init(self, init: Init) -> Self {
        self.into_iter().map(|m| m.with_init(init.clone())).collect()
    }
}
#[diagnostic::do_not_recommend]
impl<M: WithInit> WithInit for Option<M> {
    fn with_init(self, init: Init) -> Self {
        self.map(|m| m.with_init(init))
    }
}
#[diagnostic::do_not_recommend]
impl<M: WithInit, const N: usize> WithInit for [M; N] {
    fn with_init(self, init: Init) -> Self {
        self.map(|m| m.with_init(init.clone()))
    }
}

/// Shorthands for `#[init(..)]`: `#[init(normal(0.02))]`.
pub mod shorthand {
    use super::Init;

    /// All zero.
    pub fn zeros() -> Init {
        Init::Zeros
    }
    /// All one.
    pub fn ones() -> Init {
        Init::Ones
    }
    /// One value.
    pub fn constant(v: f64) -> Init {
        Init::Constant(v)
    }
    /// Uniform in `low..high`.
    pub fn uniform(low: f64, high: f64) -> Init {
        Init::Uniform { low, high }
    }
    /// Normal with mean 0.
    pub fn normal(std: f64) -> Init {
        Init::Normal { mean: 0.0, std }
    }
    /// Normal with mean 0, cut at two standard deviations.
    pub fn truncated_normal(std: f64) -> Init {
        Init::TruncatedNormal { mean: 0.0, std, low: -2.0 * std, high: 2.0 * std }
    }
    /// Glorot uniform.
    pub fn xavier_uniform() -> Init {
        Init::XavierUniform { gain: 1.0 }
    }
    /// Glorot normal.
    pub fn xavier_normal() -> Init {
        Init::XavierNormal { gain: 1.0 }
    }
    /// He uniform with the gain of relu.
    pub fn kaiming_uniform() -> Init {
        Init::KaimingUniform { gain: 2f64.sqrt() }
    }
    /// He normal with the gain of relu.
    pub fn kaiming_normal() -> Init {
        Init::KaimingNormal { gain: 2f64.sqrt() }
    }
    /// LeCun normal: variance `1 / fan_in`.
    pub fn lecun_normal() -> Init {
        Init::KaimingNormal { gain: 1.0 }
    }
    /// Orthogonal.
    pub fn orthogonal() -> Init {
        Init::Orthogonal { gain: 1.0 }
    }
}
