//! `rearrange!(x[b t (h d)] => [b h t d])`: split, permute, repeat, merge.
//!
//! The steps, each left out where it changes nothing:
//!
//! 1. reshape the input to its single axes (products opened, ones dropped);
//! 2. permute these to the order of the result;
//! 3. broadcast over the result's new axes, in front, and permute them into place;
//! 4. reshape to the result (products closed, ones inserted).

use super::einsum::separated;
use super::pattern::{Atom, Equation, Operand, Pattern, Place, Symbols, equation};
use crate::errors::Errors;
use proc_macro2::{Literal, TokenStream};
use quote::quote;

const EXAMPLE: &str = "rearrange!(x[b t (h d)] => [b h t d])";

/// The expansion.
pub fn expand(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = equation(input, EXAMPLE, &mut errors);
    let expanded = parsed.map(|e| movement(&e, &mut errors));
    match expanded {
        Some(tokens) if errors.is_empty() => tokens,
        _ => super::failed(errors),
    }
}

/// The input side of `rearrange!` and `reduce!`.
pub struct Opened {
    pub symbols: Symbols,
    /// The type of each place.
    pub shape: Vec<TokenStream>,
    /// The single axes, ones left out.
    pub axes: Vec<usize>,
    /// The proofs that products equal their axes.
    pub proofs: TokenStream,
    /// Whether opening changes the shape.
    pub reshapes: bool,
}

