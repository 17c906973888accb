//! Encoders and encoder-decoders of configurations that the reference folders do not have, with
//! random weights: what is computed in one way must be what is computed in another.

// The macros name everything `::mobilis::..`.

use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::prelude::*;
use mobilis_zoo::llm::encoder::{EncoderModel, Pooling, TextBatch};
use mobilis_zoo::llm::family::Values;
use mobilis_zoo::llm::open::{self, AnyModel};
use mobilis_zoo::llm::seq2seq::Seq2SeqModel;
use mobilis_zoo::llm::session::{SessionOptions, Want};
use mobilis_zoo::llm::{Config, bart, bert, roberta, t5};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mobilis-encoders-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(value: Value) -> Config {
    Config::new("config.json", value)
}

/// A module with random weights, saved and opened again by its configuration.
fn opened<M: Module>(config: &Config, module: M, sizes: Sizes) -> AnyModel {
    let folder = Folder::new();
    let path = folder.0.join("model.safetensors");
    Model::init_with(module, 3, sizes).and_then(|m| m.save(&path)).expect("a saved model");
    let tensors = Checkpoint::open(&path).expect("a checkpoint");
    open::open(config, &tensors).unwrap_or_else(|e| panic!("{e}"))
}

fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 2e-5 * largest, "{what}: value {i} is {a}, expected {b}");
    }
}

fn small_bert() -> Value {
    json!({
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 50, "hidden_size": 21,
        "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 35,
        "max_position_embeddings": 16, "type_vocab_size": 3, "hidden_act": "gelu_new", "pad_token_id": 0,
    })
}

fn with(mut value: Value, key: &str, other: Value) -> Value {
    value[key] = other;
    value
}

fn all_heads() -> bert::Heads {
    bert::Heads { pooler: true, predictions: true, next: true, classifier: true, per_token: false }
}

fn encoder(config: &Config, heads: bert::Heads) -> Box<dyn EncoderModel> {
    let sizes = bert::sizes::<bert::AnyBert>(config).expect("sizes");
    let found = match config.model_type() {
        Ok("bert") => opened(config, bert::bert::<bert::AnyBert>(config, heads).expect("a module"), sizes),
        _ => opened(config, roberta::roberta::<bert::AnyBert>(config, heads).expect("a module"), sizes),
    };
    match found {
        AnyModel::Encoder(model) => model,
        _ => panic!("not an encoder"),
    }
}

fn texts() -> [&'static [u32]; 3] {
    [&[2, 7, 9, 30, 4], &[5, 8], &[11, 12, 13, 49, 3, 6, 1]]
}

/// Row `row` of `[rows, time, width]`, its first `count` positions.
fn part(values: &Values, row: usize, count: usize) -> &[f32] {
    let (time, width) = (values.sizes[1], values.sizes[2]);
    &values.data[row * time * width..][..count * width]
}

#[test]
fn padding_is_not_seen() {
    for kind in ["bert", "roberta"] {
        let mut value = with(small_bert(), "model_type", json!(kind));
        value["pad_token_id"] = json!(1);
        // The third text ends with what RoBERTa takes for padding.
        let texts = [texts()[0], texts()[1], &texts()[2][..6]];
        let model = encoder(&config(value), bert::Heads { pooler: true, ..bert::Heads::default() });
        let together = model.encode(&TextBatch::padded(&texts, 1)).expect("a run");
        let other = model.encode(&TextBatch::padded(&texts, 40)).expect("a run");
        for (row, text) in texts.iter().enumerate() {
            let alone = model.encode(&TextBatch::new(1, text.to_vec()).expect("a batch")).expect("a run");
            for (layer, hidden) in alone.hidden.iter().enumerate() {
                let what = format!("{kind}: text {row}, layer {layer}");
                close(&what, part(&together.hidden[layer], row, text.len()), &hidden.data);
                close(&what, part(&other.hidden[layer], row, text.len()), &hidden.data);
            }
            let pooled = together.head("pooled").expect("a pooler");
            close("pooled", &pooled.data[row * 21..][..21], &alone.head("pooled").expect("a pooler").data);
        }
    }
}

