//! Rotary positions read from configurations in both spellings, against the reference's tables for
//! every kind of scaling, for short and long texts.

use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_zoo::llm::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

#[test]
fn both_spellings_give_the_reference_tables() {
    let given = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    let root =
        given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden")).join("rope");
    if !root.join("meta.json").exists() {
        println!("skipped: {} is absent", root.display());
        return;
    }
    let meta: Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("meta.json")).expect("meta")).expect("JSON");
    let golden = Checkpoint::open(root.join("golden.safetensors")).expect("golden");
    let mut seen = 0;
    for (name, about) in meta.as_object().expect("an object").iter().filter(|(_, a)| a.get("rope_parameters").is_some())
    {
        let positions = about["max_position_embeddings"].clone();
        let new = json!({ "rope_parameters": about["rope_parameters"], "max_position_embeddings": positions });
        let mut scaling = about["rope_parameters"].clone();
        let theta = scaling.as_object_mut().expect("an object").remove("rope_theta");
        scaling["type"] = scaling["rope_type"].take();
        let old = json!({ "rope_theta": theta, "rope_scaling": scaling, "max_position_embeddings": positions });
        for config in [new, old] {
            let rotary = Config::new("a test", config.clone()).rotary(None).unwrap_or_else(|e| panic!("{name}: {e}"));
            let half = about["head_dim"].as_u64().expect("head_dim") as usize / 2;
            let length = about["positions"].as_u64().expect("positions") as usize;
            let (found, attention) = rotary.frequencies(half, length).unwrap_or_else(|e| panic!("{name}: {e}"));
            let scale = about["attention_scaling"].as_f64().expect("a number");
            assert!((attention - scale).abs() < 1e-9, "{name}: {attention} is not {scale} ({config})");
            let expected = golden.read(&format!("{name}.inv_freq"), DType::F32).expect("frequencies").to_f64();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-6 * e, "{name}: {f} is not {e} ({config})");
            }
            seen += 1;
        }
    }
    assert!(seen >= 28, "{seen} tables");
}
