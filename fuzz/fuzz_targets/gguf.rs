//! The header of a GGUF file, and its vocabulary.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = mobilis_zoo::import::gguf::header::read(&mut &bytes[..], bytes.len() as u64) {
        if let Ok(vocabulary) = header.metadata.vocabulary() {
            let _ = mobilis_zoo::text::Tokenizer::from_gguf(vocabulary);
        }
    }
});
