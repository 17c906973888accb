//! The emulator itself: every primitive of `include/` against plain formulas, and kernels with one mistake each, whose
//! error must name it and its place.
//!
//! `emulator/right.cu` also runs on a GPU where there is one: it then checks the primitives' other bodies, and what the
//! emulator believes of fragments, descriptors and swizzles.

#[path = "emulator/wrong.rs"]
mod wrong;

use half::{bf16, f16};
use mobilis_cuda::testing::{download, upload, values};
use mobilis_cuda::{Buffer, CudaError, Gpu, Launch, Schedule, Swizzle, Tile, TileKind, args};
use std::path::PathBuf;

fn folder() -> PathBuf {
    let kernels =
        std::env::var_os("MOBILIS_CUDA_SOURCES").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    kernels.join("tests/emulator")
}

fn devices() -> Vec<Gpu> {
    let mut devices = vec![];
    for schedule in [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(7), Schedule::Seeded(8)] {
        match Gpu::emulated_with(schedule, &folder()) {
            Ok(gpu) => devices.push(gpu),
            Err(e @ CudaError::Unavailable(_)) => {
                eprintln!("skipped: {e}");
                break;
            }
            Err(e) => panic!("{e}"),
        }
    }
    devices
}

fn run(gpu: &Gpu, launch: Launch) {
    let kernel = launch.kernel;
    gpu.run(&[launch]).unwrap_or_else(|e| panic!("{kernel}: {e}"));
}

/// All interesting floats: every exponent and sign, fractions at and around the ties of all formats.
fn floats() -> Vec<f32> {
    let mut x = vec![];
    for exponent in 0..256u32 {
        for fraction in [0, 1, 0x7fffff, 0x400000, 0x400001, 0x3fffff, 0x080000, 0x180000, 0x100000, 0x0fffff, 0x180001]
            .into_iter()
            .chain([0x000800, 0x001000, 0x003000, 0x001001, 0x008000, 0x018000, 0x017fff, 0x7ff000, 0x7f8000, 0x700000])
        {
            for sign in [0, 1u32 << 31] {
                x.push(f32::from_bits(sign | exponent << 23 | fraction));
            }
        }
    }
    x.extend([448.0, 464.0, 465.0, 57344.0, 61440.0, 61441.0, 65504.0, 65520.0, 65519.0]);
    x
}

/// The nearest code of eight bits by search over all codes, ties to even; the greatest beyond.
fn nearest(x: f32, decode: impl Fn(u8) -> f32, greatest: u8) -> u32 {
    if x.is_nan() {
        return 0x7f;
    }
    let sign = (x.to_bits() >> 24) & 0x80;
    let a = x.abs().min(1e6) as f64;
    let best = (0..=greatest).min_by(|p, q| {
        let d = |c: u8| (decode(c) as f64 - a).abs();
        d(*p).total_cmp(&d(*q)).then((p & 1).cmp(&(q & 1)))
    });
    sign | best.unwrap() as u32
}

fn e4m3(code: u8) -> f32 {
    let (e, m) = (((code >> 3) & 15) as i32, (code & 7) as f32);
    let v = if e == 0 { m / 8.0 * 2f32.powi(-6) } else { (1.0 + m / 8.0) * 2f32.powi(e - 7) };
    let v = if code & 0x7f == 0x7f { f32::NAN } else { v };
    if code & 0x80 != 0 { -v } else { v }
}

fn e5m2(code: u8) -> f32 {
    f16::from_bits((code as u16) << 8).to_f32()
}

