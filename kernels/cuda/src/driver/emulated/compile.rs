//! From a file of kernels to a shared library: the emulator's objects and the file's own, each kept under a hash of what
//! it was made from (text, headers, flags, compiler).
//!
//! A library holds one file, so that a family's tests compile that family alone. Kernels are compiled with
//! `-fsanitize=thread`, whose calls the emulator answers itself (`kernels/emu/memory.cpp`), or, where
//! `MOBILIS_CUDA_EMULATOR_FLAGS` asks for another sanitizer, with that.

use crate::CudaError;
use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler, what it is told, and where what it makes is kept.
pub(super) struct Toolchain {
    compiler: OsString,
    flags: Vec<String>,
    sources: PathBuf,
    out: PathBuf,
    /// Of compiler, flags and the emulator's text.
    emulator: u64,
    /// Of what every kernel includes.
    headers: u64,
}

pub(super) fn unavailable(message: impl Into<String>) -> CudaError {
    CudaError::Unavailable(message.into())
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder_of_emulator() -> PathBuf {
    here().join("../emu")
}

fn read(path: &Path) -> Result<Vec<u8>, CudaError> {
    fs::read(path).map_err(|e| unavailable(format!("{}: {e}", path.display())))
}

fn compiler() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"))
}

/// What the compiler says of itself.
fn version() -> Result<String, CudaError> {
    if !folder_of_emulator().is_dir() {
        let folder = folder_of_emulator();
        return Err(unavailable(format!(
            "the emulator needs the sources of Mobilis: {} is not here",
            folder.display()
        )));
    }
    let compiler = compiler();
    let output = Command::new(&compiler).arg("--version").output().map_err(|e| {
        unavailable(format!(
            "the emulator needs a C++17 compiler: {} cannot be run ({e}); set CXX",
            compiler.to_string_lossy()
        ))
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The compiler that the emulator would use, without using it.
///
/// # Errors
/// No C++ compiler, or no sources.
pub fn found() -> Result<String, CudaError> {
    version().map(|text| text.lines().next().unwrap_or_default().to_owned())
}

impl Toolchain {
    /// With the kernels of a folder: by default `MOBILIS_CUDA_SOURCES`, else this crate's.
    pub(super) fn new(sources: Option<&Path>) -> Result<Toolchain, CudaError> {
        let asked = std::env::var_os("MOBILIS_CUDA_SOURCES").map(PathBuf::from);
        let sources = sources.map(Path::to_path_buf).or(asked).unwrap_or_else(|| here().to_path_buf());
        let (compiler, version) = (compiler(), version()?);
        let mut flags: Vec<String> = [
            "-std=c++17",
            "-g1",
            "-fPIC",
            "-w",
            "-fno-strict-aliasing",
            "-fno-omit-frame-pointer",
            "-ffp-contract=off",
        ]
        .map(String::from)
        .to_vec();
        let extra = std::env::var("MOBILIS_CUDA_EMULATOR_FLAGS").unwrap_or_default();
        flags.extend(extra.split_whitespace().map(String::from));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here().join("../../target"), PathBuf::from);
        let out = target.join("emulated");
        fs::create_dir_all(&out).map_err(|e| unavailable(format!("{}: {e}", out.display())))?;

        let mut emulator = DefaultHasher::new();
        (&version, &flags).hash(&mut emulator);
        let folder = folder_of_emulator();
        for file in list(&folder, "h")?.iter().chain(&list(&folder, "cpp")?) {
            read(file)?.hash(&mut emulator);
        }
        let emulator = emulator.finish();
        let mut headers = DefaultHasher::new();
        emulator.hash(&mut headers);
        for folder in [sources.join("include"), here().join("include")] {
            for header in if folder.is_dir() { list(&folder, "cuh")? } else { vec![] } {
                (header.file_name(), read(&header)?).hash(&mut headers);
            }
        }
        Ok(Toolchain { compiler, flags, sources, out, emulator, headers: headers.finish() })
    }

    /// The library of the file that exports a kernel.
    pub(super) fn kernel(&self, kernel: &str) -> Result<PathBuf, CudaError> {
        let export = format!("CUEMU_EXPORT({kernel})");
        for path in list(&self.sources, "cu")? {
            let text = String::from_utf8_lossy(&read(&path)?).into_owned();
            if text.contains(&export) {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                return self.library(&stem, &text, &path);
            }
        }
        let message = format!("no file in {} has {export}", self.sources.display());
        Err(CudaError::Launch { kernel: kernel.into(), message })
    }

    /// The library of a kernel that was written at run time.
    pub(super) fn text(&self, name: &str, text: &str) -> Result<PathBuf, CudaError> {
        let path = self.out.join(format!("{name}.cu"));
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            let new = self.out.join(format!("{name}-{}-{:?}.new", std::process::id(), std::thread::current().id()));
            let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
            written.map_err(|e| unavailable(format!("{}: {e}", path.display())))?;
        }
        self.library(name, text, &path)
    }

    fn library(&self, stem: &str, text: &str, path: &Path) -> Result<PathBuf, CudaError> {
        let mut hash = DefaultHasher::new();
        (self.headers, text).hash(&mut hash);
        let library = self.out.join(format!("{stem}-{:016x}.so", hash.finish()));
        if library.exists() {
            return Ok(library);
        }
        let objects = self.objects()?;
        let _lock = self.lock(stem)?;
        if library.exists() {
            return Ok(library);
        }
        let new = library.with_extension("new");
        let mut command = self.command();
        command.args(["-O1", "-shared", "-pthread"]);
        if !self.flags.iter().any(|f| f.starts_with("-fsanitize=")) {
            // The emulator has these calls; no sanitizer's library is linked: the object is made first.
            let object = library.with_extension("o");
            let mut compile = self.command();
            compile.args(["-O1", "-fsanitize=thread"]);
            compile.args(thread_parameters(&self.compiler));
            compile.args(["-include", "cuemu.h", "-x", "c++", "-c"]).arg(path).arg("-o").arg(&object);
            self.run(compile, stem)?;
            command.arg(&object).args(&objects).arg("-o").arg(&new);
            self.run(command, stem)?;
            let _ = fs::remove_file(&object);
        } else {
            command.args(["-include", "cuemu.h", "-x", "c++"]).arg(path).args(["-x", "none"]);
            command.args(&objects).arg("-o").arg(&new);
            self.run(command, stem)?;
        }
        fs::rename(&new, &library).map_err(|e| unavailable(format!("{}: {e}", library.display())))?;
        Ok(library)
    }

    /// The emulator's own objects.
    fn objects(&self) -> Result<Vec<PathBuf>, CudaError> {
        let files = list(&folder_of_emulator(), "cpp")?;
        let object = |file: &Path| {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            self.out.join(format!("{stem}-{:016x}.o", self.emulator))
        };
        let objects: Vec<PathBuf> = files.iter().map(|f| object(f)).collect();
        if objects.iter().all(|o| o.exists()) {
            return Ok(objects);
        }
        let _lock = self.lock("emulator")?;
        let todo: Vec<_> = files.iter().zip(&objects).filter(|(_, o)| !o.exists()).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<(), CudaError> {
            while let Some((file, object)) = todo.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let new = object.with_extension("new");
                let mut command = self.command();
                command.args(["-O2", "-c"]).arg(file).arg("-o").arg(&new);
                self.run(command, "the emulator")?;
                fs::rename(&new, object).map_err(|e| unavailable(e.to_string()))?;
            }
            Ok(())
        };
        std::thread::scope(|s| {
            let other = s.spawn(work);
            let mine = work();
            mine.and(other.join().unwrap_or_else(|_| Err(unavailable("a compiling thread panicked"))))
        })?;
        Ok(objects)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.compiler);
        command.args(&self.flags);
        for folder in [self.sources.join("include"), here().join("include"), folder_of_emulator()] {
            command.arg(format!("-I{}", folder.display()));
        }
        command
    }

    fn run(&self, mut command: Command, file: &str) -> Result<(), CudaError> {
        let done = command.output().map_err(|e| unavailable(e.to_string()))?;
        if done.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(CudaError::Compile { file: file.into(), message })
    }

    /// One process makes a thing at a time; others wait and then find it made.
    fn lock(&self, what: &str) -> Result<fs::File, CudaError> {
        let path = self.out.join(format!("{what}.lock"));
        let lock = fs::File::create(&path).and_then(|f| f.lock().map(|()| f));
        lock.map_err(|e| unavailable(format!("{}: {e}", path.display())))
    }
}

/// No calls at functions' entries, and `volatile` told apart, in each compiler's words.
fn thread_parameters(compiler: &OsString) -> Vec<&'static str> {
    let clang = Command::new(compiler).arg("--version").output();
    let clang = clang.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("clang"));
    if clang {
        vec!["-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-distinguish-volatile=1"]
    } else {
        vec!["--param", "tsan-instrument-func-entry-exit=0", "--param", "tsan-distinguish-volatile=1"]
    }
}

fn list(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, CudaError> {
    let entries = fs::read_dir(folder).map_err(|e| unavailable(format!("{}: {e}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    Ok(files)
}
