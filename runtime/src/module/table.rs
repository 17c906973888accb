//! Tables: arrays that are known when a graph is traced, such as filters and windows.
//!
//! A table is a state that starts with its values and that nothing changes: a program holds it, a
//! checkpoint does not.

use super::init::Init;
use crate::graph::trace::{self, Handle};
use crate::graph::{DType, Dim, TensorType, VarDecl, VarId, VarKind};
use std::sync::Arc;

/// Values that belong to the code and not to a checkpoint, for use in graphs.
#[derive(Clone, Debug)]
pub struct Table {
    id: VarId,
    name: &'static str,
    values: Arc<[f32]>,
}

impl Table {
    /// A table of these values, row-major. `name` is what drawings show.
    pub fn new(name: &'static str, values: impl Into<Arc<[f32]>>) -> Table {
        Table { id: VarId::fresh(), name, values: values.into() }
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The table in the graph that is being traced, with these dimensions wherever it is used. Where
    /// their sizes at run time are not those of the values, the program says so.
    pub fn get(&self, dims: Vec<Dim>) -> Handle {
        let decl = || VarDecl {
            id: self.id,
            name: format!("{}{}", self.name, self.id.0),
            ty: TensorType::new(dims, DType::F32),
            kind: VarKind::State,
            init: Init::Table(self.values.clone()),
            frozen: true,
        };
        trace::variable(decl, self.id)
    }
}
