//! The loops of a chain's instructions: whole vectors, one after the other.
//!
//! Each is a plain loop over sixteen values that the compiler makes vector instructions of, for
//! the level that it is compiled for. All are `unsafe` for one reason: operands are addresses,
//! because a block may be read from an input or a register, and an output may lie where an input
//! does.

use super::code::{BinaryOp, CompareOp, Pair, UnaryF};
use crate::cpu::math;
use crate::cpu::quant::half;

/// Values in a vector: every level's vectors divide it.
pub(super) const LANES: usize = 16;

/// An operand: vectors at an address, `step` words apart. With step 0 one vector is read again
/// and again.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub at: *const u32,
    pub step: usize,
}

impl Words {
    /// Vector `i`.
    ///
    /// # Safety
    /// The operand has it, written with values of `T`'s kind.
    #[inline(always)]
    unsafe fn vector<T: Copy>(self, i: usize) -> [T; LANES] {
        const { assert!(size_of::<T>() == 4) };
        // SAFETY: by the caller's promise; every value of a register is a `T`.
        unsafe { self.at.add(i * self.step).cast::<[T; LANES]>().read() }
    }

    /// The place of value `i`.
    ///
    /// # Safety
    /// The operand has it.
    #[inline(always)]
    pub unsafe fn value(self, i: usize) -> *const u32 {
        // SAFETY: by the caller's promise.
        unsafe { if self.step == 0 { self.at } else { self.at.add(i) } }
    }
}

/// `for` each vector: the value of an expression over the operands' values.
macro_rules! each {
    ($vectors:expr, $to:expr, [$($x:ident : $t:ty = $from:expr),+], $e:expr) => {
        for i in 0..$vectors {
            $(let $x: [$t; LANES] = $from.vector(i);)+
            let mut y = [Default::default(); LANES];
            for k in 0..LANES {
                $(let $x = $x[k];)+
                y[k] = $e;
            }
            $to.add(i * LANES).cast::<[_; LANES]>().write(y);
        }
    };
}

// SAFETY (of all below): callers promise `vectors` vectors at each operand and at `to`, which is
// none of the operands.

#[inline(always)]
pub(super) unsafe fn unary_f<const FUSED: bool>(kind: UnaryF, n: usize, to: *mut f32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe {
        match kind {
            UnaryF::Neg => each!(n, to, [x: f32 = a], -x),
            UnaryF::Exp => each!(n, to, [x: f32 = a], math::exp::<FUSED>(x)),
            UnaryF::Expm1 => each!(n, to, [x: f32 = a], math::expm1::<FUSED>(x)),
            UnaryF::Log => each!(n, to, [x: f32 = a], math::log::<FUSED>(x)),
            UnaryF::Log1p => each!(n, to, [x: f32 = a], math::log1p::<FUSED>(x)),
            UnaryF::Sqrt => each!(n, to, [x: f32 = a], x.sqrt()),
            UnaryF::Rsqrt => each!(n, to, [x: f32 = a], 1.0 / x.sqrt()),
            UnaryF::Recip => each!(n, to, [x: f32 = a], 1.0 / x),
            UnaryF::Abs => each!(n, to, [x: f32 = a], x.abs()),
            UnaryF::Sign => each!(n, to, [x: f32 = a], if x == 0.0 || x.is_nan() { x } else { 1f32.copysign(x) }),
            UnaryF::Sin | UnaryF::Cos => turn::<FUSED>(kind, n, to, a),
            UnaryF::Tanh => each!(n, to, [x: f32 = a], math::tanh::<FUSED>(x)),
            UnaryF::Erf => each!(n, to, [x: f32 = a], math::erf::<FUSED>(x)),
            UnaryF::Sigmoid => each!(n, to, [x: f32 = a], math::sigmoid::<FUSED>(x)),
            UnaryF::Floor => each!(n, to, [x: f32 = a], x.floor()),
            UnaryF::Ceil => each!(n, to, [x: f32 = a], x.ceil()),
            UnaryF::Round => each!(n, to, [x: f32 = a], x.round_ties_even()),
            UnaryF::Bf16 => each!(n, to, [x: f32 = a], half::from_bf16(half::to_bf16(x))),
            UnaryF::F16 => each!(n, to, [x: f32 = a], half::from_f16(half::to_f16(x))),
        }
    }
}

