//! Greedy search with a transducer, RNN-T (Graves 2012) or TDT (Xu et al. 2023), by looping over labels
//! (Bataev et al. 2024, "Label-looping"): all recordings of a batch look for their next label together, each at its
//! own frame, and only then the predictor runs, once for all.
//!
//! At a frame the joint network scores tokens and blank. Blank leads to the next frame (RNN-T) or as many
//! frames on as the duration with the best score says, at least one (TDT). A label is kept, and the search
//! stays (RNN-T) or goes on by the duration, which may be 0. A frame that has given `max_symbols` labels is
//! left. This is what NeMo's `greedy_batch` does.
//!
//! A recording can come in parts: [`Progress`] is where the search stands, and [`proceed`] goes on with more
//! frames.

use super::{Confidence, DecodeError, Encoded, Hypothesis, Token, best, log_sum, rows};

/// A model that predicts with what it has said, and joins that with what it hears.
pub trait Transducer {
    /// The predictor after some tokens: its output and what it needs to go on.
    type State: Clone;
    /// Why it failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Tokens, blank among them.
    fn classes(&self) -> usize;

    /// The class that is no token; NeMo's is the last.
    fn blank(&self) -> usize;

    /// The frames that a step may take, for TDT; empty for RNN-T.
    fn durations(&self) -> &[usize] {
        &[]
    }

    /// The predictor before any token (NeMo: a zero vector goes in, the states are zeros).
    ///
    /// # Errors
    /// What the model says.
    fn start(&self) -> Result<Self::State, Self::Error>;

    /// The predictor one token further: `steps` are states with the token that each reads. One state for
    /// each, which does not depend on the others.
    ///
    /// # Errors
    /// What the model says.
    fn predict(&self, steps: &[(&Self::State, u32)]) -> Result<Vec<Self::State>, Self::Error>;

    /// Logits for frames of encoders with predictors: `[pairs, classes + durations]`, row after row. Each row does
    /// not depend on the others.
    ///
    /// # Errors
    /// What the model says.
    fn joint(&self, pairs: &[(&[f32], &Self::State)]) -> Result<Vec<f32>, Self::Error>;
}

/// How the greedy search runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreedyOptions {
    /// Labels that one frame may give, at least 1. NeMo's default is 10.
    pub max_symbols: usize,
    /// Whether tokens get a confidence.
    pub confidence: Option<Confidence>,
}

impl Default for GreedyOptions {
    fn default() -> Self {
        GreedyOptions { max_symbols: 10, confidence: None }
    }
}

/// Where the search in a recording stands.
#[derive(Clone, Debug)]
pub struct Progress<S> {
    /// What was found so far, in frames of the whole recording. The score is the sum of the log-probabilities of its
    /// tokens.
    pub hypothesis: Hypothesis,
    state: Option<S>,
    /// Frames given in earlier parts.
    given: usize,
    /// The frame to look at next, of the whole recording.
    next: usize,
    /// Labels that the last token's frame has given.
    at_frame: usize,
}

impl<S> Default for Progress<S> {
    fn default() -> Self {
        Progress { hypothesis: Hypothesis::default(), state: None, given: 0, next: 0, at_frame: 0 }
    }
}

/// The tokens of recordings.
///
/// # Errors
/// Sizes that do not fit, a model that fails or gives a wrong number of results.
pub fn greedy<T: Transducer>(
    model: &T,
    recordings: &[Encoded],
    options: &GreedyOptions,
) -> Result<Vec<Hypothesis>, DecodeError> {
    let mut progress: Vec<Progress<T::State>> = recordings.iter().map(|_| Progress::default()).collect();
    proceed(model, recordings, &mut progress, options)?;
    Ok(progress.into_iter().map(|p| p.hypothesis).collect())
}

