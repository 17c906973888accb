use mobilis_runtime::devices::reference;
use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::{Dim, trace::Handle};
use mobilis_runtime::ops::gather::{gather, lower_triangle, one_hot, scatter_add, take, take_add, upper_triangle};
use mobilis_runtime::ops::movement;
use mobilis_runtime::testing::{CPU, Given, agree, check, index_values, indices, noise, real, traced, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

#[test]
fn values_of_a_matrix() {
    let given = [values(&[2, 3], &[1., 2., 3., 4., 5., 6.]), index_values(&[2, 2], &[2, 0, 1, 1])];
    let out = evaluate(&given, |h| {
        let picked = gather(h[0], h[1], 1);
        vec![picked, scatter_add(h[0], h[1], picked, 1)]
    });
    assert_eq!(out[0].data, [3., 1., 5., 5.]);
    assert_eq!(out[1].data, [2., 2., 6., 4., 15., 6.]);
    let given = [values(&[3, 2], &[1., 2., 3., 4., 5., 6.]), index_values(&[4], &[2, 0, 2, 1])];
    let out = evaluate(&given, |h| {
        let rows = take(h[0], h[1], 0);
        vec![rows, take_add(h[0], h[1], rows, 0)]
    });
    assert_eq!(out[0].data, [5., 6., 1., 2., 5., 6., 3., 4.]);
    assert_eq!(out[1].data, [2., 4., 6., 8., 15., 18.]);
}

#[test]
fn gradients() {
    for (sizes, axis, picks) in [
        (&[5][..], 0, 3),
        (&[2, 5], 1, 7),
        (&[5, 2], 0, 1),
        (&[2, 3, 4], 1, 3),
        (&[2, 3, 4], 0, 0),
        (&[1, 1], 1, 2),
        (&[3, 0], 0, 2),
    ] {
        let mut at = sizes.to_vec();
        at[axis] = picks;
        let n = sizes[axis];
        let given = [real(sizes, 1), indices(&at, n, 2), real(&at, 3)];
        check(&given, |h| vec![gather(h[0], h[1], axis), scatter_add(h[0], h[1], h[2], axis)]);
        let given = [real(sizes, 1), indices(&[picks], n, 2), real(&at, 3)];
        check(&given, |h| vec![take(h[0], h[1], axis), take_add(h[0], h[1], h[2], axis)]);
    }
    let turn = |h: Handle| movement::permute(h, &[1, 0]);
    check(&[real(&[3, 4], 1), indices(&[3, 2], 4, 2), real(&[3, 2], 3)], |h| {
        vec![gather(turn(h[0]), turn(h[1]), 0), scatter_add(turn(h[0]), turn(h[1]), turn(h[2]), 0)]
    });
    check(&[real(&[3, 4], 1), indices(&[2], 4, 2), real(&[3, 2], 3)], |h| {
        vec![take(turn(h[0]), h[1], 0), take_add(turn(h[0]), h[1], turn(h[2]), 0)]
    });
}

#[test]
fn random_gathers_against_loops() {
    for seed in 0..20 {
        let pick = |i: u64, n: usize| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as usize;
        let (a, n, b, j) = (pick(0, 4), 1 + pick(1, 5), pick(2, 4), pick(3, 6));
        let (x, ids) = (real(&[a, n, b], seed), indices(&[a, j, b], n, seed + 1));
        let out = evaluate(&[x.clone(), ids.clone()], |h| vec![gather(h[0], h[1], 1)]);
        for p in 0..a {
            for q in 0..j {
                for r in 0..b {
                    let i = ids.array.at(&[p, q, r]) as usize;
                    assert_eq!(out[0].at(&[p, q, r]), x.array.at(&[p, i, r]));
                }
            }
        }
    }
}

#[test]
fn indices_out_of_range_are_errors_at_run_time() {
    type Op = fn(&[Handle]) -> Handle;
    let ops: [(&str, Op); 4] = [
        ("gather", |h| gather(h[0], h[1], 0)),
        ("scatter_add", |h| scatter_add(h[0], h[1], h[2], 0)),
        ("take", |h| take(h[0], h[1], 0)),
        ("take_add", |h| take_add(h[0], h[1], h[2], 0)),
    ];
    for wrong in [-1, 4] {
        for (name, op) in ops {
            let given = [real(&[4], 1), index_values(&[3], &[0, wrong, 9]), real(&[3], 2)];
            let graph = traced(&given, |h| vec![op(h)]);
            let arrays: Vec<_> = given.iter().map(|g| g.array.clone()).collect();
            let error = reference::run(&graph, &Default::default(), &arrays, &[]).err().expect("is refused");
            assert_eq!(error, format!("{name} in trace: index {wrong} is out of range for an axis of 4 values"));
        }
    }
}

#[test]
fn one_hot_vectors_and_triangles() {
    let out = evaluate(&[index_values(&[2, 2], &[0, 2, 1, 5])], |h| vec![one_hot(h[0], Dim::fixed(3))]);
    assert_eq!(out[0].sizes, [2, 2, 3]);
    assert_eq!(out[0].data, [1., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 0.]);
    let dims = |r, c| vec![Dim::fixed(r), Dim::fixed(c)];
    let out = evaluate(&[], |_| {
        vec![lower_triangle(&dims(3, 3), 0), lower_triangle(&dims(2, 3), 1), upper_triangle(&dims(3, 2), -1)]
    });
    assert_eq!(out[0].data, [1., 0., 0., 1., 1., 0., 1., 1., 1.]);
    assert_eq!(out[1].data, [1., 1., 0., 1., 1., 1.]);
    assert_eq!(out[2].data, [1., 1., 1., 1., 0., 1.]);
    let out = evaluate(&[], |_| vec![upper_triangle(&[vec![Dim::fixed(2)], dims(2, 2)].concat(), 0)]);
    assert_eq!(out[0].data, [1., 1., 0., 1., 1., 1., 0., 1.]);
}
