//! Whisper tiny.en against the reference's tensors and tokens.
//!
//! `refs/whisper_tiny_en` (in `../shared/real`) holds one clip's spectrogram, encoder stream and first
//! logits, and the greedy tokens of five, all computed in double precision; the model and the clips lie
//! in `MOBILIS_REAL`. Where any of them is absent the tests say so and pass.

use crate::support::real;
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::Recognizer;
use mobilis_zoo::asr::whisper::{Manner, Task, TranscribeOptions, WhisperRecognizer};
use mobilis_zoo::audio;
use mobilis_zoo::import::Pretrained;
use mobilis_zoo::llm::encoder::TextBatch;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn refs(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../../shared/real/refs", "../../../shared/real/refs"].map(|p| root.join(p).join(name));
    let place = places.into_iter().find(|p| p.is_file());
    if place.is_none() {
        eprintln!("skipped: no {name} in shared/real/refs");
    }
    place
}

fn tiny(weights: WeightFormat) -> Option<WhisperRecognizer> {
    let folder = real("whisper-tiny.en")?;
    let pretrained = Pretrained::open(&folder.to_string_lossy()).unwrap();
    Some(WhisperRecognizer::open(&pretrained, Device::Cpu, Weights::new(weights)).unwrap())
}

fn clip(name: &str) -> Option<Vec<f32>> {
    let folder = real("speech/librivox")?;
    Some(audio::load(folder.join(format!("sense_and_sensibility_01_austen_64kb-{name}.wav")), 16_000).unwrap())
}

/// As the references were computed: the likeliest token of all, no times, one attempt.
fn plain() -> TranscribeOptions {
    let manner = Manner { temperatures: vec![0.0], no_speech: None, ..Manner::default() };
    TranscribeOptions { times: false, suppress: false, manner, ..TranscribeOptions::default() }
}

