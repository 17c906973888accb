//! Constrained text: whatever tokens are drawn, the result fits the rule; and every text that fits can be
//! drawn.

use std::time::{Duration, Instant};

use mobilis_zoo::generate::{Constraint, ConstraintVocabulary};
use mobilis_zoo::text::Tokenizer;
use serde_json::{Value, json};

use crate::stream::Numbers;
use crate::support::{golden, real};

/// Vocabularies of several kinds, with a token for the end.
fn vocabularies() -> Vec<(Tokenizer, ConstraintVocabulary, u32)> {
    let Some(root) = golden() else { return Vec::new() };
    let kinds = ["llama3", "llama2", "gemma", "qwen2", "gpt2"];
    let one = |kind: &str| {
        let tokenizer = Tokenizer::from_folder(root.join("tokenizers").join(kind)).unwrap();
        let end = tokenizer.eos().unwrap();
        let vocabulary = ConstraintVocabulary::new(&tokenizer, &[end]).unwrap();
        (tokenizer, vocabulary, end)
    };
    kinds.map(one).into()
}

/// Draws a text under a constraint: any allowed token, but ends where it can once it is long.
fn draw(tokenizer: &Tokenizer, mut rule: Constraint, end: u32, numbers: &mut Numbers) -> Option<String> {
    let mut ids = Vec::new();
    for step in 0..400 {
        let mask = rule.mask().unwrap();
        let allowed: Vec<u32> = (0..tokenizer.len() as u32).filter(|id| mask.allows(*id)).collect();
        assert!(!allowed.is_empty(), "nothing may follow {:?}", tokenizer.decode(&ids, true));
        assert_eq!(mask.count(), allowed.len());
        assert_eq!(mask.allows(end), rule.is_complete());
        let id = match mask.allows(end) && (step > 40 || allowed.len() == 1) {
            true => end,
            false => allowed[numbers.below(allowed.len())],
        };
        rule.accept(id).unwrap();
        if id == end {
            return Some(bytes(tokenizer, &ids));
        }
        ids.push(id);
    }
    None
}

/// The text of tokens as the constraint sees it: without what decoding does at the beginning.
fn bytes(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    String::from_utf8(ids.iter().flat_map(|id| tokenizer.bytes(*id).unwrap()).collect()).unwrap()
}

#[test]
fn drawn_texts_match_their_expressions() {
    let patterns = [r"[0-9]{3}-[0-9]{4}", r"(yes|no|maybe)( [a-z]+){0,3}", r"\p{L}+@[a-z]+\.(com|org)", "[^é]{2,9}é"];
    let mut numbers = Numbers(5);
    for (tokenizer, vocabulary, end) in vocabularies() {
        for pattern in patterns {
            let judge = regex_lite(pattern);
            let mut found = 0;
            for _ in 0..10 {
                let rule = Constraint::regex(&vocabulary, pattern).unwrap();
                if let Some(text) = draw(&tokenizer, rule, end, &mut numbers) {
                    assert!(judge(&text), "{pattern} {text:?}");
                    found += 1;
                }
            }
            assert!(found > 5, "{pattern}: {found}");
        }
    }
}

/// A judge that shares no code with the constraint.
fn regex_lite(pattern: &str) -> impl Fn(&str) -> bool {
    let tokenizer = tokenizers::utils::SysRegex::new(&format!("^(?:{pattern})$")).unwrap();
    move |text| tokenizer.find_iter(text).any(|(start, end)| start == 0 && end == text.len())
}

#[test]
fn drawn_texts_are_json_of_their_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
            "kind": {"$ref": "#/$defs/kind"}
        },
        "required": ["name", "age", "tags", "kind"],
        "additionalProperties": false,
        "$defs": {"kind": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}}
    });
    let mut numbers = Numbers(9);
    let mut found = 0;
    for (tokenizer, vocabulary, end) in vocabularies() {
        for _ in 0..6 {
            let rule = Constraint::json_schema(&vocabulary, &schema).unwrap();
            let Some(text) = draw(&tokenizer, rule, end, &mut numbers) else { continue };
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
            assert_eq!(value.as_object().unwrap().len(), 4, "{text}");
            assert!(value["name"].as_str().unwrap().chars().count() <= 12, "{text}");
            assert!(value["age"].as_u64().unwrap() <= 150, "{text}");
            assert!((1..=3).contains(&value["tags"].as_array().unwrap().len()), "{text}");
            assert!(value["kind"].is_null() || value["kind"].is_boolean(), "{text}");
            found += 1;
        }
    }
    assert!(found > 10 || golden().is_none(), "{found}");
}

