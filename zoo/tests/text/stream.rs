//! Text token by token is the text all at once, whatever the tokens.

use crate::golden::{folders, read};

/// A small generator, so that failures can be had again.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}

#[test]
fn any_ids_give_the_same_text_in_parts_and_as_the_library() {
    let mut numbers = Numbers(7);
    for folder in folders() {
        let (tokenizer, _) = read(&folder);
        // The library's own decoder is the judge where it is the engine.
        let library = std::fs::read(folder.join("tokenizer.json")).ok();
        let library = library.map(|bytes| tokenizers::Tokenizer::from_bytes(bytes).unwrap());
        for round in 0..300 {
            let count = 1 + numbers.below(24);
            let ids: Vec<u32> = (0..count).map(|_| numbers.below(tokenizer.len() + 3) as u32).collect();
            let skip = round % 2 == 0;
            let mut stream = tokenizer.detokenizer(skip);
            let mut parts: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
            parts.push(stream.finish());
            let whole = tokenizer.decode(&ids, skip);
            assert_eq!(parts.concat(), whole, "{} {ids:?}", folder.display());
            if let Some(library) = &library {
                assert_eq!(whole, library.decode(&ids, skip).unwrap(), "{} {ids:?}", folder.display());
            }
        }
    }
}

#[test]
fn text_comes_while_tokens_arrive() {
    let Some(root) = crate::support::golden() else { return };
    let (tokenizer, _) = read(&root.join("tokenizers/llama3"));
    let ids = tokenizer.encode("a 🦙 b", false).unwrap();
    let mut stream = tokenizer.detokenizer(true);
    let parts: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
    assert_eq!(parts.concat(), "a 🦙 b");
    assert_eq!(stream.finish(), "");
    assert!(parts.iter().filter(|p| p.contains('🦙')).count() == 1);
}
