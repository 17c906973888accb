//! The scan of a selective state space.

use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::ssm::ssm;
use mobilis_runtime::testing::{
    CPU, Given, agree, check, check_cpu, evaluate, index_values, positive, real, try_traced,
};

/// Batch, time, heads, channels, groups, states.
type Sizes = [usize; 6];

fn given([b, t, h, p, g, n]: Sizes, scalar: bool) -> Vec<Given> {
    let mut a = positive(&if scalar { vec![h] } else { vec![h, n] }, 3);
    a.array.data.iter_mut().for_each(|a| *a = -*a);
    let (x, dt) = (real(&[b, t, h, p], 1), positive(&[b, t, h], 2));
    vec![x, dt, a, real(&[b, t, g, n], 4), real(&[b, t, g, n], 5), real(&[b, h, p, n], 6)]
}

fn forward(x: &[Handle]) -> Vec<Handle> {
    ssm(x[0], x[1], x[2], [x[3], x[4]], x[5], x.get(6).copied()).to_vec()
}

/// Two steps of one state, by hand.
#[test]
fn two_steps() {
    let y = evaluate(&given([1, 2, 1, 1, 1, 1], true), forward);
    let x = given([1, 2, 1, 1, 1, 1], true);
    let v = |k: usize, i: usize| x[k].array.data[i];
    let one = (v(1, 0) * v(2, 0)).exp() * v(5, 0) + v(1, 0) * v(0, 0) * v(3, 0);
    let two = (v(1, 1) * v(2, 0)).exp() * one + v(1, 1) * v(0, 1) * v(3, 1);
    assert_eq!(y[0].data, [v(4, 0) * one, v(4, 1) * two]);
    assert_eq!(y[1].data, [two]);
}

#[test]
fn values_and_gradients() {
    let sizes = [[1, 1, 1, 1, 1, 1], [2, 3, 2, 1, 1, 2], [1, 4, 4, 2, 2, 3], [2, 2, 2, 3, 2, 1]];
    for sizes in sizes {
        for scalar in [true, false] {
            check(&given(sizes, scalar), forward);
        }
    }
}

#[test]
fn gradients_with_lengths() {
    for lengths in [[0, 3], [2, 1], [3, 7]] {
        let mut x = given([2, 3, 2, 1, 1, 2], false);
        x.push(index_values(&[2], &lengths));
        check(&x, forward);
    }
}

/// The CPU against the reference. The loss of which gradients are taken is a sum of thousands of
/// terms of both signs, most of which cancel.
fn same(x: &[Given]) {
    agree(x, forward, CPU);
    check_cpu(x, &forward, 20.0 * CPU);
}

/// Sizes that fill and do not fill lanes, blocks and parts; none at all.
#[test]
fn large_and_empty_ones_agree_with_the_reference() {
    let sizes = [
        [2, 17, 40, 1, 1, 16],
        [1, 33, 6, 20, 2, 24],
        [3, 5, 8, 16, 8, 33],
        [1, 9, 3, 2, 1, 300],
        [1, 70, 130, 1, 1, 5],
    ];
    for sizes in sizes {
        for scalar in [true, false] {
            same(&given(sizes, scalar));
            let mut x = given(sizes, scalar);
            let lengths: Vec<i64> = (0..sizes[0] as i64).map(|b| sizes[1] as i64 - 3 * b - 1).collect();
            x.push(index_values(&[sizes[0]], &lengths));
            same(&x);
        }
    }
    for i in [0, 1, 3, 5] {
        let mut sizes = [2, 3, 2, 2, 1, 2];
        sizes[i] = 0;
        same(&given(sizes, true));
    }
}

/// A text in two parts, the second from the first one's state; and a padded sequence as if alone.
#[test]
fn states_carry_on_and_padding_changes_nothing() {
    let sizes = [1, 5, 4, 2, 2, 3];
    let whole = given(sizes, true);
    let cut = |from: usize, to: usize, state: &[f64]| {
        let mut x = whole.clone();
        for k in [0, 1, 3, 4] {
            let each = x[k].array.data.len() / 5;
            x[k].array.data = x[k].array.data[from * each..to * each].to_vec();
            x[k].array.sizes[1] = to - from;
        }
        x[5].array.data = state.to_vec();
        evaluate(&x, forward)
    };
    let all = evaluate(&whole, forward);
    let one = cut(0, 2, &whole[5].array.data);
    let two = cut(2, 5, &one[1].data);
    assert_eq!(all[0].data, [one[0].data.clone(), two[0].data.clone()].concat());
    assert_eq!(all[1], two[1]);
    let mut padded = whole.clone();
    padded.push(index_values(&[1], &[2]));
    let padded = evaluate(&padded, forward);
    let each = one[0].data.len();
    assert_eq!(padded[0].data[..each], one[0].data);
    assert!(padded[0].data[each..].iter().all(|v| *v == 0.0));
    assert_eq!(padded[1], one[1]);
}

#[test]
fn mistakes_are_told_in_words() {
    let told = |x: &[Given]| try_traced(x, forward).expect_err("it is wrong").message;
    let mut x = given([2, 3, 4, 2, 2, 3], true);
    x[5] = real(&[2, 4, 3, 2], 1);
    assert_eq!(told(&x), "ssm: has a state [2, 4, 2, 3], is given [2, 4, 3, 2]");
    assert_eq!(told(&given([2, 3, 4, 2, 3, 3], true)), "ssm: cannot divide 4 heads into 3 groups");
    let mut x = given([2, 3, 4, 2, 2, 3], true);
    x.push(index_values(&[3], &[1, 1, 1]));
    assert_eq!(told(&x), "ssm: takes one length per sequence of `2`, is given [3] i32");
}
