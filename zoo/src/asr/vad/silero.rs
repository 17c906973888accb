//! Silero VAD at 16 kHz (<https://github.com/snakers4/silero-vad>, version 6).
//!
//! Each step hears 512 new samples behind the last 64 of the step before. A convolution with sines and cosines gives
//! a spectrum of four frames, four convolutions make one vector of it, an LSTM remembers, a linear layer says how
//! likely speech is. Names are those of the package's safetensors file.

use super::super::voice::VoiceError;
use super::{Detector, Listener};
use crate::audio::Batch;
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::nn::{Conv1d, Lstm};
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::pad::{self, Padding};
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;

/// New samples of a step.
const STEP: usize = 512;
/// Samples of the step before that it hears too.
const BEFORE: usize = 64;
/// Steps that run together: eight seconds, so that memory is bounded.
const TOGETHER: usize = 256;

axes! {
    /// Steps of 32 ms.
    pub Chunks;
    /// Samples of a step, with those before it.
    pub Heard = 576;
    /// The same with a mirror image of the last 64 behind.
    pub Mirrored = 640;
    /// Frequencies.
    pub Bins = 129;
    /// Their cosines, then their sines.
    pub Parts = 2 * Bins;
    /// Channels of the convolutions between.
    pub Narrow = 64;
    /// Channels of the first and the last, and what the LSTM remembers.
    pub Wide = 128;
}

/// The network.
#[neural_module]
pub struct SileroNetwork {
    /// `[Parts, 1, 256]`: the windowed cosines and sines.
    #[default(Conv1d::default().no_bias())]
    pub stft_conv: Conv1d<Const<1>, Parts, 256, 128>,
    /// `[Wide, Bins, 3]`
    pub conv1: Conv1d<Bins, Wide, 3, 1, 1>,
    /// `[Narrow, Wide, 3]`
    pub conv2: Conv1d<Wide, Narrow, 3, 2, 1>,
    /// `[Narrow, Narrow, 3]`
    pub conv3: Conv1d<Narrow, Narrow, 3, 2, 1>,
    /// `[Wide, Narrow, 3]`
    pub conv4: Conv1d<Narrow, Wide, 3, 1, 1>,
    /// What remembers.
    pub lstm_cell: Lstm<Wide, Wide>,
    /// `[1, Wide, 1]`
    pub final_conv: Conv1d<Wide, Const<1>, 1>,
}

/// What the network remembers of a stream, `[1, Batch, Wide]`.
type Memory = Tensor<(Const<1>, Batch, Wide)>;
type Each = Prod<Batch, Chunks>;

#[neural_module]
impl SileroNetwork {
    /// Steps `[Batch, Chunks, Heard]`, how many of them count, and what is remembered, to probabilities
    /// `[Batch, Chunks]` and what is remembered then.
    pub fn forward(
        &self,
        x: Tensor![Batch, Chunks, Heard],
        counts: Tensor![Batch; Lengths<Chunks>],
        h: Memory,
        c: Memory,
    ) -> (Tensor<(Batch, Chunks), Probs>, Memory, Memory) {
        let (none, beyond) = (mobilis_runtime::Extent::constant(0), mobilis_runtime::Extent::constant(BEFORE as u64));
        let x = pad::pad(x.raw(), 2, none, beyond, Padding::Reflect, Mirrored::dim());
        let x = Tensor::<(Batch, Chunks, Mirrored)>::from_raw(x).reshape::<(Each, Const<1>, Mirrored)>();
        let parts = self.stft_conv.forward(x);
        let real = parts.slice(Parts, Bins, 0);
        let imaginary = parts.slice(Parts, Bins, 129);
        let x = (real * real + imaginary * imaginary).sqrt();
        let x = self.conv1.forward(x).relu();
        let x = self.conv2.forward(x).relu();
        let x = self.conv3.forward(x).relu();
        let x = self.conv4.forward(x).relu();
        let x = x.reshape::<(Batch, Chunks, Wide)>();
        let (steps, (h, c)) = self.lstm_cell.forward_padded(x, counts, Some((h, c)));
        let channels: Tensor<(Batch, Wide, Chunks)> =
            Tensor::from_raw(movement::permute(steps.relu().raw(), &[0, 2, 1]));
        let said = self.final_conv.forward(channels).reshape::<(Batch, Chunks)>();
        (said.sigmoid().assume(), h, c)
    }
}

