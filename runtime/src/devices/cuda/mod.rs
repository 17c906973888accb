//! NVIDIA GPUs: handwritten kernels over one allocation on the device, or the same kernels emulated.
//!
//! [`bind`] walks a graph once with concrete sizes, as the CPU does: movement becomes views, every other
//! node's family makes launches ([`lower`](mod@lower)), and buffers get places by their lifetimes. Addresses
//! are virtual until then (a slot and an offset). [`Bound::run`] puts the real ones in, copies arguments to
//! fixed places, runs the launches in order (from the second run on as one recorded graph, where the device
//! has such) and copies results back. Variables have buffers of their own ([`Variable`]), which stay on the
//! device between runs and between programs.
//!
//! To give an operation a kernel, write a function `fn lower(op, cx: &mut Lower) -> Lowering` in its family's
//! file here and call it in `dispatch`. It asks for inputs (`cx.input(i)`, contiguous, or `cx.view(i)` and
//! `cx.address(&view)` with strides), outputs (`cx.output(port)`) and scratch memory, and leaves launches
//! (`cx.launch(..)`). What its kernels do not take it refuses, by an error: the node then runs on the host
//! (`host.rs`), is listed by [`Executable::fallbacks`](crate::program::Executable::fallbacks) with that reason and named once
//! on stderr.

mod attention;
mod chain;
mod contraction;
mod conv;
mod ctc;
mod epilogue;
mod experts;
mod gather;
mod head;
mod host;
mod loss;
pub mod lower;
mod movement;
mod narrow;
mod norm;
mod order;
mod pool;
mod product;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod rope;
mod run;
mod sample;
mod slice;
mod softmax;
mod source;
mod ssm;
mod stft;
mod storage;
mod transducer;
mod variable;
mod window;

use super::Device;
use crate::graph::{Graph, Sizes};
use crate::module::encoded::Encoding;
use crate::ops::Op;
use lower::{Lower, Lowering};
use mobilis_cuda::softmax::Along;
use mobilis_cuda::{Gpu, Schedule};
pub use run::Bound;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
pub use variable::Variable;

/// An operation that runs on the host in a program for a GPU.
#[derive(Clone, PartialEq, Debug)]
pub struct Fallback {
    /// The operation.
    pub op: &'static str,
    /// The module.
    pub location: String,
    /// Why.
    pub reason: String,
}

/// The GPU of a device, opened once in a process.
///
/// # Errors
/// Why it cannot be had.
pub fn open(device: Device) -> Result<Gpu, String> {
    static OPEN: Mutex<Option<HashMap<Device, Gpu>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    if let Some(gpu) = open.get(&device) {
        return Ok(gpu.clone());
    }
    let gpu = match device {
        Device::Cuda(n) => Gpu::open(n as usize),
        Device::Emulated => Gpu::emulated(Schedule::Forward),
        Device::Cpu | Device::Reference => return Err(format!("`{device}` is no GPU")),
    };
    let gpu = gpu.map_err(|e| e.to_string())?;
    open.insert(device, gpu.clone());
    Ok(gpu)
}

/// Prepares a graph for concrete sizes. `encodings` tell how the model stores each variable, where that is not
/// `f32`: products read some as they are.
///
/// # Errors
/// A size that cannot be evaluated, an operation that refuses its sizes, and memory that the device does not
/// have, with the plan that did not fit.
pub fn bind(gpu: &Gpu, graph: &Graph, sizes: &Sizes, encodings: &[Option<Encoding>]) -> Result<Bound, String> {
    finished(Lower::new(gpu, graph, sizes, encodings)?, sizes)
}

fn finished(mut cx: Lower, sizes: &Sizes) -> Result<Bound, String> {
    let graph = cx.graph;
    for id in 0..graph.nodes.len() {
        cx.enter(id as u32);
        let node = &graph.nodes[id];
        let mark = cx.mark();
        if let Err(reason) = dispatch(&node.op, &mut cx).and_then(|()| cx.grids_fit(&mark)) {
            cx.take_back_to(mark);
            let place = || graph.location(node.scope);
            host::lower(&mut cx, sizes).map_err(|e| format!("{} in {}: {e}", node.op.rule().name(), place()))?;
            cx.fallbacks.push(Fallback { op: node.op.rule().name(), location: place(), reason: reason.0 });
        }
    }
    chain::together(&mut cx).map_err(|reason| reason.0)?;
    warn(&cx.gpu, &cx.fallbacks);
    run::finish(cx)
}

/// Says once of every operation that it runs on the host.
fn warn(gpu: &Gpu, fallbacks: &[Fallback]) {
    static SAID: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = said.get_or_insert_default();
    let new: BTreeSet<&str> = fallbacks.iter().filter(|f| said.insert(f.op)).map(|f| f.op).collect();
    if !new.is_empty() {
        let names = new.into_iter().collect::<Vec<_>>().join(", ");
        eprintln!("mobilis: without a kernel for {}, run on the host: {names}", gpu.info().name);
    }
}

/// Sizes around dimension `axis`.
fn along(sizes: &[usize], axis: usize) -> Along {
    Along { outer: sizes[..axis].iter().product(), n: sizes[axis], inner: sizes[axis + 1..].iter().product() }
}

