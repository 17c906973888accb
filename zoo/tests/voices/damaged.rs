//! Whatever stands in the configuration of a convolutional model, opening it gives a model or an error.

use super::support::damaged::damaged;
use super::titanet::{titanet, written};
use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::conv::{ClassRecognizer, ConvRecognizer};
use mobilis_zoo::asr::speaker::nemo::SpeakerModel;
use mobilis_zoo::asr::vad::marblenet::MarbleNet;
use mobilis_zoo::asr::vad::windows::WindowedMarbleNet;
use mobilis_zoo::import::nemo::{self, Archive};
use serde_json::{Value, json};

/// Whether an archive opens.
type Opens = fn(Archive) -> bool;

/// A configuration of each family, and what opens it. The weights are those of the first.
fn families(speaker: &Value) -> [(Value, Opens); 5] {
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
    let ecapa = with("EncDecSpeakerLabelModel", speaker["decoder"].clone(), Some(ecapa));
    [
        (speaker.clone(), |archive| SpeakerModel::open(archive).is_ok()),
        (ecapa, |archive| SpeakerModel::open(archive).is_ok()),
        (with("EncDecClassificationModel", classes, None), |archive| {
            match WindowedMarbleNet::is_one(&archive.config) {
                true => WindowedMarbleNet::open(archive).is_ok(),
                false => ClassRecognizer::open(&archive, Device::Cpu).is_ok(),
            }
        }),
        (with("EncDecCTCModel", letters, None), |archive| ConvRecognizer::open(archive).is_ok()),
        (with("EncDecFrameClassificationModel", perceptron, None), |archive| MarbleNet::open(archive).is_ok()),
    ]
}

#[test]
fn nothing_panics() {
    let scratch = std::env::temp_dir().join(format!("mobilis-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("made");
    written(&scratch, titanet(80, 8, 96));
    let good = nemo::open(&scratch).expect("opened").config;
    let mut opened = 0;
    for (config, opens) in families(&good) {
        for (what, config) in damaged(&config) {
            println!("{what}");
            let mut archive = nemo::open(&scratch).expect("opened");
            archive.config = config;
            opened += usize::from(opens(archive));
        }
    }
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(opened > 0);
}
