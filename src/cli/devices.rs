//! `mobilis devices`: what programs can run on.

use super::{CliError, Output};
use mobilis_runtime::Device;
use mobilis_runtime::devices::found::{Found, Gpu, Kernels};
use serde_json::json;

/// Which device a command runs a model on.
#[derive(clap::Args, Debug)]
pub(super) struct DeviceArguments {
    /// Where the model runs: cpu, cuda (the first GPU), cuda:1, reference (f64, slow), emulated (the GPU's
    /// kernels on the CPU, slow). `mobilis devices` lists what is here.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
}

impl DeviceArguments {
    /// The device, which is here.
    pub(super) fn found(&self) -> Result<Device, CliError> {
        Ok(self.device.found()?)
    }
}

/// List the devices that programs can run on.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, output: &Output) -> Result<(), CliError> {
    let found = Found::look();
    output.result(|| text(&found), || object(&found))
}

fn text(found: &Found) -> String {
    let mut out = format!("cpu        {} threads, {}\n", found.threads, found.instructions);
    match &found.gpus {
        Ok(gpus) => gpus.iter().enumerate().for_each(|(n, gpu)| out += &gpu_text(n, gpu)),
        Err(reason) => out += &format!("cuda       none: {reason}\n"),
    }
    out += &match &found.emulator {
        Ok(compiler) => format!("emulated   by {compiler}\n"),
        Err(reason) => format!("emulated   none: {reason}\n"),
    };
    let reference = if found.reference { "f64, plain loops" } else { "not part of this build" };
    out += &format!("reference  {reference}\n");
    out += &match &found.nvrtc {
        Ok(version) => format!("\nNVRTC {version}\n"),
        Err(reason) => format!("\nNVRTC: {reason}\n"),
    };
    if !found.kernels.is_empty() {
        let width = found.kernels.iter().map(|k| k.file.len()).max().unwrap_or(0);
        out += &format!("\n{:width$}  kernels  code\n", "file");
        for Kernels { file, names, code } in &found.kernels {
            out += &format!("{file:width$}  {:7}  {}\n", names.len(), code.join(", "));
        }
    }
    out
}

fn gpu_text(n: usize, gpu: &Result<Gpu, String>) -> String {
    match gpu {
        Ok(gpu) => {
            let (major, minor, gib) =
                (gpu.capability / 10, gpu.capability % 10, gpu.memory as f64 / (1u64 << 30) as f64);
            format!(
                "cuda:{n}     {}, compute capability {major}.{minor}, {} multiprocessors, {gib:.1} GiB\n",
                gpu.name, gpu.multiprocessors
            )
        }
        Err(reason) => format!("cuda:{n}     {reason}\n"),
    }
}

fn object(found: &Found) -> serde_json::Value {
    let or_reason = |r: &Result<String, String>| match r {
        Ok(found) => json!({ "found": found }),
        Err(reason) => json!({ "found": null, "reason": reason }),
    };
    let gpu = |(n, gpu): (usize, &Result<Gpu, String>)| match gpu {
        Ok(gpu) => json!({
            "device": format!("cuda:{n}"), "name": gpu.name, "capability": gpu.capability,
            "multiprocessors": gpu.multiprocessors, "bytes": gpu.memory,
        }),
        Err(reason) => json!({ "device": format!("cuda:{n}"), "reason": reason }),
    };
    let cuda = match &found.gpus {
        Ok(gpus) => json!({ "devices": gpus.iter().enumerate().map(gpu).collect::<Vec<_>>() }),
        Err(reason) => json!({ "devices": [], "reason": reason }),
    };
    json!({
        "cpu": { "threads": found.threads, "instructions": found.instructions },
        "cuda": cuda,
        "emulated": or_reason(&found.emulator),
        "reference": found.reference,
        "nvrtc": or_reason(&found.nvrtc),
        "kernels": found.kernels.iter().map(|k| json!({ "file": k.file, "kernels": k.names, "code": k.code }))
            .collect::<Vec<_>>(),
    })
}
