//! Programs: binding, caching, states, taps, the search for values that are not finite.

use mobilis::graph::trace::{Mode, TraceError};
use mobilis::module::store::{Data, Entry, Store};
use mobilis::prelude::*;
use mobilis::program::{Arguments, Executable, Results, trace_function};

axes! {
    pub Batch;
    pub Time;
    pub Hidden = 4;
}

#[neural_module]
struct Scale {
    weight: Param![Hidden],
}

#[neural_module]
impl Scale {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        x * self.weight.get()
    }
}

fn store(module: &Scale, weight: [f32; 4]) -> Store {
    use mobilis::module::AnyVar;
    let store = Store::new();
    store.lock().insert(module.weight.id(), Entry::new("weight", &[4], Data::F32(weight.to_vec())));
    store
}

fn program<M: Module, I: Arguments, O: Results>(
    module: &M,
    store: Store,
    device: Device,
    f: impl FnOnce(&M, I) -> O,
) -> Result<Program<I, O>, TraceError> {
    let graph = trace_function(module, Mode::Eval, &|_| false, f)?;
    Ok(Program::new(Executable::new(graph, device, store, Sizes::new())))
}

type X = Array![Batch, Time, Hidden];

#[test]
fn runs_for_every_size_and_keeps_what_it_prepared() -> Result<(), Box<dyn std::error::Error>> {
    for device in [Device::Cpu, Device::Reference] {
        let module = Scale::default();
        let store = store(&module, [1., 2., 3., 4.]);
        if device == Device::Reference {
            store.to_reference();
        }
        let program = program(&module, store, device, |m, x| m.forward(x))?;
        for (b, t) in [(2, 3), (1, 1), (0, 3), (2, 3)] {
            let x = X::from_fn([b, t, 4], |i| (i[0] * 10 + i[1]) as f32)?;
            let y = program.run(&x)?;
            assert_eq!(y.sizes(), [b, t, 4]);
            let expected: Vec<f32> = x.data().chunks(4).flat_map(|r| [r[0], r[1] * 2., r[2] * 3., r[3] * 4.]).collect();
            assert_eq!(y.data(), expected);
        }
    }
    Ok(())
}

#[test]
fn all_sizes_compute_in_the_same_memory() -> Result<(), Box<dyn std::error::Error>> {
    let module = Scale::default();
    let program = program(&module, store(&module, [1., 2., 3., 4.]), Device::Cpu, |m, x| m.forward(x))?;
    let executable = program.executable();
    let run = |t: usize| -> Result<usize, Box<dyn std::error::Error>> {
        let x = X::from_fn([1, t, 4], |i| i[1] as f32)?;
        let y = program.run(&x)?;
        assert!(y.data().chunks(4).enumerate().all(|(i, r)| r == [1., 2., 3., 4.].map(|w| w * i as f32)), "{t}");
        Ok(executable.memory().map_or(0, |(arena, _)| arena))
    };
    assert_eq!(executable.held(), 0, "nothing is prepared yet");
    for t in [500, 100, 400, 300, 500, 200, 100] {
        let largest = run(500)?;
        assert!(run(t)? <= largest && largest > 0);
        assert_eq!(executable.held(), largest, "{t}: that of the largest for all");
    }
    // What is not prepared any more needs no memory.
    let sizes: Vec<usize> = (1..=16).map(run).collect::<Result<_, _>>()?;
    assert!(executable.held() <= 2 * sizes[15], "{} bytes for {}", executable.held(), sizes[15]);
    Ok(())
}

#[test]
fn sizes_that_disagree_are_named() -> Result<(), Box<dyn std::error::Error>> {
    type In = (Tensor![Batch, Time], Tensor![Batch, Time]);
    let module = Scale::default();
    let store = store(&module, [0.; 4]);
    let program = program(&module, store, Device::Cpu, |_, (x, y): In| x + y)?;
    let array = |b, t| <Array![Batch, Time]>::zeros([b, t]);
    assert!(program.run((array(2, 3)?, array(2, 3)?)).is_ok());
    let error = program.run((&array(2, 3)?, &array(2, 4)?)).expect_err("Time differs").to_string();
    assert_eq!(error, "axis `Time` is 3 in `argument 1` and 4 in `argument 2`");
    Ok(())
}

