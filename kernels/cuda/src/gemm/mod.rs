//! Matrix products (`gemm.cu`, `gemv.cu`, `gemm_sm80.cu`, `gemm_sm90.cu`, `gemm_fp8.cu`): what is to be computed ([`Gemm`]), which kernel does it
//! ([`choose`], a pure function whose result can be printed), and its launches ([`gemm`]).
//!
//! `c[i][j] = epilogue(sum over l of a[i][l] b[l][j])` for every matrix of a batch with two levels. Operands
//! have any strides and several element types; the sum is `f32`. The epilogue is
//!
//! ```text
//! v = round(alpha * factors * row_scales[i] * column_scales[j] * sum + beta * c[i][j])
//! v = round(activation(v + bias[i][j]) * gate[i][j] + residual[i][j])
//! amax = max(amax, |v|),   c[i][j] = v * scale, rounded to c's type
//! ```

mod choice;
pub(crate) mod hopper;
pub(crate) mod launch;

pub use choice::{Choice, Way, choose};
pub use launch::{dequantize, gemm};

use crate::Ptr;

/// How values are stored. The discriminants are those of `include/number.cuh`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Element {
    /// `f32`.
    #[default]
    F32 = 0,
    /// The upper half of an `f32`.
    Bf16 = 1,
    /// IEEE binary16.
    F16 = 2,
    /// Eight bits, up to 448.
    E4M3 = 3,
    /// Eight bits, up to 57344.
    E5M2 = 4,
    /// Whole numbers; their scales, one for each column of `b`, are the epilogue's.
    I8 = 5,
    /// Planes of GGUF's Q8_0 (`b` alone): `[n][k]` whole numbers of eight bits, and at [`Gemm::planes`] the f16 scales
    /// `[n][k / 32]`.
    Q8_0 = 6,
    /// Planes of GGUF's Q4_0, likewise: byte `t` of a block's 16 has the weights `t` and `t + 16`.
    Q4_0 = 7,
}

impl Element {
    /// Bytes of a value; 0 for blocks.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
            Element::E4M3 | Element::E5M2 | Element::I8 => 1,
            Element::Q8_0 | Element::Q4_0 => 0,
        }
    }

    /// Whether it comes in planes.
    pub fn planes(self) -> bool {
        self.bytes() == 0
    }
}

/// A matrix, or a batch of them: the first value, and the distances in values between rows, columns, and matrices of
/// both levels of the batch. A distance of 0 repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Matrix {
    /// The first value.
    pub at: Ptr,
    /// The type of values.
    pub element: Element,
    /// Between rows.
    pub row: usize,
    /// Between columns.
    pub col: usize,
    /// Between matrices, outer level.
    pub outer: usize,
    /// Between matrices, inner level.
    pub inner: usize,
}

impl Matrix {
    /// Rows of `width` values of `f32`, one after the other.
    pub fn rows(at: Ptr, width: usize) -> Matrix {
        Matrix { at, row: width, col: 1, ..Matrix::default() }
    }

    /// A row that is repeated: a bias for each column.
    pub fn repeated_row(at: Ptr) -> Matrix {
        Matrix { at, col: 1, ..Matrix::default() }
    }

    /// With rows and columns exchanged.
    #[must_use]
    pub fn turned(self) -> Matrix {
        Matrix { row: self.col, col: self.row, ..self }
    }

    /// Whether tensor cores can read it as it lies, as a side of a product with such a batch: rows or columns together, all
    /// of which begin at 16 bytes.
    pub fn lined(&self, batch: [usize; 2]) -> bool {
        self.row > 0 && self.col > 0 && choice::lines(self, batch, self.row, self.col).is_some()
    }

    /// Of another type.
    #[must_use]
    pub fn of(self, element: Element) -> Matrix {
        Matrix { element, ..self }
    }
}

/// The function between bias and gate. The discriminants are those of `include/epilogue.cuh`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Activation {
    /// None.
    #[default]
    Identity = 0,
    /// `max(x, 0)`.
    Relu = 1,
    /// `x Φ(x)`, exact.
    Gelu = 2,
    /// GELU's approximation by `tanh`.
    GeluTanh = 3,
    /// `x sigmoid(x)`.
    Silu = 4,
    /// `1 / (1 + e^-x)`.
    Sigmoid = 5,
    /// `tanh`.
    Tanh = 6,
    /// `max(x, 0)²`.
    Relu2 = 7,
}

