use mobilis_runtime::devices::reference::{self, RefArray};
use mobilis_runtime::graph::trace::{self, Handle, Mode};
use mobilis_runtime::graph::{DType, Dim, Graph, TensorType, VarKind};
use mobilis_runtime::ops::random::{Distribution, categorical, dropout, random};
use mobilis_runtime::ops::sample::{NOTHING, Sample, arguments};
use mobilis_runtime::ops::{elementwise as ew, leaf, reduce};
use mobilis_runtime::sampling::{self, Draw};
use mobilis_runtime::testing::{agree, index_values, noise, values};

fn traced(mode: Mode, f: impl FnOnce() -> Vec<Handle>) -> Graph {
    let (graph, ()) = trace::trace(None, mode, &|_| false, || f().into_iter().for_each(trace::output)).expect("traces");
    graph
}

/// The results at a seed and step, and the next state of `rng`.
fn run(graph: &Graph, seed: i64, step: i64) -> (Vec<RefArray>, Vec<RefArray>) {
    let vars = [RefArray::new(&[2], vec![seed as f64, step as f64])];
    let values = reference::run(graph, &Default::default(), &[], &vars).expect("runs");
    let get = |v: &mobilis_runtime::graph::Value| values.get(*v).clone();
    (graph.outputs.iter().map(get).collect(), graph.updates.iter().map(|u| get(&u.1)).collect())
}

fn vector(n: u64) -> TensorType {
    TensorType::new(vec![Dim::fixed(n)], DType::F32)
}

#[test]
fn every_operation_and_every_run_draws_its_own_numbers() {
    let graph = traced(Mode::Eval, || {
        let draw = || random(Distribution::Uniform, &vector(100));
        vec![draw(), draw()]
    });
    let [rng] = &graph.vars[..] else { panic!("one variable is declared, not {:?}", graph.vars) };
    assert_eq!((rng.name.as_str(), rng.kind), ("rng", VarKind::State));
    let (first, next) = run(&graph, 3, 0);
    assert_eq!(next, [RefArray::new(&[2], vec![3., 1.])]);
    let (again, _) = run(&graph, 3, 0);
    assert_eq!(first, again);
    let (second, _) = run(&graph, 3, 1);
    let (seeded, _) = run(&graph, 4, 0);
    for (a, b) in [(&first[0], &first[1]), (&first[0], &second[0]), (&first[0], &seeded[0])] {
        assert!(a.data.iter().zip(&b.data).all(|(x, y)| x != y));
    }
}

#[test]
fn uniform_numbers_are_the_generators_words() {
    // Philox 4x32-10 of counter 0 and key 0, published by its authors, but with stream 1 in the
    // counter's third word; the first word is computed by the kernel that is tested against them.
    let graph = traced(Mode::Eval, || vec![random(Distribution::Uniform, &vector(5))]);
    let (out, _) = run(&graph, 0, 0);
    let words = |block| mobilis_kernels::philox::philox4x32([block, 0, 1, 0], [0, 0]);
    let unit = |w: u32| f64::from(w >> 8) / f64::from(1 << 24);
    let expected: Vec<f64> = words(0).into_iter().chain(words(1)).take(5).map(unit).collect();
    assert_eq!(out[0].data, expected);
}

#[test]
fn dropout_keeps_the_mean_and_is_nothing_in_inference() {
    let drop = || {
        let x = leaf::fill(1.0, vector(40_000));
        vec![dropout(x, 0.25), x]
    };
    let (out, _) = run(&traced(Mode::Train, drop), 1, 1);
    let kept = out[0].data.iter().filter(|v| **v != 0.0).count() as f64;
    assert!(out[0].data.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-12));
    // Five standard deviations.
    assert!((kept - 30_000.0).abs() < 5.0 * (40_000.0f64 * 0.25 * 0.75).sqrt());
    let graph = traced(Mode::Eval, drop);
    assert_eq!(graph.outputs[0], graph.outputs[1]);
    for rate in [-0.1, 1.0, f64::NAN] {
        let wrong = trace::trace(None, Mode::Train, &|_| false, || dropout(leaf::scalar(1.0), rate));
        let message = wrong.expect_err("is refused").message;
        assert_eq!(message, format!("dropout: a rate of {rate} does not lie in 0 to 1 (excluded)"));
    }
}

#[test]
fn the_gradient_of_dropout_is_its_mask() {
    let ty = vector(50);
    let (mut graph, x) = trace::trace(None, Mode::Train, &|_| false, || {
        let x = leaf::fill(2.0, ty.clone());
        let y = dropout(x, 0.5);
        trace::output(reduce::reduce(ew::mul(y, y), reduce::Kind::Sum, &[0]));
        trace::output(y);
        trace::value(x)
    })
    .expect("traces");
    let loss = graph.outputs[0];
    let grads = mobilis_runtime::transforms::grad::grad(&mut graph, loss, &[x]).expect("has a gradient");
    assert_eq!(graph.vars.len(), 1, "differentiation declares no second counter");
    graph.outputs.extend(grads);
    let (out, _) = run(&graph, 0, 5);
    for (y, g) in out[1].data.iter().zip(&out[2].data) {
        // y = 2 m and m = 2 or 0; d(y^2)/dx = 2 y m.
        assert_eq!(*g, 2.0 * y * (y / 2.0));
    }
}

