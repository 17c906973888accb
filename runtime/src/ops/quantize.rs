//! Numbers of eight bits in front of products: what training with FP8 is made of.
//!
//! A value `x` goes through eight bits as `round(x * s) / s`, where `round` gives the nearest number
//! of the format ([`Fp8`]) and `s`, the scale, brings the greatest magnitude of a group of values
//! near the greatest number of the format. [`Quantize`] computes this in `f32`, so that an ordinary
//! product of two such values is the product that a tensor core computes from codes and scales,
//! but for the order of its sum; where scales are powers of two, every factor is the same bit for
//! bit, else each is rounded to `f32` once. A device with FP8 products takes the operation as the
//! description of the codes it multiplies.
//!
//! | group ([`Group`]) | scale | recipe |
//! |---|---|---|
//! | the whole value | given: [`FormatScale`] of [`Amax`], of this step or of a history | current, delayed |
//! | all that one result sums over | of its own greatest magnitude | row-wise |
//! | 1 × 128 or 128 × 128 of them | the same | block-wise |
//! | 32 of them | the same, rounded up to a power of two | MXFP8 |
//!
//! Where several ranks hold parts of one value, its scale must be that of the whole: a plan puts the
//! maximum over ranks behind [`Amax`], whose result is nothing but that.
//!
//! Recipes define the derivative of all this to be that of `x` itself: gradients pass
//! [`Quantize`] unchanged, and scales have none. [`crate::transforms::precision`] puts these
//! operations where they belong.

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, Extent, TensorType};
pub use mobilis_kernels::fp8::{Fp8, Scale};

/// The greatest magnitude of a value, 0 for nothing; NaN is passed over. What is infinite shows.
#[derive(Clone, Debug)]
pub struct Amax;

/// A scale from a greatest magnitude.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatScale {
    /// The format that values are rounded to.
    pub format: Fp8,
    /// How.
    pub by: ScaleBy,
}

/// How a scale for a whole value follows from its greatest magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScaleBy {
    /// From that of the value itself. Inputs: `amax []`.
    Current(Scale),
    /// From the greatest of a history: `max / 2^margin / amax`; the old scale where that is 0 or not
    /// finite. Inputs: `amax []`, the old scale `[]`.
    Delayed {
        /// Powers of two kept free below the greatest number.
        margin: f32,
    },
}

/// Which values share a scale.
#[derive(Clone, Debug, PartialEq)]
pub enum Group {
    /// All: the scale `[]` is the second input.
    All,
    /// Those in a tile of the value as a matrix: `rows` by `along`, where columns are the dimensions
    /// `inner`, neighbours, that a product sums over, and rows are all others. Where dimensions
    /// follow upon `inner`, a tile of several rows lies within these.
    Tile {
        /// The dimensions that are summed over.
        inner: Vec<usize>,
        /// Rows of a tile.
        rows: usize,
        /// Summands of a tile; all where there are fewer.
        along: usize,
        /// How its scale follows from its greatest magnitude.
        scale: Scale,
    },
}

/// Values through eight bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantize {
    /// The format.
    pub format: Fp8,
    /// What shares a scale.
    pub group: Group,
    /// Sizes of the product that must be multiples of `multiple`, as those of tensor cores must.
    /// Where one is not, the value is rounded to bf16 instead.
    pub sizes: Vec<Extent>,
    /// Of what.
    pub multiple: usize,
}

impl Quantize {
    /// Whether the sizes, of which `of` gives the values, are such that eight bits are used.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn applies<E>(&self, of: impl Fn(&Extent) -> Result<usize, E>) -> Result<bool, E> {
        let all: Result<Vec<usize>, E> = self.sizes.iter().map(of).collect();
        Ok(all?.iter().all(|n| n.is_multiple_of(self.multiple)))
    }
}

fn real(ty: &TensorType) -> Result<(), String> {
    match ty.dtype {
        DType::F32 => Ok(()),
        _ => Err(format!("takes real numbers, is given {ty}")),
    }
}

fn number(ty: &TensorType) -> Result<(), String> {
    match (ty.dtype, ty.rank()) {
        (DType::F32, 0) => Ok(()),
        _ => Err(format!("takes single real numbers, is given {ty}")),
    }
}

impl Rule for Amax {
    fn name(&self) -> &'static str {
        "amax"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        real(x)?;
        Ok(vec![TensorType::new(vec![], DType::F32)])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].count(), inputs, outputs)
    }
}

impl Rule for FormatScale {
    fn name(&self) -> &'static str {
        "fp8_scale"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let expected = 1 + matches!(self.by, ScaleBy::Delayed { .. }) as usize;
        if inputs.len() != expected {
            return Err(format!("takes {expected} inputs, is given {}", inputs.len()));
        }
        inputs.iter().try_for_each(|ty| number(ty))?;
        Ok(vec![TensorType::new(vec![], DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None; cx.inputs.len()])
    }
    fn attributes(&self) -> String {
        self.format.name().into()
    }
}

impl Rule for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = match &self.group {
            Group::All => {
                let [x, scale] = arity(inputs)?;
                number(scale)?;
                x
            }
            Group::Tile { inner, rows, along, .. } => {
                let [x] = arity(inputs)?;
                let neighbours = inner.windows(2).all(|w| w[1] == w[0] + 1);
                if inner.is_empty() || !neighbours || inner.iter().any(|d| *d >= x.rank()) {
                    return Err(format!("takes neighbouring dimensions to sum over, is given {inner:?} of {x}"));
                }
                if *rows == 0 || *along == 0 {
                    return Err(format!("takes tiles with values, is given {rows} by {along}"));
                }
                x
            }
        };
        real(x)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut grads = vec![None; cx.inputs.len()];
        grads[0] = Some(cx.grad());
        Ok(grads)
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        // Scale, round, scale back.
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(3)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        let size = |n: usize| if n == usize::MAX { "all".to_string() } else { n.to_string() };
        match &self.group {
            Group::All => self.format.name().into(),
            Group::Tile { rows, along, .. } => format!("{} {}x{}", self.format.name(), size(*rows), size(*along)),
        }
    }
}

/// The greatest magnitude of a value.
pub fn amax(x: Handle) -> Handle {
    op1(Amax, &[x])
}

/// The scale for a whole value from its greatest magnitude.
pub fn current_scale(format: Fp8, scale: Scale, amax: Handle) -> Handle {
    op1(FormatScale { format, by: ScaleBy::Current(scale) }, &[amax])
}

/// The scale that delayed scaling goes on with.
pub fn delayed_scale(format: Fp8, margin: f32, amax: Handle, old: Handle) -> Handle {
    op1(FormatScale { format, by: ScaleBy::Delayed { margin } }, &[amax, old])
}

/// `round(x * scale) / scale` with one scale `[]`.
pub fn quantize(format: Fp8, x: Handle, scale: Handle) -> Handle {
    op1(Quantize { format, group: Group::All, sizes: vec![], multiple: 16 }, &[x, scale])
}

/// The same with a scale for each tile of `rows` by `along` values: see [`Group::Tile`].
pub fn quantize_tiles(format: Fp8, x: Handle, inner: &[usize], tile: (usize, usize), scale: Scale) -> Handle {
    let group = Group::Tile { inner: inner.to_vec(), rows: tile.0, along: tile.1, scale };
    op1(Quantize { format, group, sizes: vec![], multiple: 16 }, &[x])
}
