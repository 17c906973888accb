//! Lists the kernels of every `*.cu` here and embeds their text, for NVRTC and the emulator's tests. With the
//! feature `driver`, and where nvcc is found (`MOBILIS_NVCC`, `CUDA_HOME`, the path, `/usr/local/cuda`; not with
//! `MOBILIS_NO_NVCC`), it embeds machine code too, which is kept in the build folder by a hash of the text.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fs};

/// What is embedded: a name, the architecture as nvcc names it, the kind of output.
const TARGETS: [(&str, &str, &str); 4] =
    [("80", "sm_80", "cubin"), ("89", "sm_89", "cubin"), ("90", "sm_90a", "cubin"), ("ptx", "compute_80", "ptx")];

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=build.rs");
    let sources = files(Path::new(&here), "cu");
    let headers = files(&Path::new(&here).join("include"), "cuh");
    let nvcc = nvcc();
    let mut text = String::from("/// Every file of kernels.\npub static SOURCES: &[Source] = &[\n");
    for path in &sources {
        let source = fs::read_to_string(path).expect("a readable file");
        let kernels: Vec<&str> = source.split("CUEMU_EXPORT(").skip(1).filter_map(|s| s.split(')').next()).collect();
        let stem = path.file_stem().expect("a file").to_string_lossy();
        let (cubins, ptx) = nvcc.as_ref().map_or_else(Default::default, |n| compiled(n, path, &headers, &out));
        let ptx = ptx.map_or("None".into(), |p| format!("Some(include_str!({p:?}))"));
        text += &format!(
            "Source {{ file: {stem:?}, text: include_str!({path:?}), kernels: &{kernels:?}, cubins: &[{cubins}], ptx: {ptx} }},\n"
        );
    }
    text += "];\n/// What they include: name and text.\npub static HEADERS: &[(&str, &str)] = &[\n";
    for path in &headers {
        let name = path.file_name().expect("a file").to_string_lossy();
        text += &format!("({name:?}, include_str!({path:?})),\n");
    }
    text += "];\n";
    fs::write(out.join("sources.rs"), text).expect("a writable folder");
}

/// The compiler, where it is wanted and found.
fn nvcc() -> Option<PathBuf> {
    for name in ["MOBILIS_NVCC", "MOBILIS_NO_NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_DRIVER").is_none() || env::var_os("MOBILIS_NO_NVCC").is_some() {
        return None;
    }
    let mut places: Vec<PathBuf> = env::var_os("MOBILIS_NVCC").map(PathBuf::from).into_iter().collect();
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    places.extend(homes.map(|home| Path::new(&home).join("bin/nvcc")));
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths).map(|p| p.join("nvcc")));
    places.push("/usr/local/cuda/bin/nvcc".into());
    places.into_iter().find(|p| p.is_file())
}

/// The cubins as entries of a table, and the place of the PTX. A file that does not compile is left to NVRTC.
fn compiled(nvcc: &Path, source: &Path, headers: &[PathBuf], out: &Path) -> (String, Option<PathBuf>) {
    let mut hash = DefaultHasher::new();
    for path in [source].into_iter().chain(headers.iter().map(PathBuf::as_path)) {
        fs::read(path).expect("a readable file").hash(&mut hash);
    }
    nvcc.hash(&mut hash);
    let hash = hash.finish();
    let stem = source.file_stem().expect("a file").to_string_lossy();
    let start = |(_, arch, kind): &(&str, &str, &str)| -> (PathBuf, Option<Child>) {
        let path = out.join(format!("{stem}-{arch}-{hash:016x}.{kind}"));
        if path.exists() {
            return (path, None);
        }
        let mut command = Command::new(nvcc);
        command.args(["-std=c++17", "-O3", "-lineinfo"]).arg(format!("--{kind}"));
        let virtual_arch = arch.replace("sm_", "compute_");
        command.arg(format!("-gencode=arch={virtual_arch},code={arch}"));
        command.arg("-I").arg(source.with_file_name("include"));
        let child = command.arg("-o").arg(path.with_extension("new")).arg(source).spawn();
        (path, child.ok())
    };
    let (mut cubins, mut ptx) = (String::new(), None);
    // One process a target, together.
    let jobs: Vec<_> = TARGETS.iter().map(|t| (t.0, start(t))).collect();
    for (name, (path, child)) in jobs {
        if let Some(mut child) = child
            && child.wait().is_ok_and(|status| status.success())
        {
            fs::rename(path.with_extension("new"), &path).expect("a writable folder");
        }
        match (path.exists(), name) {
            (false, _) => println!("cargo:warning={stem}.cu is not embedded for {name}: nvcc failed"),
            (true, "ptx") => ptx = Some(path),
            (true, arch) => cubins += &format!("({arch}, include_bytes!({path:?})),"),
        }
    }
    (cubins, ptx)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    println!("cargo:rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(folder).expect("a readable folder");
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}
