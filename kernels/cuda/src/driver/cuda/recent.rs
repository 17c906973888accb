//! Which kernels an error may be of. A kernel runs after the call that launched it has returned, so its failure is told by
//! whatever call comes next: another launch, a copy, a wait. Errors after which the driver does nothing more in this
//! context are therefore errors of the kernels since the stream was last waited for, whoever is told of them.

use super::words;
use crate::driver::lock;
use crate::{CudaError, Launch};
use cudarc::driver::{DriverError, sys};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Kernels since the stream was last waited for.
#[derive(Default)]
pub(super) struct Recent(Mutex<BTreeSet<&'static str>>);

/// Whether an error is of a kernel that ran: the context is lost with it.
fn of_kernel(e: &DriverError) -> bool {
    use sys::CUresult as E;
    matches!(
        e.0,
        E::CUDA_ERROR_ILLEGAL_ADDRESS
            | E::CUDA_ERROR_LAUNCH_TIMEOUT
            | E::CUDA_ERROR_ASSERT
            | E::CUDA_ERROR_HARDWARE_STACK_ERROR
            | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | E::CUDA_ERROR_MISALIGNED_ADDRESS
            | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | E::CUDA_ERROR_INVALID_PC
            | E::CUDA_ERROR_LAUNCH_FAILED
            | E::CUDA_ERROR_ECC_UNCORRECTABLE
            | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | E::CUDA_ERROR_UNKNOWN
    )
}

impl Recent {
    pub fn add(&self, kernel: &'static str) {
        lock(&self.0).insert(kernel);
    }

    pub fn extend(&self, kernels: &BTreeSet<&'static str>) {
        lock(&self.0).extend(kernels);
    }

    /// Their names; from here on there are none.
    fn names(&self) -> String {
        let names: Vec<&str> = std::mem::take(&mut *lock(&self.0)).into_iter().collect();
        match names.len() {
            0 => "a kernel".into(),
            1 => names.concat(),
            _ => format!("{} (one of these; MOBILIS_CUDA_SYNC=1 tells which)", names.join(", ")),
        }
    }

    /// The error of a call.
    pub fn error(&self, call: &'static str, e: DriverError) -> CudaError {
        match of_kernel(&e) {
            true => CudaError::Launch { kernel: self.names(), message: format!("{}, told by {call}", words(e)) },
            false => CudaError::Driver { call, message: words(e) },
        }
    }

    /// The error of a launch: of what ran before it, or its own.
    pub fn refused(&self, launch: &Launch, e: DriverError) -> CudaError {
        if of_kernel(&e) && !lock(&self.0).is_empty() {
            return self.error("cuLaunchKernelEx", e);
        }
        let Launch { grid, block, shared, cluster, .. } = launch;
        let at = format!("(grid {grid:?}, block {block:?}, cluster {cluster:?}, {shared} bytes)");
        CudaError::Launch { kernel: launch.kernel.into(), message: format!("{} {at}", words(e)) }
    }

    /// What a wait found.
    pub fn waited(&self, result: Result<(), String>) -> Result<(), CudaError> {
        match result {
            Ok(()) => lock(&self.0).clear(),
            Err(message) => return Err(CudaError::Launch { kernel: self.names(), message }),
        }
        Ok(())
    }
}
