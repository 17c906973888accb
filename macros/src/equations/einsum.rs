//! `einsum!(q[b t h d] * k[b s h d] => [b h t s])`.

use super::pattern::{Equation, Place, Symbols, equation};
use crate::errors::Errors;
use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};

const EXAMPLE: &str = "einsum!(a[b i] * w[o i] => [b o])";

/// The expansion.
pub fn expand(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = equation(input, EXAMPLE, &mut errors);
    let expanded = parsed.map(|e| {
        validate(&e, &mut errors);
        contraction(&e, &mut errors)
    });
    match expanded {
        Some(tokens) if errors.is_empty() => tokens,
        _ => super::failed(errors),
    }
}

fn validate(equation: &Equation, errors: &mut Errors) {
    let patterns = equation.operands.iter().map(|o| &o.pattern).chain([&equation.output]);
    for place in patterns.flat_map(|p| &p.places) {
        if let Place::Product { span, .. } = place {
            errors.on(
                *span,
                "`einsum!` takes no products: split the operand before, or merge the result after, with `rearrange!`",
            );
        }
    }
    super::anonymous_output(&equation.output, errors);
    super::repeated(&equation.output, errors);
}

fn contraction(equation: &Equation, errors: &mut Errors) -> TokenStream {
    let mut symbols = Symbols::default();
    let labels: Vec<Vec<usize>> =
        equation.operands.iter().map(|o| o.pattern.atoms().map(|a| symbols.intern(a)).collect()).collect();
    let mut output = Vec::new();
    for atom in equation.output.atoms() {
        match symbols.find(atom) {
            Some(n) => output.push(n),
            None if atom.text() == "_" => {}
            None => errors.on(atom.span(), super::unknown(atom, &symbols)),
        }
    }
    if symbols.names().count() > usize::from(u8::MAX) {
        errors.on(equation.output.span, "an equation has at most 255 axes");
    }
    let values = equation.operands.iter().map(|o| &o.value);
    let names: Vec<_> = (0..labels.len()).map(|i| format_ident!("x{i}")).collect();
    let elements: Vec<_> = (0..labels.len()).map(|i| format_ident!("__E{i}")).collect();
    let shape = |numbers: &[usize]| {
        let types = numbers.iter().map(|n| symbols.ty(*n));
        quote!((#(#types,)*))
    };
    let list = |numbers: &[usize]| {
        let numbers = numbers.iter().map(|n| Literal::u8_suffixed(*n as u8));
        quote!(&[#(#numbers),*])
    };
    let shapes = labels.iter().map(|l| shape(l));
    let lists = labels.iter().map(|l| list(l));
    let (out_shape, out_list) = (shape(&output), list(&output));
    let (params, arguments) = (separated(symbols.params()), separated(symbols.arguments()));
    let unknown = elements.iter().map(|_| quote!(_));
    quote! {{
        #[allow(non_camel_case_types, clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
        #[inline]
        fn einsum<#params #(#elements: ::mobilis::__private::Float),*>(
            #(#names: ::mobilis::__private::Tensor<#shapes, #elements>),*
        ) -> ::mobilis::__private::Tensor<#out_shape> {
            ::mobilis::__private::Tensor::from_raw(::mobilis::__private::contraction::einsum(
                &[#(#names.raw()),*],
                &[#(#lists),*],
                #out_list,
            ))
        }
        // Bound first, so that a wrong result is reported at the result, not at the operands.
        let result = einsum::<#arguments #(#unknown),*>(#(#values),*);
        result
    }}
}

/// A list with a comma after it, unless it is empty.
pub fn separated(list: TokenStream) -> TokenStream {
    if list.is_empty() { list } else { quote!(#list,) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::compact;
    use std::str::FromStr;

    fn expand_text(text: &str) -> String {
        compact(expand(TokenStream::from_str(text).expect("tokens"))).replace("::mobilis::__private::", "")
    }

    #[test]
    fn positions_and_types() {
        let out = expand_text("q[b t Heads d] * k[b s Heads d] => [b Heads t s]");
        assert!(out.contains("&[&[0u8,1u8,2u8,3u8],&[0u8,4u8,2u8,3u8]],&[0u8,2u8,1u8,4u8]"), "{out}");
        assert!(out.contains("einsum::<_,_,Heads,_,_,_,_>(q,k)"), "{out}");
        assert!(out.contains("x0:Tensor<(b,t,Heads,d,),__E0>"), "{out}");
        let out = expand_text("x[b i i _ 3] => [b i]");
        assert!(out.contains("&[&[0u8,1u8,1u8,2u8,3u8]],&[0u8,1u8]"), "{out}");
        assert!(out.contains("Const<3>"), "{out}");
    }

    #[test]
    fn mistakes() {
        for (text, words) in [
            ("x[b t] => [b s]", "not an axis of the operands"),
            ("x[batch time] => [batch tim]", "did you mean `time`"),
            ("x[b t] => [b b]", "stands twice"),
            ("x[b _] => [b _]", "needs a name"),
            ("x[b (h d)] => [b h]", "takes no products"),
        ] {
            let out = expand(TokenStream::from_str(text).expect("tokens")).to_string();
            assert!(out.contains(words) && out.matches("compile_error").count() == 1, "{text}: {out}");
        }
    }
}
