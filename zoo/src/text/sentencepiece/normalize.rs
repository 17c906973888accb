//! How SentencePiece prepares a text: rewriting by a table of prefixes, spaces to `▁`.
//!
//! The table (`precompiled_charsmap`, for example of `nmt_nfkc`) is a double-array trie over byte
//! strings (the form of darts-clone) and a pool of replacements that end in a zero byte. At each place
//! the longest prefix in the trie is replaced; where there is none, one character is kept, and a byte
//! that is no character becomes U+FFFD. Then extra spaces go, one may be put in front, and each becomes
//! `▁`. Every byte of the result knows the byte of the text that it came from.
//!
//! Source: `normalizer.cc` of google/sentencepiece. The steps are the same, so are the results.

use super::trie::Trie;
use crate::text::decoder::SPACE;
use crate::text::error::TextError;

/// The most prefixes that are looked at in one place (`kMaxTrieResultsSize`).
const MAX_MATCHES: usize = 32;

/// Rewrites texts.
#[derive(Clone, Debug, Default)]
pub struct Normalizer {
    /// The trie's units; empty where texts stay as they are.
    units: Vec<u32>,
    /// Replacements, each ending in a zero byte.
    pool: Vec<u8>,
    /// Puts a space in front of the text (behind it where spaces are suffixes).
    pub add_dummy_prefix: bool,
    /// Joins spaces and takes them off the ends.
    pub remove_extra_whitespaces: bool,
    /// Writes spaces as `▁`.
    pub escape_whitespaces: bool,
    /// Spaces end words instead of beginning them.
    pub space_as_suffix: bool,
}

/// A text after rewriting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normalized {
    /// The result.
    pub text: String,
    /// For each byte of the result, and for its end, the byte of the original.
    pub origin: Vec<usize>,
}

impl Normalizer {
    /// A normaliser with a `precompiled_charsmap`: the trie's size in bytes, the trie, the pool. An empty one
    /// rewrites nothing.
    ///
    /// # Errors
    /// Sizes that do not fit, and replacements that are not UTF-8.
    pub fn with_charsmap(map: &[u8]) -> Result<Normalizer, TextError> {
        if map.is_empty() {
            return Ok(Normalizer::default());
        }
        let wrong = |why: String| TextError::invalid("SentencePiece normaliser (precompiled_charsmap)", why);
        let Some((size, rest)) = map.split_first_chunk::<4>() else {
            return Err(wrong(format!("expected at least 4 bytes, found {}", map.len())));
        };
        let size = u32::from_le_bytes(*size) as usize;
        if size > rest.len() || !size.is_multiple_of(4) {
            return Err(wrong(format!("expected a trie of {size} bytes (a multiple of 4), found {}", rest.len())));
        }
        let (trie, pool) = rest.split_at(size);
        std::str::from_utf8(pool).map_err(|e| wrong(format!("the replacements are not UTF-8: {e}")))?;
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Normalizer { units, pool: pool.to_vec(), ..Normalizer::default() })
    }

    /// The longest prefix in the table: its length, and what replaces it.
    fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        let unit = |i: usize| self.units.get(i).copied();
        let mut node = 0usize;
        let mut best = None;
        let mut matches = 0;
        // The root's offset; then each byte leads on, and a leaf's value lies at the node's offset.
        node ^= offset(unit(0)?);
        for (i, byte) in text.iter().enumerate() {
            node ^= usize::from(*byte);
            let Some(here) = unit(node) else { break };
            if here & LABEL != u32::from(*byte) {
                break;
            }
            node ^= offset(here);
            if here & HAS_LEAF != 0
                && let Some(leaf) = unit(node)
            {
                best = Some((i + 1, (leaf & 0x7FFF_FFFF) as usize));
                matches += 1;
                if matches == MAX_MATCHES {
                    break;
                }
            }
        }
        let (length, start) = best?;
        let pool = self.pool.get(start..)?;
        let end = pool.iter().position(|b| *b == 0).unwrap_or(pool.len());
        // A start within a character can only come from a broken table: then nothing matches.
        Some((length, std::str::from_utf8(&pool[..end]).ok()?))
    }

    /// One step: how much of the text it takes, and what stands for it.
    fn prefix<'a>(&'a self, text: &'a str, symbols: &Trie) -> (usize, &'a str) {
        if let Some((length, _)) = symbols.longest(text.as_bytes()) {
            return (length, &text[..length]);
        }
        match self.longest(text.as_bytes()) {
            // A match that ends within a character can only come from a broken table.
            Some((length, replacement)) if text.is_char_boundary(length) => (length, replacement),
            _ => {
                let length = text.chars().next().map_or(0, char::len_utf8);
                (length, &text[..length])
            }
        }
    }

    /// Rewrites a text; `symbols` are user-defined pieces, which stay as they are. `prefix` says whether
    /// the space in front may be added here: not within a text that was cut before.
    pub fn normalize(&self, text: &str, symbols: &Trie, prefix: bool) -> Normalized {
        let mut out = Normalized::default();
        let add_space = self.add_dummy_prefix && prefix;
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while !rest.is_empty() {
                let (length, replacement) = self.prefix(rest, symbols);
                if replacement != " " {
                    break;
                }
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return out;
        }
        out.text.reserve(rest.len() + rest.len() / 2);
        let mut space = [0; 4];
        let space: &str = if self.escape_whitespaces { SPACE.encode_utf8(&mut space) } else { " " };
        let put = |out: &mut Normalized, what: &str, at: usize| {
            out.text.push_str(what);
            out.origin.resize(out.text.len(), at);
        };
        if !self.space_as_suffix && add_space {
            put(&mut out, space, text.len() - rest.len());
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let (length, mut replacement) = self.prefix(rest, symbols);
            if after_space {
                replacement = replacement.trim_start_matches(' ');
            }
            if !replacement.is_empty() {
                for c in replacement.chars() {
                    let mut buffer = [0; 4];
                    put(&mut out, if c == ' ' { space } else { c.encode_utf8(&mut buffer) }, at);
                }
                after_space = replacement.ends_with(' ');
            }
            after_space &= self.remove_extra_whitespaces;
            rest = &rest[length..];
        }
        let mut end = text.len();
        if self.remove_extra_whitespaces {
            while out.text.ends_with(space) {
                let length = out.text.len() - space.len();
                end = out.origin[length];
                out.text.truncate(length);
                out.origin.truncate(length);
            }
        }
        if self.space_as_suffix && add_space {
            put(&mut out, space, end);
        }
        out.origin.push(end);
        out
    }
}

const HAS_LEAF: u32 = 1 << 8;
const LABEL: u32 = (1 << 31) | 0xFF;

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}
