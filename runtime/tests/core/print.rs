//! Drawings: every node is there, modules fold, costs add up, and nothing that a model is called
//! can break out of the format.

use mobilis::graph::print::{Format, Options, costs, print, run_time_axes, sizes_by_name};
use mobilis::graph::trace::{self, Handle, Mode};
use mobilis::graph::{AxisTag, DType, Dim, Extent, Graph, TensorType};
use mobilis::module::Visitor;
use mobilis::ops::{contraction, elementwise as ew, leaf, movement, reduce};
use mobilis::{Const, Member, Module, Param};
use mobilis_runtime as mobilis;

struct Mix {
    weight: Param<(Const<8>, Const<8>)>,
}

impl Module for Mix {
    fn kind(&self) -> &'static str {
        "Mix"
    }
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        self.weight.member("weight", visitor);
    }
}

impl Mix {
    fn forward(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        ew::unary(ew::UnaryKind::Tanh, contraction::linear(x, self.weight.get().raw()))
    }
}

struct Block {
    first: Mix,
    second: Mix,
}

impl Module for Block {
    fn kind(&self) -> &'static str {
        "Block"
    }
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        self.first.member("first", visitor);
        self.second.member("second", visitor);
    }
}

impl Block {
    fn forward(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let scaled = ew::scale(x, 0.5);
        ew::add(x, self.second.forward(self.first.forward(scaled)))
    }
}

struct Net {
    blocks: Vec<Block>,
}

impl Module for Net {
    fn kind(&self) -> &'static str {
        "Net"
    }
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        self.blocks.member("blocks", visitor);
    }
}

fn net() -> Net {
    let mix = || Mix { weight: Param::default() };
    Net { blocks: (0..2).map(|_| Block { first: mix(), second: mix() }).collect() }
}

const TIME: AxisTag = AxisTag { name: "Time", path: "tests::print::Time" };

fn graph_of(net: &Net, mode: Mode, name: &str) -> Graph {
    let traced = trace::trace(Some(net), mode, &|_| false, || {
        let dims = vec![Dim { axis: TIME, extent: Extent::of_tag(TIME) }, Dim::fixed(8)];
        let x = trace::input(name.into(), TensorType::new(dims, DType::F32), "Real");
        let _scope = trace::scope(net);
        let y = net.blocks.iter().fold(x, |x, block| block.forward(x));
        trace::tap("hidden", y);
        trace::output(reduce::reduce(y, reduce::Kind::Sum, &[0, 1]));
    });
    traced.expect("the net is well-shaped").0
}

fn graph() -> Graph {
    graph_of(&net(), Mode::Eval, "x")
}

fn options(sizes: &[(&str, usize)], depth: Option<usize>) -> Options {
    let pairs: Vec<_> = sizes.iter().map(|(n, s)| (n.to_string(), *s)).collect();
    Options { sizes: sizes_by_name(&graph(), &pairs).expect("known axes"), depth, ..Options::default() }
}

#[test]
fn text_is_one_line_a_node() {
    let text = print(&graph(), Format::Text, &Options::default());
    let expected = "\
graph Net

inputs:
  %0 = x : [Time, 8]   # Real

variables:
  %3 = blocks.0.first.weight : [8, 8]    # parameter
  %6 = blocks.0.second.weight : [8, 8]   # parameter
  %12 = blocks.1.first.weight : [8, 8]   # parameter
  %15 = blocks.1.second.weight : [8, 8]   # parameter

nodes:
  %1 = constant 0.5 : []                     # blocks.0
  %2 = mul(%0, %1) : [Time, 8]               # blocks.0
  %4 = einsum(%2, %3) ab,cb->ac : [Time, 8]   # blocks.0.first
";
    for line in expected.lines() {
        let squeeze = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|l| squeeze(l) == squeeze(line)), "no line `{line}` in\n{text}");
    }
    assert!(text.contains("outputs:\n  %19 : []\n"), "{text}");
    assert!(text.contains("taps:\n  \"hidden\" = %18 : [Time, 8]\n"), "{text}");
    // The flow can be read off: every operand is defined above its use.
    let defined =
        |id: &str| text.find(&format!("  %{id} = ")).unwrap_or_else(|| panic!("%{id} is not defined:\n{text}"));
    assert!(defined("4") < defined("5"));
}

