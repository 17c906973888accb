//! Weights made ready for products once, not in every run.
//!
//! In a program that does not update a variable, a matrix that is the variable (or a part of it,
//! transposed or not) need not be packed or rounded anew in each run. While lowering, a product
//! asks [`Lower::weight`](super::lower::Lower::weight) for a handle of its right side; all sizes
//! that the program was bound to share it. Before every run [`Prepared::refresh`] compares the
//! version of each variable with the one that was prepared, so a training step or a loaded
//! checkpoint shows in the next run. The product reads the handle with [`Weight::lock`].
//!
//! A variable that is held as a file stores it ([`Encoded`]) has no `f32` anywhere. Products take
//! over its bytes as panels, embeddings read its rows ([`Table`]); only where something else reads
//! it, or a product in `f32`, values are made once for the program (`Prepared::need_plain`).
//!
//! What is done for a product, by the program's [`Weights`]:
//! * other formats than `f32`: rounded or taken over, and packed, before the first run with a value;
//! * `f32`, multiplied by more than [`gemm::FEW_ROWS`] rows: packed before the *second* run with a
//!   value, for a value that changes between all runs would be packed for nothing. Until then, and
//!   where packing is switched off, the product reads the variable itself, with the same result;
//! * matrices of fewer than 16 channels or 32 values each: left as they are.
//!
//! Versions are never given twice, so what was made of one is right wherever it is met: the
//! programs of a model (a prompt's and a step's) share it through a shelf.

use crate::graph::{DType, Graph};
use crate::module::encoded::{Encoded, Encoding};
use crate::module::init::Init;
use crate::module::store::{Data, Values};
use crate::program::{StoredWeight, WeightFormat, Weights};
use mobilis_kernels::cpu::gemm::{self, Matrix, Panels, Right};
use mobilis_kernels::cpu::quant::packed::Kind;
use mobilis_kernels::cpu::quant::{self, Blocks, Format, Packed};
use mobilis_kernels::large::Large;
use mobilis_kernels::memory::Piece;
use mobilis_kernels::pool::Pool;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

/// A matrix in a variable: `k` by `n` values from `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Place {
    offset: usize,
    n: usize,
    k: usize,
    at: (usize, usize),
}

/// What is made of a variable's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Form {
    /// All values, in `f32`.
    Plain,
    /// A matrix in panels of `f32`.
    Panels(Place),
    /// A matrix in fewer bits.
    Rounded(Place, Kind),
}

enum Made {
    Plain(Large),
    Panels(Large),
    Rounded(Packed),
}

/// What was made of a version of a variable's value, while a program holds it.
type Shelf = HashMap<(u64, Form), Weak<Made>>;
static SHELF: LazyLock<Mutex<Shelf>> = LazyLock::new(Mutex::default);

impl Made {
    /// What is on the shelf, or new.
    fn of(version: u64, form: Form, data: &Data) -> Arc<Made> {
        let shelf = || SHELF.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = shelf().get(&(version, form)).and_then(Weak::upgrade) {
            return made;
        }
        let made = Arc::new(Made::new(version, form, data));
        let mut shelf = shelf();
        shelf.retain(|_, made| made.strong_count() > 0);
        shelf.insert((version, form), Arc::downgrade(&made));
        made
    }

    fn new(version: u64, form: Form, data: &Data) -> Made {
        let pool = Pool::global();
        match (form, data) {
            (Form::Plain, Data::Encoded(stored)) => {
                let mut all = Large::floats(stored.len());
                stored.fill(all.as_f32_mut());
                stored.bytes().release();
                Made::Plain(all)
            }
            (Form::Rounded(place, kind), Data::Encoded(stored)) => {
                let Place { offset, n, k, at } = place;
                let at = Matrix { row: at.0, col: at.1 };
                Made::Rounded(Packed::stored(pool, kind, (stored.encoding(), stored.bytes()), offset, (n, k), at))
            }
            (Form::Panels(_), Data::Encoded(_)) => {
                let plain = Made::of(version, Form::Plain, data);
                Made::of_values(pool, form, plain.plain())
            }
            (_, Data::F32(values)) => Made::of_values(pool, form, values),
            _ => Made::of_values(pool, form, &[]),
        }
    }

