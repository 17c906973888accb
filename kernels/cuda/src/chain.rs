//! Elementwise chains: from the steps of a fused chain to the text of one kernel and its launch.
//!
//! A chain computes each value of its outputs from values of its inputs at the same position; inputs are
//! seen through strides (0 repeats), outputs are contiguous. The kernel is one pass: a thread loads `V`
//! neighbouring positions of every input (16 bytes of `f32` at a time where alignment and strides allow),
//! `U` times over before it computes anything, so that enough bytes are under way; the steps then run on
//! registers, position by position; results are stored as vectors.
//!
//! The text depends on the steps and on how inputs lie (contiguous, repeated, strided along which
//! dimensions), not on sizes, strides or addresses, which are arguments: so one text serves all sizes of a
//! model. It is named and kept by [`generated`]. A chain of one step needs no text: single
//! operations are compiled ahead of time (`elementwise.cu`).
//!
//! Chains of the same steps over arrays of different sizes are one launch too ([`many`]): an optimizer's step
//! over all parameters.
//!
//! Bound: the bytes of all inputs and outputs over copy bandwidth.

use crate::generated::{self, NAME};
use crate::{Arg, CudaError, Launch, Ptr};

mod layout;
mod many;
mod single;
mod text;

pub use many::{Member, alike, many};

/// How values are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Real numbers.
    F32,
    /// Whole numbers.
    I32,
    /// Truth values, 0 or 1.
    U8,
    /// Real numbers, the upper 16 bits of them: `f32` in registers, as those of the next kind.
    Bf16,
    /// Real numbers in IEEE 754's 16 bits.
    F16,
}

impl Kind {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::Bf16 | Kind::F16 => 2,
            Kind::F32 | Kind::I32 => 4,
        }
    }

    /// Whether values are real numbers.
    pub fn real(self) -> bool {
        matches!(self, Kind::F32) || self.narrow()
    }

    /// Whether values are real numbers of 16 bits.
    pub fn narrow(self) -> bool {
        matches!(self, Kind::Bf16 | Kind::F16)
    }
}

/// What a step computes.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A number, part of the text.
    Constant(f64),
    /// A number that changes with sizes: an argument.
    Size(f64),
    /// The position along a dimension of the output.
    Iota(usize),
    /// A function of one or two values by its name in graphs: `exp`, `add`, `lt`. Real or whole by its
    /// first operand.
    Call(&'static str),
    /// The second operand where the first is true, else the third.
    Select,
    /// The operand in the step's own kind: to 16 bits the nearest number, which is left to the store of a result.
    Cast,
}

/// One step of a chain.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// What it computes.
    pub op: Op,
    /// Its operands: numbers below the count of inputs are inputs, the rest are earlier steps.
    pub args: Vec<u16>,
    /// The kind of its result.
    pub kind: Kind,
}

/// An input over the positions of the output.
#[derive(Clone, PartialEq, Debug)]
pub struct Input {
    /// Its first value.
    pub at: Ptr,
    /// How it is stored.
    pub kind: Kind,
    /// Values from one index to the next, for every dimension of the output; 0 repeats.
    pub strides: Vec<usize>,
}

/// A result: the number of a step, and where its values go in row-major order.
pub type Output = (u16, Ptr);

/// Functions over real numbers, and over whole numbers and truth values, with how many operands they take.
const FUNCTIONS: &[(&str, usize, bool, bool)] = &[
    ("neg", 1, true, true),
    ("exp", 1, true, false),
    ("expm1", 1, true, false),
    ("log", 1, true, false),
    ("log1p", 1, true, false),
    ("sqrt", 1, true, false),
    ("rsqrt", 1, true, false),
    ("recip", 1, true, false),
    ("abs", 1, true, true),
    ("sign", 1, true, true),
    ("sin", 1, true, false),
    ("cos", 1, true, false),
    ("tanh", 1, true, false),
    ("erf", 1, true, false),
    ("sigmoid", 1, true, false),
    ("floor", 1, true, false),
    ("ceil", 1, true, false),
    ("round", 1, true, false),
    ("bf16", 1, true, false),
    ("f16", 1, true, false),
    ("not", 1, false, true),
    ("add", 2, true, true),
    ("sub", 2, true, true),
    ("mul", 2, true, true),
    ("div", 2, true, true),
    ("pow", 2, true, false),
    ("min", 2, true, true),
    ("max", 2, true, true),
    ("rem", 2, true, true),
    ("and", 2, false, true),
    ("or", 2, false, true),
    ("xor", 2, false, true),
    ("eq", 2, true, true),
    ("ne", 2, true, true),
    ("lt", 2, true, true),
    ("le", 2, true, true),
    ("gt", 2, true, true),
    ("ge", 2, true, true),
];

