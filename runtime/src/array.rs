//! Host values typed by axes: what goes into programs and comes out.
//!
//! An [`Array`] is row-major memory with the same type arguments as a [`Tensor`](struct@crate::Tensor).
//! Static axes and axes that are derived from one another are checked when an array is made, so
//! a wrong size is reported where it arises and not when a program is bound. Reals are `f32`,
//! indices `i32`, masks `bool`; wider integers are taken where every value fits.
//!
//! Making arrays is here; [`convert`] has the conversions from and to the standard library's
//! types, and `ndarray`'s under the feature of that name.

pub mod convert;
pub(crate) mod show;

use crate::graph::{Dim, ExtentError, Sizes};
use crate::language::axis::Axis;
use crate::language::element::{Base, Element, Is, Real};
use crate::language::proof;
use crate::language::shape::{Has, Shape};
use std::any::Any;

/// The host type of an element: `f32`, `i32` or `bool`.
pub type HostOf<E> = <<E as Element>::Base as Base>::Host;

/// Values on the host of shape `S` whose numbers mean `E`. Write its type with
/// [`Array!`](macro@crate::Array).
pub struct Array<S: Shape, E: Element = Real> {
    sizes: S::Sizes,
    data: Vec<HostOf<E>>,
}

/// Why values do not make an array.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArrayError {
    /// The number of values is not the product of the sizes.
    #[error("an array {shape} of sizes {sizes:?} holds {expected} values, but {found} are given")]
    Count {
        /// The shape in axis names.
        shape: String,
        /// The sizes.
        sizes: Vec<usize>,
        /// Their product.
        expected: usize,
        /// How many values there are.
        found: usize,
    },
    /// A size contradicts a static axis, or the other axes that it is derived from.
    #[error("axis `{axis}` of an array {shape} has size {expected}, but {found} is given")]
    Size {
        /// The axis.
        axis: &'static str,
        /// The shape in axis names.
        shape: String,
        /// The axis's size.
        expected: String,
        /// The size given.
        found: usize,
    },
    /// The values do not fill whole rows of the one axis whose size is inferred.
    #[error(
        "the size of axis `{axis}` of an array {shape} cannot be inferred: {found} values do not fill whole rows of {row}"
    )]
    Ragged {
        /// The axis.
        axis: &'static str,
        /// The shape in axis names.
        shape: String,
        /// How many values there are.
        found: usize,
        /// The product of the known sizes.
        row: usize,
    },
    /// Several sizes are unknown.
    #[error(
        "the sizes of {axes} of an array {shape} cannot be inferred from the number of values: give them with `Array::new([..], values)`"
    )]
    Unknown {
        /// The axes without a size.
        axes: String,
        /// The shape in axis names.
        shape: String,
    },
    /// The dimensions of a foreign array are not as many as the axes.
    #[error("an array {shape} has {expected} axes, but {found} dimensions of sizes {sizes:?} are given")]
    Rank {
        /// The shape in axis names.
        shape: String,
        /// Its rank.
        expected: usize,
        /// The rank given.
        found: usize,
        /// The sizes given.
        sizes: Vec<usize>,
    },
    /// A value does not fit the storage.
    #[error("value {value} at position {position} does not fit {storage}: {allowed}")]
    Value {
        /// The value, printed.
        value: String,
        /// Where it is in row-major order.
        position: usize,
        /// The storage's type.
        storage: &'static str,
        /// What fits.
        allowed: &'static str,
    },
    /// The product of the sizes is beyond what memory can hold.
    #[error("an array {shape} of sizes {sizes:?} is larger than memory")]
    TooLarge {
        /// The shape in axis names.
        shape: String,
        /// The sizes.
        sizes: Vec<usize>,
    },
}

impl ArrayError {
    /// The error of foreign sizes that are not as many as the axes of `S`.
    pub(crate) fn rank<S: Shape>(sizes: &[usize]) -> ArrayError {
        let (found, sizes) = (sizes.len(), sizes.to_vec());
        ArrayError::Rank { shape: shape_text::<S>(), expected: S::RANK, found, sizes }
    }
}

