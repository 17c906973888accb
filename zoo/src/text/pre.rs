//! How byte-level BPE vocabularies split a text before they merge.
//!
//! A GGUF file says it by a name (`tokenizer.ggml.pre`) that llama.cpp gave to the expressions of a
//! model's `tokenizer.json`; here each kind is the chain of those expressions, each cutting what the one
//! before left, as the `tokenizers` crate does it. The names are those of `llama-vocab.cpp`.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{ModelWrapper, PreTokenizerWrapper};

use super::error::TextError;

/// A way to split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pre {
    /// llama.cpp's, where a file says nothing.
    Default,
    Gpt2,
    /// Every digit alone, then as GPT-2.
    Digits,
    Llama3,
    /// As Llama 3, but merges are always followed.
    Llama3Merged,
    Qwen2,
    Qwen35,
    Falcon,
    DeepSeekLlm,
    DeepSeekCoder,
    DeepSeek3,
    Bloom,
    Viking,
    Tekken,
    Gpt4o,
    Gemma4,
}

const NAMES: [(&str, Pre); 67] = [
    ("default", Pre::Default),
    ("gpt-2", Pre::Gpt2),
    ("phi-2", Pre::Gpt2),
    ("jina-es", Pre::Gpt2),
    ("jina-de", Pre::Gpt2),
    ("jina-v1-en", Pre::Gpt2),
    ("jina-v2-es", Pre::Gpt2),
    ("jina-v2-de", Pre::Gpt2),
    ("jina-v2-code", Pre::Gpt2),
    ("roberta-bpe", Pre::Gpt2),
    ("gigachat", Pre::Gpt2),
    ("a.x-4.0", Pre::Gpt2),
    ("mellum", Pre::Gpt2),
    ("modern-bert", Pre::Gpt2),
    ("mpt", Pre::Gpt2),
    ("olmo", Pre::Gpt2),
    ("jais", Pre::Gpt2),
    ("trillion", Pre::Gpt2),
    ("granite-docling", Pre::Gpt2),
    ("exaone4", Pre::Gpt2),
    ("starcoder", Pre::Digits),
    ("refact", Pre::Digits),
    ("command-r", Pre::Digits),
    ("smollm", Pre::Digits),
    ("codeshell", Pre::Digits),
    ("exaone", Pre::Digits),
    ("minerva-7b", Pre::Digits),
    ("llama3", Pre::Llama3),
    ("llama-v3", Pre::Llama3),
    ("llama-bpe", Pre::Llama3),
    ("falcon3", Pre::Llama3),
    ("falcon-h1", Pre::Llama3),
    ("pixtral", Pre::Llama3),
    ("midm-2.0", Pre::Llama3),
    ("lfm2", Pre::Llama3),
    ("jina-v5-nano", Pre::Llama3),
    ("dbrx", Pre::Llama3Merged),
    ("smaug-bpe", Pre::Llama3Merged),
    ("glm4", Pre::Llama3Merged),
    ("chatglm-bpe", Pre::Llama3Merged),
    ("qwen2", Pre::Qwen2),
    ("stablelm2", Pre::Qwen2),
    ("deepseek-r1-qwen", Pre::Qwen2),
    ("kormo", Pre::Qwen2),
    ("f2llmv2", Pre::Qwen2),
    ("megrez", Pre::Qwen2),
    ("hunyuan", Pre::Qwen2),
    ("solar-open", Pre::Qwen2),
    ("grok-2", Pre::Qwen2),
    ("qwen35", Pre::Qwen35),
    ("falcon", Pre::Falcon),
    ("deepseek-llm", Pre::DeepSeekLlm),
    ("deepseek-coder", Pre::DeepSeekCoder),
    ("deepseek-v3", Pre::DeepSeek3),
    ("hunyuan-dense", Pre::DeepSeek3),
    ("joyai-llm", Pre::DeepSeek3),
    ("hy_v4", Pre::DeepSeek3),
    ("poro-chat", Pre::Bloom),
    ("bloom", Pre::Bloom),
    ("gpt3-finnish", Pre::Bloom),
    ("viking", Pre::Viking),
    ("tekken", Pre::Tekken),
    ("gpt-4o", Pre::Gpt4o),
    ("llama4", Pre::Gpt4o),
    ("kanana2", Pre::Gpt4o),
    ("talkie", Pre::Gpt4o),
    ("gemma4", Pre::Gemma4),
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The ideographs and syllables that DeepSeek's vocabularies take together.
const CJK: &str = "[\u{4E00}-\u{9FA5}\u{0800}-\u{4E00}\u{AC00}-\u{D7FF}]+";
/// The letters that DeepSeek's first vocabularies take for words.
const CASED: &str = "\
    \\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{01BA}\u{01BC}-\u{01BF}\u{01C4}-\u{0293}\
     \u{0295}-\u{02AF}\u{0370}-\u{0373}\u{0376}\u{0377}\u{037B}-\u{037D}\u{037F}\u{0386}\u{0388}-\u{038A}\
     \u{038C}\u{038E}-\u{03A1}\u{03A3}-\u{03F5}\u{03F7}-\u{0481}\u{048A}-\u{052F}\u{0531}-\u{0556}\
     \u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\
     \u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\
     \u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\
     \u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\
     \u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\
     \u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\
     \u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\
     \u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\
     \u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\
     \u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+";

impl Pre {
    /// The kind by its name in a file.
    pub fn from_name(name: &str) -> Result<Pre, TextError> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, pre)| *pre);
        found.ok_or_else(|| {
            let like = mobilis_runtime::suggest::did_you_mean(name, NAMES.iter().map(|(known, _)| *known));
            TextError::unsupported(
                "tokenizer.ggml.pre",
                format!(
                    "how `{name}` splits text is not known{like}; use the model's tokenizer.json, or write one of the \
                     known names into the file"
                ),
            )
        })
    }

    /// Whether a word that is a token stays one, whatever the merges say.
    pub fn ignores_merges(self) -> bool {
        matches!(self, Pre::Llama3 | Pre::Tekken)
    }

    /// Whether the vocabulary is text with `<0x0A>` for the rest, instead of letters for bytes.
    pub fn falls_back_to_bytes(self) -> bool {
        self == Pre::Gemma4
    }

    /// Whether a text gets a first token where the file does not say.
    pub fn adds_bos(self) -> bool {
        matches!(self, Pre::Llama3 | Pre::Tekken)
    }

    fn expressions(self) -> &'static [&'static str] {
        match self {
            Pre::Default => &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
            Pre::Gpt2 => &[GPT2],
            Pre::Digits => &[r"\p{N}", GPT2],
            Pre::Llama3 | Pre::Llama3Merged => &[LLAMA3],
            Pre::Qwen2 => &[QWEN2],
            Pre::Qwen35 => &[QWEN35],
            Pre::Falcon => &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
            Pre::DeepSeekLlm => &[
                "[\r\n]",
                CASED,
                "\\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
                r"\s+$",
                CJK,
                r"\p{N}+",
            ],
            Pre::DeepSeekCoder => &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"],
            Pre::DeepSeek3 => &[
                r"\p{N}{1,3}",
                "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
                "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
            ],
            Pre::Bloom => &[r" ?[^(\s|.,!?…。，、।۔،)]+"],
            Pre::Viking => &[r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"],
            Pre::Tekken => &[TEKKEN],
            Pre::Gpt4o => &[GPT4O],
            Pre::Gemma4 => &[r"[^\n]+|\n+"],
        }
    }
}

