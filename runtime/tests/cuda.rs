//! Programs on the emulated GPU: arenas, variables that stay on the device, errors. What single operations
//! give there is compared in `tests/ops`, by `testing::check`.
#![cfg(feature = "cuda")]

extern crate mobilis_runtime as mobilis;

use mobilis::devices::{Device, DeviceError};
use mobilis::ops::attention::attention;
use mobilis::precision::{Compute, Precision};
use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{AdamW, TrainOptions};

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
    calls: Buffer![Middle],
}

type Pairs = (Tensor![Batch, In], Tensor![Batch, Out]);
type Examples = (Array![Batch, In], Array![Batch, Out]);

#[neural_module]
impl Net {
    pub fn forward(&self, x: Tensor![Batch, In]) -> Tensor![Batch, Out] {
        let x = einsum!(x[b i] * self.first.get()[o i] => [b o]) + self.bias.get();
        self.calls.set(self.calls.get() + 1.0);
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

/// The emulator, or nothing and a reason.
fn device() -> Option<Device> {
    Device::emulated().inspect_err(|e| eprintln!("skipped: {e}")).ok()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5, "{a} is not {b}: {found:?}");
    }
}

#[test]
fn training_is_that_of_the_cpu() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    let run = |device: Device| -> Result<(Vec<f32>, Vec<f32>), Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 3)?.on(device);
        assert_eq!(model.device(), device);
        let evaluate = model.compile(loss)?;
        let options = TrainOptions::default().clip_norm(0.3);
        let mut step = model.train_step(AdamW::new(0.02).weight_decay(0.1), options, loss)?;
        let mut seen = vec![];
        for i in 0..4 {
            seen.push(step.run(examples(4 + i as usize % 2, i))?.loss as f32);
            // Another program sees the new values where they are.
            seen.push(evaluate.run(examples(3, 9))?.item());
        }
        let mut values = model.get::<f32>("first")?;
        values.extend(model.get::<f32>("bias")?);
        values.extend(model.get::<f32>("calls")?);
        // What the host writes shows in the next run.
        model.set("second", &[0.25f32; 16])?;
        seen.push(step.run(examples(4, 7))?.loss as f32);
        values.extend(model.get::<f32>("second")?);
        Ok((seen, values))
    };
    let (found, expected) = (run(emulated)?, run(Device::Cpu)?);
    close(&found.0, &expected.0);
    close(&found.1, &expected.1);
    Ok(())
}

/// All parameters, with decay and without, in as many launches as there are settings; a variable that another chain writes
/// is read before that.
#[test]
fn an_optimizer_steps_over_all_parameters_at_once() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    let run = |device: Device| -> Result<(Vec<f32>, Vec<&'static str>), Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 3)?.on(device);
        let options = TrainOptions::default().clip_norm(0.3).decay_matrices_only();
        let mut step = model.train_step(AdamW::new(0.02).weight_decay(0.1), options, |net: &Net, (x, y): Pairs| {
            // The next step's first values are this one's second: each must be seen as it was.
            let loss = net.forward(x).mse_loss(y);
            loss + net.calls.get().sum_all() * 1e-3
        })?;
        let mut all = vec![];
        for i in 0..5 {
            all.push(step.run(examples(4, i))?.loss as f32);
        }
        for name in ["first", "bias", "second", "calls"] {
            all.extend(model.get::<f32>(name)?);
        }
        Ok((all, step.program().kernels()))
    };
    let ((found, kernels), (expected, _)) = (run(emulated)?, run(Device::Cpu)?);
    close(&found, &expected);
    let together = kernels.iter().filter(|k| k.starts_with("chains_")).count();
    assert_eq!(together, 1, "two weights with decay run together: {kernels:?}");
    Ok(())
}