#[test]
fn tiny_en_writes_the_references_tokens() {
    let (Some(expected), Some(model)) = (refs("whisper_tiny_en.json"), tiny(WeightFormat::F32)) else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let model = model.with(plain()).unwrap();
    let names: Vec<&String> = expected.as_object().unwrap().keys().collect();
    let clips: Option<Vec<Vec<f32>>> = names.iter().map(|name| clip(name)).collect();
    let Some(clips) = clips else { return };
    let slices: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
    let together = model.transcribe(&slices).unwrap();
    for ((name, clip), found) in names.iter().zip(&clips).zip(&together) {
        let wanted = &expected[name.as_str()];
        let ids: Vec<u32> = wanted["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        assert_eq!(found.segments[0].tokens, ids, "{name}");
        assert_eq!(found.text, wanted["text"].as_str().unwrap().trim(), "{name}");
        let alone = model.transcribe(&[clip]).unwrap();
        assert_eq!(alone[0].segments[0].tokens, ids, "{name} alone");
    }
}

/// The largest difference from a tensor of the references.
fn distance(refs: &Checkpoint, name: &str, found: impl Iterator<Item = f32>) -> f64 {
    let expected = refs.read_wide(name, DType::F32).unwrap().to_f64();
    let found: Vec<f32> = found.collect();
    assert_eq!(found.len(), expected.len(), "{name}");
    found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

#[test]
fn tiny_en_computes_what_the_reference_did() {
    let (Some(path), Some(model), Some(clip)) =
        (refs("whisper_tiny_en.safetensors"), tiny(WeightFormat::F32), clip("0890"))
    else {
        return;
    };
    let refs = Checkpoint::open(path).unwrap();
    let network = model.network();
    let mel = network.spectrograms(&[&clip]).unwrap();
    let [_, frames, bands] = *mel.sizes() else { panic!("{:?}", mel.sizes()) };
    let turned = (0..bands).flat_map(|m| (0..frames).map(move |t| (t, m))).map(|(t, m)| mel.data()[t * bands + m]);
    let far = distance(&refs, "mel", turned);
    assert!(far < 1e-4, "mel: {far}");
    let prompt = vec![model.tokens().start, model.tokens().no_times];
    let found = network.score(&mel, &TextBatch::new(1, prompt).unwrap()).unwrap();
    let far = distance(&refs, "encoder", found.encoder.last().unwrap().data.iter().copied());
    assert!(far < 1e-3, "encoder: {far}");
    let last = found.logits.data.len() - network.vocab();
    let far = distance(&refs, "first_logits", found.logits.data[last..].iter().copied());
    assert!(far < 1e-3, "logits: {far}");
}

#[test]
fn times_words_and_long_recordings() {
    let Some(model) = tiny(WeightFormat::F32) else { return };
    let clips: Option<Vec<Vec<f32>>> = ["0870", "0880", "0890", "0920", "0930"].iter().map(|name| clip(name)).collect();
    let Some(clips) = clips else { return };
    let model = model.with(TranscribeOptions { words: true, ..TranscribeOptions::default() }).unwrap();
    // Three times all clips: a bit more than a minute.
    let long: Vec<f32> = std::iter::repeat_n(clips.concat(), 3).flatten().collect();
    let seconds = long.len() as f64 / 16_000.0;
    let found = &model.transcribe(&[&long]).unwrap()[0];
    assert_eq!(found.text.matches("hn Dashwood").count(), 3, "{}", found.text);
    assert!((found.duration.as_secs_f64() - seconds).abs() < 1e-3);
    let mut last = 0.0;
    for segment in &found.segments {
        let (start, end) = (segment.start.as_secs_f64(), segment.end.as_secs_f64());
        assert!(start >= last - 1e-6 && end > start && end <= seconds + 0.03, "{segment:?}");
        last = start;
        assert!(!segment.words.is_empty(), "{segment:?}");
        let said: String = segment.words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(said.replace(' ', ""), segment.text.replace(' ', ""));
        for word in &segment.words {
            assert!(word.start <= word.end && word.start.as_secs_f64() > start - 1.0, "{word:?} of {segment:?}");
        }
    }
}

#[test]
fn silence_and_nothing_are_no_words() {
    let Some(model) = tiny(WeightFormat::F32) else { return };
    let found = model.transcribe(&[&[], &[0.0; 100], &vec![0.0; 48_000]]).unwrap();
    assert!(found.iter().all(|t| t.text.is_empty()), "{found:?}");
    assert_eq!(found[2].duration.as_secs(), 3);
}

/// A small multilingual model with large-v3's 128 mels and 100 languages, and what transformers says of it:
/// `tests/data/whisper/multilingual.py`.
fn multilingual() -> (WhisperRecognizer, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/whisper");
    let pretrained = Pretrained::open(&folder.to_string_lossy()).unwrap();
    let model = WhisperRecognizer::open(&pretrained, Device::Cpu, Weights::new(WeightFormat::F32)).unwrap();
    let expected = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    (model, expected)
}

/// The sounds of `multilingual.py`.
fn sounds() -> [Vec<f32>; 3] {
    [(24_000, 9e4), (32_000, 4e4), (9_000, 2e5)].map(|(n, k)| {
        let at = |t: f64| 0.3 * (t * t / k).sin() * (t / 1500.0).sin();
        (0..n).map(|t| at(f64::from(t)) as f32).collect()
    })
}

#[test]
fn languages_are_heard_and_translated_as_the_reference_does() {
    let (model, expected) = multilingual();
    let known: Vec<&str> = model.tokens().languages.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(serde_json::json!(known), expected["languages"]);
    assert_eq!(known.len(), 100);
    let sounds = sounds();
    let slices: Vec<&[f32]> = sounds.iter().map(Vec::as_slice).collect();
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let model = model.with(plain()).unwrap();
    // Each by itself and all together: whoever shares a batch has a language of his own.
    let together = model.transcribe(&slices).unwrap();
    for ((found, slice), expected) in together.iter().zip(&slices).zip(expected["found"].as_array().unwrap()) {
        let network = model.network();
        let mel = network.spectrograms(&[slice]).unwrap();
        assert_eq!(mel.sizes(), [1, 200, 128]);
        let every = (0..128).step_by(16).flat_map(|m| (0..200).step_by(25).map(move |t| t * 128 + m));
        for (i, value) in every.zip(expected["features"].as_array().unwrap()) {
            assert!((f64::from(mel.data()[i]) - value.as_f64().unwrap()).abs() < 1e-4, "feature {i}");
        }
        assert_eq!(found.language.as_deref(), expected["language"].as_str());
        let expected = ids(&expected["transcribe"]);
        assert_eq!(found.segments[0].tokens[..expected.len()], expected);
        let alone = &model.transcribe(&[slice]).unwrap()[0];
        assert_eq!((&alone.text, &alone.language), (&found.text, &found.language));
        assert_eq!(alone.segments[0].tokens, found.segments[0].tokens);
    }
    let german = TranscribeOptions { language: Some("de".into()), task: Task::Translate, ..plain() };
    let model = model.with(german).unwrap();
    for (found, expected) in model.transcribe(&slices).unwrap().iter().zip(expected["found"].as_array().unwrap()) {
        let expected = ids(&expected["translate"]);
        assert_eq!(found.segments[0].tokens[..expected.len()], expected);
    }
}

#[test]
fn times_are_counted_behind_all_languages() {
    let (model, _) = multilingual();
    let tokens = model.tokens().clone();
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.id("<|0.00|>"), Some(tokens.first_time));
    assert_eq!(tokens.steps(tokenizer.id("<|1.50|>").unwrap()), 75);
    assert_eq!(tokens.language("yue").ok(), tokenizer.id("<|yue|>"));
    let error = tokens.language("ge").unwrap_err().to_string();
    assert!(error.contains("de") && error.contains("yue"), "{error}");
    // With times, segments have them, and tokens that are times.
    let manner = Manner { temperatures: vec![0.0], no_speech: None, ..Manner::default() };
    let model = model.with(TranscribeOptions { suppress: false, manner, ..TranscribeOptions::default() }).unwrap();
    for found in model.transcribe(&sounds().each_ref().map(Vec::as_slice)).unwrap() {
        for segment in &found.segments {
            assert!(tokens.is_time(segment.tokens[0]), "{segment:?}");
            assert!(segment.start < segment.end && segment.end.as_secs_f64() <= 2.0, "{segment:?}");
        }
    }
}
