use mobilis_runtime::ops::softmax::{log_softmax, softmax};
use mobilis_runtime::ops::{elementwise as ew, movement};
use mobilis_runtime::testing::{check, close, evaluate, noise, real, values};
use mobilis_runtime::transforms::grad::grad;

#[test]
fn probabilities_of_literals() {
    let given = [values(&[2, 3], &[0., 2f64.ln(), 5f64.ln(), 700., 700., 700.])];
    let out = evaluate(&given, |h| vec![softmax(h[0], 1), log_softmax(h[0], 1)]);
    close(&out[0], &values(&[2, 3], &[0.125, 0.25, 0.625, 1. / 3., 1. / 3., 1. / 3.]).array, 1e-14);
    let third = (1f64 / 3.).ln();
    close(&out[1], &values(&[2, 3], &[0.125f64.ln(), 0.25f64.ln(), 0.625f64.ln(), third, third, third]).array, 1e-14);
}

#[test]
fn along_every_dimension_of_every_size() {
    for sizes in [&[5][..], &[1], &[3, 4], &[2, 3, 5], &[0, 3], &[3, 0], &[2, 1, 7], &[2, 17, 3]] {
        for axis in 0..sizes.len() {
            check(&[real(sizes, 1)], |h| vec![softmax(h[0], axis)]);
            check(&[real(sizes, 2)], |h| vec![log_softmax(h[0], axis)]);
        }
    }
}

#[test]
fn a_permuted_input() {
    check(&[real(&[3, 2, 5], 1)], |h| vec![softmax(movement::permute(h[0], &[2, 0, 1]), 1)]);
}

#[test]
fn a_row_of_minus_infinity_gives_no_nan() {
    let inf = f64::NEG_INFINITY;
    let given = [values(&[2, 2], &[inf, inf, inf, 3.])];
    let out = evaluate(&given, |h| vec![softmax(h[0], 1), log_softmax(h[0], 1)]);
    assert_eq!(out[0].data, [0., 0., 0., 1.]);
    assert_eq!(out[1].data, [inf, inf, inf, 0.]);
}

#[test]
fn the_gradient_has_a_gradient() {
    // The gradient of sum(softmax(x)^2), differentiated once more, against finite differences of
    // the first one.
    for log in [false, true] {
        let twice = |h: &[_]| {
            let op = mobilis_runtime::ops::softmax::SoftmaxGrad { axis: 1, log };
            let y = if log { log_softmax(h[0], 1) } else { softmax(h[0], 1) };
            vec![mobilis_runtime::graph::trace::op1(op, &[y, ew::mul(y, h[1])])]
        };
        check(&[real(&[2, 3], 1), real(&[2, 3], 2)], twice);
    }
    // What `grad` itself builds can be differentiated again.
    let given = [real(&[4], 3)];
    let mut graph = mobilis_runtime::testing::traced(&given, |h| {
        let y = softmax(h[0], 0);
        vec![mobilis_runtime::ops::reduce::reduce(ew::mul(y, y), mobilis_runtime::ops::reduce::Kind::Sum, &[0])]
    });
    let x = mobilis_runtime::graph::Value { node: 0, port: 0 };
    let loss = graph.outputs[0];
    assert!(grad(&mut graph, loss, &[x]).is_ok());
}

#[test]
fn random_shapes_sum_to_one() {
    for seed in 0..20u64 {
        let pick = |i: u64, n: f64| 1 + ((noise(seed, i) * 0.5 + 0.5) * n) as usize;
        let sizes = [pick(0, 4.0), pick(1, 9.0), pick(2, 6.0)];
        let axis = pick(3, 2.99) - 1;
        let out = evaluate(&[real(&sizes, seed)], |h| {
            let total = |x| mobilis_runtime::ops::reduce::reduce(x, mobilis_runtime::ops::reduce::Kind::Sum, &[axis]);
            vec![total(softmax(h[0], axis)), total(ew::unary(ew::UnaryKind::Exp, log_softmax(h[0], axis)))]
        });
        assert!(out.iter().all(|o| o.data.iter().all(|v| (v - 1.0).abs() < 1e-12)));
    }
}
