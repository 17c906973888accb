//! What a Canary is asked: special tokens before the text, in NeMo's formats `canary` and `canary2`.

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The language that is spoken, as the vocabulary has it: `en`.
    pub source: String,
    /// The language to write.
    pub target: String,
    /// Whether with punctuation and capital letters.
    pub punctuation: bool,
    /// Whether numbers are written as such (`canary2`).
    pub numbers: bool,
    /// Whether with times (`canary2`).
    pub timestamps: bool,
    /// Whether with speakers (`canary2`).
    pub speakers: bool,
}

impl Default for Prompt {
    /// English as it is spoken, with punctuation.
    fn default() -> Self {
        let english = || "en".to_string();
        Prompt {
            source: english(),
            target: english(),
            punctuation: true,
            numbers: false,
            timestamps: false,
            speakers: false,
        }
    }
}

/// The form of a prompt: `prompt_format` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Start, source language, task, target language, punctuation.
    Canary,
    /// Context, start, emotion, languages, punctuation, numbers, times, speakers.
    Canary2,
}

/// A token that the vocabulary lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model has no token `{token}`: {what} it does not know")]
pub struct PromptError {
    /// The token.
    pub token: String,
    /// What it says.
    pub what: &'static str,
}

/// What ends a text.
pub const END: &str = "<|endoftext|>";

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "canary" => Some(Format::Canary),
            "canary2" => Some(Format::Canary2),
            _ => None,
        }
    }

    /// The tokens of a prompt, of which `id` gives the number; `canary2` tells what was said before, `context`.
    ///
    /// # Errors
    /// A token that the vocabulary lacks: a language, above all.
    pub fn tokens(
        self,
        prompt: &Prompt,
        context: &[u32],
        id: impl Fn(&str) -> Option<u32>,
    ) -> Result<Vec<u32>, PromptError> {
        let language = |name: &str| (format!("<|{name}|>"), "a language that");
        let either = |yes: bool, with: &str, without: &str| {
            (format!("<|{}|>", if yes { with } else { without }), "something that")
        };
        let start = || ("<|startoftranscript|>".to_string(), "a start that");
        let (source, target) = (language(&prompt.source), language(&prompt.target));
        let punctuation = either(prompt.punctuation, "pnc", "nopnc");
        let all = match self {
            Format::Canary => {
                let task = either(prompt.source == prompt.target, "transcribe", "translate");
                vec![start(), source, task, target, punctuation]
            }
            Format::Canary2 => vec![
                ("<|startofcontext|>".to_string(), "a start that"),
                start(),
                ("<|emo:undefined|>".to_string(), "an emotion that"),
                source,
                target,
                punctuation,
                either(prompt.numbers, "itn", "noitn"),
                either(prompt.timestamps, "timestamp", "notimestamp"),
                either(prompt.speakers, "diarize", "nodiarize"),
            ],
        };
        let tokens = all.into_iter().map(|(token, what)| id(&token).ok_or(PromptError { token, what }));
        let mut tokens = tokens.collect::<Result<Vec<u32>, _>>()?;
        if self == Format::Canary2 {
            tokens.splice(1..1, context.iter().copied());
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_in_order() {
        let words = [
            "<|startofcontext|>",
            "<|startoftranscript|>",
            "<|emo:undefined|>",
            "<|en|>",
            "<|de|>",
            "<|pnc|>",
            "<|nopnc|>",
            "<|noitn|>",
            "<|timestamp|>",
            "<|notimestamp|>",
            "<|nodiarize|>",
            "<|transcribe|>",
            "<|translate|>",
        ];
        let id = |token: &str| words.iter().position(|w| *w == token).map(|i| i as u32);
        let english = Prompt::default();
        assert_eq!(Format::Canary.tokens(&english, &[], id), Ok(vec![1, 3, 11, 3, 5]));
        let german = Prompt { target: "de".into(), punctuation: false, timestamps: true, ..english.clone() };
        assert_eq!(Format::Canary.tokens(&german, &[], id), Ok(vec![1, 3, 12, 4, 6]));
        assert_eq!(Format::Canary2.tokens(&german, &[], id), Ok(vec![0, 1, 2, 3, 4, 6, 7, 8, 10]));
        assert_eq!(Format::Canary2.tokens(&english, &[40, 41], id), Ok(vec![0, 40, 41, 1, 2, 3, 3, 5, 7, 9, 10]));
        let french = Prompt { source: "fr".into(), ..english };
        assert_eq!(Format::Canary.tokens(&french, &[], id).unwrap_err().token, "<|fr|>");
        assert_eq!(Format::named("canary2"), Some(Format::Canary2));
        assert_eq!(Format::named("other"), None);
    }
}
