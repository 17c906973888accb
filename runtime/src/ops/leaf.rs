//! Leaves: values that no operation computes.

use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, Extent, TensorType};

macro_rules! leaf {
    ($ty:ident, $name:literal) => {
        impl Rule for $ty {
            fn name(&self) -> &'static str {
                $name
            }
            fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
                arity::<0>(inputs)?;
                Ok(vec![self.ty.clone()])
            }
            fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
                Ok(vec![])
            }
            fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
                Cost::free()
            }
        }
    };
}

/// Argument number `index` of the program.
#[derive(Clone, Debug)]
pub struct Input {
    /// Which argument.
    pub index: u32,
    /// Its type.
    pub ty: TensorType,
}
leaf!(Input, "input");

/// Variable number `index` of the graph.
#[derive(Clone, Debug)]
pub struct Var {
    /// Which of [`Graph::vars`](crate::graph::Graph::vars).
    pub index: u32,
    /// Its type.
    pub ty: TensorType,
}
leaf!(Var, "variable");

/// What a [`Constant`] holds: a number, or a size that is known when arrays are bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// A number; whole for indices, 0 or 1 for masks.
    Number(f64),
    /// The value of an extent, for means over run-time axes.
    Size(Extent),
}

/// One value everywhere.
#[derive(Clone, Debug)]
pub struct Constant {
    /// The value.
    pub fill: Fill,
    /// The type.
    pub ty: TensorType,
}

impl Rule for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        arity::<0>(inputs)?;
        Ok(vec![self.ty.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![])
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
    fn attributes(&self) -> String {
        match &self.fill {
            Fill::Number(v) => format!("{v}"),
            Fill::Size(e) => format!("{e}"),
        }
    }
}

/// The position along dimension `axis`: `torch.arange` broadcast to a shape.
#[derive(Clone, Debug)]
pub struct Iota {
    /// The dimension that counts.
    pub axis: usize,
    /// The type: indices.
    pub ty: TensorType,
}
leaf!(Iota, "iota");

/// The same value, with no gradient. PyTorch: `detach`.
#[derive(Clone, Debug)]
pub struct Detach;

impl Rule for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None])
    }
    fn is_view(&self) -> bool {
        true
    }
    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::free()
    }
}

/// A value of type `ty` that is `value` everywhere.
pub fn fill(value: f64, ty: TensorType) -> Handle {
    op1(Constant { fill: Fill::Number(value), ty }, &[])
}

/// A real scalar.
pub fn scalar(value: f64) -> Handle {
    fill(value, TensorType::new(vec![], DType::F32))
}

/// A size as a real scalar.
pub fn size(extent: Extent) -> Handle {
    match extent.as_constant() {
        Some(n) => scalar(n as f64),
        None => op1(Constant { fill: Fill::Size(extent), ty: TensorType::new(vec![], DType::F32) }, &[]),
    }
}

/// A size as an index.
pub fn index(extent: Extent) -> Handle {
    op1(Constant { fill: Fill::Size(extent), ty: TensorType::new(vec![], DType::I32) }, &[])
}

/// Positions along dimension `axis` of `ty`, as indices.
pub fn iota(axis: usize, ty: &TensorType) -> Handle {
    op1(Iota { axis, ty: ty.with_dtype(DType::I32) }, &[])
}
