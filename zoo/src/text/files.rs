//! What of a folder makes a tokenizer.
//!
//! Looked for in this order: `tokenizer.json`; a SentencePiece model (`tokenizer.model`, `spiece.model`,
//! `sentencepiece.bpe.model`, `spm.model`); `vocab.json` with `merges.txt` (byte-level BPE); `vocab.txt`
//! (WordPiece). `tokenizer_config.json` and the files beside it say what goes around a text.
//!
//! The forms without a `tokenizer.json` are completed as the class in `tokenizer_config.json` does it in
//! `transformers` (`convert_slow_tokenizer.py`).

use std::collections::HashMap;
use std::path::Path;

use ahash::AHashMap;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::config::{AddedToken, TokenizerConfig, read_text};
use super::error::TextError;
use super::pieces::PieceTokenizer;
use super::pre::{self, Pre};
use super::sentencepiece::{Model, proto};
use super::tokenizer::{Tokenizer, guarded, library_token};

/// Names of SentencePiece models.
const SENTENCEPIECE: [&str; 4] = ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"];

impl Tokenizer {
    /// The tokenizer of a checkpoint's folder.
    ///
    /// # Errors
    /// No file that makes a tokenizer, or one that is broken.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Tokenizer, TextError> {
        let folder = folder.as_ref();
        let config = TokenizerConfig::from_folder(folder)?;
        let within = |e: TextError| match e {
            TextError::Invalid { what, why } => {
                TextError::Invalid { what: folder.join(what).display().to_string(), why }
            }
            other => other,
        };
        if let Some(bytes) = read_bytes(&folder.join("tokenizer.json"))? {
            return Tokenizer::from_json(&bytes, config).map_err(within);
        }
        for name in SENTENCEPIECE {
            if let Some(bytes) = read_bytes(&folder.join(name))? {
                return Tokenizer::from_sentencepiece(&bytes, config).map_err(within);
            }
        }
        if let Some(vocab) = read_text(&folder.join("vocab.json"))?
            && let Some(merges) = read_text(&folder.join("merges.txt"))?
        {
            return Tokenizer::from_bpe(&vocab, &merges, config).map_err(within);
        }
        if let Some(vocab) = read_text(&folder.join("vocab.txt"))? {
            return Tokenizer::from_word_pieces(&vocab, config).map_err(within);
        }
        Err(TextError::NoTokenizer {
            folder: folder.to_owned(),
            expected: format!("tokenizer.json, {}, vocab.json with merges.txt, vocab.txt", SENTENCEPIECE.join(", ")),
        })
    }

    /// A tokenizer from the bytes of a SentencePiece `.model`. What goes around a text is what the
    /// configuration says, or its class does; without a class, nothing.
    ///
    /// # Errors
    /// What is not as the format has it, and classes that number the pieces anew.
    pub fn from_sentencepiece(bytes: &[u8], config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let source = "SentencePiece model";
        let file = proto::read(bytes)?;
        let class = config.class.as_deref().unwrap_or("").trim_end_matches("Fast").trim_end_matches("Tokenizer");
        if ["XLMRoberta", "Camembert", "MBart", "MBart50", "Nllb", "M2M100", "Barthez"].contains(&class) {
            return Err(TextError::unsupported(
                source,
                format!(
                    "{class}Tokenizer numbers the pieces in its own way; save it as tokenizer.json by transformers"
                ),
            ));
        }
        let (bos, eos) = match class {
            "Llama" | "CodeLlama" | "Gemma" | "Mistral" => (true, false),
            "T5" | "MT5" | "UMT5" | "Pegasus" | "Marian" => (false, true),
            _ => (false, false),
        };
        let id = |name: &str, told: Option<u32>| {
            let named = config.token(name).and_then(|text| file.pieces.iter().position(|p| p.text == text));
            named.and_then(|id| u32::try_from(id).ok()).or(told.filter(|id| (*id as usize) < file.pieces.len()))
        };
        let before = id("bos_token", file.bos).filter(|_| config.add_bos.unwrap_or(bos));
        let after = id("eos_token", file.eos).filter(|_| config.add_eos.unwrap_or(eos));
        let mut tokens = config.added.clone();
        // T5's sentinels follow the vocabulary, the last one first.
        if class.ends_with("T5") && !tokens.iter().any(|t| t.content == "<extra_id_0>" && t.id.is_some()) {
            tokens.retain(|t| !t.content.starts_with("<extra_id_"));
            let count = config.extra_ids.unwrap_or(100).min(10_000);
            tokens.extend((0..count).rev().map(|i| AddedToken::special(format!("<extra_id_{i}>"))));
        }
        let pieces =
            PieceTokenizer::new(Model::new(file)?, &tokens, before.into_iter().collect(), after.into_iter().collect())?;
        Ok(Tokenizer::from_pieces(pieces, config, source))
    }

    /// A byte-level BPE tokenizer from the texts of `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// What is not as the formats have it.
    pub fn from_bpe(vocab: &str, merges: &str, mut config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let source = "vocab.json";
        let vocab: AHashMap<String, u32> = serde_json::from_str::<HashMap<String, u32>>(vocab)
            .map_err(|e| TextError::invalid(source, format!("expected an object of tokens and their ids: {e}")))?
            .into_iter()
            .collect();
        let lines =
            merges.lines().enumerate().filter(|(i, line)| !(line.is_empty() || (*i == 0 && line.starts_with('#'))));
        let mut pairs = Vec::new();
        for (i, line) in lines {
            let pair = line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
            let (a, b) = pair.ok_or_else(|| {
                TextError::invalid("merges.txt", format!("line {}: expected two tokens, found `{line}`", i + 1))
            })?;
            pairs.push((a.to_owned(), b.to_owned()));
        }
        let class = config.class.as_deref().unwrap_or("GPT2").trim_end_matches("Fast").trim_end_matches("Tokenizer");
        let class = class.to_owned();
        let defaults: &[(&str, &str)] = match class.as_str() {
            "Roberta" | "Bart" | "Longformer" | "LED" => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            "Qwen2" => &[("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
            _ => &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
        };
        fill_special(&mut config, defaults, |t| vocab.contains_key(t));
        let (kind, roberta) = match class.as_str() {
            "Qwen2" => (Pre::Qwen2, false),
            "Roberta" | "Bart" | "Longformer" | "LED" => (Pre::Gpt2, true),
            "GPT2" | "Whisper" | "GPTNeoX" | "PreTrained" => (Pre::Gpt2, false),
            other => {
                return Err(TextError::unsupported(
                    source,
                    format!(
                        "the class {other}Tokenizer is not built from vocab.json and merges.txt (GPT2, Roberta, Bart, \
                         Qwen2 and Whisper are); save it as tokenizer.json by transformers"
                    ),
                ));
            }
        };
        let model = bpe(vocab, pairs, kind, None, source)?;
        let mut library = pre::library(model, kind, config.add_prefix_space.unwrap_or(false))?;
        if kind == Pre::Qwen2 {
            library.with_normalizer(Some(NFC)).map_err(|e| TextError::invalid(source, e.to_string()))?;
        }
        if roberta {
            let piece = |name: &str, or: &str| {
                let text = config.token(name).unwrap_or(or).to_owned();
                library.token_to_id(&text).map(|id| (text.clone(), id)).ok_or_else(|| {
                    TextError::invalid(source, format!("the special token `{text}` is not in the vocabulary"))
                })
            };
            let (sep, cls) = (piece("sep_token", "</s>")?, piece("cls_token", "<s>")?);
            library.with_post_processor(Some(
                RobertaProcessing::new(sep, cls).add_prefix_space(config.add_prefix_space.unwrap_or(false)),
            ));
        }
        Tokenizer::from_library(library, config, source)
    }

    /// A WordPiece tokenizer (BERT's) from the text of `vocab.txt`, a token a line.
    ///
    /// # Errors
    /// A vocabulary without BERT's special tokens.
    pub fn from_word_pieces(vocab: &str, mut config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let source = "vocab.txt";
        let vocab: AHashMap<String, u32> = vocab.lines().map(str::to_owned).zip(0..).collect();
        let defaults = [
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ];
        fill_special(&mut config, &defaults, |t| vocab.contains_key(t));
        let lower = config.do_lower_case.unwrap_or(true);
        let library = word_pieces(vocab, &config, lower, source)?;
        Tokenizer::from_library(library, config, source)
    }
}

/// The library's WordPiece tokenizer with BERT's surroundings.
pub(super) fn word_pieces(
    vocab: AHashMap<String, u32>,
    config: &TokenizerConfig,
    lower: bool,
    source: &str,
) -> Result<tokenizers::Tokenizer, TextError> {
    let wrong = |why: String| TextError::invalid(source, why);
    let token = |name: &str, or: &str| {
        let text = config.token(name).unwrap_or(or).to_owned();
        let id = vocab.get(&text).copied();
        id.map(|id| (text.clone(), id)).ok_or_else(|| wrong(format!("expected the token `{text}` ({name})")))
    };
    let (sep, cls, unknown) =
        (token("sep_token", "[SEP]")?, token("cls_token", "[CLS]")?, token("unk_token", "[UNK]")?);
    let model = WordPiece::builder().vocab(vocab).unk_token(unknown.0).build().map_err(|e| wrong(e.to_string()))?;
    let mut library = tokenizers::Tokenizer::new(ModelWrapper::WordPiece(model));
    library.with_normalizer(Some(BertNormalizer::new(true, true, None, lower))).map_err(|e| wrong(e.to_string()))?;
    library.with_pre_tokenizer(Some(BertPreTokenizer));
    library.with_decoder(Some(WordPieceDecoder::new("##".into(), true)));
    let template = TemplateProcessing::builder()
        .try_single(format!("{}:0 $A:0 {}:0", cls.0, sep.0))
        .and_then(|b| b.try_pair(format!("{0}:0 $A:0 {1}:0 $B:1 {1}:1", cls.0, sep.0)))
        .map_err(wrong)?
        .special_tokens(vec![cls, sep])
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    library.with_post_processor(Some(template));
    Ok(library)
}

/// The library's BPE model, after the checks that it makes by panics.
pub(super) fn bpe(
    vocab: AHashMap<String, u32>,
    merges: Vec<(String, String)>,
    kind: Pre,
    unknown: Option<String>,
    source: &str,
) -> Result<BPE, TextError> {
    // The library looks every part up, but joins them first in a buffer of the longest token's size.
    let longest = vocab.keys().map(String::len).max().unwrap_or(0);
    if let Some(i) = merges.iter().position(|(a, b)| a.len() + b.len() > longest) {
        let (a, b) = &merges[i];
        let why = format!("merge {i} (`{a}` and `{b}`) is longer than any token of the vocabulary");
        return Err(TextError::invalid(source, why));
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(kind.ignores_merges())
        .byte_fallback(kind.falls_back_to_bytes())
        .fuse_unk(kind.falls_back_to_bytes());
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown);
    }
    guarded(|| builder.build()).map_err(|why| TextError::invalid(source, why))
}

