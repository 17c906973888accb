//! Whisper's special tokens: where a text starts, its language and task, times, and what is never said.
//!
//! A text of the decoder is `<|startofprev|> earlier text <|startoftranscript|> <|en|> <|transcribe|>
//! <|0.00|> words <|3.20|> ..`. Models for English alone have neither language nor task. Times come in
//! steps of 20 ms behind all other tokens. The ids are found by their names in the tokenizer; what is
//! suppressed stands in `generation_config.json`, and where it does not, it is what OpenAI's code
//! suppresses (`tokenizer.py`, `non_speech_tokens`): signs that stand for sounds and speakers.

use crate::asr::AsrError;
use crate::llm::config::{Config, ConfigError};
use crate::text::Tokenizer;
use mobilis_runtime::suggest::did_you_mean;

/// Times a second that a token can name.
pub const STEPS: f64 = 50.0;

/// The special tokens of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// `<|endoftext|>`: ends a text; all before it are words.
    pub end: u32,
    /// `<|startoftranscript|>`
    pub start: u32,
    /// `<|startofprev|>`, before the text of earlier windows.
    pub previous: Option<u32>,
    /// `<|notimestamps|>`: no times shall come.
    pub no_times: u32,
    /// `<|0.00|>`: the first time. Those behind it are 20 ms apart.
    pub first_time: u32,
    /// `<|transcribe|>`
    pub transcribe: Option<u32>,
    /// `<|translate|>`
    pub translate: Option<u32>,
    /// `<|nospeech|>`, whose probability at the start tells that nothing is said.
    pub no_speech: Option<u32>,
    /// Languages by their codes; none in models for English alone.
    pub languages: Vec<(String, u32)>,
    /// Tokens that never come.
    pub suppressed: Vec<u32>,
    /// Tokens that do not come first.
    pub not_first: Vec<u32>,
    /// Layers and heads of the decoder that look at where a word is said.
    pub alignment: Vec<(usize, usize)>,
}

/// Signs that no one says.
const SIGNS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
/// The same, of which also the first byte's token never comes.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

impl Tokens {
    /// Those of a tokenizer and of a `generation_config.json`, where there is one; `config` is the
    /// model's.
    ///
    /// # Errors
    /// A tokenizer without them, settings of the wrong kind.
    pub fn of(tokenizer: &Tokenizer, config: &Config, generation: Option<&Config>) -> Result<Tokens, AsrError> {
        let need =
            |name: &str| tokenizer.id(name).ok_or_else(|| AsrError::Token { token: name.into(), family: "Whisper" });
        let end = need("<|endoftext|>")?;
        let start = need("<|startoftranscript|>")?;
        let no_times = need("<|notimestamps|>")?;
        let mut tokens = Tokens {
            end,
            start,
            previous: tokenizer.id("<|startofprev|>"),
            no_times,
            first_time: no_times + 1,
            transcribe: tokenizer.id("<|transcribe|>"),
            translate: tokenizer.id("<|translate|>"),
            no_speech: tokenizer.id("<|nospeech|>").or(tokenizer.id("<|nocaptions|>")),
            languages: vec![],
            suppressed: vec![],
            not_first: vec![],
            alignment: vec![],
        };
        let multilingual = match generation.and_then(|g| g.get("is_multilingual")) {
            Some(said) => said.as_bool().unwrap_or(true),
            // As OpenAI's code tells: the tokenizer for English alone is one token smaller.
            None => config.size("vocab_size")? >= 51865,
        };
        if multilingual {
            let last = tokens.translate.or(tokens.transcribe).unwrap_or(no_times);
            let code =
                |id| tokenizer.token(id).and_then(|t| Some(t.strip_prefix("<|")?.strip_suffix("|>")?.to_string()));
            let language =
                |id| code(id).filter(|c| c.len() <= 3 && c.bytes().all(|b| b.is_ascii_lowercase())).map(|c| (c, id));
            tokens.languages = (start + 1..last).filter_map(language).collect();
        }
        tokens.suppressed = match generation.map(|g| ids(g, "suppress_tokens")).transpose()?.flatten() {
            Some(ids) => ids,
            None => no_speech_tokens(tokenizer)?,
        };
        let never = [Some(start), tokens.previous, tokens.transcribe, tokens.translate, tokens.no_speech];
        tokens.suppressed.extend(never.into_iter().flatten().chain(tokenizer.id("<|startoflm|>")));
        tokens.suppressed.sort_unstable();
        tokens.suppressed.dedup();
        tokens.not_first = match generation.map(|g| ids(g, "begin_suppress_tokens")).transpose()?.flatten() {
            Some(ids) => ids,
            None => tokenizer.encode(" ", false)?.into_iter().chain([end]).collect(),
        };
        tokens.alignment = alignment(config, generation)?;
        Ok(tokens)
    }

