//! Beam search over sessions against the same bookkeeping over whole texts.

use crate::{model, text, whole};
use mobilis_zoo::generate::{BeamOptions, Beams, EarlyStopping, GenerateOptions, Generator};

#[test]
fn beams_over_caches_are_those_over_whole_texts() {
    for (window, early_stopping) in [(None, EarlyStopping::Never), (Some(6), EarlyStopping::Heuristic)] {
        let model = model(7, window);
        let prompt = text(3, 11);
        let options = BeamOptions { best: 4, early_stopping, ..BeamOptions::new(4) };
        let ends = [5, 17, 40];
        let mut expected = Beams::new(options, 15);
        while !expected.is_over() {
            let score = |tokens: &[u32]| {
                let all = [&prompt[..], tokens].concat();
                let logits = whole(&*model, &all).pop().unwrap();
                let total: f32 = logits.iter().map(|l| l.exp()).sum();
                logits.iter().map(|l| l - total.ln()).collect::<Vec<f32>>()
            };
            let scores: Vec<Vec<f32>> = expected.running().iter().map(|h| score(&h.tokens)).collect();
            expected.step(&scores, &ends);
        }
        let wanted = GenerateOptions::default().max_new_tokens(15).stop_tokens(ends.to_vec());
        let found = Generator::new(&*model).beams(&prompt, &wanted, options).unwrap();
        let expected = expected.best();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.tokens, expected.tokens);
            assert!((found.score - expected.score).abs() < 1e-4);
        }
    }
}
