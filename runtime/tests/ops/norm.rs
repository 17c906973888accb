use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::Extent;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::norm::{Kind, channel_statistics, group_norm, norm, normalize_channels};
use mobilis_runtime::testing::{check, check_cpu, check_gradient, close, evaluate, positive, real, values};

#[test]
fn literals() {
    // Mean 2, variance 2/3; mean square 14/3.
    let given = [values(&[1, 3], &[1., 2., 3.]), values(&[3], &[2., 3., 4.]), values(&[3], &[1., 1., 1.])];
    let out = evaluate(&given, |h| {
        vec![norm(Kind::Layer, h[0], Some(h[1]), Some(h[2]), 0.0), norm(Kind::Rms, h[0], Some(h[1]), None, 1.0)]
    });
    let r = 1.5f64.sqrt();
    close(&out[0], &values(&[1, 3], &[1. - 2. * r, 1., 1. + 4. * r]).array, 1e-14);
    let r = 1.0 / (14f64 / 3. + 1.0).sqrt();
    close(&out[1], &values(&[1, 3], &[2. * r, 6. * r, 12. * r]).array, 1e-14);
}

#[test]
fn layer_and_rms_norm_of_every_size() {
    for sizes in [&[7][..], &[1], &[3, 4], &[2, 3, 5], &[0, 3], &[4, 1], &[2, 19]] {
        let n = [*sizes.last().expect("not empty")];
        for kind in [Kind::Layer, Kind::Rms] {
            let given = [real(sizes, 1), positive(&n, 2), real(&n, 3)];
            let forms: [&dyn Fn(&[Handle]) -> Vec<Handle>; 3] = [
                &|h| vec![norm(kind, h[0], None, None, 1e-2)],
                &|h| vec![norm(kind, h[0], Some(h[1]), None, 1e-2)],
                &|h| vec![norm(kind, h[0], Some(h[1]), Some(h[2]), 1e-2)],
            ];
            for (inputs, f) in forms.into_iter().enumerate() {
                check_gradient(&given[..=inputs], f);
                // The sum of a normalised row is near 0, so the test's loss loses digits.
                check_cpu(&given[..=inputs], f, 1e-4);
            }
        }
    }
}

#[test]
fn permuted_inputs() {
    let given = [real(&[5, 3, 2], 1), positive(&[5], 2)];
    check(&given, |h| vec![norm(Kind::Layer, movement::permute(h[0], &[2, 1, 0]), Some(h[1]), None, 1e-3)]);
}

/// Group norm as its definition says, in loops.
fn expected(x: &RefArray, groups: usize, eps: f64) -> RefArray {
    let rest: usize = x.sizes[2..].iter().product();
    let each = x.sizes[1] / groups * rest;
    let mut out = x.clone();
    for part in out.data.chunks_mut(each) {
        let mean = part.iter().sum::<f64>() / each as f64;
        let var = part.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / each as f64;
        part.iter_mut().for_each(|v| *v = (*v - mean) / (var + eps).sqrt());
    }
    out
}

#[test]
fn group_and_instance_norm() {
    for (sizes, groups) in [(&[2, 4, 3][..], 2), (&[2, 4, 3, 2], 4), (&[3, 6], 2), (&[1, 4, 5], 1)] {
        let given = [real(sizes, 1), positive(&sizes[1..2], 2), real(&sizes[1..2], 3)];
        let plain = evaluate(&given[..1], |h| vec![group_norm(h[0], Extent::constant(groups), None, None, 1e-3)]);
        close(&plain[0], &expected(&given[0].array, groups as usize, 1e-3), 1e-13);
        check(&given, |h| vec![group_norm(h[0], Extent::constant(groups), Some(h[1]), Some(h[2]), 1e-3)]);
    }
}

#[test]
fn groups_that_do_not_divide_the_channels_are_an_error() {
    let given = [real(&[1, 4, 3], 1)];
    let graph =
        mobilis_runtime::testing::traced(&given, |h| vec![group_norm(h[0], Extent::constant(3), None, None, 1e-3)]);
    let inputs = [given[0].array.clone()];
    let error = mobilis_runtime::devices::reference::run(&graph, &mobilis_runtime::Sizes::new(), &inputs, &[]).err();
    let error = error.expect("three groups of four channels");
    assert!(error.contains("4 channels are not a multiple of 3 groups"), "{error}");
}

#[test]
fn batch_statistics() {
    // Channels hold 1, 3, 5, 7 and 2, 2, 2, 2.
    let given = [values(&[2, 2, 2], &[1., 3., 2., 2., 5., 7., 2., 2.])];
    let out = evaluate(&given, |h| {
        let (mean, var) = channel_statistics(h[0]);
        vec![mean, var]
    });
    assert_eq!(out[0].data, [4., 2.]);
    assert_eq!(out[1].data, [5., 0.]);
    for sizes in [&[3, 2][..], &[2, 3, 4], &[2, 1, 3, 2]] {
        let c = [sizes[1]];
        let given = [real(sizes, 1), positive(&c, 2), real(&c, 3)];
        check(&given, |h| vec![normalize_channels(h[0], channel_statistics(h[0]), Some(h[1]), Some(h[2]), 1e-2)]);
    }
}

#[test]
fn random_shapes_on_the_cpu() {
    for seed in 0..12u64 {
        let pick = |i: u64, n: f64| 1 + ((mobilis_runtime::testing::noise(seed, i) * 0.5 + 0.5) * n) as usize;
        let (rows, n) = (pick(0, 40.), pick(1, 90.) + 1);
        let given = [real(&[rows, n], seed), positive(&[n], 2), real(&[n], 3)];
        for kind in [Kind::Layer, Kind::Rms] {
            check_cpu(&given, &|h| vec![norm(kind, h[0], Some(h[1]), Some(h[2]), 1e-3)], 1e-4);
        }
    }
}
