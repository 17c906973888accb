//! Pooling and sliding windows on the emulator, and on the GPU where there is one.

use mobilis_cuda::pool::{Mean, Windows, average, average_grad, max, max_grad};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::window;

fn sliding(
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    before: [usize; 2],
    dilation: [usize; 2],
) -> Windows {
    let length = |i: usize| (input[i] + 2 * before[i] - (kernel[i] - 1) * dilation[i] - 1) / stride[i] + 1;
    Windows { input, output: [length(0), length(1)], kernel, stride, before, dilation }
}

/// Positions in the plane of the inputs of each window, in their order.
fn members(w: &Windows, q: usize) -> Vec<usize> {
    let (p, q) = (q / w.output[1], q % w.output[1]);
    let mut all = vec![];
    for i in 0..w.kernel[0] {
        for j in 0..w.kernel[1] {
            let h = (p * w.stride[0] + i * w.dilation[0]).wrapping_sub(w.before[0]);
            let v = (q * w.stride[1] + j * w.dilation[1]).wrapping_sub(w.before[1]);
            if h < w.input[0] && v < w.input[1] {
                all.push(h * w.input[1] + v);
            }
        }
    }
    all
}

#[test]
fn the_largest_value_is_the_first_and_nan_above_all() {
    for gpu in devices() {
        for w in [
            sliding([1, 23], [1, 3], [1, 2], [0, 1], [1, 1]),
            sliding([9, 7], [3, 2], [2, 1], [1, 1], [1, 1]),
            sliding([8, 9], [2, 3], [1, 1], [1, 0], [2, 3]),
        ] {
            let (n, m, planes) = (w.input[0] * w.input[1], w.output[0] * w.output[1], 5);
            // Few different values, so that maxima tie; one that is no number, one plane of minus infinity.
            let mut x: Vec<f32> = values(planes * n, 3).iter().map(|v| (v * 2.0).round()).collect();
            x[n + 3] = f32::NAN;
            x[2 * n..3 * n].fill(f32::NEG_INFINITY);
            let g = values(planes * m, 4);
            let (xd, y, at) =
                (upload(&gpu, &x), gpu.alloc(planes * m * 4).unwrap(), gpu.alloc(planes * m * 4).unwrap());
            gpu.run(&max(&w, planes, xd.ptr(), y.ptr(), at.ptr()).unwrap()).unwrap();
            let (found, places): (Vec<f32>, Vec<i32>) = (download(&y, planes * m), download(&at, planes * m));
            let mut grad = vec![0f64; planes * n];
            for p in 0..planes {
                for q in 0..m {
                    let of = |i: usize| x[p * n + i];
                    let above = |a: usize, b: usize| of(b) > of(a) || (of(b).is_nan() && !of(a).is_nan());
                    let best = members(&w, q).into_iter().reduce(|a, b| if above(a, b) { b } else { a }).unwrap();
                    assert_eq!(places[p * m + q], best as i32, "{w:?} plane {p} window {q}");
                    assert_eq!(found[p * m + q].to_bits(), of(best).to_bits());
                    grad[p * n + best] += g[p * m + q] as f64;
                }
            }
            let (gd, dx) = (upload(&gpu, &g), gpu.alloc(planes * n * 4).unwrap());
            gpu.run(&max_grad([planes, m, n], gd.ptr(), at.ptr(), dx.ptr()).unwrap()).unwrap();
            let d = difference(&download(&dx, planes * n), &grad);
            assert!(d < 1e-6, "{w:?}: {d}");
        }
    }
}

/// The inputs that output `q` joins along a dimension, and what it divides by: the op's definition.
fn span(w: &Windows, mean: Mean, i: usize, q: usize) -> (usize, usize, usize) {
    let (n, m) = (w.input[i], w.output[i]);
    if mean == Mean::Adaptive {
        let (lo, hi) = (q * n / m, ((q + 1) * n).div_ceil(m));
        return (lo, hi, hi - lo);
    }
    let lo = (q * w.stride[i]).saturating_sub(w.before[i]);
    let hi = (q * w.stride[i] + w.kernel[i]).saturating_sub(w.before[i]).min(n).max(lo);
    (lo, hi, if mean == Mean::OfWindow { w.kernel[i] } else { hi - lo })
}

