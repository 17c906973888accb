//! Which value feeds which port.
//!
//! Values are numbered: the pipeline's inputs first, then what each call gives, in the order in which
//! calls run (arguments before the call). The last use of a value moves it, all others copy.

use super::ast::{Argument, Node, Pipeline, Port};
use crate::errors::{Errors, hint};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

/// A resolved pipeline.
#[derive(Default)]
pub struct Wiring<'a> {
    pub values: Vec<Value<'a>>,
    pub calls: Vec<Call<'a>>,
    pub outputs: Vec<Link<'a>>,
    /// The names of `let`s and their values, for traces.
    pub kept: Vec<Kept>,
}

/// A value that flows.
pub struct Value<'a> {
    pub port: &'a Port,
    /// What drawings call it.
    pub label: String,
    /// Who made it, in words: "`encoder`", "`states` of `encoder`".
    pub producer: String,
    /// The same without words: `encoder`.
    pub maker: String,
}

/// A call of a stage.
pub struct Call<'a> {
    pub stage: usize,
    pub links: Vec<Link<'a>>,
    pub first: usize,
    pub count: usize,
}

/// A port and what feeds it.
pub struct Link<'a> {
    pub source: Source,
    pub port: &'a Port,
    /// Who takes it: a stage's name, or nothing for a result of the pipeline.
    pub consumer: Option<&'a Ident>,
    /// The argument.
    pub place: TokenStream,
}

/// Where a port's value comes from.
#[derive(Clone, Copy)]
pub enum Source {
    Value { id: usize, last: bool },
    Open,
}

/// A named intermediate result.
pub struct Kept {
    pub name: Ident,
    pub first: usize,
    pub count: usize,
}

#[derive(Clone, Copy)]
struct Bound {
    first: usize,
    count: usize,
}

struct Resolver<'a, 'e> {
    pipeline: &'a Pipeline,
    errors: &'e mut Errors,
    wiring: Wiring<'a>,
    names: Vec<(Ident, Bound)>,
}

/// Resolves every name. What is wrong is noted, and left out.
pub fn resolve<'a>(pipeline: &'a Pipeline, errors: &mut Errors) -> Wiring<'a> {
    let mut r = Resolver { pipeline, errors, wiring: Wiring::default(), names: vec![] };
    for port in &pipeline.inputs {
        let label = port.name();
        let value = Value { port, producer: format!("the input `{label}`"), maker: label.clone(), label };
        let bound = r.push(vec![value]);
        if let Some(name) = &port.name {
            r.names.push((name.clone(), bound));
        }
    }
    for binding in &pipeline.body.lets {
        let Some(bound) = r.node(&binding.node) else {
            // Its users are not reported too.
            binding.names.iter().for_each(|n| r.names.push((n.clone(), Bound { first: usize::MAX, count: 0 })));
            continue;
        };
        r.bind(&binding.names, binding.parenthesized, bound);
    }
    r.results();
    r.last_uses();
    r.unused();
    r.wiring
}

