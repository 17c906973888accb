//! From tokens to text, in stages that can stop after any token.
//!
//! A tokenizer's decoder is a chain: bytes behind printable letters, `<0x0A>` for what the vocabulary
//! lacks, `▁` or `##` for what was a space. Each stage takes pieces of text one by one and passes on
//! what no later token can change; what is left comes out at the end. So text can be shown while tokens
//! arrive, a character is never cut, and the parts put together are exactly what decoding all at once
//! gives: [`Tokenizer::decode`] is the same stages.
//!
//! The meaning of each stage is that of Hugging Face's `tokenizers` (`decoders/`), and for SentencePiece
//! models that of `SentencePieceProcessor::Decode`. A chain that has no form by steps here waits for the
//! end: late, but right.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::{Decoder as _, DecoderWrapper};

use super::tokenizer::Tokenizer;

/// What stands for a space in SentencePiece vocabularies.
pub(crate) const SPACE: char = '▁';

/// One step from tokens to text, with what it holds back.
#[derive(Clone)]
pub(crate) enum Stage {
    /// Letters that stand for bytes (GPT-2's table); ends as one text.
    ByteLevel { pending: Vec<u8> },
    /// `<0xE2>`; a run that is not UTF-8 as a whole gives one U+FFFD a byte.
    ByteFallback { run: Vec<u8> },
    /// `▁` to space, none before the first token.
    Metaspace { replacement: char, drop_first: bool, first: bool },
    /// `##` continues a word, anything else starts one.
    WordPiece { prefix: String, cleanup: bool, first: bool },
    /// `</w>` ends a word.
    Suffix { suffix: String, held: Option<String> },
    /// A replacement within each token.
    Replace { pattern: String, content: String },
    /// At most `start` and `stop` of a character off the ends of the whole text.
    Strip { content: char, start: usize, stop: usize, started: bool, held: String },
    /// A space between tokens: what no decoder at all means.
    Join { first: bool },
    /// SentencePiece: `▁`, byte pieces, the space that encoding put before the text.
    Pieces { strip_all: bool, at_start: bool, pending: Vec<u8> },
    /// The tidying of spaces that some configurations ask for.
    CleanUp { held: String },
    /// Anything else: all tokens, then the library's decoder.
    Whole { decoder: Arc<DecoderWrapper>, tokens: Vec<String> },
}

/// What a token is to a decoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Text.
    Plain,
    /// Exactly these bytes, whatever the vocabulary calls them.
    Byte(u8),
    /// Text that is not the vocabulary's spelling: no space marks in it.
    Literal,
}

/// The stages of a decoder as `tokenizers` describes it.
pub(crate) fn stages(decoder: Option<&DecoderWrapper>) -> Vec<Stage> {
    let Some(decoder) = decoder else { return vec![Stage::Join { first: true }] };
    let mut list = Vec::new();
    flatten(decoder, &mut list);
    let (mut out, mut fused) = (Vec::new(), false);
    for (i, one) in list.iter().enumerate() {
        match stage(one, fused) {
            Some(Some(stage)) => {
                fused |= matches!(stage, Stage::ByteLevel { .. });
                out.push(stage);
            }
            // `Fuse`: what follows sees one text.
            Some(None) => fused = true,
            None => {
                // The rest waits for all tokens; a text that was already one is one for it too.
                let fuse = DecoderWrapper::Fuse(tokenizers::decoders::fuse::Fuse::default());
                let rest: Vec<_> = fused.then_some(fuse).into_iter().chain(list[i..].iter().cloned()).collect();
                let rest = DecoderWrapper::Sequence(tokenizers::decoders::sequence::Sequence::new(rest));
                out.push(Stage::Whole { decoder: Arc::new(rest), tokens: Vec::new() });
                return out;
            }
        }
    }
    out
}

fn flatten(decoder: &DecoderWrapper, out: &mut Vec<DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().for_each(|d| flatten(d, out)),
        other => out.push(other.clone()),
    }
}

