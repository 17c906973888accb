//! Values on the host without their types: what executables take and give.

use crate::devices::cpu::Out;
use crate::graph::DType;
use crate::module::store::Data;
use mobilis_kernels::memory::External;

/// Borrowed values.
#[derive(Clone, Copy, Debug)]
pub enum HostSlice<'a> {
    /// Real numbers.
    F32(&'a [f32]),
    /// Whole numbers.
    I32(&'a [i32]),
    /// Truth values.
    Bool(&'a [bool]),
}

/// An argument: sizes and values, row-major.
#[derive(Clone, Copy, Debug)]
pub struct HostRef<'a> {
    /// The size of each dimension.
    pub sizes: &'a [usize],
    /// The values.
    pub values: HostSlice<'a>,
}

impl<'a> HostRef<'a> {
    /// The storage.
    pub fn dtype(&self) -> DType {
        match self.values {
            HostSlice::F32(_) => DType::F32,
            HostSlice::I32(_) => DType::I32,
            HostSlice::Bool(_) => DType::Bool,
        }
    }

    pub(super) fn external(&self) -> External<'a> {
        match self.values {
            HostSlice::F32(s) => External::ReadF32(s),
            HostSlice::I32(s) => External::ReadI32(s),
            HostSlice::Bool(s) => External::ReadBool(s),
        }
    }

    pub(super) fn to_f64(self) -> Vec<f64> {
        match self.values {
            HostSlice::F32(s) => s.iter().map(|v| *v as f64).collect(),
            HostSlice::I32(s) => s.iter().map(|v| *v as f64).collect(),
            HostSlice::Bool(s) => s.iter().map(|v| *v as u8 as f64).collect(),
        }
    }
}

/// A variable's buffer for a CPU program.
pub(super) fn external(data: &mut Data) -> External<'_> {
    match data {
        Data::F32(v) => External::F32(v),
        Data::I32(v) => External::I32(v),
        Data::Bool(v) => External::U8(v),
        // The store holds `f64` only for the reference device, which asks for no externals. Stored
        // values are read where they lie, or what was made of them stands here.
        Data::F64(_) | Data::Encoded(_) => External::F32(&mut []),
    }
}

/// A result in the store's form.
pub(super) fn data(out: Out) -> Data {
    match out {
        Out::F32(s) => Data::F32(s.to_vec()),
        Out::I32(s) => Data::I32(s.to_vec()),
        Out::Bool(s) => Data::Bool(s.to_vec()),
    }
}
