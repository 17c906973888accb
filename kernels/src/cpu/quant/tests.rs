//! Products of every format and level against sums in `f64`.

use super::packed::Kind;
use super::product::drive;
use super::{Encoding, Format, Packed, encoding, product, scratch_len};
use crate::bytes::Bytes;
use crate::cpu::gemm::{self, Columns, Finished, Left, Matrix, Right};
use crate::cpu::simd::{Level, level};
use crate::pool::Pool;
use std::sync::Mutex;

fn levels() -> impl Iterator<Item = Level> {
    [Level::Base, Level::Avx2, Level::Avx512].into_iter().filter(|l| *l <= level())
}

/// Reproducible values in -1..1, some of them denormal, some zero.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let one = |i: usize| {
        let h = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503));
        let h = (h ^ h >> 15).wrapping_mul(2_246_822_519);
        match h % 61 {
            0 => 0.0,
            1 => f32::from_bits(h >> 12),
            _ => (h >> 8) as f32 / 8_388_608.0 - 1.0,
        }
    };
    (0..count).map(one).collect()
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    sa: Matrix,
    a: Vec<f32>,
    w: Packed,
}

impl Case {
    fn new(format: Format, (m, n, k): (usize, usize, usize), transposed: bool) -> Case {
        // A row longer than K, and W as PyTorch has it or as a plain right operand.
        let sa = if transposed { Matrix { row: 1, col: m + 1 } } else { Matrix { row: k + 3, col: 1 } };
        let sb = if transposed { Matrix { row: n, col: 1 } } else { Matrix { row: 1, col: k } };
        let a = values((m + 1) * (k + 3), 1 + m as u32);
        let w = Packed::new(&Pool::new(2), format, (n, k), &values(n * k, 7), sb);
        Case { m, n, k, sa, a, w }
    }

    /// Weights of a file, which begin somewhere within its bytes.
    fn stored(encoding: Encoding, (m, n, k): (usize, usize, usize), scale: f32, exact: bool) -> (Case, Vec<f64>) {
        let (first, row) = (256, k.next_multiple_of(256) + 256);
        let bytes: Bytes = encoding::tests::random(encoding, first + n * row, scale, n as u64).into();
        let (at, kind) = (Matrix { row: 1, col: row }, Kind { format: Format::of(encoding), exact });
        assert_eq!(Packed::takes(encoding, first, (n, k), at), Some(kind.format));
        let w = Packed::stored(&Pool::new(2), kind, (encoding, &bytes), first, (n, k), at);
        let plain = encoding::tests::plain(encoding, &bytes);
        let plain = (0..n).flat_map(|j| plain[first + j * row..][..k].to_vec()).collect();
        let sa = Matrix { row: k + 3, col: 1 };
        (Case { m, n, k, sa, a: values((m + 1) * (k + 3), 1 + m as u32), w }, plain)
    }

    fn run(&self, level: Level, threads: usize, sc: Matrix, c: &mut [f32], accumulate: bool) {
        let mut scratch = vec![f32::NAN; scratch_len(self.m, self.w.kind(), self.k)];
        let left = [Left { k: self.k, data: &self.a, at: self.sa }];
        let b = [Right::Rounded(&self.w)];
        let right = &mut [Columns::new(self.n, &b, c, sc)];
        let x = gemm::Product { m: self.m, left: &left, right, accumulate, alike: false, after: None };
        // SAFETY: the matrices fit their slices.
        unsafe { drive(level, &Pool::new(threads), &x, &mut scratch) };
    }

