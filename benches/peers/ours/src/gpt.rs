//! `step`: a training step of a small GPT: 4 layers of 256, 4 heads, 8 sequences of 256 tokens out
//! of 1,000, AdamW.

use crate::run::fill;
use mobilis::nn::{Embedding, LayerNorm, LearnedPositions, Linear, PreNormBlock};
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions, TrainStep};
use protocol::{Case, Refusal, tokens};
use serde_json::{Value, json};

axes! {
    pub Batch;
    pub Time;
    pub Positions = 256;
    pub Vocab = 1000;
    pub Heads = 4;
    pub HeadDim = 64;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 4 * Hidden;
}

#[neural_module]
struct Gpt {
    embed: Embedding<Vocab, Hidden>,
    positions: LearnedPositions<Positions, Hidden>,
    #[default(std::array::from_fn(|_| PreNormBlock::default().causal()))]
    blocks: [PreNormBlock<Hidden, Heads, HeadDim, Ffn>; 4],
    norm: LayerNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Gpt {
    fn forward(&self, tokens: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, Vocab] {
        let x = self.positions.forward(self.embed.forward(tokens));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.norm.forward(x))
    }
}

type Tokens = Tensor![Batch, Time; TokenId];
type TokenArray = Array![Batch, Time; TokenId];

struct Step {
    step: TrainStep<(Tokens, Tokens)>,
    x: TokenArray,
    y: TokenArray,
    losses: Vec<f32>,
}

impl Case for Step {
    fn run(&mut self) {
        let report = self.step.run((&self.x, &self.y)).expect("a step");
        if self.losses.len() < 3 {
            self.losses.push(report.loss as f32);
        }
    }
    fn values(&mut self) -> Vec<f32> {
        self.losses.clone()
    }
    fn profile(&mut self) -> Option<String> {
        self.step.profile((&self.x, &self.y), 15).ok().map(|p| p.to_text())
    }
    fn notes(&mut self) -> Value {
        let (arena, lower) = self.step.program().memory().unwrap_or_default();
        json!({ "arena": arena, "lower_bound": lower })
    }
}

pub fn step() -> Result<Box<dyn Case>, Refusal> {
    let model = Model::init(Gpt::default(), 1)?;
    fill(&model)?;
    let loss = |m: &Gpt, (x, y): (Tokens, Tokens)| m.forward(x).cross_entropy(y);
    let step = model.train_step(AdamW::new(1e-3), TrainOptions::default(), loss)?;
    let data = |name: &str| <Array![Batch, Time; TokenId]>::new([8, 256], tokens(name, 8 * 256, 1000));
    let mut case = Step { step, x: data("x")?, y: data("y")?, losses: vec![] };
    (0..3).for_each(|_| case.run());
    Ok(Box::new(case))
}
