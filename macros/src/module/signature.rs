//! `NeuralModule<In>` from the signature of `forward`.

use super::methods::{Port, typed};
use crate::errors::Errors;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::visit_mut::VisitMut;
use syn::{GenericParam, Generics, ImplItemFn, Lifetime, LifetimeParam, ReturnType, Type, TypeParam};

/// The implementation, or nothing and a noted mistake.
pub fn implementation(
    self_ty: &Type,
    outer: &Generics,
    method: &ImplItemFn,
    ports: &[Port],
    errors: &mut Errors,
) -> TokenStream {
    let ReturnType::Type(_, output) = &method.sig.output else { return TokenStream::new() };
    if matches!(**output, Type::ImplTrait(_)) {
        errors.at(output, "name the type that `forward` returns: modules are joined by it");
        return TokenStream::new();
    }
    let mut rewriter = Rewriter { lifetimes: 0, hidden: 0, params: Vec::new() };
    let mut inputs = Vec::new();
    for (index, argument) in typed(method).enumerate() {
        if let Some(port) = ports.iter().find(|p| p.index == index) {
            let (shape, element) = (&port.shape, &port.element);
            let name = format_ident!("__E{index}");
            let param: TypeParam = syn::parse_quote!(#name: ::mobilis::__private::Is<#element>);
            rewriter.params.push(GenericParam::Type(param));
            inputs.push(quote!(::mobilis::__private::Tensor<#shape, #name>));
            continue;
        }
        let mut ty = (*argument.ty).clone();
        rewriter.visit_type_mut(&mut ty);
        inputs.push(ty.to_token_stream());
    }
    let mut borrows = Borrows(None);
    borrows.visit_type_mut(&mut output.clone());
    if let Some(span) = borrows.0 {
        errors.on(span, "`forward` returns a borrow without a name; return tensors, which are copied freely");
        return TokenStream::new();
    }
    if !determined(self_ty, outer, method, &inputs, errors) {
        return TokenStream::new();
    }
    let mut generics = outer.clone();
    generics.params.extend(method.sig.generics.params.iter().cloned());
    generics.params.extend(rewriter.params);
    if let Some(clause) = &method.sig.generics.where_clause {
        generics.make_where_clause().predicates.extend(clause.predicates.iter().cloned());
    }
    // Lifetimes come first in a list of parameters.
    let (first, rest): (Vec<_>, Vec<_>) =
        generics.params.into_iter().partition(|p| matches!(p, GenericParam::Lifetime(_)));
    generics.params = first.into_iter().chain(rest).collect();
    generics.lt_token = Some(Default::default());
    generics.gt_token = Some(Default::default());
    let (impls, _, wheres) = generics.split_for_impl();
    let (input, call) = match inputs.as_slice() {
        [one] => (one.clone(), quote!(self.forward(input))),
        all => {
            let numbers = (0..all.len()).map(syn::Index::from);
            (quote!((#(#all,)*)), quote!(self.forward(#(input.#numbers),*)))
        }
    };
    let conditions = method.attrs.iter().filter(|a| a.path().is_ident("cfg"));
    quote! {
        #(#conditions)*
        impl #impls ::mobilis::__private::NeuralModule<#input> for #self_ty #wheres {
            type Output = #output;
            #[inline]
            fn call(&self, input: #input) -> Self::Output {
                #call
            }
        }
    }
}

/// Whether the inputs determine every type parameter of `forward`. The others could not be found
/// from `In`, so there is no `NeuralModule<In>`.
fn determined(
    self_ty: &Type,
    outer: &Generics,
    method: &ImplItemFn,
    inputs: &[TokenStream],
    errors: &mut Errors,
) -> bool {
    let mut names = Vec::new();
    for tokens in inputs.iter().cloned().chain([self_ty.to_token_stream()]) {
        identifiers(tokens, &mut names);
    }
    let mut all = true;
    for param in outer.params.iter().chain(&method.sig.generics.params) {
        let (name, kind) = match param {
            GenericParam::Type(t) => (&t.ident, "type"),
            GenericParam::Const(c) => (&c.ident, "constant"),
            GenericParam::Lifetime(_) => continue,
        };
        if !names.contains(&name.to_string()) {
            errors.at(
                name,
                format!(
                    "the {kind} `{name}` does not stand in an argument of `forward`, so the input alone does not say what the module does: make `{name}` a parameter of the struct, or name the method otherwise (`apply`)"
                ),
            );
            all = false;
        }
    }
    all
}

fn identifiers(tokens: TokenStream, out: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(i) => out.push(i.to_string()),
            TokenTree::Group(g) => identifiers(g.stream(), out),
            _ => {}
        }
    }
}

/// Gives names to what a method's arguments may leave unnamed and an `impl` may not: lifetimes
/// and `impl Trait`.
struct Rewriter {
    lifetimes: usize,
    hidden: usize,
    params: Vec<GenericParam>,
}

impl Rewriter {
    fn lifetime(&mut self) -> Lifetime {
        let lifetime = Lifetime::new(&format!("'__l{}", self.lifetimes), Span::call_site());
        self.lifetimes += 1;
        self.params.push(GenericParam::Lifetime(LifetimeParam::new(lifetime.clone())));
        lifetime
    }
}

impl VisitMut for Rewriter {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(hidden) = ty {
            let name: Ident = format_ident!("__I{}", self.hidden);
            self.hidden += 1;
            let bounds = &hidden.bounds;
            self.params.push(GenericParam::Type(syn::parse_quote!(#name: #bounds)));
            *ty = syn::parse_quote!(#name);
            return;
        }
        syn::visit_mut::visit_type_mut(self, ty);
    }
    fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
        if reference.lifetime.is_none() {
            reference.lifetime = Some(self.lifetime());
        }
        syn::visit_mut::visit_type_reference_mut(self, reference);
    }
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = self.lifetime();
        }
    }
}

/// Finds a lifetime without a name.
struct Borrows(Option<Span>);

impl VisitMut for Borrows {
    fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
        if reference.lifetime.is_none() {
            self.0 = Some(reference.and_token.spans[0]);
        }
        syn::visit_mut::visit_type_reference_mut(self, reference);
    }
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            self.0 = Some(lifetime.span());
        }
    }
}
