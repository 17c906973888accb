//! Norms on the CPU.

use super::lower::Lower;
use crate::ops::norm::{Kind, Norm, NormGrad};
use mobilis_kernels::cpu::norm::{self, norm, norm_grad, norm_grad_scratch};

fn kernel(op: &Norm, cx: &Lower) -> Result<norm::Norm, String> {
    let groups = op.groups.as_ref().map(|g| cx.extent(g)).transpose()?;
    Ok(norm::Norm { centred: op.kind == Kind::Layer, eps: op.eps as f32, row: op.row(cx.input_sizes(0), groups)? })
}

pub fn lower(op: &Norm, cx: &mut Lower) -> Result<(), String> {
    let kernel = kernel(op, cx)?;
    let x = cx.input(0);
    let weight = op.weight.then(|| cx.input(1));
    let bias = op.bias.then(|| cx.input(cx.inputs() - 1));
    let y = cx.output(0);
    cx.task(move |m| {
        let (weight, bias) = (weight.map(|w| m.f32(w)), bias.map(|b| m.f32(b)));
        norm(m.pool(), kernel, &m.f32(x), weight.as_deref(), bias.as_deref(), &mut m.f32_mut(y));
    });
    Ok(())
}

pub fn grad(op: &NormGrad, cx: &mut Lower) -> Result<(), String> {
    let kernel = kernel(&op.norm, cx)?;
    let (x, g) = (cx.input(0), cx.input(cx.inputs() - 1));
    let weight = op.norm.weight.then(|| cx.input(1));
    let gx = cx.output(0);
    let gweight = op.norm.weight.then(|| cx.output(1));
    let gbias = op.norm.bias.then(|| cx.output(1 + op.norm.weight as usize));
    let scratch = cx.scratch(norm_grad_scratch(kernel.row));
    cx.task(move |m| {
        let weight = weight.map(|w| m.f32(w));
        let (mut gweight, mut gbias) = (gweight.map(|p| m.f32_mut(p)), gbias.map(|p| m.f32_mut(p)));
        norm_grad(
            m.pool(),
            kernel,
            &m.f32(x),
            weight.as_deref(),
            &m.f32(g),
            &mut m.f32_mut(gx),
            gweight.as_deref_mut(),
            gbias.as_deref_mut(),
            &mut m.f32_mut(scratch),
        );
    });
    Ok(())
}
