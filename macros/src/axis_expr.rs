//! Axis expressions: `2 * Hidden`, `floor(Samples / 160) + 1`, `A::Hidden`, `3`.
//!
//! `axes!`, `elements!` and `Tensor!` share this grammar:
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = atom (("*" | "/") atom)*
//! atom    = integer | "(" sum ")" | "floor" "(" sum "/" atom ")" | "ceil" "(" .. ")" | path | "_"
//! ```

use crate::errors::drain;
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use std::fmt;
use syn::parse::{Parse, ParseStream};
use syn::{LitInt, Token, parenthesized};

/// How two axes are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Add,
    Sub,
    Mul,
    /// Exact division.
    Div,
    Floor,
    Ceil,
}

/// An axis, or arithmetic on axes.
#[derive(Clone)]
pub enum AxisExpr {
    /// A literal size.
    Int { value: u64, span: Span },
    /// A type: `Hidden`, `A::Hidden`, `Conv<Frames, 3>`.
    Path(AxisPath),
    /// `_`: an axis that the compiler infers.
    Infer(Token![_]),
    /// Two axes joined. `tokens` are the user's, for the places of errors.
    Binary { op: Op, left: Box<AxisExpr>, right: Box<AxisExpr>, tokens: TokenStream },
}

/// The path of an axis, with what is needed to look it up.
#[derive(Clone)]
pub struct AxisPath {
    /// `Hidden`, `A::Hidden`, `<M as LlamaAxes>::Hidden`, `Conv<Frames, 3>`.
    pub path: syn::TypePath,
}

impl AxisPath {
    /// The name, where the path is one plain name.
    pub fn simple(&self) -> Option<&Ident> {
        match self.path.qself {
            Some(_) => None,
            None => self.path.path.get_ident(),
        }
    }

    /// The last name of the path.
    pub fn last(&self) -> &Ident {
        &self.path.path.segments.last().expect("a path has at least one segment").ident
    }
}

impl Parse for AxisPath {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        // Not `TypePath::parse`: it would read `Heads (h d)` as a function type.
        let (qself, mut path) = if input.peek(Token![<]) {
            let ty: syn::TypePath = input.parse()?;
            (ty.qself, ty.path)
        } else {
            (None, syn::Path::parse_mod_style(input)?)
        };
        if input.peek(Token![<]) {
            let arguments = input.parse()?;
            if let Some(last) = path.segments.last_mut() {
                last.arguments = syn::PathArguments::AngleBracketed(arguments);
            }
        }
        Ok(AxisPath { path: syn::TypePath { attrs: Vec::new(), qself, path } })
    }
}

impl ToTokens for AxisPath {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.path.to_tokens(tokens);
    }
}

impl fmt::Display for AxisPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.path.to_token_stream().to_string();
        f.write_str(
            &text.replace(" :: ", "::").replace("< ", "<").replace(" <", "<").replace(" >", ">").replace(" ,", ","),
        )
    }
}

/// Whether a name reads as a type: it starts with a capital.
pub fn is_camel(name: &Ident) -> bool {
    name.to_string().trim_start_matches('_').starts_with(|c: char| c.is_uppercase())
}

/// `batch_size` as `BatchSize`.
pub fn to_camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split('_').filter(|w| !w.is_empty()) {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

/// A literal size with the words for what else a literal may hold.
pub fn parse_size(input: ParseStream) -> syn::Result<(u64, Span)> {
    let lit: LitInt = input.parse()?;
    if !lit.suffix().is_empty() {
        return Err(syn::Error::new(lit.span(), format!("a size takes no suffix: write `{}`", lit.base10_digits())));
    }
    match lit.base10_parse() {
        Ok(value) => Ok((value, lit.span())),
        Err(_) => Err(syn::Error::new(lit.span(), "this size does not fit in 64 bits")),
    }
}

impl Parse for AxisExpr {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut left = product(input)?;
        loop {
            let (op, sign) = if input.peek(Token![+]) {
                (Op::Add, input.parse::<Token![+]>()?.into_token_stream())
            } else if input.peek(Token![-]) {
                (Op::Sub, input.parse::<Token![-]>()?.into_token_stream())
            } else {
                return Ok(left);
            };
            left = binary(op, left, sign, product(input)?);
        }
    }
}

fn binary(op: Op, left: AxisExpr, sign: TokenStream, right: AxisExpr) -> AxisExpr {
    let mut tokens = left.to_token_stream();
    tokens.extend(sign);
    right.to_tokens(&mut tokens);
    AxisExpr::Binary { op, left: Box::new(left), right: Box::new(right), tokens }
}

