//! Names of many files in one: `shard_{0..127}.tar`, `{train,dev}.json`.
//!
//! As in a shell, `{a..b}` counts (leading zeros keep the width, `b` may be less than `a`) and `{a,b}`
//! lists; several multiply out, the last turning fastest. NeMo writes `_OP_` and `_CL_` for the braces
//! where a configuration must not hold them, and commas between patterns.

use super::DataError;

/// More names than this are a slip of the pen.
const MOST: usize = 1 << 20;

/// The names that a pattern stands for: itself where it has no braces.
///
/// # Errors
/// Braces that do not close, counts that are no numbers, more than a million names.
pub fn expand(pattern: &str) -> Result<Vec<String>, DataError> {
    let fault = |fault: String| DataError::Pattern { pattern: pattern.into(), fault };
    let text = braces(pattern);
    let mut names = vec![String::new()];
    let mut rest = text.as_str();
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let close = after.find('}').ok_or_else(|| fault("has a `{` that is not closed".into()))?;
        if after[..close].contains('{') {
            return Err(fault("has braces within braces".into()));
        }
        let choices = choices(&after[..close]).map_err(fault)?;
        if names.len().saturating_mul(choices.len()) > MOST {
            return Err(fault(format!("stands for more than {MOST} names")));
        }
        let literal = &rest[..open];
        names = names.iter().flat_map(|n| choices.iter().map(move |c| format!("{n}{literal}{c}"))).collect();
        rest = &after[close + 1..];
    }
    if rest.contains('}') {
        return Err(fault("has a `}` that nothing opens".into()));
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

/// NeMo's words for braces as braces.
fn braces(pattern: &str) -> String {
    pattern.replace("_OP_", "{").replace("_CL_", "}")
}

/// What stands between two braces.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((from, to)) = inside.split_once("..") else {
        return match inside.contains(',') {
            true => Ok(inside.split(',').map(str::to_string).collect()),
            false => Err(format!("has `{{{inside}}}`: `{{0..9}}` or `{{a,b}}` is expected")),
        };
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let found = if digits { text.parse::<u32>().ok() } else { None };
        found.ok_or_else(|| format!("counts with `{text}`, which is no whole number"))
    };
    let (first, last) = (number(from)?, number(to)?);
    if first.abs_diff(last) as usize >= MOST {
        return Err(format!("stands for more than {MOST} names"));
    }
    let padded = [from, to].iter().any(|t| t.len() > 1 && t.starts_with('0'));
    let width = if padded { from.len().max(to.len()) } else { 0 };
    let name = |i: u32| format!("{i:0width$}");
    Ok(if first <= last { (first..=last).map(name).collect() } else { (last..=first).rev().map(name).collect() })
}

/// The names that a list of patterns between commas stands for; commas within braces belong to them.
///
/// # Errors
/// Those of [`expand`].
pub fn expand_list(patterns: &str) -> Result<Vec<String>, DataError> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    for c in braces(patterns).chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    let mut names = vec![];
    for part in parts.iter().map(|p| p.trim()).filter(|p| !p.is_empty()) {
        names.extend(expand(part)?);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lists() {
        let of = |pattern| expand(pattern).unwrap();
        assert_eq!(of("a.tar"), ["a.tar"]);
        assert_eq!(of("a_{0..2}.tar"), ["a_0.tar", "a_1.tar", "a_2.tar"]);
        assert_eq!(of("a__OP_1..64_CL_.tar").len(), 64);
        assert_eq!(of("a__OP_1..64_CL_.tar")[63], "a_64.tar");
        assert_eq!(of("{08..10}"), ["08", "09", "10"]);
        assert_eq!(of("{2..0}"), ["2", "1", "0"]);
        assert_eq!(of("{a,b}{0..1}x"), ["a0x", "a1x", "b0x", "b1x"]);
        assert_eq!(of("{a,}b"), ["ab", "b"]);
        assert_eq!(expand_list("a{0,1}.json, b.json,").unwrap(), ["a0.json", "a1.json", "b.json"]);
    }

    #[test]
    fn slips_are_named() {
        for (pattern, says) in [
            ("a{0..1", "not closed"),
            ("a0}", "nothing opens"),
            ("{{0..1}}", "within"),
            ("{}", "is expected"),
            ("{0..x}", "`x`"),
            ("{-1..3}", "`-1`"),
            ("{0..99999999999}", "99999999999"),
            ("{0..4294967295}", "more than"),
            ("{0..999}{0..999}{0..9}", "more than"),
        ] {
            let error = expand(pattern).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(pattern), "{pattern}: {error}");
        }
    }
}
