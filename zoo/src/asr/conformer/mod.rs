//! Conformer and FastConformer: encoders of convolution and attention, and what reads them.
//!
//! Gulati et al. 2020 (<https://arxiv.org/abs/2005.08100>) and Rekesh et al. 2023
//! (<https://arxiv.org/abs/2305.05084>), as NeMo's `ConformerEncoder`; Parakeet of Hugging Face is the
//! same under other names.
//!
//! Features `[Batch, Frames, Mels]` and their lengths go into a [`ConformerEncoder`], which first makes four or
//! eight frames one ([`subsampling`], [`stacking`]) and then passes them through layers ([`layer`]) of feed-forward
//! products, attention with relative positions ([`attention`]) and a convolution. Out comes the stream
//! `[Batch, Steps, Hidden]`, which a head reads: [`ctc`] or a [`transducer`]. [`Network`] is a model from a
//! file, its family's type gone; a [`ConformerRecognizer`] adds features and tokens.
//!
//! One definition serves all sizes and both directions of time: whole recordings, recordings in windows
//! where frames see a bounded number of others, and streams, of which caches remember what the next
//! part needs. What is computed for a frame is the same in all of them, to the last bit on the CPU.

pub mod attention;
pub mod axes;
pub mod ctc;
pub mod encoder;
mod global;
pub mod layer;
pub mod listening;
mod mask;
pub mod model;
pub mod network;
pub mod pass;
mod position;
pub mod presets;
pub mod recognizer;
pub mod score;
pub mod settings;
pub mod stacking;
pub mod streaming;
pub mod subsampling;
pub mod transducer;

pub use axes::{AnyConformer, ConformerAxes, Rate};
pub use ctc::CtcHead;
pub use encoder::ConformerEncoder;
pub use listening::Listening;
pub use model::{Conformer, ModelSettings};
pub use network::Network;
pub use recognizer::{ConformerRecognizer, RecognizeError};
pub use settings::{Context, Settings};
