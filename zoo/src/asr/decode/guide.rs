//! What a beam search adds to the scores of a model: an n-gram language model's, and phrases'.
//!
//! ```text
//! score = log p(tokens | sound) + weight log p(units) + bonus (number of units) + phrases
//! ```
//!
//! "Shallow fusion" (Gulcehre et al. 2015). Units are the model's own tokens, scored as they come, or words, scored when the
//! space after them comes. NeMo's language models over SentencePiece tokens are of tokens, spelled as single characters with
//! the token's index plus 100: [`Units::nemo_tokens`].

use super::Labels;
use super::ngram::{Context, Ngrams};
use super::phrases::{Phrases, Place};
use std::sync::Arc;

/// What a language model's words are.
#[derive(Clone, Debug)]
pub enum Units {
    /// Tokens: the model's word of each.
    Tokens(Vec<Option<u32>>),
    /// Words, as tokens spell them.
    Words(Labels),
}

impl Units {
    /// What the words of a model are, by their looks: NeMo's characters for tokens, tokens (pieces with `▁` or `##`, or
    /// letters alone where tokens are letters), or words.
    pub fn guessed(model: &Ngrams, labels: &Labels) -> Units {
        let said = || model.words().filter(|w| !(w.starts_with('<') && w.ends_with('>')));
        let single = |w: &str| w.chars().count() == 1;
        let letters = (0..labels.len() as u32).all(|t| labels.get(t).chars().count() <= 1);
        let numbered = |w: &str| single(w) && w.chars().all(|c| (100..100 + labels.len()).contains(&(c as usize)));
        if letters {
            return if said().all(single) { Units::tokens(model, labels) } else { Units::Words(labels.clone()) };
        }
        if said().any(|w| w.starts_with('\u{2581}') || w.starts_with("##")) {
            Units::tokens(model, labels)
        } else if said().all(numbered) {
            Units::nemo_tokens(model, labels.len())
        } else {
            Units::Words(labels.clone())
        }
    }

    /// Tokens by their own texts: with `▁` for the space before, or `##` for none, where the model has such words.
    pub fn tokens(model: &Ngrams, labels: &Labels) -> Units {
        let [pieces, inner] = ["\u{2581}", "##"].map(|sign| model.words().any(|w| w.starts_with(sign)));
        let word = |t: u32| match labels.get(t) {
            text if pieces => model.word(&text.replace(' ', "\u{2581}")),
            text if inner && !text.starts_with(' ') => model.word(&format!("##{text}")),
            text => model.word(text.trim()),
        };
        Units::Tokens((0..labels.len() as u32).map(word).collect())
    }

    /// So many tokens as NeMo's scripts spell them for KenLM: token `i` is the character of number `100 + i`.
    pub fn nemo_tokens(model: &Ngrams, tokens: usize) -> Units {
        let word = |i: usize| char::from_u32(100 + i as u32).and_then(|c| model.word(c.encode_utf8(&mut [0; 4])));
        Units::Tokens((0..tokens).map(word).collect())
    }
}

/// A language model and how much it counts.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// The model.
    pub ngrams: Arc<Ngrams>,
    /// What its words are.
    pub units: Units,
    /// What its logarithms are multiplied by.
    pub weight: f32,
    /// What each unit adds: against the preference for few words.
    pub bonus: f32,
}

/// Phrases and what their symbols are.
#[derive(Clone, Debug)]
pub enum Boost {
    /// Tokens.
    Tokens(Phrases),
    /// Letters, as tokens spell them.
    Letters(Phrases, Labels),
}

/// The symbol of a letter: in lower case, and another where it begins a word.
fn letters(letter: char, begins: bool) -> impl Iterator<Item = u32> {
    let mark = if begins { 1 << 21 } else { 0 };
    letter.to_lowercase().enumerate().map(move |(i, c)| c as u32 | if i == 0 { mark } else { 0 })
}

/// The symbol of a word's end.
const END: u32 = ' ' as u32;

impl Boost {
    /// Phrases of whole words, whatever tokens spell them, in upper or lower case, each with the logarithm that every
    /// letter and every end of a word adds.
    pub fn words<'a>(phrases: impl IntoIterator<Item = (&'a str, f32)>, labels: &Labels) -> Boost {
        let symbols = |phrase: &str| -> Vec<u32> {
            let word = |word: &str| -> Vec<u32> {
                word.chars().enumerate().flat_map(|(i, c)| letters(c, i == 0)).chain([END]).collect()
            };
            phrase.split_whitespace().flat_map(word).collect()
        };
        Boost::Letters(Phrases::new(phrases.into_iter().map(|(p, weight)| (symbols(p), weight))), labels.clone())
    }
}

