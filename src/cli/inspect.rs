//! `mobilis inspect PLACE`.

use super::{CliError, Output};
use indicatif::{ProgressBar, ProgressStyle};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Checkpoint, Raw, TensorInfo};
use mobilis_runtime::graph::polynomial::{bytes, quantity};
use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::import::{OpenOptions, Weights, nemo};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A file (.safetensors, .gguf, .nemo, .bin, .pt, .pth), an index of several, the folder that holds either, or the id of
    /// a model on the Hugging Face Hub.
    place: String,
    /// Only tensors whose name contains this.
    #[arg(long, short, value_name = "TEXT")]
    filter: Option<String>,
    /// Count by module instead of listing tensors, down to so many parts of a name.
    #[arg(long, short, value_name = "DEPTH", num_args = 0..=1, default_missing_value = "2")]
    modules: Option<usize>,
    /// A GGUF file's tensors under its own names, not under Hugging Face's.
    #[arg(long)]
    stored_names: bool,
}

/// Tensors, and what a file says about itself.
struct Contents {
    tensors: Box<dyn Source>,
    files: Vec<(String, BTreeMap<String, String>)>,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let contents = open(arguments, output)?;
    let source = &*contents.tensors;
    let shown = |name: &str| arguments.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    let all = source.names();
    if let Some(filter) = &arguments.filter
        && !all.iter().any(|name| shown(name))
    {
        let message = format!("none of the {} tensors has `{filter}` in its name", all.len());
        return Err(CliError::Arguments(message));
    }
    let names = all.into_iter().filter(|name| shown(name));
    let mut rows: Vec<Row> = names.filter_map(|name| source.info(name).map(|info| (name, info))).collect();
    rows.sort_by_cached_key(|(name, _)| natural(name));
    match arguments.modules {
        Some(depth) => {
            let modules = modules(&rows, depth.max(1));
            output.result(|| module_table(&modules, &rows), || module_object(&modules))
        }
        None => output.result(|| table(&contents, &rows), || object(&contents, &rows)),
    }
}

fn open(arguments: &Arguments, output: &Output) -> Result<Contents, CliError> {
    let place = with_downloads(OpenOptions::new(), output).find(&arguments.place)?;
    match &place.weights {
        Weights::Safetensors(path) => {
            let checkpoint = Checkpoint::open(path)?;
            let files = checkpoint.parts().iter().map(|p| (p.path.display().to_string(), p.metadata.clone())).collect();
            Ok(Contents { tensors: Box::new(checkpoint), files })
        }
        Weights::Gguf(path) => {
            let gguf = Gguf::open(path)?;
            let metadata: BTreeMap<String, String> =
                gguf.metadata().0.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
            let mut files: Vec<_> = gguf.parts().iter().map(|p| (p.display().to_string(), BTreeMap::new())).collect();
            if let Some(first) = files.first_mut() {
                first.1 = metadata;
            }
            // A file of an architecture that is not known can be looked at all the same.
            let known = !arguments.stored_names && mobilis_zoo::import::gguf::names::architecture(&gguf).is_ok();
            let tensors: Box<dyn Source> = if known { place.tensors()? } else { Box::new(gguf) };
            Ok(Contents { tensors, files })
        }
        Weights::Nemo(path) => {
            let archive = nemo::open(path)?;
            let text = |key: &str| Some((key.to_string(), archive.config.get(key)?.as_str()?.to_string()));
            let mut notes: BTreeMap<String, String> = ["target", "nemo_version"].into_iter().filter_map(text).collect();
            notes.insert("artifacts".into(), archive.artifacts.names().join(", "));
            Ok(Contents { tensors: archive.tensors, files: vec![(path.display().to_string(), notes)] })
        }
        Weights::Torch(path) => {
            Ok(Contents { tensors: place.tensors()?, files: vec![(path.display().to_string(), BTreeMap::new())] })
        }
    }
}

/// Shows downloads as they proceed.
pub(super) fn with_downloads(options: OpenOptions, output: &Output) -> OpenOptions {
    if output.quiet || output.json {
        return options;
    }
    let current: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    options.on_progress(move |progress| {
        let Ok(mut current) = current.lock() else { return };
        if current.as_ref().is_none_or(|(file, _)| file != progress.file) {
            let bar = ProgressBar::new(progress.total);
            let template = "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(progress.file.to_string());
            *current = Some((progress.file.to_string(), bar));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(progress.done);
        }
    })
}

