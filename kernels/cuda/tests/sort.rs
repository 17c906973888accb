//! Order along rows against the standard library's stable sort, and running sums.

use mobilis_cuda::scan::{self, cumsum};
use mobilis_cuda::softmax::Along;
use mobilis_cuda::sort::{Sort, arg_extreme, sort, workspace};
use mobilis_cuda::testing::{devices, difference, download, upload, values};

/// Few different values, infinities, both zeros and NaN.
fn reals(count: usize, seed: u64) -> Vec<f32> {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
    values(count, seed)
        .iter()
        .enumerate()
        .map(|(i, v)| if i % 11 < 5 && i % 7 == 0 { special[i % 11] } else { (v * 20.0).round() / 4.0 })
        .collect()
}

#[test]
fn sorts_are_stable_and_nan_is_last() {
    for (d, gpu) in devices().into_iter().enumerate() {
        for (rows, n, first) in [
            (0, 3, 3),
            (3, 1, 1),
            (5, 40, 40),
            (2, 40, 7),
            (2, 2048, 2048),
            (2, 5000, 5000),
            (2, 4500, 50),
            (1, 9000, 2000),
        ] {
            if n > 2048 && d == 1 {
                continue;
            }
            for descending in [false, true] {
                let s = Sort { rows, n, first, descending, real: true };
                let x = reals(rows * n, 3);
                let whole: Vec<i32> = x.iter().map(|v| (*v * 4.0) as i32).collect();
                let (values, places) = (gpu.alloc(rows * first * 4).unwrap(), gpu.alloc(rows * first * 4).unwrap());
                let space = gpu.alloc(workspace(s)).unwrap();
                let mut expected = vec![];
                for row in x.chunks(n) {
                    let mut order: Vec<i32> = (0..n as i32).collect();
                    order.sort_by(|a, b| {
                        let (a, b) = (row[*a as usize], row[*b as usize]);
                        match a.partial_cmp(&b) {
                            Some(up) => {
                                if descending {
                                    up.reverse()
                                } else {
                                    up
                                }
                            }
                            None => a.is_nan().cmp(&b.is_nan()),
                        }
                    });
                    expected.extend_from_slice(&order[..first]);
                }
                let from = upload(&gpu, &x);
                gpu.run(&sort(s, from.ptr(), values.ptr(), places.ptr(), space.ptr()).unwrap()).unwrap();
                assert_eq!(download::<i32>(&places, rows * first), expected, "{s:?}");
                let found = download::<f32>(&values, rows * first);
                for (i, (v, p)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(v.to_bits(), x[i / first * n + *p as usize].to_bits());
                }

                let mut expected = vec![];
                for row in whole.chunks(n) {
                    let mut order: Vec<i32> = (0..n as i32).collect();
                    order.sort_by_key(|i| {
                        if descending { -i64::from(row[*i as usize]) } else { i64::from(row[*i as usize]) }
                    });
                    expected.extend_from_slice(&order[..first]);
                }
                let from = upload(&gpu, &whole);
                gpu.run(&sort(Sort { real: false, ..s }, from.ptr(), values.ptr(), places.ptr(), space.ptr()).unwrap())
                    .unwrap();
                assert_eq!(download::<i32>(&places, rows * first), expected, "whole {s:?}");
            }
        }
    }
}

#[test]
fn places_of_extremes() {
    for gpu in devices() {
        for (outer, n, inner) in [(20, 1, 1), (5, 300, 1), (2, 33, 7), (0, 4, 2)] {
            let x = reals(outer * n * inner, 5);
            let (from, to) = (upload(&gpu, &x), gpu.alloc(outer * inner * 4).unwrap());
            for largest in [true, false] {
                let expected: Vec<i32> = (0..outer * inner)
                    .map(|c| {
                        let at = |i: usize| x[(c / inner * n + i) * inner + c % inner];
                        let better =
                            |a: f32, b: f32| (if largest { a > b } else { a < b }) || (a.is_nan() && !b.is_nan());
                        (0..n).fold(0, |best, i| if better(at(i), at(best)) { i } else { best }) as i32
                    })
                    .collect();
                gpu.run(&arg_extreme(from.ptr(), to.ptr(), Along { outer, n, inner }, true, largest).unwrap()).unwrap();
                assert_eq!(download::<i32>(&to, outer * inner), expected, "{outer} {n} {inner} {largest}");
            }
        }
        assert!(
            arg_extreme(
                upload(&gpu, &[0f32]).ptr(),
                upload(&gpu, &[0i32]).ptr(),
                Along { outer: 1, n: 0, inner: 1 },
                true,
                true
            )
            .is_err()
        );
    }
}

#[test]
fn running_sums() {
    for (d, gpu) in devices().into_iter().enumerate() {
        for (outer, n, inner) in [(9, 1, 1), (3, 100, 1), (2, 5000, 1), (1, 40_000, 1), (2, 33, 7), (2, 0, 3)] {
            if n > 10_000 && d == 1 {
                continue;
            }
            let along = Along { outer, n, inner };
            let len = outer * n * inner;
            let x = values(len, 7);
            let whole: Vec<i32> = x.iter().map(|v| (v * 1e9) as i32).collect();
            for reverse in [false, true] {
                let (mut sums, mut wrapped) = (vec![0.0f64; len], vec![0i32; len]);
                for c in 0..outer * inner {
                    let (mut sum, mut wrap) = (0.0, 0i32);
                    for i in 0..n {
                        let at = (c / inner * n + if reverse { n - 1 - i } else { i }) * inner + c % inner;
                        sum += x[at] as f64;
                        wrap = wrap.wrapping_add(whole[at]);
                        (sums[at], wrapped[at]) = (sum, wrap);
                    }
                }
                let sm = gpu.info().multiprocessors;
                let space = gpu.alloc(scan::workspace(along, sm)).unwrap();
                let (from, ints) = (upload(&gpu, &x), upload(&gpu, &whole));
                gpu.run(&cumsum((from.ptr(), from.ptr(), space.ptr()), along, reverse, true, sm).unwrap()).unwrap();
                let off = difference(&download(&from, len), &sums);
                assert!(off < 3e-6, "{along:?} {reverse}: {off}");
                gpu.run(&cumsum((ints.ptr(), ints.ptr(), space.ptr()), along, reverse, false, sm).unwrap()).unwrap();
                assert_eq!(download::<i32>(&ints, len), wrapped, "{along:?} {reverse}");
            }
        }
    }
}