/// The stage of one decoder; `Some(None)` for a fuse, `None` where there is no form by steps.
fn stage(decoder: &DecoderWrapper, fused: bool) -> Option<Option<Stage>> {
    // Most fields are private; the serialized form is the public one.
    let json = serde_json::to_value(decoder).ok()?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or(false);
    let count = |key: &str| json.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
    Some(Some(match (decoder, fused) {
        (DecoderWrapper::Fuse(_), _) => return Some(None),
        (DecoderWrapper::Strip(_), true) => Stage::Strip {
            content: text("content")?.chars().next()?,
            start: count("start"),
            stop: count("stop"),
            started: false,
            held: String::new(),
        },
        (_, true) => return None,
        (DecoderWrapper::ByteLevel(_), _) => Stage::ByteLevel { pending: Vec::new() },
        (DecoderWrapper::ByteFallback(_), _) => Stage::ByteFallback { run: Vec::new() },
        (DecoderWrapper::Metaspace(_), _) => Stage::Metaspace {
            replacement: text("replacement")?.chars().next()?,
            drop_first: text("prepend_scheme")? != "never",
            first: true,
        },
        (DecoderWrapper::WordPiece(_), _) => {
            Stage::WordPiece { prefix: text("prefix")?, cleanup: flag("cleanup"), first: true }
        }
        (DecoderWrapper::BPE(_), _) => Stage::Suffix { suffix: text("suffix")?, held: None },
        (DecoderWrapper::Replace(_), _) => Stage::Replace {
            // Only plain strings: a regular expression stays with the library.
            pattern: json.get("pattern")?.get("String")?.as_str().filter(|p| !p.is_empty())?.to_owned(),
            content: text("content")?,
        },
        _ => return None,
    }))
}

/// Passes a token through the stages; what is final is appended to `out`.
pub(crate) fn feed(stages: &mut [Stage], token: &str, role: Role, out: &mut String) {
    let Some((stage, rest)) = stages.split_first_mut() else {
        out.push_str(token);
        return;
    };
    match stage {
        Stage::ByteLevel { pending } => {
            let start = pending.len();
            for c in token.chars() {
                match byte_of(c) {
                    Some(byte) => pending.push(byte),
                    // A token with a letter outside the table is plain text.
                    None => {
                        pending.truncate(start);
                        pending.extend_from_slice(token.as_bytes());
                        break;
                    }
                }
            }
            let text = take_lossy(pending, false);
            pass(rest, &text, out);
        }
        Stage::ByteFallback { run } => match byte_token(token) {
            Some(byte) => run.push(byte),
            None => {
                let text = end_run(run);
                pass(rest, &text, out);
                feed(rest, token, role, out);
            }
        },
        Stage::Metaspace { replacement, drop_first, first } => {
            let (first, drop) = (std::mem::take(first), *drop_first);
            let space = |c: char| if c == *replacement { (!(first && drop)).then_some(' ') } else { Some(c) };
            let text: String = token.chars().filter_map(space).collect();
            feed(rest, &text, role, out);
        }
        Stage::WordPiece { prefix, cleanup, first } => {
            let mut text = match (std::mem::take(first), token.strip_prefix(prefix.as_str())) {
                (true, _) => token.to_owned(),
                (false, Some(tail)) => tail.to_owned(),
                (false, None) => format!(" {token}"),
            };
            if *cleanup {
                text = tokenizers::decoders::wordpiece::cleanup(&text);
            }
            feed(rest, &text, role, out);
        }
        Stage::Suffix { suffix, held } => {
            if let Some(last) = held.replace(token.to_owned()) {
                let text = last.replace(suffix.as_str(), " ");
                feed(rest, &text, role, out);
            }
        }
        Stage::Replace { pattern, content } => {
            let text = token.replace(pattern.as_str(), content);
            feed(rest, &text, role, out);
        }
        Stage::Strip { content, start, stop, started, held } => {
            let mut text = token;
            while !*started {
                match text.chars().next() {
                    Some(c) if c == *content && *start > 0 => {
                        *start -= 1;
                        text = &text[c.len_utf8()..];
                    }
                    Some(_) => *started = true,
                    None => return,
                }
            }
            held.push_str(text);
            // The last `stop` characters may still be stripped, if nothing else follows them.
            let kept: usize = held.chars().rev().take(*stop).take_while(|c| c == content).map(char::len_utf8).sum();
            let text: String = held.drain(..held.len() - kept).collect();
            pass(rest, &text, out);
        }
        Stage::Join { first } => {
            if !std::mem::take(first) {
                feed(rest, " ", Role::Literal, out);
            }
            feed(rest, token, role, out);
        }
        Stage::Pieces { strip_all, at_start, pending } => {
            if let Role::Byte(byte) = role {
                pending.push(byte);
                let text = take_bytes(pending, false);
                *at_start &= text.is_empty();
                return pass(rest, &text, out);
            }
            let tail = take_bytes(pending, true);
            *at_start &= tail.is_empty();
            pass(rest, &tail, out);
            if role == Role::Literal {
                *at_start &= token.is_empty();
                return pass(rest, token, out);
            }
            let mut piece = token;
            let mut stripped = false;
            if *at_start && let Some(less) = piece.strip_prefix(SPACE) {
                (piece, stripped) = (less, true);
            }
            let text = piece.replace(SPACE, " ");
            *at_start &= text.is_empty() && (!stripped || *strip_all);
            pass(rest, &text, out);
        }
        Stage::CleanUp { held } => {
            held.push_str(token);
            let text: String = held.drain(..settled(held)).collect();
            pass(rest, &clean_up(&text), out);
        }
        Stage::Whole { tokens, .. } => tokens.push(token.to_owned()),
    }
}