/// `[Batch, Hidden=512]`
fn shape_text<S: Shape>() -> String {
    let dims: Vec<String> = S::dims().iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Checks sizes against the static axes and against the relations among the others.
fn check_sizes<S: Shape>(sizes: &[usize]) -> Result<(), ArrayError> {
    let dims = S::dims();
    let bound = solve(&dims, sizes);
    for (dim, &found) in dims.iter().zip(sizes) {
        match dim.extent.eval(&bound) {
            Ok(expected) if expected == found => {}
            // An axis that stays unknown, such as that of `floor(Samples / 160)` alone.
            Err(ExtentError::Unbound { .. }) if dim.extent.admits(found, &bound) => {}
            wrong => {
                let expected = match (wrong, dim.extent.as_constant()) {
                    (Ok(n), Some(_)) => n.to_string(),
                    (Ok(n), None) => format!("{} = {n}", dim.extent),
                    (Err(ExtentError::Unbound { .. }), _) => dim.extent.to_string(),
                    (Err(e), _) => format!("{} ({e})", dim.extent),
                };
                return Err(ArrayError::Size { axis: dim.axis.name, shape: shape_text::<S>(), expected, found });
            }
        }
    }
    Ok(())
}

/// The run-time axes that sizes determine.
fn solve(dims: &[Dim], sizes: &[usize]) -> Sizes {
    let mut bound = Sizes::new();
    // Each round binds at least one more axis or ends.
    while let Some((tag, n)) = dims.iter().zip(sizes).find_map(|(d, n)| d.extent.solve(*n, &bound)) {
        bound.set(tag, n);
    }
    bound
}

fn product<S: Shape>(sizes: &[usize]) -> Result<usize, ArrayError> {
    let limit = isize::MAX as usize / 8;
    // Zero wins over any overflow: an empty array has no size problem.
    if sizes.contains(&0) {
        return Ok(0);
    }
    let count = sizes.iter().try_fold(1usize, |a, b| a.checked_mul(*b)).filter(|n| *n <= limit);
    count.ok_or_else(|| ArrayError::TooLarge { shape: shape_text::<S>(), sizes: sizes.to_vec() })
}

impl<S: Shape, E: Element> Array<S, E> {
    /// An array from its sizes, one per axis, and its values, the last axis fastest.
    ///
    /// # Errors
    /// Sizes that contradict a static axis or each other, and too many or too few values.
    pub fn new(sizes: S::Sizes, data: Vec<HostOf<E>>) -> Result<Self, ArrayError> {
        check_sizes::<S>(sizes.as_ref())?;
        let expected = product::<S>(sizes.as_ref())?;
        if data.len() != expected {
            let sizes = sizes.as_ref().to_vec();
            return Err(ArrayError::Count { shape: shape_text::<S>(), sizes, expected, found: data.len() });
        }
        Ok(Array { sizes, data })
    }

    /// An array from its values alone, where all sizes are known to the compiler but at most
    /// one, which is inferred.
    ///
    /// # Errors
    /// Several unknown sizes, and values that do not fill whole rows.
    pub fn from_vec(data: Vec<HostOf<E>>) -> Result<Self, ArrayError> {
        let sizes = infer::<S>(data.len())?;
        Self::new(sizes, data)
    }

    /// An array whose value at every index is `f(index)`.
    ///
    /// # Errors
    /// Sizes that contradict a static axis or each other.
    pub fn from_fn(sizes: S::Sizes, mut f: impl FnMut(S::Sizes) -> HostOf<E>) -> Result<Self, ArrayError> {
        check_sizes::<S>(sizes.as_ref())?;
        let mut data = Vec::with_capacity(product::<S>(sizes.as_ref())?);
        let mut index = S::Sizes::default();
        for _ in 0..data.capacity() {
            data.push(f(index));
            for (i, n) in index.as_mut().iter_mut().zip(sizes.as_ref()).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Array { sizes, data })
    }

    /// One value everywhere.
    ///
    /// # Errors
    /// Sizes that contradict a static axis or each other.
    pub fn full(sizes: S::Sizes, value: HostOf<E>) -> Result<Self, ArrayError> {
        check_sizes::<S>(sizes.as_ref())?;
        Ok(Array { sizes, data: vec![value; product::<S>(sizes.as_ref())?] })
    }

    /// Zeros; `false` for masks.
    ///
    /// # Errors
    /// Sizes that contradict a static axis or each other.
    pub fn zeros(sizes: S::Sizes) -> Result<Self, ArrayError> {
        Self::full(sizes, HostOf::<E>::default())
    }

    /// An array from parts that are known to fit: what programs give back.
    ///
    /// # Panics
    /// When the rank or the number of values is wrong. Sizes of axes are not checked.
    pub fn from_parts(sizes: &[usize], data: Vec<HostOf<E>>) -> Self {
        assert_eq!(sizes.len(), S::RANK, "sizes {sizes:?} are not of rank {}", S::RANK);
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "values do not fill {sizes:?}");
        let mut own = S::Sizes::default();
        own.as_mut().copy_from_slice(sizes);
        Array { sizes: own, data }
    }

    /// The size of every axis.
    pub fn sizes(&self) -> &[usize] {
        self.sizes.as_ref()
    }

    /// The size of one axis: `x.size(Time)`.
    pub fn size<A: Axis, P>(&self, _: A) -> usize
    where
        S: Has<A, P>,
    {
        self.sizes.as_ref()[S::POSITION]
    }

    /// The values, the last axis fastest.
    pub fn data(&self) -> &[HostOf<E>] {
        &self.data
    }

    /// The values, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [HostOf<E>] {
        &mut self.data
    }

    /// A copy of the values.
    pub fn to_vec(&self) -> Vec<HostOf<E>> {
        self.data.clone()
    }

    /// The values, without a copy.
    pub fn into_vec(self) -> Vec<HostOf<E>> {
        self.data
    }

    /// Every value, the last axis fastest.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = HostOf<E>> + DoubleEndedIterator + '_ {
        self.data.iter().copied()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether some axis has size 0.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The value at an index, or nothing where the index is out of range.
    pub fn get(&self, index: S::Sizes) -> Option<HostOf<E>> {
        self.position(index).map(|p| self.data[p])
    }

    fn position(&self, index: S::Sizes) -> Option<usize> {
        let mut position = 0;
        for (i, n) in index.as_ref().iter().zip(self.sizes()) {
            if i >= n {
                return None;
            }
            position = position * n + i;
        }
        Some(position)
    }

    /// `f` of every value.
    #[must_use]
    pub fn map(&self, f: impl FnMut(HostOf<E>) -> HostOf<E>) -> Self {
        self.map_to(f)
    }

    /// `f` of every value, as another element.
    #[must_use]
    pub fn map_to<F: Element>(&self, f: impl FnMut(HostOf<E>) -> HostOf<F>) -> Array<S, F> {
        Array { sizes: self.sizes, data: self.iter().map(f).collect() }
    }

    /// The same values as the element `F`, which this element is: its own, a parent's, or any
    /// refinement of the plain base.
    #[must_use]
    pub fn port<F: Element>(self) -> Array<S, F>
    where
        E: Is<F>,
    {
        // An element has its ancestors' storage, which the compiler does not see here.
        let data: Box<dyn Any> = Box::new(self.data);
        let data = data.downcast().expect("an element enters ports of its own storage");
        Array { sizes: self.sizes, data: *data }
    }

    /// The same values, stated to be the element `F` of the same base class.
    #[must_use]
    pub fn assume<F: Element<Base = E::Base>>(self) -> Array<S, F> {
        Array { sizes: self.sizes, data: self.data }
    }

    /// The same values under other axis names, proved to be of the same sizes at build time.
    #[must_use]
    pub fn relabel<T: Shape>(self) -> Array<T, E> {
        const { proof::relabel::<S, T>() }
        let mut sizes = T::Sizes::default();
        sizes.as_mut().copy_from_slice(self.sizes());
        Array { sizes, data: self.data }
    }

    /// The same values in another shape, proved at build time to hold equally many. The sizes of
    /// `T` follow from this array's: all of them, or all but one.
    ///
    /// # Errors
    /// Several sizes of `T` that do not follow: use [`reshape_to`](Self::reshape_to).
    pub fn reshape<T: Shape>(self) -> Result<Array<T, E>, ArrayError> {
        const { proof::reshape::<S, T>() }
        let bound = solve(&S::dims(), self.sizes());
        let sizes = infer_under::<T>(self.data.len(), &bound)?;
        Array::new(sizes, self.data)
    }

    /// The same values in another shape of the given sizes, proved at build time to hold equally
    /// many.
    ///
    /// # Errors
    /// Sizes that contradict a static axis, each other, or the number of values.
    pub fn reshape_to<T: Shape>(self, sizes: T::Sizes) -> Result<Array<T, E>, ArrayError> {
        const { proof::reshape::<S, T>() }
        Array::new(sizes, self.data)
    }
}

