//! Weights made ready for products once, not in every run.
//!
//! In a program that does not update a variable, a matrix that is the variable (or a part of it,
//! transposed or not) need not be packed or rounded anew in each run. While lowering, a product
//! asks [`Lower::weight`](super::lower::Lower::weight) for a handle of its right side; all sizes
//! that the program was bound to share it. Before every run [`Prepared::refresh`] compares the
//! version of each variable with the one that was prepared, so a training step or a loaded
//! checkpoint shows in the next run. The product reads the handle with [`Weight::lock`].
//!
//! What is done, by the program's [`Weights`]:
//! * other formats than `F32`: rounded and packed before the first run with a value;
//! * `F32`, multiplied by more than [`gemm::FEW_ROWS`] rows: packed before the *second* run with a
//!   value, for a value that changes between all runs would be packed for nothing. Until then, and
//!   where packing is switched off, the product reads the variable itself, with the same result;
//! * matrices of fewer than 16 channels or 32 values each: left as they are.
//!
//! Versions are never given twice, so what was made of one is right wherever it is met: the
//! programs of a model (a prompt's and a step's) share it through a shelf.

use crate::graph::{DType, Graph};
use crate::module::store::{Data, Values};
use crate::program::{StoredWeight, WeightFormat, Weights};
use mobilis_kernels::cpu::gemm::{self, Matrix, Panels, Right};
use mobilis_kernels::cpu::quant::{self, Format, Packed};
use mobilis_kernels::large::Large;
use mobilis_kernels::memory::Piece;
use mobilis_kernels::pool::Pool;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

/// A matrix in a variable: `k` by `n` values from `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Place {
    offset: usize,
    n: usize,
    k: usize,
    at: (usize, usize),
}

enum Made {
    Panels(Large),
    Rounded(Packed),
}

/// What was made of a version of a variable's value, while a program holds it.
type Shelf = HashMap<(u64, Place, Option<Format>), Weak<Made>>;
static SHELF: LazyLock<Mutex<Shelf>> = LazyLock::new(Mutex::default);

impl Made {
    /// What is on the shelf, or new.
    fn of(version: u64, place: Place, format: Option<Format>, values: &[f32]) -> Arc<Made> {
        let shelf = || SHELF.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (version, place, format);
        if let Some(made) = shelf().get(&key).and_then(Weak::upgrade) {
            return made;
        }
        let Place { offset, n, k, at } = place;
        let (values, at) = (&values[offset.min(values.len())..], Matrix { row: at.0, col: at.1 });
        let made = Arc::new(match format {
            Some(format) => Made::Rounded(Packed::new(Pool::global(), format, (n, k), values, at)),
            None => {
                let mut panels = Large::floats(gemm::packed_len(n, k));
                gemm::pack_b(Pool::global(), (n, k), values, at, panels.as_f32_mut());
                Made::Panels(panels)
            }
        });
        let mut shelf = shelf();
        shelf.retain(|_, made| made.strong_count() > 0);
        shelf.insert(key, Arc::downgrade(&made));
        made
    }
}

struct State {
    /// The variable's version that the last run saw.
    seen: Option<u64>,
    made: Option<Arc<Made>>,
}

/// The right side of a product, prepared.
pub struct Weight {
    var: u32,
    place: Place,
    format: Option<Format>,
    state: RwLock<State>,
}

/// A weight while a run reads it.
pub struct Ready<'a>(RwLockReadGuard<'a, State>, &'a Weight);

impl Weight {
    /// Scratch floats that it adds to a product of `m` rows.
    pub fn scratch(&self, m: usize) -> usize {
        self.format.map_or(0, |format| quant::scratch_len(m, format, self.place.k))
    }

    /// The weight as this run has it.
    pub fn lock(&self) -> Ready<'_> {
        Ready(self.state.read().unwrap_or_else(PoisonError::into_inner), self)
    }

    fn refresh(&self, graph: &Graph, values: &Values) {
        let id = graph.vars[self.var as usize].id;
        let (version, Some(entry)) = (values.version(id), values.get(id)) else { return };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let known = state.seen == version;
        let Data::F32(data) = &entry.data else { return };
        if !known {
            state.made = None;
        }
        if state.made.is_none() && (known || self.format.is_some()) {
            state.made = version.map(|version| Made::of(version, self.place, self.format, data));
        }
        state.seen = version;
    }
}

