//! What TMA is told of arrays: 128 bytes that the driver makes. It asks no device.

use super::words;
use crate::driver::TensorMap;
use crate::{CudaError, Swizzle, Tile, TileKind};
use cudarc::driver::sys;
use std::ffi::c_void;

pub(super) fn encode(tile: &Tile) -> Result<TensorMap, CudaError> {
    use sys::{CUtensorMapDataType_enum as Type, CUtensorMapSwizzle_enum as How};
    let refused = |message: String| CudaError::Refused { kernel: "tensor map", message };
    tile.check()?;
    let ty = match (tile.kind, tile.element) {
        (TileKind::F32, _) => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        (TileKind::Bf16, _) => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        (TileKind::F16, _) => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        (TileKind::Bits, 1) => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        (TileKind::Bits, 2) => Type::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        (TileKind::Bits, 4) => Type::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        (TileKind::Bits, _) => Type::CU_TENSOR_MAP_DATA_TYPE_UINT64,
    };
    let swizzle = match tile.swizzle {
        Swizzle::None => How::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => How::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => How::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => How::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut map = TensorMap([0; 16]);
    // SAFETY: the map has the driver's size and alignment (128 bytes, 64); the slices have as many values
    // as the driver reads (`Tile::check`).
    unsafe {
        sys::cuTensorMapEncodeTiled(
            (&raw mut map).cast(),
            ty,
            tile.sizes.len() as u32,
            tile.base.0 as *mut c_void,
            tile.sizes.as_ptr(),
            tile.strides.as_ptr(),
            tile.box_sizes.as_ptr(),
            [1u32; 5].as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(|e| refused(format!("{}: {tile:?}", words(e))))?;
    Ok(map)
}
