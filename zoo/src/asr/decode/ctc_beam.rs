//! Prefix beam search in what a CTC head gives (Graves 2012; Hannun et al. 2014), with a language model and phrases.
//!
//! Many paths say the same labels. The search goes frame by frame over prefixes of labels and keeps for each the
//! logarithms of all its paths that end in blank and of those that end in its last label:
//!
//! ```text
//! blank          b'(y)     += (b(y) + n(y)) p(blank)
//! last label     n'(y)     += n(y) p(last)
//! label c        n'(y c)   += (b(y) + n(y), but b(y) alone where c is the last) p(c)
//! ```
//!
//! With every prefix kept, the score is the sum over all paths: minus the CTC loss. After each frame the best `beam`
//! prefixes stay, by that sum and what the [`Guide`] adds. A token's frames are those of the best path to it.
//!
//! A recording can come in parts: a [`Search`] takes one after the other.

use super::chain::Chain;
use super::guide::{Guide, Memory};
use super::{Confidence, DecodeError, Emissions, Hypothesis, Token};
use std::collections::HashMap;

/// How the search runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CtcBeamOptions {
    /// Prefixes that are kept, at least 1.
    pub beam: usize,
    /// Prefixes worse than the best by more than this are dropped.
    pub threshold: f32,
    /// Classes with a smaller logarithm are not looked at in a frame, but for the best.
    pub least: f32,
    /// How many hypotheses are given, best first.
    pub best: usize,
    /// Whether tokens get a confidence: that of the frames of the best path to them.
    pub confidence: Option<Confidence>,
}

impl Default for CtcBeamOptions {
    /// 16 prefixes within 20 of the best, classes above e⁻⁸, the best alone.
    fn default() -> Self {
        CtcBeamOptions { beam: 16, threshold: 20.0, least: -8.0, best: 1, confidence: None }
    }
}

/// A prefix: the node of its last label in a tree of labels.
struct Prefix {
    node: u32,
    blank: f32,
    label: f32,
    /// Frames of its labels, on the best path.
    spans: Chain<(u32, u32)>,
}

struct Node {
    label: Option<u32>,
    parent: u32,
    /// What the guide has added on the way.
    added: f32,
    memory: Memory,
}

/// What a frame makes of a prefix: which prefix the best path came from, and whether it has a new label.
struct Next {
    blank: f32,
    label: f32,
    best: f32,
    from: usize,
    step: Step,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Stays,
    Repeats,
    Grows,
}

fn log_add(a: f32, b: f32) -> f32 {
    let (most, least) = if a > b { (a, b) } else { (b, a) };
    if least == f32::NEG_INFINITY { most } else { most + (least - most).exp().ln_1p() }
}

/// The best hypotheses of a recording, best first: at least one, of no tokens where nothing is better.
///
/// # Errors
/// Sizes that do not fit, a blank that is no class, a beam of none.
pub fn beam(
    emissions: &Emissions,
    blank: usize,
    guide: &Guide,
    options: &CtcBeamOptions,
) -> Result<Vec<Hypothesis>, DecodeError> {
    let mut search = Search::new(guide, *options)?;
    search.feed(emissions, blank)?;
    Ok(search.finish())
}

/// A search in a recording that comes in parts. What it finds does not depend on where they were cut.
pub struct Search<'g> {
    guide: &'g Guide,
    options: CtcBeamOptions,
    nodes: Vec<Node>,
    children: HashMap<(u32, u32), u32>,
    prefixes: Vec<Prefix>,
    /// Frames so far.
    frames: u32,
    /// How sure each frame is, if that is asked for.
    sure: Vec<f32>,
}

impl<'g> Search<'g> {
    /// Nothing heard yet.
    ///
    /// # Errors
    /// A beam of none.
    pub fn new(guide: &'g Guide, options: CtcBeamOptions) -> Result<Self, DecodeError> {
        if options.beam == 0 || options.best == 0 {
            let words = format!("a beam of {} gives {} hypotheses: each is at least 1", options.beam, options.best);
            return Err(DecodeError::Option(words));
        }
        let nodes = vec![Node { label: None, parent: 0, added: 0.0, memory: guide.start() }];
        let first = Prefix { node: 0, blank: 0.0, label: f32::NEG_INFINITY, spans: Chain::default() };
        Ok(Search { guide, options, nodes, children: HashMap::new(), prefixes: vec![first], frames: 0, sure: vec![] })
    }

