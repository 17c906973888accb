//! Reductions over dimensions.

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, movement};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::element::Float;
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// What is computed over the reduced values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// The sum; 0 over nothing.
    Sum,
    /// The largest; minus infinity over nothing.
    Max,
    /// The smallest; infinity over nothing.
    Min,
    /// Whether any is true.
    Any,
    /// Whether all are true.
    All,
}

/// A reduction over the dimensions at `positions` (ascending), which disappear.
#[derive(Clone, Debug)]
pub struct Reduce {
    /// What is computed.
    pub kind: Kind,
    /// Over which dimensions, ascending.
    pub positions: Vec<usize>,
}

impl Rule for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Max => "reduce_max",
            Kind::Min => "reduce_min",
            Kind::Any => "any",
            Kind::All => "all",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        if self.positions.iter().any(|p| *p >= x.rank()) {
            return Err(format!("has no dimensions {:?} in {x}", self.positions));
        }
        let logical = matches!(self.kind, Kind::Any | Kind::All);
        if logical != (x.dtype == DType::Bool) {
            return Err(format!("is not defined for {}", x.dtype));
        }
        let kept = x.dims.iter().enumerate().filter(|(i, _)| !self.positions.contains(i));
        Ok(vec![TensorType::new(kept.map(|(_, d)| d.clone()).collect(), x.dtype)])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let ty = type_of(cx.inputs[0]);
        let back = |h| restore(h, &ty.dims, &self.positions);
        Ok(vec![match self.kind {
            Kind::Sum => Some(back(cx.grad())),
            // Equal extremes share the gradient evenly, as PyTorch's amax does.
            Kind::Max | Kind::Min => {
                let hit = ew::compare(ew::CompareKind::Eq, cx.inputs[0], back(cx.outputs[0]));
                let hit = ew::cast(hit, DType::F32);
                let count = reduce(hit, Kind::Sum, &self.positions);
                Some(ew::mul(hit, back(ew::div(cx.grad(), count))))
            }
            Kind::Any | Kind::All => None,
        }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].count(), inputs, outputs)
    }

    fn attributes(&self) -> String {
        format!("over={:?}", self.positions)
    }
}

/// Repeats a reduced value along the dimensions that a reduction at `positions` removed.
pub fn restore(h: Handle, dims: &[Dim], positions: &[usize]) -> Handle {
    let kept = (0..dims.len()).filter(|i| !positions.contains(i));
    // The removed dimensions first, then each to its place.
    let order: Vec<usize> = positions.iter().copied().chain(kept).collect();
    let wide = movement::broadcast(h, order.iter().map(|i| dims[*i].clone()).collect());
    let mut perm = vec![0; dims.len()];
    for (from, to) in order.iter().enumerate() {
        perm[*to] = from;
    }
    movement::permute(wide, &perm)
}

/// Reduces over the dimensions at `positions`.
pub fn reduce(x: Handle, kind: Kind, positions: &[usize]) -> Handle {
    if positions.is_empty() {
        return x;
    }
    let mut positions = positions.to_vec();
    positions.sort_unstable();
    op1(Reduce { kind, positions }, &[x])
}

/// The number of values that a reduction over `positions` joins.
pub fn count(ty: &TensorType, positions: &[usize]) -> Extent {
    Extent::product(positions.iter().filter_map(|p| ty.dims.get(*p)).map(|d| &d.extent))
}

/// The mean over the dimensions at `positions`.
pub fn mean(x: Handle, positions: &[usize]) -> Handle {
    let n = leaf::size(count(&type_of(x), positions));
    ew::div(reduce(x, Kind::Sum, positions), n)
}

impl<S: Shape, E: Float> Tensor<S, E> {
    /// The sum over one axis: `x.sum(Time)`. PyTorch: `x.sum(dim)`.
    #[inline]
    pub fn sum<A, P>(self, _axis: A) -> Tensor<S::Without>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(reduce(self.raw(), Kind::Sum, &[S::POSITION]))
    }

    /// The mean over one axis.
    #[inline]
    pub fn mean<A, P>(self, _axis: A) -> Tensor<S::Without>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(mean(self.raw(), &[S::POSITION]))
    }

    /// The sum of all values.
    #[inline]
    pub fn sum_all(self) -> Tensor<()> {
        Tensor::from_raw(reduce(self.raw(), Kind::Sum, &(0..S::RANK).collect::<Vec<_>>()))
    }

    /// The mean of all values.
    #[inline]
    pub fn mean_all(self) -> Tensor<()> {
        Tensor::from_raw(mean(self.raw(), &(0..S::RANK).collect::<Vec<_>>()))
    }
}
