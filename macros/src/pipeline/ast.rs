//! What `pipeline!` is given.

use super::text::text;
use crate::errors::Errors;
use crate::tensor::TensorType;
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, Expr, GenericArgument, Generics, PathArguments, Type, Visibility};

/// A pipeline.
pub struct Pipeline {
    pub attrs: Vec<Attribute>,
    pub vis: Visibility,
    pub name: Ident,
    pub generics: Generics,
    pub stages: Vec<StageDecl>,
    pub inputs: Vec<Port>,
    pub results: Vec<Port>,
    pub body: Body,
}

/// `features: fn(audio: Array![..]) -> Array![..]`
pub struct StageDecl {
    pub attrs: Vec<Attribute>,
    pub name: Ident,
    pub inputs: Vec<Port>,
    pub results: Vec<Port>,
    /// The signature as it was written.
    pub text: String,
}

/// A port of a stage or of the pipeline.
pub struct Port {
    pub name: Option<Ident>,
    pub carried: Carried,
    pub optional: Optional,
}

/// Whether a port may be left open.
pub enum Optional {
    No,
    /// `Option<T>`: `carried` is `T`.
    Option,
    /// `T = default`.
    Default(Expr),
}

/// A type that an edge carries.
pub struct Carried {
    /// As it was written.
    pub text: String,
    /// With a leading `Array!` expanded.
    pub tokens: TokenStream,
    /// Shape and element, if it was written as `Array![..]`.
    pub array: Option<ArrayType>,
}

pub struct ArrayType {
    pub shape: TokenStream,
    pub element: TokenStream,
    pub shape_text: String,
    pub element_text: String,
}

impl Port {
    /// The type of the port itself.
    pub fn ty(&self) -> TokenStream {
        let inner = &self.carried.tokens;
        match self.optional {
            Optional::Option => quote!(::core::option::Option<#inner>),
            _ => inner.clone(),
        }
    }

    /// The type as it was written.
    pub fn text(&self) -> String {
        match &self.optional {
            Optional::No => self.carried.text.clone(),
            Optional::Option => format!("Option<{}>", self.carried.text),
            Optional::Default(e) => format!("{} = {}", self.carried.text, text(e)),
        }
    }

    pub fn is_optional(&self) -> bool {
        !matches!(self.optional, Optional::No)
    }

    /// Its name, or nothing.
    pub fn name(&self) -> String {
        self.name.as_ref().map_or_else(String::new, ToString::to_string)
    }
}

impl Carried {
    pub fn new(ty: &Type, errors: &mut Errors) -> Carried {
        let text = text(ty);
        let Type::Macro(m) = ty else { return Carried { text, tokens: ty.to_token_stream(), array: None } };
        if m.mac.path.segments.last().is_none_or(|s| s.ident != "Array") {
            if m.mac.path.segments.last().is_some_and(|s| s.ident == "Tensor") {
                errors.at(ty, "stages give each other values, not symbols: write `Array![..]` for `Tensor![..]`");
                // One mistake, one message.
                return Carried { text, tokens: quote!(()), array: None };
            }
            return Carried { text, tokens: ty.to_token_stream(), array: None };
        }
        let mut own = Errors::default();
        let parsed = TensorType::parse(m.mac.tokens.clone(), &mut own);
        if let Err(e) = own.finish() {
            errors.push(e);
        }
        let shape = parsed.shape();
        let element = parsed.element.as_ref().map_or_else(|| quote!(::mobilis::__private::Real), |e| quote!(#e));
        let axes = text_of_axes(&m.mac.tokens);
        let element_text = parsed.element.as_ref().map_or_else(|| "Real".into(), super::text::text);
        let tokens = quote!(::mobilis::__private::Array<#shape, #element>);
        Carried { text, tokens, array: Some(ArrayType { shape, element, shape_text: axes, element_text }) }
    }
}

/// `[Batch, Time]`: what stands before the semicolon.
fn text_of_axes(tokens: &TokenStream) -> String {
    let axes = tokens.clone().into_iter().take_while(|t| t.to_string() != ";").collect::<TokenStream>();
    format!("[{}]", text(axes))
}

/// The `T` of `Option<T>`.
pub fn option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if last.ident == "Option" && arguments.args.len() == 1 => Some(inner),
        _ => None,
    }
}

/// `{ let ..; let ..; result }`
pub struct Body {
    pub lets: Vec<Let>,
    pub results: Vec<Node>,
    /// Where the results stand.
    pub end: proc_macro2::Span,
}

/// `let names = node;`
pub struct Let {
    /// One name, or several in parentheses.
    pub names: Vec<Ident>,
    pub parenthesized: bool,
    pub node: Node,
}

/// What feeds a port.
pub enum Node {
    /// `audio` or `encoded.states`
    Value { name: Ident, field: Option<Ident> },
    /// `encoder(mel, prompt: text)`, or one of the results: `encoder(mel).states`
    Call { stage: Ident, arguments: Vec<Argument>, field: Option<Ident> },
}

impl Node {
    /// The tokens where a mistake is shown.
    pub fn place(&self) -> TokenStream {
        match self {
            Node::Value { name, field: None } => quote!(#name),
            Node::Value { name, field: Some(field) } => quote!(#name.#field),
            Node::Call { stage, .. } => quote!(#stage),
        }
    }
}

/// A port's argument.
pub struct Argument {
    pub port: Option<Ident>,
    pub node: Node,
}
