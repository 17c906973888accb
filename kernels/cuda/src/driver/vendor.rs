//! cuBLASLt, opened at run time: what our products are measured against.

use super::{Gpu, libraries};
use crate::gemm::Element;
use crate::{Buffer, CudaError, Ptr};
use cudarc::cublaslt::{result, sys};
use std::ffi::c_void;

/// Bytes of workspace that algorithms may use.
const WORKSPACE: usize = 64 << 20;
/// Algorithms that are tried.
const TRIED: usize = 8;

fn failed(call: &'static str) -> impl Fn(result::CublasError) -> CudaError {
    move |e| CudaError::Driver { call, message: format!("{:?}", e.0) }
}

/// cuBLASLt on a device.
pub struct Vendor {
    gpu: Gpu,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
}

/// A product `c[m n] = a[m k] b[n k]ᵀ`, rows in order, made ready.
pub struct Product<'v> {
    vendor: &'v Vendor,
    desc: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithms: Vec<sys::cublasLtMatmulHeuristicResult_t>,
    /// The algorithm in use.
    pub chosen: usize,
}

impl Vendor {
    /// The library on a device.
    ///
    /// # Errors
    /// No library, or none that starts.
    pub fn new(gpu: &Gpu) -> Result<Vendor, CudaError> {
        let none = || CudaError::Unavailable("cuBLASLt (libcublasLt.so.13) is not found".into());
        libraries::preload(&[&["libcublasLt.so.13", "libcublasLt.so"]]);
        // SAFETY: opens NVIDIA's library, whose initialisers are its own.
        if gpu.info().emulated || !unsafe { sys::is_culib_present() } {
            return Err(none());
        }
        gpu.0.driver.stream().ok_or_else(none)?;
        let handle = std::panic::catch_unwind(result::create_handle).map_err(|_| none())?;
        let handle = handle.map_err(failed("cublasLtCreate"))?;
        Ok(Vendor { gpu: gpu.clone(), handle, workspace: gpu.alloc(WORKSPACE)? })
    }

    /// A product of operands of one element type; `c` is `f32` for `f32` (with TF32 where `tf32`), else bf16.
    ///
    /// # Errors
    /// Sizes or types that the library does not take.
    pub fn product(
        &self,
        (m, n, k): (usize, usize, usize),
        element: Element,
        tf32: bool,
    ) -> Result<Product<'_>, CudaError> {
        use sys::{cublasComputeType_t as Compute, cudaDataType as Type};
        let (ty, out) = match element {
            Element::F32 => (Type::CUDA_R_32F, Type::CUDA_R_32F),
            Element::Bf16 => (Type::CUDA_R_16BF, Type::CUDA_R_16BF),
            Element::F16 => (Type::CUDA_R_16F, Type::CUDA_R_16F),
            Element::E4M3 => (Type::CUDA_R_8F_E4M3, Type::CUDA_R_16BF),
            other => {
                return Err(CudaError::Refused { kernel: "cuBLASLt", message: format!("values of {other:?}") });
            }
        };
        let compute = if tf32 { Compute::CUBLAS_COMPUTE_32F_FAST_TF32 } else { Compute::CUBLAS_COMPUTE_32F };
        let desc = result::create_matmul_desc(compute, Type::CUDA_R_32F).map_err(failed("cublasLtMatmulDescCreate"))?;
        // The library's columns are our rows: it computes cᵀ[n m] = b[n k] aᵀ[k m], and sees b as its transpose.
        let layout = |ty, rows: usize, columns: usize| {
            let made = result::create_matrix_layout(ty, rows as u64, columns as u64, rows as i64);
            made.map_err(failed("cublasLtMatrixLayoutCreate"))
        };
        let layouts = [layout(ty, k, n)?, layout(ty, k, m)?, layout(out, n, m)?];
        let (transposed, workspace) = (1i32, WORKSPACE);
        let mut algorithms = vec![];
        // SAFETY: descriptors and layouts were made above; the attributes have the sizes that the library documents;
        // it writes at most `TRIED` results.
        unsafe {
            let transa = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
            result::set_matmul_desc_attribute(desc, transa, (&raw const transposed).cast(), 4)
                .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
            if element == Element::E4M3 {
                // Sums as tensor cores keep them, as our products by tensor have them.
                let (fast, on) = (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_FAST_ACCUM, 1i8);
                result::set_matmul_desc_attribute(desc, fast, (&raw const on).cast(), 1)
                    .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
            }
            let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
            let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_pref_attribute(preference, most, (&raw const workspace).cast(), size_of::<usize>())
                .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))?;
            let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(TRIED);
            let mut count = 0;
            let [b, a, c] = layouts;
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                desc,
                b,
                a,
                c,
                c,
                preference,
                TRIED as i32,
                found.as_mut_ptr(),
                &mut count,
            )
            .result()
            .map_err(failed("cublasLtMatmulAlgoGetHeuristic"))?;
            found.set_len(count.clamp(0, TRIED as i32) as usize);
            let _ = result::destroy_matmul_pref(preference);
            algorithms.extend(found.into_iter().filter(|h| h.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS));
        }
        if algorithms.is_empty() {
            return Err(CudaError::Refused {
                kernel: "cuBLASLt",
                message: format!("{m} by {n} by {k} of {element:?}"),
            });
        }
        Ok(Product { vendor: self, desc, layouts, algorithms, chosen: 0 })
    }
}

impl Product<'_> {
    /// How many algorithms there are to choose from.
    pub fn algorithms(&self) -> usize {
        self.algorithms.len()
    }

    /// Computes it, as part of the device's stream.
    ///
    /// # Errors
    /// What the library says.
    pub fn run(&self, a: Ptr, b: Ptr, c: Ptr) -> Result<(), CudaError> {
        let Vendor { gpu, handle, workspace } = self.vendor;
        let Some(stream) = gpu.0.driver.stream() else { return Ok(()) };
        let (one, zero) = (1f32, 0f32);
        let [lb, la, lc] = self.layouts;
        let at = |p: Ptr| p.0 as *mut c_void;
        // SAFETY: descriptors live as long as `self`; the operands are buffers of the sizes that it was made for;
        // factors are on the host, as the library assumes unless told otherwise.
        unsafe {
            result::matmul(
                *handle,
                self.desc,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                at(b),
                lb,
                at(a),
                la,
                at(c),
                lc,
                at(c),
                lc,
                &self.algorithms[self.chosen].algo,
                at(workspace.ptr()),
                WORKSPACE,
                stream.cast(),
            )
        }
        .map_err(failed("cublasLtMatmul"))
    }
}

impl Drop for Product<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `Vendor::product`, destroyed once.
        unsafe {
            let _ = result::destroy_matmul_desc(self.desc);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // SAFETY: made by `new`; products borrow it, so none is left.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
