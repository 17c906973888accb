//! The patterns of `einsum!`, `rearrange!` and `reduce!`: `x[b t (h d)]`, `[b h t d]`.
//!
//! Lower-case names are variables: the compiler finds the axis. Names in CamelCase are axes.
//! Numbers are axes of that size, `_` an axis that nobody needs to name, `( )` a product.

use crate::axis_expr::{AxisPath, const_axis, is_camel, parse_size};
use crate::errors::{Errors, drain};
use crate::tensor::MAX_RANK;
use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::Token;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};

/// One axis in a pattern.
#[derive(Clone)]
pub enum Atom {
    Variable(Ident),
    Axis(AxisPath),
    Size(u64, Span),
    Any(Span),
}

impl Atom {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Atom::Variable(i) => i.span(),
            Atom::Axis(p) => p.last().span(),
            Atom::Size(_, s) | Atom::Any(s) => *s,
        }
    }

    /// How the user wrote it: equal texts mean the same axis.
    pub fn text(&self) -> String {
        match self {
            Atom::Variable(i) => i.to_string(),
            Atom::Axis(p) => p.to_string(),
            Atom::Size(n, _) => n.to_string(),
            Atom::Any(_) => "_".into(),
        }
    }

    /// Whether it is the literal 1.
    pub fn is_one(&self) -> bool {
        matches!(self, Atom::Size(1, _))
    }
}

/// One place in a pattern.
#[derive(Clone)]
pub enum Place {
    One(Atom),
    /// `(h d)`, `(h d) as Hidden`.
    Product {
        atoms: Vec<Atom>,
        name: Option<AxisPath>,
        span: Span,
    },
}

impl Place {
    /// The axes in it.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Place::One(a) => std::slice::from_ref(a),
            Place::Product { atoms, .. } => atoms,
        }
    }
}

/// What stands in one pair of brackets.
#[derive(Clone)]
pub struct Pattern {
    pub places: Vec<Place>,
    pub span: Span,
}

impl Pattern {
    /// Every axis, from left to right, products opened.
    pub fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.places.iter().flat_map(Place::atoms)
    }
}

/// An expression and its pattern.
pub struct Operand {
    pub value: TokenStream,
    pub pattern: Pattern,
}

/// `operand * operand => [pattern]`.
pub struct Equation {
    pub operands: Vec<Operand>,
    pub output: Pattern,
}

/// Reads an equation, noting mistakes; `None` when nothing can be made of it.
pub fn equation(input: TokenStream, example: &str, errors: &mut Errors) -> Option<Equation> {
    let tokens: Vec<TokenTree> = input.into_iter().collect();
    let Some(arrow) = (0..tokens.len()).find(|i| is_arrow(&tokens, *i)) else {
        errors.on(last_span(&tokens), format!("expected `=>` and the pattern of the result: `{example}`"));
        return None;
    };
    let operands = operands(&tokens[..arrow], tokens[arrow].span(), example, errors);
    let output = match &tokens[arrow + 2..] {
        [TokenTree::Group(g)] if g.delimiter() == Delimiter::Bracket => errors.keep(pattern(g)),
        [] => {
            errors.on(tokens[arrow].span(), format!("expected the pattern of the result after `=>`: `{example}`"));
            None
        }
        [first, ..] => {
            let wrong = if matches!(first, TokenTree::Group(g) if g.delimiter() == Delimiter::Bracket) {
                &tokens[arrow + 3]
            } else {
                first
            };
            errors.on(wrong.span(), "after `=>` stands one pattern in brackets: `[b t d]`");
            None
        }
    };
    Some(Equation { operands: operands?, output: output? })
}

fn is_arrow(tokens: &[TokenTree], at: usize) -> bool {
    let punct = |i: usize, c: char| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == c);
    punct(at, '=') && punct(at + 1, '>')
}

fn last_span(tokens: &[TokenTree]) -> Span {
    tokens.last().map_or_else(Span::call_site, TokenTree::span)
}

