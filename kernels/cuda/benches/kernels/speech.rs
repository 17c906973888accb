//! Convolutions, recurrent layers, scans, spectra and losses, at the sizes of speech models.

use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::conv::{self, Conv, Factors};
use mobilis_cuda::ctc::{self, Ctc};
use mobilis_cuda::gemm::Element::F32;
use mobilis_cuda::recurrent::{LstmInput, LstmOutput, Steps, lstm};
use mobilis_cuda::ssm::{self, Scan};
use mobilis_cuda::stft::{self, Stft};
use mobilis_cuda::transducer::{self, Bend, Transducer};
use mobilis_cuda::{CudaError, Launch, Ptr};

pub fn cases() -> Vec<Case> {
    // A block of a residual network, a pointwise and a depthwise layer of a conformer, a vocoder's upsampling.
    let image = conv([32, 1, 128, 128], [56, 56], [3, 3], 1, 1);
    let pointwise = conv([32, 1, 512, 1024], [1, 400], [1, 1], 1, 0);
    let depthwise = conv([32, 512, 1, 1], [1, 1500], [1, 31], 1, 15);
    vec![
        convolution("conv 3x3 f32 32x128x56x56", image, Factors::F32),
        convolution("conv 3x3 bf16 32x128x56x56", image, Factors::Bf16),
        convolution("conv 1x1 f32 32x512x400", pointwise, Factors::F32),
        convolution("conv 1x1 bf16 32x512x400", pointwise, Factors::Bf16),
        convolution("conv depthwise 31 f32 32x512x1500", depthwise, Factors::F32),
        case("lstm 640 32x200", 2.0 * 32.0 * 200.0 * 4.0 * 640.0 * 640.0, 0, recurrent, [32, 200, 640]),
        case("ssm 16 8x1536x2048", 0.0, 4 * 8 * 2048 * (3 * 1536 + 32), scan, [8, 2048, 1536]),
        case("stft 512 128x240000", 0.0, 4 * 128 * (240_000 + 257 * 1501), spectra, [128, 240_000, 512]),
        case("ctc loss + gradient 32x400x1025", 0.0, 4 * 32 * 400 * 1025 * 3, ctc_loss, [32, 400, 1025]),
        case("rnnt loss + gradient 16x200x41x1025", 0.0, 4 * 16 * 200 * 41 * 1025 * 3, rnnt_loss, [16, 200, 1025]),
    ]
}

type Sized = fn(&mut Operands, [usize; 3]) -> Result<Vec<Launch>, CudaError>;

fn case(name: &str, flops: f64, bytes: usize, make: Sized, sizes: [usize; 3]) -> Case {
    let full: Make = Box::new(move |o| make(o, sizes));
    let small: Make = Box::new(move |o| make(o, [2, 40, 24]));
    let peak = if flops > 0.0 { Peak::F32 } else { Peak::None };
    Case { name: name.into(), flops, bytes: bytes as f64, peak, peer: None, make: [full, small] }
}

/// Stride 1; `[batch, groups, channels, filters]`.
fn conv(n: [usize; 4], input: [usize; 2], kernel: [usize; 2], stride: usize, pad: usize) -> Conv {
    let [batch, groups, channels, filters] = n;
    let before = [if kernel[0] == 1 { 0 } else { pad }, pad];
    let output = [0, 1].map(|i| (input[i] + 2 * before[i] - kernel[i]) / stride + 1);
    let [stride, dilation] = [[stride; 2], [1; 2]];
    Conv { batch, groups, channels, filters, input, kernel, output, stride, before, dilation }
}

fn convolution(name: &str, s: Conv, factors: Factors) -> Case {
    let places = |[a, b]: [usize; 2]| a * b;
    let outputs = s.batch * s.groups * s.filters * places(s.output);
    let weights = s.groups * s.filters * s.channels * places(s.kernel);
    let inputs = s.batch * s.groups * s.channels * places(s.input);
    let make = move |o: &mut Operands, s: Conv| {
        let (x, w) = (
            o.random(s.batch * s.groups * s.channels * places(s.input), F32)?,
            o.random(s.groups * s.filters * s.channels * places(s.kernel), F32)?,
        );
        let y = o.space(4 * s.batch * s.groups * s.filters * places(s.output))?;
        conv::forward(&s, factors, x, w, Ptr::NULL, y)
    };
    let less = Conv { batch: 1, groups: s.groups.min(2), channels: s.channels.min(9), filters: s.filters.min(20), ..s };
    let less = Conv { input: less.input.map(|n| n.min(24)), output: less.output.map(|n| n.min(24)), ..less };
    Case {
        name: name.into(),
        flops: (2 * outputs * s.channels * places(s.kernel)) as f64,
        bytes: (4 * (inputs + weights + outputs)) as f64,
        peak: match (s.channels, factors) {
            (1, _) => Peak::None,
            (_, Factors::F32) => Peak::F32,
            (_, Factors::Bf16) => Peak::Bf16,
        },
        peer: None,
        make: [Box::new(move |o| make(o, s)), Box::new(move |o| make(o, less))],
    }
}

