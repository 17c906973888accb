//! Models whose matrices stay as a file stores them: every encoding, against the same model in `f32`.

use mobilis::checkpoint::{Blocks, Checkpoint, CheckpointError, Encoding, Raw, Source, TensorInfo};
use mobilis::module::store::Data;
use mobilis::nn::{CausalConv1d, Embedding, Linear, RmsNorm, SwiGlu};
use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{Sgd, TrainOptions};
use mobilis_kernels::cpu::quant::half::{to_bf16, to_f16};
use std::collections::BTreeMap;
use std::path::Path;

axes! {
    pub Batch;
    pub Time;
    pub Vocab = 97;
    pub Hidden = 256;
    pub Ffn = 2 * Hidden;
}

/// A head that is the embedding, products that are joined, and a weight that no product reads.
#[neural_module]
struct Net {
    embed: Embedding<Vocab, Hidden>,
    norm: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Ffn>,
    conv: CausalConv1d<Hidden, Hidden, 3>,
    places: Param<(Const<4>, Hidden)>,
}

#[neural_module]
impl Net {
    fn forward(&self, ids: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Vocab] {
        let x = self.embed.forward(ids) + self.places.get().sum(Const::<4>);
        let x = x + self.mlp.forward(self.norm.forward(x));
        let across = self.norm.forward(x);
        let along = self.conv.forward(rearrange!(across[b t h] => [b h t]));
        let x = x + rearrange!(along[b h t] => [b t h]);
        self.embed.attend(self.norm.forward(x))
    }
}

type Ids = Array![Batch, Time; Index];
type Logits = Array![Batch, Time, Vocab];
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn ids(batch: usize, time: usize) -> Result<Ids> {
    Ok(Ids::from_fn([batch, time], |i| (i[0] * 31 + i[1] * 17) as i32 % 97)?)
}

fn logits(_: &Model<Net>) -> impl Fn(&Net, Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Vocab] + Copy {
    |m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids)
}

fn distance(a: &Logits, b: &Logits) -> f32 {
    let norm = |x: f32, y: f32| x + y * y;
    let apart = a.data().iter().zip(b.data()).map(|(a, b)| a - b).fold(0.0, norm);
    (apart / a.data().iter().copied().fold(0.0, norm)).sqrt()
}

/// Tensors in memory.
#[derive(Debug)]
struct Memory(BTreeMap<String, (TensorInfo, Vec<u8>)>);

impl Source for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }
    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.get(name).map(|(info, _)| info.clone())
    }
    fn raw(&self, name: &str) -> std::result::Result<Raw, CheckpointError> {
        self.find(name)?;
        Ok(Raw::Bytes(self.0[name].1.clone()))
    }
}

/// `count` values near `size`: whole numbers and scales of scales at random, scales about as large as
/// gives that.
fn values(encoding: Encoding, count: usize, size: f64, seed: u64) -> Vec<u8> {
    let real = |i: usize| (noise(seed, i as u64) * size) as f32;
    let blocks = match encoding {
        Encoding::F16 => return (0..count).flat_map(|i| to_f16(real(i)).to_le_bytes()).collect(),
        Encoding::BF16 => return (0..count).flat_map(|i| to_bf16(real(i)).to_le_bytes()).collect(),
        Encoding::Blocks(blocks) => blocks,
        _ => return (0..count).flat_map(|i| real(i).to_le_bytes()).collect(),
    };
    let bytes = encoding.bytes(count as u64).expect("whole blocks") as usize;
    let mut bytes: Vec<u8> = (0..bytes).map(|i| ((noise(seed, i as u64) + 1.0) * 128.0) as u8).collect();
    // Where scales stand, and by how much they are multiplied at most; minima pull the mean to zero.
    let (scales, minima, most): (&[usize], &[usize], f64) = match blocks {
        Blocks::Q8_0 => (&[0], &[], 128.0),
        Blocks::Q4_0 | Blocks::Q5_0 => (&[0], &[], 12.0),
        Blocks::Q4_1 => (&[0], &[2], 15.0),
        Blocks::Q5_1 => (&[0], &[2], 31.0),
        Blocks::Q2_K => (&[80], &[82], 45.0),
        Blocks::Q3_K => (&[108], &[], 96.0),
        Blocks::Q4_K => (&[0], &[2], 63.0 * 15.0),
        Blocks::Q5_K => (&[0], &[2], 63.0 * 31.0),
        Blocks::Q6_K => (&[208], &[], 127.0 * 32.0),
    };
    for (i, block) in bytes.chunks_mut(blocks.bytes()).enumerate() {
        let scale = size / most * (1.0 + 0.5 * noise(seed + 1, i as u64));
        scales.iter().for_each(|at| block[*at..at + 2].copy_from_slice(&to_f16(scale as f32).to_le_bytes()));
        let min = match blocks {
            Blocks::Q4_1 | Blocks::Q5_1 => -size / 2.0,
            Blocks::Q2_K => size / 20.0,
            _ => size / 126.0,
        };
        minima.iter().for_each(|at| block[*at..at + 2].copy_from_slice(&to_f16(min as f32).to_le_bytes()));
    }
    bytes
}