/// The sizes of `S` for `count` values, where at most one is unknown.
fn infer<S: Shape>(count: usize) -> Result<S::Sizes, ArrayError> {
    infer_under::<S>(count, &Sizes::new())
}

fn infer_under<S: Shape>(count: usize, bound: &Sizes) -> Result<S::Sizes, ArrayError> {
    let dims = S::dims();
    let mut sizes = S::Sizes::default();
    let (mut unknown, mut row) = (Vec::new(), 1usize);
    for (i, dim) in dims.iter().enumerate() {
        match dim.extent.eval(bound) {
            Ok(n) => {
                sizes.as_mut()[i] = n;
                row = row.saturating_mul(n);
            }
            Err(_) => unknown.push(i),
        }
    }
    match unknown[..] {
        [] => {}
        [i] if row > 0 && count.is_multiple_of(row) => sizes.as_mut()[i] = count / row,
        [i] => {
            let axis = dims[i].axis.name;
            return Err(ArrayError::Ragged { axis, shape: shape_text::<S>(), found: count, row });
        }
        _ => {
            let axes: Vec<String> = unknown.iter().map(|i| format!("`{}`", dims[*i].axis.name)).collect();
            return Err(ArrayError::Unknown { axes: axes.join(", "), shape: shape_text::<S>() });
        }
    }
    Ok(sizes)
}

