//! Beam search with a transducer, RNN-T or TDT: modified adaptive expansion search (Kim et al. 2020), with a language
//! model and phrases.
//!
//! The search goes frame by frame. At each the best `beam` hypotheses stand; each goes on with blank, to a later frame, and
//! with the labels that are nearly as good as its best step (`gamma`, and at most `beam + beta` of them), up to
//! `steps` labels at one frame. Hypotheses that say the same are one, and their probabilities add up: at a frame they are taken in
//! the order of their lengths, so that all that leads to a text has come before it goes on. (NeMo's `maes` joins beginnings
//! that differ by `prefix_alpha` labels before each frame, for the same end; here no number limits it.) With everything
//! kept, the score is the sum over all paths of at most `steps` labels a frame.
//!
//! All hypotheses of a frame ask the joint network at once, and those that have grown the predictor. A recording can come in
//! parts: a [`Search`] takes one after the other.

use super::chain::Text;
use super::guide::{Guide, Memory};
use super::transducer::{Transducer, ask, predict};
use super::{Confidence, DecodeError, Encoded, Hypothesis, Token, best, log_sum, rows};
use std::collections::{BTreeMap, HashMap};

/// How the search runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses that stand at a frame, at least 1.
    pub beam: usize,
    /// Labels at one frame at most. NeMo: `maes_num_steps`.
    pub steps: usize,
    /// Steps worse than a hypothesis' best by more than this are not taken. NeMo: `maes_expansion_gamma`.
    pub gamma: f32,
    /// How many more labels than the beam are looked at. NeMo: `maes_expansion_beta`.
    pub beta: usize,
    /// Whether hypotheses are ranked at the end by their score per token.
    pub normalize: bool,
    /// How many hypotheses are given, best first.
    pub best: usize,
    /// Whether tokens get a confidence.
    pub confidence: Option<Confidence>,
}

impl Default for BeamOptions {
    /// NeMo's: a beam of 4, 2 steps, gamma 2.3, beta 2, normalized; the best alone.
    fn default() -> Self {
        BeamOptions { beam: 4, steps: 2, gamma: 2.3, beta: 2, normalize: true, best: 1, confidence: None }
    }
}

/// A text, and where its search stands.
struct Standing<S> {
    text: Text,
    /// The predictor before `unread`, the last token, if it has not read it yet.
    state: S,
    unread: Option<u32>,
    /// The logarithms of the sums of its paths, by how many labels these have said at this frame.
    paths: Vec<f32>,
    /// What the guide has added.
    added: f32,
    memory: Memory,
    /// The logarithms of its steps at this frame: tokens, then durations.
    row: Option<Vec<f32>>,
}

impl<S> Standing<S> {
    /// The logarithm of the sum of its paths.
    fn log(&self) -> f32 {
        log_sum(&self.paths)
    }

    fn score(&self) -> f32 {
        self.log() + self.added
    }

    /// The text alone.
    fn said(&self) -> Standing<()> {
        let Standing { text, paths, memory, .. } = self;
        let (text, paths, memory) = (text.clone(), paths.clone(), memory.clone());
        Standing { text, state: (), unread: None, paths, added: self.added, memory, row: None }
    }
}

/// Texts at one frame, found by what they say.
struct Frame<S> {
    places: HashMap<Text, usize>,
    all: Vec<Standing<S>>,
}

impl<S> Default for Frame<S> {
    fn default() -> Self {
        Frame { places: HashMap::new(), all: vec![] }
    }
}

impl<S> Frame<S> {
    /// Adds a text, or its paths to those of the same text.
    fn add(&mut self, new: Standing<S>) {
        let at = *self.places.entry(new.text.clone()).or_insert(self.all.len());
        let Some(old) = self.all.get_mut(at) else { return self.all.push(new) };
        if new.log() > old.log() {
            old.text = new.text;
        }
        old.paths.resize(old.paths.len().max(new.paths.len()), f32::NEG_INFINITY);
        old.paths.iter_mut().zip(&new.paths).for_each(|(old, new)| *old = log_sum(&[*old, *new]));
    }

