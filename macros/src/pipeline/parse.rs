//! Reading `pipeline!`.

use super::ast::{Argument, Body, Carried, Let, Node, Optional, Pipeline, Port, StageDecl, option};
use super::text::text;
use crate::errors::Errors;
use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Expr, Generics, Lit, Token, Type, Visibility, braced, parenthesized};

/// The most ports that a stage has.
const PORTS: usize = 8;

/// The pipeline, or nothing and a noted mistake.
pub fn pipeline(input: TokenStream, errors: &mut Errors) -> Option<Pipeline> {
    let mut own = Errors::default();
    let parsed = (|input: ParseStream| whole(input, &mut own)).parse2(input);
    if let Err(e) = own.finish() {
        errors.push(e);
    }
    errors.keep(parsed)
}

fn whole(input: ParseStream, errors: &mut Errors) -> syn::Result<Pipeline> {
    let attrs = input.call(Attribute::parse_outer)?;
    let vis: Visibility = input.parse()?;
    if !input.peek(Token![struct]) {
        return Err(
            input.error("a pipeline starts with its stages: `pub struct Listen { decode: fn(PathBuf) -> Audio, .. }`")
        );
    }
    input.parse::<Token![struct]>()?;
    let name: Ident = input.parse()?;
    let mut generics: Generics = input.parse()?;
    generics.where_clause = input.parse()?;
    if let Some(lifetime) = generics.lifetimes().next() {
        errors.at(lifetime, "a pipeline borrows nothing: its stages run on threads of their own");
    }
    let inner;
    braced!(inner in input);
    let mut stages = vec![];
    while !inner.is_empty() {
        let stage = stage(&inner, errors)?;
        // One mistake, one message: the second is as if it were not there.
        if stages.iter().any(|s: &StageDecl| s.name == stage.name) {
            errors.at(&stage.name, format!("two stages are named `{}`", stage.name));
        } else {
            stages.push(stage);
        }
        if inner.is_empty() {
            break;
        }
        inner.parse::<Token![,]>()?;
    }
    if input.is_empty() {
        return Err(syn::Error::new(
            name.span(),
            format!(
                "`{name}` does not say how its stages are joined: after the struct comes `fn run(input: Type) -> Type {{ .. }}`"
            ),
        ));
    }
    if input.peek(Token![async]) {
        return Err(input.error("`run` is not `async`: it says how stages are joined; `stream` lets them overlap"));
    }
    input.parse::<Token![fn]>()?;
    let run: Ident = input.parse()?;
    if run != "run" {
        errors.at(&run, format!("a pipeline has one function, `run`, and this is `{run}`"));
    }
    let inputs = ports(input, "an input", errors)?;
    for port in inputs.iter().filter(|p| p.name.is_none()) {
        errors.at(&port.carried.tokens, format!("name this input: `audio: {}`", port.carried.text));
    }
    let results = results(input, errors)?;
    let body = body(input)?;
    if !input.is_empty() {
        return Err(input.error("nothing follows the body of `run`"));
    }
    Ok(Pipeline { attrs, vis, name, generics, stages, inputs, results, body })
}

