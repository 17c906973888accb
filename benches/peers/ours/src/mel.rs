//! `mel`: the logarithmic mel spectrogram of 60 seconds at 16 kHz: 512 points, a step of 160, 80
//! bands of librosa's scale, `log(x + 2^-23)`.

use crate::run::Fixed;
use mobilis::graph::Dim;
use mobilis::module::table::Table;
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
    // Symmetric, as `mel_spec` has it. Window and filters belong to the code, not to a checkpoint.
    let window = (0..512).map(|i| 0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / 511.0).cos());
    let window = Table::new("window", window.collect::<Vec<f32>>());
    let filters = Table::new("filters", filters());
    let model = Model::init((), 1)?;
    let program = model.compile(|(), x: Tensor![Batch, Samples]| -> Tensor![Batch, Bands, Frames] {
        let window: Tensor![Fft] = Tensor::from_raw(window.get(vec![Dim::fixed(512)]));
        let filters: Tensor![Bands, Frequencies] = Tensor::from_raw(filters.get([80, 257].map(Dim::fixed).into()));
        let spectrum = x.stft(window, Const::<160>, Edge::Zeros).power_spectrum();
        let power: Tensor![Batch, Frequencies, Frames] = spectrum.relabel();
        (einsum!(filters[m f] * power[b f t] => [b m t]) + f64::from(f32::EPSILON)).log()
    })?;
    let arrays = <Array![Batch, Samples]>::new([1, 960_000], uniform("sound", 960_000, 0.5))?;
    Ok(Box::new(Fixed { program, arrays }))
}