impl Ready<'_> {
    /// The right side for a product; `plain` is the variable's part that holds the matrix.
    pub fn right<'a>(&'a self, plain: &'a [f32]) -> Right<'a> {
        let Place { n, k, at, .. } = self.1.place;
        match self.0.made.as_deref() {
            None => Right::Plain(plain, Matrix { row: at.0, col: at.1 }),
            Some(Made::Panels(data)) => Right::Packed(Panels::new(data.as_f32(), n, k)),
            Some(Made::Rounded(w)) => Right::Rounded(w),
        }
    }
}

/// All prepared weights of a program.
pub struct Prepared {
    weights: Weights,
    made: Mutex<HashMap<(u32, Place), Arc<Weight>>>,
}

impl Prepared {
    /// None yet; they are asked for while sizes are bound.
    pub fn new(weights: Weights) -> Prepared {
        Prepared { weights, made: Mutex::new(HashMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u32, Place), Arc<Weight>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The format in which products read a buffer with `n` channels of `k` values, where it is
    /// prepared at all.
    fn format(&self, graph: &Graph, slot: u32, (n, k): (usize, usize)) -> Option<WeightFormat> {
        let var = graph.vars.get(slot as usize)?;
        let fixed = !graph.updates.iter().any(|u| u.0 == slot);
        let weight = var.ty.dtype == DType::F32 && fixed && n >= 16 && k >= 32;
        weight.then(|| self.weights.of(&var.name))
    }

    /// Whether products read a buffer with `n` channels of `k` values rounded.
    pub(super) fn rounds(&self, graph: &Graph, slot: u32, size: (usize, usize)) -> bool {
        self.format(graph, slot, size).is_some_and(|format| format != WeightFormat::F32)
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
        let format = format(self.format(graph, piece.slot, (n, k))?);
        // What is broadcast is no matrix of weights.
        if at.row == 0 || at.col == 0 || format.is_none() && !(self.weights.packs() && m > gemm::FEW_ROWS) {
            return None;
        }
        // Sums over more values than Int8 has room for stay exact in blocks.
        let format = format.map(|f| if f == Format::Int8 && k > 65_536 { Format::Q8_0 } else { f });
        let place = Place { offset: piece.offset, n, k, at: (at.row, at.col) };
        let state = RwLock::new(State { seen: None, made: None });
        let new = || Weight { var: piece.slot, place, format, state };
        Some(self.lock().entry((piece.slot, place)).or_insert_with(|| Arc::new(new())).clone())
    }

    /// Prepares what is new or has changed.
    pub fn refresh(&self, graph: &Graph, values: &Values) {
        self.lock().values().for_each(|w| w.refresh(graph, values));
    }

    /// What became of the weights that products of the sizes bound so far read, by name.
    pub fn report(&self, graph: &Graph) -> Vec<StoredWeight> {
        let mut all: Vec<StoredWeight> = self.lock().values().map(|w| w.report(graph)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.size.cmp(&b.size)));
        all
    }
}

impl Weight {
    fn report(&self, graph: &Graph) -> StoredWeight {
        let Place { n, k, .. } = self.place;
        let bytes = match self.lock().0.made.as_deref() {
            None => 0,
            Some(Made::Panels(data)) => data.len(),
            Some(Made::Rounded(w)) => w.bytes(),
        };
        let format = match self.format {
            None => WeightFormat::F32,
            Some(Format::Bf16) => WeightFormat::Bf16,
            Some(Format::F16) => WeightFormat::F16,
            Some(Format::Q8_0) => WeightFormat::Q8_0,
            Some(Format::Q4_0) => WeightFormat::Q4_0,
            Some(Format::Int8) => WeightFormat::Int8,
        };
        StoredWeight { name: graph.vars[self.var as usize].name.clone(), format, size: (n, k), bytes }
    }
}

fn format(format: WeightFormat) -> Option<Format> {
    match format {
        WeightFormat::F32 => None,
        WeightFormat::Bf16 => Some(Format::Bf16),
        WeightFormat::F16 => Some(Format::F16),
        WeightFormat::Q8_0 => Some(Format::Q8_0),
        WeightFormat::Q4_0 => Some(Format::Q4_0),
        WeightFormat::Int8 => Some(Format::Int8),
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
        let make = |format| Made::of(u64::MAX, place, format, &values);
        let (a, b, c) = (make(Some(Format::Q8_0)), make(Some(Format::Q8_0)), make(None));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
        let old = Arc::downgrade(&a);
        drop((a, b));
        assert!(old.upgrade().is_none());
        make(Some(Format::Q8_0));
    }
}