    /// The best, of equals the first.
    fn into_best(mut self, most: usize) -> Vec<Standing<S>> {
        self.all.sort_by(|a, b| b.score().total_cmp(&a.score()));
        self.all.truncate(most);
        self.all
    }
}

/// The best hypotheses of a recording, best first; none only where the model leaves no way to the end.
///
/// # Errors
/// Sizes that do not fit, a beam of none, a model that fails or gives a wrong number of results.
pub fn beam<T: Transducer>(
    model: &T,
    recording: &Encoded,
    guide: &Guide,
    options: &BeamOptions,
) -> Result<Vec<Hypothesis>, DecodeError> {
    let mut search = Search::new(model, guide, *options)?;
    search.feed(model, recording)?;
    Ok(search.finish())
}

/// A search in a recording that comes in parts. What it finds does not depend on where they were cut.
pub struct Search<'g, S> {
    guide: &'g Guide,
    options: BeamOptions,
    /// Texts by the frame at which they stand.
    waiting: BTreeMap<usize, Frame<S>>,
    /// Frames so far.
    frames: usize,
}

impl<'g, S: Clone> Search<'g, S> {
    /// Nothing heard yet.
    ///
    /// # Errors
    /// A beam of none, a model that fails.
    pub fn new(
        model: &impl Transducer<State = S>,
        guide: &'g Guide,
        options: BeamOptions,
    ) -> Result<Self, DecodeError> {
        if options.beam == 0 || options.best == 0 {
            let words = format!("a beam of {} gives {} hypotheses: each is at least 1", options.beam, options.best);
            return Err(DecodeError::Option(words));
        }
        let first = Standing {
            text: Text::default(),
            state: model.start().map_err(|e| DecodeError::Model(e.into()))?,
            unread: None,
            paths: vec![0.0],
            added: 0.0,
            memory: guide.start(),
            row: None,
        };
        let mut waiting: BTreeMap<usize, Frame<S>> = BTreeMap::new();
        waiting.entry(0).or_default().add(first);
        Ok(Search { guide, options, waiting, frames: 0 })
    }

    /// Goes on with more frames.
    ///
    /// # Errors
    /// Sizes that do not fit, a model that fails or gives a wrong number of results.
    pub fn feed(&mut self, model: &impl Transducer<State = S>, part: &Encoded) -> Result<(), DecodeError> {
        let frames: Vec<&[f32]> = rows(part.values, part.width)?.collect();
        let end = self.frames + frames.len();
        while let Some(at) = self.waiting.first_entry().filter(|at| *at.key() < end) {
            let (t, frame) = at.remove_entry();
            let standing = frame.into_best(self.options.beam);
            step(model, self.guide, &self.options, (t, frames[t - self.frames]), standing, &mut self.waiting)?;
        }
        self.frames = end;
        Ok(())
    }

    /// The best hypotheses if the recording ends here, best first.
    pub fn finish(&self) -> Vec<Hypothesis> {
        // Where long steps lead beyond the end, this is the end.
        let mut ended = Frame::default();
        self.waiting.values().flat_map(|f| &f.all).for_each(|s| ended.add(s.said()));
        let rank = |s: Standing<()>| {
            let score = s.score() + self.guide.end(&s.memory);
            let rank = if self.options.normalize { score / (s.text.tokens.len() + 1) as f32 } else { score };
            (rank, score, s.text)
        };
        let mut found: Vec<(f32, f32, Text)> = ended.all.into_iter().map(rank).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(self.options.best);
        found.into_iter().map(|(_, score, text)| Hypothesis { tokens: text.tokens.to_vec(), score }).collect()
    }
}

