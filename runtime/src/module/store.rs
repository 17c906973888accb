//! The values of variables: what programs read, train and save.
//!
//! A [`Store`] maps the identity of a parameter, buffer or state to its value. It is a shared
//! handle: all programs of a model and the model itself hold clones of one store, so that a
//! training step's update is seen by the next generation step, and nothing is copied between
//! them. A program locks the store for a whole run and works on the buffers in place.
//!
//! Real values are `f32`, as the CPU computes; for the reference device
//! [`Store::to_reference`] widens them to `f64`, so that its steps are not rounded between runs.
//! Matrices may stay as a file stores them ([`Encoded`]) until something writes to them.
//!
//! A GPU keeps a copy of its own ([`OnDevice`]), with the number of the change that it holds. What a run
//! there writes stays there until the host asks for the value.

use super::encoded::Encoded;
use crate::devices::Device;
use crate::graph::{DType, VarId};
use mobilis_kernels::large::gather_pages;
use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Row-major values in one storage.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Real numbers, single precision.
    F32(Vec<f32>),
    /// Real numbers as the reference device holds them.
    F64(Vec<f64>),
    /// Whole numbers.
    I32(Vec<i32>),
    /// Truth values, each 0 or 1.
    Bool(Vec<u8>),
    /// Real numbers as a file stores them.
    Encoded(Encoded),
}

impl Data {
    /// `count` zeros in the storage of a program on an ordinary device.
    pub fn zeros(dtype: DType, count: usize) -> Data {
        match dtype {
            DType::F32 => Data::F32(vec![0.0; count]),
            DType::I32 => Data::I32(vec![0; count]),
            DType::Bool => Data::Bool(vec![0; count]),
        }
    }

    /// Values given as the reference device's numbers, rounded to the storage of an ordinary
    /// device. Whole numbers saturate; every number but 0 is true.
    pub fn from_f64(dtype: DType, values: &[f64]) -> Data {
        match dtype {
            DType::F32 => Data::F32(values.iter().map(|v| *v as f32).collect()),
            DType::I32 => Data::I32(values.iter().map(|v| *v as i32).collect()),
            DType::Bool => Data::Bool(values.iter().map(|v| (*v != 0.0) as u8).collect()),
        }
    }

    /// The values as the reference device's numbers: exact for every storage.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Data::F32(v) => v.iter().map(|v| *v as f64).collect(),
            Data::F64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|v| *v as f64).collect(),
            Data::Bool(v) => v.iter().map(|v| *v as f64).collect(),
            Data::Encoded(v) => v.values().into_iter().map(f64::from).collect(),
        }
    }

    /// The same values each in memory: those of [`Data::Encoded`] as `f32`.
    pub fn dense(&self) -> Cow<'_, Data> {
        match self {
            Data::Encoded(v) => Cow::Owned(Data::F32(v.values())),
            dense => Cow::Borrowed(dense),
        }
    }

    /// Makes `f32` of values that are stored otherwise, so that they can be written to.
    pub fn materialize(&mut self) {
        if let Data::Encoded(v) = self {
            *self = Data::F32(v.values());
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::Bool(v) => v.len(),
            Data::Encoded(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage in the graph that these values fill; real numbers are `F32` at either precision.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) | Data::F64(_) | Data::Encoded(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Real numbers widened to `f64`; other storages are kept.
    #[must_use]
    pub fn widened(self) -> Data {
        match self {
            Data::F32(v) => Data::F64(v.into_iter().map(f64::from).collect()),
            Data::Encoded(v) => Data::F64(v.values().into_iter().map(f64::from).collect()),
            other => other,
        }
    }

    /// Real numbers rounded to `f32`; other storages are kept.
    #[must_use]
    pub fn narrowed(self) -> Data {
        match self {
            Data::F64(v) => Data::F32(v.into_iter().map(|v| v as f32).collect()),
            other => other,
        }
    }
}

/// One variable's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The checkpoint name.
    pub name: String,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// The values, the last dimension fastest.
    pub data: Data,
}

impl Entry {
    /// An entry from its parts.
    ///
    /// # Panics
    /// When the number of values is not the product of the sizes.
    pub fn new(name: impl Into<String>, sizes: &[usize], data: Data) -> Entry {
        let name = name.into();
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "values do not fill {sizes:?} of `{name}`");
        // Weights are read from front to back, or in far rows: both are faster in huge pages.
        if let Data::F32(values) = &data {
            gather_pages(values);
        }
        Entry { name, sizes: sizes.to_vec(), data }
    }
}

/// A value's copy on a device.
pub trait OnDevice: Any + Send + Sync {
    /// The values.
    ///
    /// # Errors
    /// What the device says.
    fn fetch(&self) -> Result<Data, String>;
}

