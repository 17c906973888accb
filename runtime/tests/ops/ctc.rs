//! CTC: against all paths one by one, differences, the original's losses, and every length.

use super::golden;
use mobilis_runtime::devices::reference::{self, RefArray};
use mobilis_runtime::graph::DType;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::graph::trace::{self, Mode};
use mobilis_runtime::ops::ctc::{CtcOptions, ctc};
use mobilis_runtime::ops::transducer::{Joint, TransducerOptions};
use mobilis_runtime::prelude::*;
use mobilis_runtime::testing::{
    CPU, Given, agree, check, check_cpu, check_devices, check_gradient, close, evaluate, index_values, indices, real,
    try_traced, values,
};

const OPTIONS: CtcOptions = CtcOptions { blank: 2, zero_infinity: true };

fn f(options: CtcOptions) -> impl Fn(&[Handle]) -> Vec<Handle> {
    move |x| vec![ctc(x[0], x[1], [x[2], x[3]], options)]
}

/// Labels of a batch, none of which is `blank`.
fn labels(b: usize, u: usize, classes: usize, blank: i64) -> Given {
    let mut all = indices(&[b, u], classes - 1, 5);
    all.array.data.iter_mut().for_each(|l| *l += (*l >= blank as f64) as u8 as f64);
    all
}

/// Minus the logarithm of the probability of all paths that give the labels.
fn brute(logits: &[f64], classes: usize, labels: &[usize], blank: usize) -> f64 {
    let p: Vec<Vec<f64>> = logits
        .chunks(classes)
        .map(|x| {
            let all: f64 = x.iter().map(|v| v.exp()).sum();
            x.iter().map(|v| v.exp() / all).collect()
        })
        .collect();
    let mut total = 0.0;
    for mut n in 0..classes.pow(p.len() as u32) {
        let (mut path, mut found, mut before) = (1.0, vec![], blank);
        for p in &p {
            let class = n % classes;
            n /= classes;
            path *= p[class];
            if class != blank && class != before {
                found.push(class);
            }
            before = class;
        }
        total += if found == labels { path } else { 0.0 };
    }
    -f64::ln(total)
}

#[test]
fn is_the_sum_of_all_paths() {
    let said = [vec![0, 1], vec![1, 1], vec![], vec![0], vec![0, 0, 1], vec![1, 0, 1, 0, 1]];
    for (b, said) in said.iter().enumerate() {
        for blank in [0, 2] {
            let said: Vec<usize> = said.iter().map(|l| l + (blank == 0) as usize).collect();
            let x = real(&[1, 5, 3], b as u64);
            let targets: Vec<i64> = said.iter().map(|l| *l as i64).collect();
            let given = [
                x.clone(),
                index_values(&[1, said.len()], &targets),
                index_values(&[1], &[5]),
                index_values(&[1], &[said.len() as i64]),
            ];
            let found = evaluate(&given, f(CtcOptions { blank, zero_infinity: false }));
            let expected = brute(&x.array.data, 3, &said, blank);
            assert!((found[0].data[0] - expected).abs() < 1e-12, "{said:?}: {found:?} {expected}");
            check(&given, f(CtcOptions { blank, zero_infinity: false }));
        }
    }
}

