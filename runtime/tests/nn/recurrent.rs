//! Recurrent layers: names, stacking, both directions, states and lengths.

use super::*;
use mobilis::nn::*;

axes! {
    Sequences = 3;
    Steps = 4;
    Features = 5;
    Memory = 2;
}

fn input() -> Tensor<(Sequences, Steps, Features)> {
    argument()
}

fn names(module: &dyn Module) -> Vec<String> {
    let mut out = vec![];
    mobilis::module::walk(module, &mut |path, item| {
        if let mobilis::module::Item::Var(v) = item {
            out.push(format!("{path} {}", v.ty().sizes(&Sizes::new()).map_or(0, |s| s.iter().product())));
        }
    });
    out
}

/// Those of PyTorch's `state_dict`, in its order.
#[test]
fn parameters_have_public_names() {
    assert_eq!(
        names(&Lstm::<Features, Memory, 2>::new()),
        [
            "weight_ih_l0 40",
            "weight_hh_l0 16",
            "bias_ih_l0 8",
            "bias_hh_l0 8",
            "weight_ih_l1 16",
            "weight_hh_l1 16",
            "bias_ih_l1 8",
            "bias_hh_l1 8"
        ]
    );
    assert_eq!(
        names(&BiGru::<Features, Memory, 2>::new().no_bias()),
        [
            "weight_ih_l0 30",
            "weight_hh_l0 12",
            "weight_ih_l0_reverse 30",
            "weight_hh_l0_reverse 12",
            "weight_ih_l1 24",
            "weight_hh_l1 12",
            "weight_ih_l1_reverse 24",
            "weight_hh_l1_reverse 12"
        ]
    );
}

#[test]
fn a_gradient_reaches_every_parameter() {
    reaches_every_parameter(&Lstm::<Features, Memory>::new(), |m| m.forward(input()).0.raw());
    reaches_every_parameter(&Lstm::<Features, Memory, 3>::new(), |m| m.forward(input()).1.1.raw());
    reaches_every_parameter(&BiLstm::<Features, Memory, 2>::new(), |m| m.forward(input()).0.raw());
    reaches_every_parameter(&Gru::<Features, Memory, 2>::new(), |m| m.forward(input()).0.raw());
    reaches_every_parameter(&Gru::<Features, Memory>::new().no_bias(), |m| m.forward(input()).1.raw());
    reaches_every_parameter(&BiGru::<Features, Memory, 2>::new(), |m| m.call(input()).1.raw());
    // Of lengths 0, 1, 2 something is left to learn from.
    reaches_every_parameter(&BiLstm::<Features, Memory>::new(), |m| {
        m.forward_padded(input(), argument::<(Sequences,), Lengths<Steps>>(), None).0.raw()
    });
}

#[test]
fn shapes_are_those_of_pytorch() {
    let graph = traced(&(), Mode::Eval, |_| {
        let (y, (h, c)) = BiLstm::<Features, Memory, 3>::new().forward(input());
        vec![y.raw(), h.raw(), c.raw()]
    });
    let sizes = |i: usize| graph.ty(graph.outputs[i]).sizes(&Sizes::new()).expect("static sizes");
    assert_eq!([sizes(0), sizes(1), sizes(2)], [vec![3, 4, 4], vec![6, 3, 2], vec![6, 3, 2]]);
}

/// Two halves of a sequence, the second from the state of the first, give what the whole gives.
#[test]
fn states_carry_on() {
    axes! { First = 3; Second = 1; }
    fn check<M: Module>(module: &M, f: impl FnOnce(&M, Tensor<(Sequences, Steps, Features)>) -> [Vec<Handle>; 2]) {
        let graph = traced(module, Mode::Eval, |m| f(m, input()).concat());
        let out = run(&graph, &[real(&[3, 4, 5], 1)]);
        let (whole, parts) = out[..graph.outputs.len()].split_at(graph.outputs.len() / 2);
        assert!(!whole.is_empty());
        for (a, b) in whole.iter().zip(parts) {
            mobilis::testing::close(a, b, 1e-12);
        }
    }
    check(&Lstm::<Features, Memory, 2>::new(), |m, x| {
        let (a, b) = x.split(Steps, First, Second);
        let (_, (h, c)) = m.forward(x);
        let (_, (h2, c2)) = m.forward_from(b, m.forward(a).1);
        [vec![h.raw(), c.raw()], vec![h2.raw(), c2.raw()]]
    });
    check(&Gru::<Features, Memory, 2>::new(), |m, x| {
        let (a, b) = x.split(Steps, First, Second);
        let (_, h) = m.forward(x);
        let (_, h2) = m.forward_from(b, m.forward(a).1);
        [vec![h.raw()], vec![h2.raw()]]
    });
}

/// In a batch of different lengths each sequence gives what it gives alone.
#[test]
fn padding_changes_nothing() {
    axes! { One = 1; Short = 2; }
    let layer = BiLstm::<Features, Memory, 2>::new();
    let graph = traced(&layer, Mode::Eval, |m| {
        let padded: Tensor<(One, Steps, Features)> = argument();
        let (y, (h, _)) = m.forward_padded(padded, argument::<(One,), Lengths<Steps>>(), None);
        let (alone, (h2, _)) = m.forward(padded.slice(Steps, Short, 0));
        vec![y.raw(), h.raw(), alone.raw(), h2.raw()]
    });
    let out = run(&graph, &[real(&[1, 4, 5], 1), mobilis::testing::index_values(&[1], &[2])]);
    assert_eq!(out[0].data[..8], out[2].data);
    assert!(out[0].data[8..].iter().all(|v| *v == 0.0));
    assert_eq!(out[1], out[3]);
}