/// What a search is guided by, besides the model. The default guides nothing.
#[derive(Clone, Debug, Default)]
pub struct Guide {
    /// A language model.
    pub language: Option<LanguageModel>,
    /// Phrases that count more.
    pub boost: Option<Boost>,
}

/// What the guide remembers of a hypothesis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    context: Option<Context>,
    place: Place,
    /// The word that is being spelled.
    word: String,
}

impl Guide {
    fn labels(&self) -> Option<&Labels> {
        let of_language = self.language.as_ref().and_then(|l| match &l.units {
            Units::Words(labels) => Some(labels),
            Units::Tokens(_) => None,
        });
        of_language.or(match &self.boost {
            Some(Boost::Letters(_, labels)) => Some(labels),
            _ => None,
        })
    }

    /// Nothing said yet.
    pub fn start(&self) -> Memory {
        Memory { context: self.language.as_ref().map(|l| l.ngrams.start()), ..Memory::default() }
    }

    /// What a token adds to the score, and what is remembered then.
    pub fn next(&self, memory: &Memory, token: u32) -> (f32, Memory) {
        let (mut score, mut memory) = (0.0, memory.clone());
        if let Some(LanguageModel { units: Units::Tokens(words), .. }) = &self.language {
            score += self.unit(&mut memory, words.get(token as usize).copied().flatten());
        }
        if let Some(Boost::Tokens(phrases)) = &self.boost {
            let (change, place) = phrases.next(memory.place, token);
            (score, memory.place) = (score + change, place);
        }
        if let Some(labels) = self.labels() {
            for letter in labels.get(token).chars() {
                if letter == ' ' {
                    score += self.word(&mut memory);
                    continue;
                }
                let begins = memory.word.is_empty();
                memory.word.push(letter);
                for symbol in letters(letter, begins) {
                    score += self.letter(&mut memory, symbol);
                }
            }
        }
        (score, memory)
    }

    /// A unit of the language model is said.
    fn unit(&self, memory: &mut Memory, word: Option<u32>) -> f32 {
        let (Some(language), Some(context)) = (&self.language, memory.context) else { return 0.0 };
        let (log_prob, context) = language.ngrams.next(context, word);
        memory.context = Some(context);
        language.weight * log_prob + language.bonus
    }

    /// The word that was spelled is complete.
    fn word(&self, memory: &mut Memory) -> f32 {
        let word = std::mem::take(&mut memory.word);
        let mut score = 0.0;
        if word.is_empty() {
            return score;
        }
        if let Some(LanguageModel { units: Units::Words(_), ngrams, .. }) = &self.language {
            score += self.unit(memory, ngrams.word(&word));
        }
        score + self.letter(memory, END)
    }

    /// A letter of a phrase, maybe.
    fn letter(&self, memory: &mut Memory, symbol: u32) -> f32 {
        let Some(Boost::Letters(phrases, _)) = &self.boost else { return 0.0 };
        let (change, place) = phrases.next(memory.place, symbol);
        memory.place = place;
        change
    }

