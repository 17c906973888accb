//! Joined matrix products on the CPU: one call of the kernel, whatever their number and whatever
//! follows them.

use super::chain::{Input, Output, assemble, layout, storage};
use super::lower::Lower;
use super::view::View;
use super::weights::Weight;
use crate::graph::DType;
use crate::ops::product::{After, Axes, LEFTS, Product};
use mobilis_kernels::cpu::chain::{self, Code, INPUTS, Kind, Layout, Source};
use mobilis_kernels::cpu::epilogue::{Fused, RESULTS, Then, product};
use mobilis_kernels::cpu::gemm::{self, Left, Matrix, Right};
use mobilis_kernels::memory::Piece;
use std::ops::Range;
use std::sync::Arc;

/// An operand: where it is, its strides, its rows and columns.
#[derive(Clone, Copy)]
struct Operand {
    piece: Piece,
    at: Matrix,
    columns: usize,
}

/// The distance between neighbours of a group of dimensions, where they are one.
fn stride(view: &View, axes: &[usize]) -> Option<usize> {
    let dims: Vec<(usize, usize)> =
        axes.iter().map(|a| (view.sizes[*a], view.strides[*a])).filter(|d| d.0 != 1).collect();
    let one = dims.windows(2).all(|w| w[0].1 == w[1].0 * w[1].1);
    one.then(|| dims.last().map_or(0, |d| d.1))
}

/// An operand as a matrix, copied where its dimensions do not follow each other.
fn operand(input: usize, axes: &Axes, cx: &mut Lower) -> Operand {
    let view = cx.view(input);
    let columns = axes.columns.iter().map(|a| view.sizes[*a]).product();
    if let (Some(row), Some(col)) = (stride(&view, &axes.rows), stride(&view, &axes.columns)) {
        let len = if view.count() == 0 { 0 } else { view.reach() };
        let piece = Piece { slot: view.slot, offset: view.offset, len };
        return Operand { piece, at: Matrix { row, col }, columns };
    }
    let perm: Vec<usize> = axes.rows.iter().chain(&axes.columns).copied().collect();
    let piece = cx.packed(&view.permute(&perm));
    Operand { piece, at: Matrix::rows(columns), columns }
}

/// The chain that follows a result, with its places.
struct Following {
    code: Code,
    layouts: Vec<Layout>,
    /// The input that is the product.
    product: usize,
    inputs: Vec<(Piece, Kind)>,
    outs: Vec<(Piece, Kind)>,
}

fn following(after: &After, ports: Range<usize>, cx: &mut Lower) -> Result<Following, String> {
    let sizes = cx.output_sizes(ports.start).to_vec();
    let product = after.inputs.iter().position(Option::is_none).ok_or("a chain does not read its product")?;
    let outs: Vec<(Piece, Kind)> = ports.map(|port| (cx.output(port), storage(cx.output_dtype(port)))).collect();
    let own = View::whole(outs[0].0.slot, &sizes, DType::F32);
    let views: Vec<View> = after.inputs.iter().map(|i| i.map_or_else(|| own.clone(), |i| cx.view(i))).collect();
    let layouts: Vec<Layout> = views.iter().map(|v| layout(v, &sizes)).collect();
    let dtypes: Vec<DType> = views.iter().map(|v| v.dtype).collect();
    let code = assemble(&after.chain, &dtypes, &sizes, &|e| cx.extent(e))?;
    let piece = |(v, l): (&View, &Layout)| (Piece { slot: v.slot, offset: v.offset, len: l.reach() }, storage(v.dtype));
    let inputs = views.iter().zip(&layouts).map(piece).collect();
    Ok(Following { code, layouts, product, inputs, outs })
}

/// Handles of the right sides of a result that are prepared once.
fn weights(m: usize, right: &[Operand], left: &[Operand], cx: &Lower) -> Vec<Option<Arc<Weight>>> {
    // All terms of a sum are rounded, or none.
    let rounded = right.iter().zip(left).filter(|(r, l)| cx.rounds(r.piece, (r.columns, l.columns), r.at)).count();
    if rounded != 0 && rounded != right.len() {
        return vec![None; right.len()];
    }
    right.iter().zip(left).map(|(r, l)| cx.weight(r.piece, (m, r.columns, l.columns), r.at)).collect()
}

/// The first `count` places.
#[inline(always)]
fn filled<T, const N: usize>(count: usize, mut f: impl FnMut(usize) -> T) -> [Option<T>; N] {
    let mut all = [const { None }; N];
    for (i, place) in all.iter_mut().enumerate().take(count) {
        *place = Some(f(i));
    }
    all
}

