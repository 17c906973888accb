//! Values between files and memory, a buffer at a time.

use super::encoding::{Encoding, from_bf16, from_e4m3, from_e5m2, from_f16, to_bf16, to_f16};
use super::error::ValueError;
use crate::graph::DType;
use crate::module::encoded::kept;
use crate::module::store::Data;
use mobilis_kernels::cpu::quant::{Blocks as Format, block};
use std::io::{Read, Write};

/// Bytes read or written at once: enough to hide the cost of a call, and a multiple of every
/// value's size.
const BUFFER: usize = 1 << 16;

/// Reads `count` values that are stored in an encoding. `wide` keeps reals as `f64`.
///
/// # Errors
/// An encoding of another kind than `dtype`; a value that does not fit; an early end.
pub fn read(
    file: &mut dyn Read,
    count: usize,
    encoding: Encoding,
    dtype: DType,
    wide: bool,
) -> Result<Data, ValueError> {
    use Encoding::*;
    let kind = || ValueError::Kind { found: encoding, expected: dtype };
    let range = |position: usize, value: String| ValueError::Range { value, position, encoding, expected: dtype };
    let narrow = |position: usize, v: f64| {
        let rounded = v as f32;
        let fits = rounded.is_finite() || !v.is_finite();
        if fits { Ok(rounded) } else { Err(range(position, v.to_string())) }
    };
    /// One kind of element: its bytes, its value, what becomes of it.
    macro_rules! each {
        ($t:ty, $of:expr) => {{
            let mut out = reserved(count)?;
            stream(file, count, size_of::<$t>(), &mut |bytes| {
                for b in bytes.as_chunks().0 {
                    let value: Result<_, ValueError> = $of(out.len(), <$t>::from_le_bytes(*b));
                    out.push(value?);
                }
                Ok(())
            })?;
            out
        }};
    }
    macro_rules! whole {
        ($t:ty) => {
            each!($t, |p, v: $t| i32::try_from(v).map_err(|_| range(p, v.to_string())))
        };
    }
    if !readable(encoding, dtype) {
        return Err(kind());
    }
    Ok(match (dtype, encoding, wide) {
        (DType::F32, F32, false) => Data::F32(each!(f32, |_, v| Ok(v))),
        (DType::F32, F64, true) => Data::F64(each!(f64, |_, v| Ok(v))),
        (DType::F32, F64, false) => Data::F32(each!(f64, narrow)),
        (DType::F32, F16, false) => Data::F32(each!(u16, |_, v| Ok(from_f16(v)))),
        (DType::F32, BF16, false) => Data::F32(each!(u16, |_, v| Ok(from_bf16(v)))),
        (DType::F32, F8E4M3, false) => Data::F32(each!(u8, |_, v| Ok(from_e4m3(v)))),
        (DType::F32, F8E5M2, false) => Data::F32(each!(u8, |_, v| Ok(from_e5m2(v)))),
        (DType::F32, Blocks(blocks), false) => Data::F32(quantized(file, count, blocks)?),
        // Every other real is exact in `f32`.
        (DType::F32, _, true) => read(file, count, encoding, dtype, false)?.widened(),
        (DType::I32, I8, _) => Data::I32(whole!(i8)),
        (DType::I32, I16, _) => Data::I32(whole!(i16)),
        (DType::I32, I32, _) => Data::I32(whole!(i32)),
        (DType::I32, I64, _) => Data::I32(whole!(i64)),
        (DType::I32, U8, _) => Data::I32(whole!(u8)),
        (DType::I32, U16, _) => Data::I32(whole!(u16)),
        (DType::I32, U32, _) => Data::I32(whole!(u32)),
        (DType::I32, U64, _) => Data::I32(whole!(u64)),
        (DType::Bool, Bool | U8, _) => {
            Data::Bool(each!(u8, |p, v: u8| if v < 2 { Ok(v) } else { Err(range(p, v.to_string())) }))
        }
        // Not reached: `readable` has refused the rest.
        _ => return Err(kind()),
    })
}

/// Whether values of an encoding can be read into this storage, if each fits.
pub fn readable(encoding: Encoding, dtype: DType) -> bool {
    use Encoding::*;
    match dtype {
        DType::F32 => super::encoding::is_real(encoding),
        DType::I32 => matches!(encoding, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64),
        DType::Bool => matches!(encoding, Bool | U8),
    }
}

/// Room for `count` values.
fn reserved<T>(count: usize) -> Result<Vec<T>, ValueError> {
    let mut out = Vec::new();
    out.try_reserve_exact(count).map_err(|_| ValueError::Memory { count })?;
    Ok(out)
}

/// Reads `count` elements of `size` bytes each, and gives them to `some` a buffer at a time. One
/// function for all files and elements, for each of their pairs would be compiled on its own.
fn stream(
    file: &mut dyn Read,
    count: usize,
    size: usize,
    some: &mut dyn FnMut(&[u8]) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let mut left = count.saturating_mul(size);
    let mut buffer = vec![0; BUFFER.min(left)];
    while left > 0 {
        let bytes = buffer.len().min(left);
        file.read_exact(&mut buffer[..bytes])?;
        some(&buffer[..bytes])?;
        left -= bytes;
    }
    Ok(())
}

