use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::ops::movement::permute;
use mobilis_runtime::ops::stft::{Edge, Framing, WindowShape, istft, stft, stft_input_grad, stft_window_grad, window};
use mobilis_runtime::testing::{CPU, check, check_cpu, close, evaluate, noise, positive, real, try_traced, values};

fn framing(hop: u64, pad: u64, edge: Edge) -> Framing {
    Framing { hop, pad, edge }
}

/// Four samples and a window of four: the transforms are sums and differences.
#[test]
fn literals() {
    let given = [values(&[4], &[1., 2., 3., 5.]), values(&[4], &[1.; 4])];
    let out = evaluate(&given, |h| vec![stft(h[0], h[1], framing(4, 0, Edge::Zeros))]);
    assert_eq!(out[0].sizes, [3, 1, 2]);
    let expected = [11., 0., -2., 3., -3., 0.];
    assert!(out[0].data.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{out:?}");
    // Centred and reflected, hop 2: frames [3 2 1 2], [1 2 3 5], [3 5 3 2]; their sums are bin 0.
    let out = evaluate(&given, |h| vec![stft(h[0], h[1], framing(2, 2, Edge::Reflect))]);
    assert_eq!(out[0].sizes, [3, 3, 2]);
    assert_eq!([out[0].data[0], out[0].data[2], out[0].data[4]], [8., 11., 13.]);
}

/// A cosine at the frequency of a bin appears in that bin alone.
#[test]
fn a_pure_tone() {
    let (n, bin) = (16, 3);
    let tone: Vec<f64> = (0..n).map(|i| (2.0 * std::f64::consts::PI * (bin * i) as f64 / n as f64).cos()).collect();
    let out = evaluate(&[values(&[n], &tone), values(&[n], &vec![1.0; n])], |h| {
        vec![stft(h[0], h[1], framing(1, 0, Edge::Zeros))]
    });
    for (k, pair) in out[0].data.chunks(2).enumerate() {
        let expected = if k == bin { n as f64 / 2.0 } else { 0.0 };
        assert!((pair[0] - expected).abs() < 1e-12 && pair[1].abs() < 1e-12);
    }
}

#[test]
fn windows_of_every_shape() {
    let run = |shape, length, frame, symmetric| {
        evaluate(&[], |_| vec![window(shape, Extent::constant(length), Dim::fixed(frame), symmetric)])[0].data.clone()
    };
    let near = |found: Vec<f64>, expected: &[f64]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    };
    near(run(WindowShape::Hann, 4, 4, false), &[0., 0.5, 1., 0.5]);
    near(run(WindowShape::Hann, 5, 5, true), &[0., 0.5, 1., 0.5, 0.]);
    near(run(WindowShape::Hann, 4, 8, false), &[0., 0., 0., 0.5, 1., 0.5, 0., 0.]);
    near(run(WindowShape::Hamming, 4, 4, false), &[0.08, 0.54, 1., 0.54]);
    near(run(WindowShape::Blackman, 4, 4, false), &[0., 0.34, 1., 0.34]);
    near(run(WindowShape::Rectangular, 2, 5, false), &[0., 1., 1., 0., 0.]);
}

/// A case: sizes of the signal, window, framing.
const CASES: &[(&[usize], usize, Framing)] = &[
    (&[2, 9], 4, Framing { hop: 2, pad: 2, edge: Edge::Reflect }),
    (&[2, 9], 4, Framing { hop: 3, pad: 2, edge: Edge::Zeros }),
    (&[7], 5, Framing { hop: 1, pad: 0, edge: Edge::Zeros }),
    (&[1, 2, 6], 3, Framing { hop: 2, pad: 1, edge: Edge::Reflect }),
    (&[1, 1], 1, Framing { hop: 1, pad: 0, edge: Edge::Zeros }),
    (&[1, 1], 4, Framing { hop: 2, pad: 2, edge: Edge::Reflect }),
    (&[1, 2], 6, Framing { hop: 2, pad: 3, edge: Edge::Reflect }),
    (&[0, 8], 4, Framing { hop: 2, pad: 2, edge: Edge::Reflect }),
];

