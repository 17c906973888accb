//! `einsum!`, `rearrange!`, `reduce!`: the values, against loops over indices.

use mobilis::devices::reference::RefArray;
use mobilis::prelude::*;
use mobilis::testing::{Given, check, close, evaluate, mask, real};

axes! {
    Two = 2;
    Three = 3;
    Four = 4;
    Five = 5;
    Six = Two * Three;
}

/// An array by its value at each index.
fn array(sizes: &[usize], f: impl Fn(&[usize]) -> f64) -> RefArray {
    let count = sizes.iter().product();
    let mut data = Vec::with_capacity(count);
    for mut flat in 0..count {
        let mut index = vec![0; sizes.len()];
        for (i, size) in index.iter_mut().zip(sizes).rev() {
            *i = flat % size;
            flat /= size;
        }
        data.push(f(&index));
    }
    RefArray::new(sizes, data)
}

/// The value at an index.
fn at(given: &Given, index: &[usize]) -> f64 {
    let flat = index.iter().zip(&given.array.sizes).fold(0, |flat, (i, size)| flat * size + i);
    given.array.data[flat]
}

fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..n).map(f).sum()
}

#[track_caller]
fn is(found: &[RefArray], sizes: &[usize], f: impl Fn(&[usize]) -> f64) {
    close(&found[0], &array(sizes, f), 1e-12);
}

#[test]
fn products_are_summed_over_what_the_result_lacks() {
    let (q, k) = (real(&[2, 3, 4], 1), real(&[2, 5, 4], 2));
    let given = [q.clone(), k.clone()];
    let scores = |h: &[_]| {
        let q: Tensor![Two, Three, Four] = Tensor::from_raw(h[0]);
        let k: Tensor![Two, Five, Four] = Tensor::from_raw(h[1]);
        vec![einsum!(q[b t d] * k[b s d] => [s b t]).raw()]
    };
    let expected = |i: &[usize]| sum(4, |d| at(&q, &[i[1], i[2], d]) * at(&k, &[i[1], i[0], d]));
    is(&evaluate(&given, scores), &[5, 2, 3], expected);
    check(&given, scores);
}

#[test]
fn diagonals_sums_and_outer_products() {
    let x = real(&[2, 3, 3], 1);
    let trace = |h: &[_]| {
        let x: Tensor![Two, Three, Three] = Tensor::from_raw(h[0]);
        vec![einsum!(x[b i i] => [b]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), trace), &[2], |i| sum(3, |d| at(&x, &[i[0], d, d])));
    check(std::slice::from_ref(&x), trace);
    let diagonal = |h: &[_]| {
        let x: Tensor![Two, Three, Three] = Tensor::from_raw(h[0]);
        vec![einsum!(x[b i i] => [i b]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), diagonal), &[3, 2], |i| at(&x, &[i[1], i[0], i[0]]));
    check(std::slice::from_ref(&x), diagonal);
    let y = real(&[3], 4);
    let weighted = |h: &[_]| {
        let x: Tensor![Two, Three, Three] = Tensor::from_raw(h[0]);
        let y: Tensor![Three] = Tensor::from_raw(h[1]);
        vec![einsum!(x[_ i i] * y[i] => []).raw()]
    };
    let given = [x.clone(), y.clone()];
    is(&evaluate(&given, weighted), &[], |_| sum(2, |b| sum(3, |i| at(&x, &[b, i, i]) * at(&y, &[i]))));
    check(&given, weighted);
    let rows = |h: &[_]| {
        let x: Tensor![Two, Three, Three] = Tensor::from_raw(h[0]);
        vec![einsum!(x[_ i _] => [i]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), rows), &[3], |i| sum(2, |b| sum(3, |j| at(&x, &[b, i[0], j]))));
    check(std::slice::from_ref(&x), rows);
    let (a, b) = (real(&[2], 1), real(&[3], 2));
    let outer = |h: &[_]| {
        let a: Tensor![Two] = Tensor::from_raw(h[0]);
        let b: Tensor![Three] = Tensor::from_raw(h[1]);
        vec![einsum!(a[i] * b[j] => [j i]).raw()]
    };
    is(&evaluate(&[a.clone(), b.clone()], outer), &[3, 2], |i| at(&a, &[i[1]]) * at(&b, &[i[0]]));
}

#[test]
fn three_operands() {
    let given = [real(&[2, 3], 1), real(&[3, 4], 2), real(&[4, 5], 3)];
    let chain = |h: &[_]| {
        let a: Tensor![Two, Three] = Tensor::from_raw(h[0]);
        let b: Tensor![Three, Four] = Tensor::from_raw(h[1]);
        let c: Tensor![Four, 5] = Tensor::from_raw(h[2]);
        vec![einsum!(a[n i] * b[i Four] * c[Four 5] => [5 n]).raw()]
    };
    is(&evaluate(&given, chain), &[5, 2], |i| {
        sum(3, |j| sum(4, |k| at(&given[0], &[i[1], j]) * at(&given[1], &[j, k]) * at(&given[2], &[k, i[0]])))
    });
    check(&given, chain);
}

