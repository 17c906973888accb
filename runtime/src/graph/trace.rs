//! Tracing: running a function on symbolic handles to build its graph.
//!
//! One trace is active per thread at most. Typed tensors are indices into it. Operations cannot
//! return errors (`x + f(x)` must read well), so the first mistake is kept and reported by
//! [`trace`] with the module it happened in.

use super::{Graph, InputDecl, NodeId, Scope, TensorType, Value, VarDecl, VarId};
use crate::module::Module;
use crate::ops::Op;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// A handle's untyped part: which trace, which value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    trace: u32,
    value: Value,
}

/// Whether layers that behave differently in training (dropout, batch norm) do so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Inference: dropout passes values through, batch norm uses running statistics.
    #[default]
    Eval,
    /// Training.
    Train,
}

/// Why a function could not be traced.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message} (in {location})")]
pub struct TraceError {
    /// What is wrong.
    pub message: String,
    /// The module.
    pub location: String,
}

pub(crate) struct Builder {
    id: u32,
    pub(crate) graph: Graph,
    stack: Vec<u32>,
    /// Where modules are. Modules without fields may share one address: their paths are in order.
    paths: HashMap<(usize, &'static str), Vec<String>>,
    names: HashMap<VarId, (String, bool)>,
    vars: HashMap<VarId, (u32, Value)>,
    scope_of: HashMap<(u32, String), u32>,
    mode: Mode,
    streams: u32,
    rng: Option<Value>,
    error: Option<TraceError>,
}

/// The identity of the random counter (see [`rng`]): no parameter has it.
pub const RNG: VarId = VarId(0);

thread_local! {
    static ACTIVE: RefCell<Option<Builder>> = const { RefCell::new(None) };
}
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Runs `f` on the active builder.
///
/// # Panics
/// When no trace is active: tensors exist only inside the function given to `compile`.
pub(crate) fn with<R>(f: impl FnOnce(&mut Builder) -> R) -> R {
    ACTIVE.with(|cell| {
        let mut slot = cell.borrow_mut();
        let Some(builder) = slot.as_mut() else {
            panic!("a `Tensor` is used outside a trace: tensors are symbolic and live only inside the function given to `compile`; values live in `Array`s")
        };
        f(builder)
    })
}

/// Traces `f` into a graph. `root` names the module scopes and parameters; `frozen` tells which
/// parameters training leaves alone.
///
/// # Errors
/// The first mistake made while tracing.
pub fn trace<R>(
    root: Option<&dyn Module>,
    mode: Mode,
    frozen: &dyn Fn(&str) -> bool,
    f: impl FnOnce() -> R,
) -> Result<(Graph, R), TraceError> {
    let mut builder = Builder::new(Graph::default(), mode);
    let mut kind = "trace";
    if let Some(root) = root {
        kind = root.kind();
        crate::module::walk(root, &mut |path, item| match item {
            crate::module::Item::Module(m) => {
                builder.paths.entry(key(m)).or_default().push(path.to_string());
            }
            crate::module::Item::Var(v) => {
                builder.names.entry(v.id()).or_insert_with(|| (path.to_string(), frozen(path)));
            }
            crate::module::Item::Hyper(_) => {}
        });
    }
    builder.graph.scopes.push(Scope { path: String::new(), kind, parent: 0 });
    run(builder, f)
}

/// Extends a graph by what `f` builds on it. `f` sees the graph as it was.
///
/// # Errors
/// The first mistake made while building.
pub fn extend<R>(graph: &mut Graph, f: impl FnOnce(&Graph) -> R) -> Result<R, TraceError> {
    let mut builder = Builder::new(graph.clone(), Mode::Train);
    for (i, node) in graph.nodes.iter().enumerate() {
        if let Op::Var(v) = &node.op {
            if graph.vars[v.index as usize].id == RNG {
                builder.rng = Some(Value { node: i as u32, port: 0 });
            }
            builder.vars.insert(graph.vars[v.index as usize].id, (v.index, Value { node: i as u32, port: 0 }));
        }
    }
    for (index, value) in &graph.updates {
        builder.vars.insert(graph.vars[*index as usize].id, (*index, *value));
    }
    let (extended, result) = run(builder, || f(graph))?;
    *graph = extended;
    Ok(result)
}

/// Gives the active trace's graph to a transform that appends to it.
pub(crate) fn append<R>(f: impl FnOnce(&mut Graph) -> R) -> R {
    // The transform builds in a trace of its own, so the graph is taken out of this one.
    let mut graph = with(|b| std::mem::take(&mut b.graph));
    let result = f(&mut graph);
    with(|b| {
        b.streams = graph.streams;
        b.graph = graph;
    });
    result
}

/// Whether a mistake was made in the active trace; nothing is built any more then.
pub(crate) fn failed() -> bool {
    with(|b| b.error.is_some())
}

fn key(module: &dyn Module) -> (usize, &'static str) {
    (module as *const dyn Module as *const () as usize, module.type_name())
}

/// Runs `f` with `builder` active and gives back its graph.
fn run<R>(builder: Builder, f: impl FnOnce() -> R) -> Result<(Graph, R), TraceError> {
    // The previous builder returns when this guard drops, also on a panic in `f`.
    struct Restore(Option<Builder>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let previous = self.0.take();
            ACTIVE.with(|cell| *cell.borrow_mut() = previous);
        }
    }
    let restore = Restore(ACTIVE.with(|cell| cell.borrow_mut().replace(builder)));
    let result = f();
    let builder = ACTIVE.with(|cell| cell.borrow_mut().take()).expect("the trace that was started is active");
    drop(restore);
    match builder.error {
        Some(e) => Err(e),
        None => Ok((builder.graph, result)),
    }
}

