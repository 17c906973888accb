//! Drawing graphs: as text, as a Mermaid flowchart and as a self-contained HTML page.
//!
//! All three speak in module paths and axis names and fold by module. What they share is here:
//! [`Options`], the cost of each module ([`costs`]) and its nesting (`outline`). None of them
//! changes or runs the graph.
//!
//! ```
//! # use mobilis_runtime as mobilis;
//! use mobilis::graph::print::{Format, Options, print};
//! # use mobilis::testing::{real, traced};
//! # let graph = traced(&[real(&[2, 3], 1)], |x| x.to_vec());
//! let page = print(&graph, Format::Html, &Options { title: "My model".into(), ..Options::default() });
//! assert!(page.starts_with("<!doctype html>"));
//! ```

pub mod costs;
pub(crate) mod html;
pub(crate) mod mermaid;
mod outline;
mod text;

use super::{AxisTag, Graph, Node, Sizes};
use crate::ops::Op;
use crate::ops::leaf::Fill;
use std::fmt;
use std::str::FromStr;

/// What a drawing is written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// One line a node, then the cost of each module.
    #[default]
    Text,
    /// A flowchart for Markdown pages.
    Mermaid,
    /// A page with modules that open and close; needs nothing from the network.
    Html,
}

impl Format {
    /// Every format's name.
    pub const NAMES: [&'static str; 3] = ["text", "mermaid", "html"];
}

impl FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Format, String> {
        match s {
            "text" => Ok(Format::Text),
            "mermaid" => Ok(Format::Mermaid),
            "html" => Ok(Format::Html),
            other => Err(format!("`{other}` is no format: choose {}", Format::NAMES.join(", "))),
        }
    }
}

/// How a graph is drawn.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The heading; the root module's type where empty.
    pub title: String,
    /// Sizes of run-time axes: costs are numbers where all axes in them have one.
    pub sizes: Sizes,
    /// How many levels of modules are opened: 0 draws the whole model as one box. Text and HTML
    /// hold every level whatever this says; it limits text's table and what HTML shows at first.
    pub depth: Option<usize>,
}

impl Options {
    fn title<'a>(&'a self, graph: &'a Graph) -> &'a str {
        match (self.title.is_empty(), graph.scopes.first()) {
            (true, Some(root)) => root.kind,
            (true, None) => "graph",
            _ => &self.title,
        }
    }
}

/// Draws a graph.
pub fn print(graph: &Graph, format: Format, options: &Options) -> String {
    match format {
        Format::Text => text::text(graph, options),
        Format::Mermaid => mermaid::mermaid(graph, options),
        Format::Html => html::html(graph, options),
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::text(self, &Options::default()))
    }
}

/// The run-time axes that a graph's types mention, sorted by name.
pub fn run_time_axes(graph: &Graph) -> Vec<AxisTag> {
    let mut tags = vec![];
    for ty in graph.nodes.iter().flat_map(|n| &n.types) {
        ty.dims.iter().for_each(|d| d.extent.symbols(&mut tags));
    }
    tags.sort();
    tags
}

/// Sizes from names: `[("Batch", 8), ("Time", 128)]`.
///
/// # Errors
/// A name that is no run-time axis of the graph, with those that are.
pub fn sizes_by_name(graph: &Graph, pairs: &[(String, usize)]) -> Result<Sizes, String> {
    let tags = run_time_axes(graph);
    let mut sizes = Sizes::new();
    for (name, size) in pairs {
        let mut found = false;
        for tag in tags.iter().filter(|t| t.name == name) {
            sizes.set(*tag, *size);
            found = true;
        }
        if !found {
            let mut names: Vec<&str> = tags.iter().map(|t| t.name).collect();
            names.dedup();
            return Err(match names.len() {
                0 => format!("`{name}` has no place here: every size in this graph is known to the compiler"),
                _ => format!("`{name}` is no run-time axis of this graph: they are {}", names.join(", ")),
            });
        }
    }
    Ok(sizes)
}

/// Whether a node is a mere operand: a variable, constant or position, drawn inside its users.
fn is_operand(node: &Node) -> bool {
    matches!(node.op, Op::Var(_) | Op::Constant(_) | Op::Iota(_))
}

/// How an operand is written inside the node that uses it.
fn operand(graph: &Graph, node: &Node) -> String {
    match &node.op {
        Op::Var(v) => format!("{} {}", graph.vars[v.index as usize].name, node.types[0]),
        Op::Constant(c) => match &c.fill {
            Fill::Number(v) => format!("{v}"),
            Fill::Size(e) => format!("{e}"),
        },
        Op::Iota(i) => match node.types[0].dims.get(i.axis) {
            Some(dim) => format!("0..{}", dim.extent),
            None => "0..".into(),
        },
        op => op.rule().name().into(),
    }
}

/// `softmax axis=3`: a node's name and settings.
fn heading(node: &Node) -> String {
    let rule = node.op.rule();
    let attributes = rule.attributes();
    if attributes.is_empty() { rule.name().into() } else { format!("{} {attributes}", rule.name()) }
}
