//! What can be wrong with a tokenizer, a template, or the text for them.

use std::path::PathBuf;

/// Why text could not become ids, ids text, or messages a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder has no file that a tokenizer can be made from.
    #[error(
        "no tokenizer in {folder}: expected one of {expected}; copy the tokenizer's files from the model's \
         repository beside its config.json"
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// The names that were looked for.
        expected: String,
    },
    /// A file's content is not what its name promises.
    #[error("{what}: {why}")]
    Invalid {
        /// The file, or the part of a vocabulary.
        what: String,
        /// What was expected, what was found.
        why: String,
    },
    /// A vocabulary needs something that is not built.
    #[error("{what}: {why}")]
    Unsupported {
        /// The vocabulary.
        what: String,
        /// What it asks for, and what there is.
        why: String,
    },
    /// The engine refused a text.
    #[error("cannot encode a text of {bytes} bytes: {why}")]
    Encode {
        /// The text's length.
        bytes: usize,
        /// What the engine said.
        why: String,
    },
    /// A chat template is wrong, or gave up.
    #[error("{template}: {why}")]
    Template {
        /// Where the template came from, with its name where there are several.
        template: String,
        /// What the template engine said, with the line.
        why: String,
    },
    /// A chat template refused the messages by `raise_exception`.
    #[error("{template} refuses these messages: {why}")]
    Refused {
        /// Where the template came from.
        template: String,
        /// The template's words.
        why: String,
    },
    /// There is no chat template.
    #[error(
        "{what} has no chat template{hint}; pass one (--chat-template FILE), or use plain text instead of messages"
    )]
    NoTemplate {
        /// The tokenizer.
        what: String,
        /// Names that there are, where one was asked for.
        hint: String,
    },
}

impl TextError {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> TextError {
        TextError::Invalid { what: what.into(), why: why.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> TextError {
        TextError::Unsupported { what: what.into(), why: why.into() }
    }
}
