//! Convolutions and their gradients on the emulator, and on the GPU where there is one.

use mobilis_cuda::conv::{Conv, Factors, forward, input_grad, weight_grad, weight_grad_workspace};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{CudaError, Ptr};

/// `input`, `kernel`, `stride`, `before` and after, `dilation`; the output's size follows.
fn conv(
    [batch, groups, channels, filters]: [usize; 4],
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [[usize; 2]; 2],
    dilation: [usize; 2],
) -> Conv {
    let length = |i: usize| {
        let padded = input[i] + padding[i][0] + padding[i][1];
        (padded - (kernel[i] - 1) * dilation[i] - 1) / stride[i] + 1
    };
    let (output, before) = ([length(0), length(1)], [padding[0][0], padding[1][0]]);
    Conv { batch, groups, channels, filters, input, kernel, output, stride, before, dilation }
}

fn cases() -> Vec<Conv> {
    let none = [[0, 0]; 2];
    vec![
        // One dimension, strided, padded on one side, dilated.
        conv([2, 1, 3, 5], [1, 37], [1, 4], [1, 3], [[0, 0], [2, 1]], [1, 2]),
        // Two dimensions, everything odd.
        conv([2, 1, 3, 33], [9, 11], [3, 2], [2, 3], [[1, 0], [0, 2]], [2, 1]),
        // Groups of several channels; stride and dilation that share a divisor, and do not.
        conv([1, 2, 3, 4], [13, 12], [3, 3], [2, 3], [[2, 2], [1, 1]], [2, 2]),
        // Stride beyond the kernel: places that no product meets.
        conv([1, 1, 2, 3], [1, 17], [1, 2], [1, 4], none, [1, 1]),
        // Depthwise, one and two filters a channel.
        conv([2, 5, 1, 1], [1, 40], [1, 9], [1, 1], [[0, 0], [4, 4]], [1, 1]),
        conv([1, 2, 1, 1], [1, 300], [1, 40], [1, 1], [[0, 0], [45, 3]], [1, 1]),
        conv([1, 2, 1, 1], [1, 30], [1, 2], [1, 1], [[0, 0], [1, 0]], [1, 1]),
        conv([2, 3, 1, 2], [7, 8], [3, 3], [2, 2], [[1, 1], [1, 0]], [1, 2]),
        // Pointwise with more than one tile of filters, of places and of depth.
        conv([3, 1, 70, 70], [1, 61], [1, 1], [1, 1], none, [1, 1]),
        // One of everything.
        conv([1, 1, 1, 1], [1, 1], [1, 1], [1, 1], none, [1, 1]),
        // One channel for many filters.
        conv([1, 1, 1, 40], [1, 30], [1, 10], [1, 5], none, [1, 1]),
        // A sum in parts.
        Conv { batch: 3, ..conv([1, 1, 2, 3], [10, 20], [1, 1], [1, 1], none, [1, 1]) },
        // So many blocks that tiles are large: of filters, of channels.
        conv([1, 132, 2, 33], [1, 5], [1, 1], [1, 1], none, [1, 1]),
        conv([1, 132, 33, 2], [1, 5], [1, 1], [1, 1], none, [1, 1]),
    ]
}

/// Values as the factors are: those that tensor cores take are bf16 already, so that products are exact.
fn given(count: usize, seed: u64, factors: Factors) -> Vec<f32> {
    let exact = values(count, seed);
    match factors {
        Factors::F32 => exact,
        Factors::Bf16 => exact.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect(),
    }
}

/// Every case, by both kinds of products; by tensor cores only those that are products of matrices.
fn both() -> impl Iterator<Item = (Conv, Factors)> {
    let tensor = cases().into_iter().filter(|s| s.channels > 1 && s.groups < 100).map(|s| (s, Factors::Bf16));
    cases().into_iter().map(|s| (s, Factors::F32)).chain(tensor)
}

/// Calls `f` with the places in `x`, `w` and `y` of every product.
fn products(s: &Conv, mut f: impl FnMut(usize, usize, usize)) {
    let [ih, iw] = s.input;
    let [kh, kw] = s.kernel;
    let [oh, ow] = s.output;
    for b in 0..s.batch {
        for o in 0..s.groups * s.filters {
            let g = o / s.filters;
            for (p, q) in (0..oh).flat_map(|p| (0..ow).map(move |q| (p, q))) {
                let y = ((b * s.groups * s.filters + o) * oh + p) * ow + q;
                for c in 0..s.channels {
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let h = (p * s.stride[0] + i * s.dilation[0]).wrapping_sub(s.before[0]);
                        let v = (q * s.stride[1] + j * s.dilation[1]).wrapping_sub(s.before[1]);
                        if h < ih && v < iw {
                            let x = ((b * s.groups * s.channels + g * s.channels + c) * ih + h) * iw + v;
                            f(x, ((o * s.channels + c) * kh + i) * kw + j, y);
                        }
                    }
                }
            }
        }
    }
}

fn sizes(s: &Conv) -> [usize; 3] {
    let plane = |[a, b]: [usize; 2]| a * b;
    [
        s.batch * s.groups * s.channels * plane(s.input),
        s.groups * s.filters * s.channels * plane(s.kernel),
        s.batch * s.groups * s.filters * plane(s.output),
    ]
}