impl<E: Element> Array<(), E> {
    /// One value without axes.
    pub fn scalar(value: HostOf<E>) -> Self {
        Array { sizes: [], data: vec![value] }
    }

    /// The value.
    pub fn item(&self) -> HostOf<E> {
        self.data[0]
    }
}

impl<S: Shape, E: Element> Clone for Array<S, E> {
    fn clone(&self) -> Self {
        Array { sizes: self.sizes, data: self.data.clone() }
    }
}

/// Equal sizes and equal values; NaN is unequal to everything, as in `f32`.
impl<S: Shape, E: Element> PartialEq for Array<S, E> {
    fn eq(&self, other: &Self) -> bool {
        self.sizes() == other.sizes() && self.data == other.data
    }
}

/// # Panics
/// When an index is out of range, as slices do; [`Array::get`] does not panic.
impl<S: Shape, E: Element> std::ops::Index<S::Sizes> for Array<S, E> {
    type Output = HostOf<E>;
    fn index(&self, index: S::Sizes) -> &HostOf<E> {
        match self.position(index) {
            Some(p) => &self.data[p],
            None => panic!("index {:?} is out of range for sizes {:?}", index.as_ref(), self.sizes()),
        }
    }
}

/// # Panics
/// When an index is out of range, as slices do.
impl<S: Shape, E: Element> std::ops::IndexMut<S::Sizes> for Array<S, E> {
    fn index_mut(&mut self, index: S::Sizes) -> &mut HostOf<E> {
        match self.position(index) {
            Some(p) => &mut self.data[p],
            None => panic!("index {:?} is out of range for sizes {:?}", index.as_ref(), self.sizes()),
        }
    }
}
