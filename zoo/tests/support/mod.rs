//! Where the data of tests is that is not part of the repository.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod damaged;

use std::path::{Path, PathBuf};

/// The folder of golden data, or nothing (and a line that says so).
pub fn golden() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = std::env::var_os("MOBILIS_GOLDEN")
        .map(PathBuf::from)
        .into_iter()
        .chain(["../../shared/golden", "../../../shared/golden"].map(|p| root.join(p)));
    found(places, "golden data", "MOBILIS_GOLDEN")
}

/// The folder of real checkpoints, or one of its items.
pub fn real(item: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache/mobilis/real"));
    let places = std::env::var_os("MOBILIS_REAL").map(PathBuf::from).into_iter().chain(home);
    found(places.map(|p| p.join(item)), item, "MOBILIS_REAL")
}

fn found(mut places: impl Iterator<Item = PathBuf>, what: &str, variable: &str) -> Option<PathBuf> {
    let place = places.find(|p| p.is_dir());
    if place.is_none() {
        eprintln!("skipped: no {what}; set {variable} to where it is");
    }
    place
}
