//! Devices: memory, and launches in order.
//!
//! [`Gpu`] checks what it is asked for: an address must lie in memory that it gave out, and after a launch
//! that failed nothing is computed or handed out any more, for what came after it worked on values that
//! are not there.

#[cfg(feature = "driver")]
mod cuda;
mod emulated;
#[cfg(feature = "driver")]
pub mod image;
#[cfg(feature = "driver")]
mod libraries;
#[cfg(feature = "driver")]
mod nvrtc;
#[cfg(feature = "bench")]
pub mod vendor;

use crate::plain::{self, Plain};
use crate::{Arg, CudaError, Launch, Ptr, Tile};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use emulated::{Schedule, found as compiler};

/// What a device is.
#[derive(Clone, PartialEq, Debug)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Compute capability, 90 for 9.0.
    pub capability: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared: u32,
    /// Bytes of memory.
    pub memory: usize,
    /// Whether kernels are emulated.
    pub emulated: bool,
}

/// The 128 bytes that the driver (or the emulator) makes of a [`Tile`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct TensorMap([u64; 16]);

/// The arguments of a launch as `cuLaunchKernel` takes them: addresses of values that live here.
struct Packed {
    values: Vec<TensorMap>,
    addresses: Vec<*mut c_void>,
}

impl Packed {
    fn new(driver: &dyn Driver, args: &[Arg]) -> Result<Packed, CudaError> {
        let words = |from: &[u64]| {
            let mut map = TensorMap([0; 16]);
            map.0[..from.len()].copy_from_slice(from);
            map
        };
        // Where each value begins; a table goes on over several.
        let (mut values, mut firsts) = (vec![], vec![]);
        for arg in args {
            firsts.push(values.len());
            // Little-endian, as every machine that CUDA runs on: the low bytes of a word are the value.
            let value = match arg {
                Arg::Ptr(v) => words(&[v.0]),
                Arg::I32(v) => words(&[*v as u32 as u64]),
                Arg::U32(v) => words(&[*v as u64]),
                Arg::I64(v) => words(&[*v as u64]),
                Arg::F32(v) => words(&[v.to_bits() as u64]),
                Arg::Block(words) => TensorMap(*words),
                Arg::Tile(tile) => driver.tensor_map(tile)?,
                Arg::Table(table) => {
                    let mut all: Vec<u64> = table.iter().map(|p| p.0).collect();
                    if all.len() > Arg::TABLE {
                        let message = format!("{} words of a table, at most {} are taken", all.len(), Arg::TABLE);
                        return Err(CudaError::Refused { kernel: "a table", message });
                    }
                    all.resize(Arg::TABLE, 0);
                    values.extend(all.chunks(16).map(words));
                    continue;
                }
            };
            values.push(value);
        }
        let base: *mut TensorMap = values.as_mut_ptr();
        let addresses = firsts.into_iter().map(|first| base.wrapping_add(first).cast()).collect();
        Ok(Packed { values, addresses })
    }

    fn addresses(&mut self) -> *mut *mut c_void {
        debug_assert!(self.values.len() >= self.addresses.len());
        self.addresses.as_mut_ptr()
    }
}

/// What the driver and the emulator both do. All calls act on one stream: what was asked for first
/// happens first.
trait Driver: Send + Sync {
    fn info(&self) -> &Info;
    fn alloc(&self, bytes: usize) -> Result<Ptr, CudaError>;
    fn free(&self, at: Ptr, bytes: usize);
    fn upload(&self, to: Ptr, from: &[u8]) -> Result<(), CudaError>;
    fn download(&self, from: Ptr, to: &mut [u8]) -> Result<(), CudaError>;
    fn fill(&self, to: Ptr, byte: u8, bytes: usize) -> Result<(), CudaError>;
    fn tensor_map(&self, tile: &Tile) -> Result<TensorMap, CudaError>;
    fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<(), CudaError>;
    fn launch(&self, launch: &Launch) -> Result<(), CudaError>;
    fn synchronize(&self) -> Result<(), CudaError>;
    /// The seconds that the device takes for what `body` asks for.
    fn timed(&self, body: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        let start = std::time::Instant::now();
        body()?;
        self.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    }
    /// The stream, for another library's calls.
    #[cfg(feature = "bench")]
    fn stream(&self) -> Option<*mut c_void> {
        None
    }
    /// Notes what `body` asks for instead of doing it, where the device can repeat that as a whole; else
    /// nothing is asked for.
    fn record(&self, _: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<Option<Box<dyn Replay>>, CudaError> {
        Ok(None)
    }
}

/// Work that was recorded.
trait Replay: Send {
    /// Runs it on the device on which it was recorded.
    fn replay(&self, driver: &dyn Driver) -> Result<(), CudaError>;
}

/// A device. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    driver: Box<dyn Driver>,
    /// The memory that was given out: addresses and bytes.
    blocks: Mutex<BTreeMap<u64, usize>>,
    /// The launch that failed.
    failed: Mutex<Option<CudaError>>,
}

