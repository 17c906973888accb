//! Operations: one file a family, holding its typed methods, shape rule, gradient rule, cost and
//! documentation.
//!
//! A family has three layers, from the top: typed methods on [`Tensor`](struct@crate::Tensor) (one-line
//! wrappers that the compiler checks), untyped functions over [`Handle`]s (used by typed methods,
//! gradient rules and optimizers alike), and an operation struct that implements [`Rule`].
//! How an operation is computed is the devices' business (`crate::devices`).
//!
//! To add an operation see `CONTRIBUTING.md`.

pub mod attention;
pub mod cache;
pub mod chain;
pub mod contraction;
pub mod conv;
pub mod ctc;
pub mod elementwise;
pub mod embedding;
pub mod experts;
pub mod gather;
pub mod leaf;
pub mod linear_cross_entropy;
pub mod loss;
pub mod movement;
pub mod norm;
pub mod pad;
pub mod pool;
pub mod product;
pub mod quantize;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod rope;
pub mod sample;
pub mod scan;
pub mod slice;
pub mod softmax;
pub mod sort;
pub mod ssm;
pub mod stft;
pub mod transducer;
pub mod window;

use crate::graph::trace::Handle;
use crate::graph::{Extent, TensorType};

/// What an operation costs, as expressions over axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: Extent,
    /// Bytes read and written, if nothing stays in caches.
    pub bytes: Extent,
}

impl Cost {
    /// No work: views and leaves.
    pub fn free() -> Cost {
        Cost { flops: Extent::constant(0), bytes: Extent::constant(0) }
    }

    /// `flops`, and every input read and output written once.
    pub fn streaming(flops: Extent, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let bytes = inputs.iter().copied().chain(outputs).fold(Extent::constant(0), |sum, ty| {
            Extent::add(sum, Extent::mul(ty.count(), Extent::constant(ty.dtype.bytes() as u64)))
        });
        Cost { flops, bytes }
    }
}

/// Why a gradient cannot be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct NoGradient(pub String);

/// What a gradient rule sees: a node's inputs, outputs and the gradients of its outputs, as
/// handles of the trace that is being extended.
pub struct GradContext {
    /// The node's inputs.
    pub inputs: Vec<Handle>,
    /// The node's outputs.
    pub outputs: Vec<Handle>,
    /// The gradient of the loss by each output; `None` where an output is not used.
    pub grads: Vec<Option<Handle>>,
    /// Which inputs need a gradient: rules may skip work for others.
    pub wanted: Vec<bool>,
}

impl GradContext {
    /// The gradient by the first output, zeros where only other outputs are used.
    pub fn grad(&self) -> Handle {
        self.grad_of(0)
    }

    /// The gradient by an output, zeros where it is not used.
    pub fn grad_of(&self, port: usize) -> Handle {
        match self.grads[port] {
            Some(g) => g,
            None => leaf::fill(0.0, crate::graph::trace::type_of(self.outputs[port])),
        }
    }
}

/// What every operation knows about itself.
pub trait Rule: std::fmt::Debug {
    /// The name in graphs, profiles and errors: `softmax`.
    fn name(&self) -> &'static str;
    /// The shape rule: output types from input types, or what is wrong in words.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String>;
    /// The gradient rule, in terms of operations: one gradient per input, `None` where the
    /// input has none (indices, masks, or a derivative that is zero almost everywhere).
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient>;
    /// Work and traffic. By default one operation per output value.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = outputs.iter().fold(Extent::constant(0), |sum, ty| Extent::add(sum, ty.count()));
        Cost::streaming(flops, inputs, outputs)
    }
    /// Whether the result may lie in the first input's buffer, seen through strides.
    fn is_view(&self) -> bool {
        false
    }
    /// Settings worth printing in a drawing: `axis=2`. Empty by default.
    fn attributes(&self) -> String {
        String::new()
    }
}

macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident($ty:path),)*) => {
        /// Every operation.
        #[derive(Clone, Debug)]
        pub enum Op {
            $($(#[$doc])* $variant($ty),)*
        }
        impl Op {
            /// The operation's rules.
            pub fn rule(&self) -> &dyn Rule {
                match self {
                    $(Op::$variant(op) => op,)*
                }
            }
        }
        $(impl From<$ty> for Op {
            fn from(op: $ty) -> Op {
                Op::$variant(op)
            }
        })*
    };
}

families! {
    // leaf.rs
    /// An argument.
    Input(leaf::Input),
    /// A parameter, buffer or state.
    Var(leaf::Var),
    /// One value everywhere.
    Constant(leaf::Constant),
    /// 0, 1, 2, … along a dimension.
    Iota(leaf::Iota),
    /// Stops gradients.
    Detach(leaf::Detach),
    // elementwise.rs
    /// A function of one value.
    Unary(elementwise::Unary),
    /// A function of two values.
    Binary(elementwise::Binary),
    /// A comparison.
    Compare(elementwise::Compare),
    /// A choice between two values.
    Select(elementwise::Select),
    /// A change of storage.
    Cast(elementwise::Cast),
    // reduce.rs
    /// A reduction over dimensions.
    Reduce(reduce::Reduce),
    // movement.rs
    /// Another shape, same order.
    Reshape(movement::Reshape),
    /// Dimensions in another order.
    Permute(movement::Permute),
    /// Repetition along leading dimensions.
    Broadcast(movement::Broadcast),
    // chain.rs
    /// Fused elementwise operations.
    Chain(chain::Chain),
    // slice.rs
    /// Every n-th value along a dimension.
    Slice(slice::Slice),
    /// Consecutive values from a run-time position on.
    DynamicSlice(slice::DynamicSlice),
    /// A block written at a run-time position.
    UpdateSlice(slice::UpdateSlice),
    // cache.rs
    /// Entries written at each sequence's own position.
    WriteRows(cache::WriteRows),
    // slice.rs
    /// Values one after the other.
    Concat(slice::Concat),
    /// Reverse order.
    Flip(slice::Flip),
    // pad.rs
    /// More values before and after.
    Pad(pad::Pad),
    // gather.rs
    /// Values picked one by one.
    Gather(gather::Gather),
    /// Values added one by one.
    ScatterAdd(gather::ScatterAdd),
    /// Slices picked.
    Take(gather::Take),
    /// Slices added.
    TakeAdd(gather::TakeAdd),
    // window.rs
    /// Sliding windows.
    Unfold(window::Unfold),
    /// Windows added at their places.
    Fold(window::Fold),
    // scan.rs
    /// Running sums.
    CumSum(scan::CumSum),
    /// Places of extremes.
    ArgExtreme(scan::ArgExtreme),
    // sort.rs
    /// Values in order.
    Sort(sort::Sort),
    // random.rs
    /// Random values.
    Random(random::Random),
    // contraction.rs
    /// A sum of products over named dimensions.
    Einsum(contraction::Einsum),
    // product.rs
    /// Matrix products joined.
    Product(product::Product),
    // quantize.rs
    /// The greatest magnitude.
    Amax(quantize::Amax),
    /// A scale for eight bits.
    FormatScale(quantize::FormatScale),
    /// Values through eight bits.
    Quantize(quantize::Quantize),
    // conv
    /// A convolution.
    Conv(conv::Conv),
    /// A transposed convolution: the gradient of a convolution by its input.
    ConvInputGrad(conv::ConvInputGrad),
    /// The gradient of a convolution by its weight.
    ConvWeightGrad(conv::ConvWeightGrad),
    // pool
    /// The largest value of each window.
    MaxPool(pool::MaxPool),
    /// The gradient of it.
    MaxPoolGrad(pool::MaxPoolGrad),
    /// The mean of each window.
    AveragePool(pool::AveragePool),
    /// The gradient of it.
    AveragePoolGrad(pool::AveragePoolGrad),
    // softmax.rs
    /// Softmax or its logarithm.
    Softmax(softmax::Softmax),
    /// Its gradient.
    SoftmaxGrad(softmax::SoftmaxGrad),
    // norm.rs
    /// Layer, RMS or group norm.
    Norm(norm::Norm),
    /// Its gradient.
    NormGrad(norm::NormGrad),
    // embedding.rs
    /// Rows of a table.
    Embedding(embedding::Embedding),
    /// Its gradient by the table.
    EmbeddingGrad(embedding::EmbeddingGrad),
    // experts.rs
    /// Products with the matrices of chosen experts.
    Experts(experts::Experts),
    /// Its gradient by the matrices.
    ExpertsGrad(experts::ExpertsGrad),
    // rope.rs
    /// Cosines and sines of rotary embeddings.
    RopeTable(rope::RopeTable),
    // sample.rs
    /// Draws of tokens.
    Sample(sample::Sample),
    /// Rotation of pairs of features.
    Rope(rope::Rope),
    // attention.rs
    /// Scaled dot-product attention.
    Attention(attention::Attention),
    /// Its gradient.
    AttentionGrad(attention::AttentionGrad),
    // loss.rs
    /// Cross-entropy per row.
    CrossEntropy(loss::CrossEntropy),
    /// Its gradient.
    CrossEntropyGrad(loss::CrossEntropyGrad),
    // linear_cross_entropy.rs
    /// A projection and the cross-entropy of what it gives.
    LinearCrossEntropy(linear_cross_entropy::LinearCrossEntropy),
    // ctc.rs
    /// CTC per sequence.
    Ctc(ctc::Ctc),
    /// Its gradient.
    CtcGrad(ctc::CtcGrad),
    // transducer.rs
    /// A transducer's loss per sequence.
    Transducer(transducer::Transducer),
    /// Its gradient.
    TransducerGrad(transducer::TransducerGrad),
    // recurrent
    /// All steps of an LSTM.
    Lstm(recurrent::Lstm),
    /// The gradient of it.
    LstmGrad(recurrent::LstmGrad),
    /// All steps of a GRU.
    Gru(recurrent::Gru),
    /// The gradient of it.
    GruGrad(recurrent::GruGrad),
    // ssm.rs
    /// The scan of a selective state space.
    Ssm(ssm::Ssm),
    /// The gradient of it.
    SsmGrad(ssm::SsmGrad),
    // stft
    /// A short-time Fourier transform.
    Stft(stft::Stft),
    /// The gradient of it by the signal.
    StftInputGrad(stft::StftInputGrad),
    /// The gradient of it by the window.
    StftWindowGrad(stft::StftWindowGrad),
}

/// Exactly `N` inputs, or the message for a wrong number of them.
pub(crate) fn arity<'a, const N: usize>(inputs: &[&'a TensorType]) -> Result<[&'a TensorType; N], String> {
    inputs.try_into().map_err(|_| format!("takes {N} inputs, is given {}", inputs.len()))
}
