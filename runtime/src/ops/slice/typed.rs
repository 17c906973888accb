//! Typed slices, concatenation and updates.

use super::{concat, dynamic_slice, flip, slice, update_slice};
use crate::graph::Extent;
use crate::language::axis::{Axis, Sum};
use crate::language::element::{Element, Indices};
use crate::language::proof;
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// Where a slice starts: a number, or an axis whose size is the number (`Const::<3>`, `Past`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a position",
    label = "expected a number or an axis",
    note = "for a position that is computed in the graph use `slice_at`"
)]
pub trait Offset {
    /// The position, where the compiler knows it.
    const SIZE: Option<u64>;
    /// The position in the graph.
    fn extent(&self) -> Extent;
}
impl Offset for usize {
    const SIZE: Option<u64> = None;
    fn extent(&self) -> Extent {
        Extent::constant(*self as u64)
    }
}
impl<A: Axis> Offset for A {
    const SIZE: Option<u64> = A::SIZE;
    fn extent(&self) -> Extent {
        A::extent()
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// As many values of `axis` as `new` is long, from `start` on: `x.slice(Time, Window, 0)`.
    ///
    /// `start` is a number or an axis. Where all three are static axes, that the slice fits is
    /// proved at build time; with a number it is checked while tracing, and with run-time sizes
    /// when arrays are bound. PyTorch: `x.narrow(dim, start, length)`, `x[start : start + length]`.
    #[inline]
    pub fn slice<A: Axis, N: Axis, O: Offset, P>(self, _axis: A, _new: N, start: O) -> Tensor<S::With<N>, E>
    where
        S: Has<A, P>,
    {
        // Proved here, not in `slice_step`: a failed proof shows the place that called the method
        // that holds it.
        const { proof::slice::<A, N>("slice", O::SIZE) }
        Tensor::from_raw(slice(self.raw(), S::POSITION, start.extent(), 1, N::dim()))
    }

    /// Every `step`-th value of `axis` from `start` on, as many as `new` is long. PyTorch:
    /// `x[start::step]`.
    #[inline]
    pub fn slice_step<A: Axis, N: Axis, O: Offset, P>(
        self,
        _axis: A,
        _new: N,
        start: O,
        step: usize,
    ) -> Tensor<S::With<N>, E>
    where
        S: Has<A, P>,
    {
        const { proof::slice::<A, N>("slice", O::SIZE) }
        Tensor::from_raw(slice(self.raw(), S::POSITION, start.extent(), step as u64, N::dim()))
    }

    /// As many values of `axis` as `new` is long, from a position computed in the graph. A slice
    /// that does not fit is an error when the program runs. JAX: `dynamic_slice`.
    #[inline]
    pub fn slice_at<A: Axis, N: Axis, I: Indices, P>(
        self,
        _axis: A,
        _new: N,
        start: Tensor<(), I>,
    ) -> Tensor<S::With<N>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(dynamic_slice(self.raw(), start.raw(), S::POSITION, N::dim()))
    }

    /// `x` with `block` in place of its values along `axis` from `start` on: how a cache takes
    /// new keys and values. A block that does not fit is an error when the program runs. JAX:
    /// `dynamic_update_slice`.
    #[inline]
    pub fn update_slice<A: Axis, B: Axis, I: Indices, P>(
        self,
        _axis: A,
        block: Tensor<S::With<B>, E>,
        _block_axis: B,
        start: Tensor<(), I>,
    ) -> Tensor<S, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(update_slice(self.raw(), block.raw(), start.raw(), S::POSITION))
    }

    /// `x` followed by `other` along an axis, which is called `axis` in `x` and `other_axis` in
    /// `other`: `past.concat(Past, new, Time)` has the axis `Sum<Past, Time>`. All other axes must
    /// be the same. PyTorch: `torch.cat((x, other), dim)`.
    #[inline]
    pub fn concat<A: Axis, B: Axis, P>(
        self,
        _axis: A,
        other: Tensor<S::With<B>, E>,
        _other_axis: B,
    ) -> Tensor<S::With<Sum<A, B>>, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(concat(&[self.raw(), other.raw()], S::POSITION, <Sum<A, B>>::dim()))
    }

    /// Cuts `axis` into the axes `first` and `second`; that they add up to it is proved at build
    /// time. PyTorch: `x.split([first, second], dim)`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn split<A: Axis, B: Axis, C: Axis, P>(
        self,
        _axis: A,
        _first: B,
        _second: C,
    ) -> (Tensor<S::With<B>, E>, Tensor<S::With<C>, E>)
    where
        S: Has<A, P>,
    {
        const { proof::equal::<A, Sum<B, C>>("split cuts an axis into two that add up to it") }
        let part = |start, dim| slice(self.raw(), S::POSITION, start, 1, dim);
        (Tensor::from_raw(part(Extent::constant(0), B::dim())), Tensor::from_raw(part(B::extent(), C::dim())))
    }

    /// The values along `axis` in reverse order. PyTorch: `x.flip(dim)`.
    #[inline]
    pub fn flip<A: Axis, P>(self, _axis: A) -> Tensor<S, E>
    where
        S: Has<A, P>,
    {
        Tensor::from_raw(flip(self.raw(), S::POSITION))
    }
}
