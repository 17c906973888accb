//! Elements: what the numbers of a tensor mean.
//!
//! Every element refines a base class, [`Real`], [`Index`] or [`Mask`], which fixes the
//! arithmetic allowed and the storage: `f32`, `i32` and one byte per truth value. Plain
//! arithmetic yields the plain base; a port that declares an element takes that element, a
//! sub-element of it, or the plain base. Declare your own with `elements!`.

use crate::graph::DType;
use crate::module::store::Data;
use crate::program::host::HostSlice;

/// What the numbers of a tensor mean.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an element",
    label = "expected an element type",
    note = "declare it: `elements! {{ pub {Self}: Real; }}`"
)]
pub trait Element: 'static {
    /// The base class.
    type Base: Base;
    /// The name that errors and drawings show.
    const NAME: &'static str;
}

/// One of the three base classes.
pub trait Base: Element<Base = Self> + Sized {
    /// How one value is held on the host.
    type Host: Host;
    /// How values are held in programs.
    const DTYPE: DType;
}

/// A host value: `f32`, `i32` or `bool`.
pub trait Host: Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The storage that holds it.
    const DTYPE: DType;
    /// Exact conversion to the reference device's storage.
    fn to_f64(self) -> f64;
    /// Conversion from the reference device's storage.
    fn from_f64(v: f64) -> Self;
    /// Values as what a program takes.
    fn slice(values: &[Self]) -> HostSlice<'_>;
    /// Values that a program gave, of this storage.
    ///
    /// # Panics
    /// When they are of another storage.
    fn from_data(data: Data) -> Vec<Self>;
}

impl Host for f32 {
    const DTYPE: DType = DType::F32;
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn from_f64(v: f64) -> Self {
        v as f32
    }
    fn slice(values: &[Self]) -> HostSlice<'_> {
        HostSlice::F32(values)
    }
    fn from_data(data: Data) -> Vec<Self> {
        match data {
            Data::F32(v) => v,
            other => panic!("values of {} are read as {}", other.dtype(), Self::DTYPE),
        }
    }
}
impl Host for i32 {
    const DTYPE: DType = DType::I32;
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn from_f64(v: f64) -> Self {
        v as i32
    }
    fn slice(values: &[Self]) -> HostSlice<'_> {
        HostSlice::I32(values)
    }
    fn from_data(data: Data) -> Vec<Self> {
        match data {
            Data::I32(v) => v,
            other => panic!("values of {} are read as {}", other.dtype(), Self::DTYPE),
        }
    }
}
impl Host for bool {
    const DTYPE: DType = DType::Bool;
    fn to_f64(self) -> f64 {
        self as u8 as f64
    }
    fn from_f64(v: f64) -> Self {
        v != 0.0
    }
    fn slice(values: &[Self]) -> HostSlice<'_> {
        HostSlice::Bool(values)
    }
    fn from_data(data: Data) -> Vec<Self> {
        match data {
            Data::Bool(v) => v.into_iter().map(|b| b != 0).collect(),
            other => panic!("values of {} are read as {}", other.dtype(), Self::DTYPE),
        }
    }
}

/// Real numbers: all arithmetic, differentiable.
pub struct Real;
/// Whole numbers that count or point: integer arithmetic, no gradients.
pub struct Index;
/// Truth values.
pub struct Mask;

impl Element for Real {
    type Base = Real;
    const NAME: &'static str = "Real";
}
impl Base for Real {
    type Host = f32;
    const DTYPE: DType = DType::F32;
}
impl Element for Index {
    type Base = Index;
    const NAME: &'static str = "Index";
}
impl Base for Index {
    type Host = i32;
    const DTYPE: DType = DType::I32;
}
impl Element for Mask {
    type Base = Mask;
    const NAME: &'static str = "Mask";
}
impl Base for Mask {
    type Host = bool;
    const DTYPE: DType = DType::Bool;
}

/// An element whose base is [`Real`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a real-valued element",
    label = "this operation is for real numbers",
    note = "convert first: `.to_real()` turns indices and masks into numbers"
)]
pub trait Float: Element<Base = Real> {}
#[diagnostic::do_not_recommend]
impl<E: Element<Base = Real>> Float for E {}

/// An element whose base is [`Index`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not hold indices",
    label = "this operation takes whole numbers",
    note = "numbers for real tensors are written with a point: `1.0`; `.to_index()` rounds towards zero"
)]
pub trait Indices: Element<Base = Index> {}
#[diagnostic::do_not_recommend]
impl<E: Element<Base = Index>> Indices for E {}

/// An element whose base is [`Mask`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not hold truth values",
    label = "this operation takes a mask",
    note = "compare first: `x.gt(0.0)` is a mask, and so is `x.to_mask()`, true where `x` is not 0"
)]
pub trait Truth: Element<Base = Mask> {}
#[diagnostic::do_not_recommend]
impl<E: Element<Base = Mask>> Truth for E {}

/// An element that arithmetic is defined for: a base class other than [`Mask`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no arithmetic",
    label = "masks are combined with `&`, `|`, `!`, and turned into numbers with `.to_real()`"
)]
pub trait Number: Element {}
#[diagnostic::do_not_recommend]
impl<E: Element> Number for E where E::Base: NumberBase {}
/// A base class with arithmetic.
pub trait NumberBase: Base {}
impl NumberBase for Real {}
impl NumberBase for Index {}

/// `Self` may enter a port that declares `Port`: it is that element, one of its sub-elements, or
/// the plain base of it.
#[diagnostic::on_unimplemented(
    message = "a port that takes `{Port}` is given `{Self}`",
    label = "this tensor holds `{Self}`",
    note = "a port takes its own element, a sub-element of it, or the plain base; `.assume::<{Port}>()` states what the compiler cannot know"
)]
pub trait Is<Port>: Element {}
#[diagnostic::do_not_recommend]
impl Is<Real> for Real {}
#[diagnostic::do_not_recommend]
impl Is<Index> for Index {}
#[diagnostic::do_not_recommend]
impl Is<Mask> for Mask {}
