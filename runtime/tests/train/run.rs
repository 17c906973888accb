//! Steps and loops as users write them, on both devices.

use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{AdamW, Clip, Muon, Schedule, Sgd, TrainError, TrainOptions, TrainStep, Trainer};
use std::time::Duration;

axes! {
    pub Batch;
    pub In = 5;
    pub Middle = 8;
    pub Out = 2;
}

#[neural_module]
struct Net {
    first: Param![Middle, In],
    bias: Param![Middle],
    second: Param![Out, Middle],
}

type Pairs = (Tensor![Batch, In], Tensor![Batch, Out]);
type Examples = (Array![Batch, In], Array![Batch, Out]);

#[neural_module]
impl Net {
    pub fn forward(&self, x: Tensor![Batch, In]) -> Tensor![Batch, Out] {
        let x = einsum!(x[b i] * self.first.get()[o i] => [b o]) + self.bias.get();
        einsum!(x.tanh()[b i] * self.second.get()[o i] => [b o])
    }
}

fn examples(n: usize, seed: u64) -> Examples {
    let x = <Array![Batch, In]>::from_fn([n, 5], |i| noise(seed, (i[0] * 5 + i[1]) as u64) as f32);
    let x = x.expect("static sizes agree");
    let y = <Array![Batch, Out]>::from_fn([n, 2], |i| x[[i[0], i[1]]] * x[[i[0], 2]]).expect("static sizes agree");
    (x, y)
}

fn loss(net: &Net, (x, y): Pairs) -> Tensor![] {
    net.forward(x).mse_loss(y)
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Both devices follow the same path, up to the rounding of single precision.
#[test]
fn devices_agree() -> Outcome {
    let run = |device: Device, muon: bool| -> Result<(Vec<f32>, Vec<f64>), Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 3)?.on(device);
        let options = TrainOptions::default().clip_norm(0.3).schedule(Schedule::cosine(30).warmup(5)).accumulate(2);
        let mut step = match muon {
            true => model.train_step(Muon::new(0.05, 0.02).weight_decay(0.1), options, loss)?,
            false => model.train_step(AdamW::new(0.02).weight_decay(0.1), options, loss)?,
        };
        let mut losses = vec![];
        for i in 0..40 {
            losses.push(step.run(examples(4, i))?.loss);
        }
        assert_eq!(step.steps(), 20);
        let mut values = model.get::<f32>("first")?;
        values.extend(model.get::<f32>("second")?);
        Ok((values, losses))
    };
    for muon in [false, true] {
        let (cpu, reference) = (run(Device::Cpu, muon)?, run(Device::Reference, muon)?);
        for (a, b) in cpu.1.iter().zip(&reference.1) {
            assert!((a - b).abs() < 1e-5, "losses {a} and {b}");
        }
        for (a, b) in cpu.0.iter().zip(&reference.0) {
            assert!((a - b).abs() < 1e-4, "parameters {a} and {b}");
        }
    }
    Ok(())
}

#[test]
fn a_trainer_fits() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let evaluate = model.compile(loss)?;
    let held_out = examples(64, 1000);
    let before = evaluate.run(&held_out)?.item();
    let options = TrainOptions::default().schedule(Schedule::wsd(300, 100).warmup(10));
    let mut step = model.train_step(Muon::new(0.05, 0.02), options, loss)?;
    let mut shown = vec![];
    let history = Trainer::new(&mut step)
        .evaluate(100, |_| Ok(evaluate.run(&held_out)?.item().into()))
        .progress(|p| shown.push((p.step, p.fraction, p.learning_rate, p.evaluation)))
        .run(|i| examples(32, i))?;
    assert_eq!(history.losses.len(), 300);
    let evaluated: Vec<u64> = history.evaluations.iter().map(|e| e.0).collect();
    assert_eq!(evaluated, [100, 200, 300]);
    let after = history.evaluations[2].1;
    assert!(after < 0.2 * f64::from(before), "the loss goes from {before} to {after}");
    assert_eq!(shown.len(), 300);
    assert_eq!(shown[299].0, 300);
    assert_eq!(shown[299].1, 1.0);
    assert_eq!(shown[299].3, Some(after));
    assert!((shown[20].2 - 0.05).abs() < 1e-12 && shown[299].2 < 0.001);
    assert!(history.recent(10) < history.losses[0]);
    Ok(())
}

#[test]
fn by_the_clock() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let options = TrainOptions::default().schedule(Schedule::linear(10));
    let mut step = model.train_step(Sgd::new(0.1), options, loss)?;
    let mut rates = vec![];
    let history = Trainer::new(&mut step)
        .time(Duration::from_millis(200))
        .progress(|p| rates.push(p.learning_rate))
        .run(|i| examples(4, i))?;
    assert!(history.elapsed >= Duration::from_millis(200));
    assert!(history.losses.len() > 20, "{} steps", history.losses.len());
    assert!(rates.windows(2).all(|w| w[1] <= w[0]));
    assert!(rates[0] > 0.08 && rates[rates.len() - 1] < 0.03, "{rates:?}");
    Ok(())
}

