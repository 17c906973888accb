//! NVIDIA's driver as a device, opened at run time.
//!
//! One primary context and one stream a device: what is asked for first happens first. Small copies go
//! through pinned memory. Kernels are loaded when they are first launched, from what [`image`](super::image)
//! gives. Errors of kernels show in whichever call comes after them, which then names the kernels since the last wait
//! ([`recent`]); with `MOBILIS_CUDA_SYNC=1`, and in debug builds (unless it is 0), every launch is waited for and named
//! alone. `MOBILIS_CUDA_LIMIT` is how many seconds are waited, 60 where every launch is, else without end: what takes longer
//! counts as a kernel that never ends, and the process gets nothing more from its devices. Recordings: [`record`]. Nothing
//! here can run without a GPU, so there is as little of it as can be.

mod maps;
mod recent;
mod record;

use super::{Driver, Info, Packed, Replay, TensorMap, image, lock};
use crate::{CudaError, Launch, Ptr, Tile};
use cudarc::driver::{DriverError, result, sys};
use recent::Recent;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The oldest driver, as CUDA counts: that of CUDA 13.0, whose cubins and PTX are embedded.
const OLDEST: i32 = 13_000;
/// The oldest architecture: Ampere.
const CAPABILITY: u32 = 80;
/// Bytes of pinned memory.
const STAGING: usize = 8 << 20;
/// Seconds that a launch may take where each is waited for.
const LIMIT: f64 = 60.0;

/// A kernel that never ended. The driver waits for it in most calls, also in those of another device's handle.
static ENDLESS: OnceLock<CudaError> = OnceLock::new();

/// What the driver says.
fn words(e: DriverError) -> String {
    let text = e.error_string().ok().map(|s| s.to_string_lossy().into_owned());
    format!("{:?}{}", e.0, text.map(|t| format!(" ({t})")).unwrap_or_default())
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |e| CudaError::Driver { call, message: words(e) }
}

fn unavailable(message: impl Into<String>) -> CudaError {
    CudaError::Unavailable(message.into())
}

/// The number of devices.
///
/// # Errors
/// No driver, none that works, or one that is too old.
pub(super) fn count() -> Result<usize, CudaError> {
    // cudarc panics where the library or a symbol is missing.
    std::panic::catch_unwind(probe).unwrap_or_else(|_| {
        Err(unavailable("NVIDIA's driver lacks functions of CUDA 13.0: driver 580 or newer is needed"))
    })
}

fn probe() -> Result<usize, CudaError> {
    // SAFETY: opens the driver's library, whose initialisers are NVIDIA's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(unavailable("NVIDIA's driver (libcuda.so.1) is not installed"));
    }
    result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => unavailable("NVIDIA's driver finds no GPU"),
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            unavailable("the libcuda that was found is the stub of a toolkit, not a driver: look at LD_LIBRARY_PATH")
        }
        _ => unavailable(format!("NVIDIA's driver does not start: {}", words(e))),
    })?;
    let mut version = 0;
    // SAFETY: an address for an `int`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < OLDEST {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(unavailable(format!(
            "NVIDIA's driver is for CUDA {major}.{minor}: 13.0 (driver 580) or newer is needed"
        )));
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    Ok(count.max(0) as usize)
}

struct Function {
    handle: sys::CUfunction,
    /// The dynamic shared memory that it may have.
    shared: u32,
    /// The threads that a block of it may have.
    threads: u32,
}

struct Staging {
    base: *mut u8,
    used: usize,
}

pub(super) struct Cuda {
    info: Info,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// The stream on which launches are recorded, one thread at a time, so that others' go on meanwhile.
    tape: Mutex<record::Tape>,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
    functions: Mutex<HashMap<&'static str, Function>>,
    staging: Mutex<Staging>,
    recent: Arc<Recent>,
    /// Whether every launch is waited for.
    each: bool,
    /// How long is waited.
    limit: Option<Duration>,
}

