//! The emulator as a device: `kernels/emu` and every kernel file compiled to a shared library, which is
//! kept by a hash of its text, its headers, its flags and the compiler.

mod text;

use super::{Driver, Info, Packed, TensorMap};
use crate::{CudaError, Launch, Ptr, Tile};
use libloading::Library;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::hash_map::DefaultHasher;
use std::ffi::{OsString, c_char, c_int, c_void};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// The order in which the emulator runs threads. Right kernels do not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Schedule {
    /// The first thread first; asynchronous copies land as late as they may.
    Forward,
    /// The last thread first; asynchronous copies land at once.
    Reverse,
    /// By a seed, with threads put off at random.
    Seeded(u32),
}

impl Schedule {
    fn order(self) -> c_int {
        match self {
            Schedule::Forward => 0,
            Schedule::Reverse => 1,
            Schedule::Seeded(seed) => 2 + (seed % (1 << 30)) as c_int,
        }
    }
}

type Kernel = unsafe extern "C" fn(u32, u32, u32, u32, u32, u32, u32, *mut *mut c_void) -> c_int;

/// The emulator keeps its order in globals: one launch at a time.
static ONE: Mutex<()> = Mutex::new(());

pub(super) struct Emulated {
    info: Info,
    library: Arc<Library>,
    texts: text::Texts,
    schedule: Schedule,
}

const ALIGN: usize = 256;

fn unavailable(message: impl Into<String>) -> CudaError {
    CudaError::Unavailable(message.into())
}

impl Emulated {
    pub(super) fn new(schedule: Schedule) -> Result<Emulated, CudaError> {
        let path = library()?;
        // SAFETY: the library was made from this crate's sources; it has no initialisers but C++'s own.
        let library = unsafe { Library::new(&path) }.map_err(|e| unavailable(format!("{}: {e}", path.display())))?;
        let info = Info {
            name: "emulator".into(),
            capability: 90,
            multiprocessors: 4,
            shared: 227 << 10,
            memory: 8 << 30,
            emulated: true,
        };
        Ok(Emulated { info, library: Arc::new(library), texts: text::Texts::new(path), schedule })
    }

    fn symbol<T: Copy>(&self, name: &str) -> Result<T, CudaError> {
        // SAFETY: every caller names the type that the emulator's source gives the symbol.
        let symbol = unsafe { self.library.get::<T>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| CudaError::Launch { kernel: name.into(), message: e.to_string() })
    }
}

impl Driver for Emulated {
    fn info(&self) -> &Info {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr, CudaError> {
        let out = || CudaError::OutOfMemory {
            asked: bytes,
            free: self.info.memory,
            total: self.info.memory,
            wanted_for: "a buffer of the emulator".into(),
        };
        if bytes > self.info.memory {
            return Err(out());
        }
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| out())?;
        // SAFETY: `bytes` is not zero (`Gpu::alloc`).
        let at = unsafe { alloc(layout) };
        if at.is_null() {
            return Err(out());
        }
        // What no kernel wrote is not a number.
        // SAFETY: `at` has `bytes` bytes.
        unsafe { at.write_bytes(0xff, bytes) };
        Ok(Ptr(at as u64))
    }

    fn free(&self, at: Ptr, bytes: usize) {
        let layout = Layout::from_size_align(bytes, ALIGN).expect("it was allocated with it");
        // SAFETY: it came from `alloc` with this layout and is given back once, by `Buffer`.
        unsafe { dealloc(at.0 as *mut u8, layout) }
    }

    fn upload(&self, to: Ptr, from: &[u8]) -> Result<(), CudaError> {
        // SAFETY: `Gpu` checked the range; nothing runs between calls.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.0 as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: Ptr, to: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn fill(&self, to: Ptr, byte: u8, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { (to.0 as *mut u8).write_bytes(byte, bytes) };
        Ok(())
    }

    fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: both ranges are of buffers and do not overlap (`Gpu::copy`); nothing runs between calls.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
    }

    fn tensor_map(&self, tile: &Tile) -> Result<TensorMap, CudaError> {
        type Encode = unsafe extern "C" fn(*mut c_void, *mut c_void, u64, u64, u64, u32, u32, u32, u32);
        let encode: Encode = self.symbol("cuemu_tensormap_2d")?;
        let mut map = TensorMap([0; 16]);
        let (n, s, b) = (&tile.sizes, &tile.strides, &tile.box_sizes);
        if n.len() != 2 {
            return Err(CudaError::Refused { kernel: "tensor map", message: format!("{} dimensions", n.len()) });
        }
        // SAFETY: the emulator writes at most the 128 bytes of the map.
        unsafe {
            let (map, base) = ((&raw mut map).cast(), tile.base.0 as *mut c_void);
            encode(map, base, n[0], n[1], s[0], b[0], b[1], tile.swizzle as u32, tile.element);
        }
        Ok(map)
    }

    fn launch(&self, launch: &Launch) -> Result<(), CudaError> {
        let kernel = match crate::generated::of(launch.kernel) {
            Some(generated) => self.texts.kernel(generated)?,
            None => self.symbol::<Kernel>(&format!("cuemu_{}", launch.kernel))?,
        };
        let config: unsafe extern "C" fn(c_int, c_int) = self.symbol("cuemu_config")?;
        let mut args = Packed::new(self, &launch.args)?;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the family that made the launch gives the kernel's arguments in its order and of its
        // types; its pointers are buffers that outlive the launch.
        let code = unsafe {
            config(0, self.schedule.order());
            kernel(gx, gy, gz, bx, by, bz, launch.shared, args.addresses())
        };
        if code == 0 {
            return Ok(());
        }
        let error: unsafe extern "C" fn() -> *const c_char = self.symbol("cuemu_error")?;
        // SAFETY: a C string that stays until the next launch, which waits for the lock.
        let message = unsafe { std::ffi::CStr::from_ptr(error()) }.to_string_lossy().into_owned();
        Err(CudaError::Launch { kernel: launch.kernel.into(), message })
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        Ok(())
    }
}

