//! The instructions of a chain, checked once when they are put together.

/// Registers for real numbers.
pub const FLOATS: usize = 20;
/// Registers for whole numbers and truth values.
pub const INTS: usize = 12;
/// Inputs of a chain.
pub const INPUTS: usize = 16;
/// Different constants of a chain.
pub const CONSTANTS: usize = 64;
/// Results of a chain.
pub const RESULTS: usize = 8;

/// A register's number in the file of its kind.
pub type Reg = u8;

/// What a block of values holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Real numbers of four bytes.
    F32,
    /// Whole numbers of four bytes.
    I32,
    /// Truth values of one byte; whole numbers 0 and 1 in registers.
    U8,
}

/// What an instruction reads: a register, an input or a constant. Inputs are read where they lie
/// whenever they follow each other as the output does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg(pub(super) u8);

pub(super) const FIRST_INT: usize = FLOATS;
pub(super) const FIRST_INPUT: usize = FIRST_INT + INTS;
pub(super) const FIRST_CONSTANT: usize = FIRST_INPUT + INPUTS;
/// Everything that an instruction can read.
pub(super) const ARGS: usize = FIRST_CONSTANT + CONSTANTS;

impl Arg {
    /// A register of real numbers.
    pub fn float(reg: Reg) -> Arg {
        assert!((reg as usize) < FLOATS, "a register for real numbers");
        Arg(reg)
    }
    /// A register of whole numbers or truth values.
    pub fn int(reg: Reg) -> Arg {
        assert!((reg as usize) < INTS, "a register for whole numbers");
        Arg(FIRST_INT as u8 + reg)
    }
    /// An input of the chain.
    pub fn input(i: usize) -> Arg {
        assert!(i < INPUTS, "an input");
        Arg((FIRST_INPUT + i) as u8)
    }
    fn constant(i: usize) -> Arg {
        Arg((FIRST_CONSTANT + i) as u8)
    }
}

/// Functions of one real number.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum UnaryF {
    Neg,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Recip,
    Abs,
    Sign,
    Sin,
    Cos,
    Tanh,
    Erf,
    Sigmoid,
    Floor,
    Ceil,
    Round,
    Bf16,
    F16,
}

/// Functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    Rem,
    And,
    Or,
    Xor,
}

/// Two steps of arithmetic in one: the first of `a` and `b`, the second of that and `c`. Each
/// rounds as it would alone.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Pair {
    /// `a * b + c`
    MulAdd,
    /// `a * b - c`
    MulSub,
    /// `c - a * b`
    SubMul,
    /// `a * b * c`
    MulMul,
    /// `(a + b) * c`
    AddMul,
    /// `(a - b) * c`
    SubThenMul,
    /// `a + b + c`
    AddAdd,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// One step. The register is written and differs from those that are read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Ins {
    /// `(position / div) % modulus` of the output.
    Iota {
        dst: Reg,
        div: usize,
        modulus: usize,
    },
    UnF(UnaryF, Reg, Arg),
    NegI(Reg, Arg),
    AbsI(Reg, Arg),
    SignI(Reg, Arg),
    Not(Reg, Arg),
    BinF(BinaryOp, Reg, Arg, Arg),
    BinI(BinaryOp, Reg, Arg, Arg),
    PairF(Pair, Reg, Arg, Arg, Arg),
    CmpF(CompareOp, Reg, Arg, Arg),
    CmpI(CompareOp, Reg, Arg, Arg),
    /// Destination, mask, then, else.
    SelF(Reg, Arg, Arg, Arg),
    SelI(Reg, Arg, Arg, Arg),
    IntToFloat(Reg, Arg),
    FloatToInt(Reg, Arg),
    FloatToMask(Reg, Arg),
    IntToMask(Reg, Arg),
    MoveI(Reg, Arg),
}

/// What an instruction writes (as an [`Arg`]) and reads, with the kinds that it expects.
type Uses = (Arg, [Option<(Arg, bool)>; 3]);

