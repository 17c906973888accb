//! Every level against the definition, over layouts, sizes and forms.

use super::micro::{Micro, at};
use super::*;
use crate::cpu::simd::{Level, level};

/// A small generator of test values.
struct Lcg(u64);
impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
    /// Whole numbers, so that sums are exact in any order.
    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.below(9) as f32 - 4.0).collect()
    }
    /// Strides of an `m` by `n` matrix: plain, transposed, with gaps, or both apart.
    fn layout(&mut self, m: usize, n: usize) -> Matrix {
        match self.below(4) {
            0 => Matrix { row: n, col: 1 },
            1 => Matrix { row: 1, col: m },
            2 => Matrix { row: n + 3, col: 1 },
            _ => Matrix { row: 2 * n + 1, col: 2 },
        }
    }
    fn size(&mut self, most: usize) -> usize {
        match self.below(6) {
            0 => self.below(3),
            1 => 32 * self.below(most / 32 + 1),
            _ => self.below(most) + 1,
        }
    }
}

/// The kernels of every level that the processor has.
fn levels() -> Vec<&'static Micro> {
    [Level::Base, Level::Avx2, Level::Avx512].into_iter().filter(|l| *l <= level()).map(at).collect()
}

fn run(pool: &Pool, micro: &Micro, x: &mut Product) {
    let k = x.left.iter().map(|l| l.k).sum();
    let panels = cut::panels(micro, x.right);
    let sizes = cut::Sizes::new(micro, x.m, k, panels, cut::any_plain(x.right));
    // Values around the scratch show whether it is kept to.
    let (len, around) = (sizes.scratch(micro), 50_000);
    let mut scratch = vec![123.0; len + 2 * around];
    scratch[around..around + len].fill(f32::NAN);
    // SAFETY: the tests' matrices fit their sizes.
    unsafe { drive::drive(pool, micro, &Job::of(x), &mut scratch[around..around + len]) }
    assert!(scratch[..around].iter().chain(&scratch[around + len..]).all(|v| *v == 123.0), "written outside");
}

fn plain(m: usize, n: usize, k: usize, a: &[f32], sa: Matrix, b: &[f32], sb: Matrix) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * sa.row + p * sa.col] * b[p * sb.row + j * sb.col];
            }
        }
    }
    c
}

#[test]
fn random_products_agree_with_the_definition() {
    let mut r = Lcg(1);
    for round in 0..300 {
        let pool = Pool::new(1 + round % 3);
        let micros = levels();
        let micro = micros[r.below(micros.len())];
        let (m, n, k) = (r.size(150), r.size(150), if round % 10 == 0 { 1 + r.below(1000) } else { r.size(100) });
        let (sa, sb, sc) = (r.layout(m, k), r.layout(k, n), r.layout(m, n));
        let (a, b) = (r.values(reach(m, k, sa)), r.values(reach(k, n, sb)));
        let accumulate = r.below(2) == 0;
        let old = r.values(reach(m, n, sc));
        let mut c = old.clone();
        let left = [Left { k, data: &a, at: sa }];
        let right = [Right::Plain(&b, sb)];
        let columns = &mut [Columns::new(n, &right, &mut c, sc)];
        run(&pool, micro, &mut Product { m, left: &left, right: columns, accumulate, alike: false, after: None });
        let sums = plain(m, n, k, &a, sa, &b, sb);
        let mut expected = old;
        for i in 0..m {
            for j in 0..n {
                let to = &mut expected[i * sc.row + j * sc.col];
                *to = sums[i * n + j] + if accumulate { *to } else { 0.0 };
            }
        }
        assert!(c == expected, "{m} {n} {k} {sa:?} {sb:?} {sc:?} {}", micro.nr);
    }
}

#[test]
fn every_tile_agrees_with_the_definition() {
    let mut r = Lcg(2);
    for micro in levels() {
        for (h, w) in (1..=micro.mr).flat_map(|h| (1..=micro.nr).map(move |w| (h, w))) {
            let k = r.below(5);
            let (a, old) = (r.values(h * k), r.values(h * w));
            // The matrix ends with its last row: reading on would be found by address sanitizers.
            let b = r.values(reach(k, w, Matrix::rows(w + 1)));
            for add in [false, true] {
                let mut c = old.clone();
                let (from, from_row) = if add { (c.as_ptr(), w) } else { (std::ptr::null(), 0) };
                let tile = micro::Tile {
                    h,
                    w,
                    k,
                    a: a.as_ptr(),
                    b: b.as_ptr(),
                    b_row: w + 1,
                    whole: false,
                    c: c.as_mut_ptr(),
                    c_row: w,
                    from,
                    from_row,
                    next: b.as_ptr(),
                };
                // SAFETY: the slices hold the tile.
                unsafe { (micro.tile)(&tile) };
                let sums = plain(h, w, k, &a, Matrix { row: 1, col: h }, &b, Matrix::rows(w + 1));
                for i in 0..h * w {
                    assert_eq!(c[i], sums[i] + if add { old[i] } else { 0.0 }, "{h} {w} {k}");
                }
            }
        }
    }
}