    /// What is added where the recording ends: the last word, the end of the sentence, phrases that were only begun.
    pub fn end(&self, memory: &Memory) -> f32 {
        let mut memory = memory.clone();
        let mut score = self.word(&mut memory);
        if let (Some(language), Some(context)) = (&self.language, memory.context) {
            score += language.weight * language.ngrams.end(context);
        }
        match &self.boost {
            Some(Boost::Tokens(phrases) | Boost::Letters(phrases, _)) => score + phrases.end(memory.place),
            None => score,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::ngram::Limits;
    use super::super::ngram::tests::SMALL;
    use super::*;

    pub(crate) fn small() -> Ngrams {
        Ngrams::read(SMALL.as_bytes(), Limits::default()).unwrap()
    }

    fn score(guide: &Guide, tokens: &[u32]) -> f32 {
        let (mut memory, mut sum) = (guide.start(), 0.0);
        for token in tokens {
            let (change, next) = guide.next(&memory, *token);
            (sum, memory) = (sum + change, next);
        }
        sum + guide.end(&memory)
    }

    #[test]
    fn tokens_and_words_by_hand() {
        let ten = std::f32::consts::LN_10;
        let labels = Labels::sentence_pieces(["\u{2581}a", "\u{2581}b", "b", "\u{2581}"]);
        let of = |units| Guide {
            language: Some(LanguageModel { ngrams: small().into(), units, weight: 0.5, bonus: 0.25 }),
            boost: None,
        };
        // <s> a b </s>
        let expected = 0.5 * ten * (-0.1 - 0.05 - 0.95) + 0.5;
        for guide in [of(Units::tokens(&small(), &labels)), of(Units::Words(labels.clone()))] {
            assert!((score(&guide, &[0, 1]) - expected).abs() < 1e-5);
        }
        // " a" "b" is the word `ab`, which is unknown; then the end.
        let unknown = 0.5 * ten * (-0.5 - 1.0 - 0.8) + 0.25;
        assert!((score(&of(Units::Words(labels.clone())), &[0, 2, 3]) - unknown).abs() < 1e-5);
        assert_eq!(score(&Guide::default(), &[0, 1, 9]), 0.0);
    }

    #[test]
    fn phrases_of_words_and_tokens() {
        let labels = Labels::characters(["a", "b", " "]);
        let words = Guide { boost: Some(Boost::words([("ab a", 2.0)], &labels)), language: None };
        // Three letters and two ends of words, however they are spelled.
        assert_eq!(score(&words, &[0, 1, 2, 0]), 10.0);
        assert_eq!(score(&words, &[2, 0, 1, 2, 2, 0, 2]), 10.0);
        // Neither as the beginning of another word nor as its end.
        assert_eq!(score(&words, &[0, 1, 2, 0, 1]), 0.0);
        assert_eq!(score(&words, &[1, 0, 1, 2, 0]), 0.0);
        // What is begun counts while it may be finished.
        assert_eq!(words.next(&words.start(), 0).0, 2.0);
        let pieces = Labels::sentence_pieces(["\u{2581}A", "B", "\u{2581}AB", "\u{2581}"]);
        let words = Guide { boost: Some(Boost::words([("ab a", 2.0)], &pieces)), language: None };
        assert_eq!((score(&words, &[0, 1, 0]), score(&words, &[2, 3, 0, 3, 0])), (10.0, 10.0));
        let tokens = Guide { boost: Some(Boost::Tokens(Phrases::new([([0, 1], 1.0)]))), language: None };
        assert_eq!(score(&tokens, &[1, 0, 1, 0]), 2.0);
    }

    #[test]
    fn what_words_are_is_seen() {
        let model = |words: &[&str]| {
            let lines: String = words.iter().map(|w| format!("-1 {w}\n")).collect();
            Ngrams::read(format!("\\data\\\n\\1-grams:\n{lines}\\end\\\n").as_bytes(), Limits::default()).unwrap()
        };
        let tokens = |words: &[&str], labels: &Labels| match Units::guessed(&model(words), labels) {
            Units::Tokens(found) => Some(found),
            Units::Words(_) => None,
        };
        let pieces = Labels::sentence_pieces(["\u{2581}a", "a", "bc"]);
        assert_eq!(tokens(&["<s>", "\u{2581}a", "a"], &pieces), Some(vec![Some(1), Some(2), None]));
        assert_eq!(tokens(&["d", "f", "<unk>"], &pieces), Some(vec![Some(0), Some(2), Some(1)]));
        assert_eq!(tokens(&["a", "abc", "<unk>"], &pieces), None);
        let inner = Labels::word_pieces(["a", "##a"]);
        assert_eq!(tokens(&["a", "##a"], &inner), Some(vec![Some(0), Some(1)]));
        let letters = Labels::characters([" ", "d", "e"]);
        assert_eq!(tokens(&["<s>", "d"], &letters), Some(vec![None, Some(1), None]));
        assert_eq!(tokens(&["de", "d"], &letters), None);
    }

    #[test]
    fn nemo_spells_tokens_as_characters() {
        let text = "\\data\\\nngram 1=2\n\\1-grams:\n-0.5 d\n-0.25 e\n\\end\\\n";
        let ngrams = Ngrams::read(text.as_bytes(), Limits::default()).unwrap();
        let Units::Tokens(words) = Units::nemo_tokens(&ngrams, 3) else { panic!("tokens") };
        assert_eq!(words, [Some(0), Some(1), None]);
    }
}
