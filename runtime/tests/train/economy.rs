//! A training step of a transformer in its shape for the device: what is copied, how many tasks and
//! how much memory it takes.

use mobilis::nn::{Embedding, GroupedSelfAttention, LayerNorm, Linear, PreNormBlock, RmsNorm, SwiGlu};
use mobilis::ops::rope::Rotary;
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions, TrainStep};

axes! { pub Batch; pub Time; pub Vocab = 50; pub Heads = 4; pub HeadDim = 8; pub Hidden = Heads * HeadDim; pub KvHeads = 2; pub Group = 2; pub Ffn = 4 * Hidden; }

#[neural_module]
struct Gpt {
    embed: Embedding<Vocab, Hidden>,
    #[default(std::array::from_fn(|_| PreNormBlock::default().causal()))]
    blocks: [PreNormBlock<Hidden, Heads, HeadDim, Ffn>; 4],
    norm: LayerNorm<Hidden>,
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Gpt {
    pub fn forward(&self, tokens: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, Vocab] {
        let x = self.blocks.iter().fold(self.embed.forward(tokens), |x, block| block.forward(x));
        self.head.forward(self.norm.forward(x))
    }
}

/// Rotated positions, grouped queries, gates: a block of a Llama.
#[neural_module]
struct Block {
    norm1: RmsNorm<Hidden>,
    #[default(GroupedSelfAttention::default().causal().rope(Rotary::default()))]
    attn: GroupedSelfAttention<Hidden, KvHeads, Group, HeadDim>,
    norm2: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Ffn>,
}

#[neural_module]
impl Block {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

type Pairs = (Tensor![Batch, Time; TokenId], Tensor![Batch, Time; TokenId]);

fn step() -> TrainStep<Pairs> {
    let model = Model::init(Gpt::default(), 1).expect("a model");
    let loss = |m: &Gpt, (x, y): Pairs| m.forward(x).cross_entropy(y);
    let mut step = model.train_step(AdamW::new(1e-3), TrainOptions::default(), loss).expect("a step");
    let tokens = <Array![Batch, Time; TokenId]>::from_fn([8, 64], |[b, t]| ((b * 31 + t * 7) % 50) as i32);
    let tokens = tokens.expect("an array");
    step.run((&tokens, &tokens)).expect("a step");
    step
}

#[test]
fn nothing_is_copied_and_the_arena_is_near_its_bound() {
    let step = step();
    // The gradient of the mean loss is one number for all positions.
    assert!(step.program().copies().expect("it has run") <= 1);
    let (arena, bound) = step.program().memory().expect("it has run");
    assert!(arena as f64 <= 1.1 * bound as f64, "{arena} bytes of memory, alive at once are {bound}");
}

#[test]
fn a_block_of_a_llama_copies_nothing() {
    let model = Model::init(Block::default(), 1).expect("a model");
    let loss = |m: &Block, x: Tensor![Batch, Time, Hidden]| {
        let y = m.forward(x);
        (y * y).mean_all()
    };
    let mut step = model.train_step(AdamW::new(1e-3), TrainOptions::default(), loss).expect("a step");
    let x = <Array![Batch, Time, Hidden]>::from_fn([2, 16, 32], |[b, t, h]| ((b + t * 7 + h) as f32).sin());
    step.run(x.expect("an array")).expect("a step");
    assert_eq!(step.program().copies(), Some(0));
    let chains = step.program().optimized().nodes.iter().filter(|n| n.op.rule().name() == "chain").count();
    assert!(chains < 26, "{chains} chains for nine parameters");
}

#[test]
fn a_block_is_few_nodes() {
    let step = step();
    let graph = step.program().optimized();
    let count = |name: &str| graph.nodes.iter().filter(|n| n.op.rule().name() == name).count();
    // A block multiplies four times forward and twice as often backward, for six weights each; the
    // projections of attention are one product, and so is the gradient of what is projected. The
    // head, its loss and the gradients of both are one.
    assert_eq!(count("product") + count("einsum"), 4 * (4 + 4 + 6));
    assert_eq!(count("linear_cross_entropy"), 1);
    let chains = count("chain");
    assert!(chains < 140, "{chains} chains");
}
