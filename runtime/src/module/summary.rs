//! Summaries: a model's modules and parameters as a table.
//!
//! [`Model::summary`] gives a tree that prints as text and converts to JSON. In text, equal
//! neighbours (the blocks of a transformer) are folded into one entry; `{:#}` shows each.

mod table;

use super::model::Model;
use super::{AnyVar, Module, Visitor};
use crate::graph::{DType, Sizes, TensorType, VarId, VarKind};
use crate::json::Json;
use std::collections::HashMap;

/// A model's modules, parameters and totals.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The root module.
    pub root: Node,
    /// The sizes of run-time axes.
    pub axes: Vec<(String, usize)>,
    /// Values in parameters that training changes.
    pub trainable: usize,
    /// Values in parameters that training leaves alone.
    pub frozen: usize,
    /// Values in buffers.
    pub buffers: usize,
}

/// A module of a summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name in its parent; empty for the root.
    pub name: String,
    /// Its path from the root.
    pub path: String,
    /// Its type.
    pub kind: String,
    /// Its hyper-parameters, in order.
    pub hyper: Vec<(String, String)>,
    /// Its parameters and modules, in order.
    pub children: Vec<Child>,
    /// Values in all its parameters, each counted at its first place in the model.
    pub count: usize,
}

/// What a module of a summary holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// A module.
    Module(Node),
    /// A parameter or buffer.
    Var(Leaf),
}

/// A parameter or buffer of a summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Its name in its module.
    pub name: String,
    /// Its path from the root.
    pub path: String,
    /// Its shape in axis names, with sizes: `[Vocab=256, Hidden=64]`.
    pub shape: String,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// How its values are stored.
    pub dtype: DType,
    /// How many values it holds.
    pub count: usize,
    /// What becomes of it in training.
    pub state: State,
}

/// What becomes of a parameter or buffer in training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Training steps change it.
    Trained,
    /// Training leaves it alone.
    Frozen,
    /// The forward pass changes it.
    Buffer,
    /// It is the parameter of this name, met a second time.
    Tied(String),
}

impl<M: Module> Model<M> {
    /// The model's modules and parameters, with shapes in axis names, counts and totals.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::prelude::*;
    /// axes! { pub Vocab = 256; pub Hidden = 64; }
    /// #[neural_module]
    /// struct Embed { weight: Param![Vocab, Hidden] }
    /// let model = Model::init(Embed::default(), 0)?;
    /// assert!(model.summary().to_string().contains("[Vocab=256, Hidden=64]"));
    /// # Ok::<(), ModelError>(())
    /// ```
    pub fn summary(&self) -> Summary {
        let root = Node {
            name: String::new(),
            path: String::new(),
            kind: self.module().kind().into(),
            hyper: Vec::new(),
            children: Vec::new(),
            count: 0,
        };
        let mut collector = Collector {
            sizes: self.sizes(),
            frozen: &|path| self.is_frozen(path),
            first: HashMap::new(),
            node: root,
            totals: [0; 3],
        };
        self.module().visit(&mut collector);
        let [trainable, frozen, buffers] = collector.totals;
        let axes = self.sizes().iter().map(|(tag, n)| (tag.name.to_string(), n)).collect();
        Summary { root: collector.node, axes, trainable, frozen, buffers }
    }
}

/// Builds one node; modules inside are built by turns.
struct Collector<'m> {
    sizes: &'m Sizes,
    frozen: &'m dyn Fn(&str) -> bool,
    first: HashMap<VarId, String>,
    node: Node,
    /// Trained, frozen, buffers.
    totals: [usize; 3],
}

