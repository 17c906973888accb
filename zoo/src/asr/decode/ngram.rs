//! N-gram language models with backoff, read from ARPA files (as SRILM, KenLM's `lmplz` and NeMo's
//! `train_kenlm.py` write them), plain or compressed by gzip.
//!
//! ```text
//! log p(w | h) = p(h w)                         if the model has h w
//!              = backoff(h) + log p(w | h')     if not, h' being h without its first word
//! ```
//!
//! Words are numbers; n-grams are paths of a tree, whose nodes know their probability, their backoff and the node of the same
//! words without the first. A state is such a node: the longest end of what was said that the model knows. Values in
//! files are logarithms to the base 10, here they are natural.
//!
//! Files come from outside: lines, words and n-grams are bounded ([`Limits`]), and what is wrong is told with its line.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Why a language model could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NgramError {
    /// The file could not be read.
    #[error("cannot read the language model {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Bytes stopped coming.
    #[error("cannot read the language model after line {line}")]
    Read {
        /// The last line that was read.
        line: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is another format.
    #[error("{0}")]
    Format(String),
    /// A line does not say what it should.
    #[error("line {line} of the language model: {what}")]
    Line {
        /// The line.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It is larger than is allowed.
    #[error("the language model has more than {most} {what}; allow more in its limits if it is to be trusted")]
    Large {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        most: usize,
    },
}

/// What a file may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// N-grams, of all orders together. Each takes some 40 bytes of memory.
    pub ngrams: usize,
    /// Bytes of a line.
    pub line: usize,
    /// Words of an n-gram.
    pub order: usize,
}

impl Default for Limits {
    /// 100 million n-grams of up to 16 words, lines of 64 KiB.
    fn default() -> Self {
        Limits { ngrams: 100_000_000, line: 1 << 16, order: 16 }
    }
}

/// A language model.
#[derive(Clone, Debug)]
pub struct Ngrams {
    words: HashMap<String, u32>,
    /// The node that follows a node by a word.
    next: HashMap<(u32, u32), u32>,
    nodes: Vec<Node>,
    order: usize,
    unknown: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// NaN where the words only lead to longer ones.
    log_prob: f32,
    backoff: f32,
    /// The same words without the first, as far as the model knows them.
    suffix: u32,
    length: u32,
}

/// What was said, as far as the model looks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context(u32);

const ROOT: u32 = 0;

