//! What lowering a graph to any device has in common: where values lie.
//!
//! A value is a [`View`] of a buffer: a variable's, an argument's, or one of the arena. [`Places`]
//! knows the sizes and the view of every value, notes the life of arena buffers on the way by the
//! number of the node at hand, and gives values that update a variable the variable's own buffer
//! where nobody reads the old value any more. What is copied depends on the device ([`Emit`]): a
//! value that is not contiguous where it must be, and results whose variable is stored to.

use super::plan::Life;
use super::view::View;
#[cfg(feature = "cuda")]
use crate::graph::Node;
use crate::graph::{DType, Extent, Graph, Sizes, TensorType, Value};
use crate::ops::Op;
use mobilis_kernels::memory::Piece;
use std::collections::{HashMap, HashSet};

/// Where values lie, while a graph is lowered. Slots are the variables', then the arguments', then
/// those of arena buffers.
pub struct Places<'g> {
    pub(super) graph: &'g Graph,
    sizes: &'g Sizes,
    pub(super) node: u32,
    /// The sizes of every value.
    shapes: Vec<Vec<Vec<usize>>>,
    views: Vec<Vec<Option<View>>>,
    /// Contiguous copies that were made of views.
    copies: HashMap<Value, Piece>,
    /// Arena buffers; their slots follow the external ones.
    pub(super) lives: Vec<Life>,
    externals: u32,
    /// Values that are written straight into a variable: the variable's slot.
    homes: HashMap<Value, u32>,
    /// Variables whose new value is copied to them at the end.
    replaced: HashSet<u32>,
    /// Homes that the node at hand has left.
    left: Vec<(Value, u32)>,
}

