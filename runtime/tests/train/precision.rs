//! Precision: which products are rounded and how, against loops that do the same; states; scaled losses.

use mobilis::checkpoint::Checkpoint;
use mobilis::graph::DType;
use mobilis::module::store::Data;
use mobilis::nn::{Embedding, Linear};
use mobilis::ops::quantize::{Fp8, Scale};
use mobilis::precision::{Compute, Formats, History, LossScale, Number, Precision, Recipe, Role, Scaling};
use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{BuildError, Sgd, TrainError, TrainOptions, TrainStep, Trainer};
use mobilis_kernels::cpu::quant::half::{from_bf16, to_bf16};
use mobilis_kernels::fp8;
use std::sync::atomic::{AtomicUsize, Ordering};

axes! {
    pub Batch;
    pub In = 48;
    pub Out = 160;
    pub Odd = 20;
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Two linear layers whose products can be followed by hand.
#[neural_module]
struct Two {
    #[default(Linear::default().no_bias())]
    first: Linear<In, Out>,
    #[default(Linear::default().no_bias())]
    second: Linear<Out, In>,
}

type Pairs = (Tensor![Batch, In], Tensor![Batch, In]);

/// `sum(y * g)`: the gradient by `y` is `g`.
fn loss(m: &Two, (x, g): Pairs) -> Tensor![] {
    (m.second.forward(m.first.forward(x)) * g).sum_all()
}

/// Values of many magnitudes.
fn array(rows: usize, seed: u64) -> Array![Batch, In] {
    let value = |i: usize| noise(seed, i as u64) as f32 * 2f32.powi((i * 7 % 11) as i32 - 8);
    <Array![Batch, In]>::from_fn([rows, 48], |i| value(i[0] * 48 + i[1])).expect("static sizes agree")
}

/// A matrix for loops.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn new(rows: usize, columns: usize, data: &[f32]) -> Matrix {
        Matrix { rows, columns, data: data.to_vec() }
    }

    fn turned(&self) -> Matrix {
        let data = (0..self.columns).flat_map(|c| (0..self.rows).map(move |r| self.data[r * self.columns + c]));
        Matrix { rows: self.columns, columns: self.rows, data: data.collect() }
    }

    /// `self other^T`, in `f64`.
    fn times(&self, other: &Matrix) -> Matrix {
        let mut data = vec![];
        for a in self.data.chunks(self.columns) {
            for b in other.data.chunks(other.columns) {
                data.push(a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>() as f32);
            }
        }
        Matrix { rows: self.rows, columns: other.rows, data }
    }

    fn bf16(mut self) -> Matrix {
        self.data.iter_mut().for_each(|v| *v = from_bf16(to_bf16(*v)));
        self
    }

    /// Through eight bits by tiles of rows and columns.
    fn eight(&self, format: Fp8, tile: (usize, usize), scale: Scale) -> Matrix {
        let mut out = self.clone();
        for top in (0..self.rows).step_by(tile.0.min(self.rows)) {
            for left in (0..self.columns).step_by(tile.1.min(self.columns)) {
                let places: Vec<usize> = (top..self.rows.min(top.saturating_add(tile.0)))
                    .flat_map(|r| {
                        (left..self.columns.min(left.saturating_add(tile.1))).map(move |c| r * self.columns + c)
                    })
                    .collect();
                let s = scale.of(format, places.iter().fold(0.0, |m, p| self.data[*p].abs().max(m)));
                places.iter().for_each(|p| out.data[*p] = format.round(self.data[*p] * s) * (1.0 / s));
            }
        }
        out
    }
}

/// What a recipe does with an operand whose columns are summed over.
fn operand(recipe: Recipe, format: Fp8, weight: bool, m: &Matrix) -> Matrix {
    let all = usize::MAX;
    match recipe.scaling {
        // In the first step the scale is 1.
        Scaling::Unscaled | Scaling::Delayed { .. } => {
            let mut out = m.clone();
            out.data.iter_mut().for_each(|v| *v = format.round(*v));
            out
        }
        Scaling::Current(scale) => m.eight(format, (all, all), scale),
        Scaling::Rowwise(scale) => m.eight(format, (1, all), scale),
        Scaling::Blockwise(scale) => m.eight(format, (if weight { 128 } else { 1 }, 128), scale),
        Scaling::Mx => m.eight(format, (1, 32), Scale::E8M0),
    }
}

