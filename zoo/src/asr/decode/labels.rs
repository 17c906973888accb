//! What tokens stand for in text: each with a space before it where it begins a word.
//!
//! NeMo writes no space before punctuation (`AbstractCTCDecoding.decode_tokens_to_str_with_strip_punctuation`): of
//! spaces that a model puts there, the last is left out. What counts as punctuation is what the vocabulary has.

use unicode_categories::UnicodeCategories;

/// The texts of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    texts: Vec<String>,
    /// What no space is written before.
    punctuation: Vec<char>,
    /// Whether a space alone is the beginning of a word, and no token between words.
    begins: bool,
}

impl Labels {
    /// Letters, and a space as a token of its own: NeMo's character models; wav2vec2's with `|` for the space.
    pub fn characters<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        let text = |t: S| if t.as_ref() == "|" { " ".to_string() } else { t.as_ref().to_string() };
        Labels { texts: tokens.into_iter().map(text).collect(), ..Labels::default() }
    }

    /// The tokens of a model of NeMo's: pieces of a tokenizer of this type (`bpe`, `wpe`, `agg`), or letters where
    /// there is none. No space is written before punctuation.
    pub fn nemo(tokens: &[&str], tokenizer: Option<&str>) -> Labels {
        let special = |t: &str| {
            t.starts_with('[') && t.ends_with(']')
                || t.starts_with('<') && t.ends_with('>')
                || t.starts_with("##")
                || t.starts_with('\u{2581}')
        };
        let inner = tokens.iter().filter(|t| !special(t)).flat_map(|t| t.chars());
        let mut punctuation: Vec<char> = inner.filter(|c| c.is_punctuation()).collect();
        punctuation.sort_unstable();
        punctuation.dedup();
        let labels = match tokenizer {
            Some("wpe") => Labels::word_pieces(tokens),
            // What SentencePiece writes for what it does not know.
            Some("bpe") => Labels::sentence_pieces(tokens.iter().map(|t| if *t == "<unk>" { " \u{2047} " } else { t })),
            Some(_) => Labels::sentence_pieces(tokens),
            None => Labels::characters(tokens),
        };
        Labels { punctuation, ..labels }
    }

    /// SentencePiece's pieces: `▁` is a space.
    pub fn sentence_pieces<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        let texts = tokens.into_iter().map(|t| t.as_ref().replace('\u{2581}', " ")).collect();
        Labels { texts, punctuation: vec![], begins: true }
    }

    /// WordPiece's: `##` goes on with a word, anything else begins one.
    pub fn word_pieces<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        let text = |t: S| match t.as_ref().strip_prefix("##") {
            Some(rest) => rest.to_string(),
            None => format!(" {}", t.as_ref()),
        };
        Labels { texts: tokens.into_iter().map(text).collect(), ..Labels::default() }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// A token's text; nothing where there is no such token.
    pub fn get(&self, token: u32) -> &str {
        self.texts.get(token as usize).map_or("", String::as_str)
    }

    /// Whether a token is a space alone that belongs to the word behind it: SentencePiece's `▁`.
    pub fn begins(&self, token: u32) -> bool {
        self.begins && self.get(token) == " "
    }

    /// Whether no space is written before a character.
    pub fn joins(&self, c: char) -> bool {
        self.punctuation.binary_search(&c).is_ok()
    }

    /// The text of tokens, without space around it.
    pub fn text(&self, tokens: impl IntoIterator<Item = u32>) -> String {
        let mut text = String::new();
        for c in tokens.into_iter().flat_map(|t| self.get(t).chars()) {
            if self.joins(c) && text.ends_with(' ') {
                text.pop();
            }
            text.push(c);
        }
        text.trim().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token() {
        assert_eq!(Labels::characters(["a", "|", "b", " "]).text([3, 0, 1, 2, 3]), "a b");
        assert_eq!(Labels::sentence_pieces(["\u{2581}he", "llo", "\u{2581}"]).text([0, 1, 2, 0, 9]), "hello  he");
        assert_eq!(Labels::word_pieces(["he", "##llo"]).text([0, 1, 0]), "hello he");
    }

    #[test]
    fn nemo_writes_no_space_before_punctuation() {
        let pieces = Labels::nemo(&["\u{2581}he", ".", "\u{2581}", "<|.|>", "\u{2581}(a)", "$"], Some("bpe"));
        assert_eq!(pieces.text([0, 2, 1, 0]), "he. he");
        // One space is left out of two; what only tokens that begin words have is no punctuation, nor is a currency.
        assert_eq!(pieces.text([0, 2, 2, 1, 4, 2, 5]), "he . (a) $");
        assert_eq!(Labels::nemo(&["a", "'", " "], None).text([0, 2, 1, 0]), "a'a");
        assert_eq!(Labels::sentence_pieces(["a", "\u{2581}", "."]).text([0, 1, 2]), "a .");
    }
}