impl<'a> Resolver<'a, '_> {
    fn push(&mut self, values: Vec<Value<'a>>) -> Bound {
        let bound = Bound { first: self.wiring.values.len(), count: values.len() };
        self.wiring.values.extend(values);
        bound
    }

    fn bind(&mut self, names: &[Ident], parenthesized: bool, bound: Bound) {
        if parenthesized && names.len() != bound.count {
            let words = format!("{} names for {}", names.len(), plural(bound.count, "value"));
            self.errors.at(quote!(#(#names),*), words);
        }
        for (i, name) in names.iter().enumerate() {
            let again = self.names.iter().any(|(n, _)| n == name) && name != "_";
            if again {
                self.errors.at(name, format!("`{name}` is named twice: give this value another name"));
            }
            let own = if parenthesized { Bound { first: bound.first + i, count: 1 } } else { bound };
            for id in own.first..own.first + own.count {
                let Some(value) = self.wiring.values.get_mut(id) else { continue };
                value.label = match (own.count, value.port.name.as_ref()) {
                    (1, _) | (_, None) => name.to_string(),
                    (_, Some(port)) => format!("{name}.{port}"),
                };
            }
            if own.first + own.count <= self.wiring.values.len() && name != "_" && !again {
                self.wiring.kept.push(Kept { name: name.clone(), first: own.first, count: own.count });
            }
            self.names.push((name.clone(), own));
        }
    }

    fn node(&mut self, node: &'a Node) -> Option<Bound> {
        let (bound, field) = match node {
            Node::Value { name, field } => (self.value(name)?, field),
            Node::Call { stage, arguments, field } => (self.call(stage, arguments)?, field),
        };
        let Some(field) = field else { return Some(bound) };
        let ports = &self.wiring.values[bound.first..bound.first + bound.count];
        let names: Vec<String> = ports.iter().map(|v| v.port.name()).filter(|n| !n.is_empty()).collect();
        if let Some(i) = ports.iter().position(|v| v.port.name.as_ref() == Some(field)) {
            return Some(Bound { first: bound.first + i, count: 1 });
        }
        let maker = ports.first().map(|v| v.producer.clone())?;
        let words = if names.is_empty() {
            format!("{maker} gives one value, without names: leave out `.{field}`")
        } else {
            let names_text = names.join("`, `");
            format!(
                "`{}` gives `{names_text}`, not `{field}`{}",
                ports[0].maker,
                hint(&field.to_string(), names.iter().map(String::as_str))
            )
        };
        self.errors.at(field, words);
        None
    }

    fn value(&mut self, name: &Ident) -> Option<Bound> {
        if let Some((_, bound)) = self.names.iter().rev().find(|(n, _)| n == name) {
            return (bound.count > 0).then_some(*bound);
        }
        let words = if let Some(stage) = self.pipeline.stages.iter().find(|s| s.name == *name) {
            format!("`{name}` is a stage and not yet a value: call it, `{name}({})`", arguments_of(&stage.inputs))
        } else if self.pipeline.body.lets.iter().any(|l| l.names.contains(name)) {
            format!("`{name}` is not there yet: values flow downwards, so a pipeline has no circles")
        } else {
            let known: Vec<String> = self.names.iter().map(|(n, _)| n.to_string()).collect();
            format!("there is no value `{name}`{}", hint(&name.to_string(), known.iter().map(String::as_str)))
        };
        self.errors.at(name, words);
        None
    }

    /// One value for a port.
    fn single(&mut self, node: &'a Node) -> Option<usize> {
        let bound = self.node(node)?;
        if bound.count == 1 {
            return Some(bound.first);
        }
        let ports = &self.wiring.values[bound.first..bound.first + bound.count];
        let written = super::text::text(node.place());
        let choices: Vec<String> = ports.iter().map(|v| format!("`{written}.{}`", v.port.name())).collect();
        let words = match choices.len() {
            0 => format!("`{written}` gives nothing"),
            n => format!("`{written}` is {n} values: name one, {}", choices.join(" or ")),
        };
        self.errors.at(node.place(), words);
        None
    }

    fn call(&mut self, name: &'a Ident, arguments: &'a [Argument]) -> Option<Bound> {
        let pipeline = self.pipeline;
        let Some(number) = pipeline.stages.iter().position(|s| s.name == *name) else {
            let words = if self.names.iter().any(|(n, _)| n == name) {
                format!("`{name}` is a value, not a stage")
            } else {
                let known: Vec<String> = pipeline.stages.iter().map(|s| s.name.to_string()).collect();
                format!("there is no stage `{name}`{}", hint(&name.to_string(), known.iter().map(String::as_str)))
            };
            self.errors.at(name, words);
            return None;
        };
        let stage = &pipeline.stages[number];
        let mut fed: Vec<Option<(Option<usize>, TokenStream)>> = stage.inputs.iter().map(|_| None).collect();
        let takes = || format!("`{name}` takes {}", plural_list(&stage.inputs));
        let (mut position, mut extra) = (0, 0);
        for argument in arguments {
            let id = self.single(&argument.node);
            let place = argument.node.place();
            let index = match &argument.port {
                None => {
                    position += 1;
                    position - 1
                }
                Some(port) => match stage.inputs.iter().position(|p| p.name.as_ref() == Some(port)) {
                    Some(index) => index,
                    None => {
                        let known: Vec<String> = stage.inputs.iter().map(Port::name).collect();
                        let hint = hint(&port.to_string(), known.iter().map(String::as_str));
                        self.errors.at(port, format!("`{name}` has no port `{port}`{hint}"));
                        continue;
                    }
                },
            };
            match fed.get_mut(index) {
                Some(slot @ None) => *slot = Some((id, place)),
                Some(Some(_)) => self
                    .errors
                    .at(&place, format!("the port `{}` of `{name}` is fed twice", stage.inputs[index].name())),
                None => extra += 1,
            }
        }
        if extra > 0 {
            let given = arguments.len();
            self.errors.at(name, format!("{}, and is given {given}", takes()));
        }
        let mut links = vec![];
        for (port, fed) in stage.inputs.iter().zip(fed) {
            let (source, place) = match fed {
                Some((Some(id), place)) => (Source::Value { id, last: false }, place),
                Some((None, _)) => continue,
                None if port.is_optional() => (Source::Open, quote!(#name)),
                None => {
                    let missing = match port.name.as_ref() {
                        Some(n) => format!("`{n}: {}` is missing", port.text()),
                        None => format!("`{}` is missing", port.text()),
                    };
                    self.errors.at(name, format!("{}; {missing}", takes()));
                    continue;
                }
            };
            links.push(Link { source, port, consumer: Some(&stage.name), place });
        }
        let maker = stage.name.to_string();
        let values = stage.results.iter().map(|port| {
            let producer = match &port.name {
                Some(port) => format!("`{port}` of `{maker}`"),
                None => format!("`{maker}`"),
            };
            let label = port.name.as_ref().map_or_else(|| maker.clone(), |p| format!("{maker}.{p}"));
            Value { port, label, producer, maker: maker.clone() }
        });
        let bound = self.push(values.collect());
        self.wiring.calls.push(Call { stage: number, links, first: bound.first, count: bound.count });
        Some(bound)
    }

    fn results(&mut self) {
        let pipeline = self.pipeline;
        let (nodes, results) = (&pipeline.body.results, &pipeline.results);
        let mut ids: Vec<(Option<usize>, TokenStream)> = vec![];
        if let ([node], true) = (&nodes[..], results.len() > 1) {
            // All that one call gives.
            match self.node(node) {
                Some(bound) => ids.extend((bound.first..bound.first + bound.count).map(|id| (Some(id), node.place()))),
                None => return,
            }
        } else {
            for node in nodes {
                ids.push((self.single(node), node.place()));
            }
        }
        if ids.len() != results.len() {
            let words = format!("`run` gives {}, and here is {}", plural_list(results), plural(ids.len(), "value"));
            self.errors.on(pipeline.body.end, words);
            return;
        }
        for (port, (id, place)) in results.iter().zip(ids) {
            let Some(id) = id else { continue };
            let source = Source::Value { id, last: false };
            self.wiring.outputs.push(Link { source, port, consumer: None, place });
        }
    }

    fn last_uses(&mut self) {
        let mut seen = vec![false; self.wiring.values.len()];
        let calls = self.wiring.calls.iter_mut().flat_map(|c| &mut c.links);
        let all: Vec<&mut Link> = calls.chain(&mut self.wiring.outputs).collect();
        for link in all.into_iter().rev() {
            if let Source::Value { id, last } = &mut link.source {
                *last = !std::mem::replace(&mut seen[*id], true);
            }
        }
    }

    fn unused(&mut self) {
        // After another mistake the use may be what is missing.
        if !self.errors.is_empty() {
            return;
        }
        let mut used = vec![false; self.wiring.values.len()];
        for link in self.wiring.calls.iter().flat_map(|c| &c.links).chain(&self.wiring.outputs) {
            if let Source::Value { id, .. } = link.source {
                used[id] = true;
            }
        }
        for (name, bound) in &self.names {
            let range = bound.first..bound.first + bound.count;
            if !used[range].contains(&true) && !name.to_string().starts_with('_') {
                self.errors.at(
                    name,
                    format!(
                        "nothing uses `{name}`: give it to a stage or make it a result; `_{name}` only shows in traces"
                    ),
                );
            }
        }
        for (i, stage) in self.pipeline.stages.iter().enumerate() {
            if !self.wiring.calls.iter().any(|c| c.stage == i) {
                let name = &stage.name;
                self.errors.at(name, format!("the stage `{name}` is never called"));
            }
        }
    }
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `2 values (left: Mel, right: Mel)`
fn plural_list(ports: &[Port]) -> String {
    let list: Vec<String> =
        ports.iter().map(|p| p.name.as_ref().map_or_else(|| p.text(), |n| format!("{n}: {}", p.text()))).collect();
    format!("{} (`{}`)", plural(ports.len(), "value"), list.join("`, `"))
}

fn arguments_of(ports: &[Port]) -> String {
    let names: Vec<String> = ports.iter().map(|p| if p.name.is_some() { p.name() } else { "..".into() }).collect();
    names.join(", ")
}