/// What the stages still hold; they are spent afterwards.
pub(crate) fn finish(stages: &mut [Stage], out: &mut String) {
    let Some((stage, rest)) = stages.split_first_mut() else { return };
    match stage {
        Stage::ByteLevel { pending } => pass(rest, &take_lossy(pending, true), out),
        Stage::ByteFallback { run } => pass(rest, &end_run(run), out),
        Stage::Suffix { suffix, held } => {
            if let Some(last) = held.take() {
                feed(rest, &last.replace(suffix.as_str(), ""), Role::Plain, out);
            }
        }
        // What is held is exactly what is to be stripped.
        Stage::Strip { held, .. } => held.clear(),
        Stage::Pieces { pending, .. } => pass(rest, &take_bytes(pending, true), out),
        Stage::CleanUp { held } => pass(rest, &clean_up(&std::mem::take(held)), out),
        Stage::Whole { decoder, tokens } => {
            let tokens = std::mem::take(tokens);
            // The library counts back from the last token, and there has to be one.
            if !tokens.is_empty() {
                let plain = tokens.join("");
                let parts = decoder.decode_chain(tokens).unwrap_or_else(|_| vec![plain]);
                pass(rest, &parts.join(""), out);
            }
        }
        Stage::Metaspace { .. } | Stage::WordPiece { .. } | Stage::Replace { .. } | Stage::Join { .. } => {}
    }
    finish(rest, out);
}

/// Passes text on where there is some: an empty token would count as one.
fn pass(stages: &mut [Stage], text: &str, out: &mut String) {
    if !text.is_empty() {
        feed(stages, text, Role::Plain, out);
    }
}

/// The byte that a letter of GPT-2's table stands for: printable Latin-1 is itself, the others are
/// numbered from 256.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The byte of `<0xE2>`.
pub(crate) fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}

fn end_run(run: &mut Vec<u8>) -> String {
    let count = run.len();
    String::from_utf8(std::mem::take(run)).unwrap_or_else(|_| "\u{FFFD}".repeat(count))
}

/// The text of the bytes so far, with one U+FFFD for each longest wrong part, as
/// `String::from_utf8_lossy` has it; bytes that may begin a character stay unless this is the end.
fn take_lossy(pending: &mut Vec<u8>, end: bool) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(pending) {
            Ok(valid) => {
                text.push_str(valid);
                pending.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[..valid]));
                let bad = match error.error_len() {
                    Some(bad) => bad,
                    None if end => pending.len() - valid,
                    None => {
                        pending.drain(..valid);
                        return text;
                    }
                };
                text.push('\u{FFFD}');
                pending.drain(..valid + bad);
            }
        }
    }
}

