//! Elementwise operations on the reference device.

use super::{Eval, RefArray};
use crate::graph::DType;
use crate::ops::elementwise::{Binary, BinaryKind, Cast, Compare, CompareKind, Unary, UnaryKind};
use mobilis_kernels::cpu::quant::half;

pub fn unary(op: &Unary, cx: &Eval) -> RefArray {
    let f = |x: f64| match op.kind {
        UnaryKind::Neg => -x,
        UnaryKind::Exp => x.exp(),
        UnaryKind::Expm1 => x.exp_m1(),
        UnaryKind::Log => x.ln(),
        UnaryKind::Log1p => x.ln_1p(),
        UnaryKind::Sqrt => x.sqrt(),
        UnaryKind::Rsqrt => 1.0 / x.sqrt(),
        UnaryKind::Recip => 1.0 / x,
        UnaryKind::Abs => x.abs(),
        UnaryKind::Sign if x == 0.0 || x.is_nan() => x,
        UnaryKind::Sign => x.signum(),
        UnaryKind::Sin => x.sin(),
        UnaryKind::Cos => x.cos(),
        UnaryKind::Tanh => x.tanh(),
        UnaryKind::Erf => erf(x),
        UnaryKind::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryKind::Floor => x.floor(),
        UnaryKind::Ceil => x.ceil(),
        UnaryKind::Round => x.round_ties_even(),
        UnaryKind::Bf16 => half::from_bf16(half::to_bf16(x as f32)) as f64,
        UnaryKind::F16 => half::from_f16(half::to_f16(x as f32)) as f64,
        UnaryKind::Not => 1.0 - x,
    };
    let x = cx.inputs[0];
    RefArray::new(&x.sizes, x.data.iter().map(|v| f(*v)).collect())
}

/// The error function: Taylor series near 0, continued fraction of `erfc` beyond, both to
/// double precision (Abramowitz and Stegun 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() {
        return x;
    }
    if a > 6.0 {
        return x.signum();
    }
    if a < 2.5 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1 3 5 .. (2n+1))
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    let mut fraction = 0.0;
    for k in (1..=120).rev() {
        fraction = (k as f64 / 2.0) / (a + fraction);
    }
    let erfc = (-a * a).exp() / (std::f64::consts::PI.sqrt() * (a + fraction));
    x.signum() * (1.0 - erfc)
}

fn zip(cx: &Eval, f: impl Fn(f64, f64) -> f64) -> RefArray {
    let (a, b) = (cx.inputs[0], cx.inputs[1]);
    RefArray::from_fn(&cx.outputs[0], |index| f(a.at_suffix(index), b.at_suffix(index)))
}

pub fn binary(op: &Binary, cx: &Eval) -> RefArray {
    let whole = cx.dtypes[0] == DType::I32;
    zip(cx, |a, b| match op.kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        // Whole numbers divide towards minus infinity, as the remainder needs; by zero gives 0.
        BinaryKind::Div if whole && b == 0.0 => 0.0,
        BinaryKind::Div if whole => (a / b).floor(),
        BinaryKind::Div => a / b,
        BinaryKind::Pow => a.powf(b),
        BinaryKind::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryKind::Max if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryKind::Min => a.min(b),
        BinaryKind::Max => a.max(b),
        BinaryKind::Rem if whole && b == 0.0 => 0.0,
        BinaryKind::Rem => a - b * (a / b).floor(),
        BinaryKind::And => a * b,
        BinaryKind::Or => a.max(b),
        BinaryKind::Xor => (a != b) as u8 as f64,
    })
}

pub fn compare(op: &Compare, cx: &Eval) -> RefArray {
    zip(cx, |a, b| {
        let truth = match op.kind {
            CompareKind::Eq => a == b,
            CompareKind::Ne => a != b,
            CompareKind::Lt => a < b,
            CompareKind::Le => a <= b,
            CompareKind::Gt => a > b,
            CompareKind::Ge => a >= b,
        };
        truth as u8 as f64
    })
}

pub fn select(cx: &Eval) -> RefArray {
    let (mask, a, b) = (cx.inputs[0], cx.inputs[1], cx.inputs[2]);
    RefArray::from_fn(&cx.outputs[0], |index| {
        if mask.at_suffix(index) != 0.0 { a.at_suffix(index) } else { b.at_suffix(index) }
    })
}

pub fn cast(op: &Cast, cx: &Eval) -> RefArray {
    let f = |x: f64| match op.dtype {
        DType::F32 => x,
        DType::I32 => x.trunc(),
        DType::Bool => (x != 0.0) as u8 as f64,
    };
    let x = cx.inputs[0];
    RefArray::new(&x.sizes, x.data.iter().map(|v| f(*v)).collect())
}
