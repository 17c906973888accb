//! Recordings that are broken, mislabelled, extreme or endless: a clear error or a right result,
//! in bounded memory.

use mobilis_zoo::audio::{self, AudioError, Reader, Wanted, wav};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/audio").join(name)
}

fn read(bytes: impl Into<Vec<u8>>) -> Result<Vec<f32>, AudioError> {
    Reader::bytes("it", bytes.into(), &Wanted::at(16_000)).and_then(Reader::collect_samples)
}

#[test]
fn what_is_no_recording_is_refused() {
    assert_eq!(
        read([]).unwrap_err().to_string(),
        "`it` is empty, where a recording is expected (WAV, AIFF, FLAC, MP3, AAC, MP4 and M4A, Matroska and WebM, or OGG with Vorbis, Opus or FLAC)"
    );
    for bytes in [b"#!/bin/sh\necho no sound\n".to_vec(), vec![0; 100_000], b"RIFF".to_vec(), b"OggS".to_vec()] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, AudioError::Format { .. }), "{error}");
    }
    let missing = audio::load("/nowhere/x.wav", 16_000).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open `/nowhere/x.wav`"), "{missing}");
    let folder = audio::load(env!("CARGO_MANIFEST_DIR"), 16_000).unwrap_err().to_string();
    assert!(folder.contains("it is a folder"), "{folder}");
}

