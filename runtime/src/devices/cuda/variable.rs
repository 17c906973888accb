//! A variable's values on a device: each in memory, or as the model stores them, or both.

use super::lower::{ALIGN, Reads};
use crate::graph::DType;
use crate::module::encoded::{Encoded, Encoding};
use crate::module::store::{Data, OnDevice};
use mobilis_cuda::{Buffer, CudaError, Gpu, Plain, Ptr};
use mobilis_kernels::cpu::quant::Blocks;
use std::sync::OnceLock;

/// One value of a variable on a device.
pub struct Variable {
    gpu: Gpu,
    /// How many values, of which storage.
    count: usize,
    dtype: DType,
    plain: OnceLock<Buffer>,
    stored: OnceLock<Buffer>,
}

fn ptr(buffer: &OnceLock<Buffer>) -> Ptr {
    buffer.get().map_or(Ptr::NULL, Buffer::ptr)
}

impl Variable {
    /// A value like this one, none of which is on the device yet.
    pub fn new(gpu: &Gpu, like: &Data) -> Variable {
        let (plain, stored) = (OnceLock::new(), OnceLock::new());
        Variable { gpu: gpu.clone(), count: like.len(), dtype: like.dtype(), plain, stored }
    }

    /// Whether it is on this device.
    pub fn on(&self, gpu: &Gpu) -> bool {
        self.gpu.same(gpu)
    }

    /// Whether it can take on such values, in the place where it is.
    pub fn fits(&self, gpu: &Gpu, like: &Data) -> bool {
        self.on(gpu) && self.count == like.len() && self.dtype == like.dtype() && self.stored.get().is_none()
    }

    /// Whether all that a program reads is there.
    pub fn has(&self, reads: Reads) -> bool {
        (!reads.plain || self.plain.get().is_some()) && (!reads.stored || self.stored.get().is_some())
    }

    /// Brings what a program reads and is not there yet.
    ///
    /// # Errors
    /// No memory on the device, and its failures.
    pub fn bring(&self, data: &Data, reads: Reads) -> Result<(), CudaError> {
        if reads.plain && self.plain.get().is_none() {
            let buffer = self.gpu.alloc(self.count * self.dtype.bytes())?;
            let _ = self.plain.set(buffer);
            self.write(data)?;
        }
        if let (true, None, Data::Encoded(stored)) = (reads.stored, self.stored.get(), data) {
            let bytes = as_kernels_read(stored);
            let buffer = self.gpu.alloc(bytes.len())?;
            self.gpu.write(buffer.ptr(), &bytes)?;
            let _ = self.stored.set(buffer);
        }
        Ok(())
    }

    /// Copies values to where they are, each in memory.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn write(&self, data: &Data) -> Result<(), CudaError> {
        let Some(plain) = self.plain.get() else { return Ok(()) };
        match &*data.dense() {
            Data::F32(values) => self.gpu.write(plain.ptr(), values),
            Data::I32(values) => self.gpu.write(plain.ptr(), values),
            Data::Bool(values) => self.gpu.write(plain.ptr(), values),
            // The store holds `f64` for the reference device only, and `dense` leaves nothing encoded.
            Data::F64(_) | Data::Encoded(_) => Ok(()),
        }
    }

    /// Where its values lie, each in memory; null where no program reads them so.
    pub fn plain(&self) -> Ptr {
        ptr(&self.plain)
    }

    /// Where they lie as they are stored; null where no program reads them so.
    pub fn stored(&self) -> Ptr {
        ptr(&self.stored)
    }
}

/// Stored values in the order in which kernels read them: blocks are cut into their whole numbers, of all blocks
/// one after the other, and from the next multiple of [`ALIGN`] on their scales.
fn as_kernels_read(stored: &Encoded) -> Vec<u8> {
    let all: &[u8] = stored.bytes();
    let (block, numbers) = match stored.encoding() {
        Encoding::Blocks(Blocks::Q8_0) => (34, 32),
        Encoding::Blocks(Blocks::Q4_0) => (18, 16),
        _ => return all.to_vec(),
    };
    // A block is its scale, an f16, and its numbers.
    let count = all.len() / block;
    let scales = (count * numbers).next_multiple_of(ALIGN);
    let mut planes = vec![0; scales + 2 * count];
    for (i, block) in all.chunks_exact(block).enumerate() {
        planes[numbers * i..][..numbers].copy_from_slice(&block[2..]);
        planes[scales + 2 * i..][..2].copy_from_slice(&block[..2]);
    }
    planes
}

impl OnDevice for Variable {
    fn fetch(&self) -> Result<Data, String> {
        fn read<T: Plain + Default>(gpu: &Gpu, at: Ptr, count: usize) -> Result<Vec<T>, String> {
            let mut values = vec![T::default(); count];
            gpu.read(at, &mut values).map_err(|e| e.to_string())?;
            Ok(values)
        }
        let (gpu, at, count) = (&self.gpu, self.plain(), self.count);
        match self.dtype {
            DType::F32 => read(gpu, at, count).map(Data::F32),
            DType::I32 => read(gpu, at, count).map(Data::I32),
            DType::Bool => read(gpu, at, count).map(Data::Bool),
        }
    }
}
