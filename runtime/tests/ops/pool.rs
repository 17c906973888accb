use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::Dim;
use mobilis_runtime::ops::movement::permute;
use mobilis_runtime::ops::pool::{Window, Windows, average_pool, average_pool_to, max_pool};
use mobilis_runtime::testing::{Given, check, close, evaluate, noise, real, try_traced, values};

fn window(kernel: u64, stride: u64, padding: u64, dilation: u64) -> Window {
    Window { kernel, stride, padding, dilation }
}

/// Values no two of which are so near that a central difference would swap them.
fn apart(sizes: &[usize], seed: u64) -> Given {
    let mut given = real(sizes, seed);
    let mut order: Vec<usize> = (0..given.array.data.len()).collect();
    order.sort_by(|a, b| given.array.data[*a].total_cmp(&given.array.data[*b]));
    for (rank, i) in order.into_iter().enumerate() {
        given.array.data[i] = 0.05 * rank as f64 - 1.0;
    }
    given
}

fn assert_near(found: &RefArray, expected: &[f64]) {
    close(found, &RefArray::new(&found.sizes, expected.to_vec()), 1e-12);
}

#[test]
fn literals() {
    let x = [values(&[1, 1, 5], &[1., 3., 3., -2., 0.])];
    let out = evaluate(&x, |h| max_pool(h[0], &[window(3, 2, 1, 1)]).to_vec());
    assert_eq!(out[0].data, [3., 3., 0.]);
    // The first of equal maxima.
    assert_eq!(out[1].data, [1., 1., 4.]);
    let mean = |counted| evaluate(&x, |h| vec![average_pool(h[0], &[window(3, 2, 1, 1)], counted)])[0].clone();
    assert_near(&mean(true), &[4. / 3., 4. / 3., -2. / 3.]);
    assert_near(&mean(false), &[2., 4. / 3., -1.]);
}

#[test]
fn a_plane_against_rows_then_columns() {
    // The maximum over a rectangle is the maximum of maxima: two passes in one dimension.
    let x = [real(&[2, 3, 6, 7], 5)];
    let w = [window(3, 2, 1, 1), window(2, 1, 0, 1)];
    let out = evaluate(&x, |h| {
        let rows = max_pool(h[0], &w[1..])[0];
        let turned = max_pool(permute(rows, &[0, 1, 3, 2]), &w[..1])[0];
        let mean_rows = average_pool(h[0], &w[1..], false);
        let mean = average_pool(permute(mean_rows, &[0, 1, 3, 2]), &w[..1], false);
        vec![
            max_pool(h[0], &w)[0],
            permute(turned, &[0, 1, 3, 2]),
            average_pool(h[0], &w, false),
            permute(mean, &[0, 1, 3, 2]),
        ]
    });
    assert_eq!(out[0], out[1]);
    close(&out[2], &out[3], 1e-12);
}

#[test]
fn adaptive_means() {
    let x = [values(&[1, 5], &[1., 2., 3., 4., 5.])];
    let dims = |n| vec![Dim::fixed(1), Dim::fixed(n)];
    let pooled = |n| evaluate(&x, |h| vec![average_pool_to(h[0], Windows::Adaptive(1), dims(n))])[0].clone();
    // torch.nn.functional.adaptive_avg_pool1d(x, n)
    assert_near(&pooled(1), &[3.]);
    assert_near(&pooled(2), &[2., 4.]);
    assert_near(&pooled(3), &[1.5, 3., 4.5]);
    assert_near(&pooled(5), &[1., 2., 3., 4., 5.]);
    assert_near(&pooled(7), &[1., 1.5, 2.5, 3., 3.5, 4.5, 5.]);
}

#[test]
fn gradients_and_devices_agree() {
    for (sizes, windows) in [
        (&[2, 3, 7][..], &[window(2, 2, 0, 1)][..]),
        (&[2, 1, 7], &[window(3, 1, 1, 1)]),
        (&[1, 1, 1], &[window(1, 1, 0, 1)]),
        (&[0, 2, 4], &[window(2, 2, 0, 1)]),
        (&[1, 2, 6, 5], &[window(2, 2, 0, 1), window(3, 2, 1, 1)]),
        (&[2, 4, 4], &[window(3, 1, 1, 1), window(3, 3, 1, 1)]),
    ] {
        check(&[apart(sizes, 3)], |h| vec![max_pool(h[0], windows)[0]]);
        for counted in [false, true] {
            check(&[real(sizes, 3)], |h| vec![average_pool(h[0], windows, counted)]);
        }
    }
    check(&[apart(&[2, 9], 3)], |h| vec![max_pool(h[0], &[window(3, 2, 1, 2)])[0]]);
    check(&[apart(&[5, 2, 3], 3)], |h| vec![max_pool(permute(h[0], &[1, 2, 0]), &[window(2, 1, 1, 1)])[0]]);
    for n in [1, 2, 3, 5, 8] {
        check(&[real(&[2, 5], n)], |h| {
            vec![average_pool_to(h[0], Windows::Adaptive(1), vec![Dim::fixed(2), Dim::fixed(n)])]
        });
    }
    let plane = || vec![Dim::fixed(1), Dim::fixed(2), Dim::fixed(3)];
    check(&[real(&[1, 5, 4], 1)], |h| vec![average_pool_to(h[0], Windows::Adaptive(2), plane())]);
}

#[test]
fn random_shapes() {
    for seed in 0..30u64 {
        let pick = |i: u64, n: u64| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as u64;
        let spatial = 1 + pick(0, 2) as usize;
        let windows: Vec<Window> = (0..spatial as u64)
            .map(|i| {
                let kernel = 1 + pick(10 + i, 4);
                window(kernel, 1 + pick(20 + i, 3), pick(30 + i, kernel / 2 + 1), 1)
            })
            .collect();
        let sizes: Vec<usize> = [pick(1, 3) as usize]
            .into_iter()
            .chain(windows.iter().enumerate().map(|(i, w)| (w.kernel + pick(40 + i as u64, 5)) as usize))
            .collect();
        check(&[apart(&sizes, seed)], |h| {
            vec![max_pool(h[0], &windows)[0], average_pool(h[0], &windows, seed % 2 == 0)]
        });
    }
}

#[test]
fn not_a_number_is_the_maximum() {
    let x = [values(&[4], &[1., f64::NAN, 2., f64::NEG_INFINITY])];
    let out = evaluate(&x, |h| max_pool(h[0], &[window(2, 2, 0, 1)]).to_vec());
    assert!(out[0].data[0].is_nan());
    assert_eq!((out[0].data[1], out[1].data[1]), (2., 2.));
}

#[test]
fn mistakes_are_told_in_words() {
    let message = |w: Window| try_traced(&[real(&[3], 1)], |h| vec![max_pool(h[0], &[w])[0]]).unwrap_err().message;
    assert_eq!(message(window(4, 1, 0, 1)), "max_pool: has a kernel that spans 4 positions over a padded input of 3");
    assert_eq!(message(window(2, 1, 2, 1)), "max_pool: has padding 2 beyond half of its kernel 2");
    assert_eq!(message(window(0, 1, 0, 1)), "max_pool: has a kernel of at least 1");
    let two = [window(1, 1, 0, 1); 2];
    let e = try_traced(&[real(&[3], 1)], |h| vec![average_pool(h[0], &two, true)]).unwrap_err();
    assert_eq!(e.message, "average_pool: over 2 dimensions is given [3]");
}
