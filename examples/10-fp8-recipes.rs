//! One small language model, trained alike in every precision: what FP8 costs in quality, and what
//! its scales are for.
//!
//! `cargo run --release --example 10-fp8-recipes [STEPS [FOLDER]]` (1000 steps: two minutes on two
//! cores). With a folder, it writes the curves there as SVG.
//!
//! Every run has the same first parameters and the same batches; only [`Precision`] differs, and no
//! line of the model knows of it. The processor emulates the products of tensor cores bit for bit,
//! but for the order of sums. `docs/fp8.md` shows the outcome.

use mobilis::checkpoint::Checkpoint;
use mobilis::graph::DType;
use mobilis::nn::{Embedding, Linear, RmsNorm, Rotary, SelfAttention, SwiGlu};
use mobilis::precision::{Compute, Formats, LossScale, Precision, Recipe, Scaling};
use mobilis::prelude::*;
use mobilis::train::{AdamW, Schedule, TrainOptions, TrainStep, Trainer};
use std::error::Error;
use std::fmt::Write;

axes! {
    /// Windows of text in a batch.
    pub Batch;
    /// Bytes in a window.
    pub Time;
    pub Bytes = 256;
    pub Hidden = 64;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Ffn = 192;
}

/// Attention and a feed-forward layer, each behind a norm and beside a residual.
#[neural_module]
struct Block {
    norm1: RmsNorm<Hidden>,
    #[default(SelfAttention::default().causal().rope(Rotary::default()))]
    attn: SelfAttention<Hidden, Heads, HeadDim>,
    norm2: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Ffn>,
}

#[neural_module]
impl Block {
    fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

/// From the bytes so far to the next one.
#[neural_module]
struct ByteModel {
    #[init(normal(0.5))]
    embed: Embedding<Bytes, Hidden>,
    blocks: [Block; 2],
    norm: RmsNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    head: Linear<Hidden, Bytes>,
}

#[neural_module]
impl ByteModel {
    /// The mean cross-entropy in nats per byte.
    fn loss(&self, bytes: Tensor![Batch, Time; Index], next: Tensor![Batch, Time; Index]) -> Tensor![] {
        let mut x = self.embed.forward(bytes);
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.head.forward(self.norm.forward(x)).cross_entropy(next)
    }
}

type Windows = Array![Batch, Time; Index];
type Examples = (Tensor![Batch, Time; Index], Tensor![Batch, Time; Index]);

/// The bytes of a window, and windows in a batch.
const WINDOW: usize = 64;
const BATCH: usize = 8;

/// The windows that begin at `starts`, and what follows each of their bytes.
fn windows(text: &[u8], starts: &[usize]) -> (Windows, Windows) {
    let cut = |shift: usize| starts.iter().flat_map(|s| &text[s + shift..][..WINDOW]).map(|b| i32::from(*b)).collect();
    let sizes = [starts.len(), WINDOW];
    (Array::from_parts(&sizes, cut(0)), Array::from_parts(&sizes, cut(1)))
}

/// What came of a run.
struct Outcome {
    name: &'static str,
    color: &'static str,
    /// The loss of every step.
    losses: Vec<f64>,
    /// The loss on text that it did not see.
    unseen: f64,
    /// Milliseconds a step.
    time: f64,
}

impl Outcome {
    /// The loss at the end: the mean of the last tenth of the steps.
    fn last(&self) -> f64 {
        let tail = &self.losses[self.losses.len() - self.losses.len().div_ceil(10)..];
        tail.iter().sum::<f64>() / tail.len() as f64
    }
}

/// The precisions that are compared: name, color, policy. The second is the yardstick.
fn precisions() -> Vec<(&'static str, &'static str, Precision)> {
    let fp8 = |recipe: Recipe| Precision::fp8(recipe);
    // No step is left out from here on, so that all runs see the same batches at the same steps.
    let scale = LossScale { initial: 65536.0, ..LossScale::default() };
    vec![
        ("f32", "#8c959f", Precision::new(Compute::F32)),
        ("bf16", "#1f2328", Precision::new(Compute::Bf16)),
        ("f16, loss scaled", "#9a6700", Precision::new(Compute::F16).loss_scale(scale)),
        ("delayed", "#0969da", fp8(Recipe::delayed())),
        ("current", "#1a7f37", fp8(Recipe::current())),
        ("rowwise", "#8250df", fp8(Recipe::rowwise())),
        ("blockwise", "#bf3989", fp8(Recipe::blockwise())),
        ("MXFP8", "#1b7c83", fp8(Recipe::mxfp8())),
        ("hybrid, no scales", "#d4a72c", fp8(Recipe::unscaled())),
        ("E4M3, no scales", "#cf222e", fp8(Recipe::unscaled().formats(Formats::E4M3))),
    ]
}

/// What delayed scaling has seen in the last step: the least and the greatest of the greatest
/// magnitudes of linear layers' inputs, weights and gradients. A training checkpoint holds them.
fn ranges(step: &TrainStep<Examples>) -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("fp8-recipes-{}.safetensors", std::process::id()));
    step.save(&path)?;
    let file = Checkpoint::open(&path)?;
    for slot in ["input", "weight", "grad_output"] {
        let end = format!(".fp8.{slot}.amax_history");
        let mut range = (f64::INFINITY, 0f64);
        for (name, _) in file.tensors().filter(|(name, _)| name.ends_with(&end)) {
            let newest = file.read(name, DType::F32)?.to_f64().last().copied().unwrap_or(0.0);
            range = (range.0.min(newest), range.1.max(newest));
        }
        println!("  greatest magnitudes of {slot:11} from {:.1e} to {:.1e}", range.0, range.1);
    }
    Ok(std::fs::remove_file(path)?)
}

