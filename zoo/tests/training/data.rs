//! Manifests and shards.

use super::{Random, Scratch};
use mobilis_zoo::asr::data::{Sound, Utterance, manifest, shards};
use mobilis_zoo::asr::train::Corpus;
use mobilis_zoo::recipe::Keys;
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn a_manifest_of_nemo() {
    let folder = Scratch::new();
    folder.write("said.txt", "from a\n file \n");
    let path = folder.write(
        "train.json",
        "\u{feff}{\"audio_filepath\": \"a/1.wav\", \"duration\": 1.5, \"text\": \"one\", \"offset\": 0.25, \"channel\": 1}\n\n\
         {\"audio_filepath\": \"/abs/2.wav\", \"duration\": 2, \"text_filepath\": \"said.txt\", \"speaker\": 7, \"lang\": \"de\", \"pnc\": \"yes\"}\r\n\
         {\"audio_filename\": \"3.wav\", \"duration\": null, \"command\": \"stop\"}",
    );
    let found = manifest::read(&path).unwrap();
    assert_eq!(found.len(), 3);
    let [one, two, three] = &found[..] else { unreachable!() };
    assert_eq!(one.sound, Sound::File(folder.path().join("a/1.wav")));
    assert_eq!((one.duration, one.offset, one.channel), (Some(1.5), 0.25, Some(1)));
    assert_eq!(one.text.as_deref(), Some("one"));
    assert_eq!(two.sound, Sound::File("/abs/2.wav".into()));
    assert_eq!(
        (two.text.as_deref(), two.speaker.as_deref(), two.lang.as_deref()),
        (Some("from a file"), Some("7"), Some("de"))
    );
    assert_eq!(two.more["pnc"], "yes");
    assert_eq!((three.duration, three.label.as_deref()), (None, Some("stop")));
    // Written and read again it is the same.
    let copy = folder.path().join("copy.json");
    manifest::write(&copy, &found).unwrap();
    assert_eq!(manifest::read(&copy).unwrap(), found);
    // Several at once.
    let both = manifest::read_all(folder.path(), &["{train,copy}.json"]).unwrap();
    assert_eq!(both.len(), 6);
}

#[test]
fn faulty_lines_are_named() {
    let folder = Scratch::new();
    for (line, says) in [
        ("{\"audio_filepath\": \"a\"", "no JSON"),
        ("[1]", "a list instead"),
        ("{\"audio_filpath\": \"a\"}", "did you mean `audio_filepath`"),
        ("{\"text\": \"a\"}", "no `audio_filepath`"),
        ("{\"audio_filepath\": 7}", "a number instead of a string"),
        ("{\"audio_filepath\": \"a\", \"duration\": \"1\"}", "`duration` is \"1\""),
        ("{\"audio_filepath\": \"a\", \"duration\": -1}", "at least 0"),
        ("{\"audio_filepath\": \"a\", \"offset\": true}", "`offset` is true"),
        ("{\"audio_filepath\": \"a\", \"channel\": 0.5}", "`channel` is 0.5"),
        ("{\"audio_filepath\": \"a\", \"text\": [\"a\"]}", "a list instead of a string"),
        ("{\"audio_filepath\": \"a\", \"text_filepath\": \"none.txt\"}", "none.txt"),
        ("\u{0}\u{1}", "no JSON"),
    ] {
        let path = folder.write("m.json", format!("{{\"audio_filepath\": \"x\"}}\n\n{line}\n"));
        let error = manifest::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("m.json") && error.contains(says), "{line}: {error}");
    }
    assert!(manifest::read(Path::new("/nowhere/m.json")).unwrap_err().to_string().contains("/nowhere/m.json"));
}

