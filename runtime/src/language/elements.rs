//! The standard elements: NeMo's neural types, at compile time.
//!
//! NeMo attaches these to tensors while a program runs and loses them at the first addition; here
//! they are part of the type. Names follow Rust: `MelSpectrogramType` is [`MelSpectrogram`]. Of
//! NeMo's 42 types, `Index` is the base class [`Index`] itself, and
//! `VoidType` (anything goes) is a type parameter `E: Element`; strings are tensors of UTF-8
//! bytes. [`AudioSignal`] carries its sampling rate and [`Lengths`] the axis that it counts, so
//! that 8 kHz does not enter a 16 kHz model, and samples do not pass for frames.

use super::axis::Axis;
use super::element::{Index, Mask, Real};
use crate::elements;

elements! {
    // ---- channels: real vectors along one axis --------------------------------------------

    /// Values along a channel axis, whatever they mean.
    pub Channels: Real;
    /// Text after an embedding layer.
    pub EmbeddedText: Channels;
    /// The output of an encoder.
    pub Encoded: Channels;
    /// The output of an acoustic encoder.
    pub AcousticEncoded: Encoded;
    /// Energy by frequency and frame, linear or logarithmic.
    pub Spectrogram: Channels;
    /// A spectrogram on the mel scale (Stevens, Volkmann and Newman 1937).
    pub MelSpectrogram: Spectrogram;
    /// Mel-frequency cepstral coefficients (Davis and Mermelstein 1980).
    pub MfccSpectrogram: Spectrogram;

    // ---- scores and probabilities ----------------------------------------------------------

    /// Unnormalized log-probabilities: what goes into a softmax.
    pub Logits: Real;
    /// Probabilities: not negative, summing to one along their axis.
    pub Probs: Real;
    /// Logarithms of probabilities (natural).
    pub LogProbs: Real;
    /// A loss: what is minimized.
    pub Loss: Real;
    /// The logarithm of the absolute value of a determinant, of normalizing flows.
    pub LogDeterminant: Real;
    /// Samples of a distribution.
    pub DistributionSamples: Real;
    /// Samples of a normal distribution.
    pub NormalSamples: DistributionSamples;
    /// Means of normal distributions.
    pub NormalMean: Real;
    /// Logarithms of the variances of normal distributions.
    pub NormalLogVariance: Real;

    // ---- labels and predictions ------------------------------------------------------------

    /// Classes given with the data.
    pub Labels: Index;
    /// Labels that a decoder proposes.
    pub Hypotheses: Labels;
    /// Labels that a model predicts.
    pub Predictions: Labels;
    /// Predictions out of a set of categories.
    pub CategoricalValues: Predictions;
    /// Predicted real values.
    pub RegressionValues: Real;
    /// What a model is trained towards.
    pub Target: Index;
    /// The class that a model is trained towards.
    pub ClassificationTarget: Target;

    // ---- tokens and lengths ----------------------------------------------------------------

    /// A whole number without a further meaning.
    pub WholeNumber: Index;
    /// Positions in a vocabulary.
    pub TokenId: WholeNumber;
    /// How many positions of the axis `A` are in use, for each sequence of a batch. The axis is
    /// part of the type: `Lengths<Samples>` is not `Lengths<Frames>`.
    pub Lengths<A: Axis>: Index;
    /// The number of positions of `A` in use by one sequence alone.
    pub Length<A: Axis>: Lengths<A>;
    /// How many frames each token lasts.
    pub TokenDuration: Real;
    /// Logarithms of durations (natural, of the duration plus one where a recipe says so).
    pub TokenLogDuration: Real;
    /// Weights that align the positions of one sequence with those of another.
    pub SequenceAlignment: Real;
    /// A real number without a further meaning.
    pub RealNumber: Real;
    /// Text: its UTF-8 bytes.
    pub Utf8: Index;
    /// A label in words: its UTF-8 bytes.
    pub Utf8Label: Utf8;

    // ---- signals and images ----------------------------------------------------------------

    /// Sound pressure, usually in -1 to 1, at `RATE` samples per second (Hz).
    pub AudioSignal<const RATE: u32>: Real;
    /// Pixels at `FPS` frames per second.
    pub VideoSignal<const FPS: u32>: Real;
    /// Pixels, in 0 to 255 or 0 to 1.
    pub ImageValue: Real;
    /// Pixels with the mean and deviation of their channel removed.
    pub NormalizedImageValue: ImageValue;
    /// Features computed from an image.
    pub ImageFeatures: ImageValue;

    // ---- masks -----------------------------------------------------------------------------

    /// Truth values without a further meaning.
    pub Flags: Mask;
    /// True where a sequence holds data, false where it is padded.
    pub PaddingMask: Mask;
    /// True where a query may attend to a key.
    pub AttentionMask: Mask;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::element::{Element, Is};
    use crate::{Const, Tensor};

    fn enters<E: Is<Port>, Port>() {}

    #[test]
    fn names_show_parameters() {
        assert_eq!(AudioSignal::<16000>::NAME, "AudioSignal<16000>");
        assert_eq!(Lengths::<Const<3>>::NAME, "Lengths<3>");
        assert_eq!(MelSpectrogram::NAME, "MelSpectrogram");
    }

    #[test]
    fn ports_take_refinements_and_the_plain_base() {
        enters::<MelSpectrogram, MelSpectrogram>();
        enters::<MelSpectrogram, Spectrogram>();
        enters::<MelSpectrogram, Channels>();
        enters::<MelSpectrogram, Real>();
        enters::<Real, MelSpectrogram>();
        enters::<TokenId, Index>();
        enters::<Length<Const<3>>, Lengths<Const<3>>>();
        enters::<Length<Const<3>>, Index>();
        enters::<PaddingMask, Mask>();
        // A parent of another block brings itself and its base.
        elements! { Mine: MelSpectrogram; }
        enters::<Mine, MelSpectrogram>();
        enters::<Mine, Real>();
        enters::<Real, Mine>();
        assert_eq!(std::any::TypeId::of::<<Mine as Element>::Base>(), std::any::TypeId::of::<Real>());
    }

    #[test]
    fn tensors_enter_ports() {
        fn port(t: Tensor<(), impl Is<Spectrogram>>) -> Tensor<(), Spectrogram> {
            t.port()
        }
        let _: fn(Tensor<(), MelSpectrogram>) -> Tensor<(), Spectrogram> = port;
    }
}