#[test]
fn a_mask_may_have_holes() {
    let model = encoder(&config(small_bert()), bert::Heads::default());
    let mask = [true, false, true, true, false, true];
    let of = |ids: [u32; 6], types: [u32; 6]| {
        let texts = TextBatch::new(1, ids.to_vec()).and_then(|t| t.mask(mask.to_vec()));
        let texts = texts.and_then(|t| t.types(types.to_vec())).expect("a batch");
        model.encode(&texts).expect("a run").hidden.pop().expect("a stream")
    };
    let (a, b) = (of([1, 2, 3, 4, 5, 6], [0; 6]), of([1, 40, 3, 4, 41, 6], [0, 2, 0, 0, 1, 0]));
    for (i, _) in mask.iter().enumerate().filter(|(_, seen)| **seen) {
        close("a token that counts", &a.data[i * 21..][..21], &b.data[i * 21..][..21]);
    }
    let c = of([1, 2, 3, 4, 5, 6], [0, 0, 2, 0, 0, 0]);
    assert!(a.data[..21] != c.data[..21], "types of tokens are looked at");
}

#[test]
fn poolings() {
    let model = encoder(&config(small_bert()), bert::Heads::default());
    let texts = texts();
    let encoded = model.encode(&TextBatch::padded(&texts, 0)).expect("a run");
    let last = encoded.hidden.last().expect("a stream");
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max] {
        let plain = model.embed(&texts, pooling, false).expect("a run");
        let unit = model.embed(&texts, pooling, true).expect("a run");
        for (row, text) in texts.iter().enumerate() {
            let tokens: Vec<&[f32]> = part(last, row, text.len()).chunks_exact(21).collect();
            let over = |f: fn(f32, f32) -> f32, start: f32| -> Vec<f32> {
                (0..21).map(|i| tokens.iter().map(|t| t[i]).fold(start, f)).collect()
            };
            let expected = match pooling {
                Pooling::Mean => over(|a, b| a + b, 0.0).iter().map(|v| v / text.len() as f32).collect(),
                Pooling::Cls => tokens[0].to_vec(),
                Pooling::Last => tokens[text.len() - 1].to_vec(),
                Pooling::Max => over(f32::max, f32::NEG_INFINITY),
            };
            close(&format!("{pooling:?}"), &plain.data[row * 21..][..21], &expected);
            let length = expected.iter().map(|v| v * v).sum::<f32>().sqrt();
            let expected: Vec<f32> = expected.iter().map(|v| v / length).collect();
            close(&format!("{pooling:?} of length 1"), &unit.data[row * 21..][..21], &expected);
        }
    }
}

#[test]
fn heads_of_any_number_of_labels() {
    for (kind, labels) in [("bert", 1), ("bert", 5), ("roberta", 1), ("roberta", 3)] {
        let names: Value = (0..labels).map(|i| (i.to_string(), json!(format!("LABEL_{i}")))).collect();
        let value = with(with(small_bert(), "model_type", json!(kind)), "id2label", names);
        for (per_token, task) in [(false, "Sequence"), (true, "Token")] {
            let value = with(value.clone(), "architectures", json!([format!("BertFor{task}Classification")]));
            let heads = bert::Heads { classifier: true, per_token, ..bert::Heads::default() };
            let model = encoder(&config(value), heads);
            let found = model.encode(&TextBatch::padded(&texts(), 0)).expect("a run");
            let expected = if per_token { vec![3, 7, labels] } else { vec![3, labels] };
            assert_eq!(found.head("logits").expect("a classifier").sizes, expected);
        }
    }
    let value = with(small_bert(), "architectures", json!(["BertForPreTraining"]));
    for tied in [true, false] {
        let model = encoder(&config(with(value.clone(), "tie_word_embeddings", json!(tied))), all_heads());
        let found = model.encode(&TextBatch::padded(&texts(), 0)).expect("a run");
        assert_eq!(found.head("prediction_logits").expect("a head").sizes, [3, 7, 50]);
        assert_eq!(found.head("seq_relationship_logits").expect("a head").sizes, [3, 2]);
        assert_eq!(model.parameter_count(), found_parameters(tied), "tied: {tied}");
    }
}

