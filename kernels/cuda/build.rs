//! Lists the kernels of every `*.cu` here and embeds their text, for NVRTC and the emulator's tests.

use std::{env, fs, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=build.rs");
    let mut text = String::from("/// Every file of kernels.\npub static SOURCES: &[Source] = &[\n");
    for path in files(Path::new(&here), "cu") {
        let source = fs::read_to_string(&path).expect("a readable file");
        let kernels: Vec<&str> = source.split("CUEMU_EXPORT(").skip(1).filter_map(|s| s.split(')').next()).collect();
        let stem = path.file_stem().expect("a file").to_string_lossy();
        text += &format!("Source {{ file: {stem:?}, text: include_str!({path:?}), kernels: &{kernels:?} }},\n");
    }
    text += "];\n/// What they include: name and text.\npub static HEADERS: &[(&str, &str)] = &[\n";
    for path in files(&Path::new(&here).join("include"), "cuh") {
        let name = path.file_name().expect("a file").to_string_lossy();
        text += &format!("({name:?}, include_str!({path:?})),\n");
    }
    text += "];\n";
    fs::write(Path::new(&out).join("sources.rs"), text).expect("a writable folder");
}

fn files(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    println!("cargo:rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(folder).expect("a readable folder");
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}
