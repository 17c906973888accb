//! A Canary that transcribes and translates: recordings of any length to transcripts, as a prompt asks.
//!
//! ```text
//! samples ─▶ windows ─▶ features ─▶ encoder ─▶ decoder, after the prompt ─▶ tokens ─▶ words
//! ```
//!
//! A recording of up to 40 s is heard as a whole. A longer one is cut into windows of at most that (as NeMo's
//! `speech_to_text_aed_chunked_infer.py`), here where it is quietest in a window's last ten seconds, so that words
//! stay whole. What a prompt leaves open is what `prompt_defaults` of the configuration says. Models that write times
//! (`canary2`) put `<|12|>` before and behind each word: frames of the encoder.

use super::network::{Canary, CanaryError, Writing};
use super::prompt::{Format, Prompt};
use super::vocabulary::Vocabulary;
use crate::asr::conformer::network;
use crate::asr::{AsrError, Blocks, Recognizer, Segment, Tell, Transcript, Word};
use crate::audio::features::{Extractor, Features, Version};
use crate::import::nemo::{Archive, target};
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::Values;
use mobilis_runtime::prelude::Device;
use mobilis_runtime::suggest::did_you_mean;
use serde_json::Value;
use std::time::Duration;

/// Seconds of a window, and of its end, in which it is cut.
const WINDOW: [usize; 2] = [40, 10];
/// How many parts of a second are looked at for the quietest.
const PARTS: usize = 20;

/// How recordings are transcribed.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryOptions {
    /// What is asked for.
    pub prompt: Prompt,
    /// What was said before: names, spelling (`canary2`).
    pub context: Option<String>,
    /// How texts are written.
    pub writing: Writing,
}

/// A Canary with its features and its tokens.
pub struct CanaryRecognizer {
    canary: Canary,
    extractor: Extractor,
    vocabulary: Vocabulary,
    format: Format,
    options: CanaryOptions,
    asked: Vec<u32>,
}

impl CanaryRecognizer {
    /// Whether a configuration of NeMo's describes such a model.
    pub fn is_one(config: &Value) -> bool {
        target(config).is_some_and(|t| t.ends_with("EncDecMultiTaskModel"))
    }

    /// The model of an archive.
    ///
    /// # Errors
    /// Settings that make no sense, tensors or tokenizers that do not fit.
    pub fn open(archive: &Archive) -> Result<CanaryRecognizer, CanaryError> {
        let config = Config::new(archive.path.display().to_string(), archive.config.clone());
        let preprocessor = config.inner("preprocessor").ok_or_else(|| config.missing("preprocessor"))?;
        let features = Features::nemo(&preprocessor, Version::parse(config.word("nemo_version")?))?;
        let settings = config.get("tokenizer").ok_or_else(|| config.missing("tokenizer"))?;
        let vocabulary = Vocabulary::open(settings, &archive.artifacts)?;
        let name = config.word("prompt_format")?.unwrap_or("canary");
        let format = Format::named(name).ok_or_else(|| config.wrong("prompt_format", "canary or canary2"))?;
        let prompt = defaults(&config)?;
        let writing = writing(&config, &vocabulary)?;
        let canary = Canary::load(&config, &*archive.tensors)?;
        let extractor = Extractor::new(features, Device::Cpu)?;
        let options = CanaryOptions { prompt, context: None, writing };
        let asked = format.tokens(&options.prompt, &[], |token| vocabulary.special(token)).unwrap_or_default();
        Ok(CanaryRecognizer { canary, extractor, vocabulary, format, options, asked })
    }

    /// The network.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// The tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The tokens of its prompt.
    pub fn asked(&self) -> &[u32] {
        &self.asked
    }

    /// How it transcribes; at first as its configuration says.
    pub fn options(&self) -> &CanaryOptions {
        &self.options
    }

    /// The same with other options.
    ///
    /// # Errors
    /// Languages that the model does not know, what its prompts cannot ask for.
    pub fn with(mut self, options: CanaryOptions) -> Result<CanaryRecognizer, AsrError> {
        let prompt = &options.prompt;
        for language in [&prompt.source, &prompt.target] {
            if self.vocabulary.special(&format!("<|{language}|>")).is_none() {
                let known = self.vocabulary.languages();
                let hint = did_you_mean(language, known.iter().map(String::as_str));
                return Err(AsrError::Language { language: language.clone(), known: known.join(", "), hint });
            }
        }
        let old = self.format == Format::Canary;
        let why = "its prompts (`canary`) have no place for it";
        if old && (prompt.timestamps || prompt.numbers || prompt.speakers) {
            return Err(AsrError::Unable { what: "write times, numbers or speakers", why });
        }
        let context = match &options.context {
            Some(_) if old => return Err(AsrError::Unable { what: "use the prompt", why }),
            Some(text) => self.vocabulary.encode(text.trim(), &prompt.target)?,
            None => vec![],
        };
        let asked = self.format.tokens(prompt, &context, |token| self.vocabulary.special(token));
        self.asked = asked.map_err(CanaryError::from)?;
        self.options = options;
        Ok(self)
    }

