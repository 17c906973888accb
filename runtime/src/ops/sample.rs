//! Draws of tokens from logits, by settings and numbers that come with every run: what generation asks of a device, so that
//! tokens leave it and logits do not.
//!
//! ```text
//! token[b] = draw(logits[b, ..], settings[b], numbers[b])
//! ```
//!
//! [`sampling`] defines the draw. Settings are temperature, `top_p` and `min_p`; numbers are `top_k`, the seed's
//! lower and upper half, the sequence and the step. Where no token is possible (all logits are minus infinity) the result is
//! [`NOTHING`], where logits are not numbers [`NOT_NUMBERS`].

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::Const;
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, TensorType};
use crate::language::axis::Axis;
use crate::language::element::Index;
use crate::sampling::{self, Candidate, Draw, NotNumbers};
use crate::tensor::Tensor;

/// The result where no token is possible.
pub const NOTHING: i32 = -1;
/// The result where logits are not numbers.
pub const NOT_NUMBERS: i32 = -2;

/// Draws of tokens. Inputs: `logits [b, n]`, settings `[b, 3]`, numbers `[b, 5]`. Output: `[b]`.
#[derive(Clone, Debug)]
pub struct Sample;

impl Rule for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, settings, numbers] = arity(inputs)?;
        let rows = |x: &TensorType, dtype, width: Option<u64>| {
            x.rank() == 2
                && x.dtype == dtype
                && x.dims[0].extent == logits.dims[0].extent
                && width.is_none_or(|w| x.dims[1].extent.as_constant() == Some(w))
        };
        let fits =
            rows(logits, DType::F32, None) && rows(settings, DType::F32, Some(3)) && rows(numbers, DType::I32, Some(5));
        match fits {
            true => Ok(vec![TensorType { dims: logits.dims[..1].to_vec(), ..logits.with_dtype(DType::I32) }]),
            false => Err(format!(
                "takes logits [b n], settings [b 3] and whole numbers [b 5], is given {logits}, {settings} and {numbers}"
            )),
        }
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None, None, None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].count(), inputs, outputs)
    }
}

/// What an operation is given for one draw: settings and numbers.
pub fn arguments(draw: &Draw) -> ([f32; 3], [i32; 5]) {
    let k = i32::try_from(draw.top_k).unwrap_or(i32::MAX);
    let numbers = [k, draw.seed as u32 as i32, (draw.seed >> 32) as i32, draw.sequence as i32, draw.step as i32];
    ([draw.temperature, draw.top_p, draw.min_p], numbers)
}

/// A row's result, as the operation defines it.
pub(crate) fn token(logits: &[f32], settings: &[f32], numbers: &[i32], scratch: &mut Vec<Candidate>) -> i32 {
    let draw = Draw {
        temperature: settings[0],
        top_p: settings[1],
        min_p: settings[2],
        top_k: numbers[0].max(0) as usize,
        seed: u64::from(numbers[1] as u32) | u64::from(numbers[2] as u32) << 32,
        sequence: numbers[3] as u32,
        step: u64::from(numbers[4] as u32),
    };
    match sampling::sample(logits, &draw, scratch) {
        Ok(Some(id)) => id as i32,
        Ok(None) => NOTHING,
        Err(NotNumbers) => NOT_NUMBERS,
    }
}

/// A token of each row of logits: [`Sample`].
pub fn sample<B: Axis, V: Axis>(
    logits: Tensor<(B, V)>,
    settings: Tensor<(B, Const<3>)>,
    numbers: Tensor<(B, Const<5>), Index>,
) -> Tensor<(B,), Index> {
    Tensor::from_raw(op1(Sample, &[logits.raw(), settings.raw(), numbers.raw()]))
}
