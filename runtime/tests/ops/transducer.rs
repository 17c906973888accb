//! Transducer losses: against all paths one by one, differences, the originals' losses and gradients, every length, and
//! with a joint network against the same in parts.

use super::golden;
use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::DType;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::transducer::{Joint, TransducerOptions, transducer};
use mobilis_runtime::testing::{
    CPU, Given, agree, check_cpu, check_gradient, close, evaluate, index_values, real, traced, try_traced,
};

fn f(joint: Option<Joint>, o: &TransducerOptions) -> impl Fn(&[Handle]) -> Vec<Handle> {
    move |x| {
        let (sources, rest) = x.split_at(x.len() - 3);
        vec![transducer(sources, [rest[0], rest[1], rest[2]], joint, o)]
    }
}

fn kinds() -> Vec<TransducerOptions> {
    let tdt = TransducerOptions::tdt(2, [0, 1, 3]);
    vec![
        TransducerOptions::rnnt(2),
        TransducerOptions::rnnt(0),
        TransducerOptions { sigma: 0.3, ..tdt.clone() },
        TransducerOptions { sigma: 0.05, omega: 0.25, ..tdt },
        TransducerOptions::tdt(2, [1, 2]),
    ]
}

/// The probability of the rest of a path, by going every way.
fn ways(
    p: &dyn Fn(usize, usize) -> Vec<f64>,
    o: &TransducerOptions,
    said: &[usize],
    end: usize,
    at: (usize, usize),
) -> f64 {
    let (t, u) = at;
    if t >= end {
        return 0.0;
    }
    let x = p(t, u);
    let tokens = x.len() - o.durations.len();
    let softmax = |x: &[f64], v: usize| x[v].exp() / x.iter().map(|x| x.exp()).sum::<f64>();
    let spans: Vec<(usize, usize, f64, bool)> = match o.durations.is_empty() {
        true => vec![(1, 0, 1.0, true), (0, 1, 1.0, false)],
        false => o
            .durations
            .iter()
            .enumerate()
            .flat_map(|(i, d)| {
                let w = softmax(&x[tokens..], i) * (-o.sigma).exp();
                [(*d, 0, w, *d > 0), (*d, 1, w, false)].into_iter().filter(|s| s.1 == 1 || s.3)
            })
            .collect(),
    };
    let way = |(d, label, w, _): (usize, usize, f64, bool)| match label {
        0 if t + d == end && u == said.len() => w * softmax(&x[..tokens], o.blank),
        0 => w * softmax(&x[..tokens], o.blank) * ways(p, o, said, end, (t + d, u)),
        _ if u == said.len() => 0.0,
        _ => w * softmax(&x[..tokens], said[u]) * ways(p, o, said, end, (t + d, u + 1)),
    };
    spans.into_iter().map(way).sum()
}

fn batch(frames: &[i64], counts: &[i64], targets: &Given) -> [Given; 3] {
    [targets.clone(), index_values(&[frames.len()], frames), index_values(&[counts.len()], counts)]
}

#[test]
fn is_the_sum_of_all_paths() {
    for o in kinds().into_iter().filter(|o| o.omega == 0.0) {
        let (other, wide) = (1 - (o.blank == 1) as i64, 4 + o.durations.len());
        for (frames, said) in
            [(3, vec![1, 1]), (4, vec![3]), (2, vec![]), (1, vec![1, 3, other.max(1)]), (4, vec![1, 3, 1])]
        {
            let (t, u) = (frames as usize, said.len());
            let x = real(&[1, t, u + 1, wide], 3);
            let [a, b, c] = batch(&[frames], &[u as i64], &index_values(&[1, u], &said));
            let found = evaluate(&[x.clone(), a, b, c], f(None, &o)).remove(0).data[0];
            let p = |t: usize, u: usize| x.array.data[x.array.offset(&[0, t, u, 0])..][..wide].to_vec();
            let said: Vec<usize> = said.iter().map(|l| *l as usize).collect();
            let expected = -ways(&p, &o, &said, t, (0, 0)).ln();
            assert!((found - expected).abs() < 1e-12 || found == expected, "{o:?} {said:?}: {found} {expected}");
        }
    }
}

/// Values of a batch with every kind of lengths: all, fewer, no labels, one frame, no frames, more than there are.
fn lengths() -> [Given; 3] {
    let targets = index_values(&[6, 2], &[1, 1, 3, 99, -5, 7, 1, 3, 3, 1, 3, 3]);
    batch(&[4, 3, 4, 1, 0, 9], &[2, 1, 0, 2, 1, 5], &targets)
}