#[test]
fn categories_are_drawn_by_their_probabilities() {
    let n = 30_000;
    let graph = traced(Mode::Eval, || {
        let row = leaf::iota(0, &TensorType::new(vec![Dim::fixed(4)], DType::I32));
        let row = ew::cast(row, DType::F32);
        // Logits 0, 1, 2 and minus infinity.
        let last = ew::compare(ew::CompareKind::Eq, row, leaf::scalar(3.0));
        let row = ew::select(last, leaf::scalar(f64::NEG_INFINITY), row);
        let wide = mobilis_runtime::ops::movement::broadcast(row, vec![Dim::fixed(n), Dim::fixed(4)]);
        vec![categorical(wide, 1)]
    });
    let (out, _) = run(&graph, 0, 0);
    let total: f64 = (0..3).map(|k| (k as f64).exp()).sum();
    for k in 0..3 {
        let p = (k as f64).exp() / total;
        let found = out[0].data.iter().filter(|v| **v == k as f64).count() as f64;
        assert!((found - n as f64 * p).abs() < 5.0 * (n as f64 * p * (1.0 - p)).sqrt(), "{k}: {found}");
    }
    assert!(out[0].data.iter().all(|v| *v < 3.0));
}

#[test]
fn devices_draw_the_same_and_seeds_decide() -> Result<(), Box<dyn std::error::Error>> {
    use mobilis::module::store::Store;
    use mobilis::prelude::*;
    use mobilis::program::Executable;
    axes! { Batch = 3; Many = 5001; }
    type Out = (Tensor<(Batch, Many)>, Tensor<(Many,)>, Tensor<(Many,), Mask>, Tensor<(Batch,), Index>);
    let draw = || -> Out {
        let x = Tensor::<(Batch, Many)>::normal();
        (x, Tensor::uniform(), Tensor::<(Many,), Mask>::bernoulli(0.3), x.categorical(Many))
    };
    let program = |device, store: Store| -> Program<(), Out> {
        let (graph, ()) = trace::trace(None, Mode::Eval, &|_| false, || {
            let (a, b, c, d) = draw();
            [a.raw(), b.raw(), c.raw(), d.raw()].into_iter().for_each(trace::output);
        })
        .expect("traces");
        Program::new(Executable::new(graph, device, store, Sizes::new()))
    };
    let stores: Vec<Store> = [7, 7, 8]
        .iter()
        .map(|seed| {
            let s = Store::new();
            s.seed(*seed);
            s
        })
        .collect();
    stores[1].to_reference();
    let cpu = program(Device::Cpu, stores[0].clone());
    let (x1, u1, m1, c1) = cpu.run(())?;
    let (x2, ..) = cpu.run(())?;
    assert_ne!(x1.data(), x2.data(), "the second run draws other numbers");
    let reference = program(Device::Reference, stores[1].clone());
    let (xr, ur, mr, cr) = reference.run(())?;
    assert_eq!((u1.data(), m1.data(), c1.data()), (ur.data(), mr.data(), cr.data()));
    assert!(x1.data().iter().zip(xr.data()).all(|(a, b)| (a - b).abs() < 1e-6));
    let (x3, ..) = program(Device::Cpu, stores[2].clone()).run(())?;
    assert_ne!(x1.data(), x3.data(), "another seed draws other numbers");
    stores[2].seed(7);
    let (x4, ..) = program(Device::Cpu, stores[2].clone()).run(())?;
    assert_eq!(x1.data(), x4.data(), "the same seed draws the same numbers");
    Ok(())
}

/// Settings and numbers come with every run; the draw itself is compared with words and formulas in the kernels' tests.
#[test]
fn tokens_are_drawn_alike_on_all_devices() {
    let (rows, n) = (12, 40);
    let draws: Vec<Draw> = (0..rows as u64)
        .map(|i| Draw {
            temperature: [1.0, 0.0, 0.6][i as usize % 3],
            top_k: [0, 5][i as usize % 2],
            top_p: [1.0, 0.8, 1.0, 0.3][i as usize % 4],
            min_p: 0.01,
            seed: 5 << 33 | 9,
            sequence: 2,
            step: i,
        })
        .collect();
    let mut logits: Vec<f64> = (0..rows * n).map(|i| noise(3, i as u64) as f32 as f64 * 4.0).collect();
    logits[n..2 * n].fill(f64::NEG_INFINITY);
    let (settings, numbers): (Vec<_>, Vec<_>) = draws.iter().map(arguments).unzip();
    let settings: Vec<f64> = settings.concat().iter().map(|v| f64::from(*v)).collect();
    let numbers: Vec<i64> = numbers.concat().iter().map(|v| i64::from(*v)).collect();
    let given = [values(&[rows, n], &logits), values(&[rows, 3], &settings), index_values(&[rows, 5], &numbers)];
    let found = agree(&given, |h| vec![trace::op1(Sample, h)], 0.0);
    for (row, (found, draw)) in found[0].data.iter().zip(&draws).enumerate() {
        let logits: Vec<f32> = logits[row * n..][..n].iter().map(|v| *v as f32).collect();
        let expected = sampling::sample(&logits, draw, &mut vec![]).expect("they are numbers");
        assert_eq!(*found, expected.map_or(f64::from(NOTHING), f64::from), "row {row}");
    }
    assert!(found[0].data[1] == -1.0 && found[0].data.iter().filter(|t| **t >= 0.0).count() == rows - 1);
}