/// How many values a small BERT with all heads has.
fn found_parameters(tied: bool) -> usize {
    let (h, f, v) = (21, 35, 50);
    let layer = 4 * (h * h + h) + 2 * h + (f * h + f) + (h * f + h) + 2 * h;
    let embeddings = (v + 16 + 3) * h + 2 * h;
    let predictions = h * h + h + 2 * h + v + if tied { 0 } else { v * h };
    embeddings + 3 * layer + (h * h + h) + predictions + 2 * (2 * h + 2)
}

#[test]
fn checkpoints_of_other_times() {
    // Without the prefix, with gamma and beta, and with numbers that nobody needs.
    let config = config(small_bert());
    let folder = Folder::new();
    let (new, old) = (folder.0.join("new.safetensors"), folder.0.join("old.safetensors"));
    let heads = bert::Heads { pooler: true, ..bert::Heads::default() };
    let sizes = bert::sizes::<bert::AnyBert>(&config).expect("sizes");
    let module = bert::bert::<bert::AnyBert>(&config, heads).expect("a module");
    Model::init_with(module, 3, sizes).and_then(|m| m.save(&new)).expect("a saved model");
    let bytes = std::fs::read(&new).expect("the file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let renamed = |name: String| {
        let name = name.strip_prefix("bert.").unwrap_or(&name).to_string();
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let mut header: serde_json::Map<String, Value> = header.into_iter().map(|(k, v)| (renamed(k), v)).collect();
    let end = bytes.len() - 8 - length;
    header.insert(
        "embeddings.position_ids".into(),
        json!({"dtype": "I64", "shape": [1, 2], "data_offsets": [end, end + 16]}),
    );
    let text = serde_json::to_vec(&header).expect("a header");
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&text);
    out.extend_from_slice(&bytes[8 + length..]);
    out.extend_from_slice(&[0; 16]);
    std::fs::write(&old, out).expect("a file");
    let [a, b] = [&new, &old].map(|path| {
        let tensors = Checkpoint::open(path).expect("a checkpoint");
        let AnyModel::Encoder(model) = open::open(&config, &tensors).unwrap_or_else(|e| panic!("{e}")) else {
            panic!("not an encoder")
        };
        model.embed(&texts(), Pooling::Mean, true).expect("a run")
    });
    assert_eq!(a, b);
}

#[test]
fn a_distilbert_is_a_bert_by_other_names() {
    use mobilis_zoo::llm::distilbert;
    let value = json!({
        "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 50,
        "dim": 21, "n_heads": 3, "n_layers": 2, "hidden_dim": 35, "max_position_embeddings": 16, "activation": "gelu",
    });
    let config = config(value);
    let bert = distilbert::settings(&config).expect("settings");
    let heads = bert::Heads { classifier: true, ..bert::Heads::default() };
    let module = || distilbert::distilbert::<bert::AnyBert>(&bert, heads).expect("a module");
    let sizes = bert::sizes::<bert::AnyBert>(&bert).expect("sizes");
    let folder = Folder::new();
    let path = folder.0.join("model.safetensors");
    let model = Model::init_with(module(), 3, sizes).expect("a model");
    model.save(&path).expect("a saved model");
    renamed(&path, |name| distilbert::name(&name));
    let tensors = Checkpoint::open(&path).expect("a checkpoint");
    let Ok(AnyModel::Encoder(found)) = open::open(&config, &tensors) else { panic!("not an encoder") };
    let known = mobilis_zoo::llm::encoder::Encoder::new(bert.clone(), model);
    let of = |model: &dyn EncoderModel| model.encode(&TextBatch::padded(&texts(), 0)).expect("a run");
    let (a, b) = (of(&*found), of(&known));
    assert_eq!(a.head("logits").expect("a classifier"), b.head("logits").expect("a classifier"));
    assert!(a.head("pooled").expect("a pooler").data.iter().all(|v| *v >= 0.0), "relu");
}

/// Gives the tensors of a file other names.
fn renamed(path: &std::path::Path, name: impl Fn(String) -> String) {
    let bytes = std::fs::read(path).expect("the file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let header: serde_json::Map<String, Value> = header.into_iter().map(|(k, v)| (name(k), v)).collect();
    let text = serde_json::to_vec(&header).expect("a header");
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&text);
    out.extend_from_slice(&bytes[8 + length..]);
    std::fs::write(path, out).expect("a file");
}

