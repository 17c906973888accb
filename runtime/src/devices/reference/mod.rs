//! The reference device: every value is an array of `f64`, every operation a plain loop that
//! follows the formula in its documentation. Slow and obviously right.
//!
//! Indices are exact up to 2^53; masks are 0 and 1. One file a family, as in `crate::ops`.

pub mod array;
mod attention;
mod contraction;
mod conv;
mod ctc;
mod elementwise;
mod embedding;
mod experts;
mod gather;
mod loss;
mod movement;
mod norm;
mod order;
mod pool;
mod quantize;
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

use crate::graph::{DType, Graph, Sizes, Value};
use crate::ops::Op;
use crate::ops::chain::Chain;
use crate::ops::leaf::Fill;
use crate::ops::product::Product;
pub use array::RefArray;

/// What an operation's evaluation sees.
pub struct Eval<'a> {
    /// The inputs, in order.
    pub inputs: Vec<&'a RefArray>,
    /// The storage of the inputs, in order.
    pub dtypes: Vec<DType>,
    /// The sizes of the outputs.
    pub outputs: Vec<Vec<usize>>,
    /// Sizes of run-time axes.
    pub sizes: &'a Sizes,
}

/// Evaluates every node of a graph. `inputs` and `vars` are in the graph's order.
///
/// # Errors
/// Sizes that cannot be evaluated, and data that an operation refuses (an index out of range).
pub fn run(graph: &Graph, sizes: &Sizes, inputs: &[RefArray], vars: &[RefArray]) -> Result<Values, String> {
    let mut values: Vec<Vec<RefArray>> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let outputs: Result<Vec<Vec<usize>>, _> = node.types.iter().map(|t| t.sizes(sizes)).collect();
        let cx = Eval {
            inputs: node.inputs.iter().map(|v| &values[v.node as usize][v.port as usize]).collect(),
            dtypes: node.inputs.iter().map(|v| graph.ty(*v).dtype).collect(),
            outputs: outputs.map_err(|e| e.to_string())?,
            sizes,
        };
        let out = match &node.op {
            Op::Input(op) => vec![inputs[op.index as usize].clone()],
            Op::Var(op) => vec![vars[op.index as usize].clone()],
            op => match leaf(op, &cx)? {
                Some(value) => Ok(vec![value]),
                None => eval(op, &cx),
            }
            .map_err(|e| format!("{} in {}: {e}", op.rule().name(), graph.location(node.scope)))?,
        };
        values.push(out);
    }
    Ok(Values(values))
}

/// Constants and positions.
fn leaf(op: &Op, cx: &Eval) -> Result<Option<RefArray>, String> {
    Ok(match op {
        Op::Constant(op) => {
            let value = match &op.fill {
                Fill::Number(v) => *v,
                Fill::Size(e) => e.eval(cx.sizes).map_err(|e| e.to_string())? as f64,
            };
            Some(RefArray::filled(&cx.outputs[0], value))
        }
        Op::Iota(op) => Some(RefArray::from_fn(&cx.outputs[0], |index| index[op.axis] as f64)),
        _ => None,
    })
}