#[test]
fn every_fitting_text_can_be_drawn_and_no_other() {
    for (tokenizer, vocabulary, end) in vocabularies() {
        let take = |pattern: &str, text: &str| {
            let mut rule = Constraint::regex(&vocabulary, pattern).unwrap();
            for id in tokenizer.encode(text, false).unwrap() {
                if !rule.mask().unwrap().allows(id) {
                    return false;
                }
                rule.accept(id).unwrap();
            }
            rule.mask().unwrap().allows(end)
        };
        // Some vocabularies put a space in front.
        for text in ["12 monkeys", "3 héros", "7 日本"] {
            assert!(take(r" ?[0-9]+ \p{L}+", text), "{tokenizer:?} {text}");
        }
        for text in ["twelve", "12", "12 monkeys!", "12  x"] {
            assert!(!take(r" ?[0-9]+ \p{L}+", text), "{tokenizer:?} {text}");
        }
        let mut rule = Constraint::regex(&vocabulary, "a+").unwrap();
        let other = tokenizer.encode("b", false).unwrap()[0];
        let error = rule.accept(other).unwrap_err().to_string();
        assert!(error.contains("regular expression"), "{error}");
    }
}

#[test]
fn wrong_and_hostile_rules_end_in_errors_soon() {
    for (_, vocabulary, _) in vocabularies().into_iter().take(1) {
        let start = Instant::now();
        for pattern in ["(", "a{3,1}", r"(a)\1", "(?=a)b", "[z-a]"] {
            let error = Constraint::regex(&vocabulary, pattern).unwrap_err().to_string();
            assert!(error.contains("regular expression"), "{error}");
        }
        for schema in
            [json!({"type": "thing"}), json!(3), json!({"$ref": "https://example.org/x"}), json!({"$ref": "#/no"})]
        {
            let error = Constraint::json_schema(&vocabulary, &schema).unwrap_err().to_string();
            assert!(error.contains("JSON schema"), "{error}");
        }
        // Large, nested, ambiguous: an error, or masks that still come.
        let deep = "(".repeat(2000) + "a" + &")?".repeat(2000);
        let stacked =
            ["a".to_owned() + &"{1,2}".repeat(500), "a".to_owned() + &"?".repeat(50_000), "a|".repeat(50_000)];
        let long = ["x".repeat(500_000), "(a|b)".repeat(20_000)];
        let long = stacked.iter().chain(&long).map(String::as_str);
        let short =
            ["(((a{1,1000}){1,1000}){1,1000})", "(a|aa|aaa|a?)*b{5000}", &deep, "(.*a){30}", &"x".repeat(2 << 20)];
        for pattern in short.into_iter().chain(long) {
            if let Ok(mut rule) = Constraint::regex(&vocabulary, pattern) {
                for _ in 0..20 {
                    let Ok(mask) = rule.mask() else { break };
                    let Some(id) = (0..500).find(|id| mask.allows(*id)) else { break };
                    if rule.accept(id).is_err() {
                        break;
                    }
                }
            }
        }
        let mut schema = json!({"type": "string"});
        for _ in 0..200 {
            schema = json!({"anyOf": [{"type": "array", "items": schema}, {"type": "null"}]});
        }
        let _ = Constraint::json_schema(&vocabulary, &schema);
        let recursive = json!({"$ref": "#"});
        let _ = Constraint::json_schema(&vocabulary, &recursive).map(|mut r| r.mask().map(|m| m.count()));
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }
}

#[test]
fn masks_of_a_real_vocabulary_come_in_time() {
    let Some(folder) = real("smollm2/hf") else { return };
    let tokenizer = Tokenizer::from_folder(folder).unwrap();
    let end = tokenizer.id("<|im_end|>").unwrap();
    let vocabulary = ConstraintVocabulary::new(&tokenizer, &[end]).unwrap();
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}, "required": ["a", "b"]});
    let mut rule = Constraint::json_schema(&vocabulary, &schema).unwrap();
    let mut times = Vec::new();
    for id in tokenizer.encode(r#"{"a": "some words in a string, and more", "b": 12.5e3}"#, false).unwrap() {
        let start = Instant::now();
        let mask = rule.mask().unwrap();
        times.push(start.elapsed());
        assert!(mask.allows(id), "{:?}", tokenizer.token(id));
        rule.accept(id).unwrap();
    }
    assert!(rule.is_complete());
    times.sort();
    eprintln!(
        "masks of {} tokens: median {:?}, longest {:?}",
        tokenizer.len(),
        times[times.len() / 2],
        times.last().unwrap()
    );
}