fn recipes() -> [Recipe; 7] {
    [
        Recipe::delayed(),
        Recipe::current(),
        Recipe::current().power_of_two(true).formats(Formats::E4M3),
        Recipe::rowwise(),
        Recipe::blockwise(),
        Recipe::mxfp8(),
        Recipe::unscaled(),
    ]
}

fn near(found: &[f32], expected: &[f32], what: &str) {
    let most = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * most, "{what}, value {i}: {a} is not {b} (of {most})");
    }
}

#[test]
fn the_three_products_of_two_layers_are_those_of_each_recipe() -> Outcome {
    for recipe in recipes() {
        products_are_those_of(recipe, 32, Device::Cpu)?;
    }
    Ok(())
}

/// The same on the emulated GPU, where tensor cores multiply the codes: those of every recipe but MXFP8. 144 rows are more than
/// one block of what the gradients by weights sum over.
#[test]
#[cfg(feature = "cuda")]
fn tensor_cores_multiply_the_codes_of_each_recipe() -> Outcome {
    let Ok(device) = Device::emulated().inspect_err(|e| eprintln!("skipped: {e}")) else { return Ok(()) };
    let hybrid = Recipe::blockwise().formats(Formats::Hybrid);
    for (recipe, rows) in recipes().into_iter().map(|r| (r, 32)).chain([(Recipe::blockwise(), 144), (hybrid, 144)]) {
        let kernels = products_are_those_of(recipe, rows, device)?;
        let of = |word: &str| kernels.iter().filter(|k| k.starts_with("gemm_e") && k.ends_with(word)).count();
        let expected = match (recipe.scaling, rows) {
            (Scaling::Mx, _) => [0, 0],
            // Forward twice and by the input; by weights twice.
            (Scaling::Blockwise(_), 144) => [3, 2],
            _ => [5, 0],
        };
        assert_eq!([of("_blocks"), of("_columns")], expected, "{recipe:?}: {kernels:?}");
    }
    Ok(())
}

/// The kernels that a step on the device launched, which moved parameters as the recipe says.
fn products_are_those_of(
    recipe: Recipe,
    rows: usize,
    device: Device,
) -> Result<Vec<&'static str>, Box<dyn std::error::Error>> {
    // Rows of 48 and 160 values; 160 = 128 + 32. MXFP8 asks for multiples of 32.
    let model = Model::init(Two::default(), 1)?.on(device);
    let before = (model.get::<f32>("first.weight")?, model.get::<f32>("second.weight")?);
    let options = TrainOptions::default().precision(Precision::fp8(recipe));
    let mut step = model.train_step(Sgd::new(1.0), options, loss)?;
    let (x, g) = (array(rows, 2), array(rows, 3));
    step.run((&x, &g))?;
    let eight = recipe != Recipe::mxfp8();
    assert_eq!(step.precision_report().in_eight_bits().count(), if eight { 5 } else { 0 });

    let (forward, backward) = recipe.formats.pair();
    let q = |m: &Matrix, format, weight| match eight {
        true => operand(recipe, format, weight, m),
        false => m.clone().bf16(),
    };
    let (w1, w2) = (Matrix::new(160, 48, &before.0), Matrix::new(48, 160, &before.1));
    let (x, g) = (Matrix::new(rows, 48, x.data()), Matrix::new(rows, 48, g.data()));
    let h = q(&x, forward, false).times(&q(&w1, forward, true)).bf16();
    let by_h = q(&g, backward, false).times(&q(&w2.turned(), forward, true)).bf16();
    let by_w2 = q(&g.turned(), backward, false).times(&q(&h.turned(), forward, false));
    let by_w1 = q(&by_h.turned(), backward, false).times(&q(&x.turned(), forward, false));
    for (name, before, by) in [("first.weight", &w1, by_w1), ("second.weight", &w2, by_w2)] {
        let after = model.get::<f32>(name)?;
        let moved: Vec<f32> = before.data.iter().zip(&after).map(|(b, a)| b - a).collect();
        near(&moved, &by.data, &format!("{recipe:?} {name}"));
    }
    Ok(step.program().kernels())
}

