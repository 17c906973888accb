//! The typed methods: what they accept, which shapes they give, and that each builds the
//! operation that its name says.

use mobilis_runtime::devices::reference::{self, RefArray};
use mobilis_runtime::graph::trace::{self, Mode};
use mobilis_runtime::graph::{AxisTag, Sizes};
use mobilis_runtime::ops::pad::Padding;
use mobilis_runtime::ops::window::Windows;
use mobilis_runtime::prelude::*;
use mobilis_runtime::{Const, Conv, axes};

axes! {
    Batch;
    Time;
    Past;
    Hidden = 4;
    Half = 2;
    Full = 6;
    Windowed = 3;
    Vocab = 5;
    Frames = floor((Time - 3) / 2) + 1;
}

type Shape2 = (Batch, Hidden);

/// Runs `f` on an argument of shape `[Batch, Hidden]` for `Batch` 2 and values 0, 1, 2, …
fn run<S: Shape, E: Element>(f: impl FnOnce(Tensor<Shape2>) -> Tensor<S, E>) -> RefArray {
    let (graph, ()) = trace::trace(None, Mode::Eval, &|_| false, || {
        let x = Tensor::from_raw(trace::input("x".into(), <Tensor<Shape2>>::type_of(), "Real"));
        let y = f(x);
        assert!(trace::type_of(y.raw()) == <Tensor<S, E>>::type_of(), "{:?}", trace::type_of(y.raw()));
        trace::output(y.raw());
    })
    .expect("traces");
    let x = RefArray::new(&[2, 4], (0..8).map(f64::from).collect());
    let sizes = Sizes::new().with::<Batch>(2).with::<Time>(7);
    let values = reference::run(&graph, &sizes, &[x], &[]).expect("runs");
    values.get(graph.outputs[0]).clone()
}

fn tags(dims: &[mobilis_runtime::Dim]) -> Vec<AxisTag> {
    dims.iter().map(|d| d.axis).collect()
}

#[test]
fn operators_take_tensors_and_numbers() {
    assert_eq!(run(|x| 2.0 * x + 1.0 - x / 1.0 - -x).data[3], 7.0);
    assert_eq!(run(|x| x % 3.0).data, [0., 1., 2., 0., 1., 2., 0., 1.]);
    assert_eq!(run(|x| 3 - (x.to_index() * 2 + 1) / 2 % 3).data, [3., 2., 1., 3., 2., 1., 3., 2.]);
    assert_eq!(run(|x| -x.to_index()).data[7], -7.0);
    assert_eq!(run(|x| x.maximum(6.0).minimum(x.sum(Hidden).mean_all())).data, [6., 6., 6., 6., 6., 6., 6., 7.]);
    assert_eq!(run(|x| x.clamp(2.0, 5.0)).data, [2., 2., 2., 3., 4., 5., 5., 5.]);
    assert_eq!(run(|x| x.pow(2.0) - x.square() + x.pow(x.mean(Batch) * 0.0 + 1.0)).data[5], 5.0);
    assert_eq!(run(|x| x.exp().log().abs().sqrt().square()).data[0], 0.0);
}

#[test]
fn masks_choose() {
    assert_eq!(run(|x| x.lt(2.0) | x.ge(7.0)).data, [1., 1., 0., 0., 0., 0., 0., 1.]);
    assert_eq!(run(|x| !x.gt(2.0) & x.ne(0.0) ^ x.eq(7.0)).data, [0., 1., 1., 0., 0., 0., 0., 1.]);
    assert_eq!(run(|x| x.to_index().le(3).to_index()).data, [1., 1., 1., 1., 0., 0., 0., 0.]);
    assert_eq!(run(|x| x.lt(4.0).select(x, -1.0)).data, [0., 1., 2., 3., -1., -1., -1., -1.]);
    assert_eq!(run(|x| x.mean(Batch).gt(3.0).select(x, x * 10.0)).data, [0., 10., 2., 3., 40., 50., 6., 7.]);
    assert_eq!(run(|x| x.masked_fill(x.lt(5.0), 9.0)).data, [9., 9., 9., 9., 9., 5., 6., 7.]);
    assert_eq!(run(|x| x.to_mask().all(Hidden)).data, [0., 1.]);
    assert_eq!(run(|x| x.to_mask().any_all()).data, [1.]);
    assert_eq!(run(|x| (x / 0.0).is_finite()).data, [0.; 8]);
    assert_eq!(run(|x| (x / x).is_nan().to_real()).data, [1., 0., 0., 0., 0., 0., 0., 0.]);
}

