//! A graph as text, one line a node.

use super::costs::{bytes, costs, count};
use super::{Graph, Options, heading};
use crate::graph::{Node, Value, VarKind};
use crate::ops::Op;
use std::fmt::Write;

pub fn text(graph: &Graph, options: &Options) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut out, graph, options);
    out
}

fn write_text(out: &mut String, graph: &Graph, options: &Options) -> std::fmt::Result {
    let nodes = graph.nodes.iter().enumerate();
    let (leaves, rest): (Vec<_>, Vec<_>) = nodes.partition(|(_, n)| matches!(n.op, Op::Input(_) | Op::Var(_)));
    writeln!(out, "graph {}", options.title(graph))?;

    let mut table = vec![];
    for (id, node) in &leaves {
        if let Op::Input(i) = &node.op {
            let decl = &graph.inputs[i.index as usize];
            table.push([format!("%{id} = {} : {}", decl.name, node.types[0]), decl.element.to_string()]);
        }
    }
    section(out, "inputs", table)?;

    let mut table = vec![];
    for (id, node) in &leaves {
        if let Op::Var(v) = &node.op {
            let decl = &graph.vars[v.index as usize];
            let kind = match (decl.kind, decl.frozen) {
                (VarKind::Param, false) => "parameter",
                (VarKind::Param, true) => "parameter, frozen",
                (VarKind::Buffer, _) => "buffer",
                (VarKind::State, _) => "state",
            };
            table.push([format!("%{id} = {} : {}", decl.name, node.types[0]), kind.into()]);
        }
    }
    section(out, "variables", table)?;

    let table = rest.iter().map(|(id, node)| [line(*id, node), graph.scopes[node.scope as usize].path.clone()]);
    section(out, "nodes", table.collect())?;

    let named = |v: &Value| format!("{v:?} : {}", graph.ty(*v));
    section(out, "outputs", graph.outputs.iter().map(|v| [named(v), String::new()]).collect())?;
    let updates = graph.updates.iter().map(|(i, v)| format!("{} <- {v:?}", graph.vars[*i as usize].name));
    section(out, "updates", updates.map(|l| [l, String::new()]).collect())?;
    let taps = graph.taps.iter().map(|(name, v)| format!("\"{name}\" = {}", named(v)));
    section(out, "taps", taps.map(|l| [l, String::new()]).collect())?;
    cost_table(out, graph, options)
}

/// `%12 = softmax(%11) axis=3 : [Batch, Heads, Time, Time]`
fn line(id: usize, node: &Node) -> String {
    let mut text = format!("%{id} = {}", node.op.rule().name());
    if !node.inputs.is_empty() {
        let inputs: Vec<String> = node.inputs.iter().map(|v| format!("{v:?}")).collect();
        text += &format!("({})", inputs.join(", "));
    }
    // The heading is the name, then the settings.
    text += &heading(node)[node.op.rule().name().len()..];
    let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
    text + " : " + &types.join(", ")
}

/// Lines with comments; the comments stand under each other as far as lines are not long.
fn section(out: &mut String, name: &str, lines: Vec<[String; 2]>) -> std::fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{name}:")?;
    let width = lines.iter().map(|l| l[0].chars().count()).max().unwrap_or(0).min(72);
    for [text, comment] in &lines {
        match comment.is_empty() {
            true => writeln!(out, "  {text}")?,
            false => writeln!(out, "  {text:width$}   # {comment}")?,
        }
    }
    Ok(())
}

fn cost_table(out: &mut String, graph: &Graph, options: &Options) -> std::fmt::Result {
    let totals = costs(graph, &options.sizes);
    let mut rows = vec![["module", "type", "params", "flops", "bytes"].map(String::from)];
    let mut depth = vec![0; graph.scopes.len()];
    // Modules stand below the one around them, in the order in which they were entered.
    let mut order: Vec<u32> = vec![];
    let mut stack: Vec<u32> = if graph.scopes.is_empty() { vec![] } else { vec![0] };
    while let Some(scope) = stack.pop() {
        order.push(scope);
        let inner = (1..graph.scopes.len() as u32).filter(|s| graph.scopes[*s as usize].parent == scope);
        stack.extend(inner.rev());
    }
    for scope in order {
        let (decl, cost) = (&graph.scopes[scope as usize], &totals[scope as usize]);
        if scope != 0 {
            depth[scope as usize] = depth[decl.parent as usize] + 1;
        }
        let shown = depth[scope as usize] <= options.depth.unwrap_or(usize::MAX);
        if !shown || (scope != 0 && *cost == Default::default()) {
            continue;
        }
        let indent = "  ".repeat(depth[scope as usize]);
        let name = if scope == 0 { "(whole)" } else { decl.path.as_str() };
        rows.push([
            format!("{indent}{name}"),
            decl.kind.into(),
            count(&cost.params),
            count(&cost.flops),
            bytes(&cost.bytes),
        ]);
    }
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);
    writeln!(out, "\ncost per module, with everything in it:")?;
    for row in &rows {
        let [a, b, c, d] = widths;
        writeln!(out, "  {:a$}  {:b$}  {:>c$}  {:>d$}  {}", row[0], row[1], row[2], row[3], row[4])?;
    }
    Ok(())
}