/// Splits `a[..] * b[..]`: a `*` right after brackets ends an operand.
fn operands(tokens: &[TokenTree], end: Span, example: &str, errors: &mut Errors) -> Option<Vec<Operand>> {
    let is_brackets = |t: &TokenTree| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Bracket);
    let is_star = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == '*');
    let mut parts: Vec<&[TokenTree]> = Vec::new();
    let mut start = 0;
    for i in 1..tokens.len() {
        if is_star(&tokens[i]) && is_brackets(&tokens[i - 1]) {
            parts.push(&tokens[start..i]);
            start = i + 1;
        }
    }
    parts.push(&tokens[start..]);
    let mut found = Some(Vec::new());
    for part in parts {
        let operand = match part {
            [] => {
                errors.on(end, format!("expected an operand with its pattern: `{example}`"));
                None
            }
            [only] if is_brackets(only) => {
                errors.on(only.span(), format!("expected a tensor before this pattern: `{example}`"));
                None
            }
            [value @ .., TokenTree::Group(g)] if g.delimiter() == Delimiter::Bracket => {
                let value: TokenStream = value.iter().cloned().collect();
                let value = errors.keep(syn::parse2::<syn::Expr>(value)).map(ToTokens::into_token_stream);
                let pattern = errors.keep(pattern(g));
                value.zip(pattern).map(|(value, pattern)| Operand { value, pattern })
            }
            other => {
                let all: TokenStream = other.iter().cloned().collect();
                errors.at(all, format!("this operand has no pattern: name its axes in brackets, `{example}`"));
                None
            }
        };
        found = found.zip(operand).map(|(mut all, o)| {
            all.push(o);
            all
        });
    }
    found
}

fn pattern(group: &Group) -> syn::Result<Pattern> {
    let parser = |input: ParseStream| {
        let mut places = Vec::new();
        while !input.is_empty() {
            places.push(place(input)?);
        }
        Ok(places)
    };
    let places = parser.parse2(group.stream())?;
    if places.len() > MAX_RANK {
        return Err(syn::Error::new(
            group.span(),
            format!("a shape has at most {MAX_RANK} axes; this one has {}", places.len()),
        ));
    }
    Ok(Pattern { places, span: group.span() })
}

fn place(input: ParseStream) -> syn::Result<Place> {
    if !input.peek(syn::token::Paren) {
        return Ok(Place::One(atom(input)?));
    }
    let content;
    let paren = syn::parenthesized!(content in input);
    let span = paren.span.join();
    let mut atoms = Vec::new();
    let result = (|| {
        while !content.is_empty() {
            if content.peek(syn::token::Paren) {
                return Err(content.error("a product holds axes, not products: `(h d e)`"));
            }
            atoms.push(atom(&content)?);
        }
        Ok(())
    })();
    drain(&content);
    result?;
    if atoms.is_empty() {
        return Err(syn::Error::new(span, "an empty product; an axis of size 1 is written `1`"));
    }
    let name = if input.peek(Token![as]) {
        input.parse::<Token![as]>()?;
        let path: AxisPath = input.parse()?;
        if !is_camel(path.last()) {
            return Err(syn::Error::new(path.last().span(), "`as` names the merged axis: `(h d) as Hidden`"));
        }
        Some(path)
    } else {
        None
    };
    Ok(Place::Product { atoms, name, span })
}

fn atom(input: ParseStream) -> syn::Result<Atom> {
    if input.peek(syn::LitInt) {
        let (value, span) = parse_size(input)?;
        if value == 0 {
            return Err(syn::Error::new(span, "an axis holds at least one"));
        }
        return Ok(Atom::Size(value, span));
    }
    if input.peek(Token![_]) {
        return Ok(Atom::Any(input.parse::<Token![_]>()?.span));
    }
    if input.peek(Token![,]) {
        return Err(input.error("the axes of a pattern are separated by spaces: `[b t d]`"));
    }
    if input.peek(Token![..]) {
        return Err(input.error("`..` is not known here: name every axis"));
    }
    if input.peek(Ident::peek_any) || input.peek(Token![::]) || input.peek(Token![<]) {
        let path: AxisPath = input.parse()?;
        return match path.simple() {
            Some(name) if !is_camel(name) => Ok(Atom::Variable(name.clone())),
            _ => Ok(Atom::Axis(path)),
        };
    }
    Err(input.error("expected an axis: a variable `b`, an axis `Heads`, a size `2`, `_` or a product `(h d)`"))
}