    /// Goes on with more frames.
    ///
    /// # Errors
    /// Sizes that do not fit, a blank that is no class, a frame without any number.
    pub fn feed(&mut self, part: &Emissions, blank: usize) -> Result<(), DecodeError> {
        for row in part.frames(blank)? {
            self.step(row, blank)?;
            self.sure.extend(self.options.confidence.map(|c| c.of(row)));
            self.frames = self.frames.saturating_add(1);
        }
        Ok(())
    }

    /// The best hypotheses if the recording ends here, best first.
    pub fn finish(&self) -> Vec<Hypothesis> {
        let mut ranked: Vec<(f32, &Prefix)> = self.prefixes.iter().map(|p| (self.score(p), p)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.truncate(self.options.best);
        ranked.into_iter().map(|(score, prefix)| Hypothesis { tokens: self.tokens(prefix), score }).collect()
    }

    fn score(&self, prefix: &Prefix) -> f32 {
        let node = &self.nodes[prefix.node as usize];
        log_add(prefix.blank, prefix.label) + node.added + self.guide.end(&node.memory)
    }

    fn tokens(&self, prefix: &Prefix) -> Vec<Token> {
        let (mut tokens, mut at) = (vec![], prefix.node as usize);
        let mut spans = prefix.spans.backwards();
        while let (Some(id), Some((start, end))) = (self.nodes[at].label, spans.next()) {
            let (start, end) = (*start as usize, *end as usize);
            let sure = self.sure.get(start..end).unwrap_or_default().iter().copied();
            let confidence = self.options.confidence.map_or(1.0, |c| c.aggregate.of(sure));
            tokens.push(Token { id, start, end, confidence });
            at = self.nodes[at].parent as usize;
        }
        tokens.reverse();
        tokens
    }

    /// Takes a frame.
    fn step(&mut self, row: &[f32], blank: usize) -> Result<(), DecodeError> {
        let Search { guide, options, nodes, children, prefixes, frames: t, .. } = self;
        let (never, t) = (f32::NEG_INFINITY, *t);
        let most = row.iter().copied().fold(never, f32::max);
        let looked = |p: &f32| *p >= options.least.min(most) && *p > never;
        let labels: Vec<(u32, f32)> =
            row.iter().enumerate().filter(|(c, p)| *c != blank && looked(p)).map(|(c, p)| (c as u32, *p)).collect();
        let mut found: Vec<(u32, Next)> = vec![];
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut add = |node: u32, from: usize, step: Step, log: f32| {
            if log.is_nan() || log == never {
                return;
            }
            let at = *places.entry(node).or_insert_with(|| {
                found.push((node, Next { blank: never, label: never, best: never, from, step }));
                found.len() - 1
            });
            let next = &mut found[at].1;
            let sum = if step == Step::Stays { &mut next.blank } else { &mut next.label };
            *sum = log_add(*sum, log);
            if log > next.best {
                (next.best, next.from, next.step) = (log, from, step);
            }
        };
        for (i, prefix) in prefixes.iter().enumerate() {
            let all = log_add(prefix.blank, prefix.label);
            add(prefix.node, i, Step::Stays, all + row[blank]);
            let last = nodes[prefix.node as usize].label;
            for (label, p) in &labels {
                let from = if last == Some(*label) {
                    add(prefix.node, i, Step::Repeats, prefix.label + p);
                    prefix.blank
                } else {
                    all
                };
                if from == never {
                    continue;
                }
                let node = *children.entry((prefix.node, *label)).or_insert_with(|| {
                    let before = &nodes[prefix.node as usize];
                    let (change, memory) = guide.next(&before.memory, *label);
                    let added = before.added + change;
                    nodes.push(Node { label: Some(*label), parent: prefix.node, added, memory });
                    nodes.len() as u32 - 1
                });
                add(node, i, Step::Grows, from + p);
            }
        }
        let score = |(node, next): &(u32, Next)| log_add(next.blank, next.label) + nodes[*node as usize].added;
        let mut ranked: Vec<(f32, usize)> = found.iter().enumerate().map(|(i, f)| (score(f), i)).collect();
        // Of equals the first found, whatever else there is.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let bound = ranked.first().map_or(never, |r| r.0 - options.threshold);
        ranked.retain(|r| r.0 >= bound);
        ranked.truncate(options.beam);
        if ranked.is_empty() {
            return Err(DecodeError::NotNumbers { frame: t as usize });
        }
        let kept = ranked.iter().map(|(_, i)| {
            let (node, next) = &found[*i];
            let before = &prefixes[next.from].spans;
            let spans = match (next.step, before.last()) {
                (Step::Grows, _) => before.with((t, t + 1)),
                (Step::Repeats, Some((start, _))) => before.before().with((*start, t + 1)),
                _ => before.clone(),
            };
            Prefix { node: *node, blank: next.blank, label: next.label, spans }
        });
        *prefixes = kept.collect();
        forget(nodes, children, prefixes);
        Ok(())
    }
}

/// Drops nodes that no prefix passes, once there are many more than are in use.
fn forget(nodes: &mut Vec<Node>, children: &mut HashMap<(u32, u32), u32>, prefixes: &mut [Prefix]) {
    let longest = prefixes.iter().map(|p| p.spans.len()).max().unwrap_or(0);
    if nodes.len() < 4096.max(8 * prefixes.len() * (longest + 1)) {
        return;
    }
    let mut used = vec![false; nodes.len()];
    used[0] = true;
    for prefix in prefixes.iter() {
        let mut at = prefix.node as usize;
        while !std::mem::replace(&mut used[at], true) {
            at = nodes[at].parent as usize;
        }
    }
    let mut to = vec![0u32; nodes.len()];
    let mut kept = vec![];
    for (i, node) in std::mem::take(nodes).into_iter().enumerate() {
        if used[i] {
            to[i] = kept.len() as u32;
            // Parents come before their children.
            kept.push(Node { parent: to[node.parent as usize], ..node });
        }
    }
    *nodes = kept;
    children.retain(|(from, _), node| used[*from as usize] && used[*node as usize]);
    *children = children.drain().map(|((from, label), node)| ((to[from as usize], label), to[node as usize])).collect();
    prefixes.iter_mut().for_each(|p| p.node = to[p.node as usize]);
}

#[cfg(test)]
mod tests {
    use super::super::guide::tests::small;
    use super::super::guide::{Boost, LanguageModel, Units};
    use super::super::phrases::Phrases;
    use super::super::{Labels, ctc};
    use super::*;

