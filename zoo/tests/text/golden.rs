//! Every `tokenizer_golden.json`: ids, tokens, offsets and texts as `transformers` (or the sentencepiece
//! library) has them, pairs, and chats.

use std::path::Path;

use mobilis_zoo::text::{ChatOptions, Message, TextError, Tokenizer, TokenizerConfig};
use serde_json::Value;

use crate::support::golden;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// All folders with a `tokenizer_golden.json`.
pub fn folders() -> Vec<std::path::PathBuf> {
    let Some(root) = golden() else { return Vec::new() };
    let mut all = Vec::new();
    for parent in [root.clone(), root.join("tokenizers")] {
        let entries = std::fs::read_dir(parent).unwrap();
        all.extend(entries.map(|e| e.unwrap().path()).filter(|p| p.join("tokenizer_golden.json").exists()));
    }
    all.sort();
    assert!(all.len() > 30, "found only {} folders", all.len());
    all
}

pub fn read(folder: &Path) -> (Tokenizer, Value) {
    let expected = std::fs::read_to_string(folder.join("tokenizer_golden.json")).unwrap();
    (Tokenizer::from_folder(folder).unwrap(), serde_json::from_str(&expected).unwrap())
}

#[test]
fn encodings_and_decodings_are_the_originals() {
    let mut count = 0;
    for folder in folders() {
        let (tokenizer, expected) = read(&folder);
        let pieces = expected["encodings"][0].get("pieces").is_some();
        for (i, case) in expected["encodings"].as_array().unwrap().iter().enumerate() {
            let text = case["text"].as_str().unwrap();
            let place = format!("{} case {i} {text:?}", folder.display());
            let with = tokenizer.encode_with_offsets(text, true).unwrap();
            assert_eq!(with.ids, ids(&case["ids"]), "{place}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), with.ids, "{place}");
            assert_eq!(tokenizer.decode(&with.ids, false), case["decoded"].as_str().unwrap(), "{place}");
            if !pieces {
                let tokens: Vec<&str> =
                    case["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
                assert_eq!(with.tokens, tokens, "{place}");
                let offsets: Vec<(usize, usize)> = serde_json::from_value(case["offsets"].clone()).unwrap();
                assert_eq!(with.offsets, offsets, "{place}");
                assert_eq!(with.type_ids, ids(&case["type_ids"]), "{place}");
                assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_no_special"]), "{place}");
                let skipped = tokenizer.decode(&with.ids, true);
                assert_eq!(skipped, case["decoded_skip_special"].as_str().unwrap(), "{place}");
            }
            count += 1;
        }
        for pair in expected["pairs"].as_array().into_iter().flatten() {
            let (a, b) = (pair["a"].as_str().unwrap(), pair["b"].as_str().unwrap());
            let encoding = tokenizer.encode_pair(a, b, true).unwrap();
            assert_eq!(encoding.ids, ids(&pair["ids"]), "{} {a:?} {b:?}", folder.display());
            assert_eq!(encoding.type_ids, ids(&pair["type_ids"]), "{} {a:?} {b:?}", folder.display());
        }
        if let Some(size) = expected.get("vocab_size").and_then(Value::as_u64) {
            assert_eq!(tokenizer.len() as u64, size, "{}", folder.display());
        }
    }
    eprintln!("{count} encodings");
}

#[test]
fn chats_are_rendered_as_the_originals() {
    let mut count = 0;
    for folder in folders() {
        let (tokenizer, expected) = read(&folder);
        for (i, chat) in expected["chats"].as_array().into_iter().flatten().enumerate() {
            let place = format!("{} chat {i}", folder.display());
            let template = tokenizer.chat_template(None).unwrap();
            let messages = chat["messages"].as_array().unwrap();
            let messages: Vec<Message> = messages.iter().map(|m| Message::from_json(m.clone()).unwrap()).collect();
            let options = ChatOptions {
                add_generation_prompt: chat["add_generation_prompt"].as_bool().unwrap(),
                ..ChatOptions::default()
            };
            match (template.render(&messages, &options), chat["rendered"].as_str()) {
                (Ok(text), Some(rendered)) => {
                    assert_eq!(text, rendered, "{place}");
                    assert_eq!(tokenizer.encode(&text, false).unwrap(), ids(&chat["ids"]), "{place}");
                }
                (Err(TextError::Refused { .. }), None) => {}
                (found, expected) => panic!("{place}: expected {expected:?}, found {found:?}"),
            }
            count += 1;
        }
    }
    eprintln!("{count} chats");
}

#[test]
fn offsets_of_sentencepiece_point_into_the_text() {
    let Some(root) = golden() else { return };
    for kind in ["sp_unigram", "sp_bpe", "sp_unigram_nemo"] {
        let (tokenizer, expected) = read(&root.join("tokenizers").join(kind));
        for case in expected["encodings"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let length = text.chars().count();
            let encoding = tokenizer.encode_with_offsets(text, false).unwrap();
            let mut last = 0;
            for (start, end) in encoding.offsets {
                assert!(last <= start && start <= end && end <= length, "{kind} {text:?}");
                last = start;
            }
        }
        let encoding = tokenizer.encode_with_offsets("  Die  ﬁnal", false).unwrap();
        assert_eq!(encoding.offsets.last().unwrap().1, 11, "{kind}");
    }
}

#[test]
fn real_checkpoints_have_their_tokenizers() {
    if let Some(folder) = crate::support::real("minilm") {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        // The file truncates at 128 and pads to 128: neither happens here.
        assert_eq!(tokenizer.encode("hello world", true).unwrap(), [101, 7592, 2088, 102]);
        assert_eq!(tokenizer.encode(&"word ".repeat(300), true).unwrap().len(), 302);
        // The same from the vocabulary alone.
        let vocab = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
        let config = TokenizerConfig::from_folder(&folder).unwrap();
        let plain = Tokenizer::from_word_pieces(&vocab, config).unwrap();
        for text in ["Hello, World! ünïcode 東京 don't 12.5", "\u{0}\t\n[MASK] x"] {
            assert_eq!(plain.encode(text, true).unwrap(), tokenizer.encode(text, true).unwrap(), "{text:?}");
        }
    }
    if let Some(folder) = crate::support::real("tokenizers") {
        let tokenizer = Tokenizer::from_folder(folder.join("llama3")).unwrap();
        assert_eq!(tokenizer.encode("Hello world", false).unwrap(), [9906, 1917]);
    }
}
