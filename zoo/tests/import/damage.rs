//! Random damage to good files: an error or a result, never a panic, and soon.
//!
//! Some thousand damaged files a run; `MOBILIS_FUZZ_SECONDS=300` makes it minutes for each parser. `fuzz/` has the same
//! functions for `cargo fuzz`, which also learns which damage leads to new code.

use super::Scratch;
use mobilis_runtime::checkpoint::{Encoding, TensorInfo, header};
use mobilis_runtime::{Source, checkpoint};
use mobilis_zoo::asr::data::kaldi::{self, Archive};
use mobilis_zoo::asr::data::{manifest, shards};
use mobilis_zoo::asr::decode::ngram::{Limits, Ngrams};
use mobilis_zoo::asr::train::Prepared;
use mobilis_zoo::export;
use mobilis_zoo::import::gguf::meta::Meta;
use mobilis_zoo::import::gguf::names::Renamed;
use mobilis_zoo::import::gguf::{self, Gguf};
use mobilis_zoo::import::{json, nemo, torch};
use mobilis_zoo::llm::config::Config;
use mobilis_zoo::recipe::document;
use mobilis_zoo::text::Tokenizer;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

/// xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Numbers that often go wrong.
const EDGES: [u64; 10] =
    [0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, u64::MAX >> 1, (u64::MAX >> 1) + 1, u64::MAX];

