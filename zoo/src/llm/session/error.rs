//! Why a session cannot go on.

use mobilis_runtime::program::ProgramError;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// More positions than the session has room for.
    #[error(
        "sequence {row} would reach position {wanted}, the session has room for {positions}: make it larger, or begin a new text"
    )]
    Full {
        /// The sequence.
        row: usize,
        /// The position it would reach.
        wanted: usize,
        /// The session's room.
        positions: usize,
    },
    /// Another number of sequences than the session has.
    #[error("the session has {batch} sequences, tokens were given for {found}")]
    Rows {
        /// The session's sequences.
        batch: usize,
        /// Sequences given.
        found: usize,
    },
    /// A token that the model has no embedding for.
    #[error("token {token} of sequence {row} is not one of the model's {vocab} tokens")]
    Token {
        /// The token.
        token: u32,
        /// Its sequence.
        row: usize,
        /// How many tokens the model has.
        vocab: usize,
    },
    /// A sequence that cannot be copied, for there is none of this number.
    #[error("there is no sequence {row}: the session has {batch}")]
    NoRow {
        /// The sequence asked for.
        row: usize,
        /// The session's sequences.
        batch: usize,
    },
    /// Another number of next tokens than of tokens.
    #[error("sequence {row} is given {tokens} tokens and {next} that should come after them")]
    Next {
        /// The sequence.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens to score.
        next: usize,
    },
    /// A sequence of a model that no longer has the earlier positions.
    #[error("sequence {row} stands at {length} and cannot go back to {wanted}: the model keeps no earlier positions")]
    Rewind {
        /// The sequence.
        row: usize,
        /// Where it stands.
        length: usize,
        /// Where it should.
        wanted: usize,
    },
    /// A program that failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
}
