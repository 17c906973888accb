//! What `elements!` declares, and the mistakes in it.

use crate::axis_expr::{AxisPath, is_camel, to_camel};
use crate::errors::Errors;
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, GenericParam, Generics, Token, Visibility};

/// `pub AudioSignal<const RATE: u32>: Real;`
pub struct Declared {
    pub attrs: Vec<Attribute>,
    pub vis: Visibility,
    pub name: Ident,
    pub generics: Generics,
    pub parent: AxisPath,
}

/// Every declaration that could be read.
pub fn parse(input: TokenStream, errors: &mut Errors) -> Vec<Declared> {
    let parser = |input: ParseStream| {
        let mut items = Vec::new();
        while !input.is_empty() {
            match declared(input, errors) {
                Ok(item) => items.push(item),
                Err(e) => {
                    errors.push(e);
                    while !input.is_empty() && !input.peek(Token![;]) {
                        let _ = input.parse::<TokenTree>();
                    }
                    let _ = input.parse::<Token![;]>();
                }
            }
        }
        Ok(items)
    };
    parser.parse2(input).unwrap_or_default()
}

fn declared(input: ParseStream, errors: &mut Errors) -> syn::Result<Declared> {
    let attrs = input.call(Attribute::parse_outer)?;
    let vis = input.parse()?;
    let mut name = input.call(Ident::parse_any)?;
    if !is_camel(&name) {
        let camel = to_camel(&name.to_string());
        errors.at(&name, format!("an element is a type, written in CamelCase: `{camel}`"));
        name = Ident::new(&camel, name.span());
    }
    let generics: Generics = input.parse()?;
    if !input.peek(Token![:]) {
        return Err(syn::Error::new(
            name.span(),
            format!(
                "`{name}` refines nothing: name `Real`, `Index`, `Mask` or another element, as in `pub {name}: Index;`"
            ),
        ));
    }
    input.parse::<Token![:]>()?;
    let parent = input.parse()?;
    if !input.peek(Token![;]) {
        return Err(input.error(format!("expected `;` after the element `{name}`")));
    }
    input.parse::<Token![;]>()?;
    Ok(Declared { attrs, vis, name, generics, parent })
}

/// Reports names declared twice, circles, and parameters without a meaning.
pub fn validate(items: &[Declared], errors: &mut Errors) {
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().any(|other| other.name == item.name) {
            errors.at(&item.name, format!("the element `{}` is declared twice", item.name));
        }
        let base = match item.parent.to_string().as_str() {
            "f16" | "f32" | "f64" => "Real",
            "i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize" => "Index",
            "bool" => "Mask",
            _ => "",
        };
        if !base.is_empty() {
            errors.at(
                &item.parent,
                format!("an element says what the numbers mean, not how they are stored: refine `{base}`"),
            );
        }
        for param in &item.generics.params {
            match param {
                GenericParam::Type(t) if t.bounds.is_empty() => {
                    errors.at(
                        t,
                        format!(
                            "a parameter needs a bound: `{}: Axis` for an axis, `{}: Element` for an element",
                            t.ident, t.ident
                        ),
                    );
                }
                GenericParam::Lifetime(l) => errors.at(l, "elements have no lifetimes"),
                _ => {}
            }
        }
        // Every circle is reported once, at its first member.
        let mut at = item;
        for _ in 0..items.len() {
            match parent_of(items, at) {
                Some((j, _)) if j == i && first_of_circle(items, i) => {
                    errors.at(&item.parent, format!("`{}` refines itself", item.name));
                    break;
                }
                Some((j, next)) if j != i => at = next,
                _ => break,
            }
        }
    }
}

/// The parent, if it is declared in the same block.
pub fn parent_of<'a>(items: &'a [Declared], item: &Declared) -> Option<(usize, &'a Declared)> {
    if item.parent.path.qself.is_some() || item.parent.path.path.segments.len() != 1 {
        return None;
    }
    items.iter().enumerate().find(|(_, other)| other.name == *item.parent.last())
}

fn first_of_circle(items: &[Declared], start: usize) -> bool {
    let mut at = start;
    while let Some((next, _)) = parent_of(items, &items[at]) {
        if next == start {
            return true;
        }
        if next < start {
            return false;
        }
        at = next;
    }
    false
}

/// Whether following the parents of an element comes to an end.
pub fn ends(items: &[Declared], item: &Declared) -> bool {
    let mut at = item;
    for _ in 0..=items.len() {
        match parent_of(items, at) {
            Some((_, next)) => at = next,
            None => return true,
        }
    }
    false
}
