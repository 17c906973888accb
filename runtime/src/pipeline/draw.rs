//! A pipeline drawn: as text, as a Mermaid flowchart, as the HTML page of graphs.
//!
//! A box is a call of a stage, with the type that stands there now; an edge is a value, with its name and
//! its type as the pipeline declares them. A stage that is a pipeline is drawn with what is inside.

use super::Core;
use super::core::{Call, Edge, Label};
use crate::graph::print::{Format, html, mermaid};
use crate::json::Json;
use std::fmt::Write;

impl Core {
    /// Draws the pipeline with the stages that it has now.
    pub fn draw(&self, format: Format) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = match format {
            Format::Text => text(self, 0, &mut out),
            Format::Mermaid => {
                writeln!(out, "flowchart TD").and_then(|()| flowchart(self, "", 1, &mut out)).and_then(|()| {
                    writeln!(out, "    classDef module stroke-width:2px\n    classDef edge stroke-dasharray:4 3")
                })
            }
            Format::Html => page(self, &mut out),
        };
        out
    }

    fn inputs(&self) -> &[Label] {
        &self.wiring().values[..self.wiring().inputs]
    }

    fn slot(&self, call: &Call) -> (&'static str, String) {
        (self.wiring().slots[call.slot].name, self.stage(call.slot).kind())
    }

    /// The calls in rows: each in the first row after all that feeds it.
    fn rows(&self) -> Vec<Vec<usize>> {
        let wiring = self.wiring();
        let mut level = vec![0; wiring.values.len()];
        let mut rows: Vec<Vec<usize>> = vec![];
        for (number, call) in wiring.calls.iter().enumerate() {
            let row = call.inputs.iter().filter_map(Edge::value).map(|v| level[v]).max().unwrap_or(0);
            level[call.first..call.first + call.count].fill(row + 1);
            rows.resize(rows.len().max(row + 1), vec![]);
            rows[row].push(number);
        }
        rows
    }

    /// Every edge: the value, what makes it (a call, or nothing for an input), and what takes it (a call, or
    /// the number of a result).
    fn edges(&self) -> Vec<(usize, Option<usize>, Result<usize, usize>)> {
        let wiring = self.wiring();
        let maker = |v: usize| wiring.calls.iter().position(|c| (c.first..c.first + c.count).contains(&v));
        let calls = wiring.calls.iter().enumerate().flat_map(|(n, c)| c.inputs.iter().map(move |e| (e, Ok(n))));
        let results = wiring.outputs.iter().enumerate().map(|(n, e)| (e, Err(n)));
        calls.chain(results).filter_map(|(e, to)| e.value().map(|v| (v, maker(v), to))).collect()
    }
}

