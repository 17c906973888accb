//! `mobilis profile NAME`.

use super::graph::{model_named, size};
use super::{CliError, Output};
use crate::gallery::Drawable;
use mobilis_runtime::Device;
use mobilis_runtime::graph::print::{run_time_axes, sizes_by_name};
use mobilis_runtime::graph::{DType, Graph, Sizes, VarDecl};
use mobilis_runtime::module::init::Key;
use mobilis_runtime::module::store::{Data, Entry, Store};
use mobilis_runtime::program::Executable;
use mobilis_runtime::program::host::{HostRef, HostSlice};
use mobilis_runtime::program::profile::Profile;
use mobilis_runtime::train::{AdamW, TrainOptions, build_step};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Which model: `mobilis graph` lists them.
    name: String,
    /// Measure a training step: forward, backward, AdamW.
    #[arg(long)]
    train: bool,
    /// How many runs are measured; times are medians.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Sizes of run-time axes; others are 8 for Batch and 128.
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "AXIS=SIZE,..")]
    sizes: Vec<(String, usize)>,
    /// Write the roofline picture to a file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a trace of the last run for <https://ui.perfetto.dev> or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// The size of a run-time axis that was not given.
fn usual(axis: &str) -> usize {
    if axis == "Batch" { 8 } else { 128 }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let model = model_named(&arguments.name)?;
    let graph = traced(model, arguments.train)?;
    let mut sizes = sizes_by_name(&graph, &arguments.sizes).map_err(CliError::Arguments)?;
    let mut named = vec![];
    for axis in run_time_axes(&graph) {
        if sizes.get(axis).is_none() {
            sizes.set(axis, usual(axis.name));
        }
        let text = format!("{}={}", axis.name, sizes.get(axis).unwrap_or_default());
        if !named.contains(&text) {
            named.push(text);
        }
    }
    let with = if named.is_empty() { String::new() } else { format!(", {}", named.join(", ")) };
    let title = format!("{}{}{with}", model.name, if arguments.train { ", training" } else { "" });
    output.note(&format!("profiling {title}"));
    let profile = measure(graph, &sizes, arguments.runs as usize)
        .map_err(|source| CliError::Profile { model: model.name, source })?;
    for (path, content) in [
        (&arguments.svg, (|p, t| Profile::to_svg(p, t)) as fn(&Profile, &str) -> String),
        (&arguments.trace, |p, _| p.to_trace()),
    ] {
        if let Some(path) = path {
            let text = content(&profile, &title);
            std::fs::write(path, text).map_err(|source| CliError::Write { path: path.clone(), source })?;
            output.note(&format!("wrote {}", path.display()));
        }
    }
    output.result(
        || profile.to_text(),
        || {
            let object = serde_json::from_str(&profile.to_json());
            let mut object: serde_json::Value = object.unwrap_or_default();
            object["name"] = model.name.into();
            object["sizes"] = named.into();
            object["training"] = arguments.train.into();
            object
        },
    )
}

fn traced(model: &'static Drawable, train: bool) -> Result<Graph, CliError> {
    let failed = |source| CliError::Trace { model: model.name, source };
    if !train {
        return (model.forward)().map_err(failed);
    }
    let Some(training) = model.training else {
        let message = format!("`{}` has no loss: profile it without --train", model.name);
        return Err(CliError::Arguments(message));
    };
    let mut graph = training().map_err(failed)?;
    // The step takes its own gradients; those for drawings are not needed.
    graph.taps.clear();
    let step = build_step(graph, &AdamW::new(1e-3), &TrainOptions::default());
    Ok(step.map_err(|e| failed(e.into()))?.update)
}

/// Measures a graph on made-up values: parameters as they are initialised, numbers that are no
/// round ones, indices that exist everywhere.
fn measure(graph: Graph, sizes: &Sizes, runs: usize) -> Result<Profile, Box<dyn std::error::Error>> {
    let store = Store::new();
    for VarDecl { id, name, ty, init, .. } in &graph.vars {
        let shape = ty.sizes(sizes)?;
        let data = match ty.dtype {
            DType::F32 => Data::F32(init.fill(&shape, Key::new(0, name))),
            other => Data::zeros(other, shape.iter().product()),
        };
        store.lock().insert(*id, Entry::new(name.clone(), &shape, data));
    }
    enum Values {
        F32(Vec<f32>),
        I32(Vec<i32>),
        Bool(Vec<bool>),
    }
    let mut inputs: Vec<(Vec<usize>, Values)> = vec![];
    for input in &graph.inputs {
        let shape = input.ty.sizes(sizes)?;
        let count: usize = shape.iter().product();
        let values = match input.ty.dtype {
            // A scalar is a learning rate: small.
            DType::F32 if shape.is_empty() => Values::F32(vec![1e-3]),
            DType::F32 => Values::F32((0..count).map(|i| (i as f32 * 0.7).sin()).collect()),
            DType::I32 => {
                // Lengths count an axis and are as long as it; the index 0 is in every table.
                let counted = input.element.split_once('<').map(|(_, axis)| axis.trim_end_matches('>'));
                let axes = run_time_axes(&graph);
                let length = axes.iter().find(|a| Some(a.name) == counted).and_then(|a| sizes.get(*a));
                Values::I32(vec![length.unwrap_or(0) as i32; count])
            }
            DType::Bool => Values::Bool(vec![true; count]),
        };
        inputs.push((shape, values));
    }
    let program = Executable::new(graph, Device::Cpu, store, sizes.clone());
    let inputs: Vec<HostRef> = inputs
        .iter()
        .map(|(sizes, values)| HostRef {
            sizes,
            values: match values {
                Values::F32(v) => HostSlice::F32(v),
                Values::I32(v) => HostSlice::I32(v),
                Values::Bool(v) => HostSlice::Bool(v),
            },
        })
        .collect();
    Ok(program.profile(&inputs, runs)?)
}
