//! Softmax along rows and columns, and its gradient, on the emulator, and on the GPU where there is one.

mod rows;

use mobilis_cuda::rows::Number;
use mobilis_cuda::softmax::{Along, softmax, softmax_back};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use rows::{NUMBERS, get, put, some, tolerance};

/// The lines of `[outer, n, inner]`, each as the places of its values.
fn lines(a: Along) -> impl Iterator<Item = Vec<usize>> {
    (0..a.outer * a.inner).map(move |c| (0..a.n).map(|i| (c / a.inner * a.n + i) * a.inner + c % a.inner).collect())
}

fn expected(x: &[f32], along: Along, log: bool) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for line in lines(along) {
        let e: Vec<f64> = line.iter().map(|i| (x[*i] as f64).exp()).collect();
        let sum: f64 = e.iter().sum();
        line.iter().zip(e).for_each(|(i, e)| out[*i] = if log { (e / sum).ln() } else { e / sum });
    }
    out
}

fn expected_back(y: &[f32], g: &[f32], along: Along, log: bool) -> Vec<f64> {
    let mut out = vec![0.0; y.len()];
    for line in lines(along) {
        let (y, g): (Vec<f64>, Vec<f64>) = line.iter().map(|i| (y[*i] as f64, g[*i] as f64)).unzip();
        let sum: f64 = y.iter().zip(&g).map(|(y, g)| if log { *g } else { y * g }).sum();
        let each = y.iter().zip(&g).map(|(y, g)| if log { g - y.exp() * sum } else { y * (g - sum) });
        line.iter().zip(each).for_each(|(i, v)| out[*i] = v);
    }
    out
}

#[test]
fn rows_and_columns_equal_the_formula() {
    // One size for each kernel, and odd ones.
    let rows =
        [(0, 5), (5, 0), (3, 1), (40, 7), (9, 32), (17, 100), (3, 128), (9, 509), (2, 1024), (2, 5000), (1, 16_385)];
    let rows = rows.map(|(outer, n)| Along { outer, n, inner: 1 });
    let columns = [(2, 5, 3), (1, 33, 300)].map(|(outer, n, inner)| Along { outer, n, inner });
    for (d, gpu) in devices().into_iter().enumerate() {
        for number in NUMBERS {
            for (i, along) in rows.into_iter().chain(columns).enumerate() {
                let (len, log) = (along.outer * along.n * along.inner, (i + d) % 2 == 0);
                if along.inner > 1 && number != Number::F32 {
                    continue;
                }
                // The largest rows in one schedule each: they take longest.
                if along.n > 2000 && !(i + d + number as usize).is_multiple_of(3) {
                    continue;
                }
                let (x, g) = (some(len, 3, number), some(len, 4, number));
                let (from, to) = (put(&gpu, &x, number), gpu.alloc(len * number.bytes()).unwrap());
                gpu.run(&softmax(from.ptr(), to.ptr(), along, log, number).unwrap()).unwrap();
                let y = get(&to, len, number);
                let off = difference(&y, &expected(&x, along, log));
                assert!(off < tolerance(number), "{along:?} {number:?} {log}: {off}");
                let g_at = put(&gpu, &g, number);
                gpu.run(&softmax_back(to.ptr(), g_at.ptr(), g_at.ptr(), along, log, number).unwrap()).unwrap();
                let off = difference(&get(&g_at, len, number), &expected_back(&y, &g, along, log));
                // Differences of equal numbers: the gradient of a row of one is 0 but for rounding.
                assert!(off < 4.0 * tolerance(number) || along.n == 1, "back {along:?} {number:?} {log}: {off}");
            }
        }
    }
}

#[test]
fn rows_of_infinities_have_no_nan_and_nan_spreads() {
    for gpu in devices() {
        for n in [5, 100, 600] {
            let mut x = values(4 * n, 8);
            x[..n].fill(f32::NEG_INFINITY);
            x[n..2 * n - 1].fill(f32::NEG_INFINITY);
            x[3 * n + 1] = f32::NAN;
            let (from, to) = (upload(&gpu, &x), gpu.alloc(x.len() * 4).unwrap());
            for log in [false, true] {
                let along = Along { outer: 4, n, inner: 1 };
                gpu.run(&softmax(from.ptr(), to.ptr(), along, log, Number::F32).unwrap()).unwrap();
                let y = download::<f32>(&to, x.len());
                let nothing = if log { f32::NEG_INFINITY } else { 0.0 };
                assert!(y[..2 * n - 1].iter().all(|v| *v == nothing), "{n} {log}");
                assert_eq!(y[2 * n - 1], if log { 0.0 } else { 1.0 });
                assert!(y[2 * n..3 * n].iter().all(|v| v.is_finite()));
                assert!(y[3 * n..].iter().all(|v| v.is_nan()));
            }
        }
    }
}

#[test]
fn rows_may_begin_anywhere() {
    for gpu in devices() {
        let x = values(1 + 3 * 64, 8);
        let (from, to) = (upload(&gpu, &x), gpu.alloc(x.len() * 4).unwrap());
        let along = Along { outer: 3, n: 64, inner: 1 };
        gpu.run(&softmax(from.ptr().at(4), to.ptr().at(4), along, false, Number::F32).unwrap()).unwrap();
        let found = download::<f32>(&to, x.len());
        assert!(difference(&found[1..], &expected(&x[1..], along, false)) < 4e-6);
    }
}
