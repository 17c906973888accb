//! What lowering a node sees and makes.
//!
//! A family's `lower` asks for its inputs (as contiguous pieces, or as views with strides), its
//! outputs and scratch memory, and leaves tasks. Lifetimes are noted on the way, by node.

use super::plan::{Life, Plan, plan};
use super::view::View;
use super::weights::{Prepared, Table, Weight};
use crate::graph::{DType, Extent, Graph, Sizes, TensorType, Value};
use crate::ops::Op;
use mobilis_kernels::cpu::copy::{collapse, gather_view};
use mobilis_kernels::cpu::gemm::Matrix;
use mobilis_kernels::memory::{Memory, Piece};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Run = Box<dyn Fn(&Memory) -> Result<(), String> + Send + Sync>;

/// A prepared kernel.
pub struct Task {
    /// The node that it computes (a part of).
    pub node: u32,
    /// Where it was made, for profiles: `softmax::lower`.
    pub kernel: &'static str,
    /// The kernel with its sizes and places.
    pub run: Run,
}

/// What lowering a graph gives.
pub(super) struct Lowered {
    pub tasks: Vec<Task>,
    pub results: Vec<(Value, Piece)>,
    pub plan: Plan,
    pub copied: usize,
}

/// The state of lowering a graph.
pub struct Lower<'g> {
    graph: &'g Graph,
    sizes: &'g Sizes,
    node: u32,
    /// The sizes of every value.
    shapes: Vec<Vec<Vec<usize>>>,
    views: Vec<Vec<Option<View>>>,
    /// Contiguous copies that were made of views.
    copies: HashMap<Value, Piece>,
    /// Arena buffers; their slots follow the external ones.
    lives: Vec<Life>,
    externals: u32,
    tasks: Vec<Task>,
    /// Copies of views that no kernel reads as they lie.
    pub(super) copied: usize,
    /// Values that are written straight into a variable: the variable's slot.
    homes: HashMap<Value, u32>,
    /// Variables whose new value is copied to them at the end.
    replaced: HashSet<u32>,
    /// Weights that are prepared once, where the caller keeps them.
    pub(super) weights: Option<&'g Prepared>,
}

