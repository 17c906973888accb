//! How recognizers search: one setting for all families, [`Search`], and what runs it, [`Searcher`].
//!
//! A search is greedy, or a beam that a language model and phrases guide; tokens get a confidence if that is asked for. A
//! [`Searcher`] knows the tokens of a model. For each recording it gives a [`CtcSearch`] or a [`TransducerSearch`], which take
//! what the model gives part by part, as windows and streams have it, and say at any time what was found so far.

use super::guide::{Boost, LanguageModel, Units};
use super::ngram::Ngrams;
use super::transducer::{GreedyOptions, Progress, proceed};
use super::{Confidence, DecodeError, Emissions, Encoded, Guide, Hypothesis, Labels, Transducer};
use super::{ctc, ctc_beam, transducer_beam};
use std::sync::Arc;

/// How a recognizer searches. The default is greedy, without confidence.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Greedy or with a beam.
    pub method: Method,
    /// Whether tokens, words and segments get a confidence.
    pub confidence: Option<Confidence>,
}

impl Search {
    /// Whether it is the default one.
    pub fn is_plain(&self) -> bool {
        matches!(self.method, Method::Greedy) && self.confidence.is_none()
    }
}

/// How texts are found.
#[derive(Clone, Debug, Default)]
pub enum Method {
    /// What is best at each frame.
    #[default]
    Greedy,
    /// The best of several texts.
    Beam(Beam),
}

/// A search with a beam.
#[derive(Clone, Debug)]
pub struct Beam {
    /// Texts that are kept, at least 1.
    pub width: usize,
    /// A language model that guides it.
    pub language: Option<Language>,
    /// Phrases that are likelier than the model thinks; upper and lower case are the same.
    pub phrases: Vec<String>,
    /// What each letter of a phrase adds to the logarithm of a text's probability.
    pub boost: f32,
}

impl Default for Beam {
    /// Eight texts, nothing that guides.
    fn default() -> Self {
        Beam { width: 8, language: None, phrases: vec![], boost: 0.5 }
    }
}

/// A language model over words or tokens ([`Units::guessed`]).
#[derive(Clone, Debug)]
pub struct Language {
    /// The model.
    pub ngrams: Arc<Ngrams>,
    /// What its logarithms are multiplied by.
    pub weight: f32,
    /// What each of its words adds, against the preference for few of them.
    pub bonus: f32,
}

impl Language {
    /// A model at half the weight of what is heard.
    pub fn new(ngrams: Ngrams) -> Language {
        Language { ngrams: Arc::new(ngrams), weight: 0.5, bonus: 0.0 }
    }
}

/// A search that knows a model's tokens.
#[derive(Clone, Debug, Default)]
pub struct Searcher {
    /// The width of its beam; none if it is greedy.
    width: Option<usize>,
    guide: Guide,
    confidence: Option<Confidence>,
}

impl Searcher {
    /// The search over these tokens.
    ///
    /// # Errors
    /// A beam of none; weights that are no numbers.
    pub fn new(search: &Search, labels: &Labels) -> Result<Searcher, DecodeError> {
        let confidence = search.confidence;
        let Method::Beam(beam) = &search.method else {
            return Ok(Searcher { confidence, ..Searcher::default() });
        };
        let weights = beam.language.iter().flat_map(|l| [l.weight, l.bonus]).chain([beam.boost]);
        if let Some(weight) = weights.into_iter().find(|w| !w.is_finite()) {
            return Err(DecodeError::Option(format!("a weight of {weight}: expected a number")));
        }
        if beam.width == 0 {
            return Err(DecodeError::Option("a beam of 0 texts: expected at least 1".into()));
        }
        let language = beam.language.as_ref().map(|l| LanguageModel {
            ngrams: l.ngrams.clone(),
            units: Units::guessed(&l.ngrams, labels),
            weight: l.weight,
            bonus: l.bonus,
        });
        let phrases = beam.phrases.iter().map(|p| (p.as_str(), beam.boost));
        let boost = (!beam.phrases.is_empty()).then(|| Boost::words(phrases, labels));
        Ok(Searcher { width: Some(beam.width), guide: Guide { language, boost }, confidence })
    }

