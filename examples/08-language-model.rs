//! A language model that learns to write from one book, in about a minute on two cores.
//!
//! `cargo run --release --example 08-language-model` (or `mobilis demo`, which runs this code)
//!
//! The model is a small transformer over bytes. What makes it learn fast is its embedding: every
//! position is the sum of the vectors of its byte and of the last 2, 3, .. 6 bytes, hashed into
//! tables. A table costs no arithmetic, and one that starts at zero says nothing where it has seen
//! nothing, so the transformer spends its minute on what short contexts cannot tell.

use mobilis::module::init::{Init, WithInit};
use mobilis::nn::{Activation, Embedding, Linear, Mlp, RmsNorm, Rotary, SelfAttention};
use mobilis::ops::pad::Padding;
use mobilis::prelude::*;
use mobilis::train::{AdamW, Group, History, Muon, Progress, Schedule, TrainOptions, Trainer};
use std::error::Error;
use std::time::Duration;

axes! {
    /// Windows of text in a batch.
    pub Batch;
    /// Bytes in a window.
    pub Time;
    /// A window and the place before it.
    pub Longer = Time + 1;
    pub Bytes = 256;
    /// Rows of a table of n-grams.
    pub Rows = 16384;
    pub Hidden = 128;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Ffn = 3 * Hidden;
}

/// Attention and a feed-forward layer, each behind a norm and beside a residual.
#[neural_module]
pub struct Block {
    norm1: RmsNorm<Hidden>,
    #[default(SelfAttention::default().causal().rope(Rotary::default()).qk_norm(1e-6))]
    attn: SelfAttention<Hidden, Heads, HeadDim>,
    norm2: RmsNorm<Hidden>,
    #[default(Mlp::default().no_bias().activation(Activation::ReluSquared))]
    mlp: Mlp<Hidden, Ffn>,
}

#[neural_module]
impl Block {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

/// From the bytes so far to the next one.
#[neural_module]
pub struct ByteModel {
    #[init(normal(0.5))]
    embed: Embedding<Bytes, Hidden>,
    /// One table for every length from 2 on.
    #[default(std::array::from_fn(|_| Embedding::default().with_init(Init::Zeros)))]
    embed_grams: [Embedding<Rows, Hidden>; 5],
    blocks: [Block; 2],
    norm: RmsNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    #[init(zeros())]
    head: Linear<Hidden, Bytes>,
}

#[neural_module]
impl ByteModel {
    /// The logits of the byte that follows each byte.
    pub fn forward(&self, bytes: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Bytes] {
        let mut x = self.embed.forward(bytes);
        // The hash of n bytes from that of the n - 1 bytes one place earlier.
        let mut hash = bytes;
        for table in &self.embed_grams {
            let earlier: Tensor![Batch, Longer; Index] =
                hash.pad(Time, Const::<1>, Const::<0>, Padding::Constant(0.0)).relabel();
            hash = (earlier.slice(Longer, Time, 0) * 509 + bytes) % 4_194_301;
            x = x + table.forward(hash % 16384);
        }
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.head.forward(self.norm.forward(x))
    }

