//! Decoders over caches give what they give without, whatever the configuration: small models of
//! random weights, one token at a time, in pieces, and in batches of unequal texts.

use mobilis_runtime::checkpoint::{Checkpoint, Writer};
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_runtime::prelude::*;
use mobilis_zoo::llm::family::{self, TextModel};
use mobilis_zoo::llm::gpt2::{self, AnyGpt2};
use mobilis_zoo::llm::llama::{self, AnyLlama, LlamaAxes};
use mobilis_zoo::llm::session::{SessionOptions, Want};
use mobilis_zoo::llm::{Batch, CausalLm, Config, Ids, Time, gemma, mistral, phi3, qwen};
use serde_json::{Value, json};
use std::path::PathBuf;

const VOCAB: usize = 37;

/// A configuration of two layers with odd widths, changed by another.
fn config(model_type: &str, changes: Value) -> Config {
    let mut all = json!({
        "model_type": model_type, "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 36,
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0,
        "tie_word_embeddings": false, "query_pre_attn_scalar": 12,
    });
    for (key, value) in changes.as_object().expect("an object") {
        all[key] = value.clone();
    }
    Config::new("a test", all)
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mobilis-decoders-{}-{name}.safetensors", std::process::id()))
}

fn saved<M: CausalLm>(module: M, sizes: Sizes, name: &str) -> PathBuf {
    let path = file(name);
    let model = Model::init_with(module, 3, sizes).expect("a model");
    model.save(&path).expect("a file");
    path
}

/// A model of random weights, by way of a file.
fn random(name: &str, config: &Config) -> Box<dyn TextModel> {
    type A = AnyLlama;
    let path = match config.model_type().expect("a family") {
        "gpt2" => {
            saved(gpt2::gpt2::<AnyGpt2>(config).expect("gpt2"), gpt2::sizes::<AnyGpt2>(config).expect("sizes"), name)
        }
        "phi3" => {
            let config = phi3::phi3_config(config.clone());
            saved(phi3::phi3::<A>(&config).expect("phi3"), llama::sizes::<A>(&config).expect("sizes"), name)
        }
        family => {
            let sizes = llama::sizes::<A>(config).expect("sizes");
            match family {
                "llama" => saved(llama::llama::<A>(config).expect("llama"), sizes, name),
                "mistral" => saved(mistral::mistral::<A>(config).expect("mistral"), sizes, name),
                "qwen2" => saved(qwen::qwen2::<A>(config).expect("qwen2"), sizes, name),
                "qwen3" => saved(qwen::qwen3::<A>(config).expect("qwen3"), sizes, name),
                "gemma2" => saved(gemma::gemma2::<A>(config).expect("gemma2"), sizes, name),
                "gemma3_text" => saved(gemma::gemma3::<A>(config).expect("gemma3"), sizes, name),
                other => panic!("{other} is not made here"),
            }
        }
    };
    let model =
        family::open(config, &Checkpoint::open(&path).expect("the file")).unwrap_or_else(|e| panic!("{name}: {e}"));
    std::fs::remove_file(path).expect("the file goes");
    model
}

fn text(seed: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 7 + i * (seed + 3) + seed * 11) % VOCAB) as u32).collect()
}

/// The logits after each token of a text, without caches.
fn whole(model: &dyn TextModel, ids: &[u32]) -> Vec<Vec<f32>> {
    model.score(1, ids).expect("scores").logits.data.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

/// Logits of a text of `n + 1` tokens after the last, each text read anew: what a scaling that
/// depends on the length gives.
fn anew(model: &dyn TextModel, ids: &[u32]) -> Vec<Vec<f32>> {
    (1..=ids.len()).map(|n| whole(model, &ids[..n]).pop().expect("a token")).collect()
}

fn close(name: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-5 * largest + 1e-6, "{name}: {f} is not {e}");
    }
    assert_eq!(found.len(), expected.len(), "{name}");
}

