//! What a run borrows from the store.

use crate::graph::Graph;
use crate::module::store::{Data, Values};

/// The variables' buffers, moved out of the store for a run and put back when it ends, however
/// it ends. Moving a vector copies no values.
pub(super) struct Taken<'r, 'v> {
    pub graph: &'r Graph,
    pub values: &'r mut std::sync::MutexGuard<'v, Values>,
    pub vars: &'r mut Vec<Data>,
}

impl Taken<'_, '_> {
    pub fn take(&mut self) {
        self.vars.clear();
        for decl in &self.graph.vars {
            if let Some(data) = self.values.lend(decl.id) {
                self.vars.push(std::mem::replace(data, Data::Bool(Vec::new())));
            }
        }
    }
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        for (decl, data) in self.graph.vars.iter().zip(self.vars.drain(..)) {
            if let Some(lent) = self.values.lend(decl.id) {
                *lent = data;
            }
        }
        // What the run wrote to has changed, whether it came to its end or not.
        for (var, _) in &self.graph.updates {
            self.values.get_mut(self.graph.vars[*var as usize].id);
        }
    }
}
