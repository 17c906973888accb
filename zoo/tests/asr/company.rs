//! Recognizers hear several recordings at once, and say of each what they say of it alone; what NeMo and
//! Hugging Face's library said of the same recordings is what the archives of transducers say.
//!
//! The models are small and were never trained. Confidences are computed of the bits that the network gives, so that
//! transcripts are equal only where these are.

use super::support::golden;
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_runtime::program::WeightFormat;
use mobilis_zoo::asr::Transcript;
use mobilis_zoo::asr::decode::search::Search;
use mobilis_zoo::asr::decode::{Confidence, confidence::Measure};
use mobilis_zoo::asr::open::{AnyRecognizer, AsrOptions, open};
use std::path::Path;
use std::time::Duration;

/// The recordings of a golden folder.
fn recordings(place: &Path) -> Vec<Vec<f32>> {
    let file = Checkpoint::open(place.join("golden.safetensors")).expect("golden data");
    let reals = |name: &str| match file.read(name, DType::F32) {
        Ok(Data::F32(values)) => Some(values),
        _ => None,
    };
    if let (Some(first), Some(second)) = (reals("feat.audio0"), reals("feat.audio1")) {
        return vec![first, second];
    }
    let all = reals("in.audio").expect("recordings");
    let Ok(Data::I32(lengths)) = file.read("in.audio_length", DType::I32) else { panic!("no lengths") };
    let each = all.len() / lengths.len();
    all.chunks(each).zip(lengths).map(|(row, n)| row[..n as usize].to_vec()).collect()
}

fn opened(place: &Path, options: &AsrOptions) -> AnyRecognizer {
    open(&place.display().to_string(), options).unwrap_or_else(|e| panic!("{}: {e}", place.display()))
}

fn words(found: &Transcript) -> usize {
    found.segments.iter().map(|s| s.words.len()).sum()
}

#[test]
fn transcripts_do_not_depend_on_the_company() {
    let Some(root) = golden() else { return };
    let folders = [
        "nemo_quartznet",
        "nemo_conformer_ctc",
        "nemo_fastconformer_ctc",
        "nemo_fastconformer_rnnt",
        "nemo_fastconformer_tdt",
        "wav2vec2_ctc",
        "wav2vec2_ctc_large",
    ];
    let sure = Confidence { measure: Measure::Maximum, ..Confidence::default() };
    let search = Search { confidence: Some(sure), ..Search::default() };
    for place in folders.map(|f| root.join(f)).iter().filter(|p| p.is_dir()) {
        let sounds = recordings(place);
        // Some that share a batch, some too short to say anything, one that is heard in windows of a second.
        let mut all: Vec<Vec<f32>> = [15_900, 15_000, 14_321, 12_400, 700, 1]
            .map(|n: usize| sounds[0][..n.min(sounds[0].len())].to_vec())
            .into();
        all.push(sounds[1].clone());
        all.push(sounds.concat().repeat(2));
        let slices: Vec<&[f32]> = all.iter().map(|r| &r[..]).collect();
        for window in [None, Some(Duration::from_secs(1))] {
            let options = AsrOptions { search: search.clone(), window, ..AsrOptions::default() };
            let model = opened(place, &options);
            let together = model.recognizer().transcribe(&slices).expect("hears");
            assert!(words(&together[0]) > 0, "{}: nothing was heard", place.display());
            for (i, one) in slices.iter().enumerate() {
                let alone = model.recognizer().transcribe(&[one]).expect("hears").remove(0);
                assert_eq!(alone, together[i], "{}, recording {i}, windows of {window:?}", place.display());
            }
            // The last one is heard to its end.
            let end = together[7].segments.last().map_or(Duration::ZERO, |s| s.end);
            assert!(end + Duration::from_secs(3) > together[7].duration, "{}: {end:?}", place.display());
        }
        let options = AsrOptions { weights: WeightFormat::Int8.into(), ..AsrOptions::default() };
        opened(place, &options).recognizer().transcribe(&slices[..2]).expect("hears with fewer bits");
    }
}

#[test]
fn archives_say_what_nemo_said() {
    let Some(root) = golden() else { return };
    for name in ["nemo_conformer_ctc", "nemo_fastconformer_rnnt", "nemo_fastconformer_tdt"] {
        let place = root.join(name);
        let Ok(meta) = std::fs::read_to_string(place.join("meta.json")) else {
            println!("skipped: {} is absent", place.display());
            continue;
        };
        let meta: serde_json::Value = serde_json::from_str(&meta).expect("JSON");
        let texts: Vec<&str> =
            meta["greedy_text"].as_array().into_iter().flatten().filter_map(|t| t.as_str()).collect();
        assert_eq!(texts.len(), 2, "{name}");
        let sounds = recordings(&place);
        let slices: Vec<&[f32]> = sounds.iter().map(|r| &r[..]).collect();
        for file in [place.clone(), place.join(format!("{name}.nemo"))] {
            let heard = opened(&file, &AsrOptions::default()).recognizer().transcribe(&slices).expect("hears");
            let said: Vec<&str> = heard.iter().map(|t| t.text.as_str()).collect();
            assert_eq!(said, texts, "{}", file.display());
        }
    }
}
