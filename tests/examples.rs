//! Every example runs and prints what its comments promise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What an example prints.
fn run(name: &str) -> String {
    run_with(name, &[])
}

/// What an example prints when it is given arguments.
fn run_with(name: &str, arguments: &[&str]) -> String {
    let example = built().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let out = Command::new(example).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let out = out.expect("the example starts");
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

/// The folder of the examples, which are up to date. Built for the whole workspace, as `cargo test --workspace` has
/// done already: for this package alone all crates would be compiled anew, with other features.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("this test has a place");
        // target/debug/deps/examples-0123
        let profile = test.ancestors().nth(2).expect("a folder of the profile");
        let target = profile.parent().expect("a target folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--workspace", "--examples", "--target-dir"]).arg(target);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let out = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        profile.join("examples")
    })
}

/// The number after `before` in `text`.
fn number(text: &str, before: &str) -> f64 {
    let start = text.rfind(before).unwrap_or_else(|| panic!("no `{before}` in\n{text}")) + before.len();
    let rest = text[start..].trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-.e".contains(c))).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number after `{before}` in\n{text}"))
}

#[test]
fn axes() {
    let text = run("01-axes");
    assert!(text.contains("one second of audio has 101 frames"), "{text}");
    assert!(text.contains("[2, 101, 64] in, [2, 4, 101, 16] out"), "{text}");
    assert!(text.contains("error: axis `Hidden`"), "{text}");
}

#[test]
fn module() {
    let text = run("02-module");
    // 784 * 128 + 128 + 128 * 10 + 10
    assert!(text.contains("Pixels") && text.contains("101,770"), "{text}");
    assert_eq!(text.matches("which sums to 1.000").count(), 2, "{text}");
}

#[test]
fn gradients_and_a_fit() {
    let text = run("03-gradients-and-a-fit");
    assert!(number(&text, "differs from cos(x) by") < 1e-6, "{text}");
    assert!(number(&text, "the fitted curve is within") < 0.1, "{text}");
}

#[test]
fn einsum_and_rearrange() {
    let text = run("04-einsum-and-rearrange");
    assert!(text.contains("attention: [0.000, 1.000, 2.000, 3.000, 4.000, 5.000, 6.000, 7.000]"), "{text}");
    assert!(text.contains("peak: [7.000, 7.000, 7.000]"), "{text}");
}

#[test]
fn runtime_axes_from_a_file() {
    let text = run("05-runtime-axes-from-a-file");
    let values = |line: &str| text.lines().find_map(|l| l.strip_prefix(line)).map(|l| l.trim().to_string());
    assert_eq!(values("known to the compiler:").expect("a line"), values("read from the file:").expect("a line"));
    assert!(text.contains("`Hidden` is 9, not 8"), "{text}");
}

#[test]
fn lstm() {
    let text = run("06-lstm");
    assert!(number(&text, "of up to 12 symbols, the first is remembered in") > 95.0, "{text}");
}

#[test]
fn convolutional_classifier() {
    let text = run("07-convolutional-classifier");
    let line = text.lines().last().expect("a last line");
    let share: f64 = line.split(' ').next().expect("a word").parse().expect("a number");
    assert!(share > 93.0, "{text}");
}

/// A few seconds bring the loss well below the 5.55 nats of even odds, however busy the machine;
/// the whole minute goes below 1.5.
#[test]
fn language_model() {
    let text = run_with("08-language-model", &["15"]);
    assert!(number(&text, "which it did not:") < 4.5, "{text}");
    let written = text.split_once("---\n").expect("a text").1;
    assert!(written.starts_with("Call me Ishmael.") && written.len() > 300, "{text}");
}

/// A few steps of all precisions: scales keep FP8 beside bf16, and without them it falls behind.
#[test]
fn fp8_recipes() {
    let text = run_with("10-fp8-recipes", &["40"]);
    assert!(number(&text, "with scales every loss is within") < 1.0, "{text}");
    assert!(number(&text, "without them, E4M3 is worse by") > 2.0, "{text}");
}

/// What is new learns; what was loaded is left alone.
#[test]
fn llama_with_another_mlp() {
    let text = run("09-llama-with-another-mlp");
    assert!(number(&text, "after 60 steps") < 0.5 * number(&text, "\nloss"), "{text}");
    assert!(text.contains("12610 of 20962 parameters are trained"), "{text}");
}

#[test]
fn pipeline() {
    let text = run("11-pipeline");
    assert!(text.contains("heard: badge"), "{text}");
    assert!(text.contains("together: a headache bed facade"), "{text}");
    assert!(text.contains("the same bits as alone: true"), "{text}");
    assert!(number(&text, "step 300: loss") < 3.0, "{text}");
    assert!(text.contains("200 of 200 in a stream are right"), "{text}");
    assert!(text.contains("listen(speak) = heard.text: String, heard.scores:"), "{text}");
    assert!(text.contains("said DEAF quietly, heard deaf"), "{text}");
}

/// The short form: half the sayings, seven epochs. Five give 81 %, the long form 100 %.
#[test]
fn spoken_commands() {
    let folder = std::env::temp_dir().join(format!("mobilis-spoken-commands-{}", std::process::id()));
    let text = run_with("12-spoken-commands", &["--short", &folder.display().to_string()]);
    let _ = std::fs::remove_dir_all(&folder);
    if text.starts_with("skipped") {
        println!("{text}");
        return;
    }
    let line = text.lines().last().expect("a last line");
    let share: f64 = line.split(' ').next().expect("a word").parse().expect("a number");
    assert!(share > 70.0, "{text}");
}
