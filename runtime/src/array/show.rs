//! How arrays print: shape in axis names, then the values in nested brackets, long axes cut.

use super::{Array, HostOf};
use crate::language::element::Element;
use crate::language::shape::Shape;
use std::fmt;

/// Axes longer than this show their first and last [`EDGE`] entries only.
const WHOLE: usize = 8;
const EDGE: usize = 3;

/// `Array[Batch=2, 3; Real]` and the values; `{:.2?}` rounds them.
impl<S: Shape, E: Element> fmt::Debug for Array<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Array[")?;
        for (i, (name, n)) in S::NAMES.iter().zip(self.sizes()).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            // An anonymous static axis is called by its size.
            if *name == n.to_string() {
                write!(f, "{comma}{n}")?;
            } else {
                write!(f, "{comma}{name}={n}")?;
            }
        }
        write!(f, "; {}]", E::NAME)?;
        f.write_str(if S::RANK > 1 { "\n" } else { " " })?;
        block::<E>(f, self.sizes(), self.data(), 1)
    }
}

/// One bracket of a picture whose entries are `depth` brackets deep.
fn block<E: Element>(f: &mut fmt::Formatter<'_>, sizes: &[usize], data: &[HostOf<E>], depth: usize) -> fmt::Result {
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
        block::<E>(f, inner, &data[i * step..(i + 1) * step], depth + 1)?;
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
