//! Recipes: how values get into eight bits.

use crate::ops::quantize::{Fp8, Scale};

/// What the three products of a linear layer read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Formats {
    /// E4M3 for inputs and weights, E5M2 for gradients, which have the wider range.
    Hybrid,
    /// E4M3 for all: where scales are local, gradients need its precision more than range.
    E4M3,
}

impl Formats {
    /// The format of inputs and weights, and that of gradients.
    pub fn pair(self) -> (Fp8, Fp8) {
        match self {
            Formats::Hybrid => (Fp8::E4M3, Fp8::E5M2),
            Formats::E4M3 => (Fp8::E4M3, Fp8::E4M3),
        }
    }
}

/// What delayed scaling takes from the history of greatest magnitudes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum History {
    /// The greatest of all.
    Max,
    /// The last one.
    MostRecent,
}

/// Which values share a scale, and where it comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scaling {
    /// One scale a tensor, from the greatest magnitudes of earlier steps: nothing has to be read
    /// twice. Scales and histories are states of the training step. The first step has scale 1.
    Delayed {
        /// Steps in the history, at least 1.
        length: usize,
        /// What is taken from it.
        take: History,
        /// Powers of two kept free for values that grow.
        margin: f32,
    },
    /// One scale a tensor, from its own greatest magnitude.
    Current(Scale),
    /// One scale for all that a result sums over: a row of the left side, a column of the right one.
    Rowwise(Scale),
    /// One scale for 128 summands of one row of inputs and gradients, and for 128 × 128 of weights.
    Blockwise(Scale),
    /// One power of two for 32 summands (OCP Microscaling).
    Mx,
    /// None: values are rounded as they are. It shows what scales are for.
    Unscaled,
}

/// How linear layers are computed in eight bits: scaling and formats.
///
/// | recipe | scale | formats | of |
/// |---|---|---|---|
/// | [`delayed`](Self::delayed) | a tensor, from a history of 1024 steps | hybrid | Transformer Engine's `DelayedScaling` |
/// | [`current`](Self::current) | a tensor, its own | hybrid | `Float8CurrentScaling`, torchao's tensorwise |
/// | [`rowwise`](Self::rowwise) | a row, a power of two | E4M3 | torchao's rowwise |
/// | [`blockwise`](Self::blockwise) | 1 × 128, weights 128 × 128, a power of two in f32 | E4M3 | `Float8BlockScaling`, DeepSeek-V3 |
/// | [`mxfp8`](Self::mxfp8) | 32, a power of two in eight bits | E4M3 | `MXFP8BlockScaling` |
/// | [`unscaled`](Self::unscaled) | none | hybrid | nobody |
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Recipe {
    /// Which values share a scale, and where it comes from.
    pub scaling: Scaling,
    /// What is read.
    pub formats: Formats,
}

const fn exact(power_of_two: bool) -> Scale {
    Scale::Exact { epsilon: 0.0, power_of_two }
}

impl Recipe {
    /// The greatest magnitude of the last 1024 steps, no margin.
    pub const fn delayed() -> Recipe {
        let scaling = Scaling::Delayed { length: 1024, take: History::Max, margin: 0.0 };
        Recipe { scaling, formats: Formats::Hybrid }
    }

    /// One scale a tensor, of the value at hand.
    pub const fn current() -> Recipe {
        Recipe { scaling: Scaling::Current(exact(false)), formats: Formats::Hybrid }
    }

    /// One scale a row.
    pub const fn rowwise() -> Recipe {
        Recipe { scaling: Scaling::Rowwise(exact(true)), formats: Formats::E4M3 }
    }

    /// One scale a block of 128, or of 128 × 128.
    pub const fn blockwise() -> Recipe {
        Recipe { scaling: Scaling::Blockwise(exact(true)), formats: Formats::E4M3 }
    }

    /// One scale for 32 values.
    pub const fn mxfp8() -> Recipe {
        Recipe { scaling: Scaling::Mx, formats: Formats::E4M3 }
    }

    /// No scale at all.
    pub const fn unscaled() -> Recipe {
        Recipe { scaling: Scaling::Unscaled, formats: Formats::Hybrid }
    }

    /// The same with other formats.
    #[must_use]
    pub const fn formats(mut self, formats: Formats) -> Recipe {
        self.formats = formats;
        self
    }

    /// The same with scales rounded down to powers of two, or not. MXFP8's always are, and delayed
    /// ones are never.
    #[must_use]
    pub const fn power_of_two(self, on: bool) -> Recipe {
        self.scale(None, Some(on))
    }

    /// The same with greatest magnitudes taken to be at least `epsilon`, where a scale is that of the
    /// value at hand. MXFP8 has no such bound.
    #[must_use]
    pub const fn epsilon(self, epsilon: f32) -> Recipe {
        self.scale(Some(epsilon), None)
    }

    const fn scale(mut self, bound: Option<f32>, power: Option<bool>) -> Recipe {
        if let Scaling::Current(scale) | Scaling::Rowwise(scale) | Scaling::Blockwise(scale) = &mut self.scaling
            && let Scale::Exact { epsilon, power_of_two } = scale
        {
            if let Some(bound) = bound {
                *epsilon = bound;
            }
            if let Some(power) = power {
                *power_of_two = power;
            }
        }
        self
    }

    /// What the sizes of a product must be multiples of.
    pub const fn multiple(&self) -> usize {
        match self.scaling {
            Scaling::Mx => 32,
            _ => 16,
        }
    }

    /// What is wrong with the settings.
    pub(super) fn validate(&self) -> Result<(), String> {
        match self.scaling {
            Scaling::Delayed { length: 0, .. } => Err("delayed scaling has a history of 0 steps; it needs one".into()),
            Scaling::Delayed { margin, .. } if !margin.is_finite() => {
                Err(format!("delayed scaling has a margin of {margin}; it must be finite"))
            }
            Scaling::Current(Scale::Exact { epsilon, .. })
            | Scaling::Rowwise(Scale::Exact { epsilon, .. })
            | Scaling::Blockwise(Scale::Exact { epsilon, .. })
                if !(epsilon >= 0.0 && epsilon.is_finite()) =>
            {
                Err(format!("greatest magnitudes are at least {epsilon}; the bound must be finite and not negative"))
            }
            _ => Ok(()),
        }
    }
}