#[test]
fn lengths_after_rounding_bind_where_the_length_before_does_not_matter() -> Result<(), Box<dyn std::error::Error>> {
    axes! {
        Samples;
        Frames = floor(Samples / 160) + 1;
        Halves = ceil(Frames / 2);
    }
    let module = Scale::default();
    let frames = |n| <Array![Frames]>::from_parts(&[n], (0..n).map(|i| i as f32).collect());
    let halves = |n| <Array![Halves]>::from_parts(&[n], vec![1.0; n]);
    let twice = program(&module, Store::new(), Device::Cpu, |_, x: Tensor![Frames]| x + x)?;
    for n in [1, 2, 3, 100] {
        assert_eq!(twice.run(frames(n))?.sizes(), [n]);
    }
    // The mean over frames depends on frames alone; two arguments must still agree.
    type Both = (Tensor![Frames], Tensor![Halves]);
    let both = program(&module, Store::new(), Device::Cpu, |_, (x, y): Both| (x.mean(Frames), y * 2.0))?;
    for (n, h) in [(1, 1), (4, 2), (5, 3)] {
        let (mean, doubled) = both.run((&frames(n), &halves(h)))?;
        assert_eq!(mean.item(), (n - 1) as f32 / 2.0);
        assert_eq!(doubled.sizes(), [h]);
    }
    let error = both.run((&frames(5), &halves(2))).expect_err("5 frames have 3 halves").to_string();
    assert!(error.contains("Halves = ceil("), "{error}");
    // The number of samples itself cannot be told from the number of frames.
    let mean = program(&module, Store::new(), Device::Cpu, |_, x: Tensor![Frames]| {
        x.sum_all()
            / Tensor::<(Samples,)>::from_raw(mobilis::ops::leaf::fill(1.0, <Tensor![Samples]>::type_of())).sum_all()
    })?;
    let error = mean.run(frames(3)).expect_err("Samples are not known").to_string();
    assert!(error.contains("`Samples`"), "{error}");
    Ok(())
}

#[test]
fn modules_name_arguments() -> Result<(), Box<dyn std::error::Error>> {
    let module = Scale::default();
    let program = program(&module, Store::new(), Device::Cpu, |m, x| m.forward(x))?;
    assert_eq!(program.executable().graph().inputs[0].name, "x");
    let error = program.run(X::zeros([1, 1, 4])?).expect_err("the weight has no value").to_string();
    assert!(error.starts_with("`weight` has no value"), "{error}");
    Ok(())
}

#[test]
fn taps_are_readable_after_a_run() -> Result<(), Box<dyn std::error::Error>> {
    let module = Scale::default();
    let store = store(&module, [1., 1., 1., 2.]);
    let program =
        program(&module, store, Device::Cpu, |m, x: Tensor![Batch, Time, Hidden]| m.forward(x).tap("scaled") + 1.0)?;
    assert!(program.tap::<(Batch, Time, Hidden), Real>("scaled").is_err(), "nothing has run");
    program.run(X::full([1, 1, 4], 3.0)?)?;
    let tapped: X = program.tap("scaled")?;
    assert_eq!(tapped.data(), [3., 3., 3., 6.]);
    let error = program.tap::<(Batch, Time, Hidden), Real>("scald").expect_err("no such tap").to_string();
    assert!(error.contains("scaled"), "{error}");
    assert!(program.tap::<(Batch, Hidden), Real>("scaled").is_err());
    Ok(())
}

#[test]
fn values_that_are_not_finite_are_found_where_they_arise() -> Result<(), Box<dyn std::error::Error>> {
    for device in [Device::Cpu, Device::Reference] {
        let module = Scale::default();
        let store = store(&module, [1., 1., 1., 3e38]);
        if device == Device::Reference {
            store.to_reference();
        }
        type In = Tensor![Batch, Time, Hidden];
        let program = program(&module, store, device, |m, x: In| (m.forward(x) - 5.0) / (x - x))?;
        program.check_finite(true);
        let error = program.run(X::full([1, 2, 4], 2.0)?).expect_err("overflow").to_string();
        match device {
            Device::Cpu => assert!(error.starts_with("mul in Scale: 2 of 8 values"), "{error}"),
            _ => assert!(error.starts_with("div in Scale: 8 of 8 values"), "{error}"),
        }
        let mut x = X::full([1, 2, 4], 0.0)?;
        x.data_mut()[5] = f32::NAN;
        let error = program.run(x).expect_err("NaN").to_string();
        assert!(error.contains("argument `x`") && error.contains("[0, 1, 1]"), "{error}");
    }
    Ok(())
}

