//! Models written in other formats and read again.

use super::{Scratch, golden, real};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::Encoding;
use mobilis_runtime::graph::DType;
use mobilis_zoo::export::{ExportOptions, Precision, export};
use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::import::{OpenOptions, Pretrained, TokenizerFiles};
use serde_json::Value;

fn open(path: &std::path::Path) -> Pretrained {
    Pretrained::open(path.to_str().expect("a plain path")).unwrap_or_else(|e| panic!("{e}"))
}

fn values(source: &dyn Source, name: &str) -> Vec<f64> {
    source.read(name, DType::F32, false).unwrap_or_else(|e| panic!("{e}")).to_f64()
}

/// Settings that a GGUF file does not hold, or holds in other words.
const ASIDE: [&str; 40] = [
    "_sliding_window_pattern",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "chunk_size",
    "classifier_dropout",
    "decoder_start_token_id",
    "dropout_rate",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "head_dim",
    "hidden_dropout_prob",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "intermediate_size",
    "label2id",
    "layer_types",
    "max_window_layers",
    "model_type",
    "n_inner",
    "num_key_value_heads",
    "output_router_logits",
    "pad_token_id",
    "resid_pdrop",
    "rope_parameters",
    "rope_scaling",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sliding_window",
    "summary_type",
    "time_step_limit",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "max_position_embeddings",
    "attention_probs_dropout_prob",
    "tie_word_embeddings",
    "rescale_prenorm_residual",
];

