//! Folders that Hugging Face's library wrote of Parakeets.

use crate::support;
use mobilis_runtime::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_zoo::asr::decode::Labels;
use mobilis_zoo::asr::open::{AsrOptions, open};
use serde_json::json;

type Test = Result<(), Box<dyn std::error::Error>>;

/// The golden folder has no tokenizer: pieces of one letter each stand for its tokens.
#[test]
fn a_folder_says_what_the_reference_hears() -> Test {
    let Some(golden) = support::golden() else { return Ok(()) };
    let from = golden.join("parakeet_ctc");
    let folder = std::env::temp_dir().join(format!("mobilis-parakeet-{}", std::process::id()));
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
    let (opened, values) = (opened?, Checkpoint::open(from.join("golden.safetensors"))?);
    let heard = values.read("feat.audio0", DType::F32)?;
    let best = values.read("out.greedy", DType::I32)?;
    let (Data::F32(heard), Data::I32(best)) = (heard, best) else { return Err("other values".into()) };
    let said = opened.recognizer().transcribe(&[&heard])?.remove(0);
    let mut ids = best[..13].to_vec();
    ids.dedup();
    let expected = Labels::sentence_pieces(pieces).text(ids.into_iter().filter(|id| *id != 32).map(|id| id as u32));
    assert!(!expected.is_empty());
    assert_eq!(said.text, expected);
    Ok(())
}