    /// A language's token by its code.
    ///
    /// # Errors
    /// Another one, with the nearest.
    pub fn language(&self, code: &str) -> Result<u32, AsrError> {
        let found = self.languages.iter().find(|(known, _)| known == code).map(|(_, id)| *id);
        found.ok_or_else(|| {
            let codes = || self.languages.iter().map(|(code, _)| code.as_str());
            let known = if self.languages.is_empty() { "en".into() } else { codes().collect::<Vec<_>>().join(", ") };
            AsrError::Language { language: code.into(), known, hint: did_you_mean(code, codes()) }
        })
    }

    /// Whether a token is a time.
    pub fn is_time(&self, id: u32) -> bool {
        id >= self.first_time
    }

    /// The steps of 20 ms that a token names.
    pub fn steps(&self, id: u32) -> usize {
        id.saturating_sub(self.first_time) as usize
    }
}

/// A list of tokens; nothing where there is none. -1 stands for nothing.
fn ids(config: &Config, key: &str) -> Result<Option<Vec<u32>>, ConfigError> {
    let numbers = config.numbers(key)?;
    let id = |n: f64| if n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0 { Some(n as u32) } else { None };
    Ok(numbers.map(|all| all.into_iter().filter_map(id).collect()))
}

/// The heads that look at where a word is said: as the file says, or all of the decoder's upper half.
fn alignment(config: &Config, generation: Option<&Config>) -> Result<Vec<(usize, usize)>, ConfigError> {
    let (layers, heads) = (config.size("decoder_layers")?, config.size("decoder_attention_heads")?);
    let Some((file, given)) =
        generation.and_then(|g| Some((g, g.get("alignment_heads")?))).filter(|(_, v)| !v.is_null())
    else {
        return Ok((layers / 2..layers).flat_map(|l| (0..heads).map(move |h| (l, h))).collect());
    };
    let pair = |value: &serde_json::Value| {
        let [layer, head] = &value.as_array()?[..] else { return None };
        let pair = (layer.as_u64()? as usize, head.as_u64()? as usize);
        (pair.0 < layers && pair.1 < heads).then_some(pair)
    };
    let pairs: Option<Vec<_>> = given.as_array().map(|all| all.iter().map(pair).collect()).unwrap_or_default();
    pairs.ok_or_else(|| {
        file.wrong("alignment_heads", format!("pairs of a layer below {layers} and a head below {heads}"))
    })
}

/// Tokens of signs, as OpenAI's code collects them.
fn no_speech_tokens(tokenizer: &Tokenizer) -> Result<Vec<u32>, AsrError> {
    let mut all = vec![];
    for begin in [" -", " '"] {
        all.extend(tokenizer.encode(begin, false)?.first());
    }
    for (signs, always) in [(SIGNS, false), (NOTES, true)] {
        for sign in signs.split(' ') {
            for text in [sign.to_string(), format!(" {sign}")] {
                let found = tokenizer.encode(&text, false)?;
                if found.len() == 1 || always {
                    all.extend(found.first());
                }
            }
        }
    }
    Ok(all)
}
