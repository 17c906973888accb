//! Features against the reference implementations (`../data/features.py`, and the folders of
//! reference data where they are), and what holds for all of them.

use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::ops::reduce;
use mobilis_runtime::prelude::*;
use mobilis_runtime::transforms::grad::gradients;
use mobilis_zoo::audio::features::{
    Extractor, Fbank, Features, SampleCounts, Settings, Shape, Sound, Version, normalized,
};
use mobilis_zoo::audio::{self, Batch, Mels, Samples};
use mobilis_zoo::llm::config::Config;
use serde_json::json;
use std::path::{Path, PathBuf};

fn fixture() -> Checkpoint {
    Checkpoint::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/features.safetensors")).unwrap()
}

fn values(from: &Checkpoint, name: &str) -> Vec<f32> {
    from.read_wide(name, DType::F32).unwrap().to_f64().into_iter().map(|v| v as f32).collect()
}

fn close(found: &[f32], expected: &[f32], off: f32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= off, "{name} is off by {worst}");
}

fn all() -> Vec<(&'static str, Features, f32)> {
    let nemo = |config: serde_json::Value, version| Features::nemo(&Config::new("test", config), version).unwrap();
    let fbank = |f: Fbank| Features::kaldi(f).unwrap();
    vec![
        (
            "mfcc",
            nemo(
                json!({"_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor", "window_size": 0.025,
                    "window_stride": 0.01, "window": "hann", "n_mels": 64, "n_mfcc": 40, "n_fft": 512}),
                Version::NEW,
            ),
            2e-3,
        ),
        (
            "mfcc_decibels",
            nemo(
                json!({"_target_": "AudioToMFCCPreprocessor", "window_size": 0.025, "n_mels": 64, "n_mfcc": 13,
                    "n_fft": 512, "log": false}),
                Version::NEW,
            ),
            2e-2,
        ),
        ("fbank", fbank(Fbank::default()), 1e-3),
        (
            "fbank_80",
            fbank(Fbank {
                num_mel_bins: 80,
                use_energy: true,
                window_type: Shape::Hamming,
                scale: 32768.0,
                ..Fbank::default()
            }),
            1e-3,
        ),
        (
            "fbank_whole",
            fbank(Fbank {
                num_mel_bins: 40,
                snip_edges: false,
                high_freq: -400.0,
                raw_energy: false,
                use_energy: true,
                energy_floor: 0.0,
                subtract_mean: true,
                use_power: false,
                ..Fbank::default()
            }),
            1e-3,
        ),
        ("librosa", Features::spectral(Settings::librosa(16_000, 400, 160, 40)).unwrap(), 1e-4),
        (
            "nemo_1",
            nemo(
                json!({"window_size": 0.025, "window_stride": 0.01, "n_fft": 512, "features": 80, "pad_to": 0}),
                Version::parse(Some("1.23.0")),
            ),
            5e-4,
        ),
    ]
}

#[test]
fn all_agree_with_the_references() {
    let fixture = fixture();
    let x = values(&fixture, "audio");
    for (name, features, off) in all() {
        let found = Extractor::new(features, Device::Cpu).unwrap().run(&[&x]).unwrap();
        close(found.of(0), &values(&fixture, name), off, name);
    }
}

#[test]
fn neither_padding_nor_company_changes_a_frame() {
    let x = values(&fixture(), "audio");
    let long: Vec<f32> = x.iter().cycle().map(|v| v * 0.9).take(14_321).collect();
    for (name, features, _) in all() {
        let extractor = Extractor::new(features, Device::Cpu).unwrap();
        for length in [0, 1, 37, 400, 1_600, 5_999] {
            let alone = extractor.run(&[&x[..length]]).unwrap();
            assert_eq!(alone.counted[0], extractor.features().frames(length), "{name} of {length}");
            assert!(alone.counted[0] <= alone.frames, "{name} of {length}");
            assert!(alone.values.iter().all(|v| v.is_finite()), "{name} of {length}");
            let both = extractor.run(&[&long, &x[..length]]).unwrap();
            assert_eq!(both.counted[1], alone.counted[0]);
            assert!(both.of(1) == alone.of(0), "{name} of {length} depends on the batch");
            let behind = &both.values[both.frames * both.width + alone.of(0).len()..];
            assert!(behind.iter().all(|v| *v == 0.0), "{name} of {length}");
        }
    }
}

