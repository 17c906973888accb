//! Do the tests notice bugs? Each of the planted bugs ([`table`]) changes a copy of the kernels' text; the family's own tests then
//! run on it and must fail: by a wrong value, or by what the emulator reports.
//!
//! A few are planted in every run. All of them, with a table of what noticed and the list of those that escaped:
//! `cargo test -p mobilis-cuda --test mutations -- --ignored --nocapture` (`kernels/emu/mutate` does it; `MOBILIS_MUTATIONS=gemm`
//! plants those whose file or words contain that).

#[path = "mutations/table.rs"]
mod table;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use table::{MUTATIONS, Mutation};

/// At least so many of a hundred must be noticed.
const CAUGHT: usize = 95;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The newest binary of a family's tests, which lies beside this one.
fn binary(family: &str) -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.to_path_buf();
    let found = fs::read_dir(folder).ok()?.flatten().filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(family).and_then(|r| r.strip_prefix('-'));
        rest.is_some_and(|r| r.len() == 16 && r.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    found.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok()).map(|e| e.path())
}

/// The kernels' text in a folder of its own, with a bug in it.
fn plant(m: &Mutation, to: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(to);
    for (folder, extension) in [("", "cu"), ("include", "cuh"), ("tests/emulator", "cu")] {
        fs::create_dir_all(to.join(folder)).map_err(|e| e.to_string())?;
        for entry in fs::read_dir(here().join(folder)).map_err(|e| e.to_string())?.flatten() {
            if entry.path().extension().is_some_and(|e| e == extension) {
                fs::copy(entry.path(), to.join(folder).join(entry.file_name())).map_err(|e| e.to_string())?;
            }
        }
    }
    let path = to.join(m.file);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let at = text.match_indices(m.from).nth(m.nth).ok_or_else(|| format!("the text is not there: {:?}", m.from))?.0;
    let changed = [&text[..at], m.to, &text[at + m.from.len()..]].concat();
    fs::write(&path, changed).map_err(|e| e.to_string())
}

/// What noticed a bug; nothing where nobody did.
fn notice(m: &Mutation, folder: &Path) -> Result<Option<String>, String> {
    plant(m, folder)?;
    let tests = binary(m.tests.0).ok_or_else(|| format!("the tests {} are not built", m.tests.0))?;
    let mut command = Command::new(tests);
    command
        .args([m.tests.1, "--nocapture"])
        .env("MOBILIS_CUDA_SOURCES", folder)
        .env("RUST_BACKTRACE", "0")
        .current_dir(here());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn();
    let mut child = child.map_err(|e| e.to_string())?;
    let mut errors = child.stderr.take().ok_or("no errors to read")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let end = Instant::now() + Duration::from_secs(240);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(Some("it never ends".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = reader.join().unwrap_or_default();
    if text.contains("cannot be compiled") {
        return Err(format!("it does not compile: {}", text.lines().find(|l| l.contains("error")).unwrap_or("")));
    }
    if status.success() {
        return Ok(None);
    }
    let said = text.lines().find(|l| l.contains(" failed: ")).or(text.lines().find(|l| l.contains("left:")));
    let line = said.or(text.lines().find(|l| !l.contains("panicked at") && !l.trim().is_empty()));
    Ok(Some(line.unwrap_or("a wrong result").trim().chars().take(160).collect()))
}

fn run(which: impl Fn(&Mutation) -> bool) {
    if let Err(e @ mobilis_cuda::CudaError::Unavailable(_)) =
        mobilis_cuda::Gpu::emulated(mobilis_cuda::Schedule::Forward)
    {
        eprintln!("skipped: {e}");
        return;
    }
    let folder = std::env::temp_dir().join(format!("mobilis-mutations-{}", std::process::id()));
    let (mut escaped, mut unusable, mut count, mut files) = (vec![], vec![], 0, std::collections::BTreeSet::new());
    for m in MUTATIONS.iter().filter(|m| which(m)) {
        let start = Instant::now();
        let name = format!("{}: {}", m.file, m.what);
        match notice(m, &folder) {
            Ok(Some(words)) => println!("caught   {name} ({:.0} s): {words}", start.elapsed().as_secs_f64()),
            Ok(None) => {
                println!("ESCAPED  {name}");
                escaped.push(name);
            }
            Err(why) => {
                println!("UNUSABLE {name}: {why}");
                unusable.push(format!("{name}: {why}"));
                continue;
            }
        }
        count += 1;
        files.insert(m.file);
    }
    let _ = fs::remove_dir_all(&folder);
    println!("{} of {count} bugs in {} files were noticed; escaped: {escaped:#?}", count - escaped.len(), files.len());
    assert!(unusable.is_empty(), "the table does not fit the kernels any more: {unusable:#?}");
    assert!((count - escaped.len()) * 100 >= CAUGHT * count, "too many bugs escape: {escaped:#?}");
}

#[test]
fn planted_bugs_are_noticed() {
    run(|m| m.always);
}

#[test]
#[ignore = "takes many minutes"]
fn all_planted_bugs_are_noticed() {
    let asked = std::env::var("MOBILIS_MUTATIONS").unwrap_or_default();
    run(|m| m.file.contains(&asked) || m.what.contains(&asked));
}
