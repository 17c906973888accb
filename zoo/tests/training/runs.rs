//! Runs from recipe to model: what they learn, and that a killed one goes on alike.

use super::{Random, Scratch};
use mobilis_runtime::graph::DType;
use mobilis_zoo::asr::data::{Sound, Utterance, manifest};
use mobilis_zoo::asr::evaluate::evaluate;
use mobilis_zoo::asr::metrics::Unit;
use mobilis_zoo::asr::open::{AnyRecognizer, AsrOptions, open};
use mobilis_zoo::asr::train::{Note, Outcome, Prepared, TrainingError, kept, samples};
use mobilis_zoo::audio::wav;
use mobilis_zoo::export::{ExportOptions, average, export};
use mobilis_zoo::import;
use mobilis_zoo::recipe::document;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

pub(super) const RATE: u32 = 8000;

/// Words are rows of tones: one of three pitches for each letter `a`, `b`, `c`.
pub(super) fn corpus(folder: &Path, name: &str, count: usize, longest: usize, seed: u64) {
    let mut random = Random(seed);
    let mut all = vec![];
    std::fs::create_dir_all(folder.join(name)).expect("a folder");
    for i in 0..count {
        let text: String = (0..1 + random.below(longest)).map(|_| ['a', 'b', 'c'][random.below(3)]).collect();
        let mut samples = vec![];
        for letter in text.bytes() {
            let pitch = [400.0, 900.0, 2000.0][usize::from(letter - b'a')] * (0.95 + random.below(100) as f32 / 1000.0);
            let length = 1600 + random.below(600);
            let tone = |t: usize| 0.3 * (t as f32 * pitch * std::f32::consts::TAU / RATE as f32).sin();
            samples.extend((0..length).map(tone));
            samples.extend((0..800).map(|_| (random.below(1000) as f32 / 1000.0 - 0.5) * 0.01));
        }
        let path = folder.join(name).join(format!("{i}.wav"));
        wav::write(&path, &samples, RATE).expect("a file");
        let mut utterance = Utterance::new(Sound::File(path));
        utterance.duration = Some(samples.len() as f64 / f64::from(RATE));
        utterance.label = text.chars().next().map(String::from);
        utterance.text = Some(text);
        all.push(utterance);
    }
    manifest::write(&folder.join(format!("{name}.json")), &all).expect("a manifest");
}

/// A recipe for the corpus in `folder`: letters by CTC, or the one letter.
fn recipe(folder: &Path, classes: bool) -> Value {
    let block = |filters: u64, kernel: u64, stride: u64, residual: bool| {
        json!({
            "filters": filters, "repeat": 1, "kernel": [kernel], "stride": [stride], "dilation": [1], "dropout": 0.0,
            "residual": residual, "separable": true,
        })
    };
    let data = |name: &str| {
        json!({
            "manifest_filepath": folder.join(format!("{name}.json")), "batch_size": 16, "num_buckets": 2,
            "num_workers": 2,
        })
    };
    let target = if classes { "EncDecClassificationModel" } else { "EncDecCTCModel" };
    let crop = if classes { json!({"audio_length": 128}) } else { Value::Null };
    json!({
        "name": "tones", "seed": 3,
        "trainer": {"max_steps": 60, "save_every_n_steps": 7, "val_check_interval": 30},
        "exp_manager": {"exp_dir": folder.join("runs")},
        "model": {
            "target": format!("nemo.collections.asr.models.{target}"),
            "sample_rate": RATE, "labels": ["a", "b", "c"],
            "preprocessor": {"features": 32, "n_fft": 256, "window_size": 0.025, "window_stride": 0.01, "highfreq": 4000},
            "crop_or_pad_augment": crop,
            "encoder": {"feat_in": 32, "jasper": [
                block(32, 5, 2, false), block(32, 7, 1, true), block(48, 1, 1, false),
            ]},
            "decoder": {}, "train_ds": data("train"), "validation_ds": data("dev"),
            "optim": {"name": "novograd", "lr": 0.05, "betas": [0.8, 0.5], "weight_decay": 0.001,
                      "sched": {"name": "CosineAnnealing", "warmup_steps": 5}},
        },
    })
}