/// A tar of these members.
fn tar_of(members: &[(&str, &[u8])], pax: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in members {
        if pax {
            builder.append_pax_extensions([("path", name.as_bytes())]).unwrap();
        }
        let mut header = if pax { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        match pax || name.contains("..") {
            // Names that the library would refuse are written by hand.
            true => {
                let short = &name.as_bytes()[..name.len().min(99)];
                header.as_mut_bytes()[..short.len()].copy_from_slice(short);
                header.set_cksum();
                builder.append(&header, *bytes).unwrap();
            }
            false => builder.append_data(&mut header, name, *bytes).unwrap(),
        }
    }
    builder.into_inner().unwrap()
}

fn read(utterance: &Utterance) -> Vec<u8> {
    utterance.sound.bytes(1 << 20).unwrap()
}

#[test]
fn shards_are_read_in_place() {
    let folder = Scratch::new();
    let long = format!("{}/c.wav", "deep/".repeat(60));
    for pax in [false, true] {
        folder.write("s_0.tar", tar_of(&[("a.wav", b"sound of a"), ("../../etc/b.wav", b"sound of b")], pax));
        folder.write("s_1.tar", tar_of(&[(&long, &[7; 1300]), ("d.wav", b"")], pax));
        let line = |name: &str, text: &str| {
            format!("{{\"audio_filepath\": \"{name}\", \"duration\": 1, \"text\": \"{text}\"}}\n")
        };
        folder.write("all.json", line("b.wav", "b") + &line(&long, "c") + &line("some/where/a.wav", "a"));
        let tars = ["s__OP_0..1_CL_.tar"];
        let found = shards::tarred(folder.path(), &["all.json"], &tars).unwrap();
        let texts: Vec<_> = found.iter().map(|u| u.text.as_deref().unwrap()).collect();
        assert_eq!(texts, ["b", "c", "a"]);
        assert_eq!(read(&found[0]), b"sound of b");
        assert_eq!(read(&found[1]), vec![7; 1300]);
        assert_eq!(read(&found[2]), b"sound of a");
        // A manifest a shard.
        folder.write("m_0.json", line("a.wav", "a"));
        folder.write("m_1.json", line("d.wav", "d"));
        let found = shards::tarred(folder.path(), &["m_{0..1}.json"], &tars).unwrap();
        assert_eq!(read(&found[0]), b"sound of a");
        assert_eq!(read(&found[1]), b"");
        // What is in another shard is not found.
        folder.write("m_1.json", line("a.wav", "a"));
        let error = shards::tarred(folder.path(), &["m_{0..1}.json"], &tars).unwrap_err().to_string();
        assert!(error.contains("m_1.json` line 1") && error.contains("s_1.tar"), "{error}");
    }
    // Nothing was extracted.
    assert!(!folder.path().join("a.wav").exists());
    let id = "{\"audio_filepath\": \"a.wav\", \"shard_id\": 2}";
    folder.write("id.json", id);
    let error = shards::tarred(folder.path(), &["id.json"], &["s_{0..1}.tar"]).unwrap_err().to_string();
    assert!(error.contains("`shard_id` is 2"), "{error}");
    folder.write("zip.tar", b"\x1f\x8b and so on");
    let error = shards::members(&folder.path().join("zip.tar")).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
    folder.write("zip.tar", [b"\x1f\x8b".to_vec(), vec![1; 1000]].concat());
    let error = shards::members(&folder.path().join("zip.tar")).unwrap_err().to_string();
    assert!(error.contains("compressed"), "{error}");
}

/// NeMo's buckets: lists of lists, of which each of the archives belongs to each of the manifests.
#[test]
fn lists_of_lists() {
    let folder = Scratch::new();
    let line = |name: &str, text: &str| {
        format!("{{\"audio_filepath\": \"{name}.wav\", \"duration\": 1, \"text\": \"{text}\"}}\n")
    };
    for (list, names) in [("short", ["a", "b"]), ("long", ["a", "c"])] {
        // The same names in both: each is found in its own.
        folder.write(&format!("{list}.json"), names.map(|n| line(n, &format!("{list} {n}"))).concat());
        for (i, name) in names.iter().enumerate() {
            let sound = format!("{list} sound of {name}");
            folder.write(&format!("{list}_{i}.tar"), tar_of(&[(&format!("{name}.wav"), sound.as_bytes())], false));
        }
    }
    let listed = |section: Value| {
        let mut keys = Keys::new(json!({ "train_ds": section })).unwrap();
        let corpus = keys.section("train_ds", |k| Corpus::read(k, 16_000, true)).map_err(|e| e.to_string())?;
        corpus.listed(folder.path()).map_err(|e| e.to_string())
    };
    let found = listed(json!({
        "manifest_filepath": [["short.json"], ["long.json"]],
        "tarred_audio_filepaths": [["short_{0..1}.tar"], ["long__OP_0..1_CL_.tar"]],
    }));
    let found = found.unwrap();
    let texts: Vec<_> = found.iter().map(|u| u.text.clone().unwrap()).collect();
    assert_eq!(texts, ["short a", "short b", "long a", "long c"]);
    for (utterance, text) in found.iter().zip(&texts) {
        assert_eq!(String::from_utf8(read(utterance)).unwrap(), text.replace(' ', " sound of "));
    }
    // One list of as many as there are manifests: one each, and `b` is in the next one.
    let flat = json!({"manifest_filepath": "{short,long}.json", "tarred_audio_filepaths": "short_0.tar,short_1.tar"});
    assert!(listed(flat).unwrap_err().contains("`b.wav` is not in"));
    let three = json!({"manifest_filepath": ["short.json", "long.json"], "tarred_audio_filepaths": "long_{0..0}.tar"});
    assert!(listed(three).unwrap_err().contains("2 manifests tell of 1 shards"));
    let uneven = json!({"manifest_filepath": [["short.json"], ["long.json"]], "tarred_audio_filepaths": "short_0.tar"});
    assert!(listed(uneven).unwrap_err().contains("has 1 lists, and `manifest_filepath` 2"));
}

#[test]
fn shards_without_manifests() {
    let folder = Scratch::new();
    let members: [(&str, &[u8]); 6] = [
        ("x/1.wav", b"one"),
        ("x/1.txt", b"said once\n"),
        ("x/2.txt", b"no sound"),
        ("x/3.json", b"{\"duration\": 2.5, \"speaker\": \"s\", \"text\": \"thrice\"}"),
        ("x/3.flac", b"three"),
        ("y.wav", b"alone"),
    ];
    folder.write("w.tar", tar_of(&members, false));
    let found = shards::web(folder.path(), &["w.tar"]).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].text.as_deref(), read(&found[0])), (Some("said once"), b"one".to_vec()));
    assert_eq!((found[1].text.as_deref(), found[1].duration), (Some("thrice"), Some(2.5)));
    assert_eq!(read(&found[1]), b"three");
    assert_eq!((found[2].text.as_deref(), read(&found[2])), (None, b"alone".to_vec()));
    folder.write("w.tar", tar_of(&[("1.wav", b""), ("1.json", b"[]")], false));
    let error = shards::web(folder.path(), &["w.tar"]).unwrap_err().to_string();
    assert!(error.contains("`1.json` is no JSON object"), "{error}");
}