/// The model's tensors, matrices in an encoding where their rows are whole blocks.
fn memory(encoding: Encoding) -> Result<Memory> {
    let model = Model::init(Net::default(), 3)?;
    let mut all = BTreeMap::new();
    for (seed, declared) in model.catalog().vars().iter().enumerate() {
        let sizes = declared.ty.sizes(model.sizes())?;
        let encoding = if sizes.len() > 1 { Some(encoding) } else { None };
        let encoding = encoding.filter(|e| e.bytes_of(&sizes).is_some()).unwrap_or(Encoding::F32);
        let count = sizes.iter().product();
        let bytes = match sizes.len() {
            1 => [1f32; 256].iter().flat_map(|v| v.to_le_bytes()).take(count * 4).collect(),
            _ => values(encoding, count, 0.12, 10 * seed as u64),
        };
        all.insert(declared.name().to_string(), (TensorInfo { encoding, sizes }, bytes));
    }
    Ok(Memory(all))
}

fn encodings() -> impl Iterator<Item = Encoding> {
    [Encoding::F16, Encoding::BF16].into_iter().chain(Blocks::ALL.map(Encoding::Blocks))
}

/// The model in `f32`, and as it is stored.
fn both(encoding: Encoding) -> Result<(Model<Net>, Model<Net>)> {
    let memory = memory(encoding)?;
    let source: &dyn Source = &memory;
    let dense = Model::load(Net::default(), source)?;
    Ok((dense, LoadOptions::new().as_stored().load(Net::default(), source)?))
}

fn is_encoded(model: &Model<Net>, name: &str) -> bool {
    let store = model.store().lock();
    store.iter().any(|(_, entry)| entry.name == name && matches!(entry.data, Data::Encoded(_)))
}

#[test]
fn logits_of_every_encoding() -> Result {
    for encoding in encodings() {
        let (dense, stored) = both(encoding)?;
        assert!(is_encoded(&stored, "embed.weight") && !is_encoded(&dense, "embed.weight"));
        assert_eq!(is_encoded(&stored, "conv.weight"), matches!(encoding, Encoding::F16 | Encoding::BF16));
        let f = logits(&dense);
        let expected = dense.compile(f)?;
        let default = stored.compile(f)?;
        let exact = stored.compile(f)?.with_weights(Weights::default().exact())?;
        let single = stored.compile(f)?.with_weights(WeightFormat::F32)?;
        let again = stored.compile(f)?.with_weights(WeightFormat::Q8_0)?;
        let (_, size) = encoding.block();
        // Activations in eight bits; scales of scales as f16; nothing but the order of sums.
        let (rounded, nearly) = match encoding {
            Encoding::F16 | Encoding::BF16 => (2e-6, 2e-6),
            _ if size > 34 => (2e-2, 1e-3),
            _ => (2e-2, 2e-6),
        };
        for (batch, time) in [(1, 1), (2, 3), (3, 14), (3, 14)] {
            let ids = ids(batch, time)?;
            let expected = expected.run(&ids)?;
            let far = |p: &Program<_, _>| -> Result<f32> { Ok(distance(&expected, &p.run(&ids)?)) };
            let found = [far(&default)?, far(&exact)?, far(&single)?, far(&again)?];
            let bounds = [rounded, nearly, 2e-6, 3e-2];
            assert!(found.iter().zip(bounds).all(|(f, b)| *f <= b), "{encoding} {batch}x{time}: {found:?} {bounds:?}");
        }
        let report = default.weights();
        assert_eq!(report.len(), 4, "{report:?}");
        for weight in &report {
            let values = weight.size.0.next_multiple_of(32) * weight.size.1;
            let bits = weight.bytes as f64 * 8.0 / values as f64;
            assert!(weight.encoding.is_some() && bits <= 16.0, "{encoding}: {bits} bits of {weight:?}");
        }
        // Nothing became `f32` on the way.
        assert!(is_encoded(&stored, "embed.weight"));
    }
    Ok(())
}

