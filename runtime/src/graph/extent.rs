//! Symbolic extents: the size of a dimension as an expression over axes.
//!
//! An [`Extent`] carries the same fingerprint as the axis type it came from, so two extents are
//! compared the way the compiler compares them, and evaluates under concrete [`Sizes`].

use crate::language::axis::{Axis, Print, symbol_print};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The identity of an axis in the graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AxisTag {
    /// What errors and drawings show.
    pub name: &'static str,
    /// What tells two axes of one name apart.
    pub path: &'static str,
}

impl fmt::Debug for AxisTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// One dimension of a tensor in the graph: which axis, how long.
#[derive(Clone, PartialEq, Debug)]
pub struct Dim {
    /// The axis.
    pub axis: AxisTag,
    /// Its size.
    pub extent: Extent,
}

impl Dim {
    /// The dimension of axis `A`.
    pub fn of<A: Axis>() -> Dim {
        A::dim()
    }

    /// An anonymous static dimension.
    pub fn fixed(size: u64) -> Dim {
        Dim::anonymous(Extent::constant(size))
    }

    /// An anonymous dimension of the given extent.
    pub fn anonymous(extent: Extent) -> Dim {
        Dim { axis: AxisTag { name: "_", path: "_" }, extent }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.axis.name, self.extent.as_constant()) {
            ("_", _) => write!(f, "{}", self.extent),
            (name, Some(n)) if name == n.to_string() => f.write_str(name),
            (name, Some(n)) => write!(f, "{name}={n}"),
            (name, None) => f.write_str(name),
        }
    }
}

/// How an extent is made; seen by [`super::polynomial`], which sums many of them.
#[derive(Debug)]
pub(super) enum Expr {
    Const(u64),
    Axis(AxisTag),
    Add(Extent, Extent),
    Sub(Extent, Extent),
    Mul(Extent, Extent),
    Floor(Extent, Extent),
    Ceil(Extent, Extent),
}

#[derive(Debug)]
struct Inner {
    print: Print,
    expr: Expr,
}

/// A size as an expression over axes. Cheap to clone; equal iff the fingerprints are equal.
#[derive(Clone, Debug)]
pub struct Extent(Arc<Inner>);

impl PartialEq for Extent {
    fn eq(&self, other: &Self) -> bool {
        self.0.print == other.0.print
    }
}
impl Eq for Extent {}

impl Extent {
    fn new(print: Print, expr: Expr) -> Extent {
        // A print that is the same everywhere is a constant for all purposes, however it came
        // about, unless it still names an axis.
        Extent(Arc::new(Inner { print, expr }))
    }

    /// A known size.
    pub fn constant(n: u64) -> Extent {
        Extent::new([n; 8], Expr::Const(n))
    }

    /// The size of a run-time axis.
    pub fn symbol(name: &'static str, path: &'static str, print: Print) -> Extent {
        Extent::new(print, Expr::Axis(AxisTag { name, path }))
    }

    /// The size of a run-time axis known by its tag alone.
    pub fn of_tag(tag: AxisTag) -> Extent {
        Extent::symbol(tag.name, tag.path, symbol_print(tag.path))
    }

    fn binary(a: Extent, b: Extent, f: impl Fn(u64, u64) -> u64, make: impl Fn(Extent, Extent) -> Expr) -> Extent {
        let print = std::array::from_fn(|i| f(a.0.print[i], b.0.print[i]));
        match (a.as_constant(), b.as_constant()) {
            (Some(_), Some(_)) => Extent::new(print, Expr::Const(print[0])),
            _ => Extent::new(print, make(a, b)),
        }
    }

    /// `a + b`
    #[allow(clippy::should_implement_trait)]
    pub fn add(a: Extent, b: Extent) -> Extent {
        if a.as_constant() == Some(0) {
            return b;
        }
        if b.as_constant() == Some(0) {
            return a;
        }
        Extent::binary(a, b, u64::wrapping_add, Expr::Add)
    }

    /// `a - b`
    #[allow(clippy::should_implement_trait)]
    pub fn sub(a: Extent, b: Extent) -> Extent {
        if b.as_constant() == Some(0) {
            return a;
        }
        Extent::binary(a, b, u64::wrapping_sub, Expr::Sub)
    }

    /// `a * b`
    #[allow(clippy::should_implement_trait)]
    pub fn mul(a: Extent, b: Extent) -> Extent {
        if a.as_constant() == Some(1) {
            return b;
        }
        if b.as_constant() == Some(1) {
            return a;
        }
        Extent::binary(a, b, u64::wrapping_mul, Expr::Mul)
    }