pub(super) fn opened(model: &Path) -> AnyRecognizer {
    open(&model.display().to_string(), &AsrOptions::default()).expect("a recognizer")
}

pub(super) fn run(
    recipe: &Value,
    settings: &[String],
    watch: &mut dyn FnMut(&Note) -> bool,
) -> Result<Outcome, TrainingError> {
    Prepared::read(document::resolve(recipe.clone(), settings)?)?.run(watch)
}

/// Words of up to so many letters, to learn from and to be asked for.
fn tones(longest: usize) -> Scratch {
    let folder = Scratch::new();
    corpus(folder.path(), "train", 96, longest, 11);
    corpus(folder.path(), "dev", 24, longest, 12);
    folder
}

#[test]
fn a_classifier_learns() {
    let folder = tones(1);
    let mut recipe = recipe(folder.path(), true);
    recipe["model"]["spec_augment"] = json!({"freq_masks": 1, "freq_width": 2, "time_masks": 1, "time_width": 5});
    recipe["model"]["train_ds"]["augmentor"] =
        json!({"white_noise": {"prob": 0.5, "min_level": -90, "max_level": -60}});
    let outcome = run(&recipe, &[], &mut |_| true).unwrap();
    assert!(outcome.finished && outcome.steps == 60 && outcome.losses.len() == 60);
    let (accuracy, _) = outcome.best.unwrap();
    assert!(accuracy >= 0.9, "{outcome:?}");
    // The archive is one of NeMo's, and holds what was learned.
    let model = outcome.model.unwrap();
    let learned = opened(&model);
    let utterances = manifest::read(&folder.path().join("dev.json")).unwrap();
    let said = |u: &Utterance| Ok(u.label.clone().unwrap_or_default());
    let found = evaluate(learned.recognizer(), &utterances, &said, 5, &mut |_| ()).unwrap();
    assert!((found.accuracy() - accuracy).abs() < 1e-12, "{} {accuracy}", found.accuracy());
    let archive = import::nemo::open(&model).unwrap();
    assert_eq!(archive.config["labels"], json!(["a", "b", "c"]));
    assert!(archive.config["target"].as_str().unwrap().ends_with("EncDecClassificationModel"));
    hears_windows(&model);
    for name in
        ["encoder.encoder.0.mconv.0.conv.weight", "decoder.decoder_layers.0.weight", "preprocessor.featurizer.fb"]
    {
        assert!(archive.tensors.names().contains(&name), "{:?}", archive.tensors.names());
    }
}

/// What is longer than a window has a label for each, in blocks as in whole.
fn hears_windows(model: &Path) {
    let second = |pitch: f32| {
        let tone = move |t: usize| 0.3 * (t as f32 * pitch * std::f32::consts::TAU / RATE as f32).sin();
        (0..RATE as usize).map(move |t| if t % 2400 < 1900 { tone(t) } else { 0.0 })
    };
    let sounds: Vec<f32> = [400.0, 400.0, 2000.0, 900.0].into_iter().flat_map(second).collect();
    let window = Some(Duration::from_secs(1));
    let model = open(&model.display().to_string(), &AsrOptions { window, ..AsrOptions::default() });
    let model = model.expect("a recognizer");
    let sounds = &sounds[..sounds.len() - 1000];
    let found = model.recognizer().transcribe(&[sounds, &sounds[..100], &[]]).unwrap();
    let ends: Vec<f64> = found[0].segments.iter().map(|s| s.end.as_secs_f64()).collect();
    assert_eq!((found[0].text.as_str(), &ends[..]), ("a c b", &[2.0, 3.0, 3.875][..]));
    assert_eq!([found[1].segments.len(), found[2].segments.len()], [1, 1]);
    for each in [700, 8000, 9000, 40_000] {
        let blocks = Box::new(sounds.chunks(each).map(|block| Ok(block.to_vec())));
        let mut told = vec![];
        let heard = model.recognizer().listen(vec![blocks], &mut |_, at, _| told.push(at.as_secs_f64()));
        assert_eq!(heard[0].as_ref().unwrap(), &found[0]);
        assert_eq!(told, [1.0, 2.0, 3.0, 3.875]);
    }
}