pub fn lower(op: &Product, cx: &mut Lower) -> Result<(), String> {
    let (lefts, results) = (op.left.len(), op.right.len());
    let left: Vec<Operand> = op.left.iter().enumerate().map(|(i, axes)| operand(i, axes, cx)).collect();
    let mut right: Vec<Operand> = vec![];
    for (j, terms) in op.right.iter().enumerate() {
        for (i, axes) in terms.iter().enumerate() {
            right.push(operand(op.right_input(j, i), axes, cx));
        }
    }
    let m: usize = op.left[0].rows.iter().map(|a| cx.input_sizes(0)[*a]).product();
    let (mut own, mut then) = ([None; RESULTS], [const { None }; RESULTS]);
    for j in 0..results {
        let (port, more) = op.ports(j);
        own[j] = port.map(|port| cx.output(port));
        then[j] = op.after[j].as_ref().map(|after| following(after, more, cx)).transpose()?;
    }
    let depth = left.iter().map(|l| l.columns).sum();
    let weights: Vec<Option<Arc<Weight>>> =
        right.chunks(lefts).flat_map(|right| weights(m, right, &left, cx)).collect();
    left.iter().for_each(|l| cx.reads(l.piece.slot));
    for (right, weight) in right.iter_mut().zip(&weights) {
        right.piece = cx.right(right.piece, weight.as_deref());
    }
    let width = |j: usize| right[j * lefts].columns;
    let more: usize = weights.iter().flatten().map(|w| w.scratch(m)).sum();
    let scratch = cx.scratch(gemm::scratch_len(m, depth, (0..results).map(width), true) + more);
    let nothing = Operand { piece: Piece { slot: 0, offset: 0, len: 0 }, at: Matrix::rows(0), columns: 0 };
    let at = |x: &[Operand], i: usize| x.get(i).copied().unwrap_or(nothing);
    let left: [Operand; LEFTS] = std::array::from_fn(|i| at(&left, i));
    let right: [Operand; LEFTS * RESULTS] = std::array::from_fn(|i| at(&right, i));
    if m == 0 {
        return Ok(());
    }
    let alike = cx.alike;
    cx.task(move |mem| {
        // A step of a language model runs this for weights that take some microseconds to read: places
        // are filled where they are, as far as they are used.
        let a: [_; LEFTS] = filled(lefts, |i| mem.f32(left[i].piece));
        let a: [Left; LEFTS] =
            std::array::from_fn(|i| Left { k: left[i].columns, data: a[i].as_deref().unwrap_or(&[]), at: left[i].at });
        let plain: [_; LEFTS * RESULTS] = filled(lefts * results, |i| mem.f32(right[i].piece));
        let ready: [_; LEFTS * RESULTS] = filled(weights.len(), |i| weights[i].as_deref().map(Weight::lock));
        let b: [Right; LEFTS * RESULTS] = std::array::from_fn(|i| {
            let plain = plain[i].as_deref().unwrap_or(&[]);
            match &ready[i] {
                Some(Some(ready)) => ready.right(plain),
                _ => Right::Plain(plain, right[i].at),
            }
        });
        let mut inputs: [_; RESULTS * INPUTS] = [const { None }; _];
        let mut outputs: [_; RESULTS * chain::RESULTS] = [const { None }; _];
        for (j, t) in then.iter().enumerate().filter_map(|(j, t)| Some((j, t.as_ref()?))) {
            for (i, input) in t.inputs.iter().enumerate().filter(|(i, _)| *i != t.product) {
                inputs[j * INPUTS + i] = Some(Input::borrow(mem, *input));
            }
            for (k, out) in t.outs.iter().enumerate() {
                outputs[j * chain::RESULTS + k] = Some(Output::borrow(mem, *out));
            }
        }
        let mut sources = [Source::Out(0); RESULTS * INPUTS];
        for (source, input) in sources.iter_mut().zip(&inputs) {
            *source = input.as_ref().map_or(Source::Out(0), Input::source);
        }
        let mut targets = outputs.each_mut().map(Output::target);
        let mut own: [_; RESULTS] = filled(results, |j| own[j].map(|p| mem.f32_mut(p)));
        let mut fused = [const { None }; RESULTS];
        let places = sources.chunks_mut(INPUTS).zip(targets.chunks_mut(chain::RESULTS)).zip(&mut own);
        for (j, ((sources, targets), c)) in places.enumerate().take(results) {
            let c = c.as_mut().and_then(Option::as_mut).map(|c| &mut **c);
            let then = match (&then[j], c) {
                (Some(t), keep) => Then::Chain {
                    code: &t.code,
                    layouts: &t.layouts,
                    sources: &mut sources[..t.inputs.len()],
                    product: t.product,
                    keep,
                    targets: &mut targets[..t.outs.len()],
                },
                (None, Some(c)) => Then::Store(c),
                (None, None) => continue,
            };
            fused[j] = Some(Fused { n: right[j * lefts].columns, b: &b[j * lefts..(j + 1) * lefts], then });
        }
        product(mem.pool(), (m, alike), &a[..lefts], fused, &mut mem.f32_mut(scratch));
    });
    Ok(())
}
