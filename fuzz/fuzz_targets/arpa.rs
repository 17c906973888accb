//! An n-gram language model.
#![no_main]

use mobilis_zoo::asr::decode::ngram::{Limits, Ngrams};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = Ngrams::read(bytes, Limits { ngrams: 10_000, ..Limits::default() }) {
        let (_, then) = model.next(model.start(), model.word("a"));
        let _ = model.end(then);
    }
});
