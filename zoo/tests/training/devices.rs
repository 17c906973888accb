//! Where a recipe trains: on the emulated GPU it learns what it learns on the CPU.

use super::Scratch;
use super::conformers::{four, recipe, transducer};
use super::runs::run;
use mobilis_runtime::Device;
use mobilis_zoo::asr::train::Note;
use serde_json::{Value, json};

/// The losses of two steps, and what is told before them.
fn two_steps(recipe: &Value, name: &str, more: &[&str]) -> Result<(Vec<f64>, String), String> {
    let mut settings = vec![format!("exp_manager.name={name}"), "trainer.max_steps=2".into()];
    settings.extend(more.iter().map(|s| s.to_string()));
    let mut about = vec![];
    let outcome = run(recipe, &settings, &mut |note| {
        if let Note::Begin { about: lines, .. } = note {
            about.clone_from(lines);
        }
        true
    });
    outcome.map(|o| (o.losses, about.join("; "))).map_err(|e| e.to_string())
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!((found.len(), expected.len()), (2, 2));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * b.abs(), "{found:?} {expected:?}");
    }
}

/// Smaller yet, and heard once: the emulator takes its time.
fn small(folder: &Scratch, mut recipe: Value) -> Value {
    super::runs::corpus(folder.path(), "two", 2, 1, 4);
    let data = json!({"manifest_filepath": folder.path().join("two.json"), "batch_size": 2, "shuffle": false});
    let model = &mut recipe["model"];
    (model["train_ds"], model["validation_ds"]) = (data, Value::Null);
    model["encoder"]["d_model"] = 16.into();
    model["encoder"]["n_heads"] = 2.into();
    recipe
}

#[test]
fn an_emulated_gpu_learns_what_the_cpu_learns() {
    if let Err(why) = Device::emulated() {
        return eprintln!("skipped: {why}");
    }
    let folder = four();
    let emulated = "trainer.accelerator=emulated";
    let ctc = small(&folder, recipe(folder.path()));
    let (cpu, about) = two_steps(&ctc, "cpu", &[]).unwrap();
    assert!(!about.contains("on "), "{about}");
    let (gpu, about) = two_steps(&ctc, "gpu", &[emulated]).unwrap();
    assert!(about.contains("on emulated"), "{about}");
    close(&gpu, &cpu, 1e-4);
    // What ran on one device goes on on another.
    let (later, _) = two_steps(&ctc, "gpu", &["trainer.max_steps=3"]).unwrap();
    let (whole, _) = two_steps(&ctc, "whole", &["trainer.max_steps=3"]).unwrap();
    assert!((later[0] - whole[2]).abs() <= 1e-3 * whole[2], "{later:?} {whole:?}");

    let bf16 = "trainer.precision=bf16";
    let (cpu, _) = two_steps(&ctc, "cpu16", &[bf16]).unwrap();
    let (gpu, about) = two_steps(&ctc, "gpu16", &[emulated, bf16]).unwrap();
    assert!(about.contains("bf16 x bf16"), "{about}");
    close(&gpu, &cpu, 2e-2);
}

#[test]
fn a_transducer_learns_on_an_emulated_gpu() {
    if let Err(why) = Device::emulated() {
        return eprintln!("skipped: {why}");
    }
    let folder = four();
    let mut tdt = small(&folder, transducer(folder.path()));
    let model = tdt["model"].as_object_mut().unwrap();
    model.remove("tokenizer");
    model.insert("labels".into(), json!(["a", "b", "c"]));
    let (cpu, _) = two_steps(&tdt, "cpu", &[]).unwrap();
    let (gpu, _) = two_steps(&tdt, "gpu", &["trainer.accelerator=emulated"]).unwrap();
    close(&gpu, &cpu, 1e-4);
}

#[test]
fn words_for_devices() {
    let folder = four();
    let recipe = recipe(folder.path());
    for (settings, says) in [
        (&["trainer.accelerator=tpu"][..], "`trainer.accelerator` is \"tpu\"; cpu, gpu, auto"),
        (&["trainer.accelerator=gpu", "trainer.devices=4"], "`trainer.devices` is 4; one device"),
        (&["trainer.accelerator=gpu", "trainer.devices=[0, 1]"], "`trainer.devices` is [0,1]; one device"),
        (&["trainer.accelerator=cuda:9"], "cuda:9"),
        (&["trainer.accelerator=gpu", "trainer.devices=[9]"], "cuda:9"),
    ] {
        let error = two_steps(&recipe, "none", settings).unwrap_err();
        assert!(error.contains(says) || (says == "cuda:9" && Device::cuda(9).is_err()), "{settings:?}: {error}");
    }
    if Device::cuda(0).is_err() {
        let auto = ["trainer.accelerator=auto", "trainer.devices=-1"];
        let (losses, about) = two_steps(&recipe, "auto", &auto).unwrap();
        assert!(losses.len() == 2 && !about.contains("cuda"), "{about}");
        assert!(two_steps(&recipe, "gpu", &["trainer.accelerator=gpu"]).is_err());
    }
}