/// An entry, the number of its last change, and its copy on a device.
struct Held {
    /// Without values while the host is behind.
    entry: Entry,
    version: u64,
    /// The copy and the number of the change that it holds.
    device: Option<(u64, Arc<dyn OnDevice>)>,
    /// Where only the device has the values: they, once they were asked for.
    behind: Option<OnceLock<Option<Entry>>>,
}

impl Held {
    fn new(entry: Entry) -> Held {
        Held { entry, version: next_version(), device: None, behind: None }
    }

    /// The entry with its values; nothing where the device does not give them.
    fn get(&self) -> Option<&Entry> {
        let Some(behind) = &self.behind else { return Some(&self.entry) };
        behind.get_or_init(|| self.fetch()).as_ref()
    }

    fn fetch(&self) -> Option<Entry> {
        let Entry { name, sizes, .. } = &self.entry;
        match self.device.as_ref()?.1.fetch() {
            Ok(data) => Some(Entry { name: name.clone(), sizes: sizes.clone(), data }),
            Err(message) => {
                eprintln!("mobilis: the values of `{name}` are lost: {message}");
                None
            }
        }
    }

    /// The same, with the values on the host from now on.
    fn settled(&mut self) -> Option<&mut Held> {
        if let Some(behind) = self.behind.take() {
            match behind.into_inner().unwrap_or_else(|| self.fetch()) {
                Some(entry) => self.entry = entry,
                None => {
                    self.behind = Some(OnceLock::from(None));
                    return None;
                }
            }
        }
        Some(self)
    }
}

