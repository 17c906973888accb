use mobilis_runtime::ops::contraction::einsum;
use mobilis_runtime::testing::{check, evaluate, real, values};

#[test]
fn a_matrix_product() {
    let given = [values(&[2, 3], &[1., 2., 3., 4., 5., 6.]), values(&[3, 2], &[1., 0., 0., 1., 1., 1.])];
    let out = evaluate(&given, |h| vec![einsum(h, &[&[0, 1], &[1, 2]], &[0, 2])]);
    assert_eq!(out[0].data, [4., 5., 10., 11.]);
}

#[test]
fn contractions_of_every_kind() {
    let cases: &[(&[&[usize]], &[&[u8]], &[u8])] = &[
        (&[&[3, 4], &[4, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[3, 4], &[5, 4]], &[&[0, 1], &[2, 1]], &[2, 0]),
        (&[&[2, 3, 4], &[2, 5, 4]], &[&[0, 1, 2], &[0, 3, 2]], &[0, 1, 3]),
        (&[&[2, 3, 2, 4], &[2, 5, 2, 4]], &[&[0, 1, 2, 3], &[0, 4, 2, 3]], &[0, 2, 1, 4]),
        (&[&[3], &[4]], &[&[0], &[1]], &[0, 1]),
        (&[&[3, 2], &[4, 2]], &[&[0, 1], &[2, 1]], &[0]),
        (&[&[3], &[3], &[3]], &[&[0], &[0], &[0]], &[]),
        (&[&[2, 3], &[3, 4], &[4, 2]], &[&[0, 1], &[1, 2], &[2, 3]], &[3, 0]),
        (&[&[3, 2]], &[&[0, 1]], &[1]),
        (&[&[0, 4], &[4, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[3, 0], &[0, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
    ];
    for (sizes, labels, output) in cases {
        let given: Vec<_> = sizes.iter().enumerate().map(|(i, s)| real(s, i as u64)).collect();
        check(&given, |h| vec![einsum(h, labels, output)]);
    }
}
