//! How recognizers of frames search: beams, language models, phrases, confidence.

use super::CliError;
use mobilis_zoo::asr::decode::Confidence;
use mobilis_zoo::asr::decode::ngram::Ngrams;
use mobilis_zoo::asr::decode::search::{Beam, Language, Method, Search};
use std::path::{Path, PathBuf};

/// Bytes that a list of phrases may have.
const MOST: u64 = 16 << 20;

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Searching with CTC, RNN-T and TDT")]
pub(super) struct SearchArguments {
    /// Texts that the search keeps, not the best token of each frame alone [default: 8 with --lm or --boost].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    beam: Option<u32>,
    /// A language model that guides the search: n-grams of words or tokens in an ARPA file, plain or gzipped.
    #[arg(long, value_name = "FILE")]
    lm: Option<PathBuf>,
    /// What the language model's logarithms are multiplied by.
    #[arg(long, value_name = "W", default_value_t = 0.5, requires = "lm", value_parser = number)]
    lm_weight: f32,
    /// What each word of the language model adds, against the preference for few words.
    #[arg(long, value_name = "W", default_value_t = 0.0, requires = "lm", value_parser = number, allow_negative_numbers = true)]
    lm_bonus: f32,
    /// A phrase that is likelier than the model thinks, or a file of such, one a line; may be repeated.
    #[arg(long, value_name = "FILE_OR_PHRASE")]
    boost: Vec<String>,
    /// What each letter of a phrase adds to the logarithm of a text's probability.
    #[arg(long, value_name = "W", default_value_t = 0.5, requires = "boost", value_parser = number, allow_negative_numbers = true)]
    boost_weight: f32,
    /// Tell how sure the model is of words and segments, from 0 to 1 (JSON and CTM show it).
    #[arg(long)]
    confidence: bool,
}

fn number(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|n: &f32| n.is_finite()).ok_or_else(|| "expected a number".to_string())
}

/// The phrases of a list, or the phrase itself.
fn phrases(given: &str) -> Result<Vec<String>, CliError> {
    let path = Path::new(given);
    let size = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => found.len(),
        // What looks like a path is none by mistake.
        _ if given.contains(std::path::MAIN_SEPARATOR) || path.extension().is_some_and(|e| e == "txt") => {
            return Err(CliError::Arguments(format!("--boost: there is no file `{given}`")));
        }
        _ => return Ok(vec![given.to_string()]),
    };
    if size > MOST {
        return Err(CliError::Arguments(format!("--boost: `{given}` has {size} bytes; at most {MOST} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|source| CliError::Read { path: path.into(), source })?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect())
}

impl SearchArguments {
    /// The search that was asked for.
    pub(super) fn search(&self) -> Result<Search, CliError> {
        let confidence = self.confidence.then(Confidence::default);
        if self.beam.is_none() && self.lm.is_none() && self.boost.is_empty() {
            return Ok(Search { method: Method::Greedy, confidence });
        }
        let language = match &self.lm {
            None => None,
            Some(path) => {
                let ngrams = Ngrams::open(path).map_err(CliError::language)?;
                let (weight, bonus) = (self.lm_weight, self.lm_bonus);
                Some(Language { weight, bonus, ..Language::new(ngrams) })
            }
        };
        let mut listed = vec![];
        for given in &self.boost {
            listed.append(&mut phrases(given)?);
        }
        let width = self.beam.map_or(Beam::default().width, |n| n as usize);
        let beam = Beam { width, language, phrases: listed, boost: self.boost_weight };
        Ok(Search { method: Method::Beam(beam), confidence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_come_from_files_or_as_they_are() {
        assert_eq!(phrases("new york").unwrap(), ["new york"]);
        let path = std::env::temp_dir().join(format!("mobilis-phrases-{}.txt", std::process::id()));
        std::fs::write(&path, "new york\n\n  Ada Lovelace \n").unwrap();
        assert_eq!(phrases(&path.display().to_string()).unwrap(), ["new york", "Ada Lovelace"]);
        std::fs::remove_file(&path).unwrap();
        assert!(phrases(&path.display().to_string()).unwrap_err().to_string().contains("no file"));
        assert!(number("1e99").is_err() && number("inf").is_err() && number("0.25") == Ok(0.25));
    }
}
