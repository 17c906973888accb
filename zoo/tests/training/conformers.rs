//! Conformers from recipes: CTC, TDT and hybrids, with letters and pieces, whole and resumed, from nothing and from an
//! archive.

use super::Scratch;
use super::runs::{RATE, corpus, opened, run};
use mobilis_zoo::asr::data::{Utterance, manifest};
use mobilis_zoo::asr::evaluate::evaluate;
use mobilis_zoo::asr::metrics::Unit;
use mobilis_zoo::asr::train::{Note, Outcome};
use mobilis_zoo::import;
use serde_json::{Value, json};
use std::path::Path;

/// A FastConformer of a layer that learns four words of tones by heart.
pub(super) fn recipe(folder: &Path) -> Value {
    let data = json!({"manifest_filepath": folder.join("four.json"), "batch_size": 4, "shuffle": false});
    json!({
        "name": "four", "seed": 5,
        "trainer": {"max_steps": 120, "val_check_interval": 120, "gradient_clip_val": 1.0},
        "exp_manager": {"exp_dir": folder.join("runs"), "create_tensorboard_logger": false},
        "model": {
            "sample_rate": RATE, "labels": ["a", "b", "c"],
            "preprocessor": {"features": 32, "n_fft": 256, "window_size": 0.025, "window_stride": 0.01, "highfreq": 4000},
            "encoder": {
                "feat_in": 32, "n_layers": 1, "d_model": 32, "subsampling": "dw_striding", "subsampling_factor": 8,
                "subsampling_conv_channels": 16, "ff_expansion_factor": 2, "n_heads": 4, "conv_kernel_size": 5,
                "conv_norm_type": "layer_norm", "xscaling": false, "dropout": 0.0, "dropout_pre_encoder": 0.0,
                "dropout_emb": 0.0, "dropout_att": 0.0,
            },
            "decoder": {}, "train_ds": data, "validation_ds": data,
            "optim": {"name": "adamw", "lr": 0.005, "betas": [0.9, 0.98], "weight_decay": 0.001,
                      "sched": {"name": "CosineAnnealing", "warmup_steps": 10, "min_lr": 0.0005}},
        },
    })
}

/// The same as a transducer with durations, of pieces of words.
pub(super) fn transducer(folder: &Path) -> Value {
    let mut recipe = recipe(folder);
    let model = recipe["model"].as_object_mut().unwrap();
    model.remove("labels");
    model.insert("tokenizer".into(), json!({"type": "bpe", "train": {"kind": "bpe", "vocab_size": 7}}));
    model.insert("decoder".into(), json!({"prednet": {"pred_hidden": 32, "pred_rnn_layers": 1, "dropout": 0.0}}));
    model.insert("joint".into(), json!({"jointnet": {"joint_hidden": 32, "activation": "relu", "dropout": 0.0}}));
    let numbers = json!({"durations": [0, 1, 2, 3], "sigma": 0.02, "omega": 0.1});
    model.insert("loss".into(), json!({"loss_name": "tdt", "tdt_kwargs": numbers}));
    recipe["exp_manager"]["ema"] = json!({"decay": 0.9});
    recipe
}

pub(super) fn four() -> Scratch {
    let folder = Scratch::new();
    corpus(folder.path(), "four", 4, 4, 21);
    folder
}

fn rate(outcome: &Outcome, name: &str) -> f64 {
    outcome.scores.as_ref().unwrap().values.iter().find(|(n, _)| *n == name).unwrap().1
}

/// What the archive of a run hears, opened anew.
fn errors(outcome: &Outcome, folder: &Path) -> f64 {
    let utterances = manifest::read(&folder.join("four.json")).unwrap();
    let said = |u: &Utterance| Ok(u.text.clone().unwrap_or_default());
    let learned = opened(outcome.model.as_ref().unwrap());
    evaluate(learned.recognizer(), &utterances, &said, 3, &mut |_| ()).unwrap().errors(Unit::Characters).rate()
}