/// MXFP8 needs multiples of 32, as 48 is none: with 64 for it.
#[test]
fn microscaling_along_what_is_summed_over() -> Outcome {
    axes! { pub Wide = 64; }
    #[neural_module]
    struct One {
        #[default(Linear::default().no_bias())]
        only: Linear<Wide, Out>,
    }
    let model = Model::init(One::default(), 1)?;
    let before = model.get::<f32>("only.weight")?;
    let program = model
        .compile(|m, x: Tensor![Batch, Wide]| m.only.forward(x))?
        .with_precision(Precision::fp8(Recipe::mxfp8()))?;
    assert_eq!(program.precision_report().in_eight_bits().count(), 1);
    for rows in [32, 33] {
        let x = <Array![Batch, Wide]>::from_fn([rows, 64], |i| {
            noise(5, (i[0] * 64 + i[1]) as u64) as f32 * 2f32.powi((i[1] % 40) as i32 - 20)
        })?;
        let q = |m: Matrix| match rows {
            32 => operand(Recipe::mxfp8(), Fp8::E4M3, false, &m),
            _ => m.bf16(),
        };
        let y = q(Matrix::new(rows, 64, x.data())).times(&q(Matrix::new(160, 64, &before))).bf16();
        near(program.run(&x)?.data(), &y.data, "MXFP8");
    }
    Ok(())
}

#[test]
fn all_devices_train_alike() -> Outcome {
    let precisions = recipes().into_iter().map(Precision::fp8).chain([Compute::Bf16, Compute::F16].map(Precision::new));
    for precision in precisions {
        let mut after = vec![];
        let devices = [Device::Cpu, Device::Reference].into_iter();
        #[cfg(feature = "cuda")]
        let devices = devices.chain(Device::emulated().inspect_err(|e| eprintln!("without the emulated GPU: {e}")));
        for device in devices {
            let model = Model::init(Two::default(), 1)?.on(device);
            let options = TrainOptions::default().precision(precision.clone());
            let mut step = model.train_step(Sgd::new(1e-3), options, loss)?;
            for seed in 0..3 {
                step.run((array(16, 2 + seed), array(16, 9 - seed)))?;
            }
            after.push(model.get::<f32>("first.weight")?);
        }
        after[1..].iter().for_each(|other| near(&after[0], other, &format!("{precision:?}")));
    }
    Ok(())
}

/// Embedding, blocks, a tied head and a wider one: every rule of the policy.
#[neural_module]
struct Layers {
    table: Embedding<Out, In>,
    blocks: [Block; 4],
    odd: Linear<In, Odd>,
    router: Linear<In, Out>,
    lm_head: Linear<In, Out>,
}

#[neural_module]
struct Block {
    up: Linear<In, Out>,
    down: Linear<Out, In>,
}

#[neural_module]
impl Layers {
    fn loss(&self, ids: Tensor![Batch; Index]) -> Tensor![] {
        let mut x = self.table.forward(ids);
        for block in &self.blocks {
            x = x + block.down.forward(block.up.forward(x).relu());
        }
        let best = self.router.forward(x).softmax(Out).argmax(Out);
        let odd = self.odd.forward(x).sum_all();
        self.lm_head.forward(x).cross_entropy(ids) + self.lm_head.forward(x).cross_entropy(best) + odd * 1e-3
    }
}

