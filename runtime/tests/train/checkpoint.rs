//! Training checkpoints: exact resumption, and files that do not fit.

use mobilis::checkpoint::{Checkpoint, Writer};
use mobilis::graph::DType;
use mobilis::module::store::Data;
use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{AdamW, Lion, Schedule, TrainOptions, TrainStep, Trainer};
use std::path::PathBuf;

axes! {
    pub Batch;
    pub In = 4;
    pub Middle = 6;
}

/// With dropout and running means, so that random counters and buffers count.
#[neural_module]
struct Net {
    first: Param![Middle, In],
    second: Param![Middle],
    frozen: Param![Middle],
    mean: Buffer![Middle],
}

type Pairs = (Tensor![Batch, In], Tensor![Batch]);

#[neural_module]
impl Net {
    pub fn loss(&self, x: Tensor![Batch, In], y: Tensor![Batch]) -> Tensor![] {
        let x = einsum!(x[b i] * self.first.get()[o i] => [b o]).tanh().dropout(0.3);
        self.mean.set(self.mean.get() * 0.9 + x.mean(Batch) * 0.1);
        let x = x - self.mean.get() + self.frozen.get();
        einsum!(x[b o] * self.second.get()[o] => [b]).mse_loss(y)
    }
}

fn loss(net: &Net, (x, y): Pairs) -> Tensor![] {
    net.loss(x, y)
}

fn batch(index: u64) -> (Array![Batch, In], Array![Batch]) {
    let x = <Array![Batch, In]>::from_fn([5, 4], |i| noise(index, (i[0] * 4 + i[1]) as u64) as f32);
    let x = x.expect("static sizes agree");
    let y = <Array![Batch]>::from_fn([5], |i| x[[i[0], 1]] - x[[i[0], 3]]).expect("one axis");
    (x, y)
}

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mobilis-train-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn start(device: Device, accumulate: u32, seed: u64) -> (Model<Net>, TrainStep<Pairs>) {
    let mut model = Model::init(Net::default(), seed).expect("static sizes").on(device);
    model.freeze("frozen").expect("there is one");
    let options =
        TrainOptions::default().clip_norm(0.5).schedule(Schedule::cosine(20).warmup(3)).accumulate(accumulate);
    let step = model.train_step(AdamW::new(0.05), options, loss).expect("a loss");
    (model, step)
}

/// Every variable of a checkpoint, bit for bit.
fn contents(path: &PathBuf) -> Result<Vec<(String, Vec<u64>)>, Box<dyn std::error::Error>> {
    let file = Checkpoint::open(path)?;
    let mut all = vec![];
    for (name, stored) in file.tensors() {
        let integer = stored.encoding.name().starts_with('I');
        let data = file.read_wide(name, if integer { DType::I32 } else { DType::F32 })?;
        all.push((name.to_string(), data.to_f64().iter().map(|v| v.to_bits()).collect()));
    }
    Ok(all)
}

/// Stopped after five updates (and within one), a run ends as one that was not stopped.
#[test]
fn a_resumed_run_is_the_same_run() -> Outcome {
    let folder = Folder::new("resume");
    for (device, accumulate, stop) in [(Device::Cpu, 1, 5), (Device::Cpu, 3, 16), (Device::Reference, 2, 9)] {
        let whole = folder.file("whole.safetensors");
        let (_model, mut step) = start(device, accumulate, 1);
        let mut losses = vec![];
        while step.steps() < 12 {
            losses.push(step.run(batch(step.batches()))?.loss);
        }
        step.save(&whole)?;

        let half = folder.file("half.safetensors");
        let (_model, mut step) = start(device, accumulate, 1);
        for _ in 0..stop {
            step.run(batch(step.batches()))?;
        }
        step.save(&half)?;

        // Another process would start from other values.
        let (_model, mut step) = start(device, accumulate, 99);
        step.run(batch(1234))?;
        step.resume(&half)?;
        assert_eq!(step.batches(), stop);
        assert_eq!(step.steps(), stop / u64::from(accumulate));
        while step.steps() < 12 {
            let expected = losses[step.batches() as usize];
            assert_eq!(step.run(batch(step.batches()))?.loss.to_bits(), expected.to_bits());
        }
        let joined = folder.file("joined.safetensors");
        step.save(&joined)?;
        assert_eq!(contents(&joined)?, contents(&whole)?);
    }
    Ok(())
}

