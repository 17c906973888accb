//! The decoder that nearly all families share: pre-norm blocks between an embedding and a norm.
//!
//! A [`Block`] is an attention layer and a feed-forward layer, each behind an RMS norm and beside a
//! residual. Both are parameters: a family that differs in one of them names another type, and one
//! whose block is of another form brings a [`Layer`] of its own. [`Stack`] runs the layers.
//!
//! Names are those of Hugging Face's `LlamaForCausalLM`.

use super::{Batch, CausalLm, Context, Ids, Time};
use mobilis_runtime::nn::{Embedding, GroupedSelfAttention, Linear, RmsNorm, SwiGlu};
use mobilis_runtime::prelude::*;

/// A stream between two layers: `[Batch, Time, H]`.
pub type Stream<H> = Tensor<(Batch, Time, H)>;

/// A layer of a decoder, which may look back at what came before.
pub trait Layer<H: Axis>: Module {
    /// The layer's result.
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H>;

    /// The positions that it looks back to, its own included, where these are bounded.
    fn window(&self) -> Option<u64> {
        None
    }
}

impl<H: Axis, K: Axis, G: Axis, D: Axis> Layer<H> for GroupedSelfAttention<H, K, G, D> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        self.forward_at(x, cx.places(), |(q, k, v), options| cx.attend(q, k, v, options))
    }

    fn window(&self) -> Option<u64> {
        self.options.window
    }
}

impl<H: Axis, F: Axis> Layer<H> for SwiGlu<H, F> {
    fn apply(&self, x: Stream<H>, _: &Context) -> Stream<H> {
        self.forward(x)
    }
}

/// Attention `A` and a feed-forward layer `F`, each behind a norm and beside a residual:
/// `x + attn(norm(x))`, then `x + mlp(norm(x))`.
#[neural_module(no_default)]
pub struct Block<H: Axis, A: Layer<H>, F: Layer<H>> {
    /// Attention.
    pub self_attn: A,
    /// The feed-forward layer.
    pub mlp: F,
    /// The norm before attention.
    pub input_layernorm: RmsNorm<H>,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm<H>,
}

impl<H: Axis, A: Layer<H>, F: Layer<H>> Block<H, A, F> {
    /// A block whose norms have this epsilon.
    pub fn new(self_attn: A, mlp: F, eps: f64) -> Self {
        let norm = || RmsNorm::default().eps(eps);
        Block { self_attn, mlp, input_layernorm: norm(), post_attention_layernorm: norm() }
    }
}

#[neural_module]
impl<H: Axis, A: Layer<H>, F: Layer<H>> Block<H, A, F> {
    /// Attention and feed-forward, each behind a norm and beside a residual.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        let x = x + self.self_attn.apply(self.input_layernorm.forward(x), cx);
        x + self.mlp.apply(self.post_attention_layernorm.forward(x), cx)
    }
}

impl<H: Axis, A: Layer<H>, F: Layer<H>> Layer<H> for Block<H, A, F> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        self.forward(x, cx)
    }

    fn window(&self) -> Option<u64> {
        self.self_attn.window()
    }
}

/// Attention `A` and a feed-forward layer `F`, each between two norms and beside a residual (Gemma):
/// `x + norm(attn(norm(x)))`, then `x + norm(mlp(norm(x)))`.
#[neural_module(no_default)]
pub struct SandwichBlock<H: Axis, A: Layer<H>, F: Layer<H>> {
    /// Attention.
    pub self_attn: A,
    /// The feed-forward layer.
    pub mlp: F,
    /// The norm before attention.
    pub input_layernorm: RmsNorm<H>,
    /// The norm after attention.
    pub post_attention_layernorm: RmsNorm<H>,
    /// The norm before the feed-forward layer.
    pub pre_feedforward_layernorm: RmsNorm<H>,
    /// The norm after the feed-forward layer.
    pub post_feedforward_layernorm: RmsNorm<H>,
}

