//! A recording in memory: any container and codec, whole or from an offset on, and as a stream.
#![no_main]

use mobilis_zoo::audio::{Reader, Wanted};
use std::time::Duration;

/// A few bytes can stand for hours of silence.
fn listen(reader: Result<Reader, mobilis_zoo::audio::AudioError>) {
    let mut left = 2_000_000usize;
    for block in reader.into_iter().flatten() {
        let Ok(block) = block else { return };
        assert!(block.iter().all(|v| v.is_finite()));
        left = left.saturating_sub(block.len());
        if left == 0 {
            return;
        }
    }
}

libfuzzer_sys::fuzz_target!(
    // Panics in the decoders are caught and become errors; the fuzzer's own hook would stop at them.
    init: {
        std::panic::set_hook(Box::new(|_| {}));
    },
    |bytes: &[u8]| {
        let wanted = Wanted::at(16_000);
        listen(Reader::bytes("it", bytes.to_vec(), &wanted));
        listen(Reader::bytes("it", bytes.to_vec(), &wanted.clone().part(Duration::from_secs(3), None)));
        listen(Reader::stream("it", std::io::Cursor::new(bytes.to_vec()), &wanted.channel(0)));
    }
);
