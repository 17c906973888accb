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

mod typed {
    use super::*;
    use mobilis_runtime::ops::elementwise::UnaryKind;
    use mobilis_runtime::testing::Given;
    use mobilis_runtime::{Const, Index, Tensor};

    type Rows = (Const<2>,);
    type Table = (Const<2>, Const<3>);

    fn table(h: Handle) -> Tensor<Table> {
        Tensor::from_raw(h)
    }

    fn pair() -> [Given; 2] {
        [values(&[2, 3], &[1., 2., 3., 4., 5., 6.]), values(&[2, 3], &[1., 0., 3.5, 4., 5., 9.])]
    }

    /// The value of a scalar loss, whose gradient and devices are checked too.
    fn loss(given: &[Given], f: impl Fn(&[Handle]) -> Tensor<()>) -> f64 {
        check(given, |h| vec![f(h).raw()]);
        evaluate(given, |h| vec![f(h).raw()])[0].data[0]
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn losses_of_pairs() {
        // Differences 0, 2, -0.5, 0, 0, -3.
        near(evaluate(&pair(), |h| vec![table(h[0]).mse_loss(table(h[1])).raw()])[0].data[0], 13.25 / 6.0);
        near(evaluate(&pair(), |h| vec![table(h[0]).l1_loss(table(h[1])).raw()])[0].data[0], 5.5 / 6.0);
        let smooth = evaluate(&pair(), |h| vec![table(h[0]).smooth_l1_loss(table(h[1]), 1.0).raw()]);
        near(smooth[0].data[0], (1.5 + 0.125 + 2.5) / 6.0);
        let apart = [real(&[2, 3], 1), real(&[2, 3], 2)];
        loss(&apart, |h| table(h[0]).mse_loss(table(h[1])));
        loss(&apart, |h| table(h[0]).l1_loss(table(h[1])));
        loss(&apart, |h| table(h[0]).bce_with_logits_loss(table(h[1])));
    }

    #[test]
    fn divergence_of_distributions() {
        let log = |p: [f64; 6]| values(&[2, 3], &p.map(f64::ln));
        let given = [log([0.5, 0.25, 0.25, 0.2, 0.2, 0.6]), log([0.25, 0.25, 0.5, 0.0, 0.4, 0.6])];
        let found = evaluate(&given, |h| vec![table(h[0]).kl_div(table(h[1])).raw()]);
        let first = 0.25 * 0.5f64.ln() + 0.5 * 2f64.ln();
        near(found[0].data[0], (first + 0.4 * 2f64.ln()) / 2.0);
        loss(&[real(&[2, 3], 1), real(&[2, 3], 2)], |h| table(h[0]).kl_div(table(h[1])));
        // A target of probability 0 leaves no NaN in the gradient.
        let grads = |h: &[Handle]| {
            let x = Tensor::<Table>::from_raw(mobilis_runtime::ops::elementwise::unary(UnaryKind::Log, h[0]));
            vec![x.kl_div(table(h[1])).raw()]
        };
        check_gradient(&[positive(&[2, 3], 1), given[1].clone()][..1], &|h| {
            grads(&[h[0], mobilis_runtime::ops::leaf::fill(f64::NEG_INFINITY, Tensor::<Table>::type_of())])
        });
    }

    #[test]
    fn cosine_embedding() {
        let given = [
            values(&[2, 3], &[3., 4., 0., 1., 0., 0.]),
            values(&[2, 3], &[4., 3., 0., 1., 0., 0.]),
            values(&[2], &[1., -1.]),
        ];
        let f = |h: &[Handle]| table(h[0]).cosine_embedding_loss(table(h[1]), Tensor::<Rows>::from_raw(h[2]), 0.25);
        near(evaluate(&given, |h| vec![f(h).raw()])[0].data[0], (0.04 + 0.75) / 2.0);
        let same = evaluate(&given, |h| vec![table(h[0]).cosine_similarity(table(h[1])).raw()]);
        close(&same[0], &values(&[2], &[0.96, 1.0]).array, 1e-12);
    }

    #[test]
    fn cross_entropy_is_joined_as_asked() {
        let given = [real(&[2, 3], 1), index_values(&[2], &[1, -100])];
        let targets = |h: &[Handle]| Tensor::<Rows, Index>::from_raw(h[1]);
        let rows = |h: &[Handle]| table(h[0]).cross_entropy_with(targets(h), CrossEntropyOptions::default());
        let out = evaluate(&given, |h| {
            let mean = table(h[0]).cross_entropy(targets(h)).raw();
            vec![mean, rows(h).mean().raw(), rows(h).sum().raw(), rows(h).each().raw()]
        });
        assert_eq!(out[3].data[1], 0.0);
        assert!(out.iter().all(|o| o.data[0] == out[0].data[0] && o.data[0] > 0.0));
    }

    #[test]
    fn random_shapes() {
        for seed in 0..15u64 {
            let pick = |i: u64, n: f64| 1 + ((mobilis_runtime::testing::noise(seed, i) * 0.5 + 0.5) * n) as usize;
            let (rows, n) = (pick(0, 5.), pick(1, 70.) + 1);
            let options = CrossEntropyOptions { ignore_index: Some(0), label_smoothing: 0.1, z_loss: 1e-3 };
            let given = [real(&[rows, n], seed), indices(&[rows], n, seed)];
            check_cpu(&given, &|h| vec![cross_entropy(h[0], h[1], options)], 1e-4);
        }
    }
}
