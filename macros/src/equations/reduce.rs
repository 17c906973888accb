//! `reduce!(mean: x[b t d] => [b d])`: the axes that the result lacks are reduced.

use super::einsum::separated;
use super::pattern::{Atom, Equation, equation};
use super::rearrange::{Opened, close, open, permute};
use crate::errors::{Errors, hint};
use proc_macro2::{Ident, Literal, TokenStream, TokenTree};
use quote::{format_ident, quote};

const EXAMPLE: &str = "reduce!(mean: x[b t d] => [b d])";

/// A reduction: its name, the graph's name for it, the elements that it takes. It gives their base.
struct Kind {
    name: &'static str,
    kind: &'static str,
    takes: &'static str,
}

const KINDS: [Kind; 8] = [
    Kind { name: "sum", kind: "Sum", takes: "Float" },
    Kind { name: "mean", kind: "Mean", takes: "Float" },
    Kind { name: "max", kind: "Max", takes: "Float" },
    Kind { name: "min", kind: "Min", takes: "Float" },
    Kind { name: "var", kind: "Var", takes: "Float" },
    Kind { name: "logsumexp", kind: "LogSumExp", takes: "Float" },
    Kind { name: "any", kind: "Any", takes: "Truth" },
    Kind { name: "all", kind: "All", takes: "Truth" },
];

/// The expansion.
pub fn expand(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let (kind, rest) = kind(input, &mut errors);
    let parsed = rest.and_then(|rest| equation(rest, EXAMPLE, &mut errors));
    let expanded = parsed.map(|e| reduction(kind, &e, &mut errors));
    match expanded {
        Some(tokens) if errors.is_empty() => tokens,
        _ => super::failed(errors),
    }
}

/// Reads `mean :`.
fn kind(input: TokenStream, errors: &mut Errors) -> (Option<&'static Kind>, Option<TokenStream>) {
    let mut tokens = input.into_iter();
    let names: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
    let all = names.join(", ");
    let (first, second) = (tokens.next(), tokens.next());
    let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(colon))) = (&first, &second) else {
        let span = first.map_or_else(proc_macro2::Span::call_site, |t| t.span());
        errors.on(span, format!("expected a reduction and `:`, as in `{EXAMPLE}`; there are {all}"));
        return (None, None);
    };
    if colon.as_char() != ':' {
        errors.on(colon.span(), format!("expected `:` after the reduction, as in `{EXAMPLE}`"));
        return (None, None);
    }
    let kind = KINDS.iter().find(|k| *name == k.name);
    if kind.is_none() {
        let text = name.to_string();
        // What the operation is called elsewhere.
        let hint = match text.as_str() {
            "avg" | "average" => "; did you mean `mean`?".into(),
            "amax" => "; did you mean `max`?".into(),
            "amin" => "; did you mean `min`?".into(),
            "lse" => "; did you mean `logsumexp`?".into(),
            "variance" => "; did you mean `var`?".into(),
            other => hint(other, names),
        };
        errors.on(name.span(), format!("`{text}` is not a reduction: there are {all}{hint}"));
    }
    (kind, Some(tokens.collect()))
}

fn reduction(kind: Option<&Kind>, equation: &Equation, errors: &mut Errors) -> TokenStream {
    let [operand] = equation.operands.as_slice() else {
        errors.on(equation.output.span, "`reduce!` takes one tensor; several are joined with `einsum!`");
        return TokenStream::new();
    };
    let Opened { mut symbols, shape: in_shape, axes, proofs: split, reshapes: opens } = open(operand, true, errors);
    super::anonymous_output(&equation.output, errors);
    super::repeated(&equation.output, errors);
    for atom in equation.output.atoms().filter(|a| !a.is_one() && !matches!(a, Atom::Any(_))) {
        if symbols.find(atom).is_none_or(|n| !axes.contains(&n)) {
            errors.on(atom.span(), format!("{}; `reduce!` adds none", super::unknown(atom, &symbols)));
        }
    }
    let (out_shape, merge, closes) = close(&equation.output, &mut symbols);
    let order: Vec<usize> = equation.output.atoms().filter(|a| !a.is_one()).filter_map(|a| symbols.find(a)).collect();
    let removed: Vec<usize> = (0..axes.len()).filter(|i| !order.contains(&axes[*i])).collect();
    if removed.is_empty() && errors.is_empty() {
        errors.on(
            equation.output.span,
            "the result has every axis, so nothing is reduced; to change their order use `rearrange!`",
        );
    }
    let Some(kind) = kind else { return TokenStream::new() };
    let kept: Vec<usize> = axes.iter().copied().filter(|n| order.contains(n)).collect();
    let mut steps = TokenStream::new();
    if opens {
        let dims = super::dims(&symbols, &axes);
        steps.extend(quote!(let h = ::mobilis::__private::movement::reshape(h, #dims);));
    }
    let variant = Ident::new(kind.kind, proc_macro2::Span::call_site());
    let positions = removed.iter().map(|p| Literal::usize_unsuffixed(*p));
    steps.extend(quote!(let h = ::mobilis::__private::reduce::reduce(h, ::mobilis::__private::reduce::Kind::#variant, &[#(#positions),*]);));
    steps.extend(permute(&order.iter().map(|n| kept.iter().position(|k| k == n).unwrap_or(0)).collect::<Vec<_>>()));
    if closes {
        steps.extend(quote!(let h = ::mobilis::__private::movement::reshape(h, ::std::vec![#(<#out_shape as ::mobilis::__private::Axis>::dim()),*]);));
    }
    let value = &operand.value;
    let takes = format_ident!("{}", kind.takes);
    let gives = format_ident!("{}", if kind.takes == "Truth" { "Mask" } else { "Real" });
    let (params, arguments) = (separated(symbols.params()), separated(symbols.arguments()));
    quote! {{
        #[allow(non_camel_case_types, clippy::extra_unused_type_parameters)]
        #[inline]
        fn reduce<#params __E: ::mobilis::__private::#takes>(
            x: ::mobilis::__private::Tensor<(#(#in_shape,)*), __E>,
        ) -> ::mobilis::__private::Tensor<(#(#out_shape,)*), ::mobilis::__private::#gives> {
            #split
            #merge
            let h = x.raw();
            #steps
            ::mobilis::__private::Tensor::from_raw(h)
        }
        let result = reduce::<#arguments _>(#value);
        result
    }}
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
    fn positions() {
        let out = expand_text("mean: x[b t d] => [d b]");
        assert!(out.contains("reduce(h,reduce::Kind::Mean,&[1])") && out.contains("permute(h,&[1,0])"), "{out}");
        let out = expand_text("max: f(x)[b (t 2) c] => [b t c]");
        assert!(out.contains("Kind::Max,&[2])") && out.contains("reshape"), "{out}");
        let out = expand_text("any: m[b _] => [b]");
        assert!(out.contains("__E:Truth") && out.contains("&[1])"), "{out}");
        assert!(expand_text("sum: x[b t] => []").contains("->Tensor<(),"));
    }

    #[test]
    fn mistakes() {
        for (text, words) in [
            ("maen: x[b t] => [b]", "did you mean `mean`"),
            ("average: x[b t] => [b]", "did you mean `mean`"),
            ("x[b t] => [b]", "expected a reduction"),
            ("sum: x[b t] => [t b]", "nothing is reduced"),
            ("sum: x[b t] => [s]", "adds none"),
        ] {
            let out = expand(TokenStream::from_str(text).expect("tokens")).to_string();
            assert!(out.contains(words) && out.matches("compile_error").count() == 1, "{text}: {out}");
        }
    }
}