/// Two texts of unequal lengths: prompts in pieces of `chunk`, then one token at a time, in one batch.
/// `each` gives the logits after each token of a text.
fn stepwise(name: &str, model: &dyn TextModel, chunk: usize, each: impl Fn(&dyn TextModel, &[u32]) -> Vec<Vec<f32>>) {
    let texts = [text(1, 23), text(2, 19)];
    let prompts = [11, 4];
    let expected = texts.each_ref().map(|t| each(model, t));
    let mut session = model.session(SessionOptions { chunk, ..SessionOptions::new(2, 24) });
    let rows = [&texts[0][..prompts[0]], &texts[1][..prompts[1]]];
    let logits = session.feed(&rows, Want::Last).expect("prompts");
    for row in 0..2 {
        close(&format!("{name}, prompt {row}"), logits.last(row).expect("logits"), &expected[row][prompts[row] - 1]);
    }
    for i in 0..12 {
        let place = [prompts[0] + i, prompts[1] + i];
        // The second text pauses now and then.
        let second: &[u32] = if i % 5 == 3 { &[] } else { &texts[1][session.lengths()[1]..][..1] };
        let logits = session.feed(&[&texts[0][place[0]..=place[0]], second], Want::Last).expect("a step");
        close(&format!("{name}, step {i}"), logits.last(0).expect("logits"), &expected[0][place[0]]);
        if !second.is_empty() {
            close(
                &format!("{name}, step {i}"),
                logits.last(1).expect("logits"),
                &expected[1][session.lengths()[1] - 1],
            );
        }
    }
    // Back, and on again with several tokens, all of whose logits are asked for. Sliding windows keep
    // what a few tokens back need only.
    let back = session.lengths()[0] - 2.min(chunk - 1);
    session.rewind(0, back).expect("a few tokens back");
    let logits = session.feed(&[&texts[0][back..], &[]], Want::All).expect("more");
    for (i, found) in logits.positions(0).enumerate() {
        close(&format!("{name}, again {i}"), found, &expected[0][back + i]);
    }
}

/// Every way of feeding gives what whole texts give.
fn consistent(name: &str, config: &Config) {
    let model = random(name, config);
    for chunk in [3, 64] {
        stepwise(&format!("{name} in pieces of {chunk}"), &*model, chunk, whole);
    }
    let scores = model.score(1, &text(1, 9)).expect("scores");
    assert!(scores.logits.data.iter().all(|v| v.is_finite()), "{name}");
    assert_eq!(scores.hidden.len(), config.layers().expect("layers") + 1, "{name}");
}

macro_rules! configurations {
    ($($name:ident: $family:literal, $changes:tt;)*) => {$(
        #[test]
        fn $name() {
            consistent(stringify!($name), &config($family, json!($changes)));
        }
    )*};
}

