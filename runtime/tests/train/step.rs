//! Clipping, accumulation, freezing and the shape of the step program.

use crate::reference::{Machine, loss, parameter, real, scalar};

use mobilis::devices::reference::RefArray;
use mobilis::graph::{DType, Graph, Value, VarDecl, VarKind};
use mobilis::ops::{contraction, elementwise as ew, reduce};
use mobilis::testing::noise;
use mobilis::train::{AdamW, BuildError, Group, Sgd, TrainOptions, build_step};
use mobilis::transforms::grad::GradError;

fn values(n: usize, seed: u64) -> Vec<f64> {
    (0..n).map(|i| noise(seed, i as u64)).collect()
}

/// `sum(a * x) + sum(b * y)`: the gradients are the inputs.
fn linear_loss(params: &[VarDecl]) -> Graph {
    loss(params, &[&[3], &[2]], |p, x| {
        let dot = |a, b| reduce::reduce(ew::mul(a, b), reduce::Kind::Sum, &[0]);
        vec![ew::add(dot(p[0], x[0]), dot(p[1], x[1])), x[1]]
    })
}

fn two() -> [VarDecl; 2] {
    [parameter("a", &[3]), parameter("b", &[2])]
}

#[test]
fn clips_by_the_global_norm() {
    let params = two();
    // The norm is sqrt(9 + 16 + 144) = 13.
    let inputs = [RefArray::new(&[3], vec![3.0, 0.0, -4.0]), RefArray::new(&[2], vec![0.0, 12.0]), scalar(1.0)];
    for (bound, factor) in [(6.5, 6.5 / (13.0 + 1e-6)), (20.0, 1.0)] {
        let options = TrainOptions::default().clip_norm(bound);
        let step = build_step(linear_loss(&params), &Sgd::new(1.0), &options).unwrap();
        let mut machine = Machine::default();
        let outputs = machine.run(&step.update, &inputs);
        assert_eq!(outputs[1].data, [13.0]);
        assert_eq!(outputs[2].data, [0.0, 12.0]);
        let a: Vec<f64> = [3.0, 0.0, -4.0].iter().map(|g| -g * factor).collect();
        assert_eq!(machine.values[&params[0].id].data, a);
        assert_eq!(machine.values[&params[1].id].data, [-0.0, -12.0 * factor]);
    }
}

#[test]
fn clips_by_value() {
    let params = two();
    let step = build_step(linear_loss(&params), &Sgd::new(1.0), &TrainOptions::default().clip_value(2.5)).unwrap();
    let mut machine = Machine::default();
    let inputs = [RefArray::new(&[3], vec![3.0, 1.0, -4.0]), RefArray::new(&[2], vec![0.0, 2.0]), scalar(1.0)];
    machine.run(&step.update, &inputs);
    assert_eq!(machine.values[&params[0].id].data, [-2.5, -1.0, 2.5]);
    assert_eq!(machine.values[&params[1].id].data, [0.0, -2.0]);
}

fn fit(params: &[VarDecl; 2], batch: usize) -> Graph {
    loss(params, &[&[batch, 3], &[batch, 2]], |p, x| {
        let error = ew::sub(ew::add(contraction::linear(x[0], p[0]), p[1]), x[1]);
        vec![reduce::mean(ew::mul(error, error), &[0, 1])]
    })
}

