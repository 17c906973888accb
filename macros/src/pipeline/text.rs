//! Types as the user wrote them, for messages and drawings.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// `Array![Batch, 2 * Hidden; AudioSignal<16000>]`: tokens without the spaces of the token printer.
pub fn text(tokens: impl ToTokens) -> String {
    let mut out = String::new();
    write(tokens.to_token_stream(), &mut out);
    out
}

fn write(tokens: TokenStream, out: &mut String) {
    let mut after_word = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => (" { ", " }"),
                    Delimiter::None => ("", ""),
                };
                out.push_str(open);
                write(group.stream(), out);
                out.push_str(close);
                after_word = true;
            }
            TokenTree::Punct(p) => {
                match p.as_char() {
                    c @ (',' | ';') => out.extend([c, ' ']),
                    c @ ('+' | '*' | '/' | '=') => {
                        if !out.ends_with([' ', '(', '[', '<']) {
                            out.push(' ');
                        }
                        out.extend([c, ' ']);
                    }
                    // `->`
                    '-' if p.spacing() == Spacing::Joint => out.push_str(" -"),
                    '>' if out.ends_with('-') => out.push_str("> "),
                    '-' => out.push_str(" - "),
                    c => out.push(c),
                }
                after_word = false;
            }
            word => {
                if after_word && !out.ends_with([' ', '(', '[']) {
                    out.push(' ');
                }
                out.push_str(&word.to_string());
                after_word = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn types_read_as_written() {
        for ty in [
            "Array![Batch, 2 * Hidden; AudioSignal<16000>]",
            "Vec<(String, f32)>",
            "std::path::PathBuf",
            "Box<dyn Fn(A) -> B + Send>",
            "Array![Batch; Lengths<A::Frames>]",
            "&'static str",
        ] {
            assert_eq!(text(TokenStream::from_str(ty).expect("tokens")), ty);
        }
    }
}