#[test]
fn axes_are_split_permuted_and_merged() {
    let x = real(&[4, 6], 1);
    let split = |h: &[_]| {
        let x: Tensor![Four, Six] = Tensor::from_raw(h[0]);
        let y: Tensor![Three, Four, Two] = rearrange!(x[b (h d)] => [d b h]);
        vec![y.raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), split), &[3, 4, 2], |i| at(&x, &[i[1], i[2] * 3 + i[0]]));
    check(std::slice::from_ref(&x), split);
    let y = real(&[2, 4, 3], 1);
    let merge = |h: &[_]| {
        let y: Tensor![Two, Four, Three] = Tensor::from_raw(h[0]);
        vec![rearrange!(y[h b d] => [b (h d) as Six]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&y), merge), &[4, 6], |i| at(&y, &[i[1] / 3, i[0], i[1] % 3]));
    let swapped = |h: &[_]| {
        let y: Tensor![Two, Four, Three] = Tensor::from_raw(h[0]);
        vec![rearrange!(y[h b d] => [(d h) b]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&y), swapped), &[6, 4], |i| at(&y, &[i[0] % 2, i[1], i[0] / 2]));
}

#[test]
fn axes_are_repeated_inserted_and_dropped() {
    let x = real(&[1, 3, 2], 1);
    let f = |h: &[_]| {
        let x: Tensor![1, Three, Two] = Tensor::from_raw(h[0]);
        vec![rearrange!(x[1 a b] => [b Four 1 a]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), f), &[2, 4, 1, 3], |i| at(&x, &[0, i[3], i[0]]));
    check(std::slice::from_ref(&x), f);
    // Repeating each value, and repeating the whole.
    let each = |h: &[_]| {
        let x: Tensor![1, Three, Two] = Tensor::from_raw(h[0]);
        vec![rearrange!(x[1 a b] => [(a 2) b]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), each), &[6, 2], |i| at(&x, &[0, i[0] / 2, i[1]]));
    let whole = |h: &[_]| {
        let x: Tensor![1, Three, Two] = Tensor::from_raw(h[0]);
        vec![rearrange!(x[1 a b] => [(2 a) b]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), whole), &[6, 2], |i| at(&x, &[0, i[0] % 3, i[1]]));
}

#[test]
fn axes_are_reduced() {
    let x = real(&[2, 6, 4], 1);
    let pool = |h: &[_]| {
        let x: Tensor![Two, Six, Four] = Tensor::from_raw(h[0]);
        let y: Tensor![Four, Three, Two] = reduce!(max: x[b (t 2) c] => [c t b]);
        vec![y.raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), pool), &[4, 3, 2], |i| {
        at(&x, &[i[2], 2 * i[1], i[0]]).max(at(&x, &[i[2], 2 * i[1] + 1, i[0]]))
    });
    let mean = |h: &[_]| {
        let x: Tensor![Two, Six, Four] = Tensor::from_raw(h[0]);
        vec![reduce!(mean: x[b _ c] => [c 1 b]).raw()]
    };
    let average = |b: usize, c: usize| sum(6, |t| at(&x, &[b, t, c])) / 6.0;
    is(&evaluate(std::slice::from_ref(&x), mean), &[4, 1, 2], |i| average(i[2], i[0]));
    check(std::slice::from_ref(&x), mean);
    let var = |h: &[_]| {
        let x: Tensor![Two, Six, Four] = Tensor::from_raw(h[0]);
        vec![reduce!(var: x[b t c] => [b c]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), var), &[2, 4], |i| {
        sum(6, |t| (at(&x, &[i[0], t, i[1]]) - average(i[0], i[1])).powi(2)) / 5.0
    });
    let lse = |h: &[_]| {
        let x: Tensor![Two, Six, Four] = Tensor::from_raw(h[0]);
        vec![reduce!(logsumexp: x[b t c] => [b t]).raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), lse), &[2, 6], |i| sum(4, |c| at(&x, &[i[0], i[1], c]).exp()).ln());
    let all = |h: &[_]| {
        let x: Tensor![Two, Six, Four] = Tensor::from_raw(h[0]);
        let least: Tensor![] = reduce!(min: x[_ _ _] => []);
        vec![least.raw()]
    };
    is(&evaluate(std::slice::from_ref(&x), all), &[], |_| x.array.data.iter().copied().fold(f64::INFINITY, f64::min));
}

#[test]
fn masks_are_reduced() {
    let m = mask(&[5, 4], 3);
    let any = |h: &[_]| {
        let m: Tensor![Five, Four; PaddingMask] = Tensor::from_raw(h[0]);
        let any: Tensor![Five; Mask] = reduce!(any: m[b _] => [b]);
        let all: Tensor![Four; Mask] = reduce!(all: m[b t] => [t]);
        vec![any.raw(), all.raw()]
    };
    let found = evaluate(std::slice::from_ref(&m), any);
    let truth = |yes: bool| f64::from(u8::from(yes));
    close(&found[0], &array(&[5], |i| truth((0..4).any(|t| at(&m, &[i[0], t]) == 1.0))), 0.0);
    close(&found[1], &array(&[4], |i| truth((0..5).all(|b| at(&m, &[b, i[0]]) == 1.0))), 0.0);
}