    const ALL: CtcBeamOptions = CtcBeamOptions {
        beam: 1 << 20,
        threshold: f32::INFINITY,
        least: f32::NEG_INFINITY,
        best: 1 << 20,
        confidence: None,
    };

    fn noise(frames: usize, classes: usize, seed: u64) -> Vec<f32> {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x % 1000) as f32 / 250.0
        };
        let rows = (0..frames).flat_map(|_| {
            let row: Vec<f32> = (0..classes).map(|_| next()).collect();
            let sum = super::super::log_sum(&row);
            row.into_iter().map(move |v| v - sum).collect::<Vec<_>>()
        });
        rows.collect()
    }

    /// Every path, joined by what it says.
    fn brute(x: &[f32], classes: usize, blank: usize) -> HashMap<Vec<u32>, f64> {
        let frames = x.len() / classes;
        let mut sums = HashMap::new();
        for mut n in 0..classes.pow(frames as u32) {
            let (mut log, mut said, mut before) = (0f64, vec![], blank);
            for t in 0..frames {
                let c = n % classes;
                n /= classes;
                log += x[t * classes + c] as f64;
                if c != blank && c != before {
                    said.push(c as u32);
                }
                before = c;
            }
            *sums.entry(said).or_insert(0.0) += log.exp();
        }
        sums
    }

    #[test]
    fn with_every_prefix_kept_it_is_the_sum_of_all_paths() {
        for (seed, blank) in [(1, 0), (2, 2), (3, 1)] {
            let x = noise(6, 3, seed);
            let found = beam(&Emissions { log_probs: &x, classes: 3 }, blank, &Guide::default(), &ALL).unwrap();
            let expected = brute(&x, 3, blank);
            assert_eq!(found.len(), expected.len());
            for h in &found {
                let p = expected[&h.ids()].ln();
                assert!((h.score as f64 - p).abs() < 1e-4, "{:?}: {} {p}", h.ids(), h.score);
                assert!(h.tokens.iter().all(|t| t.start < t.end && t.end <= 6));
                assert!(h.tokens.windows(2).all(|w| w[0].end <= w[1].start));
            }
            assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
            let none = Guide::default();
            let mut search = Search::new(&none, ALL).unwrap();
            for part in x.chunks(6) {
                search.feed(&Emissions { log_probs: part, classes: 3 }, blank).unwrap();
            }
            assert_eq!(search.finish(), found);
        }
    }

    /// The guided score of each text is that of its paths and of the guide; the order follows.
    #[test]
    fn a_language_model_is_added() {
        let x = noise(5, 3, 7);
        let labels = Labels::sentence_pieces(["\u{2581}a", "\u{2581}b"]);
        let units = Units::tokens(&small(), &labels);
        let guide = Guide {
            language: Some(LanguageModel { ngrams: small().into(), units, weight: 0.7, bonus: 0.3 }),
            boost: Some(Boost::Tokens(Phrases::new([([1, 0], 0.5)]))),
        };
        let found = beam(&Emissions { log_probs: &x, classes: 3 }, 2, &guide, &ALL).unwrap();
        let expected = brute(&x, 3, 2);
        for h in found {
            let (mut memory, mut added) = (guide.start(), 0.0);
            for id in h.ids() {
                let (change, next) = guide.next(&memory, id);
                (added, memory) = (added + change, next);
            }
            let sum = expected[&h.ids()].ln() as f32 + added + guide.end(&memory);
            assert!((h.score - sum).abs() < 1e-4, "{:?}: {} {sum}", h.ids(), h.score);
        }
    }

    /// Sure frames: what greedy search says, with its times; and a small beam over many frames stays right.
    #[test]
    fn sure_frames_are_greedy() {
        let mut x = noise(3000, 9, 4);
        for (t, row) in x.chunks_mut(9).enumerate() {
            row[if t % 3 == 0 { 8 } else { (t / 3 * 5) % 8 }] += 12.0;
            let sum = super::super::log_sum(row);
            row.iter_mut().for_each(|v| *v -= sum);
        }
        let emissions = Emissions { log_probs: &x, classes: 9 };
        let confidence = Some(Confidence::default());
        let greedy = ctc::greedy(&[emissions], 8, confidence).unwrap().remove(0);
        let options = CtcBeamOptions { beam: 4, confidence, ..Default::default() };
        let found = beam(&emissions, 8, &Guide::default(), &options).unwrap();
        assert_eq!(found[0].tokens, greedy.tokens);
        assert_eq!(greedy.tokens.len(), 1000);
    }

    #[test]
    fn phrases_turn_the_balance() {
        // Two labels that sound nearly alike.
        let x: Vec<f32> = [0.48f32, 0.5, 0.02].map(f32::ln).to_vec();
        let e = Emissions { log_probs: &x, classes: 3 };
        let boosted = Guide { boost: Some(Boost::Tokens(Phrases::new([([0], 0.2)]))), language: None };
        let say = |g: &Guide| beam(&e, 2, g, &CtcBeamOptions::default()).unwrap()[0].ids();
        assert_eq!((say(&Guide::default()), say(&boosted)), (vec![1], vec![0]));
    }

    #[test]
    fn nothing_and_nonsense() {
        let guide = Guide::default();
        let of = |x: &[f32], o: &CtcBeamOptions| beam(&Emissions { log_probs: x, classes: 3 }, 2, &guide, o);
        let o = CtcBeamOptions::default();
        assert_eq!(of(&[], &o).unwrap(), [Hypothesis::default()]);
        assert!(of(&[0.0; 4], &o).is_err());
        assert!(of(&[], &CtcBeamOptions { beam: 0, ..o }).is_err());
        assert!(matches!(of(&[f32::NAN; 6], &o), Err(DecodeError::NotNumbers { frame: 0 })));
        assert!(matches!(of(&[f32::NEG_INFINITY; 6], &o), Err(DecodeError::NotNumbers { frame: 0 })));
    }
}
