//! Recordings of any length, window by window.
//!
//! ```text
//! blocks ─▶ Tape ─ 30 s ─▶ Network::hear ─▶ Writer ─▶ parts ─▶ segments
//!             ▲                                         │
//!             └────────── where the next begins ────────┘
//! ```
//!
//! A window is told what was said before it, begins where the last whole segment ended, and may be 30 s
//! long. Of a recording no more is held than a window, so memory does not grow with its length. The
//! windows of several recordings are worked on side by side. As OpenAI's `transcribe.py`, but that the
//! loudest sound is that of a window, not of a whole recording, which need not be known.

use super::network::{Heard, Listener, Network};
use super::parts::{Part, parts};
use super::rules::Rules;
use super::tokens::{STEPS, Tokens};
use super::words::{self, Timed};
use super::write::{Manner, Writer, Written, best};
use crate::asr::{AsrError, Blocks, Recognizer, Segment, Tell, Transcript, Word};
use crate::import::Pretrained;
use crate::llm::config::Config;
use crate::llm::encoder::TextBatch;
use crate::llm::session::Want;
use crate::text::Tokenizer;
use mobilis_runtime::Device;
use mobilis_runtime::prelude::Weights;
use std::cell::RefCell;
use std::time::Duration;

/// Samples a second.
pub const RATE: u32 = 16_000;
/// Samples of a frame.
pub const HOP: usize = 160;

/// What is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// What is said.
    #[default]
    Transcribe,
    /// The same in English.
    Translate,
}

/// How recordings are transcribed.
#[derive(Clone, Debug)]
pub struct TranscribeOptions {
    /// The language, by its code; without one, the first window tells.
    pub language: Option<String>,
    /// What is to be written.
    pub task: Task,
    /// Times of segments, by which long recordings are cut. Without them, every window of 30 s is a
    /// segment.
    pub times: bool,
    /// Times of words.
    pub words: bool,
    /// What was said before a recording begins: names, spelling.
    pub prompt: Option<String>,
    /// Whether a window is told what was said before it.
    pub carry: bool,
    /// Whether signs that nobody says never come.
    pub suppress: bool,
    /// Recordings that are worked on side by side.
    pub batch: usize,
    /// How texts are written.
    pub manner: Manner,
}

impl Default for TranscribeOptions {
    fn default() -> TranscribeOptions {
        TranscribeOptions {
            language: None,
            task: Task::Transcribe,
            times: true,
            words: false,
            prompt: None,
            carry: true,
            suppress: true,
            batch: 8,
            manner: Manner::default(),
        }
    }
}

/// A Whisper that transcribes.
pub struct WhisperRecognizer {
    network: Network,
    tokenizer: Tokenizer,
    tokens: Tokens,
    options: TranscribeOptions,
    listener: RefCell<Option<Listener>>,
}

impl WhisperRecognizer {
    /// Builds the model of a place, whose products read weights in a format.
    ///
    /// # Errors
    /// Configurations, tensors or tokenizers that do not fit.
    pub fn open(pretrained: &Pretrained, device: Device, weights: Weights) -> Result<WhisperRecognizer, AsrError> {
        let config = Config::new(pretrained.path.display().to_string(), pretrained.config.clone());
        let network = Network::load(&config, &*pretrained.tensors)?.weights(weights);
        network.set_device(device);
        let tokenizer = pretrained.tokenizer.open()?;
        let generation = pretrained.generation_config.clone().map(|g| Config::new("generation_config.json", g));
        let tokens = Tokens::of(&tokenizer, &config, generation.as_ref())?;
        Ok(WhisperRecognizer {
            network,
            tokenizer,
            tokens,
            options: TranscribeOptions::default(),
            listener: RefCell::new(None),
        })
    }

