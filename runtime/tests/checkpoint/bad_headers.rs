//! Files that are no valid safetensors: each has its own error, that says where and what to do.

use super::{Scratch, file};
use mobilis::checkpoint::{Checkpoint, CheckpointError, Encoding, HeaderError};

/// What opening a file of these bytes says.
fn open(bytes: &[u8]) -> Result<Checkpoint, HeaderError> {
    let scratch = Scratch::new();
    let path = scratch.path("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path).map_err(|e| {
        assert!(e.to_string().contains("x.safetensors"), "the message names the file: {e}");
        match e {
            CheckpointError::Header { source, .. } => source,
            other => panic!("not a header's error: {other}"),
        }
    })
}

fn refuse(header: &str, values: usize) -> HeaderError {
    open(&file(header, values)).expect_err(header)
}

fn name(s: &str) -> String {
    s.to_string()
}

const GOOD: &str =
    r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#;

#[test]
fn the_good_one_is_good() {
    let checkpoint = open(&file(GOOD, 16)).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|(n, _)| n).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((checkpoint.total_count(), checkpoint.total_bytes()), (3, 16));
    // Order in the header is free, and so is padding after it.
    let swapped = r#"{"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]},"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}   "#;
    assert_eq!(open(&file(swapped, 16)).unwrap().get("a"), checkpoint.get("a"));
    assert!(open(&file("{}", 0)).is_ok());
    // Tensors without values stand anywhere between the others.
    let empty = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}"#;
    assert_eq!(open(&file(empty, 9)).unwrap().get("e").map(|t| t.count()), Some(0));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = file(GOOD, 16);
    for n in 0..bytes.len() {
        let e = open(&bytes[..n]).expect_err("a truncated file");
        match n {
            0..8 => assert_eq!(e, HeaderError::TooShort { found: n as u64 }),
            n if n < 8 + GOOD.len() => {
                assert_eq!(e, HeaderError::HeaderCutOff { header: GOOD.len() as u64, found: n as u64 - 8 })
            }
            _ => assert!(matches!(e, HeaderError::CutOff { .. }), "{e}"),
        }
    }
    let e = open(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(e, HeaderError::CutOff { tensor: name("b"), end: 16, found: 15 });
    assert!(e.to_string().contains("copy or download it again"));
}

#[test]
fn an_oversized_header_costs_no_memory() {
    let mut bytes = file(GOOD, 16);
    for found in [100_000_001, u64::MAX, 1 << 62] {
        bytes[..8].copy_from_slice(&found.to_le_bytes());
        assert_eq!(open(&bytes).unwrap_err(), HeaderError::Oversized { found, limit: 100_000_000 });
    }
    bytes[..8].copy_from_slice(&99_999_999u64.to_le_bytes());
    assert!(matches!(open(&bytes).unwrap_err(), HeaderError::HeaderCutOff { header: 99_999_999, .. }));
    // A pickle of PyTorch is a zip archive.
    assert!(matches!(open(b"PK\x03\x04\0\0\x08\x08 and so on").unwrap_err(), HeaderError::Oversized { .. }));
}

#[test]
fn text_and_json() {
    let mut bytes = file(GOOD, 16);
    bytes[8 + 2] = 0xFF;
    assert_eq!(open(&bytes).unwrap_err(), HeaderError::Utf8 { position: 2 });
    for header in ["", "[]", " {}", "null", "{", "{\"a\"}", "{}{}", "{}x", "{\"a\":1,}", "{\"a\": 1e999}"] {
        let e = refuse(header, 0);
        assert!(matches!(e, HeaderError::Json { .. }), "{header}: {e}");
    }
    let e = refuse(&format!("{{\"a\":{}", "[".repeat(1_000_000)), 0);
    assert!(matches!(e, HeaderError::Json { .. }), "{e}");
}

