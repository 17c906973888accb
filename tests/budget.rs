//! What depending on Mobilis costs at build time.
//!
//! The number of crates is counted in every run of the tests. The builds are measured where
//! `MOBILIS_BUDGET` is set, on a machine that does little else: `tests/budget.sh`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Crates in the build of a program that uses the language and the CPU, itself included.
const CRATES: usize = 60;
/// CPU seconds of its first build without optimisation.
const CLEAN: f64 = 24.0;
/// Seconds until it is built again after a change in its own file.
const AGAIN: f64 = 0.7;
/// How much longer a model of 48 distinct widths may build than one of 48 equal widths.
const WIDTHS: f64 = 2.0;

const HELLO: &str = r#"
use mobilis::prelude::*;

axes! { pub Batch; pub Inputs = 3; pub Outputs = 2; }

#[neural_module]
struct Hello {
    weight: Param![Outputs, Inputs],
}

#[neural_module]
impl Hello {
    pub fn forward(&self, x: Tensor![Batch, Inputs]) -> Tensor![Batch, Outputs] {
        einsum!(x[b i] * self.weight.get()[o i] => [b o])
    }
}

fn main() {
    println!("hello from a {}", Hello::default().kind());
}
"#;

/// A crate of its own that depends on this repository, with a build folder of its own.
struct Project {
    folder: PathBuf,
}

impl Project {
    fn new(name: &str, main: &str) -> Project {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("budget").join(name);
        let root = env!("CARGO_MANIFEST_DIR");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\nmobilis = {{ path = {root:?}, default-features = false }}\n\
             [workspace]\n"
        );
        std::fs::create_dir_all(folder.join("src")).expect("a folder for the project");
        std::fs::write(folder.join("Cargo.toml"), manifest).expect("its manifest");
        std::fs::write(folder.join("src/main.rs"), main).expect("its source");
        // The versions that this repository was tested with, and no look at the network.
        std::fs::copy(Path::new(root).join("Cargo.lock"), folder.join("Cargo.lock")).expect("its lock file");
        Project { folder }
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).arg("--offline").current_dir(&self.folder);
        cargo.env("CARGO_TARGET_DIR", self.target()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo
    }

    fn target(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("budget/target")
    }

    /// Builds and returns the seconds on the clock and of the processors.
    fn build(&self) -> (f64, f64) {
        self.build_with("1")
    }

    fn build_with(&self, incremental: &str) -> (f64, f64) {
        let (start, cpu) = (Instant::now(), children_cpu());
        let mut cargo = self.cargo(&["build", "--quiet"]);
        let out = cargo.env("CARGO_INCREMENTAL", incremental).output().expect("cargo starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        (start.elapsed().as_secs_f64(), children_cpu() - cpu)
    }

    /// The shortest of several builds after a change in the project's own file, with what cargo
    /// keeps of the last build (`incremental` is "1") or without.
    fn rebuild(&self, times: usize, incremental: &str) -> f64 {
        let main = self.folder.join("src/main.rs");
        let mut source = std::fs::read_to_string(&main).expect("its source");
        let mut best = f64::INFINITY;
        for i in 0..times {
            writeln!(source, "// change {i}").expect("text grows");
            std::fs::write(&main, &source).expect("its source");
            best = best.min(self.build_with(incremental).0);
        }
        best
    }
}

/// CPU seconds of all child processes that have ended (proc(5), fields 16 and 17 of `stat`).
fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name in parentheses may hold spaces; the fields after it are counted from 3.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks: f64 = fields[13..15].iter().map(|t| t.parse::<f64>().expect("a number")).sum();
    // The kernel reports in hundredths of a second to every program.
    ticks / 100.0
}

fn measured() -> bool {
    let on = std::env::var_os("MOBILIS_BUDGET").is_some() && cfg!(target_os = "linux");
    if !on {
        println!("not measured: set MOBILIS_BUDGET, or run tests/budget.sh");
    }
    on
}