impl Collector<'_> {
    fn path(&self, name: &str) -> String {
        match (self.node.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (_, true) => self.node.path.clone(),
            _ => format!("{}.{name}", self.node.path),
        }
    }

    fn shape(&self, ty: &TensorType) -> String {
        let dims = ty.dims.iter().map(|d| match (d.extent.as_constant(), d.extent.eval(self.sizes)) {
            (None, Ok(n)) => format!("{d}={n}"),
            _ => d.to_string(),
        });
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

impl<'a> Visitor<'a> for Collector<'_> {
    fn module(&mut self, name: &str, module: &'a dyn Module) {
        let node = Node {
            name: name.into(),
            path: self.path(name),
            kind: module.kind().into(),
            hyper: Vec::new(),
            children: Vec::new(),
            count: 0,
        };
        let parent = std::mem::replace(&mut self.node, node);
        module.visit(self);
        let node = std::mem::replace(&mut self.node, parent);
        self.node.count += node.count;
        self.node.children.push(Child::Module(node));
    }

    fn var(&mut self, name: &str, var: &'a dyn AnyVar) {
        let (path, ty) = (self.path(name), var.ty());
        let sizes = ty.sizes(self.sizes).expect("a model's sizes were evaluated when it was made");
        let count: usize = sizes.iter().product();
        let state = match (self.first.get(&var.id()), var.var_kind()) {
            (Some(first), _) => State::Tied(first.clone()),
            (None, VarKind::Param) if (self.frozen)(&path) => State::Frozen,
            (None, VarKind::Param) => State::Trained,
            (None, _) => State::Buffer,
        };
        let total = match state {
            State::Trained => Some(0),
            State::Frozen => Some(1),
            State::Buffer => Some(2),
            State::Tied(_) => None,
        };
        if let Some(i) = total {
            self.totals[i] += count;
        }
        if matches!(state, State::Trained | State::Frozen) {
            self.node.count += count;
        }
        self.first.entry(var.id()).or_insert_with(|| path.clone());
        let shape = self.shape(&ty);
        let leaf = Leaf { name: name.into(), path, shape, sizes, dtype: ty.dtype, count, state };
        self.node.children.push(Child::Var(leaf));
    }

    fn hyper(&mut self, name: &str, value: String) {
        self.node.hyper.push((name.into(), value));
    }
}

impl Summary {
    /// Values in all parameters, trained and frozen.
    pub fn parameters(&self) -> usize {
        self.trainable + self.frozen
    }

    /// The same as JSON: `{"module", "axes", "parameters", "trainable", "frozen", "buffers"}`.
    pub fn to_json(&self) -> Json {
        Json::map([
            ("module", self.root.to_json()),
            ("axes", Json::map(self.axes.iter().map(|(k, n)| (k.as_str(), *n)))),
            ("parameters", self.parameters().into()),
            ("trainable", self.trainable.into()),
            ("frozen", self.frozen.into()),
            ("buffers", self.buffers.into()),
        ])
    }
}

impl Node {
    fn to_json(&self) -> Json {
        let children: Vec<Json> = self
            .children
            .iter()
            .map(|child| match child {
                Child::Module(node) => node.to_json(),
                Child::Var(leaf) => leaf.to_json(),
            })
            .collect();
        Json::map([
            ("name", Json::from(&self.name)),
            ("path", (&self.path).into()),
            ("type", (&self.kind).into()),
            ("hyper", Json::map(self.hyper.iter().map(|(k, v)| (k.as_str(), v)))),
            ("count", self.count.into()),
            ("children", Json::List(children)),
        ])
    }
}

impl Leaf {
    fn to_json(&self) -> Json {
        let (state, tied) = match &self.state {
            State::Trained => ("trained", Json::Null),
            State::Frozen => ("frozen", Json::Null),
            State::Buffer => ("buffer", Json::Null),
            State::Tied(first) => ("tied", first.into()),
        };
        Json::map([
            ("name", Json::from(&self.name)),
            ("path", (&self.path).into()),
            ("shape", (&self.shape).into()),
            ("sizes", Json::list(self.sizes.iter().copied())),
            ("dtype", self.dtype.to_string().into()),
            ("count", self.count.into()),
            ("state", state.into()),
            ("tied_to", tied),
        ])
    }
}
