//! `mobilis inspect FILE`.

use super::{CliError, Output};
use mobilis_runtime::checkpoint::{Checkpoint, Stored};
use mobilis_runtime::graph::polynomial::{bytes, quantity};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A safetensors file, an index of several (model.safetensors.index.json), or the folder that
    /// holds either.
    path: PathBuf,
    /// Only tensors whose name contains this.
    #[arg(long, short, value_name = "TEXT")]
    filter: Option<String>,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let checkpoint = Checkpoint::open(&arguments.path)?;
    let shown = |name: &str| arguments.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    if let Some(filter) = &arguments.filter
        && !checkpoint.tensors().any(|(name, _)| shown(name))
    {
        let message = format!("none of the {} tensors has `{filter}` in its name", checkpoint.tensors().len());
        return Err(CliError::Arguments(message));
    }
    let mut tensors: Vec<Row> = checkpoint.tensors().filter(|(name, _)| shown(name)).collect();
    tensors.sort_by_cached_key(|(name, _)| natural(name));
    output.result(|| table(&checkpoint, &tensors), || object(&checkpoint, &tensors))
}

type Row<'a> = (&'a str, &'a Stored);

/// Sorts `layers.9` before `layers.10`: numbers by value, the rest as text.
fn natural(name: &str) -> Vec<(u64, &str)> {
    name.split('.').map(|part| part.parse().map_or((u64::MAX, part), |n| (n, ""))).collect()
}

fn table(checkpoint: &Checkpoint, tensors: &[Row]) -> String {
    let mut rows = vec![["name", "shape", "dtype", "size"].map(String::from)];
    let (mut values, mut total) = (0, 0);
    for (name, stored) in tensors {
        values += stored.count() as u64;
        total += stored.bytes();
        rows.push([
            name.to_string(),
            format!("{:?}", stored.sizes),
            stored.encoding.to_string(),
            bytes(stored.bytes()),
        ]);
    }
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let [a, b, c, d] = [width(0), width(1), width(2), width(3)];
    let mut out = String::new();
    for [name, shape, dtype, size] in &rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:a$}  {shape:b$}  {dtype:c$}  {size:>d$}");
    }
    let parts = checkpoint.parts();
    let _ = writeln!(out, "\n{} tensors, {} values, {}", rows.len() - 1, quantity(values as f64), bytes(total));
    if parts.len() > 1 {
        let _ = writeln!(out, "in {} files", parts.len());
    }
    // Parts of one checkpoint repeat each other's notes.
    let mut notes: Vec<String> = parts.iter().flat_map(|p| &p.metadata).map(|(k, v)| format!("{k}: {v}")).collect();
    notes.sort();
    notes.dedup();
    notes.iter().for_each(|note| {
        let _ = writeln!(out, "{note}");
    });
    out
}

fn object(checkpoint: &Checkpoint, tensors: &[Row]) -> Value {
    let parts = checkpoint.parts();
    let values: u64 = tensors.iter().map(|(_, s)| s.count() as u64).sum();
    let bytes: u64 = tensors.iter().map(|(_, s)| s.bytes()).sum();
    let tensors = tensors.iter().map(|(name, stored)| {
        json!({
            "name": name,
            "shape": stored.sizes,
            "dtype": stored.encoding.to_string(),
            "bytes": stored.bytes(),
            "offsets": [stored.begin, stored.end],
            "file": parts[stored.part].path.display().to_string(),
        })
    });
    let tensors: Vec<Value> = tensors.collect();
    let files: Vec<Value> =
        parts.iter().map(|p| json!({ "path": p.path.display().to_string(), "metadata": p.metadata })).collect();
    json!({ "files": files, "values": values, "bytes": bytes, "tensors": tensors })
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_sort_by_value() {
        let mut names = ["h.10.w", "head", "h.9.w", "h.9.b", "embed"];
        names.sort_by_cached_key(|n| super::natural(n));
        assert_eq!(names, ["embed", "h.9.b", "h.9.w", "h.10.w", "head"]);
    }
}
