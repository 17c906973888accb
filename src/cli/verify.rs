//! `mobilis verify`: a model against what the original code computed.

use super::devices::DeviceArguments;
use super::{CliError, Output};
use clap::Args;
use mobilis_zoo::verify::{Check, Report, verify};
use serde_json::json;
use std::path::PathBuf;

/// Hold a model against the outputs of its reference implementation.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Folders with a checkpoint and golden.safetensors.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// The name of the configuration.
    #[arg(long, default_value = "config.json")]
    config: String,
}

/// Verifies each folder; a failure is an error.
pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let device = arguments.device.found()?;
    let mut reports = vec![];
    for folder in &arguments.folders {
        let report = verify(folder, &arguments.config, device).map_err(|e| CliError::Verify(e.into()))?;
        if !output.json {
            output.result(|| text(&report), || json!(null))?;
        }
        reports.push(report);
    }
    if output.json {
        let object = |r: &Report| {
            json!({
                "folder": r.folder, "family": r.family, "parameters": r.parameters, "passed": r.passed(),
                "checks": r.checks.iter().map(line).collect::<Vec<_>>(),
            })
        };
        let all: Vec<_> = reports.iter().map(object).collect();
        let one = all.len() == 1;
        output.result(String::new, || if one { all[0].clone() } else { json!(all) })?;
    }
    let failed: usize = reports.iter().flat_map(|r| &r.checks).filter(|c| !c.passed).count();
    match failed {
        0 => Ok(()),
        n => Err(CliError::Failed(n)),
    }
}

fn line(c: &Check) -> serde_json::Value {
    json!({
        "name": c.name, "shape": c.sizes, "max_abs": c.absolute, "max_rel": c.relative,
        "tolerance": c.tolerance, "passed": c.passed, "note": c.note,
    })
}

fn text(report: &Report) -> String {
    let folder = report.folder.display();
    let mut out = format!("{folder}: {}, {} parameters\n", report.family, report.parameters);
    let width = report.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    out += &format!("  {:width$}  {:>9}  {:>9}  {:>9}  verdict\n", "output", "max abs", "relative", "tolerance");
    let number = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.1e}"));
    for c in &report.checks {
        let verdict = if c.passed { "ok" } else { "FAILED" };
        let note = if c.note.is_empty() { String::new() } else { format!("  ({})", c.note) };
        let (absolute, relative) = (number(c.absolute), number(c.relative));
        out += &format!("  {:width$}  {absolute:>9}  {relative:>9}  {:>9.1e}  {verdict}{note}\n", c.name, c.tolerance);
    }
    let passed = report.checks.iter().filter(|c| c.passed).count();
    out += &format!("  {passed} of {} outputs agree\n", report.checks.len());
    out
}