#[test]
fn reductions_drop_their_axis() {
    let rows = |x: Tensor<Shape2>| -> Tensor<(Batch,)> { x.sum(Hidden) };
    assert_eq!(run(rows).data, [6., 22.]);
    assert_eq!(run(|x| x.max(Batch) - x.min(Batch)).data, [4.; 4]);
    assert_eq!(run(|x| x.var(Hidden) * 3.0).data, [5., 5.]);
    assert_eq!(run(|x| x.var_with(Hidden, 0)).data, [1.25, 1.25]);
    assert_eq!(run(|x| x.std_with(Hidden, 0).square()).data.len(), 2);
    assert_eq!(run(|x| (x * 0.0).logsumexp(Hidden).exp()).data, [4., 4.]);
    assert_eq!(run(|x| x.argmax(Hidden)).data, [3., 3.]);
    assert_eq!(run(|x| (-x).argmin(Batch)).data, [1.; 4]);
    assert_eq!(run(|x| x.cumsum(Batch) - x.cumsum_reverse(Batch)).data, [-4., -5., -6., -7., 0., 1., 2., 3.]);
    assert_eq!(run(|x| x.to_index().sum_all()).data, [28.]);
}

#[test]
fn parts_of_axes() {
    assert_eq!(run(|x| x.slice(Hidden, Half, 1)).data, [1., 2., 5., 6.]);
    assert_eq!(run(|x| x.slice(Hidden, Half, Const::<2>)).data, [2., 3., 6., 7.]);
    assert_eq!(run(|x| x.slice_step(Hidden, Half, 1, 2)).data, [1., 3., 5., 7.]);
    assert_eq!(run(|x| x.flip(Hidden)).data, [3., 2., 1., 0., 7., 6., 5., 4.]);
    assert_eq!(run(|x| x.split(Hidden, Const::<1>, Windowed).1).data, [1., 2., 3., 5., 6., 7.]);
    let joined = run(|x| x.concat(Hidden, x.slice(Hidden, Half, 0), Half).relabel::<(Batch, Full)>());
    assert_eq!(joined.data, [0., 1., 2., 3., 0., 1., 4., 5., 6., 7., 4., 5.]);
    let padded = run(|x| x.pad(Hidden, Const::<2>, Const::<0>, Padding::Reflect).relabel::<(Batch, Full)>());
    assert_eq!(padded.data, [2., 1., 0., 1., 2., 3., 6., 5., 4., 5., 6., 7.]);
    let at = |x: Tensor<Shape2>| x.slice_at(Hidden, Half, (x.sum_all() * 0.0 + 1.0).to_index());
    assert_eq!(run(at).data, [1., 2., 5., 6.]);
    let update = |x: Tensor<Shape2>| x.update_slice(Hidden, at(x) * 0.0, Half, (x.sum_all() * 0.0 + 2.0).to_index());
    assert_eq!(run(update).data, [0., 1., 0., 0., 4., 5., 0., 0.]);
    assert_eq!(run(|x| x.glu(Hidden, Half) * 0.0).data, [0.; 4]);
}

#[test]
fn windows_of_a_run_time_axis_are_proved() {
    let y = run(|x| {
        let line: Tensor<(Time,)> = x.sum_all().broadcast();
        let windows: Tensor<(Conv<Time, 3, 2>, Const<3>)> = line.unfold(Time, Windows::<3, 2>);
        let named = windows.relabel::<(Frames, Const<3>)>();
        named.fold(Frames, Windows::<3, 2>, Time)
    });
    assert_eq!(y.data, [28., 28., 56., 28., 56., 28., 28.]);
}

