//! The axes of the family, and how much slower than features the encoder's frames are.

use crate::audio::Frames;
use mobilis_runtime::prelude::*;
use std::marker::PhantomData;

axes! {
    /// What a Conformer may choose.
    pub trait ConformerAxes {
        /// Features of a frame that comes in.
        Mels,
        /// Channels of the subsampling convolutions.
        Channels,
        /// The width of the stream.
        Hidden,
        /// Heads of attention.
        Heads,
        /// Features of a head.
        HeadDim,
        /// The width between the feed-forward products.
        Ffn,
        /// Frames before the present one that the convolution sees.
        Before,
        /// Frames behind it.
        After,
        /// What a head tells apart: tokens and the blank.
        Classes,
        /// What a transducer's joint says: the classes, and durations where it has them.
        Outputs,
        /// The width of a transducer's predictor.
        Pred,
        /// The width of its joint.
        Joint,
    }
    /// A Conformer of sizes from a configuration.
    pub struct AnyConformer: ConformerAxes;
    /// Tokens of targets, of the longest in the batch.
    pub Tokens;
}

axes! {
    /// How many frames are laid side by side to become one ([`Stacked`]).
    pub Stack;
}

/// How long a sequence of frames (or of bands) is behind the encoder's parts that make frames fewer.
pub trait Rate: 'static {
    /// How many convolutions before the first layer halve frames and bands.
    const HALVINGS: u32;
    /// Whether they see nothing later.
    const CAUSAL: bool;
    /// The axis `N` before the first layer.
    type Subsampled<N: Axis>: Axis;
    /// The axis `N` behind the last layer.
    type Of<N: Axis>: Axis;
    /// The part `N` of a stream behind the convolutions, which remember what came before.
    type Next<N: Axis>: Axis;
}

/// As they are.
pub struct Same;
impl Rate for Same {
    const HALVINGS: u32 = 0;
    const CAUSAL: bool = false;
    type Subsampled<N: Axis> = N;
    type Of<N: Axis> = N;
    type Next<N: Axis> = N;
}

/// Halved once more than `R`: a kernel of 3 at stride 2, one frame of padding on both sides.
pub struct Halved<R>(PhantomData<R>);
impl<R: Rate> Rate for Halved<R> {
    const HALVINGS: u32 = 1 + R::HALVINGS;
    const CAUSAL: bool = false;
    type Subsampled<N: Axis> = R::Subsampled<Conv<N, 3, 2, 1>>;
    type Of<N: Axis> = R::Of<Conv<N, 3, 2, 1>>;
    type Next<N: Axis> = R::Next<Conv<N, 3, 2, 1>>;
}

/// Halved once more than `R`: two frames of padding before, one behind, so that no frame sees a later
/// one.
pub struct CausallyHalved<R>(PhantomData<R>);
impl<R: Rate> Rate for CausallyHalved<R> {
    const HALVINGS: u32 = 1 + R::HALVINGS;
    const CAUSAL: bool = true;
    type Subsampled<N: Axis> = R::Subsampled<Sum<Floor<N, Const<2>>, Const<1>>>;
    type Of<N: Axis> = R::Of<Sum<Floor<N, Const<2>>, Const<1>>>;
    // Two frames remembered and none behind are as many as one on both sides.
    type Next<N: Axis> = R::Next<Conv<N, 3, 2, 1>>;
}

/// So many frames side by side become one: whole stacks alone. With [`Stack`] of one they stay as they are.
pub struct Stacked;
impl Rate for Stacked {
    const HALVINGS: u32 = 0;
    const CAUSAL: bool = false;
    type Subsampled<N: Axis> = Floor<N, Stack>;
    type Of<N: Axis> = Floor<N, Stack>;
    type Next<N: Axis> = Floor<N, Stack>;
}

/// Halved once more than `R`, behind one of the layers.
pub struct Reduced<R>(PhantomData<R>);
impl<R: Rate> Rate for Reduced<R> {
    const HALVINGS: u32 = R::HALVINGS;
    const CAUSAL: bool = R::CAUSAL;
    type Subsampled<N: Axis> = R::Subsampled<N>;
    type Of<N: Axis> = Conv<R::Subsampled<N>, 3, 2, 1>;
    type Next<N: Axis> = R::Next<N>;
}

/// A quarter.
pub type Quarter = Halved<Halved<Same>>;
/// An eighth.
pub type Eighth = Halved<Quarter>;
/// A quarter that sees nothing later.
pub type CausalQuarter = CausallyHalved<CausallyHalved<Same>>;
/// An eighth that sees nothing later.
pub type CausalEighth = CausallyHalved<CausalQuarter>;

/// The encoder's frames.
pub type Steps<R> = <R as Rate>::Of<Frames>;
