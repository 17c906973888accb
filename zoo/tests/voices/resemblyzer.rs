//! Resemblyzer's vectors against the numpy definition in double precision.

use super::{clip, distance, real, reference};
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_zoo::asr::speaker::resemblyzer::Resemblyzer;
use mobilis_zoo::asr::speaker::{self, Embedder, cosine};

#[test]
fn vectors() {
    let (Some(folder), Some(refs)) = (real("resemblyzer"), reference("resemblyzer.safetensors")) else { return };
    let tensors = Checkpoint::open(folder.join("model.safetensors")).expect("opened");
    let model = Resemblyzer::load(&tensors).unwrap_or_else(|e| panic!("{e}"));
    let refs = Checkpoint::open(refs).expect("opened");
    let mut vectors = Vec::new();
    for (folder, file, name) in
        [("librivox", "0870", "0870"), ("librivox", "0890", "0890"), ("cards", "005", "cards_005")]
    {
        let Some(recording) = clip(folder, file) else { return };
        let read = |part: &str| refs.read_wide(&format!("{name}.{part}"), DType::F32).expect("read").to_f64();
        let parts = distance(&model.parts(&recording).expect("heard").concat(), &read("partials"));
        let vector = model.embed(&recording).expect("heard");
        let whole = distance(&vector, &read("embedding"));
        println!("{name}: parts {parts:.1e}, vector {whole:.1e}");
        assert!(parts < 1e-5 && whole < 1e-5, "{name}: {parts} {whole}");
        vectors.push(vector);
    }
    let (same, other) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[0], &vectors[2]));
    assert!((same - 0.922).abs() < 1e-3 && (other - 0.647).abs() < 1e-3, "{same} {other}");
}

#[test]
fn parts_of_recordings() {
    // As the package counts them.
    assert_eq!(Resemblyzer::starts(160), [0]);
    assert_eq!(Resemblyzer::starts(16_000), [0]);
    assert_eq!(Resemblyzer::starts(32_000), [0, 77]);
    assert_eq!(Resemblyzer::starts(48_000), [0, 77, 154]);
}

#[test]
fn other_places_are_told() {
    let Some(silero) = real("silero-vad/silero_vad_16k_from_onnx.safetensors") else { return };
    let fault = speaker::open(&silero).err().expect("no speaker model").to_string();
    assert!(fault.contains("speaker model"), "{fault}");
    let Some(folder) = real("resemblyzer") else { return };
    assert!(speaker::open(&folder.join("pretrained.pt")).is_ok());
    assert!(mobilis_zoo::asr::vad::open(&folder).is_err());
}
