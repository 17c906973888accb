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

/// What a language model's words are.
#[derive(Clone, Debug)]
pub enum Units {
    /// Tokens: the model's word of each.
    Tokens(Vec<Option<u32>>),
    /// Words, as tokens spell them.
    Words(Labels),
}

impl Units {
    /// Tokens by their own texts, as [`Labels`] has them (without the space before).
    pub fn tokens(model: &Ngrams, labels: &Labels) -> Units {
        Units::Tokens((0..labels.len() as u32).map(|t| model.word(labels.get(t).trim())).collect())
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
    pub ngrams: Ngrams,
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
    /// Words, numbered by the list.
    Words(Phrases, std::collections::HashMap<String, u32>, Labels),
}

impl Boost {
    /// Phrases of words, whatever tokens spell them, each with the logarithm that every word of it adds.
    pub fn words<'a>(phrases: impl IntoIterator<Item = (&'a str, f32)>, labels: &Labels) -> Boost {
        let mut numbers = std::collections::HashMap::new();
        let mut listed = vec![];
        for (phrase, weight) in phrases {
            let mut symbols = vec![];
            for word in phrase.split_whitespace() {
                let next = numbers.len() as u32;
                symbols.push(*numbers.entry(word.to_string()).or_insert(next));
            }
            listed.push((symbols, weight));
        }
        Boost::Words(Phrases::new(listed), numbers, labels.clone())
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
            Some(Boost::Words(_, _, labels)) => Some(labels),
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
            for (k, part) in labels.get(token).split(' ').enumerate() {
                if k > 0 {
                    score += self.word(&mut memory);
                }
                memory.word.push_str(part);
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
        if let Some(Boost::Words(phrases, numbers, _)) = &self.boost {
            let (change, place) = phrases.next(memory.place, numbers.get(&word).copied().unwrap_or(u32::MAX));
            (score, memory.place) = (score + change, place);
        }
        score
    }

    /// What is added where the recording ends: the last word, the end of the sentence, phrases that were only begun.
    pub fn end(&self, memory: &Memory) -> f32 {
        let mut memory = memory.clone();
        let mut score = self.word(&mut memory);
        if let (Some(language), Some(context)) = (&self.language, memory.context) {
            score += language.weight * language.ngrams.end(context);
        }
        match &self.boost {
            Some(Boost::Tokens(phrases) | Boost::Words(phrases, ..)) => score + phrases.end(memory.place),
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
            language: Some(LanguageModel { ngrams: small(), units, weight: 0.5, bonus: 0.25 }),
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
        assert_eq!(score(&words, &[0, 1, 2, 0]), 4.0);
        assert_eq!(score(&words, &[0, 1, 2, 0, 1]), 0.0);
        let tokens = Guide { boost: Some(Boost::Tokens(Phrases::new([([0, 1], 1.0)]))), language: None };
        assert_eq!(score(&tokens, &[1, 0, 1, 0]), 2.0);
    }

    #[test]
    fn nemo_spells_tokens_as_characters() {
        let text = "\\data\\\nngram 1=2\n\\1-grams:\n-0.5 d\n-0.25 e\n\\end\\\n";
        let ngrams = Ngrams::read(text.as_bytes(), Limits::default()).unwrap();
        let Units::Tokens(words) = Units::nemo_tokens(&ngrams, 3) else { panic!("tokens") };
        assert_eq!(words, [Some(0), Some(1), None]);
    }
}
