//! Paths, directories, parts and indices; and what is left when writing fails.

use super::{Scratch, file};
use mobilis::checkpoint::{Checkpoint, CheckpointError, Writer, atomic};
use mobilis::graph::DType;
use mobilis::module::store::Data;
use mobilis::prelude::*;
use std::io::{self, Write};
use std::path::Path;

axes! {
    pub Rows;
    pub Two = 2;
}

fn text(result: Result<Checkpoint, CheckpointError>) -> String {
    result.expect_err("an error").to_string()
}

fn small(value: f32) -> Data {
    Data::F32(vec![value; 6])
}

fn save(path: &Path, value: f32) {
    Writer::new().add("w", &[3, 2], &small(value)).unwrap().save(path).unwrap();
}

fn read(path: &Path, name: &str) -> Data {
    Checkpoint::open(path).unwrap().read(name, DType::F32).unwrap()
}

#[test]
fn missing_paths_are_named_with_the_nearest() {
    let scratch = Scratch::new();
    save(&scratch.path("model-final.safetensors"), 1.0);
    let e = text(Checkpoint::open(scratch.path("model-fnial.safetensors")));
    assert!(
        e.starts_with("there is no checkpoint at") && e.ends_with("did you mean `model-final.safetensors`?"),
        "{e}"
    );
    let e = text(Checkpoint::open(scratch.path("nowhere/model.safetensors")));
    assert!(e.contains("nowhere` does not exist"), "{e}");
    let e = text(Checkpoint::open(scratch.root()));
    assert!(e.contains("model.safetensors`; the directory holds `model-final.safetensors`: give its path"), "{e}");
    let empty = Scratch::new();
    let e = text(Checkpoint::open(empty.root()));
    assert!(e.ends_with("nor `model.safetensors.index.json` beside it"), "{e}");
}

#[test]
fn names_of_tensors_are_suggested() {
    let scratch = Scratch::new();
    save(&scratch.path("x.safetensors"), 1.0);
    let checkpoint = Checkpoint::open(scratch.path("x.safetensors")).unwrap();
    assert!(checkpoint.find("v").unwrap_err().to_string().ends_with("has no tensor `v`; did you mean `w`?"));
    let e = checkpoint.read("w", DType::I32).unwrap_err().to_string();
    assert!(e.contains("tensor `w`") && e.contains("stored as F32, which is not read as i32"), "{e}");
}

#[test]
fn typed_arrays() {
    let scratch = Scratch::new();
    save(&scratch.path("x.safetensors"), 1.5);
    let checkpoint = Checkpoint::open(scratch.path("x.safetensors")).unwrap();
    let w: Array<(Rows, Two)> = checkpoint.array("w").unwrap();
    assert_eq!((w.sizes(), w[[2, 1]]), (&[3, 2][..], 1.5));
    let e = checkpoint.array::<(Two, Two), Real>("w").unwrap_err().to_string();
    assert!(e.ends_with("axis `Two` of an array [Two=2, Two=2] has size 2, but 3 is given"), "{e}");
    let e = checkpoint.array::<(Rows,), Real>("w").unwrap_err().to_string();
    assert!(e.ends_with("an array [Rows] has 1 axes, but 2 dimensions of sizes [3, 2] are given"), "{e}");
    assert!(checkpoint.array::<(Rows, Two), Index>("w").is_err());
}

#[test]
fn order_of_adding_does_not_matter() {
    let (a, b) = (small(1.0), Data::I32(vec![1]));
    let bytes = |writer: Writer| {
        let mut out = Vec::new();
        writer.write_to(&mut out).unwrap();
        out
    };
    let one =
        Writer::new().add("a", &[6], &a).unwrap().add("b", &[1], &b).unwrap().metadata("x", "1").metadata("y", "2");
    let two =
        Writer::new().metadata("y", "2").add("b", &[1], &b).unwrap().metadata("x", "1").add("a", &[6], &a).unwrap();
    assert_eq!(bytes(one), bytes(two));
}

#[test]
fn what_makes_no_file_is_refused() {
    let data = small(1.0);
    let fault = |r: Result<Writer, CheckpointError>| r.err().expect("an error").to_string();
    assert!(fault(Writer::new().add("w", &[5], &data)).contains("6 values do not fill sizes [5]"));
    assert!(fault(Writer::new().add("w", &[usize::MAX, 2], &data)).contains("do not fill"));
    assert!(fault(Writer::new().add("__metadata__", &[6], &data)).contains("reserves this name"));
    let twice = Writer::new().add("w", &[6], &data).unwrap().add("w", &[6], &data);
    assert_eq!(fault(twice), "cannot write tensor `w`: there is another tensor of this name");
    let kind = Writer::new().add_as("w", &[6], &data, mobilis::checkpoint::Encoding::I64);
    assert_eq!(fault(kind), "cannot write tensor `w`: f32 values are not written as I64");
}

