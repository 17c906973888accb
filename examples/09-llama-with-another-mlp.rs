//! A Llama with a feed-forward layer of one's own: the block is the library's, one of its parts is
//! not, a head for another task stands on top, and all that is left of Llama comes from a checkpoint.
//!
//! `cargo run --release --example 09-llama-with-another-mlp [FOLDER]`: the folder of a public Llama
//! (`config.json`, `model.safetensors`). Without one, a small Llama of random weights is saved first.

use mobilis::nn::Linear;
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};
use mobilis::zoo::llm::block::{Block, Layer, Stack, Stream};
use mobilis::zoo::llm::llama::{self, AnyLlama, Attention, LlamaAxes};
use mobilis::zoo::llm::{Batch, Config, ConfigError, Context, Ids, Time};
use std::path::PathBuf;

axes! {
    pub Kinds = 2;
}

/// In place of SwiGLU: one product, squared where it is positive, and one back.
#[neural_module]
pub struct Squared<H: Axis, F: Axis> {
    up: Linear<H, F>,
    down: Linear<F, H>,
}

/// This is all that a block asks of its parts.
impl<H: Axis, F: Axis> Layer<H> for Squared<H, F> {
    fn apply(&self, x: Stream<H>, _: &Context) -> Stream<H> {
        let inner = self.up.forward(x).relu();
        self.down.forward(inner * inner)
    }
}

/// Llama's embedding, its blocks with the other layer, its last norm, and a head that sorts texts.
#[neural_module(no_default)]
pub struct Sorter<A: LlamaAxes> {
    model: Stack<A::Vocab, A::Hidden, Block<A::Hidden, Attention<A>, Squared<A::Hidden, A::Ffn>>>,
    head: Linear<A::Hidden, Kinds>,
}

#[neural_module]
impl<A: LlamaAxes> Sorter<A> {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let layer = |_| Ok(Block::new(llama::attention::<A>(config)?, Squared::default(), llama::eps(config)?));
        let layers = (0..config.layers()?).map(layer).collect::<Result<_, ConfigError>>()?;
        Ok(Sorter { model: Stack::new(layers, llama::eps(config)?), head: Linear::default() })
    }

    pub fn forward(&self, ids: Ids) -> Tensor![Batch, Kinds] {
        self.head.forward(self.model.forward(ids, &Context::whole()).mean(Time))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().nth(1).map(PathBuf::from);
    let folder = given.clone().unwrap_or_else(|| std::env::temp_dir().join("mobilis-small-llama"));
    let text = given.map(|folder| std::fs::read_to_string(folder.join("config.json"))).transpose()?;
    let config = Config::parse("config.json", text.as_deref().unwrap_or(include_str!("data/small-llama.json")))?;
    let sizes = llama::sizes::<AnyLlama>(&config)?;
    if text.is_none() {
        Model::init_with(llama::llama::<AnyLlama>(&config)?, 1, sizes.clone())?.save(&folder)?;
    }

    // What is loaded is said; all else is new. Training leaves alone what was loaded.
    let kept = ["model.embed_tokens", "model.layers.*.self_attn", "model.layers.*.*_layernorm", "model.norm"];
    let load = kept.iter().fold(LoadOptions::new().sizes(sizes), |load, part| load.only(part));
    let mut model = load.load(Sorter::<AnyLlama>::new(&config)?, &folder)?;
    kept.iter().try_for_each(|part| model.freeze(&format!("{part}.**")).map(drop))?;
    println!("{} of {} parameters are trained", model.trainable_count(), model.parameter_count());

    // Texts of 12 tokens, sorted by whether their first is even.
    let ids = <Array![Batch, Time; Index]>::from_fn([64, 12], |i| ((i[0] * 37 + i[1] * i[0] * 11) % 60) as i32)?;
    let kinds = <Array![Batch; Labels]>::from_vec(ids.data().chunks(12).map(|row| row[0] % 2).collect())?;
    let loss = |m: &Sorter<AnyLlama>, (x, y): (Ids, Tensor![Batch; Labels])| m.forward(x).cross_entropy(y);
    let mut step = model.train_step(AdamW::new(0.003), TrainOptions::default(), loss)?;
    let losses = (0..=60).map(|_| step.run((&ids, &kinds)).map(|report| report.loss)).collect::<Result<Vec<_>, _>>()?;
    println!("loss {:.3}, after 60 steps {:.3}", losses[0], losses[60]);
    Ok(())
}