#[test]
fn a_trainer_saves_and_resumes() -> Outcome {
    let folder = Folder::new("trainer");
    let path = folder.file("run.safetensors");
    let (model, mut step) = start(Device::Cpu, 2, 1);
    let history = Trainer::new(&mut step).run(batch)?;
    let expected = model.get::<f32>("first")?;

    let (_model, mut step) = start(Device::Cpu, 2, 1);
    Trainer::new(&mut step).steps(8).save(3, &path).run(batch)?;
    let (model, mut step) = start(Device::Cpu, 2, 7);
    step.resume(&path)?;
    let rest = Trainer::new(&mut step).run(batch)?;
    assert_eq!(rest.losses.len(), 12);
    assert_eq!(rest.losses, history.losses[8..]);
    assert_eq!(model.get::<f32>("first")?, expected);
    Ok(())
}

/// A checkpoint that was written before the first step has no moments, and needs none.
#[test]
fn before_the_first_step() -> Outcome {
    let folder = Folder::new("fresh");
    let path = folder.file("fresh.safetensors");
    let (model, step) = start(Device::Cpu, 1, 5);
    step.save(&path)?;
    let (other, mut step) = start(Device::Cpu, 1, 6);
    step.resume(&path)?;
    assert_eq!(model.get::<f32>("first")?, other.get::<f32>("first")?);
    step.run(batch(0))?;
    Ok(())
}

#[test]
fn files_that_do_not_fit_are_refused() -> Outcome {
    let folder = Folder::new("misfit");
    let path = folder.file("run.safetensors");
    let (model, mut step) = start(Device::Cpu, 1, 1);
    step.run(batch(0))?;
    step.save(&path)?;

    let mut lion = model.train_step(Lion::new(0.1), TrainOptions::default(), loss)?;
    let error = lion.resume(&path).expect_err("another optimizer").to_string();
    for line in [
        "does not fit this training step:",
        "`second.lion.exp_avg` [Middle=6] is missing",
        "`second.adamw.exp_avg_sq` belongs to nothing here",
    ] {
        assert!(error.contains(line), "{error}");
    }

    model.save(&path)?;
    let error = step.resume(&path).expect_err("a model alone").to_string();
    assert!(error.contains("is no training checkpoint: its metadata has no `format`"), "{error}");

    let zeros = Data::F32(vec![0.0; 3]);
    let meta = |w: Writer<'static>| w.metadata("format", "mobilis.training").metadata("pending", "0");
    let small: &'static Data = Box::leak(Box::new(zeros));
    let writer = meta(Writer::new().add("first", &[3], small)?).metadata("steps", "0");
    writer.clone().metadata("batches", "many").save(&path)?;
    let error = step.resume(&path).expect_err("no number").to_string();
    assert!(error.contains("`batches` is \"many\" in its metadata, no whole number"), "{error}");
    writer.metadata("batches", "0").save(&path)?;
    let before = model.get::<f32>("first")?;
    let error = step.resume(&path).expect_err("another shape").to_string();
    assert!(error.contains("`first` [Middle=6, In=4] has sizes [3]"), "{error}");
    assert_eq!(model.get::<f32>("first")?, before);

    assert!(step.resume(folder.file("absent.safetensors")).is_err());
    // A folder that does not exist cannot be written to, and the run goes on.
    assert!(step.save(folder.file("no/such/folder.safetensors")).is_err());
    step.run(batch(1))?;
    Ok(())
}
