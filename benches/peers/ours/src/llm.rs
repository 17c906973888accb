//! Language models of 124 million weights: `prompt SHAPE TOKENS FORMAT` computes the logits of the
//! last position of a prompt, `decode SHAPE FORMAT` those of the token after a prompt of 128.

use crate::run::{Fixed, fill, format};
use mobilis::nn::{
    AttentionOptions, BoundedKvCache, Embedding, LayerNorm, LearnedPositions, Linear, PreNormBlock, RmsNorm, Rotary,
    SelfAttention, SwiGlu,
};
use mobilis::prelude::*;
use protocol::{Case, Refusal, number, tokens};

axes! {
    pub Batch;
    pub Time;
    pub Positions = 1024;
    pub Cached = 256;
    pub Vocab = 50257;
    pub Heads = 12;
    pub HeadDim = 64;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 4 * Hidden;
    pub Gated = 2048;
}

type Tokens = Tensor![Batch, Time; TokenId];
type TokenArray = Array![Batch, Time; TokenId];
type Logits = Tensor![Batch, 1, Vocab];
type Cache = BoundedKvCache<Batch, Cached, Heads, HeadDim>;

/// The last position.
fn last(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, 1, Hidden] {
    x.flip(Time).slice(Time, Const::<1>, 0)
}

/// The shape of GPT-2.
#[neural_module]
struct Gpt2 {
    embed: Embedding<Vocab, Hidden>,
    positions: LearnedPositions<Positions, Hidden>,
    #[default(std::array::from_fn(|_| PreNormBlock::default().causal()))]
    blocks: [PreNormBlock<Hidden, Heads, HeadDim, Ffn>; 12],
    norm: LayerNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Gpt2 {
    fn forward(&self, tokens: Tokens) -> Logits {
        let x = self.positions.forward(self.embed.forward(tokens));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.norm.forward(last(x)))
    }
}

fn options() -> AttentionOptions {
    AttentionOptions { causal: true, rope: Some(Rotary::default()), ..AttentionOptions::default() }
}

/// A layer of Llama.
#[neural_module]
struct LlamaBlock {
    #[default(RmsNorm::default().eps(1e-5))]
    norm1: RmsNorm<Hidden>,
    #[default(SelfAttention::default().with(options()))]
    attn: SelfAttention<Hidden, Heads, HeadDim>,
    #[default(RmsNorm::default().eps(1e-5))]
    norm2: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Gated>,
}

#[neural_module]
impl LlamaBlock {
    fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

impl LlamaBlock {
    fn step(
        &self,
        x: Tensor![Batch, Time, Hidden],
        cache: &Cache,
        at: Tensor![; Index],
    ) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.step_in_place(self.norm1.forward(x), cache, at);
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

/// The shape of Llama.
#[neural_module]
struct Llama {
    embed: Embedding<Vocab, Hidden>,
    #[default(std::array::from_fn(|_| LlamaBlock::default()))]
    blocks: [LlamaBlock; 12],
    #[default(RmsNorm::default().eps(1e-5))]
    norm: RmsNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Llama {
    fn forward(&self, tokens: Tokens) -> Logits {
        let x = self.blocks.iter().fold(self.embed.forward(tokens), |x, block| block.forward(x));
        self.head.forward(self.norm.forward(last(x)))
    }
}

impl Llama {
    fn step(&self, tokens: Tokens, caches: &[Cache], at: Tensor![; Index]) -> Logits {
        let blocks = self.blocks.iter().zip(caches);
        let x = blocks.fold(self.embed.forward(tokens), |x, (block, cache)| block.step(x, cache, at));
        self.head.forward(self.norm.forward(last(x)))
    }
}

fn text(count: usize) -> Result<TokenArray, Refusal> {
    // A prefix of one text for all lengths.
    Ok(TokenArray::new([1, count], tokens("prompt", 1024, 50257)[..count].to_vec())?)
}

pub fn prompt(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let (arrays, format) = (text(number(words, 2)?)?, format(words[3])?);
    Ok(match words[1] {
        "gpt2" => {
            let model = Model::init(Gpt2::default(), 1)?;
            fill(&model)?;
            let program = model.compile(|m, x: Tokens| m.forward(x))?.with_weights(format)?;
            Box::new(Fixed { program, arrays })
        }
        "llama" => {
            let model = Model::init(Llama::default(), 1)?;
            fill(&model)?;
            let program = model.compile(|m, x: Tokens| m.forward(x))?.with_weights(format)?;
            Box::new(Fixed { program, arrays })
        }
        other => return Err(format!("no shape `{other}`").into()),
    })
}

pub fn decode(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    if words[1] != "llama" {
        return Err(format!("no shape `{}`", words[1]).into());
    }
    let format = format(words[2])?;
    let model = Model::init(Llama::default(), 1)?;
    fill(&model)?;
    let caches: [Cache; 12] = Default::default();
    let program = model.compile(|m, (x, at): (Tokens, Tensor![; Index])| m.step(x, &caches, at))?;
    let program = program.with_weights(format)?;
    let all = text(129)?;
    let (prompt, next) = all.data().split_at(128);
    program.run((&TokenArray::new([1, 128], prompt.to_vec())?, &<Array![; Index]>::scalar(0)))?;
    // Every run writes position 128 anew.
    let arrays = (TokenArray::new([1, 1], next.to_vec())?, <Array![; Index]>::scalar(128));
    Ok(Box::new(Fixed { program, arrays }))
}