    /// Whether it keeps one text alone, of which nothing is taken back.
    pub fn is_greedy(&self) -> bool {
        self.width.is_none()
    }

    /// How sure it is asked to be.
    pub fn confidence(&self) -> Option<Confidence> {
        self.confidence
    }

    /// A search in what a CTC head gives for a recording.
    ///
    /// # Errors
    /// None that [`new`](Self::new) lets pass.
    pub fn ctc(&self, blank: usize) -> Result<CtcSearch<'_>, DecodeError> {
        let confidence = self.confidence;
        let stand = match self.width {
            None => CtcStand::Greedy(ctc::Progress::default(), confidence),
            Some(beam) => {
                let options = ctc_beam::CtcBeamOptions { beam, confidence, ..Default::default() };
                CtcStand::Beam(Box::new(ctc_beam::Search::new(&self.guide, options)?))
            }
        };
        Ok(CtcSearch { blank, stand })
    }

    /// A search with a transducer in a recording. A frame gives at most `max_symbols` labels.
    ///
    /// # Errors
    /// A model that fails.
    pub fn transducer<T: Transducer>(
        &self,
        model: &T,
        max_symbols: usize,
    ) -> Result<TransducerSearch<'_, T::State>, DecodeError> {
        let confidence = self.confidence;
        Ok(match self.width {
            None => TransducerSearch::Greedy(Progress::default(), GreedyOptions { max_symbols, confidence }),
            Some(beam) => {
                let options =
                    transducer_beam::BeamOptions { beam, steps: max_symbols, confidence, ..Default::default() };
                TransducerSearch::Beam(transducer_beam::Search::new(model, &self.guide, options)?)
            }
        })
    }
}

/// Where a search in what a CTC head gives for a recording stands.
pub struct CtcSearch<'s> {
    blank: usize,
    stand: CtcStand<'s>,
}

enum CtcStand<'s> {
    Greedy(ctc::Progress, Option<Confidence>),
    Beam(Box<ctc_beam::Search<'s>>),
}

impl CtcSearch<'_> {
    /// Goes on with more frames. What is found does not depend on where parts were cut.
    ///
    /// # Errors
    /// Sizes that do not fit, a blank that is no class, a frame without any number.
    pub fn feed(&mut self, part: &Emissions) -> Result<(), DecodeError> {
        match &mut self.stand {
            CtcStand::Greedy(progress, confidence) => ctc::proceed(part, self.blank, *confidence, progress),
            CtcStand::Beam(search) => search.feed(part, self.blank),
        }
    }

    /// What was found if the recording ends here.
    pub fn found(&self) -> Hypothesis {
        match &self.stand {
            CtcStand::Greedy(progress, _) => progress.hypothesis.clone(),
            CtcStand::Beam(search) => search.finish().into_iter().next().unwrap_or_default(),
        }
    }
}

/// Where a search with a transducer in a recording stands.
pub enum TransducerSearch<'s, S> {
    /// Greedy.
    Greedy(Progress<S>, GreedyOptions),
    /// With a beam.
    Beam(transducer_beam::Search<'s, S>),
}

impl<S: Clone> TransducerSearch<'_, S> {
    /// Goes on with more frames. What is found does not depend on where parts were cut.
    ///
    /// # Errors
    /// Sizes that do not fit, a model that fails or gives a wrong number of results.
    pub fn feed(&mut self, model: &impl Transducer<State = S>, part: &Encoded) -> Result<(), DecodeError> {
        match self {
            TransducerSearch::Greedy(progress, options) => {
                proceed(model, std::slice::from_ref(part), std::slice::from_mut(progress), options)
            }
            TransducerSearch::Beam(search) => search.feed(model, part),
        }
    }

    /// What was found if the recording ends here.
    pub fn found(&self) -> Hypothesis {
        match self {
            TransducerSearch::Greedy(progress, _) => progress.hypothesis.clone(),
            TransducerSearch::Beam(search) => search.finish().into_iter().next().unwrap_or_default(),
        }
    }
}