#[test]
fn letters_are_learned_and_a_killed_run_goes_on_alike() {
    let folder = tones(3);
    let mut recipe = recipe(folder.path(), false);
    recipe["trainer"]["max_steps"] = 180.into();
    let whole = run(&recipe, &[], &mut |_| true).unwrap();
    let scores = whole.scores.clone().unwrap();
    assert_eq!((scores.values[0].0, scores.values[1].0), ("wer", "cer"));
    assert!(scores.values[1].1 < 0.2, "{scores:?}");
    // What was written hears the same, alone and in company.
    let learned = opened(whole.model.as_ref().unwrap());
    let utterances = manifest::read(&folder.path().join("dev.json")).unwrap();
    let said = |u: &Utterance| Ok(u.text.clone().unwrap_or_default());
    let alone = evaluate(learned.recognizer(), &utterances, &said, 1, &mut |_| ()).unwrap();
    let together = evaluate(learned.recognizer(), &utterances, &said, 24, &mut |_| ()).unwrap();
    assert_eq!(alone.heard, together.heard);
    assert_eq!(alone.errors(Unit::Words).rate(), whole.best.unwrap().0);
    let sounds = samples(&utterances[0], RATE).unwrap();
    let transcript = &learned.recognizer().transcribe(&[&sounds]).unwrap()[0];
    let word = &transcript.segments[0].words[0];
    assert!(word.start < word.end && word.end <= transcript.duration, "{transcript:?}");
    // Stopped twice, once where nothing was written since: its losses are the same, bit for bit.
    let name = ["exp_manager.name=again".to_string()];
    let stop = |at: u64| move |note: &Note| !matches!(note, Note::Step { step, .. } if *step == at);
    let first = run(&recipe, &name, &mut stop(10)).unwrap();
    assert!(!first.finished && first.steps == 10);
    let last = folder.path().join("runs/again/last.safetensors");
    let kept = std::fs::read(&last).unwrap();
    run(&recipe, &name, &mut stop(17)).unwrap();
    // Killed before the next file was whole.
    std::fs::write(&last, kept).unwrap();
    let second = run(&recipe, &name, &mut |_| true).unwrap();
    assert!(second.finished && second.steps == 180);
    assert_eq!([first.losses, second.losses].concat(), whole.losses);
    assert_eq!(second.scores, whole.scores);
    // A finished run has nothing left to do.
    let third = run(&recipe, &name, &mut |_| true).unwrap();
    assert!(third.finished && third.losses.is_empty());
    // Another model does not go on with it.
    let other = [name[0].clone(), "model.optim.lr=0.01".into()];
    let error = run(&recipe, &other, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("another `model.optim.lr`"), "{error}");
    let fresh = [name[0].clone(), "exp_manager.resume_if_exists=false".into()];
    assert!(run(&recipe, &fresh, &mut |_| true).unwrap_err().to_string().contains("holds a run"));
    // The log has what happened.
    let log = std::fs::read_to_string(folder.path().join("runs/again/log.jsonl")).unwrap();
    assert!(log.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
    assert_eq!(log.matches("\"event\":\"begin\"").count(), 4);
}

/// The best models of several validations stay, and their mean is a model.
#[test]
fn the_best_are_kept_and_averaged() {
    let folder = tones(1);
    let mut recipe = recipe(folder.path(), true);
    recipe["exp_manager"]["checkpoint_callback_params"] =
        json!({"save_top_k": 2, "monitor": "val_loss", "mode": "max", "always_save_nemo": true});
    recipe["trainer"] = json!({"max_steps": 6, "val_check_interval": 2, "save_every_n_steps": 2});
    let mut heard: Vec<(f64, u64)> = vec![];
    let mut early = None;
    let outcome = run(&recipe, &[], &mut |note| {
        if let Note::Validation { step, scores, .. } = note {
            assert_eq!(scores.values[0].0, "loss");
            heard.push((scores.values[0].1, *step));
            early.get_or_insert_with(|| folder.path().join("runs/tones/last.nemo").exists());
        }
        true
    });
    let outcome = outcome.unwrap();
    // Asked for the greatest loss, oddly, it keeps the models that have it.
    heard.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!((outcome.best, early), (Some(heard[0]), Some(false)));
    let home = folder.path().join("runs/tones");
    let found = kept(&home).unwrap();
    assert_eq!(found.iter().map(|k| k.1).collect::<Vec<_>>(), [heard[0].1, heard[1].1]);
    let files = std::fs::read_dir(&home)
        .unwrap()
        .filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with("step-"));
    assert_eq!(files.count(), 2);
    assert_eq!(std::fs::read(home.join("best.nemo")).unwrap(), std::fs::read(&found[0].0).unwrap());

    let opened = |path: &Path| import::OpenOptions::new().open(&path.display().to_string()).unwrap();
    let mean = average(found.iter().map(|k| opened(&k.0)).collect()).unwrap();
    let to = folder.path().join("mean.nemo");
    export(&mean, &to, &ExportOptions::default()).unwrap();
    let name = "decoder.decoder_layers.0.weight";
    let values = |path: &Path| opened(path).tensors.read(name, DType::F32, false).unwrap().to_f64();
    let (a, b, mean) = (values(&found[0].0), values(&found[1].0), values(&to));
    assert!(a != b && mean.iter().zip(a.iter().zip(&b)).all(|(m, (a, b))| (m - (a + b) / 2.0).abs() < 1e-7));
    let utterances = manifest::read(&folder.path().join("dev.json")).unwrap();
    let said = |u: &Utterance| Ok(u.label.clone().unwrap_or_default());
    let learned = self::opened(&to);
    assert_eq!(evaluate(learned.recognizer(), &utterances, &said, 8, &mut |_| ()).unwrap().heard.len(), 24);
}

