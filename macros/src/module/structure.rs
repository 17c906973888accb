//! `Module` and `Default` for a struct.

use super::Options;
use super::fields::{self, Field, Role};
use crate::errors::Errors;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{ItemStruct, Type};

/// The struct without our attributes, and what it implements. After a mistake the
/// implementations are empty, so that the struct's users are not reported too.
pub fn expand(mut item: ItemStruct, options: &Options, errors: &mut Errors) -> TokenStream {
    let fields = fields::read(&mut item.fields, errors);
    let broken = !errors.is_empty();
    let module = module(&item, &fields, broken);
    let default = if options.no_default { TokenStream::new() } else { default(&item, &fields, broken) };
    quote!(#item #module #default)
}

fn module(item: &ItemStruct, fields: &[Field], broken: bool) -> TokenStream {
    let name = &item.ident;
    let (impls, types, wheres) = item.generics.split_for_impl();
    let kind = name.to_string();
    let visits = fields.iter().filter(|_| !broken).map(|f| {
        let Field { member, ty, name, conditions, .. } = f;
        let span = start(ty);
        match f.role {
            Role::Member => quote_spanned!(span=> #(#conditions)* ::mobilis::__private::Member::member(&self.#member, #name, __visitor);),
            Role::Hyper => {
                quote_spanned!(span=> #(#conditions)* ::mobilis::__private::Visitor::hyper(__visitor, #name, ::std::format!("{:?}", self.#member));)
            }
            Role::Skip => TokenStream::new(),
        }
    });
    quote! {
        #[diagnostic::do_not_recommend]
        impl #impls ::mobilis::__private::Module for #name #types #wheres {
            fn kind(&self) -> &'static str {
                #kind
            }
            #[allow(unused_variables)]
            fn visit<'__a>(&'__a self, __visitor: &mut dyn ::mobilis::__private::Visitor<'__a>) {
                #(#visits)*
            }
        }
    }
}

fn start(tokens: impl ToTokens) -> proc_macro2::Span {
    tokens.to_token_stream().into_iter().next().map_or_else(proc_macro2::Span::call_site, |t| t.span())
}

fn default(item: &ItemStruct, fields: &[Field], broken: bool) -> TokenStream {
    let name = &item.ident;
    let (impls, types, wheres) = item.generics.split_for_impl();
    let body = if broken {
        quote!(loop {})
    } else {
        let values = fields.iter().map(|f| {
            let Field { member, conditions, .. } = f;
            let value = value(f);
            quote!(#(#conditions)* #member: #value,)
        });
        let ties: Vec<_> = fields.iter().flat_map(ties).collect();
        if ties.is_empty() {
            quote!(Self { #(#values)* })
        } else {
            quote! {
                let mut this = Self { #(#values)* };
                #(#ties)*
                this
            }
        }
    };
    let doc = format!("A new `{name}`: its parameters are declared, and filled when a model is made of it.");
    quote! {
        impl #impls ::core::default::Default for #name #types #wheres {
            #[doc = #doc]
            fn default() -> Self {
                #body
            }
        }
    }
}

fn value(field: &Field) -> TokenStream {
    let value = match &field.default {
        // `repeat` is in scope, as the shorthands are for initializers.
        Some(expr) => quote!({
            #[allow(unused_imports)]
            use ::mobilis::__private::default_scope::*;
            #expr
        }),
        None => made(&field.ty),
    };
    match &field.init {
        Some(init) => {
            let span = start(init);
            let call = quote_spanned!(start(&field.ty)=> ::mobilis::__private::WithInit::with_init);
            quote_spanned!(span=> #call(#value, {
                #[allow(unused_imports)]
                use ::mobilis::__private::shorthand::*;
                #init
            }))
        }
        None => value,
    }
}

/// A default of the type. Arrays are longer than `Default` reaches, so they are made by element.
fn made(ty: &Type) -> TokenStream {
    match ty {
        Type::Array(a) => {
            let one = made(&a.elem);
            quote!(::core::array::from_fn(|_| #one))
        }
        other => quote_spanned!(start(other)=> <#other as ::mobilis::__private::MadeByDefault>::made()),
    }
}

fn ties(field: &Field) -> impl Iterator<Item = TokenStream> + '_ {
    field.ties.iter().map(|tie| {
        let (own, target, source, conditions) = (&field.member, &tie.target, &tie.source, &field.conditions);
        let span = start(&tie.source[0]);
        quote_spanned!(span=> #(#conditions)* { this.#own #(.#target)* = this #(.#source)*.tie(); })
    })
}
