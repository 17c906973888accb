//! A manifest of a corpus, and the batches that are made of it.
#![no_main]

use mobilis_zoo::asr::data::bucket::{Bucketing, Plan};
use mobilis_zoo::asr::data::manifest;

#[path = "../scratch.rs"]
mod scratch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("manifest.json", bytes);
    if let Ok(utterances) = manifest::read(&path) {
        let rules = Bucketing { seconds: Some(30.0), buckets: 3, ranks: 2, ..Bucketing::default() };
        if let Some(plan) = Plan::new(&utterances, rules) {
            let heard: usize = plan.epoch(1).iter().map(Vec::len).sum();
            assert!(heard > 0 && plan.padding() >= -1e-9);
        }
        let _ = manifest::write(&scratch::path("written.json"), &utterances);
    }
});