/// Four tensors of 24 bytes.
fn four(values: [&Data; 4]) -> Writer<'_> {
    ["a", "b", "c", "d"]
        .into_iter()
        .zip(values)
        .try_fold(Writer::new(), |w, (name, data)| w.add(name, &[3, 2], data))
        .unwrap()
}

#[test]
fn parts_and_index() {
    let scratch = Scratch::new();
    let folder = scratch.path("model");
    let [a, b, c, d] = [1.0, 2.0, 3.0, 4.0].map(small);
    four([&a, &b, &c, &d]).shard_bytes(50).save(&folder).unwrap();
    let inside = |folder: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(inside(&folder), [parts[0], parts[1], "model.safetensors.index.json"]);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.parts().len(), 2);
    assert_eq!(checkpoint.find("c").unwrap().part, 1);
    for (name, data) in [("a", &a), ("b", &b), ("c", &c), ("d", &d)] {
        assert_eq!(checkpoint.read(name, DType::F32).unwrap(), *data);
    }
    // The index alone names the checkpoint too; its text is that of Hugging Face's library.
    let index = folder.join("model.safetensors.index.json");
    assert_eq!(Checkpoint::open(&index).unwrap().tensors().len(), 4);
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&index).unwrap()).unwrap();
    assert_eq!(json["metadata"]["total_size"], 96);
    assert_eq!(json["weight_map"]["d"], parts[1]);
    // A tensor larger than the limit has a part of its own.
    four([&a, &b, &c, &d]).shard_bytes(1).save(&folder).unwrap();
    assert_eq!(Checkpoint::open(&folder).unwrap().parts().len(), 4);
    // The earlier parts are gone, files that are none of the checkpoint's stay.
    assert!(!inside(&folder).contains(&parts[0].to_string()));
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    // From parts to one file and back: only one checkpoint is there at any time.
    four([&a, &b, &c, &d]).save(&folder).unwrap();
    assert_eq!(inside(&folder), ["model.safetensors", "notes.txt"]);
    four([&d, &b, &c, &a]).shard_bytes(1).save(&folder).unwrap();
    assert!(!inside(&folder).contains(&"model.safetensors".to_string()));
    assert_eq!(read(&folder, "a"), d);
}

