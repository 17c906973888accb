//! The entry points of a module: public methods that take tensors.
//!
//! An entry point runs in its module's scope, so that graph, profile and errors know where a
//! node comes from, and gives its name to the arguments of the traced function. An argument
//! declared with an element becomes a port: it takes that element, a sub-element or the plain
//! base, and inside the method is the declared element again.

use super::signature;
use crate::errors::Errors;
use crate::tensor::{TensorType, as_tensor_macro, is_tensor};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    FnArg, GenericParam, Generics, ImplItem, ImplItemFn, ItemImpl, Pat, ReceiverKind, ReturnType, Safety, Type,
    Visibility,
};

/// The `impl` with its entry points wrapped, and `NeuralModule` if there is a `forward`.
pub fn expand(mut item: ItemImpl, errors: &mut Errors) -> TokenStream {
    if let Some((path, _)) = &item.trait_ {
        errors.at(
            path,
            "this `impl` implements a trait; `#[neural_module]` stands on a struct and on its own `impl`, whose public methods become entry points",
        );
        return item.into_token_stream();
    }
    let mut signatures = TokenStream::new();
    let generics = item.generics.clone();
    let self_ty = item.self_ty.clone();
    for part in &mut item.items {
        let ImplItem::Fn(method) = part else { continue };
        let is_forward = method.sig.ident == "forward";
        if is_forward && !check_forward(method, errors) {
            continue;
        }
        if !(is_forward || is_public(method)) || !takes_shared_self(method) || is_special(method) {
            continue;
        }
        let ports = ports(method, &generics, errors);
        if !method.sig.inputs.iter().any(|a| matches!(a, FnArg::Typed(a) if is_tensor(&a.ty))) {
            continue;
        }
        if is_forward {
            signatures.extend(signature::implementation(&self_ty, &generics, method, &ports, errors));
        }
        wrap(method, &ports);
    }
    quote!(#item #signatures)
}

fn is_public(method: &ImplItemFn) -> bool {
    !matches!(method.vis, Visibility::Inherited)
}

/// `&self`, not `&mut self`, `self` or `self: Box<Self>`.
fn takes_shared_self(method: &ImplItemFn) -> bool {
    method.sig.receiver().is_some_and(|r| matches!(r.kind, ReceiverKind::Reference(_, _, None)))
}

fn is_special(method: &ImplItemFn) -> bool {
    let s = &method.sig;
    s.asyncness.is_some() || matches!(s.safety, Safety::Unsafe(_)) || s.constness.is_some() || s.abi.is_some()
}

fn check_forward(method: &ImplItemFn, errors: &mut Errors) -> bool {
    let sig = &method.sig;
    if !takes_shared_self(method) {
        let place = sig.receiver().map_or_else(|| sig.ident.to_token_stream(), ToTokens::to_token_stream);
        errors
            .at(place, "`forward` takes `&self`: it describes the computation, and parameters change only in training");
        return false;
    }
    if matches!(sig.output, ReturnType::Default) {
        errors.at(&sig.ident, "`forward` returns what the module computes: `-> Tensor![..]`");
        return false;
    }
    true
}

/// A tensor argument.
pub struct Port {
    /// Its place among the arguments after `self`.
    pub index: usize,
    /// `Tensor<(..)` without the element.
    pub shape: TokenStream,
    /// The declared element.
    pub element: Type,
}

/// The arguments whose element is declared with `Tensor![..; Element]`. An element that is a type
/// parameter is the caller's choice already.
fn ports(method: &ImplItemFn, outer: &Generics, errors: &mut Errors) -> Vec<Port> {
    let parameters: Vec<&Ident> = outer
        .params
        .iter()
        .chain(&method.sig.generics.params)
        .filter_map(|p| match p {
            GenericParam::Type(t) => Some(&t.ident),
            _ => None,
        })
        .collect();
    let mut ports = Vec::new();
    for (index, argument) in typed(method).enumerate() {
        let Some(tokens) = as_tensor_macro(&argument.ty) else { continue };
        // Mistakes inside are reported by `Tensor!` itself.
        let mut own = Errors::default();
        let parsed = TensorType::parse(tokens.clone(), &mut own);
        let Some(element) = parsed.element.as_ref().filter(|_| own.is_empty()) else { continue };
        if matches!(element, Type::Path(p) if p.path.get_ident().is_some_and(|i| parameters.contains(&i))) {
            continue;
        }
        if !matches!(&*argument.pat, Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none()) {
            errors.at(&argument.pat, "a port is a plain name: `x: Tensor![..; Element]`");
            continue;
        }
        ports.push(Port { index, shape: parsed.shape(), element: element.clone() });
    }
    ports
}

/// The arguments after `self`.
pub fn typed(method: &ImplItemFn) -> impl Iterator<Item = &syn::PatType> {
    method.sig.inputs.iter().filter_map(|a| match a {
        FnArg::Typed(t) => Some(t),
        FnArg::Receiver(_) => None,
    })
}

fn wrap(method: &mut ImplItemFn, ports: &[Port]) {
    let mut opening = TokenStream::new();
    let mut index = 0;
    for argument in &mut method.sig.inputs {
        let FnArg::Typed(argument) = argument else { continue };
        if let (Pat::Ident(pat), true) = (&mut *argument.pat, is_tensor(&argument.ty)) {
            let name = pat.ident.clone();
            let text = name.to_string().trim_start_matches("r#").to_string();
            opening.extend(quote!(::mobilis::__private::trace::name_argument(#text, #name.raw());));
            if let Some(port) = ports.iter().find(|p| p.index == index) {
                let (shape, element) = (&port.shape, &port.element);
                let mutability = pat.mutability.take();
                opening.extend(quote_spanned!(name.span()=>
                    #[allow(unused_variables)]
                    let #mutability #name: ::mobilis::__private::Tensor<#shape, #element> = #name.port();
                ));
                // At the user's element, where a wrong argument is explained.
                let span = element.to_token_stream().into_iter().next().map_or(name.span(), |t| t.span());
                let port = quote_spanned!(span=> impl ::mobilis::__private::Is<#element>);
                argument.ty = syn::parse_quote!(::mobilis::__private::Tensor<#shape, #port>);
            }
        }
        index += 1;
    }
    let body = &method.block;
    method.block = syn::parse_quote!({
        let __scope = ::mobilis::__private::trace::scope(self);
        #opening
        #body
    });
}
