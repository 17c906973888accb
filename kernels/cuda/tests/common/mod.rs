//! Reads golden tensors of NeMo's own code, where they are at hand.

use std::path::{Path, PathBuf};

/// A folder of goldens; none, with a printed reason, where it is not there.
pub fn golden(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("MOBILIS_GOLDEN").map_or_else(
        || {
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let near = here.join("../../shared/golden");
            if near.exists() { near } else { here.join("../../../shared/golden") }
        },
        PathBuf::from,
    );
    let folder = folder.join(name);
    let found = folder.join("golden.safetensors").exists();
    if !found {
        eprintln!("skipped: no {} (set MOBILIS_GOLDEN)", folder.display());
    }
    found.then_some(folder)
}

/// The bytes of a tensor in a folder's `golden.safetensors`.
fn bytes(folder: &Path, tensor: &str) -> Vec<u8> {
    let all = std::fs::read(folder.join("golden.safetensors")).expect("a readable file");
    let header = 8 + u64::from_le_bytes(all[..8].try_into().expect("eight bytes")) as usize;
    let text = std::str::from_utf8(&all[8..header]).expect("a header of text");
    let entry = text.split(&format!("\"{tensor}\":")).nth(1).unwrap_or_else(|| panic!("no {tensor}"));
    let offsets = entry.split("\"data_offsets\":[").nth(1).expect("offsets").split(']').next().expect("an end");
    let at: Vec<usize> = offsets.split(',').map(|n| header + n.trim().parse::<usize>().expect("a number")).collect();
    all[at[0]..at[1]].to_vec()
}

/// A tensor of `f32`.
pub fn reals(folder: &Path, tensor: &str) -> Vec<f32> {
    bytes(folder, tensor).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A tensor of `i64`, as `i32`.
pub fn wholes(folder: &Path, tensor: &str) -> Vec<i32> {
    bytes(folder, tensor).as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as i32).collect()
}