/// Completes a configuration by what its class takes for granted, as far as the vocabulary has it.
fn fill_special(config: &mut TokenizerConfig, defaults: &[(&str, &str)], has: impl Fn(&str) -> bool) {
    for (name, text) in defaults {
        if config.token(name).is_none() && has(text) {
            config.special.insert((*name).to_owned(), (*text).to_owned());
            if !config.added.iter().any(|t| t.content == *text) {
                config.added.push(AddedToken::special(*text));
            }
        }
    }
}

/// What `transformers` changes in a tokenizer by its configuration.
pub(super) fn adjust(
    library: &mut tokenizers::Tokenizer,
    config: &TokenizerConfig,
    source: &str,
) -> Result<(), TextError> {
    // Tokens of the configuration that the file does not know yet, all at once: each addition builds the
    // search for them anew.
    let known = library.get_added_tokens_decoder();
    let known: HashMap<&str, bool> = known.values().map(|t| (t.content.as_str(), t.special)).collect();
    let is_new =
        |t: &&AddedToken| !t.content.is_empty() && known.get(t.content.as_str()).is_none_or(|s| t.special && !s);
    let new: Vec<&AddedToken> = config.added.iter().filter(is_new).collect();
    let expected: Vec<Option<u32>> = new.iter().map(|t| library.token_to_id(&t.content).or(t.id)).collect();
    if !new.is_empty() {
        let tokens: Vec<_> = new.iter().map(|token| library_token(token)).collect();
        library.add_tokens(tokens).map_err(|e| TextError::invalid(source, e.to_string()))?;
    }
    for (token, expected) in new.iter().zip(expected) {
        let text = &token.content;
        if let (Some(expected), Some(found)) = (expected, library.token_to_id(text))
            && expected != found
        {
            let why = format!("`{text}` has the id {expected} there, but after this vocabulary it would be {found}");
            return Err(TextError::invalid("tokenizer_config.json", why));
        }
    }
    if let Some(wanted) = config.add_prefix_space
        && let Some(PreTokenizerWrapper::ByteLevel(bytes)) = library.get_pre_tokenizer()
        && bytes.add_prefix_space != wanted
    {
        let changed = bytes.add_prefix_space(wanted);
        library.with_pre_tokenizer(Some(changed));
    }
    let class = config.class.as_deref().unwrap_or("").trim_end_matches("Fast");
    if let Some(wanted) = config.do_lower_case
        && class == "BertTokenizer"
        && let Some(NormalizerWrapper::BertNormalizer(bert)) = library.get_normalizer()
        && bert.lowercase != wanted
    {
        let mut changed = *bert;
        changed.lowercase = wanted;
        library.with_normalizer(Some(changed)).map_err(|e| TextError::invalid(source, e.to_string()))?;
    }
    // These classes put the first and last tokens themselves, whatever the file says.
    if ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"].contains(&class) {
        let bos = config.token("bos_token").filter(|_| config.add_bos.unwrap_or(true));
        let eos = config.token("eos_token").filter(|_| config.add_eos.unwrap_or(false));
        surround(library, bos, eos, source)?;
    }
    Ok(())
}

