use mobilis_runtime::Sizes;
use mobilis_runtime::devices::reference;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::loss::*;
use mobilis_runtime::testing::{
    CPU, check, check_cpu, check_gradient, close, evaluate, index_values, indices, positive, real, traced, values,
};

const PLAIN: CrossEntropyOptions = CrossEntropyOptions { ignore_index: None, label_smoothing: 0.0, z_loss: 0.0 };

#[test]
fn cross_entropy_of_literals() {
    // Probabilities 1/8, 2/8, 5/8.
    let x: Vec<f64> = [1f64, 2., 5., 1., 2., 5.].iter().map(|v| v.ln() + 0.3).collect();
    let given = [values(&[2, 3], &x), index_values(&[2], &[2, -100])];
    let options = CrossEntropyOptions { label_smoothing: 0.3, z_loss: 0.5, ..Default::default() };
    let out = evaluate(&given, |h| {
        vec![
            cross_entropy(h[0], h[1], CrossEntropyOptions::default()),
            cross_entropy(h[0], h[1], options),
            counted(h[1], Some(-100)),
        ]
    });
    let nats = |p: f64| -p.ln();
    close(&out[0], &values(&[2], &[nats(0.625), 0.0]).array, 1e-14);
    let smooth = 0.7 * nats(0.625) + 0.1 * (nats(0.125) + nats(0.25) + nats(0.625));
    let lse = 8f64.ln() + 0.3;
    close(&out[1], &values(&[2], &[smooth + 0.5 * lse * lse, 0.0]).array, 1e-14);
    assert_eq!(out[2].data, [1.0]);
}

#[test]
fn cross_entropy_of_every_size() {
    let options = [
        PLAIN,
        CrossEntropyOptions { ignore_index: Some(1), ..PLAIN },
        CrossEntropyOptions { label_smoothing: 0.1, ..PLAIN },
        CrossEntropyOptions { ignore_index: Some(0), label_smoothing: 0.2, z_loss: 1e-2 },
    ];
    for sizes in [&[3][..], &[4, 1], &[2, 5], &[2, 3, 4], &[0, 3], &[3, 33]] {
        let (n, rows) = sizes.split_last().expect("not empty");
        for options in options {
            let given = [real(sizes, 1), indices(rows, *n, 2)];
            let f = |h: &[Handle]| vec![cross_entropy(h[0], h[1], options)];
            check_gradient(&given, &f);
            // Where one class is all there is, the gradient is the rounding error of 1 - 1.
            check_cpu(&given, &f, if *n == 1 { 1e-4 } else { CPU });
        }
    }
}

#[test]
fn large_logits_do_not_overflow() {
    let given = [values(&[1, 2], &[1e4, -1e4]), index_values(&[1], &[1])];
    let out = evaluate(&given, |h| vec![cross_entropy(h[0], h[1], PLAIN)]);
    assert_eq!(out[0].data, [2e4]);
}

#[test]
fn a_target_that_is_no_class_is_an_error() {
    for target in [-1, 3] {
        let given = [real(&[1, 3], 1), index_values(&[1], &[target])];
        let graph = traced(&given, |h| vec![cross_entropy(h[0], h[1], CrossEntropyOptions::default())]);
        let inputs: Vec<_> = given.iter().map(|g| g.array.clone()).collect();
        let error = reference::run(&graph, &Sizes::new(), &inputs, &[]).err().expect("an error");
        assert!(error.contains(&format!("target {target} is not one of 3 classes")), "{error}");
    }
}

#[test]
fn nothing_counted_is_divided_by_one() {
    let out = evaluate(&[index_values(&[2], &[-100, -100])], |h| vec![counted(h[0], Some(-100)), counted(h[0], None)]);
    assert_eq!((out[0].data[0], out[1].data[0]), (1.0, 2.0));
}

#[test]
fn binary_cross_entropy() {
    let given = [values(&[3], &[0., 500., -500.]), values(&[3], &[0.25, 1., 1.])];
    let out = evaluate(&given, |h| vec![bce_with_logits(h[0], h[1])]);
    close(&out[0], &values(&[3], &[2f64.ln(), 0., 500.]).array, 1e-14);
    check(&[real(&[2, 3], 1), positive(&[2, 3], 2)], |h| vec![bce_with_logits(h[0], h[1])]);
}

#[test]
fn smooth_l1_is_a_parabola_near_zero() {
    let given = [values(&[4], &[0.1, -0.1, 2., -2.])];
    let out = evaluate(&given, |h| vec![smooth_l1(h[0], 0.5), smooth_l1(h[0], 0.0)]);
    close(&out[0], &values(&[4], &[0.01, 0.01, 1.75, 1.75]).array, 1e-14);
    close(&out[1], &values(&[4], &[0.1, 0.1, 2., 2.]).array, 1e-14);
    check(&[real(&[5], 1)], |h| vec![smooth_l1(h[0], 0.4)]);
}

#[test]
fn cosines() {
    let given = [values(&[3, 2], &[3., 4., 1., 0., 0., 0.]), values(&[3, 2], &[4., 3., 0., 2., 1., 1.])];
    let out = evaluate(&given, |h| vec![cosine_similarity(h[0], h[1], 1, 1e-8)]);
    close(&out[0], &values(&[3], &[0.96, 0., 0.]).array, 1e-14);
    check(&[real(&[2, 3], 1), real(&[2, 3], 2)], |h| vec![cosine_similarity(h[0], h[1], 1, 1e-8)]);
    check(&[real(&[2, 3], 1), real(&[2, 3], 2)], |h| vec![cosine_similarity(h[0], h[1], 0, 1e-8)]);
}
