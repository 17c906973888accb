//! The header of a safetensors file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mobilis_runtime::checkpoint::header::read(&mut &bytes[..], bytes.len() as u64);
});