#[test]
fn forward_equals_the_sum_of_its_definition() {
    for gpu in devices() {
        for (s, factors) in both() {
            let [nx, nw, ny] = sizes(&s);
            let (x, w, bias) = (given(nx, 1, factors), given(nw, 2, factors), values(s.groups * s.filters, 3));
            let plane = s.output[0] * s.output[1];
            for with_bias in [true, false] {
                let mut expected: Vec<f64> =
                    (0..ny).map(|i| if with_bias { bias[i / plane % bias.len()] as f64 } else { 0.0 }).collect();
                products(&s, |xi, wi, yi| expected[yi] += x[xi] as f64 * w[wi] as f64);
                let (xd, wd, bd) = (upload(&gpu, &x), upload(&gpu, &w), upload(&gpu, &bias));
                let y = gpu.alloc(ny * 4).unwrap();
                let b = if with_bias { bd.ptr() } else { Ptr::NULL };
                gpu.run(&forward(&s, factors, xd.ptr(), wd.ptr(), b, y.ptr()).unwrap()).unwrap();
                let d = difference(&download(&y, ny), &expected);
                assert!(d < 1e-6, "{s:?} {factors:?}: {d}");
            }
        }
    }
}

#[test]
fn the_input_gradient_is_the_transposed_sum() {
    for gpu in devices() {
        for (s, factors) in both() {
            let [nx, nw, ny] = sizes(&s);
            let (y, w, bias) = (given(ny, 4, factors), given(nw, 5, factors), values(s.groups * s.channels, 6));
            let plane = s.input[0] * s.input[1];
            let mut expected: Vec<f64> = (0..nx).map(|i| bias[i / plane % bias.len()] as f64).collect();
            products(&s, |xi, wi, yi| expected[xi] += y[yi] as f64 * w[wi] as f64);
            let (yd, wd, bd) = (upload(&gpu, &y), upload(&gpu, &w), upload(&gpu, &bias));
            let x = gpu.alloc(nx * 4).unwrap();
            gpu.run(&input_grad(&s, factors, yd.ptr(), wd.ptr(), bd.ptr(), x.ptr()).unwrap()).unwrap();
            let d = difference(&download(&x, nx), &expected);
            assert!(d < 1e-6, "{s:?} {factors:?}: {d}");
        }
    }
}

#[test]
fn the_weight_gradient_sums_over_all_places_in_one_order() {
    for gpu in devices() {
        for (s, factors) in both() {
            let [nx, nw, ny] = sizes(&s);
            let (x, y) = (given(nx, 7, factors), given(ny, 8, factors));
            let mut expected = vec![0f64; nw];
            products(&s, |xi, wi, yi| expected[wi] += x[xi] as f64 * y[yi] as f64);
            let (xd, yd) = (upload(&gpu, &x), upload(&gpu, &y));
            let (w, scratch) = (gpu.alloc(nw * 4).unwrap(), gpu.alloc(weight_grad_workspace(&s)).unwrap());
            gpu.run(&weight_grad(&s, factors, xd.ptr(), yd.ptr(), w.ptr(), scratch.ptr()).unwrap()).unwrap();
            let found: Vec<f32> = download(&w, nw);
            let d = difference(&found, &expected);
            assert!(d < 2e-6, "{s:?} {factors:?}: {d}");
        }
    }
}

#[test]
fn empty_arrays_launch_nothing_or_give_the_bias() {
    let s = conv([0, 1, 2, 3], [1, 5], [1, 2], [1, 1], [[0, 0]; 2], [1, 1]);
    let p = Ptr(256);
    assert!(forward(&s, Factors::F32, p, p, p, p).unwrap().is_empty());
    assert!(input_grad(&s, Factors::F32, p, p, p, p).unwrap().is_empty());
    for gpu in devices() {
        // No sequences: the weight's gradient is zero. No channels: the output is the bias.
        let w = gpu.alloc(12 * 4).unwrap();
        gpu.run(&weight_grad(&s, Factors::F32, Ptr::NULL, Ptr::NULL, w.ptr(), Ptr::NULL).unwrap()).unwrap();
        assert_eq!(download::<f32>(&w, 12), [0.0; 12]);
        let s = Conv { batch: 2, channels: 0, ..s };
        let (bias, y) = (upload(&gpu, &[1f32, 2.0, 3.0]), gpu.alloc(24 * 4).unwrap());
        gpu.run(&forward(&s, Factors::F32, Ptr::NULL, Ptr::NULL, bias.ptr(), y.ptr()).unwrap()).unwrap();
        let expected: Vec<f32> = (0..24).map(|i| (i / 4 % 3 + 1) as f32).collect();
        assert_eq!(download::<f32>(&y, 24), expected);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_a_launch() {
    let s = conv([1, 1, 2, 3], [1, 5], [1, 2], [1, 1], [[0, 0]; 2], [1, 1]);
    let p = Ptr(256);
    let refused = |s: &Conv| match forward(s, Factors::F32, p, p, p, p) {
        Err(CudaError::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert!(refused(&Conv { batch: 1 << 30, ..s }).contains("values of the input"));
    assert!(refused(&Conv { stride: [0, 1], ..s }).contains("stride"));
    assert!(refused(&Conv { before: [0, 1 << 31], ..s }).contains("reach"));
}