/// The axes of an equation by what the user calls them, and the type parameter of each.
#[derive(Default)]
pub struct Symbols {
    texts: Vec<String>,
    atoms: Vec<Atom>,
    params: Vec<Option<Ident>>,
}

impl Symbols {
    /// The number of an axis, the same for the same name; every `_` is new.
    pub fn intern(&mut self, atom: &Atom) -> usize {
        let text = atom.text();
        if !matches!(atom, Atom::Any(_))
            && let Some(i) = self.texts.iter().position(|t| *t == text)
        {
            return i;
        }
        let n = self.texts.len();
        let param = match atom {
            Atom::Variable(name) => Some(name.clone()),
            Atom::Axis(path) => {
                let last = path.last();
                let taken = self.params.iter().flatten().any(|p| p == last);
                Some(if taken { format_ident!("{last}_{n}", span = last.span()) } else { last.clone() })
            }
            Atom::Any(span) => Some(Ident::new(&format!("any_{n}"), *span)),
            Atom::Size(..) => None,
        };
        self.texts.push(text);
        self.atoms.push(atom.clone());
        self.params.push(param);
        n
    }

    /// A type parameter for an axis that has no atom of its own: the product at an input's place.
    pub fn fresh(&mut self, span: Span) -> usize {
        self.intern(&Atom::Any(span))
    }

    /// The number of an axis that was met before.
    pub fn find(&self, atom: &Atom) -> Option<usize> {
        let text = atom.text();
        (text != "_").then(|| self.texts.iter().position(|t| *t == text)).flatten()
    }

    /// The names met, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str).filter(|t| *t != "_")
    }

    /// The axis as a type inside the local function.
    pub fn ty(&self, n: usize) -> TokenStream {
        match (&self.atoms[n], &self.params[n]) {
            (Atom::Size(v, s), _) => const_axis(*v, *s),
            (_, p) => p.to_token_stream(),
        }
    }

    /// The type parameters of the local function, each an axis.
    pub fn params(&self) -> TokenStream {
        let params = self.params.iter().flatten();
        quote!(#(#params: ::mobilis::__private::Axis),*)
    }

    /// The arguments for [`params`](Symbols::params): axes by name, `_` for variables. The local
    /// function cannot see the generics around it, so axes are always passed in.
    pub fn arguments(&self) -> TokenStream {
        let arguments = self.params.iter().zip(&self.atoms).filter(|(p, _)| p.is_some()).map(|(_, atom)| match atom {
            Atom::Axis(path) => path.to_token_stream(),
            _ => quote!(_),
        });
        quote!(#(#arguments),*)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn parse(text: &str) -> Result<Equation, Vec<String>> {
        let mut errors = Errors::default();
        let equation = equation(TokenStream::from_str(text).expect("tokens"), "x[b t] => [t b]", &mut errors);
        match errors.finish() {
            Ok(()) => Ok(equation.expect("an equation or a mistake")),
            Err(e) => Err(e.into_iter().map(|e| e.to_string()).collect()),
        }
    }

    #[test]
    fn operands_are_expressions() {
        let e = parse("a * f(b)[0][h d] * c.get()[d (2 x)] => [h A::X]").unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(e.operands.len(), 2);
        assert_eq!(e.operands[0].value.to_string(), "a * f (b) [0]");
        assert_eq!(e.operands[1].pattern.places.len(), 2);
        assert_eq!(e.output.atoms().map(Atom::text).collect::<Vec<_>>(), ["h", "A::X"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("x[b t]", "expected `=>`"),
            ("x => [b]", "no pattern"),
            ("[b] => [b]", "expected a tensor"),
            ("x[b, t] => [b]", "separated by spaces"),
            ("x[b ()] => [b]", "empty product"),
            ("x[b] => b", "one pattern in brackets"),
            ("x[b] => ", "expected the pattern"),
            ("x[b (c (d e))] => [b]", "not products"),
            ("x[..] => [b]", "name every axis"),
            ("x[b 0] => [b]", "at least one"),
            ("x[a b c d e f g h i] => [a]", "at most 8"),
        ] {
            let found = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
        }
    }
}