#[test]
fn a_buffer_is_updated_by_each_run() -> Result<(), Box<dyn std::error::Error>> {
    #[neural_module]
    struct Counter {
        total: Buffer![Hidden],
    }
    use mobilis::module::AnyVar;
    for device in [Device::Cpu, Device::Reference] {
        let module = Counter::default();
        let store = Store::new();
        store.lock().insert(module.total.id(), Entry::new("total", &[4], Data::F32(vec![0.0; 4])));
        if device == Device::Reference {
            store.to_reference();
        }
        let program = program(&module, store.clone(), device, |m, x: Tensor![Hidden]| {
            let old = m.total.get();
            m.total.set(old * 2.0 + x);
            old
        })?;
        let x = <Array![Hidden]>::from_vec(vec![1., 2., 3., 4.])?;
        assert_eq!(program.run(&x)?.data(), [0.; 4]);
        assert_eq!(program.run(&x)?.data(), [1., 2., 3., 4.]);
        assert_eq!(program.run(&x)?.data(), [3., 6., 9., 12.]);
        let held = store.lock().get(module.total.id()).map(|e| e.data.to_f64());
        assert_eq!(held, Some(vec![7., 14., 21., 28.]));
    }
    Ok(())
}

#[test]
fn a_cache_is_written_in_place() -> Result<(), Box<dyn std::error::Error>> {
    use mobilis::graph::trace;
    use mobilis::module::AnyVar;
    use mobilis::ops::slice::update_slice;
    axes! { Context = 5; New; }
    #[neural_module]
    struct Cache {
        keys: Buffer![Context, Hidden],
    }
    for device in [Device::Cpu, Device::Reference] {
        let model = Model::init(Cache::default(), 0)?.on(device);
        type In = (Tensor![New, Hidden], Tensor![; Index]);
        let program = model.compile(|m: &Cache, (block, at): In| {
            let keys = update_slice(m.keys.get().raw(), block.raw(), at.raw(), 0);
            trace::update(m.keys.id(), keys);
            Tensor::<(Context, Hidden)>::from_raw(keys).sum(Hidden)
        })?;
        let block = <Array![New, Hidden]>::full([2, 4], 1.0)?;
        let at = |i: i32| <Array![; Index]>::from_vec(vec![i]);
        assert_eq!(program.run((&block, at(1)?))?.data(), [0., 4., 4., 0., 0.]);
        assert_eq!(program.run((&block, at(3)?))?.data(), [0., 4., 4., 4., 4.]);
        let error = program.run((&block, at(4)?)).expect_err("beyond the end").to_string();
        assert!(error.contains("4"), "{error}");
        assert_eq!(program.run((&block, at(0)?))?.data(), [4., 4., 4., 4., 4.]);
    }
    Ok(())
}

/// Lists among the results keep their lengths wherever they stand: beside others, empty, within each other.
#[test]
fn lists_among_results_keep_their_lengths() -> Result<(), Box<dyn std::error::Error>> {
    type X = Tensor![Hidden];
    let module = Scale::default();
    let run = |array: Array![Hidden]| {
        let f = |_: &Scale, x: X| {
            let times = |n: usize| (0..n).map(|i| x * i as f64).collect::<Vec<X>>();
            ((times(2), x), vec![times(0), times(3), times(1)], times(0), (x, times(2)))
        };
        program(&module, Store::new(), Device::Cpu, f).map(|p| p.run(array))
    };
    let ((two, one), nested, none, (last, more)) = run([1.0, 2.0, 3.0, 4.0].into())??;
    let firsts = |list: &[Array![Hidden]]| list.iter().map(|a| a.data()[1]).collect::<Vec<f32>>();
    assert_eq!((firsts(&two), one.data()[1]), (vec![0.0, 2.0], 2.0));
    assert_eq!(nested.iter().map(|l| firsts(l)).collect::<Vec<_>>(), [vec![], vec![0.0, 2.0, 4.0], vec![0.0]]);
    assert!(none.is_empty());
    assert_eq!((last.data()[1], firsts(&more)), (2.0, vec![0.0, 2.0]));
    Ok(())
}