/// What becomes of a sum.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Epilogue {
    /// The factor on sums.
    pub alpha: f32,
    /// The factor on what `c` held, 0 where that is not read.
    pub beta: f32,
    /// Added before the activation.
    pub bias: Option<Matrix>,
    /// The activation.
    pub activation: Activation,
    /// Multiplied after it.
    pub gate: Option<Matrix>,
    /// Added after that.
    pub residual: Option<Matrix>,
    /// What sums, before the bias, and results are rounded to: bf16, f16, or `f32` for neither.
    pub rounded: [Element; 2],
    /// Two more factors on sums, each one `f32` on the device, or null.
    pub factors: [Ptr; 2],
    /// A factor for each row, `f32`, or null.
    pub row_scales: Ptr,
    /// A factor for each column, `f32`, or null.
    pub column_scales: Ptr,
    /// The factor on what is stored: one `f32`, or null.
    pub scale: Ptr,
    /// Where the greatest magnitude is gathered (one `f32`, not negative before), or null. NaN is passed over.
    pub amax: Ptr,
}

impl Default for Epilogue {
    fn default() -> Epilogue {
        Epilogue {
            alpha: 1.0,
            beta: 0.0,
            bias: None,
            activation: Activation::Identity,
            gate: None,
            residual: None,
            rounded: [Element::F32; 2],
            factors: [Ptr::NULL; 2],
            row_scales: Ptr::NULL,
            column_scales: Ptr::NULL,
            scale: Ptr::NULL,
            amax: Ptr::NULL,
        }
    }
}

/// Factors for blocks of values of eight bits, `f32`: for each row of `a` and each column of `b` (alone or in groups of 128),
/// along every 128 values of `k`. Either may be null: then all are 1, and what the kernel does besides is to add sums of
/// 128 values in full precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// The factors of `a`.
    pub a: Ptr,
    /// Between rows, and between blocks of `k`.
    pub a_far: [usize; 2],
    /// The factors of `b`.
    pub b: Ptr,
    /// Between groups of columns, and between blocks of `k`.
    pub b_far: [usize; 2],
    /// Whether each column of `b` has its own, one beside the other: blocks of `k` then are even numbers of factors
    /// apart, at least `n` rounded up to whole tiles of 128, and begin at 8 bytes. Not null.
    pub each_column: bool,
}

impl Blocks {
    /// No factors: full sums of every 128 values.
    pub const EXACT: Blocks = Blocks { a: Ptr::NULL, a_far: [0; 2], b: Ptr::NULL, b_far: [0; 2], each_column: false };
}

/// A product of matrices.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gemm {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// Matrices of the batch: outer and inner.
    pub batch: [usize; 2],
    /// The left side, `[m, k]`.
    pub a: Matrix,
    /// The right side, `[k, n]`: weights `[n, k]` have `row` 1 and `col` k.
    pub b: Matrix,
    /// The result, `[m, n]`.
    pub c: Matrix,
    /// The scales of `b` where it comes in planes.
    pub planes: Ptr,
    /// What becomes of sums.
    pub epilogue: Epilogue,
    /// Factors for blocks of `a` and `b`, values of eight bits.
    pub blocks: Option<Blocks>,
    /// Whether `f32` operands may be rounded to TF32 (ten bits of fraction).
    pub tf32: bool,
}

impl Gemm {
    /// One product `c [m, n] = a [m, k] b`.
    pub fn new([m, n, k]: [usize; 3], a: Matrix, b: Matrix, c: Matrix) -> Gemm {
        Gemm { m, n, k, batch: [1, 1], a, b, c, ..Gemm::default() }
    }

    /// The same product with rows and columns exchanged: `cᵀ = bᵀ aᵀ`.
    #[must_use]
    pub fn turned(self) -> Gemm {
        let e = self.epilogue;
        let epilogue = Epilogue {
            bias: e.bias.map(Matrix::turned),
            gate: e.gate.map(Matrix::turned),
            residual: e.residual.map(Matrix::turned),
            row_scales: e.column_scales,
            column_scales: e.row_scales,
            ..e
        };
        let (a, b, c) = (self.b.turned(), self.a.turned(), self.c.turned());
        Gemm { m: self.n, n: self.m, a, b, c, epilogue, ..self }
    }

    /// Matrices of the batch.
    pub fn count(&self) -> usize {
        self.batch[0].saturating_mul(self.batch[1])
    }
}
