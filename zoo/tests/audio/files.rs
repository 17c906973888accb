//! Every container and codec gives the tone that was stored (`../data/audio/make.py`).

use mobilis_zoo::audio::{self, AudioError, Reader, Wanted, wav};
use std::path::PathBuf;
use std::time::Duration;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/audio").join(name)
}

/// The tone of the recordings at any rate.
fn tone(rate: u32, seconds: f64) -> Vec<f32> {
    let count = (f64::from(rate) * seconds).round() as usize;
    let phase = |t: f64| std::f64::consts::TAU * (200.0 * t + 2800.0 * t * t / 6.0);
    (0..count).map(|i| (0.4 * phase(i as f64 / f64::from(rate)).sin()) as f32).collect()
}

/// Signal over difference in dB, away from the first and last 50 ms at 16 kHz.
fn likeness(found: &[f32], expected: &[f32]) -> f64 {
    let inner = 800..expected.len().min(found.len()) - 800;
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let signal = power(&mut expected[inner.clone()].iter().copied());
    let noise = power(&mut inner.map(|i| found[i] - expected[i]));
    10.0 * (signal / noise).log10()
}

/// Files, how near they are to the tone in dB, and how exact their length is in samples at 16 kHz.
const FILES: [(&str, f64, usize); 7] = [
    ("tone.flac", 75.0, 0),
    ("tone.ogg", 20.0, 0),
    ("tone.mp3", 15.0, 0),
    ("tone.opus", 30.0, 0),
    // Opus's speech mode shifts sound by two samples; libopus gives the same. Its end is not trimmed.
    ("tone.webm", 8.0, 400),
    // Its edit list leaves out what the encoder begins and ends with.
    ("tone.m4a", 50.0, 0),
    // Bare frames say nothing of the encoder's delay: see below.
    ("tone.aac", -10.0, 2500),
];

#[test]
fn all_formats_give_the_tone() {
    let expected = tone(16_000, 3.0);
    for (name, least, off) in FILES {
        let found = audio::load(path(name), 16_000).unwrap();
        let likeness = likeness(&found, &expected);
        eprintln!("{name}: {likeness:.1} dB, {} samples", found.len());
        assert!(likeness > least, "{name} is {likeness:.1} dB like the tone");
        assert!(found.len().abs_diff(expected.len()) <= off, "{name} has {} samples", found.len());
    }
    // AAC's encoder delay is 1024 samples at 22,050 Hz: 743 at 16 kHz.
    let found = audio::load(path("tone.aac"), 16_000).unwrap();
    let best = (700..790).map(|d| likeness(&found[d..], &expected[..46_000])).fold(f64::MIN, f64::max);
    assert!(best > 12.0, "tone.aac: {best}");
}

/// What codecs put before the recording and behind it is left out to the sample.
#[test]
fn recordings_begin_and_end_where_they_did() {
    let expected = tone(22_050, 3.0);
    for (name, off) in [("tone.mp3", 0.03), ("tone.m4a", 0.01), ("tone.ogg", 0.03)] {
        let found = audio::load(path(name), 22_050).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for part in [0..300, 65_850..66_150] {
            let worst = part.map(|i| (found[i] - expected[i]).abs()).fold(0.0, f32::max);
            assert!(worst < off, "{name} is off by {worst} at an end");
        }
    }
}

#[test]
fn sample_formats_are_scaled() {
    let expected = tone(22_050, 4_000.0 / 22_050.0);
    for (name, off) in [
        ("u8.wav", 8e-3),
        ("ulaw.wav", 1e-2),
        ("alaw.wav", 1e-2),
        ("s24.wav", 2e-7),
        ("f64.wav", 1e-7),
        ("s16.aiff", 4e-5),
    ] {
        let found = audio::load(path(name), 22_050).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < off, "{name} is off by {worst}");
    }
}

