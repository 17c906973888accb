//! Rotary position embedding (Su et al. 2021): pairs of features are rotated by angles that grow
//! with the position.
//!
//! Pair `i` of the first `2 * half` features at position `p` is rotated by `p * inv_freq_i`:
//! `(a, b) -> (a cos - b sin, b cos + a sin)`; the features behind them pass through (partial
//! rotary). Two ways of pairing are in use: [`Pairing::HalfSplit`] (GPT-NeoX, Llama) pairs feature
//! `i` with `i + half`, [`Pairing::Interleaved`] (GPT-J, RoFormer) pairs `2 i` with `2 i + 1`.
//!
//! Two operations: [`RopeTable`] computes the cosines and sines of all angles once, in the scaling
//! that a model's configuration names ([`Scaling`]); [`Rope`] rotates. Rotation is orthogonal, so
//! the gradient is the rotation by the negative angle.

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1, opn, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
pub use frequencies::{Rotary, Scaling, Yarn};

mod frequencies;

/// Which features make a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pairing {
    /// Feature `i` with feature `i + half`: GPT-NeoX, Llama and nearly all of Hugging Face.
    #[default]
    HalfSplit,
    /// Feature `2 i` with feature `2 i + 1`: GPT-J, the original paper, Meta's own Llama code.
    Interleaved,
}

/// Cosines and sines of the angles. Inputs: positions `[..]`, and perhaps for each of them the length
/// of its text, which some scalings ask for; otherwise all are of one text that ends with the last
/// position. Outputs: cosines and sines `[.., half]`, times the scaling's attention factor.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Base and scaling of the frequencies.
    pub rotary: Rotary,
    /// The number of pairs.
    pub half: Dim,
}

/// Rotates pairs of features. Inputs: `x [.., features]`, cosines and sines `[.., half]`.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Which features make a pair.
    pub pairing: Pairing,
    /// For each dimension of the table but the last, the dimension of `x` that it follows.
    pub axes: Vec<usize>,
    /// Rotates by the negative angle.
    pub inverse: bool,
}

impl Rule for RopeTable {
    fn name(&self) -> &'static str {
        "rope_table"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (positions, lengths) = match inputs {
            [positions] => (*positions, None),
            _ => arity(inputs).map(|[positions, lengths]| (positions, Some(lengths)))?,
        };
        if positions.dtype != DType::I32 {
            return Err(format!("takes positions as indices, is given {positions}"));
        }
        if let Some(lengths) = lengths.filter(|l| l.dtype != DType::I32 || !l.same_extents(positions)) {
            return Err(format!("takes one length for each of {positions}, is given {lengths}"));
        }
        let mut dims = positions.dims.clone();
        dims.push(self.half.clone());
        Ok(vec![TensorType::new(dims, DType::F32); 2])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None; cx.inputs.len()])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(outputs[0].count(), Extent::constant(3)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("theta={} scaling={}", self.rotary.theta, self.rotary.scaling.name())
    }
}

impl Rule for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, cos, sin] = arity(inputs)?;
        if [x, cos, sin].iter().any(|t| t.dtype != DType::F32) || !cos.same_extents(sin) || x.rank() == 0 {
            return Err(format!("takes features, cosines and sines, is given {x}, {cos} and {sin}"));
        }
        let aligned = self.axes.len() + 1 == cos.rank()
            && self.axes.windows(2).all(|w| w[0] < w[1])
            && self.axes.iter().zip(&cos.dims).all(|(a, d)| *a + 1 < x.rank() && x.dims[*a].extent == d.extent);
        if !aligned {
            return Err(format!("the table {cos} does not follow dimensions {:?} of {x}", self.axes));
        }
        let (features, half) = (&x.dims[x.rank() - 1].extent, &cos.dims[cos.rank() - 1].extent);
        if let (Some(f), Some(h)) = (features.as_constant(), half.as_constant())
            && 2 * h > f
        {
            return Err(format!("{h} pairs do not fit into the last dimension of {x}"));
        }
        Ok(vec![x.clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        if cx.wanted[1] || cx.wanted[2] {
            return Err(NoGradient("the angles of a rotation are constants".into()));
        }
        let op = Rope { inverse: !self.inverse, ..self.clone() };
        Ok(vec![Some(op1(op, &[cx.grad(), cx.inputs[1], cx.inputs[2]])), None, None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(3)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        let way = match self.pairing {
            Pairing::HalfSplit => "half_split",
            Pairing::Interleaved => "interleaved",
        };
        format!("{way}{}", if self.inverse { " inverse" } else { "" })
    }
}

/// Cosines and sines `[.., half]` for positions `[..]`. `features` is the size of a head: its part
/// that `rotary.partial` names is rotated.
pub fn tables(rotary: &Rotary, positions: Handle, features: &Extent) -> (Handle, Handle) {
    tables_of(rotary, positions, None, features)
}

/// The same where each position has a text of its own, of a length `[..]`.
pub fn tables_of(rotary: &Rotary, positions: Handle, lengths: Option<Handle>, features: &Extent) -> (Handle, Handle) {
    let half = Dim::anonymous(rotary.half(features));
    let lengths = lengths.filter(|_| rotary.scaling.depends_on_length());
    let inputs: Vec<Handle> = std::iter::once(positions).chain(lengths).collect();
    let out = opn(RopeTable { rotary: rotary.clone(), half }, &inputs, 2);
    (out[0], out[1])
}

/// Rotates `x [.., features]`; dimension `i` of the tables follows dimension `axes[i]` of `x`.
pub fn rope(x: Handle, (cos, sin): (Handle, Handle), pairing: Pairing, axes: &[usize]) -> Handle {
    op1(Rope { pairing, axes: axes.to_vec(), inverse: false }, &[x, cos, sin])
}

/// Positions `0, 1, ..` along dimension `axis` of `x`, as `[that dimension]`.
pub fn positions(x: Handle, axis: usize) -> Handle {
    let dim = type_of(x).dims[axis].clone();
    super::leaf::iota(0, &TensorType::new(vec![dim], DType::I32))
}