/// Trains a new model with a precision.
fn train(text: &[u8], steps: u64, precision: Precision) -> Result<(Vec<f64>, f64, f64), Box<dyn Error>> {
    let (seen, unseen) = text.split_at(text.len() / 10 * 9);
    let model = Model::init(ByteModel::default(), 1)?;
    let options = TrainOptions::default()
        .schedule(Schedule::cosine(steps).warmup(steps / 20))
        .clip_norm(1.0)
        .precision(precision);
    let mut step =
        model.train_step(AdamW::new(4e-3).weight_decay(0.01), options, |m, (x, y): Examples| m.loss(x, y))?;
    let count = seen.len() - WINDOW - 1;
    let batch = |i: u64| {
        let starts: Vec<usize> = (0..BATCH).map(|k| (i as usize * BATCH + k) * 1_000_003 % count).collect();
        windows(seen, &starts)
    };
    let history = Trainer::new(&mut step).steps(steps).run(batch)?;
    if matches!(step.options().precision.compute(), Compute::Fp8(Recipe { scaling: Scaling::Delayed { .. }, .. })) {
        println!("with delayed scales, in the last step:");
        ranges(&step)?;
        println!("  the least number of E4M3 is 2.0e-3, of E5M2 1.5e-5; the greatest are 448 and 57344");
    }
    let program = model.compile(|m, (x, y): Examples| m.loss(x, y))?;
    let starts: Vec<usize> = (0..unseen.len() - WINDOW - 1).step_by(unseen.len() / 128).collect();
    let loss = f64::from(program.run(windows(unseen, &starts))?.item());
    Ok((history.losses, loss, 1e3 * history.elapsed.as_secs_f64() / steps as f64))
}

/// A running mean over `width` steps, as points.
fn smooth(values: &[f64], width: usize) -> Vec<(f64, f64)> {
    let mean = |w: &[f64]| w.iter().sum::<f64>() / w.len() as f64;
    values.windows(width).enumerate().step_by(4).map(|(i, w)| ((i + width) as f64, mean(w))).collect()
}

/// Curves of one name and color each, in a frame.
struct Chart<'a> {
    title: &'a str,
    /// The least and the greatest value shown, and the distance of lines.
    range: (f64, f64, f64),
    decimals: usize,
    unit: &'a str,
}

