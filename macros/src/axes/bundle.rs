//! Bundles: a trait of axes, and structs that fix them.
//!
//! A struct may be declared far from its trait, where the trait's list of axes is not in sight.
//! So the trait comes with a hidden macro of the same name, which whoever imports the trait
//! imports too: `pub struct Llama3: LlamaAxes { .. }` becomes `LlamaAxes! { pub struct .. }`,
//! and that macro calls `__bundle!` with the list put in front.

use super::ast::{Axis, Family, Instance};
use super::evaluate::{self, Sizes};
use super::{expand, parse};
use crate::axis_expr::{AxisExpr, Op};
use crate::errors::{Errors, hint};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Visibility;
use syn::parse::{ParseStream, Parser};

/// The trait and its hidden macro.
pub fn family(family: &Family, errors: &mut Errors) -> TokenStream {
    let Family { attrs, vis, name, axes } = family;
    for axis in axes {
        let mut paths = Vec::new();
        axis.size.iter().for_each(|e| e.paths(&mut paths));
        for path in paths {
            if !path.simple().is_some_and(|p| axes.iter().any(|a| a.name == *p)) {
                let hint = hint(
                    &path.to_string(),
                    axes.iter().map(|a| a.name.to_string()).collect::<Vec<_>>().iter().map(String::as_str),
                );
                errors.at(path, format!("`{path}` is not an axis of `{name}`: a default is made of numbers and the bundle's own axes{hint}"));
            }
        }
    }
    let types = axes.iter().map(|a| {
        let (attrs, axis) = (&a.attrs, &a.name);
        let doc = match &a.size {
            Some(e) => format!("Unless an instance says otherwise: `{e}`."),
            None => format!("The axis `{axis}`."),
        };
        let doc = if attrs.iter().any(|a| a.path().is_ident("doc")) && a.size.is_none() {
            quote!()
        } else {
            quote!(#[doc = #doc])
        };
        quote!(#(#attrs)* #doc type #axis: ::mobilis::__private::Axis;)
    });
    let doc = if attrs.iter().any(|a| a.path().is_ident("doc")) {
        quote!()
    } else {
        quote!(#[doc = "The axes of a family of models."])
    };
    let list = axes.iter().map(|a| {
        let axis = &a.name;
        let default = a.size.as_ref().map(|e| quote!(= #e));
        quote!(#axis #default)
    });
    let hidden = format_ident!("__axes_of_{}_{}", name, place(name));
    let (export, reexport) = match vis {
        Visibility::Public(_) => (quote!(#[macro_export]), quote!(pub)),
        other => (quote!(), quote!(#other)),
    };
    quote! {
        #(#attrs)*
        #doc
        #vis trait #name: ::core::marker::Copy + ::core::fmt::Debug + ::core::default::Default + ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#types)*
        }
        #[doc(hidden)]
        #[allow(non_local_definitions, unused_macros)]
        #export
        macro_rules! #hidden {
            ($($instance:tt)*) => { ::mobilis::__private::__bundle! { #name { #(#list),* } $($instance)* } };
        }
        #[doc(hidden)]
        #[allow(unused_imports)]
        #reexport use #hidden as #name;
    }
}

/// What tells two bundles of one name in one crate apart.
fn place(name: &Ident) -> String {
    if !proc_macro::is_available() {
        return "0".into();
    }
    let span = name.span().unwrap();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in span.file().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{:x}_{}_{}", hash & 0xffff_ffff, span.line(), span.column())
}

/// The call of the trait's hidden macro.
pub fn ask_family(instance: &Instance) -> TokenStream {
    let Instance { attrs, vis, name, family, axes } = instance;
    let rest = match axes {
        None => quote!(;),
        Some(axes) => {
            let axes = axes.iter().map(|a| {
                let (attrs, name) = (&a.attrs, &a.name);
                let size = a.size.as_ref().map(|e| quote!(= #e));
                quote!(#(#attrs)* #name #size)
            });
            quote!({ #(#axes),* })
        }
    };
    quote!(#family! { #(#attrs)* #vis struct #name: #family #rest })
}

/// Reads what the hidden macro hands over.
pub fn handed_over(input: TokenStream) -> syn::Result<(Family, Instance)> {
    let parser = |input: ParseStream| {
        // What the trait's declaration says was checked there.
        let mut errors = Errors::default();
        let name: Ident = input.parse()?;
        let axes = parse::braces(input, &mut errors)?;
        let family = Family { attrs: Vec::new(), vis: Visibility::Inherited, name, axes };
        let attrs = input.call(syn::Attribute::parse_outer)?;
        let vis = input.parse()?;
        input.parse::<syn::Token![struct]>()?;
        let instance = parse::instance_rest(input, attrs, vis, &mut errors)?;
        errors.finish()?;
        Ok((family, instance))
    };
    parser.parse2(input)
}

/// The struct of an instance, its axes, and the trait implemented for it.
pub fn instance(family: &Family, instance: &Instance, outer: &Sizes, errors: &mut Errors) -> TokenStream {
    let Instance { attrs, vis, name, family: path, axes: given } = instance;
    let listed = given.as_deref().unwrap_or(&[]);
    evaluate::duplicates(listed.iter(), errors);
    let names: Vec<String> = family.axes.iter().map(|a| a.name.to_string()).collect();
    for axis in listed {
        if !names.contains(&axis.name.to_string()) {
            let hint = hint(&axis.name.to_string(), names.iter().map(String::as_str));
            errors.at(&axis.name, format!("`{}` has no axis `{}`{hint}", family.name, axis.name));
        }
    }
    let mut missing = Vec::new();
    let mut axes = Vec::new();
    for declared in &family.axes {
        let own = listed.iter().find(|a| a.name == declared.name);
        if own.is_none() && declared.size.is_none() && given.is_some() {
            missing.push(format!("`{}`", declared.name));
        }
        let doc = format!("`{}` of [`{name}`].", declared.name);
        let mut attrs = own.map(|a| a.attrs.clone()).unwrap_or_default();
        attrs.push(syn::parse_quote!(#[doc = #doc]));
        axes.push(Axis {
            attrs,
            vis: Visibility::Inherited,
            name: own.map_or_else(|| Ident::new(&declared.name.to_string(), name.span()), |a| a.name.clone()),
            // An axis that is listed without a size is bound at run time, whatever its default.
            size: match own {
                Some(a) => a.size.clone(),
                None => declared.size.clone(),
            },
            broken: own.is_none() && declared.size.is_none() && given.is_some(),
        });
    }
    if !missing.is_empty() {
        errors.at(
            name,
            format!(
                "`{name}` leaves out {} of `{}`; give a size, or the bare name to bind it at run time",
                missing.join(", "),
                family.name
            ),
        );
    }
    let public: Visibility = syn::parse_quote!(pub);
    let all: Vec<&Axis> = axes.iter().collect();
    // The mistakes of a default are the instance's: only there do its axes have sizes.
    let mut inside = Errors::default();
    let sizes = evaluate::sizes(&all, outer, &mut inside);
    let mistakes = !inside.is_empty() || !errors.is_empty();
    for mistake in inside.finish().err().into_iter().flatten() {
        errors.push(located(mistake, family, listed, name));
    }
    let structs = axes.iter().map(|a| expand::axis(a, &public, Some(name), &sizes, mistakes));
    let types = axes.iter().map(|a| {
        let axis = &a.name;
        quote!(type #axis = #axis;)
    });
    let table: String = axes
        .iter()
        .map(|a| format!("\n* `{}`: {}", a.name, expand::described(a.size.as_ref(), sizes.get(&a.name.to_string()))))
        .collect();
    let doc = format!("\nThe axes of this instance of `{}`:\n{table}", family.name);
    let scope = format_ident!("{}Axes", name);
    quote_spanned! {name.span()=>
        #(#attrs)*
        #[doc = #doc]
        #[derive(Clone, Copy, Debug, Default)]
        #[allow(dead_code, non_camel_case_types)]
        #vis struct #name;
        // A constant's body sees the names around it, which a module's would not, and lends its
        // name to the paths of the types declared in it.
        #[doc(hidden)]
        #[allow(dead_code, non_upper_case_globals, non_local_definitions)]
        const #scope: () = {
            #(#structs)*
            impl #path for #name {
                #(#types)*
            }
        };
    }
}

/// A mistake in an inherited default is shown at the instance, which the user is writing.
fn located(mistake: syn::Error, family: &Family, listed: &[Axis], name: &Ident) -> syn::Error {
    let text = mistake.to_string();
    let inherited = family.axes.iter().find_map(|a| {
        let size = a.size.as_ref()?;
        (text.starts_with(&format!("`{size}`")) && !listed.iter().any(|l| l.name == a.name)).then_some((a, size))
    });
    let Some((axis, size)) = inherited else { return mistake };
    let words = match size {
        AxisExpr::Binary { op: Op::Div, left, right, .. } if text.contains("bound at run time") => {
            let product = left.to_string();
            let list = family.axes.iter().map(|a| match a.name.to_string() {
                n if n == product => format!("{n} = {right} * {}", axis.name),
                n => n,
            });
            format!(
                "`{name}` leaves sizes to run time, where the default `{} = {size}` cannot be known to be exact; declare the product instead: `{name}: {} {{ {} }}`",
                axis.name,
                family.name,
                list.collect::<Vec<_>>().join(", ")
            )
        }
        _ => format!("`{name}` takes over the default `{} = {size}`, but {text}", axis.name),
    };
    syn::Error::new(name.span(), words)
}
