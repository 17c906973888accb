//! How right a transcript is: word and character error rates with what was inserted, deleted and substituted, aligned
//! texts, sums over a corpus, and speed.
//!
//! The rules are NeMo's (`word_error_rate`): words are what white space separates, characters are all of them, spaces
//! too; a corpus's rate is the sum of errors divided by the sum of reference words; with no reference word
//! at all the rate is infinite.
//!
//! The alignment has the fewest errors (Levenshtein 1966), and of such the most hits. Texts of any length are aligned in memory that grows with
//! their sum, not their product (Hirschberg 1975).

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// What white space separates.
    Words,
    /// Unicode scalar values, spaces among them.
    Characters,
}

impl Unit {
    fn split(self, text: &str) -> Vec<String> {
        match self {
            Unit::Words => text.split_whitespace().map(str::to_string).collect(),
            Unit::Characters => text.chars().map(String::from).collect(),
        }
    }
}

/// How many errors of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Words that were said and found.
    pub hits: usize,
    /// Words in place of others.
    pub substitutions: usize,
    /// Words that were said and not found.
    pub deletions: usize,
    /// Words that were found and not said.
    pub insertions: usize,
}

impl Errors {
    /// All errors.
    pub fn total(&self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Words that were said.
    pub fn reference(&self) -> usize {
        self.hits + self.substitutions + self.deletions
    }

    /// Errors per word that was said: 0 where all is right, above 1 where there are more errors than words, infinite
    /// where nothing was said.
    pub fn rate(&self) -> f64 {
        if self.reference() == 0 { f64::INFINITY } else { self.total() as f64 / self.reference() as f64 }
    }
}

impl AddAssign for Errors {
    fn add_assign(&mut self, other: Errors) {
        self.hits += other.hits;
        self.substitutions += other.substitutions;
        self.deletions += other.deletions;
        self.insertions += other.insertions;
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Errors { substitutions, deletions, insertions, .. } = self;
        let of = self.reference();
        write!(
            f,
            "{:.2} % ({} of {of}: {substitutions} substituted, {deletions} deleted, {insertions} inserted)",
            100.0 * self.rate(),
            self.total()
        )
    }
}

/// A word said, a word found, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What was said.
    pub reference: Option<String>,
    /// What was found.
    pub hypothesis: Option<String>,
}

/// Two texts side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// From the first word to the last.
    pub pairs: Vec<Pair>,
}

impl Alignment {
    /// Aligns what was said with what was found.
    pub fn new(reference: &str, hypothesis: &str, unit: Unit) -> Alignment {
        let words = [unit.split(reference), unit.split(hypothesis)];
        let [a, b] = {
            let mut numbers: HashMap<&str, usize> = HashMap::new();
            words.each_ref().map(|words| {
                let number = words.iter().map(|w| {
                    let next = numbers.len();
                    *numbers.entry(w.as_str()).or_insert(next)
                });
                number.collect::<Vec<_>>()
            })
        };
        let mut steps = vec![];
        align(&a, &b, &mut steps);
        let [mut said, mut found] = words.map(Vec::into_iter);
        let pair = |(a, b): (bool, bool)| Pair { reference: said.next_if(a), hypothesis: found.next_if(b) };
        Alignment { pairs: steps.into_iter().map(pair).collect() }
    }

    /// How many errors of each kind.
    pub fn errors(&self) -> Errors {
        let mut errors = Errors::default();
        for pair in &self.pairs {
            match (&pair.reference, &pair.hypothesis) {
                (Some(a), Some(b)) if a == b => errors.hits += 1,
                (Some(_), Some(_)) => errors.substitutions += 1,
                (Some(_), None) => errors.deletions += 1,
                _ => errors.insertions += 1,
            }
        }
        errors
    }
}

/// The next of an iterator, if it is wanted.
trait NextIf: Iterator {
    fn next_if(&mut self, wanted: bool) -> Option<Self::Item> {
        if wanted { self.next() } else { None }
    }
}
impl<I: Iterator> NextIf for I {}

