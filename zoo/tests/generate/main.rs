//! Sessions and the generation of texts, over small random models.

mod beams;
mod engine;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod translate;

use mobilis_runtime::Device;
use mobilis_runtime::nn::AttentionOptions;
use mobilis_runtime::prelude::*;
use mobilis_zoo::llm::block::{Block, Decoder};
use mobilis_zoo::llm::family::text_model;
use mobilis_zoo::llm::llama::{self, AnyLlama, Attention};
use mobilis_zoo::llm::{Config, TextModel};
use serde_json::json;

/// The tokens of the small models.
const VOCAB: usize = 61;

fn config() -> Config {
    let value = json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 96, "tie_word_embeddings": true,
    });
    Config::new("a test", value)
}

/// A Llama with random weights, large enough that its texts vary.
fn random(seed: u64) -> Box<dyn TextModel> {
    model(seed, None)
}

/// The same, whose attention sees so many positions.
fn model(seed: u64, window: Option<u64>) -> Box<dyn TextModel> {
    model_on(seed, window, Device::Cpu)
}

fn model_on(seed: u64, window: Option<u64>, device: Device) -> Box<dyn TextModel> {
    let config = config();
    let options =
        AttentionOptions { causal: true, rope: Some(config.rotary(None).unwrap()), window, ..Default::default() };
    let layer = || {
        let attention = Attention::<AnyLlama>::default().with(options.clone());
        Block::new(attention, llama::mlp::<AnyLlama>(&config).unwrap(), 1e-5)
    };
    let module: llama::Llama<AnyLlama> = Decoder::new(vec![layer(), layer()], 1e-5, true);
    let model = Model::init_with(module, seed, llama::sizes::<AnyLlama>(&config).unwrap()).unwrap();
    let names: Vec<String> = model.parameters().map(|p| p.name().to_string()).collect();
    for name in names.iter().filter(|n| !n.contains("norm")) {
        let values: Vec<f32> = model.get(name).unwrap();
        let most = values.iter().map(|v| v.abs()).fold(0.0, f32::max);
        model.set(name, &values.iter().map(|v| v / most).collect::<Vec<_>>()).unwrap();
    }
    text_model(&config, model.on(device))
}

/// The logits after every position of a text, without caches.
fn whole(model: &dyn TextModel, tokens: &[u32]) -> Vec<Vec<f32>> {
    model.score(1, tokens).unwrap().logits.data.chunks_exact(VOCAB).map(<[f32]>::to_vec).collect()
}

/// The likeliest token.
fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
}

/// A text that is no pattern.
fn text(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 31 + seed * 17 + i * i * 7) % VOCAB as u32).collect()
}

#[track_caller]
fn assert_near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let most = b.iter().map(|v| v.abs()).fold(1.0, f32::max);
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 2e-5 * most, "{a} {b}");
    }
}
