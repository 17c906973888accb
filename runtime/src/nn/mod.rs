//! Layers: modules over the operations of [`crate::ops`], one file a family.
//!
//! A layer is an ordinary `#[neural_module]` struct. Its parameters have the shapes and names of
//! public checkpoints (PyTorch's layout, `[out, in]`), `Default` makes it with the settings that
//! most models use, and builder methods change them:
//! `Linear::default().no_bias()`, `SelfAttention::default().causal()`. Layers that work on the last
//! axis take any shape that ends with it. Layers that behave differently in training (dropout,
//! batch norm) ask the trace for its [`Mode`](crate::graph::trace::Mode).

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod block;
pub mod cache;
pub mod embedding;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod position;

pub use crate::ops::rope::{Pairing, Rotary, Scaling, Yarn};
pub use activation::{Activation, Dropout, Gelu, GeluTanh, LeakyRelu, Mish, Relu, Sigmoid, Silu, Softplus, Tanh};
pub use attention::{AttentionOptions, CrossAttention, GroupedSelfAttention, SelfAttention};
pub use batch_norm::BatchNorm;
pub use block::{PostNormBlock, PreNormBlock};
pub use cache::{BoundedKvCache, KvCache};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::{Mlp, SwiGlu};
pub use norm::{GroupNorm, InstanceNorm, LayerNorm, RmsNorm};
pub use position::{AlibiBias, LearnedPositions, RelativeBias, RotaryEmbedding, SinusoidalPositions};
