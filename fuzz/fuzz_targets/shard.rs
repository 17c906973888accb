//! A tar archive with recordings and what is said of them.
#![no_main]

use mobilis_zoo::asr::data::shards;

#[path = "../scratch.rs"]
mod scratch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = scratch::file("shard.tar", bytes);
    if let Ok(members) = shards::members(&path) {
        assert!(members.iter().all(|m| m.start + m.length <= bytes.len() as u64));
    }
    let folder = path.parent().expect("a file in a folder");
    for utterance in shards::web(folder, &["shard.tar"]).into_iter().flatten() {
        assert!(utterance.sound.bytes(1 << 20).is_ok());
    }
});
