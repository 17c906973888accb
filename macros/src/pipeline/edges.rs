//! One trait for each edge: the compiler's words for a wrong one.
//!
//! A trait bound between types says "the trait is not implemented"; here every edge has a trait of its
//! own, so that the words are the user's: who gives what to whom, as it was written. The trait holds for
//! the type that the port declares, for arrays of a sub-element or of the plain base, and, where the
//! port is optional, for both `T` and `Option<T>`.

use super::ast::{Optional, Port};
use super::resolve::{Link, Source, Value, Wiring};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::Generics;

/// The traits, and the wiring's edges: of each call, and of the results.
pub struct Edges {
    pub traits: TokenStream,
    pub calls: Vec<Vec<TokenStream>>,
    pub outputs: Vec<TokenStream>,
}

/// Writes the edges of a pipeline.
pub fn edges(generics: &Generics, wiring: &Wiring) -> Edges {
    let mut out = Edges { traits: TokenStream::new(), calls: vec![], outputs: vec![] };
    let mut number = 0;
    let mut one = |link: &Link, traits: &mut TokenStream| {
        number += 1;
        edge(generics, wiring, link, number, traits)
    };
    for call in &wiring.calls {
        out.calls.push(call.links.iter().map(|link| one(link, &mut out.traits)).collect());
    }
    out.outputs = wiring.outputs.iter().map(|link| one(link, &mut out.traits)).collect();
    out
}

