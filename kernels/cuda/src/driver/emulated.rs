//! The emulator as a device (`kernels/emu` tells how it works). A file of kernels becomes a shared library when one of its
//! kernels is launched first ([`compile`]); the device's memory is the host's.

mod compile;
mod tape;

use super::{Driver, Info, Packed, Replay, TensorMap};
use crate::{CudaError, Launch, Ptr, Tile};
pub use compile::found;
use compile::{Toolchain, unavailable};
use libloading::Library;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The order in which the emulator runs threads. Right kernels do not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Schedule {
    /// The first thread first; asynchronous copies land as late as they may.
    Forward,
    /// The last thread first; asynchronous copies land at once.
    Reverse,
    /// By a seed, with threads put off at random, and races on shared memory looked for.
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

    /// 1: accesses must lie in buffers; 2: and shared memory has no races. `MOBILIS_CUDA_EMULATOR_CHECK` overrides it.
    fn check(self) -> c_int {
        let asked = std::env::var("MOBILIS_CUDA_EMULATOR_CHECK").ok().and_then(|v| v.parse().ok());
        asked.unwrap_or(if matches!(self, Schedule::Seeded(_)) { 2 } else { 1 })
    }
}

/// What a launch is told (`Settings` in `kernels/emu/machine.h`).
#[repr(C)]
struct Settings {
    threads: c_int,
    order: c_int,
    check: c_int,
    cluster: [u32; 3],
    cooperative: c_int,
    ranges: *const Range,
    range_count: usize,
}

/// A buffer of the device.
#[derive(Clone, Copy)]
#[repr(C)]
struct Range {
    start: u64,
    bytes: u64,
}

type Kernel = unsafe extern "C" fn(u32, u32, u32, u32, u32, u32, u32, *mut *mut c_void) -> c_int;

/// The emulator keeps its settings in globals: one launch at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Every buffer of every emulated device, in order: a kernel may touch nothing else.
static RANGES: Mutex<Vec<Range>> = Mutex::new(Vec::new());

/// The libraries that were opened, by path: they stay open.
static OPEN: LazyLock<Mutex<HashMap<std::path::PathBuf, Arc<Library>>>> = LazyLock::new(Mutex::default);

pub(super) struct Emulated {
    info: Info,
    schedule: Schedule,
    toolchain: Toolchain,
    /// By kernel.
    loaded: Mutex<HashMap<&'static str, Arc<Library>>>,
}

const ALIGN: usize = 256;

impl Emulated {
    pub(super) fn new(schedule: Schedule, sources: Option<&Path>) -> Result<Emulated, CudaError> {
        let info = Info {
            name: "emulator".into(),
            capability: 90,
            multiprocessors: 4,
            shared: 227 << 10,
            memory: 8 << 30,
            emulated: true,
        };
        Ok(Emulated { info, schedule, toolchain: Toolchain::new(sources)?, loaded: Mutex::default() })
    }

    /// The library that holds a kernel.
    fn library(&self, kernel: &'static str) -> Result<Arc<Library>, CudaError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.get(kernel) {
            return Ok(library.clone());
        }
        let path = match crate::generated::of(kernel) {
            Some(generated) => self.toolchain.text(generated.name, generated.text)?,
            None => self.toolchain.kernel(kernel)?,
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match open.get(&path) {
            Some(library) => library.clone(),
            None => {
                // SAFETY: the library was made from this crate's sources; it has no initialisers but C++'s own.
                let library = unsafe { Library::new(&path) };
                let library = Arc::new(library.map_err(|e| unavailable(format!("{}: {e}", path.display())))?);
                open.insert(path, library.clone());
                library
            }
        };
        loaded.insert(kernel, library.clone());
        Ok(library)
    }
}

/// A function of a library.
fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, CudaError> {
    // SAFETY: every caller names the type that the emulator's source gives the symbol.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) };
    symbol.map(|s| *s).map_err(|e| CudaError::Launch { kernel: name.into(), message: e.to_string() })
}

