//! Texts for texts: what transformers 5.23 writes with the same model, alone and in a batch.

use crate::support::golden;
use mobilis_zoo::generate::{BeamOptions, Chooser, EarlyStopping, GenerateError, GenerateOptions, Request, Translator};
use mobilis_zoo::import::OpenOptions;
use mobilis_zoo::llm::Config;
use mobilis_zoo::llm::open::{AnyModel, open};
use mobilis_zoo::llm::seq2seq::Seq2SeqModel;

fn model(name: &str) -> Option<Box<dyn Seq2SeqModel>> {
    let place = golden()?.join(name);
    let pretrained = OpenOptions::new().open(place.to_str().unwrap()).unwrap();
    let config = Config::new(name, pretrained.config.clone());
    match open(&config, &*pretrained.tensors).unwrap() {
        AnyModel::Seq2Seq(model) => Some(model),
        _ => panic!("{name} is no encoder-decoder"),
    }
}

fn greedy(sources: &[&[u32]], translator: &Translator) -> Vec<Vec<u32>> {
    let request = |source: &&[u32]| Request { prompt: source.to_vec(), most: 10, chooser: Chooser::greedy(vec![1]) };
    let mut texts = vec![vec![]; sources.len()];
    for event in translator.generate(sources.iter().map(request).collect()).unwrap() {
        let event = event.unwrap();
        texts[event.row].extend(event.token.map(|t| t.id));
    }
    texts
}

const SOURCES: [&[u32]; 2] = [&[5, 9, 12, 7], &[3, 3, 40, 8, 22, 11, 1]];

#[test]
fn the_likeliest_tokens_are_those_of_transformers_whatever_the_batch() {
    let Some(model) = model("t5_gated") else { return };
    let translator = Translator::new(&*model);
    let expected = [[17, 108, 270, 182, 175, 318, 107, 175, 128, 175], [92, 291, 136, 92, 58, 92, 85, 111, 2, 92]];
    assert_eq!(greedy(&SOURCES, &translator), expected);
    for (source, expected) in SOURCES.iter().zip(expected) {
        assert_eq!(greedy(&[source], &translator), [expected]);
    }
    let Some(model) = self::model("bart") else { return };
    let expected: [&[u32]; 2] = [&[271; 10], &[53; 10]];
    assert_eq!(greedy(&SOURCES, &Translator::new(&*model)), expected);
}

#[test]
fn texts_that_end_sooner_leave_the_batch_and_change_no_other() {
    let Some(model) = model("t5_gated") else { return };
    let translator = Translator::new(&*model);
    let ends = |source: &&[u32], most| Request { prompt: source.to_vec(), most, chooser: Chooser::greedy(vec![]) };
    let requests = vec![ends(&SOURCES[0], 1), ends(&SOURCES[0], 2), ends(&SOURCES[1], 10)];
    let mut generation = translator.generate(requests).unwrap();
    let events: Vec<_> = generation.by_ref().map(Result::unwrap).filter(|e| e.row == 2).collect();
    let ids: Vec<u32> = events.iter().filter_map(|e| e.token.as_ref()).map(|t| t.id).collect();
    assert_eq!(ids, [92, 291, 136, 92, 58, 92, 85, 111, 2, 92]);
    // The sources' tokens and a start for each.
    assert_eq!(generation.statistics().prompt_tokens, 4 + 4 + 7 + 3);
}

#[test]
fn beams_are_those_of_transformers() {
    let Some(model) = model("t5_gated") else { return };
    let options = GenerateOptions::default().max_new_tokens(10).stop_tokens(vec![1]);
    let how = BeamOptions { best: 2, early_stopping: EarlyStopping::Heuristic, ..BeamOptions::new(4) };
    let expected: [[(&[u32], f32); 2]; 2] = [
        [
            (&[270, 127, 101, 144, 101, 128, 127, 101, 298, 128], -2.795_394),
            (&[270, 127, 101, 144, 101, 128, 127, 101, 128, 129], -2.817_904),
        ],
        [
            (&[92, 61, 92, 108, 291, 58, 85, 92, 85, 108], -2.661_739),
            (&[92, 61, 92, 108, 291, 58, 85, 92, 85, 85], -2.682_004),
        ],
    ];
    for (source, expected) in SOURCES.iter().zip(expected) {
        let found = Translator::new(&*model).beams(source, &options, how).unwrap();
        assert_eq!(found.len(), 2);
        for (found, (tokens, score)) in found.iter().zip(expected) {
            assert_eq!(found.tokens, tokens);
            assert!((found.score - score).abs() < 1e-4, "{} {score}", found.score);
        }
    }
}

#[test]
fn sources_that_cannot_be_are_refused_in_words() {
    let Some(model) = model("bart") else { return };
    let translator = Translator::new(&*model);
    let error = |prompt: Vec<u32>| {
        let request = Request { prompt, most: 1, chooser: Chooser::greedy(vec![]) };
        translator.generate(vec![request]).err().expect("an error")
    };
    assert!(matches!(error(vec![]), GenerateError::Empty { row: 0 }));
    assert!(matches!(error(vec![4; 100_000]), GenerateError::Long { row: 0, tokens: 100_000, .. }));
    assert!(error(vec![100_000]).to_string().contains("100000"));
    assert!(matches!(translator.generate(vec![]).err(), Some(GenerateError::Nothing)));
}