fn edge(generics: &Generics, wiring: &Wiring, link: &Link, number: usize, traits: &mut TokenStream) -> TokenStream {
    let private = quote!(::mobilis::__private::pipeline);
    let Source::Value { id, last } = link.source else {
        let value = match &link.port.optional {
            Optional::Default(e) => {
                let ty = &link.port.carried.tokens;
                quote!({ let __default: #ty = #e; __default })
            }
            _ => {
                let ty = link.port.ty();
                quote!({ let __none: #ty = ::core::option::Option::None; __none })
            }
        };
        return quote!(#private::Edge::Open(|| #private::erase(#value)));
    };
    let producer = &wiring.values[id];
    let name = format_ident!("{}{}", trait_name(link), number);
    traits.extend(declaration(generics, link, producer, &name));
    let (_, types, _) = generics.split_for_impl();
    let span = link.place.clone().into_iter().next().map_or_else(Span::call_site, |t| t.span());
    // All of the path is at the argument, where the mistake is to be shown.
    let found = spanned(producer.port.ty(), span);
    let types = spanned(quote!(#types), span);
    let convert = quote_spanned!(span=> <#found as #name #types>::into_port);
    if last {
        quote_spanned!(span=> #private::Edge::Move(#id, |__v| #private::erase(#convert(#private::restore::<#found>(__v)))))
    } else {
        let copy = quote_spanned!(span=> <#found as ::mobilis::__private::pipeline::Branch>::branch);
        quote_spanned!(span=> #private::Edge::Copy(#id, |__v| #private::erase(#convert(#copy(#private::peek::<#found>(__v))))))
    }
}

/// `EntersFeatures`, `EntersResult`: the compiler shows it once, below our words.
fn trait_name(link: &Link) -> String {
    let consumer = link.consumer.map_or_else(|| "Result".to_string(), ToString::to_string);
    let camel: String = consumer
        .trim_start_matches("r#")
        .split('_')
        .map(|part| part.chars().take(1).flat_map(char::to_uppercase).chain(part.chars().skip(1)).collect::<String>())
        .collect();
    format!("Enters{camel}")
}

fn declaration(generics: &Generics, link: &Link, producer: &Value, name: &proc_macro2::Ident) -> TokenStream {
    let (message, label, note) = words(link, producer);
    let port_ty = link.port.ty();
    let inner = &link.port.carried.tokens;
    let (_, types, wheres) = generics.split_for_impl();
    // The value itself, and its type.
    let (mut own, found, value) = match &link.port.carried.array {
        Some(array) => {
            let (shape, element) = (&array.shape, &array.element);
            let mut own = generics.clone();
            let private = quote!(::mobilis::__private);
            own.params.push(syn::parse_quote!(__S: #private::pipeline::Same<#shape>));
            own.params.push(syn::parse_quote!(__E: #private::Is<#element>));
            (own, quote!(#private::Array<__S, __E>), quote!(#private::pipeline::Same::port))
        }
        None => (generics.clone(), inner.clone(), quote!(::core::convert::identity)),
    };
    own.where_clause.clone_from(&generics.where_clause);
    let (impls, ..) = own.split_for_impl();
    let plain = match link.port.optional {
        Optional::Option => quote!(::core::option::Option::Some(#value(self))),
        _ => quote!(#value(self)),
    };
    let maybe = match &link.port.optional {
        Optional::No => None,
        Optional::Option => Some(quote!(self.map(#value))),
        Optional::Default(e) => Some(quote!(match self {
            ::core::option::Option::Some(__v) => #value(__v),
            ::core::option::Option::None => #e,
        })),
    };
    let implement = |ty: TokenStream, body: TokenStream| {
        quote! {
            #[diagnostic::do_not_recommend]
            impl #impls #name #types for #ty #wheres {
                fn into_port(self) -> #port_ty { #body }
            }
        }
    };
    let second = maybe.map(|body| implement(quote!(::core::option::Option<#found>), body));
    let first = implement(found, plain);
    quote! {
        #[diagnostic::on_unimplemented(message = #message, label = #label, note = #note)]
        trait #name #generics: ::core::marker::Sized #wheres {
            fn into_port(self) -> #port_ty;
        }
        #first
        #second
    }
}

/// Message, label and note of a wrong edge.
fn words(link: &Link, producer: &Value) -> (String, String, String) {
    let (expected, found) = (link.port.text(), producer.port.text());
    let port = link.port.name.as_ref().map_or_else(String::new, |n| format!(" for `{n}`"));
    let (message, takes) = match link.consumer {
        Some(consumer) => (
            format!("{} does not fit `{consumer}`", producer.producer),
            format!("`{consumer}` takes `{expected}`{port}"),
        ),
        None => (
            format!("{} does not fit the result{}", producer.producer, port.replace(" for", "")),
            format!("the result{} is `{expected}`", port.replace(" for", "")),
        ),
    };
    let gives = if producer.producer.starts_with('`') && producer.port.name.is_none() { "gives" } else { "is" };
    let label = format!("{takes}, and {} {gives} `{found}`", producer.producer);
    let note = difference(link.port, producer.port);
    let escape = |s: String| s.replace('{', "{{").replace('}', "}}");
    (escape(message), escape(label), escape(note))
}

fn difference(expected: &Port, found: &Port) -> String {
    if found.is_optional() && !expected.is_optional() && expected.carried.text == found.carried.text {
        return "the value may be missing: give the port a default, or decide in a stage".into();
    }
    let (Some(e), Some(f)) = (&expected.carried.array, &found.carried.array) else {
        return "a port takes the type that it declares; put a stage between them that converts".into();
    };
    let mut parts = vec![];
    if e.shape_text != f.shape_text {
        parts.push(format!("axes `{}` are expected, `{}` found", e.shape_text, f.shape_text));
    }
    if e.element_text != f.element_text {
        parts.push(format!("element `{}` is expected, `{}` found", e.element_text, f.element_text));
    }
    match parts.len() {
        0 => "axes or elements of one name are not one: compare where they are declared".into(),
        _ => parts.join("; "),
    }
}

/// The same tokens at another place.
fn spanned(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Group(g) => {
                let mut group = proc_macro2::Group::new(g.delimiter(), spanned(g.stream(), span));
                group.set_span(span);
                TokenTree::Group(group)
            }
            mut token => {
                token.set_span(span);
                token
            }
        })
        .collect()
}
