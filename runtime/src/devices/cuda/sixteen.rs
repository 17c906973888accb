//! Products whose operands went through 16 bits (`bf16`, `f16`): what a policy of precision puts in front of products.
//! All values of such an operand are numbers of the format, so they are packed as such, exactly, and tensor cores
//! multiply them; the sum stays `f32`, and only its order differs from that of the `f32` product.

use super::lower::{Lower, Refused};
use crate::graph::{Graph, Value};
use crate::ops::Op;
use crate::ops::chain::Chain;
use crate::ops::elementwise::UnaryKind;
use mobilis_cuda::gemm::{Element, Gemm, Matrix};
use mobilis_cuda::quantize::convert;

/// Rows and columns below which packing takes longer than it saves.
const LEAST: usize = 16;

/// The format of 16 bits on whose numbers all values lie, as the operation that made them says.
pub fn format(graph: &Graph, mut v: Value) -> Option<Element> {
    let rounding = |op: &Op| match op {
        Op::Unary(op) if op.kind == UnaryKind::Bf16 => Some(Element::Bf16),
        Op::Unary(op) if op.kind == UnaryKind::F16 => Some(Element::F16),
        _ => None,
    };
    let result = |chain: &Chain, i: usize| rounding(&chain.steps[chain.results[i] as usize].op);
    loop {
        let (node, port) = (graph.node(v), v.port as usize);
        return match &node.op {
            op if op.rule().is_view() => {
                v = *node.inputs.first()?;
                continue;
            }
            Op::Chain(chain) => result(chain, port),
            Op::Product(op) => op.after.iter().enumerate().find_map(|(j, after)| {
                let more = op.ports(j).1;
                let chain = &after.as_ref()?.chain;
                more.contains(&port).then(|| result(chain, port - more.start))?
            }),
            op => rounding(op),
        };
    }
}

/// The product on packed operands, where both inputs are of one format of 16 bits and it pays.
pub fn packed(g: &Gemm, inputs: [usize; 2], cx: &mut Lower) -> Result<Gemm, Refused> {
    let [a, b] = inputs.map(|i| format(cx.graph, cx.value(i)));
    let pays = g.m.min(g.n) >= LEAST && g.k >= LEAST && cx.info().capability >= 80;
    let Some(element) = a.filter(|a| pays && b == Some(*a) && g.count() > 0) else { return Ok(*g) };
    let line = g.k.next_multiple_of(8);
    let mut pack = |x: &Matrix, rows: usize| -> Result<Matrix, Refused> {
        // What is repeated along the batch is packed once.
        let moves = |stride: usize, size: usize| if stride > 0 { size } else { 1 };
        let batch = [moves(x.outer, g.batch[0]), moves(x.inner, g.batch[1])];
        let to = cx.scratch(batch[0] * batch[1] * rows * line * element.bytes());
        cx.launch(convert(x, batch, [rows, g.k], to, element, line)?);
        let far = |stride: usize, values: usize| if stride > 0 { values } else { 0 };
        let (inner, outer) = (far(x.inner, rows * line), far(x.outer, batch[1] * rows * line));
        Ok(Matrix { at: to, element, row: line, col: 1, outer, inner })
    };
    let (a, b) = (pack(&g.a, g.m)?, pack(&g.b.turned(), g.n)?.turned());
    Ok(Gemm { a, b, ..*g })
}
