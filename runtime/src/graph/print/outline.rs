//! The nesting of a drawing: which operations and modules lie in a module, and in which rows.
//!
//! A module's items stand in rows such that data flows down: an item lies below everything that
//! it takes from within the same module. A module that is left and entered again (the backward
//! pass) is one item, placed by its first use.

use super::{Graph, is_operand};
use crate::graph::{NodeId, Value};
use crate::ops::Op;
use std::collections::HashMap;

/// One thing inside a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Item {
    /// An operation or an argument.
    Node(NodeId),
    /// A module inside: an index into [`Graph::scopes`].
    Module(u32),
}

/// A module of the drawing.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// How far below the root.
    pub depth: usize,
    /// What lies in it, in rows from the top.
    pub rows: Vec<Vec<Item>>,
}

/// The modules of a drawing, in the order of [`Graph::scopes`].
pub struct Outline {
    /// A part for every scope; scopes without operations have no rows.
    pub parts: Vec<Part>,
    /// The data that flows between drawn nodes: (from, to).
    pub edges: Vec<(Value, NodeId)>,
}

impl Outline {
    /// Lays a graph out.
    pub fn new(graph: &Graph) -> Outline {
        let scopes = graph.scopes.len().max(1);
        let mut parts: Vec<Part> = vec![Part::default(); scopes];
        for s in 1..scopes {
            parts[s].depth = parts[graph.scopes[s].parent as usize].depth + 1;
        }
        let mut edges = vec![];
        let mut contents: Vec<Contents> = (0..scopes).map(|_| Contents::default()).collect();
        for (id, node) in graph.nodes.iter().enumerate() {
            if is_operand(node) {
                continue;
            }
            let id = id as NodeId;
            let mut inner = Item::Node(id);
            for scope in chain(graph, id).into_iter().rev() {
                contents[scope as usize].position(inner);
                inner = Item::Module(scope);
            }
            for input in &node.inputs {
                if is_operand(graph.node(*input)) {
                    continue;
                }
                edges.push((*input, id));
                let (scope, from, to) = meet(graph, input.node, id);
                let known = &mut contents[scope as usize];
                let flow = (known.position(from), known.position(to));
                known.flow.push(flow);
            }
        }
        for (part, known) in parts.iter_mut().zip(contents) {
            part.rows = known.rows(graph);
        }
        Outline { parts, edges }
    }
}

/// The scopes that a node lies in, from the root inwards. Arguments lie in the root.
pub fn chain(graph: &Graph, node: NodeId) -> Vec<u32> {
    let mut scope = match graph.nodes[node as usize].op {
        Op::Input(_) => 0,
        _ => graph.nodes[node as usize].scope,
    };
    let mut chain = vec![scope];
    while scope != 0 {
        scope = graph.scopes[scope as usize].parent;
        chain.push(scope);
    }
    chain.reverse();
    chain
}

/// The innermost scope that two nodes share, and the items in it that hold them.
fn meet(graph: &Graph, a: NodeId, b: NodeId) -> (u32, Item, Item) {
    let (p, q) = (chain(graph, a), chain(graph, b));
    let shared = p.iter().zip(&q).take_while(|(x, y)| x == y).count();
    let item = |path: &[u32], node| path.get(shared).map_or(Item::Node(node), |s| Item::Module(*s));
    (p[shared - 1], item(&p, a), item(&q, b))
}

/// What lies in a module, by first appearance, and the flow between it.
#[derive(Default)]
struct Contents {
    items: Vec<Item>,
    positions: HashMap<Item, usize>,
    flow: Vec<(usize, usize)>,
}

impl Contents {
    fn position(&mut self, item: Item) -> usize {
        *self.positions.entry(item).or_insert_with(|| {
            self.items.push(item);
            self.items.len() - 1
        })
    }

    fn rows(mut self, graph: &Graph) -> Vec<Vec<Item>> {
        let count = self.items.len();
        // Flow against the order of appearance (back into a module) does not place anything.
        self.flow.retain(|(from, to)| from < to);
        self.flow.sort_by_key(|f| f.1);
        let mut level = vec![0usize; count];
        let mut fed = vec![false; count];
        for (from, to) in &self.flow {
            level[*to] = level[*to].max(level[*from] + 1);
            fed[*to] = true;
        }
        let mut first_user = vec![usize::MAX; count];
        for (from, to) in &self.flow {
            first_user[*from] = first_user[*from].min(level[*to]);
        }
        let mut rows = vec![vec![]; level.iter().max().map_or(0, |l| l + 1)];
        for (i, item) in self.items.iter().enumerate() {
            let argument = matches!(item, Item::Node(n) if matches!(graph.nodes[*n as usize].op, Op::Input(_)));
            // What takes nothing from this module stands right above its first user.
            let free = !argument && !fed[i] && first_user[i] != usize::MAX;
            rows[if free { first_user[i].saturating_sub(1) } else { level[i] }].push(*item);
        }
        rows.retain(|r| !r.is_empty());
        rows
    }
}

/// A module's name inside its parent: the part of the path that the parent's lacks.
pub fn short_name(graph: &Graph, scope: u32) -> &str {
    let scope = &graph.scopes[scope as usize];
    let parent = &graph.scopes[scope.parent as usize].path;
    match scope.path.strip_prefix(parent.as_str()) {
        Some(rest) if !parent.is_empty() && !rest.is_empty() => rest.trim_start_matches('.'),
        _ => &scope.path,
    }
}
