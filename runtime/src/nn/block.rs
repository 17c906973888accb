//! Transformer blocks: attention and a feed-forward layer, each around a residual.

use super::activation::{Activation, Dropout};
use super::attention::{AttentionOptions, SelfAttention};
use super::mlp::Mlp;
use super::norm::LayerNorm;
use crate::language::axis::Axis;
use crate::language::element::Float;
use crate::neural_module;
use crate::tensor::Tensor;

macro_rules! block {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[neural_module]
        pub struct $name<H: Axis, N: Axis, D: Axis, F: Axis> {
            /// The norm of attention.
            pub norm1: LayerNorm<H>,
            /// Attention, with biases.
            #[default(SelfAttention::default().bias())]
            pub attn: SelfAttention<H, N, D>,
            /// The norm of the feed-forward layer.
            pub norm2: LayerNorm<H>,
            /// The feed-forward layer.
            pub mlp: Mlp<H, F>,
            /// On what both add to the residual; off unless set.
            #[default(Dropout::new(0.0))]
            pub dropout: Dropout,
        }

        impl<H: Axis, N: Axis, D: Axis, F: Axis> $name<H, N, D, F> {
            /// Attention sees no later position.
            #[must_use]
            pub fn causal(mut self) -> Self {
                self.attn.options.causal = true;
                self
            }

            /// Other settings of attention.
            #[must_use]
            pub fn attention(mut self, options: AttentionOptions) -> Self {
                self.attn.options = options;
                self
            }

            /// Another activation of the feed-forward layer.
            #[must_use]
            pub fn activation(mut self, activation: Activation) -> Self {
                self.mlp.activation = activation;
                self
            }

            /// Dropout of weights and of what is added to the residual, in training.
            #[must_use]
            pub fn dropout(mut self, rate: f64) -> Self {
                self.attn.options.dropout = rate;
                self.dropout = Dropout::new(rate);
                self
            }
        }
    };
}

block! {
    /// A transformer block that normalises what enters attention and feed-forward (GPT-2):
    /// `x = x + attn(norm1(x))`, `x = x + mlp(norm2(x))`. Over `[B, T, H]`, with `N` heads of `D`
    /// features and a feed-forward width of `F`.
    /// PyTorch: `nn.TransformerEncoderLayer(norm_first=True)`.
    PreNormBlock
}

#[neural_module]
impl<H: Axis, N: Axis, D: Axis, F: Axis> PreNormBlock<H, N, D, F> {
    /// `[B, T, H]` to the same.
    pub fn forward<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        let x = x.plain() + self.dropout.forward(self.attn.forward(self.norm1.forward(x)));
        x + self.dropout.forward(self.mlp.forward(self.norm2.forward(x)))
    }
}

block! {
    /// A transformer block that normalises the residual after each addition (the original one,
    /// BERT): `x = norm1(x + attn(x))`, `x = norm2(x + mlp(x))`. Over `[B, T, H]`, with `N` heads
    /// of `D` features and a feed-forward width of `F`.
    /// PyTorch: `nn.TransformerEncoderLayer(norm_first=False)`.
    PostNormBlock
}

#[neural_module]
impl<H: Axis, N: Axis, D: Axis, F: Axis> PostNormBlock<H, N, D, F> {
    /// `[B, T, H]` to the same.
    pub fn forward<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        let x = self.norm1.forward(x.plain() + self.dropout.forward(self.attn.forward(x)));
        self.norm2.forward(x + self.dropout.forward(self.mlp.forward(x)))
    }
}
