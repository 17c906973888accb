//! Writing the types of `elements!`.

use super::ast::{Declared, ends, parent_of};
use crate::errors::Errors;
use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use std::collections::{BTreeMap, BTreeSet};
use syn::{GenericArgument, GenericParam, PathArguments};

/// All items of a block.
pub fn items(items: &[Declared], errors: &mut Errors) -> TokenStream {
    let mut seen = BTreeSet::new();
    let mut out = TokenStream::new();
    for item in items.iter().filter(|i| seen.insert(i.name.to_string())) {
        // One of the base classes stands in where the parent makes no sense.
        let sane = errors.is_empty() || ends(items, item) && !item.parent.to_string().starts_with(char::is_lowercase);
        out.extend(element(items, item, sane));
    }
    out
}

fn element(items: &[Declared], item: &Declared, sane: bool) -> TokenStream {
    let Declared { attrs, vis, name, generics, parent } = item;
    let mut generics = generics.clone();
    for param in generics.type_params_mut().filter(|p| p.bounds.is_empty()) {
        // Reported; with a bound it is reported once.
        param.bounds.push(syn::parse_quote!(::mobilis::__private::Axis));
    }
    let (impls, types, wheres) = generics.split_for_impl();
    let cfg: Vec<_> = attrs.iter().filter(|a| a.path().is_ident("cfg")).collect();
    let chain = if sane { ancestors(items, item) } else { vec![quote!(::mobilis::__private::Real)] };
    let last = chain.last().cloned().unwrap_or_else(|| parent.to_token_stream());
    let base = quote!(<#last as ::mobilis::__private::Element>::Base);
    let text = name.to_string();
    let doc = format!("Refines `{parent}`.");
    let doc = if attrs.iter().any(|a| a.path().is_ident("doc")) {
        quote!(#[doc = ""] #[doc = #doc])
    } else {
        quote!(#[doc = #doc])
    };
    let held: Vec<_> = generics
        .params
        .iter()
        .filter_map(|p| match p {
            GenericParam::Type(t) => Some(&t.ident),
            _ => None,
        })
        .collect();
    let body =
        if held.is_empty() { quote!(;) } else { quote!((::core::marker::PhantomData<fn() -> (#(#held,)*)>) #wheres;) };
    let (own_name, name_const) = spelled(item, &text);
    let enters = chain.iter().map(|ancestor| {
        quote! {
            #(#cfg)*
            #[diagnostic::do_not_recommend]
            impl #impls ::mobilis::__private::Is<#ancestor> for #name #types #wheres {}
        }
    });
    // Both ways between the element and its base class.
    let with_base = |base: &TokenStream, condition: Option<TokenStream>, up: bool| {
        let mut generics = generics.clone();
        if let Some(condition) = condition {
            generics.make_where_clause().predicates.push(syn::parse_quote!(#condition));
        }
        let wheres = &generics.where_clause;
        let up = up.then(|| {
            quote! {
                #(#cfg)*
                #[diagnostic::do_not_recommend]
                impl #impls ::mobilis::__private::Is<#base> for #name #types #wheres {}
            }
        });
        quote! {
            #up
            #(#cfg)*
            #[diagnostic::do_not_recommend]
            impl #impls ::mobilis::__private::Is<#name #types> for #base #wheres {}
        }
    };
    let plain: TokenStream = if is_base(items, &last) {
        with_base(&last, None, false)
    } else if generics.params.is_empty() {
        with_base(&base, None, true)
    } else {
        // The rules of coherence see through `<Parent as Element>::Base` only where it has no
        // parameters, so each base class is asked for.
        ["Real", "Index", "Mask"]
            .iter()
            .map(|class| {
                let class = Ident::new(class, name.span());
                let class = quote!(::mobilis::__private::#class);
                with_base(&class, Some(quote!(#last: ::mobilis::__private::Element<Base = #class>)), true)
            })
            .collect()
    };
    // The parameters' declarations without defaults stand on the struct.
    let declared = generics.params.iter();
    let declared = if generics.params.is_empty() { quote!() } else { quote!(<#(#declared),*>) };
    quote_spanned! {name.span()=>
        #(#attrs)*
        #doc
        #[allow(dead_code)]
        #vis struct #name #declared #body
        #own_name
        #(#cfg)*
        impl #impls ::mobilis::__private::Element for #name #types #wheres {
            type Base = #base;
            const NAME: &'static str = #name_const;
        }
        #(#cfg)*
        #[diagnostic::do_not_recommend]
        impl #impls ::mobilis::__private::Is<Self> for #name #types #wheres {}
        #(#enters)*
        #plain
    }
}

/// The name with its parameters, `Lengths<Frames>`, as constants; the bare name where a
/// parameter cannot be spelled in a constant.
fn spelled(item: &Declared, text: &str) -> (TokenStream, TokenStream) {
    let Declared { name, generics, .. } = item;
    let mut parts = Vec::new();
    for param in &generics.params {
        parts.push(match param {
            GenericParam::Const(c)
                if matches!(c.ty.to_token_stream().to_string().as_str(), "u8" | "u16" | "u32" | "u64" | "usize") =>
            {
                let ident = &c.ident;
                quote!(.number(#ident as u64))
            }
            GenericParam::Type(t) => {
                let ident = &t.ident;
                let bounds = t.bounds.to_token_stream().to_string();
                let role = if bounds.ends_with("Axis") {
                    quote!(::mobilis::__private::Axis)
                } else if bounds.ends_with("Element") {
                    quote!(::mobilis::__private::Element)
                } else {
                    return (quote!(), quote!(#text));
                };
                quote!(.text(<#ident as #role>::NAME))
            }
            _ => return (quote!(), quote!(#text)),
        });
    }
    if parts.is_empty() {
        return (quote!(), quote!(#text));
    }
    let (impls, types, wheres) = generics.split_for_impl();
    let open = format!("{text}<");
    let rest = parts.split_off(1);
    let own = quote! {
        impl #impls #name #types #wheres {
            const SPELLED: &'static ::mobilis::__private::Message =
                &::mobilis::__private::Message::new().text(#open) #(#parts)* #(.text(", ") #rest)* .text(">");
        }
    };
    (own, quote!(Self::SPELLED.as_str()))
}

/// Whether an ancestor is one of the base classes, going by its name.
fn is_base(items: &[Declared], ancestor: &TokenStream) -> bool {
    let last = ancestor.to_string();
    let last = last.rsplit(' ').next().unwrap_or("");
    ["Real", "Index", "Mask"].contains(&last) && !items.iter().any(|i| i.name == last)
}

/// The elements above this one, nearest first, up to a base class or to what is declared elsewhere.
fn ancestors(items: &[Declared], item: &Declared) -> Vec<TokenStream> {
    let mut chain = Vec::new();
    let mut parent = item.parent.to_token_stream();
    let mut at = item;
    loop {
        chain.push(parent.clone());
        let Some((_, next)) = parent_of(items, at) else {
            return chain;
        };
        // The parent's own parent, in this element's parameters.
        let mut given = BTreeMap::new();
        let arguments = syn::parse2::<syn::TypePath>(parent).ok().and_then(|p| p.path.segments.into_iter().next_back());
        if let Some(PathArguments::AngleBracketed(list)) = arguments.map(|s| s.arguments) {
            for (param, argument) in next.generics.params.iter().zip(&list.args) {
                let name = match param {
                    GenericParam::Type(t) => &t.ident,
                    GenericParam::Const(c) => &c.ident,
                    GenericParam::Lifetime(_) => continue,
                };
                given.insert(name.to_string(), argument.clone());
            }
        }
        parent = substitute(next.parent.to_token_stream(), &given);
        at = next;
    }
}

fn substitute(tokens: TokenStream, given: &BTreeMap<String, GenericArgument>) -> TokenStream {
    tokens
        .into_iter()
        .flat_map(|token| match &token {
            TokenTree::Ident(i) => {
                given.get(&i.to_string()).map_or_else(|| token.to_token_stream(), ToTokens::to_token_stream)
            }
            TokenTree::Group(g) => {
                TokenTree::Group(Group::new(g.delimiter(), substitute(g.stream(), given))).to_token_stream()
            }
            _ => token.to_token_stream(),
        })
        .collect()
}
