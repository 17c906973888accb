//! SmolLM2-135M as its files store it, against the values that the original definition computes with
//! the dequantized weights in `f64`, and against itself.
//!
//! The GGUF file has matrices of Q4_1 and an embedding, which is the head too, of Q8_0; the folder
//! beside it has the same in 16 bits.

use crate::support;

use mobilis_runtime::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::prelude::*;
use mobilis_zoo::import::Pretrained;
use mobilis_zoo::llm::family::open;
use mobilis_zoo::llm::session::{SessionOptions, Want};
use mobilis_zoo::llm::{Config, TextModel};
use serde_json::Value;
use std::path::{Path, PathBuf};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The reference's folder, beside the golden data.
fn references() -> Option<PathBuf> {
    support::golden()?.parent().map(|shared| shared.join("real/refs")).filter(|refs| refs.is_dir())
}

fn pretrained(folder: &Path, place: &str) -> Result<(Pretrained, Box<dyn TextModel>)> {
    let place = folder.join(place);
    let found = Pretrained::open(place.to_str().ok_or("a name in UTF-8")?)?;
    let config = Config::new(place.display().to_string(), found.config.clone());
    let model = open(&config, &*found.tensors)?;
    Ok((found, model))
}

const GGUF: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

fn ids(of: &Value) -> Vec<u32> {
    of.as_array().into_iter().flatten().filter_map(|id| Some(id.as_u64()? as u32)).collect()
}

fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0) as u32
}

#[test]
fn logits_and_tokens_are_those_of_the_stored_weights() -> Result {
    let (Some(folder), Some(refs)) = (support::real("smollm2"), references()) else { return Ok(()) };
    let text: Value = serde_json::from_str(&std::fs::read_to_string(refs.join("smollm2.json"))?)?;
    let values = Checkpoint::open(refs.join("smollm2.safetensors"))?;
    for (place, weights, name) in [
        // Blocks as they are with activations in `f32`, and their values in `f32`: the same numbers.
        (GGUF, Weights::default().exact(), "logits"),
        (GGUF, Weights::new(WeightFormat::F32), "logits"),
        ("hf", Weights::default(), "logits_f16_weights"),
    ] {
        let (_, model) = pretrained(&folder, place)?;
        for prompt in ["raw", "capital", "haiku"] {
            let case = format!("{place}, {weights:?}, {prompt}");
            let expected = values.read(&format!("{prompt}.{name}"), DType::F32)?.to_f64();
            let mut session = model.session(SessionOptions { weights: weights.clone(), ..SessionOptions::new(1, 160) });
            let mut logits = session.feed(&[&ids(&text[prompt]["prompt_ids"])], Want::Last)?;
            let found = logits.last(0).ok_or("logits")?;
            let error = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(found.len() == expected.len() && error < 1e-3, "{case}: {error}");
            let wanted = ids(&text[prompt]["ids"]);
            let mut tokens = vec![];
            for _ in 0..wanted.len() {
                let next = likeliest(logits.last(0).ok_or("logits")?);
                tokens.push(next);
                logits = session.feed(&[&[next]], Want::Last)?;
            }
            assert_eq!(tokens, wanted, "{case}");
        }
    }
    Ok(())
}

/// Activations in eight bits, as programs have them unless told otherwise, hardly change how likely a
/// text is. `MOBILIS_TEST_BYTES=65536` reads more of it than the first 4 KiB.
#[test]
fn perplexity_of_quantized_weights() -> Result {
    let (Some(folder), Some(refs)) = (support::real("smollm2"), references()) else { return Ok(()) };
    let bytes = std::env::var("MOBILIS_TEST_BYTES").ok().and_then(|b| b.parse().ok()).unwrap_or(4096);
    let text = std::fs::read(refs.join("../moby_dick.txt"))?;
    let text = String::from_utf8_lossy(&text[..bytes.min(text.len())]).into_owned();
    let (found, model) = pretrained(&folder, GGUF)?;
    let tokens = found.tokenizer.open()?.encode(&text, false)?;
    let perplexity = |weights: Weights| -> Result<f64> {
        let (mut sum, mut count) = (0f64, 0usize);
        // Pieces that share no tokens, each from the beginning.
        for piece in tokens.chunks(1024).filter(|piece| piece.len() > 1) {
            let mut session =
                model.session(SessionOptions { weights: weights.clone(), ..SessionOptions::new(1, 1024) });
            let losses = session.losses(&[&piece[..piece.len() - 1]], &[&piece[1..]])?;
            sum += losses[0].iter().map(|l| f64::from(*l)).sum::<f64>();
            count += losses[0].len();
        }
        Ok((sum / count as f64).exp())
    };
    let single = perplexity(Weights::new(WeightFormat::F32))?;
    let exact = perplexity(Weights::default().exact())?;
    let quantized = perplexity(Weights::default())?;
    println!(
        "{} tokens: {single:.4} in f32, {exact:.4} exact, {quantized:.4} with activations in 8 bits",
        tokens.len()
    );
    assert!((exact / single - 1.0).abs() < 1e-4, "{exact} and {single}");
    assert!((quantized / single - 1.0).abs() < 0.01, "{quantized} and {single}");
    Ok(())
}