fn layers(precision: Precision) -> Result<TrainStep<Tensor![Batch; Index]>, TrainError> {
    let model = Model::init(Layers::default(), 0).expect("static sizes");
    model.train_step(Sgd::new(0.1), TrainOptions::default().precision(precision), |m, x| m.loss(x))
}

#[test]
fn a_policy_goes_by_class_name_and_place() -> Outcome {
    let (e4, e5) = (Number::Fp8(Fp8::E4M3), Number::Fp8(Fp8::E5M2));
    let precision = Precision::fp8(Recipe::current()).edges(1, 1).except("blocks.2.up.*", Compute::F32);
    let step = layers(precision)?;
    let report = step.precision_report();
    let find = |name: &str, role| {
        let found = report.gemms.iter().find(|g| g.name == name && g.role == role);
        let gemm = found.unwrap_or_else(|| panic!("{name} {role:?} is missing in\n{report}"));
        (gemm.operands, gemm.why.as_str())
    };
    assert_eq!(find("blocks.1.up.weight", Role::Forward), ([e4, e4], ""));
    assert_eq!(find("blocks.1.up.weight", Role::ByInput), ([e5, e4], ""));
    assert_eq!(find("blocks.1.down.weight", Role::ByWeight), ([e5, e4], ""));
    assert_eq!(find("blocks.0.up.weight", Role::Forward), ([Number::Bf16; 2], "layer 0 of 4"));
    assert_eq!(find("blocks.3.down.weight", Role::ByWeight), ([Number::Bf16; 2], "layer 3 of 4"));
    assert_eq!(find("blocks.2.up.weight", Role::ByInput), ([Number::F32; 2], "by its name"));
    assert_eq!(find("odd.weight", Role::Forward), ([Number::Bf16; 2], "20 is no multiple of 16"));
    assert_eq!(find("lm_head.weight", Role::Forward), ([Number::Bf16; 2], "a head or router"));
    assert_eq!(find("router.weight", Role::Forward), ([Number::Bf16; 2], "a head or router"));
    // What is computed in eight bits if the number of rows allows it says so.
    let few = report.at(&Sizes::new().with::<Batch>(24));
    assert_eq!(few.in_eight_bits().count(), 0);
    assert!(few.to_string().contains("Batch is 24, no multiple of 16"), "{few}");
    assert_eq!(report.at(&Sizes::new().with::<Batch>(32)).in_eight_bits().count(), 9);
    assert!(report.to_string().contains("bf16 unless Batch is a multiple of 16"), "{report}");

    // Options: heads in eight bits, gradients by weights not.
    let recipe = Compute::Fp8(Recipe::blockwise());
    let step = layers(Precision::new(recipe).head(recipe).gradients_by_weights(Compute::Bf16))?;
    let report = step.precision_report();
    let of = |role| report.in_eight_bits().filter(|g| g.role == role).count();
    assert_eq!((of(Role::Forward), of(Role::ByInput), of(Role::ByWeight)), (11, 10, 0), "{report}");
    assert!(report.in_eight_bits().all(|g| g.operands == [e4; 2]));
    // Nothing asked for: nothing rounded.
    let step = layers(Precision::default())?;
    assert!(step.precision_report().gemms.iter().all(|g| g.operands == [Number::F32; 2]));
    let names = step.program().graph().nodes.iter().map(|n| n.op.rule().name());
    assert!(names.filter(|n| ["bf16", "quantize", "amax"].contains(n)).count() == 0);
    Ok(())
}