/// `name: Type, ..`
fn list(labels: &[Label]) -> String {
    let one = |l: &Label| if l.name.is_empty() { l.ty.to_string() } else { format!("{}: {}", l.name, l.ty) };
    labels.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn text(core: &Core, depth: usize, out: &mut String) -> std::fmt::Result {
    let wiring = core.wiring();
    let pad = "    ".repeat(depth);
    writeln!(out, "{pad}{}({}) -> ({})", wiring.name, list(core.inputs()), list(&wiring.results))?;
    let name = |e: &Edge| e.value().map_or("_", |v| wiring.values[v].name);
    for call in &wiring.calls {
        let (stage, kind) = core.slot(call);
        let fed: Vec<&str> = call.inputs.iter().map(name).collect();
        let made = list(&wiring.values[call.first..call.first + call.count]);
        writeln!(out, "{pad}  {stage}({}) = {made}   [{kind}]", fed.join(", "))?;
        if let Some(inner) = core.stage(call.slot).inside() {
            text(inner, depth + 1, out)?;
        }
    }
    let results: Vec<&str> = wiring.outputs.iter().map(name).collect();
    writeln!(out, "{pad}  -> {}", results.join(", "))
}

fn flowchart(core: &Core, path: &str, depth: usize, out: &mut String) -> std::fmt::Result {
    let wiring = core.wiring();
    let (pad, escape) = ("    ".repeat(depth), mermaid::escape);
    let port = |l: &Label| match l.name {
        "" => escape(l.ty),
        name => format!("{}<br/>{}", escape(name), escape(l.ty)),
    };
    for (i, label) in core.inputs().iter().enumerate() {
        writeln!(out, "{pad}i{path}{i}([\"{}\"]):::edge", port(label))?;
    }
    for (i, label) in wiring.results.iter().enumerate() {
        writeln!(out, "{pad}o{path}{i}([\"{}\"]):::edge", port(label))?;
    }
    for (n, call) in wiring.calls.iter().enumerate() {
        let (stage, kind) = core.slot(call);
        let label = format!("{}: {}", escape(stage), escape(&kind));
        match core.stage(call.slot).inside() {
            Some(inner) => {
                writeln!(out, "{pad}subgraph c{path}{n} [\"{label}\"]")?;
                flowchart(inner, &format!("{path}{n}_"), depth + 1, out)?;
                writeln!(out, "{pad}end")?;
            }
            None => writeln!(out, "{pad}c{path}{n}[\"{label}\"]:::module")?,
        }
    }
    for (value, from, to) in core.edges() {
        let from = from.map_or_else(|| format!("i{path}{value}"), |n| format!("c{path}{n}"));
        let to = to.map_or_else(|n| format!("o{path}{n}"), |n| format!("c{path}{n}"));
        let label = &wiring.values[value];
        writeln!(out, "{pad}{from} -->|\"{}<br/>{}\"| {to}", escape(label.name), escape(label.ty))?;
    }
    Ok(())
}

fn page(core: &Core, out: &mut String) -> std::fmt::Result {
    let title = html::escape(core.name());
    *out += &html::opening(&title);
    write!(out, "<p>{} stages</p>", core.wiring().slots.len())?;
    *out += html::TOOLS;
    *out += "</header>\n<main id=\"graph\">\n";
    let mut edges = vec![];
    boxes(core, "", "m0", out, &mut edges)?;
    *out += "<svg id=\"edges\" aria-hidden=\"true\"></svg>\n</main>\n";
    let labels: Vec<Json> = edges.iter().map(|e: &(String, String, String)| e.2.as_str().into()).collect();
    let edges =
        edges.iter().enumerate().map(|(i, (a, b, _))| Json::List(vec![a.as_str().into(), b.as_str().into(), i.into()]));
    let data = Json::map([("labels", Json::List(labels)), ("edges", Json::List(edges.collect()))]);
    *out += &html::closing(&data);
    Ok(())
}

fn boxes(
    core: &Core,
    path: &str,
    id: &str,
    out: &mut String,
    edges: &mut Vec<(String, String, String)>,
) -> std::fmt::Result {
    let (wiring, escape) = (core.wiring(), html::escape);
    let port = |kind: char, i: usize, l: &Label, out: &mut String| {
        let (name, ty) = (escape(l.name), escape(l.ty));
        let search = format!("{name} {ty}").to_lowercase();
        write!(
            out,
            "<div class=\"op edge\" id=\"{kind}{path}{i}\" data-name=\"{search}\" tabindex=\"0\"><b>{name}</b><code>{ty}</code></div>"
        )
    };
    let name = escape(wiring.name);
    write!(
        out,
        "<details class=\"module\" id=\"{id}\" data-name=\"{}\" open><summary><b>{name}</b></summary>",
        name.to_lowercase()
    )?;
    *out += "<div class=\"body\">\n<div class=\"row\">";
    for (i, label) in core.inputs().iter().enumerate() {
        port('i', i, label, out)?;
    }
    *out += "</div>\n";
    for row in core.rows() {
        *out += "<div class=\"row\">";
        for n in row {
            let call = &wiring.calls[n];
            let (stage, kind) = core.slot(call);
            if let Some(inner) = core.stage(call.slot).inside() {
                boxes(inner, &format!("{path}{n}_"), &format!("c{path}{n}"), out, edges)?;
                continue;
            }
            let (stage, kind) = (escape(stage), escape(&kind));
            let search = format!("{stage} {kind}").to_lowercase();
            let signature = escape(wiring.slots[call.slot].ty);
            write!(
                out,
                "<div class=\"op contract\" id=\"c{path}{n}\" data-name=\"{search}\" title=\"{signature}\" tabindex=\"0\">"
            )?;
            write!(out, "<b>{stage}</b><span>{kind}</span></div>")?;
        }
        *out += "</div>\n";
    }
    *out += "<div class=\"row\">";
    for (i, label) in wiring.results.iter().enumerate() {
        port('o', i, label, out)?;
    }
    *out += "</div></div></details>";
    for (value, from, to) in core.edges() {
        let from = from.map_or_else(|| format!("i{path}{value}"), |n| format!("c{path}{n}"));
        let to = to.map_or_else(|n| format!("o{path}{n}"), |n| format!("c{path}{n}"));
        let label = &wiring.values[value];
        edges.push((from, to, format!("{}: {}", label.name, label.ty)));
    }
    Ok(())
}
