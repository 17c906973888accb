use mobilis_runtime::devices::reference;
use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::{Dim, Extent, trace::Handle};
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::pad::{Padding, pad};
use mobilis_runtime::ops::slice::{concat, dynamic_slice, flip, slice, update_slice};
use mobilis_runtime::testing::{CPU, Given, agree, check, index_values, noise, real, traced, try_traced, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

fn take(h: Handle, axis: usize, start: u64, step: u64, length: u64) -> Handle {
    slice(h, axis, Extent::constant(start), step, Dim::fixed(length))
}

fn padded(h: Handle, n: usize, axis: usize, (before, after): (u64, u64), mode: Padding) -> Handle {
    let dim = Dim::fixed(before + n as u64 + after);
    pad(h, axis, Extent::constant(before), Extent::constant(after), mode, dim)
}

fn vector() -> [Given; 1] {
    [values(&[5], &[1., 2., 3., 4., 5.])]
}

#[test]
fn slices() {
    let out = evaluate(&vector(), |h| {
        vec![take(h[0], 0, 1, 1, 3), take(h[0], 0, 0, 2, 3), take(h[0], 0, 4, 7, 1), take(h[0], 0, 5, 1, 0)]
    });
    let data: Vec<&[f64]> = out.iter().map(|o| &o.data[..]).collect();
    assert_eq!(data, [&[2., 3., 4.][..], &[1., 3., 5.], &[5.], &[]]);
    for (sizes, axis, start, step, length) in [
        (&[5][..], 0, 1, 1, 3),
        (&[5], 0, 0, 2, 3),
        (&[5], 0, 1, 2, 2),
        (&[5], 0, 1, 3, 1),
        (&[2, 7, 3], 1, 0, 3, 3),
        (&[2, 7, 3], 1, 6, 1, 1),
        (&[7, 2], 0, 2, 2, 0),
        (&[7, 0], 0, 2, 2, 2),
        (&[1, 3], 0, 0, 1, 1),
    ] {
        check(&[real(sizes, 1)], |h| vec![take(h[0], axis, start, step, length)]);
    }
    check(&[real(&[4, 6], 1)], |h| vec![take(movement::permute(h[0], &[1, 0]), 0, 1, 2, 3)]);
    check(&[real(&[4, 6], 1)], |h| vec![movement::permute(take(take(h[0], 1, 1, 2, 2), 0, 1, 1, 3), &[1, 0])]);
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let message = |start, step, length| {
        try_traced(&vector(), |h| vec![take(h[0], 0, start, step, length)]).expect_err("is refused").message
    };
    assert_eq!(message(3, 1, 3), "slice: positions 3..6 do not lie within the 5 of dimension 0 (`5` of [5])");
    assert_eq!(
        message(0, 3, 3),
        "slice: positions 0..7 (every 3th) do not lie within the 5 of dimension 0 (`5` of [5])"
    );
    assert_eq!(message(0, 0, 1), "slice: takes a step of at least 1");
}

#[test]
fn concatenation_and_reversal() {
    let given = [values(&[1, 2], &[1., 2.]), values(&[2, 2], &[3., 4., 5., 6.])];
    let out = evaluate(&given, |h| vec![concat(h, 0, Dim::fixed(3)), flip(h[1], 0), flip(h[1], 1)]);
    assert_eq!(out[0].data, [1., 2., 3., 4., 5., 6.]);
    assert_eq!(out[1].data, [5., 6., 3., 4.]);
    assert_eq!(out[2].data, [4., 3., 6., 5.]);
    for axis in 0..3 {
        for lengths in [[1, 3, 2], [0, 2, 1], [4, 0, 0]] {
            let given: Vec<Given> = lengths
                .iter()
                .enumerate()
                .map(|(i, n)| {
                    let mut sizes = [2, 3, 5];
                    sizes[axis] = *n;
                    real(&sizes, i as u64)
                })
                .collect();
            check(&given, |h| vec![concat(h, axis, Dim::fixed(lengths.iter().sum::<usize>() as u64))]);
        }
        check(&[real(&[2, 3, 5], 1)], |h| vec![flip(h[0], axis)]);
    }
    check(&[real(&[3, 2], 1), real(&[2, 3], 2)], |h| {
        let joined = concat(&[h[0], movement::permute(h[1], &[1, 0])], 1, Dim::fixed(4));
        vec![flip(movement::permute(joined, &[1, 0]), 0)]
    });
    let wrong = try_traced(&given, |h| vec![concat(h, 1, Dim::fixed(4))]).expect_err("is refused").message;
    assert_eq!(wrong, "concat: joins [1, 2] and [2, 2]: only dimension 1 may differ");
}

#[test]
fn run_time_positions() {
    let given = [values(&[4], &[1., 2., 3., 4.]), values(&[2], &[8., 9.]), index_values(&[], &[1])];
    let out =
        evaluate(&given, |h| vec![update_slice(h[0], h[1], h[2], 0), dynamic_slice(h[0], h[2], 0, Dim::fixed(3))]);
    assert_eq!(out[0].data, [1., 8., 9., 4.]);
    assert_eq!(out[1].data, [2., 3., 4.]);
    for offset in 0..3 {
        let given = [real(&[3, 4, 2], 1), real(&[3, 2, 2], 2), index_values(&[], &[offset])];
        check(&given, |h| vec![update_slice(h[0], h[1], h[2], 1), dynamic_slice(h[0], h[2], 1, Dim::fixed(2))]);
    }
    check(&[real(&[2, 0], 1), real(&[1, 0], 2), index_values(&[], &[1])], |h| vec![update_slice(h[0], h[1], h[2], 0)]);
    check(&[real(&[2, 3], 1), real(&[2, 1], 2), index_values(&[], &[2])], |h| {
        vec![update_slice(movement::permute(h[0], &[1, 0]), movement::permute(h[1], &[1, 0]), h[2], 0)]
            .into_iter()
            .chain([dynamic_slice(movement::permute(h[0], &[1, 0]), h[2], 0, Dim::fixed(1))])
            .collect()
    });
}

/// The part is as large as what it is cut from, as far as places are counted: it must not be moved onto itself.
#[test]
fn a_part_of_a_buffer_is_not_written_where_the_buffer_begins() {
    let given = [real(&[16], 1), real(&[2], 2), index_values(&[], &[3])];
    check(&given, |h| {
        let sums = mobilis_runtime::ops::scan::cumsum(h[0], 0, false);
        vec![update_slice(take(sums, 0, 4, 1, 8), h[1], h[2], 0)]
    });
}

#[test]
fn positions_out_of_range_are_errors_at_run_time() {
    for offset in [-1, 3] {
        let given = [real(&[4], 1), real(&[2], 2), index_values(&[], &[offset])];
        let graph = traced(&given, |h| vec![update_slice(h[0], h[1], h[2], 0)]);
        let arrays: Vec<_> = given.iter().map(|g| g.array.clone()).collect();
        let error = reference::run(&graph, &Default::default(), &arrays, &[]).err().expect("is refused");
        assert_eq!(error, format!("update_slice in trace: 2 values from position {offset} on do not lie within 4"));
    }
}

const MODES: [Padding; 4] = [Padding::Constant(7.5), Padding::Reflect, Padding::Replicate, Padding::Circular];

#[test]
fn padding() {
    let given = [values(&[3], &[1., 2., 3.])];
    let out = evaluate(&given, |h| MODES.map(|m| padded(h[0], 3, 0, (2, 2), m)).to_vec());
    assert_eq!(out[0].data, [7.5, 7.5, 1., 2., 3., 7.5, 7.5]);
    assert_eq!(out[1].data, [3., 2., 1., 2., 3., 2., 1.]);
    assert_eq!(out[2].data, [1., 1., 1., 2., 3., 3., 3.]);
    assert_eq!(out[3].data, [2., 3., 1., 2., 3., 1., 2.]);
    for mode in MODES {
        for amounts in [(0, 0), (0, 1), (2, 0), (1, 2), (2, 2)] {
            for (sizes, axis) in [(&[3][..], 0), (&[4, 2], 0), (&[2, 3], 1), (&[2, 5, 3], 1), (&[3, 0], 0)] {
                check(&[real(sizes, 1)], |h| vec![padded(h[0], sizes[axis], axis, amounts, mode)]);
            }
        }
        check(&[real(&[2, 3], 1)], |h| vec![padded(movement::permute(h[0], &[1, 0]), 3, 0, (1, 2), mode)]);
    }
}

#[test]
fn padding_that_has_no_source_is_refused() {
    let message = |n: usize, amounts, mode| {
        try_traced(&[real(&[n], 1)], |h| vec![padded(h[0], n, 0, amounts, mode)]).expect_err("is refused").message
    };
    assert_eq!(
        message(2, (2, 0), Padding::Reflect),
        "pad: reflects 2 values of an axis of 2: it must be longer than the padding"
    );
    assert_eq!(message(0, (0, 1), Padding::Replicate), "pad: repeats the edge of an empty axis");
    assert_eq!(message(2, (0, 3), Padding::Circular), "pad: wraps 3 values of an axis of 2");
}

#[test]
fn random_slices_and_pads_against_lists() {
    for seed in 0..40 {
        let pick = |i: u64, n: usize| ((noise(seed, i) * 0.5 + 0.5) * n as f64) as usize;
        let n = 1 + pick(0, 9);
        let step = 1 + pick(1, 3);
        let start = pick(2, n);
        let length = pick(3, (n - start).div_ceil(step) + 1);
        let (before, after) = (pick(4, n), pick(5, n));
        let given = real(&[n], seed);
        let x = given.array.data.clone();
        let out = evaluate(&[given], |h| {
            let mut out = vec![take(h[0], 0, start as u64, step as u64, length as u64)];
            out.extend(MODES.map(|m| padded(h[0], n, 0, (before as u64, after as u64), m)));
            out
        });
        let expected: Vec<f64> = x.iter().copied().skip(start).step_by(step).take(length).collect();
        assert_eq!(out[0].data, expected);
        let around = |f: &dyn Fn(i64) -> f64| -> Vec<f64> { (-(before as i64)..(n + after) as i64).map(f).collect() };
        let inside = |i: i64| usize::try_from(i).ok().and_then(|i| x.get(i).copied());
        let last = n as i64 - 1;
        let mirror = |i: i64| x[(last - (last - i.abs()).abs()) as usize];
        assert_eq!(out[1].data, around(&|i| inside(i).unwrap_or(7.5)));
        assert_eq!(out[2].data, around(&mirror));
        assert_eq!(out[3].data, around(&|i| x[i.max(0).min(last) as usize]));
        assert_eq!(out[4].data, around(&|i| x[((i + 2 * n as i64) % n as i64) as usize]));
    }
}

mod caches {
    use mobilis::module::AnyVar;
    use mobilis::module::store::{Data, Entry, Store};
    use mobilis::prelude::*;
    use mobilis::program::{Executable, trace_function};
    use mobilis_runtime::graph::trace::Mode;

    axes! { Batch; Time; Limit = 5; Hidden = 2; }

    #[neural_module]
    struct Cache {
        keys: Buffer![Batch, Limit, Hidden],
    }

    type In = (Tensor<(Batch, Time, Hidden)>, Tensor<(), Index>);

    fn program(device: Device, shift: bool) -> (Program<In, (Tensor<(Batch, Hidden)>,)>, Cache, Store) {
        let cache = Cache::default();
        let store = Store::new();
        store.lock().insert(cache.keys.id(), Entry::new("keys", &[1, 5, 2], Data::F32(vec![0.0; 10])));
        if device == Device::Reference {
            store.to_reference();
        }
        let graph = trace_function(&cache, Mode::Eval, &|_| false, |m, (x, at): In| {
            let old = m.keys.get();
            let kept = if shift {
                old.update_slice(Limit, old.slice(Limit, Const::<4>, 1), Const::<4>, at.minimum(0))
            } else {
                old
            };
            let new = kept.update_slice(Limit, x, Time, at);
            m.keys.set(new);
            (new.sum(Limit),)
        })
        .expect("traces");
        (Program::new(Executable::new(graph, device, store.clone(), Sizes::new())), cache, store)
    }

    /// The buffer after each of three runs, and the sums.
    fn runs(device: Device, shift: bool) -> Vec<Vec<f64>> {
        let (program, cache, store) = program(device, shift);
        let mut seen = vec![];
        for (at, values) in [(0, vec![1., 2.]), (1, vec![3., 4., 5., 6.]), (4, vec![7., 8.])] {
            let x = <Array![Batch, Time, Hidden]>::new([1, values.len() / 2, 2], values).expect("fits");
            let at = <Array![; Index]>::new([], vec![at]).expect("fits");
            let (sum,) = program.run((&x, &at)).expect("runs");
            seen.push(sum.data().iter().map(|v| f64::from(*v)).collect());
            seen.push(store.lock().get(cache.keys.id()).expect("is there").data.to_f64());
        }
        let at = <Array![; Index]>::new([], vec![5]).expect("fits");
        let x = <Array![Batch, Time, Hidden]>::zeros([1, 1, 2]).expect("fits");
        let error = program.run((&x, &at)).expect_err("is refused").to_string();
        assert!(error.contains("1 values from position 5 on do not lie within 5"), "{error}");
        seen
    }

    #[test]
    fn a_cache_is_written_where_it_lies() {
        let found = runs(Device::Cpu, false);
        assert_eq!(found[5], [1., 2., 3., 4., 5., 6., 0., 0., 7., 8.]);
        assert_eq!(found[4], [16., 20.]);
        assert_eq!(found, runs(Device::Reference, false));
        // Nothing but the block and the sums is ever stored.
        let (program, ..) = program(Device::Cpu, false);
        let x = <Array![Batch, Time, Hidden]>::zeros([1, 1, 2]).expect("fits");
        program.run((&x, &<Array![; Index]>::new([], vec![0]).expect("fits"))).expect("runs");
        let (arena, _) = program.executable().memory().expect("was bound");
        assert!(arena <= 64, "{arena} bytes beside a cache of 40");
    }

    #[test]
    fn a_block_may_come_from_the_value_that_is_written() {
        let found = runs(Device::Cpu, true);
        // Each run moves everything up by one place before it writes:
        // 12 .. .. .. ..; .. 34 56 .. ..; 34 56 .. .. 78.
        assert_eq!(found[5], [3., 4., 5., 6., 0., 0., 0., 0., 7., 8.]);
        assert_eq!(found, runs(Device::Reference, true));
    }
}

/// Everything whose sizes depend on an axis, and its gradients, give the same for an axis bound
/// at run time as for one whose size is known.
#[test]
fn sizes_known_at_run_time_are_like_others() {
    use mobilis_runtime::graph::{DType, Sizes, TensorType};
    use mobilis_runtime::ops::{elementwise as ew, reduce, window};
    use mobilis_runtime::prelude::Axis;
    use mobilis_runtime::transforms::grad::grad;
    mobilis_runtime::axes! { Time; }

    let c = Extent::constant;
    let build = |t: Extent| {
        let traced = mobilis_runtime::graph::trace::trace(None, Default::default(), &|_| false, || {
            use mobilis_runtime::graph::trace;
            let dim = |e: Extent| Dim::anonymous(e);
            let plus = |e: &Extent, n: u64| Extent::add(e.clone(), c(n));
            let minus = |e: &Extent, n: u64| Extent::sub(e.clone(), c(n));
            let x = trace::input("x".into(), TensorType::new(vec![dim(t.clone()), Dim::fixed(2)], DType::F32), "");
            let wide = |h, mode| pad(h, 0, c(2), c(1), mode, dim(plus(&t, 3)));
            let modes = MODES.map(|m| wide(ew::mul(x, x), m));
            let joined = concat(&[modes[0], modes[1], modes[2], modes[3]], 0, dim(Extent::mul(plus(&t, 3), c(4))));
            let every = slice(joined, 0, c(3), 3, dim(t.clone()));
            let rest = slice(every, 0, c(1), 1, dim(minus(&t, 1)));
            let count = Extent::add(Extent::floor_div(Extent::sub(minus(&t, 1), c(3)), c(2)), c(1));
            let frames = window::unfold(rest, 0, 2, 1, dim(count), Dim::fixed(3));
            let back = window::fold(ew::mul(frames, frames), 0, 2, 1, dim(minus(&t, 1)));
            let mean = reduce::reduce(flip(back, 0), reduce::Kind::Var, &[0]);
            let loss = ew::add(
                reduce::reduce(mean, reduce::Kind::Mean, &[0]),
                reduce::reduce(back, reduce::Kind::LogSumExp, &[0, 1]),
            );
            trace::output(loss);
            trace::value(x)
        });
        let (mut graph, x) = traced.expect("traces");
        let loss = graph.outputs[0];
        let gradient = grad(&mut graph, loss, &[x]).expect("has a gradient");
        graph.outputs.extend(gradient);
        graph
    };
    for n in [5, 6, 9, 14] {
        let x = real(&[n, 2], n as u64).array;
        let run = |t: Extent| {
            let graph = build(t);
            let sizes = Sizes::new().with::<Time>(n);
            let values = reference::run(&graph, &sizes, std::slice::from_ref(&x), &[]).expect("runs");
            let mut bound = mobilis_runtime::devices::cpu::bind(&graph, &sizes).expect("binds");
            let single: Vec<f32> = x.data.iter().map(|v| *v as f32).collect();
            let mut found = vec![];
            let mut arena = mobilis_kernels::memory::Arena::new(bound.arena_bytes());
            bound
                .run(
                    &mut arena,
                    [mobilis_kernels::memory::External::ReadF32(&single)].into_iter(),
                    |v| graph.ty(v).dtype,
                    |v, out| match out {
                        mobilis_runtime::devices::cpu::Out::F32(s) => {
                            let expected = values.get(v);
                            let data = s.iter().map(|v| f64::from(*v)).collect();
                            mobilis_runtime::testing::close(&RefArray::new(&expected.sizes, data), expected, 1e-4);
                            found.push(expected.clone());
                        }
                        _ => panic!("all results are real"),
                    },
                )
                .expect("runs");
            found
        };
        assert_eq!(run(Time::extent()), run(c(n as u64)));
    }
}
