//! When a text ends, and which of it may be shown.
//!
//! A stop string may be spread over several tokens, and a token may hold its end and more. So text that
//! could still become a stop string is held back until it is one or cannot be one any more; what is shown
//! is never taken back, and nothing of a stop string is shown. Of several that end up in the text, the one
//! that begins first counts (of those the longest).

/// Finds stop strings in text that comes in parts.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
}

/// What became of a part of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Text that is certain now.
    pub text: String,
    /// The stop string that was found, after which nothing counts.
    pub stop: Option<usize>,
}

impl StopStrings {
    /// Looks for these strings; empty ones are never found.
    pub fn new(strings: Vec<String>) -> StopStrings {
        StopStrings { strings, held: String::new() }
    }

    /// The strings.
    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// Takes a part of the text.
    pub fn push(&mut self, part: &str) -> Shown {
        if part.is_empty() {
            return Shown { text: String::new(), stop: None };
        }
        self.held.push_str(part);
        let strings = || self.strings.iter().enumerate().filter(|(_, s)| !s.is_empty());
        let found = strings().filter_map(|(i, s)| Some((self.held.find(s.as_str())?, s.len(), i)));
        // A longer string that began earlier may still be completed by the next part; but this one is
        // complete, and waiting could last for ever.
        if let Some((at, _, i)) = found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length))) {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Shown { text, stop: Some(i) };
        }
        let longest = strings().map(|(_, s)| s.len()).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let may_begin =
            |at: usize| self.held.is_char_boundary(at) && strings().any(|(_, s)| s.starts_with(&self.held[at..]));
        let keep = (from..self.held.len()).find(|at| may_begin(*at)).unwrap_or(self.held.len());
        Shown { text: self.held.drain(..keep).collect(), stop: None }
    }

    /// The text that was still held back, at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strings: &[&str], parts: &[&str]) -> (String, Option<usize>) {
        let mut stop = StopStrings::new(strings.iter().map(|s| (*s).to_owned()).collect());
        let mut text = String::new();
        for part in parts {
            let shown = stop.push(part);
            text.push_str(&shown.text);
            if shown.stop.is_some() {
                return (text, shown.stop);
            }
        }
        text.push_str(&stop.finish());
        (text, None)
    }

    #[test]
    fn strings_over_several_parts_are_found_and_not_shown() {
        assert_eq!(run(&["###"], &["a#", "#", "#b"]), ("a".into(), Some(0)));
        assert_eq!(run(&["###"], &["a##", "b#"]), ("a##b#".into(), None));
        assert_eq!(run(&["\nUser:", "END"], &["hi\nUs", "er", ": x"]), ("hi".into(), Some(0)));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), Some(0)));
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".into(), None));
        assert_eq!(run(&["bc", "abcd"], &["abcd"]), ("".into(), Some(1)));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn only_what_could_begin_a_string_is_held() {
        let mut stop = StopStrings::new(vec!["STOP".into()]);
        assert_eq!(stop.push("say ST").text, "say ");
        assert_eq!(stop.push("ay").text, "STay");
        assert_eq!(stop.push("S").text, "");
        assert_eq!(stop.finish(), "S");
    }

    #[test]
    fn parts_do_not_matter() {
        // Every text of up to six letters of a small alphabet, cut everywhere, against a plain search.
        let strings = ["aba", "bb"];
        for code in 0..729u32 {
            let text: String = (0..6).map(|i| char::from(b'a' + (code / 3u32.pow(i) % 3) as u8)).collect();
            // The first string to be complete counts; where two are at once, the one that begins first.
            let whole = (1..=6).find_map(|end| {
                let part = &text[..end];
                let found = strings.iter().enumerate().filter_map(|(i, s)| Some((part.find(s)?, s.len(), i)));
                found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
            });
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let parts: Vec<&str> = letters.iter().map(String::as_str).collect();
            let expected = whole.map_or((text.clone(), None), |(at, _, i)| (text[..at].to_owned(), Some(i)));
            assert_eq!(run(&strings, &parts), expected, "{text}");
        }
    }
}
