//! Writing the types of `axes!`.

use super::ast::{Axis, Item};
use super::bundle;
use super::evaluate::{Size, Sizes};
use crate::axis_expr::{AxisExpr, Op};
use crate::errors::Errors;
use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use std::collections::BTreeSet;
use syn::{Attribute, Visibility};

/// All items of a block.
pub fn items(items: &[Item], sizes: &Sizes, errors: &mut Errors) -> TokenStream {
    let mut out = TokenStream::new();
    let mut seen = BTreeSet::new();
    for item in items {
        match item {
            // The second of two axes of one name has been reported.
            Item::Axis(a) if seen.insert(a.name.to_string()) => {
                out.extend(axis(a, &a.vis, None, sizes, !errors.is_empty()));
            }
            Item::Axis(_) => {}
            Item::Family(f) => out.extend(bundle::family(f, errors)),
            Item::Instance(i) => {
                let family = items.iter().find_map(|other| match other {
                    Item::Family(f) if i.family.is_ident(&f.name) => Some(f),
                    _ => None,
                });
                out.extend(match family {
                    Some(f) => bundle::instance(f, i, sizes, errors),
                    None => bundle::ask_family(i),
                });
            }
        }
    }
    out
}

/// The attributes that decide whether an item exists.
fn conditions(attrs: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attrs.iter().filter(|a| a.path().is_ident("cfg"))
}

/// What the documentation says of an axis's size.
pub fn described(size: Option<&AxisExpr>, value: Size) -> String {
    match (size, value) {
        (None, _) => "Size: bound at run time.".into(),
        (Some(AxisExpr::Int { value, .. }), _) => format!("Size: {value}."),
        (Some(e), Size::Static(n)) => format!("Size: `{e}` = {n}."),
        (Some(e), _) => format!("Size: `{e}`."),
    }
}

/// The struct of one axis and what it implements. `owner` is the instance of a bundle that it
/// belongs to. When the block has mistakes, an axis that could not be computed is declared as if
/// bound at run time, so that its users are not reported as well.
pub fn axis(axis: &Axis, vis: &Visibility, owner: Option<&Ident>, sizes: &Sizes, mistakes: bool) -> TokenStream {
    let Axis { attrs, name, .. } = axis;
    let value = sizes.get(&name.to_string());
    let size = axis.size.as_ref().filter(|_| !(mistakes && value == Size::Unknown));
    let cfg: Vec<_> = conditions(attrs).collect();
    let text = name.to_string();
    let path = owner.map_or_else(|| format!("::{name}@"), |o| format!("::{o}::{name}@"));
    let doc = described(size, value);
    let doc = if attrs.iter().any(|a| a.path().is_ident("doc")) {
        quote!(#[doc = ""] #[doc = #doc])
    } else {
        quote!(#[doc = #doc])
    };
    let span = name.span();
    // What this macro could not compute is computed by a constant that size and print depend on.
    let (guard, checked) = match size {
        Some(e) if value == Size::Unknown => (guard(name, e, &cfg), quote!(let () = Self::CHECKED;)),
        _ => (TokenStream::new(), TokenStream::new()),
    };
    let body = match size {
        None => quote! {
            const PRINT: ::mobilis::__private::Print = ::mobilis::__private::symbol_print(Self::PATH);
            const SIZE: ::core::option::Option<u64> = ::core::option::Option::None;
            fn extent() -> ::mobilis::__private::Extent {
                ::mobilis::__private::Extent::symbol(Self::NAME, Self::PATH, Self::PRINT)
            }
        },
        Some(e) => {
            let ty = if checked.is_empty() { e.to_type() } else { e.to_checked_type() };
            quote! {
                const PRINT: ::mobilis::__private::Print = { #checked <#ty as ::mobilis::__private::Axis>::PRINT };
                const SIZE: ::core::option::Option<u64> = { #checked <#ty as ::mobilis::__private::Axis>::SIZE };
                fn extent() -> ::mobilis::__private::Extent {
                    <#ty as ::mobilis::__private::Axis>::extent()
                }
            }
        }
    };
    quote_spanned! {span=>
        #(#attrs)*
        #doc
        #[derive(Clone, Copy, Debug, Default)]
        #[allow(dead_code)]
        #vis struct #name;
        #(#cfg)*
        #[diagnostic::do_not_recommend]
        impl ::mobilis::__private::Axis for #name {
            const AXIS: Self = #name;
            const NAME: &'static str = #text;
            const PATH: &'static str = ::core::concat!(::core::module_path!(), #path, ::core::line!(), ":", ::core::column!());
            #body
        }
        #guard
    }
}

/// A constant that computes what this macro could not, so that `cargo check` finds a remainder, a
/// negative difference or a size of zero, once. Inner relations come first.
fn guard(name: &Ident, size: &AxisExpr, cfg: &[&Attribute]) -> TokenStream {
    let mut relations = Vec::new();
    inner(size, &mut relations);
    let checks = relations.iter().filter_map(|expr| {
        let AxisExpr::Binary { op, left, right, .. } = expr else { return None };
        let check = match op {
            Op::Sub => "difference",
            Op::Div => "exact",
            _ => return None,
        };
        let (l, r, check) = (left.to_checked_type(), right.to_checked_type(), Ident::new(check, expr.span()));
        let text = expr.to_string();
        Some(quote_spanned!(expr.span()=> ::mobilis::__private::#check::<#l, #r>(#text);))
    });
    let (ty, text) = (size.to_checked_type(), name.to_string());
    let whole = quote_spanned!(name.span()=> ::mobilis::__private::holds_one::<#ty>(#text););
    quote_spanned! {name.span()=>
        #(#cfg)*
        impl #name {
            const CHECKED: () = { #(#checks)* #whole };
        }
    }
}

fn inner<'a>(expr: &'a AxisExpr, out: &mut Vec<&'a AxisExpr>) {
    if let AxisExpr::Binary { left, right, .. } = expr {
        inner(left, out);
        inner(right, out);
        out.push(expr);
    }
}
