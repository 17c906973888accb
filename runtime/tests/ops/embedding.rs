use mobilis_runtime::Sizes;
use mobilis_runtime::devices::reference;
use mobilis_runtime::ops::embedding::embedding;
use mobilis_runtime::testing::{check, evaluate, index_values, indices, real, traced, values};

#[test]
fn rows_are_picked() {
    let given = [values(&[3, 2], &[1., 2., 3., 4., 5., 6.]), index_values(&[2, 2], &[2, 0, 0, 1])];
    let out = evaluate(&given, |h| vec![embedding(h[0], h[1])]);
    assert_eq!(out[0].sizes, [2, 2, 2]);
    assert_eq!(out[0].data, [5., 6., 1., 2., 1., 2., 3., 4.]);
}

#[test]
fn gradients_of_repeated_rows_add_up() {
    for (rows, width, ids) in
        [(3, 2, &[5][..]), (1, 1, &[1]), (4, 3, &[2, 3]), (4, 3, &[0]), (5, 17, &[]), (300, 5, &[41])]
    {
        check(&[real(&[rows, width], 1), indices(ids, rows, 2)], |h| vec![embedding(h[0], h[1])]);
    }
}

#[test]
fn an_index_outside_the_table_is_an_error() {
    for id in [-1, 3, i32::MAX as i64] {
        let given = [real(&[3, 2], 1), index_values(&[2], &[0, id])];
        let graph = traced(&given, |h| vec![embedding(h[0], h[1])]);
        let inputs: Vec<_> = given.iter().map(|g| g.array.clone()).collect();
        let error = reference::run(&graph, &Sizes::new(), &inputs, &[]).err().expect("an error");
        assert!(error.contains(&format!("index {id} is outside the table of 3 rows")), "{error}");
    }
}