const THREADS: usize = 256;

fn refused(message: impl Into<String>) -> CudaError {
    CudaError::Refused { kernel: "chain", message: message.into() }
}

/// One pass over outputs of these sizes.
///
/// # Errors
/// Steps that are not as [`Step`] says, strides that are not one per dimension, more than 64 inputs and
/// results together, 2⁴⁰ values or more.
pub fn chain(inputs: &[Input], steps: &[Step], outputs: &[Output], sizes: &[usize]) -> Result<Vec<Launch>, CudaError> {
    check(inputs, steps, outputs, sizes)?;
    let total: usize = sizes.iter().product();
    if total == 0 || outputs.is_empty() {
        return Ok(vec![]);
    }
    if let Some(launch) = single::single(inputs, steps, outputs, sizes)? {
        return Ok(vec![launch]);
    }
    let plan = layout::plan(inputs, steps, outputs, sizes);
    let kernel = generated::register("chain", &text::text(&plan, inputs, steps, outputs));
    let blocks = total.div_ceil(THREADS * plan.vector * plan.unroll);
    let grid = u32::try_from(blocks).ok().filter(|b| *b < 1 << 31).ok_or_else(|| refused(format!("{total} values")))?;
    let mut args: Vec<Arg> = vec![Arg::I64(total as i64)];
    let word = |n: usize| if plan.wide { Arg::I64(n as i64) } else { Arg::U32(n as u32) };
    for size in &plan.sizes[1..] {
        let (multiplier, shift) = layout::magic(*size);
        args.push(word(*size));
        args.extend(if plan.wide { [word(*size), Arg::U32(0)] } else { [Arg::U32(multiplier), Arg::U32(shift)] });
    }
    for place in &plan.places {
        args.extend(place.at.map(Arg::Ptr));
        args.extend(place.strides.iter().filter(|s| s.argument).map(|s| word(s.step)));
    }
    for step in steps {
        if let Op::Size(v) = step.op {
            args.push(if step.kind == Kind::F32 { Arg::F32(v as f32) } else { Arg::I32(v as i32) });
        }
    }
    args.extend(outputs.iter().map(|o| Arg::Ptr(o.1)));
    Ok(vec![Launch::new(kernel, [grid, 1, 1], THREADS as u32, args)])
}

fn check(inputs: &[Input], steps: &[Step], outputs: &[Output], sizes: &[usize]) -> Result<(), CudaError> {
    if inputs.len() + outputs.len() > 64 {
        return Err(refused(format!("{} inputs and {} results, at most 64 are taken", inputs.len(), outputs.len())));
    }
    if sizes.iter().try_fold(1usize, |p, n| p.checked_mul(*n)).is_none_or(|n| n >= 1 << 40) {
        return Err(refused(format!("sizes {sizes:?}: 2^40 values or more")));
    }
    if let Some(i) = inputs.iter().position(|i| i.strides.len() != sizes.len()) {
        return Err(refused(format!("input {i} has {} strides for sizes {sizes:?}", inputs[i].strides.len())));
    }
    let kind = |a: u16| match (a as usize).checked_sub(inputs.len()) {
        None => inputs[a as usize].kind,
        Some(s) => steps[s].kind,
    };
    for (i, step) in steps.iter().enumerate() {
        let wrong = |what: &str| Err(refused(format!("step {i} {what}: {step:?}")));
        if step.args.iter().any(|a| *a as usize >= inputs.len() + i) {
            return wrong("reads what comes later");
        }
        let real = step.args.first().is_some_and(|a| kind(*a).real());
        let fits = match &step.op {
            Op::Constant(_) | Op::Size(_) => step.args.is_empty(),
            Op::Iota(axis) => step.args.is_empty() && *axis < sizes.len() && !step.kind.real(),
            Op::Call(name) => FUNCTIONS.iter().any(|f| {
                f.0 == *name
                    && f.1 == step.args.len()
                    && (if real { f.2 } else { f.3 })
                    && step.args.iter().all(|a| kind(*a).real() == real)
            }),
            Op::Select => {
                step.args.len() == 3
                    && !kind(step.args[0]).real()
                    && step.args[1..].iter().all(|a| kind(*a).real() == step.kind.real())
            }
            Op::Cast => step.args.len() == 1,
        } && (!step.kind.narrow() || step.op == Op::Cast);
        if !fits {
            return wrong("has operands that it does not take");
        }
    }
    match outputs.iter().find(|o| o.0 as usize >= steps.len()) {
        Some(o) => Err(refused(format!("a result is step {}, there are {}", o.0, steps.len()))),
        None => Ok(()),
    }
}
