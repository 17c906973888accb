//! The same tokenizer from different files: `tokenizer.json` is the judge of the older forms.

use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::text::{ChatOptions, Message, Tokenizer, TokenizerConfig};
use serde_json::{Value, json};

use crate::support::{golden, real};

#[test]
fn vocabularies_with_merges_are_the_tokenizers_that_they_were_saved_from() {
    let Some(root) = golden() else { return };
    for (kind, class) in [("gpt2", "GPT2Tokenizer"), ("qwen2", "Qwen2TokenizerFast")] {
        let folder = root.join("tokenizers").join(kind);
        let json: Value = serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
        let vocab = &json["model"]["vocab"];
        let added = json["added_tokens"].as_array().unwrap();
        let added: serde_json::Map<String, Value> =
            added.iter().map(|token| (token["id"].to_string(), token.clone())).collect();
        let merge = |m: &Value| match m {
            Value::String(line) => line.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        let config = std::fs::read_to_string(folder.join("tokenizer_config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["tokenizer_class"] = class.into();
        config["added_tokens_decoder"] = added.into();
        let config = TokenizerConfig::from_json(&config, "tokenizer_config.json").unwrap();
        let merges = format!("#version: 0.2\n{}\n", merges.join("\n"));
        let older = Tokenizer::from_bpe(&vocab.to_string(), &merges, config).unwrap();
        let newer = Tokenizer::from_folder(&folder).unwrap();
        let expected = std::fs::read_to_string(folder.join("tokenizer_golden.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        for case in expected["encodings"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = older.encode(text, true).unwrap();
            assert_eq!(ids, newer.encode(text, true).unwrap(), "{kind} {text:?}");
            assert_eq!(older.decode(&ids, false), newer.decode(&ids, false), "{kind} {text:?}");
        }
    }
}

#[test]
fn classes_put_their_tokens_around_texts() {
    let Some(root) = golden() else { return };
    let model = std::fs::read(root.join("tokenizers/sp_unigram/tokenizer.model")).unwrap();
    let of = |config: Value| {
        let config = TokenizerConfig::from_json(&config, "tokenizer_config.json").unwrap();
        Tokenizer::from_sentencepiece(&model, config)
    };
    let plain = of(json!({})).unwrap();
    let ids = plain.encode("the word", true).unwrap();
    let (bos, eos) = (plain.id("<s>").unwrap(), plain.id("</s>").unwrap());
    let llama = of(json!({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"})).unwrap();
    assert_eq!(llama.encode("the word", true).unwrap(), [vec![bos], ids.clone()].concat());
    assert_eq!(llama.encode("the word", false).unwrap(), ids);
    // Special tokens in the text are themselves, and go when they are to be left out.
    let around = llama.encode("the word</s>", false).unwrap();
    assert_eq!(around, [ids.clone(), vec![eos]].concat());
    assert_eq!((llama.decode(&around, true), llama.decode(&around, false)), ("the word".into(), "the word</s>".into()));
    let t5 = of(json!({"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "extra_ids": 3})).unwrap();
    assert_eq!(t5.encode("the word", true).unwrap(), [ids.clone(), vec![eos]].concat());
    let size = plain.len() as u32;
    let sentinels: Vec<_> = (0..3).map(|i| t5.id(&format!("<extra_id_{i}>"))).collect();
    assert_eq!(sentinels, [Some(size + 2), Some(size + 1), Some(size)]);
    assert_eq!(t5.encode("<extra_id_1>", false).unwrap(), [size + 1]);
    let error = of(json!({"tokenizer_class": "XLMRobertaTokenizer"})).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");

    // Llama's classes decide over a tokenizer.json too (DeepSeek's has no first token in it).
    let folder = root.join("tokenizers/gpt2");
    let bytes = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let config = json!({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|endoftext|>", "add_bos_token": true});
    let tokenizer = Tokenizer::from_json(&bytes, TokenizerConfig::from_json(&config, "c").unwrap()).unwrap();
    let ids = tokenizer.encode("Hello", true).unwrap();
    assert_eq!(Some(ids[0]), tokenizer.bos());
    assert_eq!(ids[1..], tokenizer.encode("Hello", false).unwrap());
}

#[test]
fn text_after_a_prompt_keeps_its_space() {
    let Some(root) = golden() else { return };
    let tokenizer = Tokenizer::from_folder(root.join("tokenizers/llama2")).unwrap();
    let (prompt, new) = (tokenizer.encode("Hello", true).unwrap(), tokenizer.encode("world", false).unwrap());
    let mut stream = tokenizer.detokenizer_after(&prompt, true);
    let text: String = new.iter().map(|id| stream.push(*id)).collect();
    assert_eq!(text + &stream.finish(), " world");
    assert_eq!(tokenizer.decode(&new, true), "world");
}

#[test]
fn a_gguf_vocabulary_is_its_tokenizer_json_on_a_book() {
    let (Some(folder), Some(root)) = (real("smollm2"), golden()) else { return };
    let newer = Tokenizer::from_folder(folder.join("hf")).unwrap();
    let file = Gguf::open(folder.join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let older = Tokenizer::from_gguf(file.metadata().vocabulary().unwrap()).unwrap();
    let shared = root.join("../real");
    if let Ok(book) = std::fs::read_to_string(shared.join("moby_dick.txt")) {
        let text: String = book.chars().take(100_000).collect();
        let ids = newer.encode(&text, true).unwrap();
        assert_eq!(older.encode(&text, true).unwrap(), ids);
        assert_eq!(older.decode(&ids, false), text);
        assert_eq!(newer.decode(&ids, false), text);
    }
    let Ok(expected) = std::fs::read_to_string(shared.join("refs/smollm2.json")) else { return };
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let cases = expected.as_object().unwrap().values();
    let mut found = 0;
    for case in cases.filter(|c| c["messages"].is_array() && c["prompt"].is_string()) {
        let messages: Vec<Message> =
            case["messages"].as_array().unwrap().iter().map(|m| Message::from_json(m.clone()).unwrap()).collect();
        for tokenizer in [&newer, &older] {
            let text = tokenizer.chat_template(None).unwrap().render(&messages, &ChatOptions::to_answer()).unwrap();
            assert_eq!(text, case["prompt"].as_str().unwrap());
        }
        found += 1;
    }
    assert!(found >= 2, "{found} chats");
}

#[test]
fn a_folder_of_older_files_is_read_with_all_that_stands_in_it() {
    let folder = std::env::temp_dir().join(format!("mobilis-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("additional_chat_templates")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("vocab.json", r#"{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}"#);
    write("merges.txt", "#version: 0.2\na b\n");
    write("added_tokens.json", r#"{"<two>": 5, "<one>": 4}"#);
    write("special_tokens_map.json", r#"{"pad_token": {"content": "<two>", "lstrip": false}}"#);
    write("chat_template.jinja", "{{ pad_token }}{{ messages[0].content }}");
    write("additional_chat_templates/short.jinja", "-");
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    assert_eq!(tokenizer.encode("ab<one>ba<two>", true).unwrap(), [2, 4, 1, 0, 5]);
    assert_eq!((tokenizer.pad(), tokenizer.eos(), tokenizer.len()), (Some(5), Some(3), 6));
    assert_eq!((tokenizer.is_special(4), tokenizer.is_special(5)), (false, true));
    let chat = tokenizer.chat_template(None).unwrap();
    assert_eq!(chat.render(&[Message::user("ab")], &ChatOptions::default()).unwrap(), "<two>ab");
    let error = tokenizer.chat_template(Some("shorts")).unwrap_err().to_string();
    assert!(error.contains("did you mean `short`"), "{error}");
    write("merges.txt", "a b\nb\n");
    let error = Tokenizer::from_folder(&folder).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
