//! The kernels' text.

/// A file of kernels.
pub struct Source {
    /// Its name without `.cu`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
    /// Machine code by architecture, 90 for `sm_90a`: where nvcc was found when this was built.
    pub cubins: &'static [(u32, &'static [u8])],
    /// PTX for `compute_80`, likewise.
    pub ptx: Option<&'static str>,
}

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The file that holds a kernel.
pub fn of(kernel: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|s| s.kernels.contains(&kernel))
}
