//! `mobilis convert SRC DST`.

use super::{CliError, Output};
use indicatif::{ProgressBar, ProgressStyle};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Raw, TensorInfo};
use mobilis_runtime::graph::polynomial::bytes;
use mobilis_zoo::export::{self, ExportOptions, Precision};
use mobilis_zoo::import::OpenOptions;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A folder, a file (.safetensors, .gguf, .nemo, .bin, .pt, .pth), or the id of a model on the Hugging Face Hub.
    source: String,
    /// Where to: FILE.gguf, FILE.safetensors, FILE.nemo (of a model of NeMo's), or a folder that `transformers` loads.
    target: PathBuf,
    /// How real numbers are stored; q8_0 and q4_0 in GGUF files alone.
    #[arg(long, value_enum, default_value_t = Dtype::Keep)]
    dtype: Dtype,
    /// The most that one part of a folder's weights takes: `5GB`, `500MB`.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// Another name for the configuration in the source's folder.
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Write over what is there.
    #[arg(long)]
    force: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Dtype {
    Keep,
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

impl Dtype {
    fn precision(self) -> Precision {
        match self {
            Dtype::Keep => Precision::Keep,
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            Dtype::Bf16 => Precision::BF16,
            Dtype::Q8_0 => Precision::Q8_0,
            Dtype::Q4_0 => Precision::Q4_0,
        }
    }
}

/// Bytes with a unit of a thousand each, as Hugging Face's library counts.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: a number with B, KB, MB, GB or TB is expected, such as 500MB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" | "K" => 1_000,
        "MB" | "M" => 1_000_000,
        "GB" | "G" => 1_000_000_000,
        "TB" | "T" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|n| *n > 0).ok_or_else(wrong)
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let target = &arguments.target;
    let taken = if target.is_dir() { target.join("config.json").exists() } else { target.exists() };
    if taken && !arguments.force {
        let message = format!("there is a model at `{}`: `--force` writes over it", target.display());
        return Err(CliError::Arguments(message));
    }
    let mut options = OpenOptions::new();
    if let Some(config) = &arguments.config {
        options = options.config(config);
    }
    let mut model = super::inspect::with_downloads(options, output).open(&arguments.source)?;
    let total = total(&*model.tensors);
    let bar = progress(total, output);
    let told = bar.clone();
    let counted = Counted { inner: model.tensors, bar: told };
    model.tensors = Box::new(counted);
    let settings = ExportOptions { precision: arguments.dtype.precision(), shard_bytes: arguments.shard_size };
    let notes = export::export(&model, target, &settings)?;
    bar.finish_and_clear();
    notes.iter().for_each(|note| output.note(&format!("note: {note}")));
    let written = written(target);
    let count = model.tensors.names().len();
    output.result(
        || format!("wrote {count} tensors, {} (from {}), to `{}`", bytes(written), bytes(total), target.display()),
        || {
            json!({
                "source": arguments.source,
                "target": target.display().to_string(),
                "tensors": count,
                "source_bytes": total,
                "bytes": written,
                "notes": notes,
            })
        },
    )
}

/// Bytes of all tensors.
pub(super) fn total(source: &dyn Source) -> u64 {
    source.names().into_iter().filter_map(|n| source.info(n)).map(|i| i.bytes()).sum()
}

/// Bytes of the files with weights.
fn written(target: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    if !target.is_dir() {
        return size(target);
    }
    let files = std::fs::read_dir(target).into_iter().flatten().flatten();
    files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "safetensors")).map(|p| size(&p)).sum()
}

fn progress(total: u64, output: &Output) -> ProgressBar {
    if output.quiet || output.json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

/// A source that tells how much of it was asked for.
#[derive(Debug)]
struct Counted {
    inner: Box<dyn Source>,
    bar: ProgressBar,
}

impl Source for Counted {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn names(&self) -> Vec<&str> {
        self.inner.names()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.inner.info(name)
    }
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        let raw = self.inner.raw(name)?;
        self.bar.inc(raw.len());
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("500mb"), Ok(500_000_000));
        assert_eq!(size("12"), Ok(12));
        for wrong in ["", "GB", "-1GB", "1.5GB", "5XB", "0", "99999999999999999999", "99999999999TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
