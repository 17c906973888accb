//! `#[neural_module]`: structs that are modules, and the methods that trace them.
//!
//! On a struct, [`fields`] reads what each field is, [`structure`] writes `Module` and
//! `Default`. On an `impl`, [`methods`] finds the entry points and wraps them, [`signature`]
//! writes the typed port signature of `forward`.

mod fields;
mod methods;
mod signature;
mod structure;

use crate::errors::Errors;
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::Item;

/// The arguments of the attribute itself.
#[derive(Default)]
pub struct Options {
    /// `no_default`: the module is made by its own constructor.
    pub no_default: bool,
}

/// The expansion of `#[neural_module]`.
pub fn neural_module(arguments: TokenStream, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = options(arguments, &mut errors);
    let mut out = match syn::parse2::<Item>(input.clone()) {
        Ok(Item::Struct(s)) => structure::expand(s, &options, &mut errors),
        Ok(Item::Impl(i)) => methods::expand(i, &mut errors),
        Ok(other) => {
            refuse(&other, &mut errors);
            other.into_token_stream()
        }
        Err(e) => {
            errors.push(e);
            input
        }
    };
    out.extend(errors.into_tokens());
    out
}

fn options(arguments: TokenStream, errors: &mut Errors) -> Options {
    let mut options = Options::default();
    for token in arguments {
        match &token {
            TokenTree::Ident(i) if i == "no_default" => options.no_default = true,
            TokenTree::Punct(p) if p.as_char() == ',' => {}
            other => {
                let text = other.to_string();
                errors.at(
                    other,
                    format!("`{text}` is not an option of `#[neural_module]`; the only one is `no_default`"),
                );
            }
        }
    }
    options
}

fn refuse(item: &Item, errors: &mut Errors) {
    const WHERE: &str = "`#[neural_module]` stands on a struct or on its `impl`";
    match item {
        Item::Enum(e) => errors.at(
            quote!(#e).into_iter().find(|t| t.to_string() == "enum"),
            format!("a module is a struct: its parameters must have fixed names. Put the alternatives of `{}` into fields of type `Option<..>`", e.ident),
        ),
        Item::Union(u) => errors.at(u.union_token, format!("a module is a struct, and `{}` is a union", u.ident)),
        Item::Fn(f) => errors.at(f.sig.fn_token, format!("{WHERE}; a function of tensors needs no attribute")),
        Item::Trait(t) => errors.at(t.trait_token, format!("{WHERE}; `{}` is a trait", t.ident)),
        other => errors.at(other.to_token_stream().into_iter().next(), WHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::compact;
    use std::str::FromStr;

    fn expand(text: &str) -> String {
        let tokens = |s| TokenStream::from_str(s).expect("tokens");
        compact(neural_module(tokens(""), tokens(text))).replace("::mobilis::__private::", "")
    }

    fn mistakes(text: &str) -> Vec<String> {
        let tokens = |s| TokenStream::from_str(s).expect("tokens");
        let out = neural_module(tokens(""), tokens(text)).to_string();
        out.split("compile_error ! {")
            .skip(1)
            .map(|s| s.split(" }").next().unwrap_or("").trim().replace("\\\"", "\""))
            .collect()
    }

    #[test]
    fn a_struct_is_visited_in_order_and_has_a_default() {
        let out = expand(
            "pub struct Block<A: Axes> { #[name(\"self_attn\")] attn: Attn<A>, blocks: [Mlp; 4], #[hyper] rate: Rate, #[skip] x: X, #[init(normal(0.02))] w: Param }",
        );
        assert!(out.contains("impl<A:Axes>ModuleforBlock<A>"), "module: {out}");
        assert!(out.contains("impl<A:Axes>::core::default::DefaultforBlock<A>"), "{out}");
        let attn = out.find("member(&self.attn,\"self_attn\"").expect("attn");
        let blocks = out.find("member(&self.blocks,\"blocks\"").expect("blocks");
        assert!(attn < blocks);
        assert!(out.contains("hyper(__visitor,\"rate\""), "{out}");
        assert!(!out.contains("self.x"), "{out}");
        assert!(out.contains("from_fn"), "{out}");
        assert!(out.contains("with_init("), "{out}");
        assert!(!out.contains("#[name"), "{out}");
    }

    #[test]
    fn mistakes_on_structs() {
        for (text, words) in [
            ("struct S { a: P, #[name(\"a\")] b: P }", "named twice"),
            ("struct S { #[hyperr] a: P }", "did you mean `hyper`"),
            ("struct S { #[rename(\"x\")] a: P }", "did you mean `name`"),
            ("struct S { #[name(x)] a: P }", "in quotes"),
            ("struct S { #[name(\"a b\")] a: P }", "parts between dots"),
            ("struct S { #[hyper] #[skip] a: P }", "both"),
            ("struct S { #[default()] a: P }", "expression"),
            ("struct S { a: P, #[tie(weight = b.weight)] c: P }", "no field `b`"),
            ("enum E { A }", "a module is a struct"),
            ("fn f() {}", "stands on a struct"),
        ] {
            let found = mistakes(text);
            assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
        }
        assert_eq!(mistakes("struct S { #[hypr] a: P, #[skp] b: P }").len(), 2);
    }

    #[test]
    fn entry_points_are_wrapped_and_forward_has_a_port_signature() {
        let out = expand(
            "impl<A: Axes> Net<A> { pub fn forward(&self, ids: Tensor![Batch, Time; TokenId], mask: Tensor![Time]) -> Tensor![Batch] { body } }",
        );
        assert!(out.contains("scope(self)"), "{out}");
        assert!(out.contains("ids:Tensor<(Batch,Time,),implIs<TokenId>>"), "{out}");
        assert!(out.contains("name_argument(\"ids\""), "{out}");
        assert!(out.contains("NeuralModule<(Tensor<(Batch,Time,),__E0>,Tensor![Time],)>forNet<A>"), "{out}");
    }

    #[test]
    fn what_is_no_entry_point_is_left_alone() {
        for method in [
            "pub fn width(&self) -> usize { 1 }",
            "fn helper(&self, x: Tensor![A]) {}",
            "pub fn make(x: Tensor![A]) {}",
            "pub fn set(&mut self, x: Tensor![A]) {}",
        ] {
            let out = expand(&format!("impl Net {{ {method} }}"));
            assert!(!out.contains("scope"), "{out}");
        }
    }

    #[test]
    fn mistakes_on_impls() {
        for (text, words) in [
            ("impl T for N { fn f(&self) {} }", "implements a trait"),
            ("impl N { pub fn forward(x: Tensor![A]) -> Tensor![A] { x } }", "takes `&self`"),
            ("impl N { pub fn forward(&mut self, x: Tensor![A]) -> Tensor![A] { x } }", "takes `&self`"),
            ("impl N { pub fn forward(&self, x: Tensor![A]) { } }", "returns"),
            ("impl N { pub fn forward<B: Axis>(&self, x: Tensor![A]) -> Tensor![B] { x } }", "`B`"),
            ("impl N { pub fn forward(&self, x: Tensor![A]) -> impl X { x } }", "name the type"),
            ("impl N { pub fn forward(&self, (x, y): (Tensor![A], Tensor![B])) -> Tensor![A] { x } }", ""),
        ] {
            let found = mistakes(text);
            if words.is_empty() {
                assert!(found.is_empty(), "{text}: {found:?}");
            } else {
                assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
            }
        }
    }
}
