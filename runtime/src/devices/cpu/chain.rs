//! Elementwise operations on the CPU: every one is a chain of at least one step.

use super::lower::Lower;
use crate::graph::DType;
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::ops::elementwise::{BinaryKind, CompareKind, UnaryKind};
use crate::ops::leaf::Fill;
use mobilis_kernels::cpu::chain::{
    BinaryOp, CompareOp, FLOATS, INPUTS, INTS, Ins, Layout, Reg, Source, Target, UnaryF, run,
};
use mobilis_kernels::memory::{Memory, Piece, Read};

/// A constant or iota that some other family reads as an array.
pub fn source(op: &Op, cx: &mut Lower) -> Result<(), String> {
    single(op, cx)
}

/// An operation that was not fused with others.
pub fn single(op: &Op, cx: &mut Lower) -> Result<(), String> {
    let inputs = cx.inputs();
    let args = (0..inputs as u16).collect();
    let ty = cx.output_type(0);
    lower(&Chain { inputs, steps: vec![Step { op: op.clone(), args, ty }] }, cx)
}

/// Registers of one file.
struct File {
    used: Vec<bool>,
}

impl File {
    fn take(&mut self) -> Result<Reg, String> {
        let free = self.used.iter().position(|u| !u).ok_or("a fused chain needs too many registers")?;
        self.used[free] = true;
        Ok(free as Reg)
    }
}

pub fn lower(chain: &Chain, cx: &mut Lower) -> Result<(), String> {
    if chain.inputs > INPUTS {
        return Err("a fused chain has too many inputs".into());
    }
    let sizes = cx.output_sizes(0).to_vec();
    let views: Vec<_> = (0..chain.inputs).map(|i| cx.view(i)).collect();
    let layouts: Vec<Layout> = views
        .iter()
        .map(|v| {
            let mut strides = vec![0; sizes.len() - v.strides.len()];
            strides.extend(&v.strides);
            Layout::new(&sizes, &strides, 0)
        })
        .collect();
    let (code, result) = assemble(chain, &sizes, cx)?;

    // The output may take the place of an input of the same bytes that no other input shares.
    let dtype = cx.output_dtype(0);
    let heir = (0..views.len()).find(|i| {
        let v = &views[*i];
        v.dtype == dtype
            && dtype != DType::Bool
            && v.sizes == sizes
            && v.offset == 0
            && v.is_contiguous()
            && views.iter().enumerate().all(|(k, w)| k == *i || w.slot != v.slot)
    });
    let out = cx.output_in_place(0, heir);
    let pieces: Vec<(Piece, DType)> = views
        .iter()
        .zip(&layouts)
        .map(|(v, l)| (Piece { slot: v.slot, offset: v.offset, len: l.reach() }, v.dtype))
        .collect();
    if out.len == 0 {
        return Ok(());
    }
    cx.task(move |m| execute(m, &code, result, &layouts, &pieces, out, dtype));
    Ok(())
}