#[test]
fn display_is_the_text() {
    assert_eq!(graph().to_string(), print(&graph(), Format::Text, &Options::default()));
}

#[test]
fn costs_add_up_the_module_tree() {
    let graph = graph();
    let totals = costs::costs(&graph, &options(&[], None).sizes);
    let of = |path: &str| &totals[graph.scopes.iter().position(|s| s.path == path).expect("a scope")];
    // A mix: 2 * Time * 8 * 8 for the product, Time * 8 for tanh.
    assert_eq!(of("blocks.0.first").flops.to_string(), "136*Time");
    assert_eq!(of("blocks.0.first").params.as_constant(), Some(64));
    // A block: two mixes, a scale and a sum.
    assert_eq!(of("blocks.1").flops.to_string(), "288*Time");
    assert_eq!(totals[0].params.as_constant(), Some(4 * 64));
    assert_eq!(totals[0].operations, 2 * 6 + 1);
    let reduction = totals[0].flops.bind(&options(&[("Time", 10)], None).sizes).as_constant().expect("bound") - 5760;
    assert!((1..=80).contains(&reduction), "the sum of 80 values costs {reduction}");
    let text = print(&graph, Format::Text, &options(&[("Time", 10)], Some(1)));
    assert!(text.contains("blocks.1") && !text.contains("  blocks.1.first  "), "{text}");
    assert!(text.contains("2880"), "{text}");
}

#[test]
fn mermaid_folds_below_the_depth() {
    let graph = graph();
    let open = print(&graph, Format::Mermaid, &options(&[], Some(3)));
    assert_eq!(open.matches("subgraph").count(), 6, "{open}");
    assert_eq!(open.lines().filter(|l| l.trim() == "end").count(), 6, "{open}");
    assert!(open.contains("-->|\"[Time, 8]\"|"), "{open}");
    let folded = print(&graph, Format::Mermaid, &options(&[], Some(1)));
    assert_eq!(folded.matches("subgraph").count(), 0, "{folded}");
    assert!(folded.contains("[[\"blocks.0: Block<br/>128 params\"]]:::module"), "{folded}");
    // argument to block, block to block, block to sum, sum to result
    assert_eq!(folded.matches("-->").count(), 4, "{folded}");
    let whole = print(&graph, Format::Mermaid, &options(&[], Some(0)));
    assert_eq!(whole.matches("-->").count(), 2, "{whole}");
}

/// Every tag that opens is closed in order, attributes are quoted, and nothing is loaded.
fn check_page(page: &str) {
    let mut stack: Vec<String> = vec![];
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = rest.find('>').expect("every tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || "/!".contains(*c)).collect();
        assert_eq!(tag.matches('"').count() % 2, 0, "odd quotes in <{tag}>");
        match name.as_str() {
            "!doctype" | "meta" | "input" => {}
            // HTML closes these by itself.
            "td" | "th" => {}
            "script" | "style" => {
                let close = format!("</{name}>");
                rest = &rest[rest.find(&close).expect("scripts and styles end") + close.len()..];
            }
            name if name.starts_with('/') => {
                assert_eq!(stack.pop().as_deref(), Some(&name[1..]), "in ...{}", &rest[..rest.len().min(200)]);
            }
            name => stack.push(name.to_string()),
        }
    }
    assert!(stack.is_empty(), "left open: {stack:?}");
    for outside in ["http://", "https://", "src=", "@import", "url(//"] {
        // The SVG namespace is a name, not an address that is fetched.
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "the page mentions {outside}");
    }
}