/// Launches and copies that run as one.
pub struct Recorded {
    gpu: Gpu,
    work: Box<dyn Replay>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both hold whole values at all times.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory on a device, given back when dropped.
pub struct Buffer {
    gpu: Gpu,
    at: Ptr,
    bytes: usize,
}

impl Gpu {
    fn new(driver: impl Driver + 'static) -> Gpu {
        let (blocks, failed) = (Mutex::default(), Mutex::default());
        Gpu(Arc::new(Shared { driver: Box::new(driver), blocks, failed }))
    }

    /// The emulator: kernels compiled by the C++ compiler at hand, threads as fibers.
    ///
    /// # Errors
    /// Without a C++ compiler or the kernels' source folder, and when a kernel does not compile.
    pub fn emulated(schedule: Schedule) -> Result<Gpu, CudaError> {
        Ok(Gpu::new(emulated::Emulated::new(schedule, None)?))
    }

    /// The emulator with the kernels of another folder.
    ///
    /// # Errors
    /// As [`Gpu::emulated`].
    pub fn emulated_with(schedule: Schedule, sources: &std::path::Path) -> Result<Gpu, CudaError> {
        Ok(Gpu::new(emulated::Emulated::new(schedule, Some(sources))?))
    }

    /// The device of a number, from 0 on.
    ///
    /// # Errors
    /// No driver, no such device, one that is too old.
    #[cfg(feature = "driver")]
    pub fn open(n: usize) -> Result<Gpu, CudaError> {
        Ok(Gpu::new(cuda::Cuda::new(n)?))
    }

