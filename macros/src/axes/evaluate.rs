//! Computing the sizes that a block of declarations fixes, and refusing what cannot hold.
//!
//! An axis of the same block is known here, so `HeadDim = Hidden / Heads` with a remainder is
//! reported at the user's own tokens. An axis declared elsewhere is unknown here; its relations
//! become constant items in [`expand`](super::expand).

use super::ast::{Axis, Item};
use crate::axis_expr::{AxisExpr, Op};
use crate::errors::Errors;
use std::collections::BTreeMap;

/// What is known about an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    Static(u64),
    /// Bound at run time, or computed from such.
    Runtime,
    /// Declared elsewhere.
    Unknown,
}

/// Sizes by name.
#[derive(Clone, Default)]
pub struct Sizes(BTreeMap<String, Size>);

impl Sizes {
    /// What is known about the axis called `name`.
    pub fn get(&self, name: &str) -> Size {
        self.0.get(name).copied().unwrap_or(Size::Unknown)
    }
}

/// The sizes of a block's own axes.
pub fn block(items: &[Item], errors: &mut Errors) -> Sizes {
    let axes: Vec<&Axis> = items
        .iter()
        .filter_map(|i| match i {
            Item::Axis(a) => Some(a),
            _ => None,
        })
        .collect();
    for item in items {
        if let Item::Family(f) = item {
            duplicates(f.axes.iter(), errors);
        }
    }
    duplicates(axes.iter().copied(), errors);
    sizes(&axes, &Sizes::default(), errors)
}

/// Reports every name after its first declaration.
pub fn duplicates<'a>(axes: impl Iterator<Item = &'a Axis>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for axis in axes {
        if !seen.insert(axis.name.to_string()) {
            errors.at(&axis.name, format!("the axis `{}` is declared twice", axis.name));
        }
    }
}

/// The sizes of `axes`, on top of what is known from `outer`.
pub fn sizes(axes: &[&Axis], outer: &Sizes, errors: &mut Errors) -> Sizes {
    let mut known = outer.clone();
    let mut by_name = BTreeMap::new();
    for axis in axes {
        by_name.entry(axis.name.to_string()).or_insert(*axis);
        known.0.remove(&axis.name.to_string());
    }
    let mut walk = Walk { by_name, known, open: Vec::new(), errors };
    for axis in axes {
        walk.axis(&axis.name.to_string());
    }
    walk.known
}

struct Walk<'a> {
    by_name: BTreeMap<String, &'a Axis>,
    known: Sizes,
    /// The axes whose definitions are being followed.
    open: Vec<String>,
    errors: &'a mut Errors,
}

impl Walk<'_> {
    fn axis(&mut self, name: &str) -> Size {
        if let Some(size) = self.known.0.get(name) {
            return *size;
        }
        let Some(axis) = self.by_name.get(name).copied() else { return Size::Unknown };
        let size = match &axis.size {
            // What was meant is not known; its users must not be blamed.
            None if axis.broken => Size::Unknown,
            None => Size::Runtime,
            Some(expr) => {
                expr.check_names(self.errors);
                self.open.push(name.to_string());
                let size = self.expr(expr);
                self.open.pop();
                if size == Size::Static(0) {
                    self.errors
                        .at(expr, format!("`{name}` has size 0; an axis whose size is known holds at least one"));
                    Size::Unknown
                } else {
                    size
                }
            }
        };
        // A cycle has noted its members already.
        *self.known.0.entry(name.to_string()).or_insert(size)
    }

    fn expr(&mut self, expr: &AxisExpr) -> Size {
        match expr {
            AxisExpr::Int { value, .. } => Size::Static(*value),
            AxisExpr::Infer(underscore) => {
                self.errors.at(
                    underscore,
                    "the size of a declared axis cannot be inferred; leave out `= _` to bind it at run time",
                );
                Size::Unknown
            }
            AxisExpr::Path(path) => {
                let Some(name) = path.simple().map(ToString::to_string) else { return Size::Unknown };
                if let Some(start) = self.open.iter().position(|o| *o == name) {
                    let chain: Vec<String> =
                        self.open[start..].iter().chain([&name]).map(|n| format!("`{n}`")).collect();
                    self.errors.at(path, format!("`{name}` is defined in terms of itself: {}", chain.join(" from ")));
                    for member in &self.open[start..] {
                        self.known.0.insert(member.clone(), Size::Unknown);
                    }
                    return Size::Unknown;
                }
                self.axis(&name)
            }
            AxisExpr::Binary { op, left, right, .. } => {
                let (l, r) = (self.expr(left), self.expr(right));
                self.binary(expr, *op, (left, l), (right, r))
            }
        }
    }

    fn binary(&mut self, expr: &AxisExpr, op: Op, (left, l): (&AxisExpr, Size), (right, r): (&AxisExpr, Size)) -> Size {
        use Size::{Runtime, Static, Unknown};
        if matches!(op, Op::Div | Op::Floor | Op::Ceil) && r == Static(0) {
            self.errors.at(expr, format!("`{expr}` divides by zero"));
            return Unknown;
        }
        match (l, r) {
            (Static(a), Static(b)) => {
                let value = match op {
                    Op::Add => a.checked_add(b),
                    Op::Mul => a.checked_mul(b),
                    Op::Sub if a < b => {
                        self.errors.at(expr, format!("`{expr}` is negative: {a} - {b}"));
                        return Unknown;
                    }
                    Op::Sub => Some(a - b),
                    Op::Div if a % b != 0 => {
                        self.errors.at(
                            expr,
                            format!("`{expr}` leaves a remainder: {a} / {b}; choose sizes that divide, or use `floor({expr})` or `ceil({expr})`"),
                        );
                        return Unknown;
                    }
                    Op::Div | Op::Floor => Some(a / b),
                    Op::Ceil => Some(a.div_ceil(b)),
                };
                value.map_or_else(
                    || {
                        self.errors.at(expr, format!("`{expr}` does not fit in 64 bits: {a} and {b}"));
                        Unknown
                    },
                    Static,
                )
            }
            (Runtime, _) | (_, Runtime) if op == Op::Div => {
                let which = if l == Runtime { left } else { right };
                self.errors.at(
                    expr,
                    format!(
                        "`{expr}` must be exact, but the size of `{which}` is bound at run time; use `floor({expr})` or `ceil({expr})`, or declare the product the other way round: `{left} = {right} * ..`"
                    ),
                );
                Unknown
            }
            (Runtime, _) | (_, Runtime) => Runtime,
            _ => Unknown,
        }
    }
}
