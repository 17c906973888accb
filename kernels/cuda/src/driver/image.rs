//! From a kernel's text to what a device loads: an embedded cubin of its architecture, else embedded PTX,
//! else what NVRTC makes of the text, kept on disk.
//!
//! A cubin runs on its own major architecture from its minor on; one for `sm_90a` on 9.0 alone. PTX for
//! `compute_80` runs on everything newer, without Hopper's own instructions. So NVRTC is asked where nothing
//! is embedded (no nvcc when this was built), and for kernels whose text is made at run time.

use crate::CudaError;
use crate::generated;
use crate::sources::{self, HEADERS, Source};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// The text of a kernel.
pub(super) struct Text {
    /// The file's name without `.cu`, or the name of a kernel that was made at run time.
    pub file: &'static str,
    text: &'static str,
    source: Option<&'static Source>,
}

impl Text {
    /// The text that holds a kernel.
    pub fn of(kernel: &str) -> Option<Text> {
        if let Some(made) = generated::of(kernel) {
            return Some(Text { file: made.name, text: made.text, source: None });
        }
        sources::of(kernel).map(|s| Text { file: s.file, text: s.text, source: Some(s) })
    }
}

/// Where a device's code for a file comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Embedded machine code for this architecture, 90 for `sm_90a`.
    Cubin(u32),
    /// Embedded PTX for `compute_80`, which the driver compiles.
    Ptx,
    /// The text, which NVRTC compiles for the device when it is first used.
    Nvrtc,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Cubin(90) => f.write_str("cubin sm_90a"),
            Choice::Cubin(n) => write!(f, "cubin sm_{n}"),
            Choice::Ptx => f.write_str("PTX compute_80"),
            Choice::Nvrtc => f.write_str("NVRTC"),
        }
    }
}

/// The version of NVRTC.
///
/// # Errors
/// That it is not here.
pub fn nvrtc() -> Result<String, CudaError> {
    super::nvrtc::version()
}

/// What a device of this compute capability uses of a file.
pub fn choice(source: &Source, capability: u32) -> Choice {
    let runs = |arch: u32| match arch {
        90 => capability == 90,
        _ => arch / 10 == capability / 10 && arch <= capability,
    };
    match source.cubins.iter().map(|c| c.0).filter(|a| runs(*a)).max() {
        Some(arch) => Choice::Cubin(arch),
        None if source.ptx.is_some() && capability >= 80 => Choice::Ptx,
        None => Choice::Nvrtc,
    }
}

/// What `cuModuleLoadData` takes.
pub(super) fn load(text: &Text, capability: u32) -> Result<Cow<'static, [u8]>, CudaError> {
    let Some(source) = text.source else { return compiled(text, capability).map(Cow::Owned) };
    match choice(source, capability) {
        Choice::Cubin(arch) => {
            let cubin = source.cubins.iter().find(|c| c.0 == arch).map_or(&[][..], |c| c.1);
            Ok(Cow::Borrowed(cubin))
        }
        Choice::Ptx => {
            let mut ptx = source.ptx.unwrap_or_default().as_bytes().to_vec();
            ptx.push(0);
            Ok(Cow::Owned(ptx))
        }
        Choice::Nvrtc => compiled(text, capability).map(Cow::Owned),
    }
}

/// The architecture that NVRTC compiles for.
fn architecture(capability: u32) -> String {
    if capability == 90 { "sm_90a".into() } else { format!("sm_{capability}") }
}

/// The cubin that NVRTC makes, from the disk where it is there.
fn compiled(text: &Text, capability: u32) -> Result<Vec<u8>, CudaError> {
    let version = super::nvrtc::version()?;
    let arch = architecture(capability);
    let all =
        HEADERS.iter().flat_map(|h| [h.0, h.1]).chain([text.text, &version, &arch]).collect::<Vec<_>>().join("\0");
    let path = folder().map(|f| f.join(format!("{}-{arch}-{:016x}.cubin", text.file, generated::hash(&all))));
    if let Some(known) = path.as_ref().and_then(|p| std::fs::read(p).ok()) {
        return Ok(known);
    }
    let cubin = super::nvrtc::compile(text.file, text.text, &arch)?;
    // A cache that cannot be written costs time, nothing else.
    if let Some(path) = path {
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let folder = path.parent().map(std::fs::create_dir_all);
        if folder.is_some_and(|made| made.is_ok()) && std::fs::write(&new, &cubin).is_ok() {
            let _ = std::fs::rename(&new, &path);
        }
    }
    Ok(cubin)
}

/// Where compiled kernels are kept: `MOBILIS_KERNEL_CACHE`, else `mobilis/kernels` in the user's cache folder.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("MOBILIS_KERNEL_CACHE") {
        return Some(folder.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.map(|cache| cache.join("mobilis/kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_its_code() {
        static CUBINS: &[(u32, &[u8])] = &[(80, &[]), (89, &[]), (90, &[])];
        let source = Source { file: "x", text: "", kernels: &[], cubins: CUBINS, ptx: Some("") };
        for (capability, expected) in [
            (80, Choice::Cubin(80)),
            (86, Choice::Cubin(80)),
            (89, Choice::Cubin(89)),
            (90, Choice::Cubin(90)),
            (100, Choice::Ptx),
            (120, Choice::Ptx),
            (75, Choice::Nvrtc),
        ] {
            assert_eq!(choice(&source, capability), expected, "{capability}");
        }
        let text = Source { cubins: &[], ptx: None, ..source };
        assert_eq!(choice(&text, 90), Choice::Nvrtc);
    }

    /// Every file for both architectures, where NVRTC is (`MOBILIS_CUDA_LIBRARIES` names its folder).
    #[test]
    fn nvrtc_compiles_every_file() {
        match crate::driver::nvrtc::version() {
            Ok(version) => eprintln!("NVRTC {version}"),
            Err(e) => return eprintln!("skipped: {e}"),
        }
        let files = sources::SOURCES.iter().map(|s| (s.file, s.text));
        let mut failures = vec![];
        for (file, text) in files {
            for capability in [80, 90] {
                match crate::driver::nvrtc::compile(file, text, &architecture(capability)) {
                    Ok(cubin) => assert!(cubin.starts_with(b"\x7fELF"), "{file}"),
                    Err(e) => failures.push(e.to_string()),
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