axes! {
    struct Small: bert::BertAxes {
        Vocab = 50, Positions = 16, Types = 3, Hidden = 21, Heads = 3, HeadDim = 7, Ffn = 35, Labels = 2
    }
}

#[test]
fn sizes_known_to_the_compiler() {
    use mobilis_zoo::llm::encoder::Encoder;
    let config = config(small_bert());
    let heads = bert::Heads::default();
    let module = bert::bert::<Small>(&config, heads).expect("a module");
    let known = Encoder::new(config.clone(), Model::init(module, 3).expect("a model"));
    let found = encoder(&config, heads);
    let of = |model: &dyn EncoderModel| model.embed(&texts(), Pooling::Cls, false).expect("a run");
    assert_eq!(of(&known), of(&*found));
}

#[test]
fn configurations_that_make_no_sense() {
    let fault = |key: &str, value: Value| {
        let config = config(with(small_bert(), key, value));
        match bert::bert::<bert::AnyBert>(&config, all_heads()).and(bert::sizes::<bert::AnyBert>(&config)) {
            Ok(_) => panic!("{key} was accepted"),
            Err(e) => e.to_string(),
        }
    };
    assert!(fault("position_embedding_type", json!("relative_key")).contains("expected absolute"));
    assert!(fault("is_decoder", json!(true)).contains("this is an encoder"));
    assert!(fault("num_attention_heads", json!(4)).contains("hidden_size"));
    assert!(fault("hidden_act", json!("sigmoidal")).contains("hidden_act"));
    assert!(fault("num_hidden_layers", json!(1e9 as u64)).contains("10000"));
    assert!(fault("id2label", json!([])).contains("id2label"));
    let model = encoder(&config(small_bert()), bert::Heads::default());
    let run = |ids: &[u32]| model.encode(&TextBatch::padded(&[ids], 0)).map(|_| ()).expect_err("a fault").to_string();
    assert!(run(&[50]).contains("50"), "{}", run(&[50]));
    assert!(run(&[1; 17]).contains("17"), "{}", run(&[1; 17]));
    assert!(TextBatch::new(2, vec![1, 2, 3]).is_err());
}

fn small_t5(gated: bool, tied: bool) -> Value {
    json!({
        "model_type": "t5", "vocab_size": 40, "d_model": 20, "d_kv": 7, "num_heads": 3, "d_ff": 33,
        "num_layers": 1, "num_decoder_layers": 3, "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 9, "feed_forward_proj": if gated { "gated-silu" } else { "relu" },
        "tie_word_embeddings": tied, "decoder_start_token_id": 0, "pad_token_id": 0,
    })
}

fn small_bart(scaled: bool, tied: bool) -> Value {
    json!({
        "model_type": "bart", "vocab_size": 40, "d_model": 24, "encoder_layers": 3, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 3, "encoder_ffn_dim": 17,
        "decoder_ffn_dim": 31, "max_position_embeddings": 24, "activation_function": "relu",
        "scale_embedding": scaled, "tie_word_embeddings": tied,
    })
}

fn seq2seq(value: Value) -> Box<dyn Seq2SeqModel> {
    let config = config(value);
    let tied = config.flag("tie_word_embeddings", true).expect("a flag");
    let found = match config.model_type() {
        Ok("t5") => {
            let sizes = t5::sizes::<t5::AnyT5>(&config).expect("sizes");
            opened(&config, t5::t5::<t5::AnyT5>(&config, !tied).expect("a module"), sizes)
        }
        _ => {
            let sizes = bart::sizes::<bart::AnyBart>(&config).expect("sizes");
            opened(&config, bart::bart::<bart::AnyBart>(&config, true).expect("a module"), sizes)
        }
    };
    match found {
        AnyModel::Seq2Seq(model) => model,
        _ => panic!("not an encoder-decoder"),
    }
}