#[test]
fn several_results_and_sums_and_packed_sides_and_biases() {
    let mut r = Lcg(3);
    for round in 0..60 {
        let pool = Pool::new(1 + round % 3);
        let m = r.size(90);
        let ks: Vec<usize> = (0..1 + r.below(3)).map(|_| r.size(if round % 7 == 0 { 900 } else { 70 })).collect();
        let ns: Vec<usize> = (0..1 + r.below(3)).map(|_| r.size(120)).collect();
        let a: Vec<(Vec<f32>, Matrix)> = ks
            .iter()
            .map(|k| {
                let at = r.layout(m, *k);
                (r.values(reach(m, *k, at)), at)
            })
            .collect();
        let left: Vec<Left> = a.iter().zip(&ks).map(|(a, k)| Left { k: *k, data: &a.0, at: a.1 }).collect();
        let b: Vec<Vec<(Vec<f32>, Matrix, Option<Vec<f32>>)>> = ns
            .iter()
            .map(|n| {
                let mut side = |k: usize| {
                    let at = r.layout(k, *n);
                    let values = r.values(reach(k, *n, at));
                    let packed = (r.below(2) == 0).then(|| {
                        let mut out = vec![f32::NAN; packed_len(*n, k)];
                        pack_b(&pool, (*n, k), &values, at, &mut out);
                        out
                    });
                    (values, at, packed)
                };
                ks.iter().map(|k| side(*k)).collect()
            })
            .collect();
        let rights: Vec<Vec<Right>> = b
            .iter()
            .zip(&ns)
            .map(|(b, n)| {
                b.iter()
                    .zip(&ks)
                    .map(|((values, at, packed), k)| match packed {
                        Some(p) => Right::Packed(Panels::new(p, *n, *k)),
                        None => Right::Plain(values, *at),
                    })
                    .collect()
            })
            .collect();
        let biases: Vec<Option<Vec<f32>>> =
            ns.iter().map(|n| if r.below(2) == 0 { Some(r.values(*n)) } else { None }).collect();
        let mut c: Vec<Vec<f32>> = ns.iter().map(|n| r.values(m * n)).collect();
        let mut columns: Vec<Columns> = ns
            .iter()
            .zip(&rights)
            .zip(&mut c)
            .zip(&biases)
            .map(|(((n, b), c), bias)| Columns::new(*n, b, c, Matrix::rows(*n)).bias(bias.as_deref()))
            .collect();
        // The epilogue doubles every element once.
        let after = |block: &mut Finished| {
            for i in block.rows.clone() {
                block.row(i).iter_mut().for_each(|v| *v *= 2.0);
            }
        };
        let all_packed = rights.iter().flatten().all(|b| matches!(b, Right::Packed(_)));
        let mut scratch = vec![f32::NAN; scratch_len(m, ks.iter().sum(), ns.iter().copied(), !all_packed)];
        let x =
            &mut Product { m, left: &left, right: &mut columns, accumulate: false, alike: false, after: Some(&after) };
        product(&pool, x, &mut scratch);
        for (j, n) in ns.iter().enumerate() {
            let mut expected = vec![0.0; m * n];
            for (l, k) in ks.iter().enumerate() {
                let sums = plain(m, *n, *k, &a[l].0, a[l].1, &b[j][l].0, b[j][l].1);
                expected.iter_mut().zip(sums).for_each(|(e, s)| *e += s);
            }
            for (i, e) in expected.iter_mut().enumerate() {
                *e = 2.0 * (*e + biases[j].as_ref().map_or(0.0, |b| b[i % n]));
            }
            assert!(c[j] == expected, "{m} {ns:?} {ks:?}");
        }
    }
}