impl Ngrams {
    /// Reads a file, plain or (by its first bytes) compressed.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn open(path: impl AsRef<Path>) -> Result<Ngrams, NgramError> {
        let path = path.as_ref();
        let io = |source| NgramError::Io { path: path.to_path_buf(), source };
        let mut file = BufReader::new(std::fs::File::open(path).map_err(io)?);
        let magic = file.fill_buf().map_err(io)?;
        if magic.starts_with(b"mmap lm") {
            let words = "it is a binary of KenLM; give the ARPA file that it was built from".to_string();
            return Err(NgramError::Format(format!("cannot read {}: {words}", path.display())));
        }
        if magic.starts_with(&[0x1f, 0x8b]) {
            return Ngrams::read(BufReader::new(flate2::bufread::MultiGzDecoder::new(file)), Limits::default());
        }
        Ngrams::read(file, Limits::default())
    }

    /// Reads the text of an ARPA file.
    ///
    /// # Errors
    /// As [`Ngrams::open`].
    pub fn read(text: impl BufRead, limits: Limits) -> Result<Ngrams, NgramError> {
        let mut lines = Lines { text, limits, line: 0, bytes: vec![] };
        let root = Node { log_prob: f32::NAN, backoff: 0.0, suffix: ROOT, length: 0 };
        let mut model =
            Ngrams { words: HashMap::new(), next: HashMap::new(), nodes: vec![root], order: 0, unknown: None };
        while let Some(line) = lines.next()? {
            if line == "\\data\\" {
                break;
            }
        }
        if lines.line == 0 {
            return Err(NgramError::Format("the language model is empty".into()));
        }
        let (mut section, mut ended) = (0usize, false);
        while let Some(line) = lines.next()? {
            match line {
                "" => {}
                "\\end\\" => {
                    ended = true;
                    break;
                }
                _ if line.starts_with("ngram ") && section == 0 => {}
                _ if line.starts_with('\\') => {
                    let order =
                        line.strip_prefix('\\').and_then(|l| l.strip_suffix("-grams:")).and_then(|n| n.parse().ok());
                    let Some(order) = order.filter(|n| *n == section + 1 && *n <= limits.order) else {
                        let what =
                            format!("`{line}` is not the section of {}-grams, or has too many words", section + 1);
                        return Err(lines.wrong(what));
                    };
                    section = order;
                }
                _ => model.ngram(line, section).map_err(|what| lines.wrong(what))?,
            }
            if model.nodes.len() > limits.ngrams {
                return Err(NgramError::Large { what: "n-grams", most: limits.ngrams });
            }
        }
        if !ended || section == 0 {
            let what =
                if section == 0 { "no `\\data\\` and `\\1-grams:` come before it" } else { "`\\end\\` does not come" };
            return Err(lines.wrong(format!("the file ends, and {what}")));
        }
        model.order = section;
        model.unknown = ["<unk>", "<UNK>"].iter().find_map(|w| model.words.get(*w).copied());
        model.link();
        Ok(model)
    }

    /// Takes a line: a logarithm, words, maybe a backoff.
    fn ngram(&mut self, line: &str, order: usize) -> Result<(), String> {
        let number = |field: Option<&str>| {
            let field = field.unwrap_or("");
            field
                .parse::<f32>()
                .ok()
                .filter(|v| !v.is_nan() && *v < f32::INFINITY)
                .ok_or_else(|| format!("`{field}` is no logarithm"))
        };
        let mut fields = line.split([' ', '\t']).filter(|f| !f.is_empty());
        let log_prob = number(fields.next())?;
        let mut node = ROOT;
        for i in 0..order {
            let word = fields.next().ok_or_else(|| format!("{i} words are not the {order} of this section"))?;
            let fresh = self.words.len() as u32;
            let id = match self.words.get(word) {
                Some(id) => *id,
                None if order == 1 => *self.words.entry(word.to_string()).or_insert(fresh),
                None => return Err(format!("`{word}` is not among the 1-grams")),
            };
            let length = i as u32 + 1;
            let nodes = &mut self.nodes;
            node = *self.next.entry((node, id)).or_insert_with(|| {
                nodes.push(Node { log_prob: f32::NAN, backoff: 0.0, suffix: ROOT, length });
                nodes.len() as u32 - 1
            });
        }
        if order == 0 {
            return Err("n-grams come before any section of them".into());
        }
        let backoff = fields.next().map_or(Ok(0.0), |f| number(Some(f)))?;
        if fields.next().is_some() {
            return Err(format!("more than a logarithm, {order} words and a backoff"));
        }
        let ten = std::f32::consts::LN_10;
        let node = &mut self.nodes[node as usize];
        (node.log_prob, node.backoff) = (log_prob * ten, backoff * ten);
        Ok(())
    }

    /// Finds of each node that of the same words without the first, shorter ones first.
    fn link(&mut self) {
        let mut edges: Vec<((u32, u32), u32)> = self.next.iter().map(|(k, v)| (*k, *v)).collect();
        edges.sort_unstable_by_key(|(_, to)| self.nodes[*to as usize].length);
        for ((from, word), to) in edges {
            if from == ROOT {
                continue;
            }
            let mut shorter = self.nodes[from as usize].suffix;
            let suffix = loop {
                match self.next.get(&(shorter, word)) {
                    Some(node) => break *node,
                    None if shorter == ROOT => break ROOT,
                    None => shorter = self.nodes[shorter as usize].suffix,
                }
            };
            self.nodes[to as usize].suffix = suffix;
        }
    }

    /// The longest n-grams.
    pub fn order(&self) -> usize {
        self.order
    }

    /// How many n-grams there are.
    pub fn len(&self) -> usize {
        self.nodes.iter().filter(|n| !n.log_prob.is_nan()).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All words, in no order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.keys().map(String::as_str)
    }

    /// The number of a word; that of `<unk>` where the model does not know it, if it has one.
    pub fn word(&self, word: &str) -> Option<u32> {
        self.words.get(word).copied().or(self.unknown)
    }

    /// Nothing said, and nothing known of what comes before.
    pub fn nothing(&self) -> Context {
        Context(ROOT)
    }

    /// The beginning of a sentence: after `<s>`.
    pub fn start(&self) -> Context {
        let start = self.words.get("<s>").and_then(|w| self.next.get(&(ROOT, *w)));
        Context(start.copied().unwrap_or(ROOT))
    }

    /// The natural logarithm of the probability of a word (see [`Ngrams::word`]) after what was said, and what is said
    /// then. A word that the model has no way to know has KenLM's probability of such: 10⁻¹⁰⁰.
    pub fn next(&self, context: Context, word: Option<u32>) -> (f32, Context) {
        let lost = (-100.0 * std::f32::consts::LN_10, Context(ROOT));
        let Some(word) = word else { return lost };
        let (mut node, mut backoff, mut state) = (context.0, 0.0, None);
        loop {
            let here = self.nodes[node as usize];
            if let Some(to) = self.next.get(&(node, word)) {
                let found = self.nodes[*to as usize];
                // What the model remembers may be longer than what it has a probability for.
                state = state.or(Some(if found.length as usize == self.order { found.suffix } else { *to }));
                if !found.log_prob.is_nan() {
                    return (backoff + found.log_prob, Context(state.unwrap_or(ROOT)));
                }
            }
            if node == ROOT {
                return lost;
            }
            backoff += here.backoff;
            node = here.suffix;
        }
    }

    /// The natural logarithm of the probability that the sentence ends here.
    pub fn end(&self, context: Context) -> f32 {
        match self.words.get("</s>") {
            Some(end) => self.next(context, Some(*end)).0,
            None => 0.0,
        }
    }
}