/// Goes on with a part of each recording. What a recording's parts give together does not depend on where they
/// were cut.
///
/// # Errors
/// As [`greedy`]; other numbers of parts than of places where they stand.
pub fn proceed<T: Transducer>(
    model: &T,
    parts: &[Encoded],
    progress: &mut [Progress<T::State>],
    options: &GreedyOptions,
) -> Result<(), DecodeError> {
    if parts.len() != progress.len() || options.max_symbols == 0 {
        let (parts, stands) = (parts.len(), progress.len());
        let words =
            format!("{parts} parts go on from {stands} places; a frame may give {} labels", options.max_symbols);
        return Err(DecodeError::Option(words));
    }
    let frames = parts.iter().map(|p| Ok(rows(p.values, p.width)?.collect())).collect::<Result<Vec<Vec<_>>, _>>()?;
    for p in progress.iter_mut().filter(|p| p.state.is_none()) {
        p.state = Some(model.start().map_err(|e| DecodeError::Model(e.into()))?);
    }
    let open = |p: &Progress<T::State>, i: usize| p.next < p.given + frames[i].len();
    loop {
        // Every recording looks until it has found a label or come to its end.
        let mut found: Vec<(usize, u32)> = vec![];
        let mut looking: Vec<usize> = (0..progress.len()).filter(|i| open(&progress[*i], *i)).collect();
        while !looking.is_empty() {
            let pair = |i: &usize| {
                let p = &progress[*i];
                (frames[*i][p.next - p.given], p.state.as_ref().expect("set above"))
            };
            let logits = ask(model, &looking.iter().map(pair).collect::<Vec<_>>())?;
            let width = logits.len() / looking.len();
            let mut still = vec![];
            for (i, row) in looking.into_iter().zip(logits.chunks_exact(width)) {
                let p = &mut progress[i];
                if let Some(token) = p.step(row, model, options)? {
                    found.push((i, token));
                } else if open(p, i) {
                    still.push(i);
                }
            }
            looking = still;
        }
        if found.is_empty() {
            break;
        }
        found.sort_unstable();
        let steps: Vec<_> =
            found.iter().map(|(i, id)| (progress[*i].state.as_ref().expect("set above"), *id)).collect();
        let states = predict(model, &steps)?;
        for ((i, _), state) in found.iter().zip(states) {
            progress[*i].state = Some(state);
        }
    }
    for (p, frames) in progress.iter_mut().zip(&frames) {
        p.given += frames.len();
    }
    Ok(())
}

/// The joint's logits, checked.
pub(crate) fn ask<T: Transducer>(model: &T, pairs: &[(&[f32], &T::State)]) -> Result<Vec<f32>, DecodeError> {
    let (classes, blank) = (model.classes(), model.blank());
    if blank >= classes {
        return Err(DecodeError::Blank { blank, classes });
    }
    let logits = model.joint(pairs).map_err(|e| DecodeError::Model(e.into()))?;
    let expected = pairs.len() * (classes + model.durations().len());
    if logits.len() != expected {
        let (asked, found) = (pairs.len(), logits.len());
        return Err(DecodeError::Answer { part: "joint network", asked, expected, found });
    }
    Ok(logits)
}

/// The predictor's states, checked.
pub(crate) fn predict<T: Transducer>(model: &T, steps: &[(&T::State, u32)]) -> Result<Vec<T::State>, DecodeError> {
    let states = model.predict(steps).map_err(|e| DecodeError::Model(e.into()))?;
    if states.len() != steps.len() {
        let (asked, found) = (steps.len(), states.len());
        return Err(DecodeError::Answer { part: "predictor", asked, expected: asked, found });
    }
    Ok(states)
}