#[test]
fn large_products_are_cut_and_agree_bit_by_bit_for_all_threads() {
    let mut r = Lcg(4);
    for (m, n, k) in [
        (300, 200, 5000),
        (1200, 100, 900),
        (40, 3000, 2100),
        (7, 65, 4096),
        (30, 1024, 2048),
        (50, 3000, 700),
        (3000, 60, 500),
    ] {
        let a: Vec<f32> = (0..m * k).map(|_| r.below(1000) as f32 / 500.0 - 1.0).collect();
        let b: Vec<f32> = (0..k * n).map(|_| r.below(1000) as f32 / 500.0 - 1.0).collect();
        for micro in levels() {
            let one = |threads: usize| {
                let mut c = vec![0.0; m * n];
                let left = [Left { k, data: &a, at: Matrix::rows(k) }];
                let right = [Right::Plain(&b, Matrix::rows(n))];
                let columns = &mut [Columns::new(n, &right, &mut c, Matrix::rows(n))];
                let x = &mut Product { m, left: &left, right: columns, accumulate: false, alike: false, after: None };
                run(&Pool::new(threads), micro, x);
                c
            };
            let first = one(1);
            for i in (0..m).step_by(m / 5) {
                for j in (0..n).step_by(7) {
                    let sum: f64 = (0..k).map(|p| a[i * k + p] as f64 * b[p * n + j] as f64).sum();
                    assert!((first[i * n + j] as f64 - sum).abs() < 1e-4 * (k as f64).sqrt(), "{m} {n} {k}");
                }
            }
            assert!(first == one(2) && first == one(3));
        }
    }
}

#[test]
fn infinities_and_nans_spread() {
    let pool = Pool::new(1);
    for micro in levels() {
        let (m, n, k) = (17, 35, 9);
        let mut a = vec![0f32; m * k];
        let mut b = vec![1f32; k * n];
        (a[3 * k + 4], b[2 * n + 33]) = (f32::NAN, f32::INFINITY);
        let mut c = vec![0.0; m * n];
        let left = [Left { k, data: &a, at: Matrix::rows(k) }];
        let right = [Right::Plain(&b, Matrix::rows(n))];
        let columns = &mut [Columns::new(n, &right, &mut c, Matrix::rows(n))];
        run(
            &pool,
            micro,
            &mut Product { m, left: &left, right: columns, accumulate: false, alike: false, after: None },
        );
        for i in 0..m {
            for j in 0..n {
                assert_eq!(c[i * n + j].is_nan(), i == 3 || j == 33, "0 times infinity is NaN, others are 0");
            }
        }
    }
}

#[test]
fn few_rows_or_columns_agree_with_the_definition() {
    let mut r = Lcg(6);
    for round in 0..400 {
        let pool = Pool::new(1 + round % 3);
        let (mut m, mut n) = (r.below(skinny::ROWS + 1), r.size(if round % 9 == 0 { 3000 } else { 200 }));
        if r.below(3) == 0 {
            (m, n) = (n, m);
        }
        let k = if round % 7 == 0 { r.below(900) } else { r.size(70) };
        let (sa, sb, sc) = (r.layout(m, k), r.layout(k, n), r.layout(m, n));
        let (a, b) = (r.values(reach(m, k, sa)), r.values(reach(k, n, sb)));
        let (old, accumulate) = (r.values(reach(m, n, sc)), r.below(2) == 0);
        let bias = (!accumulate && r.below(2) == 0).then(|| r.values(n));
        let (mut c, mut scratch) = (old.clone(), vec![f32::NAN; scratch_len(m, k, [n], true)]);
        let (left, right) = ([Left { k, data: &a, at: sa }], [Right::Plain(&b, sb)]);
        let columns = &mut [Columns::new(n, &right, &mut c, sc).bias(bias.as_deref())];
        product(
            &pool,
            &mut Product { m, left: &left, right: columns, accumulate, alike: false, after: None },
            &mut scratch,
        );
        let sums = plain(m, n, k, &a, sa, &b, sb);
        let mut expected = old;
        for i in 0..m {
            for j in 0..n {
                let to = &mut expected[i * sc.row + j * sc.col];
                *to = sums[i * n + j] + if accumulate { *to } else { 0.0 } + bias.as_ref().map_or(0.0, |bias| bias[j]);
            }
        }
        assert!(c == expected, "{m} {n} {k} {sa:?} {sb:?} {sc:?}");
    }
}

#[test]
fn few_rows_are_summed_as_many_are() {
    let (n, k) = (150, 1000);
    let mut r = Lcg(7);
    let mut values = |n: usize| (0..n).map(|_| r.below(1000) as f32 / 500.0 - 1.0).collect::<Vec<f32>>();
    let (a, b) = (values(20 * k), values(k * n));
    let pool = Pool::new(2);
    let rows = |m: usize| {
        let mut c = vec![0.0; m * n];
        let mut scratch = vec![f32::NAN; gemm_scratch((m, n, k))];
        let s = Matrix::rows(n);
        gemm(&pool, (m, n, k), &a[..m * k], Matrix::rows(k), &b, s, &mut c, s, false, &mut scratch);
        c
    };
    let all = rows(20);
    assert!((1..20).all(|m| rows(m) == all[..m * n]));
}

