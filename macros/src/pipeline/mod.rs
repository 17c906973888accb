//! `pipeline!`: stages joined into a graph whose edges the compiler checks.
//!
//! [`parse`] reads the struct of stages and the body into [`ast`]; [`resolve`] finds for every port of
//! every call which value feeds it, and notes all that is wrong with names and counts; [`expand`] writes
//! the struct and its methods, [`edges`] one trait for each edge, whose words name producer, consumer,
//! what is expected and what was found, as the user wrote them. What runs is `mobilis::pipeline::Core`:
//! the expansion gives it the wiring as plain data.

mod ast;
mod edges;
mod expand;
mod methods;
mod parse;
mod resolve;
mod text;

use crate::errors::Errors;
use proc_macro2::TokenStream;

/// The expansion of `pipeline!`.
pub fn pipeline(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Some(parsed) = parse::pipeline(input, &mut errors) else { return errors.into_tokens() };
    // Where a declaration is wrong, the body is not judged by it.
    let wiring = if errors.is_empty() { resolve::resolve(&parsed, &mut errors) } else { resolve::Wiring::default() };
    let mut out = expand::expand(&parsed, &wiring, !errors.is_empty());
    out.extend(errors.into_tokens());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::compact;
    use std::str::FromStr;

    fn expand(text: &str) -> String {
        compact(pipeline(TokenStream::from_str(text).expect("tokens"))).replace("::mobilis::__private::", "")
    }

    fn mistakes(body: &str) -> Vec<String> {
        let text = format!(
            "struct P {{ read: fn(String) -> Audio, split: fn(x: Audio, by: Option<usize>) -> (left: Mel, right: Mel), join: fn(a: Mel, b: Mel) -> Text }} {body}"
        );
        let out = pipeline(TokenStream::from_str(&text).expect("tokens")).to_string();
        out.split("compile_error ! {")
            .skip(1)
            .map(|s| s.split(" }").next().unwrap_or("").trim().replace("\\\"", "\""))
            .collect()
    }

    #[test]
    fn a_graph_is_wired() {
        let out = expand(
            "pub struct P<A: Axes> { read: fn(String) -> Array![A::Samples; Audio], count: fn(Array![A::Samples; Audio]) -> usize } \
             fn run(path: String) -> (sound: Array![A::Samples; Audio], n: usize) { let sound = read(path); let n = count(sound); (sound, n) }",
        );
        assert!(out.contains("pubfnset_read(&mutself"), "{out}");
        assert!(out.contains("impl<A:Axes>Stage<String>forP<A>") || out.contains("Stage<__In>forP<A>"), "{out}");
        // The first use of `sound` copies, the last moves.
        let copy = out.find("Edge::Copy(1usize").expect("a copy");
        let moved = out.find("Edge::Move(1usize").expect("a move");
        assert!(copy < moved, "{out}");
        assert!(out.contains("pubstructPValues"), "{out}");
        assert!(out.contains("__E:Is<Audio>"), "{out}");
        assert!(!out.contains("compile_error"), "{out}");
    }

    #[test]
    fn names_and_counts_are_checked() {
        let good = "fn run(p: String) -> Text { let a = read(p); let s = split(a); join(s.left, s.right) }";
        assert_eq!(mistakes(good), Vec::<String>::new());
        assert_eq!(
            mistakes("fn run(p: String) -> Text { let (l, r) = split(read(p), by: 3); join(l, b: r) }").len(),
            1
        );
        for (body, words) in [
            (
                "fn run(p: String) -> Text { let a = reed(p); let s = split(a); join(s.left, s.right) }",
                "did you mean `read`",
            ),
            ("fn run(p: String) -> Text { let a = read(q); let s = split(a); join(s.left, s.right) }", "no value `q`"),
            ("fn run(p: String) -> Text { let a = read(p); let s = split(a); join(s.left) }", "`b: Mel` is missing"),
            (
                "fn run(p: String) -> Text { let a = read(p); let s = split(a); join(s.left, s.right, s.left) }",
                "takes 2",
            ),
            ("fn run(p: String) -> Text { let a = read(p); let s = split(a); join(s, s.right) }", "`s.left`"),
            (
                "fn run(p: String) -> Text { let a = read(p); let s = split(a); join(s.lift, s.right) }",
                "did you mean `left`",
            ),
            (
                "fn run(p: String) -> Text { let a = read(p); let s = split(a, to: a); join(s.left, s.right) }",
                "no port `to`",
            ),
            ("fn run(p: String) -> Audio { read(p) }", "never called"),
            ("fn run(p: String, q: usize) -> Text { let s = split(read(p)); join(s.left, s.right) }", "nothing uses"),
            ("fn run(p: String) -> Text { let a = read(p); let a = split(a); join(a.left, a.right) }", "named twice"),
            ("fn run(p: String) -> (t: Text, m: Mel) { let s = split(read(p)); join(s.left, s.right) }", "gives 2"),
        ] {
            let found = mistakes(body);
            assert!(!found.is_empty() && found.iter().any(|m| m.contains(words)), "{body}: {found:?}");
        }
    }
}
