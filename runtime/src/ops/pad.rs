//! Padding: more values before and after along an axis.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Padded = Time + 2; }
//!
//! fn causal(x: Tensor![Batch, Time]) -> Tensor![Batch, Padded] {
//!     x.pad(Time, Const::<2>, Const::<0>, Padding::Constant(0.0)).relabel()
//! }
//! ```

use super::slice::{dimension, flip, slice, with_dim};
use super::{GradContext, NoGradient, Rule, arity, elementwise as ew, movement, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{Dim, Extent, TensorType};
use crate::language::axis::{Axis, Sum};
use crate::language::element::Element;
use crate::language::shape::{Has, Shape};
use crate::tensor::Tensor;

/// What the new values are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Padding {
    /// One number.
    Constant(f64),
    /// A mirror image without the edge: `c b | a b c | b a`. Shorter than the axis.
    Reflect,
    /// The edge repeated: `a a | a b c | c c`. The axis must not be empty.
    Replicate,
    /// The other end: `b c | a b c | a b`. Not longer than the axis.
    Circular,
}

/// `before` and `after` more values along dimension `axis`.
#[derive(Clone, Debug)]
pub struct Pad {
    /// The dimension.
    pub axis: usize,
    /// How many before.
    pub before: Extent,
    /// How many after.
    pub after: Extent,
    /// What they are.
    pub mode: Padding,
    /// The dimension that comes out.
    pub dim: Dim,
}

impl Padding {
    /// Where the value at position `i - before` of an axis of `n` values comes from; `None` for
    /// the constant.
    pub fn source(self, i: isize, n: usize) -> Option<usize> {
        let n = n as isize;
        if (0..n).contains(&i) {
            return Some(i as usize);
        }
        Some(match self {
            Padding::Constant(_) => return None,
            Padding::Reflect if i < 0 => -i,
            Padding::Reflect => 2 * (n - 1) - i,
            Padding::Replicate => i.clamp(0, n - 1),
            Padding::Circular => i.rem_euclid(n),
        } as usize)
    }

    /// What is wrong with padding an axis of `n` values.
    pub fn check(self, n: u64, before: u64, after: u64) -> Result<(), String> {
        let most = before.max(after);
        match self {
            Padding::Reflect if most > 0 && most >= n => {
                Err(format!("reflects {most} values of an axis of {n}: it must be longer than the padding"))
            }
            Padding::Replicate if most > 0 && n == 0 => Err("repeats the edge of an empty axis".into()),
            Padding::Circular if most > n => Err(format!("wraps {most} values of an axis of {n}")),
            _ => Ok(()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Padding::Constant(_) => "constant",
            Padding::Reflect => "reflect",
            Padding::Replicate => "replicate",
            Padding::Circular => "circular",
        }
    }
}

impl Rule for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let n = dimension(x, self.axis)?.extent.clone();
        if let (Some(n), Some(b), Some(a)) = (n.as_constant(), self.before.as_constant(), self.after.as_constant()) {
            self.mode.check(n, b, a)?;
        }
        let total = Extent::add(Extent::add(self.before.clone(), n), self.after.clone());
        if total != self.dim.extent {
            return Err(format!("gives {total} values, not `{}`", self.dim));
        }
        Ok(vec![with_dim(x, self.axis, self.dim.clone())])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let g = cx.grad();
        let dim = type_of(cx.inputs[0]).dims[self.axis].clone();
        let n = dim.extent.clone();
        let zero = || Extent::constant(0);
        let one = || Extent::constant(1);
        let some = |e: &Extent| e.as_constant() != Some(0);
        let part = |start: Extent, length: &Extent| slice(g, self.axis, start, 1, Dim::anonymous(length.clone()));
        // Places `block` (of `length` values) at `start` of a dimension like the input's.
        let place = |block: Handle, start: Extent, length: Extent| {
            let rest = Extent::sub(Extent::sub(n.clone(), start.clone()), length);
            pad_zeros(block, self.axis, start, rest, dim.clone())
        };
        let mut sum = slice(g, self.axis, self.before.clone(), 1, dim.clone());
        let left = some(&self.before).then(|| part(zero(), &self.before));
        let right = some(&self.after).then(|| part(Extent::add(self.before.clone(), n.clone()), &self.after));
        // Each padded value hands its gradient to the value that it copies.
        let from_end = |length: &Extent| Extent::sub(n.clone(), length.clone());
        let edge = |block: Handle| {
            let mut one_dim = type_of(block);
            one_dim.dims[self.axis] = Dim::fixed(1);
            movement::reshape(reduce::reduce(block, reduce::Kind::Sum, &[self.axis]), one_dim.dims)
        };
        let (l, r) = match self.mode {
            Padding::Constant(_) => (None, None),
            Padding::Reflect => (
                left.map(|h| place(flip(h, self.axis), one(), self.before.clone())),
                right.map(|h| place(flip(h, self.axis), Extent::sub(from_end(&self.after), one()), self.after.clone())),
            ),
            Padding::Replicate => (
                left.map(|h| place(edge(h), zero(), one())),
                right.map(|h| place(edge(h), Extent::sub(n.clone(), one()), one())),
            ),
            Padding::Circular => (
                left.map(|h| place(h, from_end(&self.before), self.before.clone())),
                right.map(|h| place(h, zero(), self.after.clone())),
            ),
        };
        for h in l.into_iter().chain(r) {
            sum = ew::add(sum, h);
        }
        Ok(vec![Some(sum)])
    }
    fn attributes(&self) -> String {
        format!("axis={} before={} after={} {}", self.axis, self.before, self.after, self.mode.name())
    }
}

/// More values before and after along dimension `axis`, which becomes `dim`.
pub fn pad(x: Handle, axis: usize, before: Extent, after: Extent, mode: Padding, dim: Dim) -> Handle {
    op1(Pad { axis, before, after, mode, dim }, &[x])
}

/// Zeros (false) before and after along dimension `axis`, which becomes `dim`.
pub fn pad_zeros(x: Handle, axis: usize, before: Extent, after: Extent, dim: Dim) -> Handle {
    if before.as_constant() == Some(0) && after.as_constant() == Some(0) {
        return with_name(x, axis, dim);
    }
    pad(x, axis, before, after, Padding::Constant(0.0), dim)
}

/// The same value with dimension `axis` called `dim`.
fn with_name(x: Handle, axis: usize, dim: Dim) -> Handle {
    movement::relabel(x, with_dim(&type_of(x), axis, dim).dims)
}

/// The axis `A` with `B` values before and `C` after.
pub type Padded<A, B, C> = Sum<Sum<B, A>, C>;

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `before` and `after` more values along `axis`; give them as axes:
    /// `x.pad(Time, Const::<2>, Const::<0>, Padding::Constant(0.0))`. The result has the axis
    /// [`Padded`], to which `relabel` gives a declared name, with proof. A mirror that is longer
    /// than the axis is an error. PyTorch: `pad(x, (before, after), mode)`.
    #[inline]
    pub fn pad<A: Axis, B: Axis, C: Axis, P>(
        self,
        _axis: A,
        _before: B,
        _after: C,
        mode: Padding,
    ) -> Tensor<S::With<Padded<A, B, C>>, E>
    where
        S: Has<A, P>,
    {
        let dim = <Padded<A, B, C>>::dim();
        Tensor::from_raw(pad(self.raw(), S::POSITION, B::extent(), C::extent(), mode, dim))
    }
}
