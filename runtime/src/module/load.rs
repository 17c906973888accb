//! Models from checkpoints, and back.
//!
//! Loading is strict: every tensor of the checkpoint must be a parameter or buffer of the model,
//! and the other way round, with the same shape. What differs is listed all at once, with the
//! nearest names, in a [`Mismatch`]. Exceptions are explicit, in [`LoadOptions`]. Sizes of
//! run-time axes need not be given: they are solved from the shapes of the tensors.
//!
//! Tensors come from a safetensors checkpoint, by its path, or from any [`Source`].

use super::Module;
use super::catalog::{Catalog, Declared};
use super::encoded::{Encoded, Files, kept};
use super::error::ModelError;
use super::mismatch::{Mismatch, Tensor};
use super::model::{Model, all_sizes, new_entry, settled};
use super::pattern;
use super::store::{Data, Entry};
use crate::checkpoint::{CheckpointError, Encoding, Origin, Source, TensorInfo, Writer, values, write::SHARD_BYTES};
use crate::graph::{AxisTag, ExtentError, Sizes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// How a checkpoint's tensors are matched with a model's parameters.
///
/// ```no_run
/// # extern crate mobilis_runtime as mobilis;
/// # use mobilis::prelude::*;
/// # #[neural_module] struct Net { scale: Param<(Const<3>,)> }
/// let model = LoadOptions::new().prefix("encoder.").allow_unexpected().load(Net::default(), "model.safetensors")?;
/// # Ok::<(), ModelError>(())
/// ```
#[derive(Clone, Default)]
pub struct LoadOptions {
    sizes: Sizes,
    allow_missing: bool,
    allow_unexpected: bool,
    prefix: String,
    rename: Option<Rename>,
    only: Vec<String>,
    past: Vec<String>,
    seed: u64,
    as_stored: bool,
}

type Rename = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl LoadOptions {
    /// Strict, names as they are.
    pub fn new() -> LoadOptions {
        LoadOptions::default()
    }

    /// Sizes of run-time axes, which are otherwise solved from the tensors' shapes.
    #[must_use]
    pub fn sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// Parameters that the checkpoint lacks keep their values, new ones where there are none yet.
    #[must_use]
    pub fn allow_missing(mut self) -> Self {
        self.allow_missing = true;
        self
    }

    /// Tensors that the model lacks are passed over.
    #[must_use]
    pub fn allow_unexpected(mut self) -> Self {
        self.allow_unexpected = true;
        self
    }

    /// Reads only the tensors whose names start with `prefix`, which the model's names lack:
    /// `"model."` for `model.embed.weight`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The checkpoint's name of each of the model's names, before the prefix.
    #[must_use]
    pub fn rename(mut self, rename: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.rename = Some(Arc::new(rename));
        self
    }

    /// Loads only the parameters whose names match a [`pattern`], or lie in a module
    /// whose name does: `encoder`, `encoder.*` and `layers.?.mlp.**.weight` are all right. The others
    /// keep their values, new ones where there are none yet, and the checkpoint's tensors that do
    /// not match are passed over. Called again, it adds a pattern.
    #[must_use]
    pub fn only(mut self, pattern: &str) -> Self {
        self.only.push(pattern.into());
        self
    }

    /// Tensors whose names match a [`pattern`] are passed over: what a checkpoint has that no model
    /// needs, such as `**.position_ids`. Called again, it adds a pattern.
    #[must_use]
    pub fn passing_over(mut self, pattern: &str) -> Self {
        self.past.push(pattern.into());
        self
    }

    /// Matrices (and tensors of more dimensions) stay as the file stores them where that is 16 bits a
    /// value or a block format: in a large file's mapped pages, otherwise copied, and never in
    /// `f32`. Programs multiply by such weights as they are; the default,
    /// [`WeightFormat::Stored`](crate::program::WeightFormat::Stored), says how. Vectors become `f32`,
    /// and so does what training or [`Model::set`] writes to.
    ///
    /// A mapped file must not be shortened while the model lives: see [`mobilis_kernels::bytes`].
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.as_stored = true;
        self
    }

    /// The seed of parameters that the checkpoint lacks.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes a model with the values of a checkpoint: a path, or a `&dyn Source`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`](crate::Checkpoint::open); a [`Mismatch`]; values that do not
    /// fit; axes whose size does not follow from any tensor.
    pub fn load<M: Module>(&self, module: M, from: impl Origin) -> Result<Model<M>, ModelError> {
        let catalog = Catalog::of(&module)?;
        let checkpoint = from.source()?;
        let (sizes, found) = self.fit(module.kind(), &catalog, &*checkpoint, settled(self.sizes.clone())?)?;
        let shapes = all_sizes(&catalog, &sizes)?;
        if !checkpoint.has_values() {
            return Ok(Model::from_parts(module, catalog, sizes));
        }
        let (mut entries, mut files) = (Vec::new(), Files::default());
        for ((declared, sizes), places) in catalog.vars().iter().zip(&shapes).zip(&found) {
            entries.push(match self.read(module.kind(), declared, places, &*checkpoint, false, &mut files)? {
                Some(data) => Entry::new(declared.name(), sizes, data),
                None => new_entry(declared, sizes, self.seed)?,
            });
        }
        let model = Model::from_parts(module, catalog, sizes);
        let mut store = model.store().lock();
        for (declared, entry) in model.catalog().vars().iter().zip(entries) {
            store.insert(declared.id, entry);
        }
        drop(store);
        Ok(model)
    }

    /// Gives a model, and all programs made from it, the checkpoint's values. The model's own sizes
    /// count. A failure leaves the model as it was.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_into<M: Module>(&self, model: &Model<M>, from: impl Origin) -> Result<(), ModelError> {
        let checkpoint = from.source()?;
        let kind = model.module().kind();
        let (_, found) = self.fit(kind, model.catalog(), &*checkpoint, model.sizes().clone())?;
        let mut store = model.store().lock();
        let (mut values, mut files) = (Vec::new(), Files::default());
        for (declared, places) in model.catalog().vars().iter().zip(&found) {
            if let Some(data) = self.read(kind, declared, places, &*checkpoint, store.is_reference(), &mut files)? {
                values.push((declared.id, data));
            }
        }
        for (id, data) in values {
            if let Some((name, sizes)) = store.get(id).map(|entry| (entry.name.clone(), entry.sizes.clone())) {
                store.insert(id, Entry::new(name, &sizes, data));
            }
        }
        Ok(())
    }

    /// The checkpoint's name of one of the model's names.
    fn wanted(&self, name: &str) -> String {
        let name = self.rename.as_ref().map_or_else(|| name.to_string(), |rename| rename(name));
        format!("{}{name}", self.prefix)
    }

    /// Whether a parameter of this name is to be loaded.
    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|p| within(p, name))
    }

    /// A pattern that no parameter matches is a mistake.
    fn check_only(&self, catalog: &Catalog) -> Result<(), ModelError> {
        let names = catalog.names();
        match self.only.iter().find(|p| !names.iter().any(|n| within(p, n))) {
            None => Ok(()),
            Some(pattern) => {
                let hint =
                    crate::suggest::did_you_mean(pattern, catalog.modules().iter().map(String::as_str).chain(names));
                Err(ModelError::NoMatch { pattern: pattern.clone(), hint })
            }
        }
    }

    /// Matches names and shapes: the sizes of axes, and for every variable the checkpoint's names
    /// that hold it (several where it is tied, none where it is missing).
    fn fit(
        &self,
        kind: &'static str,
        catalog: &Catalog,
        checkpoint: &dyn Source,
        sizes: Sizes,
    ) -> Result<(Sizes, Vec<Vec<String>>), ModelError> {
        self.check_only(catalog)?;
        let mut mismatch = Mismatch::new(checkpoint.path(), kind);
        let mut taken: BTreeSet<String> = BTreeSet::new();
        let mut found: Vec<Vec<String>> = Vec::new();
        for declared in catalog.vars() {
            let places: BTreeSet<String> =
                declared.names.iter().filter(|n| self.takes(n)).map(|n| self.wanted(n)).collect();
            let there: Vec<String> = places.into_iter().filter(|n| checkpoint.info(n).is_some()).collect();
            taken.extend(there.iter().cloned());
            found.push(there);
        }
        let solved = Solved::new(catalog, &found, checkpoint, sizes);
        for (declared, places) in catalog.vars().iter().zip(&found) {
            if places.is_empty() && !self.allow_missing && declared.names.iter().any(|n| self.takes(n)) {
                let name = self.wanted(declared.name());
                mismatch.missing.push(Tensor { name, shape: solved.shape(declared), hint: String::new() });
            }
            for place in places {
                let stored = checkpoint.find(place)?;
                if let Some(fault) = solved.fault(declared, &stored) {
                    mismatch.misshapen.push(Tensor { name: place.clone(), shape: fault, hint: String::new() });
                } else if !values::readable(stored.encoding, declared.ty.dtype) {
                    let fault = format!("the model holds {}, the file {}", declared.ty.dtype, stored.encoding);
                    mismatch.mistyped.push(Tensor { name: place.clone(), shape: fault, hint: String::new() });
                }
            }
        }
        if !self.allow_unexpected {
            for name in checkpoint.names() {
                let wanted = name.strip_prefix(&self.prefix).is_some_and(|name| self.takes(name));
                let passed = self.past.iter().any(|p| pattern::matches(p, name));
                if wanted && !passed && !taken.contains(name) {
                    let shape = format!("{:?}", checkpoint.find(name)?.sizes);
                    mismatch.unexpected.push(Tensor { name: name.into(), shape, hint: String::new() });
                }
            }
        }
        mismatch.finish(checkpoint)?;
        Ok((solved.sizes, found))
    }

    /// The value of a variable: that of its first place, which the others must equal.
    fn read(
        &self,
        kind: &'static str,
        declared: &Declared,
        places: &[String],
        checkpoint: &dyn Source,
        wide: bool,
        files: &mut Files,
    ) -> Result<Option<Data>, ModelError> {
        let mut read = |name: &str| -> Result<Data, CheckpointError> {
            let info = checkpoint.find(name)?;
            let encoding = kept(info.encoding).filter(|_| self.as_stored && !wide && info.sizes.len() > 1);
            let Some(encoding) = encoding else { return checkpoint.read(name, declared.ty.dtype, wide) };
            let bytes = files.bytes(checkpoint.raw(name)?)?;
            match Encoded::new(encoding, info.count(), bytes) {
                Some(values) => Ok(Data::Encoded(values)),
                None => checkpoint.read(name, declared.ty.dtype, wide),
            }
        };
        let Some((first, others)) = places.split_first() else { return Ok(None) };
        let value = read(first)?;
        for other in others {
            if !same(&value, &read(other)?) {
                let mut mismatch = Mismatch::new(checkpoint.path(), kind);
                mismatch.untied.push((first.clone(), other.clone()));
                return Err(Box::new(mismatch).into());
            }
        }
        Ok(Some(value))
    }
}

