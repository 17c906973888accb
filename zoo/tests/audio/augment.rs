//! Augmentation: what it does, and that it can be repeated.

use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::data::{Sound, Utterance};
use mobilis_zoo::audio::augment::{
    Augmentor, Impulse, Law, Noise, Rates, Sounds, SpecAugment, Step, Width, crop_or_pad,
};
use mobilis_zoo::audio::features::FrameCounts;
use mobilis_zoo::audio::{Batch, Frames, wav};
use mobilis_zoo::llm::config::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const RATE: u32 = 16_000;

fn tone(count: usize) -> Vec<f32> {
    (0..count).map(|i| (0.5 * (std::f64::consts::TAU * 500.0 * i as f64 / f64::from(RATE)).sin()) as f32).collect()
}

fn once(step: Step, samples: &[f32], index: usize) -> Vec<f32> {
    Augmentor::new(RATE, 5, vec![(1.0, step)]).apply(samples.to_vec(), 0, index).unwrap()
}

fn hertz(x: &[f32]) -> f64 {
    let crossings = x.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
    crossings as f64 * f64::from(RATE) / x.len() as f64
}

fn decibels(x: &[f32]) -> f64 {
    10.0 * (x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64).log10()
}

/// A list of one recording.
fn sounds(name: &str, samples: &[f32]) -> (Sounds, PathBuf) {
    let path = std::env::temp_dir().join(format!("mobilis-{name}-{}.wav", std::process::id()));
    std::fs::write(&path, wav::encode(samples, RATE, 1, wav::Stored::Float32).unwrap()).unwrap();
    (Sounds::of(vec![Utterance::new(Sound::File(path.clone()))]).unwrap(), path)
}

#[test]
fn faster_is_shorter_and_higher() {
    let x = tone(16_000);
    let rates = |rate| Rates { low: rate, high: rate, count: Some(1) };
    let fast = once(Step::Speed(rates(1.1)), &x, 0);
    assert_eq!(fast.len(), 14_546);
    assert!((hertz(&fast) - 550.0).abs() < 3.0, "{}", hertz(&fast));
    let slow = once(Step::Speed(rates(0.9)), &x, 0);
    assert_eq!(slow.len(), 17_778);
    assert!((hertz(&slow) - 450.0).abs() < 3.0);
    let stretched = once(Step::TimeStretch { rates: rates(1.1), n_fft: 512 }, &x, 0);
    assert_eq!(stretched.len(), 14_545);
    assert!((hertz(&stretched) - 500.0).abs() < 5.0);
}

#[test]
fn steps_do_what_their_names_say() {
    let x = tone(8_000);
    let louder = once(Step::Gain { low: 6.0, high: 6.0 }, &x, 0);
    assert!((decibels(&louder) - decibels(&x) - 6.0).abs() < 1e-4);
    let silent = once(Step::Silence { start: [0.1, 0.1], end: [0.2, 0.2], value: 0.0 }, &x, 0);
    assert_eq!(silent.len(), 8_000 + 4_800);
    assert!(silent[..1_600].iter().chain(&silent[9_600..]).all(|v| *v == 0.0));
    assert_eq!(silent[1_600..9_600], x);
    let left = once(Step::Shift { low: 5.0, high: 5.0 }, &x, 0);
    assert_eq!(left[..7_920], x[80..]);
    assert!(left[7_920..].iter().all(|v| *v == 0.0));
    let right = once(Step::Shift { low: -5.0, high: -5.0 }, &x, 0);
    assert_eq!(right[80..], x[..7_920]);
    let noisy = once(Step::WhiteNoise { low: -40.0, high: -40.0 }, &x, 0);
    let noise: Vec<f32> = noisy.iter().zip(&x).map(|(a, b)| a - b).collect();
    assert!((decibels(&noise) + 40.0).abs() < 0.3, "{}", decibels(&noise));
    let part = once(Step::RandomSegment { duration: 0.1, pad: false }, &x, 3);
    assert!(part.len() == 1_600 && x.windows(1_600).any(|w| w == part));
    assert_eq!(once(Step::RandomSegment { duration: 1.0, pad: true }, &x, 3)[..8_000], x);
    let short = Augmentor::new(RATE, 0, vec![(1.0, Step::RandomSegment { duration: 1.0, pad: false })]);
    assert!(short.apply(x.clone(), 0, 0).unwrap_err().to_string().contains("pad_to_duration"));
    for law in [Law::Mu, Law::A] {
        let telephone = once(Step::Transcode(vec![law]), &x, 0);
        assert_eq!(telephone.len(), x.len());
        let off: Vec<f32> = telephone[500..7_500].iter().zip(&x[500..]).map(|(a, b)| a - b).collect();
        let ratio = decibels(&x) - decibels(&off);
        assert!((30.0..45.0).contains(&ratio), "{law:?}: {ratio} dB");
    }
}

