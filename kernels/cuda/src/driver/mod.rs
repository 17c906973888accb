//! Devices: memory, and launches in order.

mod emulated;

use crate::{Arg, CudaError, Launch, Ptr, Tile};
use std::ffi::c_void;
use std::sync::Arc;

pub use emulated::Schedule;

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
        let word = |w: u64| {
            let mut map = TensorMap([0; 16]);
            map.0[0] = w;
            Ok(map)
        };
        // Little-endian, as every machine that CUDA runs on: the low bytes of a word are the value.
        let values = args.iter().map(|arg| match arg {
            Arg::Ptr(v) => word(v.0),
            Arg::I32(v) => word(*v as u32 as u64),
            Arg::U32(v) => word(*v as u64),
            Arg::I64(v) => word(*v as u64),
            Arg::F32(v) => word(v.to_bits() as u64),
            Arg::Tile(tile) => driver.tensor_map(tile),
        });
        let mut values = values.collect::<Result<Vec<_>, CudaError>>()?;
        let addresses = values.iter_mut().map(|v| (&raw mut *v).cast()).collect();
        Ok(Packed { values, addresses })
    }

    fn addresses(&mut self) -> *mut *mut c_void {
        debug_assert_eq!(self.values.len(), self.addresses.len());
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
    fn launch(&self, launch: &Launch) -> Result<(), CudaError>;
    fn synchronize(&self) -> Result<(), CudaError>;
}

/// A device. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<dyn Driver>);

/// Memory on a device, given back when dropped.
pub struct Buffer {
    gpu: Gpu,
    at: Ptr,
    bytes: usize,
}

impl Gpu {
    /// The emulator: kernels compiled by the C++ compiler at hand, threads as fibers.
    ///
    /// # Errors
    /// Without a C++ compiler or the kernels' source folder, and when a kernel does not compile.
    pub fn emulated(schedule: Schedule) -> Result<Gpu, CudaError> {
        Ok(Gpu(Arc::new(emulated::Emulated::new(schedule)?)))
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        self.0.info()
    }

    /// Memory that holds anything.
    ///
    /// # Errors
    /// When the device has not as much.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, CudaError> {
        let at = if bytes == 0 { Ptr::NULL } else { self.0.alloc(bytes)? };
        Ok(Buffer { gpu: self.clone(), at, bytes })
    }

    /// Runs launches in order. An empty grid runs nothing.
    ///
    /// # Errors
    /// When a kernel is not to be had or fails.
    pub fn run(&self, launches: &[Launch]) -> Result<(), CudaError> {
        launches.iter().filter(|l| l.grid.iter().all(|n| *n > 0)).try_for_each(|l| self.0.launch(l))
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// Of what ran before.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.0.synchronize()
    }
}

impl Buffer {
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
        if from.is_empty() { Ok(()) } else { self.gpu.0.upload(self.at, from) }
    }

    /// Copies the beginning of the buffer to the host, when all that was asked for before is done.
    ///
    /// # Errors
    /// More bytes than it has; failures of what ran before.
    pub fn download(&self, to: &mut [u8]) -> Result<(), CudaError> {
        self.fits("download", to.len())?;
        if to.is_empty() { Ok(()) } else { self.gpu.0.download(self.at, to) }
    }

    /// Fills it with a byte.
    ///
    /// # Errors
    /// Failures of the driver.
    pub fn fill(&self, byte: u8) -> Result<(), CudaError> {
        if self.bytes == 0 { Ok(()) } else { self.gpu.0.fill(self.at, byte, self.bytes) }
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
            self.gpu.0.free(self.at, self.bytes);
        }
    }
}
