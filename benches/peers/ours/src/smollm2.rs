//! SmolLM2-135M, a model of the zoo over its caches, as `mobilis generate` runs it: `smollm2 prompt
//! TOKENS FORMAT` computes the logits after a prompt, `smollm2 decode TEXTS FORMAT` those of one token
//! more in each of several texts of 128.

use crate::run::{fill, format};
use mobilis::prelude::*;
use mobilis::zoo::llm::config::Config;
use mobilis::zoo::llm::llama::{Llama, LlamaAxes, llama};
use mobilis::zoo::llm::session::{Session, SessionOptions, Sessions, Want};
use protocol::{Case, Refusal, case, number, tokens};
use std::rc::Rc;

axes! {
    /// The sizes of SmolLM2-135M.
    pub struct SmolLm2: LlamaAxes {
        Vocab = 49152, Hidden = 576, KvHeads = 3, Groups = 3, HeadDim = 64, Ffn = 1536
    }
}

/// The model with the weights that all peers use.
fn model() -> Result<Rc<Model<Llama<SmolLm2>>>, Refusal> {
    let config = serde_json::json!({
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "tie_word_embeddings": true,
    });
    let model = Model::init(llama::<SmolLm2>(&Config::new("SmolLM2-135M", config))?, 1)?;
    fill(&model)?;
    Ok(Rc::new(model))
}

/// `prompt TOKENS FORMAT` or `decode TEXTS FORMAT`.
pub fn smollm2(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let text: Vec<u32> = tokens("prompt", 1024, 49152).into_iter().map(|t| t as u32).collect();
    let (count, weights) = (number(words, 2)?, format(words[3])?.into());
    let options = |batch| SessionOptions { weights, ..SessionOptions::new(batch, 1024) };
    let (batch, before, after) = match words[1] {
        "prompt" => (1, 0, count),
        "decode" => (count, 128, 1),
        other => return Err(format!("no case `{other}`").into()),
    };
    let mut session = Session::new(model()?, options(batch));
    session.feed(&vec![&text[..before]; batch], Want::Last)?;
    let new = text[before..before + after].to_vec();
    let run = move |(session, found): &mut (Session<_>, Vec<f32>)| {
        for row in 0..batch {
            session.rewind(row, before).expect("a text that can be cut short");
        }
        let logits = session.feed(&vec![&new[..]; batch], Want::Last).expect("logits");
        *found = logits.last(batch - 1).unwrap_or_default().to_vec();
    };
    Ok(case((session, vec![]), run, |(_, found)| found.clone()))
}
