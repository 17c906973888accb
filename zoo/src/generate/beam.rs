//! The bookkeeping of beam search, exactly as transformers does it (`_beam_search` of 4.50 and
//! later): which continuations of a text's beams go on, which are finished, when none can win.
//!
//! A text has `beams` running hypotheses with their sums of log-probabilities. Each step looks at
//! the best continuations of all of them together, more than beams by as many as may end there. Those
//! among the first `beams` that end are finished: their score is the sum over
//! `length^length_penalty`. The best that do not end run on. It is over when as many are finished as
//! there are beams and nothing that runs can beat the worst of them, as far as
//! [`EarlyStopping`] wants to know.

/// The score of what is not there: as transformers, finite, so that sums stay ordered.
const NEVER: f32 = -1.0e9;

/// When beam search is content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EarlyStopping {
    /// When the best running beam, as it stands, scores less than the worst finished one.
    #[default]
    Heuristic,
    /// As soon as there are as many finished texts as beams.
    Always,
    /// When no running beam can beat the worst finished one, however it goes on.
    Never,
}

/// How beams are searched.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BeamOptions {
    /// Hypotheses that run side by side.
    pub beams: usize,
    /// How many of the best are given back, at most as many as beams.
    pub best: usize,
    /// The exponent of the length that scores are divided by: above 0 favours long texts.
    pub length_penalty: f32,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

impl BeamOptions {
    /// So many beams, the best one given back, no further preference.
    pub fn new(beams: usize) -> BeamOptions {
        BeamOptions { beams, best: 1, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }
}

/// A text and its score.
#[derive(Clone, PartialEq, Debug)]
pub struct Hypothesis {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// A running one: the sum of log-probabilities. A finished one: divided by its length's power.
    pub score: f32,
}

/// The beams of one text.
#[derive(Clone, Debug)]
pub struct Beams {
    options: BeamOptions,
    running: Vec<Hypothesis>,
    /// Finished ones, best first; those that are not there yet have no tokens and score [`NEVER`].
    finished: Vec<(Hypothesis, bool)>,
    improvable: bool,
    steps: usize,
    longest: usize,
    over: bool,
}

/// A continuation of a beam by a token.
#[derive(Clone, Copy, Debug)]
struct Continuation {
    beam: usize,
    token: u32,
    score: f32,
    ends: bool,
}

impl Beams {
    /// Beams that have no tokens yet. At most `longest` tokens come.
    pub fn new(options: BeamOptions, longest: usize) -> Beams {
        let options = BeamOptions { beams: options.beams.max(1), ..options };
        let empty = |score| Hypothesis { tokens: vec![], score };
        // All beams are the same text at first: one of them counts.
        let running = (0..options.beams).map(|i| empty(if i == 0 { 0.0 } else { NEVER })).collect();
        let finished = vec![(empty(NEVER), false); options.beams];
        Beams { options, running, finished, improvable: true, steps: 0, longest, over: longest == 0 }
    }

    /// The running hypotheses.
    pub fn running(&self) -> &[Hypothesis] {
        &self.running
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// One step: `scores[b]` are the log-probabilities of every token after running hypothesis `b`;
    /// a hypothesis ends with one of `ends`, or by its length. Gives back, for each running
    /// hypothesis now, which one it continues.
    pub fn step(&mut self, scores: &[Vec<f32>], ends: &[u32]) -> Vec<usize> {
        let beams = self.options.beams;
        let keep = 2.max(1 + ends.len()) * beams;
        self.steps += 1;
        let full = self.steps >= self.longest;
        let mut best = top(scores, &self.running, keep);
        best.iter_mut().for_each(|c| c.ends = full || ends.contains(&c.token));
        let all_end = best.iter().all(|c| c.ends);

        let content = self.options.early_stopping == EarlyStopping::Always && self.finished.iter().all(|f| f.1);
        let length = (self.steps as f32).powf(self.options.length_penalty);
        let mut merged = self.finished.clone();
        for (i, c) in best.iter().enumerate() {
            let ended = c.ends && i < beams;
            let mut score = c.score / length;
            for unwanted in [content, !self.improvable, !ended] {
                score += if unwanted { NEVER } else { 0.0 };
            }
            merged.push((self.continued(c, score), ended));
        }
        // A stable sort: of equals the first, as they came.
        merged.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
        merged.truncate(beams);

        let mut going: Vec<Continuation> = best;
        going.iter_mut().for_each(|c| c.score += if c.ends { NEVER } else { 0.0 });
        going.sort_by(|a, b| b.score.total_cmp(&a.score));
        going.truncate(beams);
        self.running = going.iter().map(|c| self.continued(c, c.score)).collect();
        self.finished = merged;

        let (done, early) = (self.finished.iter().all(|f| f.1), self.options.early_stopping);
        let possible =
            if early == EarlyStopping::Never && self.options.length_penalty > 0.0 { self.longest } else { self.steps };
        let hope =
            self.running.first().map_or(NEVER, |r| r.score) / (possible as f32).powf(self.options.length_penalty);
        let worst = self.finished.iter().map(|f| f.0.score).fold(f32::INFINITY, f32::min);
        // Each place that is not filled asks for less than anything.
        self.improvable &= self.finished.iter().any(|f| hope > if f.1 { worst } else { NEVER });
        self.over = !self.improvable || done && early == EarlyStopping::Always || all_end;
        going.iter().map(|c| c.beam).collect()
    }

    fn continued(&self, c: &Continuation, score: f32) -> Hypothesis {
        let mut tokens = Vec::with_capacity(self.steps);
        tokens.extend_from_slice(&self.running[c.beam].tokens);
        tokens.push(c.token);
        Hypothesis { tokens, score }
    }

    /// The best finished texts, best first.
    pub fn best(&self) -> Vec<Hypothesis> {
        let found = self.finished.iter().filter(|f| f.1).map(|f| f.0.clone());
        found.take(self.options.best.clamp(1, self.options.beams)).collect()
    }
}

/// The best continuations of all beams, best first; of equals the one of the earlier beam and the
/// smaller token. What is not a number is never chosen.
fn top(scores: &[Vec<f32>], running: &[Hypothesis], keep: usize) -> Vec<Continuation> {
    let mut all: Vec<Continuation> = Vec::with_capacity(2 * keep);
    let order = |a: &Continuation, b: &Continuation| {
        b.score.total_cmp(&a.score).then(a.beam.cmp(&b.beam)).then(a.token.cmp(&b.token))
    };
    let mut least = f32::NEG_INFINITY;
    for (beam, (scores, from)) in scores.iter().zip(running).enumerate() {
        for (token, score) in scores.iter().enumerate() {
            let score = score + from.score;
            if score.is_nan() || all.len() >= keep && score <= least {
                continue;
            }
            all.push(Continuation { beam, token: token as u32, score, ends: false });
            if all.len() == 2 * keep {
                all.select_nth_unstable_by(keep - 1, order);
                all.truncate(keep);
                least = all[keep - 1].score;
            }
        }
    }
    all.sort_by(order);
    all.truncate(keep);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log-probabilities of a little language of four tokens, 0 ends it, by the tokens before.
    fn language(tokens: &[u32]) -> Vec<f32> {
        let seed =
            tokens.iter().fold(17u32, |h, t| h.wrapping_mul(31).wrapping_add(*t + 1).wrapping_mul(2_654_435_761));
        let logits: Vec<f32> = (0..4u32).map(|i| ((seed >> (i * 7)) & 127) as f32 / 40.0).collect();
        let total: f32 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l - total.ln()).collect()
    }