#[test]
fn every_length() {
    // Repeated labels; no labels; no frames; neither; too few frames; lengths beyond what is there.
    let targets = index_values(&[7, 3], &[0, 0, 1, 3, 1, 0, -7, 99, 2, 1, 9, 9, 3, 3, 3, 0, 1, 3, 3, 1, 0]);
    let given = [
        real(&[7, 6, 4], 1),
        targets,
        index_values(&[7], &[6, 5, 4, 0, 2, 0, 9]),
        index_values(&[7], &[3, 2, 0, 1, 3, 0, 7]),
    ];
    // The losses, of both signs in the sum of which gradients are taken, mostly cancel.
    check_gradient(&given, &f(OPTIONS));
    check_cpu(&given, &f(OPTIONS), 10.0 * CPU);
    let losses = evaluate(&given, f(OPTIONS)).remove(0).data;
    assert_eq!([losses[3], losses[4], losses[5]], [0.0; 3]);
    let never = agree(&given, f(CtcOptions { zero_infinity: false, ..OPTIONS }), CPU).remove(0).data;
    assert_eq!([never[3], never[4], never[5]], [f64::INFINITY, f64::INFINITY, 0.0]);
    // What lies beyond the lengths changes nothing.
    let mut other = given.clone();
    for (b, frames) in [6, 5, 4, 0, 2, 0, 6].into_iter().enumerate() {
        other[0].array.data[(b * 6 + frames) * 4..(b + 1) * 24].fill(1e9);
    }
    assert_eq!(evaluate(&other, f(OPTIONS))[0].data, losses);
    agree(&other, f(OPTIONS), CPU);
}

#[test]
fn large_and_empty_ones() {
    for [b, t, u, v] in [[3, 60, 25, 33], [2, 200, 90, 300], [1, 1, 0, 1], [0, 4, 2, 3], [2, 0, 1, 3], [2, 3, 0, 4]] {
        let blank = if v > 2 { 2 } else { 0 };
        let (frames, counts): (Vec<i64>, Vec<i64>) =
            (0..b as i64).map(|b| (t as i64 - 3 * b, u as i64 - 2 * b)).unzip();
        let targets = if u == 0 { index_values(&[b, 0], &[]) } else { labels(b, u, v, blank as i64) };
        let given = [real(&[b, t, v], 1), targets, index_values(&[b], &frames), index_values(&[b], &counts)];
        // The CPU adds paths in `f64`. GPUs keep their logarithms in `f32`: of 200 frames these are some -1000, whose last
        // bit is 6e-5, and gradients are exponentials of their differences. One class is blank alone: its gradient is
        // the rounding error of 1 - 1.
        let tolerances = if v == 1 { [1e-3; 2] } else { [CPU, 20.0 * CPU] };
        check_devices(&given, &f(CtcOptions { blank, zero_infinity: true }), tolerances);
    }
}

/// Classes that cannot be, and logits that overflow if they are raised.
#[test]
fn impossible_and_large_logits() {
    let never = f64::NEG_INFINITY;
    let x = values(&[2, 2, 3], &[1e4, 0.0, never, 0.0, 1e4, never, never, 0.0, 0.0, 0.0, never, never]);
    let given = [x, index_values(&[2, 2], &[0, 1, 1, 0]), index_values(&[2], &[2, 2]), index_values(&[2], &[2, 2])];
    let found = agree(&given, f(CtcOptions { blank: 2, zero_infinity: false }), CPU);
    assert_eq!(found[0].data[0], 0.0);
    assert!((found[0].data[1] - 2f64.ln()).abs() < 1e-12);
    check_cpu(&given, &f(CtcOptions { blank: 2, zero_infinity: false }), CPU);
}

#[test]
fn equals_nemo() {
    for folder in ["nemo_quartznet", "nemo_conformer_ctc", "nemo_fastconformer_ctc"] {
        let Some(golden) = golden(folder) else { return };
        let of = |name: &str| &golden[name];
        let whole = |name: &str| Given { array: of(name).clone(), dtype: DType::I32 };
        let log_probs = Given { array: of("out.log_probs").clone(), dtype: DType::F32 };
        let blank = log_probs.array.sizes[2] - 1;
        let given = [log_probs, whole("in.targets"), whole("out.encoder_length"), whole("in.target_length")];
        let found = agree(&given, f(CtcOptions { blank, zero_infinity: true }), 3e-6);
        close(&found[0], of("out.ctc_per_sample"), 3e-6);
    }
}

