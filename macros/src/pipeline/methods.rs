//! The methods of a pipeline: making it, changing stages, running it.

use super::ast::{Optional, Pipeline, Port};
use super::expand::{kept_type, tuple, whole};
use super::resolve::Wiring;
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};

/// `new`, and `set_..` for each stage.
pub fn stages(p: &Pipeline) -> TokenStream {
    let private = quote!(::mobilis::__private::pipeline);
    let (_, types, _) = p.generics.split_for_impl();
    let turbofish = types.as_turbofish();
    let name = &p.name;
    let (mut parameters, mut slots, mut setters) = (vec![], vec![], TokenStream::new());
    for (number, stage) in p.stages.iter().enumerate() {
        let (stage_name, span) = (&stage.name, stage.name.span());
        let (input, output) = (whole(&stage.inputs), whole(&stage.results));
        let (ins, outs) = (tuple(&stage.inputs), tuple(&stage.results));
        // At the stage's name, which the compiler shows as what asks for it.
        let bound = quote_spanned!(span=> impl #private::Stage<#input, Output = #output> + ::core::marker::Send + ::core::marker::Sync + 'static);
        parameters.push(quote!(#stage_name: #bound));
        slots.push(quote_spanned!(span=> #private::slot::<#ins, #outs>(#stage_name)));
        let setter = format_ident!("set_{}", stage_name.to_string().trim_start_matches("r#"), span = span);
        let doc = format!(
            "Puts another stage in the place of `{stage_name}`: any of the signature `{}`. Streams that run keep the old one.",
            stage.text
        );
        let slot = quote_spanned!(span=> #private::slot::<#ins, #outs>);
        setters.extend(quote! {
            #[doc = #doc]
            #[allow(dead_code)]
            pub fn #setter(&mut self, stage: #bound) -> &mut Self {
                self.__core.replace(#number, #slot(stage));
                self
            }
        });
    }
    let lines: Vec<String> = p
        .stages
        .iter()
        .map(|s| {
            let docs: Vec<String> = s.attrs.iter().filter_map(doc_line).collect();
            format!("* `{}: {}` {}", s.name, s.text, docs.join(" "))
        })
        .collect();
    let doc = format!("Joins the stages:\n\n{}", lines.join("\n"));
    quote! {
        #[doc = #doc]
        #[allow(clippy::too_many_arguments)]
        pub fn new(#(#parameters),*) -> Self {
            let __slots = ::std::vec![#(#slots),*];
            #name { __core: #private::Core::new(__wiring #turbofish (), __slots), __types: ::core::marker::PhantomData }
        }
        #setters
    }
}

fn doc_line(attr: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attr.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if pair.path.is_ident("doc") => {
            Some(text.value().trim().to_string())
        }
        _ => None,
    }
}

/// `run` and its kin.
pub fn runs(p: &Pipeline, wiring: &Wiring) -> TokenStream {
    let private = quote!(::mobilis::__private::pipeline);
    let (_, types, _) = p.generics.split_for_impl();
    let values = format_ident!("{}Values", p.name);
    let (output, outputs) = (whole(&p.results), tuple(&p.results));
    let unpack = quote!(<#outputs as #private::Ports>::unpack);
    let result = quote!(::core::result::Result<#output, #private::PipelineError>);
    // One way to call it: its type is known. Several: whatever is taken.
    let (parameter, input, bound) = if p.inputs.iter().any(Port::is_optional) {
        (quote!(<__In>), quote!(__In), quote!(Self: #private::Inputs<__In>,))
    } else {
        (TokenStream::new(), whole(&p.inputs), TokenStream::new())
    };
    let pack = quote!(<Self as #private::Inputs<#input>>::pack);
    let mut cloned: Vec<TokenStream> = vec![];
    let mut keep = vec![];
    let mut fields = vec![];
    let mut kept: Vec<_> = wiring.kept.iter().collect();
    kept.sort_by_key(|k| k.first);
    for k in kept {
        let own = &wiring.values[k.first..k.first + k.count];
        for (i, value) in own.iter().enumerate() {
            let (ty, id) = (value.port.ty(), k.first + i);
            keep.push(quote!((#id, |__v| #private::erase(#private::Keep::keep(#private::peek::<#ty>(__v))))));
            cloned.push(ty);
        }
        let (name, ty) = (&k.name, kept_type(wiring, k));
        let parts = own.iter().map(|v| {
            let ty = v.port.ty();
            quote!(#private::restore::<#ty>(__kept.next().expect("a finished run made every value")))
        });
        fields.push(match own.len() {
            1 => quote!(#name: #(#parts)*),
            _ => quote!(#name: { let __all: #ty = (#(#parts),*); __all }),
        });
    }
    let inputs_doc = signature(&p.inputs);
    let run_doc = format!(
        "Runs one item: `({inputs_doc}) -> {}`.\n\n# Errors\nThe first stage that failed, by name.",
        signature(&p.results)
    );
    quote! {
        #[doc = #run_doc]
        #[allow(dead_code)]
        pub fn run #parameter (&self, input: #input) -> #result where #bound {
            self.__core.run(#pack(input)).map(#unpack)
        }

        /// As `run`, and gives every named intermediate result and the time of each stage. What is
        /// named must be `Clone`.
        ///
        /// # Errors
        /// As `run`.
        #[allow(dead_code)]
        pub fn run_traced #parameter (&self, input: #input)
            -> ::core::result::Result<#private::Traced<#output, #values #types>, #private::PipelineError>
        where
            #bound
            // With a lifetime, so that it is asked of callers and not of the definition.
            #(for<'__k> #cloned: #private::Keep<'__k>,)*
        {
            let __keep: &[(usize, fn(&#private::Value) -> #private::Value)] = &[#(#keep),*];
            let __run = self.__core.run_traced(#pack(input), __keep)?;
            #[allow(unused_mut, unused_variables)]
            let mut __kept = __run.kept.into_iter();
            let values = #values { #(#fields,)* __types: ::core::marker::PhantomData };
            ::core::result::Result::Ok(#private::Traced { output: #unpack(__run.outputs), values, times: __run.times })
        }

        /// Runs several items, each stage on all of them at once, and gives a result for each, in order.
        /// An item's result does not depend on those beside it, and one that fails does not stop them.
        #[allow(dead_code)]
        pub fn run_batch #parameter (&self, inputs: impl ::core::iter::IntoIterator<Item = #input>) -> ::std::vec::Vec<#result>
        where
            #bound
        {
            let __in = inputs.into_iter().map(#pack).collect();
            self.__core.run_batch(__in).into_iter().map(|__r| __r.map(#unpack)).collect()
        }

        /// Runs all items of an iterator, in order, while the stages overlap, each on a thread of its
        /// own. Drop the iterator that this gives, and everything stops.
        #[allow(dead_code)]
        pub fn stream<__I> (&self, inputs: __I) -> #private::Stream<#output>
        where
            __I: ::core::iter::IntoIterator,
            __I::Item: 'static,
            __I::IntoIter: ::core::marker::Send + 'static,
            Self: #private::Inputs<__I::Item>,
        {
            self.stream_with(::core::default::Default::default(), inputs)
        }

        /// As `stream`, with the length of queues and the size of batches.
        #[allow(dead_code)]
        pub fn stream_with<__I> (&self, options: #private::StreamOptions, inputs: __I) -> #private::Stream<#output>
        where
            __I: ::core::iter::IntoIterator,
            __I::Item: 'static,
            __I::IntoIter: ::core::marker::Send + 'static,
            Self: #private::Inputs<__I::Item>,
        {
            let __in = inputs.into_iter().map(<Self as #private::Inputs<__I::Item>>::pack);
            #private::Stream::new(&self.__core, options, __in, #unpack)
        }
    }
}

fn signature(ports: &[Port]) -> String {
    let one = |p: &Port| p.name.as_ref().map_or_else(|| p.text(), |n| format!("{n}: {}", p.text()));
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `Inputs<In>`: with every input, and with the required ones alone.
pub fn inputs(p: &Pipeline) -> TokenStream {
    let all = implementation(p, true);
    let required = p.inputs.iter().any(Port::is_optional).then(|| implementation(p, false));
    quote!(#all #required)
}

fn implementation(p: &Pipeline, with_optional: bool) -> TokenStream {
    let private = quote!(::mobilis::__private::pipeline);
    let (impls, types, wheres) = p.generics.split_for_impl();
    let name = &p.name;
    let names: Vec<_> = (0..p.inputs.len()).map(|i| format_ident!("__v{i}")).collect();
    let (mut taken, mut patterns, mut packed) = (vec![], vec![], vec![]);
    for (port, v) in p.inputs.iter().zip(&names) {
        let (ty, inner) = (port.ty(), &port.carried.tokens);
        if with_optional || !port.is_optional() {
            taken.push(match port.optional {
                Optional::Default(_) => quote!(::core::option::Option<#inner>),
                _ => ty.clone(),
            });
            patterns.push(v);
        }
        let value = match (&port.optional, with_optional) {
            (Optional::No, _) | (Optional::Option, true) => quote!(#v),
            (Optional::Option, false) => quote!(::core::option::Option::None),
            (Optional::Default(e), true) => {
                quote!(match #v { ::core::option::Option::Some(__v) => __v, ::core::option::Option::None => #e })
            }
            (Optional::Default(e), false) => quote!(#e),
        };
        packed.push(quote!(#private::erase::<#ty>(#value)));
    }
    let (ty, pattern) = match (&taken[..], &patterns[..]) {
        ([ty], [v]) => (quote!(#ty), quote!(#v)),
        (types, names) => (quote!((#(#types),*)), quote!((#(#names),*))),
    };
    quote! {
        impl #impls #private::Inputs<#ty> for #name #types #wheres {
            fn pack(#pattern: #ty) -> ::std::vec::Vec<#private::Value> {
                ::std::vec![#(#packed),*]
            }
        }
    }
}