impl<'g> Lower<'g> {
    pub(super) fn new(graph: &'g Graph, sizes: &'g Sizes) -> Result<Self, String> {
        let mut shapes = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let types: Result<Vec<_>, _> = node.types.iter().map(|t| t.sizes(sizes)).collect();
            shapes.push(types.map_err(|e| e.to_string())?);
        }
        Ok(Lower {
            graph,
            sizes,
            node: 0,
            shapes,
            views: graph.nodes.iter().map(|n| vec![None; n.types.len()]).collect(),
            copies: HashMap::new(),
            lives: vec![],
            externals: (graph.vars.len() + graph.inputs.len()) as u32,
            tasks: vec![],
            copied: 0,
            homes: homes(graph),
            replaced: HashSet::new(),
            weights: None,
        })
    }

    pub(super) fn enter(&mut self, node: u32) {
        self.node = node;
    }

    pub(super) fn vars(&self) -> u32 {
        self.graph.vars.len() as u32
    }

    /// The node's only output is an external buffer.
    pub(super) fn external(&mut self, slot: u32) {
        let dtype = self.graph.nodes[self.node as usize].types[0].dtype;
        let view = View::whole(slot, self.output_sizes(0), dtype);
        self.alias(0, view);
    }

    /// The handle of a right side that is prepared once: `k` by `n` values in `piece` with strides
    /// `at`, to be multiplied by `m` rows. Nothing where a product reads the piece itself.
    pub fn weight(&self, piece: Piece, size: (usize, usize, usize), at: Matrix) -> Option<Arc<Weight>> {
        self.weights?.weight(self.graph, piece, size, at)
    }

    /// Whether products read a piece rounded, if it is their right side with `n` channels of `k`
    /// values.
    pub fn rounds(&self, piece: Piece, size: (usize, usize), at: Matrix) -> bool {
        self.weights.is_some_and(|w| w.rounds(self.graph, piece, size, at))
    }

    /// Whether a buffer is a variable that products may read rounded.
    pub fn may_round(&self, slot: u32) -> bool {
        self.weights.is_some_and(|w| w.may_round(self.graph, slot))
    }

    /// The piece of a right side for a task that reads it in `f32`, or not at all where it reads what
    /// was prepared and the variable has no `f32`.
    pub fn right(&self, piece: Piece, weight: Option<&Weight>) -> Piece {
        let Some(weights) = self.weights.filter(|w| w.is_encoded(piece.slot)) else { return piece };
        if weight.is_some_and(Weight::is_rounded) {
            return Piece { slot: piece.slot, offset: 0, len: 0 };
        }
        weights.need_plain(piece.slot);
        piece
    }

    /// Notes that a task reads a buffer in `f32`.
    pub fn reads(&self, slot: u32) {
        self.weights.iter().for_each(|w| w.need_plain(slot));
    }

    /// The first input as a table of rows that are stored in fewer bits, and the number of its first
    /// value; nothing where it is `f32`.
    pub fn table(&mut self) -> Option<(Arc<Table>, usize)> {
        let view = self.view_of(self.value(0));
        let table = if view.is_contiguous() { self.weights?.table(view.slot) } else { None };
        table.map(|table| (table, view.offset))
    }

    /// The value of an extent.
    ///
    /// # Errors
    /// A run-time axis without a size.
    pub fn extent(&self, e: &Extent) -> Result<usize, String> {
        e.eval(self.sizes).map_err(|e| e.to_string())
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.graph.nodes[self.node as usize].inputs.len()
    }

    fn value(&self, i: usize) -> Value {
        self.graph.nodes[self.node as usize].inputs[i]
    }

    /// The sizes of an input.
    pub fn input_sizes(&self, i: usize) -> &[usize] {
        let v = self.value(i);
        &self.shapes[v.node as usize][v.port as usize]
    }

    /// The sizes of an output.
    pub fn output_sizes(&self, port: usize) -> &[usize] {
        &self.shapes[self.node as usize][port]
    }

    /// The storage of an input.
    pub fn input_dtype(&self, i: usize) -> DType {
        self.graph.ty(self.value(i)).dtype
    }

    /// The storage of an output.
    pub fn output_dtype(&self, port: usize) -> DType {
        self.graph.nodes[self.node as usize].types[port].dtype
    }

    /// The type of an output.
    pub fn output_type(&self, port: usize) -> TensorType {
        self.graph.nodes[self.node as usize].types[port].clone()
    }

    fn touch(&mut self, slot: u32) {
        if let Some(life) = slot.checked_sub(self.externals).map(|s| &mut self.lives[s as usize]) {
            life.last = life.last.max(self.node as usize);
        }
    }

    /// An input with its strides.
    pub fn view(&mut self, i: usize) -> View {
        let view = self.view_of(self.value(i));
        // Views read nothing yet, and products say themselves what they read.
        let op = &self.graph.nodes[self.node as usize].op;
        if !(op.rule().is_view() || matches!(op, Op::Product(_) | Op::Einsum(_) | Op::Experts(_))) {
            self.reads(view.slot);
        }
        view
    }

    fn view_of(&mut self, v: Value) -> View {
        let view = self.views[v.node as usize][v.port as usize].clone().expect("nodes come after their inputs");
        self.touch(view.slot);
        view
    }

    /// An input as contiguous values, copied if it is a view that is not.
    pub fn input(&mut self, i: usize) -> Piece {
        self.piece_of(self.value(i))
    }

    fn piece_of(&mut self, v: Value) -> Piece {
        let view = self.view_of(v);
        self.reads(view.slot);
        if view.is_contiguous() {
            return Piece { slot: view.slot, offset: view.offset, len: view.count() };
        }
        if let Some(piece) = self.copies.get(&v).copied() {
            self.touch(piece.slot);
            return piece;
        }
        let piece = self.packed(&view);
        self.copies.insert(v, piece);
        piece
    }

    /// A contiguous copy of a view.
    pub fn packed(&mut self, view: &View) -> Piece {
        let to = self.buffer(view.count(), view.dtype);
        self.copy_view(view, to);
        to
    }

    /// A task that copies a view to contiguous values.
    pub fn copy_view(&mut self, view: &View, to: Piece) {
        let (sizes, strides) = collapse(&view.sizes, &view.strides);
        let reach = sizes.iter().zip(&strides).map(|(n, s)| n.saturating_sub(1) * s).sum::<usize>();
        let len = if to.len == 0 { 0 } else { reach + 1 };
        let from = Piece { slot: view.slot, offset: view.offset, len };
        let dtype = view.dtype;
        self.reads(view.slot);
        self.copied += 1;
        self.task(move |m| match dtype {
            DType::F32 => gather_view(m.pool(), &m.f32(from), 0, &sizes, &strides, &mut m.f32_mut(to)),
            DType::I32 => gather_view(m.pool(), &m.i32(from), 0, &sizes, &strides, &mut m.i32_mut(to)),
            DType::Bool => gather_view(m.pool(), &m.u8(from), 0, &sizes, &strides, &mut m.u8_mut(to)),
        });
    }

    /// A new arena buffer that lives for this node, and longer if it is touched again.
    pub fn buffer(&mut self, len: usize, dtype: DType) -> Piece {
        let now = self.node as usize;
        self.lives.push(Life { bytes: len * dtype.bytes(), first: now, last: now, heir_of: None });
        Piece { slot: self.externals + self.lives.len() as u32 - 1, offset: 0, len }
    }

    /// Scratch memory for `len` real numbers, gone after this node.
    pub fn scratch(&mut self, len: usize) -> Piece {
        self.buffer(len, DType::F32)
    }

    /// The place of an output, contiguous.
    pub fn output(&mut self, port: usize) -> Piece {
        self.output_in_place(port, None)
    }

    /// The place of an output, which may take over the place of input `heir_of`: the kernel must
    /// then ask [`Memory::same`].
    pub fn output_in_place(&mut self, port: usize, heir_of: Option<usize>) -> Piece {
        let v = Value { node: self.node, port: port as u16 };
        let dtype = self.output_dtype(port);
        let sizes = self.output_sizes(port).to_vec();
        let len = sizes.iter().product();
        let piece = match self.homes.get(&v) {
            Some(slot) => Piece { slot: *slot, offset: 0, len },
            None => self.buffer(len, dtype),
        };
        if let Some(i) = heir_of {
            let parent = self.view(i).slot;
            let index = piece.slot.checked_sub(self.externals);
            if let (Some(me), Some(parent)) = (index, parent.checked_sub(self.externals)) {
                self.lives[me as usize].heir_of = Some(parent as usize);
            }
        }
        self.views[self.node as usize][port] = Some(View::whole(piece.slot, &sizes, dtype));
        piece
    }

    /// The variable that an output is to be written into, unless it [moves out](Self::leave_home).
    pub fn home(&self, port: usize) -> Option<u32> {
        self.homes.get(&Value { node: self.node, port: port as u16 }).copied()
    }

    /// Gives an output a buffer of its own; its variable gets the value when all has run.
    pub fn leave_home(&mut self, port: usize) {
        self.homes.remove(&Value { node: self.node, port: port as u16 });
    }

    /// An output that is a view of the first input's buffer, of an operation whose rule says that
    /// it [is one](crate::ops::Rule::is_view).
    ///
    /// # Panics
    /// When the rule does not.
    pub fn alias(&mut self, port: usize, view: View) {
        let op = &self.graph.nodes[self.node as usize].op;
        let leaf = matches!(op, Op::Input(_) | Op::Var(_));
        assert!(leaf || op.rule().is_view(), "`{}` gives a view and its rule does not say so", op.rule().name());
        self.views[self.node as usize][port] = Some(view);
    }

    /// An output in a layout of its own: a view of a [`buffer`](Self::buffer) made for it.
    pub fn output_as(&mut self, port: usize, view: View) {
        self.views[self.node as usize][port] = Some(view);
    }

    /// Adds a kernel.
    pub fn task<F: Fn(&Memory) + Send + Sync + 'static>(&mut self, f: F) {
        self.push(std::any::type_name::<F>(), move |m| {
            f(m);
            Ok(())
        });
    }

    /// Adds a kernel that may refuse its data, in words.
    pub fn try_task<F: Fn(&Memory) -> Result<(), String> + Send + Sync + 'static>(&mut self, f: F) {
        self.push(std::any::type_name::<F>(), f);
    }

    fn push(&mut self, kernel: &'static str, f: impl Fn(&Memory) -> Result<(), String> + Send + Sync + 'static) {
        self.tasks.push(Task { node: self.node, kernel, run: Box::new(f) });
    }

    /// Copies results to where they are read from, and plans the arena.
    pub(super) fn finish(mut self) -> Lowered {
        self.node = self.graph.nodes.len() as u32;
        let homes: HashSet<u32> = self.homes.values().copied().collect();
        self.replaced = self.graph.updates.iter().map(|u| u.0).filter(|var| !homes.contains(var)).collect();
        // Everything that shows a variable's old value is taken aside before any is stored.
        let mut results: Vec<(Value, Piece)> = vec![];
        for v in self.graph.outputs.iter().chain(self.graph.taps.iter().map(|t| &t.1)) {
            let piece = self.piece_of(*v);
            results.push((*v, self.aside(piece, self.graph.ty(*v).dtype)));
        }
        let mut stores = vec![];
        for (var, value) in &self.graph.updates {
            let view = self.view_of(*value);
            if view != View::whole(*var, &view.sizes, view.dtype) {
                let piece = self.piece_of(*value);
                let from = self.aside(piece, view.dtype);
                stores.push((*var, View { offset: from.offset, ..View::whole(from.slot, &view.sizes, view.dtype) }));
            }
        }
        for (var, from) in stores {
            self.copy_view(&from, Piece { slot: var, offset: 0, len: from.count() });
        }
        Lowered { plan: plan(&self.lives), tasks: self.tasks, results, copied: self.copied }
    }
}

