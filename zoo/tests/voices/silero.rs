//! Silero VAD against ONNX Runtime on the package's own file.

use super::{clip, distance, real, reference};
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_zoo::asr::vad::{self, Detector, SegmentOptions};
use std::time::Duration;

fn opened() -> Option<Box<dyn Detector>> {
    Some(vad::open(&real("silero-vad")?).unwrap_or_else(|e| panic!("{e}")))
}

/// Clips 0880 and 0930 with silence around.
fn joined() -> Option<Vec<f32>> {
    let silence = |samples: usize| vec![0.0; samples];
    Some(
        [silence(8_000), clip("librivox", "0880")?, silence(16_000), clip("librivox", "0930")?, silence(8_000)]
            .concat(),
    )
}

#[test]
fn probabilities() {
    let (Some(vad), Some(refs)) = (opened(), reference("silero_vad.safetensors")) else { return };
    let refs = Checkpoint::open(refs).expect("opened");
    for (name, recording) in [("0870", clip("librivox", "0870")), ("joined", joined())] {
        let Some(recording) = recording else { return };
        let expected = refs.read_wide(name, DType::F32).expect("read").to_f64();
        let mut found = vad.probabilities(&recording).expect("heard");
        // The reference leaves out the step that the recording does not fill.
        found.truncate(expected.len());
        let worst = distance(&found, &expected);
        println!("{name}: {worst:.1e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// Blocks of any sizes give what the whole gives, bit for bit.
#[test]
fn streams_are_as_the_whole() {
    let (Some(vad), Some(recording)) = (opened(), clip("librivox", "0870")) else { return };
    let whole = vad.probabilities(&recording).expect("heard");
    for size in [1, 511, 512, 513, 4000] {
        let mut listener = vad.listen().expect("ready");
        let few = &recording[..if size == 1 { 3000 } else { recording.len() }];
        let mut found = Vec::new();
        for block in few.chunks(size) {
            found.extend(listener.push(block).expect("heard"));
        }
        let complete = found.len();
        assert_eq!(complete, few.len() / 512);
        assert_eq!(found, whole[..complete], "blocks of {size}");
        found.extend(listener.finish().expect("heard"));
        assert_eq!(found.len(), few.len().div_ceil(512));
    }
}

#[test]
fn parts_with_speech() {
    let (Some(vad), Some(recording)) = (opened(), joined()) else { return };
    let found = vad.probabilities(&recording).expect("heard");
    let (step, length) = (Duration::from_millis(32), Duration::from_secs_f64(recording.len() as f64 / 16e3));
    let speech = vad::segments(&found, step, length, &SegmentOptions::default());
    let first = Duration::from_millis(300)..Duration::from_millis(1100);
    assert!(!speech.is_empty() && first.contains(&speech[0].start), "{speech:?}");
    assert!(speech.windows(2).all(|w| w[0].end <= w[1].start), "{speech:?}");
    assert!(speech.iter().all(|s| s.start < s.end && s.end <= length && s.confidence > 0.5), "{speech:?}");
}

#[test]
fn odd_recordings() {
    let Some(vad) = opened() else { return };
    assert!(vad.probabilities(&[]).expect("heard").is_empty());
    let silence = vad.probabilities(&[0.0; 16_000]).expect("heard");
    assert!(silence.iter().all(|p| *p < 0.2), "{silence:?}");
    // Nonsense is nonsense afterwards, but no panic, and no speech.
    let nan = vad.probabilities(&[f32::NAN; 1024]).expect("heard");
    let step = Duration::from_millis(32);
    assert!(vad::segments(&nan, step, 2 * step, &SegmentOptions::default()).is_empty());
}
