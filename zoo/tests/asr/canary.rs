//! Canary: logits and greedy texts are those of `canary.py`, which lies beside its data; beams find texts
//! that are at least as likely. `canary2.nemo` is NeMo's own: its prompts, texts, words and times are what NeMo says
//! (`canary2.py`, and `prompts.py` for the older format of prompts).

use mobilis_runtime::checkpoint::{Checkpoint, CheckpointError, Raw, Source, TensorInfo};
use mobilis_runtime::graph::DType;
use mobilis_zoo::asr::canary::{Canary, CanaryOptions, CanaryRecognizer, Prompt, Vocabulary, Writing};
use mobilis_zoo::asr::conformer::network::Features;
use mobilis_zoo::asr::{AsrError, Recognizer};
use mobilis_zoo::import::nemo;
use mobilis_zoo::llm::config::Config;
use mobilis_zoo::llm::family::Values;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/canary").join(name)
}

/// The weights of a fixture, without what was fed and what came out.
#[derive(Debug)]
struct Weights<'a>(&'a Checkpoint);

impl Source for Weights<'_> {
    fn path(&self) -> &Path {
        Source::path(self.0)
    }
    fn names(&self) -> Vec<&str> {
        let other = |n: &str| ["in.", "out.", "gen."].iter().any(|p| n.starts_with(p));
        self.0.names().into_iter().filter(|n| !other(n)).collect()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        Source::info(self.0, name)
    }
    fn has_values(&self) -> bool {
        true
    }
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.0.raw(name)
    }
}

struct Fixture {
    canary: Canary,
    file: Checkpoint,
}

impl Fixture {
    fn new() -> Fixture {
        let file = Checkpoint::open(data("canary.safetensors")).expect("the fixture");
        let text = std::fs::read_to_string(data("canary.json")).expect("the fixture");
        let config = Config::parse("canary.json", &text).expect("an object");
        let canary = Canary::load(&config, &Weights(&file)).expect("the fixture is a model");
        Fixture { canary, file }
    }

    fn reals(&self, name: &str) -> Values {
        let sizes = self.file.info(name).expect("the fixture has it").sizes.clone();
        let data = self.file.read(name, DType::F32).expect("reals").to_f64();
        Values { sizes, data: data.iter().map(|v| *v as f32).collect() }
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.file.read(name, DType::I32).expect("whole numbers").to_f64().iter().map(|v| *v as u32).collect()
    }

    fn features(&self) -> Features {
        let lengths = self.ids("in.lengths").iter().map(|n| *n as usize).collect();
        Features { values: self.reals("in.features"), lengths }
    }
}

#[test]
fn logits_and_greedy_texts_are_the_references() {
    let fixture = Fixture::new();
    let heard = fixture.canary.hear(&fixture.features()).expect("features fit");
    let found = fixture.canary.score(&heard, &fixture.ids("in.ids")).expect("tokens fit");
    let expected = fixture.reals("out.logits");
    assert_eq!(found.sizes, expected.sizes);
    let largest = expected.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found.data.iter().zip(&expected.data).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= 1e-5 * largest, "{worst} of {largest}");
    let prompt = fixture.ids("in.prompt");
    for row in 0..2 {
        let expected = fixture.ids(&format!("gen.{row}"));
        // No token of the vocabulary ends the reference's texts.
        let frames = heard.lengths[row];
        let how = Writing { more: (expected.len() + prompt.len()).saturating_sub(frames), ..Writing::greedy(1 << 20) };
        let found = fixture.canary.write(&heard, row, &prompt, &how).expect("writes");
        let n = expected.len().min(found.len());
        assert!(n >= 12 && found[..n] == expected[..n], "recording {row}: {found:?}, expected {expected:?}");
        // What ends a text is not part of it.
        let end = expected[2];
        let first = expected.iter().position(|id| *id == end).expect("it is there");
        let found = fixture.canary.write(&heard, row, &prompt, &Writing::greedy(end)).expect("writes");
        assert_eq!(found, expected[..first], "recording {row}");
    }
}

#[test]
fn beams_find_texts_that_are_as_likely() {
    let fixture = Fixture::new();
    let heard = fixture.canary.hear(&fixture.features()).expect("features fit");
    let prompt = fixture.ids("in.prompt");
    let likelihood = |text: &[u32]| {
        let rows: Vec<u32> = prompt.iter().chain(text).copied().collect();
        let both: Vec<u32> = rows.iter().chain(&rows).copied().collect();
        let logits = fixture.canary.score(&heard, &both).expect("tokens fit");
        let width = logits.sizes[2];
        let at = |i: usize| &logits.data[(prompt.len() + i - 1) * width..(prompt.len() + i) * width];
        let of = |(i, id): (usize, &u32)| {
            let row = at(i);
            let most = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            f64::from(row[*id as usize] - most) - row.iter().map(|v| f64::from(v - most).exp()).sum::<f64>().ln()
        };
        text.iter().enumerate().map(of).sum::<f64>()
    };
    let greedy = fixture.canary.write(&heard, 0, &prompt, &Writing { more: 0, ..Writing::greedy(1 << 20) });
    let greedy = greedy.expect("writes");
    let how = Writing { beams: 4, more: 0, ..Writing::greedy(1 << 20) };
    let beams = fixture.canary.write(&heard, 0, &prompt, &how).expect("writes");
    assert_eq!(greedy.len(), beams.len());
    assert!(likelihood(&beams) >= likelihood(&greedy) - 1e-4);
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let fixture = Fixture::new();
    let heard = fixture.canary.hear(&fixture.features()).expect("features fit");
    let how = Writing::greedy(3);
    for prompt in [vec![], vec![4; 40], vec![4, 99]] {
        assert!(fixture.canary.write(&heard, 0, &prompt, &how).is_err(), "{prompt:?}");
    }
}