type Given = (Tensor![Batch, Chunks, Heard], Tensor![Batch; Lengths<Chunks>], Memory, Memory);
type Steps = Program<Given, (Tensor<(Batch, Chunks), Probs>, Memory, Memory)>;

/// Silero VAD.
pub struct Silero {
    model: Model<SileroNetwork>,
    program: OnceCell<Steps>,
}

impl Silero {
    /// The model with the tensors of a source.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn load(tensors: &dyn Source) -> Result<Silero, VoiceError> {
        // A cell has no number of a layer in its names.
        let rename = |name: &str| match name.starts_with("lstm_cell.") {
            true => name.trim_end_matches("_l0").to_string(),
            false => name.to_string(),
        };
        let model = LoadOptions::new().rename(rename).load(SileroNetwork::default(), tensors)?;
        Ok(Silero { model, program: OnceCell::new() })
    }

    fn program(&self) -> Result<&Steps, VoiceError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        // What is heard must not depend on the blocks that it comes in.
        let program = self.model.compile(|m, (x, counts, h, c)| m.forward(x, counts, h, c))?.alike();
        Ok(self.program.get_or_init(|| program))
    }
}

impl Detector for Silero {
    fn sample_rate(&self) -> u32 {
        16_000
    }

    fn step(&self) -> usize {
        STEP
    }

    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn listen(&self) -> Result<Box<dyn Listener + '_>, VoiceError> {
        let zero = || Array::from_parts(&[1, 1, 128], vec![0.0; 128]);
        Ok(Box::new(Hearing { program: self.program()?, left: vec![0.0; BEFORE], h: zero(), c: zero() }))
    }
}

type Remembered = Array<(Const<1>, Batch, Wide)>;

/// A stream.
struct Hearing<'m> {
    program: &'m Steps,
    /// The 64 samples before the next step, and what there is of it.
    left: Vec<f32>,
    h: Remembered,
    c: Remembered,
}

impl Hearing<'_> {
    /// All steps that are complete.
    fn run(&mut self) -> Result<Vec<f32>, VoiceError> {
        let mut all = Vec::new();
        loop {
            let count = ((self.left.len() - BEFORE) / STEP).min(TOGETHER);
            if count == 0 {
                return Ok(all);
            }
            let step = |i: usize| self.left[i * STEP..i * STEP + BEFORE + STEP].iter().copied();
            let data: Vec<f32> = (0..count).flat_map(step).collect();
            let x: Array![Batch, Chunks, Heard] = Array::from_parts(&[1, count, BEFORE + STEP], data);
            let counts: Array![Batch; Lengths<Chunks>] = Array::from_parts(&[1], vec![count as i32]);
            let (said, h, c) = self.program.run((&x, &counts, &self.h, &self.c))?;
            all.extend_from_slice(said.data());
            (self.h, self.c) = (h, c);
            self.left.drain(..count * STEP);
        }
    }
}

impl Listener for Hearing<'_> {
    fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let mut all = Vec::new();
        // A long recording is not copied whole.
        for part in samples.chunks(TOGETHER * STEP) {
            self.left.extend_from_slice(part);
            all.extend(self.run()?);
        }
        Ok(all)
    }

    fn finish(&mut self) -> Result<Vec<f32>, VoiceError> {
        let over = self.left.len() - BEFORE;
        if over == 0 {
            return Ok(Vec::new());
        }
        self.left.resize(BEFORE + STEP, 0.0);
        self.run()
    }
}
