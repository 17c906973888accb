//! Proofs about sizes, evaluated while a program is built.
//!
//! Methods that change extents hold `const { proof::reshape::<S, T>() }`; a failed proof stops
//! the build with both shapes in axis names and one counter-example. `cargo check` does not
//! evaluate these (they need monomorphization), `cargo build` does.

use super::axis::{Axis, Print};
use super::message::Message;
use super::shape::Shape;

const fn product(prints: &[Print], slot: usize) -> u64 {
    let mut out = 1u64;
    let mut i = 0;
    while i < prints.len() {
        out = out.wrapping_mul(prints[i][slot]);
        i += 1;
    }
    out
}

/// The first assignment under which two products of axes differ.
const fn first_difference(a: &[Print], b: &[Print]) -> Option<usize> {
    let mut slot = 0;
    while slot < 8 {
        if product(a, slot) != product(b, slot) {
            return Some(slot);
        }
        slot += 1;
    }
    None
}

const fn assignment(mut m: Message, names: &[&str], prints: &[Print], slot: usize) -> Message {
    let mut i = 0;
    while i < names.len() {
        if i > 0 {
            m = m.text(", ");
        }
        m = m.text(names[i]).text(" = ").number(prints[i][slot]);
        i += 1;
    }
    m
}

const fn same(a: &Print, b: &Print) -> bool {
    let mut slot = 0;
    while slot < 8 {
        if a[slot] != b[slot] {
            return false;
        }
        slot += 1;
    }
    true
}

/// The axes of `a` that have no equal among those of `b`, each equal counted once: what is left
/// of a product when both sides are divided by their common factors.
const fn remaining(a: &[Print], b: &[Print]) -> [bool; 8] {
    let mut left = [true; 8];
    let mut used = [false; 8];
    let mut i = 0;
    while i < a.len() {
        let mut j = 0;
        while j < b.len() && left[i] {
            if !used[j] && same(&a[i], &b[j]) {
                used[j] = true;
                left[i] = false;
            }
            j += 1;
        }
        i += 1;
    }
    left
}

/// "`Heads * HeadDim` = 64", of the axes that `left` names.
const fn side(mut m: Message, names: &[&str], prints: &[Print], left: [bool; 8], slot: usize) -> Message {
    m = m.text("`");
    let mut value = 1u64;
    let mut any = false;
    let mut i = 0;
    while i < names.len() {
        if left[i] {
            m = m.text(if any { " * " } else { "" }).text(names[i]);
            value = value.wrapping_mul(prints[i][slot]);
            any = true;
        }
        i += 1;
    }
    m.text(if any { "` = " } else { "1` = " }).number(value)
}

/// Whether the compiler knows the size of each axis that `left` names.
const fn all_static<S: Shape>(left: [bool; 8]) -> bool {
    let mut i = 0;
    while i < S::RANK {
        if left[i] && S::SIZES[i].is_none() {
            return false;
        }
        i += 1;
    }
    true
}

/// Proves that `S` and `T` hold equally many values, for all sizes of their axes.
pub const fn reshape<S: Shape, T: Shape>() {
    if let Some(slot) = first_difference(S::PRINTS, T::PRINTS) {
        let (left, right) = (remaining(S::PRINTS, T::PRINTS), remaining(T::PRINTS, S::PRINTS));
        let m = Message::new()
            .text("reshape: ")
            .shape(S::NAMES)
            .text(" and ")
            .shape(T::NAMES)
            .text(" do not hold equally many values: ")
            .text(if all_static::<S>(left) && all_static::<T>(right) { "" } else { "for example " });
        let m = side(m, S::NAMES, S::PRINTS, left, slot).text(", but ");
        let m = side(m, T::NAMES, T::PRINTS, right, slot);
        panic!("{}", m.as_str());
    }
}

