//! The speaker models of NeMo: bodies, pooling and loss against the definitions written down in PyTorch
//! (`zoo/tests/data/voices.py`), and whole archives.

use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::prelude::*;
use mobilis_zoo::asr::conv::{AnyConv, ConvAxes, ConvEncoder, ConvSettings, Counts, FeaturesOf};
use mobilis_zoo::asr::speaker;
use mobilis_zoo::asr::speaker::ecapa::{Ecapa, EcapaSettings};
use mobilis_zoo::asr::speaker::loss::angular_margin;
use mobilis_zoo::asr::speaker::nemo::Body;
use mobilis_zoo::asr::speaker::pooling::{Embedding, SpeakerDecoder};
use mobilis_zoo::audio::{Batch, Frames};
use mobilis_zoo::llm::config::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

type A = AnyConv;

#[neural_module(no_default)]
struct Speaker {
    encoder: Body,
    decoder: SpeakerDecoder<A>,
}

fn data() -> Checkpoint {
    Checkpoint::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/voices.safetensors")).expect("opened")
}

pub(super) fn titanet(features: u64, filters: u64, last: u64) -> Value {
    let block = |filters: u64, kernel: u64, repeat: u64, residual: bool| {
        json!({"filters": filters, "kernel": [kernel], "repeat": repeat, "residual": residual, "stride": [1],
               "dilation": [1], "dropout": 0.0, "separable": true, "se": true, "se_context_size": -1})
    };
    let jasper = [block(filters, 3, 1, false), block(filters, 7, 3, true), block(last, 1, 1, false)];
    json!({"feat_in": features, "activation": "relu", "conv_mask": true, "jasper": jasper})
}

fn body(name: &str) -> (Body, Sizes) {
    match name {
        "titanet" => {
            let settings = ConvSettings::nemo(&Config::new("encoder", titanet(8, 16, 24))).expect("read");
            (Body::Conv(ConvEncoder::new(&settings)), ConvEncoder::<A>::sizes(&settings))
        }
        _ => {
            let config = json!({"feat_in": 8, "filters": [16, 16, 16, 32], "kernel_sizes": [5, 3, 3, 1],
                                "dilations": [1, 2, 3, 1], "scale": 4});
            let settings = EcapaSettings::nemo(&Config::new("encoder", config)).expect("read");
            (Body::Ecapa(Ecapa::new(&settings)), Ecapa::<A>::sizes(&settings))
        }
    }
}

type Said = (Tensor<(Batch, Embedding)>, Tensor<(Batch, <A as ConvAxes>::Classes), Logits>);

fn said(m: &Speaker, (x, lengths): (FeaturesOf<A>, Counts<Frames>)) -> Said {
    let (x, lengths) = match &m.encoder {
        Body::Conv(body) => body.forward(x, lengths),
        Body::Ecapa(body) => body.forward(x, lengths),
    };
    m.decoder.forward(x, lengths)
}

#[test]
fn bodies_and_pooling() {
    let data = data();
    for name in ["titanet", "ecapa"] {
        let (encoder, sizes) = body(name);
        let module = Speaker { encoder, decoder: SpeakerDecoder::new(&[12], true) };
        let options = LoadOptions::new().sizes(sizes).prefix(&format!("{name}.model."));
        let model = options.load(module, &data as &dyn Source).unwrap_or_else(|e| panic!("{e}"));
        let program = model.compile(said).unwrap_or_else(|e| panic!("{e}"));
        let read = |part: &str| data.read_wide(&format!("{name}.{part}"), DType::F32).expect("read").to_f64();
        let x: Vec<f32> = read("x").into_iter().map(|v| v as f32).collect();
        type X = Array<(Batch, Frames, <A as ConvAxes>::Features)>;
        type N = Array<(Batch,), Lengths<Frames>>;
        let run = |x: X, n: Vec<i32>| {
            let n: N = Array::from_parts(&[n.len()], n);
            program.run((x, n)).unwrap_or_else(|e| panic!("{e}"))
        };
        let (vectors, logits) = run(Array::from_parts(&[2, 20, 8], x.clone()), vec![20, 13]);
        for (part, found) in [("embedding", vectors.data()), ("logits", logits.data())] {
            let expected = read(part);
            let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
            let worst = super::distance(found, &expected);
            println!("{name} {part}: {worst:.1e} of {largest:.2}");
            assert!(worst <= 1e-5 * largest + 1e-6, "{name} {part}: {worst}");
        }
        // Alone, and without padding: the same.
        let alone = run(Array::from_parts(&[1, 13, 8], x[20 * 8..33 * 8].to_vec()), vec![13]).0;
        let worst = alone.data().iter().zip(&vectors.data()[12..]).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst <= 2e-6, "{name}: {worst}");
    }
}

