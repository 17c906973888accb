//! Elementwise operations on GPUs: every one is a chain of at least one step, and every chain one kernel.

use super::lower::{Lower, Lowering};
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::ops::leaf::Fill;
use mobilis_cuda::chain::{self, Input, Kind, chain};

/// An operation that was not fused with others.
pub fn single(op: &Op, cx: &mut Lower) -> Lowering {
    let inputs = cx.inputs();
    let args = (0..inputs as u16).collect();
    let ty = cx.output_type(0);
    lower(&Chain::single(inputs, vec![Step { op: op.clone(), args, ty }]), cx)
}

fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::F32,
        DType::I32 => Kind::I32,
        DType::Bool => Kind::U8,
    }
}

pub fn lower(op: &Chain, cx: &mut Lower) -> Lowering {
    let sizes = cx.output_sizes(0).to_vec();
    let views: Vec<View> = (0..op.inputs).map(|i| cx.view(i)).collect();
    // Whether an input is read where an output of this storage would be written, value for value.
    let aligned = |i: usize, dtype: DType| {
        let v = &views[i];
        v.dtype == dtype && dtype != DType::Bool && v.sizes == sizes && v.offset == 0 && v.is_contiguous()
    };
    let (mut outputs, mut taken) = (vec![], vec![]);
    for (port, result) in op.results.iter().enumerate() {
        let dtype = cx.output_dtype(port);
        // A variable is written in place if what reads it here reads each value where it is written.
        if let Some(home) = cx.home(port)
            && (0..views.len()).any(|i| views[i].slot == home && !aligned(i, dtype))
        {
            cx.leave_home(port);
        }
        // The output may take the place of an input of the same bytes that no other input shares.
        let heir = (0..views.len()).find(|i| {
            let alone = || (0..views.len()).all(|k| k == *i || views[k].slot != views[*i].slot);
            !taken.contains(i) && aligned(*i, dtype) && alone()
        });
        taken.extend(heir);
        outputs.push((*result, cx.output_in_place(port, heir)));
    }
    emit(op, &views, &outputs, &sizes, cx)
}

/// Adds the launch of a chain over inputs that lie anywhere, to results by number.
pub fn emit(op: &Chain, views: &[View], outputs: &[chain::Output], sizes: &[usize], cx: &mut Lower) -> Lowering {
    let steps = op.steps.iter().map(|s| step(s, cx)).collect::<Result<Vec<_>, String>>()?;
    let inputs: Vec<Input> = views
        .iter()
        .map(|view| {
            let mut strides = vec![0; sizes.len() - view.strides.len()];
            strides.extend(&view.strides);
            Input { at: cx.address(view), kind: kind(view.dtype), strides }
        })
        .collect();
    cx.launch(chain(&inputs, &steps, outputs, sizes)?);
    Ok(())
}

fn step(step: &Step, cx: &Lower) -> Result<chain::Step, String> {
    let op = match &step.op {
        Op::Constant(c) => match &c.fill {
            Fill::Number(v) => chain::Op::Constant(*v),
            Fill::Size(e) => chain::Op::Size(cx.extent(e)? as f64),
        },
        Op::Iota(op) => chain::Op::Iota(op.axis),
        Op::Unary(op) => chain::Op::Call(op.kind.name()),
        Op::Binary(op) => chain::Op::Call(op.kind.name()),
        Op::Compare(op) => chain::Op::Call(op.kind.name()),
        Op::Select(_) => chain::Op::Select,
        Op::Cast(_) => chain::Op::Cast,
        other => return Err(format!("`{}` is not elementwise", other.rule().name())),
    };
    Ok(chain::Step { op, args: step.args.clone(), kind: kind(step.ty.dtype) })
}
