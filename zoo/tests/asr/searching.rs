//! Recognizers of NeMo's with beams, language models, phrases and confidence.
//!
//! The models are small and were never trained: what they hear is nonsense, but the same every time, and what guides the
//! search shifts it.

use super::support::golden;
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_zoo::asr::decode::Confidence;
use mobilis_zoo::asr::decode::ngram::{Limits, Ngrams};
use mobilis_zoo::asr::decode::search::{Beam, Language, Method, Search};
use mobilis_zoo::asr::open::{AsrOptions, open};
use mobilis_zoo::asr::{Segment, Transcript};

fn beam(beam: Beam) -> Search {
    Search { method: Method::Beam(beam), confidence: None }
}

/// A model of single words, of which one is likely.
fn favouring(word: &str) -> Option<Language> {
    let text = format!("\\data\\\nngram 1=3\n\\1-grams:\n-9 <unk>\n-0.1 </s>\n-0.01 {word}\n\\end\\\n");
    let ngrams = Ngrams::read(text.as_bytes(), Limits::default()).expect("a language model");
    Some(Language { weight: 2.0, bonus: 1.0, ..Language::new(ngrams) })
}

fn tokens(found: &Transcript) -> Vec<u32> {
    found.segments.iter().flat_map(|s| s.tokens.iter().copied()).collect()
}

#[test]
fn what_guides_a_beam_changes_what_is_heard() {
    let Some(root) = golden() else { return };
    for folder in ["nemo_conformer_ctc", "nemo_fastconformer_rnnt", "nemo_fastconformer_tdt"] {
        let place = root.join(folder);
        if !place.is_dir() {
            println!("skipped: {} is absent", place.display());
            continue;
        }
        let file = Checkpoint::open(place.join("golden.safetensors")).expect("golden data");
        let Data::F32(sound) = file.read("in.audio", DType::F32).expect("recordings") else { panic!("no numbers") };
        let sound = &sound[..16_000];
        let hear = |search: Search| {
            let options = AsrOptions { search, ..AsrOptions::default() };
            let model = open(&place.display().to_string(), &options).unwrap_or_else(|e| panic!("{folder}: {e}"));
            let mut heard = model.recognizer().transcribe(&[sound]).unwrap_or_else(|e| panic!("{folder}: {e}"));
            heard.remove(0)
        };
        let sure = Some(Confidence::default());
        let greedy = hear(Search { confidence: sure, ..Search::default() });
        let confident = |s: &Segment| {
            let words = s.words.iter().filter_map(|w| w.confidence);
            words.chain(s.confidence).all(|c| (0.0..1.0).contains(&c)) && s.confidence.is_some()
        };
        assert!(!greedy.segments.is_empty() && greedy.segments.iter().all(confident), "{folder}: {greedy:?}");
        assert!(hear(Search::default()).segments.iter().all(|s| s.confidence.is_none()));

        let plain = hear(beam(Beam::default()));
        let found = hear(Search { confidence: sure, ..beam(Beam::default()) });
        assert!(found.segments.iter().all(confident), "{folder}: {found:?}");
        assert_eq!((tokens(&found), &found.text), (tokens(&plain), &plain.text), "{folder}");
        // The second best letters of the vocabulary, one of which is within the beam's reach.
        let words = ["the", "for", "a", "i", "s", "n", "t", "y", "e", "o"];
        let led = |search: &dyn Fn(&str) -> Search| words.iter().any(|w| hear(search(w)).text != plain.text);
        assert!(led(&|w| beam(Beam { language: favouring(w), ..Beam::default() })), "{folder}: {}", plain.text);
        assert!(
            led(&|w| beam(Beam { phrases: vec![w.to_string()], boost: 4.0, ..Beam::default() })),
            "{folder}: {}",
            plain.text
        );
    }
}

#[test]
fn families_that_search_otherwise_say_so() {
    let Some(root) = golden() else { return };
    let place = root.join("whisper");
    if !place.is_dir() {
        println!("skipped: {} is absent", place.display());
        return;
    }
    let options = AsrOptions { search: beam(Beam::default()), ..AsrOptions::default() };
    let error = open(&place.display().to_string(), &options).err().expect("Whisper knows no such search").to_string();
    assert!(error.contains("beam") && error.contains("Whisper"), "{error}");
}