#[test]
fn html_is_whole_and_self_contained() {
    let graph = graph();
    let page = print(&graph, Format::Html, &options(&[("Time", 100)], None));
    check_page(&page);
    assert_eq!(page.matches("<details class=\"module\"").count(), 7);
    assert_eq!(page.matches(" open>").count(), 3, "the root and two blocks are open at first");
    let operations = graph.nodes.iter().filter(|n| !n.inputs.is_empty()).count();
    assert_eq!(page.matches("<div class=\"op ").count(), operations + 2, "operations, one argument, one result");
    assert!(page.contains("at Time=100"));
    assert!(page.contains("<em>hidden</em>"));
    let start = page.find("id=\"data\">").expect("the data") + 10;
    let json = &page[start..start + page[start..].find("</script>").expect("its end")];
    let data: serde_json::Value = serde_json::from_str(json).expect("the data is JSON");
    for edge in data["edges"].as_array().expect("edges") {
        for end in [&edge[0], &edge[1]] {
            let id = format!(" id=\"{}\"", end.as_str().expect("an id"));
            assert_eq!(page.matches(&id).count(), 1, "{id}");
        }
        assert!(data["labels"][edge[2].as_u64().expect("a number") as usize].is_string());
    }
}

#[test]
fn names_cannot_break_a_page() {
    let evil = "</script><img src=x onerror=alert(1)>\"'&";
    let graph = graph_of(&net(), Mode::Eval, evil);
    let page = print(&graph, Format::Html, &Options { title: evil.into(), ..Options::default() });
    assert!(!page.contains("<img") && !page.contains("</script><"), "the name got out");
    let chart = print(&graph, Format::Mermaid, &Options { title: evil.into(), ..Options::default() });
    assert!(chart.lines().skip(3).all(|l| !l.contains("<img")), "{chart}");
}

#[test]
fn gradients_are_drawn_in_the_modules_they_belong_to() {
    let mut graph = graph();
    let loss = graph.outputs[0];
    let weights: Vec<_> = (0..graph.nodes.len() as u32)
        .filter(|n| matches!(graph.nodes[*n as usize].op, mobilis::ops::Op::Var(_)))
        .map(|node| mobilis::graph::Value { node, port: 0 })
        .collect();
    let grads = mobilis::transforms::grad::grad(&mut graph, loss, &weights).expect("everything is differentiable");
    graph.updates.extend(grads.iter().enumerate().map(|(i, g)| (i as u32, *g)));
    let page = print(&graph, Format::Html, &Options::default());
    check_page(&page);
    assert!(page.contains("updates blocks.0.first.weight"));
    let text = graph.to_string();
    assert!(text.contains("\nupdates:\n  blocks.0.first.weight <- %"), "{text}");
    let chart = print(&graph, Format::Mermaid, &Options { depth: Some(1), ..Options::default() });
    assert!(chart.contains("m1 -->|\"[Time, 8]\"| m"), "{chart}");
}

#[test]
fn graphs_without_modules_axes_or_nodes() {
    let empty = Graph::default();
    for format in [Format::Text, Format::Mermaid, Format::Html] {
        assert!(!print(&empty, format, &Options::default()).is_empty());
    }
    let (constant, ()) = trace::trace(None, Mode::Eval, &|_| false, || {
        trace::output(leaf::scalar(2.0));
        let x = leaf::fill(1.0, TensorType::new(vec![Dim::fixed(2), Dim::fixed(3)], DType::F32));
        trace::output(movement::permute(x, &[1, 0]));
    })
    .expect("well-shaped");
    check_page(&print(&constant, Format::Html, &Options::default()));
    assert!(print(&constant, Format::Mermaid, &Options::default()).contains("-->|\"[]\"| o0"));
}

#[test]
fn sizes_are_given_by_name() {
    assert_eq!(run_time_axes(&graph()), [TIME]);
    assert_eq!(
        sizes_by_name(&graph(), &[("Tiem".into(), 3)]).expect_err("no such axis"),
        "`Tiem` is no run-time axis of this graph: they are Time"
    );
}
