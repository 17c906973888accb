//! GGUF files written by hand: what their header says, and every way in which it can be wrong.

use super::Scratch;
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::Encoding;
use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::import::gguf::header::{self, Fault};
use mobilis_zoo::import::gguf::meta::Meta;

/// Bytes in the order of a header.
#[derive(Clone, Default)]
struct File {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    values: usize,
}

fn text(v: &str) -> Vec<u8> {
    [&(v.len() as u64).to_le_bytes()[..], v.as_bytes()].concat()
}

impl File {
    fn key(mut self, key: &str, kind: u32, value: &[u8]) -> File {
        self.keys.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }
    fn list(self, key: &str, kind: u32, count: u64, values: &[u8]) -> File {
        let value = [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat();
        self.key(key, 9, &value)
    }
    /// Sizes innermost first, as the file has them.
    fn tensor(mut self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> File {
        let sizes: Vec<u8> =
            (sizes.len() as u32).to_le_bytes().into_iter().chain(sizes.iter().flat_map(|s| s.to_le_bytes())).collect();
        self.tensors.push([&text(name)[..], &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat());
        self
    }
    fn values(mut self, bytes: usize) -> File {
        self.values = bytes;
        self
    }
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32) + self.values, 0);
        out
    }
}

fn read(bytes: &[u8]) -> Result<header::Header, String> {
    header::read(&mut &bytes[..], bytes.len() as u64).map_err(|e| match e {
        Fault::Format(fault) => fault,
        Fault::Io(e) => panic!("{e}"),
    })
}

fn refused(bytes: &[u8], words: &str) {
    let fault = read(bytes).expect_err(words);
    assert!(fault.contains(words), "{words}: {fault}");
}

