//! Products whose operands went through fewer bits: what a policy of precision puts in front of products.
//!
//! All values of such an operand are numbers of a format, times a scale for those of eight bits, so they are packed as
//! such, exactly, and tensor cores multiply them. Of values scaled by rows or by blocks of 128 summands the codes are there already
//! (`quantize.rs`), and their scales are undone on sums. Sums stay `f32` (of eight bits: are added to full ones every 128
//! values); only their order differs from that of the `f32` product. Operands of microscaling, and eight bits on
//! devices without Hopper's tensor cores, are multiplied in `f32`.
//!
//! What is stored in 16 bits already (`storage.rs`, or by the model) is read as it lies, unless its lines begin where tensor
//! cores do not read.

use super::lower::{Lower, Refused};
use super::quantize::Codes;
use super::storage::rounding;
use crate::graph::{DType, Value};
use crate::module::encoded::Encoding;
use crate::ops::Op;
use crate::ops::chain::Chain;
use crate::ops::quantize::{Fp8, Group};
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::{Blocks, Element, Gemm, Matrix};
use mobilis_cuda::quantize::{back, convert};

/// Rows and columns below which packing takes longer than it saves.
pub(super) const LEAST: usize = 16;

/// The format of an operand, and for eight bits the scale.
#[derive(Clone, Copy)]
enum Format {
    Sixteen(Element),
    Eight(Element, Value),
    /// By tiles: the value.
    Tiled(Value),
}

/// The format on whose numbers all values lie, as the operation that made them says.
fn format(cx: &Lower, mut v: Value) -> Option<Format> {
    let rounding = |op: &Op| rounding(op).map(Format::Sixteen);
    let result = |chain: &Chain, i: usize| rounding(&chain.steps[chain.results[i] as usize].op);
    loop {
        let (node, port) = (cx.graph.node(v), v.port as usize);
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
            Op::Quantize(op) => match (op.applies(|e| cx.extent(e)).ok()?, &op.group, op.format) {
                (false, ..) => Some(Format::Sixteen(Element::Bf16)),
                (true, Group::All, Fp8::E4M3) => Some(Format::Eight(Element::E4M3, node.inputs[1])),
                (true, Group::All, Fp8::E5M2) => Some(Format::Eight(Element::E5M2, node.inputs[1])),
                (true, Group::Tile { .. }, _) => Some(Format::Tiled(v)),
            },
            Op::Var(op) => match cx.encoding(op.index)? {
                Encoding::Bf16 => Some(Format::Sixteen(Element::Bf16)),
                Encoding::F16 => Some(Format::Sixteen(Element::F16)),
                Encoding::Blocks(_) => None,
            },
            op => rounding(op),
        };
    }
}

/// The format of 16 bits on whose numbers all values lie: rounded to it, or a variable that is stored so.
pub fn format16(cx: &Lower, v: Value) -> Option<Element> {
    match format(cx, v) {
        Some(Format::Sixteen(element)) => Some(element),
        _ => None,
    }
}

/// The same of an input.
pub fn sixteen(i: usize, cx: &Lower) -> Option<Element> {
    format16(cx, cx.value(i))
}

/// An operand as `[rows, k]` of another type, lines of 16 bytes; what is repeated along the batch once. As it lies, where it
/// is of that type and tensor cores can read it.
fn pack(x: &Matrix, g: &Gemm, rows: usize, element: Element, scale: Ptr, cx: &mut Lower) -> Result<Matrix, Refused> {
    if scale == Ptr::NULL && x.element == element && x.lined(g.batch) {
        return Ok(*x);
    }
    let line = g.k.next_multiple_of(16 / element.bytes());
    let moves = |stride: usize, size: usize| if stride > 0 { size } else { 1 };
    let batch = [moves(x.outer, g.batch[0]), moves(x.inner, g.batch[1])];
    let to = cx.scratch(batch[0] * batch[1] * rows * line * element.bytes());
    cx.launch(convert(x, batch, [rows, g.k], scale, (to, element), line)?);
    let far = |stride: usize, values: usize| if stride > 0 { values } else { 0 };
    let (inner, outer) = (far(x.inner, rows * line), far(x.outer, batch[1] * rows * line));
    Ok(Matrix { at: to, element, row: line, col: 1, outer, inner })
}