    /// The exact product with the stored weights, and how far a result may be from it.
    fn expected(&self) -> Vec<(f64, f64)> {
        let mut out = vec![];
        let weights: Vec<Vec<f32>> = (0..self.n)
            .map(|j| {
                let mut w = vec![0.0; self.k];
                self.w.channel(j, &mut w);
                w
            })
            .collect();
        for i in 0..self.m {
            let x: Vec<f64> = (0..self.k).map(|l| self.a[i * self.sa.row + l * self.sa.col] as f64).collect();
            let most = |x: &[f64]| x.iter().fold(0f64, |a, v| a.max(v.abs()));
            // Half a step of the activations' rounding, of each block or of the row.
            let half = |l: usize| match self.w.kind().format {
                _ if self.w.kind().exact => 0.0,
                Format::Bf16 | Format::F16 => 0.0,
                Format::Int8 => most(&x) / 254.0,
                _ => most(&x[l / 32 * 32..self.k.min(l / 32 * 32 + 32)]) / 254.0,
            };
            for w in &weights {
                let sum: f64 = (0..self.k).map(|l| x[l] * w[l] as f64).sum();
                let size: f64 = (0..self.k).map(|l| (x[l] * w[l] as f64).abs()).sum();
                let rounding: f64 = (0..self.k).map(|l| half(l) * (w[l] as f64).abs()).sum();
                out.push((sum, rounding * 1.0001 + size * 1e-6 * (self.k as f64).sqrt().max(4.0) + 1e-30));
            }
        }
        out
    }
}

#[test]
fn products_are_within_the_rounding_of_activations() {
    let sizes = [
        (1, 1, 1),
        (1, 40, 64),
        (2, 17, 33),
        (3, 16, 100),
        (5, 33, 96),
        (7, 70, 31),
        (13, 65, 161),
        (31, 5, 64),
        (97, 34, 257),
    ];
    for format in Format::ALL {
        for (size, transposed) in sizes.iter().zip([false, true].into_iter().cycle()) {
            let case = Case::new(format, *size, transposed);
            let expected = case.expected();
            let (m, n, _) = *size;
            for level in levels() {
                let sc = if transposed { Matrix { row: 1, col: m + 2 } } else { Matrix { row: n + 1, col: 1 } };
                let mut c = vec![0.5; (m + 2) * (n + 1)];
                case.run(level, 2, sc, &mut c, transposed);
                let mut touched = vec![false; c.len()];
                for i in 0..m {
                    for j in 0..n {
                        let at = i * sc.row + j * sc.col;
                        touched[at] = true;
                        let (value, bound) = expected[i * n + j];
                        let error = (c[at] as f64 - value - if transposed { 0.5 } else { 0.0 }).abs();
                        let bound = bound + if transposed { 1e-6 } else { 0.0 };
                        assert!(error <= bound, "{format:?} {level:?} {size:?} ({i}, {j}): {error} > {bound}");
                    }
                }
                assert!(c.iter().zip(&touched).all(|(v, t)| *t || *v == 0.5), "only the result is written");
            }
        }
    }
}

/// Of every encoding, with scales so small that they are denormal and so large that their products
/// are not f16: panels hold the file's values, and products are those of these values.
#[test]
fn a_files_weights_are_taken_over() {
    for encoding in Encoding::all() {
        for (size, exact, scale) in [
            ((1, 40, 64), false, 0.01),
            ((1, 33, 96), true, 0.01),
            ((2, 17, 32), false, 3e-6),
            ((5, 70, 288), true, 60_000.0),
            ((9, 33, 160), false, 60_000.0),
            ((14, 5, 64), true, 1e-7),
            ((31, 40, 64), false, 1.0),
        ] {
            let (case, plain) = Case::stored(encoding, size, scale, exact);
            let (m, n, k) = size;
            let mut channel = vec![0.0; k];
            let step = if matches!(encoding.block(), (256, _)) { 1.0 / 2048.0 } else { 0.0 };
            for j in 0..n {
                case.w.channel(j, &mut channel);
                for (i, (ours, exact)) in channel.iter().zip(&plain[j * k..]).enumerate() {
                    // Scale and minimum are rounded; both can be larger than their sum.
                    let most = plain[j * k + i / 32 * 32..][..32].iter().fold(0f64, |a, v| a.max(v.abs()));
                    let bound = most * step * 32.0 / 15.0 + (*exact as f32 as f64 - exact).abs() + exact.abs() * 1e-7;
                    let close = (f64::from(*ours) - exact).abs() <= bound.max(if step > 0.0 { 1e-7 } else { 0.0 });
                    assert!(close, "{encoding:?} {scale} channel {j} value {i}: {ours} and {exact}");
                }
            }
            let expected = case.expected();
            for level in levels() {
                let mut c = vec![0.5; m * n];
                case.run(level, 2, Matrix { row: n, col: 1 }, &mut c, false);
                for (c, (value, bound)) in c.iter().zip(&expected) {
                    let error = (f64::from(*c) - value).abs();
                    assert!(error <= *bound, "{encoding:?} {level:?} {size:?} {exact}: {error} > {bound}");
                }
            }
        }
    }
}