#[test]
fn mistakes_are_told_in_words() {
    let given = |classes: usize, said: i64, lengths: usize| {
        [real(&[1, 3, classes], 1), index_values(&[1, 1], &[said]), index_values(&[lengths], &vec![1; lengths]), {
            index_values(&[1], &[1])
        }]
    };
    let told = |x: &[Given]| try_traced(x, f(OPTIONS)).expect_err("it is wrong").message;
    assert!(told(&given(2, 0, 1)).contains("has class 2 for blank"), "{}", told(&given(2, 0, 1)));
    assert!(told(&given(4, 0, 2)).contains("a number of frames and of labels for each"));
    for said in [2, 4, -1] {
        let x = given(4, said, 1);
        let found = std::panic::catch_unwind(|| evaluate(&x, f(OPTIONS))).expect_err("it is no label");
        let found = found.downcast_ref::<String>().expect("words");
        assert!(found.contains(&format!("label {said} of sequence 0")), "{found}");
    }
}

axes! { Batch; Frames; Text; Said; Classes = 4; Hidden = 2; }

/// Every way of joining losses, and the typed methods of both kinds of losses.
#[test]
fn reductions() {
    fn given<S: Shape, E: Element>(name: &str) -> Tensor<S, E> {
        Tensor::from_raw(trace::input(name.into(), <Tensor<S, E>>::type_of(), ""))
    }
    let (graph, ()) = trace::trace(None, Mode::Eval, &|_| false, || {
        let text: Tensor<(Batch, Text), TokenId> = given("text");
        let frames: Tensor<(Batch,), Lengths<Frames>> = given("frames");
        let letters: Tensor<(Batch,), Lengths<Text>> = given("letters");
        let logits: Tensor<(Batch, Frames, Classes)> = given("logits");
        let said: Tensor<(Batch, Said, Hidden)> = given("said");
        let heard: Tensor<(Batch, Frames, Hidden)> = given("heard");
        let weight: Tensor<(Classes, Hidden)> = given("weight");
        let bias: Tensor<(Classes,)> = given("bias");
        let ctc = || logits.ctc_loss(text, frames, letters, CtcOptions { blank: 3, zero_infinity: false });
        trace::output(ctc().each().raw());
        for joined in [ctc().sum(), ctc().mean_batch(), ctc().mean(), ctc().mean_volume()] {
            trace::output(joined.raw());
        }
        let o = TransducerOptions::rnnt(3);
        trace::output(heard.joint_loss(said, (weight, bias), Joint::Tanh, text, frames, letters, &o).each().raw());
    })
    .expect("traces");
    let array = |sizes: &[usize], seed| real(sizes, seed).array;
    let whole = |sizes: &[usize], v: &[f64]| RefArray::new(sizes, v.to_vec());
    let inputs = [
        whole(&[3, 2], &[0.0, 1.0, 2.0, 0.0, 0.0, 0.0]),
        whole(&[3], &[4.0, 3.0, 4.0]),
        whole(&[3], &[2.0, 1.0, 0.0]),
        array(&[3, 4, 4], 1),
        array(&[3, 3, 2], 2),
        array(&[3, 4, 2], 3),
        array(&[4, 2], 4),
        array(&[4], 5),
    ];
    let sizes = Sizes::new().with::<Batch>(3).with::<Frames>(4).with::<Text>(2).with::<Said>(3);
    let values = reference::run(&graph, &sizes, &inputs, &[]).expect("runs");
    let found: Vec<Vec<f64>> = graph.outputs.iter().map(|v| values.get(*v).data.clone()).collect();
    let [a, b, c] = found[0][..] else { panic!("three losses") };
    let expected = [a + b + c, (a + b + c) / 3.0, (a / 2.0 + b + c) / 3.0, (a + b + c) / 3.0];
    for (found, expected) in found[1..5].iter().zip(expected) {
        assert!((found[0] - expected).abs() < 1e-12, "{found:?} {expected}");
    }
    assert!(found[5].len() == 3 && found[5].iter().all(|l| l.is_finite() && *l > 0.0));
}
