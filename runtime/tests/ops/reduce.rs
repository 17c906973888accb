use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::reduce::{Kind, reduce, var};
use mobilis_runtime::testing::{CPU, Given, agree, check, close, indices, mask, noise, real, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

const KINDS: [Kind; 6] = [Kind::Sum, Kind::Mean, Kind::Max, Kind::Min, Kind::Var, Kind::LogSumExp];

#[test]
fn gradients_over_any_dimensions() {
    for kind in KINDS {
        let cases: [(&[usize], &[usize]); 8] = [
            (&[5], &[0]),
            (&[3, 4], &[0]),
            (&[3, 4], &[1]),
            (&[3, 4], &[1, 0]),
            (&[2, 3, 5], &[1]),
            (&[2, 3, 5], &[0, 2]),
            (&[7, 2], &[]),
            (&[2, 0], &[0]),
        ];
        for (sizes, positions) in cases {
            if kind == Kind::Var && positions.is_empty() {
                continue;
            }
            check(&[real(sizes, 1)], |h| vec![reduce(h[0], kind, positions)]);
        }
        // Views.
        check(&[real(&[3, 4, 2], 1)], |h| vec![reduce(movement::permute(h[0], &[2, 0, 1]), kind, &[1])]);
    }
    check(&[real(&[1, 3], 1)], |h| vec![reduce(h[0], Kind::Max, &[0]), reduce(h[0], Kind::LogSumExp, &[0])]);
    check(&[real(&[4, 3], 1)], |h| vec![var(h[0], &[0], 0), var(h[0], &[0], 2)]);
}

#[test]
fn values_of_a_matrix() {
    let given = [values(&[2, 3], &[1., 2., 4., -1., 5., -1.])];
    let out = evaluate(&given, |h| KINDS.map(|k| reduce(h[0], k, &[1])).to_vec());
    let lse = |v: [f64; 3]| v.iter().map(|x| x.exp()).sum::<f64>().ln();
    let expected =
        [[7., 3.], [7. / 3., 1.], [4., 5.], [1., -1.], [7. / 3., 12.], [lse([1., 2., 4.]), lse([-1., 5., -1.])]];
    for (found, expected) in out.iter().zip(expected) {
        close(found, &values(&[2], &expected).array, 1e-15);
    }
    let out = evaluate(&given, |h| vec![var(h[0], &[1], 0), reduce(h[0], Kind::Sum, &[0, 1])]);
    close(&out[0], &values(&[2], &[14. / 9., 8.]).array, 1e-15);
    assert_eq!(out[1].data, [10.]);
}

#[test]
fn nothing_infinities_and_nan() {
    let inf = f64::INFINITY;
    let out = evaluate(&[real(&[0, 2], 1)], |h| KINDS.map(|k| reduce(h[0], k, &[0])).to_vec());
    for (found, expected) in out.iter().zip([0.0, f64::NAN, -inf, inf, f64::NAN, -inf]) {
        close(found, &values(&[2], &[expected; 2]).array, 0.0);
    }
    let given = [values(&[4, 2], &[-inf, -inf, inf, 1.0, f64::NAN, 1.0, 800.0, 800.0])];
    let out = evaluate(&given, |h| [Kind::Max, Kind::Min, Kind::LogSumExp].map(|k| reduce(h[0], k, &[1])).to_vec());
    close(&out[0], &values(&[4], &[-inf, inf, f64::NAN, 800.0]).array, 0.0);
    close(&out[1], &values(&[4], &[-inf, 1.0, f64::NAN, 800.0]).array, 0.0);
    close(&out[2], &values(&[4], &[-inf, inf, f64::NAN, 800.0 + 2f64.ln()]).array, 1e-15);
}

#[test]
fn the_gradient_of_masked_rows_is_zero_not_nan() {
    use mobilis_runtime::testing::with_gradients;
    let inf = f64::NEG_INFINITY;
    let given = [values(&[2, 2], &[inf, inf, inf, 0.0])];
    let (graph, _) = with_gradients(&given, &|h| {
        vec![mobilis_runtime::ops::elementwise::maximum(
            reduce(h[0], Kind::LogSumExp, &[1]),
            mobilis_runtime::ops::leaf::scalar(-5.0),
        )]
    });
    let run = mobilis_runtime::devices::reference::run(&graph, &Default::default(), &[given[0].array.clone()], &[]);
    let found = run.expect("runs").get(graph.outputs[1]).clone();
    assert_eq!(found.data[..3], [0.0, 0.0, 0.0]);
    assert!((found.data[3] - 1.7f64.cos()).abs() < 1e-12);
}

#[test]
fn masks_and_indices() {
    let mut given = mask(&[3, 2], 0);
    given.array.data = vec![1., 1., 0., 1., 0., 0.];
    let out = evaluate(&[given], |h| vec![reduce(h[0], Kind::Any, &[1]), reduce(h[0], Kind::All, &[1])]);
    assert_eq!(out[0].data, [1., 1., 0.]);
    assert_eq!(out[1].data, [1., 0., 0.]);
    let out = evaluate(&[mask(&[0, 2], 0)], |h| vec![reduce(h[0], Kind::Any, &[0]), reduce(h[0], Kind::All, &[0])]);
    assert_eq!((&out[0].data[..], &out[1].data[..]), (&[0., 0.][..], &[1., 1.][..]));
    let given = indices(&[3, 4], 9, 2);
    let data = given.array.data.clone();
    let out = evaluate(&[given], |h| vec![reduce(h[0], Kind::Sum, &[0, 1]), reduce(h[0], Kind::Max, &[0, 1])]);
    assert_eq!(out[0].data, [data.iter().sum::<f64>()]);
    assert_eq!(out[1].data, [data.iter().copied().fold(0.0, f64::max)]);
}

#[test]
fn random_shapes_against_sums_by_hand() {
    for seed in 0..30 {
        let pick = |i: u64, n: f64| ((noise(seed, i) * 0.5 + 0.5) * n) as usize;
        let rank = 1 + pick(0, 4.0);
        let sizes: Vec<usize> = (0..rank).map(|d| pick(1 + d as u64, 5.0)).collect();
        let positions: Vec<usize> = (0..rank).filter(|d| pick(10 + *d as u64, 2.0) == 1).collect();
        let given = real(&sizes, seed);
        let out = evaluate(std::slice::from_ref(&given), |h| {
            vec![reduce(h[0], Kind::Sum, &positions), reduce(h[0], Kind::Max, &positions)]
        });
        // Put the kept dimensions first and join the rest.
        let kept: Vec<usize> = (0..rank).filter(|d| !positions.contains(d)).collect();
        let mut sums = vec![0.0; kept.iter().map(|d| sizes[*d]).product()];
        let mut largest = vec![f64::NEG_INFINITY; sums.len()];
        for (i, v) in given.array.data.iter().enumerate() {
            let mut rest = i;
            let mut index = vec![0; rank];
            for d in (0..rank).rev() {
                index[d] = rest % sizes[d];
                rest /= sizes[d];
            }
            let place = kept.iter().fold(0, |p, d| p * sizes[*d] + index[*d]);
            sums[place] += v;
            largest[place] = largest[place].max(*v);
        }
        let kept_sizes: Vec<usize> = kept.iter().map(|d| sizes[*d]).collect();
        close(&out[0], &values(&kept_sizes, &sums).array, 1e-12);
        close(&out[1], &values(&kept_sizes, &largest).array, 0.0);
    }
}

#[test]
fn sums_of_squares() {
    for (sizes, positions) in [
        (vec![3, 4], vec![0, 1]),
        (vec![3, 4], vec![0]),
        (vec![2, 3, 4], vec![0, 2]),
        (vec![5], vec![]),
        (vec![0, 2], vec![0]),
    ] {
        check(&[real(&sizes, 1)], |x| vec![mobilis::ops::reduce::sum_squares(x[0], &positions)]);
    }
}