/// Three lines: what was said, what was found, and below it `S`, `D` or `I` where they differ. Columns are as wide as
/// the longer word (in characters); what is missing is stars.
impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut lines = [String::from("REF:"), String::from("HYP:"), String::from("    ")];
        for Pair { reference, hypothesis } in &self.pairs {
            let [a, b] = [reference, hypothesis].map(|w| w.as_deref().unwrap_or(""));
            let width = a.chars().count().max(b.chars().count());
            let stars = "*".repeat(width);
            let mark = match (reference, hypothesis) {
                (Some(a), Some(b)) if a == b => "",
                (Some(_), Some(_)) => "S",
                (Some(_), None) => "D",
                _ => "I",
            };
            let shown = [reference, hypothesis].map(|w| w.as_deref().unwrap_or(&stars));
            for (line, word) in lines.iter_mut().zip([shown[0], shown[1], mark]) {
                line.push(' ');
                line.push_str(word);
                line.extend(std::iter::repeat_n(' ', width - word.chars().count().min(width)));
            }
        }
        write!(f, "{}", lines.map(|l| l.trim_end().to_string()).join("\n"))
    }
}

/// What an error costs. Substitutions cost a trifle more: of alignments with as few errors, that with most hits is taken.
const ERROR: usize = 1 << 32;

/// What taking two words for one another costs.
fn pair(a: &usize, b: &usize) -> usize {
    if a == b { 0 } else { ERROR + 1 }
}

/// Cells of a table of costs at most: larger problems are divided.
const CELLS: usize = 1 << 20;

/// The steps of the best alignment: whether it takes a word of `a`, of `b`.
fn align(a: &[usize], b: &[usize], steps: &mut Vec<(bool, bool)>) {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    steps.extend(std::iter::repeat_n((true, true), same));
    let (a, b) = (&a[same..], &b[same..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - tail], &b[..b.len() - tail]);
    if a.len() < 2 || b.is_empty() || (a.len() + 1).saturating_mul(b.len() + 1) <= CELLS {
        table(a, b, steps);
    } else {
        // Where does the best alignment cross the middle of `a`?
        let (left, right) = a.split_at(a.len() / 2);
        let before = costs(left.iter(), b.iter());
        let after = costs(right.iter().rev(), b.iter().rev());
        let at = (0..=b.len()).min_by_key(|i| before[*i] + after[b.len() - i]).unwrap_or(0);
        align(left, &b[..at], steps);
        align(right, &b[at..], steps);
    }
    steps.extend(std::iter::repeat_n((true, true), tail));
}

/// The costs of aligning all of `a` with each beginning of `b`.
fn costs<'x>(a: impl Iterator<Item = &'x usize>, b: impl ExactSizeIterator<Item = &'x usize> + Clone) -> Vec<usize> {
    let mut row: Vec<usize> = (0..=b.len()).map(|j| j * ERROR).collect();
    for (i, a) in a.enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], (i + 1) * ERROR);
        for (j, b) in b.clone().enumerate() {
            let best = (diagonal + pair(a, b)).min(row[j] + ERROR).min(row[j + 1] + ERROR);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row
}

/// The same by the whole table, in which the way is found backwards.
fn table(a: &[usize], b: &[usize], steps: &mut Vec<(bool, bool)>) {
    let n = b.len() + 1;
    let mut cost = vec![0usize; (a.len() + 1) * n];
    for i in 0..=a.len() {
        for j in 0..n {
            cost[i * n + j] = match (i, j) {
                (0, k) | (k, 0) => k * ERROR,
                _ => (cost[(i - 1) * n + j - 1] + pair(&a[i - 1], &b[j - 1]))
                    .min(cost[i * n + j - 1] + ERROR)
                    .min(cost[(i - 1) * n + j] + ERROR),
            };
        }
    }
    let (mut i, mut j, first) = (a.len(), b.len(), steps.len());
    while i + j > 0 {
        let here = cost[i * n + j];
        let step = if i > 0 && j > 0 && here == cost[(i - 1) * n + j - 1] + pair(&a[i - 1], &b[j - 1]) {
            (true, true)
        } else if i > 0 && here == cost[(i - 1) * n + j] + ERROR {
            (true, false)
        } else {
            (false, true)
        };
        i -= step.0 as usize;
        j -= step.1 as usize;
        steps.push(step);
    }
    steps[first..].reverse();
}

