use mobilis_runtime::graph::trace::type_of;
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::ops::conv::{Geometry, conv, conv_input_grad, conv_weight_grad};
use mobilis_runtime::ops::elementwise::{UnaryKind, unary};
use mobilis_runtime::ops::movement::permute;
use mobilis_runtime::testing::{CPU, agree, check, check_cpu, evaluate, noise, real, try_traced, values};

#[test]
fn literals_in_one_dimension() {
    let x = values(&[1, 1, 4], &[1., 2., 3., 4.]);
    let w = values(&[1, 1, 3], &[1., 0., -1.]);
    let b = values(&[1], &[10.]);
    let run = |g: &Geometry| evaluate(&[x.clone(), w.clone(), b.clone()], |h| vec![conv(h[0], h[1], Some(h[2]), g)]);
    assert_eq!(run(&Geometry::square(1, 1, 0, 1))[0].data, [8., 8.]);
    assert_eq!(run(&Geometry::square(1, 1, 1, 1))[0].data, [8., 8., 8., 13.]);
    assert_eq!(run(&Geometry::square(1, 2, 1, 1))[0].data, [8., 8.]);
    // torch.nn.functional.conv1d(x, w, dilation=2, padding=2)
    assert_eq!(run(&Geometry::square(1, 1, 2, 2))[0].data, [7., 6., 11., 12.]);
}

#[test]
fn literals_of_a_transposed_convolution() {
    // torch.nn.functional.conv_transpose1d([1, 2], [1, 10, 100], stride=2, output_padding=1)
    let given = [values(&[1, 1, 2], &[1., 2.]), values(&[1, 1, 3], &[1., 10., 100.])];
    let dims = |n| vec![Dim::fixed(1), Dim::fixed(1), Dim::fixed(n)];
    let out = evaluate(&given, |h| vec![conv_input_grad(h[0], h[1], None, &Geometry::square(1, 2, 0, 1), dims(6))]);
    assert_eq!(out[0].data, [1., 10., 102., 20., 200., 0.]);
}

/// Polynomial products are convolutions: with the kernel reversed and full padding, the result
/// holds the coefficients of the product. Independent of the loops under test.
#[test]
fn a_product_of_polynomials() {
    let (a, b) = ([2., -1., 0.5, 3.], [1., 4., -2.]);
    let product: Vec<f64> =
        (0..6).map(|n| (0..4).filter(|i| n >= *i && n - i < 3).map(|i| a[i] * b[n - i]).sum()).collect();
    let reversed: Vec<f64> = b.iter().rev().copied().collect();
    let given = [values(&[1, 1, 4], &a), values(&[1, 1, 3], &reversed)];
    let out = evaluate(&given, |h| vec![conv(h[0], h[1], None, &Geometry::square(1, 1, 2, 1))]);
    assert_eq!(out[0].data, product);
}

/// A case: sizes of x and w, stride, padding, dilation, groups.
type Case = (&'static [usize], &'static [usize], u64, [u64; 2], u64, u64);

const CASES: &[Case] = &[
    (&[2, 3, 7], &[4, 3, 3], 1, [0, 0], 1, 1),
    (&[2, 3, 8], &[4, 3, 3], 2, [1, 1], 1, 1),
    (&[1, 4, 9], &[6, 2, 2], 3, [2, 2], 2, 2),
    (&[2, 3, 5], &[3, 1, 4], 1, [3, 0], 1, 3),
    (&[1, 1, 1], &[1, 1, 1], 1, [0, 0], 1, 1),
    (&[0, 2, 5], &[3, 2, 3], 1, [1, 1], 1, 1),
    (&[1, 0, 4], &[3, 0, 3], 1, [1, 1], 1, 1),
    (&[2, 2, 5, 4], &[3, 2, 3, 2], 1, [1, 1], 1, 1),
    (&[1, 2, 6, 7], &[4, 1, 3, 3], 2, [1, 2], 2, 2),
    (&[2, 3, 4, 3], &[3, 1, 2, 3], 1, [1, 1], 1, 3),
    (&[1, 2, 3, 3], &[2, 2, 1, 1], 1, [0, 0], 1, 1),
];

fn geometry(case: &Case) -> Geometry {
    let mut g = Geometry::square(case.0.len() - 2, case.2, 0, case.4).grouped(Extent::constant(case.5));
    g.padding.fill(case.3);
    g
}

#[test]
fn gradients_and_devices_agree() {
    for case in CASES {
        let g = geometry(case);
        check(&[real(case.0, 1), real(case.1, 2), real(&case.1[..1], 3)], |h| vec![conv(h[0], h[1], Some(h[2]), &g)]);
    }
}

#[test]
fn the_transposes_have_gradients_too() {
    for case in CASES {
        let g = geometry(case);
        let y = evaluate(&[real(case.0, 1), real(case.1, 2)], |h| vec![conv(h[0], h[1], None, &g)])[0].sizes.clone();
        let dims = |sizes: &[usize]| sizes.iter().map(|n| Dim::fixed(*n as u64)).collect::<Vec<_>>();
        check(&[real(&y, 1), real(case.1, 2), real(&case.0[1..2], 3)], |h| {
            vec![conv_input_grad(h[0], h[1], Some(h[2]), &g, dims(case.0))]
        });
        check(&[real(case.0, 1), real(&y, 2)], |h| vec![conv_weight_grad(h[0], h[1], &g, dims(case.1))]);
    }
}

/// Looser than usual: the weighted sum of thousands of results that cancel each other.
const LARGE: f64 = 1e-4;