/// The folder of the kernels' text.
fn sources() -> PathBuf {
    std::env::var_os("MOBILIS_CUDA_SOURCES").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The folder of the emulator's text.
fn emulator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../emu")
}

fn compiler() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"))
}

fn extra_flags() -> String {
    std::env::var("MOBILIS_CUDA_EMULATOR_FLAGS").unwrap_or_default()
}

fn flags() -> Vec<String> {
    let mut flags: Vec<String> = ["-std=c++17", "-O1", "-g1", "-fPIC", "-w", "-fno-strict-aliasing", "-x", "c++"]
        .iter()
        .map(|s| s.to_string())
        .collect();
    flags.extend(extra_flags().split_whitespace().map(String::from));
    flags.extend([format!("-I{}", sources().join("include").display()), format!("-I{}", emulator().display())]);
    flags
}

/// The shared library of all kernels, compiled where it is not there yet.
fn library() -> Result<PathBuf, CudaError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (cuda, emulator, compiler, flags) = (sources(), emulator(), compiler(), flags());
    let version = Command::new(&compiler).arg("--version").output().map_err(|e| {
        unavailable(format!(
            "the emulator needs a C++17 compiler: {} cannot be run ({e}); set CXX",
            compiler.to_string_lossy()
        ))
    })?;
    let read = |p: &Path| fs::read(p).map_err(|e| unavailable(format!("{}: {e}", p.display())));
    let mut common = DefaultHasher::new();
    (&version.stdout, &flags).hash(&mut common);
    for header in list(&cuda.join("include"), "cuh")?.iter().chain(&list(&emulator, "h")?) {
        read(header)?.hash(&mut common);
    }
    let out = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../../target"), PathBuf::from);
    let out = out.join("emulated");
    fs::create_dir_all(&out).map_err(|e| unavailable(format!("{}: {e}", out.display())))?;
    let lock = fs::File::create(out.join("lock")).map_err(|e| unavailable(format!("{}: {e}", out.display())))?;
    lock.lock().map_err(|e| unavailable(format!("{}: {e}", out.display())))?;

    let mut jobs = vec![];
    let mut all = common.clone();
    for source in list(&emulator, "cpp")?.into_iter().chain(list(&cuda, "cu")?) {
        let mut hash = common.clone();
        read(&source)?.hash(&mut hash);
        let hash = hash.finish();
        hash.hash(&mut all);
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        jobs.push((source, out.join(format!("{stem}-{hash:016x}.o"))));
    }
    let library = out.join(format!("libkernels-{:016x}.so", all.finish()));
    if library.exists() {
        return Ok(library);
    }
    let todo: Vec<_> = jobs.iter().filter(|j| !j.1.exists()).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<(), CudaError> {
        while let Some((source, object)) = todo.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let file = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let new = object.with_extension("new");
            let mut command = Command::new(&compiler);
            command.args(&flags);
            if source.extension().is_some_and(|e| e == "cu") {
                command.args(["-include", "cuemu.h"]);
            }
            let done = command.arg("-c").arg(source).arg("-o").arg(&new).output();
            let done = done.map_err(|e| unavailable(e.to_string()))?;
            if !done.status.success() {
                let message = String::from_utf8_lossy(&done.stderr).into_owned();
                return Err(CudaError::Compile { file, message });
            }
            fs::rename(&new, object).map_err(|e| unavailable(e.to_string()))?;
        }
        Ok(())
    };
    std::thread::scope(|s| {
        let other = s.spawn(work);
        let mine = work();
        mine.and(other.join().unwrap_or_else(|_| Err(unavailable("a compiling thread panicked"))))
    })?;
    let new = library.with_extension("new");
    let mut link = Command::new(&compiler);
    link.args(["-shared", "-pthread"]).args(extra_flags().split_whitespace());
    let done = link.args(jobs.iter().map(|j| &j.1)).arg("-o").arg(&new).output();
    let done = done.map_err(|e| unavailable(e.to_string()))?;
    if !done.status.success() {
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(CudaError::Compile { file: "the emulator".into(), message });
    }
    fs::rename(&new, &library).map_err(|e| unavailable(e.to_string()))?;
    Ok(library)
}

fn list(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, CudaError> {
    let entries = fs::read_dir(folder).map_err(|e| unavailable(format!("{}: {e}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    Ok(files)
}
