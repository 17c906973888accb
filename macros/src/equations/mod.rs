//! `einsum!`, `rearrange!`, `reduce!`: tensor algebra by axis names.
//!
//! Each expands to a local generic function and one call of it. The function's signature is the
//! equation: a variable is a type parameter, used wherever the user used it, so a wrong axis is
//! a plain type error at the operand. Inside, the untyped builders get positions.
//!
//! [`pattern`] reads the equations; each macro's file validates and expands.

pub mod einsum;
pub mod pattern;
pub mod rearrange;
pub mod reduce;

use crate::errors::{Errors, hint};
use pattern::{Atom, Pattern, Symbols};
use proc_macro2::TokenStream;
use quote::quote;

/// Notes axes that stand twice in the result.
fn repeated(output: &Pattern, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for atom in output.atoms().filter(|a| !matches!(a, Atom::Any(_)) && !a.is_one()) {
        if seen.contains(&atom.text()) {
            errors.on(atom.span(), format!("`{}` stands twice in the result", atom.text()));
        }
        seen.push(atom.text());
    }
}

/// Notes `_` in the result.
fn anonymous_output(output: &Pattern, errors: &mut Errors) {
    for atom in output.atoms().filter(|a| matches!(a, Atom::Any(_))) {
        errors.on(atom.span(), "`_` stands for an axis that is summed away; an axis of the result needs a name");
    }
}

/// The words for an axis of the result that no operand has.
fn unknown(atom: &Atom, symbols: &Symbols) -> String {
    let text = atom.text();
    format!("`{text}` is not an axis of the operands{}", hint(&text, symbols.names()))
}

/// The dimensions of the axes with these numbers, as an expression inside the local function.
fn dims(symbols: &Symbols, numbers: &[usize]) -> TokenStream {
    let types = numbers.iter().map(|n| symbols.ty(*n));
    quote!(::std::vec![#(<#types as ::mobilis::__private::Axis>::dim()),*])
}

/// The compile errors, followed by a value of any type, so that only they are reported.
fn failed(errors: Errors) -> TokenStream {
    let errors = errors.into_tokens();
    quote!({ #errors ::core::unreachable!() })
}
