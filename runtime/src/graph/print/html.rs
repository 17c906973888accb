//! A graph as one HTML page that needs nothing else: modules are boxes that open and close, edges
//! carry shapes in axis names, every box says what it costs.
//!
//! The page is laid out here, in rows per module ([`super::outline`]); `page.js` only draws the
//! edges between what is visible, searches, and switches the colours. Everything that comes from
//! a model is escaped, and the page's content policy forbids any outside resource.

use super::costs::{ModuleCost, bytes, costs, count};
use super::outline::{Item, Outline, short_name};
use super::{Graph, Options, heading, is_operand, operand};
use crate::graph::polynomial::Polynomial;
use crate::graph::{DType, Dim, NodeId, TensorType, VarKind};
use crate::json::Json;
use crate::ops::{Op, Rule};
use std::collections::HashMap;
use std::fmt::{self, Write};

/// Levels of modules that are open at first where the options do not say.
const DEPTH: usize = 2;

struct Page<'a> {
    graph: &'a Graph,
    options: &'a Options,
    outline: Outline,
    costs: Vec<ModuleCost>,
    /// What a value is called or kept as: taps and updates.
    notes: HashMap<NodeId, Vec<String>>,
    out: String,
}

/// The beginning of a page, up to its title.
pub(crate) fn opening(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n",
        include_str!("page.css")
    )
}

/// What searches, opens and closes.
pub(crate) const TOOLS: &str = "<div class=\"tools\">\n<input id=\"search\" type=\"search\" \
     placeholder=\"Search modules, operations, shapes\" aria-label=\"Search\">\
     <output id=\"found\"></output>\n\
     <button id=\"open\">Open all</button><button id=\"close\">Close all</button>\
     <button id=\"theme\">Dark / light</button>\n</div>\n";