/// Sine or cosine; large angles need the library's reduction.
#[inline(always)]
unsafe fn turn<const FUSED: bool>(kind: UnaryF, n: usize, to: *mut f32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut large = false;
        for i in 0..n {
            let x: [f32; LANES] = a.vector(i);
            let mut most = 0f32;
            for x in x {
                most = if x.abs() > most { x.abs() } else { most };
            }
            large |= most >= math::TURNS;
        }
        match (kind, large) {
            (UnaryF::Sin, false) => each!(n, to, [x: f32 = a], math::sin::<FUSED>(x)),
            (UnaryF::Sin, true) => each!(n, to, [x: f32 = a], x.sin()),
            (_, false) => each!(n, to, [x: f32 = a], math::cos::<FUSED>(x)),
            (_, true) => each!(n, to, [x: f32 = a], x.cos()),
        }
    }
}

#[inline(always)]
pub(super) unsafe fn binary_f(op: BinaryOp, n: usize, to: *mut f32, a: Words, b: Words) {
    // SAFETY: by the caller's promise.
    unsafe {
        match op {
            BinaryOp::Add => each!(n, to, [x: f32 = a, y: f32 = b], x + y),
            BinaryOp::Sub => each!(n, to, [x: f32 = a, y: f32 = b], x - y),
            BinaryOp::Mul => each!(n, to, [x: f32 = a, y: f32 = b], x * y),
            BinaryOp::Div => each!(n, to, [x: f32 = a, y: f32 = b], x / y),
            BinaryOp::Pow => each!(n, to, [x: f32 = a, y: f32 = b], x.powf(y)),
            BinaryOp::Min => each!(n, to, [x: f32 = a, y: f32 = b], if x < y || x.is_nan() { x } else { y }),
            BinaryOp::Max => each!(n, to, [x: f32 = a, y: f32 = b], if x > y || x.is_nan() { x } else { y }),
            BinaryOp::Rem => each!(n, to, [x: f32 = a, y: f32 = b], x - y * (x / y).floor()),
            // Real numbers have no logic; the lowering never asks.
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => each!(n, to, [_x: f32 = a], f32::NAN),
        }
    }
}

#[inline(always)]
pub(super) unsafe fn pair_f(op: Pair, n: usize, to: *mut f32, a: Words, b: Words, c: Words) {
    // SAFETY: by the caller's promise.
    unsafe {
        match op {
            Pair::MulAdd => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], x * y + z),
            Pair::MulSub => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], x * y - z),
            Pair::SubMul => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], z - x * y),
            Pair::MulMul => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], x * y * z),
            Pair::AddMul => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], (x + y) * z),
            Pair::SubThenMul => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], (x - y) * z),
            Pair::AddAdd => each!(n, to, [x: f32 = a, y: f32 = b, z: f32 = c], x + y + z),
        }
    }
}

/// Quotient towards minus infinity; 0 where the divisor is 0.
#[inline(always)]
pub(super) fn div_floor(x: i32, y: i32) -> i32 {
    if y == 0 {
        return 0;
    }
    let q = x.wrapping_div(y);
    if x.wrapping_rem(y) != 0 && ((x < 0) != (y < 0)) { q - 1 } else { q }
}

#[inline(always)]
fn rem_floor(x: i32, y: i32) -> i32 {
    if y == 0 { 0 } else { x.wrapping_sub(y.wrapping_mul(div_floor(x, y))) }
}