/// Tensor cores attend, forward and backward, where a policy rounds what goes in and what comes out; masks stay `f32`.
#[test]
fn attention_in_sixteen_bits_is_on_tensor_cores() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    axes! { Time; Heads = 2; Each = 16; Wide = 32; }
    #[neural_module]
    struct Net {
        qkv: Param![Wide, Heads, Each],
        values: Param![Wide, Heads, Each],
    }
    type Data = (Tensor![Batch, Time, Wide], Tensor![Batch; Index], Tensor![Batch, Time, Heads, Each]);
    let run = |device: Device, compute: Compute| -> Result<(Vec<f32>, Vec<&'static str>), Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 3)?.on(device);
        let options = TrainOptions::default().precision(Precision::new(compute));
        let mut step = model.train_step(AdamW::new(0.01), options, |net: &Net, (x, lengths, y): Data| {
            let q = einsum!(x[b t i] * net.qkv.get()[i h d] => [b t h d]);
            let v = einsum!(x[b t i] * net.values.get()[i h d] => [b t h d]);
            let all = attention(q, q, v).lengths(lengths).causal().output();
            all.mse_loss(y) * 100.0
        })?;
        let mut seen = vec![];
        for i in 0..2 {
            let x = <Array![Batch, Time, Wide]>::from_fn([2, 20, 32], |at| {
                noise(i, (at[0] * 640 + at[1] * 32 + at[2]) as u64) as f32
            })?;
            let y = <Array![Batch, Time, Heads, Each]>::from_fn([2, 20, 2, 16], |at| {
                noise(i + 9, (at[1] * 32 + at[3]) as u64) as f32
            })?;
            let lengths = <Array![Batch; Index]>::from_fn([2], |at| [20, 17][at[0]])?;
            seen.push(step.run((x, lengths, y))?.loss as f32);
        }
        seen.extend(model.get::<f32>("qkv")?);
        seen.extend(model.get::<f32>("values")?);
        Ok((seen, step.program().kernels()))
    };
    for (compute, tolerance) in [(Compute::Bf16, 2e-2), (Compute::F16, 4e-3)] {
        let ((found, kernels), (expected, _)) = (run(emulated, compute)?, run(Device::Cpu, compute)?);
        let most = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= tolerance * most, "{compute:?}: {a} is not {b} (of {most})");
        }
        for pass in ["forward", "dq", "dkv"] {
            let start = format!("attention_{pass}_{}", if compute == Compute::Bf16 { "bf16" } else { "f16" });
            assert!(kernels.iter().any(|k| k.starts_with(&start)), "no {start}: {kernels:?}");
        }
    }
    let (_, kernels) = run(emulated, Compute::F32)?;
    assert!(kernels.contains(&"attention_forward_f32_64"), "{kernels:?}");
    Ok(())
}

/// Bias, activation, gate, residual and rounding leave with the product: no kernel follows it.
#[test]
fn what_follows_products_is_part_of_them() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    axes! { Wide = 24; }
    #[neural_module]
    struct Net {
        weight: Param![Wide, In],
        bias: Param![Wide],
        gate: Param![Wide],
    }
    type F = fn(&Net, Tensor![Batch, Wide], Tensor![Batch, Wide]) -> Tensor![Batch, Wide];
    let forms: [(&str, F); 9] = [
        ("bias", |m, y, _| y + m.bias.get()),
        ("gelu", |m, y, r| (y + m.bias.get()).gelu() + r),
        ("gelu_tanh", |m, y, r| (y + m.bias.get()).gelu_tanh() * r),
        ("silu", |m, y, r| y.silu() * m.gate.get() + r),
        ("relu", |m, y, r| r + (y + m.bias.get()).relu() * m.gate.get()),
        ("tanh", |m, y, _| (y + m.bias.get()).tanh()),
        ("sigmoid", |_, y, r| y.sigmoid() * r),
        ("residual", |_, y, r| y + r),
        ("half", |m, y, r| r + (y + m.bias.get()).silu() * 0.5),
    ];
    for (name, form) in forms {
        let run = |device: Device| -> Result<(Vec<f32>, Vec<&'static str>), Box<dyn std::error::Error>> {
            let model = Model::init(Net::default(), 3)?.on(device);
            model.set("bias", &(0..24).map(|i| noise(1, i) as f32).collect::<Vec<f32>>())?;
            model.set("gate", &(0..24).map(|i| noise(2, i) as f32).collect::<Vec<f32>>())?;
            let program = model.compile(|m, (x, r): (Tensor![Batch, In], Tensor![Batch, Wide])| {
                form(m, einsum!(x[b i] * m.weight.get()[o i] => [b o]), r)
            })?;
            let mut all = vec![];
            for n in [1, 4, 70] {
                let r = <Array![Batch, Wide]>::from_fn([n, 24], |i| noise(3, (i[0] * 24 + i[1]) as u64) as f32)?;
                all.extend(program.run((examples(n, 1).0, r))?.data().to_vec());
            }
            Ok((all, program.executable().kernels()))
        };
        let ((found, kernels), (expected, _)) = (run(emulated)?, run(Device::Cpu)?);
        close(&found, &expected);
        assert!(kernels.len() == 1 && kernels[0].starts_with("gem"), "{name}: {kernels:?}");
    }
    Ok(())
}

