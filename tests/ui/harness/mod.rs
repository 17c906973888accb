//! Runs the compiler on a folder of programs, two at a time.

mod normalize;
mod process;

use normalize::normalize;
use process::{Limits, Outcome, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use std::{env, fs};

/// The compiler whose words are pinned.
const PINNED: &str = "rustc 1.95.";
const LIMITS: Limits = Limits { time: Duration::from_secs(10), memory: 1_500_000_000 };
/// Compilers at once, over all tests of this binary.
const PARALLEL: usize = 2;

/// What a program must do.
#[derive(Clone, Copy, PartialEq)]
pub enum Expect {
    Success,
    Failure,
}

/// Compiles every program of a folder.
///
/// # Panics
/// When one does not do as expected, or when there are fewer than `at_least`.
pub fn check(folder: &str, expect: Expect, at_least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = env::var("MOBILIS_UI").unwrap_or_default();
    let mut files: Vec<PathBuf> = fs::read_dir(root.join(folder))
        .unwrap_or_else(|e| panic!("cannot list {folder}: {e}"))
        .map(|entry| entry.unwrap_or_else(|e| panic!("cannot list {folder}: {e}")).path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| Path::new(folder).join(path.file_name().expect("an entry of a folder has a name")))
        .collect();
    assert!(files.len() >= at_least, "{folder} holds {} programs, not {at_least}", files.len());
    files.retain(|path| path.to_string_lossy().contains(&wanted));
    files.sort();
    let compiler = Compiler::find(root, folder);
    let queue = Mutex::new(files.iter());
    let failures = Mutex::new(Vec::new());
    let slowest = Mutex::new((Duration::ZERO, 0, PathBuf::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(file) = queue.lock().expect("no worker panics").next() else { return };
                    let slot = Slot::take();
                    let outcome = compiler.compile(file);
                    drop(slot);
                    let mut slowest = slowest.lock().expect("no worker panics");
                    if outcome.time > slowest.0 {
                        *slowest = (outcome.time, outcome.memory, file.clone());
                    }
                    if let Err(why) = compiler.judge(file, expect, &outcome) {
                        failures.lock().expect("no worker panics").push(format!("---- {}\n{why}", file.display()));
                    }
                }
            });
        }
    });
    let slowest = slowest.into_inner().expect("no worker panics");
    println!(
        "{folder}: {} programs; the slowest, {}, took {:.2} s and {} MB",
        files.len(),
        slowest.2.display(),
        slowest.0.as_secs_f64(),
        slowest.1 / 1_000_000
    );
    let mut failures = failures.into_inner().expect("no worker panics");
    failures.sort();
    assert!(failures.is_empty(), "{} of {} programs:\n{}", failures.len(), files.len(), failures.join("\n"));
}

/// Permission to run one compiler.
struct Slot;

static FREE: (Mutex<usize>, Condvar) = (Mutex::new(PARALLEL), Condvar::new());

impl Slot {
    fn take() -> Slot {
        let free = FREE.0.lock().expect("no worker panics");
        let mut free = FREE.1.wait_while(free, |free| *free == 0).expect("no worker panics");
        *free -= 1;
        Slot
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *FREE.0.lock().expect("no worker panics") += 1;
        FREE.1.notify_one();
    }
}

struct Compiler {
    rustc: String,
    pinned: bool,
    root: PathBuf,
    dependencies: PathBuf,
    library: PathBuf,
    scratch: PathBuf,
}

impl Compiler {
    /// The compiler, and the library that Cargo built for this test.
    fn find(root: &Path, folder: &str) -> Compiler {
        let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let version =
            Command::new(&rustc).arg("--version").output().unwrap_or_else(|e| panic!("cannot run {rustc}: {e}"));
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let pinned = version.starts_with(PINNED);
        if !pinned {
            println!("the words are pinned for {PINNED}x; this is {version}, so only the outcome is compared");
        }
        let own = env::current_exe().expect("a test knows its own path");
        let dependencies = own.parent().expect("a program lies in a folder").to_path_buf();
        let library = newest(&dependencies, "libmobilis-", ".rlib");
        // Each process and folder its own, so that two runs do not meet.
        let scratch = dependencies.join(format!("ui-{}-{}", folder.replace('/', "-"), std::process::id()));
        fs::create_dir_all(&scratch).unwrap_or_else(|e| panic!("cannot make {}: {e}", scratch.display()));
        Compiler { rustc, pinned, root: root.to_path_buf(), dependencies, library, scratch }
    }

    fn compile(&self, file: &Path) -> Outcome {
        let stem = file.file_stem().expect("a program has a name").to_string_lossy().replace('-', "_");
        let mut command = Command::new(&self.rustc);
        command.current_dir(&self.root).env_remove("RUST_BACKTRACE").arg(file);
        command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "obj", "--color", "never"]);
        // Another width would break long lines elsewhere.
        command.args(["--diagnostic-width", "140", "-A", "warnings", "-C", "debuginfo=0", "-C", "codegen-units=1"]);
        command.args(["--crate-name", &stem]);
        command.arg("-L").arg(format!("dependency={}", self.dependencies.display()));
        command.arg("--extern").arg(format!("mobilis={}", self.library.display()));
        command.arg("-o").arg(self.scratch.join(format!("{stem}.o")));
        run(&mut command, LIMITS)
    }

    fn judge(&self, file: &Path, expect: Expect, outcome: &Outcome) -> Result<(), String> {
        if let Some(limit) = &outcome.stopped {
            return Err(format!("the compiler was stopped: {limit}\n{}", outcome.stderr));
        }
        let words = normalize(&outcome.stderr, &self.root);
        match expect {
            Expect::Success if outcome.success => Ok(()),
            Expect::Success => Err(format!("it must compile, but does not:\n{words}")),
            Expect::Failure if outcome.success => Err("it compiles, but must not".into()),
            Expect::Failure => self.compare(file, &words),
        }
    }

    fn compare(&self, file: &Path, found: &str) -> Result<(), String> {
        let path = self.root.join(file.with_extension("stderr"));
        if found.contains("internal compiler error") || !found.contains("error") {
            return Err(format!("the compiler broke down:\n{found}"));
        }
        if env::var_os("MOBILIS_BLESS").is_some_and(|v| v == "1") {
            return fs::write(&path, found).map_err(|e| format!("cannot write {}: {e}", path.display()));
        }
        if !self.pinned {
            return Ok(());
        }
        let pinned =
            fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}\nfound:\n{found}", path.display()))?;
        if pinned == found {
            return Ok(());
        }
        Err(format!("other words than pinned (MOBILIS_BLESS=1 accepts them).\npinned:\n{pinned}\nfound:\n{found}"))
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // What is left behind is small, and in the target folder.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

fn newest(folder: &Path, start: &str, end: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    entries
        .filter_map(Result::ok)
        .filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with(start) && name.ends_with(end)
        })
        .max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok())
        .map(|e| e.path())
        .unwrap_or_else(|| panic!("no {start}*{end} in {}", folder.display()))
}
