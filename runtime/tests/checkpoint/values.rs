//! Values between encodings and storages.

use mobilis::checkpoint::{Encoding, ValueError, values};
use mobilis::graph::DType;
use mobilis::module::store::Data;

fn read(bytes: &[u8], count: usize, encoding: Encoding, dtype: DType) -> Result<Data, ValueError> {
    values::read(&mut &bytes[..], count, encoding, dtype, false)
}

fn written(data: &Data, encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    values::write(&mut bytes, data, encoding).unwrap();
    bytes
}

#[test]
fn storages_round_trip() {
    let reals = Data::F32(vec![0.1, -0.0, f32::MAX, f32::MIN_POSITIVE / 4.0, f32::INFINITY]);
    for encoding in [Encoding::F32, Encoding::F64] {
        assert_eq!(read(&written(&reals, encoding), 5, encoding, DType::F32).unwrap(), reals);
    }
    let wide = Data::F64(vec![0.1, 1e300, -2.5]);
    let bytes = written(&wide, Encoding::F64);
    assert_eq!(values::read(&mut &bytes[..], 3, Encoding::F64, DType::F32, true).unwrap(), wide);
    let whole = Data::I32(vec![i32::MIN, -1, 0, i32::MAX]);
    for encoding in [Encoding::I32, Encoding::I64] {
        assert_eq!(read(&written(&whole, encoding), 4, encoding, DType::I32).unwrap(), whole);
    }
    let truth = Data::Bool(vec![1, 0, 1]);
    assert_eq!(read(&written(&truth, Encoding::Bool), 3, Encoding::Bool, DType::Bool).unwrap(), truth);
    assert_eq!(read(&written(&truth, Encoding::U8), 3, Encoding::U8, DType::Bool).unwrap(), truth);
    // NaN stays NaN.
    let nan = written(&Data::F32(vec![f32::NAN]), Encoding::BF16);
    assert!(matches!(&read(&nan, 1, Encoding::BF16, DType::F32).unwrap(), Data::F32(v) if v[0].is_nan()));
}

#[test]
fn halves_round_once() {
    // 1 + 2^-11 + 2^-40 is above the middle of two halves; rounded through `f32` it is the
    // middle itself, and a tie to even would go down.
    let v = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    for (value, expected) in [(v, 1.0 + 2f32.powi(-10)), (-v, -1.0 - 2f32.powi(-10)), (1e300, f32::INFINITY)] {
        let bytes = written(&Data::F64(vec![value]), Encoding::F16);
        assert_eq!(read(&bytes, 1, Encoding::F16, DType::F32).unwrap(), Data::F32(vec![expected]));
    }
    let below = 1.0 + 2f64.powi(-8) - 2f64.powi(-40);
    let bytes = written(&Data::F64(vec![below, -1e300, 1e-320]), Encoding::BF16);
    assert_eq!(read(&bytes, 3, Encoding::BF16, DType::F32).unwrap(), Data::F32(vec![1.0, f32::NEG_INFINITY, 0.0]));
}

#[test]
fn whole_numbers_are_exact_or_refused() {
    let bytes: Vec<u8> = [5i64, -7, 1 << 31].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(&bytes, 2, Encoding::I64, DType::I32).unwrap(), Data::I32(vec![5, -7]));
    let e = read(&bytes, 3, Encoding::I64, DType::I32).unwrap_err();
    assert_eq!(e.to_string(), "value 2147483648 at position 2 (stored as I64) does not fit i32");
    assert_eq!(read(&[255, 128], 2, Encoding::I8, DType::I32).unwrap(), Data::I32(vec![-1, -128]));
    assert_eq!(read(&[255, 128], 2, Encoding::U8, DType::I32).unwrap(), Data::I32(vec![255, 128]));
    assert_eq!(read(&[255, 255], 1, Encoding::U16, DType::I32).unwrap(), Data::I32(vec![65535]));
    assert_eq!(read(&[255, 255], 1, Encoding::I16, DType::I32).unwrap(), Data::I32(vec![-1]));
    assert!(read(&[255; 4], 1, Encoding::U32, DType::I32).is_err());
    assert!(read(&[255; 8], 1, Encoding::U64, DType::I32).is_err());
}

#[test]
fn reals_beyond_f32_are_refused() {
    let bytes: Vec<u8> = [0.1f64, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(&bytes, 1, Encoding::F64, DType::F32).unwrap(), Data::F32(vec![0.1]));
    assert!(matches!(read(&bytes, 2, Encoding::F64, DType::F32), Err(ValueError::Range { position: 1, .. })));
    assert_eq!(read(&[0x7E, 0x80], 2, Encoding::F8E4M3, DType::F32).unwrap(), Data::F32(vec![448.0, -0.0]));
    assert_eq!(read(&[0x7B], 1, Encoding::F8E5M2, DType::F32).unwrap(), Data::F32(vec![57344.0]));
}

#[test]
fn masks_are_zero_or_one() {
    let e = read(&[0, 1, 2], 3, Encoding::U8, DType::Bool).unwrap_err();
    assert_eq!(e.to_string(), "value 2 at position 2 (stored as U8) does not fit bool");
    assert!(read(&[7], 1, Encoding::Bool, DType::Bool).is_err());
}

#[test]
fn kinds_are_not_mixed() {
    for (encoding, dtype) in [
        (Encoding::I64, DType::F32),
        (Encoding::F32, DType::I32),
        (Encoding::Bool, DType::I32),
        (Encoding::I32, DType::Bool),
        (Encoding::C64, DType::F32),
        (Encoding::F4, DType::F32),
        (Encoding::F8E8M0, DType::F32),
    ] {
        for wide in [false, true] {
            let e = values::read(&mut &[0u8; 8][..], 1, encoding, dtype, wide).unwrap_err();
            assert!(matches!(e, ValueError::Kind { .. }), "{encoding} {dtype}");
            assert!(e.to_string().contains(&format!("stored as {encoding}, which is not read as {dtype}")), "{e}");
        }
    }
}

#[test]
fn long_tensors_cross_the_buffer() {
    let count = 70_001;
    let data = Data::I32((0..count).collect());
    let bytes = written(&data, Encoding::I64);
    assert_eq!(bytes.len(), 8 * count as usize);
    assert_eq!(read(&bytes, count as usize, Encoding::I64, DType::I32).unwrap(), data);
    assert!(matches!(
        read(&bytes[..bytes.len() - 1], count as usize, Encoding::I64, DType::I32),
        Err(ValueError::Io(_))
    ));
}

#[test]
fn absurd_counts_are_refused_without_memory() {
    let e = read(&[], usize::MAX / 8, Encoding::F32, DType::F32).unwrap_err();
    assert!(matches!(e, ValueError::Memory { .. }), "{e}");
}