type Row<'a> = (&'a str, TensorInfo);

/// Sorts `layers.9` before `layers.10`: numbers by value, the rest as text.
fn natural(name: &str) -> Vec<(u64, &str)> {
    name.split('.').map(|part| part.parse().map_or((u64::MAX, part), |n| (n, ""))).collect()
}

fn totals(rows: &[Row]) -> (u64, u64) {
    rows.iter().fold((0, 0), |(n, b), (_, info)| (n + info.count() as u64, b + info.bytes()))
}

/// Lines of a table: all columns but the last to the left.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            let w = widths[c];
            // Writing to a string does not fail.
            let _ = match c + 1 == N {
                true => writeln!(out, "{cell:>w$}"),
                false => write!(out, "{cell:w$}  "),
            };
        }
    }
    out
}

fn table(contents: &Contents, rows: &[Row]) -> String {
    let mut lines = vec![["name", "shape", "dtype", "size"].map(String::from)];
    for (name, info) in rows {
        lines.push([name.to_string(), format!("{:?}", info.sizes), info.encoding.to_string(), bytes(info.bytes())]);
    }
    let mut out = aligned(&lines);
    let (values, total) = totals(rows);
    let _ = writeln!(out, "\n{} tensors, {} values, {}", rows.len(), quantity(values as f64), bytes(total));
    if contents.files.len() > 1 {
        let _ = writeln!(out, "in {} files", contents.files.len());
    }
    // Parts of one checkpoint repeat each other's notes.
    let mut notes: Vec<String> = contents.files.iter().flat_map(|f| &f.1).map(|(k, v)| format!("{k}: {v}")).collect();
    notes.sort();
    notes.dedup();
    notes.iter().for_each(|note| {
        let _ = writeln!(out, "{note}");
    });
    out
}

fn object(contents: &Contents, rows: &[Row]) -> Value {
    let (values, total) = totals(rows);
    let tensors: Vec<Value> = rows
        .iter()
        .map(|(name, info)| {
            let mut entry = json!({
                "name": name,
                "shape": info.sizes,
                "dtype": info.encoding.to_string(),
                "bytes": info.bytes(),
            });
            if let Ok(Raw::File { path, begin, len }) = contents.tensors.raw(name) {
                entry["file"] = path.display().to_string().into();
                entry["offsets"] = json!([begin, begin + len]);
            }
            entry
        })
        .collect();
    let files: Vec<Value> =
        contents.files.iter().map(|(path, metadata)| json!({ "path": path, "metadata": metadata })).collect();
    json!({ "files": files, "values": values, "bytes": total, "tensors": tensors })
}

/// Values and bytes by the first parts of names.
fn modules(rows: &[Row], depth: usize) -> Vec<(String, usize, u64, u64)> {
    let mut out: Vec<(String, usize, u64, u64)> = Vec::new();
    for (name, info) in rows {
        let parts: Vec<&str> = name.split('.').collect();
        // The last part is the tensor itself.
        let module = parts[..depth.min(parts.len().saturating_sub(1)).max(1)].join(".");
        match out.iter_mut().find(|m| m.0 == module) {
            Some(m) => (m.1, m.2, m.3) = (m.1 + 1, m.2 + info.count() as u64, m.3 + info.bytes()),
            None => out.push((module, 1, info.count() as u64, info.bytes())),
        }
    }
    out
}

fn module_table(modules: &[(String, usize, u64, u64)], rows: &[Row]) -> String {
    let mut lines = vec![["module", "tensors", "values", "size"].map(String::from)];
    for (name, tensors, values, size) in modules {
        lines.push([name.clone(), tensors.to_string(), quantity(*values as f64), bytes(*size)]);
    }
    let (values, total) = totals(rows);
    format!("{}\n{} tensors, {} values, {}\n", aligned(&lines), rows.len(), quantity(values as f64), bytes(total))
}

fn module_object(modules: &[(String, usize, u64, u64)]) -> Value {
    let entry = |(name, tensors, values, bytes): &(String, usize, u64, u64)| {
        (name.clone(), json!({ "tensors": tensors, "values": values, "bytes": bytes }))
    };
    json!({ "modules": modules.iter().map(entry).collect::<Map<String, Value>>() })
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