#[test]
fn samples_are_normalized_as_wav2vec2_hears_them() {
    let fixture = fixture();
    let x = values(&fixture, "audio");
    let model = Model::init((), 0).unwrap();
    let program = model.compile(|_, (x, n): (Tensor<(Batch, Samples)>, SampleCounts)| normalized(x, n)).unwrap();
    let mut rows = vec![0.5; 2 * 8_000];
    rows[..x.len()].copy_from_slice(&x);
    let x: Array<(Batch, Samples)> = Array::from_parts(&[2, 8_000], rows);
    let lengths: Array<(Batch,), Lengths<Samples>> = Array::from_parts(&[2], vec![5_999, 8_000]);
    let found = program.run((x, lengths)).unwrap().into_vec();
    close(&found[..5_999], &values(&fixture, "wav2vec2"), 2e-5, "wav2vec2");
    assert!(found[5_999..8_000].iter().all(|v| *v == 0.0));
}

#[test]
fn whispers_spectrogram() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/real/refs/whisper_tiny_en.safetensors");
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mobilis/real");
    let clips = std::env::var_os("MOBILIS_REAL").map_or_else(cache, PathBuf::from).join("speech/librivox");
    let clip = std::fs::read_dir(&clips)
        .ok()
        .and_then(|files| files.flatten().map(|f| f.path()).find(|p| p.to_string_lossy().ends_with("0890.wav")));
    let (Some(clip), true) = (clip, reference.exists()) else {
        println!("skipped: {} or {} is absent", clips.display(), reference.display());
        return;
    };
    let reference = Checkpoint::open(&reference).unwrap();
    let features = Features::spectral(Settings::whisper(80)).unwrap();
    let filters = features.settings().unwrap().filters();
    close(&filters, &values(&reference, "mel_filters"), 1e-7, "mel_filters");
    let samples = audio::load(clip, 16_000).unwrap();
    let found = Extractor::new(features, Device::Cpu).unwrap().run(&[&samples]).unwrap();
    assert_eq!((found.frames, found.width, found.counted[0]), (3000, 80, 3000));
    let across: Vec<f32> = (0..80).flat_map(|m| (0..3000).map(move |t| t * 80 + m)).map(|i| found.values[i]).collect();
    close(&across, &values(&reference, "mel"), 1e-4, "mel");
}

#[test]
fn resemblyzers_spectrogram() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/real/refs/resemblyzer.safetensors");
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mobilis/real");
    let clips = std::env::var_os("MOBILIS_REAL").map_or_else(cache, PathBuf::from).join("speech/librivox");
    let clip = std::fs::read_dir(&clips)
        .ok()
        .and_then(|files| files.flatten().map(|f| f.path()).find(|p| p.to_string_lossy().ends_with("0890.wav")));
    let (Some(clip), true) = (clip, reference.exists()) else {
        println!("skipped: {} or {} is absent", clips.display(), reference.display());
        return;
    };
    let expected = values(&Checkpoint::open(&reference).unwrap(), "0890.mel");
    let samples = audio::load(clip, 16_000).unwrap();
    let features = Features::spectral(Settings::librosa(16_000, 400, 160, 40)).unwrap();
    let found = Extractor::new(features, Device::Cpu).unwrap().run(&[&samples]).unwrap();
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // The reference fills the recording up with silence.
    close(found.of(0), &expected[..found.of(0).len()], 1e-5 * largest, "mel");
}

#[test]
fn a_wrong_width_is_seen() {
    let features = Features::spectral(Settings::librosa(16_000, 400, 160, 40)).unwrap();
    let (sound, counts) = features.pack(&[&[0.0; 1_000]]);
    let model = Model::init_with(features, 0, Sizes::new().with::<Mels>(41)).unwrap();
    let program = model.compile(|f, (x, n): (Sound, SampleCounts)| f.forward::<Mels>(x, n).0).unwrap();
    let error = program.run((sound, counts)).unwrap_err().to_string();
    assert!(error.contains("filters"), "{error}");
}

