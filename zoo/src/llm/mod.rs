//! Language models: one file a family.
//!
//! A family is a struct of layers, generic over a bundle of axes, so that one definition serves
//! sizes that the compiler knows and sizes from a `config.json`. The way from a checkpoint to
//! tokens:
//!
//! 1. [`config`] reads a `config.json` in either spelling that Hugging Face has used.
//! 2. [`family`] finds the family by `model_type`, builds the module and loads the tensors. What
//!    comes out is a [`TextModel`]: the family's own type is gone.
//! 3. [`session`] compiles it over caches ([`context`]), and gives logits for tokens.
//!
//! Two other kinds of models stand beside those that continue texts: encoders ([`encoder`]), which
//! give vectors for texts, and encoder-decoders ([`seq2seq`]), which give other texts for them.
//! [`open`] opens any of the three.
//!
//! To add a family: a file with its axes, its layers (most are a [`block::Block`] with another
//! attention or another feed-forward layer), a constructor from a [`Config`], and
//! a line in [`family::FAMILIES`].

use mobilis_runtime::prelude::*;

pub mod bart;
pub mod bert;
pub mod block;
pub mod config;
pub mod context;
pub mod deepseek;
pub mod distilbert;
pub mod encoder;
pub mod family;
pub mod gemma;
pub mod gpt2;
pub mod llama;
pub mod loss;
pub mod mamba;
pub mod mamba2;
pub mod mistral;
pub mod mixtral;
pub mod moe;
pub mod names;
pub mod open;
pub mod phi3;
pub mod qwen;
pub mod qwen_moe;
pub mod recurrent;
pub mod roberta;
pub mod seq2seq;
pub mod session;
pub mod t5;

pub use block::{Block, Layer, Stack};
pub use config::{Config, ConfigError};
pub use context::{Caches, Context};
pub use family::TextModel;
pub use session::{Logits, Session, SessionOptions, Sessions};

axes! {
    /// Texts that are worked on together.
    pub Batch;
    /// The positions given in one call.
    pub Time;
    /// The positions that a cache has room for.
    pub Slots;
    /// The positions that a cache of a sliding window has room for.
    pub Ring;
}

/// The ids of tokens.
pub type Ids = Tensor<(Batch, Time), Index>;

/// A model that continues texts.
///
/// `forward` of a family is `head(stream(ids, cx))`: the logits `[Batch, Time, Vocab]` of the token
/// after each position.
pub trait CausalLm: Module + 'static {
    /// The width of the stream.
    type Hidden: Axis;
    /// The tokens.
    type Vocab: Axis;

    /// What enters the head: `[Batch, Time, Hidden]`, after the last norm.
    fn stream(&self, ids: Ids, cx: &Context) -> Tensor<(Batch, Time, Self::Hidden)>;

    /// Logits of a stream.
    fn head<T: Axis>(&self, stream: Tensor<(Batch, T, Self::Hidden)>) -> Tensor<(Batch, T, Self::Vocab)>;

    /// The length beyond which a text is computed otherwise from its start on, so that one that grows
    /// past it is read anew (Phi-3's long rope).
    fn switch(&self) -> Option<usize> {
        None
    }

    /// The widest sliding window of its layers: what caches of such layers must have room for.
    fn window(&self) -> Option<u64> {
        None
    }

    /// The logits of whole texts, without caches.
    fn logits(&self, ids: Ids) -> Tensor<(Batch, Time, Self::Vocab)> {
        self.head(self.stream(ids, &Context::whole()))
    }
}