fn stage(input: ParseStream, errors: &mut Errors) -> syn::Result<StageDecl> {
    let attrs = input.call(Attribute::parse_outer)?;
    let name: Ident = input.parse()?;
    input.parse::<Token![:]>()?;
    if !input.peek(Token![fn]) {
        return Err(input.error(format!(
            "a stage is declared by what it takes and gives: `{name}: fn(Input) -> Output`; any stage of that signature can be put there"
        )));
    }
    let keyword: Token![fn] = input.parse()?;
    let inputs = ports(input, "a stage", errors)?;
    let results = results(input, errors)?;
    let all = |ports: &[Port]| {
        ports
            .iter()
            .map(|p| match &p.name {
                Some(name) => format!("{name}: {}", p.text()),
                None => p.text(),
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let given = match &results[..] {
        [one] if one.name.is_none() => one.text(),
        _ => format!("({})", all(&results)),
    };
    let text = format!("{}({}) -> {given}", text(keyword), all(&inputs));
    Ok(StageDecl { attrs, name, inputs, results, text })
}

/// `(name: Type = default, ..)`
fn ports(input: ParseStream, whose: &str, errors: &mut Errors) -> syn::Result<Vec<Port>> {
    let inner;
    parenthesized!(inner in input);
    let mut ports = vec![];
    while !inner.is_empty() {
        ports.push(port(&inner, errors)?);
        if inner.is_empty() {
            break;
        }
        inner.parse::<Token![,]>()?;
    }
    check(&mut ports, whose, errors);
    Ok(ports)
}

fn check(ports: &mut Vec<Port>, whose: &str, errors: &mut Errors) {
    if let Some(port) = ports.get(PORTS) {
        errors.at(&port.carried.tokens, format!("{whose} has at most {PORTS} ports: put some into a struct"));
        ports.truncate(PORTS);
    }
    for (i, port) in ports.iter().enumerate() {
        let Some(name) = &port.name else { continue };
        if ports[..i].iter().any(|p| p.name.as_ref() == Some(name)) {
            errors.at(name, format!("two ports are named `{name}`"));
        }
    }
}

fn port(input: ParseStream, errors: &mut Errors) -> syn::Result<Port> {
    let named = input.peek(Ident::peek_any) && input.peek2(Token![:]) && !input.peek2(Token![::]);
    let name = if named {
        let name = input.parse()?;
        input.parse::<Token![:]>()?;
        Some(name)
    } else {
        None
    };
    if input.peek(Token![self]) || input.peek(Token![&]) && input.peek2(Token![self]) {
        return Err(input.error("`run` has no `self`: it calls stages by their names"));
    }
    let mut ty: Type = input.parse()?;
    let wrong = match &ty {
        Type::Reference(r) => Some((r.and_token.span, "stages own what they are given: write the type without `&`")),
        Type::ImplTrait(i) => {
            Some((i.impl_token.span, "a port has one type: write which, or a parameter of the struct"))
        }
        _ => None,
    };
    if let Some((span, words)) = wrong {
        errors.on(span, words);
        // One mistake, one message.
        ty = syn::parse_quote!(());
    }
    let optional = if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        Optional::Default(input.parse::<Expr>()?)
    } else if option(&ty).is_some() {
        Optional::Option
    } else {
        Optional::No
    };
    let carried = match (&optional, option(&ty)) {
        (Optional::Option, Some(inner)) => Carried::new(inner, errors),
        _ => Carried::new(&ty, errors),
    };
    Ok(Port { name, carried, optional })
}

/// `-> Type` or `-> (name: Type, ..)`
fn results(input: ParseStream, errors: &mut Errors) -> syn::Result<Vec<Port>> {
    if !input.peek(Token![->]) {
        return Err(input.error("say what comes out: `-> Type`, or `-> (name: Type, other: Type)`"));
    }
    input.parse::<Token![->]>()?;
    let ahead = input.fork();
    let several = (|| {
        let inner;
        parenthesized!(inner in ahead);
        let mut own = Errors::default();
        let mut ports = vec![];
        while !inner.is_empty() {
            ports.push(port(&inner, &mut own)?);
            if inner.is_empty() {
                break;
            }
            inner.parse::<Token![,]>()?;
        }
        Ok::<_, syn::Error>((ports, own))
    })();
    // A tuple without names is one value.
    if let Ok((mut ports, own)) = several
        && !ports.is_empty()
        && ports.iter().all(|p| p.name.is_some())
    {
        input.advance_to(&ahead);
        if let Err(e) = own.finish() {
            errors.push(e);
        }
        check(&mut ports, "a result", errors);
        for port in &ports {
            if let Optional::Default(e) = &port.optional {
                errors.at(e, "a result has no default: it always comes");
            }
        }
        return Ok(ports);
    }
    let ty: Type = input.parse()?;
    let (optional, carried) = match option(&ty) {
        Some(inner) => (Optional::Option, Carried::new(inner, errors)),
        None => (Optional::No, Carried::new(&ty, errors)),
    };
    Ok(vec![Port { name: None, carried, optional }])
}

fn body(input: ParseStream) -> syn::Result<Body> {
    let inner;
    let brace = braced!(inner in input);
    let mut lets = vec![];
    while inner.peek(Token![let]) {
        inner.parse::<Token![let]>()?;
        let (names, parenthesized) = if inner.peek(syn::token::Paren) {
            let names;
            parenthesized!(names in inner);
            (names.parse_terminated(name, Token![,])?.into_iter().collect(), true)
        } else {
            (vec![name(&inner)?], false)
        };
        inner.parse::<Token![=]>()?;
        let node = node(&inner)?;
        inner.parse::<Token![;]>()?;
        lets.push(Let { names, parenthesized, node });
    }
    let end = brace.span.close();
    if inner.is_empty() {
        return Err(syn::Error::new(
            end,
            "the body ends with what the pipeline gives: a value, a call of a stage, or several in parentheses",
        ));
    }
    let end = inner.span();
    let results = if inner.peek(syn::token::Paren) {
        let several;
        parenthesized!(several in inner);
        several.parse_terminated(node, Token![,])?.into_iter().collect()
    } else {
        vec![node(&inner)?]
    };
    if !inner.is_empty() {
        return Err(inner.error("the body holds `let name = stage(value);` and at its end what the pipeline gives"));
    }
    Ok(Body { lets, results, end })
}

/// A name or `_`.
fn name(input: ParseStream) -> syn::Result<Ident> {
    input.call(Ident::parse_any)
}

fn node(input: ParseStream) -> syn::Result<Node> {
    let name: Ident = match input.parse() {
        Ok(name) => name,
        Err(e) => {
            let more = if input.peek(Lit) { "; what is always the same is a port's default" } else { "" };
            let words = format!("expected a value or a call of a stage: computing is for stages{more}");
            return Err(syn::Error::new(e.span(), words));
        }
    };
    if !input.peek(syn::token::Paren) {
        return Ok(Node::Value { name, field: field(input)? });
    }
    let inner;
    parenthesized!(inner in input);
    let mut arguments = vec![];
    while !inner.is_empty() {
        let named = inner.peek(Ident::peek_any) && inner.peek2(Token![:]) && !inner.peek2(Token![::]);
        let port = if named {
            let port = inner.parse()?;
            inner.parse::<Token![:]>()?;
            Some(port)
        } else {
            None
        };
        arguments.push(Argument { port, node: node(&inner)? });
        if inner.is_empty() {
            break;
        }
        inner.parse::<Token![,]>()?;
    }
    Ok(Node::Call { stage: name, arguments, field: field(input)? })
}

/// The name of one of several results, and nothing behind it.
fn field(input: ParseStream) -> syn::Result<Option<Ident>> {
    let mut field = None;
    if input.peek(Token![.]) {
        input.parse::<Token![.]>()?;
        field = Some(input.parse()?);
    }
    if input.peek(Token![?]) {
        return Err(input.error("leave out `?`: a stage's error ends the item by itself"));
    }
    if field.is_some() && (input.peek(syn::token::Paren) || input.peek(Token![.])) {
        return Err(input.error("methods are computing, which is for stages: declare one that does it"));
    }
    Ok(field)
}