/// The errors of one transcript.
pub fn errors(reference: &str, hypothesis: &str, unit: Unit) -> Errors {
    Alignment::new(reference, hypothesis, unit).errors()
}

/// The errors of all pairs of what was said and what was found.
pub fn corpus<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, unit: Unit) -> Errors {
    let mut sum = Errors::default();
    pairs.into_iter().for_each(|(reference, hypothesis)| sum += errors(reference, hypothesis, unit));
    sum
}

/// Seconds of sound that are worked on in a second: the inverse of the real-time factor. Infinite in no time.
pub fn rtfx(sound: Duration, spent: Duration) -> f64 {
    if spent.is_zero() { f64::INFINITY } else { sound.as_secs_f64() / spent.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_kind() {
        let a = Alignment::new("the cat sat on the mat", "the cat sit on mat today", Unit::Words);
        let e = a.errors();
        assert_eq!(e, Errors { hits: 4, substitutions: 1, deletions: 1, insertions: 1 });
        assert!((e.rate() - 0.5).abs() < 1e-12);
        let shown = a.to_string();
        let expected =
            "REF: the cat sat on the mat *****\nHYP: the cat sit on *** mat today\n             S      D       I";
        assert_eq!(shown, expected);
        assert_eq!(e.to_string(), "50.00 % (3 of 6: 1 substituted, 1 deleted, 1 inserted)");
    }

    #[test]
    fn nothing_and_everything() {
        assert_eq!(errors("", "", Unit::Words).rate(), f64::INFINITY);
        assert_eq!(errors(" \t\n", "a b", Unit::Words), Errors { insertions: 2, ..Default::default() });
        assert_eq!(errors("a b", "", Unit::Words).rate(), 1.0);
        assert_eq!(errors("a b", "x y z", Unit::Words).rate(), 1.5);
        assert_eq!(errors("äb c", "äb  c", Unit::Characters), Errors { hits: 4, insertions: 1, ..Default::default() });
        let sum = corpus([("a b", "a"), ("", "c")], Unit::Words);
        assert_eq!((sum.total(), sum.reference()), (2, 2));
        assert_eq!(rtfx(Duration::from_secs(10), Duration::from_secs(2)), 5.0);
    }

    /// Divided problems cost what whole ones do.
    #[test]
    fn long_texts_are_aligned_as_well() {
        let word = |i: usize, k: usize| (i * k + i / 7) % 13;
        let a: Vec<usize> = (0..2100).map(|i| word(i, 5)).collect();
        let b: Vec<usize> = (0..1900).map(|i| word(i, 3)).collect();
        let (mut divided, mut whole) = (vec![], vec![]);
        align(&a, &b, &mut divided);
        table(&a, &b, &mut whole);
        let cost = |steps: &[(bool, bool)]| {
            let (mut i, mut j, mut cost) = (0, 0, 0);
            for (x, y) in steps {
                cost += if *x && *y { pair(&a[i], &b[j]) } else { ERROR };
                i += *x as usize;
                j += *y as usize;
            }
            assert_eq!((i, j), (a.len(), b.len()));
            cost
        };
        assert_eq!(cost(&divided), cost(&whole));
        assert_eq!(cost(&whole), costs(a.iter(), b.iter())[b.len()]);
    }
}