#[test]
fn a_part_is_the_same_as_the_whole_cut() {
    for (name, _, _) in FILES {
        // At the recording's own rate, so that no filter sees the cut.
        let own = Wanted { rate: None, ..Wanted::at(1) };
        let mut reader = Reader::open(path(name), &own).unwrap();
        let first = reader.next().unwrap().unwrap();
        let rate = reader.rate();
        let whole = [first, reader.collect_samples().unwrap()].concat();
        for (offset, duration) in
            [(0, Some(400)), (300, None), (1_000, Some(500)), (2_300, Some(250)), (2_500, None), (2_900, Some(5_000))]
        {
            let wanted = own.clone().part(Duration::from_millis(offset), duration.map(Duration::from_millis));
            let part = Reader::open(path(name), &wanted).unwrap().collect_samples().unwrap();
            let start = (offset * u64::from(rate)).div_euclid(1000) as usize;
            let end =
                duration.map_or(whole.len(), |d| (start + (d * u64::from(rate) / 1000) as usize).min(whole.len()));
            assert!(
                part.len().abs_diff(end - start) <= 1,
                "{name} from {offset} ms: {} for {}",
                part.len(),
                end - start
            );
            // A rounding of the start by one sample is seen in no difference above the tone's slope.
            let worst = part.iter().zip(&whole[start..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let shifted =
                part.iter().zip(&whole[(start + 1).min(whole.len())..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Opus needs longer than half a second until a decoder that starts late agrees.
            let off = if name.ends_with("opus") || name.ends_with("webm") { 2e-2 } else { 1e-4 };
            assert!(worst.min(shifted) < off, "{name} from {offset} ms is off by {worst}");
        }
        let beyond = Reader::open(path(name), &Wanted::at(16_000).part(Duration::from_secs(9), None));
        let beyond = beyond.and_then(Reader::collect_samples);
        assert!(matches!(beyond, Err(AudioError::Beyond { .. })), "{name}: {beyond:?}");
    }
}

#[test]
fn streams_and_bytes_give_what_files_give() {
    for (name, _, _) in FILES {
        let bytes = std::fs::read(path(name)).unwrap();
        let wanted = Wanted::at(16_000);
        let file = audio::load(path(name), 16_000).unwrap();
        let memory = Reader::bytes(name, bytes.clone(), &wanted).unwrap().collect_samples().unwrap();
        assert_eq!(memory, file, "{name}");
        let stream = Reader::stream(name, std::io::Cursor::new(bytes), &wanted).and_then(Reader::collect_samples);
        match stream {
            Ok(samples) => {
                let start = samples.len().min(file.len()) - 1000;
                assert_eq!(samples[..start], file[..start], "{name}");
            }
            // Its table of contents is at its end.
            Err(e) => assert!(name == "tone.m4a" && e.to_string().contains("from a stream"), "{name}: {e}"),
        }
    }
}

#[test]
fn channels_are_mixed_or_chosen() {
    let rate = 16_000;
    let left = tone(rate, 0.2);
    let eight: Vec<f32> = left.iter().flat_map(|v| (0..8).map(move |c| v * c as f32 / 8.0)).collect();
    let bytes = wav::encode(&eight, rate, 8, wav::Stored::Float32).unwrap();
    let read = |wanted: Wanted| Reader::bytes("eight.wav", bytes.clone(), &wanted).and_then(Reader::collect_samples);
    let near = |found: &[f32], scale: f32| {
        assert_eq!(found.len(), left.len());
        assert!(found.iter().zip(&left).all(|(f, l)| (f - l * scale).abs() < 1e-6));
    };
    near(&read(Wanted::at(rate)).unwrap(), 28.0 / 64.0);
    near(&read(Wanted::at(rate).channel(5)).unwrap(), 5.0 / 8.0);
    let error = read(Wanted::at(rate).channel(8)).unwrap_err().to_string();
    assert_eq!(error, "channel 8 of `eight.wav` was asked for; it has 8, counted from 0");
}

#[test]
fn written_files_are_read_back() {
    let x = [0.0, 0.5, -0.5, 1.0, -1.0, 2.0];
    let folder = std::env::temp_dir().join(format!("mobilis-audio-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    wav::write(folder.join("x.wav"), &x, 8_000).unwrap();
    let y = audio::load(folder.join("x.wav"), 8_000).unwrap();
    assert_eq!(y, [0.0, 0.5, -0.5, 32_767.0 / 32_768.0, -1.0, 32_767.0 / 32_768.0]);
    let floats = wav::encode(&x, 8_000, 2, wav::Stored::Float32).unwrap();
    assert_eq!(
        Reader::bytes("x", floats, &Wanted::at(8_000).channel(1)).unwrap().collect_samples().unwrap(),
        [0.5, 1.0, 2.0]
    );
    assert!(wav::encode(&x, 8_000, 4, wav::Stored::Int16).is_err());
    std::fs::remove_dir_all(folder).unwrap();
}
