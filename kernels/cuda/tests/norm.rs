//! Norms of rows against their formulas in `f64`.

mod rows;

use mobilis_cuda::norm::Norm;
use mobilis_cuda::rows::Number;
use mobilis_cuda::testing::{devices, difference, download};
use mobilis_cuda::{Buffer, Ptr};
use rows::{NUMBERS, get, put, rounded, some, tolerance};

fn normalized(norm: Norm, row: &[f32]) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let mean = if norm.centred { row.iter().map(|v| *v as f64).sum::<f64>() / n } else { 0.0 };
    let var = row.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
    let r = 1.0 / (var + norm.eps as f64).sqrt();
    (row.iter().map(|v| (*v as f64 - mean) * r).collect(), r)
}

#[test]
fn forward_and_backward_equal_the_formulas() {
    // A size for each kernel, and odd ones; with means far from 0.
    let sizes =
        [(0, 4), (3, 0), (5, 1), (70, 7), (9, 32), (20, 100), (19, 128), (11, 509), (3, 1024), (5, 4100), (2, 16_390)];
    for (d, gpu) in devices().into_iter().enumerate() {
        for number in NUMBERS {
            for (i, (count, n)) in sizes.into_iter().enumerate() {
                if n > 1000 && !(i + d + number as usize).is_multiple_of(3) {
                    continue;
                }
                let (centred, weighted) = ((i + d) % 2 == 0, (i + d) % 4 < 2 || n == 509);
                let norm = Norm { rows: count, n, eps: 1e-5, centred, number };
                let len = count * n;
                let x: Vec<f32> = rounded(&some(len, 3, number).iter().map(|v| v + 3.0).collect::<Vec<_>>(), number);
                let [more, g] = [4, 5].map(|seed| some(len, seed, number));
                let [w, b] = [6, 7].map(|seed| some(n, seed, number));
                let summed: Vec<f32> = rounded(&x.iter().zip(&more).map(|(a, b)| a + b).collect::<Vec<_>>(), number);
                let [xs, ms, gs, ws] = [&x, &more, &g, &w].map(|v| put(&gpu, v, number));
                let [w32, b32] = [&w, &b].map(|v| put(&gpu, v, Number::F32));
                // The result in another type: rounded to 16 bits, or whole.
                let to = NUMBERS[(i + d) % 3];
                let [sums, gx] = [0; 2].map(|_| gpu.alloc(len * number.bytes()).unwrap());
                let y = gpu.alloc(len * 4).unwrap();
                let [gw, gb] = [0; 2].map(|_| gpu.alloc(n * 4).unwrap());
                let multiprocessors = gpu.info().multiprocessors;
                let workspace = gpu.alloc(norm.workspace(multiprocessors)).unwrap();
                let optional = |b: &Buffer| if weighted { b.ptr() } else { Ptr::NULL };
                let (wp, w32p, b32p) = (optional(&ws), optional(&w32), optional(&b32));
                let what = format!("{count} by {n} {number:?} centred {centred} weighted {weighted}");

                let weight = |i: usize| if weighted { w[i] as f64 } else { 1.0 };
                let bias = |i: usize| if weighted { b[i] as f64 } else { 0.0 };
                let forward = |x: &[f32]| -> Vec<f64> {
                    let rows = x.chunks(n.max(1)).map(|row| normalized(norm, row).0);
                    rows.flat_map(|row| {
                        row.into_iter().enumerate().map(|(i, v)| v * weight(i) + bias(i)).collect::<Vec<_>>()
                    })
                    .collect()
                };
                gpu.run(&norm.forward(xs.ptr(), None, w32p, b32p, (y.ptr(), to)).unwrap()).unwrap();
                let off = difference(&get(&y, len, to), &forward(&x));
                assert!(off < tolerance(to), "{what} to {to:?}: {off}");
                let residual = Some((ms.ptr(), sums.ptr()));
                gpu.run(&norm.forward(xs.ptr(), residual, w32p, b32p, (y.ptr(), number)).unwrap()).unwrap();
                assert_eq!(get(&sums, len, number), summed, "{what}");
                let off = difference(&get(&y, len, number), &forward(&summed));
                // The kernel normalises the sum before it is rounded for storage.
                assert!(off < 3.0 * tolerance(number), "residual {what}: {off}");

                let (mut egx, mut egw, mut egb) = (vec![], vec![0.0; n], vec![0.0; n]);
                for (row, g) in x.chunks(n.max(1)).zip(g.chunks(n.max(1))) {
                    let (xhat, r) = normalized(norm, row);
                    let d: Vec<f64> = (0..n).map(|i| g[i] as f64 * weight(i)).collect();
                    let mean_d = if centred { d.iter().sum::<f64>() / n as f64 } else { 0.0 };
                    let dot = d.iter().zip(&xhat).map(|(d, x)| d * x).sum::<f64>() / n as f64;
                    egx.extend((0..n).map(|i| r * (d[i] - mean_d - xhat[i] * dot)));
                    for i in 0..n {
                        egw[i] += g[i] as f64 * xhat[i];
                        egb[i] += g[i] as f64;
                    }
                }
                let outs = (gx.ptr(), optional(&gw), optional(&gb));
                let back = norm.backward((xs.ptr(), wp, gs.ptr()), outs, workspace.ptr(), multiprocessors).unwrap();
                gpu.run(&back).unwrap();
                let off = difference(&get(&gx, len, number), &egx);
                assert!(off < 4.0 * tolerance(number) || n == 1, "gx {what}: {off}");
                if weighted && n > 1 {
                    let off = difference(&download(&gw, n), &egw);
                    assert!(off < 1e-5, "gw {what}: {off}");
                    let off = difference(&download(&gb, n), &egb);
                    assert!(off < 1e-5, "gb {what}: {off}");
                }
            }
        }
    }
}

#[test]
fn long_rows_far_from_zero_keep_their_variance() {
    for gpu in devices().into_iter().take(1) {
        let n = 17_000;
        let x: Vec<f32> = some(n, 3, Number::F32).iter().map(|v| v + 1000.0).collect();
        let norm = Norm { rows: 1, n, eps: 0.0, centred: true, number: Number::F32 };
        let (from, to) = (put(&gpu, &x, Number::F32), gpu.alloc(n * 4).unwrap());
        let to_f32 = (to.ptr(), Number::F32);
        gpu.run(&norm.forward(from.ptr(), None, Ptr::NULL, Ptr::NULL, to_f32).unwrap()).unwrap();
        assert!(difference(&download(&to, n), &normalized(norm, &x).0) < 1e-4);
    }
}