impl<H: Axis, A: Layer<H>, F: Layer<H>> SandwichBlock<H, A, F> {
    /// A block whose norms are made by a function.
    pub fn new(self_attn: A, mlp: F, norm: impl Fn() -> RmsNorm<H>) -> Self {
        SandwichBlock {
            self_attn,
            mlp,
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: norm(),
            post_feedforward_layernorm: norm(),
        }
    }
}

#[neural_module]
impl<H: Axis, A: Layer<H>, F: Layer<H>> SandwichBlock<H, A, F> {
    /// Attention and feed-forward, each between two norms and beside a residual.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        let found = self.self_attn.apply(self.input_layernorm.forward(x), cx);
        let x = x + self.post_attention_layernorm.forward(found);
        let found = self.mlp.apply(self.pre_feedforward_layernorm.forward(x), cx);
        x + self.post_feedforward_layernorm.forward(found)
    }
}

impl<H: Axis, A: Layer<H>, F: Layer<H>> Layer<H> for SandwichBlock<H, A, F> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        self.forward(x, cx)
    }

    fn window(&self) -> Option<u64> {
        self.self_attn.window()
    }
}

/// An embedding, layers, and a norm.
#[neural_module(no_default)]
pub struct Stack<V: Axis, H: Axis, L: Layer<H>> {
    /// `[V, H]`
    pub embed_tokens: Embedding<V, H>,
    /// The layers, in order.
    pub layers: Vec<L>,
    /// The norm after the last layer.
    pub norm: RmsNorm<H>,
    /// What embeddings are multiplied by.
    pub scale: f64,
}

impl<V: Axis, H: Axis, L: Layer<H>> Stack<V, H, L> {
    /// A stack of these layers.
    pub fn new(layers: Vec<L>, eps: f64) -> Self {
        Stack { layers, norm: RmsNorm::default().eps(eps), embed_tokens: Embedding::default(), scale: 1.0 }
    }
}

#[neural_module]
impl<V: Axis, H: Axis, L: Layer<H>> Stack<V, H, L> {
    /// The stream after the last norm.
    pub fn forward(&self, ids: Ids, cx: &Context) -> Stream<H> {
        let mut x = self.embed_tokens.forward(ids);
        if self.scale != 1.0 {
            x = x * self.scale;
        }
        x = cx.note(x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.apply(x, &cx.layer(i));
            if i + 1 < self.layers.len() {
                x = cx.note(x);
            }
        }
        cx.note(self.norm.forward(x))
    }
}

/// A [`Stack`] with a head, which is the embedding's table where there is none of its own.
#[neural_module(no_default)]
pub struct Decoder<V: Axis, H: Axis, L: Layer<H>> {
    /// All but the head.
    pub model: Stack<V, H, L>,
    /// `[V, H]`; the embedding's table where it is tied.
    pub lm_head: Option<Linear<H, V>>,
    /// Bounds logits smoothly to `±cap` (Gemma 2).
    #[hyper]
    pub soft_cap: Option<f64>,
    /// Texts of more positions are computed otherwise from their start on (Phi-3's long rope): a
    /// text that grows past so many is read anew.
    #[hyper]
    pub switch: Option<usize>,
}

impl<V: Axis, H: Axis, L: Layer<H>> Decoder<V, H, L> {
    /// A decoder of these layers.
    pub fn new(layers: Vec<L>, eps: f64, tied: bool) -> Self {
        let model = Stack::new(layers, eps);
        let lm_head = (!tied).then(|| Linear::default().no_bias());
        Decoder { model, lm_head, soft_cap: None, switch: None }
    }
}

impl<V: Axis, H: Axis, L: Layer<H> + 'static> CausalLm for Decoder<V, H, L> {
    type Hidden = H;
    type Vocab = V;

    fn window(&self) -> Option<u64> {
        self.model.layers.iter().filter_map(Layer::window).max()
    }

    fn stream(&self, ids: Ids, cx: &Context) -> Stream<H> {
        self.model.forward(ids, cx)
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, H)>) -> Tensor<(Batch, T, V)> {
        let logits = match &self.lm_head {
            Some(head) => head.forward(x),
            None => self.model.embed_tokens.attend(x),
        };
        match self.soft_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    fn switch(&self) -> Option<usize> {
        self.switch
    }
}