impl<'g> Places<'g> {
    pub(super) fn new(graph: &'g Graph, sizes: &'g Sizes) -> Result<Self, String> {
        let mut shapes = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let types: Result<Vec<_>, _> = node.types.iter().map(|t| t.sizes(sizes)).collect();
            shapes.push(types.map_err(|e| e.to_string())?);
        }
        Ok(Places {
            graph,
            sizes,
            node: 0,
            shapes,
            views: graph.nodes.iter().map(|n| vec![None; n.types.len()]).collect(),
            copies: HashMap::new(),
            lives: vec![],
            externals: (graph.vars.len() + graph.inputs.len()) as u32,
            homes: homes(graph),
            replaced: HashSet::new(),
            left: vec![],
        })
    }

    pub(super) fn enter(&mut self, node: u32) {
        self.node = node;
        self.left.clear();
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

    pub(super) fn value(&self, i: usize) -> Value {
        self.graph.nodes[self.node as usize].inputs[i]
    }

    /// The sizes of an input.
    pub fn input_sizes(&self, i: usize) -> &[usize] {
        let v = self.value(i);
        &self.shapes[v.node as usize][v.port as usize]
    }

    /// The sizes of a value.
    #[cfg(feature = "cuda")]
    pub(super) fn sizes_of(&self, v: Value) -> &[usize] {
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

    /// The number of an arena buffer; nothing for other slots.
    fn index(&self, slot: u32) -> Option<usize> {
        slot.checked_sub(self.externals).map(|i| i as usize).filter(|i| *i < self.lives.len())
    }

    /// How many values a variable has.
    #[cfg(feature = "cuda")]
    pub(super) fn var_count(&self, var: u32) -> Option<usize> {
        let is = |node: &Node| matches!(&node.op, Op::Var(op) if op.index == var);
        let node = self.graph.nodes.iter().position(is)?;
        Some(self.shapes[node][0].iter().product())
    }

    /// Notes that the node at hand reads a buffer.
    pub(super) fn touch(&mut self, slot: u32) {
        if let Some(life) = self.index(slot).map(|i| &mut self.lives[i]) {
            life.last = life.last.max(self.node as usize);
        }
    }

    /// The slot that the next buffer will have.
    #[cfg(feature = "cuda")]
    pub(super) fn next_slot(&self) -> u32 {
        self.externals + self.lives.len() as u32
    }

    /// The bytes of a buffer of the arena; nothing for other slots.
    #[cfg(feature = "cuda")]
    pub(super) fn buffer_bytes(&self, slot: u32) -> Option<usize> {
        self.index(slot).map(|i| self.lives[i].bytes)
    }

    /// Whether a slot is a buffer of the arena.
    #[cfg(feature = "cuda")]
    pub(super) fn is_buffer(&self, slot: u32) -> bool {
        self.index(slot).is_some()
    }

    /// A buffer that nothing reads or writes needs no memory.
    #[cfg(feature = "cuda")]
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(life) = self.index(slot).map(|i| &mut self.lives[i]) {
            life.bytes = 0;
        }
    }

    pub(super) fn view_of(&mut self, v: Value) -> View {
        let view = self.views[v.node as usize][v.port as usize].clone().expect("nodes come after their inputs");
        self.touch(view.slot);
        view
    }

    /// A new arena buffer that lives for this node, and longer if it is touched again.
    pub fn buffer(&mut self, len: usize, dtype: DType) -> Piece {
        self.buffer_of(len, dtype.bytes())
    }

    /// The same for values that take `bytes` each.
    fn buffer_of(&mut self, len: usize, bytes: usize) -> Piece {
        let now = self.node as usize;
        self.lives.push(Life { bytes: len * bytes, first: now, last: now, heir_of: None });
        Piece { slot: self.externals + self.lives.len() as u32 - 1, offset: 0, len }
    }

    /// The place of an output, contiguous, which may take over the place of input `heir_of`.
    pub(super) fn place(&mut self, port: usize, heir_of: Option<usize>) -> Piece {
        self.place_of(port, heir_of, self.output_dtype(port).bytes())
    }

    /// The same where values take `bytes` each; it must not [update a variable](Self::home) then.
    pub(super) fn place_of(&mut self, port: usize, heir_of: Option<usize>, bytes: usize) -> Piece {
        let v = Value { node: self.node, port: port as u16 };
        let dtype = self.output_dtype(port);
        let sizes = self.output_sizes(port).to_vec();
        let len = sizes.iter().product();
        let piece = match self.homes.get(&v) {
            Some(slot) => Piece { slot: *slot, offset: 0, len },
            None => self.buffer_of(len, bytes),
        };
        if let Some(i) = heir_of {
            let parent = self.view_of(self.value(i)).slot;
            if let (Some(me), Some(parent)) = (self.index(piece.slot), self.index(parent)) {
                self.lives[me].heir_of = Some(parent);
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
        self.left.extend(self.homes.remove_entry(&Value { node: self.node, port: port as u16 }));
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

    /// Takes back what was placed since there were `lives` buffers: the node is lowered in another way.
    #[cfg(feature = "cuda")]
    pub(super) fn take_back(&mut self, lives: usize) {
        let end = self.externals + lives as u32;
        self.lives.truncate(lives);
        self.copies.retain(|_, piece| piece.slot < end);
        self.views[self.node as usize].fill(None);
        self.homes.extend(self.left.drain(..));
    }
}

/// A device's part: how values are copied.
pub trait Emit<'g> {
    /// Where values lie.
    fn places(&mut self) -> &mut Places<'g>;

    /// Copies a view to contiguous values.
    fn copy_view(&mut self, view: &View, to: Piece);

    /// Notes that a buffer is read as it is.
    fn reads(&self, _slot: u32) {}

    /// A value as everyone can read it.
    fn shown(&mut self, v: Value) -> View {
        self.places().view_of(v)
    }

    /// A value as contiguous values, copied if it is a view that is not.
    fn piece_of(&mut self, v: Value) -> Piece {
        let view = self.shown(v);
        self.reads(view.slot);
        if view.is_contiguous() {
            return Piece { slot: view.slot, offset: view.offset, len: view.count() };
        }
        if let Some(piece) = self.places().copies.get(&v).copied() {
            self.places().touch(piece.slot);
            return piece;
        }
        let piece = self.pack(&view);
        self.places().copies.insert(v, piece);
        piece
    }

    /// A contiguous copy of a view.
    fn pack(&mut self, view: &View) -> Piece {
        let to = self.places().buffer(view.count(), view.dtype);
        self.copy_view(view, to);
        to
    }

    /// The piece, copied to the arena if it lies in a variable that this run stores to.
    fn aside(&mut self, piece: Piece, dtype: DType) -> Piece {
        // A value that is computed in its variable is the new value already.
        if !self.places().replaced.contains(&piece.slot) {
            return piece;
        }
        self.pack(&View { offset: piece.offset, ..View::whole(piece.slot, &[piece.len], dtype) })
    }

    /// Copies results to where they are read from, and new values to their variables.
    fn settle(&mut self) -> Vec<(Value, Piece)> {
        let places = self.places();
        let graph = places.graph;
        places.node = graph.nodes.len() as u32;
        let homes: HashSet<u32> = places.homes.values().copied().collect();
        places.replaced = graph.updates.iter().map(|u| u.0).filter(|var| !homes.contains(var)).collect();
        // Everything that shows a variable's old value is taken aside before any is stored.
        let mut results: Vec<(Value, Piece)> = vec![];
        for v in graph.outputs.iter().chain(graph.taps.iter().map(|t| &t.1)) {
            let piece = self.piece_of(*v);
            results.push((*v, self.aside(piece, graph.ty(*v).dtype)));
        }
        let mut stores = vec![];
        for (var, value) in &graph.updates {
            let view = self.places().view_of(*value);
            if view != View::whole(*var, &view.sizes, view.dtype) {
                let piece = self.piece_of(*value);
                let from = self.aside(piece, view.dtype);
                stores.push((*var, View { offset: from.offset, ..View::whole(from.slot, &view.sizes, view.dtype) }));
            }
        }
        for (var, from) in stores {
            self.copy_view(&from, Piece { slot: var, offset: 0, len: from.count() });
        }
        results
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
