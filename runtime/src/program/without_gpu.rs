//! Stands in for GPUs in builds without the feature `cuda`.

use super::ProgramError;
use super::executable::Executable;
use super::host::HostRef;
use super::weights::StoredWeight;
use crate::devices::cpu::Out;
use crate::devices::cuda::{self, Fallback};
use crate::graph::Graph;

/// What was prepared: nothing.
#[derive(Default)]
pub(super) struct Programs {}

impl Programs {
    pub(super) fn memory(&self) -> Option<(usize, usize)> {
        None
    }

    pub(super) fn moved(&self) -> Option<usize> {
        None
    }

    pub(super) fn copies(&self) -> Option<usize> {
        None
    }

    pub(super) fn weights(&self, _: &Graph) -> Vec<StoredWeight> {
        vec![]
    }

    pub(super) fn kernels(&self) -> Vec<&'static str> {
        vec![]
    }

    pub(super) fn fallbacks(&self) -> Vec<Fallback> {
        vec![]
    }
}

impl Executable {
    pub(super) fn run_on_gpu(
        &self,
        _: &[HostRef],
        _: &mut dyn FnMut(usize, &[usize], Out),
    ) -> Result<(), ProgramError> {
        match cuda::open(self.device()) {
            Ok(gpu) => match gpu {},
            Err(message) => Err(ProgramError::Lower(message)),
        }
    }
}
