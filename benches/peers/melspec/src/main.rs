//! `mel_spec`: the logarithmic mel spectrogram, on one thread.

use mel_spec::mel::{BatchLogMelConfig, BatchLogMelSpectrogram};
use protocol::{Case, Refusal, case, uniform};

fn load(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    if words[0] != "mel" {
        return Err("only mel spectrograms".into());
    }
    let config = BatchLogMelConfig { win_length: 512, ..BatchLogMelConfig::default() };
    let mel = BatchLogMelSpectrogram::new(config)?;
    let (sound, scratch) = (uniform("sound", 960_000, 0.5), mel.scratch());
    let run = move |s: &mut (Vec<f32>, _)| {
        s.0 = mel.compute_flat_with_scratch(&sound, &mut s.1).expect("a spectrogram").data;
    };
    Ok(case((vec![], scratch), run, |s| s.0.clone()))
}

fn main() {
    protocol::serve(load);
}