impl Clone for Held {
    /// On the host alone.
    fn clone(&self) -> Held {
        match self.get() {
            Some(entry) => Held { entry: entry.clone(), version: self.version, device: None, behind: None },
            None => Held {
                entry: self.entry.clone(),
                version: self.version,
                device: None,
                behind: Some(OnceLock::from(None)),
            },
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("entry", &self.entry).field("version", &self.version).finish_non_exhaustive()
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.get() == other.get()
    }
}

/// A number that no change has had before, in any store.
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Spreads the numbers of variables, which count up, over a table: every run looks up all of them.
#[derive(Clone, Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }
    fn write_u64(&mut self, x: u64) {
        self.0 = (self.0 ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// All values of a store, while it is locked.
#[derive(Clone, Debug, Default)]
pub struct Values {
    entries: HashMap<VarId, Held, BuildHasherDefault<Spread>>,
    device: Device,
    /// The number of the last change of any value.
    changed: u64,
}

impl PartialEq for Values {
    fn eq(&self, other: &Values) -> bool {
        self.entries == other.entries && self.device == other.device
    }
}

#[cfg(feature = "cuda")]
impl Values {
    /// The copy of a variable's value on a device, and whether it holds the last change.
    pub(crate) fn on_device(&self, id: VarId) -> Option<(&Arc<dyn OnDevice>, bool)> {
        let held = self.entries.get(&id)?;
        held.device.as_ref().map(|(version, copy)| (copy, *version == held.version))
    }

    /// How a variable's value is stored, where that is not one number after the other.
    pub(crate) fn encoding(&self, id: VarId) -> Option<super::encoded::Encoding> {
        match &self.entries.get(&id)?.entry.data {
            Data::Encoded(stored) => Some(stored.encoding()),
            _ => None,
        }
    }

    /// Keeps a copy that holds a variable's value as it is.
    pub(crate) fn keep_on_device(&mut self, id: VarId, copy: Arc<dyn OnDevice>) {
        if let Some(held) = self.entries.get_mut(&id).and_then(Held::settled) {
            held.device = Some((held.version, copy));
        }
    }

    /// Notes that a run has changed a variable's copy on the device: the value is there alone.
    pub(crate) fn changed_on_device(&mut self, id: VarId) {
        let Some(held) = self.entries.get_mut(&id) else { return };
        let version = next_version();
        self.changed = version;
        if let Some((known, _)) = &mut held.device {
            (*known, held.version) = (version, version);
            held.entry.data = Data::Bool(Vec::new());
            held.behind = Some(OnceLock::new());
        }
    }
}

impl Values {
    /// The value of a variable, where it has one.
    pub fn get(&self, id: VarId) -> Option<&Entry> {
        self.entries.get(&id)?.get()
    }

    /// The sizes of a variable's value, where it has one.
    pub fn sizes(&self, id: VarId) -> Option<&[usize]> {
        self.entries.get(&id).map(|held| held.entry.sizes.as_slice())
    }

    /// The value of a variable, to be changed in place: `f32` where it was stored otherwise. Counts as
    /// a change.
    pub fn get_mut(&mut self, id: VarId) -> Option<&mut Entry> {
        let held = self.entries.get_mut(&id)?.settled()?;
        held.version = next_version();
        self.changed = held.version;
        held.entry.data.materialize();
        Some(&mut held.entry)
    }

    /// Makes `f32` of a variable's values if they are stored otherwise, so that a run can write to
    /// them. Counts as a change only then.
    pub(crate) fn materialize(&mut self, id: VarId) {
        if self.entries.get(&id).is_some_and(|held| matches!(held.entry.data, Data::Encoded(_))) {
            self.get_mut(id);
        }
    }

    /// A number that is another one after every change of the variable's value: what was computed
    /// from the value holds as long as it stays. Nothing for a variable without a value.
    pub fn version(&self, id: VarId) -> Option<u64> {
        self.entries.get(&id).map(|held| held.version)
    }

    /// A number that is another one after every change of any value.
    pub(crate) fn changed(&self) -> u64 {
        self.changed
    }

    /// The values of a variable, to be lent to a run and given back as they were.
    pub(crate) fn lend(&mut self, id: VarId) -> Option<&mut Data> {
        Some(&mut self.entries.get_mut(&id)?.settled()?.entry.data)
    }

    /// Gives a variable a value, at the store's precision. Gives back the one that it had.
    pub fn insert(&mut self, id: VarId, mut entry: Entry) -> Option<Entry> {
        entry.data = if self.is_reference() { entry.data.widened() } else { entry.data.narrowed() };
        let mut held = Held::new(entry);
        self.changed = held.version;
        let mut old = self.entries.remove(&id);
        // The device writes the new value over the old one.
        held.device = old.as_mut().and_then(|old| old.settled()?.device.take());
        self.entries.insert(id, held);
        old.map(|held| held.entry)
    }

    /// Forgets a variable's value.
    pub fn remove(&mut self, id: VarId) -> Option<Entry> {
        self.changed = next_version();
        let mut held = self.entries.remove(&id)?;
        held.settled()?;
        Some(held.entry)
    }

    /// Whether a variable has a value.
    pub fn contains(&self, id: VarId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether real numbers are held as `f64`, for the reference device.
    pub fn is_reference(&self) -> bool {
        self.device == Device::Reference
    }

    /// The device that the values are held for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Every variable with a value, sorted by name and then identity.
    pub fn iter(&self) -> impl Iterator<Item = (VarId, &Entry)> + '_ {
        let mut all: Vec<(VarId, &Entry)> =
            self.entries.iter().filter_map(|(id, held)| Some((*id, held.get()?))).collect();
        all.sort_by(|a, b| a.1.name.cmp(&b.1.name).then(a.0.cmp(&b.0)));
        all.into_iter()
    }

    /// How many variables have a value.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no variable has a value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn set_device(&mut self, device: Device) {
        let wide = device == Device::Reference;
        let same = wide == self.is_reference();
        self.device = device;
        if same {
            return;
        }
        for held in self.entries.values_mut().filter_map(Held::settled) {
            held.version = next_version();
            self.changed = held.version;
            held.device = None;
            let data = std::mem::replace(&mut held.entry.data, Data::Bool(Vec::new()));
            held.entry.data = if wide { data.widened() } else { data.narrowed() };
        }
    }
}

/// The values of variables, shared by a model and its programs. A clone is the same store.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Values>>);

impl Store {
    /// An empty store with real numbers as `f32`.
    pub fn new() -> Store {
        Store::default()
    }

    /// The values, for this thread alone until the guard drops. A run that panicked may have left
    /// some variables updated and others not; the lock is given all the same, for every value is
    /// still one that was written whole.
    pub fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds real numbers as `f64` from now on, as the reference device needs them.
    pub fn to_reference(&self) {
        self.set_device(Device::Reference);
    }

    /// Holds real numbers as `f32` from now on, rounding those that are `f64`.
    pub fn to_single(&self) {
        self.set_device(Device::Cpu);
    }

    /// Holds values for a device from now on: real numbers as `f64` for the reference device, else `f32`.
    pub fn set_device(&self, device: Device) {
        self.lock().set_device(device);
    }

    /// Seeds the random operations of all programs that share this store: the same seed gives the
    /// same numbers, run by run. Without it the seed is 0. PyTorch: `torch.manual_seed`.
    pub fn seed(&self, seed: u32) {
        let key = Data::I32(vec![seed.cast_signed(), 0]);
        self.lock().insert(crate::graph::trace::RNG, Entry::new("rng", &[2], key));
    }

    /// A store of its own with the same values.
    #[must_use]
    pub fn deep_clone(&self) -> Store {
        Store(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Whether both are one store.
    pub fn same(&self, other: &Store) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_and_deep_clones_do_not() {
        let store = Store::new();
        let (shared, own) = (store.clone(), store.deep_clone());
        store.lock().insert(VarId(1), Entry::new("w", &[2], Data::F32(vec![1.0, 2.0])));
        assert_eq!(shared.lock().get(VarId(1)).map(|e| e.name.clone()), Some("w".into()));
        assert!(own.lock().is_empty());
        assert!(store.same(&shared) && !store.same(&own));
        if let Some(entry) = shared.lock().get_mut(VarId(1)) {
            entry.data = Data::F32(vec![3.0, 4.0]);
        }
        assert_eq!(store.lock().get(VarId(1)).map(|e| e.data.clone()), Some(Data::F32(vec![3.0, 4.0])));
    }

    #[test]
    fn precision_follows_the_store() {
        let store = Store::new();
        store.lock().insert(VarId(1), Entry::new("w", &[1], Data::F64(vec![0.1])));
        store.lock().insert(VarId(2), Entry::new("n", &[1], Data::I32(vec![7])));
        let real = |store: &Store| store.lock().get(VarId(1)).map(|e| e.data.clone());
        assert_eq!(real(&store), Some(Data::F32(vec![0.1])));
        store.to_reference();
        assert_eq!(real(&store), Some(Data::F64(vec![0.1f32 as f64])));
        store.lock().insert(VarId(3), Entry::new("v", &[1], Data::F32(vec![0.5])));
        assert_eq!(store.lock().get(VarId(3)).map(|e| e.data.clone()), Some(Data::F64(vec![0.5])));
        assert_eq!(store.lock().get(VarId(2)).map(|e| e.data.clone()), Some(Data::I32(vec![7])));
        store.to_single();
        assert_eq!(real(&store), Some(Data::F32(vec![0.1])));
    }

    #[test]
    fn versions_tell_changes() {
        let store = Store::new();
        let version = |store: &Store| store.lock().version(VarId(1));
        assert_eq!(version(&store), None);
        store.lock().insert(VarId(1), Entry::new("w", &[1], Data::F32(vec![0.1])));
        let first = version(&store);
        let copy = store.deep_clone();
        assert_eq!(version(&copy), first);
        store.lock().lend(VarId(1)).expect("it has a value");
        assert_eq!(version(&store), first);
        store.lock().get_mut(VarId(1)).expect("it has a value");
        copy.lock().get_mut(VarId(1)).expect("it has a value");
        assert!(first.is_some() && version(&store) != first && version(&copy) != first);
        assert_ne!(version(&store), version(&copy));
        assert_eq!(store.lock().get(VarId(1)), copy.lock().get(VarId(1)));
    }

    #[test]
    fn stored_values_stay_until_they_are_written_to() {
        use mobilis_kernels::cpu::quant::Encoding;
        let halves = [0x3c00u16, 0xc000, 0x3800].iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(Encoded::new(Encoding::F16, 2, halves.clone()), None);
        let data = Data::Encoded(Encoded::new(Encoding::F16, 3, halves).expect("three halves"));
        assert_eq!((data.len(), data.dtype(), data.to_f64()), (3, DType::F32, vec![1.0, -2.0, 0.5]));
        let store = Store::new();
        store.lock().insert(VarId(1), Entry::new("w", &[3], data.clone()));
        let (copy, wide) = (store.deep_clone(), store.deep_clone());
        assert_eq!(copy.lock().get(VarId(1)).map(|e| e.data.clone()), Some(data.clone()));
        assert_eq!(*data.dense(), Data::F32(vec![1.0, -2.0, 0.5]));
        wide.to_reference();
        assert_eq!(wide.lock().get(VarId(1)).map(|e| e.data.clone()), Some(Data::F64(vec![1.0, -2.0, 0.5])));
        let before = store.lock().version(VarId(1));
        if let Some(Entry { data: Data::F32(values), .. }) = store.lock().get_mut(VarId(1)) {
            values[1] = 7.0;
        }
        assert_eq!(store.lock().get(VarId(1)).map(|e| e.data.clone()), Some(Data::F32(vec![1.0, 7.0, 0.5])));
        assert_ne!(store.lock().version(VarId(1)), before);
        assert_eq!(copy.lock().get(VarId(1)).map(|e| e.data.clone()), Some(data));
    }

    #[test]
    fn order_is_by_name() {
        let store = Store::new();
        for (id, name) in [(1, "c"), (2, "a"), (3, "b")] {
            store.lock().insert(VarId(id), Entry::new(name, &[], Data::Bool(vec![1])));
        }
        let names: Vec<String> = store.lock().iter().map(|(_, e)| e.name.clone()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_panic_while_locked_does_not_lock_others_out() {
        let store = Store::new();
        let held = store.clone();
        let _ = std::thread::spawn(move || {
            let _guard = held.lock();
            panic!("on purpose");
        })
        .join();
        assert!(store.lock().is_empty());
    }
}
