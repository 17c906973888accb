//! Models: a module joined with the values of its parameters.
//!
//! A module is a plain struct of declarations. A [`Model`] adds what a declaration lacks: the
//! sizes of run-time axes, the values (in a [`Store`] that all programs of the model share), and
//! which parameters are frozen. It dereferences to the module, so `model.embed` is the field.
//!
//! A model is made by [`Model::init`] with new values or by [`Model::load`] from a checkpoint.

use super::Module;
use super::catalog::{Catalog, Declared};
use super::error::ModelError;
use super::init::Key;
use super::param::{Role, Variable};
use super::pattern;
use super::store::{Data, Entry, Store};
use crate::array::{Array, HostOf};
use crate::graph::{DType, ExtentError, Sizes, VarId, VarKind};
use crate::language::element::{Element, Host};
use crate::language::shape::Shape;
use std::collections::BTreeSet;
use std::ops::Deref;

/// A module with sizes, values and the state of training.
pub struct Model<M> {
    module: M,
    catalog: Catalog,
    sizes: Sizes,
    store: Store,
    frozen: BTreeSet<VarId>,
}

/// A parameter or buffer of a model, as [`Model::parameters`] lists it.
#[derive(Clone, Debug)]
pub struct Parameter<'a> {
    /// The declaration: names, type, initializer.
    pub declared: &'a Declared,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// Whether training leaves it alone.
    pub frozen: bool,
}

impl Parameter<'_> {
    /// The name under which it is saved.
    pub fn name(&self) -> &str {
        self.declared.name()
    }

    /// How many values it holds.
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether a training step changes it.
    pub fn is_trainable(&self) -> bool {
        self.declared.kind == VarKind::Param && !self.frozen
    }
}

impl<M: Module> Model<M> {
    /// A model with new values, for a module whose axes all have static sizes. Equal seeds give
    /// equal values, parameter by parameter, by name.
    ///
    /// # Errors
    /// Two parameters of one name, a run-time axis, an initializer whose settings make no sense.
    pub fn init(module: M, seed: u64) -> Result<Model<M>, ModelError> {
        Self::init_with(module, seed, Sizes::new())
    }

    /// A model with new values, and sizes for the run-time axes of its parameters.
    ///
    /// # Errors
    /// Those of [`Model::init`]; every axis without a size, all at once; sizes that contradict.
    pub fn init_with(module: M, seed: u64, sizes: Sizes) -> Result<Model<M>, ModelError> {
        let catalog = Catalog::of(&module)?;
        let sizes = settled(sizes)?;
        let shapes = all_sizes(&catalog, &sizes)?;
        let model = Model::from_parts(module, catalog, sizes);
        for (declared, sizes) in model.catalog.vars().iter().zip(shapes) {
            let entry = new_entry(declared, &sizes, seed)?;
            model.store.lock().insert(declared.id, entry);
        }
        Ok(model)
    }

    /// A model without values yet.
    pub(super) fn from_parts(module: M, catalog: Catalog, sizes: Sizes) -> Model<M> {
        Model { module, catalog, sizes, store: Store::new(), frozen: BTreeSet::new() }
    }

    /// The module.
    pub fn module(&self) -> &M {
        &self.module
    }