/// Whether a pattern matches a name, or that of a module that it lies in.
fn within(pattern: &str, name: &str) -> bool {
    let modules = name.match_indices('.').map(|(at, _)| &name[..at]);
    modules.chain([name]).any(|n| pattern::matches(pattern, n))
}

/// Equal bit by bit, so that a NaN equals itself.
fn same(a: &Data, b: &Data) -> bool {
    match (a, b) {
        (Data::F32(a), Data::F32(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
        (Data::F64(a), Data::F64(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
        (Data::Encoded(a), Data::Encoded(b)) if a == b => true,
        (Data::Encoded(_), _) | (_, Data::Encoded(_)) => same(&a.dense(), &b.dense()),
        (a, b) => a == b,
    }
}

/// Sizes of run-time axes, and from which tensor each was learnt.
struct Solved {
    sizes: Sizes,
    origin: BTreeMap<AxisTag, String>,
}

impl Solved {
    fn new(catalog: &Catalog, found: &[Vec<String>], checkpoint: &dyn Source, sizes: Sizes) -> Solved {
        let mut solved = Solved { sizes, origin: BTreeMap::new() };
        let dims: Vec<_> = catalog
            .vars()
            .iter()
            .zip(found)
            .filter_map(|(declared, places)| places.first().map(|place| (declared, place)))
            .filter_map(|(declared, place)| checkpoint.info(place).map(|stored| (declared, place, stored)))
            .filter(|(declared, _, stored)| declared.ty.rank() == stored.sizes.len())
            .flat_map(|(declared, place, stored)| {
                declared.ty.dims.iter().zip(stored.sizes).map(move |(dim, size)| (&dim.extent, size, place))
            })
            .collect();
        // An axis may follow only once another is known: each round learns one, or is the last.
        loop {
            let learnt = dims.iter().find_map(|(e, n, place)| e.solve(*n, &solved.sizes).map(|s| (s, *place)));
            let Some(((tag, size), place)) = learnt else { return solved };
            solved.sizes.set(tag, size);
            solved.origin.insert(tag, place.clone());
        }
    }

    /// A variable's shape in axis names, with sizes where they are known: `[Vocab=256, Hidden=64]`.
    fn shape(&self, declared: &Declared) -> String {
        let dims = declared.ty.dims.iter().map(|d| match (d.extent.as_constant(), d.extent.eval(&self.sizes)) {
            (None, Ok(n)) => format!("{d}={n}"),
            _ => d.to_string(),
        });
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }

    /// How a stored shape differs from the declared one.
    fn fault(&self, declared: &Declared, stored: &TensorInfo) -> Option<String> {
        let both = || format!("the model has {}, the file {:?}", self.shape(declared), stored.sizes);
        if declared.ty.rank() != stored.sizes.len() {
            return Some(both());
        }
        let facts: Vec<String> = declared
            .ty
            .dims
            .iter()
            .zip(&stored.sizes)
            .filter_map(|(dim, size)| {
                let axis = dim.axis.name;
                match dim.extent.eval(&self.sizes) {
                    Ok(n) if n == *size => None,
                    Ok(n) => Some(format!("`{axis}` is {n}{}, not {size}", self.learnt(&dim.extent))),
                    Err(ExtentError::Unbound { .. }) if dim.extent.admits(*size, &self.sizes) => None,
                    Err(ExtentError::Unbound { .. }) => Some(format!("`{axis}` = {} is never {size}", dim.extent)),
                    Err(e) => Some(format!("`{axis}`: {e}")),
                }
            })
            .collect();
        (!facts.is_empty()).then(|| format!("{}: {}", both(), facts.join("; ")))
    }

    /// ` (Hidden = 64 from `embed.weight`)`
    fn learnt(&self, extent: &crate::graph::Extent) -> String {
        let mut symbols = Vec::new();
        extent.symbols(&mut symbols);
        let facts: Vec<String> = symbols
            .iter()
            .filter_map(|tag| {
                let (size, place) = (self.sizes.get(*tag)?, self.origin.get(tag)?);
                Some(format!("{} = {size} from `{place}`", tag.name))
            })
            .collect();
        if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) }
    }
}

/// How a model is written.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// How reals are stored; `None` keeps the store's precision.
    pub reals: Option<Encoding>,
    /// Directories get parts of at most so many bytes of values.
    pub shard_bytes: u64,
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions { reals: None, shard_bytes: SHARD_BYTES }
    }
}