#[test]
fn mistakes_in_a_policy_are_told() {
    let error = |precision| match layers(precision) {
        Err(TrainError::Build(error @ BuildError::Precision(_))) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    let stray = error(Precision::new(Compute::Bf16).except("lm_heat.weight", Compute::F32));
    assert!(stray.contains("lm_heat.weight") && stray.contains("did you mean `lm_head.weight`"), "{stray}");
    let scaling = Scaling::Delayed { length: 0, take: History::Max, margin: 0.0 };
    assert!(error(Precision::fp8(Recipe { scaling, ..Recipe::delayed() })).contains("history of 0 steps"));
    assert!(error(Precision::fp8(Recipe::current().epsilon(-1.0))).contains("at least -1"));
    let scale = LossScale { initial: 0.5, ..LossScale::default() };
    assert!(error(Precision::new(Compute::F16).loss_scale(scale)).contains("scaled by 0.5"));
}

/// The real values that a checkpoint of a step holds under a name.
fn saved(step: &TrainStep<Pairs>, name: &str) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    // Tests of one process run beside each other.
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("mobilis-precision-{}-{call}.safetensors", std::process::id()));
    step.save(&path)?;
    let data = Checkpoint::open(&path)?.read(name, DType::F32);
    std::fs::remove_file(&path)?;
    match data? {
        Data::F32(values) => Ok(values),
        other => Err(format!("{other:?}").into()),
    }
}

#[test]
fn delayed_scales_follow_their_history() -> Outcome {
    for (take, margin) in [(History::Max, 0.0), (History::MostRecent, 1.0)] {
        let recipe = Recipe { scaling: Scaling::Delayed { length: 3, take, margin }, ..Recipe::delayed() };
        let model = Model::init(Two::default(), 1)?;
        let options = TrainOptions::default().precision(Precision::fp8(recipe));
        let mut step = model.train_step(Sgd::new(1e-3), options, loss)?;
        let (mut history, mut scale) = ([0f32; 3], 1.0);
        // Greatest magnitudes that rise, fall, vanish.
        for (seed, factor) in [1.0, 64.0, 0.25, 0.0, 0.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
            let x = array(16, seed as u64).map(|v| v * factor);
            let weight = model.get::<f32>("first.weight")?;
            step.run((&x, &array(16, 20)))?;
            history = [history[1], history[2], fp8::amax(x.data())];
            let most = match take {
                History::Max => history.into_iter().fold(0.0, f32::max),
                History::MostRecent => history[2],
            };
            scale = fp8::delayed_scale(Fp8::E4M3, margin, most, scale);
            assert_eq!(saved(&step, "first.weight.fp8.input.amax_history")?, history);
            assert_eq!(saved(&step, "first.weight.fp8.input.scale")?, [scale]);
            let newest = saved(&step, "first.weight.fp8.weight.amax_history")?[2];
            assert_eq!(newest, fp8::amax(&weight));
        }
        // Three times nothing: with the history empty the old scale stays.
        assert!(scale > 1.0);
        let by_y = saved(&step, "second.weight.fp8.grad_output.scale")?[0];
        assert_eq!(by_y, fp8::delayed_scale(Fp8::E5M2, margin, fp8::amax(array(16, 20).data()), 1.0));
    }
    Ok(())
}

#[test]
fn a_step_that_is_left_out_leaves_histories_alone() -> Outcome {
    let model = Model::init(Two::default(), 1)?;
    let options = TrainOptions::default().precision(Precision::fp8(Recipe::delayed()));
    let mut step = model.train_step(Sgd::new(1e-3), options, loss)?;
    step.run((array(16, 1), array(16, 2)))?;
    let name = "first.weight.fp8.input.amax_history";
    let before = saved(&step, name)?;
    let broken = array(16, 1).map(|v| if v > 0.05 { f32::NAN } else { v });
    assert!(matches!(step.run((broken, array(16, 2))), Err(TrainError::NonFinite { .. })));
    assert_eq!(saved(&step, name)?, before);
    Ok(())
}