/// One to eight changes: bytes, bits, numbers, cuts, copies of other places.
fn damaged(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let (from, len) = (random.below(bytes.len()), random.below(32));
                let part = bytes[from..(from + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let part: Vec<u8> = (0..random.below(16)).map(|_| random.below(256) as u8).collect();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Runs a parser over damaged copies of good files.
fn damage(seeds: &[Vec<u8>], rounds: usize, parse: impl Fn(&[u8])) {
    let limit = std::env::var("MOBILIS_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let (start, mut random, mut round) = (Instant::now(), Random(0x9E37_79B9_7F4A_7C15), 0);
    seeds.iter().for_each(|seed| parse(seed));
    while limit.map_or(round < rounds, |limit| start.elapsed() < limit) {
        let bytes = damaged(&seeds[round % seeds.len()], &mut random);
        let begun = Instant::now();
        parse(&bytes);
        assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes took {:?}", bytes.len(), begun.elapsed());
        round += 1;
    }
    println!("{round} damaged files");
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/fixtures").join(name)).expect("read")
}

#[test]
fn safetensors() {
    let entry = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{"format":"pt"}}"#;
    let seed = [&(entry.len() as u64).to_le_bytes()[..], entry.as_bytes(), &[0; 24]].concat();
    damage(&[seed], 20_000, |bytes| drop(header::read(&mut &bytes[..], bytes.len() as u64)));
}

/// Tensors of zeros.
#[derive(Debug)]
struct Zeros(Vec<(&'static str, Vec<usize>)>);

impl Source for Zeros {
    fn path(&self) -> &Path {
        Path::new("zeros")
    }
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|t| t.0).collect()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let found = self.0.iter().find(|t| t.0 == name)?;
        Some(TensorInfo { encoding: Encoding::F32, sizes: found.1.clone() })
    }
    fn raw(&self, name: &str) -> Result<checkpoint::Raw, checkpoint::CheckpointError> {
        Ok(checkpoint::Raw::Bytes(vec![0; self.find(name)?.bytes() as usize]))
    }
}

/// Small files with everything that an importer looks at.
fn ggufs() -> Vec<Vec<u8>> {
    let text = |v: &str| Meta::Text(v.into());
    let file = |architecture: &str, settings: &[(&str, Meta)], tensors: Vec<(&'static str, Vec<usize>)>| {
        let mut metadata = vec![("general.architecture".to_string(), text(architecture))];
        metadata.extend(settings.iter().map(|(k, v)| (format!("{architecture}.{k}"), v.clone())));
        let list = |v: &[&str]| Meta::Texts(v.iter().map(|s| s.to_string()).collect());
        metadata.extend([
            ("tokenizer.ggml.model".to_string(), text("gpt2")),
            ("tokenizer.ggml.pre".to_string(), text("gpt-2")),
            ("tokenizer.ggml.tokens".to_string(), list(&["a", "b", "ab", "<s>"])),
            ("tokenizer.ggml.token_type".to_string(), Meta::Ints(vec![1, 1, 1, 3])),
            ("tokenizer.ggml.merges".to_string(), list(&["a b"])),
            ("tokenizer.ggml.bos_token_id".to_string(), Meta::Count(3)),
        ]);
        let mut out = Vec::new();
        export::gguf::write(&mut out, &metadata, &Zeros(tensors), |_, e, _| e).expect("written");
        out
    };
    let count = Meta::Count;
    let common = |more: &[(&'static str, Meta)]| {
        let mut all = vec![
            ("block_count", count(1)),
            ("context_length", count(16)),
            ("embedding_length", count(8)),
            ("feed_forward_length", count(8)),
            ("attention.head_count", count(2)),
            ("attention.head_count_kv", count(1)),
            ("attention.layer_norm_rms_epsilon", Meta::Float(1e-5)),
            ("rope.freq_base", Meta::Float(1e4)),
        ];
        all.extend(more.iter().cloned());
        all
    };
    let moe = [("expert_count", count(2)), ("expert_used_count", count(1)), ("expert_feed_forward_length", count(4))];
    let mla = [
        ("attention.q_lora_rank", count(4)),
        ("attention.kv_lora_rank", count(4)),
        ("attention.key_length_mla", count(6)),
        ("attention.value_length_mla", count(4)),
        ("rope.dimension_count", count(2)),
        ("expert_count", count(2)),
        ("expert_used_count", count(1)),
        ("expert_feed_forward_length", count(4)),
    ];
    vec![
        file(
            "llama",
            &common(&[]),
            vec![
                ("token_embd.weight", vec![4, 8]),
                ("blk.0.attn_q.weight", vec![8, 8]),
                ("blk.0.attn_k.weight", vec![4, 8]),
                ("rope_freqs.weight", vec![2]),
            ],
        ),
        file(
            "qwen3moe",
            &common(&moe),
            vec![("token_embd.weight", vec![4, 8]), ("blk.0.ffn_gate_exps.weight", vec![2, 4, 8])],
        ),
        file(
            "gemma3",
            &common(&[("attention.sliding_window", count(4))]),
            vec![("token_embd.weight", vec![4, 8]), ("blk.0.attn_norm.weight", vec![8])],
        ),
        file(
            "deepseek2",
            &common(&mla),
            vec![
                ("token_embd.weight", vec![4, 8]),
                ("blk.0.attn_k_b.weight", vec![2, 4, 4]),
                ("blk.0.attn_v_b.weight", vec![2, 4, 4]),
            ],
        ),
    ]
}

#[test]
fn gguf_headers() {
    damage(&ggufs(), 20_000, |bytes| {
        if let Ok(header) = gguf::header::read(&mut &bytes[..], bytes.len() as u64)
            && let Ok(vocabulary) = header.metadata.vocabulary()
        {
            let _ = Tokenizer::from_gguf(vocabulary);
        }
    });
}

/// The whole way: names, configuration, every tensor's values.
#[test]
fn gguf_models() {
    let scratch = Scratch::new("damage");
    let path = scratch.path("m.gguf");
    damage(&ggufs(), 1_500, |bytes| {
        std::fs::write(&path, bytes).expect("written");
        let Ok(renamed) = Gguf::open(&path).map_err(drop).and_then(|g| Renamed::new(g).map_err(drop)) else { return };
        let _ = renamed.config();
        for name in renamed.names() {
            let info = renamed.find(name).expect("listed");
            let bytes = renamed.raw(name).and_then(checkpoint::Raw::into_bytes).expect("checked when it was opened");
            assert_eq!(bytes.len() as u64, info.bytes(), "{name}");
        }
    });
}

#[test]
fn pickles() {
    let legacy = fixture("legacy_form.pt");
    let pickle = legacy[15 + 6..].to_vec();
    damage(&[pickle, b"(dS'a'\n(lI1\naI2\nas.".to_vec(), legacy[15..].to_vec()], 20_000, |bytes| {
        let _ = torch::pickle::read(bytes);
    });
}

#[test]
fn torch_files() {
    damage(&[fixture("zip_form.pt"), fixture("legacy_form.pt")], 20_000, |bytes| {
        let _ = torch::check(Cursor::new(bytes), bytes.len() as u64);
    });
}

#[test]
fn nemo_archives() {
    let config = "target: nemo.x\nlr: 1e-3\nlabels: [' ', a]\nbase: &b {x: 1}\nmore: {<<: *b}\n";
    let weights = fixture("zip_form.pt");
    let plain = tar_of(&[
        ("./model_config.yaml", config.as_bytes()),
        ("./model_weights.ckpt", &weights),
        ("./0123456789abcdef0123456789abcdef_tokenizer.model", b"text"),
    ]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &plain).expect("written");
    let gz = gz.finish().expect("finished");
    damage(&[plain, gz], 4_000, |bytes| drop(nemo::check(bytes.to_vec())));
    damage(&[config.as_bytes().to_vec()], 10_000, |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(nemo::yaml::parse(text));
        }
    });
}

/// A tar archive of these members.
fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("written");
    }
    tar.into_inner().expect("written")
}

