//! A pipeline: what was said in tones is written down again.
//!
//! Eight letters sound as eight tones. Features, a small network trained with CTC, and a search are joined
//! with `pipeline!`, whose every edge the compiler checks: axes, elements, the sampling rate. Then it runs
//! on one recording, on several at once, and as a stream in which the stages overlap.
//!
//! `cargo run --release --example 11-pipeline`

use mobilis::graph::print::Format;
use mobilis::nn::{CausalConv1d, Linear};
use mobilis::ops::ctc::CtcOptions;
use mobilis::ops::stft::{Edge, WindowShape};
use mobilis::pipeline::{Padded, PaddedArray};
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};
use mobilis::zoo::asr::decode::{DecodeError, Emissions, ctc};
use std::f32::consts::TAU;

axes! {
    /// Recordings that are worked on together.
    pub Batch;
    pub Samples;
    /// One every 10 ms.
    pub Frames = floor(Samples / 80) + 1;
    pub Letters;
    pub Fft = 256;
    pub Bands = 129;
    pub Hidden = 32;
    /// Eight letters and CTC's blank.
    pub Classes = 9;
}

const LETTERS: &str = "abcdefgh";
const BLANK: usize = 8;

pipeline! {
    /// Hears a recording.
    pub struct Listen {
        /// How loud each band is, frame by frame.
        features: fn(Array![Samples; AudioSignal<8000>]) -> Array![Frames, Bands; Spectrogram],
        /// How likely each letter is.
        encoder: fn(Array![Frames, Bands; Spectrogram]) -> Array![Frames, Classes; LogProbs],
        search: fn(Array![Frames, Classes; LogProbs]) -> String,
    }
    fn run(audio: Array![Samples; AudioSignal<8000>]) -> (text: String, scores: Array![Frames, Classes; LogProbs]) {
        let bands = features(audio);
        let scores = encoder(bands);
        let text = search(scores);
        (text, scores)
    }
}

pipeline! {
    /// Says a text and hears it: one pipeline in another.
    pub struct Echo {
        speak: fn(text: String, loudness: f32 = 0.5) -> Array![Samples; AudioSignal<8000>],
        listen: fn(Array![Samples; AudioSignal<8000>]) -> (text: String, scores: Array![Frames, Classes; LogProbs]),
    }
    fn run(text: String) -> (text: String, said: String) {
        let heard = listen(speak(text));
        (heard.text, text)
    }
}

/// The network. It looks back, never ahead: what follows a recording, such as padding, has no part in it.
#[neural_module]
pub struct Ears {
    conv: CausalConv1d<Bands, Hidden, 5>,
    head: Linear<Hidden, Classes>,
}

#[neural_module]
impl Ears {
    pub fn forward(&self, x: Tensor![Batch, Frames, Bands; Spectrogram]) -> Tensor![Batch, Frames, Classes; LogProbs] {
        let y = self.conv.forward(rearrange!(x[b t f] => [b f t])).relu();
        self.head.forward(rearrange!(y[b h t] => [b t h])).log_softmax(Classes).assume()
    }
}

type Sound = Padded<(Batch, Samples), AudioSignal<8000>>;
type Loudness = Padded<(Batch, Frames, Bands), Spectrogram>;

/// Logarithms of power, and how many frames count. They are part of a graph as the network is: they run on
/// every device.
fn features(sound: Sound) -> Loudness {
    let window = WindowShape::Hann.over::<Fft>();
    let spectrum = sound.values.stft(window, Const::<80>, Edge::Zeros).power_spectrum();
    let spectrum: Tensor![Batch, Bands, Frames] = spectrum.relabel();
    let log = rearrange!(spectrum[b f t] => [b t f]) + 1e-3;
    let frames = (sound.lengths.to_real() / 80.0).floor() + 1.0;
    Padded::new(log.log().assume(), frames.to_index().assume())
}

/// The tones of a text: 60 ms each, and 20 ms of silence around them.
fn speak(text: &str, loudness: f32) -> Result<Array![Samples; AudioSignal<8000>], ArrayError> {
    let mut samples = vec![0.0; 160];
    for letter in text.chars().filter_map(|c| LETTERS.find(c)) {
        let pitch = 400.0 + 350.0 * letter as f32;
        samples.extend((0..480).map(|i| loudness * (TAU * pitch * i as f32 / 8000.0).sin()));
        samples.extend([0.0; 160]);
    }
    Array::from_vec(samples)
}