// SAFETY: handles of the driver may be used by any thread once the context is current in it, which every
// method sees to; what changes on the host stands behind mutexes.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    pub(super) fn new(n: usize) -> Result<Cuda, CudaError> {
        let count = count()?;
        if n >= count {
            return Err(unavailable(format!("number {n} was asked for, there are {count} (the first is 0)")));
        }
        if let Some(e) = ENDLESS.get() {
            return Err(e.clone());
        }
        let device = result::device::get(n as i32).map_err(failed("cuDeviceGet"))?;
        let info = info(device)?;
        if info.capability < CAPABILITY {
            let (major, minor) = (info.capability / 10, info.capability % 10);
            return Err(unavailable(format!(
                "{} has compute capability {major}.{minor}: 8.0 (Ampere) or newer is needed",
                info.name
            )));
        }
        // SAFETY: the device is the driver's; the context is made current before anything else is asked for.
        let (context, stream, tape, base) = unsafe {
            let context = result::primary_ctx::retain(device).map_err(failed("cuDevicePrimaryCtxRetain"))?;
            result::ctx::set_current(context).map_err(failed("cuCtxSetCurrent"))?;
            let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
            let (stream, tape) = (stream().map_err(failed("cuStreamCreate"))?, stream());
            let base = result::malloc_host(STAGING, 0).map_err(failed("cuMemHostAlloc"))?;
            (context, stream, tape.map_err(failed("cuStreamCreate"))?, base.cast())
        };
        let asked = std::env::var("MOBILIS_CUDA_SYNC").ok();
        let each = asked.map_or(cfg!(debug_assertions), |v| v == "1");
        let limit = std::env::var("MOBILIS_CUDA_LIMIT").ok().and_then(|v| v.parse::<f64>().ok());
        let limit = limit.or(each.then_some(LIMIT)).filter(|s| *s > 0.0);
        Ok(Cuda {
            info,
            device,
            context,
            stream,
            tape: Mutex::new(record::Tape(tape)),
            modules: Mutex::default(),
            functions: Mutex::default(),
            staging: Mutex::new(Staging { base, used: 0 }),
            recent: Arc::default(),
            each,
            limit: limit.and_then(|s| Duration::try_from_secs_f64(s).ok()),
        })
    }

    fn enter(&self) -> Result<(), CudaError> {
        enter(self.context)
    }

    /// The same for what cannot be recorded.
    fn enter_now(&self, call: &'static str) -> Result<(), CudaError> {
        self.enter()?;
        if self.target() == self.stream {
            return Ok(());
        }
        let message =
            "it was called while launches are recorded, which takes launches, copies on the device and fills alone";
        Err(CudaError::Driver { call, message: message.into() })
    }

    /// What a call's error means.
    fn failed(&self, call: &'static str) -> impl Fn(DriverError) -> CudaError {
        move |e| self.recent.error(call, e)
    }

    /// Waits; an error is one of a launch since the last time.
    fn wait(&self) -> Result<(), CudaError> {
        let Some(limit) = self.limit else {
            // SAFETY: the stream lives as long as `self`.
            let result = unsafe { result::stream::synchronize(self.stream) };
            return self.recent.waited(result.map_err(words));
        };
        let start = Instant::now();
        loop {
            // SAFETY: as above.
            match unsafe { sys::cuStreamQuery(self.stream) }.result() {
                Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_READY => {}
                result => return self.recent.waited(result.map_err(words)),
            }
            let passed = start.elapsed();
            if passed > limit {
                let message = format!("it had not ended after {} seconds", limit.as_secs_f64());
                let result = self.recent.waited(Err(message));
                if let Err(e) = &result {
                    let _ = ENDLESS.set(e.clone());
                }
                return result;
            }
            // Most kernels end in a moment.
            if passed > Duration::from_millis(1) {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The kernel, loaded, with as much shared memory as it asks for.
    fn function(&self, kernel: &'static str, shared: u32, threads: u32) -> Result<sys::CUfunction, CudaError> {
        use sys::CUfunction_attribute_enum as Attribute;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let refused = |message| CudaError::Refused { kernel, message };
        let mut functions = lock(&self.functions);
        if !functions.contains_key(kernel) {
            let module = self.module(kernel)?;
            let name = CString::new(kernel).unwrap_or_default();
            // SAFETY: the module is never unloaded.
            let handle = unsafe { result::module::get_function(module, name) };
            let handle = handle.map_err(|e| CudaError::Compile { file: kernel.into(), message: words(e) })?;
            let ask = |attribute| {
                // SAFETY: the function is loaded.
                let value = unsafe { result::function::get_function_attribute(handle, attribute) };
                value.map(|v| v.max(0) as u32).map_err(self.failed("cuFuncGetAttribute"))
            };
            // Less than 48 KiB by what the kernel has of its own.
            let (shared, threads) = (ask(most)?, ask(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?);
            functions.insert(kernel, Function { handle, shared, threads });
        }
        let Some(function) = functions.get_mut(kernel) else { unreachable!("it was inserted") };
        if threads > function.threads {
            return Err(refused(format!("blocks of {threads} threads, it takes at most {}", function.threads)));
        }
        if shared > function.shared {
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(function.handle, most, shared as i32) }
                .map_err(|e| refused(format!("{shared} bytes of shared memory: {}", words(e))))?;
            function.shared = shared;
        }
        Ok(function.handle)
    }

    fn module(&self, kernel: &'static str) -> Result<sys::CUmodule, CudaError> {
        let unknown = || CudaError::Launch { kernel: kernel.into(), message: "there is no such kernel".into() };
        let text = image::Text::of(kernel).ok_or_else(unknown)?;
        let mut modules = lock(&self.modules);
        if let Some(module) = modules.get(text.file) {
            return Ok(*module);
        }
        let bytes = image::load(&text, self.info.capability)?;
        // SAFETY: a whole cubin (as long as its own head says), or PTX that ends with a zero.
        let module = unsafe { result::module::load_data(bytes.as_ptr().cast()) };
        let module = module.map_err(|e| CudaError::Compile { file: text.file.into(), message: words(e) })?;
        modules.insert(text.file, module);
        Ok(module)
    }
}

/// Makes a context current in this thread.
fn enter(context: sys::CUcontext) -> Result<(), CudaError> {
    if let Some(e) = ENDLESS.get() {
        return Err(e.clone());
    }
    // SAFETY: a context lives as long as its device, which whoever calls this holds.
    unsafe { result::ctx::set_current(context) }.map_err(failed("cuCtxSetCurrent"))
}

fn info(device: sys::CUdevice) -> Result<Info, CudaError> {
    use sys::CUdevice_attribute_enum as Attribute;
    // SAFETY: the device is the driver's.
    let ask = |a| unsafe { result::device::get_attribute(device, a) }.map_err(failed("cuDeviceGetAttribute"));
    let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Info {
        name: result::device::get_name(device).map_err(failed("cuDeviceGetName"))?,
        capability: (major * 10 + minor) as u32,
        multiprocessors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))?,
        emulated: false,
    })
}