    fn of_values(pool: &Pool, form: Form, values: &[f32]) -> Made {
        let (place, kind) = match form {
            Form::Plain => return Made::Plain(Large::new(0)),
            Form::Panels(place) => (place, None),
            Form::Rounded(place, kind) => (place, Some(kind)),
        };
        let Place { offset, n, k, at } = place;
        let (values, at) = (&values[offset.min(values.len())..], Matrix { row: at.0, col: at.1 });
        match kind {
            Some(kind) => Made::Rounded(Packed::new(pool, kind, (n, k), values, at)),
            None => {
                let mut panels = Large::floats(gemm::packed_len(n, k));
                gemm::pack_b(pool, (n, k), values, at, panels.as_f32_mut());
                Made::Panels(panels)
            }
        }
    }

    fn plain(&self) -> &[f32] {
        match self {
            Made::Plain(values) => values.as_f32(),
            _ => &[],
        }
    }
}

/// Something made of a variable's value.
#[derive(Default)]
struct State {
    /// The variable's version that the last run saw.
    seen: Option<u64>,
    made: Option<Arc<Made>>,
}

impl State {
    /// Makes it of a new value: at once, or when it is seen for the second time. Says whether it is
    /// made.
    fn refresh(&mut self, values: &Values, graph: &Graph, var: u32, form: Form, at_once: bool) -> bool {
        let id = graph.vars[var as usize].id;
        let (version, Some(entry)) = (values.version(id), values.get(id)) else { return false };
        let known = self.seen == version;
        if !known {
            self.made = None;
        }
        if self.made.is_none() && (known || at_once) {
            self.made = version.map(|version| Made::of(version, form, &entry.data));
        }
        self.seen = version;
        self.made.is_some()
    }
}

/// The right side of a product, prepared.
pub struct Weight {
    var: u32,
    place: Place,
    kind: Option<Kind>,
    encoding: Option<Encoding>,
    state: RwLock<State>,
}

/// A weight while a run reads it.
pub struct Ready<'a>(RwLockReadGuard<'a, State>, &'a Weight);

impl Weight {
    /// Scratch floats that it adds to a product of `m` rows.
    pub fn scratch(&self, m: usize) -> usize {
        self.kind.map_or(0, |kind| quant::scratch_len(m, kind, self.place.k))
    }

    /// Whether a product reads nothing but what was prepared.
    pub fn is_rounded(&self) -> bool {
        self.kind.is_some()
    }

    /// The weight as this run has it.
    pub fn lock(&self) -> Ready<'_> {
        Ready(self.state.read().unwrap_or_else(PoisonError::into_inner), self)
    }

    fn refresh(&self, graph: &Graph, values: &Values) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let form = self.kind.map_or(Form::Panels(self.place), |kind| Form::Rounded(self.place, kind));
        state.refresh(values, graph, self.var, form, self.kind.is_some())
    }
}

impl Ready<'_> {
    /// The right side for a product; `plain` is the variable's part that holds the matrix.
    pub fn right<'a>(&'a self, plain: &'a [f32]) -> Right<'a> {
        let Place { n, k, at, .. } = self.1.place;
        match self.0.made.as_deref() {
            None | Some(Made::Plain(_)) => Right::Plain(plain, Matrix { row: at.0, col: at.1 }),
            Some(Made::Panels(data)) => Right::Packed(Panels::new(data.as_f32(), n, k)),
            Some(Made::Rounded(w)) => Right::Rounded(w),
        }
    }
}

/// A table whose rows are looked up where a file stores them.
pub struct Table {
    var: u32,
    rows: RwLock<Option<Encoded>>,
}

