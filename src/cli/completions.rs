//! `mobilis completions SHELL`.

use super::{Cli, CliError, Output};
use clap::CommandFactory;
use clap_complete::Shell;

/// The shell, and what to do with the script, in the command's help.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The shell; for bash put `source <(mobilis completions bash)` into ~/.bashrc.
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let mut script = vec![];
    clap_complete::generate(arguments.shell, &mut Cli::command(), "mobilis", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    output.result(|| script.clone(), || serde_json::json!({ "shell": arguments.shell.to_string(), "script": script }))
}
