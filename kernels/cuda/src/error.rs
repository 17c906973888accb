//! What can go wrong between a program and a device.

/// Why a device cannot do what it was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CudaError {
    /// No driver, no device, or one that is too old: what was looked for and what was found.
    #[error("no CUDA device: {0}")]
    Unavailable(String),
    /// Sizes, strides or alignments that a kernel does not take.
    #[error("{kernel}: {message}")]
    Refused {
        /// The kernel or family.
        kernel: &'static str,
        /// What was expected and what was found.
        message: String,
    },
    /// Memory that the device does not have.
    #[error("the device has no {asked} bytes left ({free} of {total} bytes are free): {wanted_for}")]
    OutOfMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
        /// What they were to hold.
        wanted_for: String,
    },
    /// A kernel could not be compiled or loaded.
    #[error("{file}.cu cannot be compiled for this device: {message}")]
    Compile {
        /// The file.
        file: String,
        /// The compiler's words.
        message: String,
    },
    /// A launch failed. The device gives no result after it.
    #[error("{kernel} failed: {message}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// The driver's or the emulator's words.
        message: String,
    },
    /// The driver refused something else.
    #[error("{call}: {message}")]
    Driver {
        /// The call.
        call: &'static str,
        /// The driver's words.
        message: String,
    },
}
