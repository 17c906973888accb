//! Conversions of arrays from and to the standard library's types.
//!
//! Nested array literals have sizes that the compiler knows, so [`From`] checks them while the
//! program is built. Vectors and slices become arrays by [`TryFrom`], which infers at most one
//! size as [`Array::from_vec`] does, and takes any number type whose values fit: tokenizers give
//! `u32`, PyTorch `i64`, indices are held as `i32`.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { pub Batch; pub Width = 3; }
//! let x: Array![Batch, Width] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].into();
//! let ids: Array![Batch; TokenId] = vec![7i64, 2, 9].try_into()?;
//! assert_eq!((x.sizes(), ids.sizes()), (&[2, 3][..], &[3][..]));
//! # Ok::<(), ArrayError>(())
//! ```
//!
//! A literal of another width does not build:
//!
//! ```compile_fail,E0080
//! # extern crate mobilis_runtime as mobilis;
//! # use mobilis::prelude::*;
//! # axes! { pub Batch; pub Width = 3; }
//! let x: Array![Batch, Width] = [[1.0, 2.0], [3.0, 4.0]].into();
//! ```

use super::{Array, ArrayError, HostOf};
use crate::language::axis::Axis;
use crate::language::element::{Element, Host};
use crate::language::message::Message;
use crate::language::shape::Shape;

/// A storage that takes values of type `T` where they fit.
#[diagnostic::on_unimplemented(
    message = "values of type `{T}` cannot become `{Self}`",
    label = "no conversion without loss is known",
    note = "reals are made from f32 and f64, indices from whole numbers (range-checked), masks from bool"
)]
pub trait Takes<T>: Host {
    /// The storage's name and what fits, for messages.
    const RANGE: (&'static str, &'static str);
    /// The value, where it fits.
    fn take(value: T) -> Option<Self>;
}

impl Takes<f32> for f32 {
    const RANGE: (&'static str, &'static str) = ("f32", "real numbers");
    fn take(value: f32) -> Option<f32> {
        Some(value)
    }
}
impl Takes<f64> for f32 {
    const RANGE: (&'static str, &'static str) = ("f32", "finite numbers up to 3.4e38, infinities and NaN");
    /// Rounds to the nearest `f32`; a finite number that would become infinite does not fit.
    fn take(value: f64) -> Option<f32> {
        let rounded = value as f32;
        (rounded.is_finite() || !value.is_finite()).then_some(rounded)
    }
}
impl Takes<bool> for bool {
    const RANGE: (&'static str, &'static str) = ("bool", "truth values");
    fn take(value: bool) -> Option<bool> {
        Some(value)
    }
}

macro_rules! whole {
    ($($t:ty)*) => {$(
        impl Takes<$t> for i32 {
            const RANGE: (&'static str, &'static str) = ("i32", "whole numbers from -2147483648 to 2147483647");
            fn take(value: $t) -> Option<i32> {
                i32::try_from(value).ok()
            }
        }
    )*};
}
whole! { i8 i16 i32 i64 isize u8 u16 u32 u64 usize }

fn take_all<T: Copy + std::fmt::Debug, H: Takes<T>>(values: impl IntoIterator<Item = T>) -> Result<Vec<H>, ArrayError> {
    let (storage, allowed) = H::RANGE;
    let fit = |(position, value)| {
        H::take(value).ok_or_else(|| ArrayError::Value { value: format!("{value:?}"), position, storage, allowed })
    };
    values.into_iter().enumerate().map(fit).collect()
}