/// The text of the bytes so far, with one U+FFFD for each wrong byte (SentencePiece).
fn take_bytes(pending: &mut Vec<u8>, end: bool) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(pending) {
            Ok(valid) => {
                text.push_str(valid);
                pending.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[..valid]));
                if error.error_len().is_none() && !end {
                    pending.drain(..valid);
                    return text;
                }
                text.push('\u{FFFD}');
                pending.drain(..=valid);
            }
        }
    }
}

/// `clean_up_tokenization` of `transformers`, in its order.
fn clean_up(text: &str) -> String {
    let rules = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    rules.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// How much of a text no later text can change by [`clean_up`]: up to the last space with a character
/// before it that is neither a space nor an apostrophe. Every rule begins with a space, and only `" ' "`
/// has another one.
fn settled(text: &str) -> usize {
    let mut before = None;
    let mut cut = 0;
    for (i, c) in text.char_indices() {
        if c == ' ' && !matches!(before, None | Some(' ' | '\'')) {
            cut = i;
        }
        before = Some(c);
    }
    cut
}

/// Text from tokens as they come: [`push`](Detokenizer::push) each id, show what it returns, and
/// [`finish`](Detokenizer::finish) at the end. The parts joined are what [`Tokenizer::decode`] gives.
#[derive(Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    stages: Vec<Stage>,
}

impl Detokenizer {
    pub(crate) fn new(tokenizer: Tokenizer, skip_special: bool) -> Detokenizer {
        let stages = tokenizer.stages().to_vec();
        Detokenizer { tokenizer, skip_special, stages }
    }

    /// Takes a token and returns the text that is now certain: often the token's own, sometimes none
    /// (a part of a character), sometimes that of several. Ids outside the vocabulary are left out.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.push_to(id, &mut out);
        out
    }

    /// [`push`](Detokenizer::push) that appends to a string.
    pub fn push_to(&mut self, id: u32, out: &mut String) {
        if self.skip_special && self.tokenizer.is_special(id) {
            return;
        }
        if let Some((token, role)) = self.tokenizer.spelling(id) {
            feed(&mut self.stages, &token, role, out);
        }
    }

    /// The text that was still open; characters that were never completed are U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        finish(&mut self.stages, &mut out);
        self.stages = self.tokenizer.stages().to_vec();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tidied_text_is_the_same_in_parts() {
        let parts = [" a", " .", " '", " ", "n't", " do", " n't", "'", " 's", "  ", "?", " ,", " 'm", " ' ", "x", "."];
        let mut state = 1u64;
        for _ in 0..3000 {
            let mut whole = String::new();
            let mut stages = vec![Stage::CleanUp { held: String::new() }];
            let mut out = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let part = parts[(state >> 33) as usize % parts.len()];
                whole.push_str(part);
                feed(&mut stages, part, Role::Plain, &mut out);
            }
            finish(&mut stages, &mut out);
            assert_eq!(out, clean_up(&whole), "{whole:?}");
        }
    }

    #[test]
    fn letters_stand_for_all_bytes() {
        let mut seen = [false; 256];
        for c in (0..0x200).filter_map(char::from_u32) {
            if let Some(byte) = byte_of(c) {
                assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "{c}");
            }
        }
        assert_eq!(seen, [true; 256]);
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('A'), byte_of('\u{143}')),
            (Some(32), Some(10), Some(65), Some(0xAD))
        );
    }

    #[test]
    fn bytes_that_are_no_text() {
        let mut pending = b"a\xE2\x82".to_vec();
        assert_eq!((take_lossy(&mut pending, false).as_str(), pending.as_slice()), ("a", &b"\xE2\x82"[..]));
        pending.push(0xAC);
        assert_eq!(take_lossy(&mut pending, false), "€");
        for bytes in [&b"\xE2\x82"[..], b"\xFFx\xC0\x80\xF0\x9F\x98", b"\xED\xA0\x80"] {
            let mut pending = bytes.to_vec();
            assert_eq!(take_lossy(&mut pending, true), String::from_utf8_lossy(bytes));
        }
        assert_eq!(take_bytes(&mut b"\xE2\x82".to_vec(), true), "\u{FFFD}\u{FFFD}");
    }
}
