//! How a program stores the weights that it multiplies by.

use crate::module::encoded::Encoding;
use crate::module::pattern;

/// A storage for weights.
///
/// The right column is the error of a weight relative to the largest of its block (of its output
/// channel for `Int8`), at most.
///
/// | format | bits a weight | activations | rounding of a weight |
/// |---|---|---|---|
/// | `Stored` (the default) | as the model holds it | `f32`; 8 bits for blocks | none, see below |
/// | `F32` | 32 | `f32` | none |
/// | `Bf16` | 16 | `f32` | 1/256 of itself |
/// | `F16` | 16 | `f32` | 1/2048 of itself |
/// | `Q8_0` | 8.5 | 8 bits, a scale for 32 | 1/254 |
/// | `Q4_0` | 4.5 | 8 bits, a scale for 32 | 1/16, 1/8 at one end |
/// | `Int8` | 8 | 8 bits, a scale a row | 1/254 |
///
/// `Q8_0` and `Q4_0` are those of GGUF (llama.cpp `--type q8_0`), `Int8` is what onnxruntime's
/// `quantize_dynamic` and PyTorch's `quantize_dynamic` do. Where activations have eight bits too,
/// long prompts are two to three times as fast as with `f32`; [`Weights::exact`] keeps them `f32`.
///
/// `Stored` multiplies by the values of a model that was loaded with
/// [`LoadOptions::as_stored`](crate::LoadOptions::as_stored) without a copy in `f32`, and by others
/// in `f32`. Of the formats that files have, nothing is rounded but one thing: in those with blocks
/// of 256 (`Q2_K` to `Q6_K`) a scale is the product of two, which becomes an f16 (1/2048 of it).
/// In memory `Q5_0`, `Q5_1`, `Q5_K` and `Q6_K` take 8.5 to 9 bits a weight, `Q2_K` and `Q3_K` 6.
/// A matrix whose blocks do not lie along the sum becomes `f32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum WeightFormat {
    /// As the model holds them.
    #[default]
    Stored,
    /// Single precision.
    F32,
    /// The upper half of single precision.
    Bf16,
    /// Half precision.
    F16,
    /// Eight bits, 32 weights share a scale.
    Q8_0,
    /// Four bits, 32 weights share a scale.
    Q4_0,
    /// Eight bits, the weights of an output channel share a scale.
    Int8,
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Which weights a program stores how: a format for all, and exceptions by name.
///
/// ```
/// use mobilis_runtime::program::{WeightFormat, Weights};
/// // The head in eight bits, the rest in four.
/// let weights = Weights::new(WeightFormat::Q4_0).except("lm_head.**", WeightFormat::Q8_0);
/// assert_eq!(weights.of("lm_head.weight"), WeightFormat::Q8_0);
/// assert_eq!(weights.of("blocks.0.mlp.up.weight"), WeightFormat::Q4_0);
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    format: WeightFormat,
    exceptions: Vec<(String, WeightFormat)>,
    pack: bool,
    exact: bool,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights::new(WeightFormat::Stored)
    }
}

impl From<WeightFormat> for Weights {
    fn from(format: WeightFormat) -> Weights {
        Weights::new(format)
    }
}

impl Weights {
    /// Every weight in one format.
    pub fn new(format: WeightFormat) -> Weights {
        Weights { format, exceptions: vec![], pack: true, exact: false }
    }

    /// Another format for the weights whose names match a [`pattern`]. Of several
    /// patterns that match, the last decides.
    #[must_use]
    pub fn except(mut self, pattern: impl Into<String>, format: WeightFormat) -> Weights {
        self.exceptions.push((pattern.into(), format));
        self
    }

    /// Whether `f32` weights that are multiplied by more than a few rows (8) are copied into the
    /// order in which the product reads them (by default they are). It saves that work in every
    /// run, which is most with up to 64 rows, and takes their memory a second time. Results do not
    /// change by a bit.
    #[must_use]
    pub fn pack(mut self, on: bool) -> Weights {
        self.pack = on;
        self
    }

    /// Keeps activations in `f32` where weights are blocks of whole numbers, so that nothing is rounded
    /// but weights: the results are those of the blocks' values in `f32`, up to the order of sums.
    /// Single rows cost little more, long prompts about three times as much. `Int8` has no such
    /// product: its weights then have blocks, as `Q8_0`.
    #[must_use]
    pub fn exact(mut self) -> Weights {
        self.exact = true;
        self
    }

    /// The format of the weight of this name.
    pub fn of(&self, name: &str) -> WeightFormat {
        let found = self.exceptions.iter().rev().find(|(p, _)| pattern::matches(p, name));
        found.map_or(self.format, |(_, format)| *format)
    }

    pub(crate) fn packs(&self) -> bool {
        self.pack
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The first pattern that matches none of these names.
    pub(super) fn stray<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let stray = |p: &&(String, WeightFormat)| !names.clone().any(|n| pattern::matches(&p.0, n));
        self.exceptions.iter().find(stray).map(|(p, _)| p.as_str())
    }
}

/// What became of a weight, as [`Program::weights`](super::Program::weights) lists it.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredWeight {
    /// The parameter's name.
    pub name: String,
    /// How the program stores it: `Stored` for the blocks of files that have no name of their own here.
    pub format: WeightFormat,
    /// How the model stores it, unless that is `f32`.
    pub encoding: Option<Encoding>,
    /// Output channels, and values of each.
    pub size: (usize, usize),
    /// Bytes that are held for it beside the model's own value, and shared by programs that store it
    /// alike. 0 where it multiplies by the model's own.
    pub bytes: usize,
}