impl Driver for Emulated {
    fn info(&self) -> &Info {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr, CudaError> {
        tape::not_now("alloc")?;
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
        let range = Range { start: at as u64, bytes: bytes as u64 };
        let mut ranges = RANGES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ranges.partition_point(|r| r.start < range.start);
        ranges.insert(place, range);
        Ok(Ptr(at as u64))
    }

    fn free(&self, at: Ptr, bytes: usize) {
        RANGES.lock().unwrap_or_else(PoisonError::into_inner).retain(|r| r.start != at.0);
        let layout = Layout::from_size_align(bytes, ALIGN).expect("it was allocated with it");
        // SAFETY: it came from `alloc` with this layout and is given back once, by `Buffer`.
        unsafe { dealloc(at.0 as *mut u8, layout) }
    }

    fn upload(&self, to: Ptr, from: &[u8]) -> Result<(), CudaError> {
        tape::not_now("upload")?;
        // SAFETY: `Gpu` checked the range; nothing runs between calls.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.0 as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: Ptr, to: &mut [u8]) -> Result<(), CudaError> {
        tape::not_now("download")?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn fill(&self, to: Ptr, byte: u8, bytes: usize) -> Result<(), CudaError> {
        if tape::note(|| tape::Step::Fill(to, byte, bytes)) {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { (to.0 as *mut u8).write_bytes(byte, bytes) };
        Ok(())
    }

    fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<(), CudaError> {
        if tape::note(|| tape::Step::Copy(from, to, bytes)) {
            return Ok(());
        }
        // SAFETY: both ranges are of buffers and do not overlap (`Gpu::copy`); nothing runs between calls.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
    }

    fn tensor_map(&self, tile: &Tile) -> Result<TensorMap, CudaError> {
        tile.check()?;
        Ok(TensorMap(map(tile)))
    }

    fn launch(&self, launch: &Launch) -> Result<(), CudaError> {
        if tape::note(|| tape::Step::Launch(launch.clone())) {
            return Ok(());
        }
        let library = self.library(launch.kernel)?;
        let kernel: Kernel = symbol(&library, &format!("cuemu_{}", launch.kernel))?;
        let config: unsafe extern "C" fn(*const Settings) = symbol(&library, "cuemu_config")?;
        let error: unsafe extern "C" fn() -> *const c_char = symbol(&library, "cuemu_error")?;
        let mut args = Packed::new(self, &launch.args)?;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = RANGES.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settings = Settings {
            threads: 0,
            order: self.schedule.order(),
            check: self.schedule.check(),
            cluster: launch.cluster,
            cooperative: launch.cooperative as c_int,
            ranges: ranges.as_ptr(),
            range_count: ranges.len(),
        };
        // SAFETY: the family that made the launch gives the kernel's arguments in its order and of its
        // types; its pointers are buffers that outlive the launch. The settings and ranges outlive it too.
        let code = unsafe {
            config(&settings);
            kernel(gx, gy, gz, bx, by, bz, launch.shared, args.addresses())
        };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: a C string that stays until the next launch, which waits for the lock.
        let message = unsafe { CStr::from_ptr(error()) }.to_string_lossy().into_owned();
        Err(CudaError::Launch { kernel: launch.kernel.into(), message })
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        tape::not_now("synchronize")
    }

    fn record(&self, body: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<Option<Box<dyn Replay>>, CudaError> {
        tape::record(body).map(Some)
    }
}

/// `Map` in `kernels/emu/copies.cpp`, field by field.
fn map(tile: &Tile) -> [u64; 16] {
    #[repr(C)]
    struct Map {
        base: u64,
        strides: [u64; 4],
        sizes: [u32; 5],
        box_sizes: [u16; 5],
        rank: u8,
        element: u8,
        swizzle: u8,
        mark: u8,
        kind: u8,
    }
    let mut map = Map {
        base: tile.base.0,
        strides: [0; 4],
        sizes: [0; 5],
        box_sizes: [0; 5],
        rank: tile.sizes.len() as u8,
        element: tile.element as u8,
        swizzle: tile.swizzle as u32 as u8,
        mark: 0x5a,
        kind: tile.kind as u8,
    };
    map.strides[..tile.strides.len()].copy_from_slice(&tile.strides);
    for (to, from) in map.sizes.iter_mut().zip(&tile.sizes) {
        *to = *from as u32;
    }
    for (to, from) in map.box_sizes.iter_mut().zip(&tile.box_sizes) {
        *to = *from as u16;
    }
    let mut words = [0; 16];
    // SAFETY: 80 bytes of plain numbers into 128; padding may hold anything.
    unsafe { (&raw mut words).cast::<Map>().write(map) };
    words
}
const _: () = assert!(size_of::<TensorMap>() == 128);
