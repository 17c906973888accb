use mobilis_runtime::ops::cache::write_rows;
use mobilis_runtime::testing::{CPU, Given, agree, index_values, values};

fn given(start: &[i64], count: &[i64]) -> [Given; 4] {
    let new: Vec<f64> = (1..=2 * 3 * 2).map(f64::from).collect();
    [values(&[2, 4, 2], &[0.0; 16]), values(&[2, 3, 2], &new), index_values(&[2], start), index_values(&[2], count)]
}

fn written(start: &[i64], count: &[i64], wrap: bool) -> Vec<f64> {
    let out = agree(&given(start, count), |h| vec![write_rows(h[0], h[1], h[2], h[3], wrap)], CPU);
    out[0].data.clone()
}

#[test]
fn each_sequence_writes_at_its_own_position() {
    let expected = [0., 0., 1., 2., 3., 4., 5., 6., 7., 8., 0., 0., 0., 0., 0., 0.];
    assert_eq!(written(&[1, 0], &[3, 1], false), expected);
    assert_eq!(written(&[4, 9], &[0, 0], false), [0.0; 16]);
}

#[test]
fn a_ring_goes_round() {
    let expected = [3., 4., 5., 6., 0., 0., 1., 2., 9., 10., 0., 0., 0., 0., 7., 8.];
    assert_eq!(written(&[7, 11], &[3, 2], true), expected);
}

#[test]
fn of_more_entries_than_slots_the_last_stay() {
    let given = [
        values(&[1, 2, 1], &[0.0; 2]),
        values(&[1, 5, 1], &[1., 2., 3., 4., 5.]),
        index_values(&[1], &[3]),
        index_values(&[1], &[5]),
    ];
    let out = agree(&given, |h| vec![write_rows(h[0], h[1], h[2], h[3], true)], CPU);
    // Positions 6 and 7 hold the fourth and fifth entry.
    assert_eq!(out[0].data, [4., 5.]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let cannot = |start: &[i64], count: &[i64]| {
        let given = given(start, count);
        let run = std::panic::catch_unwind(|| agree(&given, |h| vec![write_rows(h[0], h[1], h[2], h[3], false)], CPU));
        assert!(run.is_err(), "{start:?} {count:?}");
    };
    cannot(&[2, 0], &[3, 1]);
    cannot(&[-1, 0], &[3, 1]);
    cannot(&[0, 0], &[4, 1]);
    cannot(&[0, 0], &[-1, 1]);
}
