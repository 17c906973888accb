//! Typed symbolic handles.
//!
//! A [`Tensor`] is an index into the graph being traced, so it is `Copy` and costs nothing; its
//! shape and element exist for the compiler only. Its operations are in [`crate::ops`], one file
//! a family, each a one-line wrapper over the untyped graph builder, so that distinct sizes cost
//! no code.

use crate::graph::TensorType;
use crate::graph::trace::{self, Handle};
use crate::language::element::{Base, Element, Float, Is, Real};
use crate::language::proof;
use crate::language::shape::{BroadcastTo, Shape};
use std::marker::PhantomData;

/// A symbolic value of shape `S` whose numbers mean `E`. Write its type with
/// [`Tensor!`](macro@crate::Tensor).
pub struct Tensor<S, E = Real> {
    raw: Handle,
    // Not `Send`: a handle belongs to the trace of its thread.
    types: PhantomData<(fn() -> (S, E), *const ())>,
}

impl<S, E> Clone for Tensor<S, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S, E> Copy for Tensor<S, E> {}

impl<S: Shape, E: Element> std::fmt::Debug for Tensor<S, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor[{}; {}]", S::NAMES.join(", "), E::NAME)
    }
}

impl<S, E> Tensor<S, E> {
    /// The untyped handle.
    #[inline]
    pub fn raw(self) -> Handle {
        self.raw
    }

    /// Wraps an untyped handle. The caller answers for shape and element: programs check sizes
    /// again when arrays are bound, axis names and elements are not checked again.
    #[inline]
    pub fn from_raw(raw: Handle) -> Self {
        Tensor { raw, types: PhantomData }
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The type that this handle has in the graph.
    pub fn type_of() -> TensorType {
        TensorType::new(S::dims(), <E::Base as Base>::DTYPE)
    }

    /// The same value as the element `F`, which this element is: its own, a parent's, or any
    /// refinement of the plain base.
    #[inline]
    pub fn port<F: Element>(self) -> Tensor<S, F>
    where
        E: Is<F>,
    {
        Tensor::from_raw(self.raw)
    }

    /// The same value, stated to be the element `F` of the same base class. For the edges of a
    /// model, where the compiler cannot know what the numbers mean.
    #[inline]
    pub fn assume<F: Element<Base = E::Base>>(self) -> Tensor<S, F> {
        Tensor::from_raw(self.raw)
    }

    /// The same value as its plain base element.
    #[inline]
    pub fn plain(self) -> Tensor<S, E::Base> {
        Tensor::from_raw(self.raw)
    }

    /// Makes the value readable by `name` after a run (`program.tap("name")`), and returns it.
    #[inline]
    pub fn tap(self, name: &str) -> Self {
        trace::tap(name, self.raw);
        self
    }

    /// Prints the value, with its axes and sizes, to standard error in every run; a
    /// [`tap`](Self::tap) besides. For debugging: `let x = x.print("scores");`.
    #[inline]
    pub fn print(self, name: &str) -> Self {
        trace::print(name, self.raw);
        self
    }

    /// The same value under other axis names, proved to be of the same sizes at build time.
    #[inline]
    pub fn relabel<T: Shape>(self) -> Tensor<T, E> {
        const { proof::relabel::<S, T>() }
        Tensor::from_raw(crate::ops::movement::relabel(self.raw, T::dims()))
    }

    /// The same values in another shape, proved at build time to hold equally many.
    /// PyTorch: `x.reshape(..)`.
    #[inline]
    pub fn reshape<T: Shape>(self) -> Tensor<T, E> {
        const { proof::reshape::<S, T>() }
        Tensor::from_raw(crate::ops::movement::reshape(self.raw, T::dims()))
    }

    /// Repeats the value along the leading axes that `T` has more. PyTorch: `x.expand(..)`.
    #[inline]
    pub fn broadcast<T: Shape>(self) -> Tensor<T, E>
    where
        S: BroadcastTo<T>,
    {
        Tensor::from_raw(crate::ops::movement::broadcast(self.raw, T::dims()))
    }
}

impl<S: Shape, E: Float> Tensor<S, E> {
    /// A value whose gradient is not taken. PyTorch: `x.detach()`.
    #[inline]
    pub fn detach(self) -> Tensor<S, E> {
        Tensor::from_raw(trace::op1(crate::ops::leaf::Detach, &[self.raw]))
    }
}