#[test]
fn few_crates() {
    let arguments = ["tree", "--package", "mobilis", "--no-default-features", "--edges", "normal,build"];
    let out = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--prefix", "none", "--no-dedupe", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    let mut crates: Vec<&str> = text.lines().map(|l| l.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    crates.sort();
    crates.dedup();
    println!("{} crates", crates.len());
    assert!(crates.len() < CRATES, "{} crates:\n{}", crates.len(), crates.join("\n"));
}

#[test]
fn a_first_build_and_the_next() {
    if !measured() {
        return;
    }
    let project = Project::new("hello", HELLO);
    let _ = std::fs::remove_dir_all(project.target());
    let (wall, cpu) = project.build();
    let again = project.rebuild(5, "1");
    println!("hello world: {cpu:.1} CPU s from clean ({wall:.1} s on the clock), {again:.2} s after a change");
    assert!(cpu < CLEAN, "{cpu:.1} CPU seconds, the budget is {CLEAN}");
    assert!(again < AGAIN, "{again:.2} seconds, the budget is {AGAIN}");
}

/// A model of 48 layers whose widths are `width(0)` to `width(48)`.
fn tower(width: impl Fn(usize) -> usize) -> String {
    let mut source = String::from("use mobilis::prelude::*;\naxes! { pub Batch;\n");
    for i in 0..=48 {
        writeln!(source, "pub W{i} = {};", width(i)).expect("text grows");
    }
    source += "}\n#[neural_module]\npub struct Layer<I: Axis, O: Axis> { weight: Param![O, I], bias: Param![O] }\n\
        #[neural_module]\nimpl<I: Axis, O: Axis> Layer<I, O> {\n\
        pub fn forward(&self, x: Tensor![Batch, I]) -> Tensor![Batch, O] {\n\
        einsum!(x[b i] * self.weight.get()[o i] => [b o]) + self.bias.get()\n}\n}\n\
        #[neural_module]\npub struct Tower {\n";
    // Equal widths are one axis, so that all layers are one type.
    let name = |i: usize| if width(0) == width(1) { 0 } else { i };
    for i in 0..48 {
        writeln!(source, "layer{i}: Layer<W{}, W{}>,", name(i), name(i + 1)).expect("text grows");
    }
    writeln!(
        source,
        "}}\n#[neural_module]\nimpl Tower {{\npub fn forward(&self, x: Tensor![Batch, W0]) -> Tensor![Batch, W{}] {{",
        name(48)
    )
    .expect("text grows");
    for i in 0..48 {
        writeln!(source, "let x = self.layer{i}.forward(x);").expect("text grows");
    }
    source
        + "x\n}\n}\nfn main() {\nlet tower = Tower::default();\n\
        let traced = mobilis::graph::trace::trace(Some(&tower), mobilis::graph::trace::Mode::Eval, &|_| false, || {\n\
        let ty = <Tensor![Batch, W0]>::type_of();\n\
        let x = mobilis::graph::trace::input(\"x\".into(), ty, \"Real\");\n\
        mobilis::graph::trace::output(tower.forward(Tensor::from_raw(x)).raw());\n\
        });\n\
        println!(\"{}\", traced.expect(\"a tower\").0.nodes.len());\n}\n"
}

#[test]
fn distinct_widths_build_like_equal_ones() {
    if !measured() {
        return;
    }
    let (equal, distinct) = (Project::new("equal", &tower(|_| 64)), Project::new("distinct", &tower(|i| 64 + i)));
    equal.build();
    distinct.build();
    let (equal, distinct) = (equal.rebuild(3, "0"), distinct.rebuild(3, "0"));
    let ratio = distinct / equal;
    println!("48 layers: {equal:.2} s of equal widths, {distinct:.2} s of distinct widths, ratio {ratio:.2}");
    assert!(ratio < WIDTHS, "{ratio:.2} times as long, the budget is {WIDTHS}");
}
