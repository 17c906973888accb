//! What lowering a node to a GPU sees and makes.
//!
//! A [`Ptr`] that a family gets here is virtual: the number of a buffer and an offset in it. Offsets may be
//! added to it, and its alignment is that of the real address.

use super::Fallback;
use super::chain::Waiting;
use super::norm::Sum;
use super::quantize::Codes;
use super::storage::{self, Small};
use crate::devices::lower::{Emit, Places};
use crate::devices::view::View;
use crate::graph::{DType, Graph, Sizes, TensorType, Value};
use crate::module::encoded::Encoding;
use crate::ops::Op;
use mobilis_cuda::copy::{Strided, copy};
use mobilis_cuda::gemm::Element;
use mobilis_cuda::{Arg, CudaError, Gpu, Info, Launch, Ptr, status};
use mobilis_kernels::cpu::quant::Blocks;
use mobilis_kernels::memory::Piece;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};

/// Why the kernels of a family do not take a node.
#[derive(Debug)]
pub struct Refused(pub String);

/// What lowering gives: nothing, for launches are left in [`Lower`].
pub type Lowering = Result<(), Refused>;

impl From<CudaError> for Refused {
    fn from(e: CudaError) -> Refused {
        Refused(e.to_string())
    }
}
impl From<String> for Refused {
    fn from(e: String) -> Refused {
        Refused(e)
    }
}
impl From<&str> for Refused {
    fn from(e: &str) -> Refused {
        Refused(e.into())
    }
}

/// Buffers begin at multiples of this many bytes.
pub(super) const ALIGN: usize = 256;
/// The slot of constants and of what kernels refuse. Before it come, backwards, those of variables as the model
/// stores them, where that is not `f32`.
const FIXED: u32 = (1 << 23) - 1;

/// A virtual address.
fn virtual_at(slot: u32, bytes: usize) -> Ptr {
    Ptr(1 << 63 | u64::from(slot) << 40 | bytes as u64)
}

/// The slot of a virtual address.
pub(super) fn slot_of(at: Ptr) -> Option<u32> {
    (at.0 >> 63 == 1).then_some((at.0 >> 40) as u32 & FIXED)
}

/// Where slots begin.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Bases {
    /// Variables, arguments, arena buffers.
    pub slots: Vec<Ptr>,
    /// Variables as they are stored.
    pub stored: Vec<Ptr>,
    /// What is fixed.
    pub fixed: Ptr,
}

impl Bases {
    /// The real address of a virtual one.
    pub fn real(&self, at: Ptr) -> Ptr {
        if at.0 >> 63 == 0 {
            return at;
        }
        let slot = ((at.0 >> 40) as u32 & FIXED) as usize;
        let base = match FIXED as usize - slot {
            0 => self.fixed,
            back if back <= self.stored.len() => self.stored[back - 1],
            _ => self.slots[slot],
        };
        base.at((at.0 & ((1 << 40) - 1)) as usize)
    }
}

/// What a program reads of a variable.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reads {
    /// Its values, each in memory.
    pub plain: bool,
    /// What the model stores.
    pub stored: bool,
}

/// A matrix as the model stores it.
pub struct Stored {
    /// Where its values lie, counted in values.
    pub view: View,
    /// How they are stored.
    pub element: Element,
    /// The first one.
    pub at: Ptr,
    /// The scales of blocks; null for others.
    pub planes: Ptr,
}

/// One thing to do.
pub(super) enum Step {
    Launch(Launch),
    Copy { from: Ptr, to: Ptr, bytes: usize },
    Fill { to: Ptr, byte: u8, bytes: usize },
    Host(Box<super::host::Node>),
}

impl Step {
    /// Calls a function with the slot of every address.
    pub fn each_slot(&self, mut f: impl FnMut(u32)) {
        let mut put = |at: &Ptr| slot_of(*at).map_or((), &mut f);
        match self {
            Step::Launch(launch) => launch.args.iter().for_each(|arg| match arg {
                Arg::Ptr(at) => put(at),
                Arg::Tile(tile) => put(&tile.base),
                Arg::Table(table) => table.iter().for_each(&mut put),
                Arg::I32(_) | Arg::U32(_) | Arg::I64(_) | Arg::F32(_) | Arg::Block(_) => {}
            }),
            Step::Copy { from, to, .. } => [from, to].into_iter().for_each(put),
            Step::Fill { to, .. } => put(to),
            Step::Host(node) => node.addresses().for_each(|at| put(&at)),
        }
    }
}

/// A result that a launch need not write where nothing reads it: the number of the step, and the address.
pub(super) type Spare = (usize, Ptr);

