//! `mel`: the logarithmic mel spectrogram of 60 seconds at 16 kHz: 512 points, a step of 160, 80
//! bands of librosa's scale, `log(x + 2^-23)`.

use crate::run::Fixed;
use mobilis::ops::stft::Edge;
use mobilis::prelude::*;
use protocol::{Case, Refusal, uniform};

axes! {
    pub Batch;
    pub Samples;
    pub Fft = 512;
    pub Frequencies = 257;
    pub Bands = 80;
    pub Frames = floor(Samples / 160) + 1;
}

#[neural_module]
struct Mel {
    window: Param![Fft],
    filters: Param![Bands, Frequencies],
}

#[neural_module]
impl Mel {
    fn forward(&self, x: Tensor![Batch, Samples]) -> Tensor![Batch, Bands, Frames] {
        let spectrum = x.stft(self.window.get(), Const::<160>, Edge::Zeros).power_spectrum();
        let power: Tensor![Batch, Frequencies, Frames] = spectrum.relabel();
        let filters = self.filters.get();
        (einsum!(filters[m f] * power[b f t] => [b m t]) + f64::from(f32::EPSILON)).log()
    }
}

/// Slaney's scale: linear below 1 kHz, logarithmic above.
fn hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

/// Triangles of equal area: `[80, 257]`.
fn filters() -> Vec<f32> {
    let top = 15.0 + (8000.0f64 / 1000.0).ln() / (6.4f64.ln() / 27.0);
    let edge = |i: usize| hertz(top * i as f64 / 81.0);
    let mut all = vec![];
    for m in 0..80 {
        let [low, mid, high] = [edge(m), edge(m + 1), edge(m + 2)];
        all.extend((0..257).map(|bin| {
            let f = bin as f64 * 16000.0 / 512.0;
            let ramp = ((f - low) / (mid - low)).min((high - f) / (high - mid)).max(0.0);
            (ramp * 2.0 / (high - low)) as f32
        }));
    }
    all
}

pub fn log_mel() -> Result<Box<dyn Case>, Refusal> {
    let model = Model::init(Mel::default(), 1)?;
    // Symmetric, as `mel_spec` has it.
    let window = (0..512).map(|i| 0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / 511.0).cos());
    model.set("window", &window.collect::<Vec<f32>>())?;
    model.set("filters", &filters())?;
    let program = model.compile(|m, x: Tensor![Batch, Samples]| m.forward(x))?;
    let arrays = <Array![Batch, Samples]>::new([1, 960_000], uniform("sound", 960_000, 0.5))?;
    Ok(Box::new(Fixed { program, arrays }))
}
