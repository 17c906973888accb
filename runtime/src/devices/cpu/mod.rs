//! The CPU device: `f32` kernels on threads over one arena.
//!
//! [`bind`] walks a graph once with concrete sizes. Movement becomes views ([`view`]); every
//! other node's family lowers it to tasks that hold their kernel, sizes and places
//! ([`lower`](mod@lower)); then all buffers get their places in one arena by their lifetimes
//! ([`plan`]). Running is calling the tasks in order: nothing is allocated or decided.

mod attention;
mod chain;
mod contraction;
mod conv;
mod ctc;
mod embedding;
mod experts;
mod gather;
mod head;
mod loss;
pub mod lower;
mod movement;
mod norm;
mod order;
mod pool;
mod product;
pub(super) mod quantize;
mod random;
mod recurrent;
mod reduce;
mod rope;
mod sample;
mod slice;
mod softmax;
mod ssm;
mod stft;
mod transducer;
pub mod weights;

use super::{plan, view};
use crate::graph::{DType, Graph, Sizes, Value};
use crate::ops::Op;
use crate::transforms::fuse::{Limits, fuse};
use crate::transforms::prune::prune;
use crate::transforms::simplify::simplify;
use crate::transforms::{common, epilogue, head as heads, products, siblings, spectrum};
use lower::{Lower, Lowered, Task};
use mobilis_kernels::cpu::chain as kernel;
use mobilis_kernels::memory::{Arena, External, Frame, Memory, Piece};
use mobilis_kernels::pool::Pool;

/// Defines the storage type `T` of a [`DType`] in an expression, for kernels that only move
/// values.
macro_rules! plain {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::Bool => {
                type $T = u8;
                $body
            }
        }
    };
}
use plain;

/// Sizes as `[outer, n, inner]` around dimension `axis`.
fn split_at(sizes: &[usize], axis: usize) -> (usize, usize, usize) {
    (sizes[..axis].iter().product(), sizes[axis], sizes[axis + 1..].iter().product())
}

/// The transforms that precede binding, in the order in which [`crate::transforms`] tells of them.
pub fn optimize(graph: Graph) -> Graph {
    let limits = Limits {
        inputs: kernel::INPUTS,
        steps: 48,
        floats: kernel::FLOATS,
        ints: kernel::INTS,
        results: kernel::RESULTS,
    };
    let graph = prune(heads::join(spectrum::join(common::join(simplify(graph)))));
    let graph = epilogue::attach(prune(fuse(products::join(graph), &limits)));
    prune(siblings::join(graph, &limits))
}

/// A program with its sizes: tasks, their memory, where results lie.
pub struct Bound {
    frame: Frame,
    tasks: Vec<Task>,
    results: Vec<(Value, Piece)>,
    /// Bytes that the arena would need if every byte alive at once were packed perfectly.
    pub lower_bound: usize,
    /// How many values are copied because no kernel reads them as they lie.
    pub copied: usize,
}

