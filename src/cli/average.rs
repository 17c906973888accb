//! `mobilis average MODELS.. --output FILE`.

use super::{CliError, Output};
use mobilis_runtime::graph::polynomial::bytes;
use mobilis_zoo::asr::train::kept;
use mobilis_zoo::export::{self, ExportOptions};
use mobilis_zoo::import::OpenOptions;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Checkpoints of one model, and where their mean goes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Checkpoints of one model (.nemo, .safetensors, .gguf, folders), or the folder of a run of `mobilis train`, whose
    /// kept models (`exp_manager.checkpoint_callback_params.save_top_k`) are meant.
    #[arg(required = true)]
    models: Vec<String>,
    /// Where to: FILE.nemo, FILE.safetensors, FILE.gguf, or a folder.
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// Of a run's kept models the best so many, not all.
    #[arg(long, value_name = "COUNT", conflicts_with = "last", value_parser = clap::value_parser!(u32).range(1..))]
    best: Option<u32>,
    /// Of a run's kept models the last so many, not all.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Write over what is there.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let target = &arguments.output;
    if target.exists() && !arguments.force {
        let message = format!("there is something at `{}`: `--force` writes over it", target.display());
        return Err(CliError::Arguments(message));
    }
    let mut places = vec![];
    for model in &arguments.models {
        let folder = Path::new(model);
        match folder.join("state.json").exists() {
            true => places.extend(of_run(folder, arguments)?),
            false if arguments.best.or(arguments.last).is_some() => {
                let message = format!("`{model}` is no run's folder, which `--best` and `--last` choose from");
                return Err(CliError::Arguments(message));
            }
            false => places.push(model.clone()),
        }
    }
    let options = super::inspect::with_downloads(OpenOptions::new(), output);
    let models = places.iter().map(|place| options.open(place)).collect::<Result<Vec<_>, _>>()?;
    let mean = export::average(models)?;
    let (tensors, size) = (mean.tensors.names().len(), super::convert::total(&*mean.tensors));
    let notes = export::export(&mean, target, &ExportOptions::default())?;
    notes.iter().for_each(|note| output.note(&format!("note: {note}")));
    output.result(
        || {
            let count = places.len();
            format!("wrote the mean of {count} models, {tensors} tensors, {}, to `{}`", bytes(size), target.display())
        },
        || json!({ "models": places, "target": target.display().to_string(), "tensors": tensors, "notes": notes }),
    )
}

/// The models of a run that are asked for.
fn of_run(folder: &Path, arguments: &Arguments) -> Result<Vec<String>, CliError> {
    let mut found = kept(folder).map_err(|e| CliError::Train(Box::new(e)))?;
    let count = arguments.best.or(arguments.last).map_or(found.len(), |n| n as usize);
    if found.is_empty() || found.len() < count {
        let message = format!(
            "the run in `{}` has kept {} models beside its best: set `exp_manager.checkpoint_callback_params.save_top_k`",
            folder.display(),
            found.len()
        );
        return Err(CliError::Arguments(message));
    }
    if arguments.last.is_some() {
        found.sort_by_key(|(_, step)| std::cmp::Reverse(*step));
    }
    Ok(found.into_iter().take(count).map(|(path, _)| path.display().to_string()).collect())
}
