use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::Dim;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::movement::{broadcast, permute, repeat, repeat_interleave, reshape};
use mobilis_runtime::testing::{CPU, Given, agree, check, real, try_traced, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

fn dims(sizes: &[u64]) -> Vec<Dim> {
    sizes.iter().map(|n| Dim::fixed(*n)).collect()
}

#[test]
fn views_have_gradients() {
    check(&[real(&[2, 6], 1)], |h| vec![reshape(h[0], dims(&[3, 4])), permute(h[0], &[1, 0])]);
    check(&[real(&[2, 3, 5], 1)], |h| vec![permute(h[0], &[2, 0, 1]), broadcast(h[0], dims(&[4, 2, 3, 5]))]);
    check(&[real(&[], 1)], |h| vec![broadcast(h[0], dims(&[3, 2])), reshape(h[0], dims(&[1, 1]))]);
    check(&[real(&[0, 3], 1)], |h| vec![reshape(h[0], dims(&[3, 0, 7])), permute(h[0], &[1, 0])]);
    // A reshape of a permutation is a copy, not a view.
    check(&[real(&[2, 3, 5], 1)], |h| vec![reshape(permute(h[0], &[1, 0, 2]), dims(&[6, 5]))]);
}

#[test]
fn views_have_their_values() {
    let given = [values(&[2, 3], &[1., 2., 3., 4., 5., 6.])];
    let out = evaluate(&given, |h| {
        vec![permute(h[0], &[1, 0]), reshape(permute(h[0], &[1, 0]), dims(&[2, 3])), broadcast(h[0], dims(&[2, 2, 3]))]
    });
    assert_eq!(out[0].data, [1., 4., 2., 5., 3., 6.]);
    assert_eq!((out[1].sizes.clone(), out[1].data.clone()), (vec![2, 3], vec![1., 4., 2., 5., 3., 6.]));
    assert_eq!(out[2].data, [1., 2., 3., 4., 5., 6., 1., 2., 3., 4., 5., 6.]);
}

#[test]
fn repetition() {
    let given = [values(&[2, 2], &[1., 2., 3., 4.])];
    let (n, dim) = (Dim::fixed(2), Dim::fixed(4));
    let out = evaluate(&given, |h| {
        vec![
            repeat(h[0], 1, n.clone(), dim.clone()),
            repeat(h[0], 0, n.clone(), dim.clone()),
            repeat_interleave(h[0], 1, n.clone(), dim.clone()),
            repeat_interleave(h[0], 0, n.clone(), dim.clone()),
        ]
    });
    assert_eq!(out[0].data, [1., 2., 1., 2., 3., 4., 3., 4.]);
    assert_eq!(out[1].data, [1., 2., 3., 4., 1., 2., 3., 4.]);
    assert_eq!(out[2].data, [1., 1., 2., 2., 3., 3., 4., 4.]);
    assert_eq!(out[3].data, [1., 2., 1., 2., 3., 4., 3., 4.]);
    for sizes in [&[3, 1, 2][..], &[1, 5, 2], &[2, 0, 2]] {
        let full = Dim::fixed(3 * sizes[1] as u64);
        check(&[real(sizes, 1)], |h| {
            vec![repeat(h[0], 1, Dim::fixed(3), full.clone()), repeat_interleave(h[0], 1, Dim::fixed(3), full.clone())]
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let message = |f: fn(mobilis_runtime::graph::trace::Handle) -> mobilis_runtime::graph::trace::Handle| {
        try_traced(&[real(&[2, 3], 1)], |h| vec![f(h[0])]).expect_err("is refused").message
    };
    assert_eq!(message(|h| reshape(h, dims(&[5]))), "reshape: [2, 3] does not hold as many values as [5]");
    assert_eq!(message(|h| permute(h, &[1, 1])), "permute: [1, 1] is not an order of the dimensions of [2, 3]");
    assert_eq!(message(|h| broadcast(h, dims(&[3, 2, 2]))), "broadcast: [2, 3] is not the end of [3, 2, 2]");
}
