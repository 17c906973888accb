//! Do kernels become the machine code that was meant? Every file is compiled for Ampere and Hopper by NVIDIA's compiler,
//! which needs no GPU. No kernel may spill registers or use a stack frame unless [`ALLOWED`] says why, and kernels
//! written for an instruction must have it ([`MEANT`]).
//!
//! nvcc is looked for in `MOBILIS_NVCC`, `CUDA_HOME`, the path, `/usr/local/cuda`, and where `.ci/cuda` installs it from
//! Python's package index. Without it the test says so and passes. What was compiled is kept by a hash of its text.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const ARCHITECTURES: [&str; 2] = ["80", "90a"];

/// Kernel (or the beginning of its name, before `*`), architecture or `*`, bytes of stack frame and spills, why.
const ALLOWED: &[(&str, &str, u32, &str)] = &[
    ("sin_f32", "*", 32, "the table by which sinf reduces large angles"),
    ("cos_f32", "*", 32, "the same of cosf"),
    (
        "attention_dkv_bf16_128_sm80",
        "*",
        256,
        "128 sums and 64 scores a thread; two kernels would make 8 products for 7",
    ),
    ("attention_dkv_f16_128_sm80", "*", 256, "as above"),
    ("attention_dk_bf16_256_sm80", "*", 128, "128 sums and 64 scores a thread"),
    ("attention_dk_f16_256_sm80", "*", 128, "as above"),
    ("norm_data_f16_w1", "80", 8, "one value outside the loops"),
    ("gemv_e4m3_1", "*", 8, "two values outside the loops"),
    ("gemv_i8_1", "90a", 8, "one value outside the loops"),
    ("rope_table", "*", 40, "the table by which sinf and cosf reduce large angles"),
    ("attention_dq_f32_128", "*", 8, "one value outside the loops, for which a block less would run at once"),
];

/// Words of a kernel's name, architecture, and instructions that must be in its code.
const MEANT: &[(&[&str], &str, &[&str])] = &[
    (&["sm80", "bf16"], "80", &["HMMA.16816", "LDGSTS"]),
    (&["sm80", "_f16"], "80", &["HMMA.16816", "LDGSTS"]),
    (&["conv_", "bf16"], "80", &["HMMA.16816.F32.BF16", "LDSM"]),
    (&["joint_", "bf16"], "80", &["HMMA.16816.F32.BF16", "LDSM"]),
    (&["sm90", "bf16"], "90a", &["HGMMA", "UTMALDG"]),
    (&["sm90", "_f16"], "90a", &["HGMMA", "UTMALDG"]),
    (&["sm90", "e4m3"], "90a", &["QGMMA", "UTMALDG"]),
    (&["gemm_", "_sm90_256"], "90a", &["UTMALDG.4D.MULTICAST", "UTMASTG.4D"]),
    (&["gemm_e4m3_"], "90a", &["QGMMA", "UTMALDG.4D"]),
    (&["gemm_e5m2_"], "90a", &["QGMMA", "UTMALDG.4D"]),
    (&["sm90", "fp8"], "90a", &["QGMMA", "UTMALDG"]),
    (&["tf32"], "80", &["HMMA.1688.F32.TF32"]),
    (&["t_wgmma_", "bf16"], "90a", &["HGMMA"]),
    (&["t_wgmma_", "e4m3"], "90a", &["QGMMA"]),
    (&["t_tma_2d"], "90a", &["UTMALDG.2D", "UTMASTG.2D", "UTMAREDG.2D"]),
    (&["t_tma_5d"], "90a", &["UTMALDG.5D"]),
    (&["t_cluster"], "90a", &["UTMALDG.2D.MULTICAST", "UCGABAR_ARV"]),
    (&["t_bulk"], "90a", &["UBLKCP"]),
    (&["t_async"], "90a", &["LDGSTS.E.BYPASS.128"]),
    (&["t_mma"], "90a", &["HMMA.16816.F32.BF16", "IMMA.16832"]),
    (&["t_ldmatrix"], "90a", &["LDSM.16.M88.4", "LDSM.16.MT88.2", "STSM.16.MT88.4"]),
];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of NVIDIA's tools.
fn tools() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("MOBILIS_NVCC").map(PathBuf::from).into_iter().collect();
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    places.extend(homes.map(|home| Path::new(&home).join("bin/nvcc")));
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths).map(|p| p.join("nvcc")));
    places.push("/usr/local/cuda/bin/nvcc".into());
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
    places.extend(cache.map(|c| c.join("mobilis/cuda-13.0/nvidia/cu13/bin/nvcc")));
    places.into_iter().find(|p| p.is_file()).and_then(|p| p.parent().map(Path::to_path_buf))
}