#[test]
fn faulty_indices() {
    let scratch = Scratch::new();
    let folder = scratch.path("model");
    let [a, b, c, d] = [1.0, 2.0, 3.0, 4.0].map(small);
    four([&a, &b, &c, &d]).shard_bytes(50).save(&folder).unwrap();
    let index = folder.join("model.safetensors.index.json");
    let good = std::fs::read_to_string(&index).unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let with = |text: &str| {
        std::fs::write(&index, text).unwrap();
        let e = Checkpoint::open(&folder).expect_err(text);
        assert!(matches!(e, CheckpointError::Index { .. }), "{e}");
        e.to_string()
    };
    for (text, words) in [
        ("[1]", "it is a list, not an object"),
        ("{", "it is no JSON"),
        ("{}", "`weight_map` is missing"),
        (r#"{"weight_map":{},"weight_map":{}}"#, "`weight_map` stands there twice"),
        (r#"{"weigth_map":{}}"#, "unknown key `weigth_map`; did you mean `weight_map`?"),
        (r#"{"weight_map":[]}"#, "`weight_map` is a list"),
        (r#"{"metadata":1,"weight_map":{}}"#, "`metadata` is a whole number"),
        (r#"{"weight_map":{"a":1}}"#, "the part of tensor `a` is a whole number"),
        (r#"{"weight_map":{"a":"../a.safetensors"}}"#, "not the name of a file beside the index"),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "not the name of a file beside the index"),
        (r#"{"weight_map":{"a":"x/y.safetensors"}}"#, "not the name of a file beside the index"),
        (r#"{"weight_map":{"a":""}}"#, "not the name of a file beside the index"),
        (r#"{"weight_map":{"a":"gone.safetensors"}}"#, "the part `gone.safetensors` is missing"),
    ] {
        let e = with(text);
        assert!(e.contains(words), "{text}: {e}");
    }
    let e = with(&good.replace(&format!("\"a\": \"{one}\""), &format!("\"a\": \"{two}\"")));
    assert!(e.contains(&format!("tensor `a` is said to be in `{two}`, but is in `{one}`")), "{e}");
    let e = with(&good.replace("\"a\":", "\"z\":"));
    assert!(e.contains(&format!("tensor `a` of `{one}` is not listed")), "{e}");
    let e = with(&good.replace("\"a\":", &format!("\"z\": \"{one}\", \"a\":")));
    assert!(e.contains(&format!("tensor `z` is said to be in `{one}`, but is not")), "{e}");
    let e = with(&good.replace("\"a\":", &format!("\"a\": \"{one}\", \"a\":")));
    assert!(e.contains("tensor `a` is listed twice"), "{e}");
    // A part that is cut off is named.
    std::fs::write(&index, &good).unwrap();
    let bytes = std::fs::read(folder.join(two)).unwrap();
    std::fs::write(folder.join(two), &bytes[..bytes.len() - 1]).unwrap();
    let e = text(Checkpoint::open(&folder));
    assert!(e.contains(two) && e.contains("copy or download it again"), "{e}");
    // The same tensor in two parts.
    std::fs::copy(folder.join(one), folder.join(two)).unwrap();
    let e = text(Checkpoint::open(&folder));
    assert!(e.contains(two) && e.contains("two tensors are called `a`"), "{e}");
}

/// Takes so many bytes, then says that the disk is full.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = bytes.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_reported_wherever_it_strikes() {
    let data = small(1.0);
    let writer = Writer::new().add("w", &[3, 2], &data).unwrap();
    let mut whole = Vec::new();
    writer.write_to(&mut whole).unwrap();
    for room in 0..whole.len() {
        let e = writer.write_to(&mut Full(room)).expect_err("no room");
        assert_eq!(e.kind(), io::ErrorKind::StorageFull, "{room}");
    }
    assert!(writer.write_to(&mut Full(whole.len())).is_ok());
}

#[cfg(target_os = "linux")]
#[test]
fn the_systems_full_device_is_reported() {
    let data = small(1.0);
    let writer = Writer::new().add("w", &[3, 2], &data).unwrap();
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(writer.write_to(&mut full).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_failure_leaves_the_old_file_and_nothing_else() {
    let scratch = Scratch::new();
    let path = scratch.path("x.safetensors");
    save(&path, 1.0);
    let before = std::fs::read(&path).unwrap();
    for room in [0, 10, 1 << 20] {
        let result = atomic::replace(&path, |out| {
            let rest = [7u8; 64];
            (0..room / 64).try_for_each(|_| out.write_all(&rest))?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(scratch.names(), ["x.safetensors"]);
    }
    // A panic while writing cleans up too.
    let panicked = std::panic::catch_unwind(|| atomic::replace(&path, |_| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(scratch.names(), ["x.safetensors"]);
    // And success replaces the file.
    save(&path, 2.0);
    assert_eq!(read(&path, "w"), small(2.0));
    assert_eq!(scratch.names(), ["x.safetensors"]);
}

#[test]
fn a_failing_part_leaves_all_old_parts() {
    let scratch = Scratch::new();
    let folder = scratch.path("model");
    let [a, b, c, d] = [1.0, 2.0, 3.0, 4.0].map(small);
    save(&folder, 9.0);
    // The second part cannot be written: something of its name is in the way.
    std::fs::create_dir(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let e = four([&a, &b, &c, &d]).shard_bytes(50).save(&folder).unwrap_err();
    assert!(e.to_string().contains("model-00002-of-00002.safetensors"), "{e}");
    assert_eq!(read(&folder, "w"), small(9.0));
    let left = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(left, 2, "the old file and the obstacle");
}

#[test]
fn places_that_cannot_be_written() {
    let scratch = Scratch::new();
    let data = small(1.0);
    let writer = Writer::new().add("w", &[3, 2], &data).unwrap();
    let e = writer.save(scratch.path("nowhere/x.safetensors")).unwrap_err();
    assert!(matches!(&e, CheckpointError::Io { action: "write", .. }), "{e}");
    assert!(e.to_string().contains("nowhere/x.safetensors"), "{e}");
    std::fs::create_dir(scratch.path("folder.safetensors")).unwrap();
    let e = writer.save(scratch.path("folder.safetensors")).unwrap_err();
    assert!(e.to_string().contains("there is a directory of this name"), "{e}");
    std::fs::write(scratch.path("plain"), "x").unwrap();
    let e = writer.save(scratch.path("plain")).unwrap_err();
    assert!(e.to_string().starts_with("cannot make the directory"), "{e}");
    assert_eq!(std::fs::read_to_string(scratch.path("plain")).unwrap(), "x");
}

#[test]
fn a_file_that_shrinks_after_opening_is_an_error() {
    let scratch = Scratch::new();
    let path = scratch.path("x.safetensors");
    save(&path, 1.0);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let e = checkpoint.read("w", DType::F32).unwrap_err();
    assert!(
        matches!(&e, CheckpointError::Io { action: "read", source, .. } if source.kind() == io::ErrorKind::UnexpectedEof),
        "{e}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(checkpoint.read("w", DType::F32).is_err());
}

#[test]
fn a_single_file_counts_before_an_index() {
    let scratch = Scratch::new();
    save(scratch.root(), 1.0);
    std::fs::write(scratch.path("model.safetensors.index.json"), "faulty").unwrap();
    assert_eq!(read(scratch.root(), "w"), small(1.0));
    // Saving again removes the stale index.
    save(scratch.root(), 2.0);
    assert_eq!(scratch.names(), ["model.safetensors"]);
    // A file without tensors is a checkpoint too.
    std::fs::write(scratch.path("empty.safetensors"), file("{}", 0)).unwrap();
    assert_eq!(Checkpoint::open(scratch.path("empty.safetensors")).unwrap().tensors().len(), 0);
}