impl Builder {
    fn new(graph: Graph, mode: Mode) -> Builder {
        Builder {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            streams: graph.streams,
            graph,
            stack: vec![0],
            paths: HashMap::new(),
            names: HashMap::new(),
            vars: HashMap::new(),
            scope_of: HashMap::new(),
            mode,
            rng: None,
            error: None,
        }
    }

    fn scope(&self) -> u32 {
        *self.stack.last().expect("the root scope is never left")
    }

    fn fail(&mut self, message: String) {
        let location = self.graph.location(self.scope());
        self.error.get_or_insert(TraceError { message, location });
    }

    fn handle(&self, value: Value) -> Handle {
        Handle { trace: self.id, value }
    }

    fn value(&mut self, h: Handle) -> Value {
        if h.trace != self.id {
            self.fail("a tensor of another trace is used: handles are valid only inside the function that they were traced in".into());
            return Value { node: 0, port: 0 };
        }
        h.value
    }

    fn push(&mut self, op: Op, inputs: &[Value]) -> Option<NodeId> {
        let name = op.rule().name();
        let scope = self.scope();
        match self.graph.push(op, inputs, scope) {
            Ok(id) => Some(id),
            Err(message) => {
                self.fail(format!("{name}: {message}"));
                None
            }
        }
    }
}

/// Appends an operation with one output.
pub fn op1(op: impl Into<Op>, inputs: &[Handle]) -> Handle {
    opn(op, inputs, 1)[0]
}

/// Appends an operation with `n` outputs.
#[inline]
pub fn opn(op: impl Into<Op>, inputs: &[Handle], n: usize) -> Vec<Handle> {
    push_op(op.into(), inputs, n)
}

/// Not generic, so that it is compiled once and not once per operation.
fn push_op(op: Op, inputs: &[Handle], n: usize) -> Vec<Handle> {
    with(|b| {
        let values: Vec<Value> = inputs.iter().map(|h| b.value(*h)).collect();
        let node = if b.error.is_some() { None } else { b.push(op, &values) };
        // After a mistake every handle stands for node 0; nothing more is built.
        let node = node.unwrap_or(0);
        (0..n).map(|p| b.handle(Value { node, port: p as u16 })).collect()
    })
}

/// The type of a handle.
pub fn type_of(h: Handle) -> TensorType {
    with(|b| {
        let v = b.value(h);
        match b.graph.nodes.get(v.node as usize).and_then(|n| n.types.get(v.port as usize)) {
            Some(ty) => ty.clone(),
            None => TensorType::new(vec![], super::DType::F32),
        }
    })
}

/// Declares an argument of the traced function.
pub fn input(name: String, ty: TensorType, element: &'static str) -> Handle {
    let index = with(|b| {
        b.graph.inputs.push(InputDecl { name, ty: ty.clone(), element });
        b.graph.inputs.len() as u32 - 1
    });
    op1(Op::Input(crate::ops::leaf::Input { index, ty }), &[])
}

/// Reads a variable, declaring it at its first use. `name` is used when the root module does
/// not hold the variable.
pub fn variable(decl: impl FnOnce() -> VarDecl, id: VarId) -> Handle {
    if let Some(h) = with(|b| b.vars.get(&id).map(|(_, v)| b.handle(*v))) {
        return h;
    }
    let mut decl = decl();
    let ty = decl.ty.clone();
    let index = with(|b| {
        if let Some((name, frozen)) = b.names.get(&id) {
            decl.name = name.clone();
            decl.frozen |= *frozen;
        }
        b.graph.vars.push(decl);
        b.graph.vars.len() as u32 - 1
    });
    let h = op1(Op::Var(crate::ops::leaf::Var { index, ty }), &[]);
    with(|b| {
        let v = b.value(h);
        b.vars.insert(id, (index, v));
    });
    h
}

/// Stores `value` in a variable when the run ends. Later reads in the same trace see it at once.
pub fn update(id: VarId, value: Handle) {
    with(|b| {
        let v = b.value(value);
        let Some((index, _)) = b.vars.get(&id).copied() else {
            b.fail("a variable is updated that was never read in this trace".into());
            return;
        };
        b.graph.updates.retain(|u| u.0 != index);
        b.graph.updates.push((index, v));
        b.vars.insert(id, (index, v));
    });
}

/// Makes a value readable by name after a run.
pub fn tap(name: &str, h: Handle) {
    with(|b| {
        let v = b.value(h);
        if b.graph.taps.iter().any(|t| t.0 == name) {
            b.fail(format!("two taps are called \"{name}\""));
        }
        b.graph.taps.push((name.to_string(), v));
    });
}

