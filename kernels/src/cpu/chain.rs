//! Chains of elementwise operations in one pass.
//!
//! A chain is a small program over registers that each hold a block of values: real numbers in
//! one file, whole numbers and truth values in another. For each block of the output its inputs
//! are loaded (through broadcasting, strides or both), every instruction runs over the whole
//! block in a loop that vectorises, and the last register is stored. Intermediate values never
//! leave the first-level cache.

use super::copy::collapse;
use super::math;
use crate::pool::Pool;

/// Values in a block.
pub const BLOCK: usize = 256;
/// Registers for real numbers.
pub const FLOATS: usize = 20;
/// Registers for whole numbers and truth values.
pub const INTS: usize = 12;
/// Inputs of a chain.
pub const INPUTS: usize = 16;

/// A register's number.
pub type Reg = u8;

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

/// One step. The first register is written and differs from those that are read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Ins {
    /// Input number `1` into a register of its kind.
    LoadF(Reg, u8),
    LoadI(Reg, u8),
    LoadM(Reg, u8),
    ConstF(Reg, f32),
    ConstI(Reg, i32),
    /// `(position / div) % modulus` of the output.
    Iota {
        dst: Reg,
        div: usize,
        modulus: usize,
    },
    UnF(UnaryF, Reg, Reg),
    NegI(Reg, Reg),
    AbsI(Reg, Reg),
    SignI(Reg, Reg),
    Not(Reg, Reg),
    BinF(BinaryOp, Reg, Reg, Reg),
    BinI(BinaryOp, Reg, Reg, Reg),
    CmpF(CompareOp, Reg, Reg, Reg),
    CmpI(CompareOp, Reg, Reg, Reg),
    /// Destination, mask, then, else.
    SelF(Reg, Reg, Reg, Reg),
    SelI(Reg, Reg, Reg, Reg),
    IntToFloat(Reg, Reg),
    FloatToInt(Reg, Reg),
    FloatToMask(Reg, Reg),
    IntToMask(Reg, Reg),
    MoveI(Reg, Reg),
}

/// How an input is laid out over the output's positions.
#[derive(Clone, Debug)]
pub struct Layout {
    offset: usize,
    sizes: Vec<usize>,
    strides: Vec<usize>,
}

impl Layout {
    /// The layout of a view with these strides over an output of these sizes.
    pub fn new(sizes: &[usize], strides: &[usize], offset: usize) -> Layout {
        let (sizes, strides) = collapse(sizes, strides);
        Layout { offset, sizes, strides }
    }

    /// Whether the values follow each other as the output's do.
    pub fn is_contiguous(&self) -> bool {
        self.sizes.len() == 1 && self.strides[0] == 1 || self.sizes == [1]
    }

    /// The largest index touched, plus one.
    pub fn reach(&self) -> usize {
        if self.sizes.contains(&0) {
            return 0;
        }
        self.offset + self.sizes.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1
    }

    /// Calls `f(place in block, place in data, stride, count)` for the runs of positions
    /// `start..start + len`.
    #[inline(always)]
    fn runs(&self, start: usize, len: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
        let last = self.sizes.len() - 1;
        let (inner, step) = (self.sizes[last], self.strides[last]);
        if last == 0 {
            return f(0, self.offset + start * step, step, len);
        }
        let (mut row, mut column, mut done) = (start / inner, start % inner, 0);
        while done < len {
            let count = (inner - column).min(len - done);
            let (mut rest, mut at) = (row, self.offset + column * step);
            for d in (0..last).rev() {
                at += rest % self.sizes[d] * self.strides[d];
                rest /= self.sizes[d];
            }
            f(done, at, step, count);
            done += count;
            column = 0;
            row += 1;
        }
    }
}

