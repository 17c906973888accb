//! Layers: modules over the operations of [`crate::ops`], one file a family.
//!
//! A layer is an ordinary `#[neural_module]` struct. Its parameters have the shapes and names of
//! public checkpoints (PyTorch's layout, `[out, in]`), `Default` makes it with the settings that
//! most models use, and builder methods change them:
//! `Linear::default().no_bias()`, `SelfAttention::default().causal()`. Layers that work on the last
//! axis take any shape that ends with it. Layers that behave differently in training (dropout,
//! batch norm) ask the trace for its [`Mode`](crate::graph::trace::Mode).
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::nn::{RmsNorm, Rotary, SelfAttention, SwiGlu};
//! use mobilis::prelude::*;
//!
//! axes! { Batch; Time; Hidden = 64; Heads = 4; HeadDim = Hidden / Heads; Ffn = 3 * Hidden; }
//!
//! #[neural_module]
//! struct Block {
//!     norm1: RmsNorm<Hidden>,
//!     #[default(SelfAttention::default().causal().rope(Rotary::default()))]
//!     attn: SelfAttention<Hidden, Heads, HeadDim>,
//!     norm2: RmsNorm<Hidden>,
//!     mlp: SwiGlu<Hidden, Ffn>,
//! }
//!
//! #[neural_module]
//! impl Block {
//!     pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
//!         let x = x + self.attn.forward(self.norm1.forward(x));
//!         x + self.mlp.forward(self.norm2.forward(x))
//!     }
//! }
//! ```

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod block;
pub mod cache;
pub mod conv;
pub mod conv_transpose;
pub mod embedding;
pub mod linear;
pub mod listed;
pub mod mlp;
pub mod norm;
pub mod pool;
pub mod position;
pub mod recurrent;

pub use crate::ops::rope::{Pairing, Rotary, Scaling, Yarn};
pub use activation::{Activation, Dropout, Gelu, GeluTanh, LeakyRelu, Mish, Relu, Sigmoid, Silu, Softplus, Tanh};
pub use attention::{AttentionOptions, CrossAttention, GroupedSelfAttention, Places, SelfAttention};
pub use batch_norm::BatchNorm;
pub use block::{PostNormBlock, PreNormBlock};
pub use cache::{BoundedKvCache, KvCache};
pub use conv::{
    CausalConv1d, Conv1d, Conv2d, DepthwiseConv1d, DepthwiseConv2d, GroupedConv1d, GroupedConv2d, PointwiseConv1d,
    PointwiseConv2d, SameConv1d, SameConv2d,
};
pub use conv_transpose::{ConvTranspose1d, ConvTranspose2d};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::{Mlp, SwiGlu};
pub use norm::{GroupNorm, InstanceNorm, LayerNorm, RmsNorm};
pub use pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, Flatten, GlobalAvgPool, MaxPool1d, MaxPool2d,
};
pub use position::{AlibiBias, LearnedPositions, RelativeBias, RotaryEmbedding, SinusoidalPositions};
pub use recurrent::{BiGru, BiLstm, Gru, GruState, Lstm, LstmState};
