use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::{Dim, trace::Handle};
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::window::{fold, unfold};
use mobilis_runtime::testing::{CPU, Given, agree, check, real, try_traced, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

fn windows(n: usize, k: u64, stride: u64, dilation: u64) -> u64 {
    (n as u64 - dilation * (k - 1) - 1) / stride + 1
}

fn unfolded(h: Handle, n: usize, axis: usize, (k, stride, dilation): (u64, u64, u64)) -> Handle {
    unfold(h, axis, stride, dilation, Dim::fixed(windows(n, k, stride, dilation)), Dim::fixed(k))
}

#[test]
fn windows_of_a_vector() {
    let given = [values(&[7], &[0., 1., 2., 3., 4., 5., 6.])];
    let out = evaluate(&given, |h| {
        let w = unfolded(h[0], 7, 0, (3, 2, 1));
        vec![w, unfolded(h[0], 7, 0, (2, 1, 3)), fold(w, 0, 2, 1, Dim::fixed(7))]
    });
    assert_eq!((&out[0].sizes[..], &out[0].data[..]), (&[3, 3][..], &[0., 1., 2., 2., 3., 4., 4., 5., 6.][..]));
    assert_eq!(out[1].data, [0., 3., 1., 4., 2., 5., 3., 6.]);
    // Places 2 and 4 are in two windows.
    assert_eq!(out[2].data, [0., 1., 4., 3., 8., 5., 6.]);
}

#[test]
fn gradients() {
    for options in [(1, 1, 1), (3, 1, 1), (3, 2, 1), (2, 3, 1), (3, 1, 2), (2, 2, 3)] {
        for (sizes, axis) in [(&[7][..], 0), (&[2, 7], 1), (&[5, 3], 0), (&[2, 8, 3], 1), (&[0, 7], 1)] {
            check(&[real(sizes, 1)], |h| vec![unfolded(h[0], sizes[axis], axis, options)]);
            let (k, stride, dilation) = options;
            let mut parts = sizes.to_vec();
            parts.splice(axis..=axis, [windows(sizes[axis], k, stride, dilation) as usize, k as usize]);
            check(&[real(&parts, 1)], |h| vec![fold(h[0], axis, stride, dilation, Dim::fixed(sizes[axis] as u64))]);
        }
    }
    check(&[real(&[7, 2], 1)], |h| vec![unfolded(movement::permute(h[0], &[1, 0]), 7, 1, (3, 2, 1))]);
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let wrong = try_traced(&[real(&[4], 1)], |h| vec![unfold(h[0], 0, 2, 1, Dim::fixed(2), Dim::fixed(3))]);
    assert_eq!(wrong.expect_err("is refused").message, "unfold: 2 windows of 3 span 5 values, there are 4");
    let wrong = try_traced(&[real(&[4], 1)], |h| vec![unfold(h[0], 0, 0, 1, Dim::fixed(2), Dim::fixed(3))]);
    assert_eq!(wrong.expect_err("is refused").message, "unfold: takes a stride and a dilation of at least 1");
}
