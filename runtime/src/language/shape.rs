//! Shapes: tuples of zero to eight axes, and the relations between them that operations need.
//!
//! Every relation is one axis wide, so that a failed bound is reported in one line, and no
//! implementation asks for itself on a larger type (such implementations make rustc run for
//! minutes on a mistake).

use super::axis::{Axis, AxisInfo, Print};
use crate::graph::extent::Dim;

/// A tuple of axes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a shape",
    label = "expected a tuple of axes",
    note = "write it with `Tensor![Batch, Time]`; ranks 0 to 8 are shapes"
)]
pub trait Shape: 'static {
    /// The number of axes.
    const RANK: usize;
    /// The axes' names.
    const NAMES: &'static [&'static str];
    /// The axes' fingerprints.
    const PRINTS: &'static [Print];
    /// The axes' paths.
    const PATHS: &'static [&'static str];
    /// The sizes, where the compiler knows them.
    const SIZES: &'static [Option<u64>];
    /// Sizes on the host: `[usize; RANK]`.
    type Sizes: AsRef<[usize]> + AsMut<[usize]> + Copy + Default + std::fmt::Debug + Send + Sync + 'static;
    /// The axes as values.
    const INFOS: &'static [AxisInfo];
    /// The dimensions in the graph.
    fn dims() -> Vec<Dim> {
        dims(Self::INFOS)
    }
}

/// The dimensions of axes.
pub fn dims(axes: &[AxisInfo]) -> Vec<Dim> {
    axes.iter().map(AxisInfo::dim).collect()
}

macro_rules! shapes {
    ($($n:literal: $($a:ident)*;)*) => {$(
        impl<$($a: Axis),*> Shape for ($($a,)*) {
            const RANK: usize = $n;
            const NAMES: &'static [&'static str] = &[$($a::NAME),*];
            const PRINTS: &'static [Print] = &[$($a::PRINT),*];
            const PATHS: &'static [&'static str] = &[$($a::PATH),*];
            const SIZES: &'static [Option<u64>] = &[$($a::SIZE),*];
            type Sizes = [usize; $n];
            const INFOS: &'static [AxisInfo] = &[$($a::INFO),*];
        }
    )*};
}
shapes! {
    0: ;
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D F;
    6: A B C D F G;
    7: A B C D F G H;
    8: A B C D F G H I;
}

/// `Self` broadcasts onto `S`: its axes are the last axes of `S`, in order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not broadcast onto `{S}`",
    label = "these axes are not the last axes of `{S}`",
    note = "a smaller shape joins a larger one as its last axes, in order; use `rearrange!` to permute or to add axes"
)]
pub trait BroadcastTo<S>: Shape {}

macro_rules! broadcast {
    ($($lead:ident)* ; ) => {
        #[diagnostic::do_not_recommend]
        impl<$($lead: Axis),*> BroadcastTo<($($lead,)*)> for () {}
    };
    ($($lead:ident)* ; $first:ident $($rest:ident)*) => {
        #[diagnostic::do_not_recommend]
        impl<$($lead: Axis,)* $first: Axis, $($rest: Axis),*> BroadcastTo<($($lead,)* $first, $($rest,)*)> for ($first, $($rest,)*) {}
        broadcast! { $($lead)* $first ; $($rest)* }
    };
}
broadcast! { ; }
broadcast! { ; A }
broadcast! { ; A B }
broadcast! { ; A B C }
broadcast! { ; A B C D }
broadcast! { ; A B C D F }
broadcast! { ; A B C D F G }
broadcast! { ; A B C D F G H }
broadcast! { ; A B C D F G H I }

/// The last axis of `Self` is `I`; `With<O>` is the shape with `O` in its place.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not end with the axis `{I}`",
    label = "the last axis must be `{I}`",
    note = "this layer works on the last axis and keeps the others"
)]
pub trait EndsWith<I>: Shape {
    /// The shape without its last axis.
    type Init: Shape;
    /// The shape with its last axis replaced.
    type With<O: Axis>: Shape;
}

macro_rules! ends {
    ($($($a:ident)* ;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($a: Axis,)* Z: Axis> EndsWith<Z> for ($($a,)* Z,) {
            type Init = ($($a,)*);
            type With<O: Axis> = ($($a,)* O,);
        }
    )*};
}
ends! { ; A; A B; A B C; A B C D; A B C D F; A B C D F G; A B C D F G H; }

