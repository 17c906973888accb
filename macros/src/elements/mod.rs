//! `elements!`: declaring what the numbers of a tensor mean.
//!
//! `pub MelSpectrogram: Spectrogram;` declares a struct, [`Element`] for it, and which ports it
//! may enter: its own, each ancestor's, and, as plain base, those of its refinements.
//!
//! [`Element`]: https://docs.rs/mobilis

mod ast;
mod expand;

use crate::errors::Errors;
use proc_macro2::TokenStream;

/// The expansion of `elements!`.
pub fn elements(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let items = ast::parse(input, &mut errors);
    ast::validate(&items, &mut errors);
    let mut out = expand::items(&items, &mut errors);
    out.extend(errors.into_tokens());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::compact;
    use std::str::FromStr;

    fn expand(text: &str) -> String {
        compact(elements(TokenStream::from_str(text).expect("tokens"))).replace("::mobilis::__private::", "")
    }

    #[test]
    fn ancestors_in_one_block_are_followed() {
        let out =
            expand("pub Signal<const RATE: u32>: Real; pub Speech<const R: u32>: Signal<R>; pub Narrow: Speech<8000>;");
        assert!(out.contains("impl<constR:u32>Is<Signal<R>>forSpeech<R>{}"), "{out}");
        assert!(out.contains("implIs<Signal<8000>>forNarrow{}"), "{out}");
        assert!(out.contains("implIs<Real>forNarrow{}"), "{out}");
        assert!(out.contains("implIs<Narrow>forReal{}"), "{out}");
        assert!(!out.contains("compile_error"), "{out}");
    }

    #[test]
    fn a_parent_from_elsewhere_brings_its_base() {
        let out = expand("pub Mel: other::Spectrogram;");
        assert!(out.contains("implIs<other::Spectrogram>forMel{}"), "{out}");
        assert!(out.contains("implIs<<other::SpectrogramasElement>::Base>forMel{}"), "{out}");
    }

    #[test]
    fn mistakes() {
        for (text, words) in [
            ("token_id: Index;", "CamelCase"),
            ("TokenId;", "refines"),
            ("A: B; B: A;", "refines itself"),
            ("A: Real; A: Real;", "declared twice"),
            ("A: f32;", "`Real`"),
            ("A<T>: Real;", "bound"),
            ("A: Real B: Real;", "expected `;`"),
        ] {
            let found = elements(TokenStream::from_str(text).expect("tokens")).to_string();
            assert!(found.matches("compile_error").count() == 1 && found.contains(words), "{text}: {found}");
        }
    }
}
