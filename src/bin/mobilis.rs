//! The `mobilis` command. Everything is in [`mobilis::cli`].

fn main() -> std::process::ExitCode {
    mobilis::cli::main()
}