    /// Runs on another device from now on.
    pub fn set_device(&self, device: Device) {
        self.canary.set_device(device);
    }

    /// How long a frame of the encoder lasts.
    fn frame(&self) -> f64 {
        let features = self.extractor.features();
        let factor = self.canary.encoder().settings.encoder.rate();
        features.hop() as f64 * factor as f64 / f64::from(features.sample_rate())
    }

    /// The tokens of a window.
    fn tokens(&self, samples: &[f32]) -> Result<Vec<u32>, CanaryError> {
        if samples.is_empty() {
            return Ok(vec![]);
        }
        let found = self.extractor.run(&[samples])?;
        let counted = found.counted[0].min(found.frames);
        let values = Values { sizes: vec![1, found.frames, found.width], data: found.values };
        let heard = self.canary.hear(&network::Features { values, lengths: vec![counted] })?;
        self.canary.write(&heard, 0, &self.asked, &self.options.writing)
    }

    /// The segments of a window, which begins and ends there in the recording.
    fn segments(&self, tokens: &[u32], start: Duration, end: Duration) -> Vec<Segment> {
        let words = match self.options.prompt.timestamps {
            true => self.words(tokens, start, end),
            false => vec![],
        };
        if words.is_empty() {
            let text = self.vocabulary.text(tokens);
            let whole = Segment { start, end, text, tokens: tokens.to_vec(), ..Segment::default() };
            return if whole.text.is_empty() { vec![] } else { vec![whole] };
        }
        let mut all: Vec<Segment> = vec![];
        for word in words {
            // As NeMo's `get_segment_offsets`.
            match all.last_mut().filter(|s| !s.text.ends_with(['.', '?', '!'])) {
                Some(segment) => {
                    segment.end = word.end;
                    segment.text = format!("{} {}", segment.text, word.text);
                    segment.words.push(word);
                }
                None => {
                    let (start, end, text) = (word.start, word.end, word.text.clone());
                    all.push(Segment { start, end, text, words: vec![word], ..Segment::default() });
                }
            }
        }
        all
    }

    /// What stands between two times each: NeMo's `extract_words_with_timestamps`.
    fn words(&self, tokens: &[u32], start: Duration, end: Duration) -> Vec<Word> {
        let at = |frames: u32| (start + Duration::from_secs_f64(f64::from(frames) * self.frame())).min(end);
        let (mut all, mut open, mut text) = (vec![], None, String::new());
        for id in tokens {
            match (self.vocabulary.frames(*id), open) {
                (None, _) => text.push_str(&self.vocabulary.piece(*id)),
                (Some(frames), None) => {
                    text.clear();
                    open = Some(frames);
                }
                (Some(frames), Some(from)) => {
                    let text = std::mem::take(&mut text);
                    if !text.trim().is_empty() {
                        let (start, text) = (at(from), text.trim().to_string());
                        all.push(Word { start, end: at(frames).max(start), text, confidence: None });
                    }
                    open = None;
                }
            }
        }
        all
    }

    /// A recording that comes in blocks; no more of it is held than a window.
    fn one(&self, blocks: Blocks<'_>, tell: &mut dyn FnMut(Duration, &[Segment])) -> Result<Transcript, AsrError> {
        let rate = self.sample_rate() as usize;
        let (mut samples, mut done, mut segments, mut texts) = (Vec::new(), 0, vec![], vec![]);
        let time = |n: usize| Duration::from_secs_f64(n as f64 / rate as f64);
        let mut window = |part: &[f32], at: usize| -> Result<usize, AsrError> {
            let tokens = self.tokens(part)?;
            let new = self.segments(&tokens, time(at), time(at + part.len()));
            texts.extend(new.iter().map(|s| s.text.clone()));
            tell(time(at + part.len()), &new);
            segments.extend(new);
            Ok(part.len())
        };
        for block in blocks {
            samples.extend_from_slice(&block?);
            while samples.len() > WINDOW[0] * rate {
                let n = window(&samples[..cut(&samples, rate)], done)?;
                samples.drain(..n);
                done += n;
            }
        }
        done += window(&samples, done)?;
        let language = Some(self.options.prompt.target.clone());
        Ok(Transcript { text: texts.join(" "), language, duration: time(done), segments })
    }
}