impl Ins {
    /// The truth values say whether real numbers are read.
    fn uses(&self) -> Uses {
        let one = |a: &Arg, f| [Some((*a, f)), None, None];
        let two = |a: &Arg, b: &Arg, f| [Some((*a, f)), Some((*b, f)), None];
        match self {
            Ins::Iota { dst, .. } => (Arg::int(*dst), [None; 3]),
            Ins::UnF(_, d, a) => (Arg::float(*d), one(a, true)),
            Ins::NegI(d, a) | Ins::AbsI(d, a) | Ins::SignI(d, a) | Ins::Not(d, a) => (Arg::int(*d), one(a, false)),
            Ins::MoveI(d, a) | Ins::IntToMask(d, a) => (Arg::int(*d), one(a, false)),
            Ins::BinF(_, d, a, b) => (Arg::float(*d), two(a, b, true)),
            Ins::BinI(_, d, a, b) => (Arg::int(*d), two(a, b, false)),
            Ins::PairF(_, d, a, b, c) => (Arg::float(*d), [Some((*a, true)), Some((*b, true)), Some((*c, true))]),
            Ins::CmpF(_, d, a, b) => (Arg::int(*d), two(a, b, true)),
            Ins::CmpI(_, d, a, b) => (Arg::int(*d), two(a, b, false)),
            Ins::SelF(d, m, a, b) => (Arg::float(*d), [Some((*m, false)), Some((*a, true)), Some((*b, true))]),
            Ins::SelI(d, m, a, b) => (Arg::int(*d), [Some((*m, false)), Some((*a, false)), Some((*b, false))]),
            Ins::IntToFloat(d, a) => (Arg::float(*d), one(a, false)),
            Ins::FloatToInt(d, a) | Ins::FloatToMask(d, a) => (Arg::int(*d), one(a, true)),
        }
    }
}

/// A chain's instructions, with what they read and give. [`finish`](Code::finish) checks them, so
/// that running them needs no checks.
#[derive(Clone, Debug, Default)]
pub struct Code {
    pub(super) ins: Vec<Ins>,
    /// The kinds of the inputs.
    pub(super) inputs: Vec<Kind>,
    /// Constants, by their bits.
    pub(super) constants: Vec<(u32, bool)>,
    pub(super) results: Vec<(Arg, Kind)>,
    finished: bool,
}

impl Code {
    /// Code without instructions that reads inputs of these kinds.
    pub fn new(inputs: &[Kind]) -> Code {
        assert!(inputs.len() <= INPUTS, "a chain has too many inputs");
        Code { inputs: inputs.to_vec(), ..Code::default() }
    }

    /// A real constant.
    ///
    /// # Errors
    /// When there are too many different ones.
    pub fn float(&mut self, v: f32) -> Result<Arg, String> {
        self.constant(v.to_bits(), true)
    }

    /// A whole number or truth value that is constant.
    ///
    /// # Errors
    /// When there are too many different ones.
    pub fn int(&mut self, v: i32) -> Result<Arg, String> {
        self.constant(v as u32, false)
    }

    fn constant(&mut self, bits: u32, real: bool) -> Result<Arg, String> {
        let found = self.constants.iter().position(|c| *c == (bits, real));
        let i = found.unwrap_or_else(|| {
            self.constants.push((bits, real));
            self.constants.len() - 1
        });
        if i < CONSTANTS { Ok(Arg::constant(i)) } else { Err("a chain has too many constants".into()) }
    }

    /// Adds an instruction.
    pub fn push(&mut self, ins: Ins) {
        self.ins.push(ins);
    }

    /// Ends the code: these are its results.
    ///
    /// # Errors
    /// An instruction that reads what was not written, something of another kind, or what it
    /// writes.
    pub fn finish(mut self, results: &[(Arg, Kind)]) -> Result<Code, String> {
        if results.len() > RESULTS {
            return Err("a chain has too many results".into());
        }
        let mut real: [Option<bool>; ARGS] = [None; ARGS];
        for (i, kind) in self.inputs.iter().enumerate() {
            real[FIRST_INPUT + i] = Some(*kind == Kind::F32);
        }
        for (i, constant) in self.constants.iter().enumerate() {
            real[FIRST_CONSTANT + i] = Some(constant.1);
        }
        for ins in &self.ins {
            let (to, from) = ins.uses();
            for (arg, wanted) in from.into_iter().flatten() {
                if real[arg.0 as usize] != Some(wanted) || arg == to {
                    return Err(format!("{ins:?} reads what it cannot"));
                }
            }
            real[to.0 as usize] = Some((to.0 as usize) < FIRST_INT);
        }
        for (arg, kind) in results {
            // An input may lie in a target that is stored before.
            let is_input = (FIRST_INPUT..FIRST_CONSTANT).contains(&(arg.0 as usize));
            if is_input || real[arg.0 as usize] != Some(*kind == Kind::F32) {
                return Err("a chain's result was not computed".into());
            }
        }
        (self.results, self.finished) = (results.to_vec(), true);
        Ok(self)
    }

    /// A rough cost of one value, in additions: what decides how many are worth a thread.
    pub fn cost(&self) -> usize {
        let each = |ins: &Ins| match ins {
            Ins::UnF(UnaryF::Neg | UnaryF::Abs, ..) => 1,
            Ins::UnF(UnaryF::Sqrt | UnaryF::Recip, ..) | Ins::BinF(BinaryOp::Div, ..) => 5,
            Ins::BinF(BinaryOp::Pow, ..) => 100,
            Ins::UnF(..) => 10,
            _ => 1,
        };
        self.inputs.len() + self.results.len() + self.ins.iter().map(each).sum::<usize>()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }
}