/// `Self` with the axis `O` appended.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot take one more axis", note = "shapes have at most 8 axes")]
pub trait Push<O: Axis>: Shape {
    /// The longer shape.
    type Out: Shape;
}

macro_rules! push {
    ($($($a:ident)* ;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($a: Axis,)* Z: Axis> Push<Z> for ($($a,)*) {
            type Out = ($($a,)* Z,);
        }
    )*};
}
push! { ; A; A B; A B C; A B C D; A B C D F; A B C D F G; A B C D F G H; }

/// A position in a shape, found by the compiler.
pub struct At<const N: usize>;

/// `Self` has the axis `A`, at position `P` (which the compiler finds).
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no axis `{A}`",
    label = "this tensor has no axis `{A}`",
    note = "name one of the tensor's own axes"
)]
pub trait Has<A, P>: Shape {
    /// The position from the left.
    const POSITION: usize;
    /// The shape without the axis.
    type Without: Shape;
    /// The shape with `O` in the axis's place.
    type With<O: Axis>: Shape;
    /// The shape with the axis split into two.
    type Split<O: Axis, Q: Axis>: Shape;
}

/// The shape that stands for "more than eight axes": no operation takes it.
pub struct TooManyAxes;

macro_rules! has {
    ($($n:literal: $($a:ident)* / $($b:ident)*;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($a: Axis,)* Z: Axis, $($b: Axis,)*> Has<Z, At<$n>> for ($($a,)* Z, $($b,)*) {
            const POSITION: usize = $n;
            type Without = ($($a,)* $($b,)*);
            type With<O: Axis> = ($($a,)* O, $($b,)*);
            type Split<O: Axis, Q: Axis> = ($($a,)* O, Q, $($b,)*);
        }
    )*};
}
has! {
    0: / ;
    0: / A; 1: A / ;
    0: / A B; 1: A / B; 2: A B / ;
    0: / A B C; 1: A / B C; 2: A B / C; 3: A B C / ;
    0: / A B C D; 1: A / B C D; 2: A B / C D; 3: A B C / D; 4: A B C D / ;
    0: / A B C D F; 1: A / B C D F; 2: A B / C D F; 3: A B C / D F; 4: A B C D / F; 5: A B C D F / ;
    0: / A B C D F G; 1: A / B C D F G; 2: A B / C D F G; 3: A B C / D F G; 4: A B C D / F G; 5: A B C D F / G; 6: A B C D F G / ;
}

/// `Self` has the axes `A` and `B` next to each other, at positions `P` and `P + 1`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not have the axes `{A}` and `{B}` next to each other",
    label = "`{A}` is not followed by `{B}` here",
    note = "bring them together first: `rearrange!(x[..] => [..])`"
)]
pub trait Neighbours<A, B, P>: Shape {
    /// The position of the first from the left.
    const POSITION: usize;
    /// The shape with `O` in place of both.
    type Merged<O: Axis>: Shape;
}

macro_rules! neighbours {
    ($($n:literal: $($a:ident)* / $($b:ident)*;)*) => {$(
        impl<$($a: Axis,)* Y: Axis, Z: Axis, $($b: Axis,)*> Neighbours<Y, Z, At<$n>> for ($($a,)* Y, Z, $($b,)*) {
            const POSITION: usize = $n;
            type Merged<O: Axis> = ($($a,)* O, $($b,)*);
        }
    )*};
}
neighbours! {
    0: / ;
    0: / A; 1: A / ;
    0: / A B; 1: A / B; 2: A B / ;
    0: / A B C; 1: A / B C; 2: A B / C; 3: A B C / ;
    0: / A B C D; 1: A / B C D; 2: A B / C D; 3: A B C / D; 4: A B C D / ;
    0: / A B C D F; 1: A / B C D F; 2: A B / C D F; 3: A B C / D F; 4: A B C D / F; 5: A B C D F / ;
    0: / A B C D F G; 1: A / B C D F G; 2: A B / C D F G; 3: A B C / D F G; 4: A B C D / F G; 5: A B C D F / G; 6: A B C D F G / ;
}
