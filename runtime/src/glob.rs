//! Patterns over dotted names: `blocks.*.attn.**`.
//!
//! `*` stands for any run of characters within one component, `?` for one such character, and
//! `**` for anything, dots included. Everything else means itself. The same patterns choose
//! what is frozen and what an optimizer group covers.

/// Whether `pattern` covers the whole of `name`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // reached[j]: the pattern so far covers the first j characters of the name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    let mut i = 0;
    while i < pattern.len() {
        let star = pattern[i] == '*';
        let deep = star && pattern.get(i + 1) == Some(&'*');
        let mut next = vec![false; name.len() + 1];
        for j in 0..=name.len() {
            next[j] = match pattern[i] {
                '*' => reached[j] || (j > 0 && next[j - 1] && (deep || name[j - 1] != '.')),
                '?' => j > 0 && reached[j - 1] && name[j - 1] != '.',
                c => j > 0 && reached[j - 1] && name[j - 1] == c,
            };
        }
        reached = next;
        i += if deep { 2 } else { 1 };
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn components_and_depths() {
        assert!(matches("blocks.*.attn.**", "blocks.0.attn.q_proj.weight"));
        assert!(matches("*.bias", "norm.bias"));
        assert!(!matches("*.bias", "blocks.0.bias"));
        assert!(matches("**bias", "blocks.0.bias"));
        assert!(matches("**.norm?.*", "blocks.1.norm2.weight"));
        assert!(!matches("**.norm?.*", "blocks.1.norm.weight"));
        assert!(matches("**", ""));
        assert!(!matches("a", "ab"));
        assert!(!matches("", "a"));
    }

    /// Many stars cost the product of the lengths, not more.
    #[test]
    fn hostile_patterns_end() {
        assert!(!matches(&"*a".repeat(200), &"b".repeat(2000)));
    }
}