/// A result's values.
pub enum Out<'a> {
    /// Real numbers.
    F32(&'a [f32]),
    /// Whole numbers.
    I32(&'a [i32]),
    /// Truth values.
    Bool(&'a [u8]),
}

/// Why a run stopped: the node at which it did, and what its kernel says.
#[derive(Debug)]
pub struct TaskError {
    /// The node.
    pub node: u32,
    /// The message.
    pub message: String,
}

/// Prepares a graph for concrete sizes.
///
/// # Errors
/// A size that cannot be evaluated, or an operation that has no kernel here.
pub fn bind(graph: &Graph, sizes: &Sizes) -> Result<Bound, String> {
    bind_with(graph, sizes, None, false)
}

/// The same, with weights that are prepared once for all sizes. `alike` asks for kernels that sum in one order,
/// however many rows, columns or queries there are.
///
/// # Errors
/// As of [`bind`].
pub fn bind_with(
    graph: &Graph,
    sizes: &Sizes,
    weights: Option<&weights::Prepared>,
    alike: bool,
) -> Result<Bound, String> {
    let mut lower = Lower::new(graph, sizes)?;
    (lower.weights, lower.alike) = (weights, alike);
    for id in 0..graph.nodes.len() {
        lower.enter(id as u32);
        dispatch(&graph.nodes[id].op, &mut lower).map_err(|e| {
            format!("{} in {}: {e}", graph.nodes[id].op.rule().name(), graph.location(graph.nodes[id].scope))
        })?;
    }
    let Lowered { tasks, results, plan, copied } = lower.finish();
    Ok(Bound {
        frame: Frame::new(graph.vars.len() + graph.inputs.len(), &plan.places),
        tasks,
        results,
        lower_bound: plan.lower_bound,
        copied,
    })
}

fn dispatch(op: &Op, cx: &mut Lower) -> Result<(), String> {
    match op {
        Op::Input(op) => {
            let slot = cx.vars() + op.index;
            cx.external(slot);
        }
        Op::Var(op) => cx.external(op.index),
        Op::Constant(_) | Op::Iota(_) => chain::source(op, cx)?,
        Op::Detach(_) => {
            let view = cx.view(0);
            cx.alias(0, view);
        }
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_) => chain::single(op, cx)?,
        Op::Chain(op) => chain::lower(op, cx)?,
        Op::Reduce(op) => reduce::lower(op, cx),
        Op::Reshape(_) => movement::reshape(cx),
        Op::Permute(op) => movement::permute(op, cx),
        Op::Broadcast(_) => movement::broadcast(cx),
        Op::Slice(op) => slice::slice(op, cx)?,
        Op::DynamicSlice(op) => slice::dynamic_slice(op, cx),
        Op::UpdateSlice(op) => slice::update_slice(op, cx),
        Op::WriteRows(op) => slice::write_rows(op, cx),
        Op::Concat(op) => slice::concat(op, cx),
        Op::Flip(op) => slice::flip(op, cx),
        Op::Pad(op) => slice::pad(op, cx)?,
        Op::Unfold(op) => slice::unfold(op, cx)?,
        Op::Fold(op) => slice::fold(op, cx)?,
        Op::Gather(op) => gather::gather(op, cx),
        Op::ScatterAdd(op) => gather::scatter_add(op, cx),
        Op::Take(op) => gather::take(op, cx),
        Op::TakeAdd(op) => gather::take_add(op, cx),
        Op::CumSum(op) => order::cumsum(op, cx),
        Op::ArgExtreme(op) => order::arg_extreme(op, cx)?,
        Op::Sort(op) => order::sort(op, cx)?,
        Op::Random(op) => random::random(op, cx),
        Op::Einsum(op) => contraction::lower(op, cx),
        Op::Product(op) => product::lower(op, cx)?,
        Op::Amax(_) => quantize::amax(cx),
        Op::FormatScale(op) => quantize::scale(op, cx),
        Op::Quantize(op) => quantize::quantize(op, cx)?,
        Op::Softmax(op) => softmax::lower(op.axis, op.log, cx),
        Op::SoftmaxGrad(op) => softmax::grad(op.axis, op.log, cx),
        Op::Norm(op) => norm::lower(op, cx)?,
        Op::NormGrad(op) => norm::grad(op, cx)?,
        Op::Embedding(_) => embedding::lower(cx),
        Op::EmbeddingGrad(_) => embedding::grad(cx),
        Op::Experts(op) => experts::experts(op, cx),
        Op::ExpertsGrad(op) => experts::grad(op, cx),
        Op::Sample(_) => sample::sample(cx),
        Op::RopeTable(op) => rope::lower_table(op, cx)?,
        Op::Rope(op) => rope::lower(op, cx)?,
        Op::Attention(op) => attention::lower(op, cx),
        Op::AttentionGrad(op) => attention::grad(op, cx),
        Op::CrossEntropy(op) => loss::lower(&op.options, cx),
        Op::CrossEntropyGrad(op) => loss::grad(&op.options, cx),
        Op::LinearCrossEntropy(op) => head::lower(op, cx),
        Op::Ctc(op) => ctc::lower(&op.0, cx),
        Op::CtcGrad(op) => ctc::grad(&op.0, cx),
        Op::Transducer(op) => transducer::lower(op, cx)?,
        Op::TransducerGrad(op) => transducer::grad(&op.0, cx)?,
        Op::Conv(op) => conv::conv(op, cx)?,
        Op::ConvInputGrad(op) => conv::conv_input_grad(op, cx)?,
        Op::ConvWeightGrad(op) => conv::conv_weight_grad(op, cx)?,
        Op::MaxPool(op) => pool::max_pool(op, cx),
        Op::MaxPoolGrad(op) => pool::max_pool_grad(op, cx),
        Op::AveragePool(op) => pool::average_pool(op, cx),
        Op::AveragePoolGrad(op) => pool::average_pool_grad(op, cx),
        Op::Lstm(op) => recurrent::lstm(op, cx),
        Op::LstmGrad(op) => recurrent::lstm_grad(op, cx),
        Op::Gru(op) => recurrent::gru(op, cx),
        Op::GruGrad(op) => recurrent::gru_grad(op, cx),
        Op::Ssm(_) => ssm::ssm(cx)?,
        Op::SsmGrad(_) => ssm::grad(cx)?,
        Op::Stft(op) => stft::stft(op, cx),
        Op::StftInputGrad(op) => stft::stft_input_grad(op, cx),
        Op::StftWindowGrad(op) => stft::stft_window_grad(op, cx),
    }
    Ok(())
}

impl Bound {
    /// Runs all tasks in an arena of at least [`arena_bytes`](Self::arena_bytes). `externals` are the variables and then the arguments, in the graph's
    /// order; `each` sees every result when all is done.
    ///
    /// # Errors
    /// What a kernel refuses: an index out of range.
    pub fn run<'e>(
        &mut self,
        arena: &mut Arena,
        externals: impl Iterator<Item = External<'e>>,
        dtype: impl Fn(Value) -> DType,
        each: impl FnMut(Value, Out),
    ) -> Result<(), TaskError> {
        self.run_with(arena, externals, dtype, each, |_, task, m| (task.run)(m))
    }

    /// The same, with a function that runs each task, which is given its number.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_with<'e>(
        &mut self,
        arena: &mut Arena,
        externals: impl Iterator<Item = External<'e>>,
        dtype: impl Fn(Value) -> DType,
        mut each: impl FnMut(Value, Out),
        mut step: impl FnMut(usize, &Task, &Memory) -> Result<(), String>,
    ) -> Result<(), TaskError> {
        let Bound { frame, tasks, results, .. } = self;
        frame.run(arena, Pool::global(), externals, |m| {
            for (i, task) in tasks.iter().enumerate() {
                step(i, task, m).map_err(|message| TaskError { node: task.node, message })?;
            }
            for (value, piece) in results.iter() {
                match dtype(*value) {
                    DType::F32 => each(*value, Out::F32(&m.f32(*piece))),
                    DType::I32 => each(*value, Out::I32(&m.i32(*piece))),
                    DType::Bool => each(*value, Out::Bool(&m.u8(*piece))),
                }
            }
            Ok(())
        })
    }

    /// The tasks in their order.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Bytes of the arena that it needs.
    pub fn arena_bytes(&self) -> usize {
        self.frame.arena_bytes()
    }
}