    /// The mean cross-entropy in nats per byte; -100 is not asked for.
    pub fn loss(&self, bytes: Tensor![Batch, Time; Index], next: Tensor![Batch, Time; Index]) -> Tensor![] {
        self.forward(bytes).cross_entropy(next)
    }
}

type Windows = Array![Batch, Time; Index];
type Examples = (Tensor![Batch, Time; Index], Tensor![Batch, Time; Index]);

/// The bytes of a window.
pub const WINDOW: usize = 128;

/// The windows that begin at each of `starts`, and what follows each of their bytes. The first
/// `skip` bytes of a window are only read.
fn windows(text: &[u8], starts: &[usize], skip: usize) -> (Windows, Windows) {
    let cut = |shift: usize| starts.iter().flat_map(move |s| (0..WINDOW).map(move |i| (i, text[s + shift + i])));
    let bytes = cut(0).map(|(_, byte)| byte.into()).collect();
    let next = cut(1).map(|(i, byte)| if i < skip { -100 } else { byte.into() }).collect();
    let sizes = [starts.len(), WINDOW];
    (Array::from_parts(&sizes, bytes), Array::from_parts(&sizes, next))
}

/// Windows in a batch.
pub const BATCH: usize = 32;

/// A model that knows nothing yet.
pub fn new_model() -> Result<Model<ByteModel>, Box<dyn Error>> {
    Ok(Model::init(ByteModel::default(), 1)?)
}

/// Trains a model on `text` for so many seconds.
pub fn train(
    model: &Model<ByteModel>,
    text: &[u8],
    seconds: f64,
    show: impl FnMut(&Progress),
) -> Result<History, Box<dyn Error>> {
    // Matrices by Muon, tables by AdamW; the head and the norms want smaller steps than those.
    // Decay keeps the tables from learning the book by heart where it has a phrase only once.
    let tables = AdamW::new(0.04).betas(0.9, 0.95).weight_decay(0.0);
    // In percent of the time: up for 2, on the height for 38, down to zero for 60.
    let schedule = Schedule::wsd(100, 60).warmup(2);
    let options = TrainOptions::default()
        .schedule(schedule)
        .group(Group::new("embed_grams.**").weight_decay(0.2))
        .group(Group::new("head.*").lr_scale(0.15))
        .group(Group::new("**.*norm*.*").lr_scale(0.1));
    let muon = Muon::new(0.02, 0.04).rest(tables);
    let mut step = model.train_step(muon, options, |m, (bytes, next): Examples| m.loss(bytes, next))?;
    // Every window once in an order that jumps about, then all of them again a little further on.
    let count = (text.len() - WINDOW - 1) / WINDOW - 1;
    let start = |k: usize| k % count * 1_000_003 % count * WINDOW + k / count * 61 % WINDOW;
    let batch = |i: u64| {
        let starts: Vec<usize> = (i as usize * BATCH..(i as usize + 1) * BATCH).map(start).collect();
        windows(text, &starts, 0)
    };
    let time = Duration::from_secs_f64(seconds);
    Ok(Trainer::new(&mut step).time(time).progress(show).run(batch)?)
}

/// The loss on `text` in nats per byte, each byte predicted from at least half a window.
pub fn evaluate(model: &Model<ByteModel>, text: &[u8]) -> Result<f64, Box<dyn Error>> {
    let program = model.compile(|m, (bytes, next): Examples| m.loss(bytes, next))?;
    let starts: Vec<usize> = (0..text.len().saturating_sub(WINDOW)).step_by(WINDOW / 2).collect();
    let mut sum = 0.0;
    for some in starts.chunks(32) {
        let mean = program.run(windows(text, some, WINDOW / 2))?.item();
        sum += f64::from(mean) * some.len() as f64;
    }
    Ok(sum / starts.len() as f64)
}

/// Writes `length` bytes behind a prompt. Equal seeds write equal texts.
pub fn write(model: &Model<ByteModel>, prompt: &str, length: usize, seed: u64) -> Result<String, Box<dyn Error>> {
    let program = model.compile(|m, bytes: Tensor![Batch, Time; Index]| m.forward(bytes))?;
    let mut text = format!("\n{prompt}").into_bytes();
    let mut dice = seed;
    for _ in 0..length {
        // The last window. What it holds behind the text changes nothing: the model is causal.
        let from = text.len().saturating_sub(WINDOW);
        let mut window: Vec<i32> = text[from..].iter().map(|b| i32::from(*b)).collect();
        window.resize(WINDOW, 0);
        let logits = program.run(<Windows>::from_parts(&[1, WINDOW], window))?;
        let row: Vec<f32> = (0..256).map(|b| logits[[0, text.len() - 1 - from, b]]).collect();
        text.push(sample(&row, 0.7, &mut dice));
    }
    Ok(String::from_utf8_lossy(&text[1..]).into_owned())
}

/// A byte with probability `softmax(logits / temperature)`.
fn sample(logits: &[f32], temperature: f32, dice: &mut u64) -> u8 {
    // SplitMix64 (Steele et al. 2014).
    *dice = dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*dice ^ (*dice >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let uniform = (mixed >> 40) as f32 / (1u64 << 24) as f32;
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|l| ((l - top) / temperature).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f32>();
    let chosen = weights.iter().position(|w| {
        left -= w;
        left < 0.0
    });
    chosen.unwrap_or(usize::from(b' ')) as u8
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(60.0), |s| s.parse())?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/moby_dick.txt");
    let text = std::fs::read(path)?;
    let (seen, unseen) = text.split_at(text.len() / 10 * 9);

    let model = new_model()?;
    let history = train(&model, seen, seconds, |p| {
        if p.step.is_multiple_of(50) {
            println!("step {:4}  loss {:.3}  {:.0} s left", p.step, p.average, p.remaining.as_secs_f64());
        }
    })?;
    println!("{} parameters", model.parameter_count());
    println!("loss on what it read: {:.3} nats per byte", history.recent(50));
    println!("loss on the last tenth, which it did not: {:.3}", evaluate(&model, unseen)?);
    println!("---\n{}", write(&model, "Call me Ishmael.", 300, 1)?);
    Ok(())
}
