//! What a program keeps between runs: what was prepared for the last sets of sizes, and one arena.
//!
//! A program is bound to each set of sizes that comes; recordings and texts have many. Only one of them runs
//! at a time and nothing in an arena outlives a run, so all compute in the same memory, as much as the largest
//! needs.

use crate::devices::cpu::Bound;
use crate::graph::Value;
use crate::module::store::Data;
use mobilis_kernels::memory::Arena;
use std::collections::HashMap;

/// How many sets of sizes stay prepared; the least recently used makes room.
pub(super) const PREPARED: usize = 8;

/// A graph prepared for a set of sizes.
pub(super) struct Prepared {
    pub given: Vec<usize>,
    pub bound: Bound,
    pub var_sizes: Vec<Vec<usize>>,
    /// The variables' buffers while a run has taken them out of the store.
    pub vars: Vec<Data>,
    pub result_sizes: HashMap<Value, Vec<usize>>,
}

/// What a program keeps between runs. All sizes compute in the same memory, for only one of them runs.
#[derive(Default)]
pub(super) struct Kept {
    /// The last used is the last.
    pub sizes: Vec<Prepared>,
    pub arena: Arena,
}

impl Kept {
    /// Nothing is prepared any more, nor is there memory.
    pub fn clear(&mut self) {
        *self = Kept::default();
    }

    pub fn last(&self) -> Option<&Prepared> {
        self.sizes.last()
    }

    /// Keeps what was prepared, in place of what was not used for longest where there is too much.
    pub fn push(&mut self, prepared: Prepared) {
        if self.sizes.len() == PREPARED {
            self.sizes.remove(0);
        }
        self.sizes.push(prepared);
        self.arena.fit(self.sizes.iter().map(|p| p.bound.arena_bytes()).max().unwrap_or(0));
    }
}