#[test]
fn noise_has_the_ratio_and_rooms_their_answer() {
    let x = tone(8_000);
    let hiss: Vec<f32> =
        (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect();
    let (list, path) = sounds("hiss", &hiss);
    let noise = Noise { sounds: list, min_snr_db: 15.0, max_snr_db: 15.0, max_gain_db: 300.0 };
    let mixed = once(Step::Noise(noise.clone()), &x, 1);
    let added: Vec<f32> = mixed.iter().zip(&x).map(|(a, b)| a - b).collect();
    assert!((decibels(&x) - decibels(&added) - 15.0).abs() < 0.01);
    assert_ne!(mixed, once(Step::Noise(noise.clone()), &x, 2), "another recording has another part of the noise");
    let even = once(Step::NoiseNorm { noise, norm_to_db: Some(-25.0) }, &x, 1);
    assert!((decibels(&even) + 25.0).abs() < 1e-3);
    std::fs::remove_file(path).unwrap();

    let mut answer = vec![0.0; 50];
    (answer[20], answer[30]) = (1.0, 0.5);
    let (list, path) = sounds("room", &answer);
    let room = Impulse { sounds: list, normalize: false, shift: true };
    let heard = once(Step::Impulse(room.clone()), &x, 0);
    let expected = |i: usize| x[i] + if i >= 10 { 0.5 * x[i - 10] } else { 0.0 };
    assert!((0..8_000).all(|i| (heard[i] - expected(i)).abs() < 1e-5));
    let both = Step::RirNoise { room: Some((1.0, room)), noises: vec![] };
    assert_eq!(once(both, &x, 0).len(), 8_000);
    std::fs::remove_file(path).unwrap();
}

/// Noise from tar archives is the same as from files.
#[test]
fn noise_comes_from_archives_too() {
    let folder = std::env::temp_dir().join(format!("mobilis-noises-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let hiss: Vec<f32> = (0..9_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as f32 / 8_388_608.0).collect();
    let bytes = wav::encode(&hiss, RATE, 1, wav::Stored::Float32).unwrap();
    std::fs::write(folder.join("hiss.wav"), &bytes).unwrap();
    for shard in 0..2 {
        let mut archive = tar::Builder::new(std::fs::File::create(folder.join(format!("n_{shard}.tar"))).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, format!("{}.wav", ["other", "hiss"][shard]), &bytes[..]).unwrap();
        archive.finish().unwrap();
    }
    std::fs::write(folder.join("list.json"), "{\"audio_filepath\": \"hiss.wav\", \"duration\": 0.5}\n").unwrap();
    let heard = |section: Value| {
        let config = Config::new("config", json!({ "noise": section }));
        let augmentor = Augmentor::from_config(&config, &folder, RATE, 3).map_err(|e| e.to_string())?;
        Ok::<_, String>(augmentor.apply(tone(8_000), 0, 0).unwrap())
    };
    let files = heard(json!({"manifest_path": "list.json"})).unwrap();
    assert_ne!(files, tone(8_000));
    for archives in [json!("n_{0..1}.tar"), json!(["n_0.tar", "n_1.tar"]), json!("n_1.tar")] {
        let section = json!({"manifest_path": "list.json", "audio_tar_filepaths": archives, "shuffle_n": 100});
        assert_eq!(heard(section).unwrap(), files);
    }
    let missing = heard(json!({"manifest_path": "list.json", "audio_tar_filepaths": "n_0.tar"})).unwrap_err();
    assert!(missing.contains("`hiss.wav` is not in"), "{missing}");

    // So do answers of rooms, alone and with noises.
    let step = |name: &str, section: Value| {
        let config = Config::new("config", json!({ name: section }));
        let augmentor = Augmentor::from_config(&config, &folder, RATE, 3).map_err(|e| e.to_string())?;
        Ok::<_, String>(augmentor.apply(tone(8_000), 0, 0).unwrap())
    };
    let list = "list.json";
    let room = step("impulse", json!({"manifest_path": list})).unwrap();
    let section = json!({"manifest_path": list, "audio_tar_filepaths": "n__OP_0..1_CL_.tar"});
    assert_eq!(step("impulse", section).unwrap(), room);
    let plain = json!({
        "rir_manifest_path": list, "rir_prob": 1.0, "noise_manifest_paths": [list, list], "min_snr_db": [0, 5],
        "max_snr_db": [0, 5], "bg_noise_manifest_paths": [list], "bg_min_snr_db": 3, "bg_max_snr_db": 3,
    });
    let files = step("rir_noise_aug", plain.clone()).unwrap();
    assert_ne!(files, room);
    let mut tarred = plain.clone();
    tarred["rir_tar_filepaths"] = "n_{0..1}.tar".into();
    tarred["noise_tar_filepaths"] = json!(["n_{0..1}.tar", "n_1.tar"]);
    tarred["bg_noise_tar_filepaths"] = json!(["n_1.tar"]);
    assert_eq!(step("rir_noise_aug", tarred.clone()).unwrap(), files);
    for key in ["rir_tar_filepaths", "noise_tar_filepaths", "bg_noise_tar_filepaths"] {
        let mut wrong = tarred.clone();
        wrong[key] = if key.starts_with("noise") { json!(["n_1.tar", "n_0.tar"]) } else { json!(["n_0.tar"]) };
        let missing = step("rir_noise_aug", wrong).unwrap_err();
        assert!(missing.contains("`hiss.wav` is not in"), "{key}: {missing}");
    }
    tarred["noise_tar_filepaths"] = json!(["n_1.tar"]);
    assert!(step("rir_noise_aug", tarred).unwrap_err().contains("2 texts, one for each list"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn choices_depend_on_seed_epoch_and_place_alone() {
    let config = json!({
        "speed": {"prob": 0.5}, "shift": {"prob": 1.0}, "gain": {"prob": 0.7}, "white_noise": {"prob": 1.0},
        "time_stretch": {"prob": 0.3, "num_rates": -1}, "transcode_aug": {"prob": 0.2},
    });
    let config = Config::new("recipe", config);
    let make = |seed| Augmentor::from_config(&config, Path::new("."), RATE, seed).unwrap();
    let (one, other) = (make(1), make(2));
    let x = tone(4_000);
    let all: Vec<Vec<f32>> = (0..8).map(|i| one.apply(x.clone(), 3, i).unwrap()).collect();
    for i in (0..8).rev() {
        assert_eq!(one.apply(x.clone(), 3, i).unwrap(), all[i]);
        assert_ne!(one.apply(x.clone(), 4, i).unwrap(), all[i]);
        assert_ne!(other.apply(x.clone(), 3, i).unwrap(), all[i]);
    }
    assert!((1..8).all(|i| all[i] != all[0]));
    assert!(one.apply(vec![], 0, 0).unwrap().is_empty());
    assert!(one.apply(vec![0.5], 0, 1).unwrap().len() <= 2);
}

#[test]
fn settings_are_strict() {
    let fault = |config: serde_json::Value| {
        Augmentor::from_config(&Config::new("recipe.yaml", config), Path::new("/nowhere"), RATE, 0)
            .unwrap_err()
            .to_string()
    };
    for (config, words) in [
        (json!({"sped": {"prob": 1.0}}), "did you mean `speed`"),
        (json!({"speed": {"prob": 1.5}}), "`prob` is 1.5"),
        (json!({"speed": {"prob": 1.0, "min_rate": 1}}), "`min_rate`"),
        (json!({"speed": {"min_speed_rate": 1.2, "max_speed_rate": 1.1}}), "`max_speed_rate`"),
        (json!({"noise": {"prob": 1.0}}), "`manifest_path` is missing"),
        (json!({"noise": {"manifest_path": "x.json"}}), "/nowhere/x.json"),
        (json!({"transcode_aug": {"codecs": ["amr-nb"]}}), "`codecs`"),
        (json!({"time_stretch": {"n_fft": 500}}), "`n_fft`"),
    ] {
        let found = fault(config);
        assert!(found.contains(words), "{found}");
    }
}

axes! {
    Bands = 8;
    Wanted = 10;
}

type Given = (Tensor<(Batch, Frames, Bands)>, FrameCounts);

/// Features that are 1 everywhere, of which some are hidden in training.
fn hidden(settings: SpecAugment, frames: usize, lengths: &[i32]) -> Vec<f32> {
    let model = Model::init((), 0).unwrap();
    let graph =
        model.trace(mobilis_runtime::graph::trace::Mode::Train, |_, (x, n): Given| settings.forward(x, n)).unwrap();
    let program: Program<Given, Tensor<(Batch, Frames, Bands)>> = Program::new(model.executable(graph));
    let x: Array<(Batch, Frames, Bands)> =
        Array::from_parts(&[lengths.len(), frames, 8], vec![1.0; lengths.len() * frames * 8]);
    let n: Array<(Batch,), Lengths<Frames>> = Array::from_parts(&[lengths.len()], lengths.to_vec());
    let first = program.run((&x, &n)).unwrap().into_vec();
    assert_ne!(first, program.run((&x, &n)).unwrap().into_vec(), "each run draws anew");
    first
}

#[test]
fn masks_have_their_places_and_sizes() {
    let frames = 200;
    let settings = SpecAugment { time_masks: 2, time_width: Width::Share(0.1), ..SpecAugment::default() };
    let lengths: Vec<i32> = (0..64).map(|i| if i % 2 == 0 { 200 } else { 50 }).collect();
    let found = hidden(settings, frames, &lengths);
    let mut widest = [0, 0];
    for (row, length) in found.chunks(frames * 8).zip(&lengths) {
        let gone: Vec<bool> = row.chunks(8).map(|f| f.iter().all(|v| *v == 0.0)).collect();
        assert!(row.chunks(8).all(|f| f.iter().all(|v| *v == f[0])), "whole frames are hidden");
        let count = gone.iter().filter(|g| **g).count();
        // Widths are below a tenth of the recording's own length; two masks.
        assert!(count <= 2 * (*length as usize / 10), "{count} of {length}");
        assert!(!gone[*length as usize..].iter().any(|g| *g), "nothing behind the end is hidden");
        let i = usize::from(*length == 50);
        widest[i] = widest[i].max(count);
    }
    assert!(widest[0] > 20 && widest[1] > 4, "{widest:?}");

    let bands = SpecAugment { freq_masks: 1, freq_width: 4, mask_value: -2.0, ..SpecAugment::default() };
    let found = hidden(bands, 20, &[20; 64]);
    let counts: Vec<usize> = found.chunks(160).map(|row| row[..8].iter().filter(|v| **v == -2.0).count()).collect();
    assert!(counts.iter().all(|c| *c <= 3) && (0..4).all(|c| counts.contains(&c)), "{counts:?}");

    let cut = SpecAugment { rect_masks: 2, rect_time: 6, rect_freq: 3, ..SpecAugment::default() };
    let found = hidden(cut, 30, &[30; 32]);
    let counts: Vec<usize> = found.chunks(240).map(|row| row.iter().filter(|v| **v == 0.0).count()).collect();
    assert!(counts.iter().all(|c| *c <= 36) && counts.iter().any(|c| *c > 6), "{counts:?}");
}

#[test]
fn recordings_become_equally_long() {
    let model = Model::init((), 0).unwrap();
    let program = model.compile(|_, (x, n): Given| crop_or_pad::<Wanted, Bands, _>(x, n)).unwrap();
    let values = (0..2 * 15).flat_map(|t| [t as f32 + 1.0; 8]).collect();
    let x: Array<(Batch, Frames, Bands)> = Array::from_parts(&[2, 15, 8], values);
    let n: Array<(Batch,), Lengths<Frames>> = Array::from_parts(&[2], vec![15, 7]);
    let (y, lengths) = program.run((x, n)).unwrap();
    assert_eq!(lengths.into_vec(), [10, 10]);
    let y: Vec<f32> = y.into_vec().chunks(8).map(|f| f[0]).collect();
    // The middle ten of fifteen, and seven in the middle of ten.
    assert_eq!(y[..10], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
    assert_eq!(y[10..], [0.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 0.0, 0.0]);
}

#[test]
fn spec_augment_reads_nemos_settings() {
    let read = |config| SpecAugment::from_config(&Config::new("model", config));
    let citrinet = read(json!({"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
        "freq_masks": 2, "time_masks": 10, "freq_width": 27, "time_width": 0.05}))
    .unwrap();
    assert_eq!((citrinet.time_masks, citrinet.freq_width, citrinet.time_width), (10, 27, Width::Share(0.05)));
    let quartznet = read(json!({"rect_masks": 5, "rect_time": 120, "rect_freq": 50})).unwrap();
    assert_eq!((quartznet.rect_masks, quartznet.rect_time, quartznet.rect_freq), (5, 120, 50));
    assert!(read(json!({"time_mask": 2})).unwrap_err().to_string().contains("did you mean `time_masks`"));
    assert!(read(json!({"time_width": 1.5})).is_err());
}
