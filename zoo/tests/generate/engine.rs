//! Generation against the likeliest token of whole texts.

use crate::{VOCAB, likeliest, model, model_on, random, text, whole};
use mobilis_runtime::Device;
use mobilis_zoo::generate::{
    Chooser, Draft, Event, GenerateError, GenerateOptions, Generation, Generator, Request, Speculation, StopReason,
};
use mobilis_zoo::llm::TextModel;

fn greedy(model: &dyn TextModel, prompt: &[u32], most: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..most {
        tokens.push(likeliest(whole(model, &tokens).last().unwrap()));
    }
    tokens[prompt.len()..].to_vec()
}

fn request(prompt: Vec<u32>, most: usize, ends: &[u32]) -> Request {
    Request { prompt, most, chooser: Chooser::greedy(ends.to_vec()) }
}

/// The tokens of each text, and why it ended.
fn collect(generation: &mut Generation) -> Vec<(Vec<u32>, Option<StopReason>)> {
    let mut out = vec![(vec![], None); generation.texts()];
    for event in generation {
        let Event { row, token, stop, .. } = event.unwrap();
        assert!(out[row].1.is_none(), "nothing comes after the end");
        out[row].0.extend(token.map(|t| t.id));
        out[row].1 = stop;
    }
    out
}

#[test]
fn a_batch_of_unequal_prompts_gives_what_each_gives_alone() {
    for window in [None, Some(6)] {
        let model = model(1, window);
        let prompts = [text(1, 3), text(2, 17), text(3, 1), text(4, 9)];
        let expected: Vec<Vec<u32>> = prompts.iter().map(|p| greedy(&*model, p, 12)).collect();
        let generator = Generator::new(&*model);
        // Texts of different lengths: the batch shrinks twice.
        let most = [12, 3, 0, 7];
        let requests = prompts.iter().zip(most).map(|(p, most)| request(p.clone(), most, &[]));
        let mut generation = generator.generate(requests.collect(), Speculation::None).unwrap();
        for ((found, expected), most) in collect(&mut generation).into_iter().zip(&expected).zip(most) {
            assert_eq!(found, (expected[..most].to_vec(), Some(StopReason::Length)));
        }
        let statistics = generation.statistics();
        assert_eq!((statistics.prompt_tokens, statistics.new_tokens, statistics.calls), (29, 22, 12));
    }
}

/// A GPU draws by itself where no rule has a say, and gives its logits where one has.
#[test]
fn gpus_draw_the_tokens_of_the_cpu() {
    let device = match Device::emulated() {
        Ok(device) => device,
        Err(e) => return eprintln!("skipped: {e}"),
    };
    let options = GenerateOptions::default().seed(3);
    let sampled = options.clone().temperature(0.9).top_k(30).top_p(0.9).min_p(0.01);
    let ruled = sampled.clone().repetition_penalty(1.3);
    let run = |device: Device| {
        let model = model_on(1, None, device);
        let generator = Generator::new(&*model);
        let mut all = vec![];
        for options in [&options, &sampled, &ruled] {
            let requests = (0..2).map(|i| Request {
                prompt: text(i, 5 + 4 * i as usize),
                most: 5 + i as usize,
                chooser: Chooser::new(options.clone(), i),
            });
            all.push(collect(&mut generator.generate(requests.collect(), Speculation::None).unwrap()));
        }
        let lane = generator.lane(1, 8);
        assert_eq!(lane.is_far(), device != Device::Cpu);
        all
    };
    let (found, expected) = (run(device), run(Device::Cpu));
    assert_eq!(found, expected);
    assert_ne!(expected[0], expected[1]);
}

#[test]
fn guesses_change_nothing_but_the_number_of_calls() {
    for window in [None, Some(6)] {
        let target = model(2, window);
        let (other, same) = (random(3), model(2, window));
        let generator = Generator::new(&*target);
        let prompts = [text(1, 12), text(5, 4), text(6, 20)];
        let requests = || prompts.iter().map(|p| request(p.clone(), 40, &[])).collect::<Vec<_>>();
        let mut plain = generator.generate(requests(), Speculation::None).unwrap();
        let expected = collect(&mut plain);
        assert_eq!(expected[0].0, greedy(&*target, &prompts[0], 40));
        let drafts: [(&dyn TextModel, bool); 2] = [(&*other, false), (&*same, true)];
        for (draft, alike) in drafts {
            let lane = Generator::new(draft).lane(3, 96);
            let mut guessed = generator.generate(requests(), Speculation::Draft(Draft::new(lane), 4)).unwrap();
            assert_eq!(collect(&mut guessed), expected);
            let statistics = guessed.statistics();
            assert!(statistics.guessed > 0);
            if alike {
                assert_eq!(statistics.guessed, statistics.accepted);
                assert!(statistics.calls <= 1 + 40usize.div_ceil(5), "{statistics:?}");
            }
        }
        let mut guessed = generator.generate(requests(), Speculation::Lookup(7)).unwrap();
        assert_eq!(collect(&mut guessed), expected);
    }
}

