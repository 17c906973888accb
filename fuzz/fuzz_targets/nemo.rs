//! An archive of NeMo's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mobilis_zoo::import::nemo::check(bytes.to_vec());
});
