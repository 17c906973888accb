use super::*;
use mobilis::nn::{
    AttentionOptions, BoundedKvCache, CrossAttention, GroupedSelfAttention, KvCache, Rotary, SelfAttention,
};
use mobilis::testing::{close, index_values};

type Attention = SelfAttention<Hidden, Heads, HeadDim>;

fn rotating() -> AttentionOptions {
    AttentionOptions { causal: true, rope: Some(Rotary::default()), ..AttentionOptions::default() }
}

/// The last `Time` positions of `Total`.
fn tail(y: &RefArray) -> RefArray {
    RefArray::from_fn(&[2, 5, 8], |at| y.at(&[at[0], at[1] + 3, at[2]]))
}

#[test]
fn attention_from_its_parts() {
    let module = Attention::default().bias();
    let graph = traced(&module, Mode::Eval, |m| vec![m.forward(argument::<(Batch, Time, Hidden), Real>()).raw()]);
    let x = real(&[2, 5, 8], 1);
    let out = run(&graph, std::slice::from_ref(&x));
    let var = |name: &str| {
        let i = graph.vars.iter().position(|v| v.name == name).expect("a variable");
        value_of(&graph.vars[i])
    };
    let project = |x: &RefArray, layer: &str| {
        let (w, b) = (var(&format!("{layer}.weight")), var(&format!("{layer}.bias")));
        RefArray::from_fn(&[2, 5, w.sizes[0]], |at| {
            b.data[at[2]] + (0..w.sizes[1]).map(|i| x.at(&[at[0], at[1], i]) * w.at(&[at[2], i])).sum::<f64>()
        })
    };
    let (q, k, v) = (project(&x.array, "q_proj"), project(&x.array, "k_proj"), project(&x.array, "v_proj"));
    let y = RefArray::from_fn(&[2, 5, 8], |at| {
        let (b, t, head) = (at[0], at[1], at[2] / 4);
        let score =
            |s: usize| (0..4).map(|i| q.at(&[b, t, head * 4 + i]) * k.at(&[b, s, head * 4 + i])).sum::<f64>() / 2.0;
        let weights: Vec<f64> = (0..5).map(|s| score(s).exp()).collect();
        weights.iter().enumerate().map(|(s, w)| w * v.at(&[b, s, at[2]])).sum::<f64>() / weights.iter().sum::<f64>()
    });
    close(&out[0], &project(&y, "o_proj"), 1e-12);
}

#[test]
fn steps_with_a_cache_equal_the_whole() {
    let module = Attention::default().with(rotating()).qk_norm(1e-6);
    let whole = traced(&module, Mode::Eval, |m| vec![m.forward(argument::<(Batch, Total, Hidden), Real>()).raw()]);
    let steps = traced(&module, Mode::Eval, |m| {
        let x = argument::<(Batch, Total, Hidden), Real>();
        let (past, now) = x.split(Total, Past, Time);
        let empty = KvCache::new(argument::<(Batch, Const<0>, Heads, HeadDim), Real>(), argument());
        let (first, cache) = m.step(past, empty);
        let (second, _) = m.step(now, cache);
        vec![first.raw(), second.raw()]
    });
    let x = real(&[2, 8, 8], 1);
    let expected = run(&whole, std::slice::from_ref(&x)).remove(0);
    let nothing = real(&[2, 0, 2, 4], 0);
    let found = run(&steps, &[x, nothing.clone(), nothing]);
    let head = RefArray::from_fn(&[2, 3, 8], |at| expected.at(at));
    close(&found[0], &head, 1e-12);
    close(&found[1], &tail(&expected), 1e-12);
}

#[test]
fn steps_in_place_equal_the_whole() {
    let module = GroupedSelfAttention::<Hidden, Heads, Groups, HeadDim>::default().with(rotating());
    let whole = traced(&module, Mode::Eval, |m| vec![m.forward(argument::<(Batch, Total, Hidden), Real>()).raw()]);
    let cache = BoundedKvCache::<Batch, Limit, Heads, HeadDim>::default();
    let steps = traced(&module, Mode::Eval, |m| {
        let x = argument::<(Batch, Total, Hidden), Real>();
        let (past, now) = x.split(Total, Past, Time);
        let first = m.step_in_place(past, &cache, argument::<(), Index>());
        let second = m.step_in_place(now, &cache, argument::<(), Index>());
        vec![first.raw(), second.raw()]
    });
    assert_eq!(steps.updates.len(), 2, "keys and values are stored");
    let x = real(&[2, 8, 8], 1);
    let expected = run(&whole, std::slice::from_ref(&x)).remove(0);
    let found = run(&steps, &[x, index_values(&[], &[0]), index_values(&[], &[3])]);
    let head = RefArray::from_fn(&[2, 3, 8], |at| expected.at(at));
    close(&found[0], &head, 1e-12);
    close(&found[1], &tail(&expected), 1e-12);
}

#[test]
fn lengths_hide_what_is_padded() {
    let module = CrossAttention::<Hidden, Wide, Heads, HeadDim>::default();
    let graph = traced(&module, Mode::Eval, |m| {
        let memory = m.memory(argument::<(Batch, Source, Wide), Real>());
        let x = argument::<(Batch, Time, Hidden), Real>();
        vec![m.attend(x, memory, |a| a.lengths(argument::<(Batch,), Lengths<Source>>())).raw()]
    });
    let (x, mut memory) = (real(&[2, 5, 8], 1), real(&[2, 7, 6], 2));
    let lengths = index_values(&[2], &[7, 4]);
    let before = run(&graph, &[memory.clone(), x.clone(), lengths.clone()]);
    // What lies behind a length does not matter.
    (4..7).for_each(|s| memory.array.data[(7 + s) * 6..(7 + s + 1) * 6].fill(9.0));
    assert_eq!(before, run(&graph, &[memory.clone(), x.clone(), lengths.clone()]));
    memory.array.data[(7 + 3) * 6] = 9.0;
    assert_ne!(before, run(&graph, &[memory, x, lengths]));
}

#[test]
fn dropout_keeps_the_mean_and_is_off_in_inference() {
    let module = Attention::default().dropout(0.25);
    let forward = |mode| traced(&module, mode, |m| vec![m.forward(argument::<(Batch, Time, Hidden), Real>()).raw()]);
    let (eval, train) = (forward(Mode::Eval), forward(Mode::Train));
    let plain = Attention::default();
    let expected = traced(&plain, Mode::Eval, |m| vec![m.forward(argument::<(Batch, Time, Hidden), Real>()).raw()]);
    let x = [real(&[2, 5, 8], 1)];
    assert_eq!(run(&eval, &x), run(&expected, &x));
    assert_ne!(run(&train, &x)[0], run(&eval, &x)[0]);
}