#[test]
fn few_rows_by_columns_do_not_depend_on_each_other() {
    // Cached and read from memory, one sum and several: K is cut alike.
    for (n, k) in [(100, 70), (77, 1000), (200, 900)] {
        let mut r = Lcg(8);
        let mut values = |n: usize| (0..n).map(|_| r.below(1000) as f32 / 500.0 - 1.0).collect::<Vec<f32>>();
        let (a, b) = (values(skinny::ROWS * k), values(k * n));
        let rows = |m: usize| {
            let mut c = vec![0.0; m * n];
            let mut scratch = vec![f32::NAN; gemm_scratch((m, n, k))];
            let (sa, sb, sc) = (Matrix::rows(k), Matrix { row: 1, col: k }, Matrix::rows(n));
            gemm(&Pool::new(m), (m, n, k), &a[..m * k], sa, &b, sb, &mut c, sc, false, &mut scratch);
            c
        };
        let all = rows(skinny::ROWS);
        assert!((1..skinny::ROWS).all(|m| rows(m) == all[..m * n]), "{n} columns of {k}");
    }
}

#[test]
fn results_by_columns_are_transposed_products() {
    let (m, n, k) = (70, 33, 40);
    let mut r = Lcg(5);
    let (a, b) = (r.values(m * k), r.values(k * n));
    let mut c = vec![0.0; m * n];
    let mut scratch = vec![f32::NAN; gemm_scratch((m, n, k))];
    let sc = Matrix { row: 1, col: m };
    gemm(&Pool::new(2), (m, n, k), &a, Matrix::rows(k), &b, Matrix::rows(n), &mut c, sc, false, &mut scratch);
    let expected = plain(m, n, k, &a, Matrix::rows(k), &b, Matrix::rows(n));
    assert!((0..m * n).all(|e| c[e / n + e % n * m] == expected[e]));
}

#[test]
#[should_panic(expected = "cut off")]
fn short_slices_are_refused() {
    let s = Matrix::rows(4);
    gemm(&Pool::new(1), (4, 4, 4), &[0.0; 15], s, &[0.0; 16], s, &mut [0.0; 16], s, false, &mut [0.0; 999]);
}

#[test]
#[should_panic(expected = "floats of scratch")]
fn too_little_scratch_is_refused() {
    let s = Matrix::rows(9);
    gemm(&Pool::new(1), (9, 9, 9), &[0.0; 81], s, &[0.0; 81], s, &mut [0.0; 81], s, false, &mut []);
}

/// A part of the rows and columns gives the bits that the whole gives there, in every layout, packed or not.
#[test]
fn alike_rows_and_columns_do_not_depend_on_others() {
    let mut r = Lcg(11);
    let pool = Pool::new(2);
    for round in 0..80 {
        let (m, n) = (1 + r.below(20), 1 + r.below(if round % 2 == 0 { 9 } else { 40 }));
        let k = [1 + r.below(40), 1 + r.below(1000)][round % 2];
        let real =
            |r: &mut Lcg, n: usize| -> Vec<f32> { (0..n).map(|_| r.below(4001) as f32 / 1999.0 - 1.0).collect() };
        let (sa, sb) = (r.layout(m, k), r.layout(k, n));
        let (a, b) = (real(&mut r, reach(m, k, sa)), real(&mut r, reach(k, n, sb)));
        let bias = (round % 3 == 0).then(|| real(&mut r, n));
        let compute = |(i, m): (usize, usize), (j, n): (usize, usize), packed: bool, turned: bool| {
            let (a, b) = (&a[i * sa.row..], &b[j * sb.col..]);
            let mut panels = vec![0.0; packed_len(n, k)];
            pack_b(&pool, (n, k), b, sb, &mut panels);
            let left = [Left { k, data: a, at: sa }];
            let right = [if packed { Right::Packed(Panels::new(&panels, n, k)) } else { Right::Plain(b, sb) }];
            let mut c = vec![0.0; m * n];
            let at = if turned { Matrix { row: 1, col: m } } else { Matrix::rows(n) };
            let columns = &mut [Columns::new(n, &right, &mut c, at).bias(bias.as_ref().map(|b| &b[j..j + n]))];
            let x = &mut Product { m, left: &left, right: columns, accumulate: false, alike: true, after: None };
            product(&pool, x, &mut vec![0.0; scratch_len(m, k, [n], true)]);
            move |i: usize, j: usize| c[i * at.row + j * at.col]
        };
        let whole = compute((0, m), (0, n), false, false);
        for _ in 0..6 {
            let (i, j) = (r.below(m), r.below(n));
            let (rows, columns) = (1 + r.below(m - i), 1 + r.below(n - j));
            let part = compute((i, rows), (j, columns), r.below(2) == 0, r.below(2) == 0);
            for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                let (one, all) = (part(y, x), whole(i + y, j + x));
                assert!(one.to_bits() == all.to_bits(), "{m} {n} {k} {sa:?} {sb:?}: {rows} x {columns}: {one} {all}");
            }
        }
    }
}
