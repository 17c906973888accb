//! Kaldi's archives and directories: see `tests/data/kaldi/README.md` for where the archives are from.

use super::{Random, Scratch};
use mobilis_zoo::asr::data::kaldi::{self, Archive, Matrix, scp};
use mobilis_zoo::asr::data::{DataError, Sound};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kaldi").join(name)
}

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number") as f32],
    }
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }
}

fn all(path: &Path) -> Result<Vec<(String, Matrix)>, DataError> {
    Archive::open(path)?.collect()
}

#[test]
fn matrices_as_kaldi_writes_them() {
    let (first, vector) = (numbers(&expected()["first"]), numbers(&expected()["vector"]));
    for (name, tolerance) in [("float.ark", 0.0), ("double.ark", 0.0), ("text.ark", 1e-6)] {
        let found = all(&fixture(name)).unwrap();
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["first", "second", "vector"], "{name}");
        assert_eq!((found[0].1.rows, found[0].1.cols), (9, 4), "{name}");
        close(&found[0].1.data, &first, tolerance);
        let doubled: Vec<f32> = first[..12].iter().map(|x| 2.0 * x).collect();
        close(&found[1].1.data, &doubled, 2.0 * tolerance);
        assert_eq!((found[2].1.rows, found[2].1.cols), (1, 5), "{name}");
        close(&found[2].1.data, &vector, tolerance);
    }
    for method in ["2", "3", "5"] {
        let found = all(&fixture(&format!("cm{method}.ark"))).unwrap();
        assert_eq!((found[0].1.rows, found[0].1.cols), (9, 4));
        close(&found[0].1.data, &numbers(&expected()["cm"][method]), 1e-5);
    }
}

#[test]
fn places_in_archives() {
    let folder = Scratch::new();
    std::fs::copy(fixture("float.ark"), folder.path().join("f.ark")).unwrap();
    // "first " is 6 bytes; the second entry follows 15 bytes of header and 9 * 4 floats.
    let second = 6 + 15 + 144 + 7;
    let list = folder.write(
        "feats.scp",
        format!("a f.ark:6\nb f.ark:{second}\nc f.ark:6[2:3]\nd f.ark:6[0:1,1:2]\ne f.ark:6[8:9]\n"),
    );
    let places = scp(&list).unwrap();
    let first = numbers(&expected()["first"]);
    let read = |i: usize| places[i].1.read();
    assert_eq!(read(0).unwrap().data, first);
    assert_eq!(read(1).unwrap().rows, 3);
    assert_eq!(read(2).unwrap().data, first[8..16]);
    assert_eq!(read(3).unwrap(), Matrix { rows: 2, cols: 2, data: [&first[1..3], &first[5..7]].concat() });
    assert!(read(4).unwrap_err().to_string().contains("rows 8 to 9 of 9"));
    for (line, says) in [
        ("x copy-feats ark:1.ark - |", "commands are not run"),
        ("x", "no place"),
        ("x f.ark:6[a:b]", "no range"),
        ("x f.ark:6\nx f.ark:6", "line 2"),
    ] {
        let list = folder.write("bad.scp", line);
        let error = scp(&list).unwrap_err().to_string();
        assert!(error.contains("bad.scp") && error.contains(says), "{error}");
    }
    let list = folder.write("far.scp", "x f.ark:100000\ny none.ark:3\nz f.ark:7");
    for (_, place) in scp(&list).unwrap() {
        let error = place.read().unwrap_err().to_string();
        assert!(error.contains(".ark"), "{error}");
    }
}

#[test]
fn a_data_directory() {
    let folder = Scratch::new();
    let riff = [b"RIFF\x04\0\0\0WAVE".to_vec(), b"RIFF\x05\0\0\0WAVE!rest".to_vec()];
    folder.write("w.ark", [b"k1 ".to_vec(), riff[0].clone(), b"k2 ".to_vec(), riff[1].clone()].concat());
    folder.write("wav.scp", "r1 w.ark:3\nr2 w.ark:18\nr3 sub/r3.wav\n");
    folder.write("text", "r1 hello there\nr3 \n");
    folder.write("utt2spk", "r1 s1\nr2 s1\nr3 s2\n");
    folder.write("reco2dur", "r1 3.5\n");
    let found = kaldi::read(folder.path()).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].sound.bytes(100).unwrap(), riff[0]);
    assert_eq!(found[1].sound.bytes(100).unwrap(), riff[1][..13]);
    assert_eq!(found[2].sound, Sound::File(folder.path().join("sub/r3.wav")));
    assert_eq!((found[0].text.as_deref(), found[0].duration), (Some("hello there"), Some(3.5)));
    assert_eq!((found[1].text.as_deref(), found[1].speaker.as_deref()), (None, Some("s1")));
    // Parts of recordings.
    folder.write("segments", "u1 r1 0.5 2.0\nu2 r1 2 -1\nu3 r3 0 1.25 1\n");
    folder.write("text", "u1 hello\nu2 there\n");
    folder.write("utt2spk", "u1 s1\nu2 s2\nu3 s3\n");
    let found = kaldi::read(folder.path()).unwrap();
    assert_eq!((found[0].offset, found[0].duration), (0.5, Some(1.5)));
    assert_eq!((found[1].offset, found[1].duration), (2.0, None));
    assert_eq!((found[2].channel, found[2].more["utterance"].as_str()), (Some(1), Some("u3")));
    for (name, line, says) in [
        ("segments", "u1 r9 0 1", "`r9` is not in wav.scp"),
        ("segments", "u1 r1 2 1", "begins at 2 s and ends at `1`"),
        ("segments", "u1 r1 0", "are expected"),
        ("segments", "u1 r1 nan 1", "begins at `nan`"),
        ("text", "u7 x", "`u7` is no utterance"),
        ("wav.scp", "r1 sph2pipe -f wav x.sph |", "commands are not run"),
        ("wav.scp", "r1 w.ark:9999", "no sound at byte"),
        ("reco2dur", "r1 long", "no number of seconds"),
    ] {
        let before = std::fs::read(folder.path().join(name)).unwrap();
        folder.write(name, line);
        let error = kaldi::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("line 1") && error.contains(says), "{error}");
        folder.write(name, before);
    }
}

/// Damaged archives and tables give an error or a result, never a panic, and no more memory than the
/// file has bytes.
#[test]
fn damage() {
    let folder = Scratch::new();
    let mut random = Random(0xA4C);
    for name in ["float.ark", "double.ark", "text.ark", "cm2.ark", "cm3.ark", "cm5.ark"] {
        let good = std::fs::read(fixture(name)).unwrap();
        for _ in 0..200 {
            let path = folder.write("d.ark", random.damaged(&good));
            if let Ok(found) = all(&path) {
                assert!(found.iter().all(|(_, m)| m.data.len() == m.rows * m.cols));
            }
        }
    }
    folder.write("w.ark", b"k1 RIFF\x04\0\0\0WAVE");
    for _ in 0..200 {
        folder.write("wav.scp", random.damaged(b"r1 w.ark:3\nr2 w.ark:0\n"));
        folder.write("segments", random.damaged(b"u1 r1 0.5 2.0\nu2 r1 2 -1\nu3 r2 0 1.25 1\n"));
        folder.write("text", random.damaged(b"u1 hello there\nu2 x\n"));
        for utterance in kaldi::read(folder.path()).into_iter().flatten() {
            let _ = utterance.sound.bytes(1 << 20);
        }
    }
}