/// A shard that changes or is cut off after it was indexed.
#[test]
fn a_part_that_is_gone() {
    let folder = Scratch::new();
    let bytes = tar_of(&[("a.wav", &[1; 600])], false);
    let path = folder.write("s.tar", &bytes);
    let found = shards::web(folder.path(), &["s.tar"]).unwrap();
    std::fs::write(&path, &bytes[..700]).unwrap();
    let error = found[0].sound.bytes(1 << 20).unwrap_err().to_string();
    assert!(error.contains("s.tar") && error.contains("before the sound does"), "{error}");
    let error = found[0].sound.bytes(10).unwrap_err().to_string();
    assert!(error.contains("600 bytes"), "{error}");
    let error = shards::members(&path).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
}

/// Damaged archives and manifests give an error or a result, never a panic.
#[test]
fn damage() {
    let folder = Scratch::new();
    let mut random = Random(0x5EED);
    let long = "n/".repeat(80) + "1.wav";
    let good = [false, true]
        .map(|pax| tar_of(&[("1.wav", b"one"), ("1.json", b"{\"text\": \"x\"}"), (&long, &[3; 700])], pax));
    let line = b"{\"audio_filepath\": \"a\", \"duration\": 1.5, \"text\": \"one\", \"offset\": 0.25, \"channel\": 1}\n"
        .repeat(3);
    for i in 0..600 {
        folder.write("d.tar", random.damaged(&good[i % 2]));
        for utterance in shards::web(folder.path(), &["d.tar"]).into_iter().flatten() {
            let _ = utterance.sound.bytes(1 << 20);
        }
        let path = folder.write("d.json", random.damaged(&line));
        let _ = manifest::read(&path);
    }
}