    /// All texts that end with 0 or after `longest` tokens, with their scores.
    fn all(before: &[u32], sum: f32, longest: usize, penalty: f32, out: &mut Vec<Hypothesis>) {
        for (token, p) in language(before).into_iter().enumerate() {
            let mut tokens = before.to_vec();
            tokens.push(token as u32);
            let sum = sum + p;
            if token == 0 || tokens.len() == longest {
                let score = sum / (tokens.len() as f32).powf(penalty);
                out.push(Hypothesis { tokens, score });
            } else {
                all(&tokens, sum, longest, penalty, out);
            }
        }
    }

    fn search(options: BeamOptions, longest: usize) -> Beams {
        let mut beams = Beams::new(options, longest);
        while !beams.is_over() {
            let scores: Vec<Vec<f32>> = beams.running().iter().map(|h| language(&h.tokens)).collect();
            let from = beams.step(&scores, &[0]);
            assert_eq!(from.len(), options.beams);
        }
        beams
    }

    #[test]
    fn beams_for_every_text_find_the_best_of_all() {
        for penalty in [0.0, 1.0, 2.0, -1.0] {
            let mut texts = vec![];
            all(&[], 0.0, 4, penalty, &mut texts);
            texts.sort_by(|a, b| b.score.total_cmp(&a.score));
            let options = BeamOptions {
                best: 3,
                length_penalty: penalty,
                early_stopping: EarlyStopping::Never,
                ..BeamOptions::new(200)
            };
            let found = search(options, 4).best();
            assert_eq!(found.len(), 3);
            for (found, text) in found.iter().zip(&texts) {
                assert_eq!(found.tokens, text.tokens, "{penalty}");
                assert!((found.score - text.score).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn one_beam_is_greedy() {
        let mut greedy = vec![];
        for _ in 0..6 {
            let scores = language(&greedy);
            let best = (0..4).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).expect("four");
            greedy.push(best as u32);
            if best == 0 {
                break;
            }
        }
        // With a heuristic that looks no further, one beam ends where greedy does.
        let options = BeamOptions { early_stopping: EarlyStopping::Always, ..BeamOptions::new(1) };
        let found = search(options, 6).best();
        assert!(found[0].tokens == greedy || greedy.len() == 6, "{found:?} {greedy:?}");
    }

    #[test]
    fn early_stopping_ends_with_enough_texts() {
        let long = |early_stopping| search(BeamOptions { early_stopping, ..BeamOptions::new(3) }, 12).steps;
        assert!(long(EarlyStopping::Always) <= long(EarlyStopping::Heuristic));
        assert!(long(EarlyStopping::Heuristic) <= long(EarlyStopping::Never));
    }

    #[test]
    fn numbers_that_are_none_and_vocabularies_of_one_are_survived() {
        let mut beams = Beams::new(BeamOptions::new(4), 3);
        while !beams.is_over() {
            beams.step(&vec![vec![f32::NAN, 0.0]; 4], &[]);
        }
        assert_eq!(beams.best()[0].tokens, [1, 1, 1]);
        let mut beams = Beams::new(BeamOptions::new(2), 2);
        beams.step(&vec![vec![f32::NAN]; 2], &[]);
        assert!(beams.is_over() && beams.best().is_empty());
    }
}