axes! { Rows; Speakers; }

#[test]
fn margin() {
    #[neural_module]
    struct Nothing;
    let data = data();
    let model = Model::init(Nothing, 0).expect("made");
    let program = model
        .compile(|_, (x, y): (Tensor![Rows, Speakers], Tensor![Rows; Index])| {
            let loss = angular_margin(x, y, 30.0, 0.2);
            (loss, loss.gradient(x))
        })
        .expect("compiled");
    let read = |name: &str| data.read_wide(name, DType::F32).expect("read").to_f64();
    let logits: Vec<f32> = read("aam.logits").into_iter().map(|v| v as f32).collect();
    let labels = data.read("aam.labels", DType::I32).expect("read").to_f64().iter().map(|v| *v as i32).collect();
    let x: Array![Rows, Speakers] = Array::from_parts(&[6, 5], logits);
    let y: Array![Rows; Index] = Array::from_parts(&[6], labels);
    let (loss, gradient) = program.run((x, y)).expect("run");
    let expected = read("aam.loss")[0];
    assert!((f64::from(loss.data()[0]) - expected).abs() < 1e-4 * expected.abs(), "{:?} {expected}", loss.data());
    assert!(gradient.data().iter().all(|g| g.is_finite()));
}

/// A folder as an archive unpacks, with random weights.
pub(super) fn written(scratch: &Path, encoder: Value) {
    let config = json!({
        "target": "nemo.collections.asr.models.label_models.EncDecSpeakerLabelModel", "nemo_version": "2.5.0",
        "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "normalize": "per_feature", "window_size": 0.025, "sample_rate": 16000, "window_stride": 0.01,
            "window": "hann", "features": 80, "n_fft": 512, "frame_splicing": 1, "dither": 1e-5},
        "encoder": encoder,
        "decoder": {"feat_in": 96, "num_classes": 7, "pool_mode": "attention", "emb_sizes": 192, "angular": true},
    });
    std::fs::write(scratch.join("config.json"), config.to_string()).expect("written");
    let encoder = ConvSettings::nemo(&Config::new("encoder", config["encoder"].clone())).expect("read");
    let module =
        Speaker { encoder: Body::Conv(ConvEncoder::new(&encoder)), decoder: SpeakerDecoder::new(&[192], true) };
    let sizes = ConvEncoder::<A>::sizes(&encoder).with::<<A as ConvAxes>::Classes>(7).with::<Embedding>(192);
    let model = Model::init_with(module, 5, sizes).expect("made");
    model.save(scratch).expect("saved");
}

#[test]
fn archives_know_voices() {
    let scratch = std::env::temp_dir().join(format!("mobilis-titanet-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("made");
    written(&scratch, titanet(80, 32, 96));
    let model = speaker::open(&scratch).unwrap_or_else(|e| panic!("{e}"));
    let sound: Vec<f32> = (0..20_000).map(|i| (i as f32 * 0.05).sin() * (i as f32 * 0.0007).cos() * 0.3).collect();
    let vector = model.embed(&sound).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((vector.len(), model.sample_rate()), (192, 16_000));
    assert!((speaker::cosine(&vector, &vector) - 1.0).abs() < 1e-9);
    assert!(model.embed(&[0.0; 10]).is_err());
    // The same through an archive.
    let whole = mobilis_zoo::import::Pretrained::open(&scratch.display().to_string()).expect("opened");
    let path = scratch.join("again.nemo");
    mobilis_zoo::export::export(&whole, &path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let again = speaker::open(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.embed(&sound).expect("heard"), vector);
    let _ = std::fs::remove_dir_all(&scratch);
}