    /// The same with other options.
    ///
    /// # Errors
    /// A language that the model does not know, a translation by a model for English alone.
    pub fn with(mut self, options: TranscribeOptions) -> Result<WhisperRecognizer, AsrError> {
        if let Some(language) = &options.language
            && !(self.tokens.languages.is_empty() && language == "en")
        {
            self.tokens.language(language)?;
        }
        if options.task == Task::Translate && (self.tokens.languages.is_empty() || self.tokens.translate.is_none()) {
            return Err(AsrError::Unable { what: "translate", why: "it is for English alone" });
        }
        self.options = options;
        Ok(self)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The special tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Samples of a window.
    fn window(&self) -> usize {
        self.network.frames() * HOP
    }

    /// One window of each talk, those that have one.
    fn round(&self, talks: &mut [&mut Talk]) -> Result<(), AsrError> {
        let window = self.window();
        let windows: Vec<&[f32]> = talks.iter().map(|talk| talk.tape.window(window)).collect();
        let heard = self.network.hear(&windows)?;
        let mut listener = self.listener.borrow_mut();
        let listener = match &mut *listener {
            Some(listener) => listener,
            none => none.insert(self.network.listener(&heard)?),
        };
        self.tell_languages(talks, &heard, listener)?;
        let prompts: Vec<Vec<u32>> = talks.iter().map(|talk| self.prompt(talk)).collect();
        let numbers: Vec<u32> = talks.iter().map(|talk| talk.windows).collect();
        let mut writer = Writer {
            listener: &mut *listener,
            tokens: &self.tokens,
            tokenizer: &self.tokenizer,
            rules: Rules::new(&self.tokens, self.options.suppress, self.options.times),
            manner: &self.options.manner,
            most: self.network.positions() / 2,
        };
        let texts = writer.write(&heard, &prompts, &numbers)?;
        let silent: Vec<bool> = texts.iter().map(|text| self.options.manner.silent(text)).collect();
        let words = match self.options.words {
            true => self.words(talks, &heard, listener, &texts)?,
            false => vec![vec![]; texts.len()],
        };
        for (((talk, text), words), silent) in talks.iter_mut().zip(&texts).zip(&words).zip(&silent) {
            let frames = talk.tape.frames(window);
            let (found, next) = parts(&self.tokens, &text.tokens, frames);
            // Where there is no sound at all, nothing is said: models invent something.
            let silent = *silent || talk.tape.is_silent(window);
            if !silent {
                self.keep(talk, text, &found, words);
                talk.told = talk.forgotten(self.options.carry, text.temperature);
            }
            talk.windows += 1;
            let next = if silent { frames } else { next };
            talk.tape.advance(next * HOP);
        }
        Ok(())
    }

    /// The languages of talks that begin.
    fn tell_languages(&self, talks: &mut [&mut Talk], heard: &Heard, listener: &mut Listener) -> Result<(), AsrError> {
        if self.tokens.languages.is_empty() {
            talks.iter_mut().for_each(|talk| talk.language = Some("en".into()));
        }
        if let Some(language) = &self.options.language {
            talks.iter_mut().for_each(|talk| talk.language = Some(language.clone()));
        }
        let unknown: Vec<usize> = (0..talks.len()).filter(|i| talks[*i].language.is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        listener.hear(&heard.rows(&unknown), 1)?;
        let start = [self.tokens.start];
        let logits = listener.sequences().feed(&vec![&start[..]; unknown.len()], Want::Last)?;
        for (row, index) in unknown.iter().enumerate() {
            let all = logits.last(row).unwrap_or_default();
            let of: Vec<f32> = self.tokens.languages.iter().map(|(_, id)| all[*id as usize]).collect();
            talks[*index].language = Some(self.tokens.languages[best(&of) as usize].0.clone());
        }
        Ok(())
    }

    /// Where a transcript starts: language and task behind the start.
    fn beginning(&self, talk: &Talk) -> Vec<u32> {
        let mut all = vec![self.tokens.start];
        if !self.tokens.languages.is_empty() {
            all.extend(talk.language.as_ref().and_then(|code| self.tokens.language(code).ok()));
            all.extend(match self.options.task {
                Task::Transcribe => self.tokens.transcribe,
                Task::Translate => self.tokens.translate,
            });
        }
        all
    }

    /// What a window is told: what was said before, and how to begin.
    fn prompt(&self, talk: &Talk) -> Vec<u32> {
        let mut all = vec![];
        let before = &talk.said[talk.told..];
        let most = (self.network.positions() / 2).saturating_sub(1);
        if let (Some(previous), false) = (self.tokens.previous, before.is_empty()) {
            all.push(previous);
            all.extend_from_slice(&before[before.len().saturating_sub(most)..]);
        }
        all.extend(self.beginning(talk));
        all.extend((!self.options.times).then_some(self.tokens.no_times));
        all
    }

    /// The words of each window with their times.
    fn words(
        &self,
        talks: &[&mut Talk],
        heard: &Heard,
        listener: &mut Listener,
        texts: &[Written],
    ) -> Result<Vec<Vec<Timed>>, AsrError> {
        let words_of =
            |text: &Written| text.tokens.iter().copied().filter(|id| *id < self.tokens.end).collect::<Vec<u32>>();
        let said: Vec<Vec<u32>> = texts.iter().map(words_of).collect();
        let whole = |(talk, said): (&&mut Talk, &Vec<u32>)| {
            let begin = self.beginning(talk).into_iter().chain([self.tokens.no_times]);
            begin.chain(said.iter().copied()).chain([self.tokens.end]).collect::<Vec<u32>>()
        };
        let rows: Vec<Vec<u32>> = talks.iter().zip(&said).map(whole).collect();
        listener.hear(heard, 1)?;
        let batch = TextBatch::padded(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), self.tokens.end);
        let scores = listener.scores(&batch, &self.tokens.alignment)?;
        let steps = self.network.frames() / 2;
        let timed = |(row, (talk, said)): (usize, (&&mut Talk, &Vec<u32>))| {
            let each = batch.time() * steps;
            let of = |head: &Vec<f32>| row * each..row * each + rows[row].len() * steps.min(head.len());
            let heads: Vec<&[f32]> = scores.iter().map(|head| &head[of(head)]).collect();
            let frames = talk.tape.frames(self.window()) / 2;
            let starts = words::starts(&heads, steps, self.beginning(talk).len(), frames);
            let language = talk.language.as_deref().unwrap_or("en");
            words::words(&self.tokenizer, &self.tokens, said, &starts, language)
        };
        Ok(talks.iter().zip(&said).enumerate().map(timed).collect())
    }

    /// Keeps the segments of a window.
    fn keep(&self, talk: &mut Talk, text: &Written, parts: &[Part], words: &[Timed]) {
        let offset = talk.tape.position();
        let time = |frame: usize| offset + Duration::from_millis(10 * frame as u64);
        let is_word = |id: &u32| *id < self.tokens.end;
        // The words' tokens are counted without times.
        let (mut words, mut seen, mut passed) = (words.iter().peekable(), 0, 0);
        let logprobs: Vec<f32> =
            text.tokens.iter().zip(&text.logprobs).filter(|(id, _)| is_word(id)).map(|(_, p)| *p).collect();
        for part in parts {
            let tokens = &text.tokens[part.tokens.clone()];
            let said: Vec<u32> = tokens.iter().copied().filter(|id| is_word(id)).collect();
            seen += said.len();
            let mut own = vec![];
            while let Some(word) = words.next_if(|_| passed < seen) {
                let probability = logprobs.get(passed..passed + word.tokens).unwrap_or_default();
                let mean = probability.iter().sum::<f32>() / word.tokens.max(1) as f32;
                let step = |s: usize| offset + Duration::from_secs_f64(s as f64 / STEPS);
                own.push(Word {
                    start: step(word.start),
                    end: step(word.end.max(word.start)),
                    text: word.text.trim().to_string(),
                    confidence: Some(mean.exp()),
                });
                passed += word.tokens;
            }
            let written = self.tokenizer.decode(&said, true);
            if written.trim().is_empty() || part.start >= part.end {
                continue;
            }
            talk.text += &written;
            talk.said.extend_from_slice(tokens);
            talk.segments.push(Segment {
                start: time(part.start),
                end: time(part.end),
                text: written.trim().to_string(),
                tokens: tokens.to_vec(),
                words: own,
                confidence: Some(text.mean_logprob.exp()),
            });
        }
    }
}

impl Recognizer for WhisperRecognizer {
    type Error = AsrError;

    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
        let whole = |samples: &&[f32]| -> Blocks<'_> { Box::new(std::iter::once(Ok(samples.to_vec()))) };
        self.listen(recordings.iter().map(whole).collect(), &mut |_, _, _| {}).into_iter().collect()
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, AsrError>> {
        let mut results: Vec<Option<Result<Transcript, AsrError>>> = recordings.iter().map(|_| None).collect();
        let prompt = self.options.prompt.as_ref().map(|p| self.tokenizer.encode(&format!(" {}", p.trim()), false));
        let prompt = match prompt.transpose() {
            Ok(prompt) => prompt.unwrap_or_default(),
            Err(e) => {
                let mut error = Some(AsrError::from(e));
                let why = || AsrError::Unable { what: "use the prompt", why: "it cannot be encoded" };
                return results.iter().map(|_| Err(error.take().unwrap_or_else(why))).collect();
            }
        };
        let mut waiting = recordings.into_iter().enumerate();
        let mut talks: Vec<Talk> = vec![];
        loop {
            while talks.len() < self.options.batch.max(1) {
                let Some((index, blocks)) = waiting.next() else { break };
                talks.push(Talk::new(index, Tape::new(blocks), prompt.clone()));
            }
            // Read what the next windows need; those that are at their end are done.
            let mut going = vec![];
            for mut talk in talks {
                match talk.tape.fill(self.window()) {
                    Err(e) => results[talk.index] = Some(Err(e)),
                    Ok(false) => {
                        let index = talk.index;
                        results[index] = Some(Ok(talk.finish()));
                    }
                    Ok(true) => going.push(talk),
                }
            }
            talks = going;
            if talks.is_empty() {
                if waiting.len() == 0 {
                    break;
                }
                continue;
            }
            let before: Vec<usize> = talks.iter().map(|talk| talk.segments.len()).collect();
            if let Err(e) = self.round(&mut talks.iter_mut().collect::<Vec<_>>()) {
                // What fails here fails for all that were worked on.
                let mut error = Some(e);
                let why = || AsrError::Unable { what: "go on", why: "a window beside it failed" };
                for talk in std::mem::take(&mut talks) {
                    results[talk.index] = Some(Err(error.take().unwrap_or_else(why)));
                }
                continue;
            }
            for (talk, before) in talks.iter().zip(before) {
                tell(talk.index, talk.tape.position(), &talk.segments[before..]);
            }
        }
        results.into_iter().map(|r| r.unwrap_or_else(|| Ok(Transcript::default()))).collect()
    }
}

/// A recording that is being transcribed.
struct Talk<'a> {
    index: usize,
    tape: Tape<'a>,
    /// What was said, with times, and before it the prompt.
    said: Vec<u32>,
    /// How much of it the next window is not told.
    told: usize,
    windows: u32,
    language: Option<String>,
    text: String,
    segments: Vec<Segment>,
}