/// A norm adds what it norms and leaves the sum for whoever reads it later: the same bits as where something reads the sum
/// before, which then is a kernel of its own.
#[test]
fn sums_are_added_where_they_are_normed() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    axes! { Wide = 40; }
    #[neural_module]
    struct Net {
        weight: Param![Wide],
    }
    let model = Model::init(Net::default(), 3)?.on(emulated);
    model.set("weight", &(0..40).map(|i| noise(1, i) as f32).collect::<Vec<f32>>())?;
    type Two = (Tensor![Batch, Wide], Tensor![Batch, Wide]);
    let joined = model.compile(|m, (x, y): Two| {
        let sum = x + y;
        (sum.rms_norm(Some(m.weight.get()), 1e-5), sum.flip(Batch))
    })?;
    let apart = model.compile(|m, (x, y): Two| {
        let sum = x + y;
        let flipped = sum.flip(Batch);
        (sum.rms_norm(Some(m.weight.get()), 1e-5), flipped)
    })?;
    for n in [1, 5, 0] {
        let of = |seed| <Array![Batch, Wide]>::from_fn([n, 40], |i| noise(seed, (i[0] * 40 + i[1]) as u64) as f32);
        let (x, y) = (of(4)?, of(5)?);
        let (a, b) = (joined.run((x.clone(), y.clone()))?, apart.run((x.clone(), y.clone()))?);
        assert_eq!((a.0.data(), a.1.data()), (b.0.data(), b.1.data()));
        if n == 5 {
            let adds = |kernels: Vec<&str>| kernels.iter().filter(|k| **k == "add_f32").count();
            assert_eq!([joined.executable().kernels(), apart.executable().kernels()].map(adds), [0, 1]);
            assert_eq!(a.1.data()[4 * 40], x[[0, 0]] + y[[0, 0]]);
        }
    }
    Ok(())
}

#[test]
fn models_go_to_the_device_and_come_back() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    let model = Model::init(Net::default(), 1)?.on(emulated);
    let forward = |m: &Net, x: Tensor![Batch, In]| m.forward(x);
    let on_device = model.compile(forward)?;
    let (x, _) = examples(3, 1);
    let first = on_device.run(&x)?;
    let model = model.on(Device::Cpu);
    let (cpu, wide) = (model.compile(forward)?, model.store().deep_clone());
    close(cpu.run(&x)?.data(), first.data());
    // Both programs count, in one store.
    on_device.run(&x)?;
    assert_eq!(model.get::<f32>("calls")?, [3.0; 8]);
    wide.to_reference();
    assert_eq!(wide.lock().iter().map(|(_, e)| e.name.clone()).collect::<Vec<_>>().len(), 4);
    Ok(())
}

#[test]
fn several_sizes_stay_prepared_and_none_is_needed() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    let run = |device: Device| -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
        let model = Model::init(Net::default(), 1)?.on(device);
        let program = model.compile(|m, x: Tensor![Batch, In]| {
            let y = m.forward(x);
            (y, y.softmax(Out), y.sum(Batch), x)
        })?;
        let mut all = vec![];
        for n in [3, 1, 0, 3, 7, 2, 4, 5, 6, 8, 9, 3] {
            let (y, p, sum, x) = program.run(examples(n, 1).0)?;
            all.extend([y.data().to_vec(), p.data().to_vec(), sum.data().to_vec(), x.data().to_vec()]);
        }
        Ok(all)
    };
    for (found, expected) in run(emulated)?.iter().zip(&run(Device::Cpu)?) {
        close(found, expected);
    }
    Ok(())
}

