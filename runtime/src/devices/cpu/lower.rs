//! What lowering a node sees and makes.
//!
//! A family's `lower` asks for its inputs (as contiguous pieces, or as views with strides), its
//! outputs and scratch memory, and leaves tasks. Lifetimes are noted on the way, by node.

use super::plan::{Plan, plan};
use super::view::View;
use super::weights::{Prepared, Table, Weight};
use crate::devices::lower::{Emit, Places};
use crate::graph::{DType, Graph, Sizes, Value};
use crate::ops::Op;
use mobilis_kernels::cpu::copy::{collapse, gather_view};
use mobilis_kernels::cpu::gemm::Matrix;
use mobilis_kernels::memory::{Memory, Piece};
use std::ops::{Deref, DerefMut};
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
    places: Places<'g>,
    tasks: Vec<Task>,
    /// Copies of views that no kernel reads as they lie.
    pub(super) copied: usize,
    /// Weights that are prepared once, where the caller keeps them.
    pub(super) weights: Option<&'g Prepared>,
    /// Whether kernels sum in one order, however many rows they are given.
    pub(super) alike: bool,
}

impl<'g> Deref for Lower<'g> {
    type Target = Places<'g>;
    fn deref(&self) -> &Places<'g> {
        &self.places
    }
}

impl<'g> DerefMut for Lower<'g> {
    fn deref_mut(&mut self) -> &mut Places<'g> {
        &mut self.places
    }
}

impl<'g> Emit<'g> for Lower<'g> {
    fn places(&mut self) -> &mut Places<'g> {
        &mut self.places
    }

    fn copy_view(&mut self, view: &View, to: Piece) {
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

    fn reads(&self, slot: u32) {
        Lower::reads(self, slot);
    }
}

impl<'g> Lower<'g> {
    pub(super) fn new(graph: &'g Graph, sizes: &'g Sizes) -> Result<Self, String> {
        Ok(Lower { places: Places::new(graph, sizes)?, tasks: vec![], copied: 0, weights: None, alike: false })
    }

    /// The handle of a right side that is prepared once: `k` by `n` values in `piece` with strides
    /// `at`, to be multiplied by `m` rows. Nothing where a product reads the piece itself.
    pub fn weight(&self, piece: Piece, (m, n, k): (usize, usize, usize), at: Matrix) -> Option<Arc<Weight>> {
        // Products that sum alike read packed panels for few rows too.
        let m = if self.alike { usize::MAX } else { m };
        self.weights?.weight(self.graph, piece, (m, n, k), at)
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
        let v = self.value(0);
        let view = self.view_of(v);
        let table = if view.is_contiguous() { self.weights?.table(view.slot) } else { None };
        table.map(|table| (table, view.offset))
    }

    /// An input with its strides.
    pub fn view(&mut self, i: usize) -> View {
        let v = self.value(i);
        let view = self.view_of(v);
        // Views read nothing yet, and products say themselves what they read.
        let op = &self.graph.nodes[self.node as usize].op;
        if !(op.rule().is_view() || matches!(op, Op::Product(_) | Op::Einsum(_) | Op::Experts(_))) {
            self.reads(view.slot);
        }
        view
    }

    /// An input as contiguous values, copied if it is a view that is not.
    pub fn input(&mut self, i: usize) -> Piece {
        self.piece_of(self.value(i))
    }

    /// A contiguous copy of a view.
    pub fn packed(&mut self, view: &View) -> Piece {
        self.pack(view)
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
        self.place(port, heir_of)
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
        let results = self.settle();
        Lowered { plan: plan(&self.lives), tasks: self.tasks, results, copied: self.copied }
    }
}
