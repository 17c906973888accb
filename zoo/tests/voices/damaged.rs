//! Whatever stands in the configuration of a convolutional model, opening it gives a model or an error.

use super::support::damaged::damaged;
use super::titanet::{titanet, written};
use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::conv::{ClassRecognizer, ConvRecognizer};
use mobilis_zoo::asr::speaker::nemo::SpeakerModel;
use mobilis_zoo::asr::vad::marblenet::MarbleNet;
use mobilis_zoo::asr::vad::windows::WindowedMarbleNet;
use mobilis_zoo::import::nemo;
use serde_json::{Value, json};

/// Configurations of each family. The weights are those of the first.
fn configs(speaker: &Value) -> Vec<Value> {
    let with = |target: &str, decoder: Value, encoder: Option<Value>| {
        let mut config = speaker.clone();
        config["target"] = format!("nemo.collections.asr.models.{target}").into();
        config["labels"] = json!(["background", "speech"]);
        config["decoder"] = decoder;
        if let Some(encoder) = encoder {
            config["encoder"] = encoder;
        }
        config
    };
    let ecapa = json!({"_target_": "nemo.collections.asr.modules.ECAPAEncoder", "feat_in": 80, "scale": 4,
                       "filters": [16, 16, 16, 32], "kernel_sizes": [5, 3, 3, 1], "dilations": [1, 2, 3, 1]});
    let classes = json!({"feat_in": 96, "num_classes": 2, "pooling_type": "avg", "return_logits": true});
    let letters = json!({"feat_in": 96, "num_classes": -1, "vocabulary": ["a", "b"]});
    let perceptron = json!({"hidden_size": 96, "num_classes": 2, "num_layers": 1, "activation": "relu"});
    vec![
        speaker.clone(),
        with("EncDecSpeakerLabelModel", speaker["decoder"].clone(), Some(ecapa)),
        with("EncDecClassificationModel", classes, None),
        with("EncDecCTCModel", letters, None),
        with("EncDecFrameClassificationModel", perceptron, None),
    ]
}

#[test]
fn nothing_panics() {
    let scratch = std::env::temp_dir().join(format!("mobilis-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("made");
    written(&scratch, titanet(80, 8, 96));
    let good = nemo::open(&scratch).expect("opened").config;
    let mut opened = 0;
    for config in configs(&good) {
        for (what, config) in damaged(&config) {
            println!("{what}");
            let archive = || {
                let mut archive = nemo::open(&scratch).expect("opened");
                archive.config = config.clone();
                archive
            };
            opened += usize::from(SpeakerModel::open(archive()).is_ok());
            let _ = (ConvRecognizer::open(archive()), ClassRecognizer::open(&archive(), Device::Cpu));
            let _ = (MarbleNet::open(archive()), WindowedMarbleNet::open(archive()));
        }
    }
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(opened > 0);
}
