//! The list of a module's variables: each once, with every name that it has.

use super::init::Init;
use super::{Item, Module, walk};
use crate::graph::{TensorType, VarId, VarKind};
use crate::module::error::ModelError;
use std::collections::HashMap;

/// A parameter or buffer of a module.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The identity.
    pub id: VarId,
    /// The names of the places that it has, in the order of fields: more than one when it is tied.
    /// Checkpoints hold it under the first.
    pub names: Vec<String>,
    /// Dimensions and storage.
    pub ty: TensorType,
    /// What it is for.
    pub kind: VarKind,
    /// How a new one is filled.
    pub init: Init,
}

impl Declared {
    /// The name under which it is saved.
    pub fn name(&self) -> &str {
        &self.names[0]
    }
}

/// Every variable of a module, in the order of fields.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    vars: Vec<Declared>,
    by_name: HashMap<String, usize>,
    modules: Vec<String>,
}

impl Catalog {
    /// Lists the variables of a module.
    ///
    /// # Errors
    /// Two different variables of one name.
    pub fn of(module: &dyn Module) -> Result<Catalog, ModelError> {
        let mut catalog = Catalog::default();
        let mut by_id: HashMap<VarId, usize> = HashMap::new();
        let mut twice = None;
        walk(module, &mut |path, item| match item {
            Item::Module(_) => catalog.modules.push(path.to_string()),
            Item::Hyper(_) => {}
            Item::Var(var) => {
                let index = *by_id.entry(var.id()).or_insert_with(|| {
                    let (id, ty, kind, init) = (var.id(), var.ty(), var.var_kind(), var.init());
                    catalog.vars.push(Declared { id, names: Vec::new(), ty, kind, init });
                    catalog.vars.len() - 1
                });
                match catalog.by_name.insert(path.to_string(), index) {
                    None => catalog.vars[index].names.push(path.to_string()),
                    Some(other) if other == index => {}
                    Some(_) => twice = twice.take().or(Some(path.to_string())),
                }
            }
        });
        match twice {
            Some(name) => Err(ModelError::TwoOfOneName { name }),
            None => Ok(catalog),
        }
    }

    /// Every variable, in the order of fields; tied ones once.
    pub fn vars(&self) -> &[Declared] {
        &self.vars
    }

    /// The variable that has the name at one of its places.
    ///
    /// # Errors
    /// No such variable; the error has the nearest name.
    pub fn find(&self, name: &str) -> Result<&Declared, ModelError> {
        self.get(name).ok_or_else(|| ModelError::NoSuchParameter {
            name: name.into(),
            hint: crate::suggest::did_you_mean(name, self.names()),
        })
    }

    /// The variable that has the name at one of its places, where there is one.
    pub fn get(&self, name: &str) -> Option<&Declared> {
        self.by_name.get(name).map(|i| &self.vars[*i])
    }

    /// Every name, those of tied variables at each place, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The paths of all modules; the root's is empty.
    pub fn modules(&self) -> &[String] {
        &self.modules
    }
}