/// Takes results that nothing reads out of the launches that write them. `shown` is read by the caller. Gives back their slots.
pub(super) fn leave_out(steps: &mut [(u32, Step)], spare: &[Spare], shown: &[Ptr]) -> Vec<u32> {
    let mut uses: HashMap<u32, usize> = HashMap::new();
    if !spare.is_empty() {
        steps.iter().for_each(|(_, step)| step.each_slot(|slot| *uses.entry(slot).or_default() += 1));
        shown.iter().filter_map(|at| slot_of(*at)).for_each(|slot| *uses.entry(slot).or_default() += 1);
    }
    let mut gone = vec![];
    for (step, at) in spare {
        let (Some(slot), Some((_, Step::Launch(launch)))) = (slot_of(*at), steps.get_mut(*step)) else { continue };
        if uses.get(&slot) == Some(&1) {
            launch.args.iter_mut().filter(|arg| **arg == Arg::Ptr(*at)).for_each(|arg| *arg = Arg::Ptr(Ptr::NULL));
            gone.push(slot);
        }
    }
    gone
}

/// A place where kernels note what they refuse, and how that is said.
pub(super) struct Guard {
    pub node: u32,
    /// Where its four `int`s lie among what is fixed.
    pub offset: usize,
    pub message: Box<dyn Fn([i32; 4]) -> String + Send + Sync>,
}

/// The state of lowering a graph.
pub struct Lower<'g> {
    places: Places<'g>,
    pub(super) gpu: Gpu,
    pub(super) steps: Vec<(u32, Step)>,
    pub(super) guards: Vec<Guard>,
    /// What lies in [`FIXED`] before the first run.
    pub(super) fixed: Vec<u8>,
    pub(super) fallbacks: Vec<Fallback>,
    /// Chains that run together with others, when all else is launched.
    pub(super) waiting: Vec<Waiting>,
    /// Values that a node or the caller reads, and variables that get new values.
    read: (HashSet<Value>, HashSet<u32>),
    /// Sums that norms write.
    pub(super) sums: HashMap<Value, Sum>,
    /// What lies in 16 bits (`storage.rs`).
    pub(super) small: Small,
    /// Codes of values that went through eight bits by tiles.
    pub(super) codes: HashMap<Value, Codes>,
    /// What is left of such values.
    pub(super) spare: Vec<Spare>,
    /// Copies of views that no kernel reads as they lie.
    pub(super) copied: usize,
    input_bytes: Vec<usize>,
    /// How the model stores each variable, where that is not `f32`.
    encodings: &'g [Option<Encoding>],
    /// What is read of each variable.
    pub(super) reads: RefCell<Vec<Reads>>,
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

    fn shown(&mut self, v: Value) -> View {
        self.view_of(v)
    }

    fn copy_view(&mut self, view: &View, to: Piece) {
        self.copied += 1;
        let to = View { offset: to.offset, ..View::whole(to.slot, &view.sizes, view.dtype) };
        self.copy_strided(view, &to).expect("views have at most eight dimensions");
    }
}

/// How far lowering had come.
pub(super) struct Mark {
    lives: usize,
    steps: usize,
    guards: usize,
}

impl<'g> Lower<'g> {
    pub(super) fn new(
        gpu: &Gpu,
        graph: &'g Graph,
        sizes: &'g Sizes,
        encodings: &'g [Option<Encoding>],
    ) -> Result<Self, String> {
        let bytes = |ty: &TensorType| {
            let sizes = ty.sizes(sizes).map_err(|e| e.to_string())?;
            Ok(sizes.iter().product::<usize>() * ty.dtype.bytes())
        };
        let shown = graph.outputs.iter().copied().chain(graph.taps.iter().map(|t| t.1));
        let mut cx = Lower {
            encodings,
            reads: RefCell::new(vec![Reads::default(); graph.vars.len()]),
            input_bytes: graph.inputs.iter().map(|i| bytes(&i.ty)).collect::<Result<_, String>>()?,
            places: Places::new(graph, sizes)?,
            gpu: gpu.clone(),
            steps: vec![],
            guards: vec![],
            fixed: vec![],
            fallbacks: vec![],
            waiting: vec![],
            read: (
                graph.nodes.iter().flat_map(|n| &n.inputs).copied().chain(shown).collect(),
                graph.updates.iter().map(|u| u.0).collect(),
            ),
            sums: HashMap::new(),
            small: Small::default(),
            codes: HashMap::new(),
            spare: vec![],
            copied: 0,
        };
        cx.small.planned = storage::plan(&cx);
        Ok(cx)
    }

    /// Whether a node or the caller reads a value.
    pub(super) fn is_read(&self, v: Value) -> bool {
        self.read.0.contains(&v)
    }

    /// Whether a slot is a variable that gets a new value.
    pub(super) fn is_updated(&self, slot: u32) -> bool {
        self.read.1.contains(&slot)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { lives: self.lives.len(), steps: self.steps.len(), guards: self.guards.len() }
    }

