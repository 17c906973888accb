//! Tokenizers between `tokenizer.json` and the vocabulary of a GGUF file.
//!
//! Byte-level BPE goes both ways: its vocabulary, merges and added tokens, and the name of the way in which text
//! is split before merging. A SentencePiece vocabulary becomes a SentencePiece model, which `transformers` reads
//! too. What has no counterpart is told in words: the weights are of use without it.

use crate::import::gguf::meta::Meta;
use crate::import::{Pretrained, TokenizerFiles, json};
use crate::text::{GgufVocabulary, TokenType};
use serde_json::{Value, json};

/// How text is split before merging: GGUF's name, and marks in the text of a `pre_tokenizer`.
const SPLITS: [(&str, &[&str]); 6] = [
    ("llama-bpe", &["\\\\p{N}{1,3}", "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "\\\\s*[\\\\r\\\\n]+"]),
    ("qwen2", &["|\\\\p{N}|", "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "\\\\s*[\\\\r\\\\n]+"]),
    ("smollm", &["\"Digits\"", "\"individual_digits\":true", "ByteLevel"]),
    ("gpt-2", &["ByteLevel", "\"use_regex\":true"]),
    ("gpt-2", &["ByteLevel"]),
    ("default", &[]),
];

/// The vocabulary of a model as metadata.
pub(super) fn metadata(model: &Pretrained, notes: &mut Vec<String>) -> Vec<(String, Meta)> {
    let folder = match &model.tokenizer {
        TokenizerFiles::Gguf(metadata) => {
            let vocabulary = metadata.0.iter().filter(|(key, _)| key.starts_with("tokenizer."));
            return vocabulary.map(|(k, v)| (k.clone(), v.clone())).collect();
        }
        TokenizerFiles::Folder(folder) => folder,
        TokenizerFiles::Nemo { .. } => {
            notes.push("the vocabulary is left out: GGUF has no place for a speech model's".into());
            return Vec::new();
        }
    };
    let file = folder.join("tokenizer.json");
    let config = json::read_object(&folder.join("tokenizer_config.json")).unwrap_or(Value::Null);
    let template = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
    let template = template.or_else(|| config["chat_template"].as_str().map(String::from));
    let tokenizer = match json::read_object(&file) {
        Ok(tokenizer) => tokenizer,
        Err(e) => {
            notes.push(format!("the vocabulary is left out: {e}"));
            return Vec::new();
        }
    };
    match byte_level(&tokenizer, &model.config) {
        Ok(mut out) => {
            out.extend(template.map(|t| ("tokenizer.chat_template".to_string(), Meta::Text(t))));
            for (key, flag) in [("add_bos_token", "add_bos_token"), ("add_eos_token", "add_eos_token")] {
                if let Some(flag) = config[flag].as_bool() {
                    out.push((format!("tokenizer.ggml.{key}"), Meta::Bool(flag)));
                }
            }
            out
        }
        Err(fault) => {
            notes.push(format!("the vocabulary is left out: `{}` {fault}", file.display()));
            Vec::new()
        }
    }
}

/// A byte-level `tokenizer.json`.
fn byte_level(tokenizer: &Value, config: &Value) -> Result<Vec<(String, Meta)>, String> {
    let model = &tokenizer["model"];
    let (kind, bytes) = (model["type"].as_str().unwrap_or("none"), model["byte_fallback"] == true);
    if kind != "BPE" || bytes {
        let kind = if bytes { "SentencePiece" } else { kind };
        return Err(format!("is of the kind {kind}; byte-level BPE alone is written as a GGUF vocabulary"));
    }
    let mut tokens: Vec<(String, i64)> = Vec::new();
    let mut set = |id: u64, token: &str, kind: i64| {
        let id = usize::try_from(id).ok().filter(|id| *id < 1 << 24).ok_or("has an id that is not believed")?;
        if tokens.len() <= id {
            tokens.resize(id + 1, (String::new(), 5));
        }
        tokens[id] = (token.to_string(), kind);
        Ok::<(), String>(())
    };
    for (token, id) in model["vocab"].as_object().ok_or("has no vocabulary")? {
        set(id.as_u64().ok_or("has a token without an id")?, token, 1)?;
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else {
            return Err("has an added token without an id".into());
        };
        set(id, token, if added["special"] == true { 3 } else { 4 })?;
    }
    // The embedding may have rows that no token uses.
    let rows = config["vocab_size"].as_u64().unwrap_or(0).min(1 << 24) as usize;
    for id in tokens.len()..rows {
        tokens.push((format!("[PAD{id}]"), 5));
    }
    for (id, (token, _)) in tokens.iter_mut().enumerate().filter(|(_, (token, kind))| token.is_empty() && *kind == 5) {
        *token = format!("[PAD{id}]");
    }
    let merge = |m: &Value| match m {
        Value::String(pair) => Some(pair.clone()),
        Value::Array(pair) => match &pair[..] {
            [a, b] => Some(format!("{} {}", a.as_str()?, b.as_str()?)),
            _ => None,
        },
        _ => None,
    };
    let merges = model["merges"].as_array().ok_or("has no merges")?.iter().map(merge).collect::<Option<Vec<_>>>();
    let split = tokenizer["pre_tokenizer"].to_string();
    let pre =
        SPLITS.iter().find(|(_, marks)| marks.iter().all(|m| split.contains(m))).map_or("default", |(name, _)| name);
    let key = |k: &str| format!("tokenizer.ggml.{k}");
    let (tokens, types): (Vec<String>, Vec<i64>) = tokens.into_iter().unzip();
    let mut out = vec![
        (key("model"), Meta::Text("gpt2".into())),
        (key("pre"), Meta::Text(pre.into())),
        (key("tokens"), Meta::Texts(tokens)),
        (key("token_type"), Meta::Ints(types)),
        (key("merges"), Meta::Texts(merges.ok_or("has merges that are no pairs")?)),
    ];
    for (theirs, ours) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        let id = config[theirs].as_u64().or_else(|| config[theirs][0].as_u64());
        out.extend(id.map(|id| (key(&format!("{ours}_token_id")), Meta::Count(id))));
    }
    Ok(out)
}

/// The files of a tokenizer for a folder.
pub(super) fn files(vocabulary: GgufVocabulary, notes: &mut Vec<String>) -> Vec<(&'static str, Vec<u8>)> {
    let mut out = Vec::new();
    let template = vocabulary.templates.get("default").cloned();
    let token = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).map(String::as_str);
    let mut config = json!({ "clean_up_tokenization_spaces": false });
    for (key, id) in [
        ("bos_token", vocabulary.bos),
        ("eos_token", vocabulary.eos),
        ("unk_token", vocabulary.unknown),
        ("pad_token", vocabulary.padding),
        ("sep_token", vocabulary.separator),
        ("cls_token", vocabulary.cls),
        ("mask_token", vocabulary.mask),
    ] {
        if let Some(token) = token(id) {
            config[key] = token.into();
        }
    }
    for (key, flag) in [("add_bos_token", vocabulary.add_bos), ("add_eos_token", vocabulary.add_eos)] {
        if let Some(flag) = flag {
            config[key] = flag.into();
        }
    }
    let class = match vocabulary.model.as_str() {
        "llama" => {
            out.push(("tokenizer.model", sentencepiece(&vocabulary, 2)));
            if vocabulary.architecture.starts_with("gemma") { "GemmaTokenizer" } else { "LlamaTokenizer" }
        }
        "t5" => {
            out.push(("spiece.model", sentencepiece(&vocabulary, 1)));
            "T5Tokenizer"
        }
        "bert" => {
            let spelt = |(token, kind): (&String, &TokenType)| match (token.strip_prefix('\u{2581}'), kind) {
                (_, TokenType::Control | TokenType::Unknown | TokenType::UserDefined) => token.clone(),
                (Some(start), _) => start.to_string(),
                (None, _) => format!("##{token}"),
            };
            let mut types = vocabulary.types.clone();
            types.resize(vocabulary.tokens.len(), TokenType::Normal);
            let lines: Vec<String> = vocabulary.tokens.iter().zip(&types).map(spelt).collect();
            out.push(("vocab.txt", (lines.join("\n") + "\n").into_bytes()));
            "BertTokenizer"
        }
        kind => match crate::text::Tokenizer::from_gguf(vocabulary.clone()).map(|t| t.to_json()) {
            Ok(Some(text)) => {
                out.push(("tokenizer.json", text.into_bytes()));
                "PreTrainedTokenizerFast"
            }
            Ok(None) => {
                notes.push(format!("the vocabulary of kind `{kind}` has no form that `transformers` reads"));
                return Vec::new();
            }
            Err(e) => {
                notes.push(format!("the vocabulary is left out: {e}"));
                return Vec::new();
            }
        },
    };
    config["tokenizer_class"] = class.into();
    if let Some(template) = template {
        out.push(("chat_template.jinja", template.into_bytes()));
    }
    out.push(("tokenizer_config.json", format!("{config:#}\n").into_bytes()));
    out
}

/// A SentencePiece model (`sentencepiece_model.proto`): pieces, and what its trainer and normaliser say. `kind`
/// is 1 for unigram, 2 for BPE.
fn sentencepiece(vocabulary: &GgufVocabulary, kind: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let mut piece = Vec::new();
        bytes(&mut piece, 1, token.as_bytes());
        let score = vocabulary.scores.get(id).copied().unwrap_or(0.0);
        varint(&mut piece, 2 << 3 | 5);
        piece.extend(score.to_le_bytes());
        let number = vocabulary
            .types
            .get(id)
            .map_or(1, |t| (1..=6).find(|n| TokenType::from_number(*n) == Some(*t)).unwrap_or(1));
        number_field(&mut piece, 3, number);
        bytes(&mut out, 1, &piece);
    }
    let mut trainer = Vec::new();
    number_field(&mut trainer, 3, kind);
    number_field(&mut trainer, 35, u64::from(vocabulary.types.contains(&TokenType::Byte)));
    for (field, id) in [(40, vocabulary.unknown), (41, vocabulary.bos), (42, vocabulary.eos), (43, vocabulary.padding)]
    {
        // None is -1 there: ten bytes of a variable-length number.
        number_field(&mut trainer, field, id.map_or(u64::MAX, u64::from));
    }
    bytes(&mut out, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, if vocabulary.charsmap.is_empty() { b"identity" } else { b"nmt_nfkc" });
    if !vocabulary.charsmap.is_empty() {
        bytes(&mut normalizer, 2, &vocabulary.charsmap);
    }
    number_field(&mut normalizer, 3, vocabulary.add_space_prefix.unwrap_or(true).into());
    number_field(&mut normalizer, 4, vocabulary.remove_extra_whitespaces.unwrap_or(kind == 1).into());
    number_field(&mut normalizer, 5, 1);
    bytes(&mut out, 3, &normalizer);
    out
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn number_field(out: &mut Vec<u8>, field: u64, v: u64) {
    varint(out, field << 3);
    varint(out, v);
}

fn bytes(out: &mut Vec<u8>, field: u64, v: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, v.len() as u64);
    out.extend_from_slice(v);
}
