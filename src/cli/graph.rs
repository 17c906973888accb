//! `mobilis graph NAME`.

use super::{CliError, Output};
use crate::gallery::{self, Drawable};
use mobilis_runtime::graph::print::{Format, Options, costs, print, sizes_by_name};
use mobilis_runtime::graph::{Graph, Polynomial};
use mobilis_runtime::suggest::did_you_mean;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Which model; without a name, all are listed.
    name: Option<String>,
    /// text, mermaid or html; by default what the file's ending says, else text.
    #[arg(long, short, value_parser = clap::builder::PossibleValuesParser::new(Format::NAMES))]
    format: Option<String>,
    /// Write the drawing to a file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw training: the forward pass in training mode and the gradients of the loss.
    #[arg(long)]
    train: bool,
    /// Sizes of run-time axes, which turn costs into numbers: Batch=8,Time=128
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "AXIS=SIZE,..")]
    sizes: Vec<(String, usize)>,
    /// How many levels of modules are opened.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
}

/// `Batch=8`
pub(super) fn size(text: &str) -> Result<(String, usize), String> {
    let (axis, size) = text.split_once('=').ok_or("expected AXIS=SIZE, for instance Batch=8")?;
    let size = size.trim().replace('_', "");
    let size = size.parse().map_err(|_| format!("`{size}` is not a size: expected a whole number"))?;
    Ok((axis.trim().to_string(), size))
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let Some(name) = &arguments.name else { return list(output) };
    let model = model_named(name)?;
    let trace = match (arguments.train, model.training) {
        (false, _) => model.forward,
        (true, Some(training)) => training,
        (true, None) => return Err(CliError::Arguments(format!("`{name}` has no loss: draw it without --train"))),
    };
    let graph = trace().map_err(|source| CliError::Trace { model: model.name, source })?;
    let sizes = sizes_by_name(&graph, &arguments.sizes).map_err(CliError::Arguments)?;
    let title = if arguments.train { format!("{}, training", model.name) } else { model.name.to_string() };
    let options = Options { title, sizes, depth: arguments.depth };
    let drawing = print(&graph, format(arguments), &options);
    if let Some(path) = &arguments.output {
        std::fs::write(path, &drawing).map_err(|source| CliError::Write { path: path.clone(), source })?;
        output.note(&format!("wrote {}", path.display()));
        return if output.json {
            output.result(String::new, || summary(model, &graph, &options, Value::Null))
        } else {
            Ok(())
        };
    }
    output.result(|| drawing.clone(), || summary(model, &graph, &options, json!(drawing)))
}

/// A model of the gallery.
pub(super) fn model_named(name: &str) -> Result<&'static Drawable, CliError> {
    gallery::find(name).ok_or_else(|| {
        let hint = did_you_mean(name, gallery::ALL.iter().map(|d| d.name));
        CliError::UnknownModel { name: name.into(), hint }
    })
}

fn format(arguments: &Arguments) -> Format {
    let ending = arguments.output.as_ref().and_then(|p| p.extension()).and_then(|e| e.to_str());
    match (&arguments.format, ending) {
        // The parser admits nothing but known names.
        (Some(name), _) => name.parse().unwrap_or_default(),
        (None, Some("html" | "htm")) => Format::Html,
        (None, Some("mmd" | "mermaid")) => Format::Mermaid,
        _ => Format::Text,
    }
}

fn list(output: &Output) -> Result<(), CliError> {
    let width = gallery::ALL.iter().map(|d| d.name.len()).max().unwrap_or(0);
    let text = || gallery::ALL.iter().map(|d| format!("{:width$}  {}\n", d.name, d.about)).collect();
    let object = || {
        let models = gallery::ALL.iter().map(|d| json!({ "name": d.name, "about": d.about }));
        json!({ "models": models.collect::<Vec<_>>() })
    };
    output.result(text, object)
}

/// The drawing and the costs; a cost that depends on sizes not given is a sum over axes, as text.
fn summary(model: &Drawable, graph: &Graph, options: &Options, drawing: Value) -> Value {
    let number = |n: &Polynomial| match n.as_constant().and_then(|n| u64::try_from(n).ok()) {
        Some(n) => json!(n),
        None => json!(n.to_string()),
    };
    let costs = costs::costs(graph, &options.sizes);
    let modules = graph.scopes.iter().zip(&costs).map(|(scope, cost)| {
        json!({
            "path": scope.path,
            "type": scope.kind,
            "params": number(&cost.params),
            "flops": number(&cost.flops),
            "bytes": number(&cost.bytes),
        })
    });
    json!({
        "name": model.name,
        "about": model.about,
        "nodes": graph.nodes.len(),
        "operations": costs[0].operations,
        "modules": modules.collect::<Vec<_>>(),
        "drawing": drawing,
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_strictly() {
        assert_eq!(size("Batch=8"), Ok(("Batch".into(), 8)));
        assert_eq!(size("Time = 1_024"), Ok(("Time".into(), 1024)));
        for wrong in ["Batch", "Batch=", "Batch=-1", "Batch=eight", "Batch=1.5"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