    /// The sizes of the run-time axes of its parameters.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The values, shared with all programs of the model.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The variables by name, identity and order.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Every parameter and buffer, in the order of fields; tied ones once.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> + '_ {
        self.catalog.vars().iter().map(|declared| Parameter {
            declared,
            sizes: declared.ty.sizes(&self.sizes).expect("a model's sizes were evaluated when it was made"),
            frozen: self.frozen.contains(&declared.id),
        })
    }

    /// How many values the parameters hold, frozen ones too, tied ones once, buffers not.
    pub fn parameter_count(&self) -> usize {
        self.parameters().filter(|p| p.declared.kind == VarKind::Param).map(|p| p.count()).sum()
    }

    /// How many values a training step changes.
    pub fn trainable_count(&self) -> usize {
        self.parameters().filter(Parameter::is_trainable).map(|p| p.count()).sum()
    }

    /// Leaves the parameters that match a [`pattern`] alone in training:
    /// `model.freeze("blocks.*.attn.**")`. Gives back how many match. Applies to steps that are
    /// compiled from now on. A tied parameter is frozen at all its places.
    ///
    /// # Errors
    /// No parameter matches.
    pub fn freeze(&mut self, pattern: &str) -> Result<usize, ModelError> {
        let ids = self.matching(pattern)?;
        self.frozen.extend(&ids);
        Ok(ids.len())
    }

    /// Trains the parameters that match a pattern again. Gives back how many match.
    ///
    /// # Errors
    /// No parameter matches.
    pub fn unfreeze(&mut self, pattern: &str) -> Result<usize, ModelError> {
        let ids = self.matching(pattern)?;
        self.frozen.retain(|id| !ids.contains(id));
        Ok(ids.len())
    }

    /// Whether training leaves the parameter of this name alone.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.catalog.get(name).is_some_and(|d| self.frozen.contains(&d.id))
    }

    fn matching(&self, pattern: &str) -> Result<BTreeSet<VarId>, ModelError> {
        let matched = |d: &&Declared| d.names.iter().any(|n| pattern::matches(pattern, n));
        let (params, buffers): (Vec<_>, Vec<_>) =
            self.catalog.vars().iter().filter(matched).partition(|d| d.kind == VarKind::Param);
        if !params.is_empty() {
            return Ok(params.iter().map(|d| d.id).collect());
        }
        let hint = if let Some(buffer) = buffers.first() {
            format!(": `{}` is a buffer, which training leaves alone anyway", buffer.name())
        } else if self.catalog.modules().iter().any(|path| !path.is_empty() && pattern::matches(pattern, path)) {
            format!(": it means a module; did you mean `{pattern}.**`?")
        } else {
            let modules = self.catalog.modules().iter().map(|path| format!("{path}.**"));
            let names: Vec<String> = self.catalog.names().into_iter().map(String::from).chain(modules).collect();
            crate::suggest::did_you_mean(pattern, &names)
        };
        Err(ModelError::NoMatch { pattern: pattern.into(), hint })
    }

    /// The values of the parameter or buffer of this name, the last axis fastest.
    ///
    /// # Errors
    /// No such parameter, and values of another storage: `f32` for reals, `i32` for indices,
    /// `bool` for masks.
    pub fn get<T: Host>(&self, name: &str) -> Result<Vec<T>, ModelError> {
        self.read(self.catalog.find(name)?)
    }

    /// Gives the parameter or buffer of this name new values, the last axis fastest.
    ///
    /// # Errors
    /// No such parameter; values of another storage; too many or too few.
    pub fn set<T: Host>(&self, name: &str, values: &[T]) -> Result<(), ModelError> {
        self.write(self.catalog.find(name)?, values)
    }

    /// The value of a parameter or buffer: `model.value(&model.embed.weight)`.
    ///
    /// # Errors
    /// A variable that is no part of this model.
    pub fn value<S: Shape, E: Element, K: Role>(&self, var: &Variable<S, E, K>) -> Result<Array<S, E>, ModelError> {
        let declared = self.declared(var)?;
        let values: Vec<HostOf<E>> = self.read(declared)?;
        Ok(Array::from_parts(&self.sizes_of(declared), values))
    }

    /// Gives a parameter or buffer a new value: `model.set_value(&model.embed.weight, array)`.
    ///
    /// # Errors
    /// A variable that is no part of this model, and an array of other sizes.
    pub fn set_value<S: Shape, E: Element, K: Role>(
        &self,
        var: &Variable<S, E, K>,
        value: &Array<S, E>,
    ) -> Result<(), ModelError> {
        let declared = self.declared(var)?;
        let expected = self.sizes_of(declared);
        if value.sizes() != expected {
            let (name, shape, found) = (declared.name().into(), declared.ty.to_string(), value.sizes().to_vec());
            return Err(ModelError::Shape { name, shape, expected, found });
        }
        self.write(declared, value.data())
    }

    fn declared(&self, var: &dyn super::AnyVar) -> Result<&Declared, ModelError> {
        self.catalog.vars().iter().find(|d| d.id == var.id()).ok_or(ModelError::NotOfThisModel)
    }

    fn sizes_of(&self, declared: &Declared) -> Vec<usize> {
        declared.ty.sizes(&self.sizes).expect("a model's sizes were evaluated when it was made")
    }

    fn read<T: Host>(&self, declared: &Declared) -> Result<Vec<T>, ModelError> {
        let store = self.store.lock();
        let entry = store.get(declared.id).ok_or(ModelError::NotOfThisModel)?;
        check_dtype::<T>(declared)?;
        Ok(match &entry.data {
            // The storages that hold more than the host type are read through `f64`, exactly.
            Data::F32(v) => v.iter().map(|v| T::from_f64(*v as f64)).collect(),
            Data::F64(v) => v.iter().map(|v| T::from_f64(*v)).collect(),
            Data::I32(v) => v.iter().map(|v| T::from_f64(*v as f64)).collect(),
            Data::Bool(v) => v.iter().map(|v| T::from_f64(*v as f64)).collect(),
            Data::Encoded(v) => v.values().into_iter().map(|v| T::from_f64(v.into())).collect(),
        })
    }

    fn write<T: Host>(&self, declared: &Declared, values: &[T]) -> Result<(), ModelError> {
        check_dtype::<T>(declared)?;
        let expected: usize = self.sizes_of(declared).iter().product();
        if values.len() != expected {
            let (name, shape, found) = (declared.name().into(), declared.ty.to_string(), values.len());
            return Err(ModelError::Count { name, shape, expected, found });
        }
        let mut store = self.store.lock();
        let entry = store.get_mut(declared.id).ok_or(ModelError::NotOfThisModel)?;
        match &mut entry.data {
            Data::F32(v) => v.iter_mut().zip(values).for_each(|(v, x)| *v = x.to_f64() as f32),
            Data::F64(v) => v.iter_mut().zip(values).for_each(|(v, x)| *v = x.to_f64()),
            Data::I32(v) => v.iter_mut().zip(values).for_each(|(v, x)| *v = x.to_f64() as i32),
            Data::Bool(v) => v.iter_mut().zip(values).for_each(|(v, x)| *v = u8::from(x.to_f64() != 0.0)),
            Data::Encoded(_) => unreachable!("`get_mut` gives values that can be written to"),
        }
        Ok(())
    }
}