#[test]
fn duplicates() {
    let entry = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let e = refuse(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 8);
    assert_eq!(e, HeaderError::Duplicate { tensor: name("a") });
    // Also where the second would be valid beside the first, and where one is spelt in another way.
    let second = r#"{"dtype":"F32","shape":[2],"data_offsets":[8,16]}"#;
    let e = refuse(&format!(r#"{{"a":{entry},"\u0061":{second}}}"#), 16);
    assert_eq!(e, HeaderError::Duplicate { tensor: name("a") });
    let e = refuse(r#"{"__metadata__":{},"__metadata__":{}}"#, 0);
    assert_eq!(e, HeaderError::Duplicate { tensor: name("__metadata__") });
    let twice = r#"{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(
        refuse(twice, 8).to_string(),
        "tensor `a` is described by `dtype`, `shape` and `data_offsets`, but `shape` stands there twice"
    );
}

#[test]
fn metadata() {
    let good = open(&file(r#"{"__metadata__":{"format":"pt"}}"#, 0)).unwrap();
    assert_eq!(good.parts()[0].metadata.get("format").map(String::as_str), Some("pt"));
    for (header, found) in [
        (r#"{"__metadata__":[]}"#, "it is a list"),
        (r#"{"__metadata__":{"a":1}}"#, "`a` is a whole number"),
        (r#"{"__metadata__":{"a":"x","a":"x"}}"#, "`a` stands there twice"),
    ] {
        assert_eq!(refuse(header, 0), HeaderError::Metadata { found: found.into() });
    }
}

#[test]
fn entries() {
    let with = |entry: &str| refuse(&format!(r#"{{"a":{entry}}}"#), 8).to_string();
    for (entry, words) in [
        ("5", "but it is a whole number"),
        ("{}", "`dtype` is missing"),
        (r#"{"dtype":"F32","data_offsets":[0,8]}"#, "`shape` is missing"),
        (r#"{"dtype":"F32","shape":[2]}"#, "`data_offsets` is missing"),
        (r#"{"dtype":"F32","shape":[2],"data_offset":[0,8]}"#, "it has `data_offset`; did you mean `data_offsets`?"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}"#, "it has `x`"),
        (r#"{"dtype":32,"shape":[2],"data_offsets":[0,8]}"#, "`dtype` is a whole number"),
        (r#"{"dtype":"F32","shape":2,"data_offsets":[0,8]}"#, "`shape` is no list of whole numbers"),
        (r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, "`shape` is no list of whole numbers"),
        (r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#, "`shape` is no list of whole numbers"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}"#, "`data_offsets` is no list of two whole numbers"),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}"#, "`data_offsets` is no list"),
        (r#"{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#, "unknown dtype `F33`; did you mean `F32`?"),
        (r#"{"dtype":"float32","shape":[2],"data_offsets":[0,8]}"#, "unknown dtype `float32`"),
    ] {
        let e = with(entry);
        assert!(e.contains("tensor `a`") && e.contains(words), "{entry}: {e}");
    }
}

#[test]
fn shapes_and_lengths() {
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    assert!(matches!(refuse(huge, 0), HeaderError::ShapeOverflow { .. }));
    let hidden = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}"#;
    assert!(matches!(refuse(hidden, 0), HeaderError::ShapeOverflow { .. }));
    let wrong = r#"{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,24]}}"#;
    assert_eq!(
        refuse(wrong, 24).to_string(),
        "tensor `a` of shape [2, 3] and dtype F16 takes 12 bytes, but its offsets enclose 24"
    );
    let bits = r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#;
    assert!(matches!(refuse(bits, 1), HeaderError::Length { encoding: Encoding::F4, .. }));
    let two = r#"{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}"#;
    assert!(open(&file(two, 2)).is_ok());
}

#[test]
fn offsets() {
    let pair = |a: (u64, u64), b: (u64, u64), values: usize| {
        let entry = |(begin, end): (u64, u64)| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end.wrapping_sub(begin))
        };
        refuse(&format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), values)
    };
    assert_eq!(
        pair((0, 8), (6, 12), 12),
        HeaderError::Overlap { first: name("a"), second: name("b"), end: 8, begin: 6 }
    );
    // The same bytes twice, and one inside the other.
    assert!(matches!(pair((0, 8), (0, 8), 8), HeaderError::Overlap { .. }));
    assert!(matches!(pair((0, 8), (2, 4), 8), HeaderError::Overlap { .. }));
    assert_eq!(pair((0, 4), (6, 8), 8), HeaderError::Hole { begin: 4, end: 6, next: name("b") });
    assert_eq!(pair((2, 4), (4, 8), 8), HeaderError::Hole { begin: 0, end: 2, next: name("a") });
    assert_eq!(pair((0, 4), (4, 6), 8), HeaderError::Trailing { found: 2 });
    assert_eq!(pair((0, 4), (4, 6), 5), HeaderError::CutOff { tensor: name("b"), end: 6, found: 5 });
    assert!(matches!(refuse("{}", 1), HeaderError::Trailing { found: 1 }));
    let backwards = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}"#;
    assert_eq!(refuse(backwards, 2), HeaderError::Misordered { tensor: name("a"), begin: 2, end: 0 });
    let beyond = r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[18446744073709551607,18446744073709551615]}}"#;
    assert!(matches!(refuse(beyond, 8), HeaderError::CutOff { .. }));
}

/// Random damage never panics and never reads beyond the file: it is refused, or it changed a
/// value, a name or a shape into another valid one.
#[test]
fn random_damage_does_not_panic() {
    let good = file(GOOD, 16);
    let mut state = 7u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    let scratch = Scratch::new();
    let path = scratch.path("x.safetensors");
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"0123456789{}[],:\""[random(17)]),
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        match Checkpoint::open(&path) {
            Err(_) => refused += 1,
            Ok(c) => {
                for (name, stored) in c.tensors() {
                    assert!(c.parts()[0].values_at + stored.end <= bytes.len() as u64);
                    let _ = c.read(name, mobilis::graph::DType::F32);
                }
            }
        }
    }
    assert!(refused > 1500, "{refused}");
}
