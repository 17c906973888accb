//! The kernels' text.

/// A file of kernels.
pub struct Source {
    /// Its name without `.cu`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The file that holds a kernel.
pub fn of(kernel: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|s| s.kernels.contains(&kernel))
}