#[test]
fn a_resumed_run_has_its_scales() -> Outcome {
    let path = std::env::temp_dir().join(format!("mobilis-precision-resume-{}.safetensors", std::process::id()));
    let start = |accumulate| -> Result<_, Box<dyn std::error::Error>> {
        let model = Model::init(Two::default(), 1)?;
        let options = TrainOptions::default().accumulate(accumulate).precision(Precision::fp8(Recipe::delayed()));
        Ok((model.train_step(Sgd::new(1e-3), options, loss)?, model))
    };
    for accumulate in [1, 2] {
        let (mut whole, kept) = start(accumulate)?;
        let batch = |i: u64| (array(16, i), array(16, 50 + i));
        Trainer::new(&mut whole).steps(4).run(batch)?;
        let (mut first, _model) = start(accumulate)?;
        Trainer::new(&mut first).steps(2).save(2, &path).run(batch)?;
        let (mut second, resumed) = start(accumulate)?;
        second.resume(&path)?;
        Trainer::new(&mut second).steps(4).run(batch)?;
        assert_eq!(kept.get::<f32>("first.weight")?, resumed.get::<f32>("first.weight")?);
        // Every run rolls the history, whether it makes an update or not.
        let history = saved(&whole, "first.weight.fp8.input.amax_history")?;
        assert_eq!(history.iter().filter(|v| **v > 0.0).count(), 4 * accumulate as usize);
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

#[test]
fn half_precision_scales_the_loss_until_gradients_fit() -> Outcome {
    let model = Model::init(Two::default(), 1)?;
    // Gradients of about 2^-14: times 2^32 more than 16 bits hold.
    let scale = LossScale { window: 4, ..LossScale::default() };
    let precision = Precision::new(Compute::F16).loss_scale(scale);
    let mut step = model.train_step(Sgd::new(10.0), TrainOptions::default().precision(precision), loss)?;
    let (x, g) = (array(16, 2), array(16, 3).map(|v| v * 1e-4));
    let before = model.get::<f32>("first.weight")?;
    let (mut scales, mut updates) = (vec![], vec![]);
    for _ in 0..24 {
        let report = step.run((&x, &g))?;
        scales.push(step.loss_scale().ok_or("it is scaled")?.log2());
        updates.push(report.updated);
        if report.updated && updates.iter().filter(|u| **u).count() == 1 {
            // The first update is that of single precision, but for eleven bits.
            let after = model.get::<f32>("first.weight")?;
            let exact = Model::init(Two::default(), 1)?;
            exact.train_step(Sgd::new(10.0), TrainOptions::default(), loss)?.run((&x, &g))?;
            let expected = exact.get::<f32>("first.weight")?;
            let moved = |to: &[f32]| before.iter().zip(to).map(|(b, a)| (b - a) as f64).collect::<Vec<_>>();
            let (found, expected) = (moved(&after), moved(&expected));
            let most = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
            assert!(most > 0.0 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 2e-3 * most));
        }
    }
    // The first step that is not finite is borne, each further one halves the scale.
    let fall = updates.iter().position(|u| *u).ok_or("no step was finite")?;
    assert!(fall >= 2, "{scales:?}");
    assert_eq!(scales[..fall], (0..fall).map(|i| 32.0 - i as f64).collect::<Vec<_>>());
    // Four finite steps double it, and then two steps may fail again.
    let low = scales[fall - 1];
    assert_eq!(scales[fall..fall + 4], [low, low, low, low + 1.0], "{scales:?} {updates:?}");
    assert_eq!(updates[fall..fall + 4], [true; 4]);
    // One that can still fall bears an overflow; with the least scale it is an error.
    let scale = LossScale { initial: 2.0, hysteresis: 1, ..LossScale::default() };
    let precision = Precision::new(Compute::F16).loss_scale(scale);
    let mut step = model.train_step(Sgd::new(10.0), TrainOptions::default().precision(precision), loss)?;
    let great = array(16, 3).map(|v| v * 1e6);
    assert!(!step.run((&x, &great))?.updated);
    assert!(step.run((&x, &great)).is_err());
    let scale = LossScale { initial: 1.0, ..LossScale::default() };
    let precision = Precision::new(Compute::F16).loss_scale(scale);
    let mut step = model.train_step(Sgd::new(10.0), TrainOptions::default().precision(precision), loss)?;
    let error = step.run((&x, array(16, 3).map(|v| v * 1e6))).err().ok_or("it overflows")?;
    assert!(matches!(error, TrainError::NonFinite { .. }), "{error}");
    Ok(())
}