/// Goes on with more frames of several recordings, whose greedy searches ask the model together: one result for each.
/// What is found does not depend on the others.
pub fn feed_all<T: Transducer>(
    model: &T,
    mut searches: Vec<&mut TransducerSearch<'_, T::State>>,
    parts: &[Encoded],
) -> Vec<Result<(), DecodeError>> {
    let alone = |searches: Vec<&mut TransducerSearch<'_, T::State>>| {
        searches.into_iter().zip(parts).map(|(search, part)| search.feed(model, part)).collect()
    };
    let mut options = None;
    let mut stands: Vec<Progress<T::State>> = vec![];
    for search in &searches {
        if let TransducerSearch::Greedy(progress, of) = &**search {
            options = Some(*of);
            stands.push(progress.clone());
        }
    }
    let Some(options) = options.filter(|_| stands.len() > 1 && stands.len() == searches.len()) else {
        return alone(searches);
    };
    if proceed(model, parts, &mut stands, &options).is_err() {
        // Whose fault it is shows one after another, from where they stood.
        return alone(searches);
    }
    for (search, stand) in searches.iter_mut().zip(stands) {
        **search = TransducerSearch::Greedy(stand, options);
    }
    searches.iter().map(|_| Ok(())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::transducer::greedy;
    use super::*;

    #[test]
    fn settings_choose_the_search() {
        let labels = Labels::characters(["a", "b"]);
        // Two letters that sound nearly alike, and blank.
        let x: Vec<f32> = [0.48f32, 0.5, 0.02].map(f32::ln).to_vec();
        let say = |search: &Search| {
            let searcher = Searcher::new(search, &labels).unwrap();
            let mut search = searcher.ctc(2).unwrap();
            search.feed(&Emissions { log_probs: &x, classes: 3 }).unwrap();
            let found = search.found();
            (labels.text(found.ids()), found.tokens[0].confidence < 1.0)
        };
        let beam = |beam| Search { method: Method::Beam(beam), confidence: Some(Confidence::default()) };
        assert!(Search::default().is_plain() && !beam(Beam::default()).is_plain());
        assert_eq!(say(&Search::default()), ("b".into(), false));
        assert_eq!(say(&beam(Beam::default())), ("b".into(), true));
        assert_eq!(say(&beam(Beam { phrases: vec!["A".into()], ..Beam::default() })), ("a".into(), true));
        let ngrams = Ngrams::read(&b"\\data\\\n\\1-grams:\n-0.1 a\n-2 b\n\\end\\\n"[..], Default::default()).unwrap();
        let language = Some(Language::new(ngrams));
        assert_eq!(say(&beam(Beam { language, ..Beam::default() })), ("a".into(), true));
        for wrong in [Beam { width: 0, ..Beam::default() }, Beam { boost: f32::NAN, ..Beam::default() }] {
            assert!(Searcher::new(&beam(wrong), &labels).is_err());
        }
    }

    #[test]
    fn transducers_go_on_from_part_to_part() {
        let model = Fake { classes: 5, blank: 4, durations: vec![0, 1, 2], seed: 3 };
        let (values, width) = (model.frames(23).concat(), model.frames(1)[0].len());
        let of = |values| Encoded { values, width };
        let labels = Labels::characters(["a", "b", "c", "d"]);
        for width_of_beam in [None, Some(4)] {
            let method = width_of_beam.map_or(Method::Greedy, |width| Method::Beam(Beam { width, ..Beam::default() }));
            let searcher = Searcher::new(&Search { method, confidence: Some(Confidence::default()) }, &labels).unwrap();
            let run = |cut: usize| {
                let mut search = searcher.transducer(&model, 3).unwrap();
                for part in values.chunks(cut * width) {
                    search.feed(&model, &of(part)).unwrap();
                }
                search.found()
            };
            let found = run(23);
            assert!(found.tokens.iter().all(|t| t.confidence < 1.0) && found.tokens.len() > 3);
            assert_eq!(run(5), found);
            if width_of_beam.is_none() {
                let options = GreedyOptions { max_symbols: 3, confidence: searcher.confidence() };
                assert_eq!(greedy(&model, &[of(&values)], &options).unwrap()[0], found);
            }
        }
    }
}
