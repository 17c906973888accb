use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::Dim;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::scan::{argmax, argmin, cumsum};
use mobilis_runtime::ops::sort::sort;
use mobilis_runtime::testing::{CPU, Given, agree, check, close, indices, noise, real, try_traced, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

const NAN: f64 = f64::NAN;

#[test]
fn running_sums() {
    let given = [values(&[2, 3], &[1., 2., 3., 4., 5., 6.])];
    let out = evaluate(&given, |h| vec![cumsum(h[0], 1, false), cumsum(h[0], 1, true), cumsum(h[0], 0, false)]);
    assert_eq!(out[0].data, [1., 3., 6., 4., 9., 15.]);
    assert_eq!(out[1].data, [6., 5., 3., 15., 11., 6.]);
    assert_eq!(out[2].data, [1., 2., 3., 5., 7., 9.]);
    for reverse in [false, true] {
        for (sizes, axis) in
            [(&[5][..], 0), (&[1], 0), (&[3, 4], 0), (&[2, 3, 5], 1), (&[0, 2], 0), (&[3, 0], 0), (&[2, 130], 0)]
        {
            check(&[real(sizes, 1)], |h| vec![cumsum(h[0], axis, reverse)]);
        }
        check(&[real(&[3, 4], 1)], |h| vec![cumsum(movement::permute(h[0], &[1, 0]), 1, reverse)]);
    }
    let given = indices(&[4], 9, 1);
    let last = given.array.data.iter().sum::<f64>();
    assert_eq!(evaluate(&[given], |h| vec![cumsum(h[0], 0, false)])[0].data[3], last);
}

#[test]
fn places_of_extremes() {
    let given = [values(&[4, 3], &[1., 3., 3., 2., 2., 1., NAN, 5., NAN, 0., f64::NEG_INFINITY, 9.])];
    let out = evaluate(&given, |h| vec![argmax(h[0], 1), argmin(h[0], 1), argmax(h[0], 0)]);
    assert_eq!(out[0].data, [1., 0., 0., 2.]);
    assert_eq!(out[1].data, [0., 2., 0., 1.]);
    assert_eq!(out[2].data, [2., 2., 2.]);
    let out = evaluate(&[real(&[0, 3], 1), real(&[1], 1)], |h| vec![argmax(h[0], 1), argmin(h[1], 0)]);
    assert_eq!((out[0].data.len(), &out[1].data[..]), (0, &[0.][..]));
    let wrong = try_traced(&[real(&[2, 0], 1)], |h| vec![argmax(h[0], 1)]).expect_err("is refused").message;
    assert_eq!(wrong, "argmax: looks for a place in the empty dimension 1 of [2, 0]");
}

#[test]
fn sorting_is_stable_and_puts_nan_last() {
    let x = [2., NAN, 1., 2., -1., NAN, 1.];
    let out = evaluate(&[values(&[7], &x)], |h| {
        let up = sort(h[0], 0, false, Dim::fixed(7));
        let down = sort(h[0], 0, true, Dim::fixed(7));
        let three = sort(h[0], 0, true, Dim::fixed(3));
        let none = sort(h[0], 0, true, Dim::fixed(0));
        vec![up.0, up.1, down.0, down.1, three.0, three.1, none.0]
    });
    close(&out[0], &values(&[7], &[-1., 1., 1., 2., 2., NAN, NAN]).array, 0.0);
    assert_eq!(out[1].data, [4., 2., 6., 0., 3., 1., 5.]);
    close(&out[2], &values(&[7], &[2., 2., 1., 1., -1., NAN, NAN]).array, 0.0);
    assert_eq!(out[3].data, [0., 3., 2., 6., 4., 1., 5.]);
    assert_eq!(out[4].data, [2., 2., 1.]);
    assert_eq!(out[5].data, [0., 3., 2.]);
    assert!(out[6].data.is_empty());
    let wrong = try_traced(&[real(&[2], 1)], |h| vec![sort(h[0], 0, true, Dim::fixed(3)).0]);
    assert_eq!(wrong.expect_err("is refused").message, "sort: takes the first 3 values of `2` of [2]");
}

#[test]
fn gradients_pass_through_the_values() {
    for (sizes, axis, k) in [(&[5][..], 0, 5), (&[5], 0, 2), (&[3, 4], 0, 3), (&[3, 4], 1, 1), (&[2, 5, 3], 1, 4)] {
        for descending in [false, true] {
            check(&[real(sizes, 1)], |h| vec![sort(h[0], axis, descending, Dim::fixed(k)).0]);
        }
    }
    check(&[real(&[1, 3], 1)], |h| vec![sort(h[0], 0, true, Dim::fixed(1)).0]);
    check(&[real(&[0, 3], 1)], |h| vec![sort(h[0], 1, true, Dim::fixed(2)).0]);
    check(&[real(&[3, 4], 1)], |h| vec![sort(movement::permute(h[0], &[1, 0]), 0, true, Dim::fixed(2)).0]);
}

#[test]
fn random_lines_against_the_standard_library() {
    for seed in 0..30 {
        let n = ((noise(seed, 0) * 0.5 + 0.5) * 40.0) as usize;
        // Few distinct values, so that there are ties.
        let x: Vec<f64> = (0..n).map(|i| (noise(seed, 1 + i as u64) * 4.0).round()).collect();
        let out = evaluate(&[values(&[n], &x)], |h| {
            let (v, p) = sort(h[0], 0, false, Dim::fixed(n as u64));
            vec![v, p]
        });
        let mut pairs: Vec<(i64, usize)> = x.iter().enumerate().map(|(i, v)| (*v as i64, i)).collect();
        pairs.sort();
        assert_eq!(out[0].data, pairs.iter().map(|p| p.0 as f64).collect::<Vec<_>>());
        assert_eq!(out[1].data, pairs.iter().map(|p| p.1 as f64).collect::<Vec<_>>());
    }
}