fn dispatch(op: &Op, cx: &mut Lower) -> Lowering {
    match op {
        Op::Input(op) => {
            let slot = cx.vars() + op.index;
            cx.external(slot);
        }
        Op::Var(op) => cx.external(op.index),
        Op::Constant(op) => source::constant(op, cx)?,
        Op::Iota(op) => source::iota(op, cx)?,
        Op::Detach(_) => {
            let view = cx.as_stored(0);
            cx.alias(0, view);
        }
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_) => chain::single(op, cx)?,
        Op::Chain(op) => chain::lower(op, cx)?,
        Op::Reshape(_) => movement::reshape(cx),
        Op::Permute(op) => movement::permute(op, cx),
        Op::Broadcast(_) => movement::broadcast(cx),
        Op::Slice(op) => slice::slice(op, cx)?,
        Op::DynamicSlice(op) => slice::dynamic_slice(op, cx)?,
        Op::UpdateSlice(op) => slice::update_slice(op, cx)?,
        Op::WriteRows(op) => slice::write_rows(op, cx)?,
        Op::Concat(op) => slice::concat(op, cx)?,
        Op::Flip(op) => slice::flip(op, cx)?,
        Op::Pad(op) => slice::pad(op, cx)?,
        Op::Attention(op) => attention::lower(op, cx)?,
        Op::AttentionGrad(op) => attention::grad(op, cx)?,
        Op::Einsum(op) => contraction::lower(op, cx)?,
        Op::Product(op) => product::lower(op, cx)?,
        Op::Experts(op) => experts::forward(op, cx)?,
        Op::ExpertsGrad(op) => experts::grad(op, cx)?,
        Op::Amax(_) => quantize::amax(cx)?,
        Op::FormatScale(op) => quantize::scale(op, cx)?,
        Op::Quantize(op) => quantize::quantize(op, cx)?,
        Op::Softmax(op) => softmax::lower(op.axis, op.log, cx)?,
        Op::Unfold(op) => window::unfold(op, cx)?,
        Op::Fold(op) => window::fold(op, cx)?,
        Op::Conv(op) => conv::conv(op, cx)?,
        Op::ConvInputGrad(op) => conv::conv_input_grad(op, cx)?,
        Op::ConvWeightGrad(op) => conv::conv_weight_grad(op, cx)?,
        Op::MaxPool(op) => pool::max_pool(op, cx)?,
        Op::MaxPoolGrad(op) => pool::max_pool_grad(op, cx)?,
        Op::AveragePool(op) => pool::average_pool(op, cx)?,
        Op::AveragePoolGrad(op) => pool::average_pool_grad(op, cx)?,
        Op::Lstm(op) => recurrent::lstm(op, cx)?,
        Op::LstmGrad(op) => recurrent::lstm_grad(op, cx)?,
        Op::Gru(op) => recurrent::gru(op, cx)?,
        Op::GruGrad(op) => recurrent::gru_grad(op, cx)?,
        Op::Ssm(_) => ssm::ssm(cx)?,
        Op::SsmGrad(_) => ssm::grad(cx)?,
        Op::Stft(op) => stft::stft(op, cx)?,
        Op::StftInputGrad(op) => stft::stft_input_grad(op, cx)?,
        Op::StftWindowGrad(op) => stft::stft_window_grad(op, cx)?,
        Op::SoftmaxGrad(op) => softmax::grad(op.axis, op.log, cx)?,
        Op::Reduce(op) => reduce::lower(op, cx)?,
        Op::Norm(op) => norm::lower(op, cx)?,
        Op::NormGrad(op) => norm::grad(op, cx)?,
        Op::Take(op) => gather::take(op, cx)?,
        Op::Gather(op) => gather::gather(op, cx)?,
        Op::TakeAdd(op) => gather::take_add(op, cx)?,
        Op::ScatterAdd(op) => gather::scatter_add(op, cx)?,
        Op::Embedding(_) => gather::embedding(cx)?,
        Op::EmbeddingGrad(_) => gather::embedding_grad(cx)?,
        Op::CumSum(op) => order::cumsum(op, cx)?,
        Op::ArgExtreme(op) => order::arg_extreme(op, cx)?,
        Op::Sort(op) => order::sort(op, cx)?,
        Op::Random(op) => random::lower(op, cx)?,
        Op::Sample(_) => sample::sample(cx)?,
        Op::RopeTable(op) => rope::lower_table(op, cx)?,
        Op::Rope(op) => rope::lower(op, cx)?,
        Op::LinearCrossEntropy(op) => head::lower(op, cx)?,
        Op::CrossEntropy(op) => loss::lower(&op.options, cx)?,
        Op::CrossEntropyGrad(op) => loss::grad(&op.options, cx)?,
        Op::Ctc(op) => ctc::lower(&op.0, cx)?,
        Op::CtcGrad(op) => ctc::grad(&op.0, cx)?,
        Op::Transducer(op) => transducer::lower(op, cx)?,
        Op::TransducerGrad(op) => transducer::grad(&op.0, cx)?,
    }
    Ok(())
}
