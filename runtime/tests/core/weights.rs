//! Weights that programs prepare once: packed, or in fewer bits.

use mobilis::nn::{Embedding, Linear, Mlp, RmsNorm};
use mobilis::prelude::*;
use mobilis::testing::noise;
use mobilis::train::{Sgd, TrainOptions};

axes! {
    pub Batch;
    pub Time;
    pub Vocab = 97;
    pub Hidden = 64;
    pub Ffn = 4 * Hidden;
}

const FORMATS: [WeightFormat; 5] =
    [WeightFormat::Bf16, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Int8];

/// Embedding, feed-forward blocks, and a head that is the embedding.
#[neural_module]
struct Net {
    embed: Embedding<Vocab, Hidden>,
    #[default(mobilis::module::repeat(3))]
    mlps: Vec<Mlp<Hidden, Ffn>>,
    norm: RmsNorm<Hidden>,
}

#[neural_module]
impl Net {
    fn forward(&self, ids: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Vocab] {
        let mut x = self.embed.forward(ids);
        for mlp in &self.mlps {
            x = x + mlp.forward(self.norm.forward(x));
        }
        self.embed.attend(self.norm.forward(x))
    }
}

type Ids = Array![Batch, Time; Index];
type Logits = Array![Batch, Time, Vocab];

fn net() -> Result<Model<Net>, ModelError> {
    Model::init(Net::default(), 5)
}

fn ids(batch: usize, time: usize) -> Result<Ids, ArrayError> {
    Ids::from_fn([batch, time], |i| (i[0] * 31 + i[1] * 17) as i32 % 97)
}

fn distance(a: &Logits, b: &Logits) -> f32 {
    let norm = |x: f32, y: f32| x + y * y;
    let apart = a.data().iter().zip(b.data()).map(|(a, b)| a - b).fold(0.0, norm);
    (apart / a.data().iter().copied().fold(0.0, norm)).sqrt()
}

#[test]
fn logits_in_fewer_bits_are_close() -> Result<(), Box<dyn std::error::Error>> {
    let model = net()?;
    let exact = model.compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?;
    let bounds = [3e-3, 4e-4, 1e-2, 0.15, 1.5e-2];
    for (format, bound) in FORMATS.into_iter().zip(bounds) {
        let program =
            model.compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?.with_weights(format)?;
        // One row, a few, and more than any tile: one program, one copy of the weights.
        for (batch, time) in [(1, 1), (2, 3), (3, 14)] {
            let ids = ids(batch, time)?;
            let (expected, found) = (exact.run(&ids)?, program.run(&ids)?);
            let error = distance(&expected, &found);
            assert!(error < bound && error > bound / 30.0, "{format} {batch}x{time}: {error}");
        }
        let stored = program.weights();
        assert_eq!(stored.len(), 7, "six layers and the head: {stored:?}");
        assert!(stored.iter().all(|w| w.format == format && w.bytes > 0));
        let bits: usize = stored.iter().map(|w| w.bytes * 8).sum();
        let count: usize = stored.iter().map(|w| w.size.0.next_multiple_of(32) * w.size.1).sum();
        let each = bits as f64 / count as f64;
        let expected = [16.0, 16.0, 8.5, 4.5, 8.3];
        let expected = expected[FORMATS.iter().position(|f| *f == format).expect("one of them")];
        assert!((each - expected).abs() < 0.3, "{format}: {each} bits");
    }
    Ok(())
}

#[test]
fn the_next_token_is_as_likely_in_eight_bits() -> Result<(), Box<dyn std::error::Error>> {
    type Batches = (Tensor![Batch, Time; Index], Tensor![Batch, Time; Index]);
    let model = net()?;
    let loss = |m: &Net, (ids, next): Batches| m.forward(ids).cross_entropy::<Vocab, _>(next);
    // A sequence that can be learned: each token is the one before, plus one.
    let ids = Ids::from_fn([4, 24], |i| ((i[0] * 23 + i[1]) % 97) as i32)?;
    let next = Ids::from_fn([4, 24], |i| ((i[0] * 23 + i[1] + 1) % 97) as i32)?;
    let mut step = model.train_step(mobilis::train::AdamW::new(3e-3), TrainOptions::default(), loss)?;
    for _ in 0..30 {
        step.run((&ids, &next))?;
    }
    let exact = model.compile(loss)?.run((&ids, &next))?.item();
    assert!(exact < 3.0, "the model has learned: {exact}");
    for (format, bound) in FORMATS.into_iter().zip([2e-3, 5e-4, 1e-2, 0.25, 1e-2]) {
        let rounded = model.compile(loss)?.with_weights(format)?.run((&ids, &next))?.item();
        assert!((rounded - exact).abs() < bound, "{format}: {rounded} instead of {exact}");
    }
    Ok(())
}