/// The lines of a text, trimmed, each of bounded length.
struct Lines<R> {
    text: R,
    limits: Limits,
    line: usize,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<&str>, NgramError> {
        self.bytes.clear();
        let most = self.limits.line;
        let read = self.text.by_ref().take(most as u64 + 1).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|source| NgramError::Read { line: self.line, source })?;
        self.line += (read > 0) as usize;
        if read > most {
            return Err(self.wrong(format!("has more than {most} bytes")));
        }
        if read == 0 {
            return Ok(None);
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(line) => Ok(Some(line.trim())),
            Err(_) => Err(NgramError::Line { line: self.line, what: "is not UTF-8".into() }),
        }
    }

    fn wrong(&self, what: String) -> NgramError {
        NgramError::Line { line: self.line, what }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SMALL: &str = "\n\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.5\n\
        -0.8\t</s>\n-0.4\ta\t-0.3\n-0.7\tb\t-0.2\n\n\\2-grams:\n-0.1\t<s> a\t-0.6\n-0.2\ta b\t-0.05\n-0.9\tb </s>\n\n\
        \\3-grams:\n-0.05\t<s> a b\n\n\\end\\\n";

    fn read(text: &str) -> Result<Ngrams, NgramError> {
        Ngrams::read(text.as_bytes(), Limits { ngrams: 100, line: 80, order: 3 })
    }

    #[test]
    fn backs_off_as_by_hand() {
        let lm = read(SMALL).unwrap();
        assert_eq!((lm.order(), lm.len()), (3, 9));
        let say = |words: &[&str]| {
            let mut at = lm.start();
            let mut all = vec![];
            for word in words {
                let (p, to) = lm.next(at, lm.word(word));
                at = to;
                all.push(p / std::f32::consts::LN_10);
            }
            all.push(lm.end(at) / std::f32::consts::LN_10);
            all
        };
        let near = |found: Vec<f32>, expected: &[f32]| {
            let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close && found.len() == expected.len(), "{found:?} {expected:?}");
        };
        // <s> a: 2-gram; <s> a b: 3-gram; a b </s>: backoff of (a b), then b </s>.
        near(say(&["a", "b"]), &[-0.1, -0.05, -0.05 - 0.9]);
        // <s> b: backoff of <s>, then b; b a: backoff of b, then a; a </s>: backoff of a, then </s>.
        near(say(&["b", "a"]), &[-0.5 - 0.7, -0.2 - 0.4, -0.3 - 0.8]);
        // <s> a a: backoff of (<s> a), of a, then a. Then b: (a b).
        near(say(&["a", "a", "b"]), &[-0.1, -0.6 - 0.3 - 0.4, -0.2, -0.05 - 0.9]);
        // Unknown words have <unk>'s probability, and nothing is known after them.
        near(say(&["zzz", "b"]), &[-0.5 - 1.0, -0.7, -0.9]);
        assert_eq!(lm.next(lm.nothing(), lm.word("a")).0, -0.4 * std::f32::consts::LN_10);
    }

    #[test]
    fn models_without_unknown_words_or_ends() {
        let lm = read("\\data\\\nngram 1=1\n\\1-grams:\n-0.5 a\n\\end\\\n").unwrap();
        assert_eq!(lm.word("b"), None);
        assert!(lm.next(lm.start(), None).0 < -200.0);
        assert_eq!(lm.end(lm.start()), 0.0);
    }

    #[test]
    fn compressed_files() {
        use std::io::Write;
        let path = std::env::temp_dir().join(format!("mobilis-ngrams-{}.arpa.gz", std::process::id()));
        let mut gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        gz.write_all(SMALL.as_bytes()).unwrap();
        gz.finish().unwrap();
        assert_eq!(Ngrams::open(&path).unwrap().len(), 9);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(Ngrams::open(&path).is_err());
        std::fs::write(&path, b"mmap lm http://kheafield.com/code format version 5\n\0").unwrap();
        assert!(Ngrams::open(&path).unwrap_err().to_string().contains("KenLM"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Ngrams::open(&path), Err(NgramError::Io { .. })));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let long = format!("\\data\\\n{}", "x".repeat(100));
        let many: String = (0..200).map(|i| format!("-1 w{i}\n")).collect();
        let many = format!("\\data\\\n\\1-grams:\n{many}\\end\\\n");
        let cases = [
            ("", "empty"),
            ("hello\n", "line 1"),
            (&SMALL[..SMALL.len() - 8], "`\\end\\` does not come"),
            ("\\data\\\n\\2-grams:\n", "line 2"),
            (
                "\\data\\\n\\1-grams:\n-1 a\n\\2-grams:\n-1 a b\n\\end\\\n",
                "line 5 of the language model: `b` is not among",
            ),
            ("\\data\\\n\\1-grams:\nx a\n", "`x` is no logarithm"),
            ("\\data\\\n\\1-grams:\nNaN a\n", "no logarithm"),
            ("\\data\\\n\\1-grams:\n-1\n", "0 words"),
            ("\\data\\\n\\1-grams:\n-1 a -1 b\n", "more than"),
            ("\\data\\\n-1 a\n", "before any section"),
            ("\\data\\\n\\99999999999999999999-grams:\n", "line 2"),
            (long.as_str(), "more than 80 bytes"),
            (many.as_str(), "more than 100 n-grams"),
        ];
        for (text, words) in cases {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(words), "{told:?} does not say {words:?}");
        }
        assert!(Ngrams::read(&b"\\data\\\n\xff\xfe\n"[..], Limits::default()).is_err());
    }

    /// No damage is a panic, and what is read can be asked.
    #[test]
    fn every_cut_and_every_byte() {
        let limits = Limits { ngrams: 100, line: 80, order: 3 };
        for at in 0..SMALL.len() {
            let _ = read(&SMALL[..at]);
            for byte in [b'\n', b' ', b'\\', b'9', b'-', 0xff] {
                let mut bytes = SMALL.as_bytes().to_vec();
                bytes[at] = byte;
                if let Ok(lm) = Ngrams::read(&bytes[..], limits) {
                    let (p, then) = lm.next(lm.start(), lm.word("b"));
                    assert!(!p.is_nan() && !lm.end(then).is_nan());
                }
            }
        }
    }
}
