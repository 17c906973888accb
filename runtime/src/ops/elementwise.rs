//! Elementwise operations: arithmetic, comparisons, choices and functions of one value.
//!
//! Two operands broadcast when the dimensions of one are the last dimensions of the other.

use super::{GradContext, NoGradient, Rule, arity, leaf, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, TensorType};

pub mod activation;
mod typed;

pub use typed::Operand;

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(missing_docs)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }
        impl $name {
            /// The name in graphs and errors.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Functions of one value.
    UnaryKind {
        Neg = "neg",
        Exp = "exp",
        /// `exp(x) - 1`, exact near 0.
        Expm1 = "expm1",
        Log = "log",
        /// `log(1 + x)`, exact near 0.
        Log1p = "log1p",
        Sqrt = "sqrt",
        Rsqrt = "rsqrt",
        Recip = "recip",
        Abs = "abs",
        Sign = "sign",
        Sin = "sin",
        Cos = "cos",
        Tanh = "tanh",
        Erf = "erf",
        Sigmoid = "sigmoid",
        Floor = "floor",
        Ceil = "ceil",
        /// To the nearest whole number, halves to the even one.
        Round = "round",
        /// To the nearest number of 16 bits with the exponents of `f32`. Its derivative is taken to be 1.
        Bf16 = "bf16",
        /// To the nearest number of IEEE 754's 16 bits; infinity from 65520 on. Its derivative is taken to be 1.
        F16 = "f16",
        Not = "not",
    }
}

kinds! {
    /// Functions of two values.
    BinaryKind {
        Add = "add",
        Sub = "sub",
        Mul = "mul",
        Div = "div",
        Pow = "pow",
        Min = "min",
        Max = "max",
        /// Remainder with the sign of the divisor (Python's `%`).
        Rem = "rem",
        And = "and",
        Or = "or",
        Xor = "xor",
    }
}

kinds! {
    /// Comparisons.
    CompareKind {
        Eq = "eq",
        Ne = "ne",
        Lt = "lt",
        Le = "le",
        Gt = "gt",
        Ge = "ge",
    }
}

/// [`UnaryKind`] applied to each value.
#[derive(Clone, Debug)]
pub struct Unary {
    /// The function.
    pub kind: UnaryKind,
}

/// [`BinaryKind`] applied to each pair of values.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The function.
    pub kind: BinaryKind,
}

/// [`CompareKind`] applied to each pair of values.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The comparison.
    pub kind: CompareKind,
}

/// `if mask { a } else { b }` for each value.
#[derive(Clone, Debug)]
pub struct Select;

/// A change of storage: real to index truncates towards zero, anything to mask asks for nonzero.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The new storage.
    pub dtype: DType,
}

/// The broadcast type of two operands.
fn joined(a: &TensorType, b: &TensorType) -> Result<TensorType, String> {
    let (large, small) = if a.rank() >= b.rank() { (a, b) } else { (b, a) };
    let tail = &large.dims[large.rank() - small.rank()..];
    if tail.iter().zip(&small.dims).any(|(x, y)| x.extent != y.extent) {
        return Err(format!("{small} does not broadcast onto {large}"));
    }
    Ok(large.clone())
}

fn same_dtype(a: &TensorType, b: &TensorType) -> Result<(), String> {
    if a.dtype != b.dtype {
        return Err(format!("takes two operands of one kind, is given {} and {}", a.dtype, b.dtype));
    }
    Ok(())
}