#[test]
fn changed_weights_show_in_the_next_run() -> Result<(), Box<dyn std::error::Error>> {
    let x = <Array![Batch, Hidden]>::from_fn([13, 64], |i| noise(1, (i[0] * 64 + i[1]) as u64) as f32)?;
    for format in [WeightFormat::F32].into_iter().chain(FORMATS) {
        let model = Model::init(Linear::<Hidden, Ffn>::new().no_bias(), 3)?;
        let program =
            model.compile(|m: &Linear<Hidden, Ffn>, x: Tensor![Batch, Hidden]| m.forward(x))?.with_weights(format)?;
        let mut last: Option<Vec<f32>> = None;
        for factor in [1.0f32, -2.0, 4.0] {
            let values: Vec<f32> = (0..64 * 256).map(|i| noise(2, i) as f32 * factor).collect();
            model.set("weight", &values)?;
            // Runs without a change in between agree to the bit, packed or not.
            let y = program.run(&x)?;
            for _ in 0..3 {
                assert!(program.run(&x)?.data() == y.data(), "{format}");
            }
            if let Some(last) = last {
                // Rounding hardly sees a power of two (f16 has few denormals).
                let near = |(new, old): (&f32, &f32)| (new + 2.0 * old).abs() < 1e-4;
                assert!(y.data().iter().zip(&last).all(near), "{format} after a change to {factor}");
            }
            last = Some(y.data().to_vec());
        }
        assert!(program.weights()[0].bytes > 0);
    }
    Ok(())
}

#[test]
fn single_precision_is_packed_where_it_pays() -> Result<(), Box<dyn std::error::Error>> {
    let model = net()?;
    let program = model.compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?;
    let plain = model
        .compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?
        .with_weights(Weights::default().pack(false))?;
    let bytes = |p: &Program<_, _>| p.weights().iter().map(|w| w.bytes).sum::<usize>();
    for (batch, time, packed) in [(1, 3, false), (1, 3, false), (2, 5, false), (2, 5, true), (1, 3, true), (9, 4, true)]
    {
        let ids = ids(batch, time)?;
        assert_eq!(program.run(&ids)?.data(), plain.run(&ids)?.data());
        assert_eq!(bytes(&program) > 0, packed, "{batch}x{time}");
    }
    assert_eq!(plain.weights(), []);
    Ok(())
}

/// Queries, keys and values, gate and up are each one product of several results: in one format, in
/// several, and with one that is not rounded.
#[test]
fn joined_products_read_every_format() -> Result<(), Box<dyn std::error::Error>> {
    axes! { pub Heads = 2; pub Width = 32; }
    #[neural_module]
    struct Layer {
        attn: mobilis::nn::SelfAttention<Hidden, Heads, Width>,
        mlp: mobilis::nn::SwiGlu<Hidden, Ffn>,
    }
    let model = Model::init(Layer::default(), 5)?;
    let function = |m: &Layer, x: Tensor![Batch, Time, Hidden]| x + m.mlp.forward(m.attn.forward(x));
    let exact = model.compile(function)?;
    let mixed = Weights::new(WeightFormat::Q8_0)
        .except("**.k_proj.**", WeightFormat::Bf16)
        .except("**.v_proj.**", WeightFormat::F32)
        .except("**.up_proj.**", WeightFormat::Int8);
    for (weights, bound) in [(WeightFormat::Bf16.into(), 0.02), (WeightFormat::Q8_0.into(), 0.03), (mixed, 0.03)] {
        let program = model.compile(function)?.with_weights(weights)?;
        for (batch, time) in [(1, 1), (2, 9)] {
            let x = <Array![Batch, Time, Hidden]>::from_fn([batch, time, 64], |i| {
                noise(4, (i[0] * 999 + i[1] * 64 + i[2]) as u64) as f32
            })?;
            let (expected, found) = (exact.run(&x)?, program.run(&x)?);
            for (e, f) in expected.data().iter().zip(found.data()) {
                assert!((e - f).abs() < bound, "{e} and {f}");
            }
        }
        assert!(program.weights().len() >= 6);
    }
    Ok(())
}

