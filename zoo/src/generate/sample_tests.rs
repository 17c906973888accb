use super::*;
use mobilis_runtime::philox::philox4x32;
use serde_json::Value;

/// Numbers in -4..4 from a counter.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32).map(|i| philox4x32([i, 0, 0, 0], [seed, 1])[0] as f32 / u32::MAX as f32 * 8.0 - 4.0).collect()
}

fn options(value: &Value) -> GenerateOptions {
    let mut o = GenerateOptions::default();
    for (key, value) in value.as_object().unwrap() {
        let real = || value.as_f64().unwrap() as f32;
        let count = || value.as_u64().unwrap() as usize;
        let ids = || -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
        match key.as_str() {
            "temperature" => o.temperature = real(),
            "top_k" => o.top_k = count(),
            "top_p" => o.top_p = real(),
            "min_p" => o.min_p = real(),
            "repetition_penalty" => o.repetition_penalty = real(),
            "presence_penalty" => o.presence_penalty = real(),
            "frequency_penalty" => o.frequency_penalty = real(),
            "logit_bias" => o.logit_bias = serde_json::from_value(value.clone()).unwrap(),
            "no_repeat_ngram_size" => o.no_repeat_ngram_size = count(),
            "bad_words" => o.bad_words = serde_json::from_value(value.clone()).unwrap(),
            "stop_tokens" => o.stop_tokens = ids(),
            "min_new_tokens" => o.min_new_tokens = count(),
            "max_new_tokens" => o.max_new_tokens = count(),
            "suppress_tokens" => o.suppress_tokens = ids(),
            "begin_suppress_tokens" => o.begin_suppress_tokens = ids(),
            "forced_eos_token" => o.forced_eos_token = Some(count() as u32),
            other => panic!("{other}"),
        }
    }
    o
}

/// `tests/data/logits.json`: the processors of `transformers` re-stated in plain Python, in its order.
#[test]
fn rules_and_warpers_are_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../tests/data/logits.json")).unwrap();
    for case in cases {
        let options = options(&case["options"]);
        let mut logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).unwrap();
        let tokens: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
        let prompt = case["prompt"].as_u64().unwrap() as usize;
        penalty::apply(&options, &mut logits, &tokens, prompt, None);
        for (id, (found, expected)) in logits.iter().zip(case["processed"].as_array().unwrap()).enumerate() {
            let expected = expected.as_f64().unwrap_or(f64::NEG_INFINITY) as f32;
            let near = *found == expected || (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
            assert!(near, "{} token {id}: {found} for {expected}", case["options"]);
        }
        if let Some(expected) = case["probabilities"].as_array() {
            let found = Sampler::new(options, 0).probabilities(&logits);
            let mut all = vec![0.0; logits.len()];
            found.iter().for_each(|(id, p)| all[*id as usize] = *p);
            for (id, (found, expected)) in all.iter().zip(expected).enumerate() {
                let expected = expected.as_f64().unwrap();
                assert!((found - expected).abs() < 1e-6, "{} token {id}: {found} for {expected}", case["options"]);
                assert_eq!(*found == 0.0, expected == 0.0, "{} token {id}", case["options"]);
            }
        }
    }
}

#[test]
fn draws_have_the_probabilities_that_they_should() {
    let logits = noise(20, 5);
    let options = GenerateOptions::default().temperature(1.3).top_p(0.9);
    let mut sampler = Sampler::new(options.clone().seed(11), 0);
    let expected = sampler.probabilities(&logits);
    let mut counts = [0u32; 20];
    let draws = 20_000;
    let mut tokens = vec![0];
    for _ in 0..draws {
        let id = sampler.sample(&logits, &tokens, 1, None).unwrap().unwrap().id;
        counts[id as usize] += 1;
        tokens.push(id);
    }
    // Chi squared, three deviations above its mean.
    let mut chi = 0.0;
    for (id, p) in &expected {
        let mean = p * f64::from(draws);
        chi += (f64::from(counts[*id as usize]) - mean).powi(2) / mean;
        counts[*id as usize] = 0;
    }
    assert!(counts.iter().all(|c| *c == 0), "a token outside the nucleus");
    let freedom = (expected.len() - 1) as f64;
    assert!(chi < freedom + 3.0 * (2.0 * freedom).sqrt(), "{chi} for {freedom}");
}