impl<M: Module> Model<M> {
    /// A model with a checkpoint's values: a safetensors file, an index, a directory of either, or a
    /// `&dyn Source`. Sizes of run-time axes follow from the shapes of the tensors.
    ///
    /// # Errors
    /// As for [`LoadOptions::load`], strictly.
    pub fn load(module: M, from: impl Origin) -> Result<Model<M>, ModelError> {
        LoadOptions::new().load(module, from)
    }

    /// As [`load`](Self::load), with sizes for run-time axes: for those that no tensor tells, or
    /// to insist on them.
    ///
    /// # Errors
    /// As for [`LoadOptions::load`], strictly.
    pub fn load_with(module: M, from: impl Origin, sizes: Sizes) -> Result<Model<M>, ModelError> {
        LoadOptions::new().sizes(sizes).load(module, from)
    }

    /// Writes parameters and buffers, tied ones once under their first name, whole or not at all:
    /// a failure leaves an older checkpoint intact. A path that ends in `.safetensors` means one
    /// file, any other a directory with `model.safetensors`, or parts and an index above 5 GB.
    ///
    /// # Errors
    /// Those of the system, with the file that could not be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        self.save_with(path, &SaveOptions::default())
    }

    /// As [`save`](Self::save), with a precision and a size of parts.
    ///
    /// # Errors
    /// As for [`save`](Self::save), and an encoding that is not for reals.
    pub fn save_with(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<(), ModelError> {
        let store = self.store().lock();
        // Weights have PyTorch's layout; its loaders ask for this mark.
        let mut writer = Writer::new().metadata("format", "pt").shard_bytes(options.shard_bytes);
        for declared in self.catalog().vars() {
            let entry = store.get(declared.id).ok_or(ModelError::NotOfThisModel)?;
            let (name, sizes, data) = (declared.name(), &entry.sizes, &entry.data);
            writer = match (options.reals, data) {
                (Some(encoding), Data::F32(_) | Data::F64(_) | Data::Encoded(_)) => {
                    writer.add_as(name, sizes, data, encoding)?
                }
                _ => writer.add(name, sizes, data)?,
            };
        }
        Ok(writer.save(path)?)
    }
}
