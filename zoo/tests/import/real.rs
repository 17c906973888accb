//! Models that people use, held against conversions by others.

use super::real;
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Checkpoint, Encoding, encoding};
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::import::{Pretrained, TokenizerFiles};
use serde_json::Value;

/// SmolLM2's GGUF file against the folder that another reader made of it, in `f16`.
#[test]
fn a_llama_in_a_gguf_file() {
    let Some(folder) = real("smollm2") else { return };
    let file = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let opened = Pretrained::open(file.to_str().expect("a plain path")).expect("opened");
    let theirs = Checkpoint::open(folder.join("hf")).expect("opened");
    let names: Vec<&str> = theirs.tensors().map(|(name, _)| name).collect();
    assert_eq!(opened.tensors.names(), names);
    // All would take half a minute here; each row of each layer is treated alike.
    let some = |n: &&str| ["layers.0.", "layers.29.", "model.norm"].iter().any(|part| n.contains(part));
    for name in names.into_iter().filter(some) {
        let (ours, expected) = (opened.tensors.find(name).expect("there"), theirs.find(name).expect("there"));
        assert_eq!(ours.sizes, expected.sizes, "{name}");
        let (Ok(Data::F32(a)), Ok(Data::F32(b))) =
            (opened.tensors.read(name, DType::F32, false), theirs.read(name, DType::F32))
        else {
            panic!("{name} cannot be read")
        };
        assert!(a.iter().zip(&b).all(|(a, b)| encoding::from_f16(encoding::to_f16(*a)) == *b), "{name}");
    }
    // Quantized rows were moved, not decoded.
    let queries = opened.tensors.find("model.layers.0.self_attn.q_proj.weight").expect("there");
    assert!(matches!(queries.encoding, Encoding::Blocks(_)));
    let text = std::fs::read_to_string(folder.join("hf/config.json")).expect("read");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in expected.as_object().expect("an object") {
        if key != "torch_dtype" {
            let same = match (opened.config[key].as_f64(), value.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => opened.config[key] == *value,
            };
            assert!(same, "{key}: {} is not {value}", opened.config[key]);
        }
    }
    let ours = opened.tokenizer.open().expect("a vocabulary");
    let theirs = TokenizerFiles::Folder(folder.join("hf")).open().expect("a tokenizer");
    let text = "Call me Ishmael. Some years ago, 1851: naïve?\n";
    assert_eq!(ours.encode(text, true).expect("encoded"), theirs.encode(text, true).expect("encoded"));
}

/// Files with nothing but a vocabulary, of all kinds.
#[test]
fn vocabularies_alone() {
    let Some(folder) = real("tokenizers") else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("listed").flatten() {
        if entry.path().extension().is_some_and(|e| e == "gguf") {
            let gguf = Gguf::open(entry.path()).unwrap_or_else(|e| panic!("{e}"));
            assert!(gguf.names().is_empty());
            assert!(matches!(gguf.metadata().text("tokenizer.ggml.model"), Ok(Some(_))));
            count += 1;
        }
    }
    assert!(count > 10);
}