    /// The device of a number: this build has no driver.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "driver"))]
    pub fn open(n: usize) -> Result<Gpu, CudaError> {
        Err(CudaError::Unavailable(format!("number {n} was asked for, and the feature `driver` is not in this build")))
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// No driver, or one that is too old.
    #[cfg(feature = "driver")]
    pub fn count() -> Result<usize, CudaError> {
        cuda::count()
    }

    /// How many devices there are: this build has no driver.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "driver"))]
    pub fn count() -> Result<usize, CudaError> {
        Err(CudaError::Unavailable("the feature `driver` is not in this build".into()))
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        self.0.driver.info()
    }

    /// Whether both are one device.
    pub fn same(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Memory that holds anything.
    ///
    /// # Errors
    /// When the device has not as much.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, CudaError> {
        let at = if bytes == 0 { Ptr::NULL } else { self.guarded(|d| d.alloc(bytes))? };
        if bytes > 0 {
            lock(&self.0.blocks).insert(at.0, bytes);
        }
        Ok(Buffer { gpu: self.clone(), at, bytes })
    }

    /// Runs launches in order. An empty grid runs nothing.
    ///
    /// # Errors
    /// When a kernel is not to be had or fails; a [`check`](Launch::check) that a launch does not pass.
    pub fn run(&self, launches: &[Launch]) -> Result<(), CudaError> {
        let mut some = launches.iter().filter(|l| l.grid.iter().all(|n| *n > 0));
        some.try_for_each(|l| {
            l.check(self.info())?;
            self.guarded(|d| d.launch(l))
        })
    }

    /// Copies values from the host to an address on the device.
    ///
    /// # Errors
    /// An address outside the memory that was given out; failures of the driver.
    pub fn write<T: Plain>(&self, to: Ptr, from: &[T]) -> Result<(), CudaError> {
        let from = plain::bytes(from);
        self.owned("write", to, from.len())?;
        if from.is_empty() { Ok(()) } else { self.guarded(|d| d.upload(to, from)) }
    }

    /// Copies values from an address on the device to the host, when all that was asked for before is done.
    ///
    /// # Errors
    /// An address outside the memory that was given out; failures of what ran before.
    pub fn read<T: Plain>(&self, from: Ptr, to: &mut [T]) -> Result<(), CudaError> {
        let to = plain::bytes_mut(to);
        self.owned("read", from, to.len())?;
        if to.is_empty() { Ok(()) } else { self.guarded(|d| d.download(from, to)) }
    }

    /// Copies bytes on the device. A copy to where they are is none.
    ///
    /// # Errors
    /// Ranges outside the memory that was given out, or that overlap; failures of the driver.
    pub fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<(), CudaError> {
        self.owned("copy", from, bytes)?;
        self.owned("copy", to, bytes)?;
        if bytes == 0 || from == to {
            return Ok(());
        }
        if from.0.abs_diff(to.0) < bytes as u64 {
            return Err(CudaError::Refused {
                kernel: "copy",
                message: format!("{bytes} bytes to {to:?} from {from:?}"),
            });
        }
        self.guarded(|d| d.copy(from, to, bytes))
    }

    /// Fills bytes on the device.
    ///
    /// # Errors
    /// A range outside the memory that was given out; failures of the driver.
    pub fn fill(&self, to: Ptr, byte: u8, bytes: usize) -> Result<(), CudaError> {
        self.owned("fill", to, bytes)?;
        if bytes == 0 { Ok(()) } else { self.guarded(|d| d.fill(to, byte, bytes)) }
    }

    /// What `body` runs, copies and fills on this device, made ready to run again as one, or nothing where the
    /// device has no such thing. It is not run. `body` must neither read nor write, nor ask for memory; the
    /// memory that it names must stay.
    ///
    /// # Errors
    /// Those of `body`; failures of the driver.
    pub fn record(&self, mut body: impl FnMut() -> Result<(), CudaError>) -> Result<Option<Recorded>, CudaError> {
        let work = self.guarded(|d| d.record(&mut body))?;
        Ok(work.map(|work| Recorded { gpu: self.clone(), work }))
    }

    /// The seconds that the device takes for what `body` asks for, between two events; on the emulator by the
    /// clock.
    ///
    /// # Errors
    /// Those of `body`, and of what ran before.
    pub fn timed(&self, mut body: impl FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        self.guarded(|d| d.timed(&mut body))
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// Of what ran before.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.guarded(|d| d.synchronize())
    }

    /// Asks the driver, unless a launch has failed.
    fn guarded<R>(&self, f: impl FnOnce(&dyn Driver) -> Result<R, CudaError>) -> Result<R, CudaError> {
        if let Some(CudaError::Launch { kernel, message }) = &*lock(&self.0.failed) {
            let message = format!("{message}; the device gives no results after that: start anew");
            return Err(CudaError::Launch { kernel: kernel.clone(), message });
        }
        let result = f(&*self.0.driver);
        if let Err(e @ CudaError::Launch { .. }) = &result {
            *lock(&self.0.failed) = Some(e.clone());
        }
        result
    }

    /// Whether a range lies in memory that was given out.
    fn owned(&self, kernel: &'static str, at: Ptr, bytes: usize) -> Result<(), CudaError> {
        let blocks = lock(&self.0.blocks);
        let inside = |(start, size): (&u64, &usize)| {
            at.0.checked_add(bytes as u64).is_some_and(|end| end <= start + *size as u64)
        };
        if bytes == 0 || blocks.range(..=at.0).next_back().is_some_and(inside) {
            return Ok(());
        }
        Err(CudaError::Refused { kernel, message: format!("{bytes} bytes at {:#x} are not of this device", at.0) })
    }
}

impl Recorded {
    /// Runs it.
    ///
    /// # Errors
    /// Failures of the driver, and of what ran before.
    pub fn replay(&self) -> Result<(), CudaError> {
        self.gpu.guarded(|d| self.work.replay(d))
    }
}

impl Buffer {
    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where it is.
    pub fn ptr(&self) -> Ptr {
        self.at
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies from the host to the beginning of the buffer.
    ///
    /// # Errors
    /// More bytes than it has; failures of the driver.
    pub fn upload(&self, from: &[u8]) -> Result<(), CudaError> {
        self.fits("upload", from.len())?;
        self.gpu.write(self.at, from)
    }

    /// Copies the beginning of the buffer to the host, when all that was asked for before is done.
    ///
    /// # Errors
    /// More bytes than it has; failures of what ran before.
    pub fn download(&self, to: &mut [u8]) -> Result<(), CudaError> {
        self.fits("download", to.len())?;
        self.gpu.read(self.at, to)
    }

    /// Fills it with a byte.
    ///
    /// # Errors
    /// Failures of the driver.
    pub fn fill(&self, byte: u8) -> Result<(), CudaError> {
        self.gpu.fill(self.at, byte, self.bytes)
    }

    fn fits(&self, kernel: &'static str, bytes: usize) -> Result<(), CudaError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        Err(CudaError::Refused { kernel, message: format!("{bytes} bytes, the buffer has {}", self.bytes) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.gpu.0.blocks).remove(&self.at.0);
            self.gpu.0.driver.free(self.at, self.bytes);
        }
    }
}
