//! The commands for language models as a user meets them, over a small model without a tokenizer.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn mobilis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mobilis")).args(arguments).output().expect("the command starts")
}

fn json(arguments: &[&str]) -> Value {
    let out = mobilis(&[arguments, &["--json"]].concat());
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON object")
}

/// Standard error of a command that must fail with this exit code and print no result.
fn bad(arguments: &[&str], code: i32) -> String {
    let out = mobilis(arguments);
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty(), "{arguments:?} printed a result");
    String::from_utf8(out.stderr).expect("text")
}

/// A folder with a Llama of one layer, 32 tokens and 24 positions; `scale` is the size of its weights.
fn folder(name: &str, scale: f32) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&place).expect("a folder");
    let config = json!({
        "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 24, "tie_word_embeddings": true,
    });
    std::fs::write(place.join("config.json"), config.to_string()).expect("a file");
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_string(), vec![32, 16]),
        (layer("self_attn.q_proj"), vec![16, 16]),
        (layer("self_attn.k_proj"), vec![8, 16]),
        (layer("self_attn.v_proj"), vec![8, 16]),
        (layer("self_attn.o_proj"), vec![16, 16]),
        (layer("mlp.gate_proj"), vec![16, 16]),
        (layer("mlp.up_proj"), vec![16, 16]),
        (layer("mlp.down_proj"), vec![16, 16]),
        (layer("input_layernorm"), vec![16]),
        (layer("post_attention_layernorm"), vec![16]),
        ("model.norm.weight".to_string(), vec![16]),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, sizes) in tensors {
        let (count, begin): (usize, usize) = (sizes.iter().product(), data.len());
        data.extend((0..count).flat_map(|i| (((begin + i * 7) as f32 * 1.7).sin() * scale).to_le_bytes()));
        header.insert(name, json!({ "dtype": "F32", "shape": sizes, "data_offsets": [begin, data.len()] }));
    }
    let header = Value::from(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(place.join("model.safetensors"), file).expect("a file");
    place
}