configurations! {
    llama_with_biases: "llama", { "attention_bias": true, "mlp_bias": true, "hidden_act": "gelu" };
    llama_tied: "llama", { "tie_word_embeddings": true, "num_hidden_layers": 1, "head_dim": null };
    llama_linear: "llama", { "rope_scaling": { "type": "linear", "factor": 2.0 } };
    llama_yarn: "llama", { "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16 } };
    llama3: "llama", { "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16 } };
    mistral_with_a_short_window: "mistral", { "sliding_window": 5 };
    mistral_with_a_window_of_one: "mistral", { "sliding_window": 1 };
    mistral_with_a_long_window: "mistral", { "sliding_window": 100, "num_key_value_heads": 3 };
    mistral_without_a_window: "mistral", { "sliding_window": null };
    qwen2_some_layers_slide: "qwen2", { "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1 };
    qwen2_does_not_slide: "qwen2", { "use_sliding_window": false, "sliding_window": 4, "max_window_layers": 0 };
    qwen3_by_layer_types: "qwen3", { "use_sliding_window": true, "sliding_window": 6, "attention_bias": true,
        "layer_types": ["sliding_attention", "full_attention"] };
    gemma2_derived: "gemma2", { "sliding_window": 7, "num_hidden_layers": 3, "tie_word_embeddings": true,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0 };
    gemma2_without_caps: "gemma2", { "sliding_window": 3, "attn_logit_softcapping": null,
        "final_logit_softcapping": null, "hidden_activation": "relu" };
    gemma3_by_a_pattern: "gemma3_text", { "sliding_window": 4, "sliding_window_pattern": 2, "num_hidden_layers": 4,
        "rope_local_base_freq": 500.0, "rope_scaling": { "rope_type": "linear", "factor": 8.0 } };
    phi3_partly_rotated: "phi3", { "partial_rotary_factor": 0.4, "head_dim": null, "hidden_size": 60,
        "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 5 };
    gpt2_untied: "gpt2", { "n_embd": 24, "n_head": 3, "n_layer": 2, "n_inner": 20, "n_positions": 30,
        "scale_attn_by_inverse_layer_idx": true, "num_hidden_layers": null, "activation_function": "relu" };
    gpt2_unscaled: "gpt2", { "n_embd": 24, "n_head": 2, "n_layer": 2, "n_positions": 24,
        "scale_attn_weights": false, "num_hidden_layers": null, "tie_word_embeddings": true };
}

/// A text that grows past the limit of Phi-3's short angles is what it would be if it were read anew.
#[test]
fn long_rope_reads_anew() {
    let factors = |from: f64| (0..5).map(|i| from + i as f64).collect::<Vec<_>>();
    let changes = json!({
        "original_max_position_embeddings": 14,
        "rope_scaling": { "type": "longrope", "short_factor": factors(1.0), "long_factor": factors(3.0) },
    });
    let model = random("long rope", &config("phi3", changes));
    let ids = text(1, 23);
    let (short, long) = (whole(&*model, &ids[..14]), whole(&*model, &ids));
    assert!((short[13][0] - long[13][0]).abs() > 1e-3, "the angles differ");
    for chunk in [3, 64] {
        stepwise(&format!("long rope in pieces of {chunk}"), &*model, chunk, anew);
    }
    // Back below the limit, the short angles hold again; a prompt beyond it has the long ones from its
    // start on; pieces that pass the limit have both.
    let expected = anew(&*model, &ids);
    let mut session = model.session(SessionOptions::new(1, 24));
    let logits = session.feed(&[&ids], Want::All).expect("a long text");
    logits.positions(0).zip(&long).for_each(|(f, e)| close("long", f, e));
    session.rewind(0, 10).expect("back");
    let logits = session.feed(&[&ids[10..]], Want::All).expect("on");
    logits.positions(0).zip(&expected[10..14]).for_each(|(f, e)| close("short again", f, e));
    logits.positions(0).skip(4).zip(&long[14..]).for_each(|(f, e)| close("long again", f, e));
    let copies = session.select(&[0, 0]);
    copies.expect("copies");
    session.rewind(1, 12).expect("back");
    let logits = session.feed(&[&[], &ids[12..13]], Want::Last).expect("one more");
    close("a copy", logits.last(1).expect("logits"), &expected[12]);
}

/// With a base that grows with the text, every token is rotated by the base of the text that it ends,
/// and a prompt by that of all of it, in however many pieces it is read.
#[test]
fn dynamic_rope_knows_the_whole_prompt() {
    let changes = json!({ "max_position_embeddings": 8, "rope_scaling": { "type": "dynamic", "factor": 2.0 } });
    let model = random("dynamic", &config("llama", changes));
    let texts = [text(1, 20), text(2, 6)];
    let expected = texts.each_ref().map(|t| whole(&*model, t));
    for chunk in [3, 64] {
        let mut session = model.session(SessionOptions { chunk, ..SessionOptions::new(2, 24) });
        let logits = session.feed(&[&texts[0], &texts[1]], Want::All).expect("prompts");
        for row in 0..2 {
            let pairs = logits.positions(row).zip(&expected[row]);
            pairs.for_each(|(f, e)| close(&format!("dynamic, text {row}"), f, e));
        }
    }
}

axes! {
    /// The widths of the tests' configurations, known to the compiler.
    pub struct Small: LlamaAxes { Vocab = 37, Hidden = 24, KvHeads = 1, Groups = 3, HeadDim = 10, Ffn = 36 }
}

/// Sizes that the compiler knows and sizes from a file: the same values from the same code.
#[test]
fn static_sizes_give_the_same() {
    fn logits<M: CausalLm>(module: M, sizes: Sizes, path: &PathBuf) -> Vec<f32> {
        let model = LoadOptions::new().sizes(sizes).load(module, path).expect("a model");
        let program = model.compile(|m, ids: Ids| m.logits(ids)).expect("a program");
        let ids = text(1, 9).into_iter().map(|i| i as i32).collect();
        program.run(Array::<(Batch, Time), Index>::from_parts(&[1, 9], ids)).expect("logits").into_vec()
    }
    macro_rules! same {
        ($name:literal, $config:expr, $($make:ident)::+) => {{
            let config: Config = $config;
            let path = saved($($make)::+::<Small>(&config).expect($name), Sizes::new(), $name);
            let known = logits($($make)::+::<Small>(&config).expect($name), Sizes::new(), &path);
            let sizes = llama::sizes::<AnyLlama>(&config).expect("sizes");
            close($name, &logits($($make)::+::<AnyLlama>(&config).expect($name), sizes, &path), &known);
            std::fs::remove_file(path).expect("the file goes");
        }};
    }
    same!("llama", config("llama", json!({})), llama::llama);
    same!("mistral", config("mistral", json!({ "sliding_window": 4 })), mistral::mistral);
    same!("qwen2", config("qwen2", json!({})), qwen::qwen2);
    same!("qwen3", config("qwen3", json!({})), qwen::qwen3);
    same!("gemma2", config("gemma2", json!({ "sliding_window": 4 })), gemma::gemma2);
    same!("gemma3", config("gemma3_text", json!({ "sliding_window": 4 })), gemma::gemma3);
    same!("phi3", config("phi3", json!({})), phi3::phi3);
}

/// Files of one model that name or hold its tensors in other ways.
#[test]
fn names_of_files_may_differ() {
    let name = "names";
    let config = config("llama", json!({ "tie_word_embeddings": true }));
    let sizes = llama::sizes::<AnyLlama>(&config).expect("sizes");
    let path = saved(llama::llama::<AnyLlama>(&config).expect("llama"), sizes, name);
    let plain = Checkpoint::open(&path).expect("the file");
    let ids = text(1, 9);
    let logits = |rename: &dyn Fn(&str) -> String, more: Option<(&str, f64)>| {
        let mut all: Vec<(String, Vec<usize>, Data)> = vec![];
        for (own, tensor) in plain.tensors() {
            let read = || plain.read(own, DType::F32).expect("values");
            all.push((rename(own), tensor.sizes.clone(), read()));
            // Besides, the embedding under another name, or something like it.
            if let Some((other, factor)) = more.filter(|_| own == "model.embed_tokens.weight") {
                let values = read().to_f64().iter().map(|v| (v * factor) as f32).collect();
                all.push((other.to_string(), tensor.sizes.clone(), Data::F32(values)));
            }
        }
        let mut writer = Writer::new();
        for (name, sizes, data) in &all {
            writer = writer.add(name, sizes, data).expect("a tensor");
        }
        let path = file("renamed");
        writer.save(&path).expect("a file");
        let model = family::open(&config, &Checkpoint::open(&path).expect("the file")).map(|m| whole(&*m, &ids));
        std::fs::remove_file(path).expect("the file goes");
        model
    };
    let same = |n: &str| n.to_string();
    let expected = logits(&same, None).expect("as it is");
    let base = |n: &str| n.replacen("model.", "", 1);
    let part = |n: &str| format!("language_model.{n}");
    let inner = |n: &str| n.replacen("model.", "model.language_model.", 1);
    assert_eq!(logits(&base, None).expect("without a head"), expected);
    assert_eq!(logits(&part, Some(("vision_tower.weight", 1.0))).expect("a part"), expected);
    assert_eq!(logits(&inner, None).expect("a part"), expected);
    assert_eq!(logits(&same, Some(("lm_head.weight", 1.0))).expect("a head that is the embedding"), expected);
    assert_eq!(
        logits(&same, Some(("model.layers.0.self_attn.rotary_emb.inv_freq", 1.0))).expect("constants"),
        expected
    );
    let own = logits(&same, Some(("lm_head.weight", 2.0))).expect("a head of its own");
    assert!((own[0][0] - 2.0 * expected[0][0]).abs() < 1e-4 && own != expected);
    assert!(logits(&same, Some(("model.other.weight", 1.0))).is_err(), "what is not known is not passed over");
    std::fs::remove_file(path).expect("the file goes");
}