#[test]
fn picking_and_ordering() {
    assert_eq!(run(|x| x.gather(Hidden, (x * 0.0).to_index().slice(Hidden, Half, 0) + 3, Half)).data, [3., 3., 7., 7.]);
    let order = |x: Tensor<Shape2>| x.mean(Batch).argsort(Hidden, true);
    assert_eq!(run(|x| x.index_select(Hidden, order(x))).data, [3., 2., 1., 0., 7., 6., 5., 4.]);
    assert_eq!(run(|x| x.scatter_add(Hidden, (x * 0.0).to_index(), x, Hidden)).data, [6., 1., 2., 3., 26., 5., 6., 7.]);
    assert_eq!(run(|x| x.index_add(Hidden, order(x), x)).data, [3., 3., 3., 3., 11., 11., 11., 11.]);
    assert_eq!(run(|x| x.sort(Hidden, true).0).data, [3., 2., 1., 0., 7., 6., 5., 4.]);
    assert_eq!(run(|x| x.top_k(Hidden, Half).1).data, [3., 2., 3., 2.]);
    assert_eq!(run(|x| x.mean(Batch).to_index().one_hot::<Vocab>().argmax(Vocab)).data, [2., 3., 4., 0.]);
    assert_eq!(run(|x| x.triu(1)).data, [0., 1., 2., 3., 0., 0., 6., 7.]);
    assert_eq!(run(|x| x.tril(0)).data, [0., 0., 0., 0., 4., 5., 0., 0.]);
    assert_eq!(run(|_| Tensor::<(Half, Hidden), Mask>::lower_triangle(-1)).data, [0., 0., 0., 0., 1., 0., 0., 0.]);
}

#[test]
fn shapes_without_arithmetic() {
    assert_eq!(run(|x| x.flatten(Batch, Hidden)).sizes, [8]);
    assert_eq!(run(|x| x.unflatten(Hidden, Half, Half)).sizes, [2, 2, 2]);
    assert_eq!(run(|x| x.unsqueeze().squeeze(Const::<1>)).sizes, [2, 4]);
    assert_eq!(run(|x| x.repeat(Batch, Half)).data[8..], [0., 1., 2., 3., 4., 5., 6., 7.]);
    assert_eq!(run(|x| x.repeat_interleave(Hidden, Half)).data[..4], [0., 0., 1., 1.]);
    assert_eq!(run(|x| x.sum(Hidden).repeat_last::<Half>()).data, [6., 6., 22., 22.]);
    assert_eq!(run(|_| Tensor::<(Half,)>::full(2.5)).data, [2.5, 2.5]);
    assert_eq!(run(|x| x + Tensor::<(Hidden,)>::ones() - Tensor::<(Hidden,)>::zeros()).data[0], 1.0);
    assert_eq!(run(|x| x.dropout(0.5)).data[7], 7.0);
}

#[test]
fn joined_axes_keep_their_names() {
    trace::trace(None, Mode::Eval, &|_| false, || {
        let input = |ty| trace::input("x".into(), ty, "Real");
        let past: Tensor<(Batch, Past, Hidden)> = Tensor::from_raw(input(<Tensor<(Batch, Past, Hidden)>>::type_of()));
        let new: Tensor<(Batch, Time, Hidden)> = Tensor::from_raw(input(<Tensor<(Batch, Time, Hidden)>>::type_of()));
        let all: Tensor<(Batch, Sum<Past, Time>, Hidden)> = past.concat(Past, new, Time);
        let ty = trace::type_of(all.raw());
        assert_eq!(ty.to_string(), "[Batch, (Past + Time), Hidden=4]");
        assert_eq!(tags(&ty.dims)[0], Batch::dim().axis);
        let (left, right) = all.split(<Sum<Past, Time>>::AXIS, Past, Time);
        assert_eq!(trace::type_of(left.raw()), trace::type_of(past.raw()));
        assert_eq!(trace::type_of(right.raw()), trace::type_of(new.raw()));
    })
    .expect("traces");
}