/// Takes the texts that stand at frame `t` to later ones.
fn step<T: Transducer>(
    model: &T,
    guide: &Guide,
    options: &BeamOptions,
    (t, frame): (usize, &[f32]),
    standing: Vec<Standing<T::State>>,
    waiting: &mut BTreeMap<usize, Frame<T::State>>,
) -> Result<(), DecodeError> {
    let most = options.beam.saturating_add(options.beta);
    let mut levels: BTreeMap<usize, Frame<T::State>> = BTreeMap::new();
    let mut standing = standing;
    standing.iter_mut().for_each(|s| (s.paths, s.row) = (vec![s.log()], None));
    listen(model, frame, &mut standing)?;
    for s in standing {
        levels.entry(s.text.tokens.len()).or_default().add(s);
    }
    while let Some((_, level)) = levels.pop_first() {
        let (mut level, fresh): (Vec<_>, Vec<_>) = level.all.into_iter().partition(|s| s.row.is_some());
        let mut fresh = Frame { places: HashMap::new(), all: fresh }.into_best(most);
        listen(model, frame, &mut fresh)?;
        level.append(&mut fresh);
        for s in level {
            let Some(row) = &s.row else { continue };
            let (tokens, spans) = row.split_at(model.classes());
            // By how many frames a step goes on, and its logarithm; RNN-T's blank takes one, its labels none.
            let spans = |blank: bool| -> Vec<(usize, f32)> {
                match model.durations() {
                    [] => vec![(blank as usize, 0.0)],
                    all => all.iter().copied().zip(spans.iter().copied()).filter(|(d, _)| !blank || *d > 0).collect(),
                }
            };
            let confidence = options.confidence.map_or(1.0, |c| c.of(tokens));
            let mut labels: Vec<(u32, f32)> = (0u32..).zip(tokens.iter().copied()).collect();
            labels.retain(|(id, log)| *id as usize != model.blank() && *log > f32::NEG_INFINITY);
            labels.sort_by(|a, b| b.1.total_cmp(&a.1));
            labels.truncate(most);
            let mut steps: Vec<(Option<u32>, usize, f32)> = vec![];
            for (id, log) in labels {
                steps.extend(spans(false).into_iter().map(|(d, span)| (Some(id), d, log + span)));
            }
            let blank = tokens[model.blank()];
            let mut blanks: Vec<(usize, f32)> = spans(true);
            if blanks.is_empty() {
                // Durations that never advance: blank does.
                blanks.push((1, 0.0));
            }
            steps.extend(blanks.iter().map(|(d, span)| (None, *d, blank + span)));
            let bound = steps.iter().map(|s| s.2).fold(f32::NEG_INFINITY, f32::max) - options.gamma;
            // The best blank is always taken: no text is lost for want of a way on.
            let always = best(&blanks.iter().map(|b| b.1).collect::<Vec<_>>()).0;
            let always = blanks.get(always).map_or(1, |b| b.0);
            if steps.iter().all(|s| s.2.is_nan() || s.2 == f32::NEG_INFINITY) {
                return Err(DecodeError::NotNumbers { frame: t });
            }
            for (id, d, log) in steps {
                let kept = log >= bound || (id.is_none() && d == always);
                if !kept || log.is_nan() || log == f32::NEG_INFINITY {
                    continue;
                }
                let paths = match d {
                    0 => {
                        let said = s.paths.iter().take(options.steps).map(|p| p + log);
                        [f32::NEG_INFINITY].into_iter().chain(said).collect()
                    }
                    _ => vec![s.log() + log],
                };
                if best(&paths).1 == f32::NEG_INFINITY {
                    // No path may say one more label here.
                    continue;
                }
                let mut next = Standing {
                    text: s.text.clone(),
                    state: s.state.clone(),
                    unread: None,
                    paths,
                    added: s.added,
                    memory: s.memory.clone(),
                    row: None,
                };
                if let Some(id) = id {
                    let (change, memory) = guide.next(&s.memory, id);
                    next.text = s.text.with(Token { id, start: t, end: (t + d).max(t + 1), confidence });
                    (next.unread, next.added, next.memory) = (Some(id), s.added + change, memory);
                }
                let to = if d == 0 { &mut levels } else { &mut *waiting };
                let at = if d == 0 { next.text.tokens.len() } else { t + d };
                to.entry(at).or_default().add(next);
            }
        }
    }
    Ok(())
}