#[test]
fn a_fast_conformer_with_ctc_learns_by_heart() {
    let folder = four();
    let recipe = recipe(folder.path());
    let whole = run(&recipe, &[], &mut |_| true).unwrap();
    assert!(rate(&whole, "cer") < 0.05, "{:?} {:?}", whole.scores, whole.losses);
    assert_eq!(errors(&whole, folder.path()), rate(&whole, "cer"));
    let archive = import::nemo::open(whole.model.as_ref().unwrap()).unwrap();
    assert!(archive.config["target"].as_str().unwrap().ends_with(".EncDecCTCModel"));
    assert_eq!(archive.config["decoder"]["num_classes"], 3);
    assert!(archive.tensors.names().contains(&"encoder.layers.0.self_attn.linear_q.weight"));

    // Two batches of two before each update are as one of four.
    let short = |name: &str, more: &[&str]| {
        let mut settings = vec![format!("exp_manager.name={name}"), "trainer.max_steps=3".to_string()];
        settings.extend(more.iter().map(|s| s.to_string()));
        let mut about = vec![];
        let outcome = run(&recipe, &settings, &mut |note| {
            if let Note::Begin { about: lines, .. } = note {
                about.clone_from(lines);
            }
            true
        });
        (outcome.unwrap().losses, about.join("; "))
    };
    let (halves, _) = short("halves", &["model.train_ds.batch_size=2", "trainer.accumulate_grad_batches=2"]);
    assert_eq!(halves.len(), 3);
    for (half, whole) in halves.iter().zip(&whole.losses) {
        // The third step has seen two updates.
        assert!((half - whole).abs() < 1e-3 * whole, "{halves:?} {:?}", &whole.to_string());
    }
    // With products of bf16 it is nearly the same, and is told.
    let (rounded, about) = short("bf16", &["trainer.precision=bf16"]);
    assert!(about.contains("bf16 x bf16"), "{about}");
    assert!((rounded[0] - whole.losses[0]).abs() < 0.05 * whole.losses[0] && rounded[0] != whole.losses[0]);
}

#[test]
fn a_tdt_of_pieces_learns_by_heart_and_goes_on_alike() {
    let folder = four();
    let recipe = transducer(folder.path());
    let whole = run(&recipe, &[], &mut |_| true).unwrap();
    assert!(rate(&whole, "cer") < 0.05, "{:?} {:?}", whole.scores, whole.losses);
    assert_eq!(errors(&whole, folder.path()), rate(&whole, "cer"));
    let model = whole.model.clone().unwrap();
    let archive = import::nemo::open(&model).unwrap();
    assert!(archive.config["target"].as_str().unwrap().ends_with(".EncDecRNNTBPEModel"));
    assert_eq!(archive.config["joint"]["num_extra_outputs"], 4);
    let tokenizer = archive.artifacts.tokenizer(&archive.config["tokenizer"]).unwrap();
    assert_eq!(tokenizer.len(), archive.config["joint"]["num_classes"].as_u64().unwrap() as usize);

    // Stopped and gone on with: bit for bit the same, averages included.
    let name = ["exp_manager.name=again".to_string()];
    let mut stop = |note: &Note| !matches!(note, Note::Step { step: 9, .. });
    let first = run(&recipe, &name, &mut stop).unwrap();
    let second = run(&recipe, &name, &mut |_| true).unwrap();
    assert_eq!([first.losses, second.losses].concat(), whole.losses);
    assert_eq!(second.scores, whole.scores);

    // Another run starts from what was learned: of the archive come sizes, features and tokenizer too.
    let mut next = recipe.clone();
    for key in ["encoder", "decoder", "joint", "loss", "preprocessor", "tokenizer", "sample_rate"] {
        next["model"].as_object_mut().unwrap().remove(key);
    }
    next["init_from_nemo_model"] = model.display().to_string().into();
    let settings = ["exp_manager.name=next".to_string(), "trainer.max_steps=1".into()];
    let mut about = vec![];
    let outcome = run(&next, &settings, &mut |note| {
        if let Note::Begin { about: lines, .. } = note {
            about.clone_from(lines);
        }
        true
    });
    let losses = outcome.unwrap().losses;
    assert!(about.iter().any(|line| line.starts_with("starts from")), "{about:?}");
    assert!(losses[0] < 0.2 * whole.losses[0], "{losses:?} {:?}", whole.losses[0]);
}