/// Three micro-batches of two rows each give the same parameters as one batch of six.
#[test]
fn accumulation_equals_a_large_batch() {
    let params = [parameter("w", &[2, 3]), parameter("b", &[2])];
    let options = TrainOptions::default().clip_norm(0.5);
    let large = build_step(fit(&params, 6), &AdamW::new(0.1), &options).unwrap();
    assert!(large.accumulate.is_none());
    let small = build_step(fit(&params, 2), &AdamW::new(0.1), &options.accumulate(3)).unwrap();
    let accumulate = small.accumulate.as_ref().unwrap();
    let (mut one, mut three) = (Machine::default(), Machine::default());
    for t in 0..4 {
        let (x, y) = (values(18, 10 + t), values(12, 20 + t));
        let batch = [RefArray::new(&[6, 3], x.clone()), RefArray::new(&[6, 2], y.clone()), scalar(0.1)];
        let whole = one.run(&large.update, &batch);
        let mut mean = 0.0;
        let mut norm = f64::NAN;
        for k in 0..3 {
            let x = RefArray::new(&[2, 3], x[6 * k..6 * k + 6].to_vec());
            let y = RefArray::new(&[2, 2], y[4 * k..4 * k + 4].to_vec());
            let out = match k {
                2 => three.run(&small.update, &[x, y, scalar(0.1)]),
                _ => three.run(accumulate, &[x, y]),
            };
            mean += out[0].data[0] / 3.0;
            norm = out[1].data[0];
        }
        assert!((mean - whole[0].data[0]).abs() < 1e-14);
        assert!((norm - whole[1].data[0]).abs() < 1e-14);
        for p in &params {
            for (a, b) in one.values[&p.id].data.iter().zip(&three.values[&p.id].data) {
                assert!((a - b).abs() < 1e-12, "{}: {a} is not {b}", p.name);
            }
        }
    }
}

#[test]
fn frozen_parameters_stay_and_keep_no_state() {
    let mut params = [parameter("w", &[2, 3]), parameter("b", &[2])];
    params[0].frozen = true;
    let step = build_step(fit(&params, 4), &AdamW::new(0.1), &TrainOptions::default()).unwrap();
    let names: Vec<&str> = step.update.vars.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["w", "b", "optimizer.step", "b.adamw.exp_avg", "b.adamw.exp_avg_sq"]);
    let mut machine = Machine::default();
    let inputs = [RefArray::new(&[4, 3], values(12, 1)), RefArray::new(&[4, 2], values(8, 2)), scalar(0.1)];
    machine.run(&step.update, &inputs);
    assert_eq!(machine.values[&params[0].id].data, [0.0; 6]);
    assert!(machine.values[&params[1].id].data.iter().all(|v| *v != 0.0));
    assert_eq!(machine.named(&step.update, "optimizer.step").data, [1.0]);
}

#[test]
fn the_program_says_what_it_needs() {
    let step = build_step(
        fit(&[parameter("w", &[2, 3]), parameter("b", &[2])], 4),
        &AdamW::new(0.1),
        &TrainOptions::default(),
    )
    .unwrap()
    .update;
    let inputs: Vec<&str> = step.inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(inputs, ["argument 1", "argument 2", "learning rate"]);
    assert!(step.vars.iter().filter(|v| v.name.contains("adamw")).all(|v| v.kind == VarKind::State));
    // Everything but the forward pass is attributed: backward work to modules, the rest here.
    assert!(step.scopes.iter().any(|s| s.path == "optimizer" && s.kind == "AdamW"));
    assert_eq!(step.updates.len(), 2 + 1 + 4);
}

#[test]
fn mistakes_are_named() {
    let params = two();
    let build = |graph: Graph, options: &TrainOptions| build_step(graph, &AdamW::new(0.1), options).unwrap_err();
    let plain = TrainOptions::default();

    let mut frozen = params.clone();
    frozen.iter_mut().for_each(|p| p.frozen = true);
    let error = build(linear_loss(&frozen), &plain);
    assert_eq!(error.to_string(), "there is nothing to train: all 2 parameters that the loss reads are frozen");
    let error = build(loss(&[], &[&[3]], |_, x| vec![reduce::mean(x[0], &[0])]), &plain);
    assert_eq!(error.to_string(), "there is nothing to train: the loss reads no parameter");

    let vector = loss(&params, &[], |p, _| vec![p[0]]);
    assert!(matches!(build(vector, &plain), BuildError::Grad(GradError::NotScalar { .. })));
    assert_eq!(build(loss(&params, &[], |_, _| vec![]), &plain), BuildError::NoLoss);

    let error = build(linear_loss(&params), &plain.clone().group(Group::new("c*").lr_scale(2.0)));
    assert_eq!(error.to_string(), "the group \"c*\" covers no trained parameter; the parameters are a, b");
    let error = build(linear_loss(&params), &plain.clone().clip_norm(-1.0));
    assert_eq!(error.to_string(), "TrainOptions: gradients are clipped at -1; the bound must be positive");
    let error = build(linear_loss(&params), &plain.clone().accumulate(0));
    assert_eq!(error.to_string(), "TrainOptions: `accumulate` is 0; an update needs at least one batch");

    let error = build_step(linear_loss(&params), &AdamW::new(0.1).betas(0.9, 1.0), &plain).unwrap_err();
    assert_eq!(error.to_string(), "AdamW: `betas.1` is 1; it must be at least 0 and less than 1");
    let error = build_step(linear_loss(&params), &Sgd::new(0.1).nesterov(), &plain).unwrap_err();
    assert_eq!(error.to_string(), "Sgd: Nesterov momentum needs a momentum and no dampening");
}