fn eval(op: &Op, cx: &Eval) -> Result<Vec<RefArray>, String> {
    Ok(vec![match op {
        Op::Input(_) | Op::Var(_) | Op::Constant(_) | Op::Iota(_) => unreachable!("leaves are given by `run`"),
        Op::Detach(_) => cx.inputs[0].clone(),
        Op::Unary(op) => elementwise::unary(op, cx),
        Op::Binary(op) => elementwise::binary(op, cx),
        Op::Compare(op) => elementwise::compare(op, cx),
        Op::Select(_) => elementwise::select(cx),
        Op::Cast(op) => elementwise::cast(op, cx),
        Op::Reduce(op) => reduce::reduce(op, cx),
        Op::Chain(op) => return chain(op, cx),
        Op::Reshape(_) => movement::reshape(cx),
        Op::Permute(op) => movement::permute(op, cx),
        Op::Broadcast(_) => movement::broadcast(cx),
        Op::Slice(op) => slice::slice(op, cx)?,
        Op::DynamicSlice(op) => slice::dynamic_slice(op, cx)?,
        Op::UpdateSlice(op) => slice::update_slice(op, cx)?,
        Op::WriteRows(op) => slice::write_rows(op, cx)?,
        Op::Concat(op) => slice::concat(op, cx),
        Op::Flip(op) => slice::flip(op, cx),
        Op::Pad(op) => slice::pad(op, cx)?,
        Op::Unfold(op) => slice::unfold(op, cx)?,
        Op::Fold(op) => slice::fold(op, cx)?,
        Op::Gather(op) => gather::gather(op, cx)?,
        Op::ScatterAdd(op) => gather::scatter_add(op, cx)?,
        Op::Take(op) => gather::take(op, cx)?,
        Op::TakeAdd(op) => gather::take_add(op, cx)?,
        Op::CumSum(op) => order::cumsum(op, cx),
        Op::ArgExtreme(op) => order::arg_extreme(op, cx)?,
        Op::Sort(op) => return order::sort(op, cx),
        Op::Random(op) => random::random(op, cx),
        Op::Einsum(op) => contraction::einsum(op, cx),
        Op::Product(op) => return product(op, cx),
        Op::Amax(_) => quantize::amax(cx),
        Op::FormatScale(op) => quantize::scale(op, cx),
        Op::Quantize(op) => quantize::quantize(op, cx)?,
        Op::Conv(op) => conv::conv(op, cx)?,
        Op::ConvInputGrad(op) => conv::conv_input_grad(op, cx)?,
        Op::ConvWeightGrad(op) => conv::conv_weight_grad(op, cx)?,
        Op::MaxPool(op) => return Ok(pool::max_pool(op, cx)),
        Op::MaxPoolGrad(op) => pool::max_pool_grad(op, cx),
        Op::AveragePool(op) => pool::average_pool(op, cx),
        Op::AveragePoolGrad(op) => pool::average_pool_grad(op, cx),
        Op::Softmax(op) => softmax::softmax(op, cx),
        Op::SoftmaxGrad(op) => softmax::grad(op, cx),
        Op::Norm(op) => norm::norm(op, cx)?,
        Op::NormGrad(op) => return norm::grad(op, cx),
        Op::Embedding(_) => embedding::embedding(cx)?,
        Op::EmbeddingGrad(_) => embedding::grad(cx)?,
        Op::Experts(op) => experts::experts(op, cx)?,
        Op::ExpertsGrad(op) => return experts::grad(op, cx),
        Op::Sample(_) => sample::sample(cx),
        Op::RopeTable(op) => return rope::table(op, cx),
        Op::Rope(op) => rope::rope(op, cx)?,
        Op::Attention(op) => return Ok(attention::attention(op, cx)),
        Op::AttentionGrad(op) => return Ok(attention::grad(op, cx)),
        Op::CrossEntropy(op) => return loss::cross_entropy(&op.options, cx),
        Op::CrossEntropyGrad(op) => loss::grad(&op.options, cx)?,
        Op::LinearCrossEntropy(op) => return loss::linear(op, cx),
        Op::Ctc(op) => ctc::ctc(&op.0, cx)?,
        Op::CtcGrad(op) => ctc::grad(&op.0, cx)?,
        Op::Transducer(op) => return transducer::transducer(op, cx),
        Op::TransducerGrad(op) => return transducer::grad(&op.0, cx),
        Op::Lstm(op) => return Ok(recurrent::lstm(op, cx)),
        Op::LstmGrad(op) => return Ok(recurrent::lstm_grad(op, cx)),
        Op::Gru(op) => return Ok(recurrent::gru(op, cx)),
        Op::GruGrad(op) => return Ok(recurrent::gru_grad(op, cx)),
        Op::Ssm(_) => return ssm::ssm(cx),
        Op::SsmGrad(_) => return ssm::grad(cx),
        Op::Stft(op) => stft::stft(op, cx),
        Op::StftInputGrad(op) => stft::stft_input_grad(op, cx),
        Op::StftWindowGrad(op) => stft::stft_window_grad(op, cx),
    }])
}

/// Products, each followed by its chain.
fn product(op: &Product, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let mut values = vec![];
    for (j, after) in op.after.iter().enumerate() {
        let own = contraction::product(op, j, cx);
        let Some(after) = after else {
            values.push(own);
            continue;
        };
        let pick = |i: &Option<usize>| i.map_or((&own, DType::F32), |i| (cx.inputs[i], cx.dtypes[i]));
        let inputs = after.inputs.iter().map(|i| pick(i).0).collect();
        let dtypes = after.inputs.iter().map(|i| pick(i).1).collect();
        let more = chain(&after.chain, &Eval { inputs, dtypes, outputs: vec![], sizes: cx.sizes })?;
        values.extend(after.keep.then_some(own));
        values.extend(more);
    }
    Ok(values)
}

/// Runs the steps of a chain one after the other.
fn chain(op: &Chain, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let mut values: Vec<RefArray> = vec![];
    for step in &op.steps {
        let pick = |a: &u16| match (*a as usize).checked_sub(op.inputs) {
            None => (cx.inputs[*a as usize], cx.dtypes[*a as usize]),
            Some(i) => (&values[i], op.steps[i].ty.dtype),
        };
        let step_cx = Eval {
            inputs: step.args.iter().map(|a| pick(a).0).collect(),
            dtypes: step.args.iter().map(|a| pick(a).1).collect(),
            outputs: vec![step.ty.sizes(cx.sizes).map_err(|e| e.to_string())?],
            sizes: cx.sizes,
        };
        let value = leaf(&step.op, &step_cx)?.map_or_else(|| eval(&step.op, &step_cx), |leaf| Ok(vec![leaf]))?;
        values.extend(value);
    }
    Ok(op.results.iter().map(|r| values[*r as usize].clone()).collect())
}

/// Every value of a graph after a run.
pub struct Values(Vec<Vec<RefArray>>);

impl Values {
    /// One value.
    pub fn get(&self, v: Value) -> &RefArray {
        &self.0[v.node as usize][v.port as usize]
    }
}
