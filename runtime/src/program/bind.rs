//! Binding: sizes of run-time axes from the arrays at hand.

use crate::graph::{AxisTag, Dim, Extent, ExtentError, Graph, Node, Sizes};
use crate::ops::Op;
use crate::ops::leaf::{Constant, Fill};
use std::collections::HashMap;

/// Arrays and axes that disagree.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BindError {
    /// Another number of arguments.
    #[error("the program takes {expected} arguments, is given {found}")]
    Count {
        /// How many it takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An argument of another rank or storage.
    #[error("{argument} must be {expected}, is given {found}")]
    Type {
        /// The argument.
        argument: String,
        /// Its type.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Two places that give one axis different sizes.
    #[error("axis `{axis}` is {first} in {first_place} and {second} in {second_place}")]
    Conflict {
        /// The axis, or the expression over axes.
        axis: String,
        /// The size in the first place.
        first: usize,
        /// Where that came from.
        first_place: String,
        /// The size in the second place.
        second: usize,
        /// Where that came from.
        second_place: String,
    },
    /// A static axis given another size.
    #[error("axis `{axis}` has size {expected}, {argument} gives {found}")]
    Static {
        /// The axis.
        axis: String,
        /// Its size.
        expected: usize,
        /// The size given.
        found: usize,
        /// The argument.
        argument: String,
    },
    /// A size that cannot be had.
    #[error("{place}: {source}")]
    Extent {
        /// Whose size.
        place: String,
        /// Why not.
        source: ExtentError,
    },
    /// An argument whose values do not fill its sizes.
    #[error("{argument} of sizes {sizes:?} holds {found} values")]
    Values {
        /// The argument.
        argument: String,
        /// Its sizes.
        sizes: Vec<usize>,
        /// How many values there are.
        found: usize,
    },
}

/// Finds the size of every run-time axis from the sizes of the arguments, starting from those
/// that are known (from the model), and checks every dimension against them.
///
/// # Errors
/// Disagreements, each naming the axis and both places.
pub fn bind(graph: &Graph, known: &Sizes, given: &[&[usize]]) -> Result<Sizes, BindError> {
    let mut sizes = known.clone();
    let mut origin: HashMap<&'static str, String> =
        known.iter().map(|(tag, _)| (tag.path, "the model".to_string())).collect();
    let dims: Vec<(usize, &Dim, usize)> = graph
        .inputs
        .iter()
        .enumerate()
        .flat_map(|(i, input)| input.ty.dims.iter().zip(given[i]).map(move |(d, n)| (i, d, *n)))
        .collect();
    let name = |i: usize| format!("`{}`", graph.inputs[i].name);
    let mut checked = vec![false; dims.len()];
    // Plain axes bind themselves; expressions follow when all but one of their axes are known.
    loop {
        let mut progress = false;
        for (k, (i, dim, found)) in dims.iter().enumerate() {
            if checked[k] {
                continue;
            }
            match dim.extent.eval(&sizes) {
                Ok(expected) => {
                    checked[k] = true;
                    progress = true;
                    if expected != *found {
                        return Err(conflict(dim, expected, *found, &name(*i), &origin));
                    }
                }
                Err(ExtentError::Unbound { .. }) => {
                    if let Some((tag, n)) = dim.extent.solve(*found, &sizes) {
                        sizes.set(tag, n);
                        origin.insert(tag.path, name(*i));
                        checked[k] = true;
                        progress = true;
                    }
                }
                Err(source) => return Err(BindError::Extent { place: name(*i), source }),
            }
        }
        if progress {
            continue;
        }
        // Lengths after rounding, with nothing else that tells the length before.
        let open = (0..dims.len()).filter(|k| !checked[*k]);
        let found = open.filter_map(|k| Some((dims[k].0, rounded(graph, dims[k].1, dims[k].2, &sizes)?))).next();
        match found {
            Some((i, (tag, n))) => {
                sizes.set(tag, n);
                origin.insert(tag.path, name(i));
            }
            None => break,
        }
    }
    // Expressions that could not be solved: their axes must be known from elsewhere.
    if let Some(k) = checked.iter().position(|c| !c) {
        let (i, dim, _) = dims[k];
        let source = dim.extent.eval(&sizes).err().unwrap_or(ExtentError::Unbound { axis: dim.axis.name });
        return Err(BindError::Extent { place: name(i), source });
    }
    Ok(sizes)
}

/// The size of the axis under the rounding in `dim`, where the graph only depends on it after
/// rounding: frames are given, and how many samples they were computed from does not matter. The
/// smallest that fits is taken.
fn rounded(graph: &Graph, dim: &Dim, found: usize, sizes: &Sizes) -> Option<(AxisTag, usize)> {
    let (tag, low, high) = dim.extent.solve_range(found, found, sizes)?;
    let with = |n| {
        let mut sizes = sizes.clone();
        sizes.set(tag, n);
        sizes
    };
    let (least, most) = (with(low), with(high));
    let same = |e: &Extent| match (e.eval(&least), e.eval(&most)) {
        (Ok(a), Ok(b)) => a == b,
        _ => {
            let mut symbols = vec![];
            e.symbols(&mut symbols);
            !symbols.contains(&tag)
        }
    };
    let matters = |node: &Node| {
        let counted = matches!(&node.op, Op::Constant(Constant { fill: Fill::Size(e), .. }) if !same(e));
        counted || node.types.iter().flat_map(|t| &t.dims).any(|d| !same(&d.extent))
    };
    (!graph.nodes.iter().any(matters)).then_some((tag, low))
}

fn conflict(
    dim: &Dim,
    expected: usize,
    found: usize,
    argument: &str,
    origin: &HashMap<&'static str, String>,
) -> BindError {
    if dim.extent.as_constant().is_some() {
        return BindError::Static { axis: dim.axis.name.into(), expected, found, argument: argument.into() };
    }
    BindError::Conflict {
        axis: label(dim),
        first: expected,
        first_place: place(&dim.extent, origin),
        second: found,
        second_place: argument.into(),
    }
}

/// `Time`, or `Frames = floor(Samples / 160)` for a derived axis.
fn label(dim: &Dim) -> String {
    match dim.extent.as_symbol() {
        Some(_) => dim.axis.name.into(),
        None => format!("{} = {}", dim.axis.name, dim.extent),
    }
}

fn place(extent: &Extent, origin: &HashMap<&'static str, String>) -> String {
    let mut symbols = vec![];
    extent.symbols(&mut symbols);
    let mut places: Vec<&str> = vec![];
    for tag in symbols {
        if let Some(p) = origin.get(tag.path)
            && !places.contains(&p.as_str())
        {
            places.push(p);
        }
    }
    places.join(" and ")
}
