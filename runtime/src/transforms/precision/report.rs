//! The report: every product with what it reads, and why.

use crate::graph::{Extent, Sizes};
use crate::ops::quantize::Fp8;
use std::fmt;

/// Which product of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `y = x W`.
    Forward,
    /// The gradient by `x`: `dy W`.
    ByInput,
    /// The gradient by `W`: `x dy`.
    ByWeight,
    /// A product of another kind.
    Other,
}

impl Role {
    /// The name in reports; the first three are Transformer Engine's.
    pub fn name(self) -> &'static str {
        match self {
            Role::Forward => "fprop",
            Role::ByInput => "dgrad",
            Role::ByWeight => "wgrad",
            Role::Other => "other",
        }
    }
}

/// What an operand is rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Number {
    /// Not at all.
    F32,
    /// The upper half of single precision.
    Bf16,
    /// IEEE 754's 16 bits.
    F16,
    /// Eight bits.
    Fp8(Fp8),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Number::F32 => "f32",
            Number::Bf16 => "bf16",
            Number::F16 => "f16",
            Number::Fp8(format) => format.name(),
        })
    }
}

/// One product.
#[derive(Clone, PartialEq, Debug)]
pub struct Gemm {
    /// The weight's name, or operation and module where there is none.
    pub name: String,
    /// Which of a layer's products.
    pub role: Role,
    /// What its operands are rounded to: in fprop `x` and `W`, in dgrad `dy` and `W`, in wgrad `dy`
    /// and `x`.
    pub operands: [Number; 2],
    /// Why it is not in eight bits although most layers are, or else; empty where there is nothing to
    /// say.
    pub why: String,
    /// Sizes, known at run time, that must be multiples of a number: of positions. Where they are not,
    /// operands are rounded to bf16.
    pub sizes: Vec<Extent>,
    /// Of what.
    pub multiple: usize,
}

impl Gemm {
    /// The same for sizes of run-time axes.
    fn at(mut self, sizes: &Sizes) -> Gemm {
        let odd = self.sizes.iter().find_map(|e| {
            let n = e.eval(sizes).ok()?;
            (!n.is_multiple_of(self.multiple)).then(|| unfit(e, n, self.multiple))
        });
        if let Some(why) = odd {
            self.operands = [Number::Bf16; 2];
            self.why = why;
        }
        self.sizes.retain(|e| e.eval(sizes).is_err());
        self
    }
}

/// Why a size keeps a product out of eight bits.
pub(super) fn unfit(extent: &Extent, size: usize, multiple: usize) -> String {
    match extent.as_constant() {
        Some(_) => format!("{size} is no multiple of {multiple}"),
        None => format!("{extent} is {size}, no multiple of {multiple}"),
    }
}

/// Every product of a program with what it reads, and why.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PrecisionReport {
    /// The products in the order of the graph.
    pub gemms: Vec<Gemm>,
}

impl PrecisionReport {
    /// The report for these sizes of run-time axes.
    #[must_use]
    pub fn at(&self, sizes: &Sizes) -> PrecisionReport {
        PrecisionReport { gemms: self.gemms.iter().map(|g| g.clone().at(sizes)).collect() }
    }

    /// The products that read a number of eight bits.
    pub fn in_eight_bits(&self) -> impl Iterator<Item = &Gemm> {
        self.gemms.iter().filter(|g| g.operands.iter().any(|n| matches!(n, Number::Fp8(_))))
    }
}

impl fmt::Display for PrecisionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.gemms.iter().map(|g| g.name.len()).max().unwrap_or(0);
        for g in &self.gemms {
            let [a, b] = g.operands;
            write!(f, "{:wide$}  {:5}  {a:4} x {b:4}", g.name, g.role.name())?;
            if !g.why.is_empty() {
                write!(f, "  {}", g.why)?;
            }
            if !g.sizes.is_empty() {
                let sizes: Vec<String> = g.sizes.iter().map(|e| e.to_string()).collect();
                write!(f, "  bf16 unless {} is a multiple of {}", sizes.join(" and "), g.multiple)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