impl<'a> Talk<'a> {
    fn new(index: usize, tape: Tape<'a>, prompt: Vec<u32>) -> Talk<'a> {
        Talk { index, tape, said: prompt, told: 0, windows: 0, language: None, text: String::new(), segments: vec![] }
    }

    /// How much of what was said the next window is not told, after a window that was written at a
    /// temperature: what was guessed is no context. (Silent windows say nothing, and change nothing.)
    fn forgotten(&self, carry: bool, temperature: f32) -> usize {
        if !carry || temperature > 0.5 { self.said.len() } else { self.told }
    }

    fn finish(self) -> Transcript {
        let duration = self.tape.duration();
        let text = self.text.trim().to_string();
        Transcript { text, language: self.language, duration, segments: self.segments }
    }
}

/// The part of a recording that is held.
struct Tape<'a> {
    /// None when all was read.
    blocks: Option<Blocks<'a>>,
    samples: Vec<f32>,
    /// Samples before those held.
    base: u64,
}

impl<'a> Tape<'a> {
    fn new(blocks: Blocks<'a>) -> Tape<'a> {
        Tape { blocks: Some(blocks), samples: vec![], base: 0 }
    }

    /// Reads until so many samples are held, or all that there are. Whether a frame is left.
    fn fill(&mut self, wanted: usize) -> Result<bool, AsrError> {
        while self.samples.len() < wanted
            && let Some(blocks) = &mut self.blocks
        {
            match blocks.next() {
                Some(block) => self.samples.extend_from_slice(&block?),
                None => self.blocks = None,
            }
        }
        Ok(self.samples.len() >= HOP)
    }

    /// The next samples, as many as a window takes.
    fn window(&self, samples: usize) -> &[f32] {
        &self.samples[..samples.min(self.samples.len())]
    }

    /// Whether a window is nothing but zeros.
    fn is_silent(&self, samples: usize) -> bool {
        self.samples.iter().take(samples).all(|v| *v == 0.0)
    }

    /// Frames of sound in a window of so many samples.
    fn frames(&self, samples: usize) -> usize {
        self.samples.len().min(samples) / HOP
    }

    /// Where the window begins.
    fn position(&self) -> Duration {
        Duration::from_secs_f64(self.base as f64 / f64::from(RATE))
    }

    /// Leaves samples behind.
    fn advance(&mut self, samples: usize) {
        let samples = samples.min(self.samples.len());
        self.samples.drain(..samples);
        self.base += samples as u64;
    }

    /// How long the recording is, when all was read.
    fn duration(&self) -> Duration {
        Duration::from_secs_f64((self.base + self.samples.len() as u64) as f64 / f64::from(RATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_guessed_is_no_context() {
        let mut talk = Talk::new(0, Tape::new(Box::new(std::iter::empty())), vec![1, 2]);
        assert_eq!([talk.forgotten(true, 0.0), talk.forgotten(true, 0.4)], [0, 0]);
        assert_eq!([talk.forgotten(true, 0.6), talk.forgotten(false, 0.0)], [2, 2]);
        talk.told = 1;
        assert_eq!([talk.forgotten(true, 0.5), talk.forgotten(true, 0.8)], [1, 2]);
    }
}