/// Where a recording of more than a window is cut: in the middle of the quietest part of its end.
fn cut(samples: &[f32], rate: usize) -> usize {
    let [from, to] = [WINDOW[0] - WINDOW[1], WINDOW[0]].map(|seconds| seconds * rate);
    let part = (rate / PARTS).max(1);
    let loud = |at: usize| samples[at..at + part].iter().map(|v| f64::from(v * v)).sum::<f64>();
    let begins = (from..to - part).step_by(part);
    begins.min_by(|a, b| loud(*a).total_cmp(&loud(*b))).map_or(to, |at| at + part / 2)
}

/// What the configuration says of prompts.
fn defaults(config: &Config) -> Result<Prompt, ConfigError> {
    let mut prompt = Prompt::default();
    let turns = config.get("prompt_defaults").and_then(Value::as_array);
    let user = turns.and_then(|all| all.iter().find(|turn| turn["role"] == "user"));
    let Some(slots) = user.and_then(|turn| turn.get("slots")) else { return Ok(prompt) };
    let slots = Config::new(format!("{} `prompt_defaults`", config.place()), slots.clone());
    let bare = |word: &str| word.trim_start_matches("<|").trim_end_matches("|>").to_string();
    let language = |key: &str| Ok::<_, ConfigError>(slots.word(key)?.map(bare));
    prompt.source = language("source_lang")?.unwrap_or(prompt.source);
    prompt.target = language("target_lang")?.unwrap_or(prompt.source.clone());
    let yes = |key: &str, default: bool| match slots.get(key) {
        Some(Value::Bool(yes)) => *yes,
        // `map_manifest_values_to_special_tokens`.
        Some(Value::String(word)) => ["yes", "1", "True", "true", key].contains(&bare(word).as_str()),
        _ => default,
    };
    prompt.punctuation = yes("pnc", true);
    prompt.numbers = yes("itn", false);
    prompt.timestamps = yes("timestamp", false);
    prompt.speakers = yes("diarize", false);
    Ok(prompt)
}

/// What the configuration says of writing.
fn writing(config: &Config, vocabulary: &Vocabulary) -> Result<Writing, CanaryError> {
    let mut writing = Writing::greedy(vocabulary.end()?);
    let Some(decoding) = config.inner("decoding") else { return Ok(writing) };
    let greedy = decoding.word("strategy")?.unwrap_or("beam").starts_with("greedy");
    let Some(part) = decoding.inner(if greedy { "greedy" } else { "beam" }) else { return Ok(writing) };
    writing.beams = part.count("beam_size")?.unwrap_or(1).clamp(1, 256);
    writing.length_penalty = part.number("len_pen", 0.0)? as f32;
    writing.more = match part.get("max_generation_delta").and_then(Value::as_i64) {
        Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
        None => writing.more,
    };
    if !greedy {
        // NeMo's beams begin with a token that it does not count.
        writing.more = writing.more.saturating_add(1);
        writing.padding = vocabulary.special("<pad>");
    }
    Ok(writing)
}

impl Recognizer for CanaryRecognizer {
    type Error = AsrError;

    fn sample_rate(&self) -> u32 {
        self.extractor.features().sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
        let whole = |samples: &&[f32]| -> Blocks<'_> { Box::new(std::iter::once(Ok(samples.to_vec()))) };
        recordings.iter().map(|samples| self.one(whole(samples), &mut |_, _| {})).collect()
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, AsrError>> {
        let each = recordings.into_iter().enumerate();
        each.map(|(index, blocks)| self.one(blocks, &mut |at, new| tell(index, at, new))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_recordings_are_cut_where_it_is_quiet() {
        let rate = 1000;
        let mut samples = vec![0.5; 41 * rate];
        assert_eq!(cut(&samples, rate), 30 * rate + 25);
        samples[36_210..36_300].fill(0.01);
        assert_eq!(cut(&samples, rate), 36_275);
    }

    #[test]
    fn defaults_of_prompts() {
        let of = |slots: &str| {
            let text = format!("{{\"prompt_defaults\": [{{\"role\": \"user\", \"slots\": {slots}}}]}}");
            defaults(&Config::parse("test", &text).expect("an object")).expect("makes sense")
        };
        let found = of(r#"{"source_lang": "<|fr|>", "pnc": "no", "timestamp": "<|timestamp|>", "itn": null}"#);
        let fr = || "fr".to_string();
        let expected = Prompt { source: fr(), target: fr(), punctuation: false, timestamps: true, ..Prompt::default() };
        assert_eq!(found, expected);
        assert_eq!(of(r#"{"target_lang": "de"}"#).target, "de");
        assert_eq!(defaults(&Config::parse("test", "{}").expect("an object")), Ok(Prompt::default()));
    }
}
