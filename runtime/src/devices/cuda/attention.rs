//! Attention on GPUs. Queries, keys and values may be views whose features are neighbours, so that a joint
//! projection is not taken apart.
//!
//! Where a policy of precision rounds operands and results to 16 bits, tensor cores attend (`sixteen.rs`).

mod sixteen;

use super::lower::{Lower, Lowering};
use crate::devices::reference::array::strides;
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::attention::{Attention, AttentionGrad, Shape};
use mobilis_cuda::Ptr;
use mobilis_cuda::attention as kernel;
use mobilis_cuda::attention::{Dropout, Gradients, Mask, Operand, Problem, Sizes};

/// Where heads and features of a view lie, if they lie regularly.
fn regular(view: &View, cx: &Lower) -> Option<Operand> {
    let n = &view.sizes;
    let last = n.len() - 1;
    // Two dimensions of heads must be one in memory.
    let joined = last == 3 || n[3] == 1 || n[2] <= 1 || view.strides[2] == n[3] * view.strides[3];
    if view.count() > 0 && (view.strides[last] == 1 || n[last] == 1) && joined {
        let h = if last == 4 && n[3] > 1 { view.strides[3] } else { view.strides[2] };
        return Some(Operand { at: cx.address(view), b: view.strides[0], t: view.strides[1], h });
    }
    None
}

/// Input `i` in `f32` as it lies, or a copy of it where heads or features do not lie regularly.
fn operand(i: usize, cx: &mut Lower) -> Operand {
    let view = cx.view(i);
    if let Some(operand) = regular(&view, cx) {
        return operand;
    }
    let (n, last) = (&view.sizes, view.sizes.len() - 1);
    let (positions, heads, features) = (n[1], n[2..last].iter().product(), n[last]);
    Operand::packed(cx.input(i), positions, heads, features)
}

fn problem(op: &Attention, cx: &mut Lower) -> Problem {
    let n = Shape::of(cx.input_sizes(0), cx.input_sizes(1), cx.input_sizes(2));
    let mask = op.extras.mask.as_ref().map(|(i, axes)| {
        let (mut has, mut wide) = ([false; 4], [0; 4]);
        for (a, s) in axes.iter().zip(strides(cx.input_sizes(*i))) {
            (has[*a as usize], wide[*a as usize]) = (true, s);
        }
        Mask { real: cx.input_dtype(*i) != DType::Bool, at: cx.input(*i), has, strides: wide }
    });
    let dropout = op.settings.dropout.zip(op.extras.key).map(|(d, key)| Dropout {
        probability: d.probability as f32,
        stream: d.stream,
        key: cx.input(key),
    });
    let offset = op.extras.offset.map_or((Ptr::NULL, false), |i| (cx.input(i), !cx.input_sizes(i).is_empty()));
    Problem {
        sizes: Sizes { b: n.b, t: n.t, s: n.s, g: n.g, r: n.r, d: n.d, e: n.e },
        scale: n.scale(&op.settings) as f32,
        soft_cap: op.settings.soft_cap.map(|c| c as f32),
        causal: op.settings.causal,
        window: op.settings.window.map(|w| usize::try_from(w).unwrap_or(usize::MAX)),
        lengths: op.extras.lengths.map_or(Ptr::NULL, |i| cx.input(i)),
        offset,
        mask,
        dropout,
    }
}

pub fn lower(op: &Attention, cx: &mut Lower) -> Lowering {
    let problem = problem(op, cx);
    if sixteen::forward(&problem, cx) {
        return Ok(());
    }
    let operands = [0, 1, 2].map(|i| operand(i, cx));
    let (out, lse) = (cx.output(0), cx.output(1));
    let scratch = cx.scratch(kernel::forward_workspace(&problem, cx.info())?);
    let launches = kernel::forward(&problem, cx.info(), operands, out, lse, scratch)?;
    cx.launch(launches);
    Ok(())
}

pub fn grad(op: &AttentionGrad, cx: &mut Lower) -> Lowering {
    let problem = problem(&op.attention, cx);
    if !op.by_mask && sixteen::backward(&problem, op.places(), cx) {
        return Ok(());
    }
    let (out, lse, g, g_lse) = op.places();
    let operands = [0, 1, 2].map(|i| operand(i, cx));
    let g = operand(g, cx);
    let (out, lse) = (cx.input(out), cx.input(lse));
    let g_lse = g_lse.map_or(Ptr::NULL, |i| cx.input(i));
    let [dq, dk, dv] = [0, 1, 2].map(|port| cx.output(port));
    let dmask = if op.by_mask { cx.output(3) } else { Ptr::NULL };
    let to = Gradients { out, lse, g, g_lse, dq, dk, dv, dmask };
    let scratch = cx.scratch(kernel::backward_workspace(&problem)?);
    cx.launch(kernel::backward(&problem, operands, &to, scratch)?);
    Ok(())
}