/// Omega: the mean over NeMo's coin, which is RNN-T's loss over the tokens with this probability, and else TDT's.
#[test]
fn omega_is_the_mean_over_a_coin() {
    let o = TransducerOptions { sigma: 0.05, omega: 0.25, ..TransducerOptions::tdt(2, [0, 1, 3]) };
    let x = real(&[2, 4, 3, 7], 1);
    let tokens = {
        let (all, mut few) = (x.array.clone(), real(&[2, 4, 3, 4], 1));
        for (i, value) in few.array.data.iter_mut().enumerate() {
            *value = all.data[i / 4 * 7 + i % 4];
        }
        few
    };
    let rest = || batch(&[4, 3], &[2, 1], &index_values(&[2, 2], &[1, 1, 3, 0]));
    let loss = |x: &Given, o: &TransducerOptions| {
        let given: Vec<Given> = [x.clone()].into_iter().chain(rest()).collect();
        evaluate(&given, f(None, o)).remove(0).data
    };
    let (mixed, tdt) = (loss(&x, &o), loss(&x, &TransducerOptions { omega: 0.0, ..o.clone() }));
    let rnnt = loss(&tokens, &TransducerOptions::rnnt(2));
    for i in 0..2 {
        assert!((mixed[i] - 0.75 * tdt[i] - 0.25 * rnnt[i]).abs() < 1e-12, "{mixed:?} {tdt:?} {rnnt:?}");
    }
    assert!((tdt[0] - rnnt[0]).abs() > 1e-3, "{tdt:?} {rnnt:?}");
}

/// A loss that no path has is infinite: these sequences are summed without it.
fn finite(losses: Handle) -> Vec<Handle> {
    use mobilis_runtime::graph::trace::type_of;
    use mobilis_runtime::ops::{elementwise as ew, leaf};
    let never = ew::compare(ew::CompareKind::Gt, losses, leaf::fill(1e9, type_of(losses)));
    vec![ew::select(never, leaf::fill(0.0, type_of(losses)), losses)]
}

#[test]
fn every_length() {
    for o in kinds() {
        let x = real(&[6, 4, 3, 4 + o.durations.len()], 1);
        let given: Vec<Given> = [x].into_iter().chain(lengths()).collect();
        let safe = |x: &[Handle]| finite(f(None, &o)(x)[0]);
        check_gradient(&given, &safe);
        check_cpu(&given, &safe, 10.0 * CPU);
        let losses = agree(&given, f(None, &o), CPU).remove(0).data;
        assert_eq!(losses[4], f64::INFINITY, "no frames");
        assert!(losses[0].is_finite() && losses[2].is_finite());
    }
}

#[test]
fn joined_with_its_network() {
    let all = kinds();
    for (joint, o) in [(Joint::Relu, &all[0]), (Joint::Tanh, &all[2]), (Joint::Relu, &all[3])] {
        let v = 4 + o.durations.len();
        let sources = [real(&[6, 4, 2], 1), real(&[6, 3, 2], 2), real(&[v, 2], 3), real(&[v], 4)];
        let given: Vec<Given> = sources.into_iter().chain(lengths()).collect();
        let safe = |x: &[Handle]| finite(f(Some(joint), o)(x)[0]);
        check_gradient(&given, &safe);
        check_cpu(&given, &safe, 10.0 * CPU);
    }
}

#[test]
fn large_and_empty_ones() {
    for [b, t, u, v, h] in [[2, 30, 12, 70, 40], [1, 1, 0, 3, 1], [0, 3, 2, 4, 3], [2, 0, 1, 3, 2], [2, 3, 1, 3, 0]] {
        for o in
            [TransducerOptions::rnnt(0), TransducerOptions { sigma: 0.1, ..TransducerOptions::tdt(0, [0, 1, 2, 4]) }]
        {
            let wide = v + o.durations.len();
            let said: Vec<i64> = (0..b * u).map(|i| 1 + (i * 7 % (v - 1)) as i64).collect();
            let (frames, counts): (Vec<i64>, Vec<i64>) =
                (0..b as i64).map(|b| (t as i64 - 4 * b, u as i64 - b)).unzip();
            let rest = batch(&frames, &counts, &index_values(&[b, u], &said));
            let logits = [real(&[b, t, u + 1, wide], 1)];
            let joined = [real(&[b, t, h], 1), real(&[b, u + 1, h], 2), real(&[wide, h], 3), real(&[wide], 4)];
            for (sources, joint) in [(logits.to_vec(), None), (joined.to_vec(), Some(Joint::Tanh))] {
                let given: Vec<Given> = sources.into_iter().chain(rest.clone()).collect();
                check_cpu(&given, &|x| finite(f(joint, &o)(x)[0]), 10.0 * CPU);
            }
        }
    }
}

