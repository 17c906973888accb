//! Typed movement without arithmetic: merging, repeating, adding and dropping axes.

use super::{repeat, repeat_interleave, reshape};
use crate::language::axis::{Axis, Const, Prod};
use crate::language::element::Element;
use crate::language::shape::{Has, Neighbours, Push, Shape};
use crate::tensor::Tensor;

impl<S: Shape, E: Element> Tensor<S, E> {
    /// Merges two neighbouring axes into one: `x.flatten(Height, Width)` has the axis
    /// `Prod<Height, Width>`, to which `relabel` gives a declared name, with proof. PyTorch:
    /// `x.flatten(dim, dim + 1)`.
    #[inline]
    pub fn flatten<A: Axis, B: Axis, P>(self, _first: A, _second: B) -> Tensor<S::Merged<Prod<A, B>>, E>
    where
        S: Neighbours<A, B, P>,
    {
        Tensor::from_raw(reshape(self.raw(), <S::Merged<Prod<A, B>>>::dims()))
    }

    /// Splits an axis into two; that their product is the axis is proved at build time. PyTorch:
    /// `x.unflatten(dim, (first, second))`.
    #[inline]
    pub fn unflatten<A: Axis, B: Axis, C: Axis, P>(self, _axis: A, _first: B, _second: C) -> Tensor<S::Split<B, C>, E>
    where
        S: Has<A, P>,
    {
        const { crate::language::proof::factors::<A, (B, C)>() }
        Tensor::from_raw(reshape(self.raw(), <S::Split<B, C>>::dims()))
    }

    /// The values of `axis` `count` times over, as a whole (`a b a b`): the axis becomes
    /// `Prod<N, A>`. PyTorch: `x.tile`.
    #[inline]
    pub fn repeat<A: Axis, N: Axis, P>(self, _axis: A, _count: N) -> Tensor<S::With<Prod<N, A>>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(repeat(self.raw(), S::POSITION, N::dim(), <Prod<N, A>>::dim()))
    }

    /// Each value of `axis` `count` times in a row (`a a b b`): the axis becomes `Prod<A, N>`.
    /// PyTorch: `x.repeat_interleave(count, dim)`.
    #[inline]
    pub fn repeat_interleave<A: Axis, N: Axis, P>(self, _axis: A, _count: N) -> Tensor<S::With<Prod<A, N>>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(repeat_interleave(self.raw(), S::POSITION, N::dim(), <Prod<A, N>>::dim()))
    }

    /// A last axis of size 1. PyTorch: `x.unsqueeze(-1)`.
    #[inline]
    pub fn unsqueeze(self) -> Tensor<S::Out, E>
    where
        S: Push<Const<1>>,
    {
        Tensor::from_raw(reshape(self.raw(), S::Out::dims()))
    }

    /// Drops an axis of size 1; that it is one is proved at build time. PyTorch: `x.squeeze(dim)`.
    #[inline]
    pub fn squeeze<A: Axis, P>(self, _axis: A) -> Tensor<S::Without, E>
    where
        S: Has<A, P>,
    {
        const { crate::language::proof::equal::<A, Const<1>>("squeeze drops an axis of size 1") }
        Tensor::from_raw(reshape(self.raw(), S::Without::dims()))
    }

    /// The same values along a new last axis. PyTorch: `x.unsqueeze(-1).expand(..)`.
    #[inline]
    pub fn repeat_last<N: Axis>(self) -> Tensor<S::Out, E>
    where
        S: Push<N>,
    {
        let dims = S::Out::dims();
        let last = dims.len() - 1;
        Tensor::from_raw(crate::ops::reduce::restore(self.raw(), &dims, &[last]))
    }
}
