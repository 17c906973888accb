//! Devices: how operations are computed.
//!
//! [`reference`](mod@reference) evaluates a graph in `f64` with plain loops: the oracle of every test.
//! [`cpu`] prepares kernels for concrete sizes and runs them on threads; [`cuda`] does the same with
//! the kernels of NVIDIA GPUs, on a device or on the emulator. All take the same operations; none
//! knows of tensors' types or modules. The reference device is part of builds with the feature
//! `reference`, GPUs of builds with the feature `cuda`.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "without_cuda.rs"]
pub mod cuda;
pub mod found;
mod lower;
pub mod plan;
#[cfg(feature = "reference")]
pub mod reference;
#[cfg(not(feature = "reference"))]
#[path = "without_reference.rs"]
pub mod reference;
pub mod view;

/// Where a model's programs run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Device {
    /// `f32` kernels on all cores.
    #[default]
    Cpu,
    /// `f64` plain loops: the oracle, for checking and debugging. Needs the feature `reference`.
    Reference,
    /// An NVIDIA GPU, by its number. Needs the feature `cuda` and NVIDIA's driver.
    Cuda(u32),
    /// The kernels of NVIDIA GPUs, emulated on the CPU: slow, for tests. Needs the feature `cuda`, a
    /// C++ compiler and Mobilis's sources.
    Emulated,
}

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device here: why.
    #[error("{0}")]
    Unavailable(String),
    /// A name that is no device's.
    #[error("there is no device \"{0}\": it is `cpu`, `cuda`, `cuda:1` (the second GPU), `reference` or `emulated`")]
    Unknown(String),
}

impl Device {
    /// An NVIDIA GPU, from 0 on, that is there and can run programs.
    ///
    /// PyTorch: `torch.device("cuda", n)`.
    ///
    /// # Errors
    /// No driver, no such device, one that is too old, or a build without the feature `cuda`.
    pub fn cuda(n: u32) -> Result<Device, DeviceError> {
        Device::Cuda(n).found()
    }

    /// The emulator of NVIDIA GPUs.
    ///
    /// # Errors
    /// Without a C++ compiler or Mobilis's sources, or in a build without the feature `cuda`.
    pub fn emulated() -> Result<Device, DeviceError> {
        Device::Emulated.found()
    }

    /// The device itself where it is here and can run programs.
    ///
    /// # Errors
    /// As of [`cuda`](Self::cuda) and [`emulated`](Self::emulated).
    pub fn found(self) -> Result<Device, DeviceError> {
        match self {
            Device::Cpu => Ok(self),
            Device::Reference if cfg!(feature = "reference") => Ok(self),
            Device::Reference => Err(DeviceError::Unavailable(
                "the reference device is not part of this build: enable the feature `reference`".into(),
            )),
            Device::Cuda(_) | Device::Emulated => cuda::open(self).map(|_| self).map_err(DeviceError::Unavailable),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Reference => f.write_str("reference"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
            Device::Emulated => f.write_str("emulated"),
        }
    }
}

/// The device of a name, as [`Display`](std::fmt::Display) gives it; `cuda` is the first GPU. It need not be
/// here: [`Device::found`] tells.
impl std::str::FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Device, DeviceError> {
        match name {
            "cpu" => Ok(Device::Cpu),
            "reference" => Ok(Device::Reference),
            "cuda" => Ok(Device::Cuda(0)),
            "emulated" => Ok(Device::Emulated),
            _ => {
                let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                number.map(Device::Cuda).ok_or_else(|| DeviceError::Unknown(name.into()))
            }
        }
    }
}
