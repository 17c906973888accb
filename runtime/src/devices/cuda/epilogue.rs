//! What follows a product, as part of its kernel: chains of the form
//!
//! ```text
//! v = round(sum)
//! v = round(activation(v + bias) * gate + residual)
//! ```
//!
//! any of whose steps may be missing, are recognised by their steps, outermost first, and leave the kernel with the sums
//! instead of being a pass over memory of their own. `bias`, `gate` and `residual` are inputs of the chain in any
//! layout whose rows and columns are one dimension each, or repeated; `gate` may be a number (half a residual branch, as a
//! Conformer adds it). All other chains run after the product.

use super::contraction::stride;
use super::lower::Lower;
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::Op;
use crate::ops::chain::Chain;
use crate::ops::elementwise::{BinaryKind, CompareKind, UnaryKind};
use crate::ops::leaf::Fill;
use crate::ops::product::After;
use mobilis_cuda::gemm::{Activation, Element, Epilogue, Matrix};

/// A value of a chain: an input or a step by number.
type At = u16;

struct Reader<'a> {
    chain: &'a Chain,
    /// The product among the chain's inputs.
    product: At,
}

impl Reader<'_> {
    fn step(&self, v: At) -> Option<(&Op, &[At])> {
        let step = self.chain.steps.get((v as usize).checked_sub(self.chain.inputs)?)?;
        Some((&step.op, &step.args))
    }

    fn unary(&self, v: At) -> Option<(UnaryKind, At)> {
        match self.step(v)? {
            (Op::Unary(op), [x]) => Some((op.kind, *x)),
            _ => None,
        }
    }

    fn binary(&self, v: At, kind: BinaryKind) -> Option<[At; 2]> {
        match self.step(v)? {
            (Op::Binary(op), [a, b]) if op.kind == kind => Some([*a, *b]),
            _ => None,
        }
    }

    fn number(&self, v: At) -> Option<f64> {
        match self.step(v)? {
            (Op::Constant(op), []) => match op.fill {
                Fill::Number(n) => Some(n),
                Fill::Size(_) => None,
            },
            _ => None,
        }
    }

    /// An input of the chain that is not the product.
    fn given(&self, v: At) -> bool {
        (v as usize) < self.chain.inputs && v != self.product
    }

    /// The operand that is computed and the one that is given, of a sum or a product of the two.
    fn with_given(&self, v: At, kind: BinaryKind) -> Option<(At, At)> {
        let [a, b] = self.binary(v, kind)?;
        match (self.given(a), self.given(b)) {
            (false, true) => Some((a, b)),
            (true, false) => Some((b, a)),
            _ => None,
        }
    }

    /// The operand beside any number, and the number.
    fn scaled(&self, v: At) -> Option<(At, f32)> {
        let [a, b] = self.binary(v, BinaryKind::Mul)?;
        let found = self.number(b).map(|n| (a, n)).or_else(|| self.number(a).map(|n| (b, n)));
        found.map(|(x, n)| (x, n as f32))
    }

    /// The operand beside a number.
    fn beside(&self, v: At, kind: BinaryKind, number: f64) -> Option<At> {
        let [a, b] = self.binary(v, kind)?;
        let is = |x: At| self.number(x).is_some_and(|n| n as f32 == number as f32);
        if is(b) { Some(a) } else { is(a).then_some(b) }
    }

    /// Both operands, either first.
    fn either<R>(&self, v: At, kind: BinaryKind, f: impl Fn(At, At) -> Option<R>) -> Option<R> {
        let [a, b] = self.binary(v, kind)?;
        f(a, b).or_else(|| f(b, a))
    }

    /// `x` and the activation that gives `v` from it; `v` itself where there is none.
    fn activation(&self, v: At) -> (Activation, At) {
        let found = match self.unary(v) {
            Some((UnaryKind::Tanh, x)) => Some((Activation::Tanh, x)),
            Some((UnaryKind::Sigmoid, x)) => Some((Activation::Sigmoid, x)),
            _ => self.silu(v).or_else(|| self.relu(v)).or_else(|| self.gelu(v)),
        };
        found.unwrap_or((Activation::Identity, v))
    }

    fn silu(&self, v: At) -> Option<(Activation, At)> {
        self.either(v, BinaryKind::Mul, |x, y| {
            (self.unary(y) == Some((UnaryKind::Sigmoid, x))).then_some((Activation::Silu, x))
        })
    }

    fn relu(&self, v: At) -> Option<(Activation, At)> {
        let (Op::Select(_), [test, zero, x]) = self.step(v)? else { return None };
        let (Op::Compare(op), [a, b]) = self.step(*test)? else { return None };
        let zeros = self.number(*zero) == Some(0.0) && self.number(*b) == Some(0.0);
        (op.kind == CompareKind::Le && a == x && zeros).then_some((Activation::Relu, *x))
    }

    /// `(x / 2) (f(..) + 1)` with `f` the error function of `x / sqrt 2`, or `tanh` of its cubic.
    fn gelu(&self, v: At) -> Option<(Activation, At)> {
        self.either(v, BinaryKind::Mul, |half, more| {
            let x = self.beside(half, BinaryKind::Mul, 0.5)?;
            let (kind, inner) = self.unary(self.beside(more, BinaryKind::Add, 1.0)?)?;
            match kind {
                UnaryKind::Erf => {
                    let same = self.beside(inner, BinaryKind::Mul, std::f64::consts::FRAC_1_SQRT_2)? == x;
                    same.then_some((Activation::Gelu, x))
                }
                UnaryKind::Tanh => {
                    let cubic = self.beside(inner, BinaryKind::Mul, (2.0 / std::f64::consts::PI).sqrt())?;
                    let fits = |a: At, b: At| {
                        let cube = self.beside(b, BinaryKind::Mul, 0.044715)?;
                        let square =
                            |y: At, z: At| (y == x && self.binary(z, BinaryKind::Mul)? == [x, x]).then_some(());
                        (a == x).then_some(())?;
                        self.either(cube, BinaryKind::Mul, square)
                    };
                    self.either(cubic, BinaryKind::Add, fits).map(|()| (Activation::GeluTanh, x))
                }
                _ => None,
            }
        })
    }

    /// What 16 bits a value is rounded to, and the value before.
    fn rounded(&self, v: At) -> (Element, At) {
        match self.unary(v) {
            Some((UnaryKind::Bf16, x)) => (Element::Bf16, x),
            Some((UnaryKind::F16, x)) => (Element::F16, x),
            _ => (Element::F32, v),
        }
    }
}