/// Puts tokens before and after every text.
pub(super) fn surround(
    library: &mut tokenizers::Tokenizer,
    bos: Option<&str>,
    eos: Option<&str>,
    source: &str,
) -> Result<(), TextError> {
    let wrong = |why: String| TextError::invalid(source, why);
    let mut special = Vec::new();
    for text in [bos, eos].into_iter().flatten() {
        let id = library.token_to_id(text).ok_or_else(|| wrong(format!("`{text}` is not in the vocabulary")))?;
        special.push((text.to_owned(), id));
    }
    // By parts, not by the library's one-line form: tokens may contain what separates them there.
    let part = |sequence: &str, kind: u32| {
        let token = |text: &str| serde_json::json!({"SpecialToken": {"id": text, "type_id": kind}});
        let mut parts: Vec<serde_json::Value> = bos.map(token).into_iter().collect();
        parts.push(serde_json::json!({"Sequence": {"id": sequence, "type_id": kind}}));
        parts.extend(eos.map(token));
        parts
    };
    let tokens: serde_json::Map<String, serde_json::Value> = special
        .iter()
        .map(|(text, id)| (text.clone(), serde_json::json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    let pair = [part("A", 0), part("B", 1)].concat();
    let template = serde_json::json!({
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    });
    let template: TemplateProcessing = serde_json::from_value(template).map_err(|e| wrong(e.to_string()))?;
    library.with_post_processor(Some(template));
    Ok(())
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Io { path: path.to_owned(), source }),
    }
}