impl Chart<'_> {
    fn svg(&self, steps: usize, curves: &[(&str, &str, Vec<(f64, f64)>)]) -> String {
        let (low, high, apart) = self.range;
        let x = |step: f64| 70.0 + step / steps as f64 * 600.0;
        let y = |v: f64| 400.0 - (v.clamp(low, high) - low) / (high - low) * 350.0;
        let mut out = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 450\" font-family=\"system-ui,sans-serif\" \
             font-size=\"13\" fill=\"#1f2328\">\n<rect width=\"860\" height=\"450\" fill=\"#fff\"/>\n",
        );
        let mut put = |line: String| out.push_str(&(line + "\n"));
        put(format!("<text x=\"70\" y=\"28\" font-size=\"16\" font-weight=\"600\">{}</text>", self.title));
        for k in 0..=((high - low) / apart).round() as usize {
            let (v, unit, decimals) = (low + k as f64 * apart, self.unit, self.decimals);
            let at = y(v);
            put(format!("<path d=\"M70 {at:.1}H670\" stroke=\"#e4e7eb\"/>"));
            put(format!("<text x=\"62\" y=\"{:.1}\" text-anchor=\"end\">{v:.decimals$}{unit}</text>", at + 4.5));
        }
        for k in 0..=4 {
            let step = steps * k / 4;
            put(format!("<text x=\"{:.0}\" y=\"420\" text-anchor=\"middle\">{step}</text>", x(step as f64)));
        }
        put("<text x=\"370\" y=\"441\" text-anchor=\"middle\">steps</text>".into());
        for (i, (name, color, points)) in curves.iter().enumerate() {
            let mut path = String::new();
            for (k, (step, v)) in points.iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if k == 0 { 'M' } else { 'L' }, x(*step), y(*v));
            }
            put(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"/>"));
            let at = 70 + 22 * i;
            put(format!("<path d=\"M690 {at}h22\" stroke=\"{color}\" stroke-width=\"3\"/>"));
            put(format!("<text x=\"720\" y=\"{}\">{name}</text>", at + 4));
        }
        put("</svg>".into());
        out
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let steps: u64 = arguments.next().map_or(Ok(1000), |s| s.parse())?;
    let folder = arguments.next();
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/moby_dick.txt"))?;

    let mut outcomes: Vec<Outcome> = vec![];
    for (name, color, precision) in precisions() {
        let (losses, unseen, time) = train(&text, steps, precision)?;
        outcomes.push(Outcome { name, color, losses, unseen, time });
    }
    let bf16 = &outcomes[1];
    let percent = |a: f64, b: f64| 100.0 * (a / b - 1.0);
    println!("{:18} {:>8} {:>9} {:>8} {:>9} {:>8}", "precision", "loss", "to bf16", "unseen", "to bf16", "ms/step");
    for o in &outcomes {
        let (by_loss, by_unseen) = (percent(o.last(), bf16.last()), percent(o.unseen, bf16.unseen));
        let Outcome { name, unseen, time, .. } = o;
        println!("{name:18} {:8.5} {by_loss:+8.3}% {unseen:8.5} {by_unseen:+8.3}% {time:8.1}", o.last());
    }
    let scaled = |o: &&Outcome| !o.name.contains("no scales");
    let worst = outcomes.iter().filter(scaled).map(|o| percent(o.last(), bf16.last()).abs()).fold(0.0, f64::max);
    let e4m3 = percent(outcomes[outcomes.len() - 1].last(), bf16.last());
    println!("with scales every loss is within {worst:.2} % of that of bf16");
    println!("without them, E4M3 is worse by {e4m3:.2} %");

    if let Some(folder) = folder {
        let steps = steps as usize;
        let losses = Chart { title: "Loss, mean of 50 steps", range: (1.5, 3.5, 0.5), decimals: 1, unit: "" };
        let curves: Vec<_> = outcomes.iter().map(|o| (o.name, o.color, smooth(&o.losses, 50))).collect();
        std::fs::write(format!("{folder}/fp8-loss.svg"), losses.svg(steps, &curves))?;
        let title = "Loss beside that of bf16, mean of 100 steps";
        let beside = Chart { title, range: (-2.0, 6.0, 1.0), decimals: 0, unit: " %" };
        let base = smooth(&outcomes[1].losses, 100);
        let against = |o: &Outcome| {
            let points = smooth(&o.losses, 100).into_iter().zip(&base);
            (o.name, o.color, points.map(|((step, v), (_, b))| (step, percent(v, *b))).collect())
        };
        let curves: Vec<_> = outcomes.iter().map(against).collect();
        std::fs::write(format!("{folder}/fp8-beside-bf16.svg"), beside.svg(steps, &curves))?;
        println!("wrote {folder}/fp8-loss.svg and {folder}/fp8-beside-bf16.svg");
    }
    Ok(())
}