#[test]
fn corpora() {
    let scratch = Scratch::new("damage-corpora");
    let file = |name: &str, bytes: &[u8]| {
        let path = scratch.path(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let lines =
        br#"{"audio_filepath": "a.wav", "duration": 1.5, "offset": 0.5, "channel": 1, "text": "hello", "lang": "en"}
{"audio_filename": "b.wav", "duration": 2, "command": "yes", "shard_id": 0, "speaker": 3}
"#;
    damage(&[lines.to_vec()], 600, |bytes| drop(manifest::read(&file("m.json", bytes))));
    let long = format!("{}/7.wav", "d".repeat(120));
    let shard = tar_of(&[("7.wav", b"RIFF"), ("7.txt", b"hello"), ("7.json", br#"{"duration": 1}"#), (&long, b"x")]);
    damage(&[shard], 600, |bytes| {
        let path = file("s.tar", bytes);
        let inside = |m: &shards::Member| m.start + m.length <= bytes.len() as u64;
        assert!(shards::members(&path).into_iter().flatten().all(|m| inside(&m)));
        let _ = shards::web(path.parent().expect("a folder"), &["s.tar"]);
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kaldi");
    let arks = ["cm2", "cm3", "cm5", "double", "float", "text"];
    let arks = arks.map(|n| std::fs::read(folder.join(format!("{n}.ark"))).expect("read")).to_vec();
    damage(&arks, 1_200, |bytes| {
        for entry in Archive::open(&file("a.ark", bytes)).into_iter().flatten() {
            let Ok((_, matrix)) = entry else { return };
            assert_eq!(matrix.data.len(), matrix.rows * matrix.cols);
        }
    });
    file("wav.scp", b"r1 a.wav\nr2 a.ark:10\n");
    damage(&[b"u1 r1 0.0 1.5\nu2 r1 1.5 -1 1\nu3 r2 0 2\n".to_vec()], 400, |bytes| {
        file("segments", bytes);
        let _ = kaldi::read(&scratch.path(""));
    });
    damage(&[b"a a.ark:3[0:1,0:2]\nb a.ark:0\n".to_vec()], 400, |bytes| {
        for (_, place) in kaldi::scp(&file("a.scp", bytes)).into_iter().flatten() {
            let _ = place.read();
        }
    });
}

#[test]
fn language_models_and_recipes() {
    let arpa = "\\data\\\nngram 1=4\nngram 2=2\nngram 3=1\n\n\\1-grams:\n-1.0 <s> -0.3\n-0.8 a -0.2\n-1.2 </s>\n-2 <unk>\n\n\\2-grams:\n\
                -0.5 <s> a -0.1\n-0.4 a </s>\n\n\\3-grams:\n-0.2 <s> a </s>\n\n\\end\\\n";
    let bound = || Limits { ngrams: 10_000, ..Limits::default() };
    assert!(Ngrams::read(arpa.as_bytes(), bound()).is_ok());
    damage(&[arpa.as_bytes().to_vec()], 10_000, |bytes| {
        if let Ok(model) = Ngrams::read(bytes, bound()) {
            let (_, then) = model.next(model.start(), model.word("a"));
            let _ = model.end(then);
        }
    });
    let recipe =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/13-sentences.toml")).expect("read");
    damage(&[recipe], 400, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let filled = document::parse(text, "toml").map(|d| document::resolve(d, &["model.optim.lr=0.1".into()]));
        if let Ok(Ok(filled)) = filled {
            let _ = Prepared::read(filled).map(|p| p.yaml());
        }
    });
}

#[test]
fn configurations() {
    let seed = r#"{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "num_hidden_layers": 2,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}, "rope_theta": 1e4,
        "time_step_limit": [0.0, Infinity], "max_position_embeddings": 512, "sliding_window": null, "layer_types": ["full_attention"]}"#;
    damage(&[seed.as_bytes().to_vec()], 20_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(value) = json::parse(text) {
            let config = Config::new("config.json", value);
            let _ = (config.heads(), config.rotary(None), config.layers(), config.window(0, |_| true));
        }
    });
}