/// An input's values.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Real numbers.
    F32(&'a [f32]),
    /// Whole numbers.
    I32(&'a [i32]),
    /// Truth values.
    U8(&'a [u8]),
    /// The output's own previous values, of four bytes each.
    Out,
}

/// Where results go.
pub enum Target<'a> {
    /// Real numbers.
    F32(&'a mut [f32]),
    /// Whole numbers.
    I32(&'a mut [i32]),
    /// Truth values.
    U8(&'a mut [u8]),
}

/// Runs a chain over `out`. The result is in register `result` of the file of `out`'s kind.
///
/// # Panics
/// When an input is shorter than its layout reaches.
pub fn run(pool: &Pool, code: &[Ins], result: Reg, layouts: &[Layout], sources: &[Source], out: Target) {
    for (layout, source) in layouts.iter().zip(sources) {
        let len = match source {
            Source::F32(s) => s.len(),
            Source::I32(s) => s.len(),
            Source::U8(s) => s.len(),
            Source::Out => usize::MAX,
        };
        assert!(layout.reach() <= len, "a chain's input is cut off");
    }
    const LEAST: usize = 16 * BLOCK;
    match out {
        Target::F32(out) => pool.rows(out, 1, LEAST, |first, part| {
            range(code, result, layouts, sources, first, Part::F32(part));
        }),
        Target::I32(out) => pool.rows(out, 1, LEAST, |first, part| {
            range(code, result, layouts, sources, first, Part::I32(part));
        }),
        Target::U8(out) => pool.rows(out, 1, LEAST, |first, part| {
            range(code, result, layouts, sources, first, Part::U8(part));
        }),
    }
}

enum Part<'a> {
    F32(&'a mut [f32]),
    I32(&'a mut [i32]),
    U8(&'a mut [u8]),
}

crate::dispatch! {
    fn range(code: &[Ins], result: Reg, layouts: &[Layout], sources: &[Source], first: usize, part: Part) = range_body;
}

type F = [f32; BLOCK];
type I = [i32; BLOCK];

/// The register to write and the others.
#[inline(always)]
fn split<'r, T, const N: usize>(
    regs: &'r mut [[T; BLOCK]; N],
    d: Reg,
) -> (&'r mut [T; BLOCK], impl Fn(Reg) -> &'r [T; BLOCK]) {
    let d = d as usize;
    let (low, high) = regs.split_at_mut(d);
    let (dst, high) = high.split_first_mut().expect("registers are numbered below the file's size");
    let (low, high) = (&*low, &*high);
    (dst, move |r: Reg| {
        let r = r as usize;
        if r < d { &low[r] } else { &high[r - d - 1] }
    })
}

#[inline(always)]
fn map<T: Copy, U>(dst: &mut [U; BLOCK], a: &[T; BLOCK], f: impl Fn(T) -> U) {
    for i in 0..BLOCK {
        dst[i] = f(a[i]);
    }
}

#[inline(always)]
fn zip<T: Copy, U>(dst: &mut [U; BLOCK], a: &[T; BLOCK], b: &[T; BLOCK], f: impl Fn(T, T) -> U) {
    for i in 0..BLOCK {
        dst[i] = f(a[i], b[i]);
    }
}

#[inline(always)]
fn load<T: Copy, U>(dst: &mut [U], data: &[T], layout: &Layout, start: usize, convert: impl Fn(T) -> U + Copy) {
    let len = dst.len();
    layout.runs(start, len, |place, at, step, count| {
        let dst = &mut dst[place..place + count];
        match step {
            0 => {
                let v = data[at];
                dst.iter_mut().for_each(|d| *d = convert(v));
            }
            1 => dst.iter_mut().zip(&data[at..at + count]).for_each(|(d, s)| *d = convert(*s)),
            _ => dst.iter_mut().zip(data[at..].iter().step_by(step)).for_each(|(d, s)| *d = convert(*s)),
        }
    });
}

#[inline(always)]
fn unary_f(kind: UnaryF, d: &mut F, a: &F) {
    match kind {
        UnaryF::Neg => map(d, a, |x| -x),
        UnaryF::Exp => map(d, a, math::exp),
        UnaryF::Expm1 => map(d, a, math::expm1),
        UnaryF::Log => map(d, a, math::log),
        UnaryF::Log1p => map(d, a, math::log1p),
        UnaryF::Sqrt => map(d, a, f32::sqrt),
        UnaryF::Rsqrt => map(d, a, |x| 1.0 / x.sqrt()),
        UnaryF::Recip => map(d, a, |x| 1.0 / x),
        UnaryF::Abs => map(d, a, f32::abs),
        UnaryF::Sign => map(d, a, |x| if x == 0.0 || x.is_nan() { x } else { 1f32.copysign(x) }),
        // Large angles need the library's reduction.
        UnaryF::Sin | UnaryF::Cos if a.iter().any(|x| x.abs() >= math::TURNS) => {
            map(d, a, if kind == UnaryF::Sin { f32::sin } else { f32::cos })
        }
        UnaryF::Sin => map(d, a, math::sin),
        UnaryF::Cos => map(d, a, math::cos),
        UnaryF::Tanh => map(d, a, math::tanh),
        UnaryF::Erf => map(d, a, math::erf),
        UnaryF::Sigmoid => map(d, a, math::sigmoid),
        UnaryF::Floor => map(d, a, f32::floor),
        UnaryF::Ceil => map(d, a, f32::ceil),
        UnaryF::Round => map(d, a, f32::round_ties_even),
    }
}

#[inline(always)]
fn binary_f(op: BinaryOp, d: &mut F, a: &F, b: &F) {
    match op {
        BinaryOp::Add => zip(d, a, b, |x, y| x + y),
        BinaryOp::Sub => zip(d, a, b, |x, y| x - y),
        BinaryOp::Mul => zip(d, a, b, |x, y| x * y),
        BinaryOp::Div => zip(d, a, b, |x, y| x / y),
        BinaryOp::Pow => zip(d, a, b, f32::powf),
        BinaryOp::Min => zip(d, a, b, |x, y| if x < y || x.is_nan() { x } else { y }),
        BinaryOp::Max => zip(d, a, b, |x, y| if x > y || x.is_nan() { x } else { y }),
        BinaryOp::Rem => zip(d, a, b, |x, y| x - y * (x / y).floor()),
        // Real numbers have no logic; the lowering never asks.
        BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => d.fill(f32::NAN),
    }
}

/// Quotient towards minus infinity; 0 where the divisor is 0.
#[inline(always)]
fn div_floor(x: i32, y: i32) -> i32 {
    if y == 0 {
        return 0;
    }
    let q = x.wrapping_div(y);
    if x.wrapping_rem(y) != 0 && ((x < 0) != (y < 0)) { q - 1 } else { q }
}

#[inline(always)]
fn binary_i(op: BinaryOp, d: &mut I, a: &I, b: &I) {
    match op {
        BinaryOp::Add => zip(d, a, b, i32::wrapping_add),
        BinaryOp::Sub => zip(d, a, b, i32::wrapping_sub),
        BinaryOp::Mul => zip(d, a, b, i32::wrapping_mul),
        BinaryOp::Div => zip(d, a, b, div_floor),
        BinaryOp::Rem => zip(d, a, b, |x, y| if y == 0 { 0 } else { x.wrapping_sub(y.wrapping_mul(div_floor(x, y))) }),
        BinaryOp::Min => zip(d, a, b, i32::min),
        BinaryOp::Max => zip(d, a, b, i32::max),
        BinaryOp::And => zip(d, a, b, |x, y| x & y),
        BinaryOp::Or => zip(d, a, b, |x, y| x | y),
        BinaryOp::Xor => zip(d, a, b, |x, y| x ^ y),
        BinaryOp::Pow => zip(d, a, b, |x, y| if y < 0 { 0 } else { x.wrapping_pow(y as u32) }),
    }
}

#[inline(always)]
fn compare<T: Copy + PartialOrd>(op: CompareOp, d: &mut I, a: &[T; BLOCK], b: &[T; BLOCK]) {
    match op {
        CompareOp::Eq => zip(d, a, b, |x, y| (x == y) as i32),
        CompareOp::Ne => zip(d, a, b, |x, y| (x != y) as i32),
        CompareOp::Lt => zip(d, a, b, |x, y| (x < y) as i32),
        CompareOp::Le => zip(d, a, b, |x, y| (x <= y) as i32),
        CompareOp::Gt => zip(d, a, b, |x, y| (x > y) as i32),
        CompareOp::Ge => zip(d, a, b, |x, y| (x >= y) as i32),
    }
}

#[inline(always)]
fn range_body(code: &[Ins], result: Reg, layouts: &[Layout], sources: &[Source], first: usize, mut part: Part) {
    let total = match &part {
        Part::F32(p) => p.len(),
        Part::I32(p) => p.len(),
        Part::U8(p) => p.len(),
    };
    let mut f: [F; FLOATS] = [[0.0; BLOCK]; FLOATS];
    let mut n: [I; INTS] = [[0; BLOCK]; INTS];
    let mut done = 0;
    while done < total {
        let len = BLOCK.min(total - done);
        let start = first + done;
        for ins in code {
            match *ins {
                Ins::LoadF(d, i) => {
                    let dst = &mut f[d as usize][..len];
                    match (sources[i as usize], &part) {
                        (Source::F32(s), _) => load(dst, s, &layouts[i as usize], start, |v| v),
                        (Source::Out, Part::F32(p)) => dst.copy_from_slice(&p[done..done + len]),
                        _ => dst.fill(f32::NAN),
                    }
                }
                Ins::LoadI(d, i) => {
                    let dst = &mut n[d as usize][..len];
                    match (sources[i as usize], &part) {
                        (Source::I32(s), _) => load(dst, s, &layouts[i as usize], start, |v| v),
                        (Source::Out, Part::I32(p)) => dst.copy_from_slice(&p[done..done + len]),
                        _ => dst.fill(0),
                    }
                }
                Ins::LoadM(d, i) => {
                    if let Source::U8(s) = sources[i as usize] {
                        load(&mut n[d as usize][..len], s, &layouts[i as usize], start, |v| v as i32);
                    }
                }
                Ins::ConstF(d, v) => f[d as usize].fill(v),
                Ins::ConstI(d, v) => n[d as usize].fill(v),
                Ins::Iota { dst, div, modulus } => {
                    let (mut value, mut phase) = (start / div % modulus, start % div);
                    for slot in &mut n[dst as usize][..len] {
                        *slot = value as i32;
                        phase += 1;
                        if phase == div {
                            phase = 0;
                            value += 1;
                            if value == modulus {
                                value = 0;
                            }
                        }
                    }
                }
                Ins::UnF(kind, d, a) => {
                    let (dst, get) = split(&mut f, d);
                    unary_f(kind, dst, get(a));
                }
                Ins::NegI(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    map(dst, get(a), i32::wrapping_neg);
                }
                Ins::AbsI(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    map(dst, get(a), i32::wrapping_abs);
                }
                Ins::SignI(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    map(dst, get(a), i32::signum);
                }
                Ins::Not(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    map(dst, get(a), |x| 1 - x);
                }
                Ins::MoveI(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    *dst = *get(a);
                }
                Ins::BinF(op, d, a, b) => {
                    let (dst, get) = split(&mut f, d);
                    binary_f(op, dst, get(a), get(b));
                }
                Ins::BinI(op, d, a, b) => {
                    let (dst, get) = split(&mut n, d);
                    binary_i(op, dst, get(a), get(b));
                }
                Ins::CmpF(op, d, a, b) => compare(op, &mut n[d as usize], &f[a as usize], &f[b as usize]),
                Ins::CmpI(op, d, a, b) => {
                    let (dst, get) = split(&mut n, d);
                    compare(op, dst, get(a), get(b));
                }
                Ins::SelF(d, m, a, b) => {
                    let (dst, get) = split(&mut f, d);
                    let (m, a, b) = (&n[m as usize], get(a), get(b));
                    for i in 0..BLOCK {
                        dst[i] = if m[i] != 0 { a[i] } else { b[i] };
                    }
                }
                Ins::SelI(d, m, a, b) => {
                    let (dst, get) = split(&mut n, d);
                    let (m, a, b) = (get(m), get(a), get(b));
                    for i in 0..BLOCK {
                        dst[i] = if m[i] != 0 { a[i] } else { b[i] };
                    }
                }
                Ins::IntToFloat(d, a) => map(&mut f[d as usize], &n[a as usize], |x| x as f32),
                Ins::FloatToInt(d, a) => map(&mut n[d as usize], &f[a as usize], |x| x as i32),
                Ins::FloatToMask(d, a) => map(&mut n[d as usize], &f[a as usize], |x| (x != 0.0) as i32),
                Ins::IntToMask(d, a) => {
                    let (dst, get) = split(&mut n, d);
                    map(dst, get(a), |x| (x != 0) as i32);
                }
            }
        }
        match &mut part {
            Part::F32(p) => p[done..done + len].copy_from_slice(&f[result as usize][..len]),
            Part::I32(p) => p[done..done + len].copy_from_slice(&n[result as usize][..len]),
            Part::U8(p) => {
                p[done..done + len].iter_mut().zip(&n[result as usize]).for_each(|(d, s)| *d = (*s != 0) as u8)
            }
        }
        done += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_over_broadcast_strided_and_in_place_inputs() {
        let pool = Pool::new(2);
        let (rows, cols) = (37, 311);
        let row: Vec<f32> = (0..cols).map(|i| i as f32).collect();
        let column: Vec<f32> = (0..rows * 2).map(|i| i as f32 * 0.5).collect();
        let mut out: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        let sizes = [rows, cols];
        let layouts =
            [Layout::new(&sizes, &[0, 1], 0), Layout::new(&sizes, &[2, 0], 0), Layout::new(&sizes, &[cols, 1], 0)];
        let code = [
            Ins::LoadF(0, 0),
            Ins::LoadF(1, 1),
            Ins::LoadF(2, 2),
            Ins::BinF(BinaryOp::Mul, 3, 0, 1),
            Ins::BinF(BinaryOp::Add, 4, 3, 2),
            Ins::Iota { dst: 0, div: cols, modulus: rows },
            Ins::IntToFloat(5, 0),
            Ins::BinF(BinaryOp::Sub, 6, 4, 5),
        ];
        run(&pool, &code, 6, &layouts, &[Source::F32(&row), Source::F32(&column), Source::Out], Target::F32(&mut out));
        for r in 0..rows {
            for c in 0..cols {
                let expected = row[c] * column[2 * r] + (r * cols + c) as f32 - r as f32;
                assert_eq!(out[r * cols + c], expected);
            }
        }
    }

    #[test]
    fn masks_choose() {
        let x = [1.0, -2.0, f32::NAN, 4.0];
        let mut out = [0u8; 4];
        let code = [Ins::LoadF(0, 0), Ins::ConstF(1, 0.0), Ins::CmpF(CompareOp::Gt, 0, 0, 1), Ins::Not(1, 0)];
        let layout = [Layout::new(&[4], &[1], 0)];
        run(&Pool::new(1), &code, 1, &layout, &[Source::F32(&x)], Target::U8(&mut out));
        assert_eq!(out, [0, 1, 1, 0]);
    }

    #[test]
    fn whole_numbers_divide_towards_minus_infinity() {
        for (x, y) in [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, 3), (-6, 3), (1, 0)] {
            let expected = if y == 0 { 0 } else { (x as f64 / y as f64).floor() as i32 };
            assert_eq!(div_floor(x, y), expected);
        }
    }
}