/// Products read what the model stores, on one row and on several, without `f32` beside it.
#[test]
fn weights_are_read_as_they_are_stored() -> Outcome {
    use mobilis::checkpoint::Blocks;
    use mobilis::module::AnyVar;
    use mobilis::module::encoded::{Encoded, Encoding};
    use mobilis::module::store::{Data, Entry};
    use mobilis::program::WeightFormat;
    let Some(emulated) = device() else { return Ok(()) };
    axes! { Wide = 64; Tall = 48; }
    #[neural_module]
    struct Net {
        weight: Param![Tall, Wide],
    }
    for (encoding, format) in [
        (Encoding::Bf16, WeightFormat::Bf16),
        (Encoding::F16, WeightFormat::F16),
        (Encoding::Blocks(Blocks::Q8_0), WeightFormat::Q8_0),
        (Encoding::Blocks(Blocks::Q4_0), WeightFormat::Q4_0),
    ] {
        let (_, block) = encoding.block();
        let count = 48 * 64;
        let size = encoding.bytes(count).expect("whole blocks");
        // Numbers of 16 bits and the scales of blocks have small exponents; the rest may be anything.
        let bytes: Vec<u8> = (0..size)
            .map(|i| match (encoding, i % block) {
                (Encoding::Bf16, 1) => 0x3d,
                (_, 1) => 0x2c,
                _ => (noise(5, i as u64) * 128.0) as i8 as u8,
            })
            .collect();
        let model = Model::init(Net::default(), 1)?;
        let stored = Encoded::new(encoding, count, bytes).expect("as many bytes as that takes");
        let entry = Entry::new("weight", &[48, 64], Data::Encoded(stored));
        model.store().lock().insert(model.module().weight.id(), entry);
        let run = |model: &Model<Net>| -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
            let program = model.compile(|m, x: Tensor![Batch, Wide]| einsum!(x[b i] * m.weight.get()[o i] => [b o]))?;
            let mut all = vec![];
            for n in [1, 3, 20] {
                let x = <Array![Batch, Wide]>::from_fn([n, 64], |i| noise(7, (i[0] * 64 + i[1]) as u64) as f32)?;
                all.push(program.run(x)?.data().to_vec());
                if model.device() == emulated {
                    let weights = program.weights();
                    assert_eq!(weights.len(), 1, "{encoding} with {n} rows");
                    assert_eq!((weights[0].format, weights[0].size, weights[0].bytes), (format, (48, 64), size));
                }
            }
            Ok(all)
        };
        let model = model.on(emulated);
        let found = run(&model)?;
        let program = model.compile(|m, x: Tensor![Batch, Wide]| einsum!(x[b i] * m.weight.get()[o i] => [b o]))?;
        assert!(program.with_weights(WeightFormat::Int8).is_err(), "weights are stored anew on the CPU alone");
        // Under a policy of the same 16 bits nothing is rounded that is stored so, and tensor cores read it where it lies.
        let compute = match encoding {
            Encoding::Bf16 => Some(Compute::Bf16),
            Encoding::F16 => Some(Compute::F16),
            Encoding::Blocks(_) => None,
        };
        if let Some(compute) = compute {
            let run = |model: &Model<Net>| -> Result<_, Box<dyn std::error::Error>> {
                let x = <Array![Batch, Wide]>::from_fn([20, 64], |i| noise(7, (i[0] * 64 + i[1]) as u64) as f32)?;
                let program =
                    model.compile(|m, x: Tensor![Batch, Wide]| einsum!(x[b i] * m.weight.get()[o i] => [b o]))?;
                let program = program.with_precision(compute)?;
                let y = program.run(x)?.data().to_vec();
                let weights: Vec<_> = program.weights().iter().map(|w| (w.format, w.size)).collect();
                Ok((y, program.executable().bytes_moved(), weights))
            };
            let (found, moved, weights) = run(&model)?;
            // The argument becomes 16 bits, and is multiplied with the weight.
            assert_eq!(moved, Some(20 * 64 * (4 + 2) + 20 * 64 * 2 + 48 * 64 * 2 + 20 * 48 * 4), "{encoding}");
            assert_eq!(weights, [(format, (48, 64))]);
            let cpu = Model::init(Net::default(), 1)?;
            let entry = model.store().lock().get(model.module().weight.id()).map(|e| e.data.dense().into_owned());
            let entry = Entry::new("weight", &[48, 64], entry.expect("the weight is there"));
            cpu.store().lock().insert(cpu.module().weight.id(), entry);
            close(&found, &run(&cpu)?.0);
        }
        let expected = run(&model.on(Device::Reference))?;
        for (found, expected) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
            assert!(largest > 0.01, "{encoding}");
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-5 * largest, "{encoding}: {a} is not {b}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_told_with_the_plan() -> Outcome {
    let Some(emulated) = device() else { return Ok(()) };
    axes! { Long; Wide = 65536; }
    #[neural_module]
    struct Nothing {}
    let model = Model::init(Nothing::default(), 1)?.on(emulated);
    let program = model.compile(|_, x: Tensor![Long]| {
        let wide = Tensor::<(Long, Wide)>::zeros() + 1.0;
        (wide.flip(Long).sum(Wide), x)
    })?;
    let x = <Array![Long]>::zeros([1 << 16])?;
    let message = program.run(&x).expect_err("16 GiB").to_string();
    assert!(message.contains("bytes left") && message.contains("the program's plan takes"), "{message}");
    // The device goes on.
    assert_eq!(program.run(&<Array![Long]>::zeros([1])?)?.0.data(), [65536.0]);
    Ok(())
}

#[test]
fn devices_have_names() {
    for (name, device) in [
        ("cpu", Device::Cpu),
        ("cuda", Device::Cuda(0)),
        ("cuda:3", Device::Cuda(3)),
        ("reference", Device::Reference),
        ("emulated", Device::Emulated),
    ] {
        assert_eq!(name.parse(), Ok(device));
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
        assert_eq!(name.parse::<Device>(), Err(DeviceError::Unknown(name.into())));
    }
    let far = Device::cuda(4_000).expect_err("there are not so many").to_string();
    assert!(far.contains("no CUDA device"), "{far}");
}
