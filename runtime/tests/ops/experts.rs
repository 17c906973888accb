//! Products with the matrices of chosen experts.

use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::experts::experts;
use mobilis_runtime::ops::{gather, movement, reduce};
use mobilis_runtime::testing::{
    CPU, Given, agree, check, check_cpu, evaluate, index_values, indices, real, try_traced,
};

/// Values of `tokens` (a row for each choice where `apart`), choices, matrices.
fn given(tokens: usize, choices: usize, apart: bool, (o, i): (usize, usize), count: usize) -> Vec<Given> {
    let sizes = if apart { vec![tokens, choices, i] } else { vec![tokens, i] };
    let mut all = vec![real(&sizes, 1), indices(&[tokens, choices], count, 2)];
    all.extend((0..count).map(|e| real(&[o, i], 3 + e as u64)));
    all
}

fn forward(x: &[Handle]) -> Vec<Handle> {
    vec![experts(x[0], x[1], &x[2..])]
}

#[test]
fn values_and_gradients() {
    for (tokens, choices, size, count) in [(3, 2, (2, 3), 4), (1, 1, (1, 1), 1), (4, 3, (3, 2), 2)] {
        for apart in [false, true] {
            check(&given(tokens, choices, apart, size, count), forward);
        }
    }
    let x = [real(&[2, 2], 1), index_values(&[2, 1], &[1, 0]), real(&[1, 2], 2), real(&[1, 2], 3)];
    let y = evaluate(&x, forward);
    let dot = |w: usize, t: usize| -> f64 { (0..2).map(|i| x[w].array.data[i] * x[0].array.data[2 * t + i]).sum() };
    assert_eq!(y[0].sizes, [2, 1, 1]);
    assert_eq!(y[0].data, [dot(3, 0), dot(2, 1)]);
}

#[test]
fn large_and_empty_ones_agree_with_the_reference() {
    let sizes = [(37, 2, (24, 40), 5), (70, 3, (7, 33), 3), (5, 8, (64, 48), 16), (300, 1, (9, 20), 1)];
    for (tokens, choices, size, count) in sizes {
        for apart in [false, true] {
            check_cpu(&given(tokens, choices, apart, size, count), &forward, CPU);
        }
    }
    for (tokens, choices, size) in [(0, 2, (2, 3)), (2, 0, (2, 3)), (2, 2, (0, 3)), (2, 2, (2, 0))] {
        check_cpu(&given(tokens, choices, false, size, 2), &forward, CPU);
    }
}

/// As picking every token's matrices, and with leading axes and views.
#[test]
fn the_same_as_a_copy_of_the_matrices() {
    let (t, c, o, i, count) = (6, 2, 3, 4, 3);
    let x = [real(&[t, i], 1), indices(&[t, c], count, 2), real(&[count, o * i], 3)];
    let matrices = |w: Handle| -> Vec<Handle> {
        let one = |e: usize| {
            let row = mobilis_runtime::ops::slice::slice(w, 0, fixed(e as u64), 1, dim(1));
            movement::reshape(row, vec![dim(o as u64), dim(i as u64)])
        };
        (0..count).map(one).collect()
    };
    let ours = agree(&x, |x| vec![experts(x[0], x[1], &matrices(x[2]))], CPU);
    let copied = evaluate(&x, |x| {
        let flat = movement::reshape(x[1], vec![dim((t * c) as u64)]);
        let all = movement::reshape(gather::take(x[2], flat, 0), [t, c, o, i].map(|n| dim(n as u64)).to_vec());
        let wide: Vec<_> = [t, c, o, i].map(|n| dim(n as u64)).to_vec();
        let values = reduce::restore(x[0], &wide, &[1, 2]);
        vec![reduce::reduce(mobilis_runtime::ops::elementwise::mul(all, values), reduce::Kind::Sum, &[3])]
    });
    mobilis_runtime::testing::close(&ours[0], &copied[0], 1e-12);
    let x = [real(&[4, 2, 3], 1), indices(&[3, 2, 2], 2, 2), real(&[3, 4], 3), real(&[3, 4], 4)];
    check(&x, |x| vec![experts(movement::permute(x[0], &[2, 1, 0]), x[1], &x[2..])]);
}

fn dim(n: u64) -> mobilis_runtime::graph::Dim {
    mobilis_runtime::graph::Dim::fixed(n)
}

fn fixed(n: u64) -> mobilis_runtime::graph::Extent {
    mobilis_runtime::graph::Extent::constant(n)
}

#[test]
fn mistakes_are_told_in_words() {
    let told = |given: &[Given]| try_traced(given, forward).expect_err("it is wrong").message;
    let mut x = given(3, 2, false, (2, 3), 2);
    x[3] = real(&[2, 4], 1);
    assert_eq!(told(&x), "experts: takes matrices of one size, is given [2, 3] and [2, 4]");
    assert_eq!(told(&x[..2]), "experts: takes values, choices and at least one matrix, is given 2 inputs");
    x[0] = real(&[4, 3], 1);
    let fault = "experts: takes values [.., i] or [.., c, i] for choices [.., c], is given [4, 3] and [3, 2] i32";
    assert_eq!(told(&x), fault);
    x[0] = real(&[3, 5], 1);
    x[3] = real(&[2, 3], 1);
    assert_eq!(told(&x), "experts: multiplies [3, 5] by matrices [2, 3] along `3`");
}

/// Factors rounded to 16 bits, which a GPU's tensor cores multiply: the same numbers, summed in another order.
#[test]
fn rounded_factors_agree_with_the_reference() {
    use mobilis_runtime::ops::elementwise::{UnaryKind, unary};
    for kind in [UnaryKind::Bf16, UnaryKind::F16] {
        for apart in [false, true] {
            let rounded = |x: &[Handle]| {
                let all: Vec<Handle> =
                    x.iter().enumerate().map(|(i, x)| if i == 1 { *x } else { unary(kind, *x) }).collect();
                vec![experts(all[0], all[1], &all[2..])]
            };
            check_cpu(&given(70, 2, apart, (24, 36), 5), &rounded, CPU);
        }
    }
}