/// `Model<Gpt>(1234567 parameters)`; [`Model::summary`] says more.
impl<M: Module> std::fmt::Debug for Model<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model<{}>({} parameters)", self.module.kind(), self.parameter_count())
    }
}

impl<M> Deref for Model<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.module
    }
}

fn check_dtype<T: Host>(declared: &Declared) -> Result<(), ModelError> {
    match (declared.ty.dtype, T::DTYPE) {
        (expected, found) if expected == found => Ok(()),
        (expected, found) => Err(ModelError::DType { name: declared.name().into(), expected, found }),
    }
}

/// Sizes after checking them against each other.
pub(super) fn settled(sizes: Sizes) -> Result<Sizes, ModelError> {
    sizes.settled().map_err(|source| ModelError::Sizes { of: "sizes of the model".into(), source })
}

/// The sizes of every variable.
pub(super) fn all_sizes(catalog: &Catalog, sizes: &Sizes) -> Result<Vec<Vec<usize>>, ModelError> {
    let mut unbound: Vec<(String, String)> = Vec::new();
    let mut out = Vec::with_capacity(catalog.vars().len());
    for declared in catalog.vars() {
        match declared.ty.sizes(sizes) {
            Ok(found) => {
                let bytes = found.iter().try_fold(8usize, |a, b| a.checked_mul(*b));
                if !found.contains(&0) && bytes.is_none_or(|n| n > isize::MAX as usize) {
                    return Err(ModelError::TooLarge { name: declared.name().into(), sizes: found });
                }
                out.push(found);
            }
            Err(ExtentError::Unbound { .. }) => {
                let mut symbols = Vec::new();
                declared.ty.dims.iter().for_each(|d| d.extent.symbols(&mut symbols));
                for tag in symbols.into_iter().filter(|tag| sizes.get(*tag).is_none()) {
                    if !unbound.iter().any(|(axis, _)| axis == tag.name) {
                        unbound.push((tag.name.into(), declared.name().into()));
                    }
                }
            }
            Err(source) => return Err(ModelError::Sizes { of: format!("parameter `{}`", declared.name()), source }),
        }
    }
    if unbound.is_empty() { Ok(out) } else { Err(ModelError::Unbound { axes: unbound }) }
}

/// A variable's initial value.
pub(super) fn new_entry(declared: &Declared, sizes: &[usize], seed: u64) -> Result<Entry, ModelError> {
    let name = declared.name();
    if let Some(fault) = declared.init.fault() {
        return Err(ModelError::Init { name: name.into(), fault });
    }
    let values = declared.init.fill(sizes, Key::new(seed, name));
    let data = match declared.ty.dtype {
        DType::F32 => Data::F32(values),
        DType::I32 => Data::I32(values.into_iter().map(|v| v as i32).collect()),
        DType::Bool => Data::Bool(values.into_iter().map(|v| u8::from(v != 0.0)).collect()),
    };
    Ok(Entry::new(name, sizes, data))
}
