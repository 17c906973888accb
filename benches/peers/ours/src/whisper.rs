//! `whisper SIZE KIND`: the minute of speech in `target/whisper/sound.wav` by the Whisper in
//! `target/whisper/SIZE`, which `python/whisper_peer.py prepare` makes: the likeliest tokens without
//! times, window by window.

use crate::run::format;
use mobilis::program::Weights;
use mobilis::prelude::*;
use mobilis_zoo::asr::Recognizer;
use mobilis_zoo::asr::whisper::{Manner, TranscribeOptions, WhisperRecognizer};
use mobilis_zoo::audio::load;
use mobilis_zoo::import::Pretrained;
use protocol::{Case, Refusal};

struct Whisper {
    recognizer: WhisperRecognizer,
    sound: Vec<f32>,
    counts: Vec<f32>,
}

impl Case for Whisper {
    fn run(&mut self) {
        let found = self.recognizer.transcribe(&[&self.sound]).expect("a transcript");
        self.counts = found[0].segments.iter().map(|s| s.tokens.len() as f32).collect();
    }
    fn values(&mut self) -> Vec<f32> {
        self.counts.clone()
    }
}

pub fn whisper(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let [_, size, kind] = words else { return Err("say `whisper SIZE KIND`".into()) };
    let pretrained = Pretrained::open(&format!("target/whisper/{size}"))?;
    let options = TranscribeOptions {
        language: Some("en".into()),
        times: false,
        carry: false,
        suppress: false,
        manner: Manner { temperatures: vec![0.0], most_compression: None, least_logprob: None, no_speech: None, ..Manner::default() },
        ..TranscribeOptions::default()
    };
    let recognizer = WhisperRecognizer::open(&pretrained, Device::Cpu, Weights::from(format(kind)?))?.with(options)?;
    Ok(Box::new(Whisper { recognizer, sound: load("target/whisper/sound.wav", 16_000)?, counts: vec![] }))
}
