//! Movement: the same values in other places. Most of it costs nothing: programs turn
//! `permute`, `reshape`, `slice` and `broadcast` into views wherever the consumer takes strides.

use super::{Cost, GradContext, NoGradient, Rule, arity, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{Dim, TensorType};

mod typed;

/// The same values in row-major order under other dimensions.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// The new dimensions.
    pub dims: Vec<Dim>,
}

/// Dimensions in another order: output dimension `i` is input dimension `perm[i]`.
#[derive(Clone, Debug)]
pub struct Permute {
    /// For each output dimension the input dimension.
    pub perm: Vec<usize>,
}

/// Repetition along new leading dimensions.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// All dimensions; the last ones are the input's.
    pub dims: Vec<Dim>,
}

impl Rule for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let out = TensorType::new(self.dims.clone(), x.dtype);
        if x.count() != out.count() {
            return Err(format!("{x} does not hold as many values as {out}"));
        }
        Ok(vec![out])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![Some(reshape(cx.grad(), type_of(cx.inputs[0]).dims))])
    }
    fn is_view(&self) -> bool {
        true
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
}

impl Rule for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let mut seen = self.perm.clone();
        seen.sort_unstable();
        if seen != (0..x.rank()).collect::<Vec<_>>() {
            return Err(format!("{:?} is not an order of the dimensions of {x}", self.perm));
        }
        Ok(vec![TensorType::new(self.perm.iter().map(|p| x.dims[*p].clone()).collect(), x.dtype)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inverse = vec![0; self.perm.len()];
        for (to, from) in self.perm.iter().enumerate() {
            inverse[*from] = to;
        }
        Ok(vec![Some(permute(cx.grad(), &inverse))])
    }
    fn is_view(&self) -> bool {
        true
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
    fn attributes(&self) -> String {
        format!("order={:?}", self.perm)
    }
}

impl Rule for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let out = TensorType::new(self.dims.clone(), x.dtype);
        let fits = out.rank() >= x.rank()
            && out.dims[out.rank() - x.rank()..].iter().zip(&x.dims).all(|(a, b)| a.extent == b.extent);
        if !fits {
            return Err(format!("{x} is not the end of {out}"));
        }
        Ok(vec![out])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let lead: Vec<usize> = (0..self.dims.len() - type_of(cx.inputs[0]).rank()).collect();
        Ok(vec![Some(reduce::reduce(cx.grad(), reduce::Kind::Sum, &lead))])
    }
    fn is_view(&self) -> bool {
        true
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
}

/// The same values under other dimensions.
pub fn reshape(x: Handle, dims: Vec<Dim>) -> Handle {
    if type_of(x).dims == dims { x } else { op1(Reshape { dims }, &[x]) }
}

/// The same dimensions under other names.
pub fn relabel(x: Handle, dims: Vec<Dim>) -> Handle {
    reshape(x, dims)
}

/// Dimensions in another order.
pub fn permute(x: Handle, perm: &[usize]) -> Handle {
    if perm.iter().enumerate().all(|(i, p)| i == *p) { x } else { op1(Permute { perm: perm.to_vec() }, &[x]) }
}

/// Repetition along leading dimensions: the input's are the last of `dims`.
pub fn broadcast(x: Handle, dims: Vec<Dim>) -> Handle {
    if type_of(x).rank() == dims.len() { x } else { op1(Broadcast { dims }, &[x]) }
}

/// The values along dimension `axis` `count` times over, as a whole; `dim` comes out.
pub fn repeat(x: Handle, axis: usize, count: Dim, dim: Dim) -> Handle {
    let mut dims = type_of(x).dims;
    dims.insert(axis, count);
    let wide = reduce::restore(x, &dims, &[axis]);
    dims.splice(axis..=axis + 1, [dim]);
    reshape(wide, dims)
}

/// Each value along dimension `axis` `count` times in a row; `dim` comes out.
pub fn repeat_interleave(x: Handle, axis: usize, count: Dim, dim: Dim) -> Handle {
    let mut dims = type_of(x).dims;
    dims.insert(axis + 1, count);
    let wide = reduce::restore(x, &dims, &[axis + 1]);
    dims.splice(axis..=axis + 1, [dim]);
    reshape(wide, dims)
}
