//! A pickle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mobilis_zoo::import::torch::pickle::read(bytes);
});