fn ids(object: &Value, i: usize) -> Vec<u64> {
    object["texts"][i]["ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect()
}

#[test]
fn generate_gives_the_same_tokens_however_they_are_had() {
    let place = folder("language", 1.0);
    let place = place.to_str().expect("text");
    let generate = |more: &[&str]| json(&[&["generate", place, "-n", "12", "--ids", "1,2,3"], more].concat());
    let plain = generate(&[]);
    let expected = ids(&plain, 0);
    assert_eq!((expected.len(), &plain["texts"][0]["stop"]), (12, &json!("length")));
    assert_eq!(plain["statistics"]["prompt_tokens"], 3);
    assert_eq!(ids(&generate(&["--lookup"]), 0), expected);
    let drafted = generate(&["--draft", place, "--draft-tokens", "2"]);
    assert_eq!(ids(&drafted, 0), expected);
    assert!(drafted["statistics"]["calls"].as_u64() < plain["statistics"]["calls"].as_u64());
    // In a batch with a longer and a shorter prompt.
    let batch = generate(&["--ids", "9", "--ids", "4,5,6,7,8"]);
    assert_eq!(ids(&batch, 0), expected);
    assert_eq!(batch["texts"].as_array().map(Vec::len), Some(3));
    // Drawn tokens are those of the seed, in a batch too.
    let drawn = |more: &[&str]| ids(&generate(&[&["--temperature", "1.5", "--seed", "7"], more].concat()), 0);
    assert_eq!(drawn(&[]), drawn(&["--ids", "9", "--lookup", "3"]));
    assert_ne!(drawn(&[]), expected);
    // An end, a bias, log-probabilities.
    let end = expected[4].to_string();
    let ended = generate(&["--stop-token", &end]);
    let first = expected.iter().position(|id| *id == expected[4]).expect("it is there");
    assert_eq!((ids(&ended, 0), &ended["texts"][0]["stop"]), (expected[..=first].to_vec(), &json!("stop token")));
    assert!(ids(&generate(&["--logit-bias", "5=1000"]), 0).iter().all(|id| *id == 5));
    let told = generate(&["--logprobs", "2"]);
    let first = &told["texts"][0]["logprobs"][0];
    assert!(first["logprob"].as_f64() < Some(0.0) && first["top"].as_array().map(Vec::len) == Some(2), "{first}");
    assert_eq!(first["top"][0][0], first["id"]);
    // Positions end; beams are sorted.
    let long = json(&["generate", place, "--ids", "1,2,3", "-n", "999999999999"]);
    assert_eq!((ids(&long, 0).len(), &long["texts"][0]["stop"]), (22, &json!("context")));
    let beams = generate(&["--beams", "3", "--best", "3"]);
    let scores: Vec<f64> = (0..3).filter_map(|i| beams["texts"][i]["score"].as_f64()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn language_commands_say_what_is_wrong() {
    let place = folder("faulty", 1.0);
    let place = place.to_str().expect("text");
    let generate = |more: &[&str], code| bad(&[&["generate", place], more].concat(), code);
    assert!(generate(&["a text"], 1).contains("has no tokenizer"));
    assert!(generate(&["--ids", "1,x"], 2).contains("`x` is no id of a token"));
    assert!(generate(&["--ids", "1,32"], 1).contains("token 32 of sequence 0 is not one of the model's 32 tokens"));
    assert!(generate(&["--ids", ""], 1).contains("text 0 has no tokens"));
    let long = vec!["1"; 25].join(",");
    assert!(generate(&["--ids", &long], 1).contains("text 0 has 25 tokens, there is room for 24"));
    assert!(generate(&["--ids", "1", "--weights", "q8_1"], 2).contains("did you mean `q8_0`?"));
    assert!(generate(&["--ids", "1", "--top-p", "2"], 1).contains("top_p"));
    assert!(generate(&["--ids", "1", "--beams", "2", "--top-k", "2"], 1).contains("a beam search takes no --top-k"));
    assert!(generate(&["--ids", "1", "--beams", "2", "--early-stopping", "alway"], 2).contains("`always`"));
    assert!(generate(&["--ids", "1", "--stop", "x"], 1).contains("has no tokenizer"));
    assert!(generate(&["--file", "nowhere.txt"], 1).contains("cannot read nowhere.txt"));
    assert!(bad(&["chat", place], 1).contains("has no tokenizer"));
    assert!(bad(&["perplexity", place, "nowhere.txt"], 1).contains("cannot read nowhere.txt"));
    assert!(bad(&["perplexity", place, "x", "--window", "1"], 2).contains("--window"));
    // Weights that give no numbers.
    let damaged = folder("damaged", f32::NAN);
    let error = bad(&["generate", damaged.to_str().expect("text"), "--ids", "1"], 1);
    assert!(error.contains("the logits after token 1 of text 0 are not numbers"), "{error}");
}

#[test]
fn models_of_other_kinds_are_told_apart() {
    let root = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"));
    for (name, command, kind) in
        [("bert", "generate", "an encoder and"), ("t5", "perplexity", "an encoder-decoder and")]
    {
        let place = root.join(name);
        if !place.exists() {
            println!("skipped: {} is absent", place.display());
            continue;
        }
        let place = place.to_str().expect("text");
        let given: &[&str] = if command == "generate" { &["--ids", "1,2"] } else { &["Cargo.toml"] };
        let message = bad(&[&[command, place], given].concat(), 1);
        assert!(message.contains(kind), "{message}");
        if name == "t5" {
            let ids = "215,147,249,150,303,311,205,35,215,17,69,40,204,47,288";
            let found = mobilis(&["generate", place, "--ids", ids, "-n", "4", "--json"]).stdout;
            let found = String::from_utf8(found).expect("text");
            assert!(found.contains("290") && found.contains("313"), "{found}");
            assert!(bad(&["generate", place, "--ids", ids, "--lookup"], 1).contains("takes no --lookup"));
        }
    }
}
