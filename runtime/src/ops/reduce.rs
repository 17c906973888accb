//! Reductions over dimensions.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Hidden = 64; }
//!
//! fn standardize(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Hidden] {
//!     x.mean(Time) / (x.var(Time) + 1e-5).sqrt()
//! }
//!
//! fn mean_of(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Hidden] {
//!     reduce!(mean: x[b t h] => [b h])
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, movement};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::element::{Element, Float, Number, Truth};
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// What a reduction computes. PyTorch's definitions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The sum; 0 over nothing.
    Sum,
    /// The arithmetic mean; NaN over nothing.
    Mean,
    /// The largest; NaN where any is, minus infinity over nothing.
    Max,
    /// The smallest; NaN where any is, infinity over nothing.
    Min,
    /// The variance estimated from a sample: the sum of squared distances from the mean, divided
    /// by the number of values less one; NaN over fewer than two.
    Var,
    /// `log(sum(exp(x)))`, without overflow; minus infinity over nothing.
    LogSumExp,
    /// Whether any is true; false over nothing.
    Any,
    /// Whether all are true; true over nothing.
    All,
}

/// The reductions that devices compute; means and variances are composed of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Primitive {
    /// [`Kind::Sum`]
    Sum,
    /// The sum of squares: what norms of gradients are made of, without the squares in memory.
    SumSquares,
    /// [`Kind::Max`]
    Max,
    /// [`Kind::Min`]
    Min,
    /// [`Kind::LogSumExp`]
    LogSumExp,
    /// [`Kind::Any`]
    Any,
    /// [`Kind::All`]
    All,
}

/// A reduction over the dimensions at `positions` (ascending), which disappear.
#[derive(Clone, Debug)]
pub struct Reduce {
    /// What is computed.
    pub kind: Primitive,
    /// Over which dimensions, ascending.
    pub positions: Vec<usize>,
}

impl Rule for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Primitive::Sum => "sum",
            Primitive::SumSquares => "sum_squares",
            Primitive::Max => "reduce_max",
            Primitive::Min => "reduce_min",
            Primitive::LogSumExp => "logsumexp",
            Primitive::Any => "any",
            Primitive::All => "all",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        if self.positions.iter().any(|p| *p >= x.rank()) {
            return Err(format!("has no dimensions {:?} in {x}", self.positions));
        }
        let fits = match self.kind {
            Primitive::Any | Primitive::All => x.dtype == DType::Bool,
            Primitive::LogSumExp | Primitive::SumSquares => x.dtype == DType::F32,
            Primitive::Sum | Primitive::Max | Primitive::Min => x.dtype != DType::Bool,
        };
        if !fits {
            return Err(format!("is not defined for {}", x.dtype));
        }
        let kept = x.dims.iter().enumerate().filter(|(i, _)| !self.positions.contains(i));
        Ok(vec![TensorType::new(kept.map(|(_, d)| d.clone()).collect(), x.dtype)])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, y, g) = (cx.inputs[0], cx.outputs[0], cx.grad());
        let ty = type_of(x);
        let back = |h| restore(h, &ty.dims, &self.positions);
        Ok(vec![match self.kind {
            Primitive::Sum => Some(back(g)),
            Primitive::SumSquares => Some(ew::mul(ew::scale(x, 2.0), back(g))),
            // Equal extremes share the gradient evenly, as PyTorch's amax does.
            Primitive::Max | Primitive::Min => {
                let hit = ew::cast(ew::compare(ew::CompareKind::Eq, x, back(y)), DType::F32);
                let count = reduce(hit, Kind::Sum, &self.positions);
                Some(ew::mul(hit, back(ew::div(g, count))))
            }
            // softmax(x), and 0 where every value is minus infinity. The infinity is replaced
            // before the exponential, so that no NaN arises.
            Primitive::LogSumExp => {
                let nothing = ew::compare(ew::CompareKind::Eq, y, leaf::scalar(f64::NEG_INFINITY));
                let finite = ew::select(nothing, leaf::scalar(0.0), y);
                Some(ew::mul(back(g), ew::exp(ew::sub(x, back(finite)))))
            }
            Primitive::Any | Primitive::All => None,
        }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].count(), inputs, outputs)
    }

    fn attributes(&self) -> String {
        format!("over={:?}", self.positions)
    }
}

/// The sum of squares over the dimensions at `positions` (ascending) of real numbers.
pub fn sum_squares(x: Handle, positions: &[usize]) -> Handle {
    if positions.is_empty() {
        return ew::mul(x, x);
    }
    op1(Reduce { kind: Primitive::SumSquares, positions: positions.to_vec() }, &[x])
}