/// The library's tokenizer of a BPE model that splits so.
pub(super) fn library(model: BPE, kind: Pre, add_prefix_space: bool) -> Result<tokenizers::Tokenizer, TextError> {
    let wrong = |e: &dyn std::fmt::Display| TextError::invalid("pre-tokenizer", e.to_string());
    let mut library = tokenizers::Tokenizer::new(ModelWrapper::BPE(model));
    let bytes = |regex: bool| ByteLevel::new(add_prefix_space, true, regex);
    if kind == Pre::Gpt2 {
        library.with_pre_tokenizer(Some(bytes(true)));
    } else {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for expression in kind.expressions() {
            let pattern = SplitPattern::Regex((*expression).into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| wrong(&e))?;
            steps.push(split.into());
        }
        if !kind.falls_back_to_bytes() {
            steps.push(bytes(false).into());
        }
        library.with_pre_tokenizer(Some(Sequence::new(steps)));
    }
    if kind.falls_back_to_bytes() {
        let replace = |from: &str, to: &str| Replace::new(from, to).map_err(|e| wrong(&e));
        library.with_normalizer(Some(replace(" ", "▁")?)).map_err(|e| wrong(&e))?;
        library.with_decoder(Some(tokenizers::decoders::sequence::Sequence::new(vec![
            DecoderWrapper::Replace(replace("▁", " ")?),
            DecoderWrapper::ByteFallback(tokenizers::decoders::byte_fallback::ByteFallback::new()),
            DecoderWrapper::Fuse(tokenizers::decoders::fuse::Fuse::new()),
        ])));
    } else {
        library.with_decoder(Some(bytes(true)));
    }
    Ok(library)
}
