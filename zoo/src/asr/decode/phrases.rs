//! Phrases that are likelier than a model thinks: names, terms, commands ("context biasing", "word boosting").
//!
//! Phrases are paths of a tree of symbols (tokens, or words). A hypothesis walks it symbol by symbol, as Aho and Corasick
//! (1975) have it: each step that goes on with a phrase adds the phrase's weight at once, so that a beam keeps it; where the
//! phrase is not finished after all, what was added is taken back, and the longest end of what was said that begins a phrase
//! goes on. A finished phrase keeps its weight.

use std::collections::HashMap;

/// A set of phrases.
#[derive(Clone, Debug)]
pub struct Phrases {
    next: HashMap<(u32, u32), u32>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// What the way here adds.
    total: f32,
    /// What of it stays if the way ends here: that of the last finished phrase on it.
    kept: f32,
    /// The longest end of the way that is the beginning of another.
    suffix: u32,
    depth: u32,
}

/// How far into phrases a hypothesis is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place(u32);

const ROOT: u32 = 0;

impl Phrases {
    /// Phrases as sequences of symbols, each with the logarithm that every symbol of it adds. Of a beginning that
    /// several share the largest counts. Empty phrases and weights that are no numbers are left out.
    pub fn new<P: IntoIterator<Item = u32>>(phrases: impl IntoIterator<Item = (P, f32)>) -> Phrases {
        let root = Node { total: 0.0, kept: 0.0, suffix: ROOT, depth: 0 };
        let mut found = Phrases { next: HashMap::new(), nodes: vec![root] };
        let mut ends: Vec<(u32, f32)> = vec![];
        let mut gains: Vec<f32> = vec![0.0];
        for (phrase, weight) in phrases.into_iter().filter(|(_, w)| w.is_finite()) {
            let mut node = ROOT;
            for symbol in phrase {
                let depth = found.nodes[node as usize].depth + 1;
                let nodes = &mut found.nodes;
                node = *found.next.entry((node, symbol)).or_insert_with(|| {
                    nodes.push(Node { depth, ..root });
                    gains.push(f32::NEG_INFINITY);
                    nodes.len() as u32 - 1
                });
                gains[node as usize] = gains[node as usize].max(weight);
            }
            ends.push((node, weight));
        }
        let finished: std::collections::HashSet<u32> = ends.into_iter().map(|e| e.0).filter(|n| *n != ROOT).collect();
        let mut edges: Vec<((u32, u32), u32)> = found.next.iter().map(|(k, v)| (*k, *v)).collect();
        edges.sort_unstable_by_key(|(_, to)| found.nodes[*to as usize].depth);
        for ((from, symbol), to) in edges {
            let before = found.nodes[from as usize];
            let total = before.total + gains[to as usize];
            let kept = if finished.contains(&to) { total } else { before.kept };
            let suffix = if from == ROOT { ROOT } else { found.follow(before.suffix, symbol).0 };
            let node = &mut found.nodes[to as usize];
            (node.total, node.kept, node.suffix) = (total, kept, suffix);
        }
        found
    }

    /// The node that follows by way of suffixes, and what leaving those on the way gives or takes.
    fn follow(&self, mut node: u32, symbol: u32) -> (u32, f32) {
        let mut change = 0.0;
        loop {
            let here = self.nodes[node as usize];
            if let Some(to) = self.next.get(&(node, symbol)) {
                return (*to, change + self.nodes[*to as usize].total - here.total);
            }
            change += here.kept - here.total;
            if node == ROOT {
                return (ROOT, change);
            }
            node = here.suffix;
            change += self.nodes[node as usize].total;
        }
    }

    /// What a symbol adds to the score, and where the hypothesis is then.
    pub fn next(&self, place: Place, symbol: u32) -> (f32, Place) {
        let (node, change) = self.follow(place.0.min(self.nodes.len() as u32 - 1), symbol);
        (change, Place(node))
    }

    /// What is taken back at the end, as nothing finishes the phrase that was begun.
    pub fn end(&self, place: Place) -> f32 {
        let node = self.nodes[place.0.min(self.nodes.len() as u32 - 1) as usize];
        node.kept - node.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(phrases: &Phrases, said: &[u32]) -> f32 {
        let (mut place, mut sum) = (Place::default(), 0.0);
        for symbol in said {
            let (change, to) = phrases.next(place, *symbol);
            (sum, place) = (sum + change, to);
        }
        sum + phrases.end(place)
    }

    #[test]
    fn finished_phrases_count_and_others_do_not() {
        let p = Phrases::new([(vec![1, 2, 3], 1.0), (vec![2, 4], 2.0), (vec![1, 2, 3, 5, 6], 1.0), (vec![7], 0.5)]);
        assert_eq!(score(&p, &[1, 2, 3]), 3.0);
        assert_eq!(score(&p, &[1, 2]), 0.0);
        assert_eq!(score(&p, &[1, 2, 9, 3]), 0.0);
        // 1 2 begins the first phrase; 2 4 is what it was.
        assert_eq!(score(&p, &[1, 2, 4]), 4.0);
        // The longer phrase fails, the shorter on its way stays.
        assert_eq!(score(&p, &[1, 2, 3, 5, 9]), 3.0);
        assert_eq!(score(&p, &[1, 2, 3, 5, 6]), 5.0);
        assert_eq!(score(&p, &[9, 7, 7, 8]), 1.0);
        assert_eq!(score(&p, &[1, 1, 1, 2, 3]), 3.0);
        // What is begun counts while it may be finished.
        assert_eq!(p.next(Place::default(), 1).0, 1.0);
    }

    #[test]
    fn empty_sets_and_nonsense() {
        let none = Phrases::new::<Vec<u32>>([]);
        assert_eq!(score(&none, &[1, 2]), 0.0);
        let odd = Phrases::new([(vec![], 1.0), (vec![1], f32::NAN), (vec![2], 1.0)]);
        assert_eq!((score(&odd, &[1]), score(&odd, &[2])), (0.0, 1.0));
        assert_eq!(none.next(Place(99), 1).0, 0.0);
    }
}