/// Repeats a reduced value along the dimensions that a reduction at `positions` removed.
pub fn restore(h: Handle, dims: &[Dim], positions: &[usize]) -> Handle {
    // After a mistake in the trace there may be no such dimensions.
    if positions.iter().any(|p| *p >= dims.len()) {
        return h;
    }
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
    let kind = match kind {
        Kind::Mean => return mean(x, positions),
        Kind::Var => return var(x, positions, 1),
        Kind::Sum => Primitive::Sum,
        Kind::Max => Primitive::Max,
        Kind::Min => Primitive::Min,
        Kind::LogSumExp => Primitive::LogSumExp,
        Kind::Any => Primitive::Any,
        Kind::All => Primitive::All,
    };
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

/// The sum of squared distances from the mean, divided by the number of values less
/// `correction`, over the dimensions at `positions`.
pub fn var(x: Handle, positions: &[usize], correction: u64) -> Handle {
    let ty = type_of(x);
    let mut ascending = positions.to_vec();
    ascending.sort_unstable();
    let distance = ew::sub(x, restore(mean(x, &ascending), &ty.dims, &ascending));
    let sum = reduce(ew::mul(distance, distance), Kind::Sum, &ascending);
    let n = count(&ty, positions);
    let n = match n.as_constant() {
        Some(n) => leaf::scalar(n.saturating_sub(correction) as f64),
        None => ew::maximum(ew::sub(leaf::size(n), leaf::scalar(correction as f64)), leaf::scalar(0.0)),
    };
    ew::div(sum, n)
}

macro_rules! reductions {
    ($class:ident -> $out:ty; $($(#[$doc:meta])* $name:ident $all:ident = $kind:ident;)*) => {
        impl<S: Shape, E: Element> Tensor<S, E> {$(
            $(#[$doc])*
            #[inline]
            pub fn $name<A, P>(self, _axis: A) -> Tensor<S::Without, $out>
            where
                E: $class,
                S: Has<A, P>,
            {
                Tensor::from_raw(reduce(self.raw(), Kind::$kind, &[S::POSITION]))
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") over all values.")]
            #[inline]
            pub fn $all(self) -> Tensor<(), $out>
            where
                E: $class,
            {
                Tensor::from_raw(reduce(self.raw(), Kind::$kind, &every::<S>()))
            }
        )*}
    };
}

fn every<S: Shape>() -> Vec<usize> {
    (0..S::RANK).collect()
}

reductions! { Number -> E::Base;
    /// The sum over one axis: `x.sum(Time)`; 0 over nothing. PyTorch: `x.sum(dim)`.
    sum sum_all = Sum;
    /// The largest value along one axis; NaN where any is. Equal largest values share the
    /// gradient. PyTorch: `x.amax(dim)`. For the larger of two tensors see
    /// [`maximum`](Self::maximum).
    max max_all = Max;
    /// The smallest value along one axis; NaN where any is. Equal smallest values share the
    /// gradient. PyTorch: `x.amin(dim)`. For the smaller of two tensors see
    /// [`minimum`](Self::minimum).
    min min_all = Min;
}
reductions! { Float -> crate::language::element::Real;
    /// The mean over one axis; NaN over nothing. PyTorch: `x.mean(dim)`.
    mean mean_all = Mean;
    /// The variance estimated from the sample along one axis (divided by n - 1); NaN for fewer
    /// than two values. PyTorch: `x.var(dim)`. For the variance of the values themselves
    /// (divided by n) see [`var_with`](Self::var_with).
    var var_all = Var;
    /// `log(sum(exp(x)))` along one axis, without overflow; minus infinity where all values are.
    /// PyTorch: `x.logsumexp(dim)`.
    logsumexp logsumexp_all = LogSumExp;
}
reductions! { Truth -> crate::language::element::Mask;
    /// Whether any value along one axis is true; false over nothing. PyTorch: `x.any(dim)`.
    any any_all = Any;
    /// Whether all values along one axis are true; true over nothing. PyTorch: `x.all(dim)`.
    all all_all = All;
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The sum of squared distances from the mean along one axis, divided by the number of values
    /// less `correction`: 0 for the variance of the values themselves, 1 for the estimate from a
    /// sample. PyTorch: `x.var(dim, correction=..)`.
    #[inline]
    pub fn var_with<A, P>(self, _axis: A, correction: u64) -> Tensor<S::Without>
    where
        E: Float,
        S: Has<A, P>,
    {
        Tensor::from_raw(var(self.raw(), &[S::POSITION], correction))
    }

    /// The standard deviation estimated from the sample along one axis: the square root of
    /// [`var`](Self::var). Its gradient is not finite where all values are equal. PyTorch:
    /// `x.std(dim)`.
    #[inline]
    pub fn std<A, P>(self, axis: A) -> Tensor<S::Without>
    where
        E: Float,
        S: Has<A, P>,
    {
        self.std_with(axis, 1)
    }

    /// The square root of [`var_with`](Self::var_with). PyTorch: `x.std(dim, correction=..)`.
    #[inline]
    pub fn std_with<A, P>(self, _axis: A, correction: u64) -> Tensor<S::Without>
    where
        E: Float,
        S: Has<A, P>,
    {
        Tensor::from_raw(ew::powf(var(self.raw(), &[S::POSITION], correction), 0.5))
    }
}
