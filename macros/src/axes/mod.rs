//! `axes!`: declaring dimensions as types.
//!
//! [`parse`] reads the declarations into [`ast`], [`evaluate`] computes every size that can be
//! known here and refuses what cannot hold, [`expand`] writes the types. Relations with axes
//! declared elsewhere become constant items, which `cargo check` evaluates. [`bundle`] writes
//! the traits of axes and their instances.

mod ast;
mod bundle;
mod evaluate;
mod expand;
mod parse;

use crate::errors::Errors;
use proc_macro2::TokenStream;

/// The expansion of `axes!`.
pub fn axes(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let items = parse::items(input, &mut errors);
    let sizes = evaluate::block(&items, &mut errors);
    let mut out = expand::items(&items, &sizes, &mut errors);
    out.extend(errors.into_tokens());
    out
}

/// The expansion of an instance whose trait was declared by another `axes!`: the trait's own
/// macro hands over its list of axes.
pub fn instance(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let mut out = TokenStream::new();
    if let Some((family, instance)) = errors.keep(bundle::handed_over(input)) {
        out.extend(bundle::instance(&family, &instance, &evaluate::Sizes::default(), &mut errors));
    }
    out.extend(errors.into_tokens());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn expand(text: &str) -> String {
        axes(TokenStream::from_str(text).expect("tokens")).to_string()
    }

    /// The messages of the `compile_error!`s in an expansion.
    fn mistakes(text: &str) -> Vec<String> {
        let expanded = expand(text);
        expanded
            .split("compile_error ! {")
            .skip(1)
            .map(|s| s.split('}').next().unwrap_or("").trim().replace("\\\"", "\""))
            .collect()
    }

    #[test]
    fn forms_expand() {
        let out = expand("/// Rows.\n pub Batch; pub Hidden = 128; pub Ffn = 4 * Hidden;");
        syn::parse_str::<syn::File>(&out).expect("items");
        assert!(out.contains("pub struct Batch"));
        assert!(!out.contains("compile_error"));
        let out = expand("pub trait T { A, /// doc\n B = 2 * A } pub struct S: T { A = 3 } pub struct R: T;");
        syn::parse_str::<syn::File>(&out).expect("items");
        assert!(!out.contains("compile_error"), "{out}");
    }

    #[test]
    fn each_mistake_is_reported_once_and_every_name_is_still_declared() {
        let cases = [
            ("H = 130; N = 4; D = H / N;", "leaves a remainder"),
            ("T; U = T / 2;", "run time"),
            ("A = 3; A = 4;", "declared twice"),
            ("A = B + 1; B = A;", "in terms of itself"),
            ("A = A;", "in terms of itself"),
            ("A = 0;", "size 0"),
            ("A = 3 - 3;", "size 0"),
            ("A = 3 - 4;", "negative"),
            ("A = 4 / 0;", "by zero"),
            ("A = 18446744073709551615 * 2;", "64 bits"),
            ("batch;", "CamelCase"),
            ("A = _;", "cannot be inferred"),
            ("pub A = ;", "expected"),
            ("pub A = 3 pub B = 4;", "or `;` after `A`"),
            ("trait T { A, A }", "declared twice"),
            ("trait T { A } struct S: T { }", "leaves out `A`"),
            ("trait T { Hidden } struct S: T { Hiden = 3, Hidden = 4 }", "did you mean `Hidden`"),
            ("trait T { A = B / 2, B } struct S: T;", "declare the product instead"),
            ("trait T { A = 2 * Outside }", "own axes"),
        ];
        for (text, words) in cases {
            let found = mistakes(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(words), "{text}: {found:?}");
        }
        let out = expand("A = 3 - 4; B = 2 * A;");
        assert!(out.contains("struct A") && out.contains("struct B"));
        assert_eq!(mistakes("A = 0; B = 2 - 3; c;").len(), 3);
    }
}