/// Planes large enough for several tiles of columns, and for several threads.
#[test]
fn large_planes_agree_with_the_reference() {
    for (x, w, stride, groups) in [
        (&[1, 16, 31, 29][..], &[6, 16, 3, 3][..], 1, 1),
        (&[2, 4, 40, 33], &[4, 2, 5, 5], 2, 2),
        (&[3, 8, 700], &[8, 1, 9], 1, 8),
        (&[2, 16, 900], &[8, 16, 1], 1, 1),
    ] {
        let g = Geometry::square(x.len() - 2, stride, w[2] as u64 / 2, 1).grouped(Extent::constant(groups));
        check_cpu(&[real(x, 1), real(w, 2)], &|h| vec![conv(h[0], h[1], None, &g)], LARGE);
    }
}

#[test]
fn inputs_may_be_views() {
    let g = Geometry::square(1, 2, 1, 1);
    check(&[real(&[5, 2, 3], 1), real(&[3, 4, 3], 2)], |h| {
        vec![conv(permute(h[0], &[1, 2, 0]), permute(h[1], &[1, 0, 2]), None, &g)]
    });
}

/// Random shapes: devices and gradients, and the identity `conv(x, w) . y = x . transposed(y, w)`.
#[test]
fn random_shapes() {
    for seed in 0..12u64 {
        let pick = |i: u64, n: u64| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as u64;
        let groups = 1 + pick(0, 3);
        let (stride, dilation, padding) = (1 + pick(1, 3), 1 + pick(2, 2), [pick(3, 3), pick(4, 3)]);
        let spatial = 1 + pick(5, 2) as usize;
        let kernel: Vec<usize> = (0..spatial as u64).map(|i| 1 + pick(6 + i, 3) as usize).collect();
        let input = kernel.iter().map(|k| dilation as usize * (k - 1) + 1 + pick(9, 3) as usize);
        let (c, o) = (groups as usize * (1 + pick(10, 2) as usize), groups as usize * (1 + pick(11, 2) as usize));
        let x: Vec<usize> = [1 + pick(12, 2) as usize, c].into_iter().chain(input).collect();
        let w: Vec<usize> = [o, c / groups as usize].into_iter().chain(kernel).collect();
        let mut g = Geometry::square(spatial, stride, 0, dilation).grouped(Extent::constant(groups));
        g.padding.fill(padding);
        let given = [real(&x, seed), real(&w, seed + 100)];
        check(&given, |h| vec![conv(h[0], h[1], None, &g)]);
        let out = evaluate(&given, |h| {
            let y = conv(h[0], h[1], None, &g);
            vec![y, conv_input_grad(y, h[1], None, &g, type_of(h[0]).dims)]
        });
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let (norm, back) = (dot(&out[0].data, &out[0].data), dot(&out[1].data, &given[0].array.data));
        assert!((norm - back).abs() <= 1e-12 * norm.max(1.0), "{norm} {back}");
    }
}

/// Groups are convolutions of the parts of the channels, one after the other.
#[test]
fn groups_are_independent() {
    let (x, w) = (real(&[1, 4, 5], 1), real(&[2, 2, 3], 2));
    let g = Geometry::square(1, 1, 1, 1);
    let whole =
        &evaluate(&[x.clone(), w.clone()], |h| vec![conv(h[0], h[1], None, &g.clone().grouped(Extent::constant(2)))])
            [0];
    for group in 0..2 {
        let part = [
            values(&[1, 2, 5], &x.array.data[group * 10..(group + 1) * 10]),
            values(&[1, 2, 3], &w.array.data[group * 6..(group + 1) * 6]),
        ];
        let y = &evaluate(&part, |h| vec![conv(h[0], h[1], None, &g)])[0];
        assert_eq!(y.data, whole.data[group * 5..(group + 1) * 5]);
    }
}

#[test]
fn mistakes_are_told_in_words() {
    let message = |x: &[usize], w: &[usize], g: &Geometry| {
        try_traced(&[real(x, 1), real(w, 2)], |h| vec![conv(h[0], h[1], None, g)]).unwrap_err().message
    };
    let g = Geometry::square(1, 1, 0, 1);
    assert_eq!(
        message(&[1, 2, 2], &[1, 2, 3], &g),
        "conv: has a kernel that spans 3 positions over a padded input of 2"
    );
    assert_eq!(
        message(&[1, 2, 5], &[1, 3, 3], &g),
        "conv: has filters over `3` channels in 1 groups for an input with `2`"
    );
    assert_eq!(message(&[1, 5], &[1, 3, 3], &g), "conv: over 1 spatial dimensions has input of rank 3, not [1, 5]");
    let zero = Geometry::square(1, 0, 0, 1);
    assert_eq!(message(&[1, 2, 5], &[1, 2, 3], &zero), "conv: has a stride and a dilation of at least 1");
    let odd = Geometry::square(1, 1, 0, 1).grouped(Extent::constant(2));
    assert_eq!(message(&[1, 4, 5], &[3, 2, 3], &odd), "conv: cannot divide 3 filters into 2 groups");
}

/// Devices may multiply what was rounded to bf16 by tensor cores: the products are the same.
#[test]
fn rounded_factors_multiply_exactly() {
    let g = Geometry::square(2, 2, 1, 1);
    let round = |h| unary(UnaryKind::Bf16, h);
    let given = [real(&[2, 3, 6, 5], 1), real(&[4, 3, 3, 2], 2)];
    agree(&given, |h| vec![conv(round(h[0]), permute(round(h[1]), &[0, 1, 2, 3]), None, &g)], CPU);
}
