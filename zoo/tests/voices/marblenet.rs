//! MarbleNet for frames: what it says does not depend on blocks and windows. MarbleNet for windows: what it says, its
//! smoothings and segments are NeMo's (`windows.py` in `zoo/tests/data/marblenet`).

use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::conv::{AnyConv, ConvAxes, ConvEncoder, ConvSettings, FrameClassifier, presets};
use mobilis_zoo::asr::vad::marblenet::MarbleNetwork;
use mobilis_zoo::asr::vad::{self, Detector, Rules, Smoothing};
use mobilis_zoo::audio::features::{Features, Version};
use mobilis_zoo::llm::config::Config;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

type A = AnyConv;

/// A model with random weights, opened from a folder.
fn opened() -> Box<dyn Detector> {
    let scratch = std::env::temp_dir().join(format!(
        "mobilis-marblenet-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&scratch).expect("made");
    let config = json!({
        "target": "nemo.collections.asr.models.classification_models.EncDecFrameClassificationModel",
        "nemo_version": "2.5.0", "encoder": presets::marblenet_frames(),
        "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "normalize": "None", "window_size": 0.025, "sample_rate": 16000, "window_stride": 0.01, "window": "hann",
            "features": 80, "n_fft": 512, "frame_splicing": 1, "dither": 1e-5, "pad_to": 2},
        "decoder": {"_target_": "nemo.collections.common.parts.MultiLayerPerceptron", "hidden_size": 128,
            "num_classes": 2, "num_layers": 1, "activation": "relu", "log_softmax": false},
    });
    std::fs::write(scratch.join("config.json"), config.to_string()).expect("written");
    let part = |key: &str| Config::new(key, config[key].clone());
    let settings = ConvSettings::nemo(&part("encoder")).expect("read");
    let features = Features::nemo(&part("preprocessor"), Version::NEW).expect("read");
    let sizes = ConvEncoder::<A>::sizes(&settings).with::<<A as ConvAxes>::Classes>(2);
    let sizes = sizes.with::<mobilis_zoo::audio::Hop>(features.hop());
    let network = MarbleNetwork { features, encoder: ConvEncoder::new(&settings), decoder: FrameClassifier::new(1) };
    Model::init_with(network, 3, sizes).expect("made").save(&scratch).expect("saved");
    let found = vad::open(&scratch).unwrap_or_else(|e| panic!("{e}"));
    let _ = std::fs::remove_dir_all(&scratch);
    found
}

fn sound(samples: usize) -> Vec<f32> {
    (0..samples).map(|i| (i as f32 * 0.03).sin() * (i as f32 * 0.0004).sin() * 0.4).collect()
}

#[test]
fn blocks_and_windows_change_nothing() {
    let model = opened();
    assert_eq!((model.sample_rate(), model.step()), (16_000, 320));
    let long = sound(16_000 * 75 + 100);
    let whole = model.probabilities(&long).unwrap_or_else(|e| panic!("{e}"));
    assert!(whole.len().abs_diff(long.len() / 320) <= 1 && whole.iter().all(|p| (0.0..=1.0).contains(p)));
    let mut listener = model.listen().expect("ready");
    let mut found = Vec::new();
    for block in long.chunks(4_801) {
        found.extend(listener.push(block).expect("heard"));
    }
    found.extend(listener.finish().expect("heard"));
    assert_eq!(found, whole);
    // The same sound in another place of another window: 20 s are left out at the beginning.
    let later = model.probabilities(&long[16_000 * 20..]).expect("heard");
    for second in 5..50 {
        for step in 0..50 {
            let (a, b) = (whole[(second + 20) * 50 + step], later[second * 50 + step]);
            assert!((a - b).abs() < 1e-5, "at {second} s: {a} {b}");
        }
    }
    assert!(model.probabilities(&[]).expect("heard").is_empty());
}

#[test]
fn windows_are_nemos() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/marblenet");
    let text = std::fs::read_to_string(folder.join("windows.json")).expect("the fixture");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
    };
    let model = vad::open(&folder.join("windows.nemo")).unwrap_or_else(|e| panic!("{e}"));
    let sound: Vec<f32> = (0..33_650)
        .map(f64::from)
        .map(|i| (0.4 * (0.03 * i + 1e-6 * i * i).sin() * (0.0004 * i).sin().powi(3)) as f32)
        .collect();
    let plain = model.probabilities(&sound).expect("heard");
    let window = model.window() / model.step();
    for (name, found) in [
        ("plain", plain.clone()),
        ("mean", vad::smoothed(&plain, window, 0.875, Smoothing::Mean).expect("makes sense")),
        ("median", vad::smoothed(&plain, window, 0.875, Smoothing::Median).expect("makes sense")),
    ] {
        let apart = super::distance(&found, &numbers(&expected[name]));
        assert!(apart < 2e-5, "{name}: {apart}");
    }
    let of = |key: &str| expected["rules"][key].as_f64().expect("a number");
    let rules = Rules {
        onset: of("onset") as f32,
        offset: of("offset") as f32,
        pad_onset: of("pad_onset"),
        pad_offset: of("pad_offset"),
        min_duration_on: of("min_duration_on"),
        min_duration_off: of("min_duration_off"),
        filter_speech_first: true,
    };
    let (step, length) = (Duration::from_millis(10), Duration::from_secs_f64(33_650.0 / 16_000.0));
    for (first, table) in [true, false].into_iter().zip(expected["segments"].as_array().expect("two")) {
        let found = vad::ruled(&plain, step, length, &Rules { filter_speech_first: first, ..rules });
        let found: Vec<f64> = found.iter().flat_map(|s| [s.start.as_secs_f64(), s.end.as_secs_f64()]).collect();
        let wanted: Vec<f64> = table.as_array().expect("rows").iter().flat_map(numbers).collect();
        assert_eq!(found.len(), wanted.len());
        // What NeMo adds beyond the end is cut.
        let close = |(a, b): (&f64, &f64)| (a - b.min(length.as_secs_f64())).abs() < 1e-6;
        assert!(wanted.len() > 2 && found.iter().zip(&wanted).all(close), "{found:?} {wanted:?}");
    }
}
