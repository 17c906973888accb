//! The vocabulary cases of llama.cpp: `ggml-vocab-NAME.gguf` with texts and the ids of the models' own
//! tokenizers.

use std::collections::BTreeMap;
use std::path::Path;

use mobilis_zoo::text::sentencepiece::PieceKind;
use mobilis_zoo::text::{GgufVocabulary, Tokenizer};

use crate::support::real;

/// A metadata value of a GGUF file.
#[derive(Clone, Debug)]
enum Meta {
    Number(f64),
    Text(String),
    List(Vec<Meta>),
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_first_chunk::<N>().unwrap();
        self.0 = tail;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        String::from_utf8(head.to_vec()).unwrap()
    }

    fn value(&mut self, kind: u32) -> Meta {
        Meta::Number(match kind {
            0 | 7 => f64::from(self.take::<1>()[0]),
            1 => f64::from(self.take::<1>()[0] as i8),
            2 => f64::from(u16::from_le_bytes(self.take())),
            3 => f64::from(i16::from_le_bytes(self.take())),
            4 => f64::from(self.u32()),
            5 => f64::from(self.u32() as i32),
            6 => f64::from(f32::from_le_bytes(self.take())),
            8 => return Meta::Text(self.text()),
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                return Meta::List((0..count).map(|_| self.value(kind)).collect());
            }
            10 | 11 => self.u64() as f64,
            12 => f64::from_le_bytes(self.take()),
            other => panic!("type {other}"),
        })
    }
}

pub fn vocabulary(path: &Path) -> GgufVocabulary {
    let bytes = std::fs::read(path).unwrap();
    let mut reader = Reader(&bytes[8..]);
    let (_, count) = (reader.u64(), reader.u64());
    let mut all = BTreeMap::new();
    for _ in 0..count {
        let (key, kind) = (reader.text(), reader.u32());
        all.insert(key, reader.value(kind));
    }
    let text = |key: &str| match all.get(key) {
        Some(Meta::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let number = |key: &str| match all.get(&format!("tokenizer.ggml.{key}")) {
        Some(Meta::Number(n)) => Some(*n),
        _ => None,
    };
    let list = |key: &str| match all.get(&format!("tokenizer.ggml.{key}")) {
        Some(Meta::List(list)) => list.clone(),
        _ => Vec::new(),
    };
    let texts = |key: &str| list(key).into_iter().map(|m| if let Meta::Text(t) = m { t } else { panic!() }).collect();
    let numbers = |key: &str| -> Vec<f64> {
        list(key).into_iter().map(|m| if let Meta::Number(n) = m { n } else { panic!() }).collect()
    };
    let id = |key: &str| number(&format!("{key}_token_id")).map(|n| n as u32);
    let flag = |key: &str| number(key).map(|n| n != 0.0);
    GgufVocabulary {
        architecture: text("general.architecture").unwrap(),
        model: text("tokenizer.ggml.model").unwrap(),
        pre: text("tokenizer.ggml.pre"),
        tokens: texts("tokens"),
        scores: numbers("scores").into_iter().map(|n| n as f32).collect(),
        types: numbers("token_type").into_iter().map(|n| PieceKind::from_number(n as u64).unwrap()).collect(),
        merges: texts("merges"),
        bos: id("bos"),
        eos: id("eos"),
        eot: id("eot"),
        unknown: id("unknown"),
        separator: id("seperator"),
        padding: id("padding"),
        cls: id("cls"),
        mask: id("mask"),
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
        remove_extra_whitespaces: flag("remove_extra_whitespaces"),
        charsmap: numbers("precompiled_charsmap").into_iter().map(|n| n as i64 as u8).collect(),
        templates: text("tokenizer.chat_template").map(|t| ("default".into(), t)).into_iter().collect(),
    }
}

#[test]
fn ids_are_those_of_the_models_own_tokenizers() {
    let Some(folder) = real("tokenizers") else { return };
    let only = std::env::var("MOBILIS_VOCAB").unwrap_or_default();
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|e| e != "gguf") || !name.contains(&only) {
            continue;
        }
        let start = std::time::Instant::now();
        let vocabulary = vocabulary(&path);
        let read = start.elapsed();
        let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap_or_else(|e| panic!("{name}: {e}"));
        eprintln!("{name}: {} tokens, read {read:?}, made {:?}", tokenizer.len(), start.elapsed() - read);
        let case = |end: &str| std::fs::read_to_string(path.with_file_name(format!("{name}.{end}")));
        let (Ok(inputs), Ok(outputs)) = (case("inp"), case("out")) else { continue };
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        for (text, line) in inputs.iter().zip(outputs.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let found = tokenizer.encode(text, false).unwrap();
            count += 1;
            if found != expected {
                wrong.push(format!("{name} {text:?}\n expected {expected:?}\n found    {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{count} cases");
}
