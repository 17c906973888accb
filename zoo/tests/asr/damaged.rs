//! Whatever stands in a model's configuration, opening it gives a model or an error.

use super::conformer;
use super::support::damaged::damaged;
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_zoo::asr::canary::CanaryRecognizer;
use mobilis_zoo::asr::conformer::ConformerRecognizer;
use mobilis_zoo::import::nemo;
use mobilis_zoo::llm::config::Config;
use serde_json::json;
use std::path::Path;

#[test]
fn conformers() {
    let tensors = Checkpoint::open(conformer::data("streaming.safetensors")).expect("the fixture");
    let weights = conformer::Weights(&tensors);
    let mut good = conformer::described("NA").value().clone();
    good["loss"] = json!({"loss_name": "tdt", "tdt_kwargs": {"durations": [0, 1]}});
    good["decoding"] = json!({"strategy": "greedy_batch", "greedy": {"max_symbols": 5}, "durations": []});
    let mut opened = 0;
    for (what, config) in damaged(&good) {
        println!("{what}");
        let config = Config::new(what, config);
        opened += usize::from(ConformerRecognizer::nemo(&config, &weights).is_ok());
    }
    assert!(opened > 0);
}

#[test]
fn canaries() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/canary/canary2.nemo");
    let mut archive = nemo::open(&path).expect("the fixture");
    let mut opened = 0;
    for (what, config) in damaged(&archive.config) {
        println!("{what}");
        archive.config = config;
        opened += usize::from(CanaryRecognizer::open(&archive).is_ok());
    }
    assert!(opened > 0);
}
