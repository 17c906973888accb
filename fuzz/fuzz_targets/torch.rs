//! A file of PyTorch's, in either form.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mobilis_zoo::import::torch::check(std::io::Cursor::new(bytes), bytes.len() as u64);
});