#[test]
fn faulty_recipes() {
    let folder = tones(3);
    let recipe = recipe(folder.path(), false);
    for (setting, says) in [
        ("model.labels=[a, b]", "its text has 'c'"),
        ("model.labels=[a, b, b]", "twice"),
        ("model.encoder.feat_in=40", "`model.encoder.feat_in` is 40, and the preprocessor gives 32"),
        ("model.encoder.jasper=[]", "jasper"),
        ("model.preprocessor.widnow=hann", "widnow"),
        ("model.spec_augment.freq_mask=1", "freq_mask"),
        ("model.train_ds.augmentor.white_nose.prob=1", "white_nose"),
        ("model.train_ds.manifest_filepath=none.json", "none.json"),
        ("model.train_ds.max_duration=0.01", "no utterances are left of 96"),
        ("model.decoder.num_classes=7", "`model.decoder.num_classes` is 7"),
        ("model.target=nemo.EncDecFooModel", "EncDecRNNTBPEModel"),
        ("model.target=nemo.EncDecRNNTModel", "transducers read Conformers"),
        ("model.encoder.jaspr=[]", "did you mean `jasper`"),
        ("model.tokenizer.train.vocab_size=3", "5 to"),
        ("init_from_nemo_model=none.nemo", "none.nemo"),
        ("model.sample_rate=16000", "n_fft"),
        ("trainer.max_stesp=3", "did you mean `max_steps`"),
    ] {
        let error = run(&recipe, &[setting.to_string()], &mut |_| true).unwrap_err().to_string();
        assert!(error.contains(says), "{setting}: {error}");
    }
}