#[test]
fn what_training_changes_is_left_alone() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Linear::<Hidden, Ffn>::new(), 3)?;
    type In = Tensor![Batch, Hidden];
    let graph = model.trace(mobilis::graph::trace::Mode::Train, |m: &Linear<Hidden, Ffn>, x: In| {
        let y = m.forward(x);
        mobilis::graph::trace::update(mobilis::module::AnyVar::id(&m.weight), (m.weight.get() * 0.5).raw());
        y
    })?;
    let program: Program<In, Tensor![Batch, Ffn]> =
        Program::new(model.executable(graph)).with_weights(WeightFormat::Q4_0)?;
    let x = <Array![Batch, Hidden]>::full([2, 64], 1.0)?;
    let first = program.run(&x)?;
    let halved: Vec<f32> = first.data().iter().map(|v| v * 0.5).collect();
    let second = program.run(&x)?;
    assert!(second.data().iter().zip(&halved).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_eq!(program.weights(), []);
    Ok(())
}

#[test]
fn a_step_of_training_shows_in_rounded_programs() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Linear::<Hidden, Ffn>::new(), 3)?;
    type In = Tensor![Batch, Hidden];
    let mean = |m: &Linear<Hidden, Ffn>, x: In| m.forward(x).mean_all();
    let program = model.compile(mean)?.with_weights(WeightFormat::Q8_0)?;
    let mut step = model.train_step(Sgd::new(1.0), TrainOptions::default(), mean)?;
    let x = <Array![Batch, Hidden]>::full([2, 64], 1.0)?;
    let mut last = f32::INFINITY;
    for _ in 0..3 {
        let now = program.run(&x)?.item();
        assert!(now < last - 0.1, "{now} after {last}");
        last = now;
        step.run(&x)?;
    }
    Ok(())
}

#[test]
fn weights_on_the_left_are_weights_too() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Linear::<Hidden, Ffn>::new().no_bias(), 3)?;
    let function = |m: &Linear<Hidden, Ffn>, x: Tensor![Batch, Hidden]| {
        let w = m.weight.get();
        einsum!(w[f h] * x[b h] => [f b])
    };
    let program = model.compile(function)?.with_weights(WeightFormat::Bf16)?;
    let x = <Array![Batch, Hidden]>::from_fn([5, 64], |i| noise(1, (i[0] * 64 + i[1]) as u64) as f32)?;
    let (exact, found) = (model.compile(function)?.run(&x)?, program.run(&x)?);
    assert!(exact.data().iter().zip(found.data()).all(|(a, b)| (a - b).abs() < 2e-2));
    assert_eq!(program.weights()[0].size, (256, 64));
    Ok(())
}

#[test]
fn exceptions_are_by_name_and_must_match() -> Result<(), Box<dyn std::error::Error>> {
    let model = net()?;
    let weights = Weights::new(WeightFormat::Q4_0)
        .except("mlps.**", WeightFormat::Q8_0)
        .except("mlps.1.**", WeightFormat::F32)
        .pack(false);
    let program = model.compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?.with_weights(weights)?;
    program.run(&ids(1, 2)?)?;
    let formats: Vec<(String, WeightFormat)> = program.weights().into_iter().map(|w| (w.name, w.format)).collect();
    let expected = [
        ("embed.weight", WeightFormat::Q4_0),
        ("mlps.0.down_proj.weight", WeightFormat::Q8_0),
        ("mlps.0.up_proj.weight", WeightFormat::Q8_0),
        ("mlps.2.down_proj.weight", WeightFormat::Q8_0),
        ("mlps.2.up_proj.weight", WeightFormat::Q8_0),
    ];
    assert_eq!(formats, expected.map(|(n, f)| (n.to_string(), f)));
    let wrong = Weights::new(WeightFormat::Q4_0).except("mlp.**", WeightFormat::Q8_0);
    let error = model
        .compile(|m: &Net, ids: Tensor![Batch, Time; Index]| m.forward(ids))?
        .with_weights(wrong)
        .err()
        .expect("no such name");
    assert!(error.to_string().starts_with("no weight of this program matches \"mlp.**\""), "{error}");
    Ok(())
}