/// The message names the operation and module where the first bad value arose.
#[test]
fn values_that_are_not_finite_stop_training() -> Outcome {
    for device in [Device::Cpu, Device::Reference] {
        let model = Model::init(Net::default(), 1)?.on(device);
        let explode = |net: &Net, (x, y): Pairs| (net.forward(x) / x.sum_all().sqrt()).mse_loss(y);
        let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), explode)?;
        let mut good = examples(4, 1);
        good.0.data_mut().iter_mut().for_each(|v| *v = v.abs());
        let mut bad = good.clone();
        bad.0.data_mut().iter_mut().for_each(|v| *v = -*v);
        step.run(&good)?;
        let before = model.get::<f32>("first")?;
        let error = step.run(&bad).expect_err("the root of a negative number");
        let message = error.to_string();
        assert!(matches!(error, TrainError::NonFinite { step: 2, .. }), "{message}");
        assert!(message.contains("the first such value: sqrt in Net: 1 of 1 values"), "{message}");
        assert_eq!(model.get::<f32>("first")?, before);
        step.run(&good)?;
        assert_eq!(step.steps(), 2);

        // A trainer may leave such batches out.
        let history = Trainer::new(&mut step).steps(12).skip_non_finite(1).run(|i| match i {
            4 | 7 => bad.clone(),
            _ => good.clone(),
        })?;
        assert_eq!(history.skipped.iter().map(|s| s.0).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(history.losses.len(), 10);
    }
    Ok(())
}

#[test]
fn frozen_parameters_stay() -> Outcome {
    let mut model = Model::init(Net::default(), 1)?;
    model.freeze("first")?;
    let mut step = model.train_step(AdamW::new(0.1), TrainOptions::default(), loss)?;
    let (first, second) = (model.get::<f32>("first")?, model.get::<f32>("second")?);
    step.run(examples(4, 1))?;
    assert_eq!(model.get::<f32>("first")?, first);
    assert_ne!(model.get::<f32>("second")?, second);
    Ok(())
}

#[test]
fn the_store_forgets_a_dropped_step() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let count = || model.store().lock().len();
    let before = count();
    let mut step: TrainStep<Pairs> =
        model.train_step(AdamW::new(0.1), TrainOptions { clip: Clip::Value(1.0), ..Default::default() }, loss)?;
    step.run(examples(4, 1))?;
    assert_eq!(count(), before + 1 + 6);
    drop(step);
    assert_eq!(count(), before);
    Ok(())
}

#[test]
fn sizes_that_disagree_are_named() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), loss)?;
    let error = step.run((examples(3, 1).0, examples(4, 1).1)).expect_err("Batch differs").to_string();
    assert!(error.contains("axis `Batch` is 3 in `x` and 4 in `argument 2`"), "{error}");
    Ok(())
}

/// Random operations inside a step: new numbers at every step, the same on both devices, and the
/// same again under the same seed.
#[test]
fn dropout_draws_anew_at_each_step() -> Outcome {
    let losses = |device: Device, seed: u32| -> Result<Vec<f64>, Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 3)?.on(device);
        model.store().seed(seed);
        let loss = |net: &Net, (x, y): Pairs| net.forward(x.dropout(0.4)).mse_loss(y);
        let mut step = model.train_step(Sgd::new(0.0), TrainOptions::default(), loss)?;
        (0..4).map(|_| Ok(step.run(examples(4, 1))?.loss)).collect()
    };
    let first = losses(Device::Cpu, 5)?;
    assert!(first.windows(2).all(|w| w[0] != w[1]), "{first:?}");
    for (a, b) in first.iter().zip(losses(Device::Reference, 5)?) {
        assert!((a - b).abs() < 1e-5 * b.abs(), "{a} and {b}");
    }
    assert_eq!(first, losses(Device::Cpu, 5)?);
    assert_ne!(first, losses(Device::Cpu, 6)?);
    Ok(())
}

/// An evaluation that fails ends training with its message.
#[test]
fn a_failing_evaluation_stops_training() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), loss)?;
    let error = Trainer::new(&mut step)
        .steps(5)
        .evaluate(2, |step| Err(format!("no data at step {step}").into()))
        .run(|i| examples(4, i))
        .expect_err("the evaluation fails");
    assert_eq!(error.to_string(), "the evaluation failed: no data at step 2");
    assert_eq!(step.steps(), 2);
    Ok(())
}

/// A resumed or finished step has nothing left to do.
#[test]
fn no_steps_are_made_beyond_the_total() -> Outcome {
    let model = Model::init(Net::default(), 1)?;
    let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), loss)?;
    assert_eq!(Trainer::new(&mut step).steps(3).run(|i| examples(4, i))?.losses.len(), 3);
    assert!(Trainer::new(&mut step).steps(3).run(|i| examples(4, i))?.losses.is_empty());
    assert!(Trainer::new(&mut step).time(Duration::ZERO).run(|i| examples(4, i))?.losses.is_empty());
    Ok(())
}

/// Averages are those of the values after each step, begin at the first values, and show themselves when asked.
#[test]
fn averages_follow_the_parameters() -> Outcome {
    let model = Model::init(Net::default(), 3)?;
    let mut step = model.train_step(Sgd::new(0.3), TrainOptions::default().average(0.75), loss)?;
    assert!(!step.swap_averages(), "before the first step there are none");
    let mut expected = model.get::<f32>("first")?;
    for i in 0..5 {
        step.run(examples(4, i))?;
        for (mean, now) in expected.iter_mut().zip(model.get::<f32>("first")?) {
            *mean = 0.75 * *mean + 0.25 * now;
        }
    }
    let now = model.get::<f32>("first")?;
    assert!(step.swap_averages());
    for (a, b) in model.get::<f32>("first")?.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }
    assert!(step.swap_averages());
    assert_eq!(model.get::<f32>("first")?, now);
    let faulty = TrainOptions::default().average(1.0);
    let error = model.train_step(Sgd::new(0.1), faulty, loss).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("less than 1"), "{error}");
    Ok(())
}