/// FastEmit and clamping change the gradient alone.
#[test]
fn bent_gradients() {
    let plain = TransducerOptions::rnnt(2);
    let given: Vec<Given> = [real(&[6, 4, 3, 4], 1)].into_iter().chain(lengths()).collect();
    for o in [
        TransducerOptions { fastemit: 0.3, ..plain.clone() },
        TransducerOptions { clamp: 0.05, ..plain.clone() },
        TransducerOptions { fastemit: 0.1, clamp: 0.2, ..TransducerOptions::tdt(2, [0, 1, 3]) },
    ] {
        let x = real(&[6, 4, 3, 4 + o.durations.len()], 1);
        let given: Vec<Given> = [x].into_iter().chain(given[1..].to_vec()).collect();
        check_cpu(&given, &|x| finite(f(None, &o)(x)[0]), 10.0 * CPU);
    }
    // One frame, one label: FastEmit adds its part of the label's own gradient.
    let one: Vec<Given> =
        [real(&[1, 1, 2, 3], 1)].into_iter().chain(batch(&[1], &[1], &index_values(&[1, 1], &[0]))).collect();
    let by = |o: TransducerOptions| gradient(&one, &o);
    let (found, expected) = (by(TransducerOptions { fastemit: 0.5, ..plain.clone() }), by(plain));
    for (v, (found, expected)) in found.data.iter().zip(&expected.data).enumerate() {
        let by = if v < 3 { 1.5 } else { 1.0 };
        assert!((found - by * expected).abs() < 1e-12, "{v}: {found} {expected}");
    }
}

/// The gradient of the sum of the losses by the logits.
fn gradient(given: &[Given], o: &TransducerOptions) -> RefArray {
    use mobilis_runtime::devices::reference;
    use mobilis_runtime::graph::Value;
    use mobilis_runtime::ops::{Op, reduce};
    use mobilis_runtime::transforms::grad::grad;
    let mut graph = traced(given, |x| vec![reduce::reduce(f(None, o)(x)[0], reduce::Kind::Sum, &[0])]);
    let node = graph.nodes.iter().position(|n| matches!(&n.op, Op::Input(op) if op.index == 0)).expect("the logits");
    let loss = graph.outputs[0];
    let by = grad(&mut graph, loss, &[Value { node: node as u32, port: 0 }]).expect("a gradient");
    let inputs: Vec<RefArray> = given.iter().map(|g| g.array.clone()).collect();
    let values = reference::run(&graph, &mobilis_runtime::Sizes::new(), &inputs, &[]).expect("it runs");
    values.get(by[0]).clone()
}

#[test]
fn equals_nemo() {
    for (folder, o, loss) in [
        ("nemo_fastconformer_rnnt", TransducerOptions::rnnt(64), "loss.per_sample"),
        ("nemo_fastconformer_tdt", TransducerOptions::tdt(64, [0, 1, 2, 3, 4]), "out.loss_per_sample"),
    ] {
        let Some(golden) = golden(folder) else { return };
        let whole = |name: &str| Given { array: golden[name].clone(), dtype: DType::I32 };
        let joint = Given { array: golden["out.joint"].clone(), dtype: DType::F32 };
        let given = [joint, whole("in.targets"), whole("out.encoder_length"), whole("in.target_length")];
        let found = agree(&given, f(None, &o), 3e-6);
        close(&found[0], &golden[loss], 3e-6);
        if let Some(expected) = golden.get("loss.grad_logits_of_sum") {
            close(&gradient(&given, &o), expected, 2e-6);
            check_cpu(&given, &f(None, &o), CPU);
        }
    }
}

#[test]
fn mistakes_are_told_in_words() {
    let given = |sizes: &[usize]| -> Vec<Given> {
        [real(sizes, 1)].into_iter().chain(batch(&[1], &[1], &index_values(&[1, 1], &[0]))).collect()
    };
    let told = |x: &[Given], o: &TransducerOptions| try_traced(x, f(None, o)).expect_err("it is wrong").message;
    let (rnnt, sized) = (TransducerOptions::rnnt(2), given(&[1, 2, 2, 4]));
    assert!(told(&given(&[1, 2, 1, 4]), &rnnt).contains("takes 2 nodes of a frame for 1 labels, is given 1"));
    assert!(told(&given(&[1, 2, 2]), &rnnt).contains("takes logits [b, t, u + 1, v]"));
    assert!(told(&sized, &TransducerOptions::rnnt(4)).contains("has blank 4"));
    assert!(told(&sized, &TransducerOptions::tdt(2, [0, 1])).contains("do not hold"));
    assert!(told(&sized, &TransducerOptions::tdt(0, [0])).contains("one above 0"));
}
