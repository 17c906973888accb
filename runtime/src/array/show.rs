//! How arrays print: shape in axis names, then the values in nested brackets, long axes cut.

use super::Array;
use crate::language::element::Element;
use crate::language::shape::Shape;
use crate::module::store::Data;
use std::fmt;

/// Axes longer than this show their first and last [`EDGE`] entries only.
const WHOLE: usize = 8;
const EDGE: usize = 3;

/// `Array[Batch=2, 3; Real]` and the values; `{:.2?}` rounds them.
impl<S: Shape, E: Element> fmt::Debug for Array<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Array")?;
        heading(f, S::NAMES, self.sizes(), E::NAME)?;
        block(f, self.sizes(), self.data(), 1)
    }
}

/// A value that a program shows while it runs, as arrays print.
pub(crate) struct Picture<'a> {
    /// What it is called.
    pub label: &'a str,
    /// The names of its axes.
    pub names: &'a [&'static str],
    /// Their sizes.
    pub sizes: &'a [usize],
    /// The values.
    pub data: &'a Data,
}

impl fmt::Debug for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)?;
        heading(f, self.names, self.sizes, &self.data.dtype().to_string())?;
        match self.data {
            Data::F32(v) => block(f, self.sizes, v, 1),
            Data::F64(v) => block(f, self.sizes, v, 1),
            Data::I32(v) => block(f, self.sizes, v, 1),
            Data::Bool(v) => block(f, self.sizes, v, 1),
            Data::Encoded(v) => block(f, self.sizes, &v.values(), 1),
        }
    }
}

/// `[Batch=2, 3; Real]` and what stands between it and the values.
fn heading(f: &mut fmt::Formatter<'_>, names: &[&str], sizes: &[usize], kind: &str) -> fmt::Result {
    f.write_str("[")?;
    for (i, (name, n)) in names.iter().zip(sizes).enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        // An anonymous static axis is called by its size.
        if *name == n.to_string() {
            write!(f, "{comma}{n}")?;
        } else {
            write!(f, "{comma}{name}={n}")?;
        }
    }
    write!(f, "; {kind}]")?;
    f.write_str(if sizes.len() > 1 { "\n" } else { " " })
}

/// One bracket of a picture whose entries are `depth` brackets deep.
fn block<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, sizes: &[usize], data: &[T], depth: usize) -> fmt::Result {
    let Some((&n, inner)) = sizes.split_first() else {
        return fmt::Debug::fmt(&data[0], f);
    };
    let step = data.len().checked_div(n).unwrap_or(0);
    f.write_str("[")?;
    for i in 0..n {
        if n > WHOLE && (EDGE..n - EDGE).contains(&i) {
            if i == EDGE {
                separate(f, inner.len(), depth)?;
                f.write_str("…")?;
            }
            continue;
        }
        if i > 0 {
            separate(f, inner.len(), depth)?;
        }
        block(f, inner, &data[i * step..(i + 1) * step], depth + 1)?;
    }
    f.write_str("]")
}

/// Rows stand below each other, values beside each other.
fn separate(f: &mut fmt::Formatter<'_>, inner: usize, depth: usize) -> fmt::Result {
    match inner {
        0 => f.write_str(", "),
        _ => write!(f, ",\n{:depth$}", ""),
    }
}
