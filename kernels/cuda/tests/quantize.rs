//! Numbers of eight bits on devices, bit for bit those of the CPU's kernels.

use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::{Element, Matrix};
use mobilis_cuda::quantize::{Format, Scale, Tiles, To, amax, convert, recast, round_bf16, scale, scaled, tiles};
use mobilis_cuda::testing::{devices, download, upload, values};
use mobilis_kernels::cpu::quantize as cpu;
use mobilis_kernels::fp8::{self, Fp8};
use mobilis_kernels::pool::Pool;

const FORMATS: [(Format, Fp8); 2] = [(Format::E4M3, Fp8::E4M3), (Format::E5M2, Fp8::E5M2)];
const RULES: [(Scale, fp8::Scale); 4] = [
    (Scale::Exact { epsilon: 0.0, power_of_two: false }, fp8::Scale::Exact { epsilon: 0.0, power_of_two: false }),
    (Scale::Exact { epsilon: 0.0, power_of_two: true }, fp8::Scale::Exact { epsilon: 0.0, power_of_two: true }),
    (Scale::Exact { epsilon: 3.0, power_of_two: false }, fp8::Scale::Exact { epsilon: 3.0, power_of_two: false }),
    (Scale::E8M0, fp8::Scale::E8M0),
];

fn bits(x: &[f32]) -> Vec<u32> {
    // All NaN are one.
    x.iter().map(|v| if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() }).collect()
}

/// Values of many sizes, with some that are special.
fn mixed(count: usize) -> Vec<f32> {
    let special = [0.0, -0.0, f32::NAN, 1e-45, -1e-38, 3.4e38, 447.9, 464.0];
    let sizes = values(count, 9);
    let value = |(i, v): (usize, f32)| if i % 41 == 7 { special[i / 41 % 8] } else { v * (sizes[i] * 12.0).exp2() };
    values(count, 3).into_iter().enumerate().map(value).collect()
}

#[test]
fn scales_are_those_of_the_cpu() {
    for gpu in devices() {
        let to = gpu.alloc(4).unwrap();
        for a in [0.0, 1e-45, 1e-38, 0.3, 1.0, 448.0, 3.4e38, f32::INFINITY, f32::NAN] {
            let (from, old) = (upload(&gpu, &[a]), upload(&gpu, &[7.5f32]));
            for (format, same) in FORMATS {
                for (rule, by) in RULES {
                    gpu.run(&scale(format, rule, from.ptr(), None, to.ptr())).unwrap();
                    assert_eq!(bits(&download(&to, 1)), bits(&[by.of(same, a)]), "{a} {format:?} {rule:?}");
                }
                gpu.run(&scale(format, Scale::E8M0, from.ptr(), Some((old.ptr(), 2.0)), to.ptr())).unwrap();
                assert_eq!(bits(&download(&to, 1)), bits(&[fp8::delayed_scale(same, 2.0, a, 7.5)]), "{a}");
            }
        }
    }
}

#[test]
fn one_scale_for_all_with_codes_both_ways() {
    for gpu in devices() {
        for (rows, columns) in [(1, 1), (70, 65), (3, 200), (0, 4)] {
            let x = mixed(rows * columns);
            let (from, factor, most) = (upload(&gpu, &x), upload(&gpu, &[37.5f32]), gpu.alloc(4).unwrap());
            gpu.run(&amax(from.ptr(), Element::F32, x.len(), most.ptr()).unwrap()).unwrap();
            assert_eq!(download::<f32>(&most, 1)[0], fp8::amax(&x));
            for (format, same) in FORMATS {
                let bytes = x.len();
                let (codes, turned, left) =
                    (gpu.alloc(bytes).unwrap(), gpu.alloc(bytes).unwrap(), gpu.alloc(4 * bytes).unwrap());
                let to = To { codes: codes.ptr(), turned: turned.ptr(), left: left.ptr() };
                let from = (from.ptr(), Element::F32);
                gpu.run(&scaled(from, [rows, columns], format, factor.ptr(), to, most.ptr()).unwrap()).unwrap();
                let mut expected = vec![0; bytes];
                fp8::encode(same, &x, 37.5, &mut expected);
                assert_eq!(download::<u8>(&codes, bytes), expected, "{rows} by {columns}");
                let across: Vec<u8> = (0..bytes).map(|i| expected[i % rows * columns + i / rows]).collect();
                assert_eq!(download::<u8>(&turned, bytes), across);
                let mut rest = vec![0.0; bytes];
                cpu::scaled(Pool::global(), same, &x, 37.5, &mut rest);
                assert_eq!(bits(&download(&left, bytes)), bits(&rest));
                assert_eq!(download::<f32>(&most, 1)[0], fp8::amax(&x));
            }
        }
    }
}

