//! The most probable cut of a text into pieces: Viterbi over the ends of pieces.
//!
//! `EncodeOptimized` of google/sentencepiece (`unigram_model.cc`), in the same arithmetic: scores are
//! added in `f64` and kept in `f32`, the first of equal paths wins, an unknown character costs 10 more
//! than the worst piece, and user-defined pieces are worth more than any others of their length.

use super::{Model, PieceKind};

const UNKNOWN_PENALTY: f32 = 10.0;

/// The best path that ends at a byte: its score, the piece, and where the piece starts.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    id: u32,
    start: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Model {
    /// Appends the pieces of a normalised text: length in bytes, and id.
    pub(super) fn unigram(&self, text: &str, out: &mut Vec<(usize, u32)>) {
        let bytes = text.as_bytes();
        let mut ends = vec![Best { score: 0.0, id: 0, start: NOWHERE }; bytes.len() + 1];
        let unknown = f64::from(self.lowest - UNKNOWN_PENALTY);
        let offer = |ends: &mut [Best], start: usize, length: usize, id: u32, score: f64| {
            let candidate = score + f64::from(ends[start].score);
            let end = &mut ends[start + length];
            if end.start == NOWHERE || candidate > f64::from(end.score) {
                *end = Best { score: candidate as f32, id, start: start as u32 };
            }
        };
        for (start, c) in text.char_indices() {
            let mut single = false;
            for (length, id) in self.trie.prefixes(&bytes[start..]) {
                let piece = &self.pieces[id as usize];
                let score = match piece.kind {
                    PieceKind::Unused => continue,
                    PieceKind::UserDefined => f64::from(length as f32 * self.highest) - 0.1,
                    _ => f64::from(piece.score),
                };
                offer(&mut ends, start, length, id, score);
                single |= length == c.len_utf8();
            }
            if !single {
                offer(&mut ends, start, c.len_utf8(), self.unknown, unknown);
            }
        }
        let (first, mut end) = (out.len(), bytes.len());
        while end > 0 {
            let best = ends[end];
            out.push((end - best.start as usize, best.id));
            end = best.start as usize;
        }
        out[first..].reverse();
    }
}
