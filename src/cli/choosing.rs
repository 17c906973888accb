//! How tokens are chosen, as the commands take it: the checkpoint's own defaults
//! (`generation_config.json`), and what was asked for instead.

use super::CliError;
use super::language::Language;
use mobilis_zoo::generate::{Chooser, Constraint, ConstraintVocabulary, GenerateOptions};
use mobilis_zoo::text::Tokenizer;
use serde_json::Value;
use std::path::Path;

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "How tokens are chosen")]
pub(super) struct ChooseArguments {
    /// The most tokens that come [default: the checkpoint's, or 256].
    #[arg(long, short = 'n', value_name = "TOKENS")]
    max_tokens: Option<usize>,
    /// Take the likeliest token, whatever the checkpoint's defaults are; the default without any.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Draw tokens; above 1 bolder, below 1 more careful.
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Draw from the likeliest N tokens only.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw from tokens that have at least this part of the likeliest one's probability.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Which of many texts: the same seed draws the same tokens.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// No end before so many tokens came.
    #[arg(long, value_name = "TOKENS")]
    min_tokens: Option<usize>,
    /// Divides what speaks for tokens that were there before.
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Taken from the logits of tokens that came before.
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    presence_penalty: Option<f32>,
    /// Taken from the logits of tokens for each time that they came before.
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    frequency_penalty: Option<f32>,
    /// Let no run of N tokens come twice.
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// Added to the logit of a token.
    #[arg(long, value_name = "ID=X", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// End before this text comes.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// End with this token, as the checkpoint's own end does.
    #[arg(long, value_name = "ID")]
    stop_token: Vec<u32>,
    /// Do not end with the tokens that end texts.
    #[arg(long)]
    ignore_end: bool,
    /// Give tokens' log-probabilities, and those of the N likeliest beside them (with --json).
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    logprobs: Option<usize>,
    /// Let only texts come that match a regular expression as a whole.
    #[arg(long, value_name = "REGEX", conflicts_with = "schema")]
    regex: Option<String>,
    /// Let only JSON come that fits a JSON schema: the schema itself, or its file.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let both = text.split_once('=').and_then(|(id, x)| Some((id.trim().parse().ok()?, x.trim().parse().ok()?)));
    both.filter(|(_, x): &(u32, f32)| !x.is_nan()).ok_or_else(|| "expected a token's id and a number: 42=-1.5".into())
}

impl ChooseArguments {
    /// What is wanted: the checkpoint's defaults, changed by what was asked for.
    pub(super) fn options(&self, language: &Language) -> Result<GenerateOptions, CliError> {
        let mut options = language.defaults()?;
        let o = &mut options;
        let drawn = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        if self.greedy {
            o.temperature = 0.0;
        } else if drawn && self.temperature.is_none() && !o.samples() {
            o.temperature = 1.0;
        }
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                to.clone_from(value);
            }
        }
        set(&mut o.max_new_tokens, &self.max_tokens);
        set(&mut o.min_new_tokens, &self.min_tokens);
        set(&mut o.temperature, &self.temperature);
        set(&mut o.top_k, &self.top_k);
        set(&mut o.top_p, &self.top_p);
        set(&mut o.min_p, &self.min_p);
        set(&mut o.repetition_penalty, &self.repetition_penalty);
        set(&mut o.presence_penalty, &self.presence_penalty);
        set(&mut o.frequency_penalty, &self.frequency_penalty);
        set(&mut o.no_repeat_ngram_size, &self.no_repeat_ngram);
        (o.seed, o.logprobs) = (self.seed, self.logprobs);
        if self.ignore_end {
            o.stop_tokens.clear();
        }
        o.logit_bias.extend(&self.logit_bias);
        o.stop_tokens.extend(&self.stop_token);
        o.stop_strings.extend(self.stop.iter().cloned());
        options.check().map_err(CliError::language)?;
        if !options.stop_strings.is_empty() {
            // Without a tokenizer there is no text to find them in.
            language.tokenizer()?;
        }
        Ok(options)
    }

    /// The same for a beam search, which looks at penalties, lengths and end tokens alone.
    pub(super) fn for_beams(&self, language: &Language) -> Result<GenerateOptions, CliError> {
        let unused = [
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--stop", !self.stop.is_empty()),
            ("--logprobs", self.logprobs.is_some()),
            ("--regex", self.regex.is_some()),
            ("--schema", self.schema.is_some()),
        ];
        match unused.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(CliError::Arguments(format!("a beam search takes no {name}"))),
            None => self.options(language),
        }
    }

    /// What makes the choosers of texts.
    pub(super) fn choosers(&self, language: &Language) -> Result<Choosers, CliError> {
        let options = self.options(language)?;
        let vocabulary =
            || ConstraintVocabulary::new(language.tokenizer()?, &options.stop_tokens).map_err(CliError::language);
        let constraint = match (&self.regex, &self.schema) {
            (Some(pattern), _) => Some(Constraint::regex(&vocabulary()?, pattern)),
            (None, Some(schema)) => Some(Constraint::json_schema(&vocabulary()?, &read_schema(schema)?)),
            (None, None) => None,
        };
        let constraint = constraint.transpose().map_err(CliError::language)?;
        Ok(Choosers { options, constraint, tokenizer: language.words().cloned() })
    }
}

/// A schema, given as JSON or as its file.
fn read_schema(given: &str) -> Result<Value, CliError> {
    let (text, place) = match given.trim_start().starts_with('{') {
        true => (given.to_string(), "--schema".to_string()),
        false => (super::language::text_of(Path::new(given))?, given.to_string()),
    };
    serde_json::from_str(&text).map_err(|e| CliError::Arguments(format!("{place} is no JSON: {e}")))
}

/// Makes choosers: all alike, but for what they draw.
pub(super) struct Choosers {
    options: GenerateOptions,
    constraint: Option<Constraint>,
    tokenizer: Option<Tokenizer>,
}

impl Choosers {
    /// The most tokens that come.
    pub(super) fn most(&self) -> usize {
        self.options.max_new_tokens
    }

    /// The chooser of a text; `sequence` tells apart texts after the same prompt.
    pub(super) fn of(&self, sequence: u32) -> Chooser {
        let chooser = Chooser::new(self.options.clone(), sequence);
        let chooser = match &self.tokenizer {
            Some(tokenizer) => chooser.text(tokenizer),
            None => chooser,
        };
        match &self.constraint {
            Some(constraint) => chooser.constraint(constraint.clone()),
            None => chooser,
        }
    }
}
