//! Folders that Hugging Face's library wrote of Parakeets.

use crate::support;
use mobilis_runtime::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_zoo::asr::decode::Labels;
use mobilis_zoo::asr::open::{AnyRecognizer, AsrOptions, open};
use serde_json::json;
use std::path::Path;

type Test = Result<(), Box<dyn std::error::Error>>;

/// A golden folder as a recognizer. It has no tokenizer: pieces of one letter each stand for its tokens.
fn opened(from: &Path) -> Result<(AnyRecognizer, Labels), Box<dyn std::error::Error>> {
    let name = from.file_name().unwrap_or_default().display().to_string();
    let folder = std::env::temp_dir().join(format!("mobilis-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), folder.join(name))?;
    }
    let pieces: Vec<String> = (0..32u8).map(|i| format!("\u{2581}{}", char::from(b'A' + i))).collect();
    let vocab: serde_json::Map<_, _> = pieces.iter().enumerate().map(|(i, p)| (p.clone(), json!(i))).collect();
    let tokenizer = json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": vocab, "unk_token": pieces[0]}});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let opened = open(&folder.display().to_string(), &AsrOptions::default());
    std::fs::remove_dir_all(&folder)?;
    Ok((opened?, Labels::sentence_pieces(pieces)))
}

#[test]
fn a_folder_says_what_the_reference_hears() -> Test {
    let Some(golden) = support::golden() else { return Ok(()) };
    let from = golden.join("parakeet_ctc");
    let ((opened, labels), values) = (opened(&from)?, Checkpoint::open(from.join("golden.safetensors"))?);
    let heard = values.read("feat.audio0", DType::F32)?;
    let best = values.read("out.greedy", DType::I32)?;
    let (Data::F32(heard), Data::I32(best)) = (heard, best) else { return Err("other values".into()) };
    let said = opened.recognizer().transcribe(&[&heard])?.remove(0);
    let mut ids = best[..13].to_vec();
    ids.dedup();
    let expected = labels.text(ids.into_iter().filter(|id| *id != 32).map(|id| id as u32));
    assert!(!expected.is_empty());
    assert_eq!(said.text, expected);
    Ok(())
}

/// Transducers: what `generate` wrote, of the second recording nothing but blanks with one of them.
#[test]
fn transducers_say_what_the_reference_generates() -> Test {
    let Some(golden) = support::golden() else { return Ok(()) };
    for name in ["parakeet_rnnt", "parakeet_tdt"] {
        let from = golden.join(name);
        let ((opened, labels), values) = (opened(&from)?, Checkpoint::open(from.join("golden.safetensors"))?);
        let mut sounds = vec![];
        for i in 0..2 {
            let Data::F32(sound) = values.read(&format!("feat.audio{i}"), DType::F32)? else { continue };
            sounds.push(sound);
        }
        let slices: Vec<&[f32]> = sounds.iter().map(|s| &s[..]).collect();
        let heard = opened.recognizer().transcribe(&slices)?;
        for (i, said) in heard.iter().enumerate() {
            let Data::I32(ids) = values.read(&format!("gen.sequences{i}"), DType::I32)? else { continue };
            let expected = labels.text(ids.into_iter().filter(|id| *id != 32).map(|id| id as u32));
            assert!(i > 0 || !expected.is_empty());
            assert_eq!(said.text, expected, "{name}, recording {i}");
        }
    }
    Ok(())
}