/// The conversions to 16 bits are those of the crate `half`.
#[test]
fn sixteen_bits_are_those_of_another_implementation() {
    use mobilis_kernels::cpu::quant::half as ours;
    for i in 0..1u32 << 20 {
        // Every exponent, with fractions that are random, few, or next to a tie.
        let bits = match i % 3 {
            0 => i.wrapping_mul(2_654_435_761),
            1 => i << 12,
            _ => (i << 12).wrapping_add(0x1000 + i % 3) - 1,
        };
        let x = f32::from_bits(bits);
        assert_eq!(ours::to_f16(x), half::f16::from_f32(x).to_bits(), "{x:e} ({bits:x})");
        assert_eq!(ours::to_bf16(x), half::bf16::from_f32(x).to_bits(), "{x:e} ({bits:x})");
    }
    for h in 0..=u16::MAX {
        assert_eq!(ours::from_f16(h).to_bits(), half::f16::from_bits(h).to_f32().to_bits(), "{h:x}");
        // It makes NaNs quiet where ours are kept as they are.
        let (a, b) = (ours::from_bf16(h), half::bf16::from_bits(h).to_f32());
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{h:x}");
    }
}

axes! {
    pub Chosen = 2;
}

/// Experts, of which two work on each token.
#[neural_module]
struct Mixture {
    embed: Embedding<Vocab, Hidden>,
    #[default(mobilis::module::repeat(5))]
    experts: Vec<Linear<Hidden, Ffn>>,
}

impl Mixture {
    fn forward(&self, ids: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Chosen, Ffn] {
        // Which experts is a function of the token.
        let first = Tensor::<(Batch, Time, Chosen), Index>::from_raw(mobilis::ops::reduce::restore(
            ids.raw(),
            &<(Batch, Time, Chosen)>::dims(),
            &[2],
        ));
        let place = mobilis::ops::leaf::iota(2, &Tensor::<(Batch, Time, Chosen), Index>::type_of());
        let sum = first + Tensor::<(Batch, Time, Chosen), Index>::from_raw(place);
        let chosen = sum % 5;
        let matrices: Vec<_> = self.experts.iter().map(|e| e.weight.get()).collect();
        self.embed.forward(ids).experts(chosen, &matrices)
    }
}

/// The matrices of experts are prepared and rounded one by one, as those of any other product.
#[test]
fn experts_in_fewer_bits() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Mixture::default(), 7)?;
    let compile = || model.compile(|m: &Mixture, ids: Tensor![Batch, Time; Index]| m.forward(ids));
    let exact = compile()?;
    let bounds = [3e-3, 4e-4, 1.5e-2, 0.2, 2e-2];
    for (format, bound) in FORMATS.into_iter().zip(bounds) {
        let program = compile()?.with_weights(format)?;
        for (batch, time) in [(1, 1), (2, 3), (4, 40)] {
            let ids = ids(batch, time)?;
            // Twice: matrices are packed before the second run.
            for _ in 0..2 {
                let (a, b) = (exact.run(&ids)?, program.run(&ids)?);
                let norm = |sum: f32, x: f32| sum + x * x;
                let apart = a.data().iter().zip(b.data()).map(|(a, b)| a - b).fold(0.0, norm);
                let error = (apart / a.data().iter().copied().fold(0.0, norm)).sqrt();
                assert!(error < bound && error > bound / 40.0, "{format} {batch}x{time}: {error}");
            }
        }
        let stored = program.weights();
        assert_eq!(stored.len(), 5, "{stored:?}");
        assert!(stored.iter().all(|w| w.format == format && w.bytes > 0));
    }
    Ok(())
}
