//! NVRTC, NVIDIA's compiler as a library, opened at run time.

use super::libraries;
use crate::CudaError;
use crate::sources::HEADERS;
use cudarc::nvrtc::{result, sys};
use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

fn failed(file: &str, message: impl Into<String>) -> CudaError {
    CudaError::Compile { file: file.into(), message: message.into() }
}

/// The version, or that there is none.
pub(super) fn version() -> Result<String, CudaError> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        // The library opens its own part by name, so that one comes first.
        let parts = ["libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.13.1"];
        libraries::preload(&[&parts, &["libnvrtc.so.13", "libnvrtc.so"]]);
        // SAFETY: opens the library, as above.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: addresses of two `int`s.
        unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().ok()?;
        Some(format!("{major}.{minor}"))
    };
    // cudarc panics where a symbol is missing.
    let known = VERSION.get_or_init(|| std::panic::catch_unwind(ask).unwrap_or_default());
    known.clone().ok_or_else(|| {
        CudaError::Unavailable(
            "this build has no compiled kernels for the device, and NVRTC (libnvrtc.so.13) is not found to make them: \
             install CUDA 13's nvrtc, or name its folder in MOBILIS_CUDA_LIBRARIES"
                .into(),
        )
    })
}

/// A cubin of a text.
pub(super) fn compile(file: &str, text: &str, arch: &str) -> Result<Vec<u8>, CudaError> {
    version()?;
    let string = |s: &str| CString::new(s).map_err(|_| failed(file, "the text holds a zero"));
    let (text, name) = (string(text)?, string(&format!("{file}.cu"))?);
    let headers = HEADERS.iter().map(|(n, t)| Ok((string(n)?, string(t)?))).collect::<Result<Vec<_>, CudaError>>()?;
    let names: Vec<*const c_char> = headers.iter().map(|h| h.0.as_ptr()).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|h| h.1.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    // SAFETY: strings that end with zeros, as many names as texts; all of it outlives the program, which is
    // destroyed below.
    unsafe {
        let (count, texts, names) = (headers.len() as i32, texts.as_ptr(), names.as_ptr());
        sys::nvrtcCreateProgram(&mut program, text.as_ptr(), name.as_ptr(), count, texts, names)
            .result()
            .map_err(|e| failed(file, format!("{e:?}")))?;
        let options = [
            format!("--gpu-architecture={arch}"),
            "--std=c++17".into(),
            "-default-device".into(),
            "--generate-line-info".into(),
        ];
        let cubin = result::compile_program(program, &options).map_err(|e| {
            let log = result::get_program_log(program).unwrap_or_default();
            let log =
                if log.is_empty() { String::new() } else { CStr::from_ptr(log.as_ptr()).to_string_lossy().into() };
            failed(file, format!("{e:?}\n{log}"))
        });
        let cubin = cubin.and_then(|()| {
            let refused = |e| failed(file, format!("{e:?}"));
            let mut bytes = 0;
            sys::nvrtcGetCUBINSize(program, &mut bytes).result().map_err(refused)?;
            let mut cubin = vec![0u8; bytes];
            sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()).result().map_err(refused)?;
            Ok(cubin)
        });
        let _ = result::destroy_program(program);
        cubin
    }
}
