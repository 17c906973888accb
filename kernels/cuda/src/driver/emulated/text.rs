//! Kernels whose text was made at run time, for the emulator: each becomes a shared library of its own that
//! leans on the library of all others, and is kept on disk under its name and that library's.

use super::{Kernel, unavailable};
use crate::CudaError;
use crate::generated::Generated;
use libloading::Library;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// What was loaded, by kernel.
pub(super) struct Texts {
    /// The library of all other kernels, with the emulator in it.
    base: PathBuf,
    loaded: Mutex<HashMap<&'static str, Library>>,
}

impl Texts {
    pub(super) fn new(base: PathBuf) -> Texts {
        Texts { base, loaded: Mutex::default() }
    }

    pub(super) fn kernel(&self, generated: &Generated) -> Result<Kernel, CudaError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if !loaded.contains_key(generated.name) {
            let path = self.library(generated)?;
            // SAFETY: it was made from a text of this crate; it has no initialisers but C++'s own.
            let library = unsafe { Library::new(&path) };
            let library = library.map_err(|e| unavailable(format!("{}: {e}", path.display())))?;
            loaded.insert(generated.name, library);
        }
        let name = format!("cuemu_{}", generated.name);
        // SAFETY: `CUEMU_EXPORT` gives the symbol this type; libraries stay loaded as long as `self`.
        let symbol = unsafe { loaded[generated.name].get::<Kernel>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| CudaError::Launch { kernel: generated.name.into(), message: e.to_string() })
    }

    /// The library of one kernel, compiled where it is not there yet.
    fn library(&self, generated: &Generated) -> Result<PathBuf, CudaError> {
        let name = generated.name;
        let base = self.base.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = self.base.with_file_name(format!("{name}-{base}.so"));
        if path.exists() {
            return Ok(path);
        }
        let failed = |e: std::io::Error| unavailable(format!("{}: {e}", path.display()));
        // Others may compile the same at the same time: each under a name of its own.
        let own = format!("{name}-{}-{:?}", std::process::id(), std::thread::current().id());
        let (source, new) =
            (self.base.with_file_name(format!("{own}.cu")), self.base.with_file_name(format!("{own}.so")));
        fs::write(&source, generated.text).map_err(failed)?;
        let mut command = Command::new(super::compiler());
        command.args(super::flags()).args(["-include", "cuemu.h", "-shared"]).arg(&source);
        let done = command.args(["-x", "none"]).arg(&self.base).arg("-o").arg(&new).output().map_err(failed)?;
        if !done.status.success() {
            let message = format!("{}\n{}", String::from_utf8_lossy(&done.stderr), generated.text);
            return Err(CudaError::Compile { file: name.into(), message });
        }
        fs::rename(&new, &path).map_err(failed)?;
        fs::remove_file(&source).map_err(failed)?;
        Ok(path)
    }
}