fn product(input: ParseStream) -> syn::Result<AxisExpr> {
    let mut left = atom(input)?;
    loop {
        let (op, sign) = if input.peek(Token![*]) {
            (Op::Mul, input.parse::<Token![*]>()?.into_token_stream())
        } else if input.peek(Token![/]) {
            (Op::Div, input.parse::<Token![/]>()?.into_token_stream())
        } else if input.peek(Token![%]) {
            return Err(input.error(
                "axes have no remainder `%`; they have `+`, `-`, `*`, exact `/`, `floor(a / n)` and `ceil(a / n)`",
            ));
        } else {
            return Ok(left);
        };
        left = binary(op, left, sign, atom(input)?);
    }
}

fn atom(input: ParseStream) -> syn::Result<AxisExpr> {
    // Before literals: `-1` would pass for one.
    if input.peek(Token![-]) {
        return Err(input.error("a size is not negative"));
    }
    if input.peek(syn::LitFloat) {
        return Err(input.error("a size is a whole number; round with `floor(a / n)` or `ceil(a / n)`"));
    }
    if input.peek(syn::Lit) {
        let (value, span) = parse_size(input)?;
        return Ok(AxisExpr::Int { value, span });
    }
    if input.peek(Token![_]) {
        return Ok(AxisExpr::Infer(input.parse()?));
    }
    if input.peek(syn::token::Paren) {
        let content;
        parenthesized!(content in input);
        return whole(&content);
    }
    if input.peek(syn::Ident) && input.peek2(syn::token::Paren) {
        return call(input);
    }
    if input.peek(syn::Ident)
        || input.peek(Token![::])
        || input.peek(Token![<])
        || input.peek(Token![crate])
        || input.peek(Token![self])
        || input.peek(Token![super])
        || input.peek(Token![Self])
    {
        return Ok(AxisExpr::Path(input.parse()?));
    }
    Err(input.error("expected an axis, a size, `floor(a / n)` or `ceil(a / n)`"))
}

fn whole(content: ParseStream) -> syn::Result<AxisExpr> {
    let result = content.parse::<AxisExpr>().and_then(|e| {
        if content.is_empty() { Ok(e) } else { Err(content.error("expected `+`, `-`, `*`, `/` or `)`")) }
    });
    drain(content);
    result
}

fn call(input: ParseStream) -> syn::Result<AxisExpr> {
    let name: Ident = input.parse()?;
    let op = match name.to_string().as_str() {
        "floor" => Op::Floor,
        "ceil" => Op::Ceil,
        other => {
            let hint = crate::errors::hint(other, ["floor", "ceil"]);
            let _ = input.parse::<proc_macro2::TokenTree>();
            return Err(syn::Error::new(
                name.span(),
                format!("`{other}(..)` is not known here: there are `floor(a / n)` and `ceil(a / n)`{hint}"),
            ));
        }
    };
    let content;
    let paren = parenthesized!(content in input);
    match whole(&content)? {
        AxisExpr::Binary { op: Op::Div, left, right, tokens: inner } => {
            let mut tokens = name.to_token_stream();
            let mut group = proc_macro2::Group::new(proc_macro2::Delimiter::Parenthesis, inner);
            group.set_span(paren.span.join());
            group.to_tokens(&mut tokens);
            Ok(AxisExpr::Binary { op, left, right, tokens })
        }
        _ => Err(syn::Error::new(name.span(), format!("`{name}` rounds a division: `{name}(Samples / 160)`"))),
    }
}

impl ToTokens for AxisExpr {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            AxisExpr::Int { value, span } => {
                let mut lit = Literal::u64_unsuffixed(*value);
                lit.set_span(*span);
                lit.to_tokens(tokens);
            }
            AxisExpr::Path(p) => p.to_tokens(tokens),
            AxisExpr::Infer(u) => u.to_tokens(tokens),
            AxisExpr::Binary { tokens: own, .. } => own.to_tokens(tokens),
        }
    }
}

impl AxisExpr {
    /// The axis as a Rust type.
    pub fn to_type(&self) -> TokenStream {
        self.as_type(false)
    }

    /// The axis as a Rust type whose exact divisions and differences are checked elsewhere, so
    /// that computing it does not report them a second time.
    pub fn to_checked_type(&self) -> TokenStream {
        self.as_type(true)
    }