/// What a chain does, with inputs by number among the chain's.
#[derive(Debug, PartialEq)]
struct Form {
    rounded: [Element; 2],
    bias: Option<At>,
    activation: Activation,
    gate: Option<At>,
    /// A gate that is the same everywhere.
    factor: Option<f32>,
    residual: Option<At>,
}

/// The form of a chain, if it has that.
fn form(chain: &Chain, product: At) -> Option<Form> {
    let [result] = chain.results.as_slice() else { return None };
    let read = Reader { chain, product };
    let peel = |v: At, kind| match read.with_given(v, kind) {
        Some((rest, given)) => (Some(given), rest),
        None => (None, v),
    };
    let (last, v) = read.rounded(chain.inputs as At + result);
    let (residual, v) = peel(v, BinaryKind::Add);
    let (gate, v) = peel(v, BinaryKind::Mul);
    let (factor, v) = match read.scaled(v).filter(|_| gate.is_none()) {
        Some((rest, number)) => (Some(number), rest),
        None => (None, v),
    };
    let (activation, v) = read.activation(v);
    let (bias, v) = peel(v, BinaryKind::Add);
    let (first, v) = read.rounded(v);
    (v == product).then_some(Form { rounded: [first, last], bias, activation, gate, factor, residual })
}

/// The epilogue of a product of `height` dimensions of rows whose result alone is wanted, in sizes `sizes`; nothing where the
/// chain is none.
pub fn of(after: &After, height: usize, sizes: &[usize], cx: &mut Lower) -> Option<Epilogue> {
    let product = after.inputs.iter().position(Option::is_none)? as At;
    let form = form(&after.chain, product).filter(|_| !after.keep)?;
    let mut operand = |at: Option<At>| -> Option<Option<Matrix>> {
        let Some(at) = at else { return Some(None) };
        let view = cx.as_stored(after.inputs[at as usize]?);
        if view.dtype != DType::F32 {
            return None;
        }
        let mut strides = vec![0; sizes.len().checked_sub(view.strides.len())?];
        strides.extend(&view.strides);
        let wide = View { sizes: sizes.to_vec(), strides, ..view.clone() };
        let dims: Vec<usize> = (0..sizes.len()).collect();
        let (row, col) = (stride(&wide, &dims[..height])?, stride(&wide, &dims[height..])?);
        Some(Some(Matrix { at: cx.address(&view), element: cx.element(&view), row, col, ..Matrix::default() }))
    };
    let (bias, gate, residual) = (operand(form.bias)?, operand(form.gate)?, operand(form.residual)?);
    let gate = gate.or_else(|| {
        let number = cx.constant(&form.factor?.to_ne_bytes());
        Some(Matrix { at: cx.address(&number), ..Matrix::default() })
    });
    let (rounded, activation) = (form.rounded, form.activation);
    Some(Epilogue { bias, gate, residual, rounded, activation, ..Epilogue::default() })
}