/// Makes a value readable by name after a run, and prints it to standard error in every run.
pub fn print(name: &str, h: Handle) {
    tap(name, h);
    with(|b| b.graph.printed.push(name.to_string()));
}

/// Marks results.
pub fn output(h: Handle) {
    with(|b| {
        let v = b.value(h);
        b.graph.outputs.push(v);
    });
}

/// Notes that the results that follow stand in a list of this length.
pub fn list(length: usize) {
    with(|b| b.graph.lists.push(length));
}

/// Gives an argument that has no name yet the name under which a module takes it.
pub fn name_argument(name: &'static str, h: Handle) {
    with(|b| {
        let v = b.value(h);
        if let Some(Op::Input(i)) = b.graph.nodes.get(v.node as usize).map(|n| &n.op) {
            let decl = &mut b.graph.inputs[i.index as usize];
            if decl.name.starts_with("argument ") {
                decl.name = name.to_string();
            }
        }
    });
}

/// The handle of a value of the active trace's graph.
pub fn handle(value: Value) -> Handle {
    with(|b| b.handle(value))
}

/// The value that a handle stands for.
pub fn value(h: Handle) -> Value {
    with(|b| b.value(h))
}

/// Runs `f` with new nodes belonging to an existing scope.
pub fn in_scope<R>(scope: u32, f: impl FnOnce() -> R) -> R {
    with(|b| b.stack.push(scope));
    let _guard = ScopeGuard(());
    f()
}

/// The mode of the active trace.
pub fn mode() -> Mode {
    with(|b| b.mode)
}

/// Records a mistake that the type system could not see.
pub fn fail(message: impl Into<String>) {
    with(|b| b.fail(message.into()));
}

/// A number for a random operation, different for each in a trace.
pub fn random_stream() -> u32 {
    with(|b| {
        b.streams += 1;
        b.graph.streams = b.streams;
        b.streams
    })
}

/// The key of random operations in this trace: the state variable `rng`, whole numbers `[seed,
/// step]` that start at 0. The first use declares it and has every run of the program add 1 to
/// the step, so that each run draws new numbers and a run can be repeated by setting the state.
pub fn rng() -> Handle {
    use super::{DType, Dim, VarKind};
    use crate::ops::{elementwise, leaf};
    if let Some(key) = with(|b| b.rng.map(|v| b.handle(v))) {
        return key;
    }
    let ty = TensorType::new(vec![Dim::fixed(2)], DType::I32);
    let decl = || VarDecl {
        id: RNG,
        name: "rng".into(),
        ty: ty.clone(),
        kind: VarKind::State,
        init: crate::module::init::Init::Zeros,
        frozen: true,
    };
    // The counter belongs to the whole program, not to the module that draws first.
    in_scope(0, || {
        let key = variable(decl, RNG);
        with(|b| b.rng = Some(b.value(key)));
        // Positions 0 and 1 are what seed and step grow by.
        update(RNG, elementwise::add(key, leaf::iota(0, &ty)));
        key
    })
}

/// Leaves the module's scope when dropped. Made by the code of `#[neural_module]`.
pub struct ScopeGuard(());

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        // A panic may have ended the trace already.
        ACTIVE.with(|cell| {
            if let Ok(mut slot) = cell.try_borrow_mut()
                && let Some(b) = slot.as_mut()
                && b.stack.len() > 1
            {
                b.stack.pop();
            }
        });
    }
}

/// Enters the scope of `module`; nodes traced until the guard drops belong to it.
pub fn scope(module: &dyn Module) -> ScopeGuard {
    with(|b| {
        let kind = module.kind();
        let parent = b.scope();
        let path = match b.paths.get(&key(module)).map(Vec::as_slice) {
            Some([path]) => path.clone(),
            // Several modules without fields at one address: the next one that was not entered.
            Some(paths) => {
                let base = &b.graph.scopes[parent as usize].path;
                let fresh = |p: &&String| b.graph.scopes.iter().all(|s| s.path != **p);
                let inside = |p: &&String| p.starts_with(base.as_str());
                let next = paths.iter().find(|p| inside(p) && fresh(p)).or_else(|| paths.iter().find(inside));
                next.unwrap_or(&paths[0]).clone()
            }
            // Not reachable from the root: named after its type under the caller.
            None => {
                let base = &b.graph.scopes[parent as usize].path;
                if base.is_empty() { kind.to_string() } else { format!("{base}.{kind}") }
            }
        };
        let index = *b.scope_of.entry((parent, path.clone())).or_insert_with(|| {
            // A module that calls another of its own methods is entered once.
            let around = &b.graph.scopes[parent as usize];
            if around.path == path && around.kind == kind {
                return parent;
            }
            if path.is_empty() {
                return 0;
            }
            b.graph.scopes.push(Scope { path, kind, parent });
            b.graph.scopes.len() as u32 - 1
        });
        b.stack.push(index);
    });
    ScopeGuard(())
}
