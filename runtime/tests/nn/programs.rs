//! Layers as programs: both devices, run-time sizes, caches that live from run to run.

use super::*;
use mobilis::nn::*;

axes! {
    Examples;
    Steps;
    Length;
    Most = 16;
}

#[neural_module]
struct Decoder {
    embed: Embedding<Vocab, Hidden>,
    #[default(PreNormBlock::default().attention(settings()))]
    first: PreNormBlock<Hidden, Heads, HeadDim, Ffn>,
    #[default(PostNormBlock::default().attention(settings()))]
    second: PostNormBlock<Hidden, Heads, HeadDim, Ffn>,
    #[default(GroupedSelfAttention::default().with(settings()).qk_norm(1e-6))]
    third: GroupedSelfAttention<Hidden, Heads, Groups, HeadDim>,
    mlp: SwiGlu<Hidden, Ffn>,
    norm: RmsNorm<Hidden>,
}

fn settings() -> AttentionOptions {
    AttentionOptions { causal: true, rope: Some(Rotary::default()), ..Default::default() }
}

#[neural_module]
impl Decoder {
    pub fn forward(&self, ids: Tensor![Examples, Length; TokenId]) -> Tensor![Examples, Length, Vocab] {
        let x = self.second.forward(self.first.forward(self.embed.forward(ids)));
        let x = x + self.third.forward(x);
        self.embed.attend(self.norm.forward(x + self.mlp.forward(x)))
    }
}

fn ids(b: usize, t: usize) -> Array![Examples, Length; TokenId] {
    <Array![Examples, Length; TokenId]>::from_fn([b, t], |i| ((i[0] * 7 + i[1] * 3) % 11) as i32).expect("sizes fit")
}

#[test]
fn a_decoder_and_its_gradients_agree_on_both_devices() -> Result<(), Box<dyn std::error::Error>> {
    let run = |device| -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
        let model = Model::init(Decoder::default(), 3)?.on(device);
        let program = model.compile(|m, ids: Tensor![Examples, Length; TokenId]| {
            let logits = m.forward(ids);
            let loss = logits.cross_entropy(ids);
            let heads = m.third.q_proj.weight.get();
            (loss, loss.gradient(m.embed.weight.get()), loss.gradient(heads), logits)
        })?;
        let mut out = vec![];
        for (b, t) in [(2, 70), (1, 1), (3, 5)] {
            let (loss, by_table, by_queries, logits) = program.run(ids(b, t))?;
            out.extend([loss.data().to_vec(), by_table.data().to_vec()]);
            out.extend([by_queries.data().to_vec(), logits.data().to_vec()]);
        }
        Ok(out)
    };
    let (found, expected) = (run(Device::Cpu)?, run(Device::Reference)?);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // One position alone has one weight: no gradient reaches its query, but for rounding.
        let scale = expected.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 2e-5 * scale, "result {i}: {a} is not {b}");
        }
    }
    Ok(())
}

#[test]
fn an_index_outside_the_table_names_layer_index_and_size() -> Result<(), Box<dyn std::error::Error>> {
    for device in [Device::Cpu, Device::Reference] {
        let model = Model::init(Decoder::default(), 3)?.on(device);
        let program = model.compile(|m, ids: Tensor![Examples, Length; TokenId]| m.forward(ids))?;
        let message = program
            .run(&<Array![Examples, Length; TokenId]>::from_fn([1, 2], |i| [3, 11][i[1]])?)
            .expect_err("11 of 11")
            .to_string();
        assert!(message.contains("index 11 is outside the table of 11 rows"), "{message}");
        assert!(message.contains("embed"), "{message}");
    }
    Ok(())
}

#[test]
fn a_cache_lives_from_run_to_run() -> Result<(), Box<dyn std::error::Error>> {
    type Layer = SelfAttention<Hidden, Heads, HeadDim>;
    for device in [Device::Cpu, Device::Reference] {
        let model = Model::init(Layer::default().with(settings()), 1)?.on(device);
        let whole = model.compile(|m, x: Tensor![Examples, Length, Hidden]| m.forward(x))?;
        let cache = BoundedKvCache::<Examples, Most, Heads, HeadDim>::default();
        let step = model.compile(|m, (x, position): (Tensor![Examples, Steps, Hidden], Tensor![; Index])| {
            m.step_in_place(x, &cache, position)
        })?;
        let value = |b: usize, t: usize, h: usize| ((b * 31 + t * 7 + h * 3) % 13) as f32 / 6.0 - 1.0;
        let x = <Array![Examples, Length, Hidden]>::from_fn([2, 9, 8], |i| value(i[0], i[1], i[2]))?;
        let expected = whole.run(&x)?;
        // Four positions at once, then one by one; a second text begins where the first did.
        for _ in 0..2 {
            for (start, count) in [(0i32, 4), (4, 1), (5, 1), (6, 3)] {
                let part = <Array![Examples, Steps, Hidden]>::from_fn([2, count, 8], |i| {
                    value(i[0], start as usize + i[1], i[2])
                })?;
                let found = step.run((&part, &<Array![; Index]>::from_fn([], |_| start)?))?;
                for (i, v) in found.data().iter().enumerate() {
                    let (b, t, h) = (i / 8 / count, i / 8 % count, i % 8);
                    let e = expected.data()[(b * 9 + start as usize + t) * 8 + h];
                    assert!((v - e).abs() < 1e-5, "position {}: {v} is not {e}", start as usize + t);
                }
            }
        }
    }
    Ok(())
}