    /// Whether the device takes the grids of what the node at hand launches.
    pub(super) fn grids_fit(&self, mark: &Mark) -> Lowering {
        let mut launches = self.steps[mark.steps..].iter().filter_map(|(_, step)| match step {
            Step::Launch(launch) if launch.grid.iter().all(|n| *n > 0) => Some(launch),
            _ => None,
        });
        Ok(launches.try_for_each(|l| l.check(self.info()))?)
    }

    /// Forgets what the node at hand has made.
    pub(super) fn take_back_to(&mut self, mark: Mark) {
        self.places.take_back(mark.lives);
        self.small.take_back(self.places.next_slot());
        self.steps.truncate(mark.steps);
        self.spare.retain(|(step, _)| *step < mark.steps);
        self.guards.truncate(mark.guards);
        self.codes.retain(|v, _| v.node != self.places.node);
    }

    /// The device.
    pub fn info(&self) -> &Info {
        self.gpu.info()
    }

    /// Bytes of a place: a variable, as values or as it is stored, an argument, a buffer; 0 for what is fixed.
    pub(super) fn slot_bytes(&self, slot: u32) -> usize {
        let vars = self.vars();
        let count = |var: u32| self.var_count(var).unwrap_or_default();
        match FIXED.checked_sub(slot) {
            Some(0) | None => 0,
            Some(back) if back <= vars => {
                let stored = self.encoding(back - 1).and_then(|e| e.bytes(count(back - 1)));
                stored.unwrap_or_default()
            }
            _ if slot < vars => count(slot) * self.graph.vars[slot as usize].ty.dtype.bytes(),
            _ => {
                let argument = self.input_bytes.get((slot - vars) as usize).copied();
                argument.or_else(|| self.buffer_bytes(slot)).unwrap_or_default()
            }
        }
    }

    /// Bytes of an argument of the program.
    pub(super) fn argument_bytes(&self, index: usize) -> usize {
        self.input_bytes[index]
    }

