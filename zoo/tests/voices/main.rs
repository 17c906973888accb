//! Models of voices against references: voice activity, speaker vectors, convolutional recognizers.
//!
//! Weights and recordings come from `shared/real/fetch.sh` (`~/.cache/mobilis/real`, or `MOBILIS_REAL`), references from
//! `../shared/real/refs`; where they are absent the tests say so and pass.

extern crate mobilis_runtime as mobilis;

mod damaged;
mod marblenet;
mod quartznet;
mod resemblyzer;
mod silero;
#[path = "../support/mod.rs"]
mod support;
mod titanet;

use std::path::PathBuf;

/// A file or folder of the fetched models.
pub fn real(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("MOBILIS_REAL").map(PathBuf::from);
    let home = std::env::home_dir().unwrap_or_default();
    found(given.unwrap_or_else(|| home.join(".cache/mobilis/real")).join(name))
}

/// A folder of the golden models.
pub fn golden(name: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    found(std::env::var_os("MOBILIS_GOLDEN").map_or(beside, PathBuf::from).join(name))
}

/// A file of the references.
pub fn reference(name: &str) -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let shared = here.ancestors().map(|a| a.join("shared/real/refs")).find(|p| p.is_dir());
    found(shared.unwrap_or_else(|| here.join("../../shared/real/refs")).join(name))
}

fn found(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    println!("skipped: there is no `{}`", path.display());
    None
}

/// A recording of `shared/real`, by the end of its name.
pub fn clip(folder: &str, name: &str) -> Option<Vec<f32>> {
    let folder = real(&format!("speech/{folder}"))?;
    let files = std::fs::read_dir(&folder).expect("read").flatten().map(|e| e.path());
    let mut files = files.filter(|p| p.file_stem().is_some_and(|s| s.to_string_lossy().ends_with(name)));
    let path = files.next().unwrap_or_else(|| panic!("no `{name}` in `{}`", folder.display()));
    Some(mobilis_zoo::audio::load(path, 16_000).expect("read"))
}

/// The largest difference.
pub fn distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f64::NAN } else { m.max(d) })
}