/// What a launch asks for besides its grid.
fn attributes(launch: &Launch) -> Vec<sys::CUlaunchAttribute> {
    use sys::CUlaunchAttributeID_enum as Id;
    let mut all = vec![];
    let mut add = |id, value| all.push(sys::CUlaunchAttribute { id, pad: [0; 4], value });
    if launch.cluster != [1, 1, 1] {
        let [x, y, z] = launch.cluster;
        let clusters = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        add(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, sys::CUlaunchAttributeValue { clusterDim: clusters });
    }
    if launch.cooperative {
        add(Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, sys::CUlaunchAttributeValue { cooperative: 1 });
    }
    all
}

impl Driver for Cuda {
    fn info(&self) -> &Info {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr, CudaError> {
        self.enter_now("cuMemAlloc")?;
        // SAFETY: the memory is given back by `free`, once.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(at) => Ok(Ptr(at)),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = result::mem_get_info().unwrap_or((0, self.info.memory));
                Err(CudaError::OutOfMemory { asked: bytes, free, total, wanted_for: "a buffer".into() })
            }
            Err(e) => Err(self.failed("cuMemAlloc")(e)),
        }
    }

    fn free(&self, at: Ptr, _: usize) {
        // A device whose kernel does not end keeps its memory until the process does.
        if self.enter().is_ok() {
            // SAFETY: it came from `alloc` and is given back once, by `Buffer`, when its users are done.
            let _ = unsafe { (result::stream::synchronize(self.stream), result::free_sync(at.0)) };
        }
    }

    fn upload(&self, to: Ptr, from: &[u8]) -> Result<(), CudaError> {
        self.enter_now("cuMemcpyHtoDAsync")?;
        if from.len() > STAGING / 2 {
            // SAFETY: `Gpu` checked the range; `from` outlives the wait.
            unsafe { result::memcpy_htod_async(to.0, from, self.stream) }.map_err(self.failed("cuMemcpyHtoDAsync"))?;
            return self.wait();
        }
        let mut staging = lock(&self.staging);
        if staging.used + from.len() > STAGING {
            self.wait()?;
            staging.used = 0;
        }
        // SAFETY: the range lies in pinned memory that no copy under way reads: it was not used since the stream
        // was last waited for.
        let pinned = unsafe { std::slice::from_raw_parts_mut(staging.base.add(staging.used), from.len()) };
        pinned.copy_from_slice(from);
        staging.used += from.len().next_multiple_of(64);
        // SAFETY: `Gpu` checked the range; pinned memory lives as long as `self`.
        unsafe { result::memcpy_htod_async(to.0, pinned, self.stream) }.map_err(self.failed("cuMemcpyHtoDAsync"))
    }

    fn download(&self, from: Ptr, to: &mut [u8]) -> Result<(), CudaError> {
        self.enter_now("cuMemcpyDtoHAsync")?;
        if to.len() > STAGING / 2 {
            // SAFETY: `Gpu` checked the range; `to` outlives the wait.
            unsafe { result::memcpy_dtoh_async(to, from.0, self.stream) }.map_err(self.failed("cuMemcpyDtoHAsync"))?;
            return self.wait();
        }
        let mut staging = lock(&self.staging);
        if staging.used + to.len() > STAGING {
            self.wait()?;
            staging.used = 0;
        }
        // SAFETY: as in `upload`.
        let pinned = unsafe { std::slice::from_raw_parts_mut(staging.base.add(staging.used), to.len()) };
        // SAFETY: as in `upload`.
        unsafe { result::memcpy_dtoh_async(pinned, from.0, self.stream) }.map_err(self.failed("cuMemcpyDtoHAsync"))?;
        self.wait()?;
        to.copy_from_slice(pinned);
        staging.used = 0;
        Ok(())
    }

    fn fill(&self, to: Ptr, byte: u8, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: `Gpu` checked the range.
        unsafe { result::memset_d8_async(to.0, byte, bytes, self.target()) }.map_err(self.failed("cuMemsetD8Async"))
    }

    fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: `Gpu` checked both ranges.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.target()) }
            .map_err(self.failed("cuMemcpyDtoDAsync"))
    }

    fn tensor_map(&self, tile: &Tile) -> Result<TensorMap, CudaError> {
        maps::encode(tile)
    }

    fn launch(&self, launch: &Launch) -> Result<(), CudaError> {
        self.enter()?;
        let function = self.function(launch.kernel, launch.shared, launch.block.iter().product())?;
        let mut args = Packed::new(self, &launch.args)?;
        let mut attributes = attributes(launch);
        let stream = self.target();
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block[0],
            blockDimY: launch.block[1],
            blockDimZ: launch.block[2],
            sharedMemBytes: launch.shared,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: the family that made the launch gives the kernel's arguments in its order and of its types; its
        // pointers are buffers, which are freed only when the stream is done with them.
        unsafe { sys::cuLaunchKernelEx(&config, function, args.addresses(), std::ptr::null_mut()) }
            .result()
            .map_err(|e| self.recent.refused(launch, e))?;
        if stream != self.stream {
            record::note(launch.kernel);
            return Ok(());
        }
        self.recent.add(launch.kernel);
        if self.each { self.wait() } else { Ok(()) }
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        self.enter_now("cuStreamSynchronize")?;
        self.wait()
    }

    fn record(&self, body: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<Option<Box<dyn Replay>>, CudaError> {
        // A recorded launch cannot be waited for alone.
        if self.each {
            return Ok(None);
        }
        self.enter_now("cuStreamBeginCapture")?;
        record::record(self, body)
    }

    #[cfg(feature = "bench")]
    fn stream(&self) -> Option<*mut std::ffi::c_void> {
        self.enter().ok().map(|()| self.stream.cast())
    }

    fn timed(&self, body: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        self.enter_now("cuEventRecord")?;
        let event = || {
            let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT);
            event.map(Event).map_err(self.failed("cuEventCreate"))
        };
        let (start, end) = (event()?, event()?);
        // SAFETY: events and stream are of this context and live until the end.
        let record =
            |e: &Event| unsafe { result::event::record(e.0, self.stream) }.map_err(self.failed("cuEventRecord"));
        record(&start)?;
        body()?;
        record(&end)?;
        self.wait()?;
        // SAFETY: as above.
        let ms = unsafe { result::event::elapsed(start.0, end.0) }.map_err(self.failed("cuEventElapsedTime"))?;
        Ok(f64::from(ms) / 1e3)
    }
}

struct Event(sys::CUevent);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once; the driver waits for its users.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: all of it was made by `new` and is used by nobody else any more; buffers hold the device.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            let _ = result::stream::destroy(self.stream);
            let _ = result::stream::destroy(lock(&self.tape).0);
            let _ = result::free_host(lock(&self.staging).base.cast());
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