#[test]
fn metadata_of_every_type() {
    let file = File::default()
        .key("u8", 0, &[200])
        .key("i8", 1, &[0xFF])
        .key("u16", 2, &[0, 1])
        .key("i16", 3, &[0xFE, 0xFF])
        .key("u32", 4, &7u32.to_le_bytes())
        .key("i32", 5, &(-7i32).to_le_bytes())
        .key("f32", 6, &1e-5f32.to_le_bytes())
        .key("bool", 7, &[1])
        .key("text", 8, &text("é"))
        .key("u64", 10, &u64::MAX.to_le_bytes())
        .key("i64", 11, &(-1i64).to_le_bytes())
        .key("f64", 12, &0.1f64.to_le_bytes())
        .list("texts", 8, 2, &[text("a"), text("")].concat())
        .list("bytes", 1, 3, &[1, 2, 255])
        .list("bools", 7, 2, &[0, 1])
        .list("ints", 5, 2, &[&(-1i32).to_le_bytes()[..], &2i32.to_le_bytes()].concat())
        .list("floats", 6, 1, &0.5f32.to_le_bytes())
        .list("none", 4, 0, &[]);
    let metadata = read(&file.bytes()).expect("read").metadata;
    for (key, value) in [
        ("u8", Meta::Count(200)),
        ("i8", Meta::Int(-1)),
        ("u16", Meta::Count(256)),
        ("i16", Meta::Int(-2)),
        ("u32", Meta::Count(7)),
        ("i32", Meta::Int(-7)),
        ("f32", Meta::Float(1e-5)),
        ("bool", Meta::Bool(true)),
        ("text", Meta::Text("é".into())),
        ("u64", Meta::Count(u64::MAX)),
        ("i64", Meta::Int(-1)),
        ("f64", Meta::Float(0.1)),
        ("texts", Meta::Texts(vec!["a".into(), String::new()])),
        ("bytes", Meta::Bytes(vec![1, 2, 255])),
        ("bools", Meta::Bools(vec![false, true])),
        ("ints", Meta::Ints(vec![-1, 2])),
        ("floats", Meta::Floats(vec![0.5])),
        ("none", Meta::Ints(vec![])),
    ] {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    assert_eq!(metadata.count("u8"), Ok(Some(200)));
    assert!(metadata.count("f32").is_err() && metadata.count("i8").is_err());
    assert!(metadata.need("u9").expect_err("missing").contains("did you mean `u8`?"));
}

#[test]
fn tensors_lie_where_they_are_said_to() {
    let file = File::default()
        .key("general.alignment", 4, &64u32.to_le_bytes())
        .tensor("b", &[32, 2], 8, 64)
        .tensor("a", &[3], 0, 0)
        .values(64 + 68);
    let mut bytes = file.bytes();
    // Values start at a multiple of the alignment.
    let at = (bytes.len() - 132).next_multiple_of(64);
    bytes.resize(at + 132, 0);
    let header = read(&bytes).expect("read");
    let [b, a] = &header.tensors[..] else { panic!("two tensors") };
    assert_eq!((a.encoding, &a.sizes[..], a.begin, a.len), (Encoding::F32, &[3][..], at as u64, 12));
    assert_eq!((b.encoding.name(), &b.sizes[..], b.begin, b.len), ("Q8_0", &[2, 32][..], at as u64 + 64, 68));
}

#[test]
fn faults_are_named() {
    let good = File::default().key("general.architecture", 8, &text("llama")).tensor("a", &[4], 0, 0).values(16);
    assert!(read(&good.bytes()).is_ok());
    refused(b"", "cut off");
    refused(b"GGU", "cut off");
    refused(b"GGML\x03\0\0\0\0\0\0\0", "not with `GGUF`");
    let with = |at: usize, v: &[u8]| {
        let mut bytes = good.bytes();
        bytes[at..at + v.len()].copy_from_slice(v);
        bytes
    };
    refused(&with(4, &[1]), "version is 1");
    refused(&with(4, &[9]), "version is 9");
    refused(&with(4, &[0, 0, 0, 3]), "big-endian");
    refused(&with(8, &u64::MAX.to_le_bytes()), "the list of tensors");
    refused(&with(8, &(1u64 << 40).to_le_bytes()), "the list of tensors");
    refused(&with(16, &(1u64 << 40).to_le_bytes()), "the metadata");
    refused(&with(24, &u64::MAX.to_le_bytes()), "a key of the metadata");
    refused(&with(32, &[0xFF]), "no UTF-8");
    let tensor = |sizes: &[u64], kind, offset| File::default().tensor("a", sizes, kind, offset).values(64).bytes();
    refused(&tensor(&[4], 16, 0), "IQ2_XXS");
    refused(&tensor(&[4], 99, 0), "type 99");
    refused(&tensor(&[33], 8, 0), "whole number of Q8_0 blocks");
    refused(&tensor(&[u64::MAX, u64::MAX], 0, 0), "too large");
    refused(&tensor(&[1 << 40], 0, 0), "cut off");
    refused(&tensor(&[17], 0, 0), "cut off");
    refused(&tensor(&[4], 0, 1), "no multiple of the alignment");
    refused(&tensor(&[4], 0, u64::MAX - 31), "cut off");
    refused(&tensor(&[1; 9], 0, 0), "9 dimensions");
    let two =
        |a: u64, b: u64, name: &str| File::default().tensor("a", &[16], 0, a).tensor(name, &[16], 0, b).values(128);
    assert!(read(&two(64, 0, "b").bytes()).is_ok());
    refused(&two(0, 32, "b").bytes(), "overlap");
    refused(&two(0, 64, "a").bytes(), "two tensors are called `a`");
    let key = |kind, value: &[u8]| File::default().key("k", kind, value).bytes();
    refused(&key(13, &[]), "unknown type 13");
    refused(&key(7, &[2]), "neither 0 nor 1");
    refused(&key(8, &u64::MAX.to_le_bytes()), "the value of `k`");
    refused(&File::default().list("k", 9, 1, &[0; 12]).bytes(), "a list of lists");
    refused(&File::default().list("k", 8, 1 << 60, &[]).bytes(), "the list `k`");
    refused(&File::default().list("k", 4, u64::MAX, &[]).bytes(), "the list `k`");
    refused(&File::default().list("k", 10, 1, &u64::MAX.to_le_bytes()).bytes(), "too much");
    refused(&File::default().key("k", 0, &[1]).key("k", 0, &[1]).bytes(), "stands in its metadata twice");
    refused(&File::default().key("general.alignment", 4, &3u32.to_le_bytes()).bytes(), "no power of two");
}

#[test]
fn cut_off_anywhere_is_an_error() {
    let file = File::default()
        .key("general.architecture", 8, &text("llama"))
        .list("tokens", 8, 3, &[text("a"), text("b"), text("c")].concat())
        .tensor("a", &[4], 0, 0)
        .tensor("b", &[32], 8, 32)
        .values(66);
    let bytes = file.bytes();
    assert!(read(&bytes).is_ok());
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn split_files_are_one() {
    let scratch = Scratch::new("split");
    let part = |i: u16, name: &str| {
        File::default()
            .key("split.count", 2, &2u16.to_le_bytes())
            .key("split.no", 2, &i.to_le_bytes())
            .key("split.tensors.count", 5, &2i32.to_le_bytes())
            .tensor(name, &[4], 0, 0)
            .values(16)
            .bytes()
    };
    let path = |i: u16| scratch.path(&format!("m-0000{i}-of-00002.gguf"));
    std::fs::write(path(1), part(0, "a")).expect("written");
    let missing = Gguf::open(path(1)).expect_err("a part is missing").to_string();
    assert!(missing.contains("m-00002-of-00002.gguf"), "{missing}");
    std::fs::write(path(2), part(1, "b")).expect("written");
    for i in [1, 2] {
        assert_eq!(Gguf::open(path(i)).expect("opened").names(), ["a", "b"]);
    }
    std::fs::write(path(2), part(1, "a")).expect("written");
    assert!(Gguf::open(path(1)).expect_err("twice").to_string().contains("another part holds tensor `a`"));
    std::fs::rename(path(1), scratch.path("m.gguf")).expect("renamed");
    assert!(Gguf::open(scratch.path("m.gguf")).expect_err("no part's name").to_string().contains("is not called"));
}
