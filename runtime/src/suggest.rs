//! "Did you mean": the nearest of the names that would have been right.
//!
//! Distance counts insertions, deletions, substitutions and swaps of neighbours (Damerau 1964),
//! each place edited once (optimal string alignment). A name is near when at most a third of it
//! has to be edited; farther ones mislead more than they help.

/// The number of edits between two words, or nothing when there are more than `limit`.
pub fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    // Rows i - 2, i - 1 and i of the table of distances between prefixes.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        // Distances along a path never shrink, and a swap looks back by one more row.
        if row.iter().chain(&last).all(|d| *d > limit) {
            return None;
        }
        before = std::mem::replace(&mut last, row);
    }
    Some(last[b.len()]).filter(|d| *d <= limit)
}

/// The candidate that is most like `word`, where one is near: the first of equally near ones.
/// Upper and lower case count as alike.
pub fn nearest<'a, T: AsRef<str> + ?Sized + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a T>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let mut limit = (word.chars().count() / 3).clamp(1, 8);
    let mut best = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        if let Some(d) = distance(&lower, &candidate.to_lowercase(), limit) {
            best = Some(candidate);
            match d {
                0 => break,
                d => limit = d - 1,
            }
        }
    }
    best
}

/// The end of a message: ``; did you mean `hidden`?``, or nothing when no candidate is near.
pub fn did_you_mean<'a, T: AsRef<str> + ?Sized + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a T>,
) -> String {
    match nearest(word, candidates) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("weight", "wieght", 1),
            ("bias", "bais", 1),
            ("ab", "ba", 1),
            ("abcd", "badc", 2),
            ("q_proj", "k_proj", 1),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(a, b, 10), Some(d), "{a} {b}");
            assert_eq!(distance(b, a, 10), Some(d), "{b} {a}");
            assert_eq!(distance(a, b, d), Some(d));
            if d > 0 {
                assert_eq!(distance(a, b, d - 1), None, "{a} {b}");
            }
        }
    }

    #[test]
    fn nearest_takes_the_best_and_refuses_strangers() {
        let names = ["wte.weight", "wpe.weight", "ln_f.bias"];
        assert_eq!(nearest("wpe.wieght", &names), Some("wpe.weight"));
        assert_eq!(nearest("WTE.weight", &names), Some("wte.weight"));
        assert_eq!(nearest("lm_head", &names), None);
        assert_eq!(did_you_mean("ln_f.bais", &names), "; did you mean `ln_f.bias`?");
        assert_eq!(did_you_mean("x", &[] as &[String]), "");
    }
}
