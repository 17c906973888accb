//! The struct, its intermediate results, and the traits that it implements.

use super::ast::{Pipeline, Port};
use super::edges::{Edges, edges};
use super::methods;
use super::resolve::{Kept, Wiring};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::GenericParam;

/// The expansion. After a mistake (`broken`) everything is declared, and nothing runs.
pub fn expand(p: &Pipeline, wiring: &Wiring, broken: bool) -> TokenStream {
    let Pipeline { attrs, vis, name, generics, .. } = p;
    let wheres = &generics.where_clause;
    let marker = marker(p);
    let values = values(p, wiring);
    let hidden = hidden(p, wiring, broken);
    quote! {
        #(#attrs)*
        #vis struct #name #generics #wheres {
            __core: ::mobilis::__private::pipeline::Core,
            __types: #marker,
        }
        #values
        const _: () = { #hidden };
    }
}

/// `PhantomData<fn() -> (A,)>`
fn marker(p: &Pipeline) -> TokenStream {
    let types = p.generics.params.iter().filter_map(|g| match g {
        GenericParam::Type(t) => Some(&t.ident),
        _ => None,
    });
    quote!(::core::marker::PhantomData<fn() -> (#(#types,)*)>)
}

/// `T` of one port, `(T, U)` of several.
pub fn whole(ports: &[Port]) -> TokenStream {
    let types: Vec<TokenStream> = ports.iter().map(Port::ty).collect();
    match &types[..] {
        [one] => one.clone(),
        all => quote!((#(#all),*)),
    }
}

/// `(T,)` of one port, `(T, U)` of several.
pub fn tuple(ports: &[Port]) -> TokenStream {
    let types = ports.iter().map(Port::ty);
    quote!((#(#types,)*))
}

/// The struct of named intermediate results.
fn values(p: &Pipeline, wiring: &Wiring) -> TokenStream {
    let Pipeline { vis, name, generics, .. } = p;
    let wheres = &generics.where_clause;
    let struct_name = format_ident!("{name}Values");
    let doc = format!("Every intermediate result of [`{name}`], by its name: what `run_traced` gives.");
    let marker = marker(p);
    let fields = wiring.kept.iter().map(|k| {
        let ty = kept_type(wiring, k);
        let (name, doc) = (&k.name, format!("`{}`", k.name));
        quote!(#[doc = #doc] pub #name: #ty,)
    });
    quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #vis struct #struct_name #generics #wheres {
            #(#fields)*
            #[doc(hidden)]
            pub __types: #marker,
        }
    }
}

/// The type of a field of that struct.
pub fn kept_type(wiring: &Wiring, kept: &Kept) -> TokenStream {
    let types: Vec<TokenStream> =
        wiring.values[kept.first..kept.first + kept.count].iter().map(|v| v.port.ty()).collect();
    match &types[..] {
        [one] => one.clone(),
        all => quote!((#(#all),*)),
    }
}

fn hidden(p: &Pipeline, wiring: &Wiring, broken: bool) -> TokenStream {
    let Edges { traits, calls, outputs } = if broken {
        Edges { traits: TokenStream::new(), calls: vec![], outputs: vec![] }
    } else {
        edges(&p.generics, wiring)
    };
    let private = quote!(::mobilis::__private::pipeline);
    let Pipeline { name, generics, .. } = p;
    let (impls, types, wheres) = generics.split_for_impl();
    let wiring_body = if broken { quote!(loop {}) } else { wiring_value(p, wiring, &calls, &outputs) };
    let stages = methods::stages(p);
    let runs = methods::runs(p, wiring);
    let inputs = methods::inputs(p);
    let output = whole(&p.results);
    let output_tuple = tuple(&p.results);
    let mut with_input = generics.clone();
    with_input.params.push(syn::parse_quote!(__In));
    with_input.make_where_clause().predicates.push(syn::parse_quote!(#name #types: #private::Inputs<__In>));
    let (input_impls, _, input_wheres) = with_input.split_for_impl();
    quote! {
        #traits
        fn __wiring #impls () -> #private::Wiring #wheres { #wiring_body }

        impl #impls #name #types #wheres {
            #stages
            #runs
        }
        #inputs

        impl #impls ::core::clone::Clone for #name #types #wheres {
            /// The same stages, counted together.
            fn clone(&self) -> Self {
                #name { __core: self.__core.clone(), __types: ::core::marker::PhantomData }
            }
        }
        impl #impls ::core::ops::Deref for #name #types #wheres {
            type Target = #private::Core;
            fn deref(&self) -> &#private::Core {
                &self.__core
            }
        }
        impl #impls ::core::fmt::Debug for #name #types #wheres {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(&self.__core, f)
            }
        }
        #[diagnostic::do_not_recommend]
        impl #input_impls #private::Stage<__In> for #name #types #input_wheres {
            type Output = #output;
            type Error = #private::PipelineError;
            fn run(&self, input: __In) -> ::core::result::Result<#output, #private::PipelineError> {
                let __in = <Self as #private::Inputs<__In>>::pack(input);
                self.__core.run(__in).map(<#output_tuple as #private::Ports>::unpack)
            }
            fn run_batch(&self, inputs: ::std::vec::Vec<__In>) -> ::std::vec::Vec<::core::result::Result<#output, #private::PipelineError>> {
                let __in = inputs.into_iter().map(<Self as #private::Inputs<__In>>::pack).collect();
                self.__core.run_batch(__in).into_iter().map(|r| r.map(<#output_tuple as #private::Ports>::unpack)).collect()
            }
            fn kind(&self) -> ::std::string::String {
                ::std::convert::From::from(self.__core.name())
            }
            fn memory(&self) -> usize {
                self.__core.memory()
            }
            fn devices(&self) -> ::std::vec::Vec<#private::Device> {
                self.__core.devices()
            }
            fn inside(&self) -> ::core::option::Option<&#private::Core> {
                ::core::option::Option::Some(&self.__core)
            }
        }
    }
}

/// The wiring as plain data.
fn wiring_value(p: &Pipeline, wiring: &Wiring, calls: &[Vec<TokenStream>], outputs: &[TokenStream]) -> TokenStream {
    let private = quote!(::mobilis::__private::pipeline);
    let label = |name: &str, ty: &str| quote!(#private::Label { name: #name, ty: #ty });
    let name = p.name.to_string();
    let slots = p.stages.iter().map(|s| label(&s.name.to_string(), &s.text));
    let inputs = p.inputs.len();
    let values = wiring.values.iter().map(|v| label(&v.label, &v.port.text()));
    let results = p.results.iter().map(|r| label(&r.name(), &r.text()));
    let calls = wiring.calls.iter().zip(calls).map(|(call, edges)| {
        let (stage, first, count) = (call.stage, call.first, call.count);
        quote!(#private::Call { slot: #stage, inputs: ::std::vec![#(#edges),*], first: #first, count: #count })
    });
    quote! {
        #private::Wiring {
            name: #name,
            slots: ::std::vec![#(#slots),*],
            inputs: #inputs,
            values: ::std::vec![#(#values),*],
            calls: ::std::vec![#(#calls),*],
            outputs: ::std::vec![#(#outputs),*],
            results: ::std::vec![#(#results),*],
        }
    }
}
