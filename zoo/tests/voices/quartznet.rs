//! Convolutional recognizers as a whole: from samples to words, alone and in company, whole and in windows.

use super::golden;
use mobilis_zoo::asr::Recognizer;
use mobilis_zoo::asr::conv::ConvRecognizer;
use mobilis_zoo::asr::open::{AsrOptions, open};
use mobilis_zoo::import::nemo as archives;
use std::time::Duration;

fn opened() -> Option<ConvRecognizer> {
    let folder = golden("nemo_quartznet")?;
    let archive = archives::open(&folder.join("nemo_quartznet.nemo")).expect("opened");
    Some(ConvRecognizer::open(archive).unwrap_or_else(|e| panic!("{e}")))
}

fn sound(samples: usize, pitch: f32) -> Vec<f32> {
    (0..samples).map(|i| (i as f32 * pitch).sin() * (0.2 + 0.1 * (i as f32 * 0.001).cos())).collect()
}

#[test]
fn transcripts_do_not_depend_on_company() {
    let Some(model) = opened() else { return };
    let (a, b) = (sound(16_000, 0.05), sound(40_123, 0.11));
    let both = model.transcribe(&[&a, &b]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(both[0], model.transcribe(&[&a]).expect("heard")[0]);
    assert_eq!(both[1], model.transcribe(&[&b]).expect("heard")[0]);
    assert_eq!(both[0].duration, Duration::from_secs(1));
    for transcript in &both {
        for segment in &transcript.segments {
            assert!(segment.start <= segment.end && segment.end <= transcript.duration, "{segment:?}");
        }
    }
}

#[test]
fn empty_and_odd_recordings() {
    let Some(model) = opened() else { return };
    for recording in [vec![], vec![0.0; 1], vec![0.0; 159], vec![0.0; 20_000]] {
        let found = model.transcribe(&[&recording]).unwrap_or_else(|e| panic!("{} samples: {e}", recording.len()));
        assert_eq!(found.len(), 1);
    }
    // What is no sound is no text either.
    let said = model.transcribe(&[&[f32::NAN; 5_000]]).expect_err("no numbers").to_string();
    assert!(said.contains("no number") && said.contains("frame 0"), "{said}");
}

/// Longer than a window: nothing is lost and nothing comes twice.
#[test]
fn long_recordings() {
    let Some(model) = opened() else { return };
    let long = sound(16_000 * 150, 0.05);
    let found = model.transcribe(&[&long]).expect("heard").remove(0);
    assert_eq!(found.duration, Duration::from_secs(150));
    let words = found.segments.iter().flat_map(|s| &s.words);
    let times: Vec<_> = words.map(|w| (w.start, w.end)).collect();
    assert!(times.windows(2).all(|w| w[0].1 <= w[1].0), "words are in order");
}

#[test]
fn archives_by_their_target() {
    let Some(folder) = golden("nemo_quartznet") else { return };
    let recording = sound(16_000, 0.05);
    for place in [folder.clone(), folder.join("nemo_quartznet.nemo")] {
        let found = open(&place.display().to_string(), &AsrOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let heard = found.recognizer().transcribe(&[&recording]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(heard.len(), 1);
    }
    let Some(voice) = golden("nemo_fastpitch") else { return };
    let fault = open(&voice.display().to_string(), &AsrOptions::default()).err().expect("no recognizer").to_string();
    assert!(fault.contains("FastPitchModel"), "{fault}");
}