/// Every architecture: its golden model as a GGUF file holds the same tensors under the same names, and the same
/// settings, from either spelling of the configuration.
#[test]
fn golden_models_survive_a_gguf_file() {
    let scratch = Scratch::new("golden-gguf");
    let models = [
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "gemma2",
        "gemma3",
        "phi3",
        "phi3_longrope",
        "gpt2",
        "deepseek_v3",
        "mamba",
        "mamba2",
        "mamba2_groups",
        "bert",
        "t5",
        "t5_gated",
    ];
    let mut faults = Vec::new();
    for name in models {
        let Some(folder) = golden(name) else { return };
        for spelling in ["config.json", "config_hub.json"] {
            let from = OpenOptions::new().config(spelling).open(folder.to_str().expect("text")).expect("opened");
            let file = scratch.path(&format!("{name}.gguf"));
            match export(&from, &file, &ExportOptions::default()) {
                Ok(_) => compare(&from, &open(&file), &format!("{name} {spelling}"), &mut faults),
                Err(e) => faults.push(format!("{name} {spelling}: {e}")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn compare(from: &Pretrained, again: &Pretrained, name: &str, faults: &mut Vec<String>) {
    for tensor in again.tensors.names() {
        let bert = format!("bert.{tensor}");
        let theirs = if from.tensors.info(tensor).is_some() { tensor } else { &bert };
        let Some(expected) = from.tensors.info(theirs) else {
            faults.push(format!("{name}: `{tensor}` is new"));
            continue;
        };
        let (a, b) = (values(&*again.tensors, tensor), values(&*from.tensors, theirs));
        // Shifted norms and logarithms are rounded once more.
        let same = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-7 * b.abs().max(1.0));
        if !same || again.tensors.info(tensor).is_none_or(|i| i.sizes != expected.sizes) {
            faults.push(format!("{name}: `{tensor}` differs"));
        }
    }
    let aside =
        |n: &&str| !["pooler", "cls.", "embed_tokens"].iter().any(|p| n.contains(p)) || name.starts_with("llama");
    for lost in from.tensors.names().into_iter().filter(aside) {
        if again.tensors.info(lost.trim_start_matches("bert.")).is_none() {
            faults.push(format!("{name}: `{lost}` is lost"));
        }
    }
    for (key, value) in from.config.as_object().expect("an object") {
        if let Some(found) = again.config.get(key).filter(|_| !ASIDE.contains(&key.as_str())) {
            let same = match (found.as_f64(), value.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs(),
                _ => found == value || value.is_null(),
            };
            if !same {
                faults.push(format!("{name} {key}: {found} is not {value}"));
            }
        }
    }
}

/// Rotations of a scaled model are the same after a round trip.
#[test]
fn scalings_survive_a_gguf_file() {
    let scratch = Scratch::new("scalings");
    for name in ["llama", "gemma3", "phi3_longrope", "deepseek_v3"] {
        let Some(folder) = golden(name) else { return };
        let from = OpenOptions::new().config("config_hub.json").open(folder.to_str().expect("text")).expect("opened");
        let file = scratch.path("m.gguf");
        export(&from, &file, &ExportOptions::default()).expect("written");
        let (again, expected) = (open(&file).config["rope_scaling"].clone(), &from.config["rope_scaling"]);
        let kind = if expected["rope_type"].is_null() { &expected["type"] } else { &expected["rope_type"] };
        assert_eq!(again["rope_type"], *kind, "{name}");
        let compared = ["factor", "beta_fast", "beta_slow", "mscale", "long_factor", "short_factor"];
        for key in compared.into_iter().filter(|k| !expected[*k].is_null()) {
            let numbers = |v: &Value| -> Vec<f64> {
                v.as_array()
                    .map_or_else(|| v.as_f64().into_iter().collect(), |l| l.iter().filter_map(Value::as_f64).collect())
            };
            let (a, b) = (numbers(&again[key]), numbers(&expected[key]));
            assert!(
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()),
                "{name} {key}: {a:?} {b:?}"
            );
        }
    }
}

#[test]
fn quantized_files_and_back() {
    let Some(folder) = golden("llama") else { return };
    let scratch = Scratch::new("quantized");
    let from = open(&folder);
    for (precision, name, step) in [(Precision::Q8_0, "Q8_0", 1.0 / 127.0), (Precision::Q4_0, "Q4_0", 1.0 / 8.0)] {
        let file = scratch.path("m.gguf");
        let notes = export(&from, &file, &ExportOptions { precision, ..Default::default() }).expect("written");
        assert!(notes.is_empty(), "{notes:?}");
        let gguf = Gguf::open(&file).expect("opened");
        assert_eq!(gguf.find("blk.0.attn_q.weight").expect("there").encoding.name(), name);
        assert_eq!(gguf.find("blk.0.attn_norm.weight").expect("there").encoding, Encoding::F32);
        let again = open(&file);
        let key = "model.layers.1.self_attn.k_proj.weight";
        let (a, b) = (values(&*again.tensors, key), values(&*from.tensors, key));
        for (a, b) in a.chunks(32).zip(b.chunks(32)) {
            let largest = b.iter().fold(0f64, |m, v| m.max(v.abs()));
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1.02 * step * largest), "{name}");
        }
        // Back to a folder: dequantized, with the tokenizer.
        let back = scratch.path("back");
        let notes =
            export(&again, &back, &ExportOptions { precision: Precision::F16, ..Default::default() }).expect("written");
        assert!(notes.is_empty(), "{notes:?}");
        let back = open(&back);
        assert_eq!(back.config["torch_dtype"], "float16");
        assert_eq!(back.tensors.find(key).expect("there").encoding, Encoding::F16);
        let ours = back.tokenizer.open().expect("a tokenizer");
        let theirs = from.tokenizer.open().expect("a tokenizer");
        let text = "The quick brown fox, 42 times: naïve!";
        assert_eq!(ours.encode(text, false).expect("encoded"), theirs.encode(text, false).expect("encoded"));
    }
}

#[test]
fn a_published_model_as_a_folder() {
    let Some(folder) = real("smollm2") else { return };
    let scratch = Scratch::new("smollm2");
    let from = open(&folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"));
    // Vocabulary and settings alone: tensors are held against theirs elsewhere.
    let TokenizerFiles::Gguf(_) = &from.tokenizer else { panic!("a vocabulary is in the file") };
    let small = Pretrained { tensors: Box::new(Nothing), ..from };
    let to = scratch.path("hf");
    let notes = export(&small, &to, &ExportOptions::default()).expect("written");
    assert!(notes.is_empty(), "{notes:?}");
    let ours = TokenizerFiles::Folder(to.clone()).open().expect("a tokenizer");
    let theirs = TokenizerFiles::Folder(folder.join("hf")).open().expect("a tokenizer");
    let text = "Call me Ishmael.\n\nSome years ago, 1851: naïve? <|im_start|>";
    assert_eq!(ours.encode(text, false).expect("encoded"), theirs.encode(text, false).expect("encoded"));
    let template =
        |folder: &std::path::Path| std::fs::read_to_string(folder.join("chat_template.jinja")).expect("read");
    assert_eq!(template(&to), template(&folder.join("hf")));
}

/// A source without tensors.
#[derive(Debug)]
struct Nothing;

impl Source for Nothing {
    fn path(&self) -> &std::path::Path {
        std::path::Path::new("nothing")
    }
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
    fn info(&self, _: &str) -> Option<mobilis_runtime::checkpoint::TensorInfo> {
        None
    }
    fn raw(
        &self,
        name: &str,
    ) -> Result<mobilis_runtime::checkpoint::Raw, mobilis_runtime::checkpoint::CheckpointError> {
        self.find(name).map(|_| mobilis_runtime::checkpoint::Raw::Bytes(Vec::new()))
    }
}
