//! Wav2Vec 2.0 with a CTC head: from samples to letters, without a spectrogram.
//!
//! Baevski et al. 2020 (<https://arxiv.org/abs/2006.11477>), as Hugging Face's `modeling_wav2vec2.py`, whose
//! parameter names are kept. Strided convolutions make a frame of every 20 ms; a wide convolution tells the
//! frames apart by place; a transformer reads them. There are two variants: the first models normalise
//! channels of the first convolution over the whole recording (`feat_extract_norm: group`) and norm after
//! each addition, and hear padding, so that recordings of different lengths cannot share a batch; the large
//! ones (`layer`, `do_stable_layer_norm`) norm before, and see only what counts.
//!
//! Widths come from lists in the configuration, so streams are untyped inside (see
//! [`mobilis_runtime::nn::listed`]): `[batch, channels, time]` in the convolutions, `[batch, time, width]`
//! behind them.
//!
//! | file | holds |
//! |---|---|
//! | `model.rs` | the network |
//! | `recognize.rs` | the loaded network with its alphabet: recordings to words |

mod model;
mod recognize;

pub use model::{Wav2Vec2Ctc, wav2vec2};
pub use recognize::{Scores, Wav2Vec2Recognizer};