#[test]
fn numbers_are_rounded_and_read_bit_for_bit() {
    let x = floats();
    for gpu in devices().into_iter().take(1) {
        let (from, to) = (upload(&gpu, &x), gpu.alloc(x.len() * 20).unwrap());
        let grid = [x.len().div_ceil(256) as u32, 1, 1];
        run(&gpu, Launch::new("t_narrow", grid, 256, args![from.ptr(), to.ptr(), x.len() as i32]));
        for (x, found) in x.iter().zip(download::<u32>(&to, x.len() * 5).chunks(5)) {
            let bf = if x.is_nan() { 0x7fff } else { bf16::from_f32(*x).to_bits() as u32 };
            let half = if x.is_nan() { 0x7fff } else { f16::from_f32(*x).to_bits() as u32 };
            assert_eq!(found[0], bf, "bf16 of {x:e}");
            assert_eq!(found[1], half, "f16 of {x:e}");
            assert_eq!(found[2], nearest(*x, e4m3, 0x7e), "e4m3 of {x:e}");
            assert_eq!(found[3], nearest(*x, e5m2, 0x7b), "e5m2 of {x:e}");
            if x.is_finite() {
                assert_eq!(found[4], (x.to_bits() + 0x1000) & 0xffff_e000, "tf32 of {x:e}");
            }
        }
        let to = gpu.alloc(4 * (131072 + 512)).unwrap();
        run(&gpu, Launch::new("t_widen", [256, 1, 1], 256, args![to.ptr()]));
        let found = download::<f32>(&to, 131072 + 512);
        let same = |a: f32, b: f32| a == b && a.is_sign_negative() == b.is_sign_negative() || a.is_nan() && b.is_nan();
        for i in 0..65536 {
            assert!(same(found[i], f16::from_bits(i as u16).to_f32()), "f16 {i:x}");
            assert!(same(found[65536 + i], bf16::from_bits(i as u16).to_f32()), "bf16 {i:x}");
        }
        for i in 0..256 {
            assert!(same(found[131072 + i], e4m3(i as u8)), "e4m3 {i:x}");
            assert!(same(found[131328 + i], e5m2(i as u8)), "e5m2 {i:x}");
        }
    }
}

#[test]
fn warps_and_blocks_reduce() {
    for gpu in devices() {
        let x = values(96, 1);
        let (from, to) = (upload(&gpu, &x), gpu.alloc(576 * 4).unwrap());
        run(&gpu, Launch::new("t_reduce", [1, 1, 1], 96, args![from.ptr(), to.ptr()]));
        let found = download::<f32>(&to, 576);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
        for t in 0..96 {
            near(found[t], x.iter().sum());
            near(found[96 + t], x.iter().copied().fold(f32::MIN, f32::max));
            near(found[192 + t], x[t / 32 * 32..=t].iter().sum());
            near(found[288 + t], x[t / 8 * 8..t / 8 * 8 + 8].iter().sum());
            let positive = |r: std::ops::Range<usize>| x[r].iter().filter(|v| **v > 0.0).count() as f32;
            near(found[384 + t], positive(t / 32 * 32..t / 32 * 32 + 32) + 1.0);
            near(found[480 + t], positive(0..96));
        }
        let state = upload(&gpu, &[0i32, 0]);
        run(&gpu, Launch::new("t_chain", [20, 1, 1], 32, args![state.ptr(), state.ptr().at(4)]));
        assert_eq!(download::<i32>(&state, 2), [20, 210]);
    }
}

#[test]
fn copies_fill_with_zeros() {
    for gpu in devices() {
        let x = values(128, 2);
        let (from, to) = (upload(&gpu, &x), gpu.alloc(224 * 4).unwrap());
        run(&gpu, Launch::new("t_async", [1, 1, 1], 32, args![from.ptr(), to.ptr()]));
        let found = download::<f32>(&to, 224);
        for t in 0..32 {
            (0..4).for_each(|e| assert_eq!(found[4 * t + e], if e < t % 5 { x[4 * t + e] } else { 0.0 }));
            (0..2).for_each(|e| assert_eq!(found[128 + 2 * t + e], if e < t % 3 { x[2 * t + e] } else { 0.0 }));
            assert_eq!(found[192 + t], if t % 2 == 1 { x[t] } else { 0.0 });
        }
        let x = values(64, 3);
        let (from, to, sum) = (upload(&gpu, &x), gpu.alloc(256).unwrap(), upload(&gpu, &[1f32; 64]));
        run(&gpu, Launch::new("t_bulk", [1, 1, 1], 64, args![from.ptr(), to.ptr(), sum.ptr()]).shared(256));
        let (found, sum) = (download::<f32>(&to, 64), download::<f32>(&sum, 64));
        (0..64).for_each(|i| assert_eq!((found[i], sum[i]), (2.0 * x[i], 1.0 + 2.0 * x[i])));
    }
}

/// An array of `T` in up to five dimensions, padded to rows of 16 bytes.
struct Array {
    buffer: Buffer,
    values: Vec<f32>,
    sizes: Vec<u64>,
}

impl Array {
    fn new(gpu: &Gpu, sizes: &[u64], fill: impl Fn(usize) -> f32) -> Array {
        let count: u64 = sizes.iter().product();
        let values: Vec<f32> = (0..count as usize).map(fill).collect();
        Array { buffer: upload(gpu, &values), values, sizes: sizes.to_vec() }
    }
    fn tile(&self, box_sizes: &[u32], swizzle: Swizzle) -> Tile {
        let mut strides = vec![];
        for n in &self.sizes[..self.sizes.len() - 1] {
            strides.push(strides.last().copied().unwrap_or(4) * n);
        }
        let tile = Tile::new(self.buffer.ptr(), 4, &self.sizes, &strides, box_sizes, swizzle);
        Tile { kind: TileKind::F32, ..tile }
    }
    fn place(&self, at: &[i64]) -> Option<usize> {
        let inside = at.iter().zip(&self.sizes).all(|(a, n)| (0..*n as i64).contains(a));
        inside.then(|| at.iter().zip(&self.sizes).rev().fold(0, |p, (a, n)| p * *n as usize + *a as usize))
    }
}