impl Table {
    /// The rows of this run.
    ///
    /// # Errors
    /// The variable is not stored any more, which no run finds: its sizes are bound anew.
    pub fn rows(&self) -> Result<Encoded, String> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.clone().ok_or_else(|| "a table is not stored as it was when sizes were bound".into())
    }

    fn refresh(&self, graph: &Graph, values: &Values) {
        let found = match values.get(graph.vars[self.var as usize].id).map(|entry| &entry.data) {
            Some(Data::Encoded(stored)) => Some(stored.clone()),
            _ => None,
        };
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// What is prepared for the sizes bound so far.
#[derive(Default)]
struct Held {
    /// How each variable is stored, of those that are not `f32`.
    encodings: BTreeMap<u32, Encoding>,
    weights: HashMap<(u32, Place), Arc<Weight>>,
    tables: BTreeMap<u32, Arc<Table>>,
    /// Variables whose values are needed in `f32`.
    plain: BTreeMap<u32, State>,
}

/// All prepared weights of a program.
pub struct Prepared {
    weights: Weights,
    held: Mutex<Held>,
}

impl Prepared {
    /// None yet; they are asked for while sizes are bound.
    pub fn new(weights: Weights) -> Prepared {
        Prepared { weights, held: Mutex::default() }
    }

    /// What was asked for.
    pub fn asked(&self) -> &Weights {
        &self.weights
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees how variables are stored. Says whether that has changed: nothing is prepared then, and
    /// sizes must be bound anew.
    pub fn look(&self, graph: &Graph, values: &Values) -> bool {
        let encoding = |var: usize| match values.get(graph.vars[var].id).map(|entry| &entry.data) {
            Some(Data::Encoded(stored)) => Some(stored.encoding()),
            _ => None,
        };
        let mut held = self.lock();
        let same = (0..graph.vars.len()).all(|var| encoding(var) == held.encodings.get(&(var as u32)).copied());
        if !same {
            let all = (0..graph.vars.len()).filter_map(|var| Some((var as u32, encoding(var)?)));
            *held = Held { encodings: all.collect(), ..Held::default() };
        }
        !same
    }

    /// Whether a buffer is a variable that is not held in `f32`.
    pub(super) fn is_encoded(&self, slot: u32) -> bool {
        self.lock().encodings.contains_key(&slot)
    }

    /// Values of this buffer are read in `f32`: if it is a variable that has none, they are made.
    pub(super) fn need_plain(&self, slot: u32) {
        let mut held = self.lock();
        if held.encodings.contains_key(&slot) {
            held.plain.entry(slot).or_default();
        }
    }

    /// The handle of a table whose rows are looked up as they are stored.
    pub(super) fn table(&self, slot: u32) -> Option<Arc<Table>> {
        let mut held = self.lock();
        held.encodings.get(&slot)?;
        let new = || Arc::new(Table { var: slot, rows: RwLock::default() });
        Some(held.tables.entry(slot).or_insert_with(new).clone())
    }

    /// How products read `k` by `n` values in a piece of a buffer, where they are prepared at all:
    /// in `f32` or otherwise.
    fn kind(&self, graph: &Graph, piece: Piece, (n, k): (usize, usize), at: Matrix) -> Option<Option<Kind>> {
        let var = graph.vars.get(piece.slot as usize)?;
        let fixed = !graph.updates.iter().any(|u| u.0 == piece.slot);
        // What is broadcast is no matrix of weights; filters and the like belong to the code, not to the model.
        let table = matches!(var.init, Init::Table(_));
        let weight = var.ty.dtype == DType::F32 && fixed && n >= 16 && k >= 32 && at.row > 0 && at.col > 0;
        if !weight {
            return None;
        }
        let exact = self.weights.is_exact();
        let format = match self.weights.of(&var.name) {
            _ if table => None,
            WeightFormat::F32 => None,
            WeightFormat::Stored => {
                let encoding = self.lock().encodings.get(&piece.slot).copied();
                encoding.and_then(|encoding| Packed::takes(encoding, piece.offset, (n, k), at))
            }
            WeightFormat::Bf16 => Some(Format::Bf16),
            WeightFormat::F16 => Some(Format::F16),
            WeightFormat::Q8_0 => Some(Format::Q8_0),
            WeightFormat::Q4_0 => Some(Format::Q4_0),
            // Sums over more values than Int8 has room for stay exact in blocks.
            WeightFormat::Int8 if exact || k > 65_536 => Some(Format::Q8_0),
            WeightFormat::Int8 => Some(Format::Int8),
        };
        Some(format.map(|format| Kind { format, exact }))
    }

    /// Whether products read a buffer rounded, if it is such a matrix that they can.
    pub(super) fn may_round(&self, graph: &Graph, slot: u32) -> bool {
        let many = Piece { slot, offset: 0, len: 0 };
        // As if it were large, and lay as it would have to.
        self.rounds(graph, many, (1 << 20, 1 << 20), Matrix { row: 1, col: 1 << 20 })
    }

    /// Whether products read `k` by `n` values in a piece of a buffer rounded.
    pub(super) fn rounds(&self, graph: &Graph, piece: Piece, size: (usize, usize), at: Matrix) -> bool {
        matches!(self.kind(graph, piece, size, at), Some(Some(_)))
    }

    /// The handle of the right side of a product of `m` rows: `k` by `n` values in a piece of a
    /// buffer, at strides. Nothing where it is used as it is.
    pub(super) fn weight(
        &self,
        graph: &Graph,
        piece: Piece,
        (m, n, k): (usize, usize, usize),
        at: Matrix,
    ) -> Option<Arc<Weight>> {
        let kind = self.kind(graph, piece, (n, k), at)?;
        if kind.is_none() && !(self.weights.packs() && m > gemm::FEW_ROWS) {
            return None;
        }
        let place = Place { offset: piece.offset, n, k, at: (at.row, at.col) };
        let mut held = self.lock();
        let encoding = held.encodings.get(&piece.slot).copied();
        let new = || Weight { var: piece.slot, place, kind, encoding, state: RwLock::default() };
        Some(held.weights.entry((piece.slot, place)).or_insert_with(|| Arc::new(new())).clone())
    }

    /// Prepares what is new or has changed. Says whether all is prepared, so that nothing is to be
    /// done until a value changes.
    pub fn refresh(&self, graph: &Graph, values: &Values) -> bool {
        let mut held = self.lock();
        let mut all = true;
        held.weights.values().for_each(|w| all &= w.refresh(graph, values));
        held.tables.values().for_each(|t| t.refresh(graph, values));
        let plain = held.plain.iter_mut();
        plain.for_each(|(var, state)| all &= state.refresh(values, graph, *var, Form::Plain, true));
        all
    }

    /// The values of the variables that are needed in `f32` and have none, by their slots.
    pub fn plain(&self) -> Vec<(u32, Plain)> {
        let made = |(var, state): (&u32, &State)| Some((*var, Plain(state.made.clone()?)));
        self.lock().plain.iter().filter_map(made).collect()
    }

    /// What became of the weights that products of the sizes bound so far read, by name.
    pub fn report(&self, graph: &Graph) -> Vec<StoredWeight> {
        let mut all: Vec<StoredWeight> = self.lock().weights.values().map(|w| w.report(graph)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.size.cmp(&b.size)));
        all
    }
}

/// The values of a variable in `f32`, while a run reads them.
pub struct Plain(Arc<Made>);

impl std::ops::Deref for Plain {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.0.plain()
    }
}