impl Lower<'_> {
    /// The piece, copied to the arena if it lies in a variable that this run stores to.
    fn aside(&mut self, piece: Piece, dtype: DType) -> Piece {
        // A value that is computed in its variable is the new value already.
        if !self.replaced.contains(&piece.slot) {
            return piece;
        }
        self.packed(&View { offset: piece.offset, ..View::whole(piece.slot, &[piece.len], dtype) })
    }
}

/// Values that may be computed straight into the variable that they update: those whose node
/// comes after every other reader of the variable, made by an operation that may work in place.
fn homes(graph: &Graph) -> HashMap<Value, u32> {
    // For each value, the variable that it may be a view of; for each variable, the last node
    // that reads such a view, and the last but one.
    let mut shows: Vec<Option<u32>> = vec![None; graph.nodes.len()];
    let mut readers: Vec<[Option<u32>; 2]> = vec![[None; 2]; graph.vars.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        let id = id as u32;
        for var in node.inputs.iter().filter_map(|v| shows[v.node as usize]) {
            let [last, before] = &mut readers[var as usize];
            if *last != Some(id) {
                (*before, *last) = (*last, Some(id));
            }
        }
        shows[id as usize] = match &node.op {
            Op::Var(op) => Some(op.index),
            op if op.rule().is_view() => node.inputs.first().and_then(|v| shows[v.node as usize]),
            _ => None,
        };
    }
    // Results and other variables' new values are read when all nodes have run.
    let at_end: HashSet<u32> = graph.results().filter_map(|v| shows[v.node as usize]).collect();
    let mut times: HashMap<Value, usize> = HashMap::new();
    graph.updates.iter().for_each(|u| *times.entry(u.1).or_default() += 1);
    let mut found = HashMap::new();
    for (var, value) in &graph.updates {
        let once = times[value] == 1;
        let [last, before] = readers[*var as usize];
        let other = if last == Some(value.node) { before } else { last };
        let free = other.is_none_or(|r| r < value.node) && !at_end.contains(var);
        if once && free && matches!(graph.node(*value).op, Op::Chain(_) | Op::UpdateSlice(_) | Op::WriteRows(_)) {
            found.insert(*value, *var);
        }
    }
    found
}