#[test]
fn tiles_of_two_to_five_dimensions_come_and_go() {
    type Case = (&'static str, &'static [u64], &'static [u32], [i64; 5], [i64; 5]);
    let cases: [Case; 4] = [
        ("t_tma_2d", &[12, 9], &[8, 8], [-3, 5, 0, 0, 0], [1, 2, 0, 0, 0]),
        ("t_tma_3d", &[8, 5, 6], &[8, 4, 3], [2, -1, 3, 0, 0], [1, 1, 0, 0, 0]),
        ("t_tma_4d", &[8, 3, 4, 3], &[4, 3, 2, 2], [-1, 0, 1, 1, 0], [0, 1, 0, 0, 0]),
        ("t_tma_5d", &[8, 2, 3, 2, 3], &[4, 2, 2, 3, 2], [1, 0, 0, -1, 0], [0, 0, 1, 0, 0]),
    ];
    for gpu in devices() {
        for (kernel, sizes, boxes, at, to_at) in &cases {
            for swizzle in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
                if swizzle != Swizzle::None && boxes[0] * 4 > swizzle as u32 {
                    continue;
                }
                // A swizzled row must fill the swizzle.
                let mut boxes = boxes.to_vec();
                if swizzle != Swizzle::None {
                    boxes[0] = swizzle as u32 / 4;
                }
                for add in [0, 1] {
                    let from = Array::new(&gpu, sizes, |i| i as f32 + 1.0);
                    let to = Array::new(&gpu, sizes, |i| -(i as f32));
                    let bytes = boxes.iter().product::<u32>() * 4;
                    let raw = gpu.alloc(bytes as usize).unwrap();
                    let (a, b) = (from.tile(&boxes, swizzle), to.tile(&boxes, swizzle));
                    let args = args![a, b, raw.ptr(), bytes as i32, add];
                    run(&gpu, Launch::new(kernel, [1, 1, 1], 64, args).shared(bytes));
                    let raw = download::<f32>(&raw, bytes as usize / 4);
                    let mut expected = to.values.clone();
                    let mut index = vec![0i64; sizes.len()];
                    for i in 0..bytes as usize / 4 {
                        let mut rest = i as i64;
                        for (x, n) in index.iter_mut().zip(&boxes) {
                            *x = rest % *n as i64;
                            rest /= *n as i64;
                        }
                        let of = |at: &[i64; 5]| index.iter().zip(at).map(|(a, b)| a + b).collect::<Vec<_>>();
                        let value = from.place(&of(at)).map_or(0.0, |p| from.values[p]);
                        let byte = i * 4;
                        let mask = (swizzle as usize).saturating_sub(16);
                        assert_eq!(raw[(byte ^ (byte >> 3 & mask)) / 4], value, "{kernel} {swizzle:?} {i}");
                        if let Some(p) = to.place(&of(to_at)) {
                            expected[p] = if add == 1 { expected[p] + value } else { value };
                        }
                    }
                    assert_eq!(download::<f32>(&to.buffer, expected.len()), expected, "{kernel} {swizzle:?} {add}");
                }
            }
        }
    }
}

#[test]
fn clusters_share_and_grids_meet() {
    for gpu in devices() {
        let x = Array::new(&gpu, &[32, 48], |i| (i % 17) as f32);
        let out = gpu.alloc(4 * 32 * 4).unwrap();
        let launch = Launch::new("t_cluster", [4, 1, 1], 32, args![x.tile(&[32, 4], Swizzle::None), out.ptr()]);
        run(&gpu, launch.shared(1024).cluster([2, 1, 1]));
        let found = download::<f32>(&out, 128);
        for block in 0..4 {
            for t in 0..32 {
                let rows: f32 = (0..24).map(|r| x.values[(block / 2 * 24 + r) * 32 + t]).sum();
                assert_eq!(
                    found[block * 32 + t],
                    rows + ((block + 1) % 2 * 100 + t) as f32,
                    "block {block} thread {t}"
                );
            }
        }
        let (values, counter) = (upload(&gpu, &[1i32, 2, 3, 4, 5, 6]), upload(&gpu, &[0u32]));
        let launch = Launch::new("t_grid", [6, 1, 1], 64, args![values.ptr(), counter.ptr(), 3]);
        run(&gpu, launch.cooperative());
        let mut expected = [1, 2, 3, 4, 5, 6];
        for _ in 0..3 {
            expected = std::array::from_fn(|i| expected[i] + expected[(i + 1) % 6]);
        }
        assert_eq!(download::<i32>(&values, 6), expected);
    }
}