impl Weight {
    fn report(&self, graph: &Graph) -> StoredWeight {
        let Place { n, k, .. } = self.place;
        let bytes = match self.lock().0.made.as_deref() {
            None => 0,
            Some(Made::Plain(data) | Made::Panels(data)) => data.len(),
            Some(Made::Rounded(w)) => w.bytes(),
        };
        let format = match (self.kind.map(|kind| kind.format), self.encoding) {
            (None, _) => WeightFormat::F32,
            (Some(Format::Bf16), _) => WeightFormat::Bf16,
            (Some(Format::F16), _) => WeightFormat::F16,
            (Some(Format::Q8_0), None | Some(Encoding::Blocks(Blocks::Q8_0))) => WeightFormat::Q8_0,
            (Some(Format::Q4_0), _) => WeightFormat::Q4_0,
            (Some(Format::Int8), _) => WeightFormat::Int8,
            (Some(_), _) => WeightFormat::Stored,
        };
        let name = graph.vars[self.var as usize].name.clone();
        StoredWeight { name, format, encoding: self.encoding, size: (n, k), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_shared_while_it_is_held() {
        let values: Vec<f32> = (0..64 * 16).map(|i| i as f32).collect();
        let place = Place { offset: 0, n: 16, k: 64, at: (1, 64) };
        // A version that no store gives.
        let values = Data::F32(values);
        let make = |form| Made::of(u64::MAX, form, &values);
        let rounded = Form::Rounded(place, Format::Q8_0.into());
        let (a, b, c) = (make(rounded), make(rounded), make(Form::Panels(place)));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
        let old = Arc::downgrade(&a);
        drop((a, b));
        assert!(old.upgrade().is_none());
        make(rounded);
    }
}
