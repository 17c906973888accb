//! The vocabulary cases of llama.cpp: `ggml-vocab-NAME.gguf` with texts and the ids of the models' own
//! tokenizers.

use mobilis_zoo::import::gguf::Gguf;
use mobilis_zoo::text::Tokenizer;

use crate::support::real;

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
        let vocabulary = Gguf::open(&path).unwrap().metadata().vocabulary().unwrap();
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
