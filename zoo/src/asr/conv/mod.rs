//! Convolutional encoders: Jasper, QuartzNet, Citrinet, MatchboxNet, MarbleNet, and the body of TitaNet.
//!
//! NeMo builds all of them from one class, `ConvASREncoder`, and a list of blocks in the configuration (`jasper`):
//! Li et al. 2019 (Jasper, <https://arxiv.org/abs/1904.03288>), Kriman et al. 2019 (QuartzNet, separable
//! convolutions, <https://arxiv.org/abs/1910.10261>), Majumdar et al. 2021 (Citrinet, squeeze and excitation,
//! <https://arxiv.org/abs/2104.01721>), Majumdar and Ginsburg 2020 (MatchboxNet,
//! <https://arxiv.org/abs/2004.08531>), Jia et al. 2021 (MarbleNet, <https://arxiv.org/abs/2010.13886>). So does
//! this: [`settings`] reads the list, [`block`] makes a block of an entry, [`encoder`] joins them, [`heads`] read
//! what comes out, [`presets`] has the published lists, [`ctc`] recognizes speech with them, [`classify`] tells recordings apart.
//!
//! Features `[Batch, Frames, Features]` and their lengths go in; the stream `[Batch, Steps, Hidden]` and its lengths
//! come out, where [`Steps`] are the frames behind all strides. Every block has a width of its own, which no axis
//! names: inside, streams are untyped `[batch, channels, time]` (see [`mobilis_runtime::nn::listed`]), and the graph
//! checks sizes when the encoder is traced. Before each convolution, frames beyond a recording's length are made
//! zero, so that nobody's result depends on who shares the batch.

pub mod block;
pub mod classify;
pub mod ctc;
pub mod encoder;
pub mod heads;
pub mod presets;
pub mod settings;

pub use classify::{ClassRecognizer, ConvClassifier};
pub use ctc::{ConvCtc, ConvRecognizer};
pub use encoder::ConvEncoder;
pub use heads::{Classifier, CtcHead, FrameClassifier};
pub use settings::{BlockSettings, ConvSettings};

use mobilis_runtime::prelude::*;

axes! {
    /// What a convolutional model's ports have.
    pub trait ConvAxes {
        /// Features of a frame.
        Features,
        /// The width of the encoder's last block.
        Hidden,
        /// What the head tells apart.
        Classes,
    }
    /// A model of sizes from a configuration.
    pub struct AnyConv: ConvAxes;
    /// Frames behind the encoder's strides, of the longest recording in the batch.
    pub Steps;
}

/// Features of recordings, `[Batch, Frames, Features]`.
pub type FeaturesOf<A> = Tensor<(crate::audio::Batch, crate::audio::Frames, <A as ConvAxes>::Features)>;
/// What an encoder gives, `[Batch, Steps, Hidden]`.
pub type Stream<A> = Tensor<(crate::audio::Batch, Steps, <A as ConvAxes>::Hidden)>;
/// How many positions of an axis count, for each recording.
pub type Counts<F> = Tensor<(crate::audio::Batch,), Lengths<F>>;