/// The end of a page: its edges, and what draws them.
pub(crate) fn closing(data: &Json) -> String {
    // Inside a script element only `<` could end it.
    let data = data.to_string().replace('<', "\\u003c");
    let script = include_str!("page.js");
    format!(
        "<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
}

pub fn html(graph: &Graph, options: &Options) -> String {
    let mut notes: HashMap<NodeId, Vec<String>> = HashMap::new();
    for (name, v) in &graph.taps {
        notes.entry(v.node).or_default().push(name.clone());
    }
    for (var, v) in &graph.updates {
        notes.entry(v.node).or_default().push(format!("updates {}", graph.vars[*var as usize].name));
    }
    let mut page = Page {
        graph,
        options,
        outline: Outline::new(graph),
        costs: costs(graph, &options.sizes),
        notes,
        out: String::new(),
    };
    // Writing to a string does not fail.
    let _ = page.write();
    page.out
}

impl Page<'_> {
    fn write(&mut self) -> fmt::Result {
        let title = escape(self.options.title(self.graph));
        self.out += &opening(&title);
        self.header()?;
        self.out += "<main id=\"graph\">\n";
        self.module(0)?;
        self.out += "<svg id=\"edges\" aria-hidden=\"true\"></svg>\n</main>\n";
        self.modules_table()?;
        self.variables_table()?;
        self.edges();
        Ok(())
    }

    fn header(&mut self) -> fmt::Result {
        let total = self.costs[0].clone();
        writeln!(self.out, "<p>{}, {} operations{}</p>", self.price(&total), total.operations, self.sizes())?;
        self.out += TOOLS;
        self.out += "<ul class=\"legend\">";
        for (class, words) in Class::LEGEND {
            write!(self.out, "<li class=\"{class}\">{words}</li>")?;
        }
        self.out += "</ul>\n</header>\n";
        Ok(())
    }

    /// `, at Batch=8, Time=128`
    fn sizes(&self) -> String {
        let given: Vec<String> = self.options.sizes.iter().map(|(tag, n)| format!("{}={n}", tag.name)).collect();
        if given.is_empty() { String::new() } else { format!(", at {}", escape(&given.join(", "))) }
    }

    /// `1.2M params, 3.4G flops, 56 MiB`
    fn price(&self, cost: &ModuleCost) -> String {
        let mut parts = vec![];
        if cost.params.as_constant() != Some(0) {
            parts.push(format!("{} params", count(&cost.params)));
        }
        parts.push(format!("{} flops", count(&cost.flops)));
        parts.push(match cost.bytes.as_constant() {
            Some(_) => format!("{} moved", bytes(&cost.bytes)),
            None => format!("{} bytes moved", bytes(&cost.bytes)),
        });
        escape(&parts.join(", "))
    }

    fn module(&mut self, scope: u32) -> fmt::Result {
        let part = self.outline.parts[scope as usize].clone();
        let (kind, path) = match self.graph.scopes.get(scope as usize) {
            Some(s) => (s.kind, s.path.as_str()),
            None => ("graph", ""),
        };
        let open = if part.depth < self.options.depth.unwrap_or(DEPTH) { " open" } else { "" };
        let name = if scope == 0 { "" } else { short_name(self.graph, scope) };
        let search = escape(&format!("{path} {kind}").to_lowercase());
        write!(self.out, "<details class=\"module\" id=\"m{scope}\" data-name=\"{search}\"{open}>")?;
        write!(self.out, "<summary title=\"{}\"><b>{}</b>", escape(path), escape(name))?;
        write!(
            self.out,
            "<i>{}</i><small>{}</small></summary>",
            escape(kind),
            self.price(&self.costs[scope as usize])
        )?;
        self.out += "<div class=\"body\">\n";
        for row in part.rows {
            self.out += "<div class=\"row\">";
            for item in row {
                match item {
                    Item::Node(id) => self.node(id)?,
                    Item::Module(inner) => self.module(inner)?,
                }
            }
            self.out += "</div>\n";
        }
        if scope == 0 && !self.graph.outputs.is_empty() {
            self.out += "<div class=\"row\">";
            for (k, v) in self.graph.outputs.iter().enumerate() {
                let name = if self.graph.outputs.len() == 1 { "output".into() } else { format!("output {}", k + 1) };
                let source = self.graph.node(*v);
                let what = if is_operand(source) { escape(&operand(self.graph, source)) } else { String::new() };
                let ty = escape(&self.graph.ty(*v).to_string());
                write!(self.out, "<div class=\"op edge\" id=\"o{k}\" data-name=\"{name} {ty}\" tabindex=\"0\">")?;
                write!(self.out, "<b>{name}</b><span>{what}</span><code>{ty}</code></div>")?;
            }
            self.out += "</div>\n";
        }
        self.out += "</div></details>";
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> fmt::Result {
        let node = &self.graph.nodes[id as usize];
        let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
        let types = escape(&types.join(", "));
        if let Op::Input(i) = &node.op {
            let decl = &self.graph.inputs[i.index as usize];
            let (name, element) = (escape(&decl.name), escape(decl.element));
            write!(
                self.out,
                "<div class=\"op edge\" id=\"n{id}\" data-name=\"{} {}\"",
                name.to_lowercase(),
                types.to_lowercase()
            )?;
            return write!(self.out, " tabindex=\"0\"><b>{name}</b><span>{element}</span><code>{types}</code></div>");
        }
        let rule = node.op.rule();
        let inputs: Vec<&TensorType> = node.inputs.iter().map(|v| self.graph.ty(*v)).collect();
        let cost = rule.cost(&inputs, &node.types);
        let price = self.price(&ModuleCost {
            flops: Polynomial::from(&cost.flops).bind(&self.options.sizes),
            bytes: Polynomial::from(&cost.bytes).bind(&self.options.sizes),
            ..ModuleCost::default()
        });
        let operands = node.inputs.iter().map(|v| self.graph.node(*v)).filter(|n| is_operand(n));
        let operands: Vec<String> = operands.map(|n| escape(&operand(self.graph, n))).collect();
        let path = escape(&self.graph.location(node.scope));
        let head = escape(&heading(node));
        let search = format!("{path} {head} {types} {}", operands.join(" ")).to_lowercase();
        write!(self.out, "<div class=\"op {}\" id=\"n{id}\" tabindex=\"0\" data-name=\"{search}\"", Class::of(rule))?;
        write!(self.out, " title=\"%{id} = {head}\n{types}\n{path}\n{price}\">")?;
        write!(self.out, "<b>{}</b><span>{}</span>", escape(rule.name()), escape(&rule.attributes()))?;
        for operand in operands {
            write!(self.out, "<small>{operand}</small>")?;
        }
        for note in self.notes.get(&id).into_iter().flatten() {
            write!(self.out, "<em>{}</em>", escape(note))?;
        }
        self.out += "</div>";
        Ok(())
    }

    fn modules_table(&mut self) -> fmt::Result {
        self.out += "<details class=\"table\"><summary>Cost of every module</summary><table>\n\
                     <tr><th>module<th>type<th>params<th>flops<th>bytes moved<th>share of flops</tr>\n";
        let whole = self.costs[0].flops.as_constant().filter(|n| *n > 0);
        for (scope, decl) in self.graph.scopes.iter().enumerate() {
            let cost = &self.costs[scope];
            if scope != 0 && self.outline.parts[scope].rows.is_empty() {
                continue;
            }
            let share = match (whole, cost.flops.as_constant()) {
                (Some(all), Some(own)) => {
                    let percent = 100.0 * own as f64 / all as f64;
                    format!("<meter min=\"0\" max=\"100\" value=\"{percent:.2}\"></meter> {percent:.1} %")
                }
                _ => String::new(),
            };
            let path = if scope == 0 { "(whole)" } else { &decl.path };
            write!(self.out, "<tr><td><a href=\"#m{scope}\">{}</a><td>{}", escape(path), escape(decl.kind))?;
            write!(self.out, "<td>{}<td>{}", escape(&count(&cost.params)), escape(&count(&cost.flops)))?;
            writeln!(self.out, "<td>{}<td>{share}</tr>", escape(&bytes(&cost.bytes)))?;
        }
        self.out += "</table></details>\n";
        Ok(())
    }

    fn variables_table(&mut self) -> fmt::Result {
        if self.graph.vars.is_empty() {
            return Ok(());
        }
        self.out += "<details class=\"table\"><summary>Parameters, buffers and states</summary><table>\n\
                     <tr><th>name<th>shape<th>values<th>kind</tr>\n";
        for var in &self.graph.vars {
            let kind = match (var.kind, var.frozen) {
                (VarKind::Param, false) => "parameter",
                (VarKind::Param, true) => "parameter, frozen",
                (VarKind::Buffer, _) => "buffer",
                (VarKind::State, _) => "state",
            };
            let values = count(&Polynomial::from(&var.ty.count()).bind(&self.options.sizes));
            write!(self.out, "<tr><td>{}<td>{}", escape(&var.name), escape(&var.ty.to_string()))?;
            writeln!(self.out, "<td>{}<td>{kind}</tr>", escape(&values))?;
        }
        self.out += "</table></details>\n";
        Ok(())
    }

    /// The flow as data for `page.js`: `[from, to, label]`, labels by number.
    fn edges(&mut self) {
        let mut labels: Vec<String> = vec![];
        let mut known: HashMap<String, usize> = HashMap::new();
        let inner = self.outline.edges.iter().map(|(v, to)| (*v, format!("n{to}")));
        let results = self.graph.outputs.iter().enumerate().map(|(k, v)| (*v, format!("o{k}")));
        let mut edges = vec![];
        for (value, to) in inner.chain(results).filter(|(v, _)| !is_operand(self.graph.node(*v))) {
            let text = axes(self.graph.ty(value));
            let label = *known.entry(text.clone()).or_insert_with(|| {
                labels.push(text);
                labels.len() - 1
            });
            edges.push(Json::List(vec![format!("n{}", value.node).into(), to.into(), label.into()]));
        }
        let data = Json::map([("labels", Json::list(labels)), ("edges", Json::List(edges))]);
        self.out += &closing(&data);
    }
}

/// The axes alone: static sizes stand in the boxes.
fn axes(ty: &TensorType) -> String {
    let name = |d: &Dim| if d.axis.name == "_" { d.to_string() } else { d.axis.name.to_string() };
    let names = format!("[{}]", ty.dims.iter().map(name).collect::<Vec<_>>().join(", "));
    if ty.dtype == DType::F32 { names } else { format!("{names} {}", ty.dtype) }
}

/// How an operation is coloured.
struct Class;

impl Class {
    const LEGEND: [(&'static str, &'static str); 6] = [
        ("edge", "arguments and results"),
        ("contract", "products and convolutions"),
        ("sequence", "attention and recurrence"),
        ("norm", "normalisation and losses"),
        ("point", "elementwise and reductions"),
        ("move", "movement"),
    ];

    fn of(rule: &dyn Rule) -> &'static str {
        let is = |words: &[&str]| words.iter().any(|w| rule.name().contains(w));
        if is(&["einsum", "conv", "matmul", "linear", "stft"]) {
            "contract"
        } else if is(&["attention", "lstm", "gru"]) {
            "sequence"
        } else if is(&["norm", "softmax", "entropy", "loss"]) {
            "norm"
        } else if is(&[
            "reshape",
            "permute",
            "broadcast",
            "slice",
            "pad",
            "concat",
            "gather",
            "scatter",
            "flip",
            "unfold",
            "embed",
            "cast",
            "detach",
            "sort",
            "topk",
            "top_k",
            "one_hot",
            "tri",
            "split",
            "repeat",
        ]) {
            "move"
        } else {
            "point"
        }
    }
}

/// Text for elements and quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_cannot_leave_its_element_or_attribute() {
        assert_eq!(super::escape("<b a=\"x\" & 'y'>"), "&lt;b a=&quot;x&quot; &amp; &#39;y&#39;&gt;");
    }
}