impl<S: Shape, E: Element> Array<S, E> {
    /// An array from its sizes and values of any number type that fit.
    ///
    /// # Errors
    /// Those of [`Array::new`], and a value that does not fit the storage.
    pub fn from_values<T: Copy + std::fmt::Debug>(
        sizes: S::Sizes,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Self, ArrayError>
    where
        HostOf<E>: Takes<T>,
    {
        Array::new(sizes, take_all(values)?)
    }
}

impl<S: Shape, E: Element, T: Copy + std::fmt::Debug> TryFrom<Vec<T>> for Array<S, E>
where
    HostOf<E>: Takes<T>,
{
    type Error = ArrayError;
    fn try_from(values: Vec<T>) -> Result<Self, ArrayError> {
        Array::from_vec(take_all(values)?)
    }
}

impl<S: Shape, E: Element, T: Copy + std::fmt::Debug> TryFrom<&[T]> for Array<S, E>
where
    HostOf<E>: Takes<T>,
{
    type Error = ArrayError;
    fn try_from(values: &[T]) -> Result<Self, ArrayError> {
        Array::from_vec(take_all(values.iter().copied())?)
    }
}

/// Proves at build time that a literal of sizes `given` fits `S`.
const fn fits<S: Shape>(given: &[usize]) {
    let mut i = 0;
    while i < S::RANK {
        if let Some(n) = S::SIZES[i]
            && n != given[i] as u64
        {
            let m = Message::new()
                .text("axis `")
                .text(S::NAMES[i])
                .text("` has size ")
                .number(n)
                .text(", but the literal gives ")
                .number(given[i] as u64);
            panic!("{}", m.as_str());
        }
        let mut j = 0;
        while j < i {
            let mut same = true;
            let mut slot = 0;
            while slot < 8 {
                same &= S::PRINTS[i][slot] == S::PRINTS[j][slot];
                slot += 1;
            }
            if same && given[i] != given[j] {
                let m = Message::new()
                    .text("axes `")
                    .text(S::NAMES[j])
                    .text("` and `")
                    .text(S::NAMES[i])
                    .text("` have one size, but the literal gives ")
                    .number(given[j] as u64)
                    .text(" and ")
                    .number(given[i] as u64);
                panic!("{}", m.as_str());
            }
            j += 1;
        }
        i += 1;
    }
}

impl<E: Element, A: Axis, const N: usize> From<[HostOf<E>; N]> for Array<(A,), E> {
    fn from(values: [HostOf<E>; N]) -> Self {
        const { fits::<(A,)>(&[N]) }
        Array::from_parts(&[N], values.to_vec())
    }
}

impl<E: Element, A: Axis, B: Axis, const N: usize, const M: usize> From<[[HostOf<E>; M]; N]> for Array<(A, B), E> {
    fn from(values: [[HostOf<E>; M]; N]) -> Self {
        const { fits::<(A, B)>(&[N, M]) }
        Array::from_parts(&[N, M], values.as_flattened().to_vec())
    }
}

impl<E: Element, A: Axis, B: Axis, C: Axis, const N: usize, const M: usize, const K: usize>
    From<[[[HostOf<E>; K]; M]; N]> for Array<(A, B, C), E>
{
    fn from(values: [[[HostOf<E>; K]; M]; N]) -> Self {
        const { fits::<(A, B, C)>(&[N, M, K]) }
        Array::from_parts(&[N, M, K], values.as_flattened().as_flattened().to_vec())
    }
}

#[cfg(feature = "ndarray")]
mod nd {
    use super::*;
    use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn, RawData};

    impl<S: Shape, E: Element, R, D: Dimension> TryFrom<ArrayBase<R, D>> for Array<S, E>
    where
        R: Data,
        <R as RawData>::Elem: Copy + std::fmt::Debug,
        HostOf<E>: Takes<<R as RawData>::Elem>,
    {
        type Error = ArrayError;
        /// Values in any memory order, of any number type that fits.
        fn try_from(values: ArrayBase<R, D>) -> Result<Self, ArrayError> {
            let mut sizes = S::Sizes::default();
            if values.ndim() != S::RANK {
                return Err(ArrayError::rank::<S>(values.shape()));
            }
            sizes.as_mut().copy_from_slice(values.shape());
            Array::from_values(sizes, values.iter().copied())
        }
    }

    impl<S: Shape, E: Element> Array<S, E> {
        /// The same values as an array of the crate `ndarray`.
        pub fn into_ndarray(self) -> ArrayD<HostOf<E>> {
            let sizes = IxDyn(self.sizes());
            ArrayD::from_shape_vec(sizes, self.into_vec()).expect("an array's values fill its sizes")
        }
    }
}