/// Small whole numbers, exact in every format.
fn whole(count: usize, seed: u64) -> Vec<f32> {
    values(count, seed).iter().map(|v| (v * 2.0).round().clamp(-2.0, 2.0)).collect()
}

#[test]
fn warps_multiply() {
    for gpu in devices() {
        let (a, b) = (whole(512, 1), whole(256, 2));
        let (da, db, c) = (upload(&gpu, &a), upload(&gpu, &b), gpu.alloc(768 * 4).unwrap());
        run(&gpu, Launch::new("t_mma", [1, 1, 1], 32, args![da.ptr(), db.ptr(), c.ptr()]));
        let c = download::<f32>(&c, 768);
        for (at, k, scale, start) in [
            (0, 16, 1.0, 0.5),
            (128, 16, 1.0, 0.5),
            (256, 32, 1.0, 0.5),
            (384, 32, 1.0, 0.5),
            (512, 8, 1.0, 0.5),
            (640, 32, 64.0, 1.0),
        ] {
            for i in 0..128 {
                let sum: f32 = (0..k).map(|l| a[i / 8 * k + l] * b[l * 8 + i % 8]).sum();
                assert_eq!(c[at + i], start + scale * sum, "product {at} of {k}, value {i}");
            }
        }
        let (c, back) = (gpu.alloc(512).unwrap(), gpu.alloc(512).unwrap());
        run(&gpu, Launch::new("t_ldmatrix", [1, 1, 1], 32, args![da.ptr(), db.ptr(), c.ptr(), back.ptr()]));
        let (c, back) = (download::<f32>(&c, 128), download::<u16>(&back, 256));
        for i in 0..128 {
            let sum: f32 = (0..16).map(|l| a[i / 8 * 16 + l] * b[l * 8 + i % 8]).sum();
            assert_eq!(c[i], sum);
        }
        for i in 0..256 {
            // Each 8 by 8 quarter is transposed where it lies.
            let (r, l) = (i / 16, i % 16);
            let from = (r / 8 * 8 + l % 8) * 16 + l / 8 * 8 + r % 8;
            assert_eq!(bf16::from_bits(back[i]).to_f32(), a[from]);
        }
    }
}

#[test]
fn warpgroups_multiply_in_all_layouts() {
    // Kernel, columns, depth.
    let cases = [
        ("t_wgmma_64_bf16_128", 64, 64),
        ("t_wgmma_96_f16_64", 96, 32),
        ("t_wgmma_128_bf16_32", 128, 16),
        ("t_wgmma_32_bf16_0", 32, 32),
        ("t_wgmma_192_bf16_128_tb", 192, 32),
        ("t_wgmma_256_f16_128_ta_tb", 256, 32),
        ("t_wgmma_64_bf16_64_ta", 64, 32),
        ("t_wgmma_64_bf16_0_ta_tb", 64, 32),
        ("t_wgmma_64_bf16_128_rs", 64, 64),
        ("t_wgmma_128_e4m3_128", 128, 128),
        ("t_wgmma_256_e4m3_e5m2_64", 256, 64),
        ("t_wgmma_64_e5m2_e4m3_128_rs", 64, 128),
    ];
    for (d, gpu) in devices().into_iter().enumerate() {
        for (k, (kernel, n, depth)) in cases.into_iter().enumerate() {
            if d > 0 && k % 3 != d - 1 {
                continue;
            }
            let (a, b) = (whole(64 * depth, 1), whole(n * depth, 2));
            let (da, db, c) = (upload(&gpu, &a), upload(&gpu, &b), gpu.alloc(64 * n * 4).unwrap());
            let launch = Launch::new(kernel, [1, 1, 1], 128, args![da.ptr(), db.ptr(), c.ptr(), depth as i32]);
            run(&gpu, launch.shared(16384 + 32768));
            let c = download::<f32>(&c, 64 * n);
            for (i, found) in c.iter().enumerate() {
                let sum: f32 = (0..depth).map(|l| a[i / n * depth + l] * b[i % n * depth + l]).sum();
                assert_eq!(*found, sum, "{kernel}, value {i}");
            }
        }
    }
}
