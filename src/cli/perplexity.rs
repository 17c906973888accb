//! `mobilis perplexity MODEL FILE`.

use super::language::{self, Bar, LoadArguments};
use super::{CliError, Output};
use mobilis_zoo::generate::Perplexity;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: LoadArguments,
    /// The text, UTF-8; `-` is standard input.
    file: PathBuf,
    /// Only the first so many bytes of the text.
    #[arg(long, value_name = "BYTES")]
    limit: Option<usize>,
    /// Tokens of a window [default: 1024, or as many as the model takes].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// From one window to the next [default: half a window].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
}

/// Tokens of a window where nothing else is asked for.
const WINDOW: usize = 1024;

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let mut text = language::text_of(&arguments.file)?;
    if let Some(limit) = arguments.limit.filter(|limit| *limit < text.len()) {
        // Not within a character.
        text.truncate((0..=limit).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0));
    }
    let language = arguments.load.open(output)?;
    let generator = arguments.load.generator(&language)?;
    let tokens = language.tokenizer()?.encode(&text, true).map_err(CliError::language)?;
    if tokens.len() < 2 {
        let message = format!("{} has {} tokens: two at least are needed", arguments.file.display(), tokens.len());
        return Err(CliError::Arguments(message));
    }
    let window = arguments.window.map_or(WINDOW, |w| w as usize).min(generator.positions());
    let stride = arguments.stride.map_or(window / 2, |s| s as usize);
    if stride >= window {
        let message = format!("--stride {stride} leaves gaps between windows of {window} tokens: use less");
        return Err(CliError::Arguments(message));
    }
    output.note(&format!("{} tokens in windows of {window}, {stride} apart", tokens.len()));
    let mut lane = generator.lane(1, window);
    let bar = Bar::new(output, tokens.len() as u64, "tokens");
    let started = Instant::now();
    let found = lane.perplexity(&tokens, window, stride, |so_far, done| {
        bar.at(done as u64, &format!("perplexity {:.4}", so_far.perplexity()));
        ControlFlow::Continue(())
    });
    bar.clear();
    let found = found.map_err(CliError::language)?;
    let seconds = started.elapsed().as_secs_f64();
    let speed = tokens.len() as f64 / seconds.max(1e-9);
    output.note(&format!("{seconds:.1} s, {speed:.0} tokens/s"));
    let bits = found.nats / std::f64::consts::LN_2 / text.len() as f64;
    output.result(
        || report(&found, bits),
        || {
            json!({
                "model": arguments.load.model, "file": arguments.file.display().to_string(),
                "bytes": text.len(), "tokens": tokens.len(), "scored": found.tokens, "window": window,
                "stride": stride, "nats": found.nats, "nats_per_token": found.mean(),
                "bits_per_byte": bits, "perplexity": found.perplexity(), "seconds": seconds,
                "tokens_per_second": speed,
            })
        },
    )
}

fn report(found: &Perplexity, bits: f64) -> String {
    format!(
        "perplexity {:.4} ({:.5} nats a token over {} tokens, {bits:.4} bits a byte)",
        found.perplexity(),
        found.mean(),
        found.tokens
    )
}
