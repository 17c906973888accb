//! Which devices are here, for `mobilis devices`.

/// What was found.
pub struct Found {
    /// Threads of the CPU device.
    pub threads: usize,
    /// The instructions that its kernels use.
    pub instructions: String,
    /// NVIDIA GPUs, each with why it cannot be used if so; or why there is none.
    pub gpus: Result<Vec<Result<Gpu, String>>, String>,
    /// The compiler that the emulator uses, or why it cannot be had.
    pub emulator: Result<String, String>,
    /// Whether the reference device is part of this build.
    pub reference: bool,
    /// The version of NVRTC, which compiles kernels that are not embedded; or why there is none.
    pub nvrtc: Result<String, String>,
    /// The files of GPU kernels.
    pub kernels: Vec<Kernels>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Compute capability, 90 for 9.0.
    pub capability: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: usize,
}

/// A file of GPU kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernels {
    /// Its name without `.cu`.
    pub file: &'static str,
    /// The kernels in it.
    pub names: Vec<&'static str>,
    /// What each GPU uses of it; without GPUs what is embedded.
    pub code: Vec<String>,
}

impl Found {
    /// Looks.
    pub fn look() -> Found {
        let mut found = Found {
            threads: mobilis_kernels::pool::Pool::global().threads(),
            instructions: format!("{:?}", mobilis_kernels::cpu::simd::level()).to_uppercase(),
            gpus: Err("this build has no GPUs: enable the feature `cuda`".into()),
            emulator: Err("this build has no GPUs: enable the feature `cuda`".into()),
            reference: cfg!(feature = "reference"),
            nvrtc: Err("this build has no GPUs: enable the feature `cuda`".into()),
            kernels: vec![],
        };
        found.look_for_gpus();
        found
    }

    #[cfg(not(feature = "cuda"))]
    fn look_for_gpus(&mut self) {}

    #[cfg(feature = "cuda")]
    fn look_for_gpus(&mut self) {
        use super::{Device, cuda};
        use mobilis_cuda::driver::image::{self, Choice};
        let gpu = |n: usize| {
            let gpu = cuda::open(Device::Cuda(n as u32))?;
            let info = gpu.info();
            Ok(Gpu {
                name: info.name.clone(),
                capability: info.capability,
                multiprocessors: info.multiprocessors,
                memory: info.memory,
            })
        };
        self.gpus = mobilis_cuda::Gpu::count().map(|count| (0..count).map(gpu).collect()).map_err(|e| e.to_string());
        self.emulator = mobilis_cuda::driver::compiler().map_err(|e| e.to_string());
        self.nvrtc = image::nvrtc().map_err(|e| e.to_string());
        let capabilities: Vec<u32> =
            self.gpus.iter().flatten().filter_map(|g| g.as_ref().ok()).map(|g| g.capability).collect();
        self.kernels = mobilis_cuda::sources::SOURCES
            .iter()
            .map(|source| {
                let embedded = source.cubins.iter().map(|c| Choice::Cubin(c.0)).chain(source.ptx.map(|_| Choice::Ptx));
                let mut code: Vec<String> = match capabilities.as_slice() {
                    [] => embedded.map(|c| c.to_string()).collect(),
                    all => all.iter().map(|c| image::choice(source, *c).to_string()).collect(),
                };
                if code.is_empty() {
                    code.push(Choice::Nvrtc.to_string());
                }
                Kernels { file: source.file, names: source.kernels.to_vec(), code }
            })
            .collect();
    }
}
