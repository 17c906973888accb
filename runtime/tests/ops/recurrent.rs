use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::elementwise::{UnaryKind, add, mul, sub, unary};
use mobilis_runtime::ops::recurrent::{Direction, gru, input_gates, lstm, zero_state};
use mobilis_runtime::ops::{contraction, leaf, movement};
use mobilis_runtime::testing::{
    CPU, Given, check, check_cpu, close, evaluate, index_values, noise, real, try_traced, values,
};

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// One unit, one step, against numbers worked out by hand from the formula.
#[test]
fn literals() {
    let gates = values(&[1, 1, 4], &[0.5, -0.25, 1.0, 2.0]);
    let given = [gates, values(&[4, 1], &[1., 2., 3., 4.]), values(&[1, 1], &[0.1]), values(&[1, 1], &[0.3])];
    let out = evaluate(&given, |h| lstm(h[0], h[1], [h[2], h[3]], None, Direction::Forward).to_vec());
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    let c = s(-0.05) * 0.3 + s(0.6) * 1.3f64.tanh();
    assert!((out[2].data[0] - c).abs() < 1e-15);
    assert!((out[0].data[0] - s(2.4) * c.tanh()).abs() < 1e-15);
    assert_eq!(out[0].data, out[1].data);
    let given = [
        values(&[1, 1, 3], &[0.5, -0.25, 1.0]),
        values(&[3, 1], &[1., 2., 3.]),
        values(&[3], &[0.2, -0.1, 0.4]),
        values(&[1, 1], &[0.1]),
    ];
    let out = evaluate(&given, |h| gru(h[0], h[1], h[2], h[3], None, Direction::Forward).to_vec());
    let (r, z) = (s(0.5 + 0.1 + 0.2), s(-0.25 + 0.2 - 0.1));
    let h = (1.0 - z) * (1.0 + r * 0.7f64).tanh() + z * 0.1;
    assert!((out[0].data[0] - h).abs() < 1e-15);
}

/// Rows `k * n .. (k + 1) * n` of a value, picked by a product with a constant 0/1 matrix, so
/// that the unrolled layers below share nothing with the operations under test.
fn part(x: Handle, pick: Handle) -> Handle {
    contraction::linear(x, pick)
}

fn picks(n: usize, gates: usize) -> Vec<Given> {
    (0..gates)
        .map(|k| {
            let mut m = values(&[n, gates * n], &vec![0.0; n * gates * n]);
            (0..n).for_each(|i| m.array.data[i * gates * n + k * n + i] = 1.0);
            m
        })
        .collect()
}

fn sigmoid(x: Handle) -> Handle {
    unary(UnaryKind::Sigmoid, x)
}

fn tanh(x: Handle) -> Handle {
    unary(UnaryKind::Tanh, x)
}

/// An LSTM and a GRU unrolled in elementwise operations over a list of steps `[b, 4n]`.
#[test]
fn unrolled_in_small_operations() {
    let (b, n) = (3, 2);
    let mut given =
        vec![real(&[4 * n, n], 1), real(&[b, n], 2), real(&[b, n], 3), real(&[3 * n, n], 4), real(&[3 * n], 5)];
    given.extend((0..2).map(|t| real(&[b, 4 * n], 10 + t)));
    given.extend((0..2).map(|t| real(&[b, 3 * n], 20 + t)));
    given.extend(picks(n, 4));
    given.extend(picks(n, 3));
    let out = evaluate(&given, |x| {
        let (mut h, mut c) = (x[1], x[2]);
        for gates in &x[5..7] {
            let a = add(*gates, contraction::linear(h, x[0]));
            let gate = |k: usize| part(a, x[9 + k]);
            c = add(mul(sigmoid(gate(1)), c), mul(sigmoid(gate(0)), tanh(gate(2))));
            h = mul(sigmoid(gate(3)), tanh(c));
        }
        let mut g = x[1];
        for gates in &x[7..9] {
            let s = add(contraction::linear(g, x[3]), x[4]);
            let gate = |v: Handle, k: usize| part(v, x[13 + k]);
            let r = sigmoid(add(gate(*gates, 0), gate(s, 0)));
            let z = sigmoid(add(gate(*gates, 1), gate(s, 1)));
            let new = tanh(add(gate(*gates, 2), mul(r, gate(s, 2))));
            g = add(new, mul(z, sub(g, new)));
        }
        vec![h, c, g]
    });
    let interleave = |a: &Given, b: &Given, width: usize| {
        let rows = a.array.data.chunks(width).zip(b.array.data.chunks(width));
        values(&[3, 2, width], &rows.flat_map(|(a, b)| [a, b].concat()).collect::<Vec<_>>())
    };
    let whole = [
        interleave(&given[5], &given[6], 4 * n),
        given[0].clone(),
        given[1].clone(),
        given[2].clone(),
        interleave(&given[7], &given[8], 3 * n),
        given[3].clone(),
        given[4].clone(),
    ];
    let ops = evaluate(&whole, |x| {
        let [_, h, c] = lstm(x[0], x[1], [x[2], x[3]], None, Direction::Forward);
        vec![h, c, gru(x[4], x[5], x[6], x[2], None, Direction::Forward)[1]]
    });
    for (found, expected) in ops.iter().zip(&out) {
        close(found, expected, 1e-14);
    }
}

fn lstm_given(b: usize, t: usize, n: usize, seed: u64) -> Vec<Given> {
    vec![real(&[b, t, 4 * n], seed), real(&[4 * n, n], seed + 1), real(&[b, n], seed + 2), real(&[b, n], seed + 3)]
}