/// A borrowed input of any storage.
enum Input<'m> {
    F32(Read<'m, f32>),
    I32(Read<'m, i32>),
    U8(Read<'m, u8>),
    Out,
}

fn execute(
    m: &Memory,
    code: &[Ins],
    result: Reg,
    layouts: &[Layout],
    pieces: &[(Piece, DType)],
    out: Piece,
    dtype: DType,
) {
    let inputs: [Option<Input>; INPUTS] = std::array::from_fn(|i| {
        pieces.get(i).map(|(piece, kind)| match kind {
            DType::Bool => Input::U8(m.u8(*piece)),
            _ if dtype != DType::Bool && m.same(*piece, out) => Input::Out,
            DType::F32 => Input::F32(m.f32(*piece)),
            DType::I32 => Input::I32(m.i32(*piece)),
        })
    });
    let sources: [Source; INPUTS] = std::array::from_fn(|i| match &inputs[i] {
        Some(Input::F32(s)) => Source::F32(s),
        Some(Input::I32(s)) => Source::I32(s),
        Some(Input::U8(s)) => Source::U8(s),
        Some(Input::Out) | None => Source::Out,
    });
    let sources = &sources[..pieces.len()];
    match dtype {
        DType::F32 => run(m.pool(), code, result, layouts, sources, Target::F32(&mut m.f32_mut(out))),
        DType::I32 => run(m.pool(), code, result, layouts, sources, Target::I32(&mut m.i32_mut(out))),
        DType::Bool => run(m.pool(), code, result, layouts, sources, Target::U8(&mut m.u8_mut(out))),
    }
}

/// The instructions of a chain and the register of its result.
fn assemble(chain: &Chain, sizes: &[usize], cx: &Lower) -> Result<(Vec<Ins>, Reg), String> {
    let last = chain.last_uses();
    let mut floats = File { used: vec![false; FLOATS] };
    let mut ints = File { used: vec![false; INTS] };
    let mut regs: Vec<Option<(Reg, DType)>> = vec![None; chain.inputs + chain.steps.len()];
    let mut code = vec![];
    for (i, step) in chain.steps.iter().enumerate() {
        for a in &step.args {
            let a = *a as usize;
            if regs[a].is_none() {
                let dtype = cx.input_dtype(a);
                let reg = if dtype == DType::F32 { floats.take()? } else { ints.take()? };
                code.push(match dtype {
                    DType::F32 => Ins::LoadF(reg, a as u8),
                    DType::I32 => Ins::LoadI(reg, a as u8),
                    DType::Bool => Ins::LoadM(reg, a as u8),
                });
                regs[a] = Some((reg, dtype));
            }
        }
        let dst = if step.ty.dtype == DType::F32 { floats.take()? } else { ints.take()? };
        let arg = |k: usize| regs[step.args[k] as usize].expect("operands were loaded or computed");
        let (r, kind) = (|k: usize| arg(k).0, |k: usize| arg(k).1);
        code.push(match &step.op {
            Op::Constant(op) => {
                let value = match &op.fill {
                    Fill::Number(v) => *v,
                    Fill::Size(e) => cx.extent(e)? as f64,
                };
                if step.ty.dtype == DType::F32 {
                    Ins::ConstF(dst, value as f32)
                } else {
                    Ins::ConstI(dst, value as i32)
                }
            }
            Op::Iota(op) => Ins::Iota {
                dst,
                div: sizes[op.axis + 1..].iter().product::<usize>().max(1),
                modulus: sizes[op.axis].max(1),
            },
            Op::Unary(op) => unary(op.kind, kind(0), dst, r(0)),
            Op::Binary(op) => {
                let f = binary(op.kind);
                if kind(0) == DType::F32 { Ins::BinF(f, dst, r(0), r(1)) } else { Ins::BinI(f, dst, r(0), r(1)) }
            }
            Op::Compare(op) => {
                let f = compare(op.kind);
                if kind(0) == DType::F32 { Ins::CmpF(f, dst, r(0), r(1)) } else { Ins::CmpI(f, dst, r(0), r(1)) }
            }
            Op::Select(_) if step.ty.dtype == DType::F32 => Ins::SelF(dst, r(0), r(1), r(2)),
            Op::Select(_) => Ins::SelI(dst, r(0), r(1), r(2)),
            Op::Cast(op) => match (kind(0), op.dtype) {
                (DType::F32, DType::F32) => return Err("a cast changes nothing".into()),
                (DType::F32, DType::I32) => Ins::FloatToInt(dst, r(0)),
                (DType::F32, DType::Bool) => Ins::FloatToMask(dst, r(0)),
                (_, DType::F32) => Ins::IntToFloat(dst, r(0)),
                (DType::I32, DType::Bool) => Ins::IntToMask(dst, r(0)),
                (_, DType::I32 | DType::Bool) => Ins::MoveI(dst, r(0)),
            },
            other => return Err(format!("`{}` is not elementwise", other.rule().name())),
        });
        regs[chain.inputs + i] = Some((dst, step.ty.dtype));
        for a in 0..regs.len() {
            if last[a] <= i
                && let Some((reg, dtype)) = regs[a].take()
            {
                let file = if dtype == DType::F32 { &mut floats } else { &mut ints };
                file.used[reg as usize] = false;
            }
        }
    }
    let result = regs.last().copied().flatten().ok_or("a chain has no step")?;
    Ok((code, result.0))
}

fn unary(kind: UnaryKind, dtype: DType, dst: Reg, a: Reg) -> Ins {
    let f = match kind {
        UnaryKind::Not => return Ins::Not(dst, a),
        UnaryKind::Neg if dtype == DType::I32 => return Ins::NegI(dst, a),
        UnaryKind::Abs if dtype == DType::I32 => return Ins::AbsI(dst, a),
        UnaryKind::Sign if dtype == DType::I32 => return Ins::SignI(dst, a),
        UnaryKind::Neg => UnaryF::Neg,
        UnaryKind::Exp => UnaryF::Exp,
        UnaryKind::Expm1 => UnaryF::Expm1,
        UnaryKind::Log => UnaryF::Log,
        UnaryKind::Log1p => UnaryF::Log1p,
        UnaryKind::Sqrt => UnaryF::Sqrt,
        UnaryKind::Rsqrt => UnaryF::Rsqrt,
        UnaryKind::Recip => UnaryF::Recip,
        UnaryKind::Abs => UnaryF::Abs,
        UnaryKind::Sign => UnaryF::Sign,
        UnaryKind::Sin => UnaryF::Sin,
        UnaryKind::Cos => UnaryF::Cos,
        UnaryKind::Tanh => UnaryF::Tanh,
        UnaryKind::Erf => UnaryF::Erf,
        UnaryKind::Sigmoid => UnaryF::Sigmoid,
        UnaryKind::Floor => UnaryF::Floor,
        UnaryKind::Ceil => UnaryF::Ceil,
        UnaryKind::Round => UnaryF::Round,
    };
    Ins::UnF(f, dst, a)
}

fn binary(kind: BinaryKind) -> BinaryOp {
    match kind {
        BinaryKind::Add => BinaryOp::Add,
        BinaryKind::Sub => BinaryOp::Sub,
        BinaryKind::Mul => BinaryOp::Mul,
        BinaryKind::Div => BinaryOp::Div,
        BinaryKind::Pow => BinaryOp::Pow,
        BinaryKind::Min => BinaryOp::Min,
        BinaryKind::Max => BinaryOp::Max,
        BinaryKind::Rem => BinaryOp::Rem,
        BinaryKind::And => BinaryOp::And,
        BinaryKind::Or => BinaryOp::Or,
        BinaryKind::Xor => BinaryOp::Xor,
    }
}

fn compare(kind: CompareKind) -> CompareOp {
    match kind {
        CompareKind::Eq => CompareOp::Eq,
        CompareKind::Ne => CompareOp::Ne,
        CompareKind::Lt => CompareOp::Lt,
        CompareKind::Le => CompareOp::Le,
        CompareKind::Gt => CompareOp::Gt,
        CompareKind::Ge => CompareOp::Ge,
    }
}
