//! Patterns over parameter names: `blocks.*.attn.**`.
//!
//! Names are split at dots. `*` stands for any text within one part, `?` for one character of
//! it, and a part that is `**` for any number of parts, none included.

/// Whether a name is one that the pattern means.
///
/// ```
/// use mobilis_runtime::module::pattern::matches;
/// assert!(matches("blocks.*.attn.**", "blocks.11.attn.q_proj.weight"));
/// assert!(!matches("blocks.*", "blocks.11.attn.q_proj.weight"));
/// assert!(matches("**.bias", "bias"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    wild(
        &pattern,
        &name,
        |p| *p == "**",
        |p, n| {
            let (p, n): (Vec<char>, Vec<char>) = (p.chars().collect(), n.chars().collect());
            wild(&p, &n, |p| *p == '*', |p, n| *p == '?' || p == n)
        },
    )
}

/// Matches items one to one but for stars, which take any number of them. The last star that was
/// met is the only one that ever has to take more: time is the product of the lengths at worst.
fn wild<T>(pattern: &[T], items: &[T], star: impl Fn(&T) -> bool, same: impl Fn(&T, &T) -> bool) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut retry = None;
    while i < items.len() {
        if p < pattern.len() && star(&pattern[p]) {
            retry = Some((p, i));
            p += 1;
        } else if p < pattern.len() && same(&pattern[p], &items[i]) {
            p += 1;
            i += 1;
        } else if let Some((at, taken)) = retry {
            retry = Some((at, taken + 1));
            p = at + 1;
            i = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(star)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn parts_and_stars() {
        let name = "blocks.3.attn.q_proj.weight";
        for yes in [
            name,
            "**",
            "**.weight",
            "blocks.**",
            "blocks.*.attn.*.weight",
            "blocks.?.**",
            "blocks.*.attn.**",
            "**.attn.**.weight",
            "**.q_*.w*t",
            "blocks.3.attn.q_proj.weight.**",
            "**.**",
        ] {
            assert!(matches(yes, name), "{yes}");
        }
        for no in [
            "",
            "*",
            "blocks",
            "blocks.*",
            "blocks.*.weight",
            "**.bias",
            "blocks.??.**",
            "attn.**",
            "**.attn",
            "Blocks.**",
        ] {
            assert!(!matches(no, name), "{no}");
        }
    }

    #[test]
    fn a_star_takes_back() {
        assert!(matches("*ab", "aab"));
        assert!(matches("*a*b", "xaayab"));
        assert!(!matches("*a*b", "xaaya"));
        assert!(matches("**.a.b", "a.b.a.b"));
        assert!(!matches("**.a.b", "a.b.a"));
        // Quadratic, not exponential.
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }
}
