//! SmolLM2-135M-Instruct against an independent implementation in double precision.
//!
//! The weights come from `shared/real/fetch.sh` and lie in `~/.cache/mobilis/real`, or where
//! `MOBILIS_REAL` says; the references in `../shared/real/refs`. Without either the tests say that
//! they are skipped.

use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_runtime::program::{WeightFormat, Weights};
use mobilis_zoo::generate::{Chooser, Generator, Lane, Request, Speculation};
use mobilis_zoo::import::Pretrained;
use mobilis_zoo::llm::session::Want;
use mobilis_zoo::llm::{Config, TextModel, family};
use mobilis_zoo::text::{ChatOptions, Message};
use serde_json::Value;
use std::path::PathBuf;

const GGUF: &str = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// A file or folder of the fetched models, and the folder of the references.
fn real(name: &str) -> Option<(PathBuf, PathBuf)> {
    let given = std::env::var_os("MOBILIS_REAL").map(PathBuf::from);
    let home = std::env::home_dir().unwrap_or_default();
    let place = given.unwrap_or_else(|| home.join(".cache/mobilis/real")).join(name);
    let references = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let references = references.ancestors().map(|a| a.join("shared/real")).find(|p| p.join("refs").is_dir());
    match references.filter(|_| place.exists()) {
        Some(references) => Some((place, references)),
        None => {
            println!("skipped: {} or its references are not there", place.display());
            None
        }
    }
}

struct Reference {
    tensors: Checkpoint,
    texts: Value,
}

impl Reference {
    fn at(folder: &std::path::Path) -> Reference {
        let text = std::fs::read_to_string(folder.join("refs/smollm2.json")).unwrap();
        let tensors = Checkpoint::open(folder.join("refs/smollm2.safetensors")).unwrap();
        Reference { tensors, texts: serde_json::from_str(&text).unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        match self.tensors.read(name, DType::F32).unwrap() {
            Data::F32(values) => values,
            other => panic!("{:?}", other.dtype()),
        }
    }

    fn ids(&self, name: &str, key: &str) -> Vec<u32> {
        let list = self.texts[name][key].as_array().unwrap();
        list.iter().map(|v| v.as_u64().unwrap() as u32).collect()
    }
}

fn open(place: &std::path::Path) -> (Pretrained, Box<dyn TextModel>) {
    let pretrained = Pretrained::open(place.to_str().unwrap()).unwrap();
    let config = Config::new(place.display().to_string(), pretrained.config.clone());
    let model = family::open(&config, &*pretrained.tensors).unwrap();
    (pretrained, model)
}

/// The logits after a prompt, and 32 tokens; decoding does not stop at an end.
fn check(place: &std::path::Path, references: &std::path::Path, logits: &str) {
    let reference = Reference::at(references);
    let (pretrained, model) = open(place);
    let tokenizer = pretrained.tokenizer.open().unwrap();
    // Blocks are multiplied by activations in f32: what is left are their own values.
    let generator = Generator::new(&*model).weights(Weights::default().exact());
    let names = ["raw", "capital", "haiku"];
    let mut requests = vec![];
    for name in names {
        let prompt = reference.ids(name, "prompt_ids");
        let text = &reference.texts[name]["prompt"];
        assert_eq!(tokenizer.encode(text.as_str().unwrap(), false).unwrap(), prompt, "{name}");
        if let Some(messages) = reference.texts[name]["messages"].as_array() {
            let messages: Vec<Message> = messages.iter().map(|m| Message::from_json(m.clone()).unwrap()).collect();
            let template = tokenizer.chat_template(None).unwrap();
            assert_eq!(template.render(&messages, &ChatOptions::to_answer()).unwrap(), *text);
        }
        let mut lane: Lane = generator.lane(1, 64);
        let found = lane.feed(&[&prompt], Want::Last).unwrap();
        let expected = reference.floats(&format!("{name}.{logits}"));
        let differences = found.last(0).unwrap().iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0, f32::max);
        println!("{}: {name}: logits within {worst:.1e}", place.display());
        assert!(worst < 1e-3, "{name}: {worst}");
        requests.push(Request { prompt, most: 32, chooser: Chooser::greedy(vec![]) });
    }
    // All three as one batch, plain and with guesses.
    for speculation in [Speculation::None, Speculation::Lookup(7)] {
        let generation = generator.generate(requests.clone(), speculation).unwrap();
        let mut found = vec![vec![]; names.len()];
        for event in generation {
            let event = event.unwrap();
            found[event.row].extend(event.token.map(|t| t.id));
        }
        for (name, found) in names.iter().zip(&found) {
            assert_eq!(*found, reference.ids(name, "ids"), "{name}");
        }
    }
}

#[test]
fn single_precision_gives_the_references_logits_and_tokens() {
    let Some((place, references)) = real(GGUF) else { return };
    check(&place, &references, "logits");
}

#[test]
fn half_precision_weights_give_theirs() {
    let Some((place, references)) = real("smollm2/hf") else { return };
    check(&place, &references, "logits_f16_weights");
}

#[test]
fn blocks_foretell_a_book_nearly_as_well_as_their_values() {
    let Some((place, references)) = real(GGUF) else { return };
    let book = std::fs::read_to_string(references.join("moby_dick.txt")).unwrap();
    let (pretrained, model) = open(&place);
    let tokens = pretrained.tokenizer.open().unwrap().encode(&book[..16384], true).unwrap();
    // As they are used, activations in eight bits, and in single precision.
    let of = |weights: Weights| {
        let generator = Generator::new(&*model).weights(weights);
        let go = |_, _| std::ops::ControlFlow::Continue(());
        generator.lane(1, 512).perplexity(&tokens, 512, 511, go).unwrap().perplexity()
    };
    let (blocks, values) = (of(Weights::default()), of(Weights::new(WeightFormat::F32)));
    println!("perplexity {blocks:.4} in blocks, {values:.4} in single precision");
    assert!((blocks / values - 1.0).abs() < 0.01);
}