/// An optimizer's arithmetic on whole numbers is the step counter's alone.
#[test]
fn index_parameters_are_not_trained() {
    let mut params = two();
    params[1].ty = real(&[2]).with_dtype(DType::I32);
    let graph = loss(&params, &[&[3]], |p, x| {
        let used = ew::cast(p[1], DType::F32);
        let dot = reduce::reduce(ew::mul(p[0], x[0]), reduce::Kind::Sum, &[0]);
        vec![ew::add(dot, reduce::reduce(used, reduce::Kind::Sum, &[0]))]
    });
    let step = build_step(graph, &Sgd::new(0.1), &TrainOptions::default()).unwrap();
    assert_eq!(step.update.updates.len(), 2);
}

/// A batch that is not finite leaves parameters, moments, counter and sums as they were.
#[test]
fn a_broken_batch_changes_nothing() {
    let params = [parameter("w", &[2, 3]), parameter("b", &[2])];
    let step = build_step(fit(&params, 2), &AdamW::new(0.1), &TrainOptions::default().accumulate(2)).unwrap();
    let good = [RefArray::new(&[2, 3], values(6, 1)), RefArray::new(&[2, 2], values(4, 2))];
    let mut bad = good.clone();
    bad[0].data[3] = f64::NAN;
    let with_rate = |batch: &[RefArray; 2]| [batch[0].clone(), batch[1].clone(), scalar(0.1)];
    let mut machine = Machine::default();
    let accumulate = step.accumulate.as_ref().unwrap();
    machine.run(accumulate, &good);
    let before = machine.clone();
    let out = machine.run(accumulate, &bad);
    assert!(out[0].data[0].is_nan() && out[1].data[0].is_nan());
    assert_eq!(machine.values, before.values);
    machine.run(&step.update, &with_rate(&good));
    let before = machine.clone();
    machine.run(&step.update, &with_rate(&bad));
    assert_eq!(machine.values, before.values);
    machine.run(&step.update, &with_rate(&good));
    assert_ne!(machine.values, before.values);
}

#[test]
fn the_step_lists_what_it_adds() {
    let params = [parameter("w", &[2, 3]), parameter("b", &[2])];
    let step = build_step(fit(&params, 2), &AdamW::new(0.1), &TrainOptions::default().accumulate(2)).unwrap();
    assert_eq!(step.states.len(), 1 + 2 + 4);
    let sums: Vec<_> = step.accumulate.unwrap().vars[2..].iter().map(|v| v.id).collect();
    assert!(sums.iter().all(|id| step.states.contains(id)));
}

/// Moments and parameter are one pass over memory, each in place.
#[test]
fn an_update_is_one_chain_for_each_parameter() {
    let params = [parameter("w", &[2, 3]), parameter("b", &[2])];
    let options = TrainOptions::default().clip_norm(1.0);
    let step = build_step(fit(&params, 2), &AdamW::new(0.1), &options).unwrap();
    let update = mobilis::devices::cpu::optimize(step.update);
    let of = |v: Value| (v.node, update.node(v).types.len());
    let of_parameters: Vec<_> = update.updates.iter().filter(|u| update.ty(u.1).rank() > 0).map(|u| of(u.1)).collect();
    let mut nodes = of_parameters.clone();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!((of_parameters.len(), nodes.len()), (6, 2));
    assert!(nodes.iter().all(|n| n.1 == 3 && matches!(update.nodes[n.0 as usize].op, mobilis::ops::Op::Chain(_))));
}