/// Proves that `S` and `T` have the same sizes axis by axis, for all sizes.
pub const fn relabel<S: Shape, T: Shape>() {
    if S::RANK != T::RANK {
        let m = Message::new()
            .text("relabel: ")
            .shape(S::NAMES)
            .text(" and ")
            .shape(T::NAMES)
            .text(" have different ranks");
        panic!("{}", m.as_str());
    }
    let mut i = 0;
    while i < S::RANK {
        let mut slot = 0;
        while slot < 8 {
            if S::PRINTS[i][slot] != T::PRINTS[i][slot] {
                let m = Message::new()
                    .text("relabel: ")
                    .shape(S::NAMES)
                    .text(" cannot be called ")
                    .shape(T::NAMES)
                    .text(": `")
                    .text(S::NAMES[i])
                    .text("` and `")
                    .text(T::NAMES[i])
                    .text("` are not always equal, for example ")
                    .number(S::PRINTS[i][slot])
                    .text(" and ")
                    .number(T::PRINTS[i][slot]);
                panic!("{}", m.as_str());
            }
            slot += 1;
        }
        i += 1;
    }
}

/// Proves that axis `A` equals the product of the axes of `T`: the rule for splitting and merging.
pub const fn factors<A: Axis, T: Shape>() {
    if let Some(slot) = first_difference(&[A::PRINT], T::PRINTS) {
        let m = Message::new()
            .text("`")
            .text(A::NAME)
            .text("` is not the product of ")
            .shape(T::NAMES)
            .text(": ")
            .number(A::PRINT[slot])
            .text(" against ")
            .number(product(T::PRINTS, slot))
            .text(" for ");
        let m = assignment(m, T::NAMES, T::PRINTS, slot);
        panic!("{}", m.as_str());
    }
}

/// Proves that two axes have the same size, for all sizes.
pub const fn equal<A: Axis, B: Axis>(what: &'static str) {
    let mut slot = 0;
    while slot < 8 {
        if A::PRINT[slot] != B::PRINT[slot] {
            let m = Message::new()
                .text(what)
                .text(": `")
                .text(A::NAME)
                .text("` is not `")
                .text(B::NAME)
                .text("`: for example ")
                .number(A::PRINT[slot])
                .text(" against ")
                .number(B::PRINT[slot]);
            panic!("{}", m.as_str());
        }
        slot += 1;
    }
}

/// Proves that the division `A / B`, written `text`, leaves no remainder; part of `axes!`.
pub const fn exact<A: Axis, B: Axis>(text: &'static str) {
    let (Some(a), Some(b)) = (A::SIZE, B::SIZE) else {
        let runtime = if A::SIZE.is_none() { A::NAME } else { B::NAME };
        let m = Message::new().text("`").text(text).text("` must be exact, but the size of `").text(runtime).text(
            "` is bound at run time; use `floor(a / n)` or `ceil(a / n)`, or declare the product the other way round",
        );
        panic!("{}", m.as_str());
    };
    if b == 0 || a % b != 0 {
        let m = Message::new()
            .text("`")
            .text(text)
            .text("` leaves a remainder: ")
            .number(a)
            .text(" / ")
            .number(b)
            .text("; choose sizes that divide, or use `floor(a / n)` or `ceil(a / n)`");
        panic!("{}", m.as_str());
    }
}

/// Proves that the difference `A - B`, written `text`, is not negative where both sizes are
/// known; part of `axes!`.
pub const fn difference<A: Axis, B: Axis>(text: &'static str) {
    if let (Some(a), Some(b)) = (A::SIZE, B::SIZE)
        && a < b
    {
        let m = Message::new().text("`").text(text).text("` is negative: ").number(a).text(" - ").number(b);
        panic!("{}", m.as_str());
    }
}

/// Proves that an axis called `name` holds at least one, where its size is known; part of `axes!`.
pub const fn holds_one<A: Axis>(name: &'static str) {
    // Reading the print computes every relation inside.
    let _ = A::PRINT;
    if let Some(0) = A::SIZE {
        let m =
            Message::new().text("`").text(name).text("` has size 0; an axis whose size is known holds at least one");
        panic!("{}", m.as_str());
    }
}

/// Proves that `N` values of `A` from `start` on lie within it, where all three are static.
pub const fn slice<A: Axis, N: Axis>(what: &'static str, start: Option<u64>) {
    if let (Some(a), Some(n)) = (A::SIZE, N::SIZE) {
        let start = match start {
            Some(start) => start,
            None => 0,
        };
        if n > a || start > a - n {
            let m = Message::new()
                .text(what)
                .text(": `")
                .text(N::NAME)
                .text("` (")
                .number(n)
                .text(") values from position ")
                .number(start)
                .text(" on do not fit into `")
                .text(A::NAME)
                .text("` (")
                .number(a)
                .text(")");
            panic!("{}", m.as_str());
        }
    }
}