fn gru_given(b: usize, t: usize, n: usize, seed: u64) -> Vec<Given> {
    vec![real(&[b, t, 3 * n], seed), real(&[3 * n, n], seed + 1), real(&[3 * n], seed + 2), real(&[b, n], seed + 3)]
}

#[test]
fn gradients_and_devices_agree() {
    for (b, t, n) in [(2, 3, 2), (1, 1, 1), (3, 4, 1), (0, 2, 2), (2, 0, 2), (1, 5, 3)] {
        for direction in BOTH {
            check(&lstm_given(b, t, n, 7), |x| lstm(x[0], x[1], [x[2], x[3]], None, direction).to_vec());
            check(&gru_given(b, t, n, 7), |x| gru(x[0], x[1], x[2], x[3], None, direction).to_vec());
        }
    }
}

/// Batches that fill matrix products, on every thread, with and without padding.
#[test]
fn large_batches_agree_with_the_reference() {
    for (b, t, n) in [(13, 4, 5), (32, 3, 17)] {
        let lengths: Vec<i64> = (0..b as i64).map(|i| i % (t as i64 + 1)).collect();
        for direction in BOTH {
            for lengths in [None, Some(index_values(&[b], &lengths))] {
                let given: Vec<Given> = lstm_given(b, t, n, 1).into_iter().chain(lengths.clone()).collect();
                let f = |x: &[Handle]| lstm(x[0], x[1], [x[2], x[3]], x.get(4).copied(), direction).to_vec();
                check_cpu(&given, &f, CPU);
                let given: Vec<Given> = gru_given(b, t, n, 1).into_iter().chain(lengths).collect();
                check_cpu(&given, &|x| gru(x[0], x[1], x[2], x[3], x.get(4).copied(), direction).to_vec(), CPU);
            }
        }
    }
}

#[test]
fn gradients_with_lengths() {
    for seed in 0..8u64 {
        let pick = |i: u64, n: u64| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as usize;
        let (b, t, n) = (1 + pick(0, 3), 1 + pick(1, 4), 1 + pick(2, 2));
        let lengths: Vec<i64> = (0..b as u64).map(|i| pick(10 + i, t as u64 + 1) as i64).collect();
        let direction = BOTH[pick(3, 2)];
        let mut given = lstm_given(b, t, n, seed);
        given.push(index_values(&[b], &lengths));
        check(&given, |x| lstm(x[0], x[1], [x[2], x[3]], Some(x[4]), direction).to_vec());
        let mut given = gru_given(b, t, n, seed);
        given.push(index_values(&[b], &lengths));
        check(&given, |x| gru(x[0], x[1], x[2], x[3], Some(x[4]), direction).to_vec());
    }
}

/// A padded sequence gives what the sequence alone gives, and zeros beyond it.
#[test]
fn padding_changes_nothing() {
    let (t, n, length) = (5, 2, 3);
    for direction in BOTH {
        let mut padded = lstm_given(1, t, n, 3);
        padded.push(index_values(&[1], &[length as i64]));
        let mut alone = padded.clone();
        alone[0] = values(&[1, length, 4 * n], &padded[0].array.data[..length * 4 * n]);
        let run = |given: &[Given], lengths: bool| {
            evaluate(given, |x| lstm(x[0], x[1], [x[2], x[3]], lengths.then_some(x[4]), direction).to_vec())
        };
        let (a, b) = (run(&padded, true), run(&alone, false));
        assert_eq!(a[0].data[..length * n], b[0].data);
        assert!(a[0].data[length * n..].iter().all(|v| *v == 0.0));
        assert_eq!((&a[1], &a[2]), (&b[1], &b[2]));
    }
}

/// Backwards is forwards over the reversed sequence.
#[test]
fn directions_mirror() {
    let (t, n) = (4, 2);
    let given = gru_given(1, t, n, 9);
    let mut mirrored = given.clone();
    mirrored[0].array.data = given[0].array.data.chunks(3 * n).rev().flatten().copied().collect();
    let run = |given: &[Given], d| evaluate(given, |x| gru(x[0], x[1], x[2], x[3], None, d).to_vec());
    let (a, b) = (run(&given, Direction::Backward), run(&mirrored, Direction::Forward));
    let back: Vec<f64> = b[0].data.chunks(n).rev().flatten().copied().collect();
    assert_eq!((&a[0].data, &a[1]), (&back, &b[1]));
}

#[test]
fn whole_layers_and_views() {
    let given = [real(&[3, 2, 4], 1), real(&[8, 4], 2), real(&[8], 3), real(&[8, 2], 4)];
    check(&given, |x| {
        let x_bti = movement::permute(x[0], &[1, 0, 2]);
        let gates = input_gates(x_bti, x[1], Some(x[2]));
        let zero = zero_state(gates, x[3]);
        lstm(gates, x[3], [zero, zero], None, Direction::Forward).to_vec()
    });
}

#[test]
fn mistakes_are_told_in_words() {
    let e = try_traced(&lstm_given(2, 3, 2, 1), |x| {
        vec![lstm(x[0], x[1], [x[2], leaf::scalar(0.0)], None, Direction::Forward)[0]]
    });
    assert_eq!(e.unwrap_err().message, "lstm: has a state [2, 2], is given []");
    let given = [real(&[2, 3, 5], 1), real(&[6, 2], 2), real(&[6], 3), real(&[2, 2], 4)];
    let e = try_traced(&given, |x| vec![gru(x[0], x[1], x[2], x[3], None, Direction::Forward)[0]]);
    assert_eq!(e.unwrap_err().message, "gru: has 3 gates per hidden value of `2`, is given [2, 3, 5] and [6, 2]");
}
