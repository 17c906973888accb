//! MiniLM: hidden states and sentence embeddings of a model that people use.
//!
//! The weights (`~/.cache/mobilis/real`, or `MOBILIS_REAL`) and the reference (`../shared/real/refs`,
//! computed in double precision) may be absent; then the test says so and passes.

use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_zoo::embed::{Embedder, Settings, cosine};
use mobilis_zoo::import::Pretrained;
use mobilis_zoo::llm::Config;
use mobilis_zoo::llm::encoder::{EncoderModel, Pooling, TextBatch};
use mobilis_zoo::llm::open::{self, AnyModel};
use mobilis_zoo::text::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

fn real() -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mobilis/real");
    std::env::var_os("MOBILIS_REAL").map_or_else(cache, PathBuf::from).join("minilm")
}

fn references() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/real/refs")
}

fn model(folder: &std::path::Path) -> Box<dyn EncoderModel> {
    let pretrained = Pretrained::open(&folder.display().to_string()).expect("a checkpoint");
    let config = Config::new("config.json", pretrained.config);
    match open::open(&config, &*pretrained.tensors) {
        Ok(AnyModel::Encoder(model)) => model,
        Ok(_) => panic!("not an encoder"),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn minilm() {
    let (folder, references) = (real(), references());
    for path in [folder.join("model.safetensors"), references.join("minilm.safetensors")] {
        if !path.exists() {
            println!("skipped: {} is absent", path.display());
            return;
        }
    }
    let expected = Checkpoint::open(references.join("minilm.safetensors")).expect("the reference");
    let reals = |name: &str| expected.read_wide(name, DType::F32).expect("a tensor").to_f64();
    let text = std::fs::read_to_string(references.join("minilm.json")).expect("the reference");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let sentences: Vec<String> = serde_json::from_value(json["sentences"].clone()).expect("sentences");
    let ids: Vec<Vec<u32>> = serde_json::from_value(json["ids"].clone()).expect("ids");

    let model = model(&folder);
    let first = model.encode(&TextBatch::new(1, ids[0].clone()).expect("a batch")).expect("a run");
    let hidden = &first.hidden.last().expect("a stream").data;
    let wanted = reals("hidden.0");
    assert_eq!(hidden.len(), wanted.len());
    let worst = hidden.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    println!("hidden states differ by {worst:.1e} at most");
    assert!(worst <= 1e-5, "{worst}");

    let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let found = model.embed(&rows, Pooling::Mean, true).expect("a run");
    let wanted: Vec<f32> = reals("embeddings").iter().map(|v| *v as f32).collect();
    let check = |vectors: Vec<&[f32]>| {
        for (i, (a, b)) in vectors.iter().zip(wanted.chunks_exact(384)).enumerate() {
            let cosine = cosine(a, b);
            assert!(1.0 - cosine <= 1e-6, "sentence {i}: {cosine}");
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5, "sentence {i}: {worst}");
        }
    };
    check(found.data.chunks_exact(384).collect());

    let settings = Settings::of(&folder).expect("settings");
    assert_eq!(settings, Settings { pooling: Pooling::Mean, normalize: true, tokens: Some(256) });
    let tokenizer = Tokenizer::from_folder(&folder).expect("a tokenizer");
    let embedder = Embedder::new(model, tokenizer, settings);
    for (sentence, ids) in sentences.iter().zip(&ids) {
        assert_eq!(embedder.tokens(sentence).expect("tokens"), (ids.clone(), false), "{sentence}");
    }
    let long = "word ".repeat(1000);
    let (cut, was) = embedder.tokens(&long).expect("tokens");
    assert!(was && cut.len() == 256 && cut[0] == 101 && cut[255] == 102 && cut[254] != 102, "{cut:?}");
    let mut told = vec![];
    let found = embedder.embed(&sentences, |done| told.push(done)).expect("vectors");
    check(found.vectors.iter().map(Vec::as_slice).collect());
    assert_eq!((told.last(), found.cut), (Some(&sentences.len()), 0));
    let none: [&str; 0] = [];
    assert!(embedder.embed(&none, |_| ()).expect("nothing").vectors.is_empty());
    let empty = embedder.embed(&[""], |_| ()).expect("the vector of nothing");
    assert_eq!(empty.vectors[0].len(), 384);
}
