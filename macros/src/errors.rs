//! Collecting mistakes: a macro reports all that it finds, not the first.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::parse::ParseStream;

/// The mistakes found so far.
#[derive(Default)]
pub struct Errors(Vec<syn::Error>);

impl Errors {
    /// Notes a mistake at the given tokens.
    pub fn at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new_spanned(tokens, message));
    }

    /// Notes a mistake at the given place.
    pub fn on(&mut self, span: Span, message: impl std::fmt::Display) {
        self.0.push(syn::Error::new(span, message));
    }

    /// Notes a mistake found while parsing.
    pub fn push(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    /// The value, or `None` and a noted mistake.
    pub fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|e| self.0.push(e)).ok()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All mistakes as one error.
    pub fn finish(self) -> syn::Result<()> {
        match self.0.into_iter().reduce(|mut all, e| {
            all.combine(e);
            all
        }) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// `compile_error!` for each mistake; nothing when there is none.
    pub fn into_tokens(self) -> TokenStream {
        self.finish().err().map_or_else(TokenStream::new, |e| e.into_compile_error())
    }
}

/// Consumes what is left, so that a mistake inside brackets is reported once.
pub fn drain(input: ParseStream) {
    while input.parse::<proc_macro2::TokenTree>().is_ok() {}
}

/// The candidate that `word` is most likely a misspelling of.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= 1 + c.len().max(word.len()) / 4 && *d < c.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// `"; did you mean `x`?"`, or nothing.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(word, candidates).map_or_else(String::new, |c| format!("; did you mean `{c}`?"))
}

/// Edits (insert, delete, replace, swap neighbours) between two words
/// (Damerau 1964, optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_suggested_and_strangers_are_not() {
        assert_eq!(did_you_mean("Hiden", ["Hidden", "Heads"]), Some("Hidden"));
        assert_eq!(did_you_mean("maen", ["sum", "mean"]), Some("mean"));
        assert_eq!(did_you_mean("Vocab", ["Hidden", "Heads"]), None);
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "ab"), 2);
    }

    #[test]
    fn all_mistakes_are_reported() {
        let mut errors = Errors::default();
        errors.on(Span::call_site(), "one");
        errors.on(Span::call_site(), "two");
        let all: Vec<String> = errors.finish().expect_err("two mistakes").into_iter().map(|e| e.to_string()).collect();
        assert_eq!(all, ["one", "two"]);
    }
}
