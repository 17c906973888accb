//! A tokenizer.json, and a text cut into its tokens.
#![no_main]

use mobilis_zoo::text::{Tokenizer, TokenizerConfig};

// The library panics at some texts, which is caught and becomes an error: only panics that are not caught count.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_json(bytes, TokenizerConfig::default()) {
        let ids = tokenizer.encode("Hello, \u{e9}t\u{e9} \u{4f60}!  \u{1f600}", true).unwrap_or_default();
        let _ = tokenizer.decode(&ids, true);
    }
});