#[test]
fn settings_are_strict() {
    let fault = |config: serde_json::Value| {
        Features::nemo(&Config::new("model.yaml", config), Version::NEW).unwrap_err().to_string()
    };
    let unknown = fault(json!({"featurs": 80}));
    assert!(unknown.starts_with("model.yaml: `featurs` is not a setting of these features"), "{unknown}");
    assert!(unknown.contains("did you mean `features`"), "{unknown}");
    for (config, words) in [
        (json!({"window": "kaiser"}), "`window`"),
        (json!({"n_fft": 100}), "n_fft"),
        (json!({"window_stride": 0}), "window_stride"),
        (json!({"highfreq": 9000}), "highfreq"),
        (json!({"features": 0}), "features"),
        (json!({"sample_rate": 0}), "sample_rate"),
        (json!({"n_fft": 4_000_000_000u64}), "n_fft"),
        (json!({"normalize": {"fixed_mean": [1.0], "fixed_std": [1.0]}}), "fixed_mean"),
        (json!({"_target_": "nemo.AudioToSpectrogram"}), "AudioToSpectrogram"),
    ] {
        let found = fault(config);
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn nemos_configurations() {
    let given = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    let root = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden"));
    let folder = root.join("nemo_mel");
    if !folder.exists() {
        println!("skipped: {} is absent", folder.display());
        return;
    }
    let report = mobilis_zoo::verify::verify(&folder, "config.json", Device::Cpu).unwrap();
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(report.checks.len(), 28);
}

axes! {
    /// Frames and features of a few samples.
    Cut = 7;
    Bands = 6;
}

/// Each kind with a transform of 32 samples, so that a gradient by every sample is soon taken.
fn small() -> Vec<(&'static str, Features)> {
    let tiny = |s: Settings| {
        let small = Settings { window_length: 24, n_fft: 32, hop: 16, pad: 16, mels: 6, dither: 0.0, ..s };
        Features::spectral(Settings { cepstra: small.cepstra.map(|_| 6), least_samples: 0, ..small }).unwrap()
    };
    let fbank = Fbank { sample_frequency: 8_000, frame_length: 3.0, frame_shift: 2.0, ..Fbank::default() };
    vec![
        ("nemo", tiny(Settings::nemo(Version::NEW))),
        ("nemo_1", tiny(Settings::nemo(Version::parse(Some("1.23.0"))))),
        ("mfcc", tiny(Settings::mfcc())),
        ("whisper", tiny(Settings::whisper(80))),
        ("magnitudes", tiny(Settings { power: 1.0, ..Settings::librosa(16_000, 32, 16, 6) })),
        ("fbank", Features::kaldi(Fbank { num_mel_bins: 6, snip_edges: false, ..fbank }).unwrap()),
    ]
}

type Weighed = (Tensor<(Batch, Samples)>, SampleCounts, Tensor<(Batch, Cut, Bands)>);
type Found = (Tensor<(Batch, Cut, Bands)>, Tensor<()>, Tensor<(Batch, Samples)>);

/// Features, their sum with weights, and its gradient by the samples.
fn differentiated(features: &Features, device: Device) -> Program<Weighed, Found> {
    let model = Model::init(features.clone(), 0).unwrap().on(device);
    let program = model.compile(|f, (x, n, weights): Weighed| {
        let (y, _) = f.of_samples::<Cut, Bands>(x, n);
        let y: Tensor<(Batch, Cut, Bands)> = Tensor::from_raw(y.raw());
        let loss = reduce::reduce((y * weights).raw(), reduce::Kind::Sum, &[0, 1, 2]);
        let gradient = gradients(loss, &[x.raw()])[0];
        (y, Tensor::from_raw(loss), Tensor::from_raw(gradient))
    });
    program.unwrap()
}

/// The gradient by every sample equals differences, and all devices agree on both.
#[test]
fn gradients_reach_the_samples_on_every_device() {
    const SAMPLES: usize = 96;
    // Steps of this size are exact in `f32`.
    const STEP: f32 = 1.0 / 64.0;
    let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 22) as f32 / 512.0 - 1.0;
    let x: Vec<f32> = (0..2 * SAMPLES).map(noise).collect();
    let counts: Array<(Batch,), Lengths<Samples>> = Array::from_parts(&[2], vec![96, 61]);
    let weights: Array<(Batch, Cut, Bands)> = Array::from_parts(&[2, 7, 6], (0..84).map(|i| noise(i + 999)).collect());
    for (name, features) in small() {
        let mut expected: Option<[Vec<f32>; 2]> = None;
        for device in [Device::Reference, Device::Cpu, Device::Emulated] {
            if let Err(why) = device.found() {
                println!("{name}: without {device}: {why}");
                continue;
            }
            let program = differentiated(&features, device);
            let run = |x: &[f32]| {
                let x: Array<(Batch, Samples)> = Array::from_parts(&[2, SAMPLES], x.to_vec());
                let (y, loss, gradient) = program.run((x, &counts, &weights)).unwrap();
                (y.into_vec(), f64::from(loss.data()[0]), gradient.into_vec())
            };
            let (y, _, gradient) = run(&x);
            let Some([first, slope]) = &expected else {
                let largest = gradient.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert!(largest > 1e-4, "{name}: a gradient of {largest}");
                // Samples of each place of a hop: the reference takes its time.
                for i in (0..x.len()).step_by(19) {
                    let moved = |steps: f32| {
                        let mut x = x.clone();
                        x[i] += steps * STEP;
                        run(&x).1
                    };
                    // Central differences of the fourth order.
                    let slope =
                        (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * f64::from(STEP));
                    let off = (slope as f32 - gradient[i]).abs();
                    // Steps that are exact are not small beside what logarithms bend.
                    assert!(off < 1e-2 * largest, "{name} by sample {i}: {} is {slope}", gradient[i]);
                }
                // What stands behind the end has none.
                assert!(gradient[SAMPLES + 61..].iter().all(|v| *v == 0.0), "{name}");
                expected = Some([y, gradient]);
                continue;
            };
            let largest = |v: &[f32]| v.iter().fold(0f32, |m, v| m.max(v.abs()));
            close(&y, first, 2e-3 * largest(first), &format!("{name} on {device}"));
            close(&gradient, slope, 2e-3 * largest(slope), &format!("{name}'s gradient on {device}"));
        }
    }
}

/// Kaldi's `compute-fbank-feats` and `compute-mfcc-feats` once more, in double precision and as they are written down:
/// one frame after another, a sum over samples for each frequency.
fn as_kaldi_has_it(x: &[f32], o: &Fbank) -> Vec<Vec<f64>> {
    use std::f64::consts::PI;
    let rate = f64::from(o.sample_frequency);
    let (length, shift) = ((rate * o.frame_length / 1000.0) as usize, (rate * o.frame_shift / 1000.0) as usize);
    let n = length.next_power_of_two();
    let mel = |f: f64| 1127.0 * (1.0 + f / 700.0).ln();
    let high = if o.high_freq > 0.0 { o.high_freq } else { rate / 2.0 + o.high_freq };
    let step = (mel(high) - mel(o.low_freq)) / (o.num_mel_bins + 1) as f64;
    let floored = |e: f64| e.max(f64::from(f32::EPSILON)).ln();
    let frame = |t: usize| -> Vec<f64> {
        let mut w: Vec<f64> = x[t * shift..][..length].iter().map(|v| f64::from(*v) * o.scale).collect();
        let mean = w.iter().sum::<f64>() / length as f64;
        w.iter_mut().for_each(|v| *v -= mean);
        let energy = floored(w.iter().map(|v| v * v).sum());
        for i in (1..length).rev() {
            w[i] -= o.preemphasis_coefficient * w[i - 1];
        }
        w[0] -= o.preemphasis_coefficient * w[0];
        for (i, v) in w.iter_mut().enumerate() {
            *v *= (0.5 - 0.5 * (2.0 * PI * i as f64 / (length - 1) as f64).cos()).powf(0.85);
        }
        let power = |k: usize| {
            let at = |i: usize| -2.0 * PI * (k * i % n) as f64 / n as f64;
            let sum = |f: fn(f64) -> f64| w.iter().enumerate().map(|(i, v)| v * f(at(i))).sum::<f64>();
            sum(f64::cos).powi(2) + sum(f64::sin).powi(2)
        };
        let powers: Vec<f64> = (0..n / 2).map(power).collect();
        let filter = |b: usize| {
            let left = mel(o.low_freq) + b as f64 * step;
            let weight = |m: f64| ((m - left) / step).min((left + 2.0 * step - m) / step).max(0.0);
            floored(powers.iter().enumerate().map(|(k, p)| p * weight(mel(k as f64 * rate / n as f64))).sum())
        };
        let bands: Vec<f64> = (0..o.num_mel_bins).map(filter).collect();
        let Some(kept) = o.num_ceps else { return bands };
        let m = o.num_mel_bins as f64;
        let cepstrum = |k: usize| {
            let scale = (if k == 0 { 1.0 } else { 2.0 } / m).sqrt();
            let sum: f64 =
                bands.iter().enumerate().map(|(i, b)| b * (PI / m * (i as f64 + 0.5) * k as f64).cos()).sum();
            let lift = 1.0 + 0.5 * o.cepstral_lifter * (PI * k as f64 / o.cepstral_lifter).sin();
            if k == 0 && o.use_energy { energy } else { scale * sum * lift }
        };
        (0..kept).map(cepstrum).collect()
    };
    (0..(x.len() - length) / shift + 1).map(frame).collect()
}

#[test]
fn settings_files_of_kaldi_mean_what_they_say() {
    let folder = std::env::temp_dir().join(format!("mobilis-conf-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let x: Vec<f32> = values(&fixture(), "audio").into_iter().take(2_000).collect();
    for (name, text) in [
        ("fbank.conf", "--num-mel-bins=40\n--low-freq=40\n--high-freq=-200\n--dither=0"),
        ("mfcc.conf", "# ten ceps\n--num-ceps=10\n--dither=0\n"),
        ("mfcc_hires.conf", "--use-energy=false\n--num-mel-bins=30\n--num-ceps=30\n--sample-frequency=8000\n"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
        let features = Features::kaldi_conf(&folder.join(name)).unwrap();
        let read = if name.starts_with("mfcc") { Fbank::mfcc_conf } else { Fbank::fbank_conf };
        let expected = as_kaldi_has_it(&x, &read(name, text).unwrap());
        assert_eq!(features.width(), expected[0].len());
        let found = Extractor::new(features, Device::Cpu).unwrap().run(&[&x]).unwrap();
        let expected: Vec<f32> = expected.concat().into_iter().map(|v| v as f32).collect();
        close(found.of(0), &expected, 5e-3, name);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