#[test]
fn tiles_of_every_recipe() {
    for gpu in devices() {
        for (size, tile) in [
            ([3, 300], [1, usize::MAX]),
            ([5, 300], [1, 128]),
            ([140, 150], [128, 128]),
            ([7, 96], [1, 32]),
            ([200, 33], [128, 1]),
        ] {
            let (outer, [rows, columns]) = (2, size);
            let count = outer * rows * columns;
            let x = mixed(count);
            let from = upload(&gpu, &x);
            for ((format, same), (rule, by)) in FORMATS.into_iter().zip([RULES[1], RULES[3]]) {
                let (codes, turned, left) =
                    (gpu.alloc(count).unwrap(), gpu.alloc(count).unwrap(), gpu.alloc(4 * count).unwrap());
                let to = To { codes: codes.ptr(), turned: turned.ptr(), left: left.ptr() };
                let at = Tiles { outer, size, tile };
                let (bands, strips) = (rows.div_ceil(tile[0]), columns.div_ceil(tile[1]));
                let back = gpu.alloc(outer * bands * strips * 4).unwrap();
                // Factors of tiles with those below each other together.
                let places = (back.ptr(), [1, bands]);
                gpu.run(&tiles((from.ptr(), Element::F32), at, format, rule, to, places).unwrap()).unwrap();
                let mut rest = vec![0.0; count];
                let tile = (tile[0], tile[1]);
                let plan = cpu::Tiles { outer, size: (rows, columns), tile };
                cpu::tiles(Pool::global(), same, by, plan, &x, &mut rest);
                assert_eq!(bits(&download(&left, count)), bits(&rest), "{size:?} {tile:?}");
                let (codes, turned) = (download::<u8>(&codes, count), download::<u8>(&turned, count));
                let back: Vec<f32> = download(&back, outer * bands * strips);
                for (i, code) in codes.iter().enumerate() {
                    let (o, r, c) = (i / rows / columns, i / columns % rows, i % columns);
                    assert_eq!(turned[(o * columns + c) * rows + r], *code);
                    let factor = back[o * bands * strips + r / tile.0 + c / tile.1 * bands];
                    assert_eq!(bits(&[same.decode(*code) * factor]), bits(&rest[i..=i]));
                }
                // Turned codes alone take another way.
                let alone = gpu.alloc(count).unwrap();
                let to = To { turned: alone.ptr(), ..To::default() };
                let nowhere = (Ptr::NULL, [0; 2]);
                gpu.run(&tiles((from.ptr(), Element::F32), at, format, rule, to, nowhere).unwrap()).unwrap();
                assert_eq!(download::<u8>(&alone, count), turned);
            }
        }
    }
}

#[test]
fn other_types_and_lines() {
    for gpu in devices() {
        let x = mixed(1000);
        let (from, to) = (upload(&gpu, &x), gpu.alloc(4000).unwrap());
        gpu.run(&round_bf16(from.ptr(), to.ptr(), 1000).unwrap()).unwrap();
        let expected: Vec<f32> = x.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
        assert_eq!(bits(&download(&to, 1000)), bits(&expected));
        // To 16 bits and back, whole vectors and not, by vectors and value by value.
        for (element, count, first) in [
            (Element::Bf16, 1000, 0),
            (Element::Bf16, 13, 0),
            (Element::Bf16, 500, 1),
            (Element::F16, 997, 0),
            (Element::F16, 3, 2),
            (Element::F16, 0, 0),
        ] {
            let (small, back) = (upload(&gpu, &vec![7u16; count + 1]), upload(&gpu, &vec![7f32; count + 1]));
            let x_at = (from.ptr().at(4 * first), Element::F32);
            gpu.run(&recast(x_at, (small.ptr(), element), count).unwrap()).unwrap();
            gpu.run(&recast((small.ptr(), element), (back.ptr(), Element::F32), count).unwrap()).unwrap();
            let (small, back): (Vec<u16>, Vec<f32>) = (download(&small, count + 1), download(&back, count + 1));
            for (k, v) in x[first..first + count].iter().enumerate() {
                let (bits, value) = match element {
                    Element::Bf16 => (half::bf16::from_f32(*v).to_bits(), half::bf16::from_f32(*v).to_f32()),
                    _ => (half::f16::from_f32(*v).to_bits(), half::f16::from_f32(*v).to_f32()),
                };
                assert!(v.is_nan() && back[k].is_nan() || (small[k], back[k]) == (bits, value), "{k}: {v}");
            }
            assert_eq!((small[count], back[count]), (7, 7.0), "what lies behind stays");
        }
        assert!(recast((from.ptr(), Element::I8), (to.ptr(), Element::F32), 1).is_err());
        let (o, i, rows, columns) = (2, 3, 40, 4);
        for (row, col) in [(1, 40), (4, 1)] {
            let at = Matrix { at: from.ptr(), row, col, outer: 480, inner: 160, ..Matrix::default() };
            let line = 8;
            let twice = upload(&gpu, &[2f32]);
            let to = upload(&gpu, &vec![0u16; o * i * rows * line]);
            gpu.run(&convert(&at, [o, i], [rows, columns], twice.ptr(), (to.ptr(), Element::F16), line).unwrap())
                .unwrap();
            let found: Vec<u16> = download(&to, o * i * rows * line);
            for (at, v) in found.iter().enumerate() {
                let (b, r, c) = (at / line / rows, at / line % rows, at % line);
                let value = || half::f16::from_f32(2.0 * x[b * 160 + r * row + c * col]);
                let expected = if c < columns { value() } else { half::f16::ZERO };
                let found = half::f16::from_bits(*v);
                assert!(found == expected || found.is_nan() && expected.is_nan(), "{at}: {found} {expected}");
            }
        }
    }
}