/// The sound of `canary2.py`.
fn sound() -> Vec<f32> {
    let at = |t: f64| 0.3 * (t * t / 9e4).sin() * (t / 1500.0).sin();
    (0..24_000).map(|t| at(f64::from(t)) as f32).collect()
}

fn of_nemo() -> (CanaryRecognizer, Value) {
    let archive = nemo::open(&data("canary2.nemo")).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(data("canary2.json")).expect("the fixture");
    let recognizer = CanaryRecognizer::open(&archive).unwrap_or_else(|e| panic!("{e}"));
    (recognizer, serde_json::from_str(&text).expect("the fixture"))
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("a number") as u32).collect()
}

#[test]
fn aggregate_tokenizers_count_as_nemo_does() {
    let (recognizer, expected) = of_nemo();
    let vocabulary: &Vocabulary = recognizer.vocabulary();
    assert_eq!(vocabulary.len() as u64, expected["size"].as_u64().expect("a number"));
    assert_eq!(vocabulary.languages(), ["de", "en"]);
    for case in expected["tokens"].as_array().expect("a list") {
        let (text, language) = (case[0].as_str().expect("a text"), case[1].as_str().expect("a text"));
        assert_eq!(vocabulary.encode(text, language).expect("encoded"), numbers(&case[2]), "{text} {language}");
    }
    assert!(vocabulary.encode("x", "fr").is_err());
}

#[test]
fn prompts_texts_words_and_times_are_those_of_nemo() {
    let (mut recognizer, expected) = of_nemo();
    let first = recognizer.options().clone();
    for case in expected["cases"].as_array().expect("a list") {
        let (asked, mut options) = (&case["prompt"], first.clone());
        let language = |key: &str, default: &str| asked[key].as_str().unwrap_or(default).to_string();
        options.prompt = Prompt {
            source: language("source_lang", "en"),
            target: language("target_lang", "de"),
            punctuation: asked["pnc"] != "no",
            timestamps: asked["timestamp"] == "yes",
            ..Prompt::default()
        };
        options.context = asked["decodercontext"].as_str().map(str::to_string);
        recognizer = recognizer.with(options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(recognizer.asked(), numbers(&case["asked"]), "{asked}");
        let found = recognizer.transcribe(&[&sound()]).expect("transcribes").remove(0);
        let texts: Vec<&str> = found.segments.iter().map(|s| s.text.as_str()).collect();
        let words = case["words"].as_array().cloned().unwrap_or_default();
        if words.is_empty() {
            assert_eq!(found.text, case["text"].as_str().expect("a text").trim(), "{asked}");
            assert_eq!(found.segments[0].tokens, numbers(&case["ids"]), "{asked}");
            continue;
        }
        assert_eq!(serde_json::json!(texts), case["segments"], "{asked}");
        assert_eq!(found.text, case["spoken"].as_str().expect("a text"));
        let said = found.segments.iter().flat_map(|s| &s.words).collect::<Vec<_>>();
        assert_eq!(said.len(), words.len());
        for (word, expected) in said.iter().zip(&words) {
            // A recording ends before some of what a model with random weights says, and words do not end before they begin.
            let at = |i: usize| expected[i].as_f64().expect("a number").min(1.5);
            assert_eq!(word.text, expected[0].as_str().expect("a text"));
            assert!((word.start.as_secs_f64() - at(1)).abs() < 1e-6, "{word:?} {expected}");
            assert!((word.end.as_secs_f64() - at(2).max(at(1))).abs() < 1e-6, "{word:?} {expected}");
        }
    }
}

#[test]
fn languages_that_are_unknown_are_told() {
    let (recognizer, _) = of_nemo();
    let mut options = recognizer.options().clone();
    options.prompt.target = "dx".into();
    let error = recognizer.with(options).err().expect("refused");
    assert!(matches!(&error, AsrError::Language { known, .. } if known == "de, en"), "{error}");
}

/// The same archive, asked in the older format.
#[test]
fn prompts_and_texts_of_the_older_format_are_those_of_nemo() {
    let mut archive = nemo::open(&data("canary2.nemo")).unwrap_or_else(|e| panic!("{e}"));
    archive.config["prompt_format"] = "canary".into();
    archive.config["prompt_defaults"] = Value::Null;
    let mut recognizer = CanaryRecognizer::open(&archive).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(data("prompts.json")).expect("the fixture");
    let cases: Value = serde_json::from_str(&text).expect("the fixture");
    for case in cases.as_array().expect("a list") {
        let asked = &case["prompt"];
        let language = |key: &str| asked[key].as_str().unwrap_or("en").to_string();
        let (source, target) = (language("source_lang"), language("target_lang"));
        // NeMo is told what it is to do, too.
        assert_eq!(asked["taskname"].is_string(), source != target);
        let prompt = Prompt { source, target, punctuation: asked["pnc"] != "no", ..Prompt::default() };
        let options = CanaryOptions { prompt, ..recognizer.options().clone() };
        recognizer = recognizer.with(options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(recognizer.asked(), numbers(&case["asked"]), "{asked}");
        let found = recognizer.transcribe(&[&sound()]).expect("transcribes").remove(0);
        assert_eq!(found.segments[0].tokens, numbers(&case["ids"]), "{asked}");
        assert_eq!(found.text, case["text"].as_str().expect("a text").trim(), "{asked}");
    }
}