    /// The operation at hand.
    pub fn op(&self) -> &'g Op {
        &self.graph.nodes[self.node as usize].op
    }

    /// An input with its strides.
    pub fn view(&mut self, i: usize) -> View {
        let v = self.value(i);
        self.view_of(v)
    }

    /// The address of a view's first value.
    pub fn address(&self, view: &View) -> Ptr {
        self.note(view.slot, |r| r.plain = true);
        let bytes = if self.small.holds(view.slot) { 2 } else { view.dtype.bytes() };
        virtual_at(view.slot, view.offset * bytes)
    }

    pub(super) fn at(&self, piece: Piece, dtype: DType) -> Ptr {
        self.note(piece.slot, |r| r.plain = true);
        virtual_at(piece.slot, piece.offset * dtype.bytes())
    }

    fn note(&self, slot: u32, f: impl FnOnce(&mut Reads)) {
        if let Some(reads) = self.reads.borrow_mut().get_mut(slot as usize) {
            f(reads);
        }
    }

    /// Notes that a product reads an input that is [stored](Self::stored).
    pub fn reads_stored(&self, stored: &Stored) {
        self.note(stored.view.slot, |r| r.stored = true);
    }

    /// An input as the model stores it, where it is a variable (or a part of one, in another order) that is stored
    /// in a way that products read: 16 bits, or whole matrices of blocks of 8 and 4.
    pub fn stored(&mut self, i: usize) -> Option<Stored> {
        let view = self.as_stored(i);
        let encoding = self.encoding(view.slot)?;
        let whole = view.offset == 0 && view.sizes.len() == 2 && view.count() == self.var_count(view.slot)?;
        let (element, bytes, planes) = match encoding {
            Encoding::Bf16 => (Element::Bf16, 2, None),
            Encoding::F16 => (Element::F16, 2, None),
            Encoding::Blocks(Blocks::Q8_0) if whole => (Element::Q8_0, 0, Some(view.count())),
            Encoding::Blocks(Blocks::Q4_0) if whole => (Element::Q4_0, 0, Some(view.count() / 2)),
            Encoding::Blocks(_) => return None,
        };
        let slot = FIXED - 1 - view.slot;
        let planes = planes.map_or(Ptr::NULL, |bytes| virtual_at(slot, bytes.next_multiple_of(ALIGN)));
        Some(Stored { element, at: virtual_at(slot, view.offset * bytes), planes, view })
    }

    /// How the model stores a variable, where that is not `f32`.
    pub(super) fn encoding(&self, slot: u32) -> Option<Encoding> {
        *self.encodings.get(slot as usize)?
    }

    /// An input as contiguous values, copied if it is a view that is not.
    pub fn input(&mut self, i: usize) -> Ptr {
        let v = self.value(i);
        self.contiguous(v)
    }

    pub(super) fn contiguous(&mut self, v: Value) -> Ptr {
        let (piece, dtype) = (self.piece_of(v), self.graph.ty(v).dtype);
        self.at(piece, dtype)
    }

    /// A contiguous copy of a view.
    pub fn packed(&mut self, view: &View) -> Ptr {
        let piece = self.pack(view);
        self.at(piece, view.dtype)
    }

    /// The place of an output, contiguous.
    pub fn output(&mut self, port: usize) -> Ptr {
        self.output_in_place(port, None)
    }

    /// The place of an output, which may take over the place of input `heir_of`: the kernel must then be right
    /// when both are one address.
    pub fn output_in_place(&mut self, port: usize, heir_of: Option<usize>) -> Ptr {
        let dtype = self.output_dtype(port);
        let piece = self.place(port, heir_of);
        self.at(piece, dtype)
    }

    /// Memory that is gone after this node.
    pub fn scratch(&mut self, bytes: usize) -> Ptr {
        let piece = self.buffer(bytes.div_ceil(4), DType::F32);
        self.at(piece, DType::F32)
    }

    /// Values that are the same in every run.
    pub fn constant(&mut self, bytes: &[u8]) -> View {
        let offset = self.fixed.len().next_multiple_of(ALIGN);
        self.fixed.resize(offset, 0);
        self.fixed.extend_from_slice(bytes);
        View { offset: offset / 4, ..View::whole(FIXED, &[bytes.len() / 4], DType::I32) }
    }

    /// Three `int`s, 0 before each run. A kernel that finds data that it cannot take sets the first to 1 and
    /// the others to what it found; the run then fails with that message.
    pub fn guard(&mut self, message: impl Fn([i32; 2]) -> String + Send + Sync + 'static) -> Ptr {
        self.guarded(move |[_, a, b, _]| message([a, b]))
    }

    /// A place for the words of `include/status.cuh`, through which a kernel says which index is out of range.
    pub fn status(&mut self) -> Ptr {
        self.guarded(|words| status::message(words).unwrap_or_default())
    }

    fn guarded(&mut self, message: impl Fn([i32; 4]) -> String + Send + Sync + 'static) -> Ptr {
        let offset = self.fixed.len().next_multiple_of(16);
        self.fixed.resize(offset + status::BYTES, 0);
        let node = self.node;
        self.guards.push(Guard { node, offset, message: Box::new(message) });
        virtual_at(FIXED, offset)
    }

    /// Adds launches.
    pub fn launch(&mut self, launches: Vec<Launch>) {
        let node = self.node;
        self.steps.extend(launches.into_iter().map(|l| (node, Step::Launch(l))));
    }

    /// Adds a copy of bytes; none where both turn out to be one place.
    pub fn copy(&mut self, from: Ptr, to: Ptr, bytes: usize) {
        self.steps.push((self.node, Step::Copy { from, to, bytes }));
    }

    /// Adds bytes that are all the same.
    pub fn fill(&mut self, to: Ptr, byte: u8, bytes: usize) {
        self.steps.push((self.node, Step::Fill { to, byte, bytes }));
    }

    /// Adds copies of a view to another one of the same sizes.
    ///
    /// # Errors
    /// More dimensions than are copied.
    pub fn copy_strided(&mut self, from: &View, to: &View) -> Lowering {
        let from = &self.wide(from.clone());
        let strided = |cx: &Lower, view: &View| Strided {
            at: cx.address(view),
            strides: view.strides.iter().map(|s| *s as i64).collect(),
        };
        let launches = copy(&strided(self, from), &strided(self, to), &from.sizes, from.dtype.bytes())?;
        self.launch(launches);
        Ok(())
    }

    /// Adds a node that runs on the host.
    pub(super) fn on_host(&mut self, node: super::host::Node) {
        self.steps.push((self.node, Step::Host(Box::new(node))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_reads_is_not_written() {
        let at = |slot| virtual_at(slot, 0);
        let launch = |args: &[Ptr]| {
            (0, Step::Launch(Launch::new("k", [1, 1, 1], 1, args.iter().map(|at| Arg::Ptr(*at)).collect())))
        };
        let mut steps = vec![
            launch(&[at(1), at(2), at(3)]),
            launch(&[at(2), at(4), at(5)]),
            (0, Step::Copy { from: at(4).at(8), to: at(6), bytes: 4 }),
            launch(&[at(3), at(7)]),
        ];
        let spare = [(0, at(2)), (1, at(4)), (1, at(5)), (3, at(7))];
        assert_eq!(leave_out(&mut steps, &spare, &[at(7).at(4)]), [5]);
        let Step::Launch(second) = &steps[1].1 else { panic!("a launch") };
        assert_eq!(second.args, [at(2), at(4), Ptr::NULL].map(Arg::Ptr));
    }
}