impl Rule for Unary {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let fits = match self.kind {
            UnaryKind::Not => x.dtype == DType::Bool,
            UnaryKind::Neg | UnaryKind::Abs | UnaryKind::Sign => x.dtype != DType::Bool,
            _ => x.dtype == DType::F32,
        };
        if !fits {
            return Err(format!("is not defined for {}", x.dtype));
        }
        Ok(vec![x.clone()])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, y, g) = (cx.inputs[0], cx.outputs[0], cx.grad());
        let one = || leaf::scalar(1.0);
        Ok(vec![match self.kind {
            UnaryKind::Neg => Some(neg(g)),
            UnaryKind::Exp => Some(mul(g, y)),
            UnaryKind::Expm1 => Some(mul(g, add(y, one()))),
            UnaryKind::Log => Some(div(g, x)),
            UnaryKind::Log1p => Some(div(g, add(x, one()))),
            UnaryKind::Sqrt => Some(div(scale(g, 0.5), y)),
            // d x^(-1/2) = -1/2 x^(-3/2) = -1/2 y^3
            UnaryKind::Rsqrt => Some(mul(scale(g, -0.5), mul(y, mul(y, y)))),
            UnaryKind::Recip => Some(neg(mul(g, mul(y, y)))),
            UnaryKind::Abs => Some(mul(g, unary(UnaryKind::Sign, x))),
            UnaryKind::Sin => Some(mul(g, unary(UnaryKind::Cos, x))),
            UnaryKind::Cos => Some(neg(mul(g, unary(UnaryKind::Sin, x)))),
            UnaryKind::Tanh => Some(mul(g, sub(one(), mul(y, y)))),
            // d erf(x) = 2/sqrt(pi) exp(-x^2)
            UnaryKind::Erf => {
                let bell = unary(UnaryKind::Exp, neg(mul(x, x)));
                Some(mul(g, scale(bell, std::f64::consts::FRAC_2_SQRT_PI)))
            }
            UnaryKind::Sigmoid => Some(mul(g, mul(y, sub(one(), y)))),
            // Straight through: what is computed with fewer bits stands for the value itself.
            UnaryKind::Bf16 | UnaryKind::F16 => Some(g),
            UnaryKind::Sign | UnaryKind::Floor | UnaryKind::Ceil | UnaryKind::Round | UnaryKind::Not => None,
        }])
    }
}

impl Rule for Binary {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [a, b] = arity(inputs)?;
        same_dtype(a, b)?;
        let fits = match self.kind {
            BinaryKind::And | BinaryKind::Or | BinaryKind::Xor => a.dtype == DType::Bool,
            BinaryKind::Pow => a.dtype == DType::F32,
            _ => a.dtype != DType::Bool,
        };
        if !fits {
            return Err(format!("is not defined for {}", a.dtype));
        }
        Ok(vec![joined(a, b)?])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (a, b, y, g) = (cx.inputs[0], cx.inputs[1], cx.outputs[0], cx.grad());
        let want = |i: usize, f: &dyn Fn() -> Handle| cx.wanted[i].then(|| unbroadcast(f(), &type_of(cx.inputs[i])));
        // Where both are equal, half of the gradient goes to each side, as in PyTorch.
        let share = |kind: CompareKind, p: Handle, q: Handle| {
            let wins = cast(compare(kind, p, q), DType::F32);
            let ties = cast(compare(CompareKind::Eq, p, q), DType::F32);
            mul(g, add(wins, scale(ties, 0.5)))
        };
        Ok(match self.kind {
            BinaryKind::Add => vec![want(0, &|| g), want(1, &|| g)],
            BinaryKind::Sub => vec![want(0, &|| g), want(1, &|| neg(g))],
            BinaryKind::Mul => vec![want(0, &|| mul(g, b)), want(1, &|| mul(g, a))],
            BinaryKind::Div => vec![want(0, &|| div(g, b)), want(1, &|| neg(div(mul(g, y), b)))],
            BinaryKind::Pow => vec![
                want(0, &|| mul(g, mul(b, binary(BinaryKind::Pow, a, sub(b, leaf::scalar(1.0)))))),
                want(1, &|| {
                    // 0^b has derivative 0 by b for b > 0, where the logarithm is infinite.
                    let term = mul(g, mul(y, unary(UnaryKind::Log, a)));
                    select(compare(CompareKind::Eq, y, leaf::scalar(0.0)), leaf::scalar(0.0), term)
                }),
            ],
            BinaryKind::Min => {
                vec![want(0, &|| share(CompareKind::Lt, a, b)), want(1, &|| share(CompareKind::Lt, b, a))]
            }
            BinaryKind::Max => {
                vec![want(0, &|| share(CompareKind::Gt, a, b)), want(1, &|| share(CompareKind::Gt, b, a))]
            }
            // a - b floor(a / b)
            BinaryKind::Rem => {
                vec![want(0, &|| g), want(1, &|| neg(mul(g, unary(UnaryKind::Floor, div(a, b)))))]
            }
            BinaryKind::And | BinaryKind::Or | BinaryKind::Xor => vec![None, None],
        })
    }
}

impl Rule for Compare {
    fn name(&self) -> &'static str {
        self.kind.name()
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [a, b] = arity(inputs)?;
        same_dtype(a, b)?;
        Ok(vec![joined(a, b)?.with_dtype(DType::Bool)])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Ok(vec![None, None])
    }
}

