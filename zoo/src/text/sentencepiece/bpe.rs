//! Joins neighbours, the best score first, until no pair is in the vocabulary.
//!
//! `bpe_model.cc` of google/sentencepiece: symbols are characters at first (user-defined pieces stay
//! whole), pairs wait in a heap by score and then by place, and a pair whose parts have changed since is
//! passed over. A joined piece that is of the kind `unused` is taken apart again in the end.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::{Model, PieceKind};

const NONE: usize = usize::MAX;

struct Symbol {
    previous: usize,
    next: usize,
    start: usize,
    /// In bytes; 0 once it is part of the symbol before it.
    length: usize,
    /// A user-defined piece: not to be joined.
    frozen: bool,
}

struct Pair {
    left: usize,
    right: usize,
    score: f32,
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        // Scores are numbers (checked when they are read); the leftmost of equals is the greatest.
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Model {
    /// Appends the pieces of a normalised text: length in bytes, and id.
    pub(super) fn bpe(&self, text: &str, out: &mut Vec<(usize, u32)>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let found = self.symbols.longest(&text.as_bytes()[at..]);
            let length = match found {
                Some((length, _)) => length,
                None => text[at..].chars().next().map_or(1, char::len_utf8),
            };
            let i = symbols.len();
            let previous = i.checked_sub(1).unwrap_or(NONE);
            symbols.push(Symbol { previous, next: i + 1, start: at, length, frozen: found.is_some() });
            at += length;
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut heap = BinaryHeap::with_capacity(symbols.len());
        // Unused pieces, and where they were cut.
        let mut apart: HashMap<&str, usize> = HashMap::new();
        let mut offer = |symbols: &[Symbol], heap: &mut BinaryHeap<Pair>, left: usize, right: usize| {
            if left == NONE || right == NONE || symbols[left].frozen || symbols[right].frozen {
                return;
            }
            let (start, length) = (symbols[left].start, symbols[left].length + symbols[right].length);
            let piece = &text[start..start + length];
            if let Some(id) = self.words.get(piece) {
                let found = &self.pieces[*id as usize];
                heap.push(Pair { left, right, score: found.score, length });
                if found.kind == PieceKind::Unused {
                    apart.insert(piece, symbols[left].length);
                }
            }
        };
        for right in 1..symbols.len() {
            offer(&symbols, &mut heap, right - 1, right);
        }
        while let Some(Pair { left, right, length, .. }) = heap.pop() {
            let (a, b) = (symbols[left].length, symbols[right].length);
            if a == 0 || b == 0 || a + b != length {
                continue;
            }
            symbols[left].length = length;
            symbols[right].length = 0;
            let next = symbols[right].next;
            symbols[left].next = next;
            if next != NONE {
                symbols[next].previous = left;
            }
            let previous = symbols[left].previous;
            offer(&symbols, &mut heap, previous, left);
            offer(&symbols, &mut heap, left, next);
        }
        let mut todo = Vec::new();
        let mut i = if symbols.is_empty() { NONE } else { 0 };
        while i != NONE {
            let symbol = &symbols[i];
            todo.push(&text[symbol.start..symbol.start + symbol.length]);
            while let Some(piece) = todo.pop() {
                let id = self.words.get(piece).copied();
                let unused = id.is_some_and(|id| self.pieces[id as usize].kind == PieceKind::Unused);
                match apart.get(piece) {
                    Some(cut) if unused => todo.extend([&piece[*cut..], &piece[..*cut]]),
                    _ => out.push((piece.len(), id.unwrap_or(self.unknown))),
                }
            }
            i = symbol.next;
        }
    }
}
