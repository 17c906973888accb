//! What can be asked of generation.
//!
//! [`GenerateOptions`] is what a user sets, [`GenerationConfig`](super::GenerationConfig) what a
//! checkpoint proposes; the second makes the first ([`GenerationConfig::options`](super::GenerationConfig::options)).

use super::config::OptionError;

/// How text goes on, and how far.
///
/// ```
/// use mobilis_zoo::generate::GenerateOptions;
///
/// let options = GenerateOptions::default().temperature(0.7).top_p(0.9).seed(1).max_new_tokens(64);
/// assert!(options.check().is_ok());
/// assert!(GenerateOptions::default().top_p(2.0).check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens that come.
    pub max_new_tokens: usize,
    /// No end before so many tokens came.
    pub min_new_tokens: usize,
    /// Divides the logits: below 1 likelier tokens gain, above 1 they lose. 0 takes the likeliest token.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that have this probability together; 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest one's probability; 0 for all.
    pub min_p: f32,
    /// The same seed gives the same tokens, whatever else is in the batch.
    pub seed: u64,
    /// Divides the logits of tokens that are in the text, prompt included (Keskar et al. 2019); 1 for
    /// none. Negative logits are multiplied.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that came already.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens as often as they came already.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// No sequence of so many tokens comes twice, prompt included; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// Sequences that do not come.
    pub bad_words: Vec<Vec<u32>>,
    /// Tokens that do not come.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that do not come first.
    pub begin_suppress_tokens: Vec<u32>,
    /// The token that comes first (encoders with decoders).
    pub forced_bos_token: Option<u32>,
    /// The token that comes last, where the length ends the text.
    pub forced_eos_token: Option<u32>,
    /// Tokens that end the text.
    pub stop_tokens: Vec<u32>,
    /// Texts that end the text; they are not part of the result.
    pub stop_strings: Vec<String>,
    /// Tells the logarithm of each token's probability, and so many likely alternatives with it.
    pub logprobs: Option<usize>,
}

impl Default for GenerateOptions {
    /// The likeliest token each time, without any rule, up to 256 tokens.
    fn default() -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: 256,
            min_new_tokens: 0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            no_repeat_ngram_size: 0,
            bad_words: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            forced_bos_token: None,
            forced_eos_token: None,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            logprobs: None,
        }
    }
}

macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($name), "`](GenerateOptions#structfield.", stringify!($name), ").")]
        #[must_use]
        pub fn $name(mut self, value: $type) -> GenerateOptions {
            self.$name = value;
            self
        }
    )*};
}

impl GenerateOptions {
    setters! {
        max_new_tokens: usize,
        min_new_tokens: usize,
        temperature: f32,
        top_k: usize,
        top_p: f32,
        min_p: f32,
        seed: u64,
        repetition_penalty: f32,
        presence_penalty: f32,
        frequency_penalty: f32,
        logit_bias: Vec<(u32, f32)>,
        no_repeat_ngram_size: usize,
        bad_words: Vec<Vec<u32>>,
        suppress_tokens: Vec<u32>,
        stop_tokens: Vec<u32>,
        stop_strings: Vec<String>,
        logprobs: Option<usize>,
    }

    /// Whether tokens are drawn; if not, each is the likeliest one.
    pub fn samples(&self) -> bool {
        self.temperature > 0.0
    }

    /// Whether all values mean something.
    ///
    /// # Errors
    /// The first value that does not, and what it may be.
    pub fn check(&self) -> Result<(), OptionError> {
        let range = |name: &'static str, value: f32, good: bool, expected: &'static str| match good {
            true => Ok(()),
            false => Err(OptionError::Range { name, expected, found: value.to_string() }),
        };
        let t = self.temperature;
        range("temperature", t, t >= 0.0 && t.is_finite(), "0 or more")?;
        range("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "more than 0, at most 1")?;
        range("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        let r = self.repetition_penalty;
        range("repetition_penalty", r, r > 0.0 && r.is_finite(), "more than 0 (1 for none)")?;
        let finite = "a finite number";
        range("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), finite)?;
        range("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), finite)?;
        for (_, bias) in &self.logit_bias {
            range("logit_bias", *bias, !bias.is_nan(), "a number")?;
        }
        if self.bad_words.iter().any(Vec::is_empty) {
            return Err(OptionError::Range {
                name: "bad_words",
                expected: "at least a token in each sequence",
                found: "an empty one".into(),
            });
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(OptionError::Range {
                name: "stop_strings",
                expected: "texts with at least a character",
                found: "an empty one".into(),
            });
        }
        Ok(())
    }
}