#[test]
fn a_draw_depends_on_seed_sequence_and_step_alone() {
    let logits = noise(1000, 1);
    let options = GenerateOptions::default().temperature(1.0).seed(42);
    let at = |sequence: u32, length: usize| {
        let tokens = vec![3; length];
        Sampler::new(options.clone(), sequence).sample(&logits, &tokens, 5, None).unwrap().unwrap().id
    };
    let first: Vec<u32> = (5..40).map(|n| at(0, n)).collect();
    let mut other = Sampler::new(options.clone(), 0);
    for step in (0..35).rev() {
        let id = other.sample(&logits, &vec![3; 5 + step], 5, None).unwrap().unwrap().id;
        assert_eq!(id, first[step]);
    }
    assert_ne!(first, (5..40).map(|n| at(1, n)).collect::<Vec<_>>());
    assert!(first.iter().collect::<std::collections::HashSet<_>>().len() > 25);
}

#[test]
fn partial_selection_keeps_what_sorting_keeps() {
    for seed in 0..20 {
        let mut logits = noise(5000, seed);
        // Ties, and a few that stand out.
        logits.iter_mut().step_by(7).for_each(|l| *l = (*l * 2.0).round() / 2.0);
        logits[17] = 9.0;
        for (k, p) in [(0, 0.3), (0, 0.95), (0, 0.9999), (40, 1.0), (2000, 0.7), (4999, 0.5), (1, 1.0)] {
            let options = GenerateOptions::default().temperature(0.8).top_k(k).top_p(p);
            let found = Sampler::new(options, 0).probabilities(&logits);
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            if k > 0 {
                let least = logits[order[k - 1]];
                order.retain(|i| logits[*i] >= least);
            }
            let weight = |i: &usize| ((f64::from(logits[*i]) - 9.0) / 0.8).exp();
            let total: f64 = order.iter().map(weight).sum();
            if p < 1.0 {
                let mut before = 0.0;
                let mut kept = Vec::new();
                for i in order {
                    if before >= f64::from(p) * total {
                        break;
                    }
                    before += weight(&i);
                    kept.push(i);
                }
                order = kept;
            }
            order.sort_unstable();
            let ids: Vec<usize> = found.iter().map(|(id, _)| *id as usize).collect();
            assert!(ids.len().abs_diff(order.len()) <= 1, "{k} {p}: {} for {}", ids.len(), order.len());
            let common = ids.iter().filter(|id| order.binary_search(id).is_ok()).count();
            assert!(common + 1 >= order.len(), "{k} {p}");
        }
    }
}

#[test]
fn numbers_that_are_none() {
    let mut greedy = Sampler::new(GenerateOptions::default(), 0);
    let mut warm = Sampler::new(GenerateOptions::default().temperature(1.0).top_k(2).top_p(0.9).min_p(0.1), 0);
    let inf = f32::INFINITY;
    for sampler in [&mut greedy, &mut warm] {
        assert_eq!(sampler.sample(&[1.0, f32::NAN, 2.0], &[0], 1, None), Err(NotNumbers));
        assert_eq!(sampler.sample(&[-inf, -inf], &[0], 1, None), Ok(None));
        assert_eq!(sampler.sample(&[], &[0], 1, None), Ok(None));
        assert_eq!(sampler.sample(&[0.0, inf, 3.0], &[0], 1, None).unwrap().unwrap().id, 1);
        assert_eq!(sampler.sample(&[0.0, 1e30, -1e30], &[0], 1, None).unwrap().unwrap().id, 1);
        assert_eq!(sampler.sample(&[5.0, 1.0], &[0], 1, Some(&|id| id == 1)).unwrap().unwrap().id, 1);
        assert_eq!(sampler.sample(&[5.0, 1.0], &[0], 1, Some(&|_| false)), Ok(None));
    }
    // So cold that only the largest is left.
    let mut cold = Sampler::new(GenerateOptions::default().temperature(1e-38), 0);
    assert_eq!(cold.sample(&[1.0, 1.5, 1.25], &[0], 1, None).unwrap().unwrap().id, 1);
    // Ids of a rule that the vocabulary does not have.
    let options =
        GenerateOptions::default().logit_bias(vec![(9, 1.0)]).suppress_tokens(vec![9]).repetition_penalty(2.0);
    let mut rules = Sampler::new(options, 0);
    assert_eq!(rules.sample(&[1.0, 2.0], &[9, 9], 1, None).unwrap().unwrap().id, 1);
}

#[test]
fn log_probabilities_are_the_models() {
    let logits = [1.0f32, 3.0, 2.0, 3.0];
    let options = GenerateOptions::default().suppress_tokens(vec![1, 3]).logprobs(Some(3));
    let choice = Sampler::new(options, 0).sample(&logits, &[0], 1, None).unwrap().unwrap();
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
    assert_eq!(choice.id, 2);
    assert!((f64::from(choice.logprob.unwrap()) - (2.0 - total)).abs() < 1e-6);
    assert_eq!(choice.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
}