/// Reads `count` values of whole blocks.
fn quantized(file: &mut dyn Read, count: usize, blocks: Format) -> Result<Vec<f32>, ValueError> {
    if !count.is_multiple_of(blocks.values()) {
        return Err(ValueError::Partial { count, blocks });
    }
    let mut out: Vec<f32> = reserved(count)?;
    let together = BUFFER / blocks.bytes();
    let mut buffer = vec![0; together.min(count / blocks.values()) * blocks.bytes()];
    while out.len() < count {
        let at = out.len();
        let part = together.min((count - at) / blocks.values());
        file.read_exact(&mut buffer[..part * blocks.bytes()])?;
        out.resize(at + part * blocks.values(), 0.0);
        blocks.dequantize(&buffer[..part * blocks.bytes()], &mut out[at..]);
    }
    Ok(out)
}

/// Writes values in an encoding; reals are rounded to it, ties to even.
///
/// # Errors
/// Those of the writer.
///
/// # Panics
/// When the encoding is of another kind: [`fits`] tells.
pub fn write(file: &mut dyn Write, data: &Data, encoding: Encoding) -> std::io::Result<()> {
    use Encoding::*;
    match (data, encoding) {
        (Data::F32(v), F32) => put(file, v, |v| v.to_le_bytes()),
        (Data::F32(v), F64) => put(file, v, |v| (v as f64).to_le_bytes()),
        (Data::F32(v), F16) => put(file, v, |v| to_f16(v).to_le_bytes()),
        (Data::F32(v), BF16) => put(file, v, |v| to_bf16(v).to_le_bytes()),
        (Data::F32(v), Blocks(blocks)) => put_blocks(file, v, blocks),
        (Data::F64(v), Blocks(blocks)) => {
            let narrow: Vec<f32> = v.iter().map(|v| *v as f32).collect();
            put_blocks(file, &narrow, blocks)
        }
        (Data::F64(v), F64) => put(file, v, |v| v.to_le_bytes()),
        (Data::F64(v), F32) => put(file, v, |v| (v as f32).to_le_bytes()),
        (Data::F64(v), F16) => put(file, v, |v| to_f16(odd(v)).to_le_bytes()),
        (Data::F64(v), BF16) => put(file, v, |v| to_bf16(odd(v)).to_le_bytes()),
        (Data::I32(v), I32) => put(file, v, |v| v.to_le_bytes()),
        (Data::I32(v), I64) => put(file, v, |v| (v as i64).to_le_bytes()),
        (Data::Bool(v), Bool | U8) => put(file, v, |v| [v]),
        (Data::Encoded(v), F16 | BF16) if kept(encoding) == Some(v.encoding()) => file.write_all(v.bytes()),
        (Data::Encoded(v), _) => {
            for first in (0..v.len()).step_by(BUFFER) {
                let mut part = vec![0.0; BUFFER.min(v.len() - first)];
                v.read(first, &mut part);
                write(file, &Data::F32(part), encoding)?;
            }
            Ok(())
        }
        (data, encoding) => panic!("{} values are not written as {encoding}", data.dtype()),
    }
}

/// Whether values of this storage can be written in an encoding.
pub fn fits(data: &Data, encoding: Encoding) -> bool {
    use Encoding::*;
    match data {
        Data::F32(_) | Data::F64(_) | Data::Encoded(_) => matches!(encoding, F32 | F64 | F16 | BF16),
        Data::I32(_) => matches!(encoding, I32 | I64),
        Data::Bool(_) => matches!(encoding, Bool | U8),
    }
}

/// Rounds to odd: a second rounding to a shorter float then gives what one rounding would
/// (Boldo and Melquiond 2008). What rounds to zero here is far below the shorter floats.
fn odd(v: f64) -> f32 {
    let near = v as f32;
    if near as f64 == v || v.is_nan() || near == 0.0 || near.to_bits() & 1 == 1 {
        return near;
    }
    // `near` is even and not exact: `v` lies between it and the odd neighbour on one side.
    let outward = ((near as f64) < v) == (near > 0.0);
    f32::from_bits(if outward { near.to_bits() + 1 } else { near.to_bits() - 1 })
}

/// Rounds to whole blocks, as ggml's reference does.
fn put_blocks(file: &mut dyn Write, values: &[f32], format: Format) -> std::io::Result<()> {
    for block in values.as_chunks::<{ block::BLOCK }>().0 {
        match format {
            Format::Q8_0 => file.write_all(&block::q8_0(block).to_q8_0())?,
            Format::Q4_0 => file.write_all(&block::q4_0(block).to_q4_0())?,
            other => panic!("values are not written as {}", other.name()),
        }
    }
    Ok(())
}

fn put<const N: usize, T: Copy>(file: &mut dyn Write, values: &[T], of: impl Fn(T) -> [u8; N]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER.min(values.len() * N));
    for part in values.chunks(BUFFER / N) {
        buffer.clear();
        part.iter().for_each(|v| buffer.extend_from_slice(&of(*v)));
        file.write_all(&buffer)?;
    }
    Ok(())
}