#[test]
fn gradients_and_devices_agree() {
    for (x, n, f) in CASES {
        let given = [real(x, 1), positive(&[*n], 2)];
        check(&given, |h| vec![stft(h[0], h[1], *f)]);
        let y = evaluate(&given, |h| vec![stft(h[0], h[1], *f)])[0].sizes.clone();
        let dims = |sizes: &[usize]| sizes.iter().map(|n| Dim::fixed(*n as u64)).collect::<Vec<_>>();
        check(&[real(&y, 3), positive(&[*n], 2)], |h| vec![stft_input_grad(h[0], h[1], *f, dims(x))]);
        check(&[real(x, 1), real(&y, 3)], |h| vec![stft_window_grad(h[0], h[1], *f, dims(&[*n]))]);
    }
    check(&[real(&[9, 2], 1), real(&[4], 2)], |h| {
        vec![stft(permute(h[0], &[1, 0]), h[1], framing(2, 2, Edge::Reflect))]
    });
}

/// Lengths of speech front ends, several signals, on every thread.
#[test]
fn large_transforms_agree_with_the_reference() {
    for (n, hop, samples) in [(64, 16, 300), (50, 20, 333), (37, 10, 200)] {
        let f = framing(hop, n as u64 / 2, Edge::Reflect);
        check_cpu(&[real(&[3, samples], 1), positive(&[n], 2)], &|h| vec![stft(h[0], h[1], f)], CPU);
    }
}

/// The inverse gives back the signal, whatever the window, for even and odd lengths.
#[test]
fn there_and_back() {
    for seed in 0..12u64 {
        let pick = |i: u64, n: u64| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as u64;
        let n = 2 + pick(0, 12);
        let hop = 1 + pick(1, n / 2);
        let samples = hop * (2 + pick(2, 4)) + pick(3, hop);
        // An even window is centred; an odd one is padded by the larger half, so that it covers.
        let pad = n.div_ceil(2);
        let edge = [Edge::Reflect, Edge::Zeros][pick(4, 2) as usize];
        let given = [real(&[2, samples as usize], seed), positive(&[n as usize], seed + 50)];
        let out = evaluate(&given, |h| {
            let y = stft(h[0], h[1], framing(hop, pad, edge));
            vec![istft(y, h[1], framing(hop, pad, edge), Dim::fixed(samples))]
        });
        close(&out[0], &given[0].array, 1e-12);
    }
}

#[test]
fn samples_that_no_window_covers_are_zero() {
    // Two frames of a window of two every four samples leave gaps.
    let given = [values(&[6], &[1., 2., 3., 4., 5., 6.]), values(&[2], &[1., 1.])];
    let f = framing(4, 0, Edge::Zeros);
    let out = evaluate(&given, |h| vec![istft(stft(h[0], h[1], f), h[1], f, Dim::fixed(6))]);
    let expected = [1., 2., 0., 0., 5., 6.];
    assert!(out[0].data.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
}

#[test]
fn the_inverse_has_a_gradient() {
    let (samples, n) = (9usize, 6usize);
    let f = framing(2, 3, Edge::Zeros);
    let y = [1, 4, 5, 2];
    check(&[real(&y, 1), positive(&[n], 2)], |h| vec![istft(h[0], h[1], f, Dim::fixed(samples as u64))]);
}

#[test]
fn mistakes_are_told_in_words() {
    let message = |f: Framing, n| {
        try_traced(&[real(&[2, 3], 1), real(&[n], 2)], |h| vec![stft(h[0], h[1], f)]).unwrap_err().message
    };
    assert_eq!(
        message(framing(1, 0, Edge::Zeros), 4),
        "stft: has a kernel that spans 4 positions over a padded input of 3"
    );
    assert_eq!(message(framing(0, 0, Edge::Zeros), 2), "stft: has a stride and a dilation of at least 1");
}
