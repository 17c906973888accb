//! A SentencePiece model as a tokenizer: with special tokens in the text, and around it.
//!
//! The model itself never finds special tokens in text. Programs that use it cut the text at them first
//! and encode what lies between, each part as a text of its own (`transformers`, llama.cpp): so is it
//! here.

use std::collections::{HashMap, HashSet};

use super::config::AddedToken;
use super::decoder::Role;
use super::error::TextError;
use super::sentencepiece::{Model, Normalizer, PieceKind, Trie};
use super::tokenizer::Encoding;

/// See the module.
pub(crate) struct PieceTokenizer {
    model: Model,
    /// Tokens that are looked for in texts, by id.
    added: HashMap<u32, AddedToken>,
    /// Their texts.
    finder: Trie,
    ids: HashMap<Box<str>, u32>,
    special: HashSet<u32>,
    roles: Vec<Role>,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl PieceTokenizer {
    /// A tokenizer of a model, with tokens that are found in texts, and those that go around a text.
    /// Tokens without an id are those of the vocabulary, or follow it.
    ///
    /// # Errors
    /// An added token whose id is another token's.
    pub fn new(
        model: Model,
        tokens: &[AddedToken],
        before: Vec<u32>,
        after: Vec<u32>,
    ) -> Result<PieceTokenizer, TextError> {
        let pieces = model.pieces();
        let mut ids = HashMap::with_capacity(pieces.len() + tokens.len());
        let mut special = HashSet::new();
        let mut roles = Vec::with_capacity(pieces.len());
        for (id, piece) in (0..).zip(pieces) {
            ids.entry(piece.text.as_str().into()).or_insert(id);
            roles.push(match piece.kind {
                PieceKind::Byte => match super::decoder::byte_token(&piece.text) {
                    Some(byte) => Role::Byte(byte),
                    None => Role::Plain,
                },
                PieceKind::Control | PieceKind::Unknown => Role::Literal,
                _ => Role::Plain,
            });
            if piece.kind == PieceKind::Control {
                special.insert(id);
            }
        }
        let mut added = HashMap::new();
        let mut next = pieces.len() as u32;
        for token in tokens.iter().filter(|t| !t.content.is_empty()) {
            let known = ids.get(token.content.as_str()).copied();
            let id = match (token.id, known) {
                (Some(id), Some(known)) if id != known && added.contains_key(&known) => {
                    return Err(TextError::invalid(
                        "tokenizer_config.json",
                        format!("the token `{}` has the ids {known} and {id}", token.content),
                    ));
                }
                // Where the model's own file calls the id otherwise, the configuration renames it.
                (Some(id), _) => id,
                (None, Some(known)) => known,
                (None, None) => next,
            };
            next = next.max(id.saturating_add(1));
            ids.insert(token.content.as_str().into(), id);
            if token.special {
                special.insert(id);
            }
            added.insert(id, token.clone());
        }
        let finder = Trie::new(added.iter().map(|(id, token)| (token.content.as_bytes(), *id)));
        Ok(PieceTokenizer { model, added, finder, ids, special, roles, before, after })
    }

    pub fn normalizer(&self) -> &Normalizer {
        &self.model.normalizer
    }

    pub fn special(&self) -> HashSet<u32> {
        self.special.clone()
    }

    /// One past the last id.
    pub fn size(&self) -> usize {
        let last = self.added.keys().max().map_or(0, |id| *id as usize + 1);
        last.max(self.roles.len())
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub fn token(&self, id: u32) -> Option<&str> {
        match self.added.get(&id) {
            Some(token) => Some(&token.content),
            None => self.model.pieces().get(id as usize).map(|p| p.text.as_str()),
        }
    }

    pub fn spelling(&self, id: u32) -> Option<(&str, Role)> {
        if let Some(token) = self.added.get(&id)
            && id != self.model.unknown()
        {
            return Some((&token.content, Role::Literal));
        }
        let role = *self.roles.get(id as usize)?;
        if id == self.model.unknown() {
            return Some((&self.model.unknown_surface, Role::Literal));
        }
        Some((&self.model.pieces()[id as usize].text, role))
    }

    pub fn encode(&self, text: &str, special: bool) -> Encoding {
        // Bytes to characters, for offsets.
        let mut characters = vec![0u32; text.len() + 1];
        let mut count = 0;
        for (i, _) in text.char_indices() {
            characters[i] = count;
            count += 1;
        }
        characters[text.len()] = count;
        let mut out = Encoding::default();
        let put = |out: &mut Encoding, id: u32, start: usize, end: usize| {
            out.ids.push(id);
            out.type_ids.push(0);
            out.tokens.push(self.token(id).unwrap_or_default().to_owned());
            out.offsets.push((characters[start] as usize, characters[end] as usize));
        };
        if special {
            self.before.iter().for_each(|id| put(&mut out, *id, 0, 0));
        }
        let plain = |out: &mut Encoding, start: usize, end: usize| {
            for found in self.model.encode(&text[start..end], true) {
                put(out, found.id, start + found.start, start + found.end);
            }
        };
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let found = self.finder.longest(&text.as_bytes()[at..]);
            let found = found.filter(|(length, id)| {
                let whole = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
                let (before, after) = (text[..at].chars().next_back(), text[at + length..].chars().next());
                !self.added[id].single_word || (whole(before) && whole(after))
            });
            let Some((length, id)) = found else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let token = &self.added[&id];
            let before = &text[start..at];
            let before = if token.lstrip { before.trim_end() } else { before };
            plain(&mut out, start, start + before.len());
            put(&mut out, id, at, at + length);
            at += length;
            if token.rstrip {
                at = text.len() - text[at..].trim_start().len();
            }
            start = at;
        }
        plain(&mut out, start, text.len());
        if special {
            self.after.iter().for_each(|id| put(&mut out, *id, 0, 0));
        }
        out
    }
}