#[test]
fn the_reference_device_widens() -> Result {
    for encoding in [Encoding::F16, Encoding::Blocks(Blocks::Q4_K)] {
        let (dense, stored) = both(encoding)?;
        let (dense, stored) = (dense.on(Device::Reference), stored.on(Device::Reference));
        let (f, ids) = (logits(&dense), ids(2, 5)?);
        assert_eq!(dense.compile(f)?.run(&ids)?.data(), stored.compile(f)?.run(&ids)?.data());
    }
    Ok(())
}

#[test]
fn training_makes_f32_and_shows() -> Result {
    type Batches = (Tensor![Batch, Time; Index], Tensor![Batch, Time; Index]);
    let loss = |m: &Net, (ids, next): Batches| m.forward(ids).cross_entropy::<Vocab, _>(next);
    for encoding in [Encoding::BF16, Encoding::Blocks(Blocks::Q4_1), Encoding::Blocks(Blocks::Q6_K)] {
        let (dense, stored) = both(encoding)?;
        let (ids, next) = (ids(2, 6)?, Ids::from_fn([2, 6], |i| (i[0] + i[1]) as i32)?);
        let before = stored.compile(loss)?;
        let first = before.run((&ids, &next))?.item();
        let mut losses = vec![];
        for model in [&dense, &stored] {
            let mut step = model.train_step(Sgd::new(0.05), TrainOptions::default(), loss)?;
            let each: std::result::Result<Vec<f64>, _> = (0..4).map(|_| Ok(step.run((&ids, &next))?.loss)).collect();
            losses.push(each.map_err(|e: Box<dyn std::error::Error>| e)?);
        }
        assert_eq!(losses[0], losses[1], "{encoding}");
        assert!(losses[1][3] < losses[1][0]);
        assert!(!is_encoded(&stored, "embed.weight"));
        // A program from before binds anew.
        assert!(before.run((&ids, &next))?.item() < first, "{encoding}");
        assert_eq!(before.run((&ids, &next))?.item(), dense.compile(loss)?.run((&ids, &next))?.item());
    }
    Ok(())
}

