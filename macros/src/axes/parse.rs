//! Reading `axes!`. A mistake ends one declaration, not the block.

use super::ast::{Axis, Family, Instance, Item};
use crate::axis_expr::{AxisExpr, is_camel, to_camel};
use crate::errors::{Errors, drain};
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Token, Visibility, braced};

/// Every declaration that could be read.
pub fn items(input: TokenStream, errors: &mut Errors) -> Vec<Item> {
    let parser = |input: ParseStream| {
        let mut items = Vec::new();
        while !input.is_empty() {
            if let Err(e) = item(input, &mut items, errors) {
                errors.push(e);
                recover(input);
            }
        }
        Ok(items)
    };
    parser.parse2(input).unwrap_or_default()
}

/// Skips to the end of the declaration.
fn recover(input: ParseStream) {
    while let Ok(token) = input.parse::<TokenTree>() {
        match token {
            TokenTree::Punct(p) if p.as_char() == ';' => return,
            _ => {}
        }
    }
}

fn item(input: ParseStream, items: &mut Vec<Item>, errors: &mut Errors) -> syn::Result<()> {
    let attrs = input.call(Attribute::parse_outer)?;
    let vis: Visibility = input.parse()?;
    if input.peek(Token![trait]) {
        input.parse::<Token![trait]>()?;
        let name = axis_name(input, "bundle", errors)?;
        if input.peek(Token![:]) {
            return Err(input.error("a bundle has no parents: `pub trait LlamaAxes { Vocab, Hidden }`"));
        }
        let axes = braces(input, errors)?;
        skip_semicolon(input);
        items.push(Item::Family(Family { attrs, vis, name, axes }));
    } else if input.peek(Token![struct]) {
        input.parse::<Token![struct]>()?;
        items.push(Item::Instance(instance_rest(input, attrs, vis, errors)?));
    } else if input.peek(Ident::peek_any) {
        let name = axis_name(input, "axis", errors)?;
        let (size, end) = size_and_end(input, &name);
        items.push(Item::Axis(Axis { attrs, vis, name, size, broken: end.is_err() }));
        end?;
    } else {
        return Err(input.error("expected an axis: `pub Batch;`, `pub Hidden = 128;`, a bundle: `pub trait LlamaAxes { Vocab, Hidden }`, or an instance of one: `pub struct Llama3: LlamaAxes { Vocab = 128256 }`"));
    }
    Ok(())
}

fn skip_semicolon(input: ParseStream) {
    if input.peek(Token![;]) {
        let _ = input.parse::<Token![;]>();
    }
}

/// What follows `struct` in an instance.
pub fn instance_rest(
    input: ParseStream,
    attrs: Vec<Attribute>,
    vis: Visibility,
    errors: &mut Errors,
) -> syn::Result<Instance> {
    let name = axis_name(input, "instance", errors)?;
    if !input.peek(Token![:]) {
        return Err(input.error("an instance names its bundle: `pub struct Llama3: LlamaAxes { Vocab = 128256 }`"));
    }
    input.parse::<Token![:]>()?;
    let family = syn::Path::parse_mod_style(input)?;
    let axes = if input.peek(syn::token::Brace) {
        Some(braces(input, errors)?)
    } else if input.peek(Token![;]) {
        None
    } else {
        return Err(input.error("expected the sizes, `{ Vocab = 128256, .. }`, or `;` to bind them all at run time"));
    };
    skip_semicolon(input);
    Ok(Instance { attrs, vis, name, family, axes })
}

fn axis_name(input: ParseStream, what: &str, errors: &mut Errors) -> syn::Result<Ident> {
    let name = input.call(Ident::parse_any)?;
    if !is_camel(&name) {
        let camel = to_camel(&name.to_string());
        errors.at(
            &name,
            format!("an {what} is a type, written in CamelCase: `{camel}`").replace("an bundle", "a bundle"),
        );
        // The stub is declared under the right name, so that uses of it are not reported too.
        return Ok(Ident::new(if camel.is_empty() { "Unnamed" } else { &camel }, name.span()));
    }
    Ok(name)
}

/// `= expression ;`
fn size_and_end(input: ParseStream, name: &Ident) -> (Option<AxisExpr>, syn::Result<()>) {
    let mut size = None;
    if input.peek(Token![=]) {
        let parsed = input.parse::<Token![=]>().and_then(|_| {
            if input.is_empty() || input.peek(Token![;]) {
                return Err(input
                    .error(format!("expected the size of `{name}` after `=`; without `=` it is bound at run time")));
            }
            input.parse()
        });
        match parsed {
            Ok(e) => size = Some(e),
            Err(e) => return (None, Err(e)),
        }
    }
    if input.peek(Token![;]) {
        let _ = input.parse::<Token![;]>();
        return (size, Ok(()));
    }
    let found = if size.is_some() { "an operator or `;`" } else { "`= size` or `;`" };
    let error = if input.is_empty() {
        syn::Error::new(name.span(), format!("expected {found} after `{name}`"))
    } else {
        input.error(format!("expected {found} after `{name}`"))
    };
    (size, Err(error))
}

/// `{ Vocab, Hidden = 128, }`
pub fn braces(input: ParseStream, errors: &mut Errors) -> syn::Result<Vec<Axis>> {
    let content;
    braced!(content in input);
    let mut axes = Vec::new();
    let result = (|| {
        while !content.is_empty() {
            let attrs = content.call(Attribute::parse_outer)?;
            let vis: Visibility = content.parse()?;
            if !matches!(vis, Visibility::Inherited) {
                errors.at(&vis, "the axes of a bundle are as visible as the bundle; leave this out");
            }
            let name = axis_name(&content, "axis", errors)?;
            let size = if content.peek(Token![=]) {
                content.parse::<Token![=]>()?;
                Some(content.parse()?)
            } else {
                None
            };
            axes.push(Axis { attrs, vis: Visibility::Inherited, name, size, broken: false });
            if content.is_empty() {
                break;
            }
            if !content.peek(Token![,]) && !content.peek(Token![;]) {
                return Err(content.error("expected `,`"));
            }
            content.parse::<TokenTree>()?;
        }
        Ok(())
    })();
    drain(&content);
    result.map(|()| axes)
}
