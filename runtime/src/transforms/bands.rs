//! Contractions with a table that is mostly zeros, such as a bank of mel filters: devices that can read only
//! what counts of it ask here, and transforms leave such contractions alone.

use crate::graph::{Graph, Node, Value};
use crate::module::init::Init;
use crate::ops::Op;
use mobilis_kernels::cpu::bands::Bands;

/// The table takes part in at most one of so many products.
const SPARSE: usize = 4;

/// `y[.., r, ..] = sum over k of table[r, k] x[.., k, ..]`, with something behind `k` in `x`.
pub struct Filters {
    /// Which input is `x`.
    pub x: usize,
    /// Which dimension of `x` is summed.
    pub summed: usize,
    /// Whether it is the first of the table.
    pub transposed: bool,
    /// The table, of the sizes that it has in every run.
    pub table: Bands,
}

/// A contraction as filters, if it is one and a table's bands are narrow.
pub fn filters(graph: &Graph, node: &Node) -> Option<Filters> {
    let Op::Einsum(op) = &node.op else { return None };
    let [a, b] = &op.operands[..] else { return None };
    [(0, a, b), (1, b, a)].into_iter().find_map(|(i, table, x)| {
        let values = table_of(graph, node.inputs[i])?;
        let [first, second] = table[..] else { return None };
        let transposed = op.output.contains(&second);
        let (row, inner) = if transposed { (second, first) } else { (first, second) };
        let summed = x.iter().position(|l| *l == inner)?;
        let whole = summed + 1 < x.len() && row != inner && !x.contains(&row) && x.len() == op.output.len();
        let same = x.iter().zip(&op.output).enumerate().all(|(d, (l, o))| *o == if d == summed { row } else { *l });
        let distinct = x.iter().enumerate().all(|(d, l)| !x[..d].contains(l));
        if !(whole && same && distinct) {
            return None;
        }
        let narrow = |bank: &Bands| !values.is_empty() && SPARSE * bank.count() <= values.len();
        let table = self::table(graph, node.inputs[i], transposed).filter(narrow)?;
        Some(Filters { x: 1 - i, summed, transposed, table })
    })
}

/// The bands of a variable that is a table, which nothing changes, or of its transpose.
pub fn table(graph: &Graph, table: Value, transposed: bool) -> Option<Bands> {
    let values = table_of(graph, table)?;
    let (outer, width) = sizes(graph, table, values.len())?;
    Some(match transposed {
        true => Bands::new(values, (width, outer), (1, width)),
        false => Bands::new(values, (outer, width), (width, 1)),
    })
}

/// The sizes of a table's two dimensions; where one is known only at run time, it is what is left.
fn sizes(graph: &Graph, table: Value, values: usize) -> Option<(usize, usize)> {
    let known = |d: usize| graph.ty(table).dims[d].extent.as_constant().and_then(|n| usize::try_from(n).ok());
    let other = |n: usize| values.checked_div(n).filter(|m| m * n == values);
    match (known(0), known(1)) {
        (Some(rows), _) => other(rows).map(|columns| (rows, columns)),
        (None, Some(columns)) => other(columns).map(|rows| (rows, columns)),
        (None, None) => None,
    }
}

/// The values of a variable that is a table, which nothing changes.
fn table_of(graph: &Graph, v: Value) -> Option<&[f32]> {
    let Op::Var(var) = &graph.node(v).op else { return None };
    let changed = graph.updates.iter().any(|(updated, _)| *updated == var.index);
    match &graph.vars[var.index as usize].init {
        Init::Table(values) if !changed => Some(values),
        _ => None,
    }
}