/// The address of a scale and of its reciprocal.
fn scales(v: Value, cx: &mut Lower) -> (Ptr, Ptr) {
    let view = cx.view_of(v);
    let (scale, to) = (cx.address(&view), cx.scratch(4));
    cx.launch(back(scale, to));
    (scale, to)
}

/// An operand as codes, where it is a whole value that has some: a matrix `[rows, g.k]` and the codes.
fn coded(x: &Matrix, g: &Gemm, rows: usize, v: Value, cx: &mut Lower) -> Option<(Matrix, Codes)> {
    let codes = *cx.codes.get(&v)?;
    let whole = cx.view_of(v);
    let [lines, depth] = codes.size;
    let (row, col) = if codes.along { (depth, 1) } else { (1, lines) };
    let same = |size: usize, found: usize, expected: usize| size <= 1 || found == expected;
    let lies = g.count() == 1 && x.at == cx.address(&whole) && same(rows, x.row, row) && same(g.k, x.col, col);
    if !lies || [rows, g.k] != codes.size {
        return None;
    }
    cx.touch(codes.at.slot);
    cx.touch(codes.back.slot);
    let at = Matrix::rows(cx.at(codes.at, DType::Bool), depth).of(codes.element);
    Some((at, codes))
}

/// The product of codes with scales of rows, or of blocks of what is summed over.
fn tiled(g: &Gemm, [v, w]: [Value; 2], cx: &mut Lower) -> Option<Gemm> {
    let (x, a) = coded(&g.a, g, g.m, v, cx)?;
    let (y, b) = coded(&g.b.turned(), g, g.n, w, cx)?;
    let (back_a, back_b) = (cx.at(a.back, DType::F32), cx.at(b.back, DType::F32));
    let mut new = Gemm { a: x, b: y.turned(), blocks: Some(Blocks::EXACT), ..*g };
    match (a.high, b.high) {
        _ if (a.element, b.element) == (Element::E5M2, Element::E5M2) || a.wide != b.wide => return None,
        (1, 1) if a.wide == g.k => {
            (new.epilogue.row_scales, new.epilogue.column_scales) = (back_a, back_b);
        }
        _ if a.wide != 128 && g.k > 128 => return None,
        (1, high) => {
            let (a_far, b_far) = ([1, a.far], [1, b.far]);
            new.blocks = Some(Blocks { a: back_a, a_far, b: back_b, b_far, each_column: high == 1 });
        }
        // The blocks of several rows stand right.
        (_, 1) => {
            let (a_far, b_far) = ([1, b.far], [1, a.far]);
            new = new.turned();
            new.blocks = Some(Blocks { a: back_b, a_far, b: back_a, b_far, each_column: false });
        }
        _ => return None,
    }
    Some(new)
}

/// The product on packed operands, where both inputs are of formats that tensor cores multiply and it pays.
pub fn packed(g: &Gemm, inputs: [usize; 2], cx: &mut Lower) -> Result<Gemm, Refused> {
    let capability = cx.info().capability;
    if g.m.min(g.n).min(g.k) < LEAST || capability < 80 || g.count() == 0 {
        return Ok(*g);
    }
    match inputs.map(|i| format(cx, cx.value(i))) {
        [Some(Format::Sixteen(a)), Some(Format::Sixteen(b))] if a == b => {
            let (x, y) = (pack(&g.a, g, g.m, a, Ptr::NULL, cx)?, pack(&g.b.turned(), g, g.n, a, Ptr::NULL, cx)?);
            Ok(Gemm { a: x, b: y.turned(), ..*g })
        }
        [Some(Format::Eight(a, of_a)), Some(Format::Eight(b, of_b))]
            if (a, b) != (Element::E5M2, Element::E5M2) && capability / 10 == 9 =>
        {
            let ((sa, back_a), (sb, back_b)) = (scales(of_a, cx), scales(of_b, cx));
            let (x, y) = (pack(&g.a, g, g.m, a, sa, cx)?, pack(&g.b.turned(), g, g.n, b, sb, cx)?);
            let mut g = Gemm { a: x, b: y.turned(), blocks: Some(Blocks::EXACT), ..*g };
            g.epilogue.factors = [back_a, back_b];
            Ok(g)
        }
        [Some(Format::Tiled(a)), Some(Format::Tiled(b))] => Ok(tiled(g, [a, b], cx).unwrap_or(*g)),
        _ => Ok(*g),
    }
}