/// Lets the predictor read what it has not, and the joint network score what comes next.
fn listen<T: Transducer>(model: &T, frame: &[f32], all: &mut [Standing<T::State>]) -> Result<(), DecodeError> {
    let unread: Vec<usize> = (0..all.len()).filter(|i| all[*i].unread.is_some()).collect();
    if !unread.is_empty() {
        let steps: Vec<_> = unread.iter().filter_map(|i| Some((&all[*i].state, all[*i].unread?))).collect();
        let states = predict(model, &steps)?;
        for (i, state) in unread.into_iter().zip(states) {
            (all[i].state, all[i].unread) = (state, None);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let logits = ask(model, &all.iter().map(|s| (frame, &s.state)).collect::<Vec<_>>())?;
    let width = logits.len() / all.len();
    for (s, row) in all.iter_mut().zip(logits.chunks_exact(width)) {
        let (tokens, spans) = row.split_at(model.classes());
        let normal = |x: &[f32]| {
            let sum = log_sum(x);
            x.iter().map(|v| if *v == f32::NEG_INFINITY { *v } else { v - sum }).collect::<Vec<f32>>()
        };
        s.row = Some([normal(tokens), normal(spans)].concat());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Labels;
    use super::super::fake::Fake;
    use super::super::guide::{Boost, LanguageModel, Units};
    use super::super::phrases::Phrases;
    use super::super::transducer::{GreedyOptions, greedy};
    use super::*;

    const ALL: BeamOptions = BeamOptions {
        beam: usize::MAX,
        steps: 2,
        gamma: f32::INFINITY,
        beta: 0,
        normalize: false,
        best: usize::MAX,
        confidence: None,
    };

    /// Every way from a frame on.
    fn ways(
        model: &Fake,
        frames: &[Vec<f32>],
        t: usize,
        here: usize,
        said: &[u32],
        p: f64,
        sums: &mut HashMap<Vec<u32>, f64>,
    ) {
        if t >= frames.len() {
            *sums.entry(said.to_vec()).or_insert(0.0) += p;
            return;
        }
        let row = model.joint(&[(&frames[t], &said.to_vec())]).unwrap();
        let (tokens, spans) = row.split_at(model.classes);
        let softmax = |x: &[f32], i: usize| (x[i] as f64).exp() / x.iter().map(|v| (*v as f64).exp()).sum::<f64>();
        for class in 0..model.classes {
            let blank = class == model.blank;
            let steps: Vec<(usize, f64)> = match model.durations.is_empty() {
                true => vec![(blank as usize, 1.0)],
                false => (0..spans.len()).map(|i| (model.durations[i], softmax(spans, i))).collect(),
            };
            for (d, w) in steps.into_iter().filter(|(d, _)| if blank { *d > 0 } else { *d > 0 || here < 2 }) {
                let mut text = said.to_vec();
                text.extend((!blank).then_some(class as u32));
                let now = if d > 0 { 0 } else { here + 1 };
                ways(model, frames, t + d, now, &text, p * w * softmax(tokens, class), sums);
            }
        }
    }

    #[test]
    fn with_everything_kept_it_is_the_sum_of_all_paths() {
        for (durations, n) in [(vec![], 3), (vec![0, 1, 2], 3)] {
            let model = Fake { classes: 3, blank: 1, durations, seed: 5 };
            let frames = model.frames(n);
            let mut sums = HashMap::new();
            ways(&model, &frames, 0, 0, &[], 1.0, &mut sums);
            let (values, width) = (frames.concat(), frames[0].len());
            let found = beam(&model, &Encoded { values: &values, width }, &Guide::default(), &ALL).unwrap();
            assert_eq!(found.len(), sums.len());
            for h in &found {
                let p = sums[&h.ids()].ln();
                assert!((h.score as f64 - p).abs() < 1e-4, "{:?}: {} {p}", h.ids(), h.score);
            }
            let none = Guide::default();
            let mut search = Search::new(&model, &none, ALL).unwrap();
            for part in values.chunks(width) {
                search.feed(&model, &Encoded { values: part, width }).unwrap();
            }
            assert_eq!(search.finish(), found);
        }
    }

    /// A beam of one that takes one step after the other, each the best, is the greedy search where that is sure.
    #[test]
    fn the_guide_is_added_and_texts_are_ranked() {
        let model = Fake { classes: 3, blank: 2, durations: vec![], seed: 9 };
        let frames = model.frames(3);
        let (values, width) = (frames.concat(), frames[0].len());
        let recording = Encoded { values: &values, width };
        let labels = Labels::sentence_pieces(["\u{2581}a", "\u{2581}b"]);
        let ngrams = super::super::guide::tests::small();
        let units = Units::tokens(&ngrams, &labels);
        let guide = Guide {
            language: Some(LanguageModel { ngrams: ngrams.into(), units, weight: 0.6, bonus: 0.2 }),
            boost: Some(Boost::Tokens(Phrases::new([([1, 1], 0.7)]))),
        };
        let plain = beam(&model, &recording, &Guide::default(), &ALL).unwrap();
        let found = beam(&model, &recording, &guide, &ALL).unwrap();
        assert_eq!(plain.len(), found.len());
        for h in &found {
            let (mut memory, mut added) = (guide.start(), 0.0);
            for id in h.ids() {
                let (change, next) = guide.next(&memory, id);
                (added, memory) = (added + change, next);
            }
            let own = plain.iter().find(|p| p.ids() == h.ids()).unwrap().score;
            assert!((h.score - own - added - guide.end(&memory)).abs() < 1e-4);
        }
        assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
        let per_token = beam(&model, &recording, &guide, &BeamOptions { normalize: true, ..ALL }).unwrap();
        let rank = |h: &Hypothesis| h.score / (h.tokens.len() + 1) as f32;
        assert!(per_token.windows(2).all(|w| rank(&w[0]) >= rank(&w[1])));
    }

    #[test]
    fn small_beams_end_and_find_no_worse_than_greedy() {
        for durations in [vec![], vec![0, 1, 2, 4]] {
            let model = Fake { classes: 6, blank: 5, durations, seed: 11 };
            let frames = model.frames(40);
            let (values, width) = (frames.concat(), frames[0].len());
            let recording = Encoded { values: &values, width };
            let options = BeamOptions { normalize: false, best: 4, ..Default::default() };
            let found = beam(&model, &recording, &Guide::default(), &options).unwrap();
            assert!(!found.is_empty() && found.len() <= 4);
            let said = greedy(&model, &[recording], &GreedyOptions { max_symbols: 2, confidence: None }).unwrap();
            assert!(!said[0].tokens.is_empty() && !found[0].tokens.is_empty());
            for h in &found {
                assert!(h.tokens.windows(2).all(|w| w[0].start <= w[1].start) && h.score.is_finite());
            }
        }
    }

    #[test]
    fn nothing_and_nonsense() {
        let model = Fake { classes: 3, blank: 2, durations: vec![], seed: 1 };
        let of = |values, width, o: &BeamOptions| beam(&model, &Encoded { values, width }, &Guide::default(), o);
        let o = BeamOptions::default();
        assert_eq!(of(&[], 2, &o).unwrap(), [Hypothesis::default()]);
        assert!(of(&[1.0], 2, &o).is_err());
        assert!(of(&[], 2, &BeamOptions { beam: 0, ..o }).is_err());
        assert!(matches!(of(&[f32::NAN; 2], 2, &o), Err(DecodeError::NotNumbers { frame: 0 })));
        // Durations that never advance end all the same.
        let still = Fake { durations: vec![0], ..model };
        let values = still.frames(9).concat();
        let found = beam(&still, &Encoded { values: &values, width: 2 }, &Guide::default(), &o).unwrap();
        assert_eq!(found.len(), 1);
    }
}