    /// `floor(a / b)`
    pub fn floor_div(a: Extent, b: Extent) -> Extent {
        if b.as_constant() == Some(1) {
            return a;
        }
        Extent::binary(a, b, |a, b| a / b.max(1), Expr::Floor)
    }

    /// `ceil(a / b)`
    pub fn ceil_div(a: Extent, b: Extent) -> Extent {
        if b.as_constant() == Some(1) {
            return a;
        }
        Extent::binary(a, b, |a, b| a.div_ceil(b.max(1)), Expr::Ceil)
    }

    /// `a / b` where the language has proved that nothing remains.
    pub fn exact_div(a: Extent, b: Extent) -> Extent {
        Extent::floor_div(a, b)
    }

    /// The product of several extents; 1 for none.
    pub fn product<'a>(extents: impl IntoIterator<Item = &'a Extent>) -> Extent {
        extents.into_iter().fold(Extent::constant(1), |a, b| Extent::mul(a, b.clone()))
    }

    /// The size, where it does not depend on a run-time axis.
    pub fn as_constant(&self) -> Option<u64> {
        match self.0.expr {
            Expr::Const(n) => Some(n),
            _ => None,
        }
    }

    /// The run-time axis, where the extent is nothing but its size.
    pub fn as_symbol(&self) -> Option<AxisTag> {
        match self.0.expr {
            Expr::Axis(tag) => Some(tag),
            _ => None,
        }
    }

    #[cfg(feature = "draw")]
    pub(super) fn expr(&self) -> &Expr {
        &self.0.expr
    }

    /// The fingerprint.
    pub fn print(&self) -> &Print {
        &self.0.print
    }

    /// Every run-time axis in the expression.
    pub fn symbols(&self, out: &mut Vec<AxisTag>) {
        match &self.0.expr {
            Expr::Const(_) => {}
            Expr::Axis(tag) => {
                if !out.contains(tag) {
                    out.push(*tag);
                }
            }
            Expr::Add(a, b) | Expr::Sub(a, b) | Expr::Mul(a, b) | Expr::Floor(a, b) | Expr::Ceil(a, b) => {
                a.symbols(out);
                b.symbols(out);
            }
        }
    }

    /// The size under concrete sizes.
    ///
    /// # Errors
    /// An axis without a size, a negative difference, or a result beyond 2^48.
    pub fn eval(&self, sizes: &Sizes) -> Result<usize, ExtentError> {
        let v = self.eval_wide(sizes)?;
        if !(0..1i128 << 48).contains(&v) {
            return Err(ExtentError::OutOfRange { extent: self.to_string(), value: v });
        }
        Ok(v as usize)
    }

    fn eval_wide(&self, sizes: &Sizes) -> Result<i128, ExtentError> {
        let overflow =
            |v: Option<i128>| v.ok_or_else(|| ExtentError::OutOfRange { extent: self.to_string(), value: i128::MAX });
        Ok(match &self.0.expr {
            Expr::Const(n) => *n as i128,
            Expr::Axis(tag) => match sizes.get(*tag) {
                Some(n) => n as i128,
                None => return Err(ExtentError::Unbound { axis: tag.name }),
            },
            Expr::Add(a, b) => overflow(a.eval_wide(sizes)?.checked_add(b.eval_wide(sizes)?))?,
            Expr::Sub(a, b) => overflow(a.eval_wide(sizes)?.checked_sub(b.eval_wide(sizes)?))?,
            Expr::Mul(a, b) => overflow(a.eval_wide(sizes)?.checked_mul(b.eval_wide(sizes)?))?,
            Expr::Floor(a, b) => a.eval_wide(sizes)?.div_euclid(b.eval_wide(sizes)?.max(1)),
            Expr::Ceil(a, b) => {
                let (a, b) = (a.eval_wide(sizes)?, b.eval_wide(sizes)?.max(1));
                -(-a).div_euclid(b)
            }
        })
    }

    /// Solves `self = value` for the one unbound axis in it, where the expression is that axis
    /// multiplied by or added to known sizes.
    pub fn solve(&self, value: usize, sizes: &Sizes) -> Option<(AxisTag, usize)> {
        let known = |e: &Extent| e.eval(sizes).ok();
        match &self.0.expr {
            Expr::Axis(tag) if sizes.get(*tag).is_none() => Some((*tag, value)),
            Expr::Mul(a, b) => match (known(a), known(b)) {
                (Some(k), None) if k > 0 && value.is_multiple_of(k) => b.solve(value / k, sizes),
                (None, Some(k)) if k > 0 && value.is_multiple_of(k) => a.solve(value / k, sizes),
                _ => None,
            },
            Expr::Add(a, b) => match (known(a), known(b)) {
                (Some(k), None) if value >= k => b.solve(value - k, sizes),
                (None, Some(k)) if value >= k => a.solve(value - k, sizes),
                _ => None,
            },
            Expr::Sub(a, b) => match (known(a), known(b)) {
                (None, Some(k)) => a.solve(value + k, sizes),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether some sizes of the unbound axes give `value`; true where that is not easily told.
    pub fn admits(&self, value: usize, sizes: &Sizes) -> bool {
        if let Ok(n) = self.eval(sizes) {
            return n == value;
        }
        let known = |e: &Extent| e.eval(sizes).ok();
        match &self.0.expr {
            Expr::Mul(a, b) => match (known(a), known(b)) {
                (Some(0), None) | (None, Some(0)) => value == 0,
                (Some(k), None) => value.is_multiple_of(k) && b.admits(value / k, sizes),
                (None, Some(k)) => value.is_multiple_of(k) && a.admits(value / k, sizes),
                _ => true,
            },
            Expr::Add(a, b) => match (known(a), known(b)) {
                (Some(k), None) => value >= k && b.admits(value - k, sizes),
                (None, Some(k)) => value >= k && a.admits(value - k, sizes),
                _ => true,
            },
            Expr::Sub(a, b) => match known(b) {
                Some(k) => a.admits(value.saturating_add(k), sizes),
                None => true,
            },
            _ => true,
        }
    }

    /// Solves `low <= self <= high` for the one unbound axis in it: the axis, its smallest and
    /// its largest size. Unlike [`solve`](Self::solve) it goes through quotients, which leave a
    /// range: `floor(Samples / 160) = 3` for 480 to 639 samples.
    pub fn solve_range(&self, low: usize, high: usize, sizes: &Sizes) -> Option<(AxisTag, usize, usize)> {
        let known = |e: &Extent| e.eval(sizes).ok();
        if low > high {
            return None;
        }
        match &self.0.expr {
            Expr::Axis(tag) if sizes.get(*tag).is_none() => Some((*tag, low, high)),
            Expr::Mul(a, b) => match (known(a), known(b)) {
                (Some(k), None) if k > 0 => b.solve_range(low.div_ceil(k), high / k, sizes),
                (None, Some(k)) if k > 0 => a.solve_range(low.div_ceil(k), high / k, sizes),
                _ => None,
            },
            Expr::Add(a, b) => match (known(a), known(b)) {
                (Some(k), None) if high >= k => b.solve_range(low.saturating_sub(k), high - k, sizes),
                (None, Some(k)) if high >= k => a.solve_range(low.saturating_sub(k), high - k, sizes),
                _ => None,
            },
            Expr::Sub(a, b) => match (known(a), known(b)) {
                (None, Some(k)) => a.solve_range(low.checked_add(k)?, high.checked_add(k)?, sizes),
                _ => None,
            },
            Expr::Floor(a, b) => match (known(a), known(b)) {
                (None, Some(k)) if k > 0 => {
                    a.solve_range(low.checked_mul(k)?, high.checked_mul(k)?.checked_add(k - 1)?, sizes)
                }
                _ => None,
            },
            Expr::Ceil(a, b) => match (known(a), known(b)) {
                (None, Some(k)) if k > 0 => {
                    let least = if low == 0 { 0 } else { (low - 1).checked_mul(k)?.checked_add(1)? };
                    a.solve_range(least, high.checked_mul(k)?, sizes)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.expr {
            Expr::Const(n) => write!(f, "{n}"),
            Expr::Axis(tag) => f.write_str(tag.name),
            Expr::Add(a, b) => write!(f, "({a} + {b})"),
            Expr::Sub(a, b) => write!(f, "({a} - {b})"),
            Expr::Mul(a, b) => write!(f, "{a} * {b}"),
            Expr::Floor(a, b) => write!(f, "floor({a} / {b})"),
            Expr::Ceil(a, b) => write!(f, "ceil({a} / {b})"),
        }
    }
}

/// Why an extent has no size.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExtentError {
    /// A run-time axis was given no size.
    #[error("axis `{axis}` is bound at run time and no size was given for it")]
    Unbound {
        /// The axis.
        axis: &'static str,
    },
    /// The result is negative or absurdly large.
    #[error("size `{extent}` is {value}: sizes lie between 0 and 2^48")]
    OutOfRange {
        /// The expression.
        extent: String,
        /// Its value.
        value: i128,
    },
    /// A size was given for a static or derived axis that has another.
    #[error("axis `{axis}` is given the size {given}, but {fact}")]
    Contradiction {
        /// The axis.
        axis: &'static str,
        /// The size given.
        given: usize,
        /// What holds instead: the axis's definition and its value.
        fact: String,
    },
}

/// Sizes of run-time axes.
///
/// ```
/// # extern crate mobilis_runtime as mobilis;
/// use mobilis::prelude::*;
/// axes! { pub Hidden; }
/// let sizes = Sizes::new().with::<Hidden>(512);
/// assert_eq!(sizes.of::<Hidden>(), Some(512));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    axes: BTreeMap<AxisTag, usize>,
    /// Sizes given for static and derived axes: held until enough is known to solve or check them.
    claims: Vec<Claim>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    axis: &'static str,
    extent: Extent,
    size: usize,
}

impl Sizes {
    /// No sizes.
    pub fn new() -> Sizes {
        Sizes::default()
    }

    /// The same with axis `A` bound; the last size given to a run-time axis counts. A size given
    /// for a derived axis binds the run-time axis it is made of, as soon as that one can be
    /// solved for. Sizes that contradict are found by [`Sizes::settled`] when a model is built.
    #[must_use]
    pub fn with<A: Axis>(mut self, size: usize) -> Sizes {
        let extent = A::extent();
        match extent.as_symbol() {
            Some(tag) => self.set(tag, size),
            None => self.claims.push(Claim { axis: A::NAME, extent, size }),
        }
        self.solve();
        self
    }

    /// Binds what the claims determine: each round at least one more axis, or the end.
    fn solve(&mut self) {
        while let Some((tag, n)) = self.claims.iter().find_map(|c| c.extent.solve(c.size, self)) {
            self.axes.insert(tag, n);
        }
    }

    /// The same sizes, after checking those that were given for static and derived axes.
    ///
    /// # Errors
    /// A size that contradicts the axis's definition under the other sizes.
    pub fn settled(mut self) -> Result<Sizes, ExtentError> {
        self.solve();
        for Claim { axis, extent, size } in &self.claims {
            let contradiction = |fact: String| ExtentError::Contradiction { axis, given: *size, fact };
            match extent.eval(&self) {
                Ok(n) if n == *size => {}
                Ok(n) if extent.as_constant().is_some() => return Err(contradiction(format!("its size is {n}"))),
                Ok(n) => return Err(contradiction(format!("{extent} is {n}"))),
                Err(ExtentError::Unbound { .. }) if extent.admits(*size, &self) => {}
                Err(ExtentError::Unbound { .. }) => {
                    return Err(contradiction(format!("{extent} has no whole solution")));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(self)
    }

    /// The size of axis `A`, where it is known.
    pub fn of<A: Axis>(&self) -> Option<usize> {
        A::extent().eval(self).ok()
    }

    /// The size of a run-time axis.
    pub fn get(&self, tag: AxisTag) -> Option<usize> {
        self.axes.get(&tag).copied()
    }

    /// Binds a run-time axis.
    pub fn set(&mut self, tag: AxisTag, size: usize) {
        self.axes.insert(tag, size);
    }

    /// All bound axes, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (AxisTag, usize)> + '_ {
        self.axes.iter().map(|(k, v)| (*k, *v))
    }
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    axes! {
        Hidden;
        Ffn = 4 * Hidden;
        Width = 8;
        Both = Hidden * Other;
        Other;
    }

    #[test]
    fn sizes_of_derived_axes_bind_what_they_are_made_of() {
        let sizes = Sizes::new().with::<Ffn>(64);
        assert_eq!((sizes.of::<Hidden>(), sizes.of::<Ffn>()), (Some(16), Some(64)));
        // Solved later, when the other factor is known.
        let sizes = Sizes::new().with::<Both>(12).with::<Hidden>(3);
        assert_eq!(sizes.of::<Other>(), Some(4));
        assert!(sizes.settled().is_ok());
    }

    #[test]
    fn contradictions_are_found() {
        let message = |sizes: Sizes| sizes.settled().map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(message(Sizes::new().with::<Width>(8)), Ok(()));
        assert_eq!(
            message(Sizes::new().with::<Width>(9)),
            Err("axis `Width` is given the size 9, but its size is 8".into())
        );
        assert_eq!(
            message(Sizes::new().with::<Hidden>(16).with::<Ffn>(60)),
            Err("axis `Ffn` is given the size 60, but 4 * Hidden is 64".into())
        );
        assert_eq!(
            message(Sizes::new().with::<Ffn>(63)),
            Err("axis `Ffn` is given the size 63, but 4 * Hidden has no whole solution".into())
        );
    }
}