fn recurrent(o: &mut Operands, [batch, time, hidden]: [usize; 3]) -> Result<Vec<Launch>, CudaError> {
    let s = Steps { batch, time, hidden, backward: false, lengths: Ptr::NULL };
    let (steps, state) = (batch * time * hidden, batch * hidden);
    let x = LstmInput {
        gates: o.random(4 * steps, F32)?,
        weight: o.random(4 * hidden * hidden, F32)?,
        h: o.random(state, F32)?,
        c: o.random(state, F32)?,
    };
    let [y, h, c, gates, cells] = [steps, state, state, 4 * steps, steps].map(|n| o.space(4 * n));
    lstm(&s, &x, &LstmOutput { y: y?, h: h?, c: c?, gates: gates?, cells: cells? })
}

fn scan(o: &mut Operands, [batch, time, heads]: [usize; 3]) -> Result<Vec<Launch>, CudaError> {
    let s = Scan { batch, time, heads, channels: 1, groups: 1, size: 16, scalar: false, lengths: Ptr::NULL };
    let x = ssm::Input {
        x: o.random(batch * time * heads, F32)?,
        dt: o.random(batch * time * heads, F32)?,
        a: o.random(heads * 16, F32)?,
        b: o.random(batch * time * 16, F32)?,
        c: o.random(batch * time * 16, F32)?,
        state: o.random(batch * heads * 16, F32)?,
    };
    let (y, last) = (o.space(4 * batch * time * heads)?, o.space(4 * batch * heads * 16)?);
    ssm::scan(&s, &x, y, last)
}

fn spectra(o: &mut Operands, [signals, samples, window]: [usize; 3]) -> Result<Vec<Launch>, CudaError> {
    let frames = samples / 160 + 1;
    let s = Stft { signals, samples, window, frames, hop: 160, pad: window / 2, reflect: true };
    let (x, w) = (o.random(signals * samples, F32)?, o.random(window, F32)?);
    let y = o.space(4 * signals * (window / 2 + 1) * frames)?;
    stft::stft(&s, true, x, w, y)
}

/// Labels are whatever random numbers are as indices: out of range, they count as class 0.
fn ctc_loss(o: &mut Operands, [batch, time, classes]: [usize; 3]) -> Result<Vec<Launch>, CudaError> {
    let labels = time / 5;
    let s = Ctc {
        batch,
        time,
        labels,
        classes,
        blank: classes - 1,
        zero_infinity: true,
        targets: o.random(batch * labels, F32)?,
        time_lengths: Ptr::NULL,
        label_lengths: Ptr::NULL,
    };
    let (x, g) = (o.random(batch * time * classes, F32)?, o.random(batch, F32)?);
    let (losses, grad) = (o.space(4 * batch)?, o.space(4 * batch * time * classes)?);
    let workspace = o.space(s.workspace())?;
    let mut all = ctc::loss(&s, x, losses, workspace, Ptr::NULL)?;
    all.extend(ctc::gradient(&s, x, g, grad, workspace)?);
    Ok(all)
}

fn rnnt_loss(o: &mut Operands, [batch, time, tokens]: [usize; 3]) -> Result<Vec<Launch>, CudaError> {
    let labels = time / 5;
    let s = Transducer {
        batch,
        time,
        labels,
        tokens,
        blank: tokens - 1,
        durations: vec![],
        sigma: 0.0,
        targets: o.random(batch * labels, F32)?,
        time_lengths: Ptr::NULL,
        label_lengths: Ptr::NULL,
    };
    let values = batch * time * (labels + 1) * tokens;
    let (x, g) = (o.random(values, F32)?, o.random(batch, F32)?);
    let (losses, grad, workspace) = (o.space(4 * batch)?, o.space(4 * values)?, o.space(s.workspace())?);
    let mut all = transducer::nodes(&s, x, 0..time, workspace, Ptr::NULL)?;
    all.extend(transducer::loss(&s, losses, workspace)?);
    all.extend(transducer::gradient(&s, x, 0..time, losses, g, Bend::default(), grad, workspace)?);
    Ok(all)
}