/// The best letters, by the search that the recognizers of the zoo use.
fn search(scores: Array![Frames, Classes; LogProbs]) -> Result<String, DecodeError> {
    let emissions = Emissions { log_probs: scores.data(), classes: LETTERS.len() + 1 };
    let found = ctc::greedy(&[emissions], BLANK, None)?;
    let letters = found.iter().flat_map(|h| h.ids());
    Ok(letters.filter_map(|id| LETTERS.chars().nth(id as usize)).collect())
}

/// A random text of `count` letters.
fn text(count: usize, seed: &mut u64) -> String {
    let mut letter = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        LETTERS.as_bytes()[(*seed >> 33) as usize % LETTERS.len()] as char
    };
    (0..count).map(|_| letter()).collect()
}

/// Learns from texts of six letters and their tones, without being told which frame is which letter.
fn train(seed: &mut u64) -> Result<Model<Ears>, Box<dyn std::error::Error>> {
    let model = Model::init(Ears::default(), 1)?;
    type Args = (Sound, Padded<(Batch, Letters), TokenId>);
    let mut step = model.train_step(AdamW::new(0.01), TrainOptions::default(), |m: &Ears, (sound, said): Args| {
        let Padded { values, lengths } = features(sound);
        m.forward(values)
            .ctc_loss(said.values, lengths, said.lengths, CtcOptions { blank: BLANK, zero_infinity: true })
            .mean_batch()
    })?;
    for i in 1..=300 {
        let texts: Vec<String> = (0..8).map(|_| text(6, seed)).collect();
        let loudness = |k: usize| 0.2 + 0.1 * k as f32;
        let sounds = texts.iter().enumerate().map(|(k, t)| Ok(speak(t, loudness(k))?.into_vec()));
        let sounds = sounds.collect::<Result<Vec<_>, ArrayError>>()?;
        let letters = texts.iter().flat_map(|t| t.chars().filter_map(|c| LETTERS.find(c)));
        let said: PaddedArray<(Batch, Letters), TokenId> =
            PaddedArray { values: Array::from_values([8, 6], letters)?, lengths: Array::from_vec(vec![6; 8])? };
        let samples = sounds[0].len();
        let sound: PaddedArray<(Batch, Samples), AudioSignal<8000>> = PaddedArray {
            values: Array::new([8, samples], sounds.concat())?,
            lengths: Array::from_vec(vec![samples as i32; 8])?,
        };
        let report = step.run((sound, said))?;
        if i % 100 == 0 {
            println!("step {i}: loss {:.3}", report.loss);
        }
    }
    Ok(model)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seed = 3;
    let model = train(&mut seed)?;

    // Programs are for batches; `per_item` makes them stages for one recording, as long as it is.
    let front = Model::init((), 0)?.compile(|(), x: Sound| features(x))?.per_item();
    let encoder = model.compile(|m, x: Loudness| Padded::new(m.forward(x.values), x.lengths))?.per_item();
    let listen = Listen::new(front, encoder, search);
    println!("heard: {}", listen.run(speak("badge", 0.5)?)?.0);

    // Recordings of different lengths share a batch; what each gives does not depend on the others.
    let texts = ["a", "headache", "bed", "facade"];
    let recordings = texts.iter().map(|t| speak(t, 0.5)).collect::<Result<Vec<_>, _>>()?;
    let together = listen.run_batch(recordings.clone()).into_iter().collect::<Result<Vec<_>, _>>()?;
    let alone = recordings.into_iter().map(|r| listen.run(r)).collect::<Result<Vec<_>, _>>()?;
    println!("together: {}", together.iter().map(|r| r.0.as_str()).collect::<Vec<_>>().join(" "));
    println!("the same bits as alone: {}", together == alone);

    // As a stream the stages overlap, each on a thread of its own; results keep the order.
    let sentences: Vec<String> = (1..=200).map(|i| text(1 + i % 12, &mut seed)).collect();
    let recordings = sentences.iter().map(|t| speak(t, 0.5)).collect::<Result<Vec<_>, _>>()?;
    listen.reset_timing();
    let mut right = 0;
    for (said, heard) in sentences.iter().zip(listen.stream(recordings)) {
        right += usize::from(*said == heard?.0);
    }
    println!("{right} of {} in a stream are right", sentences.len());
    print!("{}", listen.timing());

    // A pipeline is a stage, and a stage can be replaced by another of its signature.
    let mut echo = Echo::new(|(text, loudness): (String, f32)| speak(&text, loudness), listen);
    print!("{}", echo.draw(Format::Text));
    echo.set_speak(|(text, _): (String, f32)| speak(&text.to_lowercase(), 0.25));
    println!("said DEAF quietly, heard {}", echo.run("DEAF".to_string())?.0);
    Ok(())
}