/// One file for one architecture: what is wrong with it.
fn compile(tools: &Path, out: &Path, common: u64, file: &Path, arch: &str) -> Vec<String> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut hash = DefaultHasher::new();
    (common, &text, arch).hash(&mut hash);
    let base = out.join(format!("{stem}-{arch}-{:016x}", hash.finish()));
    let (cubin, log) = (base.with_extension("cubin"), base.with_extension("log"));
    let code = base.with_extension("sass");
    if !log.exists() {
        let mut command = Command::new(tools.join("nvcc"));
        command.args(["-std=c++17", "-O3", "-lineinfo", "--cubin", "-Xptxas", "-v"]);
        command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        command.arg("-I").arg(here().join("include")).arg("-o").arg(&cubin).arg(file);
        let done = match command.output() {
            Ok(done) => done,
            Err(e) => return vec![format!("{stem}.cu: nvcc cannot be run: {e}")],
        };
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if !done.status.success() {
            let errors: Vec<&str> = said.lines().filter(|l| l.contains("error")).take(5).collect();
            return vec![format!("{stem}.cu does not compile for sm_{arch}: {}", errors.join("; "))];
        }
        let disassembler = tools.join("cuobjdump");
        if disassembler.is_file() {
            let listing = Command::new(disassembler).arg("-sass").arg(&cubin).env("PATH", path_with(tools)).output();
            match listing {
                Ok(l) if l.status.success() => fs::write(&code, l.stdout).unwrap_or_default(),
                Ok(l) => return vec![format!("{stem}: cuobjdump: {}", String::from_utf8_lossy(&l.stderr))],
                Err(e) => return vec![format!("{stem}: cuobjdump: {e}")],
            }
        }
        let _ = fs::remove_file(&cubin);
        fs::write(&log, said).unwrap_or_default();
    }
    let mut wrong = spills(&fs::read_to_string(&log).unwrap_or_default(), arch);
    if let Ok(code) = fs::read_to_string(&code) {
        wrong.extend(missing(&code, arch));
    }
    wrong
}

fn path_with(tools: &Path) -> std::ffi::OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let all = [tools.to_path_buf()].into_iter().chain(std::env::split_paths(&old));
    std::env::join_paths(all).unwrap_or(old)
}

/// Stack frames and spills that are not allowed, from what ptxas said.
fn spills(log: &str, arch: &str) -> Vec<String> {
    let (mut wrong, mut kernel) = (vec![], "");
    for line in log.lines() {
        if let Some(rest) = line.split("Function properties for ").nth(1) {
            kernel = rest.trim();
        } else if line.contains("bytes stack frame") {
            let most =
                line.split(',').filter_map(|p| p.split_whitespace().next()?.parse::<u32>().ok()).max().unwrap_or(0);
            let of = |name: &str| name.strip_suffix('*').map_or(name == kernel, |start| kernel.starts_with(start));
            // The last entry of each says why: for those who read this table.
            let allowed = ALLOWED.iter().find(|a| of(a.0) && (a.1 == arch || a.1 == "*"));
            if most > allowed.map_or(0, |a| a.2) {
                wrong.push(format!("{kernel} on sm_{arch}: {}", line.trim()));
            }
        }
    }
    wrong
}

/// Instructions that were meant and are not there.
fn missing(code: &str, arch: &str) -> Vec<String> {
    let mut wrong = vec![];
    for part in code.split("Function : ").skip(1) {
        let kernel = part.lines().next().unwrap_or_default().trim();
        for (words, meant_for, instructions) in MEANT {
            if *meant_for != arch || !words.iter().all(|w| kernel.contains(w)) {
                continue;
            }
            for i in instructions.iter().filter(|i| !part.contains(*i)) {
                wrong.push(format!("{kernel} on sm_{arch} has no {i}"));
            }
        }
    }
    wrong
}

#[test]
#[ignore = "takes minutes where nothing is compiled yet; `.ci/cuda` runs it"]
fn kernels_compile_to_what_was_meant() {
    let Some(tools) = tools() else {
        eprintln!("skipped: no nvcc was found; `.ci/cuda` installs one, or set MOBILIS_NVCC");
        return;
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here().join("../../target"), PathBuf::from);
    let out = target.join("cuda-compiled");
    fs::create_dir_all(&out).expect("a writable folder of builds");
    let list = |folder: &Path, extension: &str| {
        let entries = fs::read_dir(folder).expect("a readable folder").flatten().map(|e| e.path());
        let mut files: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
        files.sort();
        files
    };
    let mut common = DefaultHasher::new();
    let version = Command::new(tools.join("nvcc")).arg("--version").output().expect("nvcc runs");
    (version.stdout, tools.join("cuobjdump").is_file()).hash(&mut common);
    for header in list(&here().join("include"), "cuh") {
        fs::read(&header).expect("a readable header").hash(&mut common);
    }
    let common = common.finish();
    // The primitives' own tests need Hopper.
    let mut jobs = vec![(here().join("tests/emulator/right.cu"), "90a")];
    jobs.extend(list(here(), "cu").into_iter().flat_map(|f| ARCHITECTURES.map(|a| (f.clone(), a))));
    let (next, wrong) = (std::sync::atomic::AtomicUsize::new(0), Mutex::new(vec![]));
    let work = || {
        while let Some((file, arch)) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let found = compile(&tools, &out, common, file, arch);
            wrong.lock().expect("nobody panicked").extend(found);
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    let wrong = wrong.into_inner().expect("nobody panicked");
    println!("{} files compiled with {}", jobs.len(), tools.display());
    assert!(wrong.is_empty(), "{} things are not as they were meant:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_ptxas_and_the_disassembler_say_is_understood() {
    let log = "ptxas info    : Function properties for a_kernel\n    \
               16 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads\n\
               ptxas info    : Function properties for other\n    \
               0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let found = spills(log, "80");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("a_kernel on sm_80: 16 bytes"), "{found:?}");
    let code = "Function : gemm_bf16_sm90_x\n HGMMA.64x128\n\nFunction : gemm_bf16_sm80\n HGMMA UTMALDG";
    assert_eq!(missing(code, "90a"), ["gemm_bf16_sm90_x on sm_90a has no UTMALDG"]);
}
