//! What tokens stand for in text: each with a space before it where it begins a word.

/// The texts of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    texts: Vec<String>,
}

impl Labels {
    /// Letters, and a space as a token of its own: NeMo's character models; wav2vec2's with `|` for the space.
    pub fn characters<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        let text = |t: S| if t.as_ref() == "|" { " ".to_string() } else { t.as_ref().to_string() };
        Labels { texts: tokens.into_iter().map(text).collect() }
    }

    /// SentencePiece's pieces: `▁` is a space.
    pub fn sentence_pieces<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        Labels { texts: tokens.into_iter().map(|t| t.as_ref().replace('\u{2581}', " ")).collect() }
    }

    /// WordPiece's: `##` goes on with a word, anything else begins one.
    pub fn word_pieces<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Labels {
        let text = |t: S| match t.as_ref().strip_prefix("##") {
            Some(rest) => rest.to_string(),
            None => format!(" {}", t.as_ref()),
        };
        Labels { texts: tokens.into_iter().map(text).collect() }
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

    /// The text of tokens, without space around it.
    pub fn text(&self, tokens: impl IntoIterator<Item = u32>) -> String {
        tokens.into_iter().map(|t| self.get(t)).collect::<String>().trim().to_string()
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
}