#[test]
fn means_and_their_gradients_are_one_linear_map() {
    let adaptive = |input, output| Windows { input, output, ..sliding([1, 1], [1, 1], [1, 1], [0, 0], [1, 1]) };
    for gpu in devices() {
        for (w, mean) in [
            (sliding([1, 23], [1, 3], [1, 2], [0, 1], [1, 1]), Mean::OfInputs),
            (sliding([9, 7], [3, 2], [2, 1], [1, 1], [1, 1]), Mean::OfInputs),
            (sliding([9, 7], [4, 5], [3, 2], [2, 1], [1, 1]), Mean::OfWindow),
            (sliding([9, 7], [2, 2], [4, 3], [0, 0], [1, 1]), Mean::OfWindow),
            (adaptive([7, 10], [3, 4]), Mean::Adaptive),
            (adaptive([3, 2], [7, 5]), Mean::Adaptive),
        ] {
            let (n, m, planes) = (w.input[0] * w.input[1], w.output[0] * w.output[1], 3);
            let (x, g) = (values(planes * n, 5), values(planes * m, 6));
            let (mut y, mut dx) = (vec![0f64; planes * m], vec![0f64; planes * n]);
            for p in 0..planes {
                for q in 0..m {
                    let (a, b) = (span(&w, mean, 0, q / w.output[1]), span(&w, mean, 1, q % w.output[1]));
                    for (h, v) in (a.0..a.1).flat_map(|h| (b.0..b.1).map(move |v| (h, v))) {
                        let weight = 1.0 / (a.2 * b.2) as f64;
                        y[p * m + q] += weight * x[p * n + h * w.input[1] + v] as f64;
                        dx[p * n + h * w.input[1] + v] += weight * g[p * m + q] as f64;
                    }
                }
            }
            let (xd, gd) = (upload(&gpu, &x), upload(&gpu, &g));
            let (yd, dxd) = (gpu.alloc(planes * m * 4).unwrap(), gpu.alloc(planes * n * 4).unwrap());
            gpu.run(&average(&w, mean, planes, xd.ptr(), yd.ptr()).unwrap()).unwrap();
            gpu.run(&average_grad(&w, mean, planes, gd.ptr(), dxd.ptr()).unwrap()).unwrap();
            for (d, what) in [
                (difference(&download(&yd, planes * m), &y), "mean"),
                (difference(&download(&dxd, planes * n), &dx), "gradient"),
            ] {
                assert!(d < 1e-6, "{what} {mean:?} {w:?}: {d}");
            }
        }
    }
}

#[test]
fn windows_are_cut_and_added_back() {
    for gpu in devices() {
        for (outer, length, inner, windows, kernel, stride, dilation) in [
            (3, 20, 1, 5, 6, 3, 1),
            (2, 17, 5, 4, 3, 2, 4),
            (1, 9, 300, 2, 2, 5, 1),
            (0, 9, 3, 2, 2, 5, 1),
            (2, 9, 3, 0, 2, 5, 1),
        ] {
            let w = window::Windows { outer, length, inner, windows, kernel, stride, dilation };
            let (n, m) = (outer * length * inner, outer * windows * kernel * inner);
            let (x, g) = (values(n, 7), values(m, 8));
            let (mut y, mut dx) = (vec![0f32; m], vec![0f64; n]);
            for at in 0..m {
                let (i, k) = (at % inner, at / inner % kernel);
                let (v, o) = (at / inner / kernel % windows, at / inner / kernel / windows);
                let from = (o * length + v * stride + k * dilation) * inner + i;
                y[at] = x[from];
                dx[from] += g[at] as f64;
            }
            let (xd, gd) = (upload(&gpu, &x), upload(&gpu, &g));
            let (yd, dxd) = (gpu.alloc(m * 4).unwrap(), gpu.alloc(n * 4).unwrap());
            gpu.run(&window::unfold(&w, 4, xd.ptr(), yd.ptr()).unwrap()).unwrap();
            gpu.run(&window::fold(&w, gd.ptr(), dxd.ptr()).unwrap()).unwrap();
            assert_eq!(download::<f32>(&yd, m), y);
            let d = difference(&download(&dxd, n), &dx);
            assert!(d < 1e-6, "{w:?}: {d}");
            let bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let (bd, td) = (upload(&gpu, &bytes), gpu.alloc(m).unwrap());
            gpu.run(&window::unfold(&w, 1, bd.ptr(), td.ptr()).unwrap()).unwrap();
            let found: Vec<u8> = download(&td, m);
            let expected = (0..m).map(|at| {
                let (i, k) = (at % inner, at / inner % kernel);
                let (v, o) = (at / inner / kernel % windows, at / inner / kernel / windows);
                bytes[(o * length + v * stride + k * dilation) * inner + i]
            });
            assert_eq!(found, expected.collect::<Vec<_>>());
        }
    }
    let w = window::Windows { outer: 1, length: 5, inner: 1, windows: 3, kernel: 2, stride: 2, dilation: 1 };
    assert!(window::unfold(&w, 4, Default::default(), Default::default()).unwrap_err().to_string().contains("within"));
}