impl Rule for Select {
    fn name(&self) -> &'static str {
        "select"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [mask, a, b] = arity(inputs)?;
        same_dtype(a, b)?;
        if mask.dtype != DType::Bool {
            return Err(format!("chooses by a mask, is given {mask}"));
        }
        let both = joined(a, b)?;
        Ok(vec![joined(&mask.with_dtype(both.dtype), &both)?])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (mask, g, zero) = (cx.inputs[0], cx.grad(), leaf::scalar(0.0));
        let back = |i: usize, h: Handle| unbroadcast(h, &type_of(cx.inputs[i]));
        Ok(vec![
            None,
            cx.wanted[1].then(|| back(1, select(mask, g, zero))),
            cx.wanted[2].then(|| back(2, select(mask, zero, g))),
        ])
    }
}

impl Rule for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        Ok(vec![x.with_dtype(self.dtype)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let real = type_of(cx.inputs[0]).dtype == DType::F32 && self.dtype == DType::F32;
        Ok(vec![real.then(|| cx.grad())])
    }
    fn attributes(&self) -> String {
        format!("to={}", self.dtype)
    }
}

/// Sums a gradient over the leading dimensions along which its value was broadcast.
pub fn unbroadcast(g: Handle, ty: &TensorType) -> Handle {
    let lead: Vec<usize> = (0..type_of(g).rank() - ty.rank()).collect();
    reduce::reduce(g, reduce::Kind::Sum, &lead)
}

/// A function of one value.
pub fn unary(kind: UnaryKind, x: Handle) -> Handle {
    op1(Unary { kind }, &[x])
}
/// A function of two values, with broadcasting.
pub fn binary(kind: BinaryKind, a: Handle, b: Handle) -> Handle {
    op1(Binary { kind }, &[a, b])
}
/// A comparison, with broadcasting.
pub fn compare(kind: CompareKind, a: Handle, b: Handle) -> Handle {
    op1(Compare { kind }, &[a, b])
}
/// `if mask { a } else { b }`, with broadcasting.
pub fn select(mask: Handle, a: Handle, b: Handle) -> Handle {
    op1(Select, &[mask, a, b])
}
/// A change of storage; nothing where it is that already.
pub fn cast(x: Handle, dtype: DType) -> Handle {
    if type_of(x).dtype == dtype { x } else { op1(Cast { dtype }, &[x]) }
}
/// `a + b`
pub fn add(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Add, a, b)
}
/// `a - b`
pub fn sub(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Sub, a, b)
}
/// `a * b`
pub fn mul(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Mul, a, b)
}
/// `a / b`
pub fn div(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Div, a, b)
}
/// `-x`
pub fn neg(x: Handle) -> Handle {
    unary(UnaryKind::Neg, x)
}
/// `x * factor`
pub fn scale(x: Handle, factor: f64) -> Handle {
    mul(x, constant_like(x, factor))
}
/// The smaller of two values; NaN where either is.
pub fn minimum(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Min, a, b)
}
/// The larger of two values; NaN where either is.
pub fn maximum(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Max, a, b)
}
/// `exp(x)`
pub fn exp(x: Handle) -> Handle {
    unary(UnaryKind::Exp, x)
}
/// `x` raised to a fixed power; small powers become products, so that they are exact and their
/// gradients finite.
pub fn powf(x: Handle, exponent: f64) -> Handle {
    if exponent == 0.0 {
        leaf::fill(1.0, type_of(x))
    } else if exponent == 1.0 {
        x
    } else if exponent == 2.0 {
        mul(x, x)
    } else if exponent == 3.0 {
        mul(x, mul(x, x))
    } else if exponent == 0.5 {
        unary(UnaryKind::Sqrt, x)
    } else if exponent == -0.5 {
        unary(UnaryKind::Rsqrt, x)
    } else if exponent == -1.0 {
        unary(UnaryKind::Recip, x)
    } else {
        binary(BinaryKind::Pow, x, leaf::scalar(exponent))
    }
}
/// Values below `low` become `low`, values above `high` become `high`; NaN stays. The gradient
/// passes where nothing is cut off, the bounds included.
pub fn clamp(x: Handle, low: Handle, high: Handle) -> Handle {
    let cut = select(compare(CompareKind::Gt, x, high), high, x);
    select(compare(CompareKind::Lt, x, low), low, cut)
}
/// Whether a value is neither infinite nor NaN.
pub fn is_finite(x: Handle) -> Handle {
    compare(CompareKind::Lt, unary(UnaryKind::Abs, x), leaf::scalar(f64::INFINITY))
}
/// A scalar of the storage of `x`.
pub fn constant_like(x: Handle, value: f64) -> Handle {
    leaf::fill(value, TensorType::new(vec![], type_of(x).dtype))
}
