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

/// How long a sequence of frames (or of bands) is behind the subsampling convolutions.
pub trait Rate: 'static {
    /// How many frames become one.
    const FACTOR: usize;
    /// Whether convolutions see nothing later.
    const CAUSAL: bool;
    /// The axis `N` behind the convolutions.
    type Of<N: Axis>: Axis;
    /// The part `N` of a stream behind the convolutions, which remember what came before.
    type Next<N: Axis>: Axis;

    /// How many of `n` there are then.
    fn count(n: usize) -> usize;
}

/// As they are.
pub struct Same;
impl Rate for Same {
    const FACTOR: usize = 1;
    const CAUSAL: bool = false;
    type Of<N: Axis> = N;
    type Next<N: Axis> = N;
    fn count(n: usize) -> usize {
        n
    }
}

/// Halved once more than `R`: a kernel of 3 at stride 2, one frame of padding on both sides.
pub struct Halved<R>(PhantomData<R>);
impl<R: Rate> Rate for Halved<R> {
    const FACTOR: usize = 2 * R::FACTOR;
    const CAUSAL: bool = false;
    type Of<N: Axis> = R::Of<Conv<N, 3, 2, 1>>;
    type Next<N: Axis> = R::Next<Conv<N, 3, 2, 1>>;
    fn count(n: usize) -> usize {
        R::count(n.div_ceil(2))
    }
}

/// Halved once more than `R`: two frames of padding before, one behind, so that no frame sees a later
/// one.
pub struct CausallyHalved<R>(PhantomData<R>);
impl<R: Rate> Rate for CausallyHalved<R> {
    const FACTOR: usize = 2 * R::FACTOR;
    const CAUSAL: bool = true;
    type Of<N: Axis> = R::Of<Sum<Floor<N, Const<2>>, Const<1>>>;
    // Two frames remembered and none behind are as many as one on both sides.
    type Next<N: Axis> = R::Next<Conv<N, 3, 2, 1>>;
    fn count(n: usize) -> usize {
        R::count(n / 2 + 1)
    }
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
