//! `Tensor!`, `Array!`, `Param!`, `Buffer!`: types by their axes.
//!
//! `Tensor![Batch, Time, 2 * Hidden; TokenId]` is
//! `Tensor<(Batch, Time, Prod<Const<2>, Hidden>), TokenId>`. All four share one grammar, which
//! `#[neural_module]` reads too, to know the ports of a module.

use crate::axis_expr::AxisExpr;
use crate::errors::Errors;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::{Token, Type};

/// What stands between the brackets.
pub struct TensorType {
    pub axes: Vec<AxisExpr>,
    pub element: Option<Type>,
}

/// The most axes a shape has.
pub const MAX_RANK: usize = 8;

impl TensorType {
    /// Reads `axes ; element`, noting every mistake.
    pub fn parse(input: TokenStream, errors: &mut Errors) -> TensorType {
        let parser = |input: ParseStream| {
            let mut parsed = TensorType { axes: Vec::new(), element: None };
            while !input.is_empty() && !input.peek(Token![;]) {
                match input.parse() {
                    Ok(axis) => parsed.axes.push(axis),
                    Err(e) => {
                        errors.push(e);
                        skip_to_separator(input);
                    }
                }
                if input.is_empty() || input.peek(Token![;]) {
                    break;
                }
                if !input.peek(Token![,]) {
                    errors.push(input.error("expected `,` between axes, or `;` before the element"));
                    skip_to_separator(input);
                }
                let _ = input.parse::<Token![,]>();
            }
            if input.peek(Token![;]) {
                let semicolon: Token![;] = input.parse()?;
                if input.is_empty() {
                    return Err(syn::Error::new(semicolon.span, "expected an element after `;`, such as `TokenId`"));
                }
                parsed.element = Some(input.parse()?);
            }
            if input.is_empty() { Ok(parsed) } else { Err(input.error("nothing follows the element")) }
        };
        let parsed = parser.parse2(input);
        let parsed = errors.keep(parsed).unwrap_or(TensorType { axes: Vec::new(), element: None });
        parsed.validate(errors);
        parsed
    }

    fn validate(&self, errors: &mut Errors) {
        for axis in &self.axes {
            axis.check_names(errors);
        }
        if let Some(extra) = self.axes.get(MAX_RANK) {
            errors.at(extra, format!("a shape has at most {MAX_RANK} axes; this one has {}", self.axes.len()));
        }
        if let Some(Type::Path(p)) = &self.element
            && let Some(name) = p.path.get_ident()
        {
            let base = match name.to_string().as_str() {
                "f32" | "f64" => "Real",
                "i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize" => "Index",
                "bool" => "Mask",
                _ => return,
            };
            errors.at(name, format!("an element says what the numbers mean, not how they are stored: for `{name}` write `{base}` or one of its refinements"));
        }
    }

    /// The tuple of axes.
    pub fn shape(&self) -> TokenStream {
        let axes = self.axes.iter().map(AxisExpr::to_type);
        quote!((#(#axes,)*))
    }
}

fn skip_to_separator(input: ParseStream) {
    while !input.is_empty() && !input.peek(Token![,]) && !input.peek(Token![;]) {
        let _ = input.parse::<TokenTree>();
    }
}

/// The expansion: `name` is `Tensor`, `Array`, `Param` or `Buffer`.
pub fn expand(name: &str, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = TensorType::parse(input, &mut errors);
    if let Err(e) = errors.finish() {
        // One type, however many mistakes.
        let errors = e.into_iter().map(syn::Error::into_compile_error);
        return quote!((#(#errors,)*));
    }
    let name = Ident::new(name, Span::call_site());
    let shape = parsed.shape();
    match &parsed.element {
        Some(e) => quote_spanned!(Span::call_site()=> ::mobilis::__private::#name<#shape, #e>),
        None => quote_spanned!(Span::call_site()=> ::mobilis::__private::#name<#shape>),
    }
}

/// The brackets of a type written with `Tensor![..]`.
pub fn as_tensor_macro(ty: &Type) -> Option<&TokenStream> {
    match ty {
        Type::Macro(m) if m.mac.path.segments.last().is_some_and(|s| s.ident == "Tensor") => Some(&m.mac.tokens),
        Type::Paren(p) => as_tensor_macro(&p.elem),
        Type::Group(g) => as_tensor_macro(&g.elem),
        _ => None,
    }
}

/// Whether a type is a tensor, going by its spelling.
pub fn is_tensor(ty: &Type) -> bool {
    match ty {
        Type::Path(p) => p.path.segments.last().is_some_and(|s| s.ident == "Tensor"),
        Type::Paren(p) => is_tensor(&p.elem),
        Type::Group(g) => is_tensor(&g.elem),
        other => as_tensor_macro(other).is_some(),
    }
}

/// Tokens as text without the spaces of the token printer.
#[cfg(test)]
pub fn compact(tokens: impl quote::ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn tensor(text: &str) -> String {
        compact(expand("Tensor", TokenStream::from_str(text).expect("tokens"))).replace("::mobilis::__private::", "")
    }

    #[test]
    fn forms() {
        assert_eq!(tensor(""), "Tensor<()>");
        assert_eq!(tensor("Batch"), "Tensor<(Batch,)>");
        assert_eq!(
            tensor("Batch, 3, 2 * Hidden, A::Hidden"),
            "Tensor<(Batch,Const<3>,Prod<Const<2>,Hidden>,A::Hidden,)>"
        );
        assert_eq!(tensor("Batch, Time,; TokenId"), "Tensor<(Batch,Time,),TokenId>");
        assert_eq!(tensor("; Lengths<Frames>"), "Tensor<(),Lengths<Frames>>");
        assert_eq!(tensor("Batch, _"), "Tensor<(Batch,_,)>");
        assert_eq!(tensor("Conv<Frames, 3, 2>"), "Tensor<(Conv<Frames,3,2>,)>");
    }

    #[test]
    fn mistakes() {
        let found = |text: &str| tensor(text).matches("compile_error!").count();
        assert_eq!(found("batch, head_dim"), 2);
        assert_eq!(found("usize; f32"), 2);
        assert_eq!(found("A Time"), 1);
        assert_eq!(found("A, B;"), 1);
        assert_eq!(found("A; B, C"), 1);
        assert_eq!(found("A, B, C, D, E, F, G, H, I"), 1);
        assert_eq!(found("round(A / 2), B"), 1);
    }
}
