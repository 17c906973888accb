//! Attention on the CPU. Queries, keys and values may be views whose features are neighbours, so
//! that a joint projection is not taken apart.

use super::lower::Lower;
use crate::devices::reference::array::strides;
use crate::graph::DType;
use crate::ops::attention::{Attention, AttentionGrad, Shape};
use mobilis_kernels::cpu::attention as kernel;
use mobilis_kernels::cpu::attention::{Dropout, Gradients, Mask, Operand, PerExample, Sizes, Strides};
use mobilis_kernels::memory::{Memory, Piece, Read};
use mobilis_kernels::pool::Pool;

/// An operand `[b, positions, heads.., width]` in memory.
#[derive(Clone, Copy)]
struct Place {
    piece: Piece,
    strides: Strides,
}

/// Input `i` as it lies, or a copy of it where heads or features do not lie regularly.
fn place(i: usize, cx: &mut Lower) -> Place {
    let view = cx.view(i);
    let n = &view.sizes;
    let last = n.len() - 1;
    // Two dimensions of heads must be one in memory.
    let joined = last == 3 || n[3] == 1 || n[2] <= 1 || view.strides[2] == n[3] * view.strides[3];
    if view.count() > 0 && (view.strides[last] == 1 || n[last] == 1) && joined {
        let reach = n.iter().zip(&view.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1;
        let piece = Piece { slot: view.slot, offset: view.offset, len: reach };
        let h = if last == 4 && n[3] > 1 { view.strides[3] } else { view.strides[2] };
        return Place { piece, strides: Strides { b: view.strides[0], t: view.strides[1], h } };
    }
    let heads: usize = n[2..last].iter().product();
    Place { piece: cx.input(i), strides: Strides::packed(n[1], heads, n[last]) }
}

/// Everything about an attention but its operands.
struct Prepared {
    sizes: Sizes,
    scale: f32,
    soft_cap: Option<f32>,
    causal: bool,
    window: Option<usize>,
    lengths: Option<Piece>,
    offset: Option<Piece>,
    mask: Option<(Piece, DType, [usize; 4])>,
    dropout: Option<(f32, u32, Piece)>,
}

impl Prepared {
    fn new(op: &Attention, cx: &mut Lower) -> Prepared {
        let n = Shape::of(cx.input_sizes(0), cx.input_sizes(1), cx.input_sizes(2));
        let mask = op.extras.mask.as_ref().map(|(i, axes)| {
            let own = strides(cx.input_sizes(*i));
            let mut wide = [0; 4];
            axes.iter().zip(own).for_each(|(a, s)| wide[*a as usize] = s);
            (cx.input(*i), cx.input_dtype(*i), wide)
        });
        let key = op.extras.key.map(|i| cx.input(i));
        Prepared {
            sizes: Sizes { b: n.b, t: n.t, s: n.s, g: n.g, r: n.r, d: n.d, e: n.e, alike: cx.alike },
            scale: n.scale(&op.settings) as f32,
            soft_cap: op.settings.soft_cap.map(|c| c as f32),
            causal: op.settings.causal,
            window: op.settings.window.map(|w| w as usize),
            lengths: op.extras.lengths.map(|i| cx.input(i)),
            offset: op.extras.offset.map(|i| cx.input(i)),
            mask,
            dropout: op.settings.dropout.zip(key).map(|(d, key)| (d.probability as f32, d.stream, key)),
        }
    }

    /// Calls `f` with the small inputs borrowed.
    fn with<R>(&self, m: &Memory, f: impl FnOnce(&kernel::Settings) -> R) -> R {
        enum Data<'m> {
            None,
            Truth(Read<'m, u8>),
            Real(Read<'m, f32>),
        }
        let (lengths, offset) = (self.lengths.map(|p| m.i32(p)), self.offset.map(|p| m.i32(p)));
        let (data, at) = match self.mask {
            None => (Data::None, [0; 4]),
            Some((p, DType::Bool, at)) => (Data::Truth(m.u8(p)), at),
            Some((p, _, at)) => (Data::Real(m.f32(p)), at),
        };
        let dropout = self.dropout.map(|(probability, stream, key)| {
            let key = m.i32(key);
            Dropout { probability, stream, key: [key[0] as u32, key[1] as u32] }
        });
        f(&kernel::Settings {
            sizes: self.sizes,
            scale: self.scale,
            soft_cap: self.soft_cap,
            causal: self.causal,
            window: self.window,
            lengths: lengths.as_deref().map(PerExample),
            offset: offset.as_deref().map(PerExample),
            mask: match &data {
                Data::None => Mask::None,
                Data::Truth(d) => Mask::Truth(d, at),
                Data::Real(d) => Mask::Real(d, at),
            },
            dropout,
        })
    }
}

pub fn lower(op: &Attention, cx: &mut Lower) {
    let prepared = Prepared::new(op, cx);
    let places = [0, 1, 2].map(|i| place(i, cx));
    let (out, lse) = (cx.output(0), cx.output(1));
    let n = prepared.sizes;
    let scratch = cx.scratch(kernel::forward_scratch(&n, Pool::global().threads()));
    cx.task(move |m| {
        let data = places.map(|p| m.f32(p.piece));
        let operands = [0, 1, 2].map(|i| Operand { data: &data[i], strides: places[i].strides });
        prepared.with(m, |settings| {
            let (out, lse, scratch) = (&mut m.f32_mut(out), &mut m.f32_mut(lse), &mut m.f32_mut(scratch));
            kernel::forward(m.pool(), settings, operands, out, lse, scratch);
        });
    });
}

pub fn grad(op: &AttentionGrad, cx: &mut Lower) {
    let prepared = Prepared::new(&op.attention, cx);
    let (out, lse, g, g_lse) = op.places();
    let places = [0, 1, 2, g].map(|i| place(i, cx));
    let (out, lse, g_lse) = (cx.input(out), cx.input(lse), g_lse.map(|i| cx.input(i)));
    let [dq, dk, dv] = [0, 1, 2].map(|p| cx.output(p));
    let dmask = op.by_mask.then(|| cx.output(3));
    let n = prepared.sizes;
    let scratch = cx.scratch(kernel::backward_scratch(&n, Pool::global().threads()));
    cx.task(move |m| {
        let data = places.map(|p| m.f32(p.piece));
        let operand = |i: usize| Operand { data: &data[i], strides: places[i].strides };
        let (out, lse, g_lse) = (m.f32(out), m.f32(lse), g_lse.map(|p| m.f32(p)));
        let (mut dq, mut dk, mut dv) = (m.f32_mut(dq), m.f32_mut(dk), m.f32_mut(dv));
        let mut dmask = dmask.map(|p| m.f32_mut(p));
        let to = Gradients {
            out: &out,
            lse: &lse,
            g: operand(3),
            g_lse: g_lse.as_deref(),
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            dmask: dmask.as_deref_mut(),
        };
        prepared.with(m, |settings| {
            kernel::backward(m.pool(), settings, [0, 1, 2].map(operand), to, &mut m.f32_mut(scratch));
        });
    });
}
