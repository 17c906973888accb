//! Trains SentencePiece models from text: unigram (Kudo 2018) and BPE (Sennrich et al. 2016).
//!
//! The trainers are those of the `tokenizers` crate; what they find becomes a [`ModelFile`] as
//! `spm_train --bos_id=-1 --eos_id=-1 --normalization_rule_name=identity` writes it, so that
//! [`proto::write`](super::proto::write) gives a `.model` that google/sentencepiece and NeMo read. The unknown
//! piece is number 0; pieces do not reach across spaces.

use super::{ModelFile, ModelKind, Piece, PieceKind};
use crate::text::decoder::SPACE;
use crate::text::error::TextError;
use crate::text::tokenizer::guarded;
use std::collections::BTreeMap;
use tokenizers::Trainer;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};

/// The most pieces that are trained.
const MOST: usize = 1 << 20;

/// A model of up to `size` pieces, the unknown one among them, from texts; fewer where the texts do not have as many.
///
/// # Errors
/// No text; a size that does not hold the texts' characters, or of more than 2^20.
pub fn train<'a>(
    kind: ModelKind,
    texts: impl IntoIterator<Item = &'a str>,
    size: usize,
) -> Result<ModelFile, TextError> {
    let wrong = |why: String| TextError::invalid("texts to train a tokenizer from", why);
    let mut words: BTreeMap<String, u32> = BTreeMap::new();
    let mut letters = std::collections::BTreeSet::from([SPACE]);
    for word in texts.into_iter().flat_map(str::split_whitespace) {
        let count = words.entry(format!("{SPACE}{word}")).or_default();
        *count = count.saturating_add(1);
        letters.extend(word.chars());
    }
    if words.is_empty() {
        return Err(wrong("they have no word".into()));
    }
    let least = letters.len() + 1;
    if !(least..=MOST).contains(&size) {
        let count = letters.len();
        return Err(wrong(format!(
            "{size} pieces are asked for; {least} to {MOST} are possible, since they have {count} characters"
        )));
    }
    let mut pieces = vec![Piece { text: "<unk>".into(), score: 0.0, kind: PieceKind::Unknown }];
    let found = match kind {
        ModelKind::Unigram => unigram(words, size - 1),
        ModelKind::Bpe => bpe(words, size - 1),
    };
    let normal = |(text, score)| Piece { text, score, kind: PieceKind::Normal };
    pieces.extend(found.map_err(wrong)?.into_iter().map(normal));
    Ok(ModelFile { pieces, kind, unknown: Some(0), bos: None, eos: None, ..ModelFile::default() })
}

/// Pieces with their logarithms of probability, the likeliest first.
fn unigram(words: BTreeMap<String, u32>, size: usize) -> Result<Vec<(String, f32)>, String> {
    let trainer = UnigramTrainer::builder().show_progress(false).vocab_size(size as u32).build();
    let trainer = trainer.map_err(|e| e.to_string())?;
    let mut model = Unigram::default();
    guarded(|| trainer.do_train(words.into_iter().collect(), &mut model))?;
    Ok(model.iter().map(|(text, score)| (text.clone(), *score as f32)).collect())
}

/// Pieces in the order in which they are joined, with minus their rank, and letters behind them.
fn bpe(words: BTreeMap<String, u32>, size: usize) -> Result<Vec<(String, f32)>, String> {
    let mut trainer = BpeTrainer::builder().show_progress(false).vocab_size(size).build();
    let mut model = BPE::default();
    let all = words.into_iter().flat_map(|(word, count)| std::iter::repeat_n(word, count as usize));
    guarded(|| trainer.feed(all, |word| Ok(vec![word.to_string()])))?;
    guarded(|| trainer.train(&mut model))?;
    let mut found: Vec<(String, u32)> = tokenizers::Model::get_vocab(&model).into_iter().collect();
    let letter = |text: &str| text.chars().nth(1).is_none();
    found.sort_by_key(|(text, id)| (letter(text), *id));
    Ok(found.into_iter().enumerate().map(|(rank, (text, _))| (text, -(rank as f32))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Model, proto};
    use super::*;

    #[test]
    fn models_are_trained_written_and_read() {
        let text = include_str!("mod.rs");
        for kind in [ModelKind::Unigram, ModelKind::Bpe] {
            let file = train(kind, text.lines(), 300).unwrap();
            assert!((200..=300).contains(&file.pieces.len()), "{kind:?}: {}", file.pieces.len());
            let read = proto::read(&proto::write(&file)).unwrap();
            assert_eq!((&read.pieces, read.kind, read.bos, read.eos), (&file.pieces, kind, None, None));
            let model = Model::new(read).unwrap();
            for line in text.lines().filter(|line| line.len() > 40) {
                let ids: Vec<u32> = model.encode(line, true).iter().map(|f| f.id).collect();
                assert!(ids.len() < line.len() * 3 / 4 && !ids.contains(&0), "{kind:?}: {line}");
                let said: String = ids.iter().map(|id| file.pieces[*id as usize].text.as_str()).collect();
                let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
                assert_eq!(words(&said.replace(SPACE, " ")), words(line));
            }
            // What comes most often is one piece; what never came is none.
            assert_eq!(model.encode("the", true).len(), 1, "{kind:?}");
            assert_eq!(model.encode("\u{436}", true).last().unwrap().id, 0);
        }
    }

    #[test]
    fn what_cannot_be_trained_is_told() {
        let fault = |texts: &[&str], size| {
            train(ModelKind::Unigram, texts.iter().copied(), size).map(|_| ()).unwrap_err().to_string()
        };
        assert!(fault(&["", "  "], 100).contains("no word"));
        assert!(fault(&["abc"], 4).contains("5 to"));
        assert!(fault(&["abc"], usize::MAX).contains("4 characters"));
    }
}