#[test]
fn a_wrong_name_does_no_harm() {
    let folder = std::env::temp_dir().join(format!("mobilis-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (from, to) in [("tone.flac", "x.mp3"), ("tone.mp3", "x.wav"), ("tone.opus", "x.flac"), ("u8.wav", "x")] {
        std::fs::copy(path(from), folder.join(to)).unwrap();
        assert_eq!(audio::load(folder.join(to), 16_000).unwrap(), audio::load(path(from), 16_000).unwrap());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Every file cut after every so many bytes: never a panic, and an error where sound is missing.
#[test]
fn cut_files_tell_so_or_give_what_is_there() {
    for name in ["tone.flac", "tone.ogg", "tone.mp3", "tone.opus", "tone.webm", "tone.m4a", "tone.aac", "s24.wav"] {
        let bytes = std::fs::read(path(name)).unwrap();
        let whole = read(bytes.clone()).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 12) {
            match read(&bytes[..cut]) {
                Ok(samples) => assert!(samples.len() <= whole.len(), "{name} cut at {cut}"),
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        }
        // What stands before the cut is given before the error.
        let reader = Reader::bytes(name, bytes[..bytes.len() * 2 / 3].to_vec(), &Wanted::at(16_000));
        let Ok(reader) = reader else { continue };
        let (mut given, mut error) = (0, None);
        for block in reader {
            match block {
                Ok(block) => given += block.len(),
                Err(e) => error = Some(e),
            }
        }
        if name == "s24.wav" || name == "tone.flac" {
            assert!(matches!(error, Some(AudioError::Truncated { .. })), "{name}: {error:?}");
            assert!(given > whole.len() / 2, "{name}: {given} of {}", whole.len());
        }
    }
}

/// Bytes changed at random: never a panic or a hang. A few files of each kind; `MOBILIS_FUZZ_SECONDS=300` makes it
/// minutes.
#[test]
fn damaged_files_are_survived() {
    let limit = std::env::var("MOBILIS_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for name in
        ["tone.flac", "tone.ogg", "tone.mp3", "tone.opus", "tone.webm", "tone.m4a", "tone.aac", "u8.wav", "s16.aiff"]
    {
        let bytes = std::fs::read(path(name)).unwrap();
        let (mut round, begun) = (0, Instant::now());
        while limit.map_or(round < 12, |limit| begun.elapsed() < limit) {
            let mut broken = bytes.clone();
            let reach = if round % 2 == 0 { 200.min(broken.len()) } else { broken.len() };
            for _ in 0..1 + round % 12 {
                broken[random() % reach] = random() as u8;
            }
            let started = Instant::now();
            if let Ok(samples) = read(broken) {
                assert!(samples.iter().all(|v| v.is_finite()));
            }
            // A hang, and no machine that is busy with something else.
            assert!(started.elapsed() < Duration::from_secs(300), "{name} took {:?}", started.elapsed());
            round += 1;
        }
    }
}

fn float_wav(samples: &[f32], rate: u32) -> Vec<u8> {
    wav::encode(samples, rate, 1, wav::Stored::Float32).unwrap()
}

#[test]
fn silence_and_nothing_are_recordings() {
    assert_eq!(read(float_wav(&[], 16_000)).unwrap(), [0.0; 0]);
    assert_eq!(read(float_wav(&[0.0; 100], 16_000)).unwrap(), [0.0; 100]);
    assert_eq!(read(float_wav(&[0.5], 16_000)).unwrap(), [0.5]);
}

#[test]
fn samples_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut samples = vec![0.25; 8_000];
        samples[4_000] = bad;
        let error = read(float_wav(&samples, 8_000)).unwrap_err();
        assert!(
            error.to_string().ends_with("as a sample at 0.500 s, where a number around -1 to 1 is expected"),
            "{error}"
        );
    }
}

#[test]
fn extreme_rates_are_resampled_or_refused() {
    for rate in [4_000, 96_000, 192_000, 384_000] {
        assert_eq!(read(float_wav(&vec![0.5; rate as usize / 10], rate)).unwrap().len(), 1_600, "{rate}");
    }
    for rate in [0, 1, 100, 1_000_000, u32::MAX] {
        let error = read(float_wav(&[0.5; 64], rate)).unwrap_err();
        assert!(
            matches!(error, AudioError::Rate { .. } | AudioError::Format { .. } | AudioError::Codec { .. }),
            "{error}"
        );
    }
}

/// A WAV header that promises 4 GB, and sound that is made while it is read.
struct Endless {
    header: std::io::Cursor<Vec<u8>>,
    left: u64,
}

impl Endless {
    fn new(rate: u32, channels: u16, seconds: u64) -> Self {
        let mut header = wav::encode(&[], rate, channels, wav::Stored::Int16).unwrap();
        header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let end = header.len();
        header[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        Self { header: std::io::Cursor::new(header), left: seconds * u64::from(rate) * u64::from(channels) * 2 }
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.header.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let count = (buffer.len() as u64).min(self.left) as usize;
        buffer[..count].fill(7);
        self.left -= count as u64;
        Ok(count)
    }
}

/// The most memory that the process ever had, in bytes, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb << 10)
}

/// Reads to the end; the number of samples, and how much memory grew after a minute of sound.
fn grown(stream: Endless, wanted: &Wanted) -> (u64, u64) {
    let reader = Reader::stream("endless", stream, wanted).unwrap();
    let minute = 60 * u64::from(reader.rate());
    let (mut count, mut before) = (0u64, None);
    for block in reader {
        count += block.unwrap().len() as u64;
        if count > minute && before.is_none() {
            before = peak();
        }
    }
    (count, peak().zip(before).map_or(0, |(after, before)| after.saturating_sub(before)))
}

#[test]
fn ten_hours_take_no_more_memory_than_one_minute() {
    let (count, grown) = grown(Endless::new(1_000, 1, 36_000), &Wanted::at(1_000));
    assert_eq!(count, 36_000_000);
    // As values they are 144 MB. Other tests of this process run beside it.
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[test]
fn nor_do_resampled_channels() {
    let (count, grown) = grown(Endless::new(8_000, 2, 900), &Wanted::at(4_000));
    assert_eq!(count, 3_600_000);
    assert!(grown < 64 << 20, "{grown} bytes");
}

/// A WAV file of 16 bits in which only one channel sounds.
fn channels(count: u16, sounding: usize, frames: usize) -> Vec<u8> {
    let samples: Vec<f32> =
        (0..frames * usize::from(count)).map(|i| if i % usize::from(count) == sounding { 0.5 } else { 0.0 }).collect();
    wav::encode(&samples, 16_000, count, wav::Stored::Int16).unwrap()
}

#[test]
fn many_channels_are_mixed_or_refused() {
    for count in [6u16, 8, 24] {
        let bytes = channels(count, 5, 400);
        let mixed = read(bytes.clone()).unwrap();
        assert_eq!(mixed.len(), 400, "{count}");
        assert!(mixed.iter().all(|v| (v - 0.5 / f32::from(count)).abs() < 1e-6), "{count}: {mixed:?}");
        for (channel, value) in [(5, 0.5), (0, 0.0)] {
            let wanted = Wanted::at(16_000).channel(channel);
            let one = Reader::bytes("it", bytes.clone(), &wanted).and_then(Reader::collect_samples).unwrap();
            assert_eq!(one, vec![value; 400]);
        }
        let error = Reader::bytes("it", bytes, &Wanted::at(16_000).channel(count.into())).err().unwrap();
        assert!(error.to_string().contains(&format!("it has {count}")), "{error}");
    }
    let error = read(channels(20_000, 0, 4)).unwrap_err();
    assert!(matches!(error, AudioError::Codec { .. } | AudioError::Format { .. }), "{error}");
}