fn all_seq2seq() -> Vec<(String, Box<dyn Seq2SeqModel>)> {
    let kinds: [(&str, fn(bool, bool) -> Value); 2] = [("t5", small_t5), ("bart", small_bart)];
    let pairs = [(false, false), (false, true), (true, false), (true, true)];
    let each = |(kind, make): (&str, fn(bool, bool) -> Value)| {
        pairs.map(|(a, b)| (format!("{kind} {a} {b}"), seq2seq(make(a, b)))).into_iter()
    };
    kinds.into_iter().flat_map(each).collect()
}

#[test]
fn sessions_say_what_whole_texts_say() {
    let targets: [&[u32]; 3] = [&[0, 9, 8, 7, 30, 31, 2, 3, 4, 5, 6, 39], &[0, 3, 3], &[0, 17, 5, 5, 21]];
    for (what, model) in all_seq2seq() {
        let whole: Vec<Values> = texts()
            .iter()
            .zip(targets)
            .map(|(source, target)| {
                let batch = |ids: &[u32]| TextBatch::new(1, ids.to_vec()).expect("a batch");
                model.score(&batch(&source.map(|id| id % 40)), &batch(target)).expect("scores").logits
            })
            .collect();
        let sources = texts().map(|text| text.map(|id| id % 40));
        let sources: Vec<&[u32]> = sources.iter().map(Vec::as_slice).collect();
        let sources = TextBatch::padded(&sources, 0);
        // Together, each at its own pace: in pieces of at most 3 tokens, and one by one.
        for chunk in [3, 512] {
            let options = SessionOptions { chunk, ..SessionOptions::new(3, 20) };
            let mut session = model.session(&sources, options).expect("a session");
            for (first, count) in [(0, 5), (5, 1), (6, 1), (7, 5)] {
                let rows: Vec<&[u32]> =
                    targets.iter().map(|t| &t[first.min(t.len())..(first + count).min(t.len())]).collect();
                let found = session.feed(&rows, Want::All).expect("logits");
                for (row, tokens) in rows.iter().enumerate() {
                    let logits: Vec<f32> = found.positions(row).flatten().copied().collect();
                    let expected = &whole[row].data[first.min(targets[row].len()) * 40..][..tokens.len() * 40];
                    close(&format!("{what}, pieces of {chunk}, text {row} from {first}"), &logits, expected);
                }
            }
        }
        // Several hypotheses of one source, in another order than at first.
        let mut session = model.session(&sources, SessionOptions::new(6, 20)).expect("a session");
        let rows: Vec<&[u32]> = [0, 0, 1, 1, 2, 2].map(|i| &targets[i][..3]).to_vec();
        session.feed(&rows, Want::Last).expect("logits");
        session.select(&[4, 0, 2]).expect("another order");
        let rows = [&targets[2][3..4], &targets[0][3..4], &[]];
        let found = session.feed(&rows, Want::Last).expect("logits");
        close(&what, found.last(0).expect("logits"), &whole[2].data[3 * 40..][..40]);
        close(&what, found.last(1).expect("logits"), &whole[0].data[3 * 40..][..40]);
        assert!(model.session(&sources, SessionOptions::new(4, 20)).is_err(), "4 is no multiple of 3");
    }
}

/// Ids of a smaller vocabulary.
trait Smaller {
    fn map(&self, f: impl Fn(u32) -> u32) -> Vec<u32>;
}
impl Smaller for [u32] {
    fn map(&self, f: impl Fn(u32) -> u32) -> Vec<u32> {
        self.iter().map(|id| f(*id)).collect()
    }
}

#[test]
fn what_a_t5_cannot_be() {
    let fault = |key: &str, value: Value| {
        let config = config(with(small_t5(true, true), key, value));
        match t5::t5::<t5::AnyT5>(&config, false).and(t5::sizes::<t5::AnyT5>(&config)) {
            Ok(_) => panic!("{key} was accepted"),
            Err(e) => e.to_string(),
        }
    };
    assert!(fault("relative_attention_num_buckets", json!(7)).contains("even"));
    assert!(fault("relative_attention_max_distance", json!(4)).contains("half"));
    assert!(fault("feed_forward_proj", json!("gated-sum")).contains("gated-"));
    assert!(fault("num_layers", json!(0)).contains("at least 1"));
}