#[test]
fn a_hybrid_has_both_heads() {
    let folder = four();
    let mut recipe = transducer(folder.path());
    recipe["model"]["aux_ctc"] = json!({"ctc_loss_weight": 0.3, "decoder": {}});
    recipe["model"]["loss"] = json!({"loss_name": "rnnt"});
    recipe["model"]["joint"]["jointnet"]["dropout"] = 0.1.into();
    let settings = ["trainer.max_steps=4".to_string(), "trainer.val_check_interval=4".into()];
    let outcome = run(&recipe, &settings, &mut |_| true).unwrap();
    let archive = import::nemo::open(outcome.model.as_ref().unwrap()).unwrap();
    assert!(archive.config["target"].as_str().unwrap().ends_with(".EncDecHybridRNNTCTCBPEModel"));
    for name in ["ctc_decoder.decoder_layers.0.weight", "joint.joint_net.2.weight"] {
        assert!(archive.tensors.names().contains(&name), "{:?}", archive.tensors.names());
    }
    assert!(errors(&outcome, folder.path()).is_finite());
    for (setting, says) in [
        ("model.encoder.d_modle=3", "did you mean `d_model`"),
        ("model.joint.jointnet.dropuot=3", "did you mean `dropout`"),
        ("model.loss.loss_name=tdt", "durations"),
        ("model.aux_ctc.ctc_loss_weight=2", "0 to 1"),
        ("model.encoder.subsampling_factor=3", "2, 4 or 8"),
        ("exp_manager.ema.decay=1", "less than 1"),
    ] {
        let error = run(&recipe, &[setting.to_string()], &mut |_| true).unwrap_err().to_string();
        assert!(error.contains(says), "{setting}: {error}");
    }
}

/// NeMo's training of streaming models: each step sees one of the look-aheads, drawn from the seed and the step.
#[test]
fn look_aheads_are_drawn() {
    let folder = four();
    let mut recipe = recipe(folder.path());
    recipe["model"]["preprocessor"]["dither"] = 0.into();
    recipe["model"]["encoder"]["att_context_style"] = "chunked_limited".into();
    // Nothing is learned, so that a step's loss tells what it saw.
    recipe["model"]["optim"] = json!({"name": "sgd", "lr": 1e-12});
    let losses = |name: &str, sizes: Value, probs: Value, steps: usize| {
        let mut recipe = recipe.clone();
        recipe["exp_manager"]["name"] = name.into();
        recipe["model"]["encoder"]["att_context_size"] = sizes;
        recipe["model"]["encoder"]["att_context_probs"] = probs;
        let settings = [format!("trainer.max_steps={steps}"), "trainer.val_check_interval=1000".into()];
        run(&recipe, &settings, &mut |_| true).map(|o| o.losses).map_err(|e| e.to_string())
    };
    let all = || json!([[-1, -1], [4, 1], [0, 0]]);
    let alone: Vec<f64> = all()
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, pair)| {
            let alone = losses(&format!("alone-{i}"), pair.clone(), Value::Null, 1).unwrap()[0];
            let mut sure = [0.0; 3];
            sure[i] = 1.0;
            let drawn = losses(&format!("sure-{i}"), all(), json!(sure), 1).unwrap()[0];
            assert!((drawn - alone).abs() < 1e-5 * alone, "{pair}: {drawn} {alone}");
            alone
        })
        .collect();
    let seen = |loss: &f64| alone.iter().position(|a| (a - loss).abs() < 1e-5 * a).expect("one of the three");
    let found = losses("drawn", all(), json!([0.5, 0.5, 0.0]), 12).unwrap();
    let kinds: Vec<usize> = found.iter().map(seen).collect();
    assert!(kinds.contains(&0) && kinds.contains(&1) && !kinds.contains(&2), "{kinds:?}");
    // The same again, also where the run was stopped.
    let again = [
        losses("again", all(), json!([0.5, 0.5, 0.0]), 5).unwrap(),
        losses("again", all(), json!([0.5, 0.5, 0.0]), 12).unwrap(),
    ];
    assert_eq!(again.concat(), found);
    for (probs, says) in [(json!([0.5, 0.5]), "3 probabilities"), (json!([0.5, 0.4, 0.0]), "add up to 1")] {
        let error = losses("faulty", all(), probs, 1).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

/// The recipe beside the examples is read as it stands.
#[test]
fn the_recipe_of_the_examples_is_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fast-conformer-tdt.toml");
    let settings = ["model.train_ds.manifest_filepath=a.json", "model.validation_ds.manifest_filepath=b.json"];
    let settings = settings.map(String::from);
    let document = mobilis_zoo::recipe::document::read(&path, &settings).unwrap();
    let prepared = mobilis_zoo::asr::train::Prepared::read(document).unwrap();
    assert!(prepared.notes().is_empty(), "{:?}", prepared.notes());
}