#[test]
fn texts_end_with_a_token_or_with_the_context() {
    let model = random(4);
    let generator = Generator::new(&*model);
    assert_eq!(generator.positions(), 96);
    let prompt = text(2, 5);
    let expected = greedy(&*model, &prompt, 10);
    let end = expected[6];
    let first = expected.iter().position(|t| *t == end).unwrap();
    let mut ended = generator.generate(vec![request(prompt.clone(), 10, &[end])], Speculation::None).unwrap();
    assert_eq!(collect(&mut ended), [(expected[..=first].to_vec(), Some(StopReason::Token(end)))]);

    // 96 positions, and one token that needs none.
    for speculation in [Speculation::None, Speculation::Lookup(8)] {
        let mut long = generator.generate(vec![request(prompt.clone(), usize::MAX, &[])], speculation).unwrap();
        let (tokens, stop) = collect(&mut long).remove(0);
        assert_eq!((tokens.len(), stop), (92, Some(StopReason::Context)));
    }
    let short = Generator::new(&*model).context(7);
    let mut full = short.generate(vec![request(text(2, 7), 9, &[])], Speculation::None).unwrap();
    assert_eq!(collect(&mut full)[0].0.len(), 1);
}

#[test]
fn a_conversation_feeds_only_what_is_new() {
    for window in [None, Some(6)] {
        let model = model(5, window);
        let generator = Generator::new(&*model);
        let mut lane = generator.lane(1, 96);
        let mut all = text(1, 20);
        for turn in 0..3 {
            let asked = request(all.clone(), 5, &[]);
            let mut reply = generator.generate_in(&mut lane, vec![asked], Speculation::None).unwrap();
            let (tokens, _) = collect(&mut reply).remove(0);
            let new = reply.statistics().prompt_tokens;
            assert_eq!(tokens, greedy(&*model, &all, 5));
            assert_eq!(new, if turn == 0 { 20 } else { 4 }, "the last reply's last token and the new ones");
            all.extend(&tokens);
            all.extend(text(turn + 7, 3));
        }
        // Another beginning: what differs is thrown away, all of it where the window has moved on.
        all[10] = (all[10] + 1) % VOCAB as u32;
        let mut reply =
            generator.generate_in(&mut lane, vec![request(all.clone(), 4, &[])], Speculation::None).unwrap();
        assert_eq!(collect(&mut reply)[0].0, greedy(&*model, &all, 4));
        let new = reply.statistics().prompt_tokens;
        assert!(new == all.len() - 10 || window.is_some() && new == all.len(), "{new}");
    }
}

#[test]
fn nothing_is_continued_that_cannot_be() {
    let model = random(6);
    let generator = Generator::new(&*model);
    let error = |requests: Vec<Request>| match generator.generate(requests, Speculation::None) {
        Err(e) => e,
        Ok(mut generation) => generation.find_map(Result::err).expect("an error"),
    };
    assert!(matches!(error(vec![]), GenerateError::Nothing));
    assert!(matches!(error(vec![request(vec![], 3, &[])]), GenerateError::Empty { row: 0 }));
    let long = error(vec![request(text(1, 97), 3, &[])]);
    assert_eq!(
        long.to_string(),
        "text 0 has 97 tokens, there is room for 96: shorten it, or use a model or a session for longer texts"
    );
    let strange = error(vec![request(vec![1], 1, &[]), request(vec![1, 99], 1, &[])]);
    assert_eq!(strange.to_string(), "token 99 of sequence 1 is not one of the model's 61 tokens");
    let mut lane = generator.lane(2, 8);
    let wrong = generator.generate_in(&mut lane, vec![request(vec![1], 1, &[])], Speculation::None);
    assert!(matches!(wrong.err(), Some(GenerateError::Texts { batch: 2, found: 1 })));
}

#[test]
fn windows_score_every_token_but_the_first_once() {
    let model = random(8);
    let generator = Generator::new(&*model);
    let tokens = text(9, 70);
    let nats = |tokens: &[u32], from: usize| -> f64 {
        let logits = whole(&*model, tokens);
        let loss = |i: usize| {
            let total: f64 = logits[i - 1].iter().map(|l| f64::from(*l).exp()).sum();
            total.ln() - f64::from(logits[i - 1][tokens[i] as usize])
        };
        (from..tokens.len()).map(loss).sum()
    };
    let mut lane = generator.lane(1, 40);
    let go = |_, _| std::ops::ControlFlow::Continue(());
    // Windows begin at 0, 20, 40: the last ends with the text.
    let found = lane.perplexity(&tokens, 32, 20, go).unwrap();
    let expected = nats(&tokens[..32], 1) + nats(&tokens[20..52], 12) + nats(&tokens[40..70], 12);
    assert_eq!(found.tokens, 69);
    assert!((found.nats - expected).abs() < 1e-3 * expected, "{} {expected}", found.nats);
    assert!((found.perplexity() - (expected / 69.0).exp()).abs() < 1e-2);
    // Windows larger than the lane, strides beyond windows, texts of one token and of none.
    assert_eq!(lane.perplexity(&tokens, usize::MAX, usize::MAX, go).unwrap().tokens, 69);
    assert_eq!(lane.perplexity(&tokens[..1], 0, 0, go).unwrap().tokens, 0);
    assert_eq!(lane.perplexity(&[], 8, 4, go).unwrap().perplexity(), 1.0);
}