    fn as_type(&self, checked: bool) -> TokenStream {
        match self {
            AxisExpr::Int { value, span } => const_axis(*value, *span),
            AxisExpr::Path(p) => p.to_token_stream(),
            AxisExpr::Infer(u) => u.to_token_stream(),
            AxisExpr::Binary { op, left, right, .. } => {
                let (l, r) = (left.as_type(checked), right.as_type(checked));
                let name = match op {
                    Op::Add => "Sum",
                    Op::Sub if checked => "Rest",
                    Op::Sub => "Diff",
                    Op::Mul => "Prod",
                    Op::Div if checked => "Floor",
                    Op::Div => "Quot",
                    Op::Floor => "Floor",
                    Op::Ceil => "Ceil",
                };
                let name = Ident::new(name, self.span());
                quote_spanned!(self.span()=> ::mobilis::__private::#name<#l, #r>)
            }
        }
    }

    /// Where the expression starts.
    pub fn span(&self) -> Span {
        self.to_token_stream().into_iter().next().map_or_else(Span::call_site, |t| t.span())
    }

    /// Every path in the expression, from left to right.
    pub fn paths<'a>(&'a self, out: &mut Vec<&'a AxisPath>) {
        match self {
            AxisExpr::Path(p) => out.push(p),
            AxisExpr::Binary { left, right, .. } => {
                left.paths(out);
                right.paths(out);
            }
            AxisExpr::Int { .. } | AxisExpr::Infer(_) => {}
        }
    }

    /// Notes names that are no types and primitives that are no axes.
    pub fn check_names(&self, errors: &mut crate::errors::Errors) {
        let mut paths = Vec::new();
        self.paths(&mut paths);
        for path in paths {
            let last = path.last();
            let name = last.to_string();
            const PRIMITIVES: [&str; 12] =
                ["usize", "u64", "u32", "u16", "u8", "isize", "i64", "i32", "i16", "f32", "f64", "bool"];
            if path.simple().is_some() && PRIMITIVES.contains(&name.as_str()) {
                errors.at(path, format!("`{name}` is a number type, not an axis; a size bound at run time is an axis with a name: `axes! {{ pub Length; }}`"));
            } else if path.path.qself.is_none() && !is_camel(last) {
                errors.at(path, format!("axes are types, written in CamelCase: `{}`", to_camel(&name)));
            }
        }
    }
}

/// The anonymous static axis of a literal.
pub fn const_axis(value: u64, span: Span) -> TokenStream {
    let mut lit = Literal::u64_unsuffixed(value);
    lit.set_span(span);
    quote_spanned!(span=> ::mobilis::__private::Const<#lit>)
}

impl fmt::Display for AxisExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn rank(e: &AxisExpr) -> u8 {
            match e {
                AxisExpr::Binary { op: Op::Add | Op::Sub, .. } => 1,
                AxisExpr::Binary { op: Op::Mul | Op::Div, .. } => 2,
                _ => 3,
            }
        }
        let side = |e: &AxisExpr, least: u8| if rank(e) < least { format!("({e})") } else { e.to_string() };
        match self {
            AxisExpr::Int { value, .. } => write!(f, "{value}"),
            AxisExpr::Path(p) => write!(f, "{p}"),
            AxisExpr::Infer(_) => f.write_str("_"),
            AxisExpr::Binary { op, left, right, .. } => match op {
                Op::Add => write!(f, "{} + {}", side(left, 1), side(right, 2)),
                Op::Sub => write!(f, "{} - {}", side(left, 1), side(right, 2)),
                Op::Mul => write!(f, "{} * {}", side(left, 2), side(right, 3)),
                Op::Div => write!(f, "{} / {}", side(left, 2), side(right, 3)),
                Op::Floor => write!(f, "floor({} / {})", side(left, 2), side(right, 3)),
                Op::Ceil => write!(f, "ceil({} / {})", side(left, 2), side(right, 3)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> syn::Result<AxisExpr> {
        syn::parse_str(text)
    }

    #[test]
    fn precedence_and_text() {
        for text in [
            "4 * Hidden",
            "floor(Samples / 160) + 1",
            "A - (B - C)",
            "(A + B) * 2",
            "ceil((A + 1) / (B * 2))",
            "A::Hidden / 2",
            "Conv<Frames, 3>",
            "<M as T>::X * 2",
        ] {
            let e = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(e.to_string(), text);
        }
        assert_eq!(parse("(A * B) * C").map(|e| e.to_string()).ok(), Some("A * B * C".into()));
    }

    #[test]
    fn types() {
        let t = parse("2 * Hidden").expect("parses").to_type().to_string().replace(' ', "");
        assert_eq!(t, "::mobilis::__private::Prod<::mobilis::__private::Const<2>,Hidden>");
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| parse(text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message("round(A / 2)").contains("floor"));
        assert!(message("floor(A)").contains("rounds a division"));
        assert!(message("1.5").contains("whole number"));
        assert!(message("A % 2").contains("no remainder"));
        assert!(message("99999999999999999999").contains("64 bits"));
        assert!(message("3usize").contains("no suffix"));
        assert!(message("-1").contains("not negative"));
    }

    #[test]
    fn camel_case() {
        assert_eq!(to_camel("head_dim"), "HeadDim");
        assert_eq!(to_camel("batch"), "Batch");
    }
}
