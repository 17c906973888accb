//! Every folder of reference data whose family is known verifies, in both spellings of the
//! configuration.
//!
//! The folders (`../shared/golden`, or `MOBILIS_GOLDEN`) were written by the reference
//! implementations; where they are absent the tests say so and pass.

use mobilis_runtime::Device;
use mobilis_zoo::verify::{VerifyError, verify};
use std::path::PathBuf;

fn root() -> PathBuf {
    let given = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden"))
}

/// Verifies a folder by both configurations; false, with the reason printed, where it is absent.
fn agrees(name: &str) -> bool {
    agrees_by(name, &["config.json", "config_hub.json"])
}

fn agrees_by(name: &str, configs: &[&str]) -> bool {
    let folder = root().join(name);
    if !folder.join("golden.safetensors").exists() {
        println!("skipped: {} has no golden.safetensors", folder.display());
        return false;
    }
    for config in configs {
        let report = verify(&folder, config, Device::Cpu).unwrap_or_else(|e| panic!("{name} by {config}: {e}"));
        let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{name} by {config}: {failed:#?}");
        assert!(!report.checks.is_empty(), "{name} by {config}: nothing was checked");
    }
    true
}

/// The kernels of GPUs, emulated, compute what the original code did: one folder of a kind.
#[cfg(feature = "cuda")]
#[test]
fn the_emulated_gpu_agrees() {
    if let Err(e) = Device::emulated() {
        println!("skipped: {e}");
        return;
    }
    for name in ["gpt2", "llama", "qwen3", "phi3", "bert"] {
        let folder = root().join(name);
        if !folder.join("golden.safetensors").exists() {
            println!("skipped: {} has no golden.safetensors", folder.display());
            continue;
        }
        let report = verify(&folder, "config.json", Device::Emulated).unwrap_or_else(|e| panic!("{name}: {e}"));
        let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{name}: {failed:#?}");
    }
}

macro_rules! folders {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            agrees(stringify!($name));
        }
    )*};
}

folders! {
    bart
    bert
    bert_seqcls
    deepseek_v3
    gemma2
    gemma3
    gpt2
    llama
    mamba
    mamba2
    mamba2_groups
    mistral
    mixtral
    parakeet_ctc
    parakeet_rnnt
    parakeet_tdt
    phi3
    phi3_longrope
    qwen2
    qwen2_moe
    qwen3
    qwen3_moe
    roberta
    t5
    t5_gated
    wav2vec2_ctc
    wav2vec2_ctc_large
    whisper
}

/// NeMo's folders, which have one configuration.
macro_rules! nemo_folders {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            agrees_by(stringify!($name), &["config.json"]);
        }
    )*};
}

nemo_folders! {
    nemo_conformer_ctc
    nemo_fastconformer_ctc
    nemo_fastconformer_rnnt
    nemo_fastconformer_tdt
}

#[test]
fn folders_without_a_model() {
    let mut folders = vec![root().join("rope")];
    folders.extend(std::fs::read_dir(root().join("tokenizers")).into_iter().flatten().flatten().map(|e| e.path()));
    for folder in folders.iter().filter(|f| f.exists()) {
        let report = verify(folder, "config.json", Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        assert!(report.passed() && !report.checks.is_empty(), "{}: {:#?}", folder.display(), report.checks);
    }
    println!("{} folders", folders.len());
}

#[test]
fn a_wrong_value_is_seen() {
    let from = root().join("llama");
    if !from.exists() {
        println!("skipped: {} is absent", from.display());
        return;
    }
    let to = std::env::temp_dir().join(format!("mobilis-verify-{}", std::process::id()));
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["config.json", "model.safetensors", "golden.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    // One bit of the exponent of the last weight of the file.
    let path = to.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the copy");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("the copy");
    let report = verify(&to, "config.json", Device::Cpu).expect("a report");
    assert!(!report.passed(), "{report:#?}");
    assert!(matches!(verify(&to, "absent.json", Device::Cpu), Err(VerifyError::Read { .. })));
    std::fs::remove_dir_all(&to).expect("the folder goes");
}

/// NeMo's convolutional model: features, encoder, losses and gradients in inference and in training, the archive.
#[test]
fn nemo_quartznet() {
    let folder = root().join("nemo_quartznet");
    if !folder.join("golden.safetensors").exists() {
        println!("skipped: {} has no golden.safetensors", folder.display());
        return;
    }
    let report = verify(&folder, "config.json", Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.checks.len() > 100, "{}", report.checks.len());
    assert_eq!(report.parameters, 19_189);
}
