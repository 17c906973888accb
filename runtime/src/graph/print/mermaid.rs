//! A graph as a Mermaid flowchart: modules are subgraphs, folded to boxes below a depth.
//!
//! <https://mermaid.js.org/syntax/flowchart.html>. Labels are quoted and escaped, so names and
//! attributes may hold anything.

use super::costs::{ModuleCost, costs, count};
use super::outline::{Item, Outline, chain, short_name};
use super::{Graph, Options, heading, is_operand, operand};
use crate::graph::{NodeId, Value};
use crate::ops::Op;
use std::fmt::Write;

/// Levels of modules that are opened where the options do not say.
const DEPTH: usize = 2;

struct Chart<'a> {
    graph: &'a Graph,
    outline: Outline,
    costs: Vec<ModuleCost>,
    depth: usize,
    out: String,
}

pub fn mermaid(graph: &Graph, options: &Options) -> String {
    let mut chart = Chart {
        graph,
        outline: Outline::new(graph),
        costs: costs(graph, &options.sizes),
        depth: options.depth.unwrap_or(DEPTH),
        out: String::new(),
    };
    // Writing to a string does not fail.
    let _ = chart.write(options.title(graph));
    chart.out
}

impl Chart<'_> {
    fn write(&mut self, title: &str) -> std::fmt::Result {
        // The title is YAML: a quoted JSON string is one.
        let title: String = title.chars().filter(|c| !c.is_control()).collect();
        writeln!(self.out, "---\ntitle: \"{}\"\n---\nflowchart TD", title.replace('\\', "\\\\").replace('"', "\\\""))?;
        if self.depth == 0 {
            self.folded(0, 1)?;
            for (id, node) in self.graph.nodes.iter().enumerate() {
                if matches!(node.op, Op::Input(_)) {
                    self.node(id as NodeId, 1)?;
                }
            }
        } else {
            self.contents(0, 1)?;
        }
        for k in 0..self.graph.outputs.len() {
            let name = if self.graph.outputs.len() == 1 { "output".into() } else { format!("output {}", k + 1) };
            writeln!(self.out, "    o{k}([\"{name}\"]):::edge")?;
        }
        self.edges()?;
        writeln!(self.out, "    classDef module stroke-width:2px")?;
        writeln!(self.out, "    classDef edge stroke-dasharray:4 3")
    }

    fn contents(&mut self, scope: u32, level: usize) -> std::fmt::Result {
        let pad = "    ".repeat(level);
        for item in self.outline.parts[scope as usize].rows.concat() {
            match item {
                Item::Node(id) => self.node(id, level)?,
                Item::Module(inner) if self.outline.parts[inner as usize].depth >= self.depth => {
                    self.folded(inner, level)?;
                }
                Item::Module(inner) => {
                    writeln!(self.out, "{pad}subgraph m{inner} [\"{}\"]", self.module_label(inner))?;
                    self.contents(inner, level + 1)?;
                    writeln!(self.out, "{pad}end")?;
                }
            }
        }
        Ok(())
    }

    fn module_label(&self, scope: u32) -> String {
        let kind = self.graph.scopes[scope as usize].kind;
        match short_name(self.graph, scope) {
            "" => escape(kind),
            name => format!("{}: {}", escape(name), escape(kind)),
        }
    }

    fn folded(&mut self, scope: u32, level: usize) -> std::fmt::Result {
        let pad = "    ".repeat(level);
        let params = &self.costs[scope as usize].params;
        let mut label = self.module_label(scope);
        if params.as_constant() != Some(0) {
            label += &format!("<br/>{} params", escape(&count(params)));
        }
        writeln!(self.out, "{pad}m{scope}[[\"{label}\"]]:::module")
    }

    fn node(&mut self, id: NodeId, level: usize) -> std::fmt::Result {
        let pad = "    ".repeat(level);
        let node = &self.graph.nodes[id as usize];
        if let Op::Input(i) = &node.op {
            let decl = &self.graph.inputs[i.index as usize];
            let element =
                if decl.element.is_empty() { String::new() } else { format!("<br/>{}", escape(decl.element)) };
            return writeln!(self.out, "{pad}n{id}([\"{}{element}\"]):::edge", escape(&decl.name));
        }
        let mut label = escape(&heading(node));
        for input in &node.inputs {
            let from = self.graph.node(*input);
            if is_operand(from) {
                label += &format!("<br/>{}", escape(&operand(self.graph, from)));
            }
        }
        writeln!(self.out, "{pad}n{id}[\"{label}\"]")
    }

    /// What stands for a node: itself, or the outermost folded module around it.
    fn shown(&self, id: NodeId) -> String {
        let argument = matches!(self.graph.nodes[id as usize].op, Op::Input(_));
        let folded = chain(self.graph, id).into_iter().find(|s| self.outline.parts[*s as usize].depth >= self.depth);
        match folded {
            Some(scope) if !argument => format!("m{scope}"),
            _ => format!("n{id}"),
        }
    }

    fn edges(&mut self) -> std::fmt::Result {
        let mut seen = std::collections::HashSet::new();
        let results = self.graph.outputs.iter().enumerate().map(|(k, v)| (*v, format!("o{k}")));
        let flow = self.outline.edges.iter().map(|(v, to)| (*v, self.shown(*to)));
        let all: Vec<(Value, String)> = flow.chain(results).collect();
        for (value, to) in all {
            let node = self.graph.node(value);
            let label = escape(&self.graph.ty(value).to_string());
            if is_operand(node) {
                // A result that is a bare variable or constant has no node of its own.
                writeln!(
                    self.out,
                    "    l{}[\"{}\"] -->|\"{label}\"| {to}",
                    value.node,
                    escape(&operand(self.graph, node))
                )?;
                continue;
            }
            let from = self.shown(value.node);
            if from != to && seen.insert((from.clone(), to.clone(), label.clone())) {
                writeln!(self.out, "    {from} -->|\"{label}\"| {to}")?;
            }
        }
        Ok(())
    }
}

/// Text inside a quoted Mermaid label, where `#` starts an entity.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out += "#quot;",
            '#' => out += "#35;",
            '&' => out += "#amp;",
            '<' => out += "#lt;",
            '>' => out += "#gt;",
            '`' => out += "#96;",
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_cannot_leave_their_quotes() {
        assert_eq!(super::escape("a\"] --> b<br>#1"), "a#quot;] --#gt; b#lt;br#gt;#35;1");
    }
}
