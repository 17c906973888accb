//! PyTorch's files: both forms, and what a pickle may not do.
//!
//! The fixtures are written as `torch.save` writes them: the same pickler, persistent ids and layout.

use super::{Scratch, real};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Checkpoint, Raw};
use mobilis_runtime::graph::DType;
use mobilis_zoo::import::torch::{TorchFile, check, pickle};
use std::io::{Cursor, Write};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/import/fixtures").join(name)
}

#[test]
fn both_forms_hold_the_same() {
    for form in ["zip_form.pt", "legacy_form.pt"] {
        let file = TorchFile::open(fixture(form)).unwrap_or_else(|e| panic!("{e}"));
        // The optimiser's state stands beside the model and is no part of it.
        let names = ["brain", "empty", "half", "mask", "row", "steps", "weight", "weight_t"];
        assert_eq!(file.names(), names, "{form}");
        let real = |name: &str| file.read(name, DType::F32, false).expect("read").to_f64();
        assert_eq!(real("weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(file.info("weight_t").expect("there").sizes, [3, 2]);
        assert_eq!(real("weight_t"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(real("row"), [3.0, 4.0, 5.0]);
        assert_eq!(real("half"), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(real("brain"), [1.0, -2.0]);
        assert_eq!(real("empty"), [0.0; 0]);
        assert_eq!(file.read("steps", DType::I32, false).expect("read").to_f64(), [7.0]);
        assert_eq!(file.read("mask", DType::Bool, false).expect("read").to_f64(), [1.0, 0.0]);
        // What has no gaps stays where it is.
        assert!(matches!(file.raw("row"), Ok(Raw::File { len: 12, .. })));
    }
}

#[test]
fn published_files() {
    for (item, name) in [("efficientnet-lite0", "efficientnet-lite0-57934424.pth"), ("resemblyzer", "pretrained.pt")] {
        let Some(folder) = real(item) else { continue };
        let ours = TorchFile::open(folder.join(name)).unwrap_or_else(|e| panic!("{e}"));
        let theirs = Checkpoint::open(folder.join("model.safetensors")).expect("opened");
        for (name, stored) in theirs.tensors() {
            let found = ours.find(name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((found.encoding, &found.sizes), (stored.encoding, &stored.sizes), "{name}");
            let bytes = |s: &dyn Source| s.raw(name).and_then(Raw::into_bytes).expect("read");
            assert_eq!(bytes(&ours), bytes(&theirs), "{name}");
        }
        assert!(ours.names().len() <= theirs.tensors().len() + 1, "{:?}", ours.names());
    }
}

#[test]
fn cut_off_anywhere_is_an_error() {
    for form in ["zip_form.pt", "legacy_form.pt"] {
        let bytes = std::fs::read(fixture(form)).expect("read");
        assert!(check(Cursor::new(&bytes), bytes.len() as u64).is_ok());
        for end in 0..bytes.len() {
            assert!(check(Cursor::new(&bytes[..end]), end as u64).is_err(), "{form} {end}");
        }
    }
}

fn fault(bytes: &[u8]) -> String {
    pickle::read(bytes).expect_err("refused")
}

#[test]
fn nothing_is_called() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("runpy", "_run_code"),
        ("collections", "namedtuple"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let text = fault(format!("c{module}\n{name}\n(S'echo'\ntR.").as_bytes());
        assert!(text.contains(&format!("`{module}.{name}`")) && text.contains("nothing was run"), "{text}");
        let short = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
        let stacked = [&[0x80, 4][..], &short(module), &short(name), &[0x93, b')', b'R', b'.']].concat();
        assert!(fault(&stacked).contains(&format!("`{module}.{name}`")));
    }
    assert!(fault(b"(ios\nsystem\n.").contains("refused"));
    assert!(fault(b"(cos\nsystem\no.").contains("`os.system`"));
    assert!(fault(b"\x82\x01.").contains("refused"));
}

#[test]
fn damaged_pickles() {
    assert!(fault(b"").contains("are left"));
    assert!(fault(b".").contains("a value is expected"));
    assert!(fault(b"NN.").contains("left on the stack"));
    assert!(fault(b"X\xff\xff\xff\xff").contains("are left"));
    assert!(fault(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff").contains("are left"));
    assert!(fault(b"h\x05.").contains("entry 5"));
    assert!(fault(b"t.").contains("a mark"));
    assert!(fault(b"(NNNd.").contains("a key without a value"));
    assert!(fault(b"NNa.").contains("no list"));
    assert!(fault(b"NNR.").contains("no function"));
    assert!(fault(b"\xf0").contains("0xf0"));
    assert!(fault(b"(00.").contains("its stack is empty"));
}

/// A list that holds itself, one nested a million deep, tuples of tuples that would unfold to 2^60 values.
#[test]
fn shapes_that_never_end() {
    assert!(pickle::read(b"]q\0h\0a.").is_ok());
    let deep = [b"]".repeat(1 << 20), b"a".repeat((1 << 20) - 1), b".".to_vec()].concat();
    assert!(pickle::read(&deep).is_ok());
    // `N` wrapped again and again: (x, x).
    let laughs = [b"N".to_vec(), b"q\0h\0\x86".repeat(60), b".".to_vec()].concat();
    assert!(pickle::read(&laughs).is_ok());
    for bytes in [b"]q\0h\0a.".to_vec(), b"}q\0X\x01\0\0\0ah\0s.".to_vec(), deep, laughs] {
        let archive = archive(&bytes, &[]);
        assert!(check(Cursor::new(&archive), archive.len() as u64).is_err());
    }
    // A long list, copied over and over.
    let list = [&b"("[..], &b"N".repeat(1 << 16), b"lq\0"].concat();
    let copies = b"c__builtin__\ntuple\nq\x01".to_vec();
    let copies = [copies, b"0h\x01h\0\x85R".repeat(1 << 14)].concat();
    assert!(fault(&[list, copies].concat()).contains("more than"));
}

/// An archive as `torch.save` makes it.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("m/data.pkl", options).expect("started");
    zip.write_all(pickle).expect("written");
    for (key, bytes) in storages {
        zip.start_file(format!("m/data/{key}"), options).expect("started");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

/// The pickle of one tensor: sizes and strides over a storage of two `f32`.
fn tensor(offset: &str, sizes: &[&str], strides: &[&str]) -> Vec<u8> {
    let tuple = |items: &[&str]| format!("({}t", items.iter().map(|n| format!("I{n}\n")).collect::<String>());
    let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI2\ntQ";
    let (sizes, strides) = (tuple(sizes), tuple(strides));
    format!("(S'w'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{sizes}{strides}I00\nNtRd.").into_bytes()
}

#[test]
fn tensors_stay_within_their_storage() {
    let read = |pickle: &[u8], bytes: &[u8]| {
        let archive = archive(pickle, &[("0", bytes)]);
        check(Cursor::new(&archive), archive.len() as u64).map_err(|e| format!("{e:?}"))
    };
    assert_eq!(read(&tensor("0", &["2"], &["1"]), &[0; 8]), Ok(1));
    let huge = "9223372036854775807";
    for (offset, sizes, strides) in [
        ("1", &["2"][..], &["1"][..]),
        ("0", &["3"], &["1"]),
        ("0", &["2"], &["2"]),
        (huge, &["1"], &["1"]),
        ("0", &[huge, huge], &["1", "1"]),
        ("0", &["2"], &[huge]),
        ("0", &[huge], &["0"]),
        ("0", &["-1"], &["1"]),
        ("-1", &["1"], &["1"]),
        ("0", &["1", "1"], &["1"]),
    ] {
        assert!(read(&tensor(offset, sizes, strides), &[0; 8]).is_err(), "{offset} {sizes:?} {strides:?}");
    }
    // The archive's entry is shorter than the pickle says.
    assert!(read(&tensor("0", &["2"], &["1"]), &[0; 7]).is_err());
    assert!(read(&tensor("0", &["0", huge, huge], &["1", "1", "1"]), &[0; 8]).is_err());
}

#[test]
fn what_is_no_checkpoint() {
    let scratch = Scratch::new("torch");
    for (bytes, words) in [
        (&b"hello world, this is text"[..], "neither with `PK`"),
        (b"", "neither with `PK`"),
        (b"\x80\x02}q\0.", "it is a pickle, but not one"),
        (b"PK\x03\x04 nothing", "its archive is damaged"),
    ] {
        let path = scratch.path("m.pt");
        std::fs::write(&path, bytes).expect("written");
        let error = TorchFile::open(&path).expect_err("no checkpoint").to_string();
        assert!(error.contains(words) && error.contains("m.pt"), "{error}");
    }
    let empty = archive(b"}.", &[]);
    let fault = format!("{:?}", check(Cursor::new(&empty), empty.len() as u64).expect_err("no tensors"));
    assert!(fault.contains("holds no tensors"), "{fault}");
}
