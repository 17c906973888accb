//! A SentencePiece model, and a text cut into its pieces.
#![no_main]

use mobilis_zoo::text::{Tokenizer, TokenizerConfig};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes, TokenizerConfig::default()) {
        let ids = tokenizer.encode("Hello, \u{e9}t\u{e9} \u{4f60}!  \u{1f600}", true).unwrap_or_default();
        let _ = tokenizer.decode(&ids, true);
    }
});