/// Formats that values are rounded to, with activations as they are, and a K that is not whole blocks.
#[test]
fn exact_products_round_no_activations() {
    for format in [Format::Q8_0, Format::Q4_0] {
        for size @ (m, n, k) in [(1, 40, 70), (3, 16, 31), (13, 33, 64), (40, 20, 100)] {
            let mut case = Case::new(format, size, false);
            let kind = Kind { format, exact: true };
            case.w = Packed::new(&Pool::new(1), kind, (n, k), &values(n * k, 7), Matrix { row: 1, col: k });
            let expected = case.expected();
            for level in levels() {
                let mut c = vec![0.5; m * n];
                case.run(level, 2, Matrix { row: n, col: 1 }, &mut c, false);
                for (c, (value, bound)) in c.iter().zip(&expected) {
                    let error = (f64::from(*c) - value).abs();
                    assert!(error <= *bound, "{format:?} {level:?} {size:?}: {error} > {bound}");
                }
            }
        }
    }
}

/// What cannot be taken over is rounded as its values are.
#[test]
fn a_files_values_are_rounded_like_any() {
    let (n, k) = (40, 64);
    for encoding in Encoding::all() {
        let bytes: Bytes = encoding::tests::random(encoding, n * k * 4, 0.1, 5).into();
        let mut values = vec![0.0; n * k * 4];
        encoding.widen(&bytes, 0, &mut values);
        for at in [Matrix { row: n, col: 1 }, Matrix { row: 1, col: k }] {
            for format in Format::ALL {
                let pool = Pool::new(1);
                if Packed::takes(encoding, 40, (n, k), at) == Some(format) {
                    continue;
                }
                let a = Packed::stored(&pool, format, (encoding, &bytes), 40, (n, k), at);
                let b = Packed::new(&pool, format, (n, k), &values[40..], at);
                let (mut x, mut y) = (vec![0.0; k], vec![0.0; k]);
                for j in 0..n {
                    a.channel(j, &mut x);
                    b.channel(j, &mut y);
                    assert_eq!(x, y, "{encoding:?} {format:?}");
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_results_and_levels_hardly() {
    for format in Format::ALL {
        let case = Case::new(format, (29, 150, 320), false);
        let sc = Matrix { row: 150, col: 1 };
        let mut base: Option<Vec<f32>> = None;
        for level in levels() {
            let mut one = vec![0.0; 29 * 150];
            case.run(level, 1, sc, &mut one, false);
            for threads in [2, 3] {
                let mut more = vec![0.0; 29 * 150];
                case.run(level, threads, sc, &mut more, false);
                assert_eq!(one, more, "{format:?} {level:?} {threads} threads");
            }
            let base = base.get_or_insert_with(|| one.clone());
            assert!(base.iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-4), "{format:?} {level:?}");
        }
    }
}

/// With weights and activations that need no rounding the product is exact.
#[test]
fn whole_numbers_are_exact() {
    let (m, n, k) = (9, 40, 96);
    // The largest magnitude is 127 (and -8 of four bits), so every step is 1.
    let at = |i: usize, most: i32| ((i as u32).wrapping_mul(2_654_435_761) >> 9) as i32 % most;
    for format in Format::ALL {
        let most = if format == Format::Q4_0 { 8 } else { 127 };
        let mut b: Vec<f32> = (0..n * k).map(|i| at(i, most) as f32).collect();
        b.iter_mut().step_by(32).for_each(|v| *v = if most == 8 { -8.0 } else { -127.0 });
        let mut a: Vec<f32> = (0..m * k).map(|i| at(i + 5, 127) as f32).collect();
        a.iter_mut().step_by(32).for_each(|v| *v = 127.0);
        let w = Packed::new(&Pool::new(1), format, (n, k), &b, Matrix { row: 1, col: k });
        let sa = Matrix { row: k, col: 1 };
        let case = Case { m, n, k, sa, a, w };
        for level in levels() {
            let mut c = vec![0.0; m * n];
            case.run(level, 1, Matrix { row: n, col: 1 }, &mut c, false);
            for (c, (exact, _)) in c.iter().zip(case.expected()) {
                assert_eq!(*c as f64, exact, "{format:?} {level:?}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows() {
    let (m, n, k) = (14, 20, 64);
    for format in Format::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(format, (m, n, k), false);
            case.a[3 * case.sa.row + 40] = bad;
            let mut b = values(n * k, 3);
            b[6 * k + 2] = bad;
            case.w = Packed::new(&Pool::new(1), format, (n, k), &b, Matrix { row: 1, col: k });
            for level in levels() {
                let mut c = vec![0.0; m * n];
                case.run(level, 1, Matrix { row: n, col: 1 }, &mut c, false);
                for i in 0..m {
                    for j in 0..n {
                        let finite = i != 3 && j != 6;
                        assert_eq!(c[i * n + j].is_finite(), finite, "{format:?} {level:?} {bad} ({i}, {j})");
                    }
                }
            }
        }
    }
}

#[test]
fn every_result_is_shown_once_complete() {
    for (m, n) in [(1, 50), (100, 200)] {
        let case = Case::new(Format::Q8_0, (m, n, 640), false);
        let seen = Mutex::new(vec![0; m * n]);
        let after = |f: &mut Finished| {
            let mut seen = seen.lock().unwrap();
            for i in f.rows.clone() {
                f.row(i).iter_mut().for_each(|v| *v = 2.0);
                f.columns.clone().for_each(|j| seen[i * n + j] += 1);
            }
        };
        let mut scratch = vec![0.0; scratch_len(m, Format::Q8_0, 640)];
        let (mut c, sc) = (vec![0.0; m * n], Matrix { row: n, col: 1 });
        product(&Pool::new(2), m, (&case.a, case.sa), &case.w, (&mut c, sc), &mut scratch, Some(&after));
        assert!(c.iter().all(|v| *v == 2.0));
        assert!(seen.lock().unwrap().iter().all(|count| *count == 1));
    }
}

#[test]
fn nothing_to_sum_is_zero_and_nothing_to_fill_is_fine() {
    for format in Format::ALL {
        for (m, n, k) in [(2, 3, 0), (0, 3, 4), (2, 0, 4)] {
            let case = Case::new(format, (m, n, k), false);
            let mut c = vec![1.0; m * n];
            case.run(level(), 2, Matrix { row: n, col: 1 }, &mut c, false);
            assert!(c.iter().all(|v| *v == 0.0));
        }
    }
}

#[test]
fn stored_weights_are_those_of_the_blocks() {
    let (n, k) = (18, 64);
    let b = values(n * k, 11);
    for (format, block) in [
        (Format::Q8_0, super::block::q8_0 as fn(&[f32; 32]) -> super::block::Quants),
        (Format::Q4_0, super::block::q4_0),
    ] {
        let w = Packed::new(&Pool::new(1), format, (n, k), &b, Matrix { row: 1, col: k });
        let mut out = vec![0.0; k];
        for j in 0..n {
            w.channel(j, &mut out);
            let (blocks, _) = b[j * k..][..k].as_chunks::<32>();
            let expected: Vec<f32> = blocks.iter().flat_map(|x| block(x).values()).collect();
            assert_eq!(out, expected);
        }
    }
}

/// Two left sides, three results in formats of their own and one of them not rounded, with biases
/// and an epilogue, are the same products one by one.
#[test]
fn results_of_all_kinds_share_a_call() {
    let (m, n, ks) = (9, [33, 16, 20], [64, 40]);
    let pool = Pool::new(2);
    let lefts: Vec<Vec<f32>> = ks.iter().map(|k| values(m * k, *k as u32)).collect();
    let plain: Vec<Vec<f32>> = (0..6).map(|i| values(n[i / 2] * ks[i % 2], 20 + i as u32)).collect();
    let bias = values(16, 40);
    let pack = |i: usize, format: Format| {
        let k = ks[i % 2];
        Packed::new(&pool, format, (n[i / 2], k), &plain[i], Matrix { row: 1, col: k })
    };
    let rounded = [pack(0, Format::Q8_0), pack(1, Format::Q8_0), pack(2, Format::Bf16), pack(3, Format::Int8)];
    let at = |i: usize| Right::Plain(&plain[i], Matrix { row: 1, col: ks[i % 2] });
    let b = [
        [Right::Rounded(&rounded[0]), Right::Rounded(&rounded[1])],
        [Right::Rounded(&rounded[2]), Right::Rounded(&rounded[3])],
        [at(4), at(5)],
    ];
    let left: Vec<Left> = ks.iter().zip(&lefts).map(|(k, x)| Left { k: *k, data: x, at: Matrix::rows(*k) }).collect();
    let mut c: Vec<Vec<f32>> = n.iter().map(|n| vec![0.0; m * n]).collect();
    let seen = Mutex::new([0; 3]);
    let after = |f: &mut Finished| seen.lock().unwrap()[f.result] += f.rows.len() * f.columns.len();
    let mut right: Vec<Columns> = c
        .iter_mut()
        .enumerate()
        .map(|(j, c)| Columns::new(n[j], &b[j], c, Matrix::rows(n[j])).bias((j == 1).then_some(&bias[..])))
        .collect();
    let mut scratch = vec![0.0; gemm::scratch_len(m, 104, n, true) + 3 * m * 64];
    let x =
        &mut gemm::Product { m, left: &left, right: &mut right, accumulate: false, alike: false, after: Some(&after) };
    gemm::product(&pool, x, &mut scratch);
    assert_eq!(*seen.lock().unwrap(), n.map(|n| n * m));
    for j in 0..3 {
        let mut expected = vec![0.0; m * n[j]];
        for i in 0..2 {
            let mut one = vec![0.0; m * n[j]];
            let b = [b[j][i]];
            let mut right = [Columns::new(n[j], &b, &mut one, Matrix::rows(n[j]))];
            let x = &mut gemm::Product {
                m,
                left: &left[i..=i],
                right: &mut right,
                accumulate: false,
                alike: false,
                after: None,
            };
            gemm::product(&pool, x, &mut scratch);
            expected.iter_mut().zip(&one).for_each(|(e, v)| *e += v);
        }
        for (at, (c, e)) in c[j].iter().zip(&expected).enumerate() {
            let e = if j == 1 { e + bias[at % 16] } else { *e };
            assert!((c - e).abs() < 1e-5, "result {j}: {c} and {e}");
        }
    }
}

#[test]
#[should_panic(expected = "cut off")]
fn short_slices_are_refused() {
    let mut case = Case::new(Format::Q8_0, (3, 3, 32), false);
    case.a.truncate(2 * case.sa.row + 31);
    let sc = Matrix { row: 3, col: 1 };
    product(&Pool::new(1), 3, (&case.a, case.sa), &case.w, (&mut [0.0; 9], sc), &mut [0.0; 99], None);
}

/// A row alone gives the bits that it gives among others.
#[test]
fn alike_rows_do_not_depend_on_others() {
    for (seed, format) in Format::ALL.into_iter().enumerate() {
        for (m, n, k) in [(29, 40, 97), (17, 33, 400), (5, 16, 64)] {
            let case = Case::new(format, (m, n, k), seed % 2 == 0);
            let run = |level: Level, i: usize, m: usize| {
                let mut c = vec![0.0; m * n];
                let mut scratch = vec![f32::NAN; scratch_len(m, case.w.kind(), k)];
                let left = [Left { k, data: &case.a[i * case.sa.row..], at: case.sa }];
                let b = [Right::Rounded(&case.w)];
                let right = &mut [Columns::new(n, &b, &mut c, Matrix::rows(n))];
                let x = gemm::Product { m, left: &left, right, accumulate: false, alike: true, after: None };
                // SAFETY: the matrices fit their slices.
                unsafe { drive(level, &Pool::new(2), &x, &mut scratch) };
                c
            };
            for level in levels() {
                let whole = run(level, 0, m);
                for (i, rows) in [(0, 1), (m - 1, 1), (1, m - 1), (2, 3)] {
                    assert_eq!(run(level, i, rows), whole[i * n..][..rows * n], "{level:?} {format:?} {m} {n} {k}");
                }
            }
        }
    }
}
