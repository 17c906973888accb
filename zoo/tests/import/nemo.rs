//! NeMo's archives: what is read, what is refused, and that what is written is read again.

use super::{Scratch, golden};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Checkpoint, Raw};
use mobilis_zoo::export::{self, ExportOptions};
use mobilis_zoo::import::{Pretrained, nemo};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

const MODELS: [&str; 7] = [
    "nemo_quartznet",
    "nemo_conformer_ctc",
    "nemo_fastconformer_ctc",
    "nemo_fastconformer_rnnt",
    "nemo_fastconformer_tdt",
    "nemo_fastpitch",
    "nemo_hifigan",
];

fn same_tensors(ours: &dyn Source, theirs: &dyn Source) {
    assert_eq!(ours.names(), theirs.names());
    for name in theirs.names() {
        assert_eq!(ours.find(name).expect("there"), theirs.find(name).expect("there"), "{name}");
        let bytes = |s: &dyn Source| s.raw(name).and_then(Raw::into_bytes).expect("read");
        assert_eq!(bytes(ours), bytes(theirs), "{name}");
    }
}

#[test]
fn golden_archives() {
    for model in MODELS {
        let Some(folder) = golden(model) else { continue };
        let archive = nemo::open(&folder.join(format!("{model}.nemo"))).unwrap_or_else(|e| panic!("{e}"));
        let whole = Checkpoint::open(&folder).expect("opened");
        same_tensors(&*archive.tensors, &whole);
        let beside = nemo::open(&folder).expect("opened");
        assert_eq!(archive.config, beside.config, "{model}");
        // Values stay in the file.
        let first = archive.tensors.names()[0].to_string();
        assert!(matches!(archive.tensors.raw(&first), Ok(Raw::File { .. })), "{model}");
    }
}

#[test]
fn what_is_written_is_read() {
    let Some(folder) = golden("nemo_fastconformer_ctc") else { return };
    let scratch = Scratch::new("nemo-written");
    let model = Pretrained::open(&folder.join("nemo_fastconformer_ctc.nemo").display().to_string()).expect("opened");
    let (first, second) = (scratch.path("a.nemo"), scratch.path("b.nemo"));
    export::export(&model, &first, &ExportOptions::default()).expect("written");
    // By way of a folder, whose artifacts lie beside the configuration.
    export::export(&model, &scratch.path("folder"), &ExportOptions::default()).expect("written");
    let between = Pretrained::open(&scratch.path("folder").display().to_string()).expect("opened");
    export::export(&between, &second, &ExportOptions::default()).expect("written");
    for path in [first, second] {
        let again = Pretrained::open(&path.display().to_string()).expect("opened");
        same_tensors(&*again.tensors, &*model.tensors);
        let mut config = again.config.clone();
        config.as_object_mut().expect("an object").shift_remove("torch_dtype");
        assert_eq!(config, model.config);
        let tokens = |m: &Pretrained| m.tokenizer.open().map(|t| t.encode("hello", false).expect("encoded"));
        match (tokens(&again), tokens(&model)) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            (a, b) => assert_eq!(a.is_ok(), b.is_ok()),
        }
    }
}

/// A tar of members `(name, bytes)`; a name that the library would not write is put in by hand.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn zipped_pickle(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("m/data.pkl", stored).expect("started");
    zip.write_all(pickle).expect("written");
    zip.finish().expect("finished").into_inner()
}

const CONFIG: (&str, &[u8]) = ("./model_config.yaml", b"target: nemo.x\n");

fn fault(bytes: Vec<u8>) -> String {
    nemo::check(bytes).expect_err("refused").to_string()
}

#[test]
fn hostile_archives() {
    // What `os.system` looks like in a pickle.
    let evil = zipped_pickle(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.");
    let cases: [(Vec<u8>, &str); 9] = [
        (tar(&[CONFIG, ("./model_weights.ckpt", &evil)]), "system"),
        (tar(&[("./model_config.yaml", b"a: !!python/object/apply:os.system [ls]")]), "python"),
        (tar(&[CONFIG, ("../../etc/passwd", b"x")]), "outside"),
        (tar(&[CONFIG, ("/etc/passwd", b"x")]), "outside"),
        (tar(&[CONFIG, CONFIG]), "twice"),
        (tar(&[CONFIG]), "model_weights.ckpt"),
        (tar(&[CONFIG, ("./mp_rank_00/model_weights.ckpt", b"x")]), "split over several devices"),
        (b"PK\x03\x04 something else entirely".repeat(100), "tar"),
        (Vec::new(), "empty"),
    ];
    for (bytes, said) in cases {
        let found = fault(bytes);
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn links_and_lies() {
    let mut link = tar::Header::new_gnu();
    link.as_old_mut().name[..5].copy_from_slice(b"./lnk");
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_link_name("/etc/passwd").expect("set");
    link.set_size(0);
    link.set_cksum();
    let found = fault([&link.as_bytes()[..], &tar(&[CONFIG])].concat());
    assert!(found.contains("link"), "{found}");
    for size in [1 << 20, 1 << 40, u64::MAX >> 1] {
        for kind in [tar::EntryType::Regular, tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            let mut big = tar::Header::new_gnu();
            big.as_old_mut().name[..5].copy_from_slice(b"./big");
            big.set_entry_type(kind);
            big.set_size(size);
            big.set_cksum();
            fault([&big.as_bytes()[..], &[0; 1024]].concat());
        }
    }
    // A gigabyte of zeros in a megabyte.
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..200 {
        gz.write_all(&[0; 1 << 20]).expect("written");
    }
    let found = fault(gz.finish().expect("finished"));
    assert!(found.contains("decompressed"), "{found}");
}

#[test]
fn compressed_archives_and_folders() {
    let Some(folder) = golden("nemo_quartznet") else { return };
    let scratch = Scratch::new("nemo-forms");
    let bytes = std::fs::read(folder.join("nemo_quartznet.nemo")).expect("read");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bytes).expect("written");
    let path = scratch.path("old.nemo");
    std::fs::write(&path, gz.finish().expect("finished")).expect("written");
    let whole = Checkpoint::open(&folder).expect("opened");
    same_tensors(&*nemo::open(&path).expect("opened").tensors, &whole);
    let unpacked = scratch.path("unpacked");
    unpack(&bytes, &unpacked);
    let found = Pretrained::open(&unpacked.display().to_string()).expect("opened");
    same_tensors(&*found.tensors, &whole);
    assert_eq!(found.config["target"], Value::from("nemo.collections.asr.models.ctc_models.EncDecCTCModel"));
}

fn unpack(bytes: &[u8], to: &Path) {
    tar::Archive::new(bytes).unpack(to).expect("unpacked");
}
