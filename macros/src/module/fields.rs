//! What the fields of a module are.

use crate::errors::{Errors, did_you_mean};
use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Fields, LitStr, Member, Token, Type};

/// What a field is to the visitor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A parameter, a module, a number: what its type says.
    Member,
    /// Shown with `Debug`.
    Hyper,
    /// Not shown.
    Skip,
}

/// One field.
pub struct Field {
    /// `self.name` or `self.0`.
    pub member: Member,
    pub ty: Type,
    /// The name in checkpoints.
    pub name: String,
    pub name_span: Span,
    pub role: Role,
    pub default: Option<Expr>,
    pub init: Option<Expr>,
    pub ties: Vec<Tie>,
    /// `#[cfg]` attributes.
    pub conditions: Vec<Attribute>,
}

/// `#[tie(weight = embed.weight)]`: this field's `weight` is the field `embed`'s.
pub struct Tie {
    pub target: Vec<Member>,
    pub source: Vec<Member>,
}

/// The attributes of fields.
const KNOWN: [&str; 6] = ["hyper", "skip", "default", "init", "name", "tie"];

/// What other frameworks, and other crates, call them.
const SYNONYMS: [(&str, &str); 10] = [
    ("rename", "name"),
    ("key", "name"),
    ("ignore", "skip"),
    ("ignored", "skip"),
    ("constant", "hyper"),
    ("config", "hyper"),
    ("hyperparameter", "hyper"),
    ("initializer", "init"),
    ("initialize", "init"),
    ("tied", "tie"),
];

/// Reads the fields and removes the attributes that are ours.
pub fn read(fields: &mut Fields, errors: &mut Errors) -> Vec<Field> {
    let all = fields.iter_mut().enumerate().map(|(i, f)| field(i, f, errors)).collect::<Vec<_>>();
    validate(&all, errors);
    all
}

fn field(index: usize, field: &mut syn::Field, errors: &mut Errors) -> Field {
    let span = field.ident.as_ref().map_or_else(|| first_span(&field.ty), Ident::span);
    let mut read = Field {
        member: field
            .ident
            .clone()
            .map_or_else(|| Member::Unnamed(syn::Index { index: index as u32, span }), Member::Named),
        ty: field.ty.clone(),
        name: field
            .ident
            .as_ref()
            .map_or_else(|| index.to_string(), |i| i.to_string().trim_start_matches("r#").to_string()),
        name_span: span,
        role: Role::Member,
        default: None,
        init: None,
        ties: Vec::new(),
        conditions: field.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect(),
    };
    field.attrs.retain(|attr| {
        let Some(name) = attr.path().get_ident().map(ToString::to_string) else { return true };
        if KNOWN.contains(&name.as_str()) {
            let result = ours(&name, attr, &mut read);
            errors.keep(result);
            return false;
        }
        const BUILT_IN: [&str; 8] = ["doc", "cfg", "cfg_attr", "allow", "warn", "deny", "expect", "forbid"];
        if BUILT_IN.contains(&name.as_str()) {
            return true;
        }
        let meant = SYNONYMS.iter().find(|(s, _)| *s == name).map(|(_, k)| *k).or_else(|| did_you_mean(&name, KNOWN));
        match meant {
            Some(meant) => {
                errors.at(
                    attr.path(),
                    format!("`#[{name}]` is not an attribute of a module's field; did you mean `{meant}`?"),
                );
                false
            }
            // Perhaps a derive's; the compiler knows.
            None => true,
        }
    });
    read
}

fn first_span(tokens: impl ToTokens) -> Span {
    tokens.to_token_stream().into_iter().next().map_or_else(Span::call_site, |t| t.span())
}

fn ours(name: &str, attr: &Attribute, field: &mut Field) -> syn::Result<()> {
    let error = |message: &str| Err(syn::Error::new_spanned(attr, message));
    match name {
        "hyper" | "skip" => {
            if !matches!(attr.meta, syn::Meta::Path(_)) {
                return error(&format!("`#[{name}]` takes no arguments"));
            }
            if field.role != Role::Member {
                return error(
                    "a field is not both `#[hyper]` (shown) and `#[skip]` (not shown), nor one of them twice",
                );
            }
            field.role = if name == "hyper" { Role::Hyper } else { Role::Skip };
        }
        "default" | "init" => {
            let example = if name == "init" { "#[init(normal(0.02))]" } else { "#[default(0.1)]" };
            let Ok(expr) = attr.parse_args::<Expr>() else {
                return error(&format!("`#[{name}]` takes one expression: `{example}`"));
            };
            let slot = if name == "init" { &mut field.init } else { &mut field.default };
            if slot.replace(expr).is_some() {
                return error(&format!("`#[{name}]` is given twice"));
            }
        }
        "name" => {
            let Ok(text) = attr.parse_args::<LitStr>() else {
                return error("the name in checkpoints stands in quotes: `#[name(\"self_attn.q_proj\")]`");
            };
            let value = text.value();
            if value.is_empty() || value.split('.').any(|p| p.is_empty() || p.chars().any(char::is_whitespace)) {
                return Err(syn::Error::new(
                    text.span(),
                    "a name has non-empty parts between dots, without spaces: `self_attn.q_proj`",
                ));
            }
            field.name = value;
            field.name_span = text.span();
        }
        _ => {
            let Ok(ties) = attr.parse_args_with(Punctuated::<Tie, Token![,]>::parse_terminated) else {
                return error(
                    "a tie names this field's part and its source: `#[tie(weight = embed.weight)]`, or the source alone where this field is a parameter: `#[tie(embed.weight)]`",
                );
            };
            field.ties.extend(ties);
        }
    }
    Ok(())
}

impl Parse for Tie {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let first = place(input)?;
        if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            return Ok(Tie { target: first, source: place(input)? });
        }
        Ok(Tie { target: Vec::new(), source: first })
    }
}

fn place(input: ParseStream) -> syn::Result<Vec<Member>> {
    let members = Punctuated::<Member, Token![.]>::parse_separated_nonempty(input)?;
    Ok(members.into_iter().collect())
}

fn validate(fields: &[Field], errors: &mut Errors) {
    for (i, field) in fields.iter().enumerate().filter(|(_, f)| f.role != Role::Skip) {
        let earlier = fields[..i].iter().find(|other| {
            // Fields under a condition may exclude each other.
            other.role != Role::Skip
                && other.name == field.name
                && other.conditions.is_empty()
                && field.conditions.is_empty()
        });
        if let Some(other) = earlier {
            errors.on(
                field.name_span,
                format!(
                    "a parameter named twice: `{}` is already the name of the field `{}`",
                    field.name,
                    shown(&other.member)
                ),
            );
        }
    }
    for field in fields {
        for tie in &field.ties {
            let first = &tie.source[0];
            let names: Vec<String> = fields.iter().map(|f| shown(&f.member)).collect();
            if *first == field.member {
                errors.at(first, "a field is tied to another field, not to itself");
            } else if !fields.iter().any(|f| f.member == *first) {
                let hint = crate::errors::hint(&shown(first), names.iter().map(String::as_str));
                errors.at(first, format!("there is no field `{}` to tie to{hint}", shown(first)));
            }
        }
    }
}

/// A member as text.
pub fn shown(member: &Member) -> String {
    match member {
        Member::Named(i) => i.to_string(),
        Member::Unnamed(i) => i.index.to_string(),
    }
}