#[test]
fn saved_and_loaded_again() -> Result {
    for encoding in encodings() {
        let (dense, stored) = both(encoding)?;
        let path = std::env::temp_dir().join(format!("mobilis-stored-{}-{encoding}.safetensors", std::process::id()));
        stored.save(&path)?;
        let file = Checkpoint::open(&path)?;
        let kept = if let Encoding::Blocks(_) = encoding { Encoding::F32 } else { encoding };
        assert_eq!(file.get("embed.weight").map(|t| t.encoding), Some(kept));
        assert_eq!(file.get("norm.weight").map(|t| t.encoding), Some(Encoding::F32));
        let values = |model: &Model<Net>| -> Vec<Vec<f64>> {
            model.store().lock().iter().map(|(_, entry)| entry.data.to_f64()).collect()
        };
        let loaded = Model::load(Net::default(), &path)?;
        assert!(values(&loaded) == values(&dense) && values(&stored) == values(&dense), "{encoding}");
        // From a file, into a model with programs that ran.
        let program = dense.compile(logits(&dense))?;
        let before = program.run(&ids(1, 3)?)?;
        LoadOptions::new().as_stored().load_into(&dense, &path)?;
        assert_eq!(is_encoded(&dense, "embed.weight"), kept != Encoding::F32);
        assert!(distance(&before, &program.run(&ids(1, 3)?)?) < 2e-6, "{encoding}");
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

#[test]
fn a_matrix_whose_blocks_lie_across_is_read_in_f32() -> Result {
    let memory = memory(Encoding::Blocks(Blocks::Q8_0))?;
    let source: &dyn Source = &memory;
    let (dense, stored) =
        (Model::load(Net::default(), source)?, LoadOptions::new().as_stored().load(Net::default(), source)?);
    let f = |m: &Net, x: Tensor![Batch, Ffn]| {
        let w = m.mlp.up_proj.weight.get();
        einsum!(x[b f] * w[f h] => [b h])
    };
    let x = <Array![Batch, Ffn]>::from_fn([11, 512], |i| noise(1, (i[0] * 512 + i[1]) as u64) as f32)?;
    let program = stored.compile(f)?;
    for _ in 0..3 {
        assert_eq!(dense.compile(f)?.run(&x)?.data(), program.run(&x)?.data());
    }
    Ok(())
}

/// A linear layer of 64 MiB in 16 bits, in a process of its own: what loading takes at most, beside
/// what the weights take.
#[test]
#[cfg(target_os = "linux")]
fn loading_takes_little_more_than_the_weights() -> Result {
    axes! { pub In = 4096; pub Out = 8192; }
    type Layer = Linear<In, Out>;
    const WEIGHTS: usize = 4096 * 8192;
    let peak = || -> Result<usize> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no peak")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<usize>()? << 10)
    };
    if let Ok(how) = std::env::var("MOBILIS_TEST_PEAK") {
        let path = std::env::var("MOBILIS_TEST_PEAK_FILE")?;
        // What a program takes by itself.
        let small = Model::init(Linear::<Ffn, Hidden>::new(), 0)?;
        let program = small.compile(|m: &Linear<Ffn, Hidden>, x: Tensor![Batch, Ffn]| m.forward(x))?;
        program.run(<Array![Batch, Ffn]>::full([1, 512], 0.5)?)?;
        let before = peak()?;
        let options = if how == "stored" { LoadOptions::new().as_stored() } else { LoadOptions::new() };
        let model = options.load(Layer::new().no_bias(), Path::new(&path))?;
        if how == "stored" {
            let x = <Array![Batch, In]>::full([1, 4096], 0.5)?;
            let program = model.compile(|m: &Layer, x: Tensor![Batch, In]| m.forward(x))?;
            let y = program.run(&x)?;
            assert!(y.data().iter().all(|v| v.is_finite()));
        }
        println!("peak {}", peak()? - before);
        return Ok(());
    }
    let path = std::env::temp_dir().join(format!("mobilis-peak-{}.safetensors", std::process::id()));
    let header =
        format!("{{\"weight\":{{\"dtype\":\"F16\",\"shape\":[8192,4096],\"data_offsets\":[0,{}]}}}}", 2 * WEIGHTS);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..WEIGHTS).flat_map(|i| (0x2000 + (i % 4096) as u16).to_le_bytes()));
    std::fs::write(&path, file)?;
    for (how, bytes) in [("stored", 2 * WEIGHTS), ("dense", 4 * WEIGHTS)] {
        let child = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "stored::loading_takes_little_more_than_the_weights", "--nocapture", "--test-threads=1"])
            .env("MOBILIS_TEST_PEAK", how)
            .env("MOBILIS_TEST_PEAK_FILE", &path)
            .output()?;
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let found = said.lines().find_map(|l| l.split("peak ").nth(1)?.trim().parse::<usize>().ok());
        let found = found.ok_or_else(|| format!("{said}{}", String::from_utf8_lossy(&child.stderr)))?;
        let ratio = found as f64 / bytes as f64;
        println!("{how}: {ratio:.2} of the weights");
        assert!(ratio <= 1.2, "{how}: {ratio:.2} times the weights");
    }
    std::fs::remove_file(&path)?;
    Ok(())
}