#[inline(always)]
pub(super) unsafe fn binary_i(op: BinaryOp, n: usize, to: *mut i32, a: Words, b: Words) {
    // SAFETY: by the caller's promise.
    unsafe {
        match op {
            BinaryOp::Add => each!(n, to, [x: i32 = a, y: i32 = b], x.wrapping_add(y)),
            BinaryOp::Sub => each!(n, to, [x: i32 = a, y: i32 = b], x.wrapping_sub(y)),
            BinaryOp::Mul => each!(n, to, [x: i32 = a, y: i32 = b], x.wrapping_mul(y)),
            BinaryOp::Div => each!(n, to, [x: i32 = a, y: i32 = b], div_floor(x, y)),
            BinaryOp::Rem => each!(n, to, [x: i32 = a, y: i32 = b], rem_floor(x, y)),
            BinaryOp::Min => each!(n, to, [x: i32 = a, y: i32 = b], x.min(y)),
            BinaryOp::Max => each!(n, to, [x: i32 = a, y: i32 = b], x.max(y)),
            BinaryOp::And => each!(n, to, [x: i32 = a, y: i32 = b], x & y),
            BinaryOp::Or => each!(n, to, [x: i32 = a, y: i32 = b], x | y),
            BinaryOp::Xor => each!(n, to, [x: i32 = a, y: i32 = b], x ^ y),
            BinaryOp::Pow => each!(n, to, [x: i32 = a, y: i32 = b], if y < 0 { 0 } else { x.wrapping_pow(y as u32) }),
        }
    }
}

macro_rules! comparison {
    ($name:ident, $t:ty) => {
        #[inline(always)]
        pub(super) unsafe fn $name(op: CompareOp, n: usize, to: *mut i32, a: Words, b: Words) {
            // SAFETY: by the caller's promise.
            unsafe {
                match op {
                    CompareOp::Eq => each!(n, to, [x: $t = a, y: $t = b], (x == y) as i32),
                    CompareOp::Ne => each!(n, to, [x: $t = a, y: $t = b], (x != y) as i32),
                    CompareOp::Lt => each!(n, to, [x: $t = a, y: $t = b], (x < y) as i32),
                    CompareOp::Le => each!(n, to, [x: $t = a, y: $t = b], (x <= y) as i32),
                    CompareOp::Gt => each!(n, to, [x: $t = a, y: $t = b], (x > y) as i32),
                    CompareOp::Ge => each!(n, to, [x: $t = a, y: $t = b], (x >= y) as i32),
                }
            }
        }
    };
}
comparison!(compare_f, f32);
comparison!(compare_i, i32);

/// `a` where `m` is not 0, else `b`, whatever they are.
#[inline(always)]
pub(super) unsafe fn select(n: usize, to: *mut u32, m: Words, a: Words, b: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [m: u32 = m, x: u32 = a, y: u32 = b], if m != 0 { x } else { y }) }
}

#[inline(always)]
pub(super) unsafe fn map_i(n: usize, to: *mut i32, a: Words, f: fn(i32) -> i32) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: i32 = a], f(x)) }
}

#[inline(always)]
pub(super) unsafe fn not(n: usize, to: *mut i32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: i32 = a], 1 - x) }
}

#[inline(always)]
pub(super) unsafe fn truth(n: usize, to: *mut i32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: i32 = a], (x != 0) as i32) }
}

#[inline(always)]
pub(super) unsafe fn same(n: usize, to: *mut i32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: i32 = a], x) }
}

#[inline(always)]
pub(super) unsafe fn int_to_float(n: usize, to: *mut f32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: i32 = a], x as f32) }
}

#[inline(always)]
pub(super) unsafe fn float_to_int(n: usize, to: *mut i32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: f32 = a], x as i32) }
}

#[inline(always)]
pub(super) unsafe fn float_to_mask(n: usize, to: *mut i32, a: Words) {
    // SAFETY: by the caller's promise.
    unsafe { each!(n, to, [x: f32 = a], (x != 0.0) as i32) }
}

/// `(position / div) % modulus` for `len` positions from `start` on.
#[inline(always)]
pub(super) unsafe fn positions(to: *mut i32, start: usize, len: usize, div: usize, modulus: usize) {
    let (mut value, mut phase, mut i) = (start / div % modulus, start % div, 0);
    // In runs that the compiler makes vectors: neighbours that count up, or that are equal.
    let (span, step) = if div == 1 { (modulus, 1) } else { (div, 0) };
    while i < len {
        let done = if div == 1 { value } else { phase };
        let run = (span - done).min(len - i);
        let first = value as i32;
        for j in 0..run {
            // SAFETY: by the caller's promise.
            unsafe { *to.add(i + j) = first.wrapping_add(j as i32 * step) };
        }
        i += run;
        phase = 0;
        value += if div == 1 { run } else { 1 };
        if value >= modulus {
            value = 0;
        }
    }
}