/// Opens the products of an input.
pub fn open(operand: &Operand, allow_any: bool, errors: &mut Errors) -> Opened {
    let mut symbols = Symbols::default();
    let mut shape = Vec::new();
    let mut axes = Vec::new();
    let mut proofs = TokenStream::new();
    let mut reshapes = false;
    // Variables first, so that type parameters stand in the user's order.
    for atom in operand.pattern.atoms() {
        if let Atom::Any(span) = atom
            && !allow_any
        {
            errors.on(*span, "`rearrange!` keeps every axis, so each needs a name");
        }
        if !atom.is_one() && symbols.find(atom).is_some() {
            errors.on(
                atom.span(),
                format!("`{}` stands twice in the input; the diagonal is taken with `einsum!`", atom.text()),
            );
        }
        let n = symbols.intern(atom);
        if !atom.is_one() {
            axes.push(n);
        }
    }
    let mut given = axes.iter().copied();
    for place in &operand.pattern.places {
        let types: Vec<TokenStream> = place
            .atoms()
            .iter()
            .map(|a| {
                let n = if a.is_one() { symbols.find(a) } else { given.next() };
                symbols.ty(n.expect("every axis of the input was numbered above"))
            })
            .collect();
        match place {
            Place::One(a) => {
                reshapes |= a.is_one();
                shape.extend(types);
            }
            Place::Product { name, span, .. } => {
                reshapes = true;
                let n = match name {
                    Some(path) => symbols.intern(&Atom::Axis(path.clone())),
                    None => symbols.fresh(*span),
                };
                let whole = symbols.ty(n);
                proofs.extend(quote!(const { ::mobilis::__private::factors::<#whole, (#(#types,)*)>() };));
                shape.push(whole);
            }
        }
    }
    Opened { symbols, shape, axes, proofs, reshapes }
}

/// The type of the result, the proofs it needs, and whether closing changes the shape.
pub fn close(output: &Pattern, symbols: &mut Symbols) -> (Vec<TokenStream>, TokenStream, bool) {
    let mut shape = Vec::new();
    let mut proofs = TokenStream::new();
    let mut reshapes = false;
    for place in &output.places {
        let types: Vec<TokenStream> = place
            .atoms()
            .iter()
            .map(|a| {
                let n = symbols.intern(a);
                symbols.ty(n)
            })
            .collect();
        match place {
            Place::One(a) => {
                reshapes |= a.is_one();
                shape.extend(types);
            }
            Place::Product { name, .. } => {
                reshapes = true;
                match name {
                    Some(path) => {
                        let n = symbols.intern(&Atom::Axis(path.clone()));
                        let whole = symbols.ty(n);
                        proofs.extend(quote!(const { ::mobilis::__private::factors::<#whole, (#(#types,)*)>() };));
                        shape.push(whole);
                    }
                    None => shape.extend(types.into_iter().reduce(|a, b| quote!(::mobilis::__private::Prod<#a, #b>))),
                }
            }
        }
    }
    (shape, proofs, reshapes)
}

/// A step that permutes, unless the order is kept.
pub fn permute(order: &[usize]) -> TokenStream {
    if order.iter().enumerate().all(|(i, o)| i == *o) {
        return TokenStream::new();
    }
    let order = order.iter().map(|o| Literal::usize_unsuffixed(*o));
    quote!(let h = ::mobilis::__private::movement::permute(h, &[#(#order),*]);)
}

fn movement(equation: &Equation, errors: &mut Errors) -> TokenStream {
    let [operand] = equation.operands.as_slice() else {
        errors.on(equation.output.span, "`rearrange!` takes one tensor; several are joined with `einsum!`");
        return TokenStream::new();
    };
    let Opened { mut symbols, shape: in_shape, axes, proofs: split, reshapes: opens } = open(operand, false, errors);
    for atom in equation.output.atoms().filter(|a| matches!(a, Atom::Any(_))) {
        errors.on(atom.span(), "an axis of the result needs a name");
    }
    super::repeated(&equation.output, errors);
    let wanted: Vec<String> = equation.output.atoms().map(Atom::text).collect();
    for atom in operand.pattern.atoms().filter(|a| !a.is_one() && !matches!(a, Atom::Any(_))) {
        if !wanted.contains(&atom.text()) {
            errors.on(
                atom.span(),
                format!("`{}` is missing from the result: `rearrange!` keeps every axis; `reduce!(sum: ..)` or `reduce!(mean: ..)` removes it", atom.text()),
            );
        }
    }
    let (out_shape, merge, closes) = close(&equation.output, &mut symbols);
    // The result's single axes in order, and which of them are new.
    let order: Vec<usize> = equation.output.atoms().filter(|a| !a.is_one()).filter_map(|a| symbols.find(a)).collect();
    let new: Vec<usize> = order.iter().copied().filter(|n| !axes.contains(n)).collect();
    let kept: Vec<usize> = order.iter().copied().filter(|n| axes.contains(n)).collect();
    let mut steps = TokenStream::new();
    if opens {
        let dims = super::dims(&symbols, &axes);
        steps.extend(quote!(let h = ::mobilis::__private::movement::reshape(h, #dims);));
    }
    let position = |list: &[usize], n: usize| list.iter().position(|m| *m == n).unwrap_or(0);
    if new.is_empty() {
        steps.extend(permute(&kept.iter().map(|n| position(&axes, *n)).collect::<Vec<_>>()));
    } else {
        let broadcast: Vec<usize> = new.iter().chain(&axes).copied().collect();
        let dims = super::dims(&symbols, &broadcast);
        steps.extend(quote!(let h = ::mobilis::__private::movement::broadcast(h, #dims);));
        steps.extend(permute(&order.iter().map(|n| position(&broadcast, *n)).collect::<Vec<_>>()));
    }
    if closes {
        let dims = out_shape.iter();
        steps.extend(quote!(let h = ::mobilis::__private::movement::reshape(h, ::std::vec![#(<#dims as ::mobilis::__private::Axis>::dim()),*]);));
    }
    let value = &operand.value;
    let (params, arguments) = (separated(symbols.params()), separated(symbols.arguments()));
    quote! {{
        #[allow(non_camel_case_types, clippy::extra_unused_type_parameters)]
        #[inline]
        fn rearrange<#params __E: ::mobilis::__private::Element>(
            x: ::mobilis::__private::Tensor<(#(#in_shape,)*), __E>,
        ) -> ::mobilis::__private::Tensor<(#(#out_shape,)*), __E> {
            #split
            #merge
            let h = x.raw();
            #steps
            ::mobilis::__private::Tensor::from_raw(h)
        }
        let result = rearrange::<#arguments _>(#value);
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
    fn splits_permutes_and_merges() {
        let out = expand_text("x[b t (h d)] => [b h t d]");
        assert!(out.contains("const{factors::<any_4,(h,d,)>()}"), "{out}");
        assert!(out.contains("x:Tensor<(b,t,any_4,),__E>"), "{out}");
        assert!(
            out.contains("reshape(h,::std::vec![<basAxis>::dim(),<tasAxis>::dim(),<hasAxis>::dim(),<dasAxis>::dim()])"),
            "{out}"
        );
        assert!(out.contains("permute(h,&[0,2,1,3])"), "{out}");
        let out = expand_text("x[b h t d] => [b t (h d) as A::Hidden]");
        assert!(out.contains("factors::<Hidden,(h,d,)>()"), "{out}");
        assert!(out.contains("rearrange::<_,_,_,_,A::Hidden,_>(x)"), "{out}");
        let out = expand_text("x[b (h d)] => [b (d h)]");
        assert!(out.contains("->Tensor<(b,Prod<d,h>,),__E>"), "{out}");
    }

    #[test]
    fn repeats_inserts_and_drops() {
        let out = expand_text("x[b 1 t] => [b Groups t 1]");
        assert!(
            out.contains("broadcast(h,::std::vec![<GroupsasAxis>::dim(),<basAxis>::dim(),<tasAxis>::dim()])"),
            "{out}"
        );
        assert!(out.contains("permute(h,&[1,0,2])"), "{out}");
        assert!(!expand_text("x[b t] => [b t]").contains("movement"));
    }

    #[test]
    fn mistakes() {
        for (text, words) in [
            ("x[b t] => [b]", "missing from the result"),
            ("x[b t] => [b t t]", "stands twice in the result"),
            ("x[b b] => [b]", "stands twice in the input"),
            ("x[b] * y[t] => [b t]", "one tensor"),
            ("x[b _] => [b]", "needs a name"),
        ] {
            let out = expand(TokenStream::from_str(text).expect("tokens")).to_string();
            assert!(out.contains(words) && out.matches("compile_error").count() == 1, "{text}: {out}");
        }
    }
}