impl<S> Progress<S> {
    /// Takes the best step of a row of logits: the label, if it is one.
    ///
    /// # Errors
    /// A row without any number.
    fn step<T: Transducer>(
        &mut self,
        row: &[f32],
        model: &T,
        options: &GreedyOptions,
    ) -> Result<Option<u32>, DecodeError> {
        let (tokens, durations) = row.split_at(model.classes());
        let (class, logit) = best(tokens);
        let blank = class == model.blank();
        let time = self.next;
        if logit == f32::NEG_INFINITY {
            return Err(DecodeError::NotNumbers { frame: time });
        }
        // RNN-T: blank takes one frame, a label none.
        let duration = model.durations().get(best(durations).0).copied().unwrap_or(blank as usize);
        self.next += if blank { duration.max(1) } else { duration };
        if blank {
            return Ok(None);
        }
        let here = self.hypothesis.tokens.last().is_some_and(|t| t.start == time);
        self.at_frame = if here { self.at_frame + 1 } else { 1 };
        let (confidence, end) = (options.confidence.map_or(1.0, |c| c.of_logits(tokens)), self.next.max(time + 1));
        self.hypothesis.score += logit - log_sum(tokens);
        if self.at_frame >= options.max_symbols && self.next == time {
            self.next += 1;
        }
        self.hypothesis.tokens.push(Token { id: class as u32, start: time, end, confidence });
        Ok(Some(class as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    /// What the papers' loops do with one recording.
    fn plainly(model: &Fake, frames: &[Vec<f32>], most: usize) -> Vec<(u32, usize)> {
        let (mut t, mut state, mut found, mut here) = (0, model.start().unwrap(), vec![], 0);
        while t < frames.len() {
            let row = model.joint(&[(&frames[t], &state)]).unwrap();
            let (tokens, durations) = row.split_at(model.classes());
            let class = best(tokens).0;
            let blank = class == model.blank();
            if !blank {
                found.push((class as u32, t));
                state = model.predict(&[(&state, class as u32)]).unwrap().remove(0);
            }
            let skip = match model.durations() {
                [] => blank as usize,
                all => all[best(durations).0].max(blank as usize),
            };
            here = if skip > 0 { 0 } else { here + 1 };
            t += skip;
            if here == most {
                (t, here) = (t + 1, 0);
            }
        }
        found
    }

    #[test]
    fn batches_and_parts_give_what_one_recording_gives() {
        for durations in [vec![], vec![0, 1, 2, 4]] {
            let model = Fake { classes: 5, blank: 4, durations, seed: 3 };
            let recordings: Vec<Vec<Vec<f32>>> = [7, 0, 23, 1, 12].map(|n| model.frames(n)).into_iter().collect();
            let flat: Vec<Vec<f32>> = recordings.iter().map(|r| r.concat()).collect();
            let width = model.frames(1)[0].len();
            let of = |values| Encoded { values, width };
            for most in [1, 2, 10] {
                let options = GreedyOptions { max_symbols: most, ..Default::default() };
                let all = greedy(&model, &flat.iter().map(|f| of(f)).collect::<Vec<_>>(), &options).unwrap();
                for (i, found) in all.iter().enumerate() {
                    let spans: Vec<_> = found.tokens.iter().map(|t| (t.id, t.start)).collect();
                    assert_eq!(spans, plainly(&model, &recordings[i], most));
                    assert_eq!(*found, greedy(&model, &[of(&flat[i])], &options).unwrap()[0]);
                    for cut in [1, 3, 5] {
                        let mut stand = vec![Progress::default()];
                        for part in flat[i].chunks(cut * width) {
                            proceed(&model, &[of(part)], &mut stand, &options).unwrap();
                        }
                        assert_eq!(stand[0].hypothesis, *found, "parts of {cut}");
                    }
                }
                assert!(all.iter().any(|h| h.tokens.len() > 3));
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let model = Fake { classes: 5, blank: 5, durations: vec![], seed: 3 };
        let values = model.frames(2).concat();
        let width = values.len() / 2;
        let of = |values, width| [Encoded { values, width }];
        let options = GreedyOptions::default();
        assert!(matches!(greedy(&model, &of(&values, width), &options), Err(DecodeError::Blank { .. })));
        let model = Fake { blank: 4, ..model };
        assert!(matches!(greedy(&model, &of(&values, 0), &options), Err(DecodeError::Size { .. })));
        assert!(matches!(greedy(&model, &of(&values[1..], width), &options), Err(DecodeError::Size { .. })));
        let never = GreedyOptions { max_symbols: 0, ..options };
        assert!(matches!(greedy(&model, &of(&values, width), &never), Err(DecodeError::Option(_))));
        assert!(proceed(&model, &of(&values, width), &mut [], &options).is_err());
        let broken = [f32::NAN; 2];
        assert!(matches!(greedy(&model, &of(&broken, 2), &options), Err(DecodeError::NotNumbers { frame: 0 })));
    }
}
