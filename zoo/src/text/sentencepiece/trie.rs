//! All words of a list that a text begins with.
//!
//! Nodes lie in one array, breadth first, the children of a node side by side in the order of their
//! bytes: built from the sorted list without hashing, walked by binary search.

/// A node: the byte that leads to it, its children, and the word that ends here.
#[derive(Clone, Copy, Debug)]
struct Node {
    byte: u8,
    count: u16,
    first: u32,
    value: u32,
}

const NONE: u32 = u32::MAX;

/// A set of byte strings with a number each.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    nodes: Vec<Node>,
}

impl Trie {
    /// A trie of words and their numbers. Empty words are left out; of equal ones the first counts.
    pub fn new<'a>(words: impl IntoIterator<Item = (&'a [u8], u32)>) -> Trie {
        let mut words: Vec<(&[u8], u32)> = words.into_iter().filter(|(word, _)| !word.is_empty()).collect();
        if words.is_empty() {
            return Trie::default();
        }
        words.sort_by_key(|(word, _)| *word);
        words.dedup_by_key(|(word, _)| *word);
        let mut nodes = vec![Node { byte: 0, count: 0, first: 0, value: NONE }];
        // Ranges of words that share the first `depth` bytes; one for each node, in the nodes' order.
        let mut ranges = vec![(0usize, words.len(), 0usize)];
        let mut at = 0;
        while at < ranges.len() {
            let (mut low, high, depth) = ranges[at];
            if words[low].0.len() == depth {
                nodes[at].value = words[low].1;
                low += 1;
            }
            nodes[at].first = u32::try_from(nodes.len()).expect("a vocabulary has fewer than 2^32 bytes");
            while low < high {
                let byte = words[low].0[depth];
                let end = low + words[low..high].partition_point(|(word, _)| word[depth] == byte);
                nodes[at].count += 1;
                nodes.push(Node { byte, count: 0, first: 0, value: NONE });
                ranges.push((low, end, depth + 1));
                low = end;
            }
            at += 1;
        }
        Trie { nodes }
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The words that `text` begins with, shortest first: length and number.
    pub fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = self.nodes.first();
        text.iter()
            .enumerate()
            .map_while(move |(i, byte)| {
                let here = node?;
                let children = &self.nodes[here.first as usize..][..usize::from(here.count)];
                let child = &children[children.binary_search_by_key(byte, |n| n.byte).ok()?];
                node = Some(child);
                Some((i + 1, child.value))
            })
            .filter(|(_, value)| *value != NONE)
    }

    /// The longest word that `text` begins with: its length and number.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}
